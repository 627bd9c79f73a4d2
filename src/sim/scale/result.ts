/** What a run of the scale simulator says. */
export interface ScaleResult {
  /** Measured; the time before is not. */
  years: number
  /** In which the bytes of repair were counted. */
  settledYears: number
  segments: number
  providers: number
  /** Real segments that each simulated one stands for. */
  standsFor: number
  /** Segments lost for good, by day. */
  lostByDay: number[]
  /** Of objects. */
  reads: {
    count: number
    /** That ended with `k` answers. */
    done: number
    withinBound: number
    /** Without a hedge. */
    firstTry: number
    /** Of segments that exist, but of which fewer than `k` shards were there. */
    unavailable: number
    /** Of segments that were lost before. */
    lost: number
  }
  /** Of those done, ascending, ms. */
  latencies: Float64Array
  /** Of all simulated segments. */
  userBytes: number
  storedPerByte: number
  repair: {
    jobs: number
    shards: number
    /** Shards that were rebuilt for nothing: the old one was back, or the new one's provider gone. */
    wasted: number
    readBytes: number
    writtenBytes: number
    /** Times that a repair had to wait, for fewer than `k` could be read, or their lines were taken. */
    blocked: number
    /** Mean, from being due until it was done, ms. */
    meanMs: number
    /** Those who wait when the run ends. */
    waiting: number
  }
  /** Segments at each number of shards that can be read, at equal distances over the run. */
  histograms: Array<{ atDays: number; byReadable: number[] }>
  /** At the end. */
  churn: { departuresPerDay: number; threshold: number; medianGraceMs: number }
  shards: { placed: number; unnoticed: number; gone: number; missing: number; ofLost: number }
}

/** Bytes that repair moved, read and written, a byte of data and 30 days. */
export function repairPerByteMonth({ repair, userBytes, settledYears }: ScaleResult): number {
  return (repair.readBytes + repair.writtenBytes) / userBytes / ((settledYears * 365.25) / 30)
}

export const lostOf = ({ lostByDay }: ScaleResult): number => lostByDay.reduce((sum, count) => sum + count, 0)
