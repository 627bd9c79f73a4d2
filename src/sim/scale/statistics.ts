/** Intervals for what a simulation counts: all at 95%. */

const z95 = 1.959963984540054

export interface Interval {
  low: number
  high: number
}

/** Of a share, by Wilson's formula: right also where all or none are. */
export function wilson(hits: number, of: number): Interval {
  if (of === 0) return { low: 0, high: 1 }
  const share = hits / of
  const centre = share + z95 ** 2 / (2 * of)
  const spread = z95 * Math.sqrt((share * (1 - share)) / of + z95 ** 2 / (4 * of ** 2))
  const scale = 1 + z95 ** 2 / of
  return { low: hits === 0 ? 0 : (centre - spread) / scale, high: Math.min(1, (centre + spread) / scale) }
}

/** Of a Poisson count's mean (Garwood, with Wilson and Hilferty's chi-square): nothing counted is at most 3.7. */
export function poissonInterval(count: number): Interval {
  return {
    low: count === 0 ? 0 : count * (1 - 1 / (9 * count) - z95 / (3 * Math.sqrt(count))) ** 3,
    high: (count + 1) * (1 - 1 / (9 * (count + 1)) + z95 / (3 * Math.sqrt(count + 1))) ** 3
  }
}

/**
 * The same where losses come in clusters: as many independent events as the spread between equal times says. One disaster
 * that takes a thousand segments is one event.
 */
export function clusteredInterval(perTime: ArrayLike<number>): Interval {
  const counts = Array.from(perTime)
  const total = counts.reduce((sum, count) => sum + count, 0)
  const mean = total / counts.length
  const variance = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / Math.max(1, counts.length - 1)
  const cluster = total === 0 ? 1 : Math.max(1, variance / mean)
  const { low, high } = poissonInterval(total / cluster)
  return { low: low * cluster, high: high * cluster }
}

/** Student's t at 97.5% (Hill's approximation would be longer than the table). */
const t975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131]

/** Of the mean of independent samples. @throws RangeError for fewer than two */
export function meanInterval(samples: readonly number[]): Interval & { mean: number } {
  if (samples.length < 2) throw new RangeError('an interval needs two samples')
  const mean = samples.reduce((sum, sample) => sum + sample, 0) / samples.length
  const variance = samples.reduce((sum, sample) => sum + (sample - mean) ** 2, 0) / (samples.length - 1)
  const spread = (t975[samples.length - 2] ?? 2.1) * Math.sqrt(variance / samples.length)
  return { mean, low: mean - spread, high: mean + spread }
}

/** Linear between neighbours. `sorted` ascends. NaN where there is nothing. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  if (sorted.length === 0) return Number.NaN
  const at = q * (sorted.length - 1)
  const below = sorted[Math.floor(at)]!
  const above = sorted[Math.ceil(at)]!
  return below + (above - below) * (at - Math.floor(at))
}
