/** What is made of the figures of chunks where an object is many of them, taken for independent. */
import { quantile } from './statistics.ts'

/** Probability that more than `count` of `of` are, where each is with probability `p`. */
export function moreThan(count: number, of: number, p: number): number {
  if (p <= 0) return 0
  if (p >= 1) return count < of ? 1 : 0
  let total = 0
  let logChoose = 0
  for (let i = 1; i <= of; i++) {
    logChoose += Math.log(of - i + 1) - Math.log(i)
    if (i > count) total += Math.exp(logChoose + i * Math.log(p) + (of - i) * Math.log1p(-p))
  }
  return total
}

export interface ChunkFigures {
  chunks: number
  parities: number
  /** Share of chunks that are lost. */
  lost: number
  /** Of those that are there, share that can't be read in time; of all. */
  unread: number
}

/** An object is lost, or can't be read, once more of its chunks are than it has parities. */
export function objectOf({ chunks, parities, lost, unread }: ChunkFigures): { lost: number; unread: number } {
  const of = chunks + parities
  return { lost: moreThan(parities, of, lost), unread: moreThan(parities, of, unread) }
}

/**
 * Latencies of the object at evenly spaced quantiles: all chunks are asked for at once, and it is there with the
 * `chunks`th. That one's time is nearly that below which a share of chunks / (chunks + parities) of the answers are.
 */
export function objectLatencies(sorted: Float64Array, { chunks, parities }: Pick<ChunkFigures, 'chunks' | 'parities'>) {
  const of = chunks + parities
  const share = chunks / of
  const spread = Math.sqrt((share * (1 - share)) / of)
  const normals = [-1.645, -0.842, -0.253, 0, 0.253, 0.842, 1.645, 2.326]
  return Float64Array.from(normals.map((z) => quantile(sorted, Math.min(1, Math.max(0, share + z * spread))))).sort()
}
