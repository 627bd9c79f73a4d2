/**
 * How a figure comes about: a fixed seed, a warm-up that is thrown away, several samples that are all kept, and an answer
 * that is checked before its time counts.
 */
import { performance } from 'node:perf_hooks'
import type { Figure, Row } from './result.ts'

/** `smoke` shows that a benchmark works; only `full` gives figures worth quoting. */
export type Scale = 'smoke' | 'full'

export interface BenchContext {
  scale: Scale
  seed: number
  /** A directory of this run's own, on the disk to be measured; it is removed afterwards. */
  directory: string
  /** Providers of the network; absent: the benchmark's own number. */
  providers?: number
  /** `K+M` for the gateway; absent: what it chooses for the number of providers. */
  code?: string
  /** Node executables to run the network with; absent: the one that runs this. */
  runtimes: readonly string[]
  /** A directory with peers that the project does not depend on in its `node_modules`. */
  peers?: string
  /** Of a benchmark that has several, the scenarios to run; absent: all. */
  scenarios?: readonly string[]
  /** Says what is being done, for people. */
  progress: (line: string) => void
  signal: AbortSignal
}

export interface Outcome {
  /** What was run, as numbers and words: enough to run it again. */
  parameters: Record<string, number | string>
  /** What a reader has to know to read the figures rightly. */
  notes: readonly string[]
  /** The machine's own limits, where they were measured in the same run. */
  limits?: Row[]
  rows: Row[]
  /** Parts that came to nothing, and why: the others are kept, and the run counts as failed. */
  failures?: readonly string[]
}

export interface Benchmark {
  name: string
  title: string
  run: (context: BenchContext) => Promise<Outcome>
}

export interface Sampling {
  /** Runs whose figures are thrown away. */
  warmups: number
  samples: number
}

export const samplingOf = (scale: Scale): Sampling =>
  scale === 'full' ? { warmups: 1, samples: 5 } : { warmups: 1, samples: 2 }

/** One row of a benchmark: `take` is one sample of all its figures. */
export interface RowSpec<F extends string> {
  id: string
  label: string
  /** Unit of each figure, such as `MB/s`, where MB is 10^6 bytes. */
  units: Record<F, string>
  sampling: Sampling
  take: () => Promise<Record<F, number>>
  signal: AbortSignal
}

export async function measureRow<F extends string>({
  id,
  label,
  units,
  sampling,
  take,
  signal
}: RowSpec<F>): Promise<Row> {
  return { id, label, figures: figuresOf(units, await collect(sampling, take, signal)) }
}

/** Several rows side by side: a sample of each in turn, so that what else goes on falls on all alike. */
export async function measureRows<F extends string>(specs: ReadonlyArray<RowSpec<F>>): Promise<Row[]> {
  const taken = specs.map((): Record<F, number>[] => [])
  const rounds = Math.max(0, ...specs.map(({ sampling }) => sampling.warmups + sampling.samples))
  for (let round = 0; round < rounds; round++) {
    for (const [i, { take, signal }] of specs.entries()) {
      signal.throwIfAborted()
      taken[i]!.push(await take())
    }
  }
  return specs.map(({ id, label, units, sampling }, i) => ({
    id,
    label,
    figures: figuresOf(units, taken[i]!.slice(sampling.warmups))
  }))
}

/** What `take` gives, time after time, without the warm-ups. */
export async function collect<T>(
  { warmups, samples }: Sampling,
  take: () => Promise<T>,
  signal: AbortSignal
): Promise<T[]> {
  const taken: T[] = []
  for (let i = 0; i < warmups + samples; i++) {
    signal.throwIfAborted()
    taken.push(await take())
  }
  return taken.slice(warmups)
}

export function figuresOf<F extends string>(
  units: Record<F, string>,
  samples: ReadonlyArray<Record<F, number>>
): Record<string, Figure> {
  return Object.fromEntries(
    (Object.keys(units) as F[]).map((name) => [
      name,
      figureOf(
        units[name],
        samples.map((sample) => sample[name])
      )
    ])
  )
}

/** @throws RangeError for no samples, or one that is no number */
export function figureOf(unit: string, samples: readonly number[]): Figure {
  if (samples.length === 0 || !samples.every(Number.isFinite))
    throw new RangeError(`not samples: ${samples.join(', ')}`)
  const sorted = samples.toSorted((a, b) => a - b)
  return { unit, median: quantileOf(sorted, 0.5), min: sorted[0]!, max: sorted.at(-1)!, samples: [...samples] }
}

/** Linear between the neighbours. `sorted` ascends and is not empty. */
export function quantileOf(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1)
  const below = sorted[Math.floor(at)]!
  const above = sorted[Math.ceil(at)]!
  return below + (above - below) * (at - Math.floor(at))
}

export interface Timed<T> {
  seconds: number
  /** Of this process, all threads, while `work` ran. */
  cpuSeconds: number
  answer: T
}

/** Times `work` and gives the time only once `verify` has accepted the answer; it throws for a wrong one. */
export async function timed<T>(
  work: () => T | Promise<T>,
  verify: (answer: Awaited<T>) => void | Promise<void>
): Promise<Timed<Awaited<T>>> {
  const cpuBefore = ownCpuSeconds()
  const startedAt = performance.now()
  const answer = await work()
  const seconds = (performance.now() - startedAt) / 1000
  const cpuSeconds = ownCpuSeconds() - cpuBefore
  await verify(answer)
  return { seconds, cpuSeconds, answer }
}

/** Of a wrong answer: the benchmark ends, since the time of a wrong answer means nothing. */
export class WrongAnswerError extends Error {
  constructor(what: string) {
    super(`wrong answer: ${what}`)
    this.name = 'WrongAnswerError'
  }
}

export function expectSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) !== 0) throw new WrongAnswerError(what)
}

/** 10^6 bytes a second. */
export const megabytesPerSecond = (bytes: number, seconds: number): number => bytes / 1e6 / seconds
/** CPU-seconds for 10^9 bytes. */
export const perGigabyte = (cpuSeconds: number, bytes: number): number => (cpuSeconds * 1e9) / bytes

/** What copying, hashing or coding `bytes` cost. */
export const rateUnits = { rate: 'MB/s', cpu: 'CPU-s/GB' } as const

export function ratesOf(
  bytes: number,
  { seconds, cpuSeconds }: Pick<Timed<unknown>, 'seconds' | 'cpuSeconds'>
): Record<'rate' | 'cpu', number> {
  return { rate: megabytesPerSecond(bytes, seconds), cpu: perGigabyte(cpuSeconds, bytes) }
}

/** CPU-seconds that this process has used, all threads. */
export function ownCpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}
