/** The times of audits, all of them multiplied at once: networks on one machine live faster. */
import { check } from '../../base/errors.ts'
import { type JudgeConfig, judgeDefaults } from '../../custody/judge.ts'
import { type OutageConfig, outageDefaults } from '../../custody/outage.ts'
import { type SamplingConfig, samplingDefaults } from '../../custody/sampling.ts'
import { type ScoreConfig, scoreDefaults } from '../../custody/score.ts'

export interface AuditTimes {
  judge: JudgeConfig
  outage: OutageConfig
  sampling: SamplingConfig
  score: ScoreConfig
  /** Between two looks at what is to be asked. */
  tickMs: number
}

const tickMs = 5000
const tickMsMin = 250
export const paceMax = 1000

/**
 * The defaults, `pace` times as fast: epochs, gaps between repeats, the time to a verdict, vetting, forgetting and outages take
 * that much less time, and the budget is that much larger. Deadlines stay: they are about disks and lines.
 *
 * @throws HoldfastError `BAD_INPUT` unless `pace` is from 1 to 1,000
 */
export function auditTimes(pace = 1): AuditTimes {
  check(pace >= 1 && pace <= paceMax, `audits are put at 1 to ${paceMax} times their usual pace, not ${pace}`)
  const faster = (ms: number): number => Math.max(1, Math.round(ms / pace))
  const { vetting } = scoreDefaults
  return {
    judge: {
      ...judgeDefaults,
      repeatGapsMs: judgeDefaults.repeatGapsMs.map(faster),
      verdictDelayMs: faster(judgeDefaults.verdictDelayMs),
      availabilityEveryMs: faster(judgeDefaults.availabilityEveryMs),
      lateWindowMs: faster(judgeDefaults.lateWindowMs)
    },
    outage: {
      ...outageDefaults,
      windowMs: faster(outageDefaults.windowMs),
      suspendedMsMax: faster(outageDefaults.suspendedMsMax)
    },
    sampling: {
      ...samplingDefaults,
      epochMs: faster(samplingDefaults.epochMs),
      periodMs: faster(samplingDefaults.periodMs),
      faultHalfLifeMs: faster(samplingDefaults.faultHalfLifeMs),
      wholeReadEveryMs: faster(samplingDefaults.wholeReadEveryMs),
      bytesPerSecond: samplingDefaults.bytesPerSecond * pace
    },
    score: {
      ...scoreDefaults,
      goodEveryMs: faster(scoreDefaults.goodEveryMs),
      vetting: { ...vetting, ageMsMin: faster(vetting.ageMsMin) }
    },
    tickMs: Math.max(tickMsMin, faster(tickMs))
  }
}
