/**
 * Providers in memory, gateways with an index each, and calls instead of sockets: what a hand-over goes between. Nothing
 * is encoded here, since nothing is decoded: shards are any bytes.
 */
import { randomBytes } from 'node:crypto'
import type { Clock } from '../../src/base/clock.ts'
import { HoldfastError, isCode } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { type CID, cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { auditRequestCodec, signedCodec } from '../../src/custody/audit-messages.ts'
import { redeemTicket } from '../../src/market/ticket.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import type { SegmentRecord } from '../../src/metadata/records.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import type { Network, RequestHandler } from '../../src/net/network.ts'
import { serveControlPlane } from '../../src/provider/control-plane.ts'
import { HandOver as ProviderHandOver } from '../../src/provider/hand-over.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import { ProofService } from '../../src/provider/proof-service.ts'
import { RefusalStore } from '../../src/provider/refusal-store.ts'
import { StorageProvider } from '../../src/provider/storage-provider.ts'
import { HandOver } from '../../src/repair/hand-over.ts'
import { releaseLeases } from '../../src/repair/leases.ts'
import { holdingProver } from '../../src/repair/prove-holding.ts'
import { serveHandOver } from '../../src/transfer/hand-over-protocol.ts'
import { LeaseGuard } from '../../src/transfer/lease-guard.ts'
import type { Peers } from '../../src/transfer/peers.ts'
import { decodeProofs } from '../../src/transfer/prove.ts'
import type { ProviderClient } from '../../src/transfer/provider-client.ts'
import { aBucket, anObject, aShard } from './records.ts'

export interface WorldProvider {
  identity: Identity
  peerId: string
  storage: StorageProvider
  shards: MemoryShardStore
  leases: MemoryLeaseStore
  refusals: RefusalStore
  handOver: ProviderHandOver
  isAlive: boolean
  /** It says yes to every write, and keeps nothing. */
  isLiar: boolean
  domain: string
  /** What it was sent, as often as it was. */
  received: CID[]
  /** What it said to be lost. */
  confessed: CID[]
}

export interface WorldGateway {
  peerId: string
  index: MetadataIndex
  guard: LeaseGuard
  /** The process as it is now: `restart` makes another. */
  handOver: HandOver
  isAlive: boolean
  restart: () => void
  /** Commits an object of these segments, and has every shard with its provider under a lease. */
  store: (segments: SegmentRecord[], blocks?: SegmentRecord[]) => Promise<void>
  /** Ends the leases that nothing needs. */
  release: () => Promise<void>
  client: ProviderClient
}

export interface World {
  providers: WorldProvider[]
  gateways: WorldGateway[]
  /** Everybody's. Sleep is real. */
  clock: Clock
  /** Moves it. */
  advance: (ms: number) => void
  /** What providers ask of gateways goes through here: throws what the network would. */
  onAsk: (from: string, to: string) => void
}

export const shardBytes = 3000

/** What is in the blocks that were made. */
const blocks = new Map<string, Uint8Array>()

/** A shard of its own, to be with `provider`. */
function freshShard(provider: string): SegmentRecord['shards'][number] {
  const bytes = randomBytes(shardBytes)
  const cid = cidOfShard(bytes)
  blocks.set(cid.toString(), bytes)
  return aShard({ cid, provider })
}

/** A segment, coded 2+2, at these. */
export const segmentAt = (providers: readonly WorldProvider[]): SegmentRecord => ({
  length: 2 * shardBytes,
  k: 2,
  m: 2,
  nonce: new Uint8Array(8),
  shards: providers.map(({ peerId }) => freshShard(peerId))
})

/** Copies of a node, at these. */
export function copiesAt(providers: readonly WorldProvider[]): SegmentRecord {
  const bytes = randomBytes(200)
  const cid = cidOfNode(codecs.dagCbor, bytes)
  blocks.set(cid.toString(), bytes)
  return {
    ...{ length: bytes.length, k: 1, m: providers.length - 1, nonce: new Uint8Array() },
    shards: providers.map(({ peerId }) => aShard({ cid, provider: peerId }))
  }
}

export async function startWorld(providerCount: number, gatewayCount = 1): Promise<World> {
  let ahead = 0
  const clock = { now: (): number => systemClock.now() + ahead, sleep: systemClock.sleep }
  const handlers = new Map<string, Map<string, RequestHandler>>()
  const isUp = new Map<string, () => boolean>()
  const world: World = {
    providers: [],
    gateways: [],
    clock,
    advance: (ms) => {
      ahead += ms
    },
    onAsk: () => {}
  }
  const networkOf = (peerId: string): Network => {
    const own = new Map<string, RequestHandler>()
    handlers.set(peerId, own)
    return {
      peerId,
      addresses: () => [],
      handle: async (protocol, handler) => void own.set(protocol, handler),
      request: async (peer, protocol, body) => {
        world.onAsk(peerId, peer.peerId)
        const handler = handlers.get(peer.peerId)?.get(protocol)
        if (isUp.get(peer.peerId)?.() !== true) throw new HoldfastError('OFFLINE', `no connection to ${peer.peerId}`)
        if (handler === undefined) throw new HoldfastError('PROTOCOL', `${peer.peerId} does not speak ${protocol}`)
        return await handler(peerId, body)
      }
    }
  }

  const alive = (peerId: string): WorldProvider => {
    const found = world.providers.find((one) => one.peerId === peerId)
    if (found?.isAlive !== true) throw new HoldfastError('OFFLINE', `no connection to ${peerId}`)
    return found
  }
  const proofs = new Map<string, ProofService>()
  const clientOf = (own: string): ProviderClient => ({
    putShard: async ({ peerId }, cid, bytes, { termMs, ticket }) => {
      const provider = alive(peerId)
      const shown = { from: own, to: peerId, cid, now: clock.now() }
      const lease = ticket === undefined ? { owner: own, termMs } : await redeemTicket(ticket, shown, verifySignature)
      provider.received.push(cid)
      if (!provider.isLiar) await provider.storage.put(lease.owner, cid, bytes, lease.termMs)
    },
    getShard: async ({ peerId }, cid) => await alive(peerId).storage.get(cid),
    renewLeases: async ({ peerId }, cids, { termMs }) => {
      const provider = alive(peerId)
      return provider.isLiar ? cids.map(() => 'held' as const) : await provider.storage.renew(own, cids, termMs)
    },
    releaseLeases: async ({ peerId }, cids) => await alive(peerId).storage.release(own, cids),
    getOffer: async ({ peerId }) => await alive(peerId).storage.offer(),
    listRefusals: async (_provider, cids) => cids.map(() => undefined),
    prove: async ({ peerId }, request) => {
      alive(peerId)
      const service = proofs.get(peerId)!
      const stream: Uint8Array[] = []
      for await (const frames of service.answer(await service.receive(own, signedCodec.encode(request))))
        stream.push(frames)
      return decodeProofs(auditRequestCodec.decode(request.bytes).challenges.length, stream)
    }
  })

  const peers: Peers = {
    candidates: () =>
      world.providers
        .filter(({ isAlive, storage }) => isAlive && storage.accepting)
        .map(({ peerId, domain }) => ({ peerId, domains: [domain], freeBytes: 100 * MiB, score: 1 })),
    target: (peerId) =>
      world.providers.some((one) => one.peerId === peerId) ? { peerId, dataUrls: [], addresses: [] } : undefined,
    state: (peerId) => (world.providers.find((one) => one.peerId === peerId)?.isAlive === true ? 'online' : 'offline'),
    domainsOf: (peerId) => [world.providers.find((one) => one.peerId === peerId)?.domain ?? peerId],
    lateAfterMs: () => 1000,
    report: () => {}
  }

  for (let i = 0; i < providerCount; i++) {
    const identity = await generateIdentity()
    const { peerId } = identity
    const shards = new MemoryShardStore()
    const leases = new MemoryLeaseStore()
    const refusals = new RefusalStore(':memory:')
    const storage = new StorageProvider(
      { shards, leases, refusals, clock, log: silentLog, signer: identity },
      {
        ...{ capacityBytes: 100 * MiB, domain: peerId, price: 0, version: 'test' },
        ...{ dataUrls: () => ['https://127.0.0.1:1'], addresses: () => [] }
      }
    )
    const pause = async (): Promise<void> => {}
    proofs.set(peerId, new ProofService({ storage, signer: identity, verifySignature, clock, log: silentLog, pause }))
    const network = networkOf(peerId)
    await serveControlPlane(network, storage)
    const confessed: CID[] = []
    const handOver = new ProviderHandOver({
      onLost: (cids) => void confessed.push(...cids),
      ...{ network, storage, client: clientOf(peerId), clock, log: silentLog, isRoot: () => false }
    })
    const provider: WorldProvider = {
      ...{ identity, peerId, storage, shards, leases, refusals, handOver, domain: peerId, received: [], confessed },
      ...{ isAlive: true, isLiar: false }
    }
    isUp.set(peerId, () => provider.isAlive)
    world.providers.push(provider)
  }

  for (let i = 0; i < gatewayCount; i++) world.gateways.push(await startGateway())

  async function startGateway(): Promise<WorldGateway> {
    const identity = await generateIdentity()
    const { peerId } = identity
    const index = await openSqliteIndex(':memory:')
    await index.createBucket(aBucket())
    const client = clientOf(peerId)
    const network = networkOf(peerId)
    const prove = holdingProver({
      ...{ client, clock, signer: identity, secretKey: identity.privateKey.raw.subarray(0, 32) },
      ...{ verifySignature, pause: async () => {} }
    })
    const newProcess = (): Pick<WorldGateway, 'handOver' | 'guard'> => {
      const guard = new LeaseGuard()
      const handOver = new HandOver({
        ...{ index, client, peers, guard, signer: identity, prove },
        ...{ verifySignature, clock, random: systemRandom, log: silentLog },
        isSettling: () => false
      })
      return { handOver, guard }
    }
    let objects = 0
    const gateway: WorldGateway = {
      ...{ peerId, index, client, isAlive: true },
      ...newProcess(),
      restart: () => void Object.assign(gateway, newProcess()),
      store: async (segments, nodes = []) => {
        for (const { shards } of [...segments, ...nodes]) {
          for (const { cid, provider } of shards) {
            if (provider === undefined) continue
            await alive(provider).storage.put(peerId, cid, blocks.get(cid.toString())!, 1_000_000)
          }
        }
        const size = segments.reduce((sum, { length }) => sum + length, 0)
        await index.commitObject(anObject({ key: `object-${objects++}`, size }), { segments, blocks: nodes })
      },
      release: async () =>
        void (await releaseLeases({
          index,
          client,
          peers,
          clock,
          log: silentLog,
          guard: gateway.guard,
          confirmRefusals: async () => new Set()
        }))
    }
    await serveHandOver(network, (from, request) => gateway.handOver.answer(from, request))
    isUp.set(peerId, () => gateway.isAlive)
    return gateway
  }

  return world
}

/** Whether the provider has the block, whole. */
export async function has({ storage }: WorldProvider, cid: CID): Promise<boolean> {
  try {
    await storage.get(cid)
    return true
  } catch (error) {
    if (isCode(error, 'MISSING')) return false
    throw error
  }
}
