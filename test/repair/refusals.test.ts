import { describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { limits } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import { CID, cidOfNode, cidOfShard, codecs, matchesCid } from '../../src/content/cid.ts'
import { signRefusal } from '../../src/market/refusal.ts'
import type { StoredSegment } from '../../src/metadata/records.ts'
import { renewLeases } from '../../src/repair/leases.ts'
import { ownedNodes } from '../../src/repair/owned-nodes.ts'
import { Refusals } from '../../src/repair/refusals.ts'
import { simulatedSigner, verifySimulated } from '../../src/sim/signatures.ts'
import {
  bytesOf,
  chunksOf,
  collect,
  type LocalNetwork,
  type LocalProvider,
  startLocalNetwork
} from '../support/local-network.ts'

const { signal } = new AbortController()
const content = bytesOf(10_000)
const code = { k: 4, m: 4 }

async function start(count: number): Promise<LocalNetwork> {
  const net = await startLocalNetwork(count, { shardBytesMax: 1024, fixedCode: code })
  await net.store.createBucket('b', { owner: 'me', displayName: 'me' })
  return net
}

const request = (bucket: string, key: string, bytes: Uint8Array) => ({
  bucket,
  key,
  body: { bytes: chunksOf(bytes), size: bytes.length },
  headers: {},
  userMetadata: {},
  storageClass: 'STANDARD'
})

async function put(net: LocalNetwork, key: string, bytes = content): Promise<CID> {
  const { root } = await net.store.putObject(request('b', key, bytes))
  await net.store.idle()
  return root
}

const read = async (net: LocalNetwork, key: string): Promise<boolean> => {
  const opened = await net.store.openObject('b', key)
  return Buffer.compare(await collect(opened.read(0, content.length)), content) === 0
}

async function segmentsOf(net: LocalNetwork): Promise<StoredSegment[]> {
  return await net.index.listSegments({ afterId: 0, limit: 100 })
}

async function cidsAt(net: LocalNetwork, { peerId }: LocalProvider): Promise<CID[]> {
  return (await segmentsOf(net)).flatMap(({ shards }) =>
    shards.filter(({ provider }) => provider === peerId).map(({ cid }) => cid)
  )
}

/** Shards that this provider is to have, and in which state. */
async function statesAt(net: LocalNetwork, { peerId }: LocalProvider): Promise<string[]> {
  return (await segmentsOf(net)).flatMap(({ shards }) =>
    shards.filter(({ provider }) => provider === peerId).map(({ state }) => state)
  )
}

/** The one that has most: by chance one of them may have nothing. */
async function holderIn(net: LocalNetwork): Promise<LocalProvider> {
  const counts = await Promise.all(net.providers.map(async (one) => ({ one, held: (await cidsAt(net, one)).length })))
  return counts.reduce((most, next) => (next.held > most.held ? next : most)).one
}

const peers = (net: LocalNetwork) => ({
  candidates: () => [],
  target: (peerId: string) => ({ peerId, dataUrls: ['https://127.0.0.1:1'], addresses: [] }),
  state: () => 'online' as const,
  domainsOf: () => [],
  lateAfterMs: () => 1000,
  report: () => {},
  net
})

const leaseParts = (net: LocalNetwork) => ({
  index: net.index,
  client: net.client,
  clock: systemClock,
  log: silentLog,
  guard: net.guard,
  peers: peers(net),
  custody: net.refusals.observer,
  confirmRefusals: net.refusals.confirm
})

/** A provider that says no, and signs nothing. */
function refusesUnsigned(net: LocalNetwork, { peerId }: LocalProvider): void {
  const { getShard, renewLeases: renew, listRefusals } = net.client
  net.client.getShard = async (to, ...rest) => {
    if (to.peerId === peerId) throw new HoldfastError('REFUSED', 'no')
    return await getShard(to, ...rest)
  }
  net.client.renewLeases = async (to, cids, ...rest) =>
    to.peerId === peerId ? cids.map(() => 'refused') : await renew(to, cids, ...rest)
  net.client.listRefusals = async (to, cids, ...rest) =>
    to.peerId === peerId ? cids.map(() => undefined) : await listRefusals(to, cids, ...rest)
}

describe('a refusal', () => {
  test('met by a read withdraws the shards, and nobody is hurt by it; they are rebuilt elsewhere', async () => {
    const net = await start(10)
    const root = await put(net, 'k')
    const victim = await holderIn(net)
    const { parts, held } = await victim.refuser.refuse(root, { reason: 'no' }, signal)
    expect(parts).toBe((await segmentsOf(net)).flatMap(({ k, shards }) => (k > 1 ? shards : [])).length)
    expect(held).toBe((await statesAt(net, victim)).length)
    expect(await read(net, 'k')).toBe(true)
    const cids = await cidsAt(net, victim)
    expect(await net.refusals.confirm(victim.peerId, cids)).toEqual(new Set(cids.map(String)))
    expect(new Set(await statesAt(net, victim))).toEqual(new Set(['withdrawn']))
    expect(net.observed.filter(([, , outcome]) => outcome === 'missing' || outcome === 'wrong')).toEqual([])
    await net.repairer.round()
    expect(await statesAt(net, victim)).toEqual([])
    const { segments, blocks } = await net.store.health('b', 'k')
    expect([...segments, ...blocks].every(({ margin }) => margin === code.m)).toBe(true)
    expect(await read(net, 'k')).toBe(true)
  })

  test('is remembered: the provider is never offered that block again, though it would take it', async () => {
    const net = await start(9)
    const root = await put(net, 'k')
    const victim = await holderIn(net)
    await victim.refuser.refuse(root, {}, signal)
    // It may have had no part in some of the segments: what it has never been asked to keep, nobody knows to be refused.
    const all = (await segmentsOf(net)).flatMap(({ shards }) => shards.map(({ cid }) => cid))
    expect((await net.refusals.confirm(victim.peerId, all)).size).toBe(new Set(all.map(String)).size)
    await net.repairer.round()
    expect(victim.refuser.undo(root)).toBe(true)
    // Another one loses all that it had, and goes: nobody else has room for those shards.
    const other = net.providers.find((one) => one !== victim)!
    for (const cid of await cidsAt(net, other)) await net.index.markHolding(other.peerId, cid, 'missing')
    other.isAlive = false
    await net.repairer.round()
    expect(net.repairer.progress.stuck).toBeGreaterThan(0)
    expect(await statesAt(net, victim)).toEqual([])
    // Another content is welcome.
    other.isAlive = true
    const { puts } = await victim.core.stats()
    for (let i = 0; i < 10; i++) await put(net, `other ${i}`, bytesOf(3000, i + 2))
    expect((await victim.core.stats()).puts).toBeGreaterThan(puts)
  })

  test('told by the provider counts for what it is to keep, and for nothing else', async () => {
    const net = await start(10)
    await put(net, 'k')
    const victim = await holderIn(net)
    const [segment] = (await segmentsOf(net)).filter(({ shards }) =>
      shards.some(({ provider }) => provider === victim.peerId)
    )
    const { cid } = segment!.shards.find(({ provider }) => provider === victim.peerId)!
    const strange = cidOfShard(Buffer.from('not ours'))
    const signed = await Promise.all([cid, strange].map((one) => sign(victim.peerId, one)))
    await net.refusals.told(victim.peerId, { refusals: signed, lost: [], handOver: true })
    expect((await net.index.listRefusals([cid, strange])).map((row) => row.cid.toString())).toEqual([cid.toString()])
    expect((await statesAt(net, victim)).filter((state) => state === 'withdrawn')).toHaveLength(1)
    // Left to the hand-over for a while.
    const now = systemClock.now()
    const claim = { claimant: 'repair', until: now + 1000, now }
    expect(await net.index.claimSegments([segment!.id], claim)).toEqual([])
    expect(await net.index.claimSegments([segment!.id], { ...claim, now: now + 61_000, until: now + 62_000 })).toEqual([
      segment!.id
    ])
  })

  test('told in another’s name, or not signed, is not taken, nor is anything with it', async () => {
    const net = await start(10)
    await put(net, 'k')
    const [victim, liar] = net.providers
    const [{ shards }] = (await segmentsOf(net)) as [StoredSegment]
    const { cid } = shards.find(({ provider }) => provider === victim!.peerId) ?? shards[0]!
    const stolen = await sign(victim!.peerId, cid)
    const told = (refusals: Uint8Array[], lost: CID[] = []) =>
      net.refusals.told(liar!.peerId, { refusals, lost, handOver: false })
    await expect(told([stolen])).rejects.toMatchObject({ code: 'PROTOCOL' })
    await expect(told([new Uint8Array(10)], [cid])).rejects.toMatchObject({ code: 'PROTOCOL' })
    expect(await net.index.listRefusals([cid])).toEqual([])
    expect(net.observed.filter(([, , outcome]) => outcome !== 'ok')).toEqual([])
  })

  test('what a provider says that it lost is lost there, and seen by audits first', async () => {
    const net = await start(10)
    await put(net, 'k')
    const victim = await holderIn(net)
    const cids = (await cidsAt(net, victim)).map(String)
    net.observed.length = 0
    const strange = cidOfShard(Buffer.from('not ours'))
    await net.refusals.told(victim.peerId, { refusals: [], lost: [CID.parse(cids[0]!), strange], handOver: false })
    expect(net.observed).toEqual([[victim.peerId, cids[0], 'missing']])
    expect((await statesAt(net, victim)).filter((state) => state === 'missing').length).toBeGreaterThan(0)
  })
})

describe('saying no without a signature', () => {
  test('changes nothing: a read goes elsewhere, a renewal counts as missing when the lease has ended', async () => {
    const net = await start(10)
    await put(net, 'k')
    const victim = await holderIn(net)
    refusesUnsigned(net, victim)
    expect(await read(net, 'k')).toBe(true)
    const before = await statesAt(net, victim)
    await renewLeases(leaseParts(net))
    await net.repairer.round()
    expect(await statesAt(net, victim)).toEqual(before)
    expect(net.observed.filter(([, , outcome]) => outcome !== 'ok')).toEqual([])
    const cids = await cidsAt(net, victim)
    await net.index.renewed(victim.peerId, cids, systemClock.now() - 1)
    await renewLeases(leaseParts(net))
    expect(new Set(await statesAt(net, victim))).toEqual(new Set(['missing']))
    // Nothing was owed any more.
    expect(net.observed.filter(([, , outcome]) => outcome !== 'ok')).toEqual([])
  })

  test('does not keep other leases from being renewed, however many they are', async () => {
    const net = await start(10)
    const all = Array.from({ length: limits.leaseBatchMax + 50 }, (_, i) => cidOfShard(Buffer.from(`${i}`)))
    const due = new Map(all.map((cid, i) => [cid.toString(), i < limits.leaseBatchMax ? 1 : 2]))
    const renewed: string[] = []
    const { renewed: count } = await renewLeases({
      ...leaseParts(net),
      index: {
        ...net.index,
        listHolders: async () => [{ provider: 'provider-0', shards: 1, bytes: 1 }],
        listLeasesDue: async (_provider, _before, limit) =>
          all
            .filter((cid) => due.has(cid.toString()))
            .slice(0, limit)
            .map((cid) => ({ cid, leaseUntil: systemClock.now() + 1_000_000 })),
        renewed: async (_provider, cids) => {
          for (const cid of cids) {
            due.delete(cid.toString())
            renewed.push(cid.toString())
          }
        }
      },
      client: {
        ...net.client,
        renewLeases: async (_to, cids) => cids.map((cid) => (due.get(cid.toString()) === 1 ? 'refused' : 'held')),
        listRefusals: async (_to, cids) => cids.map(() => undefined)
      },
      confirmRefusals: async () => new Set()
    })
    expect([count, renewed.length]).toEqual([50, 50])
  })

  test('is not asked about over and over', async () => {
    const net = await start(3)
    let asked = 0
    const refusals = new Refusals({
      index: net.index,
      client: {
        listRefusals: async (_to, cids) => {
          asked += cids.length
          return cids.map(() => undefined)
        }
      },
      peers: peers(net),
      verifySignature: verifySimulated,
      custody: async () => {},
      onLost: () => {},
      clock: systemClock,
      log: silentLog
    })
    const cid = cidOfShard(Buffer.from('x'))
    const answers = await Promise.all(Array.from({ length: 20 }, () => refusals.confirm('provider-0', [cid])))
    expect(answers.every((proven) => proven.size === 0)).toBe(true)
    await refusals.confirm('provider-0', [cid])
    expect(asked).toBe(1)
  })
})

describe('a content that too few will take', () => {
  test('lacks shards, and its health says who refuses it', async () => {
    const net = await start(8)
    const root = await put(net, 'k')
    for (const provider of net.providers.slice(0, 2)) await provider.refuser.refuse(root, {}, signal)
    await renewLeases(leaseParts(net))
    await net.repairer.round()
    const [segment] = (await net.store.health('b', 'k')).segments
    expect(segment).toMatchObject({ margin: 2, refusers: 2 })
    expect(segment!.unplaced).toMatch(/^2 shards have no place: 8 providers take new shards now, 2 refuse this content/)
  })

  test('is not written, and the error says who refuses it', async () => {
    const net = await start(8)
    const bucket = { owner: 'me', displayName: 'me' }
    await net.store.createBucket('public', bucket, { isPublic: true })
    const { root } = await net.store.putObject(request('public', 'k', content))
    await net.store.idle()
    const cids = (await segmentsOf(net))[0]!.shards.map(({ cid }) => cid)
    for (const provider of net.providers.slice(0, 5)) await provider.refuser.refuse(root, {}, signal)
    // By those it has heard of when nothing can come of it any more; then from what it remembers.
    for (const said of [/[3-5] providers refuse this content/, /^only \d shards .* 5 providers refuse this content/]) {
      await expect(net.store.putObject(request('public', 'k', content))).rejects.toMatchObject({
        code: 'NOT_DURABLE',
        message: expect.stringMatching(said)
      })
      await net.store.idle()
      await expect.poll(async () => (await net.index.listRefusals(cids)).length).toBeGreaterThanOrEqual(5)
    }
  })
})

const sign = (provider: string, cid: CID): Promise<Uint8Array> =>
  signRefusal({ v: 1, provider, cid, root: null, reason: 'no', at: 1_700_000_000_000 }, simulatedSigner(provider))

test('the owner gives out what its contents are made of when all who have it refuse it, and never a shard', async () => {
  const net = await start(9)
  const root = await put(net, 'a')
  const stranger = cidOfNode(codecs.dagCbor, Uint8Array.of(0xa0))
  const give = ownedNodes({ ...net, peers: net.repair.peers, clock: systemClock, log: silentLog })
  for (const { refuser } of net.providers) await refuser.refuse(root, {}, signal)
  for (const { core } of net.providers) await expect(core.get(root)).rejects.toThrow()
  expect(matchesCid(root, (await give(root))!)).toBe(true)
  expect(await give(stranger)).toBeUndefined()
  const [{ shards } = expect.fail('no segment')] = await segmentsOf(net)
  expect(await give(shards[0]!.cid)).toBeUndefined()
  for (const provider of net.providers) provider.isAlive = false
  expect(await give(root)).toBeUndefined()
})
