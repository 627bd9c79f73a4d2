import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dayMs, hourMs, KiB, MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { challengesMax } from '../../src/custody/audit-messages.ts'
import {
  type Ask,
  factorAfterFault,
  faulted,
  needBytesPerSecond,
  newSampling,
  plan,
  proofsPerEpoch,
  type SamplingConfig,
  type SamplingInput,
  type SamplingState,
  sampleProbability,
  samplingDefaults,
  samplingStateSchema
} from '../../src/custody/sampling.ts'
import { type SeededRandom, seededRandom } from '../../src/sim/seeded-random.ts'

const inputOf = (peerId: string, more: Partial<SamplingInput> = {}): SamplingInput => ({
  peerId,
  isOnline: true,
  shards: 1000,
  due: 0,
  isContained: false,
  repeats: 0,
  isVetted: true,
  ...more
})
const inputs = (count: number, more: Partial<SamplingInput> = {}): SamplingInput[] =>
  Array.from({ length: count }, (_, i) => inputOf(`p${i}`, more))

interface Asked {
  at: number
  ask: Ask
}

/** Plans every `stepMs` for so long. */
function run(
  who: (now: number) => SamplingInput[],
  forMs: number,
  stepMs: number,
  config: SamplingConfig = samplingDefaults,
  random: SeededRandom = seededRandom('sampling')
): { asked: Asked[]; state: SamplingState } {
  let state = newSampling(0, config)
  const asked: Asked[] = []
  for (let now = 0; now < forMs; now += stepMs) {
    const next = plan(state, who(now), now, random, config)
    state = next.state
    for (const ask of next.asks) asked.push({ at: now, ask })
  }
  return { asked, state }
}
const samplesOf = (asked: Asked[], peerId: string): Asked[] =>
  asked.filter(({ ask }) => ask.kind === 'sample' && ask.peerId === peerId)

describe('when', () => {
  const { asked } = run(() => inputs(40), 2 * dayMs, minuteMs / 2)

  it('every provider is asked at least hourly, once an epoch', () => {
    for (const { peerId } of inputs(40)) {
      const own = samplesOf(asked, peerId)
      const epochs = own.map(({ ask }) => (ask.kind === 'sample' ? ask.epoch : -1))
      expect(new Set(epochs).size).toBe(epochs.length)
      const gaps = own.slice(1).map(({ at }, i) => at - own[i]!.at)
      expect(Math.max(...gaps)).toBeLessThanOrEqual(hourMs + minuteMs)
    }
  })
  it('there is no herd, neither at the beginning nor after a pause', () => {
    const perMinute = (of: Asked[], from: number): number[] => {
      const counts = Array.from({ length: 30 }, () => 0)
      for (const { at, ask } of of) {
        const minute = Math.floor((at - from) / minuteMs)
        if (ask.kind === 'sample' && minute >= 0 && minute < 30) counts[minute]!++
      }
      return counts
    }
    // 40 in 30 minutes are 1.3 a minute; 8 in one of them is beyond 1 in 10,000 for independent draws.
    expect(Math.max(...perMinute(asked, 0))).toBeLessThan(8)
    const { state } = run(() => inputs(40), hourMs, minuteMs)
    let later = state
    const pausedUntil = 10 * hourMs
    const afterwards: Asked[] = []
    for (let now = pausedUntil; now <= pausedUntil + 30 * minuteMs; now += minuteMs) {
      const next = plan(later, inputs(40), now, seededRandom(now))
      later = next.state
      afterwards.push(...next.asks.map((ask) => ({ at: now, ask })))
    }
    expect(new Set(afterwards.map(({ ask }) => ask.peerId)).size).toBe(40)
    expect(Math.max(...perMinute(afterwards, pausedUntil))).toBeLessThan(8)
  })
  it('goes on after the clock was set back', () => {
    const { state } = run(() => inputs(1), 10 * dayMs, hourMs / 4)
    const random = seededRandom(2)
    let next = { state, asks: [] as Ask[] }
    let count = 0
    for (let now = 0; now < hourMs; now += minuteMs) {
      next = plan(next.state, inputs(1), now, random)
      count += next.asks.length
    }
    expect(count).toBeGreaterThanOrEqual(1)
  })
  it('whole shards are read twice a day on average, at any time', () => {
    const wholes = asked.filter(({ ask }) => ask.kind === 'whole')
    // Poisson with mean 160: five deviations.
    expect(Math.abs(wholes.length - 160)).toBeLessThan(5 * Math.sqrt(160))
  })
})

describe('how much', () => {
  it.each([
    // shards, probability, challenges
    [1, 1, 1],
    [2, 1, 2],
    [100, 0.02, 2],
    [672, 1 / 336, 2],
    [10_000, 1 / 336, 29.8],
    [1_000_000, 0.001024, 1024]
  ])('%i shards: each with %f', (shards, probability, challenges) => {
    expect(sampleProbability(shards)).toBeCloseTo(probability, 6)
    expect(sampleProbability(shards) * shards).toBeCloseTo(challenges, 1)
  })

  it('is eight times as much after a fault, and half of that a day later', () => {
    const day = [0, 1, 2, 10].map((days) => factorAfterFault(0, days * dayMs))
    expect(day[0]).toBe(8)
    expect(day[1]).toBe(4.5)
    expect(day[2]).toBe(2.75)
    expect(day[3]).toBeCloseTo(1, 1)
    let state = plan(newSampling(0), inputs(2), 0, seededRandom(1)).state
    const wholeBefore = state.providers.p0!.wholeAt
    state = faulted(state, 'p0', 0)
    expect(state.providers.p0!.wholeAt).toBe(Math.floor(wholeBefore / 8))
    // A second fault at once does not bring the reads nearer still.
    expect(faulted(state, 'p0', 0)).toEqual(state)
    expect(faulted(state, 'nobody', 0)).toEqual(state)
    const { asks } = plan(state, inputs(2), 29 * minuteMs + 59 * secondMs, seededRandom(1))
    const sizes = asks.flatMap((ask) => (ask.kind === 'sample' ? [ask.challenges] : []))
    expect(sizes[0]! / sizes[1]!).toBeGreaterThan(7.8)
  })

  it('proves every shard within the period: sampled, or due', () => {
    // One provider, shard by shard, with the period cut to two days.
    const config = { ...samplingDefaults, periodMs: 2 * dayMs }
    const random = seededRandom('shards')
    const provedAt = Array.from({ length: 500 }, () => 0)
    let longestMs = 0
    let proofs = 0
    let state = newSampling(0, config)
    const days = 12
    // All begin proved: after two periods their ages are as they stay.
    const settledMs = 2 * config.periodMs
    for (let now = 0; now < days * dayMs; now += minuteMs) {
      const overdue = provedAt.flatMap((at, i) => (now - at >= config.periodMs ? [i] : []))
      const next = plan(state, [inputOf('p', { shards: 500, due: overdue.length })], now, random, config)
      state = next.state
      for (const ask of next.asks) {
        if (ask.kind !== 'sample') continue
        const chosen = new Set(overdue.slice(0, ask.due))
        for (let i = 0; i < 500; i++) if (random.next() < ask.probability) chosen.add(i)
        if (now >= settledMs) proofs += chosen.size
        for (const i of chosen) {
          longestMs = Math.max(longestMs, now - provedAt[i]!)
          provedAt[i] = now
        }
      }
    }
    for (const at of provedAt) longestMs = Math.max(longestMs, days * dayMs - at)
    expect(longestMs).toBeLessThanOrEqual(config.periodMs + hourMs)
    // As many proofs as the renewal formula says, within 5%: 6300 of them, four deviations and more.
    const formula = 500 * proofsPerEpoch(sampleProbability(500, 1, config), config) * (days - 4) * 48
    expect(proofs / formula).toBeGreaterThan(0.95)
    expect(proofs / formula).toBeLessThan(1.05)
  })
})

describe('the budget', () => {
  it('is enough by far for 1,000,000 shards over 1000 providers', () => {
    const need = needBytesPerSecond(Array.from({ length: 1000 }, () => 1000))
    expect(need.proofs).toBeLessThan(6 * KiB)
    expect(need.wholes).toBeLessThan(25 * KiB)
  })
  it('is kept in the memory that providers take, whatever they have', () => {
    const bytesOf = (shards: number): number => {
      const { state } = run(() => inputs(1000, { shards, due: 1024 }), hourMs, minuteMs)
      return JSON.stringify(state).length
    }
    expect(bytesOf(1000)).toBeLessThan(1000 * 160)
    expect(Math.abs(bytesOf(1_000_000) - bytesOf(1000))).toBeLessThan(1000 * 40) // times that are null or a number
  })
  it('is never exceeded, and nobody starves when there is a tenth of what is needed', () => {
    const config = { ...samplingDefaults, bytesPerSecond: 60, burstSeconds: 3600 }
    const needed = needBytesPerSecond(
      inputs(50, { shards: 2000 }).map(({ shards }) => shards),
      config
    )
    expect(needed.proofs).toBeGreaterThan(9 * 30)
    // Half of them always have something better to be asked for.
    const who = (): SamplingInput[] =>
      inputs(50, { shards: 2000 }).map((input, i) => ({ ...input, due: i % 2 === 0 ? 5 : 0 }))
    const { asked } = run(who, 3 * dayMs, minuteMs, config)
    let spent = 0
    for (const { at, ask } of asked) {
      if (ask.kind !== 'sample') continue
      spent += ask.bytes
      expect(spent).toBeLessThanOrEqual(30 * (3600 + at / 1000) + 1)
    }
    expect(spent).toBeGreaterThan(30 * 3 * 86400 * 0.9)
    for (const { peerId } of who()) expect(samplesOf(asked, peerId).length).toBeGreaterThanOrEqual(2)
  })
  it('when short serves repeats, overdue, after a fault, new ones, the rest, in this order', () => {
    const config = { ...samplingDefaults, bytesPerSecond: 40 * KiB, burstSeconds: 1 }
    const who: SamplingInput[] = [
      inputOf('rest'),
      inputOf('new', { isVetted: false }),
      inputOf('fault'),
      inputOf('overdue', { due: 3 }),
      inputOf('repeat', { isContained: true, repeats: 4 })
    ]
    let state = plan(
      newSampling(0, config),
      who.map((input) => ({ ...input, isContained: false })),
      0,
      seededRandom(3),
      config
    ).state
    state = faulted(state, 'fault', 0, config)
    const order: string[] = []
    // All ready at the same time, and the bucket empty.
    for (const own of Object.values(state.providers)) own.askAt = minuteMs
    state.proofs = { bytes: 0, at: minuteMs }
    for (let now = minuteMs; order.length < 5 && now < 10 * minuteMs; now += 100) {
      const waiting = who.filter(({ peerId }) => !order.includes(peerId))
      const next = plan(state, waiting, now, seededRandom(now), config)
      state = next.state
      order.push(...next.asks.flatMap((ask) => (ask.kind === 'whole' ? [] : [ask.peerId])))
    }
    expect(order).toEqual(['repeat', 'overdue', 'fault', 'new', 'rest'])
  })
  it('has room for one large request and one shard, however small it is', () => {
    const config = { ...samplingDefaults, bytesPerSecond: 100 }
    const { asked } = run(() => [inputOf('p', { shards: 1_000_000, due: 1024 })], 2 * dayMs, minuteMs, config)
    expect(asked.filter(({ ask }) => ask.kind === 'sample').length).toBeGreaterThan(10)
    expect(asked.some(({ ask }) => ask.kind === 'whole' && ask.bytes === MiB)).toBe(true)
  })
})

describe('who', () => {
  it('a contained provider is put its repeats and nothing else, one offline nothing', () => {
    const who = (now: number): SamplingInput[] => [
      inputOf('contained', { isContained: true, repeats: now === hourMs ? 3 : 0 }),
      inputOf('offline', { isOnline: false }),
      inputOf('empty', { shards: 0 })
    ]
    const { asked } = run(who, dayMs, minuteMs)
    expect(asked.map(({ at, ask }) => [at, ask.peerId, ask.kind])).toEqual([[hourMs, 'contained', 'repeat']])
  })
  it('who left is forgotten', () => {
    const { state } = run((now) => inputs(now < hourMs ? 10 : 2), 2 * hourMs, minuteMs)
    expect(Object.keys(state.providers)).toEqual(['p0', 'p1'])
  })
})

it('whatever comes, requests fit, and a stored state goes on as the one in memory', () => {
  const anyInput = fc.record({
    isOnline: fc.boolean(),
    shards: fc.nat({ max: 3_000_000 }),
    due: fc.nat({ max: challengesMax }),
    isContained: fc.boolean(),
    repeats: fc.nat({ max: 64 }),
    isVetted: fc.boolean()
  })
  fc.assert(
    fc.property(
      fc.array(fc.record({ who: fc.array(anyInput, { maxLength: 5 }), wait: fc.nat({ max: 2 * hourMs }) })),
      fc.nat(),
      (steps, seed) => {
        const numbers: [SeededRandom, SeededRandom] = [seededRandom(seed), seededRandom(seed)]
        let state = newSampling(0)
        let now = 0
        for (const { who, wait } of steps) {
          now += wait
          const named = who.map((input, i) => ({ peerId: `p${i}`, ...input }))
          const stored = samplingStateSchema.parse(JSON.parse(JSON.stringify(state)))
          const next = plan(state, named, now, numbers[0])
          expect(plan(stored, named, now, numbers[1])).toEqual(next)
          state = next.state
          for (const ask of next.asks) {
            if (ask.kind === 'whole') continue
            expect(ask.challenges).toBeLessThanOrEqual(challengesMax + 1e-6)
            if (ask.kind === 'sample') expect(ask.due).toBeGreaterThanOrEqual(0)
          }
          expect(state.proofs.bytes).toBeGreaterThanOrEqual(0)
          expect(state.wholes.bytes).toBeGreaterThanOrEqual(0)
        }
      }
    ),
    { numRuns: 200 }
  )
})
