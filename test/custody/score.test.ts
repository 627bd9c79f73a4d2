import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dayMs, hourMs, minuteMs } from '../../src/base/limits.ts'
import type { JudgeEffect } from '../../src/custody/judge.ts'
import { latencyErrorMax, latencyPercentile, withLatency } from '../../src/custody/latency-digest.ts'
import {
  betaValue,
  isLosing,
  newScore,
  type ScoreState,
  scoreDefaults,
  scored,
  scoreReport,
  scoreStateSchema
} from '../../src/custody/score.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'

const good = (at: number, challenges = 3): JudgeEffect => ({ kind: 'good', challenges, at })
const lost = (at: number, outcome: 'missing' | 'wrong' = 'missing', cid = 'a'): JudgeEffect => {
  return { kind: 'lost', cid, outcome, why: 'it said so', at }
}
const present = (at: number, isUp: boolean): JudgeEffect => ({ kind: 'availability', isUp, at })

/** Hour after hour of proofs and presence. */
function proven(days: number): { state: ScoreState; now: number } {
  let state = newScore(0)
  for (let at = 0; at < days * dayMs; at += hourMs) state = scored(state, [good(at), present(at, true)])
  return { state, now: days * dayMs }
}
const standingAfter = (state: ScoreState, effects: JudgeEffect[]): string =>
  scoreReport(scored(state, effects), effects.at(-1)?.at ?? 0).standing
const times = (count: number, effect: (i: number) => JudgeEffect): JudgeEffect[] =>
  Array.from({ length: count }, (_, i) => effect(i))

describe('custody', () => {
  const { state, now } = proven(60)
  it.each([
    ['missing', 5, 'vetted'],
    ['missing', 6, 'closed'],
    ['missing', 12, 'closed'],
    ['missing', 13, 'suspended'],
    ['wrong', 2, 'vetted'],
    ['wrong', 3, 'closed'],
    ['wrong', 6, 'closed'],
    ['wrong', 7, 'suspended']
  ] as const)('of a proven provider: %s shards, %i: %s', (outcome, count, standing) => {
    expect(
      standingAfter(
        state,
        times(count, (i) => lost(now, outcome, `s${i}`))
      )
    ).toBe(standing)
  })

  it('brings a suspended provider something only while it proves far more than it loses', () => {
    const fallen = scored(
      state,
      times(13, (i) => lost(now, 'missing', `s${i}`))
    )
    expect(isLosing(state)).toBe(false)
    expect(isLosing(fallen)).toBe(true) // nothing is known of it since
    expect(isLosing(scored(fallen, [good(now, 7)]))).toBe(true)
    const mending = scored(fallen, [good(now, 8)])
    expect(isLosing(mending)).toBe(false)
    expect(scoreReport(mending, now).standing).toBe('suspended')
    const again = scored(mending, [lost(now, 'missing', 'new')])
    expect(isLosing(again)).toBe(true)
    expect(isLosing(scored(again, [good(now, 4)]))).toBe(false)
    // A disk of which a twentieth is lost is asked for twenty shards, and has nineteen.
    expect(
      isLosing(
        scored(
          mending,
          times(20, (i) => (i % 20 === 0 ? lost(now) : good(now, 1)))
        )
      )
    ).toBe(false)
    // One that keeps nothing proves nothing.
    expect(isLosing(scored(mending, [...times(100, () => lost(now)), good(now, 100)]))).toBe(true)
    expect(scoreStateSchema.parse(again)).toEqual(again)
  })

  it('forgets what it was suspended for once it is not', () => {
    const fallen = scored(
      state,
      times(13, (i) => lost(now, 'missing', `s${i}`))
    )
    let back = fallen
    for (let at = now; isLosing(back) || 'suspended' in back; at += hourMs) back = scored(back, [good(at, 1)])
    expect(scoreReport(back, now).standing).toBe('closed')
    expect(isLosing(back)).toBe(false)
  })

  it('forgives as fast as it is documented to', () => {
    const hoursUntilOpen = (faults: number): number => {
      let after = scored(
        state,
        times(faults, (i) => lost(now, 'missing', `s${i}`))
      )
      let hours = 0
      while (betaValue(after.custody) < scoreDefaults.custodyMin.newShards) {
        after = scored(after, [good(now + ++hours * hourMs)])
      }
      return hours
    }
    expect(hoursUntilOpen(6)).toBe(19)
    expect(hoursUntilOpen(13) / 24).toBeCloseTo(7, 0)
  })

  it('is not bought with many proofs: a thousand in an hour are worth one', () => {
    const fallen = scored(
      state,
      times(6, (i) => lost(now, 'missing', `s${i}`))
    )
    const busy = scored(
      fallen,
      times(1000, (i) => good(now + i * 3))
    )
    const quiet = scored(fallen, [good(now)])
    expect(busy.custody).toEqual(quiet.custody)
    expect(busy.proofs - quiet.proofs).toBe(3 * 999)
  })

  it('weighs a fault of a new provider more', () => {
    const faults = (count: number): JudgeEffect[] => times(count, (i) => lost(i + 1, 'missing', `s${i}`))
    expect(standingAfter(newScore(0), faults(2))).toBe('vetting')
    expect(standingAfter(newScore(0), faults(3))).toBe('closed')
    expect(standingAfter(newScore(0), faults(7))).toBe('suspended')
  })

  it('is untouched by refusing, containment and waiting', () => {
    const untouched = scored(state, [
      { kind: 'withdrawn', cid: 'a', at: now },
      { kind: 'contained', cid: 'a', chunk: 1, at: now },
      { kind: 'cleared', cid: 'a', chunk: 1, why: '', at: now },
      { kind: 'proved', cids: ['a'], at: now }
    ])
    expect(untouched).toEqual(state)
  })
})

describe('availability', () => {
  it.each([
    [12, 0.94, 'vetted'],
    [72, 0.7, 'vetted'],
    [100, 0.61, 'vetted'],
    [103, 0.6, 'closed'],
    [1000, 0, 'closed']
  ])('absent for %i hours: %f, %s', (hours, value, standing) => {
    const { state, now } = proven(60)
    const absent = scored(
      state,
      times(hours, (i) => present(now + i * hourMs, false))
    )
    expect(betaValue(absent.availability)).toBeCloseTo(value, 1)
    expect(scoreReport(absent, now).standing).toBe(standing)
    expect(absent.custody).toEqual(state.custody)
  })
})

describe('vetting', () => {
  it('takes proofs and time, neither alone, and is recorded', () => {
    const many = scored(
      newScore(0),
      times(200, (i) => good(i))
    )
    expect(scoreReport(many, hourMs).standing).toBe('vetting')
    const long = scored(newScore(0), [good(0, 1), good(80 * hourMs, 1)])
    expect(scoreReport(long, 80 * hourMs).standing).toBe('vetting')
    const both = scored(many, [good(72 * hourMs)])
    expect(scoreReport(both, 72 * hourMs).standing).toBe('vetted')
    expect(both.records.at(-1)).toMatchObject({ kind: 'vetted', why: '603 proofs over 72 hours' })
    expect(scoreReport(many, 0).weight).toBeCloseTo(scoreReport(both, 0).weight / 4)
  })
})

describe('the one number', () => {
  it('is between 0 and 1, and says how it came about', () => {
    const { state, now } = proven(60)
    expect(scoreReport(newScore(0), 0).why).toContain('100 proofs and is 72 hours old')
    const quick = scored(
      state,
      times(50, () => ({ kind: 'latency', ms: 20, at: now }))
    )
    const slow = scored(
      state,
      times(50, () => ({ kind: 'latency', ms: 1000, at: now }))
    )
    expect(scoreReport(quick, now).weight).toBeCloseTo(0.98, 1)
    expect(scoreReport(slow, now).weight).toBeCloseTo(0.5, 1)
    expect(scoreReport(slow, now).why).toMatch(/^custody 1.000 squared x availability 1.000 x quickness 0.\d+$/)
    const closed = scored(
      state,
      times(6, (i) => lost(now, 'missing', `s${i}`))
    )
    expect(scoreReport(closed, now)).toMatchObject({ weight: 0, why: 'custody 0.891 is below 0.9: no new shards' })
    const suspended = scored(
      state,
      times(13, (i) => lost(now, 'missing', `s${i}`))
    )
    expect(scoreReport(suspended, now)).toMatchObject({ weight: 0, why: 'custody 0.788 is below 0.8: suspended' })
  })
})

describe('the records', () => {
  it('explain every move, the everyday ones in one record', () => {
    const { state, now } = proven(5)
    const fallen = scored(state, [lost(now), good(now + hourMs), present(now + hourMs, false)])
    const kinds = fallen.records.map(({ kind, count }) => `${kind} ${count}`)
    expect(kinds).toEqual(['proved 73', 'present 120', 'vetted 1', 'proved 47', 'missing 1', 'proved 1', 'absent 1'])
    expect(fallen.records[4]).toMatchObject({ at: now, shard: 'a', before: 1, why: 'it said so' })
    expect(fallen.records[4]!.after).toBeLessThan(1)
    expect(fallen.records[5]!.before).toBe(fallen.records[4]!.after)
  })

  const effect = fc.oneof(
    fc.constantFrom<JudgeEffect['kind']>('good').map(() => (at: number) => good(at)),
    fc.boolean().map((isUp) => (at: number) => present(at, isUp)),
    fc.constantFrom('missing' as const, 'wrong' as const).map((what) => (at: number) => lost(at, what, `s${at}`)),
    fc.integer({ min: 0, max: 1e6 }).map(
      (ms) =>
        (at: number): JudgeEffect => ({ kind: 'latency', ms, at })
    )
  )
  it('are bounded, keep faults before good news, join without gaps; scores stay in 0 to 1; all survives storing', () => {
    const config = { ...scoreDefaults, recordsMax: 16 }
    fc.assert(
      fc.property(fc.array(effect, { maxLength: 80 }), (makers) => {
        const effects = makers.map((make, i) => make(i * 7 * minuteMs))
        const state = effects.reduce((before, one) => {
          return scored(scoreStateSchema.parse(JSON.parse(JSON.stringify(before))), [one], config)
        }, newScore(0))
        expect(state).toEqual(scored(newScore(0), effects, config))
        expect(state.records.length).toBeLessThanOrEqual(16)
        const faults = effects.flatMap((one) => (one.kind === 'lost' ? [one.cid] : []))
        const kept = state.records.flatMap(({ shard }) => (shard === undefined ? [] : [shard]))
        expect(faults.slice(faults.length - kept.length)).toEqual(kept)
        if (effects.length <= 16) {
          const custody = state.records.filter(({ kind }) => kind !== 'present' && kind !== 'absent')
          custody.slice(1).forEach((record, i) => {
            expect(record.before).toBe(custody[i]!.after)
          })
        }
        const { weight, custody, availability } = scoreReport(state, 0)
        for (const value of [weight, custody, availability]) {
          expect(value).toBeGreaterThanOrEqual(0)
          expect(value).toBeLessThanOrEqual(1)
        }
      })
    )
  })
})

describe('percentiles of latency', () => {
  it('are within the stated error, and follow a change', () => {
    const random = seededRandom('latency')
    const draw = (): number => 30 * Math.exp(random.exponential(0.7))
    const samples = Array.from({ length: 200 }, draw)
    const digest = samples.reduce(withLatency, [])
    for (const share of [0.5, 0.95]) {
      // Newer samples weigh more: the exact percentile of the weighted samples.
      const weighted = samples.map((ms, i) => ({ ms, weight: 0.995 ** (samples.length - 1 - i) }))
      weighted.sort((a, b) => a.ms - b.ms)
      const total = weighted.reduce((sum, { weight }) => sum + weight, 0)
      let below = 0
      const exact = weighted.find(({ weight }) => {
        below += weight
        return below >= share * total
      })!.ms
      const estimate = latencyPercentile(digest, share)!
      expect(Math.max(estimate / exact, exact / estimate) - 1).toBeLessThanOrEqual(latencyErrorMax + 1e-9)
    }
    const slower = Array.from({ length: 200 }, () => 3000).reduce(withLatency, digest)
    expect(latencyPercentile(slower, 0.5)! / 3000).toBeCloseTo(1, 0)
    expect(latencyPercentile([], 0.5)).toBeUndefined()
  })
  it('take little memory whatever comes', () => {
    const digest = [0, -5, Number.MAX_VALUE, 1e9].reduce(withLatency, [])
    expect(digest).toHaveLength(64)
  })
})
