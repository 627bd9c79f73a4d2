/**
 * A network inside the test: real provider cores over memory stores, a real store and index, and calls instead of
 * sockets. Providers can be killed, and their disks tampered with.
 */

import type { Clock } from '../../src/base/clock.ts'
import { Semaphore } from '../../src/base/concurrency.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { createCoder } from '../../src/erasure/coder.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { type ArenaSizes, createArenas } from '../../src/object/coding-memory.ts'
import { createSyncCodec } from '../../src/object/segment-codec.ts'
import { createObjectStore, type NetworkObjectStore, type ObjectStoreInit } from '../../src/object/store.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import { RefusalStore } from '../../src/provider/refusal-store.ts'
import { Refuser } from '../../src/provider/refuser.ts'
import { StorageProvider } from '../../src/provider/storage-provider.ts'
import { Presence } from '../../src/repair/presence.ts'
import { Refusals } from '../../src/repair/refusals.ts'
import { Repairer, type RepairerComponents } from '../../src/repair/repairer.ts'
import { simulatedSigner, verifySimulated } from '../../src/sim/signatures.ts'
import { LeaseGuard } from '../../src/transfer/lease-guard.ts'
import type { PeerOutcome, Peers } from '../../src/transfer/peers.ts'
import type { ProviderClient } from '../../src/transfer/provider-client.ts'

export interface LocalProvider {
  peerId: string
  core: StorageProvider
  shards: MemoryShardStore
  refuser: Refuser
  isAlive: boolean
  /** What it says it has room for. */
  freeBytes: number
  domains: string[]
}

export interface LocalNetwork {
  providers: LocalProvider[]
  index: MetadataIndex
  store: NetworkObjectStore
  repairer: Repairer
  presence: Presence
  /** What a repairer is made of; another one takes part in the same network. */
  repair: RepairerComponents
  /** Every GET of a shard, as `peerId cid`. */
  reads: string[]
  client: ProviderClient
  guard: LeaseGuard
  refusals: Refusals
  /** What would have been told to the auditor: what was read, and what was proven to be refused. */
  observed: Array<[provider: string, cid: string, outcome: PeerOutcome]>
}

const owner = 'gateway'

export async function startLocalNetwork(
  count: number,
  init: ObjectStoreInit = {},
  arenaSizes: ArenaSizes = { writeBytes: 40 * MiB, readBytes: 40 * MiB },
  { clock = systemClock, graceMs }: { clock?: Clock; graceMs?: number } = {}
): Promise<LocalNetwork> {
  const providers = Array.from({ length: count }, (_, i): LocalProvider => {
    const peerId = `provider-${i}`
    const shards = new MemoryShardStore()
    const refusals = new RefusalStore(':memory:')
    const signer = simulatedSigner(peerId)
    const parts = { clock, log: silentLog, signer }
    const core = new StorageProvider(
      { ...parts, shards, leases: new MemoryLeaseStore(), refusals },
      {
        capacityBytes: 100 * MiB,
        domain: peerId,
        price: 0,
        dataUrls: () => ['https://127.0.0.1:1'],
        addresses: () => [],
        version: 'test'
      }
    )
    const notices = { refused: async () => {} }
    const refuser = new Refuser({
      ...parts,
      store: refusals,
      storage: core,
      notices,
      findBlock: async (cid) => {
        for (const { core: other, isAlive } of providers)
          if (isAlive && (await other.has(cid))) return await other.get(cid)
        return undefined
      },
      pause: async () => {}
    })
    return { peerId, core, shards, refuser, isAlive: true, freeBytes: 100 * MiB, domains: [`op:${peerId}`] }
  })
  const alive = (peerId: string): LocalProvider => {
    const found = providers.find((p) => p.peerId === peerId)
    if (found?.isAlive !== true) throw new HoldfastError('OFFLINE', `${peerId} is dead`)
    return found
  }
  const reads: string[] = []
  const client: ProviderClient = {
    putShard: async ({ peerId }, cid, bytes, { termMs }) =>
      void (await alive(peerId).core.put(owner, cid, bytes.slice(), termMs)),
    getShard: async ({ peerId }, cid, _signal, into, options) => {
      reads.push(`${peerId} ${cid}`)
      const { core } = alive(peerId)
      const isMoving = options?.toMove === true && (await core.mayMove(owner, cid))
      const bytes = await (isMoving ? core.getToHandOver(cid) : core.get(cid))
      if (into === undefined || into.length < bytes.length) return bytes
      into.set(bytes)
      return into.subarray(0, bytes.length)
    },
    renewLeases: async ({ peerId }, cids, { termMs }) => alive(peerId).core.renew(owner, cids, termMs),
    releaseLeases: async ({ peerId }, cids) => alive(peerId).core.release(owner, cids),
    getOffer: async ({ peerId }) => alive(peerId).core.offer(),
    prove: async ({ peerId }) => {
      throw new HoldfastError('OFFLINE', `${peerId} is not audited here`)
    },
    listRefusals: async ({ peerId }, cids) => await alive(peerId).refuser.signedOf(cids)
  }
  const peers: Peers = {
    candidates: () =>
      providers
        .filter((p) => p.isAlive)
        .map(({ peerId, domains, freeBytes }) => ({ peerId, domains, freeBytes, score: 1 })),
    target: (peerId) => ({ peerId, dataUrls: ['https://127.0.0.1:1'], addresses: [] }),
    state: (peerId) => (providers.find((p) => p.peerId === peerId)?.isAlive === true ? 'online' : 'offline'),
    domainsOf: (peerId) => providers.find((p) => p.peerId === peerId)?.domains ?? [],
    lateAfterMs: () => 1000,
    report: () => {}
  }
  const index = await openSqliteIndex(':memory:')
  const codec = createSyncCodec(createCoder())
  const guard = new LeaseGuard()
  const observed: Array<[provider: string, cid: string, outcome: PeerOutcome]> = []
  const refusals = new Refusals({
    index,
    client,
    peers,
    verifySignature: verifySimulated,
    custody: async (provider, cid, outcome) => void observed.push([provider, cid.toString(), outcome]),
    onLost: () => {},
    clock,
    log: silentLog
  })
  const components = {
    index,
    client,
    peers,
    codec,
    guard,
    custody: refusals.observer,
    onRefused: refusals.onRefused,
    clock,
    random: systemRandom,
    log: silentLog
  }
  const store = createObjectStore(
    {
      ...components,
      arenas: createArenas(arenaSizes),
      masterKey: systemRandom.bytes(32),
      networkKnown: async () => {}
    },
    init
  )
  const presence = new Presence({ index, stateOf: peers.state, clock, log: silentLog }, { graceMs })
  const repair: RepairerComponents = {
    ...components,
    peerId: owner,
    presence,
    patienceMs: 24 * presence.graceMs,
    memory: new Semaphore(64 * MiB),
    isSettling: (segment) => store.isSettling(segment),
    pause: async () => {}
  }
  const repairer = new Repairer(repair)
  return { providers, index, store, repairer, presence, repair, reads, client, guard, refusals, observed }
}

/** Bytes that differ by seed and position. */
export function bytesOf(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length)
  let x = (seed * 2654435761) >>> 0 || 1
  for (let i = 0; i < length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    bytes[i] = x
  }
  return bytes
}

export async function* chunksOf(bytes: Uint8Array, chunkBytes = 64 * 1024): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes)
}

export async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(new Uint8Array(chunk)) // each is valid until the next
  return Buffer.concat(chunks)
}
