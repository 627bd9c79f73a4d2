/** The scale simulator: the same again, nothing lost on the way, and the decisions of the code it stands for. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dayMs, hourMs, secondMs } from '../../src/base/limits.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { place } from '../../src/placement/place.ts'
import { graceOf, newPresence, noticed } from '../../src/repair/churn.ts'
import { classify, treatmentOf } from '../../src/repair/health.ts'
import { churnModelOf, timelineOf } from '../../src/sim/scale/churn-models.ts'
import { type ScaleParameters, scaleDefaults, simulateScale } from '../../src/sim/scale/engine.ts'
import { EventHeap } from '../../src/sim/scale/event-heap.ts'
import { alternatives, isDue, ours, type Policy } from '../../src/sim/scale/policies.ts'
import { indexOf, Providers } from '../../src/sim/scale/providers.ts'
import { read } from '../../src/sim/scale/reads.ts'
import { lostOf, repairPerByteMonth, type ScaleResult } from '../../src/sim/scale/result.ts'
import { holders, Segments } from '../../src/sim/scale/segments.ts'
import { type EventKind, type Timeline, TimelineBuilder } from '../../src/sim/scale/timeline.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'

const small: ScaleParameters = { ...scaleDefaults, segments: 40, warmupMs: 5 * dayMs, sweepMs: hourMs, reads: 200 }
const ownShards = ours().code.k + ours().code.m
const timelineFor = (name: string, providers = 60, days = 20): Timeline =>
  timelineOf(churnModelOf(name), { seed: 1, providers, durationMs: days * dayMs })

/** Everybody is there, but for what is said. */
function scripted(
  providers: number,
  days: number,
  events: ReadonlyArray<[day: number, provider: number, kind: EventKind]>
): Timeline {
  const builder = new TimelineBuilder()
  for (const [day, provider, kind] of events) builder.add(Math.round((day * dayMs) / secondMs), provider, kind)
  const traits = Array.from({ length: providers }, (_, i) => ({ region: 0, operator: i, network: i, version: 0 }))
  return builder.build(traits, new Uint8Array(providers).fill(1), (days * dayMs) / secondMs)
}

describe('a run', () => {
  it.each(['exponential', 'ipfs', 'correlated'])(
    'under %s is the same again, and another with another seed',
    (name) => {
      const timeline = timelineFor(name)
      const result = simulateScale(timeline, ours(), small)
      expect(simulateScale(timeline, ours(), small)).toEqual(result)
      expect(simulateScale(timeline, ours(), { ...small, seed: 2 })).not.toEqual(result)
    }
  )

  it.each([ours(), ...alternatives])('of $name knows of every shard where it is, or that it is lost', (policy) => {
    for (const name of ['ipfs', 'departure', 'diurnal']) {
      const result = simulateScale(timelineFor(name), policy, small)
      const n = policy.code.k + policy.code.m
      const { shards, reads } = result
      expect(Object.values(shards).reduce((sum, count) => sum + count, 0)).toBe(small.segments * n)
      expect(shards.ofLost).toBe(lostOf(result) * n)
      expect(reads.done + reads.unavailable + reads.lost).toBe(reads.count)
      expect(result.latencies).toHaveLength(reads.done)
      const there = result.histograms.map(({ byReadable }) => byReadable.reduce((sum, count) => sum + count, 0))
      expect(there.every((count) => count <= small.segments && count >= small.segments - lostOf(result))).toBe(true)
    }
  })

  it('in which nothing happens repairs nothing, and reads everything', () => {
    const result = simulateScale(scripted(40, 30, []), ours(), small)
    expect(result.repair).toMatchObject({ jobs: 0, shards: 0, readBytes: 0, waiting: 0 })
    expect(result.reads.done).toBe(result.reads.count)
    expect(result.shards.placed).toBe(small.segments * ownShards)
  })

  it('waits for one that comes back within its grace, and not for one that stays away', () => {
    const policy = ours({ threshold: ours().code.m - 1, graceMs: hourMs })
    const back = simulateScale(
      scripted(40, 30, [
        [10, 3, 'off'],
        [10.03, 3, 'on']
      ]),
      policy,
      small
    )
    expect(back.repair.jobs).toBe(0)
    const away = simulateScale(scripted(40, 30, [[10, 3, 'off']]), policy, small)
    expect(away.repair.jobs).toBeGreaterThan(10)
    // Each reads `k` shards and writes one.
    expect(away.repair.readBytes).toBe(away.repair.jobs * scaleDefaults.segmentBytes)
    expect(away.repair.shards).toBe(away.repair.jobs)
  })

  it('waits for the threshold, or until patience is over', () => {
    const away = scripted(40, 30, [[8, 3, 'off']])
    const jobs = (patienceDays: number): number =>
      simulateScale(away, ours({ threshold: 5, patienceMs: patienceDays * dayMs }), small).repair.jobs
    expect(jobs(40)).toBe(0)
    expect(jobs(10)).toBeGreaterThan(10)
  })

  it('finds an empty disk by audits, and repairs what was on it at once', () => {
    const result = simulateScale(scripted(40, 30, [[10, 3, 'wiped']]), ours({ threshold: 5 }), small)
    expect(result.repair.jobs).toBeGreaterThan(10)
    expect(result.shards).toMatchObject({ placed: small.segments * ownShards, missing: 0, unnoticed: 0 })
    const patient = ours({ threshold: 5, isMissingUrgent: false, patienceMs: 100 * dayMs })
    expect(simulateScale(scripted(40, 30, [[10, 3, 'wiped']]), patient, small).repair.jobs).toBe(0)
  })

  it.each(['off', 'leaves'] as const)('counts on no new copy of who is gone before it has one (%s)', (kind) => {
    const policy = ours({ code: { k: 1, m: 3 }, threshold: 3, graceMs: hourMs })
    const wasted = (day: number): number => {
      const others = Array.from({ length: 12 }, (_, i) => i + 5).map((i): [number, number, EventKind] => [day, i, kind])
      const timeline = scripted(40, 35, [[10, 3, 'leaves'], ...others])
      const { repair, shards } = simulateScale(timeline, policy, { ...small, segments: 200 })
      expect(Object.values(shards).reduce((sum, count) => sum + count, 0)).toBe(200 * 4)
      return repair.wasted
    }
    // A repair takes the lines for two days, ten at a time; two weeks later all are done.
    expect(wasted(11)).toBeGreaterThan(0)
    expect(wasted(30)).toBe(0)
  })

  it('loses what has fewer than k disks left, and nothing else', () => {
    // 4 of the 6 go in one moment.
    const policy = ours({ code: { k: 3, m: 3 } })
    const gone = [0, 1, 2, 3].map((i): [number, number, EventKind] => [10, i, 'leaves'])
    const all = simulateScale(scripted(6, 20, gone), policy, small)
    expect(lostOf(all)).toBe(small.segments)
    expect(all.lostByDay[5]).toBe(small.segments)
    expect(lostOf(simulateScale(scripted(6, 20, gone.slice(1)), policy, small))).toBe(0)
  })

  it('repairs first what has least left, also of what waited before', () => {
    // Two go, a day apart, and the lines bear nine repairs a day: 50 segments had shards at both, 100 at one of them.
    const events: Array<[number, number, EventKind]> = [
      [10, 0, 'leaves'],
      [11, 1, 'leaves']
    ]
    const policy = ours({ code: { k: 10, m: 10 }, threshold: 9 })
    const { histograms } = simulateScale(scripted(40, 35, events), policy, { ...small, segments: 200 })
    const at = (day: number): number[] => histograms.find(({ atDays }) => atDays + 5 > day)!.byReadable
    expect(at(11)[18]).toBeGreaterThan(20)
    expect(at(20)[18]).toBe(0)
    expect(at(20)[19]).toBeGreaterThan(20)
  })

  it('counts what repair moves from when it has settled, and losses from the beginning', () => {
    const timeline = timelineFor('departure', 60, 60)
    const policy = ours({ code: { k: 2, m: 2 }, threshold: 1 })
    const whole = simulateScale(timeline, policy, small)
    const settled = simulateScale(timeline, policy, { ...small, settleMs: 30 * dayMs })
    expect(settled.repair.readBytes).toBeGreaterThan(0)
    expect(settled.repair.readBytes).toBeLessThan(whole.repair.readBytes)
    expect(settled.settledYears).toBeCloseTo(whole.years - 30 / 365.25)
    expect({ ...settled, settledYears: 0, repair: 0 }).toEqual({ ...whole, settledYears: 0, repair: 0 })
  })

  it('has a timeline that is long enough, or says so', () => {
    expect(() => simulateScale(scripted(6, 5, []), ours(), small)).toThrow(/ends before anything/)
  })

  it('moves no more than the lines bear', () => {
    const parameters = { ...small, segments: 200, networkShare: 0.1 }
    const bound = (0.1 * scaleDefaults.repairBytesPerSecond * 30 * 86_400) / scaleDefaults.providerBytes
    const of = (policy: Policy): number => repairPerByteMonth(simulateScale(timelineFor('ipfs'), policy, parameters))
    // One repair may begin before the line is free again.
    for (const name of ['replication-10', 'sia', 'walrus'])
      expect(of(alternatives.find((policy) => policy.name === name)!)).toBeLessThan(bound * 1.2)
    expect(of(alternatives[1]!)).toBeGreaterThan(bound * 0.8)
  })
})

describe('decisions are those of the real code', () => {
  const cid = cidOfShard(Uint8Array.of(1))
  const conditions = fc.constantFrom('healthy', 'offline', 'gone', 'missing')
  const cases = fc.record({
    k: fc.integer({ min: 1, max: 10 }),
    shards: fc.array(fc.record({ condition: conditions, goneForMs: fc.integer({ min: 1, max: 100 }) }), {
      minLength: 2,
      maxLength: 20
    }),
    threshold: fc.integer({ min: 0, max: 10 }),
    patienceMs: fc.integer({ min: 1, max: 100 })
  })

  it('when a segment is repaired', () => {
    fc.assert(
      fc.property(cases, ({ k, shards, threshold, patienceMs }) => {
        fc.pre(shards.length > k)
        const segment = {
          k,
          m: shards.length - k,
          shards: shards.map(({ condition }, i) => ({
            cid,
            provider: `p${i}`,
            state: condition === 'missing' ? ('missing' as const) : ('healthy' as const)
          }))
        }
        const factsOf = (provider: string) => {
          const { condition } = shards[Number(provider.slice(1))]!
          const state = condition === 'healthy' ? ('online' as const) : ('offline' as const)
          return { state, isGone: condition === 'gone', domains: [provider] }
        }
        // The types of records have more than is looked at here.
        const record = segment as unknown as Parameters<typeof classify>[0]
        const condition = classify(record, factsOf)
        const goneForMs = (provider: string): number => shards[Number(provider.slice(1))]!.goneForMs
        const { rebuild } = treatmentOf(record, condition, { threshold, patienceMs, goneForMs })
        const count = (which: string): number => shards.filter((shard) => shard.condition === which).length
        const gone = shards.filter((shard) => shard.condition === 'gone').map((shard) => shard.goneForMs)
        const view = {
          margin: count('healthy') - k,
          held: count('healthy') + count('offline'),
          waiting: count('offline'),
          gone: gone.length,
          missing: count('missing'),
          goneForMs: Math.max(0, ...gone)
        }
        const rule = { kind: 'margin' as const, patienceMs, isMissingUrgent: true }
        expect(isDue(rule, view, threshold)).toBe(rebuild.length > 0)
        if (rebuild.length > 0) expect(rebuild).toHaveLength(view.gone + view.missing)
      })
    )
  })

  it('how long a provider is waited for', () => {
    const steps = fc.array(fc.record({ on: fc.integer({ min: 1, max: 500 }), off: fc.integer({ min: 1, max: 900 }) }), {
      maxLength: 80
    })
    fc.assert(
      fc.property(steps, (absences) => {
        const providers = new Providers([{ region: 0, operator: 0, network: 0, version: 0 }], 0)
        providers.isOn[0] = 1
        let state = newPresence(0)
        let now = 1
        for (const { on, off } of absences) {
          now += on
          providers.wentOff(0, now)
          state = noticed(state, { at: now, isPresent: false })
          now += off
          providers.cameOn(0, now)
          state = noticed(state, { at: now, isPresent: true })
        }
        // It counts while another absence goes on, which takes a moment's place.
        now += 1
        providers.wentOff(0, now)
        state = noticed(state, { at: now, isPresent: false })
        expect(providers.graceMs(0, 100, 24)).toBe(graceOf(state, 100))
        expect(providers.graceMs(0, 100, 1)).toBe(100)
      })
    )
  })

  it('where shards go, whether all providers are candidates or a sample of them', () => {
    const count = 400
    const traits = Array.from({ length: count }, (_, i) => ({ region: 0, operator: i, network: i % 80, version: 0 }))
    const providers = new Providers(traits, 0)
    const now = 100 * hourMs
    const random = seededRandom('candidates')
    // Of every four: one that is new (a quarter of the weight), one with twice the room, two as they should be.
    for (let i = 0; i < count; i++) {
      providers.isOn[i] = 1
      providers.joinedAt[i] = i % 4 === 0 ? now - hourMs : 0
    }
    const room = (i: number): number => (i % 4 === 1 ? 2e9 : 1e9)
    const shares = (size: number): number[] => {
      const taken = [0, 0, 0, 0]
      for (let round = 0; round < 200; round++) {
        const candidates = providers.candidates(size, now, random, now, room)
        const wanted = Array.from({ length: 20 }, (_, i) => i)
        const { assigned } = place({ code: { k: 10, m: 10 }, shardBytes: 1, wanted, held: [] }, candidates, random)
        expect(assigned.size).toBe(20)
        for (const host of assigned.values()) taken[indexOf(host) % 4]!++
      }
      return taken.map((each) => each / (200 * 20))
    }
    const [all, sampled] = [shares(count), shares(24 + 2 * 20)]
    // A sample evens weights out a little: with 64 candidates for 20 shards the rich give up a few per cent.
    for (const [i, share] of all.entries()) expect(Math.abs(sampled[i]! - share)).toBeLessThan(0.05)
    expect(sampled[0]!).toBeLessThan(sampled[2]!)
    expect(sampled[2]!).toBeLessThan(sampled[1]!)
  })
})

describe('reads', () => {
  const line = { region: 0, slowness: 1, bytesPerMs: 1e9 }
  const there = { line, isThere: true }
  const away = { line, isThere: false }
  const outcome = (sources: Array<typeof there>, k: number) =>
    read({ sources, k, shardBytes: 1000, eager: 0 }, seededRandom('reads'))

  it('end when k have answered, and not without', () => {
    expect(outcome([there, there, there], 4).ms).toBe(Number.POSITIVE_INFINITY)
    expect(outcome([there, there, there, there], 4).ms).toBeLessThan(5000)
  })

  it('go on with another when one does not answer, and are late by that', () => {
    const whole = outcome([there, there, there, there], 2)
    const hedged = outcome([away, away, there, there], 2)
    expect(hedged.isFirstTry).toBe(false)
    expect(hedged.ms).toBeGreaterThan(whole.ms)
    expect(outcome([away, away, away, there], 2).ms).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('its parts', () => {
  it('a heap gives what was put in by time, and what is of one time in the order it came', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20), { maxLength: 60 }), (times) => {
        const heap = new EventHeap()
        for (const [i, at] of times.entries()) heap.push(at, i % 7, i)
        const expected = times.map((at, i) => ({ at, kind: i % 7, subject: i })).sort((a, b) => a.at - b.at)
        expect(times.map(() => heap.pop())).toEqual(expected)
        expect(heap.nextAt).toBe(Number.POSITIVE_INFINITY)
      })
    )
  })

  it('shards are where they were put, whatever was taken in between', () => {
    const moves = fc.array(fc.tuple(fc.nat(19), fc.nat(3), fc.boolean()), { maxLength: 80 })
    fc.assert(
      fc.property(moves, (steps) => {
        const segments = new Segments(4, { k: 2, m: 3 }, 4)
        const model = new Map<number, number>()
        for (const [slot, provider, isDestroyed] of steps) {
          if (isDestroyed && slot === 0) {
            for (const gone of segments.destroy(provider)) {
              expect(model.get(gone)).toBe(provider)
              model.delete(gone)
            }
            continue
          }
          segments.take(slot)
          segments.put(slot, provider)
          model.set(slot, provider)
        }
        for (let provider = 0; provider < 4; provider++) {
          const own = [...model].filter(([, at]) => at === provider).map(([slot]) => slot)
          expect([...segments.slotsOf(provider)].sort((a, b) => a - b)).toEqual(own.sort((a, b) => a - b))
          expect(segments.shards[provider]).toBe(own.length)
        }
        for (let segment = 0; segment < 4; segment++)
          expect(segments.alive[segment]).toBe(
            [...model.keys()].filter((slot) => Math.floor(slot / 5) === segment).length
          )
        expect([...segments.holder].filter((at) => at < holders.unnoticed)).toHaveLength(model.size)
      })
    )
  })

  it('refuses more shards than fit its arrays', () => {
    expect(() => new Segments(2 ** 27, { k: 1, m: 1 }, 10)).toThrow(/shards/)
  })
})

const resultOf = (over: Partial<ScaleResult>): ScaleResult => ({
  ...simulateScale(scripted(30, 6, []), ours(), { ...small, segments: 1, reads: 1 }),
  ...over
})

describe('figures', () => {
  it('repair is counted by byte of data and 30 days', () => {
    const repair = { ...resultOf({}).repair, readBytes: 100, writtenBytes: 20 }
    expect(repairPerByteMonth(resultOf({ userBytes: 1000, settledYears: 30 / 365.25, repair }))).toBeCloseTo(0.12)
    expect(repairPerByteMonth(resultOf({ userBytes: 1000, settledYears: 60 / 365.25, repair }))).toBeCloseTo(0.06)
  })
})
