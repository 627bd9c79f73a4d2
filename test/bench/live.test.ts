/** What the live benchmark does with a trace, and what it takes for right: with fakes for processes and for the network. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DataSource, type ObjectData } from '../../bench/data.ts'
import { WrongAnswerError } from '../../bench/harness.ts'
import { bucket, Clients, failureName } from '../../bench/live/clients.ts'
import { ChurnDriver, type Places } from '../../bench/live/driver.ts'
import { type LiveOptions, liveBenchmark } from '../../bench/live/live.ts'
import { lookAtMargins } from '../../bench/live/margin-look.ts'
import type { LiveRun } from '../../bench/live/run.ts'
import { Versions } from '../../bench/live/versions.ts'
import { chosenOf, workloadOf } from '../../bench/live/workloads.ts'
import { S3Failure } from '../../bench/throughput/s3-client.ts'
import { type ChurnCounters, ChurnRecorder, type ChurnReport } from '../../src/sim/churn/report.ts'
import { WrongContentError } from '../../src/sim/churn/version-history.ts'
import { type ChurnEvent, domainOf, keyOf } from '../../src/sim/churn/workload.ts'
import { type EventKind, followers, stateAfter } from '../../src/sim/scale/timeline.ts'
import { Timeline, VirtualProcess } from '../../src/sim/virtual-clock.ts'

const noSignal = new AbortController().signal

const noCounters: ChurnCounters = {
  ...{ segmentsStraight: 0, segmentsDecoded: 0, fetchedBytes: 0, wastedBytes: 0 },
  ...{ repairReadBytes: 0, repairWrittenBytes: 0, repairTheoryBytes: 0, shardsRebuilt: 0 }
}

describe('events of a trace', () => {
  interface Scene {
    events: readonly ChurnEvent[]
    /** Of every start, by place. */
    startMs?: number
    failing?: string
    /** Where to write what was done, for a run that fails. */
    done?: string[]
  }

  /** @returns what was done, `12 kill 0`: milliseconds since the beginning, what, and to which place */
  async function carriedOut({ events, startMs = 0, failing, done = [] }: Scene) {
    const time = new Timeline()
    const clock = new VirtualProcess(time).clock
    const under = new Set<number>()
    const act =
      (name: string, tookMs = 0) =>
      async (place: number): Promise<void> => {
        expect(under.has(place)).toBe(false) // one thing at a time happens to a place
        under.add(place)
        done.push(`${clock.now() - time.startAt} ${name} ${place}`)
        if (tookMs > 0) await clock.sleep(tookMs)
        under.delete(place)
        if (name === failing) throw new Error('it does not start')
      }
    const start = act('start', startMs)
    const places: Places = { start, kill: act('kill'), remove: act('remove'), empty: act('empty'), join: act('join') }
    const happened: EventKind[] = []
    const driver = new ChurnDriver({
      events,
      isOnAtStart: Uint8Array.of(1, 1, 0),
      places,
      clock,
      onEvent: ({ kind }) => happened.push(kind)
    })
    const running = (async () => {
      await driver.run(clock.now(), noSignal)
      await driver.bringBack()
    })()
    await time.drive(running)
    return { done, happened, lateness: driver.lateness }
  }

  it('are carried out at their time, and who is away at the end comes back', async () => {
    const { done, happened, lateness } = await carriedOut({
      events: [
        { atMs: 10, provider: 0, kind: 'off' },
        { atMs: 20, provider: 1, kind: 'leaves' },
        { atMs: 30, provider: 0, kind: 'on' },
        { atMs: 40, provider: 1, kind: 'joins' },
        { atMs: 50, provider: 0, kind: 'wiped' },
        { atMs: 60, provider: 1, kind: 'off' }
      ]
    })
    expect(done).toEqual([
      ...['10 kill 0', '20 kill 1', '20 remove 1', '30 start 0', '40 join 1'],
      ...['50 kill 0', '50 empty 0', '50 start 0', '60 kill 1', '60 start 1', '60 start 2']
    ])
    expect(happened).toEqual(['off', 'leaves', 'on', 'joins', 'wiped', 'off'])
    expect(lateness).toEqual({ count: 6, meanMs: 0, maxMs: 0 })
  })

  it('who has left for good does not come back', async () => {
    const { done } = await carriedOut({ events: [{ atMs: 10, provider: 0, kind: 'leaves' }] })
    expect(done).toEqual(['10 kill 0', '10 remove 0', '10 start 2'])
  })

  it('wait for a start that is under way, and for nothing of another place', async () => {
    const { done, lateness } = await carriedOut({
      startMs: 100,
      events: [
        { atMs: 10, provider: 2, kind: 'on' },
        { atMs: 20, provider: 2, kind: 'off' },
        { atMs: 30, provider: 0, kind: 'off' }
      ]
    })
    expect(done.slice(0, 3)).toEqual(['10 start 2', '30 kill 0', '110 kill 2'])
    expect(lateness).toMatchObject({ count: 3, maxMs: 90, meanMs: 30 })
  })

  it('end the run when they wait without end, or when a place fails', async () => {
    const flips = Array.from({ length: 12 }, (_, i) => ({
      atMs: 10 + i,
      provider: 2,
      kind: i % 2 === 0 ? ('on' as const) : ('off' as const)
    }))
    const done: string[] = []
    await expect(carriedOut({ startMs: 1000, events: flips, done })).rejects.toMatchObject({ code: 'OVERLOADED' })
    expect(done).toEqual(['10 start 2']) // what was waiting is left alone
    await expect(
      carriedOut({
        failing: 'start',
        events: [
          { atMs: 10, provider: 2, kind: 'on' },
          { atMs: 900, provider: 0, kind: 'off' }
        ]
      })
    ).rejects.toThrow('it does not start')
  })

  it('leave every place as the trace does, whatever it says', async () => {
    const traces = fc.array(fc.tuple(fc.nat(2), fc.nat(4), fc.integer({ min: 1, max: 50 })), { maxLength: 30 })
    await fc.assert(
      fc.asyncProperty(traces, async (steps) => {
        const states: Array<keyof typeof followers> = ['on', 'on', 'off']
        let atMs = 0
        const events = steps.map(([provider, choice, gapMs]): ChurnEvent => {
          const possible = followers[states[provider]!]
          const kind = possible[choice % possible.length]!
          states[provider] = stateAfter(kind)
          atMs += gapMs
          return { atMs, provider, kind }
        })
        const { done } = await carriedOut({ events })
        for (const [place, state] of states.entries()) {
          const last = done.findLast((line) => line.endsWith(` ${place}`))?.split(' ')[1]
          if (last !== undefined) expect(last).toMatch(state === 'empty' ? /remove/ : /start|join/)
        }
      }),
      { numRuns: 30 }
    )
  })
})

const sizes = [100_000, 5000]
const bytesOf = (data: ObjectData): Buffer => Buffer.concat([...data.chunks()])

describe('what is right to be read', () => {
  const versionsWithOne = () => {
    const versions = new Versions(new DataSource(1), sizes)
    const first = versions.begin(0)
    versions.stored(0, first.version)
    return { versions, old: bytesOf(first.data) }
  }

  it('is what was stored last, and nothing older', () => {
    const { versions, old } = versionsWithOne()
    versions.expected(0).verify(0, old)
    const second = versions.begin(0)
    versions.stored(0, second.version)
    versions.expected(0).verify(0, bytesOf(second.data))
    expect(() => versions.expected(0).verify(0, old)).toThrow(WrongAnswerError)
  })

  it('is the old or the new while it is being written, or was and failed, but no mixture', () => {
    const { versions, old } = versionsWithOne()
    const before = versions.expected(0)
    const { version, data } = versions.begin(0)
    const fresh = bytesOf(data)
    before.verify(0, fresh) // it began before the write, and had no byte yet
    for (const isOver of [false, true]) {
      if (isOver) versions.failed(0, version)
      versions.expected(0).verify(0, old)
      versions.expected(0).verify(0, fresh)
      const mixed = versions.expected(0)
      mixed.verify(0, old.subarray(0, 1000))
      expect(() => mixed.verify(1000, fresh.subarray(1000))).toThrow(WrongAnswerError)
    }
  })
})

describe('clients', () => {
  const workload = async () => await workloadOf({ trace: 'weibull', providers: 24, objects: 2, clients: 1, seed: 1 })

  const clientsOf = async (
    s3: ConstructorParameters<typeof Clients>[0]['s3'],
    clock = new VirtualProcess(new Timeline()).clock
  ) => {
    const versions = new Versions(new DataSource(1), sizes)
    for (const object of sizes.keys()) versions.stored(object, versions.begin(object).version)
    const recorder = new ChurnRecorder()
    const clients = new Clients({ workload: await workload(), versions, s3, recorder, clock })
    return { clients, recorder }
  }

  it('record what was answered, and failures by their names', async () => {
    const answers: Array<() => void> = [
      () => {},
      () => {
        throw new S3Failure('GET /live/x', 503, '<Error><Code>SlowDown</Code></Error>')
      },
      () => {
        throw Object.assign(new Error('other side closed'), { code: 'UND_ERR_SOCKET' })
      }
    ]
    const asked: string[] = []
    const { clients, recorder } = await clientsOf({
      get: async (at, key, _expected, options) => {
        asked.push(`${at}/${key}`)
        options?.onFirstByte?.()
        answers.shift()!()
      },
      put: async () => {}
    })
    for (let i = 0; i < 3; i++) await clients.request({ kind: 'read', object: 1 }, noSignal)
    await clients.request({ kind: 'write', object: 0 }, noSignal)
    const { reads, writes } = recorder.report(1000, noCounters, { lostObjects: 0, storedBytes: 1 })
    expect(asked).toEqual(Array(3).fill(`${bucket}/${keyOf(1)}`))
    expect(reads).toMatchObject({ asked: 3, done: 1, bytes: 5000, failures: { SlowDown: 1, UND_ERR_SOCKET: 1 } })
    expect(writes).toMatchObject({ asked: 1, done: 1 })
  })

  it('give up after a minute, which is a failure, and end at once over a wrong byte', async () => {
    const time = new Timeline()
    const { clients, recorder } = await clientsOf(
      {
        get: (_bucket, _key, _expected, options) =>
          new Promise((_resolve, reject) =>
            options!.signal!.addEventListener('abort', () => reject(options!.signal!.reason))
          ),
        put: async () => {
          throw new WrongAnswerError('other bytes')
        }
      },
      new VirtualProcess(time).clock
    )
    await time.drive(clients.request({ kind: 'read', object: 0 }, noSignal))
    expect(time.now - time.startAt).toBe(60_000)
    expect(recorder.report(1, noCounters, { lostObjects: 0, storedBytes: 1 }).reads.failures).toEqual({ timeout: 1 })
    await expect(clients.request({ kind: 'write', object: 0 }, noSignal)).rejects.toThrow(WrongAnswerError)
  })

  it('name what they know no name of', () => {
    expect([failureName(new Error('?')), failureName('?'), failureName(new S3Failure('x', 502, ''))]).toEqual([
      'failed',
      'failed',
      'status 502'
    ])
  })
})

describe('margins', () => {
  it('count what is on the disk of a provider that is there, whatever health says', async () => {
    const shard = (provider: string | null, cid: string) => ({
      ...{ cid, provider, state: 'healthy' as const, lastProof: null }
    })
    const segment = (shards: ReturnType<typeof shard>[]) => ({
      ...{ code: '2+2', healthy: 4, margin: 2, refusers: 0, unplaced: null, shards }
    })
    const segments = [
      segment([shard('a', '1'), shard('b', '2'), shard('c', '3'), shard('d', '4')]),
      segment([shard('a', '5'), shard('away', '6'), shard(null, '7'), shard('d', 'gone')])
    ]
    const margins = await lookAtMargins({
      keys: ['one'],
      healthOf: async () => ({ segments, blocks: [segment([shard('away', '8')])] }),
      isThere: async (peerId, cid) => peerId !== 'away' && cid !== 'gone'
    })
    expect(margins).toEqual({ least: -1, mean: 0.5, fullShare: 0.5 })
  })
})

describe('a run', () => {
  const reportOf = () => {
    const recorder = new ChurnRecorder()
    recorder.read({ firstByteMs: 10, ms: 20, bytes: 1000 })
    recorder.margin({ atMs: 1000, least: 1, mean: 2, fullShare: 0.5 })
    return recorder.report(1000, noCounters, { lostObjects: 0, storedBytes: 1 })
  }
  const measured = async (): Promise<LiveRun> => ({
    ...{ report: reportOf(), startUpsMs: [3000, 1000, 2000], lateness: { count: 1, meanMs: 5, maxMs: 5 } },
    proxyStrain: { lateMsP99: 1, lateMsMax: 2, heldBytesMost: 3e6 }
  })
  const foretold = async (): Promise<ChurnReport> => reportOf()
  const failing = (error: Error) => async (): Promise<never> => {
    throw error
  }

  const outcomeOf = (sides: NonNullable<LiveOptions['sides']>) =>
    liveBenchmark({ choices: [{ trace: 'weibull', providers: 24 }], isJudging: true, sides }).run({
      ...{ scale: 'full', seed: 1, directory: '/nowhere', runtimes: [], progress: () => {}, signal: noSignal }
    })

  it('has both sides, what real processes add, every sample, and what it was of', async () => {
    const { rows, failures, parameters } = await outcomeOf({ live: measured, simulated: foretold })
    const of = (id: string) => rows.find((row) => row.id === id)?.figures
    expect(failures).toEqual([])
    expect(of('weibull/live')).toMatchObject({
      ...{ startUpP50: { median: 2000 }, startUpMax: { median: 3000 }, lateMax: { median: 5 } },
      ...{ proxyLateMax: { median: 2 }, proxyHeldMost: { median: 3 } }
    })
    expect(of('weibull/simulated')).not.toHaveProperty('startUpP50')
    expect(of('samples-reads-weibull/live')).toMatchObject({
      firstByte: { samples: [10] },
      lastByte: { samples: [20] }
    })
    expect(parameters).toMatchObject({ 'trace.weibull': 'model weibull', 'events.weibull': expect.any(Number) })
    expect(parameters['roundTripMs.weibull']).toMatch(/^[\d.]+, [\d.]+, [\d.]+$/)
  })

  it('keeps one side where the other fails, and neither over a wrong byte', async () => {
    const broken = failing(new Error('it broke'))
    const noLive = await outcomeOf({ live: broken, simulated: foretold })
    expect(noLive.failures).toEqual(['weibull: it broke'])
    expect(noLive.rows.map(({ id }) => id)).toContain('weibull/simulated')
    const noSimulation = await outcomeOf({ live: measured, simulated: broken })
    expect(noSimulation.failures).toEqual(['weibull, simulated: it broke'])
    expect(noSimulation.rows.map(({ id }) => id)).toContain('weibull/live')
    const stale = failing(new WrongContentError('stale'))
    await expect(outcomeOf({ live: measured, simulated: stale })).rejects.toThrow(WrongContentError)
    const wrong = failing(new WrongAnswerError('other bytes'))
    await expect(outcomeOf({ live: wrong, simulated: foretold })).rejects.toThrow(WrongAnswerError)
  })
})

describe('a workload', () => {
  const trace = (name: string): string =>
    path.join(fileURLToPath(new URL('../../fixtures/traces', import.meta.url)), `${name}.trace`)

  it('is of a trace file as of a model, with a code that those who are there can hold', async () => {
    const workload = await workloadOf({ trace: trace('weibull'), providers: 20 })
    const { timeline, code } = workload
    expect(timeline.traits).toHaveLength(20)
    const there = [...timeline.isOnAtStart.keys()].filter((i) => timeline.isOnAtStart[i] === 1)
    const domains = new Set(there.map((i) => domainOf(workload, i)))
    expect(code.k + code.m).toBe(Math.min(20, domains.size))
    expect(workload).toMatchObject({ speed: 60, durationMs: 600_000, hasLines: true })
  })

  it('says what its trace was made from', async () => {
    const hash = createHash('sha256')
      .update(await readFile(trace('weibull')))
      .digest('hex')
    const { source } = await chosenOf({ trace: trace('weibull'), providers: 20 })
    expect(source).toBe(`file weibull.trace, sha256 ${hash}`)
    expect((await chosenOf({ trace: 'weibull', providers: 24 })).source).toBe('model weibull')
  })

  it.each([
    ['a name of nothing', { trace: 'nosuch', providers: 24 }, /neither a churn model/],
    ['a trace of fewer', { trace: trace('weibull'), providers: 25 }, /has 24 providers, not 25/],
    ['a trace that is too short', { trace: trace('weibull'), providers: 24, speed: 10_000 }, /the trace ends/],
    ['a code that nobody can hold at first', { trace: 'ipfs', providers: 24, code: { k: 6, m: 6 } }, /are there/]
  ])('of %s is refused', async (_what, choice, why) => {
    await expect(workloadOf(choice)).rejects.toMatchObject({ code: 'BAD_INPUT', message: expect.stringMatching(why) })
  })
})
