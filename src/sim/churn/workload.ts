/**
 * A run under churn: who comes and goes, over what lines, and what is asked meanwhile. It says all of that and does none
 * of it, so that real processes and simulated machines are put through the same.
 */
import { HoldfastError } from '../../base/errors.ts'
import { KiB, MiB, minuteMs, secondMs } from '../../base/limits.ts'
import type { CodeShape } from '../../placement/place.ts'
import { lineOf, roundTripOf } from '../scale/latency.ts'
import { type EventKind, eventKinds, kindOf, providerOf, secondOf, type Timeline } from '../scale/timeline.ts'
import { type SeededRandom, seededRandom } from '../seeded-random.ts'

export interface ChurnWorkload {
  seed: number
  code: CodeShape
  /** Its seconds are those of the trace: `speed` of them pass in a second of the run. */
  timeline: Timeline
  speed: number
  /** Of the run, once everything is stored and well. */
  durationMs: number
  /** Stored before the run, of sizes evenly spread over the orders of magnitude from `bytesMin` to `bytesMax`. */
  objects: number
  bytesMin: number
  bytesMax: number
  /** Each asks for one thing at a time. */
  clients: number
  /** Between a client's requests, exponentially distributed: mean. */
  pauseMs: number
  /** Of all requests, the share that writes an object anew; the others read one. */
  writeShare: number
  /** Region of the gateway and of its clients: an index of `regions`. */
  region: number
  /** Whether providers are as far away as their regions are, and their lines as narrow; else they are next door. */
  hasLines: boolean
  /** For how long the gateway lets a provider be away, and lone losses wait for more: of the run, not of the trace. */
  offlineGraceMs: number
  repairPatienceMs: number
}

export const churnDefaults = {
  seed: 1,
  speed: 60,
  durationMs: 10 * minuteMs,
  objects: 100,
  bytesMin: 16 * KiB,
  bytesMax: 4 * MiB,
  clients: 4,
  pauseMs: 250,
  writeShare: 0.1,
  region: 0,
  hasLines: true,
  offlineGraceMs: 10 * secondMs,
  repairPatienceMs: 30 * secondMs
} as const satisfies Omit<ChurnWorkload, 'code' | 'timeline'>

/** A read that takes longer than this has not been served in time, and a request that takes `requestMsMax` has failed. */
export const readMsMax = 10 * secondMs
export const requestMsMax = minuteMs
/** At the end an object counts as lost when it can't be read for so long, however often that is tried. */
export const readBackMsMax = minuteMs
/** Between two looks at how many shards of everything are there: live, a look takes some of the gateway's CPU. */
export const lookEveryMsMax = 3 * secondMs
/** One look at least, however short the run is. */
export const lookEveryMsOf = ({ durationMs }: Pick<ChurnWorkload, 'durationMs'>): number =>
  Math.min(durationMs, lookEveryMsMax)

/** Something that happens to a provider, in milliseconds from the beginning of the run. */
export interface ChurnEvent {
  atMs: number
  provider: number
  kind: EventKind
}

/** In order of time, up to the end of the run. */
export function eventsOf({ timeline, speed, durationMs }: ChurnWorkload): ChurnEvent[] {
  const events: ChurnEvent[] = []
  for (const event of timeline.events) {
    const atMs = (secondOf(event) * secondMs) / speed
    if (atMs >= durationMs) break
    events.push({ atMs, provider: providerOf(event), kind: eventKinds[kindOf(event)]! })
  }
  return events
}

/** How a provider is reached from the gateway. */
export interface ProviderLine {
  /** A way there and back. */
  roundTripMs: number
  /** Each way, of all its connections together. */
  bytesPerSecond: number
}

/**
 * By provider; undefined for one next door. What follows it in its place has the same line. Round trips follow the region
 * and the provider; the width is drawn for the provider, whatever its region: what `lineOf` says of a stream is here what
 * all of a provider's connections share.
 */
export function linesOf({ timeline, seed, region, hasLines }: ChurnWorkload): Array<ProviderLine | undefined> {
  const random = seededRandom(`churn lines ${seed}`)
  return timeline.traits.map((traits) => {
    const { slowness, bytesPerMs } = lineOf(traits.region, random)
    if (!hasLines) return undefined
    return {
      roundTripMs: Math.round(roundTripOf(region, traits.region) * slowness),
      bytesPerSecond: Math.round(bytesPerMs * secondMs)
    }
  })
}

/** What fails with a provider, as it names it to others. */
export const domainOf = ({ timeline }: ChurnWorkload, provider: number): string =>
  `operator-${timeline.traits[provider]!.operator}`

export const keyOf = (object: number): string => `object-${String(object).padStart(4, '0')}`

/** Length of an object; it stays, whatever is written in its place. */
export function sizesOf({ seed, objects, bytesMin, bytesMax }: ChurnWorkload): number[] {
  const random = seededRandom(`churn sizes ${seed}`)
  // One of each of as many equal strata: the sum hardly depends on the seed.
  return random.shuffle(
    Array.from({ length: objects }, (_, i) =>
      Math.floor(bytesMin * (bytesMax / bytesMin) ** ((i + random.next()) / objects))
    )
  )
}

export interface ChurnRequest {
  /** Before it is made, since the client's last one was answered. */
  pauseMs: number
  kind: 'read' | 'write'
  object: number
}

/** What a client asks for, one after another, without an end. Objects are its own to write: no two write the same. */
export function* requestsOf(workload: ChurnWorkload, client: number): Generator<ChurnRequest, never> {
  const { seed, objects, clients, pauseMs, writeShare } = workload
  const random: SeededRandom = seededRandom(`churn client ${seed}/${client}`)
  for (;;) {
    const pause = random.exponential(pauseMs)
    const isWrite = random.chance(writeShare)
    const any = random.int(objects)
    const own = Math.min(objects - 1, any - (any % clients) + client)
    const isOwn = own % clients === client
    yield { pauseMs: pause, kind: isWrite && isOwn ? 'write' : 'read', object: isWrite && isOwn ? own : any }
  }
}

/** @throws HoldfastError `BAD_INPUT` for a run that can't be made */
export function checkWorkload(workload: ChurnWorkload): void {
  const { code, timeline, speed, durationMs, objects, bytesMin, bytesMax, clients, writeShare } = workload
  const providers = timeline.traits.length
  const refuse = (why: string): never => {
    throw new HoldfastError('BAD_INPUT', why)
  }
  if (code.k + code.m > providers)
    refuse(`${code.k}+${code.m} needs ${code.k + code.m} providers, and the trace has ${providers}`)
  if (!(speed > 0) || !(durationMs > 0)) refuse('speed and duration are above zero')
  if (timeline.seconds * secondMs < durationMs * speed) {
    const seconds = Math.ceil((durationMs * speed) / secondMs)
    refuse(`the trace ends after ${timeline.seconds} s: ${seconds} are needed at that speed and duration`)
  }
  if (!(objects >= clients) || !(clients > 0)) refuse('there is a client at least, and an object for each')
  if (!(bytesMin > 0) || !(bytesMax >= bytesMin)) refuse('objects have a byte at least')
  if (!(writeShare >= 0 && writeShare <= 1)) refuse('the share of writes is from 0 to 1')
}
