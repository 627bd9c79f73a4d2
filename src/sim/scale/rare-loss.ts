/**
 * Losses too rare to be counted, by importance splitting (Kahn and Harris 1951; fixed effort, as in Garvels 2000): the way
 * to a loss leads over every margin, so each level is a simulation of its own, which begins where the one before reached it.
 * The product of the shares is an unbiased estimate, and its spread is taken from independent repetitions.
 *
 * One segment by itself: shards go independently at `rate`, are known to be gone after `noticeMs`, and from the threshold
 * down a repair takes `repairMs`. Where that is exponential and nothing has to be noticed this is the Markov chain of
 * `lossPerYear`, and a test holds the two together; where it takes a fixed time, as it nearly does, the chain is wrong by
 * what `bench/churn` shows.
 */
import { dayMs } from '../../base/limits.ts'
import type { CodeShape } from '../../placement/place.ts'
import { type SeededRandom, seededRandom } from '../seeded-random.ts'
import { type Interval, meanInterval } from './statistics.ts'

export interface RareLossModel {
  code: CodeShape
  /** Of each shard, per millisecond. */
  rate: number
  /** Margin at which a repair begins, counting only what is known to be gone. */
  threshold: number
  repairMs: number
  isRepairExponential: boolean
  /** Until a shard that is gone is known to be. */
  noticeMs: number
  durationMs: number
}

export interface RareLossInit extends RareLossModel {
  seed: number | string
  /** Simulations of each level. */
  effort: number
  repetitions: number
}

export interface RareLoss extends Interval {
  mean: number
  repetitions: number[]
}

/** A segment at one moment, with all that its future depends on. */
interface State {
  atMs: number
  alive: number
  /** Infinite: none goes on. */
  repairedAtMs: number
  /** When each of those that are gone is noticed to be, ascending, as far as nobody has. */
  noticedAtMs: readonly number[]
}

export const yearMs = 365.25 * dayMs

/** Probability that a segment that is whole is lost within the time. */
export function rareLoss({ seed, effort, repetitions, ...model }: RareLossInit): RareLoss {
  const random = seededRandom(`${seed}/rare-loss`)
  const samples = Array.from({ length: repetitions }, (_, i) => once(model, effort, random.fork(`repetition${i}`)))
  const interval = meanInterval(samples)
  return { ...interval, low: Math.max(0, interval.low), repetitions: samples }
}

function once(model: RareLossModel, effort: number, random: SeededRandom): number {
  const { k, m } = model.code
  let entrances: State[] = [{ atMs: 0, alive: k + m, repairedAtMs: Number.POSITIVE_INFINITY, noticedAtMs: [] }]
  let probability = 1
  for (let alive = k + m - 1; alive >= k - 1; alive--) {
    const reached: State[] = []
    for (let i = 0; i < effort; i++) {
      const end = descend(model, entrances[i % entrances.length]!, alive, random)
      if (end !== undefined) reached.push(end)
    }
    if (reached.length === 0) return 0
    probability *= reached.length / effort
    // Drawn again, or those that come first would count for more.
    entrances = random.shuffle(reached)
  }
  return probability
}

/** @returns where it first had so few, or undefined if the time was over before */
function descend(model: RareLossModel, from: State, alive: number, random: SeededRandom): State | undefined {
  const { code, rate, noticeMs, durationMs } = model
  const n = code.k + code.m
  let { atMs, repairedAtMs } = from
  let left = from.alive
  let noticed = [...from.noticedAtMs]
  for (;;) {
    const failsAtMs = atMs + random.exponential(1 / (left * rate))
    const noticeAtMs = noticed[0] ?? Number.POSITIVE_INFINITY
    atMs = Math.min(failsAtMs, repairedAtMs, noticeAtMs)
    if (atMs >= durationMs) return undefined
    if (atMs === failsAtMs) {
      left--
      noticed.push(atMs + noticeMs)
      if (left === alive) {
        if (noticeMs === 0) {
          noticed = []
          repairedAtMs = begun(model, left, 0, repairedAtMs, atMs, random)
        }
        return { atMs, alive: left, repairedAtMs, noticedAtMs: noticed }
      }
    }
    if (atMs === repairedAtMs) {
      // Rebuilds what is known to be gone.
      left = n - noticed.length
      repairedAtMs = Number.POSITIVE_INFINITY
    }
    while (noticed.length > 0 && noticed[0]! <= atMs) noticed.shift()
    repairedAtMs = begun(model, left, noticed.length, repairedAtMs, atMs, random)
  }
}

/** When the repair ends that goes on, or that begins now since the margin is known to be low. */
function begun(
  { code, threshold, repairMs, isRepairExponential }: RareLossModel,
  alive: number,
  unnoticed: number,
  repairedAtMs: number,
  atMs: number,
  random: SeededRandom
): number {
  const known = alive + unnoticed
  if (repairedAtMs !== Number.POSITIVE_INFINITY || known >= code.k + code.m || known - code.k > threshold)
    return repairedAtMs
  return atMs + (isRepairExponential ? random.exponential(repairMs) : repairMs)
}
