/**
 * The gateway as its own last resort: shards that no provider takes are kept in its own data directory, under a lease of
 * its own, by the same code that providers run. They are asked for, proved and released as everybody's are, only without
 * a network in between. Nobody else can store here, and it is not announced: strangers get these blocks from the
 * gateway's `/ipfs/{cid}`.
 */
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import type { Clock } from '../base/clock.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { limits, MiB, minuteMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { version } from '../base/version.ts'
import { auditRequestCodec, type Signed, signedCodec } from '../custody/audit-messages.ts'
import type { Signer, VerifySignature } from '../market/offer.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { storedShardBytes } from '../object/segment-codec.ts'
import { FsShardStore } from '../provider/fs-shard-store.ts'
import type { LeaseStore } from '../provider/lease-store.ts'
import { ProofService } from '../provider/proof-service.ts'
import type { ShardStore } from '../provider/shard-store.ts'
import { SqliteLeaseStore } from '../provider/sqlite-lease-store.ts'
import { StorageProvider } from '../provider/storage-provider.ts'
import type { SelfHost as LastResort } from '../repair/segment-repair.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { Peers } from '../transfer/peers.ts'
import { decodeProofs } from '../transfer/prove.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import type { PlacedShard } from '../transfer/scatter.ts'

const collectEveryMs = 5 * minuteMs
/** Trees of blocks proved lately: there are few. */
const treeBytesMax = MiB

export interface SelfHostComponents {
  /** The gateway's own key: it leases from itself. */
  signer: Signer
  verifySignature: VerifySignature
  clock: Clock
  random: Random
  log: Log
}

export interface SelfHostInit {
  /** Holds the blocks and the leases; made where it is not there. */
  dataDir: string
  /** Bytes of blocks to keep at most. */
  capacityBytes: number
}

export class SelfHost {
  readonly #storage: StorageProvider
  readonly #proofs: ProofService
  readonly #components: SelfHostComponents
  readonly #leases: LeaseStore
  readonly #stopping = new AbortController()
  #running: Promise<void> | undefined

  constructor(shards: ShardStore, leases: LeaseStore, capacityBytes: number, components: SelfHostComponents) {
    const { signer, verifySignature, clock, log } = components
    this.#components = components
    this.#leases = leases
    this.#storage = new StorageProvider(
      { shards, leases, clock, log, signer },
      { capacityBytes, domain: signer.peerId, price: 0, version, dataUrls: () => [noUrl], addresses: () => [] }
    )
    this.#proofs = new ProofService(
      {
        storage: this.#storage,
        signer,
        verifySignature,
        clock,
        log,
        pause: () => new Promise((resolve) => setImmediate(resolve))
      },
      { treeBytesMax }
    )
  }

  /** @throws HoldfastError `BAD_CONFIG` for a directory in use */
  static async open({ dataDir, capacityBytes }: SelfHostInit, components: SelfHostComponents): Promise<SelfHost> {
    await mkdir(dataDir, { recursive: true, mode: 0o700 })
    const leases = new SqliteLeaseStore(path.join(dataDir, 'leases.sqlite'))
    try {
      const selfHost = new SelfHost(await FsShardStore.open(dataDir), leases, capacityBytes, components)
      await selfHost.#storage.reconcileAtStart()
      selfHost.#running = selfHost.#collect()
      return selfHost
    } catch (error) {
      await leases.close()
      throw error
    }
  }

  get peerId(): string {
    return this.#components.signer.peerId
  }

  /** Bytes kept, and of how many blocks. */
  async kept(): Promise<{ blocks: number; bytes: number; capacityBytes: number }> {
    const { blocks, usedBytes, capacityBytes } = await this.#storage.stats()
    return { blocks, bytes: usedBytes, capacityBytes }
  }

  /**
   * What repair asks of a last resort.
   *
   * @param guard shared with all that releases leases: a release still under way of what was here before must not end the
   * new lease
   * @param isNetworkKnown whether the providers that are online have been found: before that nobody seems to take anything
   */
  forRepair(guard: LeaseGuard, isNetworkKnown: () => boolean): LastResort {
    const client = this.#client()
    const self: ProviderRef = { peerId: this.peerId, dataUrls: [noUrl], addresses: [] }
    const bytesOf = (segment: StoredSegment, indices: Iterable<number>): number => {
      let bytes = 0
      for (const index of indices) bytes += storedShardBytes(segment.length, segment, index)
      return bytes
    }
    return {
      peerId: this.peerId,
      wants: (segment, shards) => isNetworkKnown() && bytesOf(segment, shards) <= this.#storage.freeBytes,
      keep: async (segment, shards, signal) => {
        const { clock, log } = this.#components
        const holds: Array<() => void> = []
        const placed = new Map<number, PlacedShard>()
        for (const [index, bytes] of shards) {
          const { cid } = segment.shards[index]!
          holds.push(await guard.hold(this.peerId, cid))
          try {
            await client.putShard(self, cid, bytes, { termMs: limits.committedLeaseMs, signal })
            const at = clock.now()
            placed.set(index, { provider: this.peerId, at, leaseUntil: at + limits.committedLeaseMs })
          } catch (error) {
            log.warn('a shard that nobody takes could not be kept here either', { cid, error: messageOf(error) })
          }
        }
        return {
          placed,
          letGo: () => {
            for (const letGo of holds) letGo()
          }
        }
      }
    }
  }

  /** The same client, with this gateway among the providers that it reaches. */
  reachedBy(client: ProviderClient): ProviderClient {
    const local = this.#client()
    const of = (provider: ProviderRef): ProviderClient => (provider.peerId === this.peerId ? local : client)
    return {
      putShard: (provider, ...rest) => of(provider).putShard(provider, ...rest),
      getShard: (provider, ...rest) => of(provider).getShard(provider, ...rest),
      renewLeases: (provider, ...rest) => of(provider).renewLeases(provider, ...rest),
      releaseLeases: (provider, ...rest) => of(provider).releaseLeases(provider, ...rest),
      getOffer: (provider, ...rest) => of(provider).getOffer(provider, ...rest),
      listRefusals: (provider, ...rest) => of(provider).listRefusals(provider, ...rest),
      prove: (provider, ...rest) => of(provider).prove(provider, ...rest)
    }
  }

  /** The same peers, and this gateway: always there, never a candidate, since placement spreads and it cannot. */
  knownTo(peers: Peers): Peers {
    const isSelf = (peerId: string): boolean => peerId === this.peerId
    const target: ProviderRef = { peerId: this.peerId, dataUrls: [noUrl], addresses: [] }
    return {
      candidates: () => peers.candidates(),
      target: (peerId) => (isSelf(peerId) ? target : peers.target(peerId)),
      state: (peerId) => (isSelf(peerId) ? 'online' : peers.state(peerId)),
      domainsOf: (peerId) => (isSelf(peerId) ? [`self:${peerId}`] : peers.domainsOf(peerId)),
      lateAfterMs: (peerId) => peers.lateAfterMs(peerId),
      standing: (peerId) => (isSelf(peerId) ? 'vetted' : (peers.standing?.(peerId) ?? 'vetted')),
      report: (peerId, outcome, elapsedMs) => {
        if (!isSelf(peerId)) peers.report(peerId, outcome, elapsedMs)
      }
    }
  }

  async close(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the gateway stops'))
    await this.#running
    await this.#leases.close()
  }

  #client(): ProviderClient {
    const storage = this.#storage
    const owner = this.peerId
    return {
      putShard: async (_provider, cid, bytes, { termMs, signal }) => {
        signal?.throwIfAborted()
        await storage.put(owner, cid, bytes, termMs)
      },
      getShard: async (_provider, cid, signal, into) => {
        signal?.throwIfAborted()
        return await storage.get(cid, into)
      },
      renewLeases: async (_provider, cids, { termMs }) => await storage.renew(owner, cids, termMs),
      releaseLeases: async (_provider, cids) => await storage.release(owner, cids),
      getOffer: async () => await storage.offer(),
      listRefusals: async (_provider, cids) => cids.map(() => undefined),
      prove: async (_provider, request, signal) => await this.#prove(request, signal)
    }
  }

  async #prove(request: Signed, signal?: AbortSignal): ReturnType<ProviderClient['prove']> {
    const { challenges } = auditRequestCodec.decode(request.bytes)
    const received = await this.#proofs.receive(this.peerId, signedCodec.encode(request)).catch((cause: unknown) => {
      throw new HoldfastError('PROTOCOL', messageOf(cause), { cause })
    })
    const frames: Uint8Array[] = []
    for await (const some of this.#proofs.answer(received, signal)) frames.push(some)
    return decodeProofs(challenges.length, frames)
  }

  async #collect(): Promise<void> {
    const { clock, random, log } = this.#components
    const { signal } = this.#stopping
    while (!signal.aborted) {
      try {
        await clock.sleep(collectEveryMs * (0.75 + random.next() / 2), signal)
        await this.#storage.collect()
      } catch (error) {
        if (!signal.aborted && !isCode(error, 'ABORTED'))
          log.error('collecting what this gateway holds itself failed', { error: messageOf(error) })
      }
    }
  }
}

/** Never dialled: an offer needs one, and this one goes nowhere. */
const noUrl = 'https://self.invalid'
