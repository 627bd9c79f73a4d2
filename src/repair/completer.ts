/**
 * Brings segments back to all of their shards: those acknowledged before the last were placed, and those whose provider
 * was found to have lost one. Reads `k` verified shards, rebuilds only what is missing, in ciphertext. Idempotent: killed
 * anywhere, the next round starts from what the index says, and what was stored in vain ends with its lease.
 */
import type { Clock } from '../base/clock.ts'
import type { Semaphore } from '../base/concurrency.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { CID } from '../content/cid.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { type SegmentCodec, shardBytesFor } from '../object/segment-codec.ts'
import { shardsToFetch } from '../object/segment-reader.ts'
import { place } from '../placement/place.ts'
import { gather } from '../transfer/gather.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { CustodyObserver, PeerOutcome, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { Scatter } from '../transfer/scatter.ts'

export interface CompleterComponents {
  index: MetadataIndex
  client: ProviderClient
  peers: Peers
  codec: SegmentCodec
  guard: LeaseGuard
  clock: Clock
  random: Random
  log: Log
  /** What rebuilding reads counts as audits. */
  custody?: CustodyObserver
  /** Told of a block that a provider would not take. */
  onRefused?: (provider: string, cid: CID) => void
  /** Bytes that rebuilding may hold. */
  memory: Semaphore
  /** Whether the segment's upload is still placing shards of it: then it is left alone. */
  isSettling: (segment: StoredSegment) => boolean
}

export interface CompleterProgress {
  /** Segments that want shards, as of the last round. */
  waiting: number
  placedShards: number
  /** Segments that could not be helped in the last round: too few shards or providers now. */
  stuck: number
  lastError: string | null
}

const lost = new Set(['unknown', 'missing', 'wrong', 'withdrawn'])
const pageSegments = 100

export class Completer {
  readonly progress: CompleterProgress = { waiting: 0, placedShards: 0, stuck: 0, lastError: null }
  readonly #components: CompleterComponents

  constructor(components: CompleterComponents) {
    this.#components = components
  }

  /**
   * One pass over all incomplete segments.
   *
   * @returns shards placed; 0 means that another pass makes no sense before something changes
   */
  async round(signal?: AbortSignal): Promise<number> {
    let placed = 0
    let waiting = 0
    let stuck = 0
    for (let afterId = 0, more = true; more; ) {
      signal?.throwIfAborted()
      const segments = await this.#components.index.listIncomplete({ afterId, limit: pageSegments })
      more = segments.length === pageSegments
      for (const segment of segments) {
        signal?.throwIfAborted()
        afterId = segment.id
        if (this.#components.isSettling(segment)) continue
        waiting++
        try {
          const done = await this.#complete(segment, signal)
          if (done === 0) stuck++
          placed += done
        } catch (error) {
          signal?.throwIfAborted()
          stuck++
          this.progress.lastError = messageOf(error)
          this.#components.log.info('segment not completed', { segment: segment.id, error: messageOf(error) })
        }
      }
    }
    this.progress.waiting = waiting
    this.progress.stuck = stuck
    this.progress.placedShards += placed
    return placed
  }

  async #complete(segment: StoredSegment, signal?: AbortSignal): Promise<number> {
    const { index, memory, peers, random, log } = this.#components
    const code = { k: segment.k, m: segment.m }
    const wanted = segment.shards.flatMap(({ state }, at) => (lost.has(state) ? [at] : []))
    const held = segment.shards.flatMap(({ state, provider }, at) =>
      provider !== undefined && !lost.has(state) ? [{ index: at, provider }] : []
    )
    // Who refused a shard of this segment is not offered it again; who lost one may make good.
    const refusals = await index.listRefusals(segment.shards.map(({ cid }) => cid))
    const excluded = new Set(refusals.map(({ provider }) => provider))
    const shardBytes = Math.max(1, shardBytesFor(segment.length, code))
    const heldDomains = held.map(({ provider }) => ({ peerId: provider, domains: peers.domainsOf(provider) }))
    const plan = place({ code, shardBytes, wanted, held: heldDomains, excluded }, peers.candidates(), random)
    if (plan.assigned.size === 0) return 0 // nobody to give it to: reading it would be in vain
    const release = await memory.acquire(shardBytes * (segment.k + segment.m), signal)
    try {
      const shards = await this.#rebuild(segment, [...plan.assigned.keys()], signal)
      const scatter = new Scatter(this.#components, {
        code,
        held,
        excluded,
        quorum: 0,
        shards: [...shards].map(([at, bytes]) => ({ index: at, cid: segment.shards[at]!.cid, bytes })),
        signal
      })
      await scatter.settled
      try {
        await index.placeShards(
          [...scatter.placed].map(([at, placed]) => ({
            segmentId: segment.id,
            index: at,
            cid: segment.shards[at]!.cid,
            ...placed
          }))
        )
        await index.queueReleases(scatter.strays())
      } finally {
        scatter.letGo()
      }
      log.info('segment completed', { segment: segment.id, wanted: wanted.length, placed: scatter.placed.size })
      return scatter.placed.size
    } finally {
      release()
    }
  }

  /** The bytes of these shards, from any `k` others. */
  async #rebuild(
    segment: StoredSegment,
    wanted: readonly number[],
    signal?: AbortSignal
  ): Promise<Map<number, Uint8Array>> {
    const { codec } = this.#components
    const code = { k: segment.k, m: segment.m }
    const { shards } = await gather(this.#components, {
      code,
      shards: shardsToFetch(segment),
      wanted,
      signal,
      observe: (shard, provider, outcome) => void this.#observe(segment, shard.index, provider, outcome)
    })
    if (segment.k === 1) {
      // Copies of a block: any one is all of them.
      const [copy] = shards.values()
      return new Map(wanted.map((at) => [at, copy!]))
    }
    const missing = wanted.filter((at) => !shards.has(at))
    const restored = await codec.reconstruct({
      shards: segment.shards.map((_, at) => shards.get(at)),
      length: segment.length,
      code,
      wanted: missing
    })
    const rebuilt = new Map(wanted.filter((at) => shards.has(at)).map((at) => [at, shards.get(at)!]))
    for (const [at, shard] of missing.entries()) rebuilt.set(shard, restored[at]!)
    return rebuilt
  }

  async #observe(segment: StoredSegment, at: number, provider: string, outcome: PeerOutcome): Promise<void> {
    await this.#components.custody?.(provider, segment.shards[at]!.cid, outcome)
    if (outcome !== 'missing' && outcome !== 'wrong') return
    await this.#components.index
      .markShard({ segmentId: segment.id, index: at }, provider, outcome)
      .catch((error: unknown) => {
        this.#components.log.error('evidence of a lost shard was not recorded', {
          segment: segment.id,
          error: messageOf(error)
        })
      })
  }
}
