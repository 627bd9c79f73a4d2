import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dayMs, hourMs } from '../../src/base/limits.ts'
import { lossPerYear, readableFloor, repairThreshold, secondsToLoss } from '../../src/repair/threshold.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'

const codes = fc.record({ k: fc.integer({ min: 1, max: 30 }), m: fc.integer({ min: 1, max: 50 }) })
const rates = fc.double({ min: 1e-14, max: 1e-5, noNaN: true })
const windows = fc.double({ min: 0, max: 30 * dayMs, noNaN: true })

describe('the threshold of repair', () => {
  it.each([
    ['4+4', 180, 1, 2],
    ['4+4', 180, 2, 3],
    ['10+10', 180, 2, 5],
    ['10+10', 10, 2, 6],
    ['10+10', 1, 48, 9],
    ['4+2', 180, 2, 1],
    ['1+6', 180, 2, 3]
  ])('of %s where providers leave in %i days and a repair takes %i hours is %i', (code, days, hours, threshold) => {
    const [k, m] = code.split('+').map(Number) as [number, number]
    expect(repairThreshold({ k, m }, 1 / (days * dayMs), hours * hourMs)).toBe(threshold)
  })

  it('counts whoever is offline down to half of it, and not below three', () => {
    expect([1, 2, 3, 4, 5, 7, 8, 20].map(readableFloor)).toEqual([1, 2, 3, 3, 3, 3, 4, 10])
  })

  it('is within its bounds, and does not fall when providers leave more often or repairs take longer', () => {
    fc.assert(
      fc.property(codes, rates, windows, fc.double({ min: 1, max: 50, noNaN: true }), (code, rate, window, factor) => {
        const threshold = repairThreshold(code, rate, window)
        expect(threshold).toBeGreaterThanOrEqual(Math.min(Math.max(1, Math.ceil(code.m / 2)), Math.max(1, code.m - 1)))
        expect(threshold).toBeLessThanOrEqual(Math.max(1, code.m - 1))
        expect(repairThreshold(code, rate * factor, window)).toBeGreaterThanOrEqual(threshold)
        expect(repairThreshold(code, rate, window * factor)).toBeGreaterThanOrEqual(threshold)
      })
    )
  })
})

describe('the time to a loss', () => {
  const shards = (count: number, rate = 1e-9, unprovedMs = 0) =>
    Array.from({ length: count }, () => ({ rate, unprovedMs }))

  it('is none where too few can be read', () => {
    expect(secondsToLoss(4, shards(3))).toBe(0)
  })

  it('is that of one death after another', () => {
    expect(secondsToLoss(1, shards(1, 1e-6))).toBeCloseTo(1000)
    expect(secondsToLoss(2, shards(3, 1e-6))).toBeCloseTo(1000 * (1 / 2 + 1 / 3))
  })

  it('is less with less margin, with providers that leave more often, and with shards that were not proved for long', () => {
    const whole = secondsToLoss(4, shards(8))
    expect(secondsToLoss(4, shards(7))).toBeLessThan(whole)
    expect(secondsToLoss(4, [...shards(7), { rate: 1e-8, unprovedMs: 0 }])).toBeLessThan(whole)
    expect(secondsToLoss(4, [...shards(7), { rate: 1e-9, unprovedMs: 60 * dayMs }])).toBeLessThan(whole)
  })
})

describe('the probability of loss in a year', () => {
  it('is what a simulation of the same chain gives', () => {
    const random = seededRandom('loss per year')
    const yearMs = 365.25 * dayMs
    // High rates, or a simulation would see nothing.
    for (const { k, m, threshold, rate, repairMs, margin } of [
      { k: 2, m: 2, threshold: 1, rate: 1 / (40 * dayMs), repairMs: 4 * dayMs, margin: 2 },
      { k: 3, m: 4, threshold: 2, rate: 1 / (30 * dayMs), repairMs: 8 * dayMs, margin: 1 }
    ]) {
      const runs = 4000
      let lost = 0
      for (let run = 0; run < runs; run++) {
        let left = k + margin
        for (let at = 0; left >= k; ) {
          const dies = left * rate
          const heals = left - k <= threshold && left < k + m ? 1 / repairMs : 0
          at -= Math.log(1 - random.next()) / (dies + heals)
          if (at > yearMs) break
          left = random.next() * (dies + heals) < dies ? left - 1 : k + m
        }
        if (left < k) lost++
      }
      const expected = lossPerYear({ k, m }, margin, { rate, threshold, repairMs })
      // Four standard deviations.
      expect(Math.abs(lost / runs - expected)).toBeLessThan(4 * Math.sqrt((expected * (1 - expected)) / runs))
      expect(expected).toBeGreaterThan(0.02)
    }
  })

  it('keeps its digits where it is small', () => {
    // 1+1 without repair: both go within the year, each by itself.
    const rate = 1e-9 / dayMs
    const gone = -Math.expm1(-rate * 365.25 * dayMs)
    const model = { rate, threshold: -1, repairMs: hourMs }
    expect(lossPerYear({ k: 1, m: 1 }, 1, model) / gone ** 2).toBeCloseTo(1, 4)
    expect(
      lossPerYear({ k: 10, m: 10 }, 10, { rate: 1 / (180 * dayMs), threshold: 5, repairMs: 2 * hourMs })
    ).toBeLessThan(1e-9)
  })

  it('is 1 for what is lost, and falls with margin and quicker repair', () => {
    const model = { rate: 1 / (30 * dayMs), threshold: 2, repairMs: dayMs }
    const code = { k: 4, m: 4 }
    expect(lossPerYear(code, -1, model)).toBe(1)
    for (let margin = 0; margin < 4; margin++)
      expect(lossPerYear(code, margin + 1, model)).toBeLessThan(lossPerYear(code, margin, model))
    expect(lossPerYear(code, 2, { ...model, repairMs: hourMs })).toBeLessThan(lossPerYear(code, 2, model))
    expect(lossPerYear(code, 2, { ...model, rate: 0 })).toBe(0)
  })
})
