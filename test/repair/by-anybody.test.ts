/** Both ends of repair by somebody else, over provider cores in memory: a gateway that owns nothing, and the owner. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Semaphore } from '../../src/base/concurrency.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { type CID, cidOfNode, cidOfShard, codecs, matchesCid, parseCid } from '../../src/content/cid.ts'
import { encodeManifest, type ManifestSegment } from '../../src/content/manifest.ts'
import type { CustodyOutcome } from '../../src/custody/outcome.ts'
import { createCoder } from '../../src/erasure/coder.ts'
import { decodeReport, encodeReport, type HeldRow, type RepairReport } from '../../src/market/repair-report.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { createSyncCodec } from '../../src/object/segment-codec.ts'
import { type Acceptance, type AcceptComponents, ReportTaker } from '../../src/repair/accept-report.ts'
import { ByAnybody, type HelpRound } from '../../src/repair/by-anybody.ts'
import type { ProveHolding } from '../../src/repair/prove-holding.ts'
import type { RowVerdict } from '../../src/repair/report-rules.ts'
import { LeaseGuard } from '../../src/transfer/lease-guard.ts'
import type { PeerOutcome, Peers } from '../../src/transfer/peers.ts'
import type { ProviderClient } from '../../src/transfer/provider-client.ts'
import {
  bytesOf,
  chunksOf,
  collect,
  type LocalNetwork,
  type LocalProvider,
  startLocalNetwork
} from '../support/local-network.ts'

const identity = await generateIdentity()
const bucket = 'b'
const key = 'k'

interface World {
  net: LocalNetwork
  bytes: Uint8Array
  root: CID
  /** Peer ids of providers that say that they have everything. */
  liars: Set<string>
  /** What the helper's requests came to, as `peerId outcome`. */
  blamed: string[]
  /** Requests of the owner to providers: none reads a shard. */
  ownerAsked: string[]
  announced: string[]
  help: (from?: number, signal?: AbortSignal) => Promise<HelpRound>
  helpWith: (root: CID) => Promise<HelpRound>
  take: (report: Uint8Array, over?: Partial<AcceptComponents>) => Promise<Acceptance>
  /** Called before the helper stores a shard. */
  onPut: { hook: () => void }
}

function find({ providers }: LocalNetwork, peerId: string): LocalProvider {
  const found = providers.find((provider) => provider.peerId === peerId)
  if (found?.isAlive !== true) throw new HoldfastError('OFFLINE', `${peerId} is dead`)
  return found
}

function clientOf(net: LocalNetwork, owner: string, asked: string[], onPut: { hook: () => void }): ProviderClient {
  return {
    putShard: async ({ peerId }, cid, bytes, { termMs }) => {
      onPut.hook()
      await find(net, peerId).core.put(owner, cid, bytes.slice(), termMs)
    },
    getShard: async ({ peerId }, cid) => {
      asked.push(`get ${cid}`)
      return await find(net, peerId).core.get(cid)
    },
    renewLeases: async ({ peerId }, cids, { termMs }) => {
      asked.push(`lease ${peerId}`)
      return await find(net, peerId).core.renew(owner, cids, termMs)
    },
    releaseLeases: async ({ peerId }, cids) => await find(net, peerId).core.release(owner, cids),
    getOffer: async ({ peerId }) => find(net, peerId).core.offer(),
    prove: async () => {
      throw new HoldfastError('INTERNAL', 'proofs are played below')
    }
  }
}

/** A proof is whether the block is there and whole. */
const proverOf =
  (net: LocalNetwork): ProveHolding =>
  async ({ peerId }, blocks) =>
    await Promise.all(
      blocks.map(async ({ cid }): Promise<CustodyOutcome> => {
        try {
          return matchesCid(cid, await find(net, peerId).core.get(cid)) ? 'ok' : 'wrong'
        } catch (error) {
          return error instanceof HoldfastError && error.code === 'OFFLINE' ? 'offline' : 'missing'
        }
      })
    )

/** 4+4 on the first eight providers of `count`; the others are not there yet. */
async function world(count = 11, size = 20_000, isPublic = false): Promise<World> {
  const net = await startLocalNetwork(count, { shardBytesMax: 1024 })
  for (const provider of net.providers.slice(8)) provider.isAlive = false
  await net.store.createBucket(bucket, { owner: 'me', displayName: 'me' }, { isPublic })
  const bytes = bytesOf(size)
  const { root } = await net.store.putObject({
    bucket,
    key,
    body: { bytes: chunksOf(bytes), size },
    headers: {},
    userMetadata: {},
    storageClass: 'STANDARD'
  })
  await net.store.idle()
  const [liars, blamed, ownerAsked, announced] = [new Set<string>(), [] as string[], [] as string[], [] as string[]]
  const isUp = (peerId: string): boolean => net.providers.some((p) => p.peerId === peerId && p.isAlive)
  const peers: Peers = {
    candidates: () =>
      net.providers
        .filter(({ isAlive }) => isAlive)
        .map(({ peerId }) => ({ peerId, domains: [`op:${peerId}`], freeBytes: 100 * MiB, score: 1 })),
    target: (peerId) => ({ peerId, dataUrls: ['https://127.0.0.1:1'], addresses: [] }),
    state: (peerId) => (isUp(peerId) ? 'online' : 'offline'),
    domainsOf: (peerId) => [`op:${peerId}`],
    lateAfterMs: () => 1000,
    report: (peerId: string, outcome: PeerOutcome) => void blamed.push(`${peerId} ${outcome}`)
  }
  const onPut = { hook: () => {} }
  const shared = {
    prove: proverOf(net),
    introduce: async () => {},
    networkKnown: async () => {},
    peers,
    clock: systemClock,
    log: silentLog
  }
  const byAnybody = new ByAnybody({
    ...shared,
    client: clientOf(net, identity.peerId, [], onPut),
    askHoldings: async ({ peerId }, cids) => {
      const { core } = find(net, peerId)
      return await Promise.all(cids.map(async (cid) => liars.has(peerId) || (await core.has(cid))))
    },
    discovery: {
      findRoot: async function* () {
        for (const peerId of announced) yield { peerId, addresses: [] }
      }
    },
    known: () => net.providers.filter(({ isAlive }) => isAlive).map(({ peerId }) => peerId),
    // Of the helper's own: it knows nothing.
    index: { findHolders: async () => [], queueReleases: async () => {} },
    codec: createSyncCodec(createCoder()),
    guard: new LeaseGuard(),
    signer: identity,
    memory: new Semaphore(64 * MiB),
    random: systemRandom
  })
  const taking: AcceptComponents = {
    ...shared,
    index: net.index,
    client: clientOf(net, 'gateway', ownerAsked, onPut),
    isGone: (provider) => !isUp(provider),
    isSettling: (segment) => net.store.isSettling(segment),
    verifySignature,
    guard: net.guard,
    claimant: 'report:gateway',
    pause: async () => {}
  }
  return {
    ...{ net, bytes, root, liars, blamed, ownerAsked, announced, onPut },
    help: (from = 0, signal) => byAnybody.help(root, from, signal),
    helpWith: (other) => byAnybody.help(other, 0),
    take: (report, over = {}) => new ReportTaker({ ...taking, ...over }).take(report)
  }
}

const kill = ({ net }: World, ...at: number[]): void => {
  for (const i of at) net.providers[i]!.isAlive = false
}
const revive = ({ net }: World, ...at: number[]): void => {
  for (const i of at) net.providers[i]!.isAlive = true
}

async function margins({ net }: World): Promise<number[]> {
  const { segments, blocks } = await net.store.health(bucket, key)
  return [...segments, ...blocks].map(({ margin }) => margin)
}

async function read({ net, bytes }: World): Promise<Uint8Array> {
  const opened = await net.store.openObject(bucket, key)
  try {
    return await collect(opened.read(0, bytes.length))
  } finally {
    opened.close()
  }
}

const placesOf = async ({ net }: World): Promise<unknown> => {
  const { segments, blocks } = await net.store.health(bucket, key)
  return [...segments, ...blocks].map(({ shards }) => shards.map(({ provider, state }) => [provider, state]))
}

const verdictsOf = ({ counts }: Acceptance): Partial<Record<RowVerdict, number>> =>
  Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0))

/** What the helper would sign about this. */
const reportOf = (rows: readonly Partial<HeldRow>[], over: Partial<RepairReport> = {}, signer: Identity = identity) => {
  const held = rows.map(
    (row, i): HeldRow => ({
      segment: 0,
      index: i % 8,
      cid: cidOfShard(Buffer.of(i)),
      provider: 'p',
      isRebuilt: true,
      ...row
    })
  )
  const providers = [...new Set(held.map(({ provider }) => provider))].map((peerId) => {
    return { peerId, dataUrls: [], addresses: [] }
  })
  return encodeReport({ root: cidOfShard(Buffer.of(1)), at: 1, providers, held, unhelped: [], ...over }, signer)
}

describe('a content whose owner is away', () => {
  it('gets its margin back from a stranger; the owner takes it over without reading a shard', async () => {
    const w = await world()
    kill(w, 0, 1, 2)
    revive(w, 8, 9, 10)
    const lost = (await margins(w)).reduce((sum, margin) => sum + 4 - margin, 0)
    const round = await w.help()
    expect(round).toMatchObject({ next: null, failure: null, unhelped: [] })
    expect(round.held.filter(({ isRebuilt }) => isRebuilt)).toHaveLength(lost)
    const [report, ...others] = round.reports
    expect(others).toEqual([])
    w.net.reads.length = 0
    expect(verdictsOf(await w.take(report!))).toEqual({
      accepted: lost,
      'not-needed': round.held.length - lost
    })
    expect(w.net.reads).toEqual([])
    expect(w.ownerAsked.filter((asked) => asked.startsWith('get'))).toEqual([])
    expect(new Set(await margins(w))).toEqual(new Set([4]))
    // What the helper stored is what is read now: only four old ones are left, and one of the new.
    kill(w, 3, 4, 5, 6)
    expect(Buffer.compare(await read(w), w.bytes)).toBe(0)
  })

  it('and the leases are the owner’s own: what the helper leased may end', async () => {
    const w = await world()
    kill(w, 0, 1)
    revive(w, 8, 9)
    const { reports, held } = await w.help()
    await w.take(reports[0]!)
    for (const { provider, cid } of held) await find(w.net, provider).core.release(identity.peerId, [cid])
    kill(w, 2, 3, 4)
    expect(Buffer.compare(await read(w), w.bytes)).toBe(0)
  })

  it('is found by the DHT where its root was announced', async () => {
    const w = await world(8, 3000)
    const [holder] = await w.net.index.findHolders(w.root)
    w.announced.push(holder!.provider)
    const { held } = await w.help()
    expect(held.every(({ isRebuilt }) => !isRebuilt)).toBe(true)
    expect(w.blamed.filter((line) => !line.endsWith(' ok'))).toEqual([])
  })

  it('that is public has its UnixFS nodes repaired as well', async () => {
    const w = await world(10, 20_000, true)
    kill(w, 0, 1)
    revive(w, 8, 9)
    const { reports, unhelped } = await w.help()
    expect(unhelped).toEqual([])
    await w.take(reports[0]!)
    expect(new Set(await margins(w))).toEqual(new Set([4]))
  })

  it('whose helper is killed midway is repaired by the next, which reports what the first has stored', async () => {
    const w = await world()
    kill(w, 0, 1, 2)
    revive(w, 8, 9, 10)
    const dying = new AbortController()
    let puts = 0
    w.onPut.hook = () => {
      if (++puts === 6) dying.abort(new Error('killed'))
    }
    await expect(w.help(0, dying.signal)).rejects.toThrow('killed')
    w.onPut.hook = () => {}
    const { reports, held, unhelped } = await w.help()
    expect(unhelped).toEqual([])
    const again = held.filter(({ isRebuilt }) => isRebuilt).length
    const lost = (await margins(w)).reduce((sum, margin) => sum + 4 - margin, 0)
    expect(again).toBeLessThan(lost)
    expect((await w.take(reports[0]!)).counts.accepted).toBe(lost)
    expect(new Set(await margins(w))).toEqual(new Set([4]))
  })

  it('is not taken at the word of providers that say they have it all', async () => {
    const w = await world()
    kill(w, 0, 1, 2)
    revive(w, 8, 9, 10)
    w.liars.add(w.net.providers[8]!.peerId)
    w.liars.add(w.net.providers[3]!.peerId)
    const { held } = await w.help()
    for (const { provider, cid } of held) expect(await find(w.net, provider).core.has(cid)).toBe(true)
  })

  it('that cannot be helped is said to be so, shard by shard', async () => {
    const w = await world()
    const [holder] = await w.net.index.findHolders(w.root)
    // Somebody who has the manifest stays, with two more: too few for a segment.
    const keeper = w.net.providers.findIndex(({ peerId }) => peerId === holder!.provider)
    const others = [0, 1, 2, 3, 4, 5, 6, 7].filter((at) => at !== keeper)
    kill(w, ...others.slice(0, 5))
    const { held, unhelped, reports } = await w.help()
    const ofSegments = unhelped.filter(({ segment }) => segment !== null)
    expect(new Set(ofSegments.map(({ why }) => why))).toEqual(new Set(['unreadable']))
    expect(held.filter(({ segment, isRebuilt }) => segment !== null && isRebuilt)).toEqual([])
    expect((await decodeReport(reports[0]!, verifySignature)).unhelped).toHaveLength(unhelped.length)
    revive(w, others[0]!)
    expect(new Set((await w.help()).unhelped.map(({ why }) => why))).toEqual(new Set(['unplaced']))
    kill(w, keeper, others[0]!, ...others.slice(5))
    await expect(w.help()).rejects.toMatchObject({ code: 'UNREADABLE' })
  })

  it('can be gone through in pieces', async () => {
    const w = await world(9, 20_000)
    const all = await w.help()
    const rest = await w.help(2)
    expect(rest.units).toBe(all.units - 2)
    expect(rest.held.map(({ segment }) => segment)).not.toContain(0)
  })
})

describe('a hostile manifest', () => {
  const publish = async (w: World, segments: ManifestSegment[]): Promise<CID> => {
    const size = segments.reduce((sum, { length }) => sum + length, 0)
    const { root, blocks } = encodeManifest({ size, segments })
    for (const { cid, bytes } of blocks) await w.net.providers[0]!.core.put('somebody', cid, bytes, 1000)
    return root
  }
  const store = async (w: World, at: number, bytes: Uint8Array): Promise<CID> => {
    const cid = cidOfShard(bytes)
    await w.net.providers[at]!.core.put('somebody', cid, bytes, 1000)
    return cid
  }

  it('of shards that are of no code makes nobody store or be blamed for anything', async () => {
    const w = await world(9, 3000)
    revive(w, 8)
    const shards = [await store(w, 0, bytesOf(100, 1)), await store(w, 1, bytesOf(100, 2)), cidOfShard(bytesOf(100, 3))]
    const root = await publish(w, [{ length: 200, k: 2, m: 1, nonce: new Uint8Array(), shards }])
    const { unhelped, bytesWritten } = await w.helpWith(root)
    expect(unhelped.filter(({ segment }) => segment === 0).map(({ index, why }) => [index, why])).toEqual([
      [2, 'damaged']
    ])
    expect(w.blamed.filter((line) => line.endsWith('wrong'))).toEqual([])
    expect(bytesWritten).toBeLessThan(1000) // copies of the manifest, which is what it says it is
  })

  it('of impossible lengths, and of what are no shards, is told as damaged', async () => {
    const w = await world(8, 3000)
    const shards = [0, 1].map((i) => cidOfShard(Buffer.of(i)))
    const long = { length: 3 * MiB, k: 1, m: 1, nonce: new Uint8Array(), shards }
    const node = { length: 10, k: 1, m: 1, nonce: new Uint8Array(), shards: [w.root, w.root] }
    const { unhelped } = await w.helpWith(await publish(w, [long, node]))
    expect(unhelped.filter(({ segment }) => segment !== null).map(({ why }) => why)).toEqual(Array(4).fill('damaged'))
    const cbor = cidOfNode(codecs.dagCbor, Buffer.of(0xa0))
    await w.net.providers[0]!.core.put('somebody', cbor, Buffer.of(0xa0), 1000)
    for (const root of [cbor, cidOfShard(bytesOf(3))])
      await expect(w.helpWith(root)).rejects.toMatchObject({ code: 'BAD_INPUT' })
  })
})

describe('a report that its owner has no reason to believe', () => {
  it('about foreign shards costs no request, however long it is', async () => {
    const w = await world(8, 3000)
    const before = await placesOf(w)
    const report = await reportOf(Array.from({ length: 2000 }, () => ({})))
    expect(verdictsOf(await w.take(report)).unknown).toBeGreaterThan(200)
    expect(w.ownerAsked).toEqual([])
    expect(await placesOf(w)).toEqual(before)
  })

  it('put again, or about shards that are not lost, changes nothing and asks nobody', async () => {
    const w = await world()
    kill(w, 0, 1)
    revive(w, 8, 9)
    const { reports, held } = await w.help()
    await w.take(reports[0]!)
    const before = await placesOf(w)
    w.ownerAsked.length = 0
    expect(verdictsOf(await w.take(reports[0]!))).toEqual({ 'not-needed': held.length })
    expect(w.ownerAsked).toEqual([])
    expect(await placesOf(w)).toEqual(before)
  })

  it('that names providers without the shard changes nothing, and leaves no lease', async () => {
    const w = await world()
    kill(w, 0, 1, 2)
    revive(w, 8, 9, 10)
    const { held } = await w.help()
    const before = await placesOf(w)
    const [rebuilt] = held.filter(({ isRebuilt, segment }) => isRebuilt && segment !== null)
    const other = ['provider-8', 'provider-9', 'provider-10'].find((peerId) => peerId !== rebuilt!.provider)!
    const lie = { ...rebuilt!, provider: other }
    expect(verdictsOf(await w.take(await reportOf([lie])))).toEqual({ unproved: 1 })
    expect(await placesOf(w)).toEqual(before)
    // One that leases it and then fails to prove it: the lease is given back.
    const stubborn: ProveHolding = async (_to, blocks) => blocks.map(() => 'wrong')
    expect(verdictsOf(await w.take(await reportOf([rebuilt!]), { prove: stubborn }))).toEqual({ unproved: 1 })
    expect(await w.net.index.listReleases(rebuilt!.provider, 10)).toHaveLength(1)
    expect(await placesOf(w)).toEqual(before)
  })

  it('waits for whoever works on the segment, and keeps to refusals and to what is a segment’s own', async () => {
    const w = await world()
    kill(w, 0)
    revive(w, 8)
    const { held } = await w.help()
    const rebuilt = held.filter(({ isRebuilt }) => isRebuilt)
    const ids = (await w.net.index.listSegments({ afterId: 0, limit: 100 })).map(({ id }) => id)
    const now = systemClock.now()
    await w.net.index.claimSegments(ids, { claimant: 'a repairer', until: now + 60_000, now })
    expect(verdictsOf(await w.take(await reportOf(rebuilt)))).toEqual({ busy: rebuilt.length })
    await w.net.index.unclaimSegments(ids, 'a repairer')
    const refused = { provider: 'provider-8', cid: rebuilt[0]!.cid, at: now, signed: new Uint8Array(1) }
    await w.net.index.recordRefusals([refused], now)
    expect(verdictsOf(await w.take(await reportOf([rebuilt[0]!])))).toEqual({ refused: 1 })
    expect(verdictsOf(await w.take(await reportOf([{ ...rebuilt[1]!, provider: 'provider-5' }])))).toMatchObject({
      'holds-another': 1
    })
    expect((await w.take(await reportOf(rebuilt.slice(1)))).counts.accepted).toBe(rebuilt.length - 1)
  })

  it('is refused before anything is asked where it is not signed as it should be', async () => {
    const w = await world(8, 3000)
    const stranger = await generateIdentity()
    const forged = await reportOf([{}], {}, { ...stranger, peerId: identity.peerId })
    await expect(w.take(forged)).rejects.toMatchObject({ code: 'BAD_INPUT' })
    await expect(w.take(Buffer.from('no report'))).rejects.toMatchObject({ code: 'BAD_INPUT' })
    expect(w.ownerAsked).toEqual([])
  })

  it('never costs the segment a good shard, whatever it says', async () => {
    const w = await world()
    kill(w, 0, 1)
    revive(w, 8, 9)
    const { held } = await w.help()
    const providers = w.net.providers.map(({ peerId }) => peerId)
    const anyRow = fc.record({ row: fc.constantFrom(...held), provider: fc.constantFrom(...providers, 'nobody') })
    await fc.assert(
      fc.asyncProperty(fc.array(anyRow, { minLength: 1, maxLength: 20 }), async (rows) => {
        const before = await margins(w)
        await w.take(await reportOf(rows.map(({ row, provider }) => ({ ...row, provider }))))
        for (const [at, margin] of (await margins(w)).entries()) expect(margin).toBeGreaterThanOrEqual(before[at]!)
        const { segments, blocks } = await w.net.store.health(bucket, key)
        for (const { shards } of [...segments, ...blocks]) {
          const holders = shards.flatMap(({ provider, state }) => (state === 'healthy' ? [provider] : []))
          expect(new Set(holders).size).toBe(holders.length)
          for (const { provider, state, cid } of shards)
            if (state === 'healthy') expect(await find(w.net, provider!).core.has(parseCid(cid))).toBe(true)
        }
      }),
      { numRuns: 15 }
    )
    expect(Buffer.compare(await read(w), w.bytes)).toBe(0)
  })
})
