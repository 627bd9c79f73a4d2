/** What a run under churn came to: the same figures whether its processes were real or simulated. */
import { HoldfastError } from '../../base/errors.ts'
import { quantile } from '../scale/statistics.ts'
import type { EventKind } from '../scale/timeline.ts'
import { readMsMax, requestMsMax } from './workload.ts'

export interface ReadDone {
  /** To the first byte of the body, and to the last. */
  firstByteMs: number
  ms: number
  bytes: number
}

/** Counted by the gateway over the run. */
export interface ChurnCounters {
  /** Segments that were read for clients: from the shards that hold the data, or decoded from others. */
  segmentsStraight: number
  segmentsDecoded: number
  /**
   * Shard bytes that were asked for to serve clients, a shard in full whatever came of it; and of these what was of no use:
   * late, cancelled, failed or wrong. Of reads that could not be served nothing is counted.
   */
  fetchedBytes: number
  wastedBytes: number
  repairReadBytes: number
  repairWrittenBytes: number
  /** What these should have been: `k + r` shards for each segment of which `r` were rebuilt. */
  repairTheoryBytes: number
  shardsRebuilt: number
}

/** One look at all segments. */
export interface MarginSample {
  /** Since the beginning of the run. */
  atMs: number
  /** Shards beyond `k` that are at a provider that is there, of the segment with the fewest. */
  least: number
  mean: number
  /** Segments with all of their shards. */
  fullShare: number
}

/** NaN where there are too few for it. */
export interface Spread {
  count: number
  p50: number
  p95: number
  p99: number
  max: number
}

export interface ChurnReport {
  durationMs: number
  reads: {
    asked: number
    /** Whole and, byte for byte, what was stored. */
    done: number
    within10s: number
    /** By error. */
    failures: Record<string, number>
    /** Of all that were asked for: one that failed counts as having taken `requestMsMax`, so that failing never looks fast. */
    firstByteMs: Spread
    ms: Spread
    /** Of those that were done. */
    bytes: number
    /** While it was being read: the median of reads of a MiB or more. NaN without any. */
    megabytesPerSecond: number
  }
  writes: { asked: number; done: number; failures: Record<string, number>; ms: Spread }
  /** All that were done, in the order of their ends. */
  samples: { reads: ReadDone[]; writesMs: number[] }
  counters: ChurnCounters
  margins: MarginSample[]
  /** What happened to providers. */
  events: Record<EventKind, number>
  /** Objects that could not be read once the run was over and everybody who could come back had done so. */
  lostObjects: number
  storedBytes: number
}

const streamBytesMin = 2 ** 20
/** Requests without which a percentile would be the figure of a few: ten are above it. */
const countMinOf = { p95: 200, p99: 1000 }
const failuresMax = 100

export class ChurnRecorder {
  readonly #reads: ReadDone[] = []
  readonly #writesMs: number[] = []
  readonly #failures = { read: new Map<string, number>(), write: new Map<string, number>() }
  readonly #margins: MarginSample[] = []
  readonly #events: Record<EventKind, number> = { off: 0, on: 0, leaves: 0, joins: 0, wiped: 0 }

  read(done: ReadDone): void {
    this.#reads.push(done)
  }

  written(ms: number): void {
    this.#writesMs.push(ms)
  }

  failed(kind: 'read' | 'write', why: string): void {
    const failures = this.#failures[kind]
    const name = failures.has(why) || failures.size < failuresMax ? why : 'others'
    failures.set(name, (failures.get(name) ?? 0) + 1)
  }

  margin(sample: MarginSample): void {
    this.#margins.push(sample)
  }

  happened(kind: EventKind): void {
    this.#events[kind]++
  }

  report(
    durationMs: number,
    counters: ChurnCounters,
    { lostObjects, storedBytes }: { lostObjects: number; storedBytes: number }
  ): ChurnReport {
    const reads = this.#reads
    const failures = { read: Object.fromEntries(this.#failures.read), write: Object.fromEntries(this.#failures.write) }
    const streams = reads.filter(({ bytes }) => bytes >= streamBytesMin).map(({ bytes, ms }) => bytes / 1e3 / ms)
    return {
      durationMs,
      reads: {
        asked: reads.length + sum(failures.read),
        done: reads.length,
        within10s: reads.filter(({ ms }) => ms <= readMsMax).length,
        failures: failures.read,
        firstByteMs: spreadOf(
          reads.map(({ firstByteMs }) => firstByteMs),
          sum(failures.read)
        ),
        ms: spreadOf(
          reads.map(({ ms }) => ms),
          sum(failures.read)
        ),
        bytes: reads.reduce((total, { bytes }) => total + bytes, 0),
        megabytesPerSecond: quantile(streams.sort(ascending), 0.5)
      },
      writes: {
        asked: this.#writesMs.length + sum(failures.write),
        done: this.#writesMs.length,
        failures: failures.write,
        ms: spreadOf(this.#writesMs, sum(failures.write))
      },
      samples: { reads: [...reads], writesMs: [...this.#writesMs] },
      counters,
      margins: [...this.#margins],
      events: { ...this.#events },
      lostObjects,
      storedBytes
    }
  }
}

/** Figures that are compared, each a number. Shares are from 0 to 1. */
export function figuresOfChurn({ reads, counters, margins, lostObjects, storedBytes, durationMs }: ChurnReport) {
  const segments = counters.segmentsStraight + counters.segmentsDecoded
  const repaired = counters.repairReadBytes + counters.repairWrittenBytes
  return {
    success: share(reads.done, reads.asked),
    within10s: share(reads.within10s, reads.asked),
    firstByteMsP50: reads.firstByteMs.p50,
    firstByteMsP95: reads.firstByteMs.p95,
    firstByteMsP99: reads.firstByteMs.p99,
    readMsP50: reads.ms.p50,
    readMsP95: reads.ms.p95,
    readMsP99: reads.ms.p99,
    megabytesPerSecond: reads.megabytesPerSecond,
    readsPerSecond: (reads.asked * 1000) / durationMs,
    askedInVain: share(counters.wastedBytes, counters.fetchedBytes),
    decodeRate: share(counters.segmentsDecoded, segments),
    /** Bytes that repair moved for each byte stored. */
    repairTraffic: share(repaired, storedBytes),
    repairOverTheory: share(repaired, counters.repairTheoryBytes),
    leastMargin: Math.min(...margins.map(({ least }) => least)),
    meanMargin: mean(margins.map((sample) => sample.mean)),
    fullShare: mean(margins.map(({ fullShare }) => fullShare)),
    lostObjects
  } satisfies Record<string, number>
}
export type ChurnFigures = ReturnType<typeof figuresOfChurn>

/** @param failed how many more took `requestMsMax` */
function spreadOf(doneMs: readonly number[], failed: number): Spread {
  const sorted = [...doneMs, ...new Array<number>(failed).fill(requestMsMax)].sort(ascending)
  const count = sorted.length
  const at = (q: number, countMin = 1): number => (count < countMin ? Number.NaN : quantile(sorted, q))
  return {
    count,
    p50: at(0.5),
    p95: at(0.95, countMinOf.p95),
    p99: at(0.99, countMinOf.p99),
    max: sorted.at(-1) ?? Number.NaN
  }
}

const ascending = (a: number, b: number): number => a - b
const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0)
const share = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole)

function mean(values: readonly number[]): number {
  if (values.length === 0) throw new HoldfastError('BAD_INPUT', 'a run without a look at its margins')
  return values.reduce((a, b) => a + b, 0) / values.length
}
