/** Comings and goings are drawn as their models say, are the same again, and go through a file unchanged. */
import { readdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { traceDays, traceOf, traceProviders } from '../../bench/churn/traces.ts'
import { dayMs, hourMs, secondMs } from '../../src/base/limits.ts'
import { churnModelOf, churnModels, dhtFit, dhtSessions, timelineOf } from '../../src/sim/scale/churn-models.ts'
import {
  exponential,
  gamma,
  lognormal,
  weibull,
  weibullMean,
  weibullThrough
} from '../../src/sim/scale/distributions.ts'
import {
  type EventKind,
  eventKinds,
  followers,
  kindOf,
  providerOf,
  secondOf,
  stateAfter,
  type Timeline
} from '../../src/sim/scale/timeline.ts'
import { readTrace, writeTrace } from '../../src/sim/scale/trace-file.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'

const fixtures = resolve(import.meta.dirname, '../../fixtures/traces')

interface Happening {
  at: number
  kind: EventKind
}

function perProvider({ traits, events }: Timeline): Happening[][] {
  const own: Happening[][] = traits.map(() => [])
  for (const event of events)
    own[providerOf(event)]!.push({ at: secondOf(event) * secondMs, kind: eventKinds[kindOf(event)]! })
  return own
}

/** Share of time for which providers were there. */
function onShare(timeline: Timeline): number {
  const endMs = timeline.seconds * secondMs
  let onMs = 0
  for (const [i, own] of perProvider(timeline).entries()) {
    let since = timeline.isOnAtStart[i] === 1 ? 0 : undefined
    for (const { at, kind } of own) {
      const isOn = stateAfter(kind) === 'on'
      if (since !== undefined && !isOn) onMs += at - since
      since = isOn ? (since ?? at) : undefined
    }
    if (since !== undefined) onMs += endMs - since
  }
  return onMs / (endMs * timeline.traits.length)
}

describe('distributions', () => {
  const random = seededRandom('distributions')
  const meanOf = (draw: (from: typeof random) => number, count = 20_000): number => {
    let sum = 0
    for (let i = 0; i < count; i++) sum += draw(random)
    return sum / count
  }

  it('have the means that they are said to have', () => {
    expect(meanOf(exponential(7)) / 7).toBeCloseTo(1, 1)
    expect(meanOf(weibull(3, 0.8)) / weibullMean(3, 0.8)).toBeCloseTo(1, 1)
    expect(meanOf(lognormal(2, 0.5)) / (2 * Math.exp(0.125))).toBeCloseTo(1, 1)
    expect(gamma(5)).toBeCloseTo(24, 8)
    expect(gamma(1.5)).toBeCloseTo(Math.sqrt(Math.PI) / 2, 10)
  })

  it('are fitted through what was measured', () => {
    const shareBelow = (scale: number, shape: number, at: number): number => 1 - Math.exp(-((at / scale) ** shape))
    fc.assert(
      fc.property(
        fc.double({ min: 0.1, max: 10, noNaN: true }),
        fc.double({ min: 1.1, max: 20, noNaN: true }),
        fc.double({ min: 0.05, max: 0.5, noNaN: true }),
        fc.double({ min: 0.05, max: 0.4, noNaN: true }),
        (at, times, share, more) => {
          const { scale, shape } = weibullThrough({ at, share }, { at: at * times, share: share + more })
          expect(shareBelow(scale, shape, at)).toBeCloseTo(share, 9)
          expect(shareBelow(scale, shape, at * times)).toBeCloseTo(share + more, 9)
        }
      )
    )
    // Of all new peers, of whom a tenth stays.
    for (const [i, hours] of dhtSessions.atHours.entries())
      expect(0.9 * shareBelow(dhtFit.scale, dhtFit.shape, hours * hourMs)).toBeCloseTo(dhtSessions.gone[i]!, 9)
  })
})

describe.each(churnModels)('the churn model $name', (model) => {
  const durationMs = 30 * dayMs
  const timeline = timelineOf(model, { seed: 3, providers: 60, durationMs })

  it('is the same again, and another with another seed', () => {
    expect(timelineOf(model, { seed: 3, providers: 60, durationMs })).toEqual(timeline)
    expect(timelineOf(model, { seed: 4, providers: 60, durationMs }).events).not.toEqual(timeline.events)
  })

  it('has only what can follow what, in order, within its time', () => {
    const wrong: unknown[] = []
    for (const [i, own] of perProvider(timeline).entries()) {
      let state: keyof typeof followers = timeline.isOnAtStart[i] === 1 ? 'on' : 'off'
      let last = 0
      for (const { at, kind } of own) {
        if (!followers[state].includes(kind) || at <= last || at >= durationMs) wrong.push({ i, state, last, at, kind })
        state = stateAfter(kind)
        last = at
      }
    }
    expect(wrong).toEqual([])
  })

  it('goes through a file unchanged', () => {
    const origin = { model: model.name, origin: model.source, generator: 'a test' }
    const text = writeTrace({ ...origin, timeline })
    expect(readTrace(text)).toEqual({ ...origin, timeline })
    expect(writeTrace(readTrace(text))).toBe(text)
  })

  it('is what the fixture has', async () => {
    const text = await readFile(join(fixtures, `${model.name}.trace`), 'utf8')
    expect(text).toBe(traceOf(model))
    const { timeline: own } = readTrace(text)
    expect(own.traits).toHaveLength(traceProviders)
    expect(own.seconds * secondMs).toBe(traceDays * dayMs)
  })
})

describe('statistics of the models', () => {
  const lossesPerDay = (timeline: Timeline): number => {
    const losses = timeline.events.filter((event) => ['leaves', 'wiped'].includes(eventKinds[kindOf(event)]!)).length
    return losses / timeline.traits.length / ((timeline.seconds * secondMs) / dayMs)
  }

  it.each([
    ['departure', 1, 0.02],
    ['exponential', 72 / 78, 0.02],
    ['weibull', 24 / 27, 0.02],
    ['diurnal', 0.635, 0.03],
    ['professional', 1, 0.005]
  ])('%s: there for %d of the time', (name, share, slack) => {
    const timeline = timelineOf(churnModelOf(name), { seed: 5, providers: 300, durationMs: 90 * dayMs })
    expect(Math.abs(onShare(timeline) - share)).toBeLessThan(slack)
  })

  it('lose as many disks as they are said to', () => {
    const of = (name: string): Timeline =>
      timelineOf(churnModelOf(name), { seed: 6, providers: 1000, durationMs: 730 * dayMs })
    // Four standard deviations of 4000 and 39 losses.
    expect(lossesPerDay(of('departure')) * 180).toBeCloseTo(1, 1)
    expect(Math.abs(lossesPerDay(of('professional')) / 5.4e-5 - 1)).toBeLessThan(0.65)
    expect(lossesPerDay(of('correlated'))).toBeGreaterThan(2 * lossesPerDay(of('professional')))
  })

  it('ipfs: a tenth stays, and of the sessions that begin as many are over after 2 and 8 hours as were measured', () => {
    const timeline = timelineOf(churnModelOf('ipfs'), { seed: 7, providers: 800, durationMs: 6 * dayMs })
    const lengths: number[] = []
    let staying = 0
    for (const [i, own] of perProvider(timeline).entries()) {
      if (timeline.isOnAtStart[i] === 1 && own.every(({ kind }) => kind !== 'off')) staying++
      let since: number | undefined
      for (const { at, kind } of own) {
        // Whole sessions: those that begin early enough to end.
        if (since !== undefined && kind !== 'wiped' && since < 4 * dayMs) lengths.push(at - since)
        since = kind === 'on' ? at : kind === 'wiped' ? since : undefined
      }
    }
    const over = (hours: number): number => lengths.filter((ms) => ms <= hours * hourMs).length / lengths.length
    expect(staying / timeline.traits.length).toBeCloseTo(dhtSessions.alwaysOn, 1)
    expect(over(2) * 0.9).toBeCloseTo(dhtSessions.gone[0], 1)
    expect(over(8) * 0.9).toBeCloseTo(dhtSessions.gone[1], 1)
  })

  it('correlated: whole networks go in the same moment, and whole operators', () => {
    const timeline = timelineOf(churnModelOf('correlated'), { seed: 8, providers: 600, durationMs: 365 * dayMs })
    const moments = Map.groupBy(timeline.events, secondOf)
    const together = [...moments.values()].filter((those) => those.length >= 10)
    expect(together.length).toBeGreaterThan(3)
    for (const shared of ['network', 'operator'] as const)
      expect(
        together.some((those) => new Set(those.map((event) => timeline.traits[providerOf(event)]![shared])).size === 1)
      ).toBe(true)
  })
})

describe('a trace file', () => {
  const lines = (...providers: string[]): string =>
    `${['holdfast-trace: 1', 'model: m', 'origin: o', 'generator: g', 'seconds: 1000', `providers: ${providers.length}`, ...providers].join('\n')}\n`

  it('has one of each model and nothing else', async () => {
    expect((await readdir(fixtures)).sort()).toEqual(
      [...churnModels.map(({ name }) => `${name}.trace`), 'README.md'].sort()
    )
  })

  it('reads as it is written', () => {
    const { timeline } = readTrace(lines('0 1 2 3 + a- b+ c!', '5 0 0 0 - 1+ 2x 3*'))
    expect(timeline.traits[0]).toEqual({ region: 0, operator: 1, network: 2, version: 3 })
    expect([...timeline.isOnAtStart]).toEqual([1, 0])
    expect(perProvider(timeline)).toEqual([
      [
        { at: 10_000, kind: 'off' },
        { at: 21_000, kind: 'on' },
        { at: 33_000, kind: 'wiped' }
      ],
      [
        { at: 1000, kind: 'on' },
        { at: 3000, kind: 'leaves' },
        { at: 6000, kind: 'joins' }
      ]
    ])
  })

  it.each([
    ['another version', lines('0 0 0 0 +').replace('trace: 1', 'trace: 2')],
    ['no end of line', lines('0 0 0 0 +').trimEnd()],
    ['fewer providers than it says', lines('0 0 0 0 +').replace('providers: 1', 'providers: 2')],
    ['too many providers', lines('0 0 0 0 +').replace('providers: 1', 'providers: 99999')],
    ['no time', lines('0 0 0 0 +').replace('seconds: 1000', 'seconds: 0')],
    ['a header in another place', lines('0 0 0 0 +').replace('model: m\norigin: o', 'origin: o\nmodel: m')],
    ['a region that is none', lines('6 0 0 0 +')],
    ['a number with a leading zero', lines('0 01 0 0 +')],
    ['no state at the beginning', lines('0 0 0 0')],
    ['an unknown mark', lines('0 0 0 0 + 1?')],
    ['no time between', lines('0 0 0 0 + 0-')],
    ['an event past the end', lines('0 0 0 0 + zz-')],
    ['coming while it is there', lines('0 0 0 0 + 1+')],
    ['leaving twice', lines('0 0 0 0 + 1x 1x')],
    ['two spaces', lines('0 0 0 0 +  1-')]
  ])('is refused with %s', (_why, text) => {
    expect(() => readTrace(text)).toThrow(/not a trace: line \d+/)
  })

  it('never makes the reader fail in another way', () => {
    const valid = lines('0 1 2 3 + a- b+ c!', '5 0 0 0 - 1+ 2x 3*')
    fc.assert(
      fc.property(fc.nat(valid.length - 1), fc.string({ maxLength: 3 }), fc.nat(3), (at, text, removed) => {
        const altered = valid.slice(0, at) + text + valid.slice(at + removed)
        try {
          expect(writeTrace(readTrace(altered))).toBe(altered)
        } catch (error) {
          expect(error).toMatchObject({ code: 'BAD_INPUT' })
        }
      })
    )
  })
})
