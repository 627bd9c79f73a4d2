/**
 * Keeps segments at full margin: a reconciler over what the index says and what is known of providers. Each round it finds
 * what there is to do, and does it in the order in which segments would be lost, within a budget. Shards that are lost,
 * withdrawn or too close to each other are seen to at once; those whose provider stays away wait until the margin is down to
 * a threshold, since rebuilding several at once costs little more than one. Ciphertext only; idempotent. Killed anywhere, the
 * next round starts from what the index says, and what was stored in vain ends with its lease.
 */
import { toHex } from '../base/bytes.ts'
import type { Clock } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { MiB, minuteMs, secondMs } from '../base/limits.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { StoredSegment } from '../metadata/records.ts'
import type { SegmentOutlook } from '../object/object-store.ts'
import { Budget } from './budget.ts'
import { type Candidate, type CandidateComponents, Candidates, type Found } from './candidates.ts'
import { isLow } from './health.ts'
import { type RepairOutcome, SegmentRepair, type SegmentRepairComponents, whyFailed } from './segment-repair.ts'

export interface RepairerComponents extends CandidateComponents, SegmentRepairComponents {
  index: CandidateComponents['index'] &
    SegmentRepairComponents['index'] &
    Pick<MetadataIndex, 'claimSegments' | 'endClaims' | 'unclaimSegments'>
  peers: SegmentRepairComponents['peers']
  clock: Clock
  /** How slowly clients are served, from 0 to 1: repair makes way for them. */
  pressure?: () => number
  /** What became of a segment. */
  onRepair?: (event: RepairEvent) => void
}

export interface RepairerInit {
  /** Read and written, together. */
  bytesPerSecond?: number
  /** Segments at once. */
  width?: number
}

export interface RepairEvent extends RepairOutcome {
  segment: number
}

export interface RepairTotals {
  /** Segments that got shards placed. */
  repairs: number
  shardsRebuilt: number
  shardsMoved: number
  bytesRead: number
  bytesWritten: number
  /** What the same repairs take where nothing goes wrong: `k + r` shards for `r` rebuilt. */
  bytesTheory: number
  /** Read or written, and of no use. */
  wastedBytes: number
}

export interface RepairProgress extends RepairTotals {
  /** Segments that want something done, as of the last round. */
  waiting: number
  placedShards: number
  /** Segments that could not be helped lately. */
  stuck: number
  /** Since when the one has waited that has waited longest; null where none does. */
  waitingSince: number | null
}

export interface PlanItem {
  segment: number
  k: number
  m: number
  readable: number
  margin: number
  /** Shards that would be placed anew. */
  wanted: number
  why: string
  /** Why the last try came to nothing. */
  stuck: string | null
  secondsToLoss: number
}

export interface RepairPlan {
  /** In the order in which they would be repaired. */
  items: PlanItem[]
  isTruncated: boolean
  /** Of all segments that are to be repaired now, up to a thousand. */
  planned: { segments: number; shards: number; bytesToRead: number; bytesToWrite: number }
  totals: RepairTotals
  running: boolean
  /** Why less is repaired than could be; null where nothing holds it up. */
  paused: string | null
}

export const defaultRepairBytesPerSecond = 64 * MiB
const defaultWidth = 3
/** Longer than any step between two looks at a claim; what a gateway that was killed held is free after that. */
const claimMs = 2 * minuteMs
const restMsMin = 5 * secondMs
const restMsMax = 5 * minuteMs
/** Segments remembered to be waiting. */
const waitingMax = 10_000
/** Segments remembered to be resting: if more could not be helped they would be tried again and again, before all others. */
const restingMax = 100_000
/** After that much time what was found is looked at anew: something more urgent may have come. */
const freshMs = minuteMs

/** What has been in vain for as long as a pause of so much is not tried anew at every change: in a large network there is always one. */
const patientMs = minuteMs
/** But after this share of its pause. */
const changedShare = 1 / 5

interface Rest {
  since: number
  until: number
  pauseMs: number
  why: string
}

export class Repairer {
  readonly progress: RepairProgress = {
    repairs: 0,
    shardsRebuilt: 0,
    shardsMoved: 0,
    bytesRead: 0,
    bytesWritten: 0,
    bytesTheory: 0,
    wastedBytes: 0,
    waiting: 0,
    placedShards: 0,
    stuck: 0,
    waitingSince: null
  }
  readonly #components: RepairerComponents
  readonly #candidates: Candidates
  readonly #segments: SegmentRepair
  readonly #budget: Budget
  readonly #width: number
  /** Another process of the same gateway, be it the one that was killed just now, is somebody else. */
  readonly #claimant: string
  readonly #resting = new Map<number, Rest>()
  readonly #waitingSince = new Map<number, number>()
  /** Segments that this process works on: a claim keeps others away, not ourselves. */
  readonly #busy = new Set<number>()

  constructor(
    components: RepairerComponents,
    { bytesPerSecond = defaultRepairBytesPerSecond, width = defaultWidth }: RepairerInit = {}
  ) {
    this.#components = components
    this.#candidates = new Candidates(components)
    this.#segments = new SegmentRepair(components)
    this.#budget = new Budget(components.clock, { bytesPerSecond, pressure: components.pressure })
    this.#width = width
    this.#claimant = `${components.peerId}:${toHex(components.random.bytes(8))}`
  }

  /**
   * Gives back what an earlier process of this gateway had claimed, which is dead: two never run on one identity. To be
   * called before the first round.
   */
  async load(): Promise<void> {
    await this.#components.index.endClaims(`${this.#components.peerId}:`)
  }

  /** Waits until so many bytes may be read or written for somebody else's content: it shares what repair may. */
  async spend(bytes: number, signal?: AbortSignal): Promise<void> {
    await this.#budget.take(bytes, false, signal)
  }

  /** Something has changed, such as a provider that came: what was stuck is tried again. */
  changed(): void {
    for (const rest of this.#resting.values()) {
      const changedAt = rest.pauseMs < patientMs ? 0 : rest.since + rest.pauseMs * changedShare
      rest.until = Math.min(rest.until, changedAt)
    }
    this.#candidates.changed()
  }

  /**
   * Repairs what there is to repair.
   *
   * @returns shards placed; 0 means that another round makes no sense before something changes
   */
  async round(signal?: AbortSignal): Promise<number> {
    let total = 0
    for (let more = true; more; ) {
      signal?.throwIfAborted()
      const found = await this.#candidates.find(signal, this.#isLater)
      this.#note(found)
      const { placed, isCut } = await this.#work(found.candidates, signal)
      total += placed
      more = (found.isTruncated || isCut) && placed > 0
    }
    return total
  }

  /**
   * Repairs all that can be, also what would wait for the margin to shrink: somebody asked for it. Ends when a round has
   * placed nothing more.
   *
   * @returns shards placed
   */
  async repairNow(signal?: AbortSignal): Promise<number> {
    for (const rest of this.#resting.values()) rest.until = 0
    let total = 0
    for (let placed = -1; placed !== 0; total += placed) {
      signal?.throwIfAborted()
      const eager = this.#candidates.fresh(true)
      const { candidates } = await eager.find(signal, this.#isLater)
      placed = (await this.#work(candidates, signal, eager)).placed
    }
    return total
  }

  /**
   * What a round would do now, in its order, with nothing moved.
   *
   * @param isEager what `repairNow` would do
   */
  async plan(limit: number, signal?: AbortSignal, isEager = false): Promise<RepairPlan> {
    const { candidates, isTruncated } = await this.#candidates.preview(signal, {
      isEager,
      isLater: this.#isLater
    })
    const planned = { segments: candidates.length, shards: 0, bytesToRead: 0, bytesToWrite: 0 }
    for (const candidate of candidates) {
      const { reads, writes } = costOf(candidate)
      planned.shards += writes
      planned.bytesToRead += reads * candidate.shardBytes
      planned.bytesToWrite += writes * candidate.shardBytes
    }
    const { repairs, shardsRebuilt, shardsMoved, bytesRead, bytesWritten, bytesTheory, wastedBytes } = this.progress
    return {
      items: candidates.slice(0, limit).map((candidate) => this.#itemOf(candidate)),
      isTruncated: isTruncated || candidates.length > limit,
      planned,
      totals: { repairs, shardsRebuilt, shardsMoved, bytesRead, bytesWritten, bytesTheory, wastedBytes },
      running: this.#busy.size > 0,
      paused: this.#whyPaused()
    }
  }

  #whyPaused(): string | null {
    if (this.#components.presence.isSuspended)
      return 'so many providers are silent that the gateway itself may be cut off: nobody is taken to be gone'
    return this.#budget.share < 1 ? 'clients are served slowly: repair makes way for them' : null
  }

  /** What is to be expected of a segment, for people. */
  outlook(segment: StoredSegment): SegmentOutlook {
    const outlook = this.#candidates.outlook(segment)
    const stuck = this.#resting.get(segment.id)?.why
    return stuck === undefined ? outlook : { ...outlook, why: `${outlook.why}; not repaired: ${stuck}` }
  }

  /** Whether so much of it is away that its margin is down to where repair begins. */
  isLow(segment: StoredSegment): boolean {
    return isLow(this.#candidates.assess(segment).condition, this.#candidates.thresholdOf(segment))
  }

  #itemOf({ segment, k, m, condition, treatment, secondsToLoss, isSettling }: Candidate): PlanItem {
    const { readable, margin, why } = condition
    const wanted = treatment.rebuild.length + treatment.move.length
    const settling = isSettling ? '; its upload is still placing shards' : ''
    const stuck = this.#resting.get(segment)?.why ?? null
    return { segment, k, m, readable, margin, wanted, why: why + settling, stuck, secondsToLoss }
  }

  #note({ candidates, isTruncated, isWhole }: Found): void {
    const now = this.#components.clock.now()
    const waiting = candidates.filter(({ isSettling }) => !isSettling)
    const ids = new Set(waiting.map(({ segment }) => segment))
    // What was not looked at may wait as well.
    if (isWhole && !isTruncated) forgetBut(ids, this.#waitingSince, this.#resting)
    for (const id of ids) {
      if (this.#waitingSince.size >= waitingMax) break
      if (!this.#waitingSince.has(id)) this.#waitingSince.set(id, now)
    }
    const bytes = waiting.reduce((sum, candidate) => sum + bytesOf(candidate), 0)
    this.#candidates.backlogMs = (bytes / this.#budget.bytesPerSecond) * secondMs
    this.progress.waiting = waiting.length
    this.#sumUp()
  }

  #sumUp(): void {
    this.progress.stuck = this.#resting.size
    this.progress.waitingSince = this.#waitingSince.values().next().value ?? null // noted in the order of time
  }

  /** @returns shards placed, and whether some were left for the next look */
  async #work(
    candidates: readonly Candidate[],
    signal?: AbortSignal,
    by = this.#candidates
  ): Promise<{ placed: number; isCut: boolean }> {
    const { clock } = this.#components
    const until = clock.now() + freshMs
    let placed = 0
    let isCut = false
    const due = candidates.filter((candidate) => !this.#isLater(candidate))
    await forEachLimit(due, this.#width, async (candidate) => {
      signal?.throwIfAborted()
      isCut ||= clock.now() > until
      if (isCut) return
      if (this.#busy.has(candidate.segment)) return
      this.#busy.add(candidate.segment)
      try {
        const done = await this.#repair(candidate, by, signal)
        placed += done // others have added theirs meanwhile
      } catch (error) {
        signal?.throwIfAborted()
        this.#rest(candidate.segment, whyFailed(error))
        this.#components.log.info('segment not repaired', { segment: candidate.segment, error: whyFailed(error) })
      } finally {
        this.#busy.delete(candidate.segment)
        this.#sumUp()
      }
    })
    return { placed, isCut }
  }

  /** @returns shards placed */
  async #repair(candidate: Candidate, by: Candidates, signal?: AbortSignal): Promise<number> {
    const { index } = this.#components
    const { segment: id } = candidate
    const planned = bytesOf(candidate)
    // Before the claim, which is not to be held while waiting.
    await this.#budget.take(planned, candidate.condition.margin <= 0, signal)
    let moved = 0
    try {
      if (!(await this.#claim(id))) return 0
      const segment = await index.getSegment(id)
      if (segment === undefined) return 0
      const now = by.assess(segment)
      const { rebuild, move } = now.treatment
      if (now.isSettling || rebuild.length + move.length === 0) return 0
      const outcome = await this.#segments.repair(segment, now, {
        extendClaim: () => this.#claim(id),
        assess: (one) => by.assess(one),
        signal
      })
      moved = outcome.bytesRead + outcome.bytesWritten
      this.#count(id, outcome)
      return outcome.rebuilt + outcome.moved
    } finally {
      this.#budget.charge(moved - planned)
      await index.unclaimSegments([id], this.#claimant)
    }
  }

  /** Takes the segment, or keeps it for longer. */
  async #claim(id: number): Promise<boolean> {
    const { index, clock } = this.#components
    const now = clock.now()
    const got = await index.claimSegments([id], { claimant: this.#claimant, until: now + claimMs, now })
    return got.length > 0
  }

  #count(segment: number, outcome: RepairOutcome): void {
    const { progress } = this
    const placed = outcome.rebuilt + outcome.moved
    progress.repairs += placed > 0 ? 1 : 0
    progress.shardsRebuilt += outcome.rebuilt
    progress.shardsMoved += outcome.moved
    progress.placedShards += placed
    progress.bytesRead += outcome.bytesRead
    progress.bytesWritten += outcome.bytesWritten
    progress.bytesTheory += outcome.bytesTheory
    progress.wastedBytes += outcome.wastedBytes
    if (outcome.stuck !== undefined) this.#rest(segment, outcome.stuck)
    else {
      this.#resting.delete(segment)
      this.#waitingSince.delete(segment)
    }
    this.#components.onRepair?.({ segment, ...outcome })
  }

  /** Nothing is to be done about it now: its upload is under way, or it could not be helped lately. */
  readonly #isLater = ({ segment, isSettling }: Candidate): boolean =>
    isSettling || (this.#resting.get(segment)?.until ?? 0) > this.#components.clock.now()

  /** Left alone for a while, longer each time. */
  #rest(segment: number, why: string): void {
    const before = this.#resting.get(segment)
    if (before === undefined && this.#resting.size >= restingMax) return // tried again each round
    const pauseMs = Math.min(restMsMax, before === undefined ? restMsMin : 2 * before.pauseMs)
    const since = this.#components.clock.now()
    this.#resting.set(segment, { since, until: since + pauseMs, pauseMs, why })
  }
}

/** Shards to read, and to write. */
function costOf({ k, treatment: { rebuild, move } }: Candidate): { reads: number; writes: number } {
  return { reads: rebuild.length > 0 ? k : move.length, writes: rebuild.length + move.length }
}

function bytesOf(candidate: Candidate): number {
  const { reads, writes } = costOf(candidate)
  return (reads + writes) * candidate.shardBytes
}

function forgetBut(ids: ReadonlySet<number>, ...maps: Array<Map<number, unknown>>): void {
  for (const map of maps) for (const id of [...map.keys()]) if (!ids.has(id)) map.delete(id)
}
