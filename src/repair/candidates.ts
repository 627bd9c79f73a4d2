/**
 * What there is to repair, most urgent first. Segments with lost shards are listed by the index; those at providers that are
 * gone, or have been leaving for too long, are looked through provider by provider, a bounded part in each round; and slowly
 * all of them are, for what no list has: two too close to each other, since somebody moved.
 */
import type { Clock } from '../base/clock.ts'
import { dayMs, minuteMs, secondMs } from '../base/limits.ts'
import type { CID } from '../content/cid.ts'
import type { HeldCursor, MetadataIndex } from '../metadata/index-store.ts'
import type { StoredSegment } from '../metadata/records.ts'
import type { SegmentOutlook } from '../object/object-store.ts'
import { shardBytesFor } from '../object/segment-codec.ts'
import { independentDomains } from '../placement/place.ts'
import type { Peers } from '../transfer/peers.ts'
import {
  classify,
  isReadable,
  type ProviderFacts,
  type SegmentCondition,
  type Treatment,
  treatmentOf
} from './health.ts'
import type { Presence } from './presence.ts'
import { lossPerYear, type RepairModel, repairThreshold, secondsToLoss } from './threshold.ts'

export interface CandidateComponents {
  index: Pick<MetadataIndex, 'listHeldSegments' | 'listIncomplete' | 'listSegments'>
  peers: Pick<Peers, 'domainsOf' | 'state'>
  presence: Presence
  clock: Clock
  /** The gateway's own peer id. */
  peerId: string
  /** Whether the segment's upload is still placing shards of it: then it is left alone. */
  isSettling: (segment: StoredSegment) => boolean
  /** Whether a challenge of this shard waits to be put again. */
  isShardContained?: ((provider: string, cid: CID) => boolean) | undefined
  /** How long shards that are gone wait above the threshold; default: 90 days. */
  patienceMs?: number | undefined
  /** Whether the gateway holds shards itself that nobody else takes. */
  isSelfHosting?: boolean | undefined
  /** Providers that are leaving. */
  draining?: (() => Iterable<string>) | undefined
  /** Lets others have the event loop, between pages. */
  pause: () => Promise<void>
}

export interface Candidate {
  segment: number
  k: number
  m: number
  /** Of each shard. */
  shardBytes: number
  condition: SegmentCondition
  treatment: Treatment
  /** Expected, if nobody repaired it. */
  secondsToLoss: number
  isSettling: boolean
}

export interface Found {
  /** Most urgent first. */
  candidates: Candidate[]
  /** There were more than are kept, or than could be looked at. */
  isTruncated: boolean
  /** All that is lost or gone was looked at, not just what is due for it. */
  isWhole: boolean
}

type IsLater = (candidate: Candidate) => boolean

/** How far a provider has been looked through, and until when that is enough. */
interface Scan {
  after?: HeldCursor | undefined
  restUntil: number
  /** Something has changed since it began: it is to begin again when it has ended. */
  isStale: boolean
}

/** Kept of what a round finds; the rest is found by the next. */
const candidatesMax = 1000
const pageSegments = 100
/** Segments looked at in a round, of providers that are gone. */
const heldMax = 2000
/** Segments looked at in a round, of all there are; and the least time for all of them. */
const sweepMax = 200
const sweepPauseMs = minuteMs
/** Looking through a provider's segments again where nothing has changed. */
const rescanMsMin = 5 * secondMs
const rescanMsMax = 5 * minuteMs
/**
 * How long shards that are gone wait for others of their kind above the threshold: long, since whoever leaves next takes
 * another one with it, and two cost little more than one. The threshold, not this, is what keeps a segment safe. Where
 * providers stay for half a year 10+10 comes to its threshold in some 50 days: with 30, patience ended first.
 */
export const defaultPatienceMs = 90 * dayMs
/** Probabilities remembered. */
const lossesMax = 1024
/** In units of the least grace: until a drain is overdue; and at least, since a short grace makes no line faster. */
const overdueSpan = 24
const overdueMsMin = 10 * minuteMs

export class Candidates {
  readonly #components: CandidateComponents
  readonly #isEager: boolean
  readonly #scans = new Map<string, Scan>()
  readonly #drainingSince = new Map<string, number>()
  #scanned = ''
  /** Whose turn is over for want of time: the next round begins with those behind it. */
  #scannedLast = { first: '', late: '' }
  #sweptTo = 0
  #sweepAt = 0
  /** What `lossPerYear` gave, by what it was asked. */
  readonly #losses = new Map<string, number>()
  /** What was found last would take so long. */
  backlogMs = 0

  /** @param isEager whether what is gone is due whatever the margin: somebody asked for it */
  constructor(components: CandidateComponents, isEager = false) {
    this.#components = components
    this.#isEager = isEager
  }

  /**
   * Something has changed: what was looked through may look different. What is under way is ended first, or where providers
   * come and go all the time nobody's last segments would ever be looked at.
   */
  changed(): void {
    for (const scan of this.#scans.values()) {
      if (scan.after === undefined) scan.restUntil = 0
      else scan.isStale = true
    }
  }

  /** What a round would do, without taking note of anything. */
  async preview(signal?: AbortSignal, init: { isEager?: boolean; isLater?: IsLater } = {}): Promise<Found> {
    return await this.fresh(init.isEager ?? this.#isEager).find(signal, init.isLater)
  }

  /** With the same knowledge, and nothing looked through yet. */
  fresh(isEager: boolean): Candidates {
    const other = new Candidates(this.#components, isEager)
    for (const [provider, since] of this.#drainingSince) other.#drainingSince.set(provider, since)
    other.backlogMs = this.backlogMs
    return other
  }

  /** @param isLater what nothing can be done about now: it leaves its place to what can be helped, however urgent it is */
  async find(signal?: AbortSignal, isLater: IsLater = () => false): Promise<Found> {
    this.#noteDraining()
    const queue = new Queue(isLater)
    const look = (segment: StoredSegment): void => {
      const candidate = this.assess(segment)
      const { rebuild, move } = candidate.treatment
      if (rebuild.length + move.length > 0) queue.add(candidate)
    }
    await this.#incomplete(look, signal)
    const held = await this.#held(look, signal)
    await this.#sweep(look)
    const { candidates, isTruncated } = queue.end()
    return { candidates, isTruncated: isTruncated || held === 'more', isWhole: held === 'all' }
  }

  /** What is the matter with a segment now, and what is to be done. */
  assess(segment: StoredSegment): Candidate {
    const { presence, clock, peers, peerId, isShardContained } = this.#components
    const factsOf = (provider: string, cid: CID): ProviderFacts => ({
      state: peers.state(provider),
      isGone: presence.isGone(provider),
      isDraining: this.#drainingSince.has(provider),
      isSelf: provider === peerId,
      isShardContained: isShardContained?.(provider, cid) === true,
      domains: peers.domainsOf(provider)
    })
    const condition = classify(segment, factsOf)
    const churn = presence.churn()
    const treatment = treatmentOf(segment, condition, {
      threshold: this.#isEager ? segment.m : this.thresholdOf(segment),
      patienceMs: this.#components.patienceMs ?? defaultPatienceMs,
      goneForMs: (provider) => presence.goneForMs(provider),
      isLate: (provider) => presence.isLate(provider),
      isOverdue: (provider) => this.#isOverdue(provider)
    })
    const now = clock.now()
    const readable = segment.shards.flatMap(({ provider, lastProof }, index) => {
      if (provider === undefined || !isReadable(condition.conditions[index]!)) return []
      return [{ rate: churn.rateOf(provider), unprovedMs: now - (lastProof ?? now) }]
    })
    return {
      segment: segment.id,
      k: segment.k,
      m: segment.m,
      shardBytes: Math.max(1, shardBytesFor(segment.length, segment)),
      condition,
      treatment,
      secondsToLoss: secondsToLoss(segment.k, readable),
      isSettling: this.#components.isSettling(segment)
    }
  }

  /**
   * At this margin shards of providers that stay away are rebuilt. Who left counts as somebody who will be back for so
   * long as absences in this network may last; and the repair may take the least grace. Not what waits in line: a threshold
   * that rises because repairs wait makes more of them.
   */
  thresholdOf(segment: StoredSegment): number {
    const { presence } = this.#components
    return repairThreshold(segment, presence.churn().rate, presence.longGraceMs() + presence.graceMs)
  }

  /** What is to be expected of a segment: its condition, and the odds, by the churn of the providers that hold it. */
  outlook(segment: StoredSegment): SegmentOutlook {
    const { presence, peers } = this.#components
    const { condition } = this.assess(segment)
    const churn = presence.churn()
    const holders = segment.shards.flatMap(({ provider }, index) =>
      provider !== undefined && isReadable(condition.conditions[index]!) ? [provider] : []
    )
    const rates = holders.map((provider) => churn.rateOf(provider))
    const rate = rates.length === 0 ? churn.rate : rates.reduce((sum, one) => sum + one, 0) / rates.length
    const windowMs = presence.longGraceMs() + presence.graceMs + this.backlogMs
    const threshold = this.thresholdOf(segment)
    return {
      why: condition.why,
      threshold,
      domains: independentDomains(holders.map((provider) => ({ domains: peers.domainsOf(provider) }))),
      lossPerYear: this.#lossPerYear(segment, condition.margin, { rate, threshold, repairMs: windowMs }),
      conditions: condition.conditions
    }
  }

  /** Half a millisecond each, and an object may have thousands that are alike: rates differ by less than what is known of them. */
  #lossPerYear({ k, m }: StoredSegment, margin: number, { rate, threshold, repairMs }: RepairModel): number {
    const model = { rate: Number(rate.toPrecision(2)), threshold, repairMs: Number(repairMs.toPrecision(2)) }
    const key = `${k}+${m} ${margin} ${model.rate} ${threshold} ${model.repairMs}`
    const known = this.#losses.get(key)
    if (known !== undefined) return known
    const loss = lossPerYear({ k, m }, margin, model)
    if (this.#losses.size >= lossesMax) this.#losses.clear()
    this.#losses.set(key, loss)
    return loss
  }

  #noteDraining(): void {
    const now = this.#components.clock.now()
    const draining = new Set(this.#components.draining?.() ?? [])
    for (const provider of draining) if (!this.#drainingSince.has(provider)) this.#drainingSince.set(provider, now)
    for (const provider of [...this.#drainingSince.keys()])
      if (!draining.has(provider)) this.#drainingSince.delete(provider)
  }

  #isOverdue(provider: string): boolean {
    const since = this.#drainingSince.get(provider)
    const { clock, presence } = this.#components
    return since !== undefined && clock.now() - since >= Math.max(overdueMsMin, overdueSpan * presence.graceMs)
  }

  async #incomplete(look: (segment: StoredSegment) => void, signal?: AbortSignal): Promise<void> {
    const { index, pause } = this.#components
    for (let afterId = 0, more = true; more; ) {
      signal?.throwIfAborted()
      const segments = await index.listIncomplete({ afterId, limit: pageSegments })
      more = segments.length === pageSegments
      for (const segment of segments) {
        afterId = segment.id
        look(segment)
      }
      await pause()
    }
  }

  /** @returns whether it looked at all segments of all such providers, or some need no look now, or there are more */
  async #held(look: (segment: StoredSegment) => void, signal?: AbortSignal): Promise<'all' | 'some' | 'more'> {
    const { presence, clock, index, peerId, isSelfHosting, pause } = this.#components
    const overdue = [...this.#drainingSince.keys()].filter((provider) => this.#isOverdue(provider))
    // What the gateway holds itself is there for want of others: somebody may take it by now.
    const first = new Set([...presence.gone(), ...overdue, ...(isSelfHosting ? [peerId] : [])])
    // Of those that will probably be back only what can hardly be read any more is due: they have the rest of the time.
    const late = new Set(presence.late()).difference(first)
    const providers = [...first].sort()
    // One more that is gone takes margin from segments of the others.
    if (providers.join() !== this.#scanned) this.changed()
    this.#scanned = providers.join()
    for (const known of [...this.#scans.keys()]) if (!first.has(known) && !late.has(known)) this.#scans.delete(known)
    const turns = [...rotated(providers, this.#scannedLast.first), ...rotated([...late].sort(), this.#scannedLast.late)]
    let left = heldMax
    let isAll = true
    for (const provider of turns) {
      const isLate = late.has(provider)
      const scan: Scan = this.#scans.get(provider) ?? { restUntil: 0, isStale: false }
      this.#scans.set(provider, scan)
      if (!isLate && (scan.restUntil > clock.now() || scan.after !== undefined)) isAll = false
      if (scan.restUntil > clock.now()) continue
      for (let more = true; more; ) {
        if (left <= 0) {
          this.#scannedLast[isLate ? 'late' : 'first'] = provider
          if (!isLate) return 'more'
          return isAll ? 'all' : 'some'
        }
        signal?.throwIfAborted()
        const page = await index.listHeldSegments(provider, { after: scan.after, limit: pageSegments })
        left -= Math.max(1, page.segments.length)
        for (const segment of page.segments) look(segment)
        scan.after = page.next
        more = page.next !== undefined
        if (!more) {
          scan.restUntil = scan.isStale ? 0 : clock.now() + this.#rescanMs()
          scan.isStale = false
        }
        await pause()
      }
    }
    return isAll ? 'all' : 'some'
  }

  #rescanMs(): number {
    return Math.min(rescanMsMax, Math.max(rescanMsMin, this.#components.presence.graceMs / 2))
  }

  async #sweep(look: (segment: StoredSegment) => void): Promise<void> {
    const { index, clock } = this.#components
    if (this.#sweptTo === 0 && clock.now() < this.#sweepAt) return
    const segments = await index.listSegments({ afterId: this.#sweptTo, limit: sweepMax })
    for (const segment of segments) look(segment)
    this.#sweptTo = segments.length < sweepMax ? 0 : segments.at(-1)!.id
    if (this.#sweptTo === 0) this.#sweepAt = clock.now() + sweepPauseMs
  }
}

/** From behind `last` on, and then from the beginning. `names` ascend. */
function rotated(names: readonly string[], last: string): string[] {
  const behind = names.filter((name) => name > last)
  return [...behind, ...names.slice(0, names.length - behind.length)]
}

/** The most urgent ones, each once; those that are for later behind all others. */
class Queue {
  #kept: Candidate[] = []
  readonly #ids = new Set<number>()
  readonly #later = new Set<number>()
  readonly #isLater: IsLater
  #isTruncated = false

  constructor(isLater: IsLater) {
    this.#isLater = isLater
  }

  add(candidate: Candidate): void {
    if (this.#ids.has(candidate.segment)) return
    this.#ids.add(candidate.segment)
    if (this.#isLater(candidate)) this.#later.add(candidate.segment)
    this.#kept.push(candidate)
    if (this.#kept.length >= 2 * candidatesMax) this.#cut()
  }

  end(): Pick<Found, 'candidates' | 'isTruncated'> {
    this.#cut()
    return { candidates: this.#kept, isTruncated: this.#isTruncated }
  }

  #cut(): void {
    const later = ({ segment }: Candidate): number => Number(this.#later.has(segment))
    this.#kept.sort((a, b) => later(a) - later(b) || a.secondsToLoss - b.secondsToLoss || a.segment - b.segment)
    if (this.#kept.length <= candidatesMax) return
    for (const { segment } of this.#kept.splice(candidatesMax)) {
      this.#ids.delete(segment)
      this.#later.delete(segment)
    }
    this.#isTruncated = true
  }
}
