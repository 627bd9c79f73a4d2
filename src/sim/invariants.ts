/**
 * Invariants 1 to 7 of DESIGN section 3, as questions to the ground truth. They are asked whenever something that
 * they speak of has changed; the first that does not hold ends the run, before the next event.
 */
import { minuteMs } from '../base/limits.ts'
import type { CID } from '../content/cid.ts'
import type { Standing } from '../custody/score.ts'
import type { SegmentRecord, ShardState, StoredSegment } from '../metadata/records.ts'
import type { GroundTruth } from './ground-truth.ts'
import type { Machine } from './machine.ts'
import { domainShardsMax, durableMin } from './promises.ts'
import { shortCid } from './trace.ts'

/** Numbers as in DESIGN section 3; 0: something that no number there speaks of, such as a request that never ends. */
export type InvariantNumber = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7

export class Violation extends Error {
  readonly invariant: InvariantNumber

  constructor(invariant: InvariantNumber, message: string) {
    super(invariant === 0 ? message : `invariant ${invariant}: ${message}`)
    this.name = 'Violation'
    this.invariant = invariant
  }
}

/** From choosing who gets a block to putting it there: whoever refuses it meanwhile is met all the same. */
const plannedMsMax = minuteMs

const lostStates: ReadonlySet<ShardState> = new Set(['missing', 'wrong', 'withdrawn', 'unknown'])

export class Invariants {
  readonly #truth: GroundTruth
  readonly #machines: ReadonlyMap<string, Machine>
  /** When evidence of a loss was written down, by shard and provider. */
  readonly #lossFoundAt = new Map<string, number>()
  /** Since when the gateway has known that a provider refuses a block. */
  readonly #refusalKnownAt = new Map<string, number>()
  /** Who works on a segment, and until when. */
  readonly #claims = new Map<number, { claimant: string; until: number }>()
  #violation: Violation | undefined

  constructor(truth: GroundTruth, machines: ReadonlyMap<string, Machine>) {
    this.#truth = truth
    this.#machines = machines
  }

  /** Notes a violation: it may be found in the midst of the product's own code, which must not catch it. */
  report(invariant: InvariantNumber, message: string): void {
    this.#violation ??= new Violation(invariant, message)
  }

  /** @throws Violation the first that was found */
  check(): void {
    if (this.#violation !== undefined) throw this.#violation
  }

  /**
   * Invariant 1, for a segment that has just become part of what a client is told is safe: enough shards on distinct
   * providers, each of them truly there but for the lies and losses of faults, no domain with too many.
   */
  acknowledged(segment: SegmentRecord, what: string): void {
    const claimed = segment.shards.flatMap(({ provider, cid }) => (provider === undefined ? [] : [{ provider, cid }]))
    const providers = new Set(claimed.map(({ provider }) => provider))
    const code = `${segment.k}+${segment.m}`
    if (providers.size < durableMin(segment)) {
      this.report(
        1,
        `${what} (${code}) was acknowledged with ${providers.size} shards durable; it takes ${durableMin(segment)}`
      )
    }
    if (providers.size < claimed.length)
      this.report(1, `${what} (${code}) was acknowledged with two shards at one provider`)
    for (const { provider, cid } of claimed) this.#stored(provider, cid, `${what} was acknowledged`)
    const crowd = this.#largestDomain(claimed.map(({ provider }) => provider))
    if (claimed.length - crowd.shards < segment.k) {
      this.report(
        1,
        `${what} (${code}) was acknowledged with ${crowd.shards} of ${claimed.length} shards in ${crowd.domain}`
      )
    }
  }

  /** A shard that the index now says is at this provider. */
  placed(provider: string, cid: CID, segmentId: number): void {
    this.#stored(provider, cid, `segment ${segmentId} was completed`)
  }

  #stored(provider: string, cid: CID, when: string): void {
    if (this.#truth.isExcused(provider, cid) || this.#machines.get(provider)?.disk.holds(cid) === true) return
    this.report(1, `${when}, but shard ${shortCid(cid)} is not at ${provider}, which never lied about it`)
  }

  /** What must hold for a segment at all times, whatever the index has just written about it. */
  segment(segment: StoredSegment): void {
    const held = segment.shards.flatMap(({ provider, state }) =>
      provider === undefined || lostStates.has(state) ? [] : [provider]
    )
    const what = `segment ${segment.id} (${segment.k}+${segment.m})`
    if (new Set(held).size < held.length) this.report(3, `${what} has two shards at one provider`)
    const crowd = this.#largestDomain(held)
    if (crowd.shards > domainShardsMax(segment)) {
      this.report(
        3,
        `${what} has ${crowd.shards} shards in domain ${crowd.domain}; ${domainShardsMax(segment)} are allowed`
      )
    }
    const good = this.#truth.goodShards(segment).length
    if (good < segment.k)
      this.report(3, `${what} has ${good} good shards left: it is lost, and no fault was allowed to do that`)
  }

  /** What is noted of a shard: a proof of custody says nothing about a loss that was found after it. */
  marked(shard: string, state: ShardState, proofAt: number | undefined, now: number): void {
    if (state === 'missing' || state === 'wrong') this.#lossFoundAt.set(shard, now)
    else if (proofAt !== undefined && proofAt < (this.#lossFoundAt.get(shard) ?? 0)) {
      this.report(0, `shard ${shard} was found ${state} again by a proof older than the loss`)
    }
  }

  /**
   * Invariant 7: somebody concluded that the provider does not have the block, or not whole. It is so, or the provider
   * said so; or it was in trouble and left audits of the block unanswered for as long as it is documented to be given.
   */
  takenForLost(provider: string, cid: CID, state: ShardState): void {
    if (state !== 'missing' && state !== 'wrong') return
    const isCounted = this.#truth
      .segmentsOf(cid)
      .some(({ shards }) =>
        shards.some((shard) => shard.provider === provider && shard.cid.equals(cid) && !lostStates.has(shard.state))
      )
    const isThere = this.#machines.get(provider)?.disk.holds(cid) === true
    if (state === 'missing' && this.#truth.wasSilentTooLong(provider, cid)) this.#truth.blame(provider)
    else if (isCounted && isThere && !this.#truth.mayBeTakenForLost(provider, cid))
      this.report(7, `shard ${shortCid(cid)} at ${provider} was found ${state}, and is there, whole, and not denied`)
  }

  /** Invariant 7, of what the gateway thinks of its providers: nobody who kept its word is turned away. */
  standings(trustOf: (peerId: string) => { standing: Standing }): void {
    for (const peerId of this.#machines.keys()) {
      if (!this.#truth.isBlameless(peerId)) continue
      const { standing } = trustOf(peerId)
      if (standing === 'closed' || standing === 'suspended')
        this.report(7, `${peerId} is ${standing}, and never broke its word`)
    }
  }

  /**
   * Invariant 6: a provider's own code deleted a block, which nobody may count on unless it was refused, or known to be
   * lost. `holders`: what the index says at this moment.
   */
  deleted(provider: string, cid: CID, holders: ReadonlyArray<{ provider: string; state: ShardState }>): void {
    const counted = holders.some((holder) => holder.provider === provider && !lostStates.has(holder.state))
    if (counted && !this.#truth.isExcused(provider, cid))
      this.report(6, `${provider} deleted ${shortCid(cid)}, which the index counts on`)
  }

  /** What a provider counts as used, and what is on its disk. */
  counted(provider: string, usedBytes: number, bytes: number): void {
    if (usedBytes !== bytes) this.report(0, `${provider} counts ${usedBytes} bytes; ${bytes} are there`)
  }

  /** The index knows from now on that the provider refuses the block. */
  refusalKnown(provider: string, cid: CID, now: number): void {
    const key = `${provider} ${cid}`
    if (!this.#refusalKnownAt.has(key)) this.#refusalKnownAt.set(key, now)
  }

  /** Somebody sets out to put a block at a provider: not, where it is known to refuse it. */
  offered(provider: string, cid: CID, now: number): void {
    const knownAt = this.#refusalKnownAt.get(`${provider} ${cid}`)
    if (knownAt !== undefined && now - knownAt > plannedMsMax)
      this.report(6, `${provider} is offered ${shortCid(cid)}, which it is known to refuse`)
  }

  /** These segments are one claimant's from now on, alone. */
  claimed(ids: readonly number[], { claimant, until, now }: { claimant: string; until: number; now: number }): void {
    for (const id of ids) {
      const other = this.#claims.get(id)
      if (other !== undefined && other.claimant !== claimant && other.until > now)
        this.report(5, `segment ${id} is worked on by ${other.claimant} and by ${claimant}`)
      this.#claims.set(id, { claimant, until })
    }
  }

  unclaimed(ids: readonly number[], claimant: string): void {
    for (const id of ids) if (this.#claims.get(id)?.claimant === claimant) this.#claims.delete(id)
  }

  claimsEnded(claimantPrefix: string): void {
    for (const [id, { claimant }] of this.#claims) if (claimant.startsWith(claimantPrefix)) this.#claims.delete(id)
  }

  #largestDomain(providers: readonly string[]): { domain: string; shards: number } {
    const counts = new Map<string, number>()
    for (const provider of providers) {
      for (const domain of this.#machines.get(provider)?.domains ?? [])
        counts.set(domain, (counts.get(domain) ?? 0) + 1)
    }
    let largest = { domain: 'none', shards: 0 }
    for (const [domain, shards] of counts) if (shards > largest.shards) largest = { domain, shards }
    return largest
  }
}
