/** Runs that theory has an answer for: independent exponential departures, and repairs that take an exponential time. */
import { dayMs } from '../../base/limits.ts'
import type { CodeShape } from '../../placement/place.ts'
import { lossPerYear } from '../../repair/threshold.ts'
import { type ChurnModel, timelineOf } from './churn-models.ts'
import { exponential } from './distributions.ts'
import { scaleDefaults, simulateScale } from './engine.ts'
import { ours } from './policies.ts'
import { yearMs } from './rare-loss.ts'
import { lostOf } from './result.ts'
import { type Interval, meanInterval } from './statistics.ts'

export interface TheoryCase {
  code: CodeShape
  /** Mean life of a provider. */
  lifeDays: number
  threshold: number
  repairDays: number
}

export interface TheorySize {
  providers: number
  segments: number
  /** Independent runs: segments of one run have providers in common, so the interval is of the runs' means. */
  runs: number
  seed: number | string
}

export interface TheoryCheck {
  /** Probability of loss within a year, of a segment that is whole. */
  theory: number
  simulated: Interval & { mean: number }
  samples: number[]
}

/** The seldom-lost end of what counting can see, and the often-lost one. */
export const theoryGrid: readonly TheoryCase[] = [
  { code: { k: 1, m: 2 }, lifeDays: 60, threshold: 1, repairDays: 4 },
  { code: { k: 2, m: 2 }, lifeDays: 60, threshold: 1, repairDays: 4 },
  { code: { k: 2, m: 4 }, lifeDays: 30, threshold: 2, repairDays: 4 },
  { code: { k: 2, m: 4 }, lifeDays: 30, threshold: 3, repairDays: 4 },
  { code: { k: 4, m: 4 }, lifeDays: 60, threshold: 2, repairDays: 4 },
  { code: { k: 4, m: 4 }, lifeDays: 120, threshold: 1, repairDays: 8 },
  { code: { k: 10, m: 10 }, lifeDays: 30, threshold: 5, repairDays: 3 },
  { code: { k: 10, m: 10 }, lifeDays: 30, threshold: 8, repairDays: 6 },
  { code: { k: 10, m: 10 }, lifeDays: 60, threshold: 3, repairDays: 6 }
]

const warmupMs = dayMs

export function checkTheory(
  { code, lifeDays, threshold, repairDays }: TheoryCase,
  { providers, segments, runs, seed }: TheorySize
): TheoryCheck {
  const rate = 1 / (lifeDays * dayMs)
  const never = (): number => Number.POSITIVE_INFINITY
  const model: ChurnModel = {
    name: 'theory',
    what: 'Always there until it leaves for good, exponentially.',
    source: 'the Markov chain',
    sessionOf: () => ({ on: never, off: never, life: exponential(1 / rate), wipedShare: 0, onShare: 1 })
  }
  const patienceMs = Number.POSITIVE_INFINITY
  // Or all cases of one life would have the same luck.
  const own = `${seed}/${code.k}+${code.m}/${lifeDays}/${threshold}/${repairDays}`
  const policy = ours({ code, graceMs: 0, graceSpan: 1, threshold, patienceMs, isMissingUrgent: false })
  const samples = Array.from({ length: runs }, (_, run) => {
    const timeline = timelineOf(model, { seed: `${own}/${run}`, providers, durationMs: yearMs + warmupMs })
    const result = simulateScale(timeline, policy, {
      ...scaleDefaults,
      seed: `${own}/${run}`,
      segments,
      warmupMs,
      noticeMs: 0,
      reads: 0,
      exponentialRepairMs: repairDays * dayMs
    })
    return lostOf(result) / segments
  })
  const theory = lossPerYear(code, code.m, { rate, threshold, repairMs: repairDays * dayMs })
  return { theory, simulated: meanInterval(samples), samples }
}
