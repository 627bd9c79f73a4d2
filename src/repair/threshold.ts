/**
 * How long repair may wait, and what it should do first. Pure.
 *
 * Rebuilding one shard reads `k`; rebuilding `r` of a segment at once reads `k` as well. So shards of providers that stay
 * away wait until the margin has shrunk to a threshold, which is where waiting any longer would be a risk: the more
 * providers leave, and the longer a repair takes, the sooner.
 *
 * The models take departures for independent and memoryless. They are not: a domain goes as one, which placement answers
 * (a domain has at most `floor(m / 2)` of a segment, and the threshold is not below `ceil(m / 2)`), not the rates here.
 */
import { dayMs, secondMs } from '../base/limits.ts'
import type { CodeShape } from '../placement/place.ts'

/**
 * A million segments that each come down to the threshold once a year then lose one in a thousand years. It is a bound for
 * the wait alone: what is measured of churn is too little to tell 1e-9 from 1e-12.
 */
export const lossTarget = 1e-9

/**
 * The margin at which a segment is repaired: the smallest from `ceil(m / 2)` to `m - 1` (at least 1) such that it is less
 * likely than `target` that more than so many of the shards then left go while the repair is on its way.
 *
 * @param rate departures per provider and millisecond
 * @param windowMs until what was lost meanwhile is noticed, and the repair done
 */
export function repairThreshold({ k, m }: CodeShape, rate: number, windowMs: number, target = lossTarget): number {
  const most = Math.max(1, m - 1)
  const goes = -Math.expm1(-rate * windowMs)
  for (let margin = Math.max(1, Math.ceil(m / 2)); margin < most; margin++) {
    if (moreThan(margin, k + margin, goes) < target) return margin
  }
  return most
}

/** Down to here whoever is offline within its grace is waited for, as far as the threshold leaves room for that. */
const readableLeast = 3

/**
 * The margin of what can be read at which a segment is repaired, whoever may come back. Above it a shard whose provider is
 * offline within its grace counts towards the threshold: it nearly always comes back, and where a tenth of all are away at
 * any time every segment would be at its threshold now and then, and rebuilt one shard at a time.
 */
export const readableFloor = (threshold: number): number =>
  Math.max(Math.min(threshold, readableLeast), Math.floor(threshold / 2))

/** Probability that more than `count` of `n` go, each with probability `p`. */
function moreThan(count: number, n: number, p: number): number {
  if (p <= 0) return 0
  if (p >= 1) return count < n ? 1 : 0
  let total = 0
  // In logarithms: factorials and powers leave the range of numbers long before their products do.
  let logChoose = 0
  for (let i = 1; i <= n; i++) {
    logChoose += Math.log(n - i + 1) - Math.log(i)
    if (i > count) total += Math.exp(logChoose + i * Math.log(p) + (n - i) * Math.log1p(-p))
  }
  return total
}

/** A shard that has gone unproved for so long counts as one whose provider leaves twice as often. */
const doubtfulMs = 14 * dayMs

export interface ShardAtRisk {
  /** Departures for good of its provider per millisecond. */
  rate: number
  /** Time since it was last proved to be there. */
  unprovedMs: number
}

/**
 * Expected time until fewer than `k` can be read if nobody repairs: with so many shards left each goes at their mean rate.
 *
 * @param readable the shards that can be read now
 */
export function secondsToLoss(k: number, readable: readonly ShardAtRisk[]): number {
  if (readable.length < k) return 0
  let rate = 0
  for (const shard of readable) rate += shard.rate * (1 + Math.max(0, shard.unprovedMs) / doubtfulMs)
  const mean = rate / readable.length
  let expectedMs = 0
  for (let left = k; left <= readable.length; left++) expectedMs += 1 / (left * mean)
  return expectedMs / secondMs
}

export interface RepairModel {
  /** Departures per provider and millisecond. */
  rate: number
  /** Margin at which repair begins. */
  threshold: number
  /** Mean time from then until the segment is whole again. */
  repairMs: number
}

const yearMs = 365.25 * dayMs
const seriesTerms = 24

/**
 * Probability that a segment is lost within a year from now, where it has `margin` shards more than it needs. A Markov chain
 * over the number of shards: each goes at `rate`, and from the threshold down a repair makes the segment whole in
 * `repairMs` on average. Solved for the whole year at once: powers of the chain's matrix, all of whose terms are positive,
 * so that small probabilities keep their digits.
 */
export function lossPerYear(code: CodeShape, margin: number, model: RepairModel): number {
  if (margin < 0) return 1
  const from = Math.min(margin, code.m) + 1
  return yearOf(code, model)[from]![0]!
}

/** `[i][j]`: from a margin of `i - 1` to one of `j - 1` in a year. 0: lost, and stays so. */
function yearOf({ k, m }: CodeShape, { rate, threshold, repairMs }: RepairModel): number[][] {
  const states = m + 2
  const leaving = (state: number): number => (state === 0 ? 0 : (k + state - 1) * rate)
  const repaired = (state: number): number =>
    state > 0 && state - 1 <= threshold && state < states - 1 ? 1 / repairMs : 0
  let fastest = 0
  for (let state = 0; state < states; state++) fastest = Math.max(fastest, leaving(state) + repaired(state))
  if (fastest === 0) return identity(states)
  // Steps short enough for the series, doubled until they make a year.
  const doublings = Math.max(0, Math.ceil(Math.log2(fastest * yearMs)))
  const events = (fastest * yearMs) / 2 ** doublings
  const jump = identity(states).map((row, state) =>
    row.map((own, to) => {
      const stays = own * (1 - (leaving(state) + repaired(state)) / fastest)
      const goes = to === state - 1 ? leaving(state) / fastest : 0
      return stays + goes + (to === states - 1 && to !== state ? repaired(state) / fastest : 0)
    })
  )
  let step = poisson(jump, events)
  for (let i = 0; i < doublings; i++) step = normalised(product(step, step))
  return step
}

/** The chain after a time in which `events` jumps are expected. */
function poisson(jump: readonly number[][], events: number): number[][] {
  let power = identity(jump.length)
  let weight = Math.exp(-events)
  let sum = power.map((row) => row.map((value) => value * weight))
  for (let i = 1; i < seriesTerms; i++) {
    power = product(power, jump)
    weight *= events / i
    const factor = weight
    sum = sum.map((row, at) => row.map((value, to) => value + factor * power[at]![to]!))
  }
  return normalised(sum)
}

const identity = (size: number): number[][] =>
  Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_other, j) => (i === j ? 1 : 0)))

function product(a: readonly number[][], b: readonly number[][]): number[][] {
  return a.map((row) => {
    const result = new Array<number>(b.length).fill(0)
    for (const [via, share] of row.entries()) {
      if (share === 0) continue
      const next = b[via]!
      for (let to = 0; to < result.length; to++) result[to]! += share * next[to]!
    }
    return result
  })
}

/** Rounding must not make or lose probability: doubled forty times it would be felt. */
function normalised(matrix: readonly number[][]): number[][] {
  return matrix.map((row) => {
    const total = row.reduce((sum, value) => sum + value, 0)
    return row.map((value) => value / total)
  })
}
