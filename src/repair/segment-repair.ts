/**
 * The repair of one segment: who is to get its shards, reading what they are made of, writing, verifying, and one
 * transaction. Until that nothing has changed but that some providers hold blocks under a lease which ends by itself; what
 * was at a provider before is released by the index when the new place is committed, never earlier.
 */
import type { Clock } from '../base/clock.ts'
import type { Semaphore } from '../base/concurrency.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { CID } from '../content/cid.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { type SegmentCodec, storedShardBytes } from '../object/segment-codec.ts'
import { shardsToFetch } from '../object/segment-reader.ts'
import { domainShardsMax, type PlacementRequest, place, type Candidate as Taker } from '../placement/place.ts'
import { gather } from '../transfer/gather.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { CustodyObserver, PeerOutcome, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { type PlacedShard, Scatter } from '../transfer/scatter.ts'
import type { Candidate } from './candidates.ts'
import { isReadable, type ShardCondition } from './health.ts'
import type { ProveHolding } from './prove-holding.ts'

/** Where a gateway keeps shards itself that nobody else takes: the last resort before loss. */
export interface SelfHost {
  /** The gateway's own. */
  peerId: string
  /** Whether it would take shards of this segment. Asked before anything is read. */
  wants: (segment: StoredSegment, shards: readonly number[]) => boolean
  /** Stores them durably; resolves with those that it has. None is released before `letGo`. */
  keep: (
    segment: StoredSegment,
    shards: ReadonlyMap<number, Uint8Array>,
    signal?: AbortSignal
  ) => Promise<{ placed: ReadonlyMap<number, PlacedShard>; letGo: () => void }>
}

export interface SegmentRepairComponents {
  index: Pick<MetadataIndex, 'getSegment' | 'listRefusals' | 'markShard' | 'placeShards' | 'queueReleases'>
  client: ProviderClient
  peers: Peers
  codec: SegmentCodec
  guard: LeaseGuard
  clock: Clock
  random: Random
  log: Log
  /** What rebuilding reads counts as audits. */
  custody?: CustodyObserver | undefined
  /** Bytes that rebuilding may hold. */
  memory: Semaphore
  /** Told of a block that a provider would not take. */
  onRefused?: ((provider: string, cid: CID) => void) | undefined
  /** Asks new holders for a proof before they are counted on. Absent: their word is taken. */
  verify?: ProveHolding | undefined
  /** Providers that have refused any of these blocks. Absent: the index is asked. */
  refusersOf?: ((cids: readonly CID[]) => Promise<ReadonlySet<string>>) | undefined
  selfHost?: SelfHost | undefined
}

export interface RepairOutcome {
  /** Shards that are somewhere new, by how they were made. */
  rebuilt: number
  moved: number
  bytesRead: number
  bytesWritten: number
  /** Of those, what was of no use: hedges, and copies that were not committed. */
  wastedBytes: number
  /** What it takes where nothing goes wrong. */
  bytesTheory: number
  /** Shards that are somewhere new, by what had been the matter with them. */
  reasons: Partial<Record<ShardCondition, number>>
  /** Why nothing could be placed; absent where something was. */
  stuck?: string
}

export interface RepairHooks {
  /** Still ours to repair, and for a while to come? */
  extendClaim: () => Promise<boolean>
  /** What is the matter with it now. */
  assess: (segment: StoredSegment) => Candidate
  signal?: AbortSignal | undefined
}

/** What a new holder has shown of what it acknowledged. */
type Shown = 'there' | 'silent' | 'not there'

interface Plan {
  /** Shards to place: with others, or with ourselves. */
  wanted: number[]
  /** Those of them that nobody else takes. */
  own: number[]
  held: Array<{ index: number; provider: string }>
  excluded: Set<string>
  stuck?: string
}

const nothing = (): RepairOutcome => ({
  rebuilt: 0,
  moved: 0,
  bytesRead: 0,
  bytesWritten: 0,
  wastedBytes: 0,
  bytesTheory: 0,
  reasons: {}
})
/** Shards that stay where they are until they are somewhere else as well. */
const keepsPlace: ReadonlySet<ShardCondition> = new Set(['gone', 'crowded', 'draining', 'selfHosted'])

export class SegmentRepair {
  readonly #components: SegmentRepairComponents

  constructor(components: SegmentRepairComponents) {
    this.#components = components
  }

  /** @throws the signal's reason; what the index throws */
  async repair(segment: StoredSegment, candidate: Candidate, hooks: RepairHooks): Promise<RepairOutcome> {
    const plan = await this.#plan(segment, candidate)
    if (plan.wanted.length === 0) return { ...nothing(), stuck: plan.stuck ?? 'nobody takes its shards' }
    const { memory } = this.#components
    const release = await memory.acquire(candidate.shardBytes * (segment.k + segment.m), hooks.signal)
    try {
      return await this.#carryOut(segment, candidate, plan, hooks)
    } finally {
      release()
    }
  }

  async #carryOut(
    segment: StoredSegment,
    { condition, treatment, shardBytes }: Candidate,
    plan: Plan,
    hooks: RepairHooks
  ): Promise<RepairOutcome> {
    const { log } = this.#components
    const outcome = nothing()
    const bytes = await this.#read(segment, plan.wanted, outcome, hooks.signal).catch((error: unknown) => {
      hooks.signal?.throwIfAborted()
      return whyFailed(error)
    })
    if (typeof bytes === 'string') {
      log.info('segment not repaired', { segment: segment.id, error: bytes })
      return { ...outcome, wastedBytes: outcome.bytesRead, stuck: bytes } // read all the same: it counts
    }
    if (!(await hooks.extendClaim()))
      return { ...outcome, wastedBytes: outcome.bytesRead, stuck: 'somebody else repairs it' }
    const { scatter, own } = await this.#send(segment, plan, bytes, hooks)
    try {
      const placed = new Map([...scatter.placed, ...own.placed])
      const kept = await this.#confirmed(segment, placed, bytes, hooks)
      const strays = scatter.strays()
      for (const [index, { provider }] of placed)
        if (!kept.has(index)) strays.push({ provider, cid: segment.shards[index]!.cid })
      await this.#commit(segment, kept, strays)
      const sizeOf = (index: number): number => bytes.get(index)!.length
      const written = [...kept.keys()].reduce((sum, index) => sum + sizeOf(index), 0)
      const moved = [...kept.keys()].filter((index) => treatment.move.includes(index))
      outcome.moved = moved.length
      outcome.rebuilt = kept.size - moved.length
      for (const index of kept.keys()) {
        const reason = condition.conditions[index]!
        outcome.reasons[reason] = (outcome.reasons[reason] ?? 0) + 1
      }
      outcome.bytesWritten = written + strays.length * shardBytes
      outcome.wastedBytes += strays.length * shardBytes
      const isRebuilding = plan.wanted.some((index) => treatment.rebuild.includes(index))
      if (kept.size > 0) outcome.bytesTheory = written + (isRebuilding ? segment.k * shardBytes : written)
      if (kept.size === 0) outcome.stuck = 'the providers chosen for its shards did not take them'
      log.info('segment repaired', { segment: segment.id, wanted: plan.wanted.length, placed: kept.size })
      return outcome
    } finally {
      scatter.letGo()
      own.letGo()
    }
  }

  /**
   * Who could take what. A shard that is still somewhere keeps its place in the reckoning unless it is to move, so that
   * whatever comes of the plan the segment is never more crowded than it was.
   */
  async #plan(segment: StoredSegment, { condition, treatment, shardBytes }: Candidate): Promise<Plan> {
    const { peers, random, selfHost } = this.#components
    const code = { k: segment.k, m: segment.m }
    const { conditions } = condition
    const providerOf = (index: number): string => segment.shards[index]!.provider!
    const excluded = new Set(await this.#refusers(segment))
    let wanted = [...treatment.rebuild, ...treatment.move]
    for (const index of wanted) if (keepsPlace.has(conditions[index]!)) excluded.add(providerOf(index))
    const candidates = peers.candidates()
    for (;;) {
      const held = this.#heldBut(segment, conditions, wanted)
      const domains = held.map(({ provider }) => ({ peerId: provider, domains: peers.domainsOf(provider) }))
      const request = { code, shardBytes, wanted, held: domains, excluded }
      const { assigned, unplaced } = place(request, candidates, random)
      const homeless = unplaced.filter((index) => conditions[index] !== 'selfHosted')
      const own = homeless.length > 0 && selfHost?.wants(segment, homeless) === true ? homeless : []
      const staying = unplaced.filter((index) => keepsPlace.has(conditions[index]!) && !own.includes(index))
      if (staying.length === 0) {
        const left = wanted.filter((index) => assigned.has(index) || own.includes(index))
        const stuck = left.length === 0 ? { stuck: whyNobody(request, candidates) } : {}
        return { wanted: left, own, held, excluded, ...stuck }
      }
      wanted = wanted.filter((index) => !staying.includes(index))
    }
  }

  /** Who refused a shard of this segment is not offered it again; who lost one may make good. */
  async #refusers(segment: StoredSegment): Promise<Set<string>> {
    const { index, refusersOf } = this.#components
    const cids = [...new Map(segment.shards.map(({ cid }) => [cid.toString(), cid])).values()]
    const known =
      refusersOf === undefined
        ? (await index.listRefusals(cids)).map(({ provider }) => provider)
        : await refusersOf(cids)
    const withdrawn = segment.shards.flatMap(({ state, provider }) =>
      state === 'withdrawn' && provider !== undefined ? [provider] : []
    )
    return new Set([...known, ...withdrawn])
  }

  #heldBut(
    segment: StoredSegment,
    conditions: readonly ShardCondition[],
    wanted: readonly number[]
  ): Array<{ index: number; provider: string }> {
    return segment.shards.flatMap(({ provider }, index) => {
      const isHeld = conditions[index] !== 'lost' && conditions[index] !== 'withdrawn'
      return provider !== undefined && isHeld && !wanted.includes(index) ? [{ index, provider }] : []
    })
  }

  /** The bytes of these shards: as they are where they can be had, from any `k` others where not. */
  async #read(
    segment: StoredSegment,
    wanted: readonly number[],
    outcome: RepairOutcome,
    signal?: AbortSignal
  ): Promise<Map<number, Uint8Array>> {
    const { codec } = this.#components
    const code = { k: segment.k, m: segment.m }
    const sizeOf = (index: number): number => storedShardBytes(segment.length, code, index)
    const { shards } = await gather(this.#components, {
      code,
      shards: shardsToFetch(segment),
      wanted,
      isMoving: true,
      signal,
      observe: (shard, provider, result) => {
        if (result === 'ok' || result === 'wrong') outcome.bytesRead += shard.bytes
        void this.#observe(segment, shard.index, provider, result)
      }
    })
    const isWhole = wanted.every((index) => shards.has(index))
    const used = isWhole ? wanted : [...shards.keys()].slice(0, segment.k)
    outcome.wastedBytes += Math.max(0, outcome.bytesRead - used.reduce((sum, index) => sum + sizeOf(index), 0))
    if (segment.k === 1) {
      // Copies of a block: any one is all of them.
      const [copy] = shards.values()
      return new Map(wanted.map((at) => [at, copy!]))
    }
    const missing = wanted.filter((at) => !shards.has(at))
    const restored =
      missing.length === 0
        ? []
        : await codec.reconstruct({
            shards: segment.shards.map((_, at) => shards.get(at)),
            length: segment.length,
            code,
            wanted: missing
          })
    const rebuilt = new Map(wanted.filter((at) => shards.has(at)).map((at) => [at, shards.get(at)!]))
    for (const [at, shard] of missing.entries()) rebuilt.set(shard, restored[at]!)
    return rebuilt
  }

  async #send(
    segment: StoredSegment,
    plan: Plan,
    bytes: ReadonlyMap<number, Uint8Array>,
    { signal }: RepairHooks
  ): Promise<{ scatter: Scatter; own: Awaited<ReturnType<SelfHost['keep']>> }> {
    const scatter = new Scatter(this.#components, {
      code: { k: segment.k, m: segment.m },
      held: plan.held,
      excluded: plan.excluded,
      quorum: 0,
      shards: plan.wanted
        .filter((index) => !plan.own.includes(index))
        .map((index) => ({ index, cid: segment.shards[index]!.cid, bytes: bytes.get(index)! })),
      signal
    })
    try {
      await scatter.settled
      const left = new Map([...bytes].filter(([index]) => plan.own.includes(index)))
      const own = left.size === 0 ? undefined : await this.#components.selfHost?.keep(segment, left, signal)
      return { scatter, own: own ?? { placed: new Map(), letGo: () => {} } }
    } catch (error) {
      scatter.letGo()
      throw error
    }
  }

  /**
   * What may be committed: proved to be there, as far as that could be found out, still wanted, and not too close to each
   * other. Whoever does not answer in time is counted on all the same: it acknowledged the write, which it does once it is
   * on its disk, and audits will ask again; not to would be to write everything twice whenever providers are busy. But
   * where a good copy is given up for the new one only a proof counts: repair never lowers the number of good shards.
   */
  async #confirmed(
    segment: StoredSegment,
    placed: ReadonlyMap<number, PlacedShard>,
    bytes: ReadonlyMap<number, Uint8Array>,
    { extendClaim, assess, signal }: RepairHooks
  ): Promise<Map<number, PlacedShard>> {
    const { index } = this.#components
    const shown = new Map<number, Shown>()
    await Promise.all(
      [...placed].map(async ([at, { provider }]) => {
        shown.set(at, await this.#verified(provider, segment.shards[at]!.cid, bytes.get(at)!.length, signal))
      })
    )
    if (!(await extendClaim())) return new Map()
    const now = await index.getSegment(segment.id)
    if (now === undefined) return new Map()
    const { conditions } = assess(now).condition
    const kept = new Map<number, PlacedShard>()
    const before = segment.shards
    for (const [at, where] of placed) {
      const isSame = before[at]!.provider === now.shards[at]!.provider && before[at]!.state === now.shards[at]!.state
      const isShown = shown.get(at) === 'there' || (shown.get(at) === 'silent' && !isReadable(conditions[at]!))
      // Whoever came back meanwhile keeps what it has.
      if (isShown && isSame && isWanted(conditions[at]!)) kept.set(at, where)
    }
    return this.#spread(now, conditions, kept)
  }

  async #verified(provider: string, cid: CID, bytes: number, signal?: AbortSignal): Promise<Shown> {
    const { verify, peers, log } = this.#components
    if (verify === undefined) return 'there'
    const target = peers.target(provider)
    if (target === undefined) return 'silent'
    const [outcome = 'unknown'] = await verify(target, [{ cid, bytes }], signal)
    if (outcome === 'ok') return 'there'
    if (outcome !== 'wrong' && outcome !== 'missing' && outcome !== 'refused') return 'silent'
    log.warn('a provider does not have what it has just acknowledged', { provider, cid, outcome })
    peers.report(provider, outcome)
    return 'not there'
  }

  /** Without those that would crowd a domain: one that was to move, and did not, still has its place. */
  #spread(
    segment: StoredSegment,
    conditions: readonly ShardCondition[],
    kept: Map<number, PlacedShard>
  ): Map<number, PlacedShard> {
    const { peers, selfHost } = this.#components
    const most = domainShardsMax(segment)
    const counts = new Map<string, number>()
    const providers = new Set<string>()
    const settle = (provider: string): void => {
      providers.add(provider)
      for (const domain of peers.domainsOf(provider)) counts.set(domain, (counts.get(domain) ?? 0) + 1)
    }
    for (const { provider } of this.#heldBut(segment, conditions, [...kept.keys()])) settle(provider)
    const spread = new Map<number, PlacedShard>()
    for (const [index, where] of kept) {
      if (where.provider === selfHost?.peerId) {
        spread.set(index, where)
        continue
      }
      const isFree = peers.domainsOf(where.provider).every((domain) => (counts.get(domain) ?? 0) < most)
      if (providers.has(where.provider) || !isFree) continue
      settle(where.provider)
      spread.set(index, where)
    }
    // What was left out stays where it was, and takes up room there: look again, until nothing changes.
    return spread.size === kept.size ? spread : this.#spread(segment, conditions, spread)
  }

  async #commit(
    segment: StoredSegment,
    kept: ReadonlyMap<number, PlacedShard>,
    strays: ReadonlyArray<{ provider: string; cid: CID }>
  ): Promise<void> {
    const { index } = this.#components
    if (kept.size > 0) {
      await index.placeShards(
        [...kept].map(([at, where]) => ({ segmentId: segment.id, index: at, cid: segment.shards[at]!.cid, ...where }))
      )
    }
    if (strays.length > 0) await index.queueReleases(strays)
  }

  async #observe(segment: StoredSegment, at: number, provider: string, outcome: PeerOutcome): Promise<void> {
    const { custody, index, log } = this.#components
    try {
      await custody?.(provider, segment.shards[at]!.cid, outcome)
      if (outcome !== 'missing' && outcome !== 'wrong') return
      await index.markShard({ segmentId: segment.id, index: at }, provider, outcome)
    } catch (error) {
      log.error('evidence of a lost shard was not recorded', { segment: segment.id, error: messageOf(error) })
    }
  }
}

const isWanted = (condition: ShardCondition): boolean =>
  condition === 'lost' || condition === 'withdrawn' || keepsPlace.has(condition)

/** Why no provider can take a shard, as a sentence for people. */
function whyNobody(
  { shardBytes, held, excluded }: PlacementRequest,
  candidates: ReadonlyArray<Pick<Taker, 'peerId' | 'freeBytes'>>
): string {
  const holders = new Set(held.map(({ peerId }) => peerId))
  if (candidates.length === 0) return 'no provider that takes shards is online'
  const roomy = candidates.filter(({ freeBytes }) => freeBytes >= shardBytes)
  if (roomy.length === 0) return 'all providers are full'
  const others = roomy.filter(({ peerId }) => !holders.has(peerId))
  if (others.length === 0) return 'all providers that have room hold a shard of it already'
  if (others.every(({ peerId }) => excluded?.has(peerId)))
    return 'all other providers have refused it, or are to lose it'
  return 'too few independent failure domains: those of all other providers hold as much of it as they may'
}

/** What a failure to repair is, for people. */
export function whyFailed(error: unknown): string {
  return error instanceof HoldfastError && error.code === 'UNREADABLE'
    ? 'too few of its shards can be read now'
    : messageOf(error)
}
