/** What the simulated network and disks do to a request: each by itself, on virtual time. */
import { describe, expect, it } from 'vitest'
import { KiB, MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { blake3 } from '../../src/content/blake3.ts'
import { type CID, shardCid } from '../../src/content/cid.ts'
import { SharedLine } from '../../src/sim/line.ts'
import { Machine, type MachineInit } from '../../src/sim/machine.ts'
import { type NetworkInit, SimulatedNetwork } from '../../src/sim/network.ts'
import { roundTripOf } from '../../src/sim/scale/latency.ts'
import { type SeededRandom, seededRandom } from '../../src/sim/seeded-random.ts'
import { Trace } from '../../src/sim/trace.ts'
import { Timeline, VirtualProcess } from '../../src/sim/virtual-clock.ts'
import type { ProviderClient, ProviderRef } from '../../src/transfer/provider-client.ts'

const termMs = 60 * minuteMs

class Net {
  readonly timeline = new Timeline()
  readonly machines = new Map<string, Machine>()
  readonly network: SimulatedNetwork
  readonly client: ProviderClient
  readonly #random: SeededRandom

  constructor(inits: ReadonlyArray<Partial<MachineInit>>, init: NetworkInit = {}, seed = 1) {
    const { timeline, machines } = this
    this.#random = seededRandom(seed)
    this.network = new SimulatedNetwork(
      {
        ...{ timeline, machines, random: this.#random, trace: new Trace(timeline) },
        budget: { spend: () => false, spendAll: () => false, renewed: () => {} }
      },
      { jitterShare: 0, ...init }
    )
    for (const [at, own] of inits.entries()) {
      const machine = new Machine(
        {
          ...{ timeline, random: this.#random, log: silentLog },
          connect: (one, process) => this.network.connectMachine(one, process)
        },
        {
          ...{ peerId: `m${at}`, operator: `operator ${at}`, host: `192.0.2.${at + 1}`, domains: [], skewMs: 0 },
          ...{ capacityBytes: 64 * MiB, latencyMs: 0, collectEveryMs: 24 * 60 * minuteMs, ...own }
        }
      )
      machines.set(machine.peerId, machine)
      machine.start()
    }
    this.client = this.network.connect(new VirtualProcess(timeline), 'gateway').client
  }

  machine(at = 0): Machine {
    return this.machines.get(`m${at}`)!
  }

  ref(at = 0): ProviderRef {
    const { peerId, dataUrl, address } = this.machine(at)
    return { peerId, dataUrls: [dataUrl], addresses: [address] }
  }

  /** Milliseconds that it takes. */
  async timed(work: () => Promise<unknown>): Promise<number> {
    const startedAt = this.timeline.now
    await this.timeline.drive(work())
    return this.timeline.now - startedAt
  }

  async stored(bytes: Uint8Array, at = 0): Promise<CID> {
    const cid = shardCid(blake3(bytes))
    await this.timeline.drive(this.client.putShard(this.ref(at), cid, bytes, { termMs }))
    return cid
  }

  /** What comes of a call, or `silence` where nothing has within a minute. */
  async outcome(call: (signal: AbortSignal) => Promise<unknown>): Promise<string> {
    const controller = new AbortController()
    this.timeline.schedule(minuteMs, () => controller.abort('silence'))
    return await this.timeline.drive(
      call(controller.signal).then(
        () => 'ok',
        (error: unknown) => (error === 'silence' ? 'silence' : (error as { code: string }).code)
      )
    )
  }

  /** The gateway asks a machine for a lease. */
  renewed(cid: CID, at = 0): Promise<string> {
    return this.outcome((signal) => this.client.renewLeases(this.ref(at), [cid], { termMs }, signal))
  }
}

const block = (bytes: number, name = 'block'): Uint8Array => seededRandom(name).bytes(bytes)

describe('a line', () => {
  it('takes N / B seconds for N bytes, and as long as all of them for several at once', async () => {
    const bytesPerSecond = 100 * KiB
    const net = new Net([{ bytesPerSecond, writeMs: () => 1 }])
    const bytes = block(200 * KiB)
    const cid = shardCid(blake3(bytes))
    const put = await net.timed(() => net.client.putShard(net.ref(), cid, bytes, { termMs }))
    expect(put).toBeGreaterThanOrEqual(2 * secondMs)
    expect(put).toBeLessThan(2.1 * secondMs)
    const get = (): Promise<Uint8Array> => net.client.getShard(net.ref(), cid)
    const one = await net.timed(get)
    expect(one).toBeGreaterThanOrEqual(2 * secondMs)
    expect(one).toBeLessThan(2.1 * secondMs)
    const three = await net.timed(() => Promise.all([get(), get(), get()]))
    expect(three).toBeGreaterThanOrEqual(6 * secondMs)
    expect(three).toBeLessThan(6.1 * secondMs)
  })

  it('gives an equal share to each, and its rest to the others once one is given up; cut, it loses all', () => {
    const timeline = new Timeline()
    const line = new SharedLine(timeline, secondMs) // a byte a millisecond
    const ended: string[] = []
    const note = (what: string) => (): void => void ended.push(`${what} ${timeline.now - timeline.startAt}`)
    line.carry(100, note('short'), note('lost'))
    line.carry(300, note('long'), note('lost'))
    const giveUp = line.carry(1000, note('never'), note('lost'))
    timeline.schedule(600, giveUp) // the long one has 250 by then
    timeline.schedule(900, () => {
      line.carry(500, note('late'), note('cut'))
      line.setRate(2 * secondMs)
    })
    timeline.schedule(1000, () => line.cut(true))
    const end = new Promise<void>((resolve) => void timeline.schedule(1200, resolve))
    return timeline.drive(end).then(() => expect(ended).toEqual(['short 300', 'long 650', 'cut 1000']))
  })

  it('that nothing bounds any more lets what is under way arrive', () => {
    const timeline = new Timeline()
    const line = new SharedLine(timeline, secondMs)
    const ended: string[] = []
    for (const bytes of [100, 300])
      line.carry(
        bytes,
        () => void ended.push(`${bytes} ${timeline.now - timeline.startAt}`),
        () => ended.push('lost')
      )
    timeline.schedule(50, () => line.setRate(Number.POSITIVE_INFINITY))
    const end = new Promise<void>((resolve) => void timeline.schedule(1000, resolve))
    return timeline.drive(end).then(() => expect(ended).toEqual(['100 50', '300 50']))
  })

  it('of the gateway is shared by what comes from different machines', async () => {
    const net = new Net([{}, {}], { gateway: { bytesPerSecond: 100 * KiB } })
    const [a, b] = [await net.stored(block(100 * KiB)), await net.stored(block(100 * KiB, 'other'), 1)]
    const both = await net.timed(() =>
      Promise.all([net.client.getShard(net.ref(), a), net.client.getShard(net.ref(1), b)])
    )
    expect(both).toBeGreaterThanOrEqual(2 * secondMs)
    expect(both).toBeLessThan(2.1 * secondMs)
  })

  it('that breaks in the middle of an upload is heard of at once', async () => {
    const net = new Net([{ bytesPerSecond: 10 * KiB }])
    const bytes = block(100 * KiB)
    net.timeline.schedule(secondMs, () => net.machine().crash('killed'))
    const putting = net.outcome(() => net.client.putShard(net.ref(), shardCid(blake3(bytes)), bytes, { termMs }))
    expect(await putting).toBe('OFFLINE')
    expect(net.timeline.now - net.timeline.startAt).toBe(secondMs)
  })
})

describe('distance', () => {
  it('is that between the regions: around the median of the pair, and seldom the same twice', async () => {
    const net = new Net([{ region: 2 }, { region: 1 }], { gateway: { region: 1 } })
    for (const [at, region] of [2, 1].entries()) {
      const times: number[] = []
      for (let i = 0; i < 101; i++) times.push(await net.timed(() => net.client.getOffer(net.ref(at))))
      const median = times.toSorted((a, b) => a - b)[50]!
      expect(median / roundTripOf(1, region)).toBeGreaterThan(0.85)
      expect(median / roundTripOf(1, region)).toBeLessThan(1.15)
      expect(new Set(times).size).toBeGreaterThan(5)
    }
  })

  it('costs what it takes to connect once for each connection, and again after a start', async () => {
    const net = new Net([{ latencyMs: 50 }], { setUpRoundTrips: { data: 2, control: 4 } })
    const cid = await net.stored(block(10))
    const get = (): Promise<unknown> => net.client.getShard(net.ref(), cid)
    expect(await net.timed(get)).toBe(100)
    expect(await net.timed(() => Promise.all([get(), get()]))).toBe(300)
    expect(await net.timed(() => Promise.all([get(), get()]))).toBe(100)
    const offer = (): Promise<unknown> => net.client.getOffer(net.ref())
    expect(await net.timed(offer)).toBe(500)
    expect(await net.timed(() => Promise.all([offer(), offer()]))).toBe(100)
    net.machine().crash('killed')
    expect(await net.timed(() => get().catch(() => {}))).toBe(100) // the closed port says so
    net.machine().start()
    expect(await net.timed(get)).toBe(300)
    await net.timeline.drive(new Promise<void>((resolve) => void net.timeline.schedule(31 * secondMs, resolve)))
    expect(await net.timed(get)).toBe(300) // idle for too long
  })
})

describe('a partition', () => {
  it('keeps both sides from each other until it heals', async () => {
    const net = new Net([{}, {}])
    const cid = await net.stored(block(10))
    for (const calls of ['refused', 'silent'] as const) {
      const heal = net.network.cut({ from: new Set(['gateway']), to: new Set(['m0']), calls })
      expect(await net.renewed(cid)).toBe(calls === 'refused' ? 'OFFLINE' : 'silence')
      expect(net.machine().readableSince).toBe(Number.POSITIVE_INFINITY)
      expect(await net.outcome((signal) => net.client.getOffer(net.ref(1), signal))).toBe('ok')
      heal()
      heal()
      expect(await net.renewed(cid)).toBe('ok')
      expect(net.machine().readableSince).toBeLessThanOrEqual(net.timeline.now)
    }
  })

  it('may be one-way: what one side asks gets through, and what the other asks does not', async () => {
    const net = new Net([{}, {}])
    const cid = await net.stored(block(10))
    const { client } = net.network.connectMachine(net.machine(1), net.machine(1).process!)
    net.network.cut({ from: new Set(['m1']), to: new Set(['m0']), calls: 'refused' })
    expect(await net.outcome((signal) => client.getShard(net.ref(), cid, signal))).toBe('OFFLINE')
    const { client: other } = net.network.connectMachine(net.machine(), net.machine().process!)
    expect(await net.outcome((signal) => other.getOffer(net.ref(1), signal))).toBe('ok')
    expect(await net.renewed(cid)).toBe('ok')
  })

  it('may let requests through and no answers: what was asked is done, and nobody hears', async () => {
    const net = new Net([{}])
    net.network.cut({ from: new Set(['gateway']), to: new Set(['m0']), calls: 'unanswered' })
    const bytes = block(10)
    const cid = shardCid(blake3(bytes))
    const put = await net.outcome((signal) => net.client.putShard(net.ref(), cid, bytes, { termMs, signal }))
    expect(put).toBe('silence')
    expect(net.machine().disk.holds(cid)).toBe(true)
  })
})

describe('a disk', () => {
  it('that is slow keeps writers and readers waiting', async () => {
    const net = new Net([{}])
    const cid = await net.stored(block(10))
    expect(await net.timed(() => net.client.getShard(net.ref(), cid))).toBe(0)
    net.machine().behave({ diskSlowness: 1000 })
    const other = block(10, 'other')
    const put = (): Promise<void> => net.client.putShard(net.ref(), shardCid(blake3(other)), other, { termMs })
    expect(await net.timed(put)).toBeGreaterThan(secondMs)
    expect(await net.timed(() => net.client.getShard(net.ref(), cid))).toBeGreaterThanOrEqual(secondMs)
  })

  it('tears only what was being written when the power failed; the provider notices, and takes it anew', async () => {
    const states = new Set<string>()
    for (let round = 0; round < 40; round++) {
      const net = new Net([{}], {}, round)
      const kept = await net.stored(block(100, 'kept'))
      const machine = net.machine()
      const bytes = block(100, `torn ${round}`)
      const cid = shardCid(blake3(bytes))
      machine.disk.failPowerAtNextWrite(() => {
        machine.crash('vanished', true)
        return true
      })
      const put = await net.outcome((signal) => net.client.putShard(net.ref(), cid, bytes, { termMs, signal }))
      expect(put).toBe('silence') // nobody was told that it is safe
      states.add(!machine.disk.has(cid) ? 'absent' : machine.disk.holds(cid) ? 'whole' : 'torn')
      machine.start()
      expect(await net.outcome((signal) => net.client.getShard(net.ref(), kept, signal))).toBe('ok')
      const { usedBytes } = await net.timeline.drive(machine.storage.stats())
      expect(usedBytes).toBe(await machine.disk.bytes())
      const got = await net.outcome((signal) => net.client.getShard(net.ref(), cid, signal))
      expect(got).toBe(machine.disk.holds(cid) ? 'ok' : 'MISSING')
      await net.stored(bytes)
      expect(machine.disk.holds(cid)).toBe(true)
      expect(await net.outcome((signal) => net.client.getShard(net.ref(), cid, signal))).toBe('ok')
    }
    expect(states).toEqual(new Set(['absent', 'whole', 'torn']))
  })
})
