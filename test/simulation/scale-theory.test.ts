/** What the scale simulator says is held against what can be worked out. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dayMs } from '../../src/base/limits.ts'
import { lossPerYear } from '../../src/repair/threshold.ts'
import { bestOf, costOf, isAsGood, leastCost, matchesOf, type Verdict } from '../../src/sim/scale/choices.ts'
import { moreThan, objectLatencies, objectOf } from '../../src/sim/scale/composite.ts'
import { alternatives, bytesReadFor, ours, storedPerByteOf } from '../../src/sim/scale/policies.ts'
import { rareLoss, yearMs } from '../../src/sim/scale/rare-loss.ts'
import { clusteredInterval, meanInterval, poissonInterval, quantile, wilson } from '../../src/sim/scale/statistics.ts'
import { checkTheory } from '../../src/sim/scale/theory.ts'

describe('losses that can be counted are those of the Markov chain', () => {
  it.each([
    [1, 2, 60, 1, 4],
    [2, 4, 60, 2, 6],
    [2, 4, 60, 3, 6],
    [4, 4, 60, 2, 4],
    [4, 4, 120, 1, 8],
    [6, 6, 60, 3, 8]
  ])('%d+%d, a life of %d days, threshold %d, repaired in %d days', (k, m, lifeDays, threshold, repairDays) => {
    const size = { providers: 150, segments: 120, runs: 8, seed: 'test' }
    const { theory, simulated } = checkTheory({ code: { k, m }, lifeDays, threshold, repairDays }, size)
    expect(theory).toBeGreaterThan(0.01)
    // 95% of one case is too little for six: the interval twice as wide has 99.9%.
    const spread = simulated.high - simulated.mean
    expect(Math.abs(theory - simulated.mean)).toBeLessThan(2 * spread)
    expect(spread / simulated.mean).toBeLessThan(0.5) // or it would agree with anything
  })
})

describe('losses that are too rare', () => {
  const init = { noticeMs: 0, durationMs: yearMs, seed: 'rare', effort: 400, repetitions: 12 }

  it.each([
    [2, 2, 40, 1, 4],
    [4, 4, 60, 2, 2],
    [4, 4, 180, 2, 1],
    [10, 10, 30, 5, 1],
    [6, 4, 365, 2, 0.5]
  ])('%d+%d, a life of %d days, threshold %d, repaired in %d days', (k, m, lifeDays, threshold, repairDays) => {
    const model = { code: { k, m }, rate: 1 / (lifeDays * dayMs), threshold, repairMs: repairDays * dayMs }
    const { mean, high } = rareLoss({ ...model, ...init, isRepairExponential: true })
    const theory = lossPerYear(model.code, m, model)
    expect(Math.abs(theory - mean)).toBeLessThan(2 * (high - mean))
    expect(mean).toBeGreaterThan(0)
    // A repair that takes a fixed time is a race that is seldom lost: the chain errs to the safe side.
    expect(rareLoss({ ...model, ...init, isRepairExponential: false }).mean).toBeLessThan(theory)
  })

  it('are more if it takes time until somebody notices', () => {
    const model = { code: { k: 4, m: 4 }, rate: 1 / (60 * dayMs), threshold: 2, repairMs: dayMs }
    const of = (noticeMs: number): number => rareLoss({ ...model, ...init, noticeMs, isRepairExponential: false }).mean
    expect(of(5 * dayMs)).toBeGreaterThan(2 * of(0))
  })

  it('are the same again with the same seed', () => {
    const model = { code: { k: 2, m: 2 }, rate: 1 / (60 * dayMs), threshold: 1, repairMs: dayMs }
    const of = (seed: string) => rareLoss({ ...model, ...init, seed, isRepairExponential: true })
    expect(of('a')).toEqual(of('a'))
    expect(of('a')).not.toEqual(of('b'))
  })
})

describe('intervals', () => {
  it('hold what they are said to', () => {
    // Garwood's for 0, 1, 10 and 100.
    for (const [count, low, high] of [
      [0, 0, 3.69],
      [1, 0.025, 5.57],
      [10, 4.8, 18.4],
      [100, 81.4, 121.6]
    ] as const) {
      expect(poissonInterval(count).low).toBeCloseTo(low, 0)
      expect(poissonInterval(count).high / high).toBeCloseTo(1, 1)
    }
    expect(wilson(0, 100).low).toBe(0)
    expect(wilson(0, 100).high).toBeCloseTo(0.037, 3)
    expect(wilson(50, 100).low).toBeCloseTo(0.404, 3)
    expect(meanInterval([1, 2, 3]).low).toBeCloseTo(2 - 4.303 / Math.sqrt(3), 9)
  })

  it('are wider where losses come together', () => {
    const even = clusteredInterval(new Array(100).fill(1))
    const once = clusteredInterval([100, ...new Array(99).fill(0)])
    expect(even.high).toBeLessThan(130)
    expect(once.high).toBeGreaterThan(400)
    expect(clusteredInterval([0, 0])).toEqual(poissonInterval(0))
  })
})

describe('policies', () => {
  const storedOf = Object.fromEntries(alternatives.map((policy) => [policy.name, storedPerByteOf(policy)]))

  it('store what they are said to', () => {
    expect(storedOf['replication-3']).toBe(3)
    expect(storedOf['replication-10']).toBe(10)
    expect(storedOf.storj).toBeCloseTo(80 / 29)
    expect(storedOf.sia).toBe(3)
    expect(storedOf.tahoe).toBeCloseTo(10 / 3)
    expect(storedOf.walrus).toBe(4.5)
    expect(storedOf.swarm).toBeCloseTo(4.785, 3)
    expect(storedPerByteOf(ours({ code: { k: 10, m: 10 } }))).toBe(2)
  })

  it('read k shards for a repair, and in two dimensions as much as is lost', () => {
    const of = (name: string) => alternatives.find((policy) => policy.name === name)!
    expect(bytesReadFor(ours({ code: { k: 10, m: 10 } }), 3, 100)).toBe(1000)
    expect(bytesReadFor(of('replication-3'), 1, 100)).toBe(100)
    expect(bytesReadFor(of('storj'), 45, 100)).toBe(2900)
    expect(bytesReadFor(of('walrus'), 2, 100)).toBe(200)
  })

  it('an object of many chunks is lost when more are than it has parities', () => {
    expect(moreThan(0, 1, 0.25)).toBeCloseTo(0.25)
    expect(moreThan(1, 2, 0.5)).toBeCloseTo(0.25)
    expect(moreThan(5, 5, 1)).toBe(0)
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 60 }), (p, of) => {
        const all = Array.from({ length: of }, (_, count) => moreThan(count, of, p))
        for (const [i, probability] of all.entries()) if (i > 0) expect(probability).toBeLessThanOrEqual(all[i - 1]!)
        expect(all[0]).toBeCloseTo(1 - (1 - p) ** of, 9)
      })
    )
    const { lost, unread } = objectOf({ chunks: 107, parities: 21, lost: 0.05, unread: 0.3 })
    expect(lost).toBeLessThan(1e-5)
    expect(unread).toBeGreaterThan(0.99)
    const sorted = Float64Array.from({ length: 1000 }, (_, i) => i)
    const median = quantile(objectLatencies(sorted, { chunks: 107, parities: 21 }), 0.5)
    expect(median / 1000).toBeCloseTo(107 / 128, 1)
  })
})

describe('what is as good, and cheaper', () => {
  const verdict = (label: string, lost: number, done: number, stored: number, repair = 0): Verdict => ({
    label,
    lost: { measured: lost, high: lost },
    done,
    stored,
    repair
  })
  const safe = verdict('safe', 0, 1, 4)
  const cheap = verdict('cheap', 10, 0.999, 2)

  it('the best alternative is the safest, then the one that is read most, then the cheapest', () => {
    expect(bestOf([cheap, safe, verdict('safe too', 0, 1, 3, 0.5), verdict('hard to read', 0, 0.9, 1)])?.label).toBe(
      'safe too'
    )
    expect(bestOf([])).toBeUndefined()
  })

  it('has a bound that no code goes below, however long, and that long ones come near', () => {
    // Shards go one by one, each at the rate `lost` of a month, until `r` have gone.
    const cost = (k: number, n: number, r: number, lost: number): number => {
      let months = 0
      for (let left = n; left > n - r; left--) months += 1 / (left * lost)
      return n / k + (k + r) / k / months
    }
    fc.assert(
      fc.property(
        fc.double({ min: 1e-4, max: 2, noNaN: true }),
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 1, max: 200 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (lost, k, m, share) => {
          const rebuilt = Math.max(1, Math.floor(share * m))
          expect(cost(k, k + m, rebuilt, lost)).toBeGreaterThanOrEqual(leastCost(lost) * (1 - 1e-12))
        }
      )
    )
    expect(cost(10_000, 13_956, 3956, 1 / 6)).toBeCloseTo(leastCost(1 / 6), 3)
    expect(leastCost(0)).toBe(1)
  })

  it('ours is compared only where it is no worse', () => {
    const own = [verdict('a', 0, 1, 3), verdict('b', 5, 1, 1.5, 0.2), verdict('c', 20, 1, 1)]
    const [forSafe, forCheap] = matchesOf(own, [safe, cheap])
    expect(forSafe).toMatchObject({ own: { label: 'a' }, ratio: 0.75 })
    expect(forCheap?.own?.label).toBe('b')
    expect(forCheap?.ratio).toBeCloseTo(0.85)
    expect(matchesOf([cheap], [safe])[0]).toMatchObject({ own: undefined, ratio: undefined })
    expect(isAsGood(verdict('d', 0, 0.99, 1), safe)).toBe(false)
    expect(costOf(own[1]!)).toBeCloseTo(1.7)
  })
})
