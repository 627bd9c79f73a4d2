/** Repair over a real index and providers in memory, on a clock that is moved by hand. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { dayMs, hourMs, MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import type { StoredSegment } from '../../src/metadata/records.ts'
import { releaseLeases, renewLeases } from '../../src/repair/leases.ts'
import { Presence } from '../../src/repair/presence.ts'
import { Repairer, type RepairerComponents } from '../../src/repair/repairer.ts'
import {
  bytesOf,
  chunksOf,
  collect,
  type LocalNetwork,
  type LocalProvider,
  startLocalNetwork
} from '../support/local-network.ts'

/** Time stands still unless it is moved; nobody is late. With `jumps` a sleep takes no time but the clock's. */
class HandClock implements Clock {
  time = 1_800_000_000_000
  jumps = false
  now = (): number => this.time
  sleep = (ms: number, signal?: AbortSignal): Promise<void> => {
    if (signal === undefined && this.jumps) this.time += ms
    if (signal === undefined) return Promise.resolve()
    return new Promise((_resolve, reject) => {
      if (signal.aborted) reject(signal.reason)
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
  }
}

const code = { k: 4, m: 4 }
const shardBytes = 256
/** Short, so that the little churn of a test does not call for haste. */
const graceMs = minuteMs
let clock: HandClock
let net: LocalNetwork
let bytes: Uint8Array

async function start(count = 11, length = 3000): Promise<void> {
  bytes = bytesOf(length)
  clock = new HandClock()
  net = await startLocalNetwork(count, { shardBytesMax: shardBytes, fixedCode: code }, undefined, { clock, graceMs })
  await net.store.createBucket('b', { owner: 'me', displayName: 'me' })
  const body = { bytes: chunksOf(bytes), size: bytes.length }
  await net.store.putObject({ bucket: 'b', key: 'k', body, headers: {}, userMetadata: {}, storageClass: 'STANDARD' })
  await net.store.idle()
  // Who has most comes first: tests take providers away, and chance gives one nothing at times.
  const held = new Map((await net.index.listHolders()).map(({ provider, shards }) => [provider, shards]))
  net.providers.sort((a, b) => (held.get(b.peerId) ?? 0) - (held.get(a.peerId) ?? 0))
  await net.presence.tick()
  clock.time++ // who comes and goes within a millisecond has come
}
beforeEach(() => start())
afterEach(() => net.index.close())

const segmentsOf = (): Promise<StoredSegment[]> => net.index.listSegments({ afterId: 0, limit: 100 })
const holderOf = ({ shards }: StoredSegment, index: number): LocalProvider =>
  net.providers.find(({ peerId }) => peerId === shards[index]!.provider)!

/** Time passes, and what it has changed is noticed. */
async function passes(ms: number): Promise<void> {
  await net.presence.tick()
  clock.time += ms
  await net.presence.tick()
}

async function isWhole(): Promise<boolean> {
  const segments = await segmentsOf()
  return segments.every(({ shards }) => {
    const providers = shards.map(({ provider }) => net.providers.find(({ peerId }) => peerId === provider))
    const isThere = shards.every(({ state }, at) => state === 'healthy' && providers[at]?.isAlive === true)
    return isThere && new Set(providers).size === shards.length
  })
}

async function readsBack(): Promise<boolean> {
  const opened = await net.store.openObject('b', 'k')
  const read = await collect(opened.read(0, bytes.length))
  opened.close()
  return Buffer.compare(read, bytes) === 0
}

/** Rounds until there is nothing to do. */
async function repairAll(repairer = net.repairer): Promise<void> {
  for (let i = 0; i < 20; i++) {
    repairer.changed()
    if ((await repairer.round()) === 0) return
  }
  throw new Error('repair does not come to an end')
}

const blocksAt = async ({ core }: LocalProvider): Promise<number> => (await core.stats()).blocks

describe('a provider that is away', () => {
  it('within its grace is waited for', async () => {
    net.providers[0]!.isAlive = false
    await passes(graceMs - 1)
    net.reads.length = 0
    expect(await net.repairer.round()).toBe(0)
    expect(net.reads).toEqual([])
    expect(await net.repairer.plan(10)).toMatchObject({ items: [], running: false, paused: null })
  })

  it('beyond its grace is waited for until the margin is at the threshold; then all shards are rebuilt at once', async () => {
    const [segment] = (await segmentsOf()) as [StoredSegment]
    const [first, second] = [holderOf(segment, 0), holderOf(segment, 5)]
    first.isAlive = false
    await passes(graceMs + 1)
    expect(net.presence.gone()).toEqual([first.peerId])
    net.reads.length = 0
    await net.repairer.round()
    const whole = await net.index.getSegment(segment.id)
    expect(whole).toEqual(segment)
    second.isAlive = false
    await passes(graceMs + 1)
    const plan = await net.repairer.plan(100)
    expect(plan.items.find((item) => item.segment === segment.id)).toMatchObject({ margin: 2, wanted: 2, readable: 6 })
    net.reads.length = 0
    await net.repairer.round()
    const repaired = (await net.index.getSegment(segment.id))!
    for (const index of [0, 5]) expect(holderOf(repaired, index).isAlive).toBe(true)
    const cids = new Set(repaired.shards.map(({ cid }) => cid.toString()))
    expect(net.reads.filter((read) => cids.has(read.split(' ')[1]!))).toHaveLength(code.k)
    const { bytesRead, bytesWritten, bytesTheory, wastedBytes } = net.repairer.progress
    expect(bytesRead + bytesWritten).toBe(bytesTheory)
    expect(wastedBytes).toBe(0)
    expect(await readsBack()).toBe(true)
  })

  it('for very long is not waited for', async () => {
    net.providers[0]!.isAlive = false
    await passes(25 * graceMs + 1)
    await repairAll()
    expect(await isWhole()).toBe(true)
  })

  it('and comes back in time makes repair unnecessary', async () => {
    for (const provider of net.providers.slice(0, 2)) provider.isAlive = false
    await passes(graceMs - 1)
    for (const provider of net.providers.slice(0, 2)) {
      provider.isAlive = true
      net.presence.changed(provider.peerId, 'online')
    }
    await passes(graceMs)
    expect(await net.repairer.round()).toBe(0)
    expect(await isWhole()).toBe(true)
  })

  it('and comes back too late gives up what others have now, and only that', async () => {
    const late = net.providers.slice(0, 2)
    for (const provider of late) provider.isAlive = false
    await passes(25 * graceMs + 1)
    await repairAll()
    expect(await isWhole()).toBe(true)
    for (const provider of late) {
      provider.isAlive = true
      net.presence.changed(provider.peerId, 'online')
    }
    expect(await blocksAt(late[0]!)).toBeGreaterThan(0)
    await releaseLeases(leases())
    expect(await isWhole()).toBe(true)
    expect(await Promise.all(late.map(blocksAt))).toEqual([0, 0])
  })

  it('and comes back while its shards are rebuilt keeps them', async () => {
    const late = net.providers[0]!
    late.isAlive = false
    await passes(25 * graceMs + 1)
    const before = await segmentsOf()
    const returning = repairerOn({
      verify: async (_target, blocks) => {
        if (!late.isAlive) {
          late.isAlive = true
          net.presence.changed(late.peerId, 'online')
        }
        return blocks.map(() => 'ok')
      }
    })
    await returning.round()
    expect((await segmentsOf()).map(({ shards }) => shards.map(({ provider }) => provider))).toEqual(
      before.map(({ shards }) => shards.map(({ provider }) => provider))
    )
    expect(returning.progress.wastedBytes).toBeGreaterThan(0)
    expect(await net.index.listReleaseProviders()).not.toEqual([])
  })

  it('is absent for as long as it was watched, over restarts of the gateway', async () => {
    net.providers[0]!.isAlive = false
    await passes(graceMs / 2)
    const restarted = async (): Promise<Presence> => {
      const parts = { index: net.index, stateOf: net.repair.peers.state, clock, log: silentLog }
      const presence = new Presence(parts, { graceMs })
      await presence.load()
      return presence
    }
    clock.time += 3 * hourMs // nobody watches
    const presence = await restarted()
    await presence.tick()
    expect(presence.gone()).toEqual([])
    clock.time += graceMs / 2 + secondMs
    await presence.tick()
    expect(presence.gone()).toEqual([net.providers[0]!.peerId])
    expect((await restarted()).gone()).toEqual([net.providers[0]!.peerId])
  })

  it('is not gone while the gateway itself seems to be cut off', async () => {
    let isOwnOutage = false
    const parts = { index: net.index, stateOf: net.repair.peers.state, clock, log: silentLog }
    const presence = new Presence({ ...parts, isOwnOutage: () => isOwnOutage }, { graceMs })
    for (const provider of net.providers.slice(0, 5)) provider.isAlive = false
    await presence.tick()
    isOwnOutage = true
    await presence.tick()
    clock.time += 5 * graceMs
    await presence.tick()
    expect(presence.isSuspended).toBe(true)
    expect(presence.gone()).toEqual([])
    isOwnOutage = false
    await presence.tick()
    expect(presence.gone()).toEqual([]) // those hours were not theirs
    clock.time += graceMs + 1
    await presence.tick()
    expect(presence.gone()).toHaveLength(5)
  })
})

const leases = () => ({
  index: net.index,
  client: net.client,
  peers: net.repair.peers,
  clock,
  log: silentLog,
  guard: net.guard,
  confirmRefusals: net.refusals.confirm
})
const repairerOn = (over: Partial<RepairerComponents>): Repairer => new Repairer({ ...net.repair, ...over })

const setAll = (change: Partial<LocalProvider>): void => {
  for (const provider of net.providers) Object.assign(provider, change)
}

/** So many shards of each segment are found to be missing. */
async function lose(count: number, state: 'missing' | 'withdrawn' = 'missing'): Promise<void> {
  for (const segment of await segmentsOf()) {
    for (let index = 0; index < count; index++) {
      const { provider } = segment.shards[index]!
      await net.index.markShard({ segmentId: segment.id, index }, provider!, state)
    }
  }
}

describe('lost shards', () => {
  it('are rebuilt at once, once, by two gateways that share an index', async () => {
    await lose(2)
    const lost = 2 * (await segmentsOf()).length
    const puts: string[] = []
    const client: RepairerComponents['client'] = {
      ...net.client,
      putShard: async (to, cid, ...rest) => {
        puts.push(`${cid}`)
        await net.client.putShard(to, cid, ...rest)
      }
    }
    const pair = [repairerOn({ client, peerId: 'one' }), repairerOn({ client, peerId: 'two' })]
    const placed = await Promise.all(pair.map((repairer) => repairer.round()))
    expect(placed[0]! + placed[1]!).toBe(lost)
    expect(puts).toHaveLength(lost)
    expect(await isWhole()).toBe(true)
  })

  it('of a segment that another gateway works on are left to it, until its claim ends', async () => {
    await lose(1)
    const ids = (await segmentsOf()).map(({ id }) => id)
    await net.index.claimSegments(ids, { claimant: 'other', until: clock.time + 1000, now: clock.time })
    expect(await net.repairer.round()).toBe(0)
    clock.time += 1000
    expect(await net.repairer.round()).toBe(ids.length)
    expect(await isWhole()).toBe(true)
  })

  it('are not counted on before a proof shows them, and what was stored is given back', async () => {
    await lose(1)
    const liars = repairerOn({ verify: async (_target, blocks) => blocks.map(() => 'missing') })
    expect(await liars.round()).toBe(0)
    expect(liars.progress).toMatchObject({ placedShards: 0, stuck: (await segmentsOf()).length })
    expect(await net.index.listReleaseProviders()).not.toEqual([])
    const silent = repairerOn({ verify: async (_target, blocks) => blocks.map(() => 'timeout') })
    await silent.round()
    expect(await isWhole()).toBe(true)
  })

  it('are not offered to whoever refused any of the segment', async () => {
    const all = await segmentsOf()
    const refuser = net.providers.find(({ peerId }) =>
      all.some((s) => s.shards.every(({ provider }) => provider !== peerId))
    )!
    const segment = all.find(({ shards }) => shards.every(({ provider }) => provider !== refuser.peerId))!
    const refused = { provider: refuser.peerId, cid: segment.shards[3]!.cid, at: 1, signed: Uint8Array.of(1) }
    await net.index.recordRefusals([refused], clock.time)
    await lose(2, 'withdrawn')
    await repairAll()
    const after = (await net.index.getSegment(segment.id))!
    const before = segment.shards.slice(0, 2).map(({ provider }) => provider)
    for (const index of [0, 1]) {
      expect(after.shards[index]!.provider).not.toBe(refuser.peerId)
      expect(before).not.toContain(after.shards[index]!.provider)
    }
  })

  it('are kept by the gateway itself where nobody else takes them, several of a segment too, if it may', async () => {
    setAll({ freeBytes: 0 })
    await lose(2)
    let letGo = 0
    const kept: number[] = []
    const host = repairerOn({
      selfHost: {
        peerId: 'gateway',
        wants: () => true,
        keep: async (segment, shards) => {
          kept.push(segment.id)
          const where = { provider: 'gateway', leaseUntil: 1, at: clock.time }
          return {
            placed: new Map([...shards.keys()].map((index) => [index, where])),
            letGo: () => {
              letGo++
            }
          }
        }
      }
    })
    await host.round()
    expect(letGo).toBe(kept.length)
    const segments = await segmentsOf()
    expect(kept.sort()).toEqual(segments.map(({ id }) => id))
    for (const { shards } of segments)
      for (const index of [0, 1]) expect(shards[index]).toMatchObject({ provider: 'gateway', state: 'healthy' })
  })

  const whys: Array<[why: string, prepare: () => void]> = [
    ['no provider that takes shards is online', () => setAll({ isAlive: false })],
    ['all providers are full', () => setAll({ freeBytes: 0 })],
    ['too few independent failure domains', () => setAll({ domains: ['op:one'] })]
  ]
  it.each(whys)('that nobody can take are said to be stuck: %s', async (why, prepare) => {
    await lose(1)
    prepare()
    net.reads.length = 0
    expect(await net.repairer.round()).toBe(0)
    expect(net.reads).toEqual([]) // reading them would be in vain
    const { items } = await net.repairer.plan(100)
    expect(items[0]!.stuck).toContain(why)
    expect(net.repairer.progress.stuck).toBe(items.length)
  })

  it('that were stuck are tried again when something has changed, and after a growing pause', async () => {
    await lose(1)
    setAll({ freeBytes: 0 })
    await net.repairer.round()
    setAll({ freeBytes: MiB })
    expect(await net.repairer.round()).toBe(0) // not yet
    clock.time += 5 * secondMs
    expect(await net.repairer.round()).toBeGreaterThan(0)
    await lose(1)
    setAll({ freeBytes: 0 })
    await net.repairer.round()
    setAll({ freeBytes: MiB })
    net.repairer.changed()
    expect(await net.repairer.round()).toBeGreaterThan(0)
    expect(net.repairer.progress).toMatchObject({ stuck: 0 })
  })
})

describe('what cannot be helped', () => {
  it('is not read anew whenever somebody comes', async () => {
    await lose(1)
    const putShard = () => Promise.reject(new HoldfastError('NO_SPACE', 'full after all'))
    const repairer = repairerOn({ client: { ...net.client, putShard } })
    net.reads.length = 0
    for (let i = 0; i < 50; i++) {
      repairer.changed()
      await repairer.round()
      clock.time += 20
    }
    const segments = await segmentsOf()
    expect(net.reads.length).toBeLessThan(8 * segments.length * code.k)
    // But when a person asks for it.
    net.reads.length = 0
    await repairer.repairNow()
    expect(net.reads.length).toBeGreaterThan(0)
  })

  it('has cost what was read of it', async () => {
    await lose(1)
    const coded = (await segmentsOf()).filter(({ k }) => k > 1)
    const few = new Set(coded.flatMap(({ shards }) => shards.slice(1, 4).map(({ cid }) => `${cid}`)))
    const getShard: typeof net.client.getShard = (provider, cid, ...rest) =>
      few.has(cid.toString())
        ? net.client.getShard(provider, cid, ...rest)
        : Promise.reject(new HoldfastError('OVERLOADED', 'not now'))
    const repairer = repairerOn({ client: { ...net.client, getShard } })
    await repairer.round()
    const { bytesRead, wastedBytes, shardsRebuilt } = repairer.progress
    expect([shardsRebuilt, bytesRead > 0, wastedBytes]).toEqual([0, true, bytesRead])
    expect((await repairer.plan(10)).items[0]?.stuck).toBe('too few of its shards can be read now')
  })

  it('does not stand in the way of what can be, however much of it there is', async () => {
    await lose(1)
    const [like] = (await segmentsOf()) as [StoredSegment]
    const shards = like.shards.map(({ provider }, at) => ({
      ...{ cid: cidOfShard(bytesOf(at + 1)), provider, state: 'missing' as const, leaseUntil: 0 }
    }))
    const hopeless = Array.from({ length: 1500 }, (_, at): StoredSegment => ({ ...like, id: 1_000_000 + at, shards }))
    const isReal = (id: number): boolean => id < 1_000_000
    const index: RepairerComponents['index'] = {
      ...net.index,
      listIncomplete: async ({ afterId, limit }) => {
        const real = await net.index.listIncomplete({ afterId, limit })
        return [...real, ...hopeless.filter(({ id }) => id > afterId)].slice(0, limit)
      },
      getSegment: async (id) => (isReal(id) ? await net.index.getSegment(id) : hopeless[id - 1_000_000]),
      claimSegments: async (ids, claim) => (isReal(ids[0]!) ? await net.index.claimSegments(ids, claim) : [...ids])
    }
    const repairer = repairerOn({ index })
    for (let i = 0; i < 3; i++) await repairer.round()
    expect(await isWhole()).toBe(true)
    expect(repairer.progress.stuck).toBe(1500)
  })
})

describe('shards that are too close to each other', () => {
  it('stay where they are until the new holder has proved that it has them', async () => {
    const [segment] = (await segmentsOf()) as [StoredSegment]
    for (const index of [0, 1, 2]) holderOf(segment, index).domains = ['op:same']
    const silent = repairerOn({ verify: async (_target, blocks) => blocks.map(() => 'timeout') })
    expect(await silent.round()).toBe(0)
    expect((await net.index.getSegment(segment.id))!.shards).toEqual(segment.shards)
    expect(await net.index.listReleases(segment.shards[0]!.provider!, 10)).toEqual([])
    expect(silent.progress.wastedBytes).toBeGreaterThan(0)
  })

  it('are read from where they are, and moved', async () => {
    const [segment] = (await segmentsOf()) as [StoredSegment]
    for (const index of [0, 1, 2]) holderOf(segment, index).domains = ['op:same']
    net.reads.length = 0
    await repairAll()
    const cids = new Set(segment.shards.map(({ cid }) => cid.toString()))
    expect(net.reads.filter((read) => cids.has(read.split(' ')[1]!))).toHaveLength(1)
    const after = (await net.index.getSegment(segment.id))!
    expect(after.shards.filter((_, at) => holderOf(after, at).domains[0] === 'op:same')).toHaveLength(2)
    expect(net.repairer.progress.shardsMoved).toBeGreaterThan(0)
    expect(net.repairer.progress.shardsRebuilt).toBe(0)
    expect(await isWhole()).toBe(true)
  })
})

describe('the budget', () => {
  it('says that it makes way for clients', async () => {
    expect((await repairerOn({ pressure: () => 1 }).plan(1)).paused).toMatch(/clients/)
    expect((await repairerOn({ pressure: () => 0 }).plan(1)).paused).toBe(null)
  })

  it('is kept to', async () => {
    await lose(2)
    clock.jumps = true
    const slow = new Repairer(net.repair, { bytesPerSecond: 500 })
    const startedAt = clock.time
    await slow.round()
    const { bytesRead, bytesWritten } = slow.progress
    // The last waits for those before it; that of the manifest, two copies from one, is the largest.
    const largest = Math.max(...(await segmentsOf()).map(({ k, length }) => (k === 1 ? 3 * length : 6 * shardBytes)))
    const secondsMin = (bytesRead + bytesWritten - largest) / 500 - 1
    expect((clock.time - startedAt) / 1000).toBeGreaterThanOrEqual(secondsMin)
    expect(secondsMin).toBeGreaterThan(5)
    expect(await isWhole()).toBe(true)
  })
})

describe('a gateway that is killed', () => {
  /** Everything outside happens so often, and then no more; of the last time nobody hears. */
  function mortal<T extends object>(inner: T, life: { left: number; died: () => void }): T {
    return new Proxy(inner, {
      get: (target, name) => {
        const member = Reflect.get(target, name) as unknown
        if (typeof member !== 'function') return member
        return async (...args: unknown[]): Promise<unknown> => {
          life.left--
          if (life.left > 0) return await Reflect.apply(member, target, args)
          if (life.left === 0) await Reflect.apply(member, target, args)
          life.died()
          return await new Promise(() => {})
        }
      }
    })
  }

  /** @returns whether it died before the end of its round */
  async function dies(after: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const life = { left: after, died: () => resolve(true) }
    const doomed = repairerOn({
      index: mortal(net.index, life),
      client: mortal(net.client, life),
      peerId: 'doomed',
      verify: async (_target, blocks) => blocks.map(() => 'ok')
    })
    return await Promise.race([promise, doomed.round().then(() => false)])
  }

  /** What providers hold under a lease of ours that nothing needs, or do not hold that something does. */
  async function differences(): Promise<string[]> {
    const needed = new Set<string>()
    for (const { shards } of await segmentsOf())
      for (const { provider, cid } of shards) needed.add(`${provider} ${cid}`)
    const held = new Set<string>()
    for (const { peerId, shards } of net.providers)
      for await (const { cid } of shards.list()) held.add(`${peerId} ${cid}`)
    return [...needed.symmetricDifference(held)]
  }

  it('anywhere in a repair leaves what the next one brings to full margin, with nothing left over', {
    timeout: 60_000
  }, async () => {
    let deaths = 0
    // Dead after a step is dead before the next one: each state is met once.
    for (let after = 0, isAlive = false; !isAlive; after++) {
      await net.index.close()
      await start(9, 900)
      const [segment] = (await segmentsOf()) as [StoredSegment]
      const victim = holderOf(segment, 1)
      for await (const { cid } of victim.shards.list()) {
        await victim.shards.delete(cid)
        await net.index.markHolding(victim.peerId, cid, 'missing')
      }
      isAlive = !(await dies(after))
      if (!isAlive) deaths++
      clock.time += 3 * minuteMs // the claim of the dead has ended
      await repairAll()
      expect(await isWhole(), `killed at step ${after}`).toBe(true)
      expect(await readsBack()).toBe(true)
      // Leases of what was stored in vain are not renewed, and end.
      await releaseLeases(leases())
      await renewLeases(leases())
      clock.time += 2 * dayMs
      for (const { core } of net.providers) await core.collect()
      expect(await differences(), `killed at step ${after}`).toEqual([])
    }
    expect(deaths).toBeGreaterThan(15)
  })
})
