/**
 * Whether the simulator foretells what real processes do: figures of one workload, run both ways, side by side. The bounds
 * are what the simulator claims for itself; what it leaves out (the cost of computing, and of a machine that all processes
 * share) is what they have to hold.
 */
import { type ChurnFigures, type ChurnReport, figuresOfChurn } from './report.ts'

/** `by`: the difference may be so large. `factor`: either may be so many times the other, and `by` more. */
interface Bound {
  by: number
  factor: number
}

/** Not judged: p99, throughput, the least margin, which requests failed by what, and all of writes. */
export const agreementBounds = {
  success: { by: 0.02, factor: 1 },
  within10s: { by: 0.03, factor: 1 },
  firstByteMsP50: { by: 40, factor: 1.5 },
  firstByteMsP95: { by: 100, factor: 2 },
  readMsP50: { by: 40, factor: 1.5 },
  readMsP95: { by: 100, factor: 2 },
  decodeRate: { by: 0.1, factor: 1 },
  askedInVain: { by: 0.1, factor: 1 },
  repairTraffic: { by: 0.1, factor: 1.3 },
  repairOverTheory: { by: 0.15, factor: 1 },
  meanMargin: { by: 0.5, factor: 1 },
  fullShare: { by: 0.15, factor: 1 },
  lostObjects: { by: 0, factor: 1 }
} as const satisfies Partial<Record<keyof ChurnFigures, Bound>>

export interface Agreement {
  figure: keyof typeof agreementBounds
  live: number
  simulated: number
  bound: Bound
  isWithin: boolean
}

/** Without figures that either has none of, such as a percentile of few reads. */
export function agreementOf(live: ChurnReport, simulated: ChurnReport): Agreement[] {
  const [real, foretold] = [figuresOfChurn(live), figuresOfChurn(simulated)]
  return (Object.keys(agreementBounds) as Array<keyof typeof agreementBounds>).flatMap((figure) => {
    const bound: Bound = agreementBounds[figure]
    const [a, b] = [real[figure], foretold[figure]]
    if (Number.isNaN(a) || Number.isNaN(b)) return []
    return [
      { figure, live: a, simulated: b, bound, isWithin: Math.max(a, b) <= bound.factor * Math.min(a, b) + bound.by }
    ]
  })
}
