import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dayMs, hourMs, minuteMs } from '../../src/base/limits.ts'
import {
  absentSince,
  churnOf,
  decodePresence,
  encodePresence,
  goneForMs,
  graceOf,
  longGraceOf,
  newPresence,
  noticed,
  type PresenceEvent,
  type PresenceState,
  unwatched
} from '../../src/repair/churn.ts'

const start = 1_700_000_000_000
const stateOf = (events: readonly PresenceEvent[]): PresenceState => events.reduce(noticed, newPresence(start))
const went = (at: number): PresenceEvent => ({ at: start + at, isPresent: false })
const came = (at: number): PresenceEvent => ({ at: start + at, isPresent: true })

const someEvents = fc.array(fc.record({ at: fc.integer({ min: start, max: start + 500 }), isPresent: fc.boolean() }), {
  maxLength: 120
})

describe('presence of a provider', () => {
  it('is the same in whatever order, and however often, its events are heard of', () => {
    fc.assert(
      fc.property(someEvents, fc.array(fc.nat()), fc.infiniteStream(fc.nat()), (events, again, order) => {
        const twice = [...events, ...(events.length === 0 ? [] : again.map((i) => events[i % events.length]!))]
        const keys = [...order.take(twice.length)]
        const shuffled = twice.map((_, i) => i).sort((a, b) => keys[a]! - keys[b]!)
        expect(stateOf(shuffled.map((i) => twice[i]!))).toEqual(stateOf(events))
      })
    )
  })

  it('is absent from the first time that it did not answer until it does', () => {
    expect(absentSince(stateOf([came(0), went(10), went(20)]))).toBe(start + 10)
    expect(absentSince(stateOf([came(0), went(10), went(20), came(30)]))).toBeUndefined()
    expect(absentSince(stateOf([]))).toBeUndefined()
  })

  it('fits the grace to how long it has been away before', () => {
    expect(graceOf(stateOf([]), hourMs)).toBe(hourMs)
    expect(graceOf(stateOf([went(0), came(3 * hourMs)]), hourMs)).toBe(6 * hourMs)
    expect(graceOf(stateOf([went(0), came(100 * hourMs)]), hourMs)).toBe(72 * hourMs)
    // 95% of them: one long one among twenty short ones is an exception.
    const short = Array.from({ length: 20 }, (_, i) => [went(i * dayMs), came(i * dayMs + minuteMs)]).flat()
    expect(graceOf(stateOf([...short, went(30 * dayMs), came(30.5 * dayMs)]), hourMs)).toBe(hourMs)
  })

  it('is gone beyond its grace, and no longer once it is back', () => {
    const away = stateOf([came(0), went(1000)])
    expect(goneForMs(away, start + 1000 + hourMs, hourMs)).toBe(0)
    expect(goneForMs(away, start + 1000 + hourMs + 5, hourMs)).toBe(5)
    expect(goneForMs(noticed(away, came(2 * hourMs)), start + 3 * hourMs, hourMs)).toBe(0)
  })

  it('is not absent while nobody watches, and goes on being absent afterwards', () => {
    const away = stateOf([came(0), went(1000)])
    const resumed = unwatched(away, { from: start + 3000, to: start + 9000 })
    expect(absentSince(resumed)).toBe(start + 7000) // 2 s before, and from 9 s on
    expect(absentSince(unwatched(resumed, { from: start + 500, to: start + 600 }))).toBe(start + 7000)
    expect(absentSince(unwatched(away, { from: start, to: start + 9000 }))).toBe(start + 9000)
    expect(unwatched(stateOf([came(0)]), { from: start, to: start + 9000 })).toEqual(stateOf([came(0)]))
  })

  it('is kept in few bytes, and read back strictly', () => {
    fc.assert(
      fc.property(someEvents, (events) => {
        const state = stateOf(events)
        const bytes = encodePresence(state)
        expect(bytes.length).toBeLessThan(2048)
        expect(decodePresence(bytes)).toEqual(state)
      })
    )
    const state = stateOf([went(1), came(2)])
    const altered = (change: object): Uint8Array => Buffer.from(JSON.stringify({ ...state, ...change }))
    expect(decodePresence(altered({}))).toEqual(state)
    for (const change of [
      { v: 2 },
      { more: 1 },
      { since: -1 },
      {
        moments: [
          [2, 1],
          [1, 0]
        ]
      },
      { moments: [[1, 2]] }
    ])
      expect(decodePresence(altered(change))).toBeUndefined()
    expect(decodePresence(Uint8Array.of(1, 2))).toBeUndefined()
    expect(decodePresence(Buffer.from(JSON.stringify(state).padEnd(5000)))).toBeUndefined()
  })
})

describe('churn', () => {
  const now = start + 30 * dayMs
  const stable = stateOf([came(0)])
  const left = stateOf([came(0), went(dayMs)])

  it('is little before anything is known, and measured afterwards', () => {
    expect(1 / churnOf(new Map(), now, hourMs).rate).toBeCloseTo(180 * dayMs, 0)
    const calm = churnOf(new Map([...Array(40).keys()].map((i) => [`p${i}`, stable])), now, hourMs)
    const rough = churnOf(new Map([...Array(40).keys()].map((i) => [`p${i}`, i < 20 ? left : stable])), now, hourMs)
    expect(1 / calm.rate).toBeGreaterThan(1000 * dayMs)
    expect(1 / rough.rate).toBeLessThan(45 * dayMs)
    expect(1 / rough.rate).toBeGreaterThan(30 * dayMs)
  })

  it('does not take a night away for a departure', () => {
    const nightly = Array.from({ length: 20 }, (_, i) => [went(i * dayMs), came(i * dayMs + 8 * hourMs)]).flat()
    const { rate } = churnOf(new Map([['p', stateOf([came(0), ...nightly])]]), now, hourMs)
    expect(rate).toBeLessThan(1 / (180 * dayMs))
  })

  it('nor a weekend', () => {
    const weekly = Array.from({ length: 12 }, (_, i) => [went(i * 7 * dayMs), came(i * 7 * dayMs + 62 * hourMs)]).flat()
    const state = stateOf([came(0), ...weekly])
    expect(churnOf(new Map([['p', state]]), now, hourMs).rate).toBeLessThan(1 / (180 * dayMs))
    expect(goneForMs(noticed(state, went(100 * dayMs)), start + 100 * dayMs + 71 * hourMs, hourMs)).toBe(0)
  })

  it('says how long absences may last before somebody is gone, for nine in ten', () => {
    const away = (hours: number): PresenceState => stateOf([came(0), went(dayMs), came(dayMs + hours * hourMs)])
    expect(longGraceOf([], hourMs)).toBe(hourMs)
    const steady = Array.from({ length: 17 }, () => stateOf([came(0)]))
    expect(longGraceOf([...steady, away(5), away(10)], hourMs)).toBe(10 * hourMs)
    expect(longGraceOf([...steady, ...steady, away(10)], hourMs)).toBe(hourMs)
  })

  it('gives each provider a rate by its own record, within bounds', () => {
    const restless = stateOf(
      Array.from({ length: 9 }, (_, i) => [went(i * 5 * dayMs), came((i * 5 + 4) * dayMs)]).flat()
    )
    const { rate, rateOf } = churnOf(
      new Map<string, PresenceState>([...Array(12).keys()].map((i) => [`p${i}`, stable])).set('r', restless),
      now,
      hourMs
    )
    expect(rateOf('r')).toBeGreaterThan(2 * rate)
    expect(rateOf('r')).toBeLessThanOrEqual(16 * rate)
    expect(rateOf('p0')).toBeLessThan(rate)
    expect(rateOf('nobody')).toBe(rate)
  })
})
