/**
 * Which of our choices would have done at least as well as an alternative for the fewest bytes: every code and rule of a
 * small grid is put through the same timeline, and judged by what was measured.
 */
import { dayMs, hourMs } from '../../base/limits.ts'
import { type OurChoice, ourDefaults } from './policies.ts'

/** What a policy costs and what it gives, under one churn model. */
export interface Verdict {
  label: string
  /** Lost within a year, of a million objects, and what may be behind it. */
  lost: { measured: number; high: number }
  /** Reads that ended with the object, whatever it took. */
  done: number
  /** Bytes a byte: stored. */
  stored: number
  /** Bytes a byte and 30 days: read and written by repair. */
  repair: number
}

/** Stored, and moved in a month. */
export const costOf = ({ stored, repair }: Pick<Verdict, 'stored' | 'repair'>): number => stored + repair

/** The aim: at most this much of the best alternative's cost. */
export const costAim = 0.7

/**
 * No worse in what was measured: as few lost, as many reads done. What neither lost is equal as far as so many segments
 * can tell; the interval says how far that is.
 */
export function isAsGood(own: Verdict, other: Verdict): boolean {
  return own.lost.measured <= other.lost.measured && own.done >= other.done - readTolerance
}

/** Less than this many reads is chance. */
export const readTolerance = 2e-5

export interface Match {
  alternative: Verdict
  /** The cheapest of ours that is as good; none may be. */
  own: Verdict | undefined
  /** Of the costs. */
  ratio: number | undefined
}

/** For each alternative the cheapest of ours that gives as much. */
export function matchesOf(own: readonly Verdict[], alternatives: readonly Verdict[]): Match[] {
  return alternatives.map((alternative) => {
    const good = own.filter((one) => isAsGood(one, alternative)).sort((a, b) => costOf(a) - costOf(b))
    const best = good[0]
    return { alternative, own: best, ratio: best === undefined ? undefined : costOf(best) / costOf(alternative) }
  })
}

/** In the label of its row. */
export const bestMark = '(the best)'

/** The alternative to beat: the cheapest of those that none outdoes in both loss and reads for less. */
export function bestOf(verdicts: readonly Verdict[]): Verdict | undefined {
  const least = Math.min(...verdicts.map(({ lost }) => lost.measured))
  const safest = verdicts.filter(({ lost }) => lost.measured === least)
  const most = Math.max(...safest.map(({ done }) => done))
  return safest.filter(({ done }) => done >= most - readTolerance).sort((a, b) => costOf(a) - costOf(b))[0]
}

/**
 * What no MDS code can cost less than, whoever repairs it when, if a repair reads `k` shards: stored (all of the `n / k`
 * that was bought), and moved in a month in which a share `lost` of all disks goes.
 *
 * A segment of `n` shards loses its first `r` in `ln(n / (n - r)) / lost` months, for what is lost already is not lost
 * again, and `k + r` shards are moved then. That is least for the largest `r`, which leaves `k` (a code that is long enough
 * comes near it): with `e = n / k` it costs `e + lost e / ln e`. Its least is where `(ln e)^2 = lost (1 - ln e)`.
 *
 * That `k` is read for one shard is what regenerating codes do away with (Dimakis et al., Network Coding for Distributed
 * Storage Systems, 2010; Walrus is of their kind). That churn times stored bytes sets the traffic, whatever the policy, is
 * Blake and Rodrigues, High Availability, Scalable Storage, Dynamic Peer Networks: Pick Two (HotOS 2003); that a code needs
 * less than copies for the same loss, Weatherspoon and Kubiatowicz, Erasure Coding vs. Replication (IPTPS 2002).
 */
export function leastCost(lost: number): number {
  if (lost <= 0) return 1
  const logStored = (Math.sqrt(lost * lost + 4 * lost) - lost) / 2
  return Math.exp(logStored) * (1 + lost / logStored)
}

const codes: ReadonlyArray<readonly [number, number]> = [
  [10, 10],
  [14, 12],
  [14, 6],
  [40, 30],
  [80, 34],
  [20, 60],
  [10, 60]
]
const patient = { isMissingUrgent: false, patienceMs: 180 * dayMs }

/**
 * Each code as it is repaired now; with what is missing no more urgent than what is gone, which the product does not do;
 * and with less margin.
 */
export function choiceGrid(): OurChoice[] {
  return codes.flatMap(([k, m]) => {
    const code = { k, m }
    const rules: Array<Partial<OurChoice>> = [{}, patient, { ...patient, threshold: Math.ceil(m / 5) }]
    return rules.map((rule) => ({ ...ourDefaults, ...rule, code }))
  })
}

export function describeChoice({ code, graceMs, patienceMs, isMissingUrgent, threshold }: OurChoice): string {
  return [
    `${code.k}+${code.m}`,
    `grace ${graceMs / hourMs} h`,
    `patience ${patienceMs / dayMs} d`,
    isMissingUrgent ? 'missing at once' : 'missing waits',
    ...(threshold === undefined ? [] : [`threshold ${threshold}`])
  ].join(', ')
}
