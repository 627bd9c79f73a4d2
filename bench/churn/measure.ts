/** One policy under one churn model: what was measured, as figures and as a verdict. */
import type { Verdict } from '../../src/sim/scale/choices.ts'
import { objectLatencies, objectOf } from '../../src/sim/scale/composite.ts'
import { type ScaleParameters, simulateScale } from '../../src/sim/scale/engine.ts'
import type { Policy } from '../../src/sim/scale/policies.ts'
import { lostOf, repairPerByteMonth, type ScaleResult } from '../../src/sim/scale/result.ts'
import { clusteredInterval, quantile, wilson } from '../../src/sim/scale/statistics.ts'
import type { Timeline } from '../../src/sim/scale/timeline.ts'
import { figureOf } from '../harness.ts'
import type { Figure } from '../result.ts'

const million = 1e6

export interface Measured {
  policy: Policy
  result: ScaleResult
  verdict: Verdict
  seconds: number
}

export interface MeasureInit {
  timeline: Timeline
  policy: Policy
  /** Of all segments together, so that every policy takes as much memory. */
  shards: number
  parameters: Omit<ScaleParameters, 'segments'>
}

export function measure({ timeline, policy, shards, parameters }: MeasureInit): Measured {
  const startedAt = performance.now()
  const segments = Math.max(1, Math.floor(shards / (policy.code.k + policy.code.m)))
  const result = simulateScale(timeline, policy, { ...parameters, segments })
  return { policy, result, verdict: verdictOf(policy, result), seconds: (performance.now() - startedAt) / 1000 }
}

/** Of a million in a year. Shares lost are taken over the run, and scaled to a year. */
function verdictOf(policy: Policy, result: ScaleResult): Verdict {
  const { high } = clusteredInterval(result.lostByDay)
  const { reads, segments, years } = result
  const share = (count: number): number => Math.min(1, count / segments)
  const done = reads.done / reads.count
  const common = { label: policy.label, stored: result.storedPerByte, repair: repairPerByteMonth(result) }
  if (policy.composite !== undefined) {
    const { chunks, parities } = policy.composite
    const lost = (count: number): number => objectOf({ chunks, parities, lost: share(count), unread: 0 }).lost
    return {
      ...common,
      lost: { measured: (million * lost(lostOf(result))) / years, high: (million * lost(high)) / years },
      done // of objects: the engine draws all chunks of one
    }
  }
  return {
    ...common,
    lost: { measured: (million * share(lostOf(result))) / years, high: (million * share(high)) / years },
    done
  }
}

/** The row of a table. */
export function figuresOf({ policy, result, verdict }: Measured): Record<string, Figure> {
  const { composite } = policy
  const { reads } = result
  const within = withinBoundOf(policy, result)
  const latencies = composite === undefined ? result.latencies : objectLatencies(result.latencies, composite)
  const one = (unit: string, value: number): Figure => figureOf(unit, [value])
  const latency = (q: number): Figure => one('s', latencies.length === 0 ? 0 : quantile(latencies, q) / 1000)
  const { low, high } = wilson(reads.done, reads.count)
  return {
    lost: one('a year and million', verdict.lost.measured),
    lostAtMost: one('a year and million (95%)', verdict.lost.high),
    unavailable: one('hours a year', (reads.unavailable / Math.max(1, reads.count)) * 24 * 365.25),
    success: one('%', 100 * verdict.done),
    successSpread: one('% (95%)', 50 * (high - low)),
    within10s: one('%', 100 * within),
    firstTry: one('%', (100 * reads.firstTry) / Math.max(1, reads.count)),
    p50: latency(0.5),
    p95: latency(0.95),
    p99: latency(0.99),
    margin: figureOf('shards above k, over time', marginsOf(policy, result, mean)),
    leastMargin: figureOf('shards above k, over time', marginsOf(policy, result, least)),
    stored: one('bytes a byte', verdict.stored),
    repair: one('bytes a byte and month', verdict.repair),
    repairOfStored: one('bytes a stored byte and month', verdict.repair / verdict.stored)
  }
}

/** Share of reads that were done in time. Of many chunks all but the parities have to be: their delays are independent. */
function withinBoundOf({ composite }: Policy, { reads: { count, done, withinBound } }: ScaleResult): number {
  if (composite === undefined || done === 0) return withinBound / Math.max(1, count)
  return (done / count) * (1 - objectOf({ ...composite, lost: 0, unread: 1 - withinBound / done }).unread)
}

/** At equal distances over the run, of what can be read of the segments that are not lost. */
function marginsOf(
  { code }: Policy,
  { histograms }: ScaleResult,
  of: (byReadable: readonly number[]) => number
): number[] {
  const margins = histograms
    .filter(({ byReadable }) => byReadable.some((count) => count > 0))
    .map(({ byReadable }) => of(byReadable) - code.k)
  return margins.length === 0 ? [0] : margins
}

const least = (byReadable: readonly number[]): number => byReadable.findIndex((count) => count > 0)

function mean(byReadable: readonly number[]): number {
  const total = byReadable.reduce((sum, count) => sum + count, 0)
  return byReadable.reduce((sum, count, readable) => sum + count * readable, 0) / total
}
