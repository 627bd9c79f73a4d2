/**
 * Percentiles of latency from bounded memory: a histogram with four buckets to the doubling, from 1 ms to 65 s, that
 * forgets. A percentile is the geometric middle of its bucket, so it is off by a factor of 2^(1/8) at most: 9.1%.
 */
import { z } from 'zod'

const bucketsPerDoubling = 4
const buckets = 64
/** Of each sample's weight what is left when the next comes: the last 200 matter, half of the weight is in 138. */
const kept = 0.995
/** Below this a bucket is empty: what is kept stays short. */
const weightMin = 1e-6

export const latencyErrorMax = 2 ** (1 / (2 * bucketsPerDoubling)) - 1

/** Weight by bucket, the empty ones at the end left out. */
export const latencyDigestSchema = z.array(z.number().nonnegative()).max(buckets)
export type LatencyDigest = z.infer<typeof latencyDigestSchema>

/** Milliseconds; below 1 and above 65 s they go into the first and the last bucket. */
export function withLatency(digest: LatencyDigest, ms: number): LatencyDigest {
  const bucket = Math.min(buckets - 1, Math.max(0, Math.floor(Math.log2(Math.max(ms, 1)) * bucketsPerDoubling)))
  const next = Array.from({ length: Math.max(digest.length, bucket + 1) }, (_, i) => (digest[i] ?? 0) * kept)
  next[bucket]! += 1
  return next.map((weight) => (weight < weightMin ? 0 : weight))
}

/** @param share 0.5 for the median; undefined while nothing was measured */
export function latencyPercentile(digest: LatencyDigest, share: number): number | undefined {
  const total = digest.reduce((sum, weight) => sum + weight, 0)
  if (total === 0) return undefined
  let below = 0
  const bucket = digest.findIndex((weight) => {
    below += weight
    return weight > 0 && below >= share * total
  })
  return 2 ** (((bucket < 0 ? digest.length - 1 : bucket) + 0.5) / bucketsPerDoubling)
}
