/** A provider that leaves, against gateways and providers in memory. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { Drain } from '../../src/provider/drain.ts'
import type { HandOverResult } from '../../src/provider/hand-over.ts'
import { RefusedHandOver } from '../../src/provider/refused-hand-over.ts'
import type { StorageStats } from '../../src/provider/storage-provider.ts'
import { copiesAt, has, segmentAt, startWorld, type World, type WorldProvider } from '../support/hand-over-world.ts'

const cleanUps: Array<() => Promise<unknown>> = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
})

const started = async (providers: number, gateways = 1) => {
  const world = await startWorld(providers, gateways)
  cleanUps.push(async () => {
    for (const { index } of world.gateways) await index.close()
  })
  return { world, gateway: world.gateways[0]!, providers: world.providers, leaver: world.providers[0]! }
}

const directory = async (): Promise<string> => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-drain-'))
  cleanUps.push(() => rm(path, { recursive: true, force: true }))
  return path
}

/** Its process, which the test gives its turns. */
const drainOf = async ({ clock }: World, leaver: WorldProvider, dataDir: string): Promise<Drain> => {
  const components = { clock, random: systemRandom, log: silentLog }
  return await Drain.open({ storage: leaver.storage, ...components }, { dataDir })
}

/** Turns of the provider, and what the gateways do meanwhile, until `isEnough`. */
const turns = async (world: World, drain: Drain, isEnough: () => Promise<boolean>): Promise<void> => {
  const { signal } = new AbortController()
  for (let turn = 0; !(await isEnough()); turn++) {
    if (turn === 30) throw new Error(`it does not get there: ${JSON.stringify(await drain.state())}`)
    const nextAt = await drain.turn(world.providers[0]!.handOver, signal)
    await Promise.all(world.gateways.filter(({ isAlive }) => isAlive).map((gateway) => gateway.release()))
    world.advance(Math.ceil(Math.max(0, nextAt - world.clock.now())))
  }
}
const isDone = (drain: Drain) => async (): Promise<boolean> => (await drain.state()).state === 'done'

/** Blocks that the others were sent, and which of them more than once. */
const sent = ({ providers }: World): { count: number; twice: string[] } => {
  const all = providers.flatMap(({ received }) => received.map(String))
  return { count: all.length, twice: all.filter((cid, at) => all.indexOf(cid) !== at) }
}

/** One that drains blocks of these owners, whatever becomes of a batch being the test's to say. */
async function drainOfOwners(owners: readonly string[], batch: (owner: string) => Promise<HandOverResult>) {
  let now = 1_700_000_000_000
  const storage = {
    owners: async () => owners.map((owner) => ({ owner, leases: 1, bytes: 1 })),
    leasesOf: async (owner: string) => [{ owner, cid: cidOfShard(Buffer.from(owner)), bytes: 1, until: now }],
    stats: async () => ({ leases: owners.length, leasedBytes: owners.length }) as StorageStats,
    setDraining: () => {},
    dropUnleased: async () => {}
  }
  const clock = { now: () => now, sleep: systemClock.sleep }
  const components = { storage, clock, random: systemRandom, log: silentLog }
  const drain = await Drain.open(components, { dataDir: await directory() })
  await drain.begin()
  const turn = async (signal: AbortSignal): Promise<void> => {
    now += 1000
    await drain.turn({ batch }, signal)
  }
  return turn
}

const nothing: HandOverResult = { moved: 0, movedBytes: 0, released: 0, tried: 0, sentBytes: 0, retryAfterMs: 0 }

describe('a provider that drains', () => {
  test('does not wait for an owner that takes its time before it serves the others', async () => {
    const asked: string[] = []
    const stopping = new AbortController()
    const turn = await drainOfOwners(['slow', 'quick'], async (owner) => {
      asked.push(owner)
      if (owner === 'slow') await systemClock.sleep(60_000, stopping.signal)
      return { ...nothing, moved: 1 }
    })
    for (let i = 0; i < 4; i++) await turn(stopping.signal)
    expect(asked.filter((owner) => owner === 'quick').length).toBeGreaterThan(1)
    expect(asked.filter((owner) => owner === 'slow').length).toBe(1)
    stopping.abort(new Error('enough'))
    await expect(turn(stopping.signal)).rejects.toThrow('enough')
  })

  test('sends to no purpose less and less often', async () => {
    let sent = 0
    const turn = await drainOfOwners(['liar'], async () => {
      sent++
      return { ...nothing, tried: 1, why: 'it says that nothing arrives' }
    })
    const { signal } = new AbortController()
    for (let seconds = 0; seconds < 600; seconds++) await turn(signal)
    expect(sent).toBeGreaterThan(8)
    expect(sent).toBeLessThan(30)
  })

  test('hands everything over, each block once, and has nothing left', async () => {
    const { world, gateway, providers, leaver } = await started(8)
    const segments = Array.from({ length: 40 }, (_, i) =>
      segmentAt([leaver, ...providers.slice(1 + (i % 4), 4 + (i % 4))])
    )
    const node = copiesAt(providers.slice(0, 3))
    await gateway.store(segments, [node])
    const drain = await drainOf(world, leaver, await directory())
    await drain.begin()
    expect(await leaver.storage.offer()).toMatchObject({ draining: true, accepting: false })
    await turns(world, drain, isDone(drain))
    expect(await leaver.storage.stats()).toMatchObject({ leases: 0, blocks: 0, usedBytes: 0 })
    expect(sent(world)).toEqual({ count: 41, twice: [] })
    expect(await drain.state()).toMatchObject({ moved: 41, movedBytes: 40 * 3000 + 200, sentBytes: 40 * 3000 + 200 })
    for (const { shards, id } of await gateway.index.listSegments({ afterId: 0, limit: 100 })) {
      expect(new Set(shards.map(({ provider }) => provider)).size, `segment ${id}`).toBe(shards.length)
      for (const { cid, provider } of shards) {
        expect(provider).not.toBe(leaver.peerId)
        expect(await has(providers.find(({ peerId }) => peerId === provider)!, cid)).toBe(true)
      }
    }
  })

  test('a shard that two gateways lease is handed over to the place that each chooses', async () => {
    const { world, providers, leaver } = await started(8, 2)
    const segment = segmentAt(providers.slice(0, 4))
    for (const gateway of world.gateways) await gateway.store([segment])
    const drain = await drainOf(world, leaver, await directory())
    await drain.begin()
    await turns(world, drain, isDone(drain))
    for (const { index, peerId } of world.gateways) {
      const [stored] = await index.listSegments({ afterId: 0, limit: 1 })
      const holder = providers.find((one) => one.peerId === stored!.shards[0]!.provider)!
      expect(holder).not.toBe(leaver)
      expect(await holder.storage.isLeasedBy(peerId, segment.shards[0]!.cid)).toBe(true)
    }
  })

  test('killed in the middle it goes on where it was, and sends nothing twice', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    await gateway.store(Array.from({ length: 40 }, () => segmentAt(providers.slice(0, 4))))
    const dataDir = await directory()
    const first = await drainOf(world, leaver, dataDir)
    await first.begin()
    // It dies when the first of what it has sent would be told: nobody hears of those.
    const { onAsk } = world
    let asked = 0
    const dying = new AbortController()
    world.onAsk = (from, to) => {
      if (to === gateway.peerId && from === leaver.peerId && ++asked > 1) {
        dying.abort(new Error('killed'))
        throw new HoldfastError('OFFLINE', 'killed')
      }
    }
    await expect(first.turn(leaver.handOver, dying.signal)).rejects.toThrow('killed')
    const before = sent(world).count
    expect(before).toBeGreaterThan(0)
    world.onAsk = onAsk
    leaver.storage.setDraining(false) // a new process
    const second = await drainOf(world, leaver, dataDir)
    expect([second.isDraining, leaver.storage.draining]).toEqual([true, true])
    await turns(world, second, isDone(second))
    expect(sent(world)).toEqual({ count: 40, twice: [] })
  })

  test('a provider that does not take a block is left out, and the block goes elsewhere', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segments = Array.from({ length: 12 }, () => segmentAt(providers.slice(0, 4)))
    await gateway.store(segments)
    const full = providers[4]!
    Object.defineProperty(full.storage, 'put', {
      value: async () => {
        throw new HoldfastError('NO_SPACE', 'full')
      }
    })
    const drain = await drainOf(world, leaver, await directory())
    await drain.begin()
    await turns(world, drain, isDone(drain))
    const stored = await gateway.index.listSegments({ afterId: 0, limit: 100 })
    expect(new Set(stored.map(({ shards }) => shards[0]!.provider))).toEqual(new Set([providers[5]!.peerId]))
  })

  test('nothing was sent to whom there was no connection: a provider that died just before costs nothing', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segments = Array.from({ length: 12 }, () => segmentAt(providers.slice(0, 4)))
    await gateway.store(segments)
    Object.defineProperty(providers[4]!.storage, 'put', {
      value: async () => {
        throw new HoldfastError('OFFLINE', 'no connection')
      }
    })
    const drain = await drainOf(world, leaver, await directory())
    await drain.begin()
    await turns(world, drain, isDone(drain))
    expect(await drain.state()).toMatchObject({ moved: 12, movedBytes: 12 * 3000, sentBytes: 12 * 3000 })
  })

  test('says whom it waits for, holds up nobody else for it, and goes on when they are there', async () => {
    const { world, providers, leaver } = await started(6, 2)
    const [here, away] = world.gateways as [World['gateways'][0], World['gateways'][0]]
    await here.store([segmentAt(providers.slice(0, 4))])
    await away.store([segmentAt(providers.slice(0, 4))])
    away.isAlive = false
    const drain = await drainOf(world, leaver, await directory())
    await drain.begin()
    await turns(world, drain, async () => (await drain.state()).leases === 1)
    const { state, waiting } = await drain.state()
    expect(state).toBe('draining')
    expect(waiting).toMatchObject([{ owner: away.peerId, why: expect.stringContaining('no connection') }])
    away.isAlive = true
    await turns(world, drain, isDone(drain))
    expect((await drain.state()).waiting).toEqual([])
  })

  test('with nobody to take it, it keeps what it has, and says so', async () => {
    const { world, gateway, providers, leaver } = await started(4)
    const segment = segmentAt(providers)
    await gateway.store([segment])
    const drain = await drainOf(world, leaver, await directory())
    await drain.begin()
    await drain.turn(leaver.handOver, new AbortController().signal)
    expect((await drain.state()).waiting).toMatchObject([{ why: expect.stringContaining('no other provider') }])
    expect(await has(leaver, segment.shards[0]!.cid)).toBe(true)
    expect(sent(world).count).toBe(0)
  })

  test('a block that has rotted is not sent, and confessed', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segment = segmentAt(providers.slice(0, 4))
    await gateway.store([segment])
    const { cid } = segment.shards[0]!
    await leaver.shards.put(cid, new Uint8Array(3000))
    const lease = { cid, bytes: 3000 }
    const result = await leaver.handOver.batch(gateway.peerId, [lease], 'drain')
    expect(result).toMatchObject({ moved: 0, sentBytes: 0, why: expect.stringContaining('damaged') })
    expect(sent(world).count).toBe(0)
    expect(leaver.confessed.map(String)).toEqual([cid.toString()])
  })

  test('stays after all when it is told so: it takes new blocks, and forgets that it drained', async () => {
    const { world, leaver } = await started(1)
    const dataDir = await directory()
    const drain = await drainOf(world, leaver, dataDir)
    await drain.begin()
    drain.start(leaver.handOver)
    await drain.cancel()
    expect([await drain.state(), leaver.storage.accepting]).toMatchObject([{ state: 'off' }, true])
    expect((await drainOf(world, leaver, dataDir)).isDraining).toBe(false)
    await drain.begin()
    await drain.stop()
    await writeFile(join(dataDir, 'draining.json'), '{ "cut off')
    expect((await drainOf(world, leaver, dataDir)).isDraining).toBe(true)
  })
})

describe('content that is refused, and not at once', () => {
  const refusing = async () => {
    const found = await started(6)
    const segment = segmentAt(found.providers.slice(0, 4))
    await found.gateway.store([segment, segmentAt(found.providers.slice(0, 4))])
    const { leaver, world } = found
    const { refusals: store, leases, storage, handOver } = leaver
    const { cid } = segment.shards[0]!
    const rule = { reason: 'not here', at: world.clock.now(), atOnce: false }
    store.refuse(cid, rule, { cids: [], isWhole: true })
    store.keep([cid], world.clock.now() + 1_000_000)
    const parts = { clock: world.clock, log: silentLog, pause: async () => {} }
    const refused = new RefusedHandOver({ handOver, store, leases, storage, ...parts })
    const turn = async (): Promise<void> => {
      world.advance(60_000)
      await refused.turn(new AbortController().signal)
      await found.gateway.release()
    }
    return { ...found, cid, store, turn }
  }

  test('waits for an owner that is away, or takes its time, without holding up anybody', async () => {
    const { leaver } = await started(4)
    const { storage, refusals: store, leases } = leaver
    const cids = Array.from({ length: 600 }, (_, i) => cidOfShard(Buffer.from(`block ${i}`)))
    const until = systemClock.now() + 1_000_000
    for (const cid of cids) store.refuse(cid, { reason: 'x', at: 1, atOnce: false }, { cids: [], isWhole: true })
    store.keep(cids, until)
    for (const owner of ['a slow one', 'quick'])
      await leases.grant(cids.map((cid) => ({ cid, owner, until, bytes: 100 })))
    const stopping = new AbortController()
    let quick = 0
    const batch = async (owner: string): Promise<HandOverResult> => {
      if (owner !== 'quick') await systemClock.sleep(60_000, stopping.signal)
      if (++quick > 10) stopping.abort(new Error('enough'))
      return { ...nothing, moved: 1 }
    }
    let pauses = 0
    const pause = async (): Promise<void> => void pauses++
    const parts = { store, leases, storage, clock: systemClock, log: silentLog, pause }
    await expect(new RefusedHandOver({ handOver: { batch }, ...parts }).turn(stopping.signal)).rejects.toThrow('enough')
    expect(quick).toBeGreaterThan(10)
    const away = async (): Promise<HandOverResult> => {
      throw new HoldfastError('OFFLINE', 'away')
    }
    const { signal } = new AbortController()
    const waiting = new RefusedHandOver({ handOver: { batch: away }, ...parts })
    pauses = 0
    expect([await waiting.turn(signal), await waiting.turn(signal)]).toEqual([true, false]) // nothing to do for a while
    expect(pauses).toBeGreaterThanOrEqual(6)
  })

  test('is served to nobody, handed over once, and deleted when nobody leases it any more', async () => {
    const { world, gateway, providers, leaver, cid, store, turn } = await refusing()
    await expect(leaver.storage.get(cid)).rejects.toMatchObject({ code: 'REFUSED' })
    await turn()
    await turn()
    expect([store.kept, await leaver.shards.size(cid), sent(world)]).toEqual([0, undefined, { count: 1, twice: [] }])
    const [moved, other] = await gateway.index.listSegments({ afterId: 0, limit: 2 })
    const holder = providers.find(({ peerId }) => peerId === moved!.shards[0]!.provider)!
    expect([await has(holder, cid), providers.indexOf(holder) >= 4]).toEqual([true, true])
    expect(other!.shards[0]!.provider).toBe(leaver.peerId)
  })

  test('is kept while its owner does not answer', async () => {
    const { gateway, leaver, cid, store, turn } = await refusing()
    gateway.isAlive = false
    await turn()
    expect([store.kept, await leaver.shards.size(cid)]).toEqual([1, 3000])
    gateway.isAlive = true
    await turn()
    await turn()
    expect([store.kept, await leaver.shards.size(cid)]).toEqual([0, undefined])
  })

  test('stays where it is when it is refused no more', async () => {
    const { world, leaver, cid, store, turn } = await refusing()
    store.undo(cid)
    await turn()
    expect([store.kept, await has(leaver, cid), sent(world).count]).toEqual([0, true, 0])
  })
})
