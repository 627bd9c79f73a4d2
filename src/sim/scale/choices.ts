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

/** The alternative to beat: the cheapest of those that none outdoes in both loss and reads for less. */
export function bestOf(verdicts: readonly Verdict[]): Verdict | undefined {
  const least = Math.min(...verdicts.map(({ lost }) => lost.measured))
  const safest = verdicts.filter(({ lost }) => lost.measured === least)
  const most = Math.max(...safest.map(({ done }) => done))
  return safest.filter(({ done }) => done >= most - readTolerance).sort((a, b) => costOf(a) - costOf(b))[0]
}

/**
 * What no code can cost less than, if rebuilding `r` of a segment's shards reads `k` others: stored, and moved in a month in
 * which a share `lost` of all disks goes. With `e = n / k` that is `e (1 + lost (k + r) / r)`; a code that is long enough
 * may let nearly all of its parity go before it repairs, `r -> (e - 1) k`; and `e + lost e^2 / (e - 1)` is least at
 * `e = 1 + sqrt(lost / (1 + lost))`. Codes that repair from less than `k` (regenerating ones) are another matter.
 */
export const leastCost = (lost: number): number => 1 + 2 * lost + 2 * Math.sqrt(lost * (1 + lost))

const codes: ReadonlyArray<readonly [number, number]> = [
  [10, 10],
  [14, 6],
  [20, 10],
  [20, 20],
  [30, 18],
  [40, 40],
  [60, 36],
  [20, 60]
]
const patient = { isMissingUrgent: false, patienceMs: 60 * dayMs }

/** Each code as it is repaired now; with what is missing no more urgent than what is gone; and with less margin. */
export function choiceGrid(): OurChoice[] {
  return codes.flatMap(([k, m]) => {
    const code = { k, m }
    const rules: Array<Partial<OurChoice>> = [
      {},
      patient,
      { ...patient, threshold: Math.ceil(m / 4) },
      { ...patient, threshold: Math.ceil(m / 4), graceMs: 12 * hourMs }
    ]
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
