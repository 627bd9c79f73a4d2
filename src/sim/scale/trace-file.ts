/**
 * Traces in a text file (FORMATS.md, "Traces"): a provider a line, seconds between its events in base 36. Strict: what a
 * writer would not have written is refused.
 */
import { HoldfastError } from '../../base/errors.ts'
import {
  eventKinds,
  followers,
  kindOf,
  type ProviderTraits,
  providerOf,
  providersMax,
  secondOf,
  secondsMax,
  stateAfter,
  type Timeline,
  TimelineBuilder
} from './timeline.ts'

export const traceBytesMax = 64 * 2 ** 20
const textMax = 500
const traitMax = 2 ** 16

/** One for each of `eventKinds`. */
const marks = ['-', '+', 'x', '*', '!'] as const
const headers = ['holdfast-trace', 'model', 'origin', 'generator', 'seconds', 'providers'] as const

export interface TraceOrigin {
  model: string
  /** Where the model's numbers come from. */
  origin: string
  /** The command that writes the same file again. */
  generator: string
}

export interface TraceFile extends TraceOrigin {
  timeline: Timeline
}

export function writeTrace({ model, origin, generator, timeline }: TraceFile): string {
  const { traits, isOnAtStart, seconds, events } = timeline
  const own = traits.map(({ region, operator, network, version }, i) => [
    `${region} ${operator} ${network} ${version} ${isOnAtStart[i] === 1 ? '+' : '-'}`
  ])
  const last = new Float64Array(traits.length)
  for (const event of events) {
    const provider = providerOf(event)
    own[provider]!.push(`${(secondOf(event) - last[provider]!).toString(36)}${marks[kindOf(event)]}`)
    last[provider] = secondOf(event)
  }
  const values = ['1', model, origin, generator, String(seconds), String(traits.length)]
  const head = headers.map((name, i) => `${name}: ${values[i]!.replaceAll(/\s+/g, ' ').slice(0, textMax)}`)
  return `${[...head, ...own.map((parts) => parts.join(' '))].join('\n')}\n`
}

/** @throws HoldfastError BAD_INPUT, with the line, for what is no trace */
export function readTrace(text: string): TraceFile {
  if (text.length > traceBytesMax) throw refused(0, 'too large')
  const lines = text.split('\n')
  if (lines.pop() !== '') throw refused(lines.length + 1, 'the last line does not end')
  const [version, model, origin, generator, seconds, providers] = headers.map((name, i) =>
    header(lines[i], name, i + 1)
  )
  if (version !== '1') throw refused(1, 'not of version 1')
  const count = integer(providers!, providersMax, 6)
  const limit = integer(seconds!, secondsMax, 5)
  if (count === 0 || limit === 0) throw refused(5, 'nobody, or no time')
  if (lines.length !== headers.length + count) throw refused(lines.length, 'not as many lines as providers')
  const builder = new TimelineBuilder()
  const isOnAtStart = new Uint8Array(count)
  const traits = lines.slice(headers.length).map((line, provider) => {
    const { traits: own, isOn } = providerLine(line, provider, limit, builder)
    isOnAtStart[provider] = isOn ? 1 : 0
    return own
  })
  return { model: model!, origin: origin!, generator: generator!, timeline: builder.build(traits, isOnAtStart, limit) }
}

function header(line: string | undefined, name: string, number: number): string {
  const prefix = `${name}: `
  if (line === undefined || !line.startsWith(prefix) || line.length > prefix.length + textMax)
    throw refused(number, `expected ${prefix.trim()}`)
  return line.slice(prefix.length)
}

function providerLine(
  line: string,
  provider: number,
  limit: number,
  builder: TimelineBuilder
): { traits: ProviderTraits; isOn: boolean } {
  const number = headers.length + provider + 1
  const [region, operator, network, version, start, ...tokens] = line.split(' ')
  if (start !== '+' && start !== '-') throw refused(number, 'neither there nor away at the beginning')
  const trait = (value: string | undefined, max = traitMax): number => integer(value ?? '', max, number)
  const traits = {
    region: trait(region, 5),
    operator: trait(operator),
    network: trait(network),
    version: trait(version)
  }
  let state: keyof typeof followers = start === '+' ? 'on' : 'off'
  let second = 0
  for (const token of tokens) {
    const match = /^([1-9a-z][0-9a-z]{0,5})([-+x*!])$/.exec(token)
    if (match === null) throw refused(number, `no event: ${token.slice(0, 20)}`)
    const kind = eventKinds[marks.indexOf(match[2] as (typeof marks)[number])]!
    if (!followers[state].includes(kind)) throw refused(number, `${kind} while it is ${state}`)
    second += Number.parseInt(match[1]!, 36)
    if (second >= limit) throw refused(number, 'an event after the end')
    builder.add(second, provider, kind)
    state = stateAfter(kind)
  }
  return { traits, isOn: start === '+' }
}

function integer(text: string, max: number, line: number): number {
  if (!/^(0|[1-9]\d{0,8})$/.test(text) || Number(text) > max) throw refused(line, `not a number up to ${max}`)
  return Number(text)
}

function refused(line: number, why: string): HoldfastError {
  return new HoldfastError('BAD_INPUT', `not a trace: line ${line}: ${why}`)
}
