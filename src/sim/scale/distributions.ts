/** Distributions that lifetimes, sessions and latencies are drawn from, and how they are fitted to what was measured. */
import type { Random } from '../../base/random.ts'

/** Times in whatever unit the parameters are in. */
export type Draw = (random: Random) => number

export const exponential =
  (mean: number): Draw =>
  (random) =>
    -Math.log(1 - random.next()) * mean

/** Weibull: with `shape` below 1 whoever has been there for long stays longer. */
export const weibull =
  (scale: number, shape: number): Draw =>
  (random) =>
    scale * (-Math.log(1 - random.next())) ** (1 / shape)

/** By its median; `sigma` is of the logarithm. */
export const lognormal =
  (median: number, sigma: number): Draw =>
  (random) =>
    median * Math.exp(sigma * standardNormal(random))

/** Box and Muller's; one of the two is thrown away, so that a draw leaves no state behind. */
export function standardNormal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
}

/** Mean of a Weibull distribution. */
export const weibullMean = (scale: number, shape: number): number => scale * gamma(1 + 1 / shape)

/** The Weibull distribution that has two given points of its distribution function. */
export function weibullThrough(
  a: { at: number; share: number },
  b: { at: number; share: number }
): { scale: number; shape: number } {
  const [hazardA, hazardB] = [-Math.log(1 - a.share), -Math.log(1 - b.share)]
  const shape = Math.log(hazardB / hazardA) / Math.log(b.at / a.at)
  return { scale: a.at / hazardA ** (1 / shape), shape }
}

/** Lanczos' approximation (g = 7, 9 terms; Numerical Recipes), good to 1e-13 for what is above 0.5. */
export function gamma(x: number): number {
  const coefficients = [
    676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
    -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7
  ]
  const z = x - 1
  const sum = coefficients.reduce((total, c, i) => total + c / (z + i + 1), 0.9999999999998099)
  const t = z + 7.5
  return Math.sqrt(2 * Math.PI) * t ** (z + 0.5) * Math.exp(-t) * sum
}
