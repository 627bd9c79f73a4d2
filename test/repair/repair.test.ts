import { describe, expect, it } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { CID } from '../../src/content/cid.ts'
import { releaseLeases, renewLeases } from '../../src/repair/leases.ts'
import { Maintenance } from '../../src/repair/maintenance.ts'
import { bytesOf, chunksOf, collect, type LocalNetwork, startLocalNetwork } from '../support/local-network.ts'

const put = (net: LocalNetwork, key: string, bytes: Uint8Array) =>
  net.store.putObject({
    bucket: 'b',
    key,
    body: { bytes: chunksOf(bytes), size: bytes.length },
    headers: {},
    userMetadata: {},
    storageClass: 'STANDARD'
  })

const start = async (count = 8): Promise<LocalNetwork> => {
  const net = await startLocalNetwork(count, { shardBytesMax: 1024 })
  await net.store.createBucket('b', { owner: 'me', displayName: 'me' })
  return net
}

const leaseParts = (net: LocalNetwork) => ({
  index: net.index,
  client: net.client,
  clock: systemClock,
  log: silentLog,
  guard: net.guard,
  confirmRefusals: net.refusals.confirm,
  peers: {
    candidates: () => [],
    target: (peerId: string) => ({ peerId, dataUrls: ['https://127.0.0.1:1'], addresses: [] }),
    state: (peerId: string) =>
      net.providers.find((p) => p.peerId === peerId)!.isAlive ? ('online' as const) : ('offline' as const),
    domainsOf: () => [],
    lateAfterMs: () => 1000,
    report: () => {}
  }
})

describe('leases', () => {
  it('of committed shards are renewed to their full term, once', async () => {
    const net = await start()
    await put(net, 'k', bytesOf(10_000))
    await net.store.idle()
    const { renewed, lost } = await renewLeases(leaseParts(net))
    expect(renewed).toBeGreaterThanOrEqual(3 * 8)
    expect(lost).toBe(0)
    for (const { provider } of await net.index.listHolders()) {
      const [first] = await net.index.listLeasesDue(provider, Number.MAX_SAFE_INTEGER, 1)
      expect(first!.leaseUntil).toBeGreaterThan(systemClock.now() + limits.committedLeaseMs * 0.9)
    }
    expect(await renewLeases(leaseParts(net))).toEqual({ renewed: 0, lost: 0 })
  })

  it('tell which shards a provider does not have any more; those are then rebuilt', async () => {
    const net = await start()
    const bytes = bytesOf(10_000)
    await put(net, 'k', bytes)
    await net.store.idle()
    const victim = net.providers[2]!
    for await (const { cid } of victim.shards.list()) await victim.shards.delete(cid)
    const { lost } = await renewLeases(leaseParts(net))
    expect(lost).toBeGreaterThan(0)
    const states = (await net.store.health('b', 'k')).segments
      .flatMap(({ shards }) => shards)
      .filter(({ provider }) => provider === victim.peerId)
    expect(states.every(({ state }) => state === 'missing')).toBe(true)
    await net.completer.round()
    const healed = await net.store.health('b', 'k')
    expect(
      [...healed.segments, ...healed.blocks].every(({ margin, code }) => margin === Number(code.split('+')[1]))
    ).toBe(true)
    for (const p of net.providers.slice(3, 7)) p.isAlive = false
    const opened = await net.store.openObject('b', 'k')
    expect(Buffer.compare(await collect(opened.read(0, bytes.length)), bytes)).toBe(0)
  })

  it('of deleted objects are released, and the providers are empty again', async () => {
    const net = await start()
    await put(net, 'k', bytesOf(10_000))
    await put(net, 'k', bytesOf(5_000))
    await net.store.deleteObject('b', 'k')
    await net.store.idle()
    net.providers[0]!.isAlive = false
    await releaseLeases(leaseParts(net))
    const blocks = async (): Promise<number[]> =>
      Promise.all(net.providers.map(async ({ core }) => (await core.stats()).blocks))
    expect((await blocks()).slice(1)).toEqual([0, 0, 0, 0, 0, 0, 0])
    expect((await blocks())[0]).toBeGreaterThan(0)
    // Who was away hears of it later.
    net.providers[0]!.isAlive = true
    await releaseLeases(leaseParts(net))
    expect((await blocks())[0]).toBe(0)
    expect(await net.index.listReleaseProviders()).toEqual([])
  })

  it('of an object that is being read are not released before the reader is done', async () => {
    const net = await start()
    const bytes = bytesOf(30_000)
    await put(net, 'k', bytes)
    const opened = await net.store.openObject('b', 'k')
    await net.store.deleteObject('b', 'k')
    await releaseLeases(leaseParts(net))
    expect(Buffer.compare(await collect(opened.read(0, bytes.length)), bytes)).toBe(0)
    opened.close()
    await net.store.idle()
    await releaseLeases(leaseParts(net))
    const left = await Promise.all(net.providers.map(async ({ core }) => (await core.stats()).blocks))
    expect(left.every((blocks) => blocks === 0)).toBe(true)
  })
})

describe('completion', () => {
  it('reads nothing when there is nobody to give a shard to, and says that it is stuck', async () => {
    const net = await start()
    await put(net, 'k', bytesOf(3000))
    await net.store.idle()
    const { segments } = await net.store.health('b', 'k')
    const { provider, cid } = segments[0]!.shards[0]!
    const holder = net.providers.find((p) => p.peerId === provider)!
    holder.isAlive = false
    await net.index.markHolding(holder.peerId, CID.parse(cid), 'missing')
    net.reads.length = 0
    expect(await net.completer.round()).toBe(0)
    expect(net.reads).toEqual([])
    expect(net.completer.progress).toMatchObject({ waiting: 1, stuck: 1 })
  })
})

describe('background tasks', () => {
  it('run again after a failure, can be woken, and end with their signal', async () => {
    const stop = new AbortController()
    let runs = 0
    const seen = Promise.withResolvers<void>()
    const maintenance = new Maintenance({ clock: systemClock, random: systemRandom, log: silentLog }, [
      {
        name: 'task',
        everyMs: 60_000,
        run: async () => {
          runs++
          if (runs === 1) throw new Error('the first time fails')
          seen.resolve()
        }
      }
    ])
    const running = maintenance.run(stop.signal)
    while (maintenance.states[0]?.failures !== 1) await systemClock.sleep(1)
    expect(maintenance.states[0]!.lastError).toBe('the first time fails')
    while (runs < 2) {
      maintenance.wake('task')
      await systemClock.sleep(1)
    }
    await seen.promise
    stop.abort(new Error('the end'))
    await running
    expect(maintenance.states[0]).toMatchObject({ runs: 1, failures: 1 })
  })
})
