/**
 * How soon a provider that kept less than it should is caught, and what that costs. Pure arithmetic on the numbers of
 * `sampling.ts`, checked against a simulation of it.
 *
 * A provider has `N` shards; of their bytes it lost a fraction `f`: that part of *every* shard, or `fN` shards *whole*.
 * Each epoch each shard is asked for with probability `p`, for one chunk drawn uniformly; `E` epochs a day, and `r`
 * whole-shard reads a day, at exponential times, of a shard drawn uniformly. Unseen for a day it stays with
 *
 *     part:   (1 - p f)^(N E)    e^(-r)       a chunk is lost with probability f, and every whole read sees it
 *     whole:  (1 - p)^(f N E)    e^(-r f)     a lost shard shows itself whenever it is asked for
 *
 * To first order both are `e^(-p f N E)` times the reads' share: which way bytes were lost matters for reads only. `d`
 * days: the `d`-th power. Left out, so the truth is better: shards that are due (whole: every lost shard is asked for
 * within the period, surely), clients' reads, and that after the first fault eight times as much is asked.
 *
 * This is how soon evidence is there, of a provider that answers. One that is silent about what it lost instead is
 * caught as much later as repeats and verdict take (76 minutes by default); one that answers audits but no reads at all
 * by the whole-shard reads alone: `1 - e^(-r)`, and that much later.
 */
import { dayMs, limits } from '../base/limits.ts'
import { challengeChunkBytes } from './audit-messages.ts'
import { proofsPerEpoch, type SamplingConfig, sampleProbability, samplingDefaults } from './sampling.ts'

export type LossShape = 'part' | 'whole'

const epochsPerDay = (config: SamplingConfig): number => dayMs / config.epochMs

/**
 * Probability that one day's audits give evidence.
 *
 * @param lostShare 0 to 1; of `whole` shards rounded to a number of shards, of `part` to chunks of a 1 MiB shard
 */
export function detectionPerDay(
  shape: LossShape,
  shards: number,
  lostShare: number,
  config: SamplingConfig = samplingDefaults
): number {
  const probability = sampleProbability(shards, 1, config)
  const reads = dayMs / config.wholeReadEveryMs
  const chunks = limits.shardBytesMax / challengeChunkBytes
  const lost = shape === 'part' ? Math.round(lostShare * chunks) / chunks : Math.round(lostShare * shards) / shards
  if (shards === 0 || lost === 0) return 0
  const rounds = epochsPerDay(config)
  const unseen =
    shape === 'part'
      ? (1 - probability * lost) ** (shards * rounds) * Math.exp(-reads)
      : (1 - probability) ** (lost * shards * rounds) * Math.exp(-reads * lost)
  return 1 - unseen
}

/** Within how many days it is caught with that probability. */
export function daysUntilDetected(
  shape: LossShape,
  shards: number,
  lostShare: number,
  confidence = 0.99,
  config: SamplingConfig = samplingDefaults
): number {
  const perDay = detectionPerDay(shape, shards, lostShare, config)
  return perDay === 0 ? Number.POSITIVE_INFINITY : Math.log(1 - confidence) / Math.log(1 - perDay)
}

/** What auditing one provider moves, both ways, in a day without faults. */
export function bytesPerDay(
  shards: number,
  config: SamplingConfig = samplingDefaults
): { proofs: number; wholes: number } {
  const challenges = shards * proofsPerEpoch(sampleProbability(shards, 1, config), config)
  return {
    proofs: epochsPerDay(config) * (config.requestBytes + challenges * config.challengeBytes),
    wholes: (dayMs / config.wholeReadEveryMs) * limits.shardBytesMax
  }
}

/** For the defaults, as Markdown: what `ARCHITECTURE.md` shows. */
export function detectionTable(config: SamplingConfig = samplingDefaults): string {
  const shares = [0.001, 0.01, 0.1, 0.5]
  const percent = (probability: number): string => {
    if (probability === 0) return '-'
    return probability > 0.9999 ? '> 99.99%' : `${(probability * 100).toFixed(probability > 0.99 ? 2 : 1)}%`
  }
  const rows = [100, 1000, 10_000].flatMap((shards) =>
    (['part', 'whole'] as const).map((shape) => {
      const chances = shares.map((share) => percent(detectionPerDay(shape, shards, share, config)))
      const { proofs, wholes } = bytesPerDay(shards, config)
      const lost = shape === 'part' ? 'that part of each' : 'so many whole'
      return [shards, lost, ...chances, `${Math.round(proofs / 1000)} kB`, `${(wholes / 1e6).toFixed(1)} MB`]
    })
  )
  const head = ['shards', 'lost', ...shares.map((share) => `${share * 100}%`), 'proofs a day', 'whole reads a day']
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
