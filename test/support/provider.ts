/** A storage provider in memory, on a clock the test moves. Every option has a default. */
import type { Clock } from '../../src/base/clock.ts'
import { type Log, silentLog } from '../../src/base/log.ts'
import type { CID } from '../../src/content/cid.ts'
import type { Signer } from '../../src/market/offer.ts'
import { verifySignature } from '../../src/net/identity.ts'
import type { LeaseStore } from '../../src/provider/lease-store.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import { ProofService, type ProofServiceInit } from '../../src/provider/proof-service.ts'
import type { RefusalStore } from '../../src/provider/refusal-store.ts'
import type { ShardStore } from '../../src/provider/shard-store.ts'
import { StorageProvider, type StorageProviderInit } from '../../src/provider/storage-provider.ts'

export class ManualClock implements Clock {
  #now = 1_700_000_000_000

  now = (): number => this.#now

  sleep = (): Promise<void> => Promise.reject(new Error('nothing here sleeps'))

  advance(ms: number): void {
    this.#now += ms
  }
}

export interface TestProvider {
  provider: StorageProvider
  shards: ShardStore
  leases: LeaseStore
  clock: ManualClock
}

export function testProvider(
  options: Partial<StorageProviderInit> & {
    shards?: ShardStore
    leases?: LeaseStore
    clock?: ManualClock
    log?: Log
    onLost?: (cids: readonly CID[]) => Promise<void>
    refusals?: RefusalStore
  } = {}
): TestProvider {
  const {
    shards = new MemoryShardStore(),
    leases = new MemoryLeaseStore(),
    clock = new ManualClock(),
    log = silentLog,
    onLost,
    refusals,
    ...init
  } = options
  const signer = { peerId: 'provider', sign: async () => new Uint8Array(64) }
  const provider = new StorageProvider(
    { shards, leases, clock, log, signer, onLost, refusals },
    {
      capacityBytes: 10_000_000,
      domain: 'domain',
      price: 0,
      dataUrls: () => ['https://192.0.2.1:4002'],
      addresses: () => [],
      version: 'test',
      ...init
    }
  )
  return { provider, shards, leases, clock }
}

export function proofServiceOf(
  { provider, clock }: TestProvider,
  signer: Signer,
  init?: ProofServiceInit
): ProofService {
  const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return new ProofService({ storage: provider, signer, verifySignature, clock, log: silentLog, pause }, init)
}
