/**
 * What is really stored where, beside what the index believes: the measure of how much may still be lost, and of
 * whether it was. Nobody under simulation sees it.
 */

import type { CID } from '../content/cid.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import type { SegmentRecord, ShardRecord, StoredSegment } from '../metadata/records.ts'
import type { Machine } from './machine.ts'
import type { AuditWitness, Loss, LossBudget } from './network.ts'
import { parityLossesMax, silencesMin, silentMsMin } from './promises.ts'
import type { Timeline } from './virtual-clock.ts'

/** Shards of a segment that was coded and is not committed yet, as far as anybody can tell. */
interface CodedGroup {
  /** CIDs of its shards, in order. */
  key: string
  code: Code
  isCommitted: boolean
  /** Machines that lost or never stored a shard of it, though they said yes or may have. */
  lostBy: Set<string>
}

/** How long a question may take from its answer to what the index says because of it. */
const conclusionMsMax = 60_000

/** How long an empty promise may be on its way into the index. */
const pretenceMsMax = 120_000

const at = (peerId: string, cid: CID): string => `${peerId} ${cid.toString()}`

export class GroundTruth implements LossBudget, AuditWitness {
  /** Segments that the index names, as of the last write to it that concerned them. */
  readonly segments = new Map<number, StoredSegment>()
  /** Segments of each content, and of each upload's parts, as they were committed. */
  readonly contents = new Map<number, { segmentIds: readonly number[]; blockIds: readonly number[] }>()
  readonly uploads = new Map<string, readonly number[]>()
  /** Segments that may be gone from the index. */
  readonly doubtful = new Set<number>()
  readonly #timeline: Timeline
  readonly #machines: ReadonlyMap<string, Machine>
  readonly #segmentsByCid = new Map<string, Set<number>>()
  /** By shard: those that have it; segments that are not full share the empty one. */
  readonly #groups = new Map<string, CodedGroup[]>()
  /** Blocks that a fault destroyed, or lets a machine lie about: `peer cid` to how. */
  readonly #lost = new Map<string, Loss>()
  /** When such a block became good again. */
  readonly #lostUntil = new Map<string, number>()
  /** Audits in a row that a machine in trouble left without an answer, by block: when each ended. */
  readonly #silences = new Map<string, number[]>()
  readonly #failed = new Set<string>()
  /** Blocks that a machine is going to refuse, as `peer cid`: what a root is made of takes a while to be found out. */
  readonly #refusing = new Set<string>()
  /** Empty promises by CID: when each was made. */
  readonly #pretences = new Map<string, number[]>()

  constructor(timeline: Timeline, machines: ReadonlyMap<string, Machine>) {
    this.#timeline = timeline
    this.#machines = machines
  }

  /** Whether the machine has the block undamaged, and will give it. */
  isGood(peerId: string | undefined, cid: CID): boolean {
    if (peerId === undefined || this.#lost.has(at(peerId, cid))) return false
    const machine = this.#machines.get(peerId)
    return machine?.disk.holds(cid) === true && !machine.refuses(cid)
  }

  /** Whether a fault, or a refusal, explains that the machine does not have what it promised to keep. */
  isExcused(peerId: string, cid: CID): boolean {
    return this.#lost.has(at(peerId, cid)) || this.#machines.get(peerId)?.refuses(cid) === true
  }

  /** Whether it is no wonder that somebody takes the block for lost, or did so until just now. */
  mayBeTakenForLost(peerId: string, cid: CID): boolean {
    const until = this.#lostUntil.get(at(peerId, cid)) ?? Number.NEGATIVE_INFINITY
    return this.isExcused(peerId, cid) || this.#timeline.now - until < conclusionMsMax
  }

  /** Whether the machine was in trouble for so long that audits may take its silence about the block for a loss. */
  wasSilentTooLong(peerId: string, cid: CID): boolean {
    const silences = this.#silences.get(at(peerId, cid)) ?? []
    return silences.length >= silencesMin && silences.at(-1)! - silences[0]! >= silentMsMin
  }

  /** Whether it never broke its word, nor was ever silent for so long that it seemed to. */
  isBlameless(peerId: string): boolean {
    return !this.#failed.has(peerId)
  }

  goodShards(segment: SegmentRecord): ShardRecord[] {
    return segment.shards.filter(({ provider, cid }) => this.isGood(provider, cid))
  }

  /** Segments that the index names and that have this block in them. */
  segmentsOf(cid: CID): StoredSegment[] {
    return [...(this.#segmentsByCid.get(cid.toString()) ?? [])].map((id) => this.segments.get(id)!)
  }

  segmentIdsOf(cid: CID): number[] {
    return [...(this.#segmentsByCid.get(cid.toString()) ?? [])]
  }

  // What happens

  /** A segment was coded: from now on providers will be asked to store it. */
  coded(code: Code, cids: readonly CID[]): void {
    const group: CodedGroup = { key: cids.join(), code, isCommitted: false, lostBy: new Set() }
    for (const key of new Set(cids.map(String))) {
      const others = (this.#groups.get(key) ?? []).filter(({ isCommitted }) => !isCommitted)
      // Equal contents have equal shards: the faults that one upload may suffer are those that both may.
      if (others.some((other) => other.key === group.key)) return
      this.#groups.set(key, [...others, group])
    }
  }

  stored(peerId: string, cid: CID): void {
    this.#found(at(peerId, cid))
    this.#silences.delete(at(peerId, cid))
  }

  audited(peerId: string, cids: readonly CID[], ended: 'answered' | 'silent'): void {
    for (const cid of cids) {
      const key = at(peerId, cid)
      if (ended === 'answered') this.#silences.delete(key)
      else this.#silences.set(key, [...(this.#silences.get(key) ?? []), this.#timeline.now])
    }
  }

  /** A machine's operator refuses a content of these blocks: what it has of them, and what it still gets, is not to be counted on. */
  refusing(peerId: string, cids: Iterable<string>): void {
    for (const cid of cids) this.#refusing.add(`${peerId} ${cid}`)
  }

  /** A machine deleted what it refuses; that it did stays true when the refusal is taken back. */
  droppedRefused(peerId: string, cid: CID): void {
    this.#lost.set(at(peerId, cid), 'refused')
  }

  blame(peerId: string): void {
    this.#failed.add(peerId)
  }

  update(id: number, segment: StoredSegment | undefined): void {
    const before = this.segments.get(id)
    if (segment !== undefined) {
      this.segments.set(id, segment)
      if (before !== undefined) return // its CIDs never change
      const all = segment.shards.map(({ cid }) => cid).join()
      for (const { cid } of segment.shards) {
        const key = cid.toString()
        const ids = this.#segmentsByCid.get(key)
        if (ids === undefined) this.#segmentsByCid.set(key, new Set([id]))
        else ids.add(id)
        // Not of another segment that has the empty shard too, and is still on its way. Copies have one CID.
        for (const group of this.#groups.get(key) ?? []) group.isCommitted ||= group.key === all || group.key === key
      }
      return
    }
    if (before === undefined) return
    this.segments.delete(id)
    for (const { cid } of before.shards) this.#segmentsByCid.get(cid.toString())?.delete(id)
  }

  /** Faults are over: nobody lies any more. What was destroyed stays so until somebody notices. */
  allHonest(): void {
    for (const { peerId, disk } of this.#machines.values()) {
      for (const cid of disk.cids())
        if (disk.holds(cid) && this.#lost.get(at(peerId, cid)) === 'denied') this.#found(at(peerId, cid))
    }
  }

  // The budget of losses

  spend(peerId: string, cid: CID, loss: Loss): boolean {
    return this.spendAll(peerId, [cid], loss)
  }

  spendAll(peerId: string, cids: readonly CID[], loss: Loss): boolean {
    if (!cids.every((cid) => this.#mayLose(peerId, cid, loss))) return false
    for (const cid of cids) this.#lose(peerId, cid, loss)
    return true
  }

  renewed(peerId: string, cids: readonly CID[]): void {
    for (const cid of cids) if (this.#lost.get(at(peerId, cid)) === 'unleased') this.#found(at(peerId, cid))
  }

  #found(key: string): void {
    if (this.#lost.delete(key)) this.#lostUntil.set(key, this.#timeline.now)
  }

  #lose(peerId: string, cid: CID, loss: Loss): void {
    const key = cid.toString()
    if (loss !== 'refused') {
      this.#lost.set(at(peerId, cid), loss)
      this.#failed.add(peerId)
    } // whether it is refused, the machine knows, and saying no breaks no word
    // A block above the segments is kept as copies, and is not coded.
    const copies: CodedGroup = { key, code: { k: 1, m: 2 }, isCommitted: false, lostBy: new Set() }
    const groups = this.#groups.get(key) ?? [copies]
    this.#groups.set(key, groups)
    for (const group of groups) group.lostBy.add(peerId)
    if (loss === 'pretended') this.#pretences.set(key, [...(this.#pretences.get(key) ?? []), this.#timeline.now])
  }

  #mayLose(peerId: string, cid: CID, loss: Loss): boolean {
    const isPretence = loss === 'pretended'
    // One more may be on its way to who refuses it, and be counted on.
    const cost = loss === 'refused' ? 2 : 1
    for (const segment of this.segmentsOf(cid)) {
      const concerns = isPretence || segment.shards.some((shard) => shard.provider === peerId && shard.cid.equals(cid))
      if (concerns && this.#lastingShards(segment) - this.#pretencesFor(segment) - cost < segment.k) return false
    }
    // A block above the segments is kept as copies; how many is not known here, but never fewer than three.
    return (this.#groups.get(cid.toString()) ?? []).every(
      ({ code, isCommitted, lostBy }) => isCommitted || lostBy.has(peerId) || lostBy.size < parityLossesMax(code)
    )
  }

  #lastingShards(segment: StoredSegment): number {
    return this.goodShards(segment).filter(({ provider, cid }) => !this.#refusing.has(at(provider!, cid))).length
  }

  /** Empty promises that may still become the index's belief. */
  #pretencesFor(segment: StoredSegment): number {
    let count = 0
    for (const key of new Set(segment.shards.map(({ cid }) => cid.toString()))) {
      const recent = this.#pretences.get(key)?.filter((madeAt) => this.#timeline.now - madeAt < pretenceMsMax) ?? []
      count += recent.length
    }
    return count
  }
}
