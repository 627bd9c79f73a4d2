/**
 * The scale simulator: many thousand providers, a million segments, a year. No bytes, no messages, no gateway: only who is
 * there, where each shard is, and what the real placement and the real decisions of repair do about it. What takes a gateway
 * code of its own (uploads, audits, leases) is `src/sim`'s other half, which runs that code and can't be this large.
 *
 * - A segment stands for many, so that a million of them fill ten thousand providers: a shard's way takes as long as the
 *   ways of all that it stands for, one after another, on its provider's line.
 * - Absence is noticed after `noticeMs`; a disk that was lost under a provider that is there after an audit (exponential,
 *   `auditMs` on average).
 * - Segments are looked at when something of theirs is found to be gone or missing, and all that ail each `sweepMs`.
 * - A repair reads `k` shards from those whose lines are free first, writes to whom `place` has chosen, and is done when
 *   the last of these is. Those with the least margin come first; the network's lines together bear a given rate; and
 *   whoever's line is taken for longer than until the next sweep is not asked.
 * - What repair moves is counted after `settleMs`: everything is stored at once, so that who repairs late begins with
 *   months in which nothing is due. Losses and reads are counted from the beginning.
 */
import { HoldfastError } from '../../base/errors.ts'
import { dayMs, hourMs, minuteMs, secondMs } from '../../base/limits.ts'
import { type PlacementRequest, place } from '../../placement/place.ts'
import { churnOf, longGraceOf } from '../../repair/churn.ts'
import { repairThreshold } from '../../repair/threshold.ts'
import { type SeededRandom, seededRandom } from '../seeded-random.ts'
import { EventHeap } from './event-heap.ts'
import { type Line, lineOf } from './latency.ts'
import { bytesReadFor, isDue, type Policy, type SegmentView, storedPerByteOf } from './policies.ts'
import { indexOf, Providers } from './providers.ts'
import { type ReadOutcome, read, type Source } from './reads.ts'
import type { ScaleResult } from './result.ts'
import { holders, Segments, segmentStates } from './segments.ts'
import { kindCodes, kindOf, providerOf, secondOf, type Timeline } from './timeline.ts'

export interface ScaleParameters {
  seed: number | string
  segments: number
  /** Of an object, which is one segment. */
  segmentBytes: number
  /** Data (before coding) for each provider. */
  providerBytes: number
  /** Of each provider's line, for repair, each way. */
  repairBytesPerSecond: number
  /** How much of all lines together repair may take. */
  networkShare: number
  /** Providers come and go for so long before anything is stored. */
  warmupMs: number
  /** What repair moves is not counted before. */
  settleMs: number
  noticeMs: number
  auditMs: number
  sweepMs: number
  reads: number
  /** A read that takes longer is late. */
  readMsMax: number
  /** Only to be held against theory: repairs take this long, exponentially distributed, and no lines are waited for. */
  exponentialRepairMs?: number
}

export const scaleDefaults: ScaleParameters = {
  seed: 1,
  segments: 1_000_000,
  segmentBytes: 10 * 2 ** 20,
  providerBytes: 2 ** 40,
  repairBytesPerSecond: 1.25e6,
  networkShare: 0.5,
  warmupMs: 14 * dayMs,
  settleMs: 0,
  noticeMs: 15 * minuteMs,
  auditMs: 30 * minuteMs,
  sweepMs: 6 * hourMs,
  reads: 100_000,
  readMsMax: 10 * secondMs
}

const kinds = {
  grace: 1,
  ghost: 2,
  audit: 3,
  done: 4,
  dispatch: 5,
  sweep: 6,
  measure: 7,
  inspect: 8,
  settled: 9
} as const
const histogramsMax = 12
const candidatesBase = 24
/** Room, in what a provider would store if all had the same: enough for the tenth that stays in the worst model. */
const roomFactor = 20
const yearMs = 365.25 * dayMs
/** A repair's own time, without waiting for lines. */
const repairFixedMs = minuteMs

interface Job {
  segment: number
  slots: number[]
  targets: number[]
  targetsJoinedAt: number[]
  /** When each has what it is to have: who goes away later has it on its disk. */
  writtenAt: number[]
  dueAt: number
  startedAt: number
}

/** A disk that is gone, and the slots that were on it. */
interface Ghost {
  slots: Int32Array
  as: number
}

export function simulateScale(timeline: Timeline, policy: Policy, parameters: ScaleParameters): ScaleResult {
  return new Engine(timeline, policy, parameters).run()
}

class Engine {
  readonly #timeline: Timeline
  readonly #policy: Policy
  readonly #parameters: ScaleParameters
  readonly #random: SeededRandom
  readonly #readRandom: SeededRandom
  readonly #providers: Providers
  readonly #segments: Segments
  readonly #lines: readonly Line[]
  readonly #heap = new EventHeap()
  /** When the timer of a provider's grace is set for. */
  readonly #graceAt: Float64Array
  /** Waiting for their turn, by margin. */
  readonly #queues: Queue[]
  readonly #urgency: Uint8Array
  readonly #dueAt: Float64Array
  readonly #jobs = new Map<number, Job>()
  readonly #ghosts = new Map<number, Ghost>()
  readonly #shardBytes: number
  /** Bytes on lines for each shard. */
  readonly #lineBytes: number
  readonly #result: ScaleResult
  readonly #latencies: number[] = []
  readonly #view: SegmentView & { readable: number } = {
    margin: 0,
    held: 0,
    gone: 0,
    missing: 0,
    waiting: 0,
    goneForMs: 0,
    readable: 0
  }
  #now = 0
  #nextId = 0
  #networkFreeAt = 0
  #isDispatching = false
  #isHeld = false
  #threshold: number
  #churnMeasuredAt = 0

  constructor(timeline: Timeline, policy: Policy, parameters: ScaleParameters) {
    const providers = timeline.traits.length
    const { code } = policy
    this.#timeline = timeline
    this.#policy = policy
    this.#parameters = parameters
    this.#random = seededRandom(`${parameters.seed}/scale`)
    this.#readRandom = this.#random.fork('reads')
    this.#providers = new Providers(timeline.traits, parameters.noticeMs)
    this.#segments = new Segments(parameters.segments, code, providers)
    const lines = this.#random.fork('lines')
    this.#lines = timeline.traits.map(({ region }) => lineOf(region, lines))
    this.#graceAt = new Float64Array(providers)
    this.#queues = Array.from({ length: code.m + 1 }, () => new Queue())
    this.#urgency = new Uint8Array(parameters.segments)
    this.#dueAt = new Float64Array(parameters.segments)
    // What `storedPerByte` has beyond `n / k` is in every shard.
    this.#shardBytes = (storedPerByteOf(policy) * parameters.segmentBytes) / (code.k + code.m)
    const standsFor = Math.max(
      1,
      (parameters.providerBytes * providers) / (parameters.segments * parameters.segmentBytes)
    )
    this.#lineBytes = this.#shardBytes * standsFor
    this.#threshold = this.#thresholdNow()
    this.#result = emptyResult(timeline, policy, parameters, standsFor)
  }

  run(): ScaleResult {
    const { warmupMs, settleMs, sweepMs, reads } = this.#parameters
    const endMs = this.#timeline.seconds * secondMs
    if (warmupMs + settleMs >= endMs)
      throw new HoldfastError('BAD_INPUT', 'the timeline ends before anything is measured')
    this.#begin()
    const { events } = this.#timeline
    let next = 0
    let isStored = false
    const readEveryMs = (endMs - warmupMs) / Math.max(1, reads)
    let readAt = warmupMs + this.#readRandom.exponential(readEveryMs)
    for (;;) {
      const event = events[next]
      const eventAt = event === undefined ? Number.POSITIVE_INFINITY : secondOf(event) * secondMs
      const heapAt = this.#heap.nextAt
      const at = Math.min(eventAt, heapAt, readAt)
      if (!isStored && at >= warmupMs) {
        isStored = true
        this.#now = warmupMs
        this.#store()
        for (let i = 0; i < histogramsMax; i++)
          this.#heap.push(warmupMs + ((i + 0.5) * (endMs - warmupMs)) / histogramsMax, kinds.measure, 0)
        this.#heap.push(warmupMs + sweepMs, kinds.sweep, 0)
        this.#heap.push(warmupMs + this.#parameters.settleMs, kinds.settled, 0)
        if (this.#policy.rule.kind === 'periodic')
          this.#heap.push(warmupMs + this.#policy.rule.everyMs, kinds.inspect, 0)
        continue
      }
      if (at >= endMs) break
      this.#now = at
      if (eventAt === at) {
        this.#happens(providerOf(event!), kindOf(event!))
        next++
      } else if (heapAt === at) this.#isDue(this.#heap.pop())
      else {
        this.#read()
        readAt = at + this.#readRandom.exponential(readEveryMs)
      }
    }
    return this.#end()
  }

  #begin(): void {
    this.#providers.joinedAt.fill(-yearMs) // proven before
    for (const [provider, isOn] of this.#timeline.isOnAtStart.entries()) {
      if (isOn === 1) {
        this.#providers.isOn[provider] = 1
      } else this.#goesOff(provider)
    }
  }

  /** Everything is uploaded at once, to those who are there. */
  #store(): void {
    const { n, count } = this.#segments
    const wanted = Array.from({ length: n }, (_, i) => i)
    for (let segment = 0; segment < count; segment++) {
      const { assigned } = this.#place(wanted, [])
      for (const [index, host] of assigned) this.#segments.put(segment * n + index, indexOf(host))
      for (const index of wanted) if (!assigned.has(index)) this.#segments.holder[segment * n + index] = holders.missing
      if (assigned.size < n) this.#segments.isAiling[segment] = 1
      if (assigned.size < this.#policy.code.k) this.#lose(segment)
    }
    this.#threshold = this.#thresholdNow()
  }

  #place(wanted: readonly number[], held: PlacementRequest['held']) {
    const room = roomFactor * this.#parameters.providerBytes * storedPerByteOf(this.#policy)
    const candidates = this.#providers.candidates(
      candidatesBase + 2 * wanted.length,
      this.#now,
      this.#random,
      this.#now + this.#parameters.sweepMs,
      (provider) => room - this.#segments.shards[provider]! * this.#lineBytes
    )
    return place({ code: this.#policy.code, shardBytes: this.#lineBytes, wanted, held }, candidates, this.#random)
  }

  // What providers do.

  #happens(provider: number, kind: number): void {
    if (kind === kindCodes.off) this.#goesOff(provider)
    else if (kind === kindCodes.on) this.#providers.cameOn(provider, this.#now)
    else if (kind === kindCodes.joins) this.#providers.joined(provider, this.#now)
    else if (kind === kindCodes.leaves) this.#leaves(provider)
    else this.#isWiped(provider)
  }

  #goesOff(provider: number): void {
    this.#providers.wentOff(provider, this.#now)
    const at = this.#providers.absentSince[provider]! + this.#graceOf(provider)
    if (this.#graceAt[provider]! > this.#now && this.#graceAt[provider]! <= at) return // its timer looks again
    this.#graceAt[provider] = at
    this.#heap.push(at, kinds.grace, provider)
  }

  #graceOf(provider: number): number {
    return this.#providers.graceMs(provider, this.#policy.graceMs, this.#policy.graceSpan)
  }

  #graceEnds(provider: number): void {
    if (this.#graceAt[provider] !== this.#now) return // another timer took its place
    this.#graceAt[provider] = 0
    const since = this.#providers.absentSince[provider]!
    if (since === Number.POSITIVE_INFINITY || this.#providers.isGone[provider] === 1) return
    const at = since + this.#graceOf(provider)
    if (at > this.#now) {
      this.#graceAt[provider] = at
      this.#heap.push(at, kinds.grace, provider)
      return
    }
    this.#providers.isGone[provider] = 1
    this.#providers.goneSince[provider] = this.#now
    this.#byUrgency(() => {
      for (const slot of this.#segments.slotsOf(provider)) this.#ails(this.#segments.segmentOf(slot), true)
    })
  }

  #leaves(provider: number): void {
    const wasGone = this.#providers.isGone[provider] === 1
    this.#providers.left(provider, this.#now)
    const foundAt = wasGone ? this.#now : this.#providers.absentSince[provider]! + this.#graceOf(provider)
    this.#haunt(this.#segments.destroy(provider), holders.gone, kinds.ghost, Math.max(this.#now, foundAt))
    this.#graceAt[provider] = 0
  }

  #isWiped(provider: number): void {
    const foundAt = this.#now + this.#random.exponential(this.#parameters.auditMs)
    this.#haunt(this.#segments.destroy(provider), holders.missing, kinds.audit, foundAt)
  }

  #haunt(slots: Int32Array, as: number, kind: number, foundAt: number): void {
    if (slots.length === 0) return
    for (const slot of slots) {
      const segment = this.#segments.segmentOf(slot)
      if (this.#segments.alive[segment]! < this.#policy.code.k && this.#segments.state[segment] !== segmentStates.lost)
        this.#lose(segment)
    }
    const id = this.#nextId++
    this.#ghosts.set(id, { slots, as })
    this.#heap.push(foundAt, kind, id)
  }

  #ghostIsFound(id: number): void {
    const { slots, as } = this.#ghosts.get(id)!
    this.#ghosts.delete(id)
    this.#byUrgency(() => {
      for (const slot of slots) {
        if (this.#segments.holder[slot] !== holders.unnoticed) continue
        this.#segments.holder[slot] = as
        this.#ails(this.#segments.segmentOf(slot), as === holders.gone)
      }
    })
  }

  #lose(segment: number): void {
    this.#segments.abandon(segment)
    const day = Math.floor((this.#now - this.#parameters.warmupMs) / dayMs)
    this.#result.lostByDay[day]!++
  }

  // What repair does.

  #isDue({ kind, subject }: { kind: number; subject: number }): void {
    if (kind === kinds.grace) this.#graceEnds(subject)
    else if (kind === kinds.ghost || kind === kinds.audit) this.#ghostIsFound(subject)
    else if (kind === kinds.done) this.#done(subject)
    else if (kind === kinds.dispatch) {
      this.#isDispatching = false
      this.#dispatch()
    } else if (kind === kinds.sweep) this.#sweep()
    else if (kind === kinds.inspect) this.#inspect()
    else if (kind === kinds.settled) this.#settled()
    else this.#measure()
  }

  /** Something of it was found to be gone, or missing. */
  #ails(segment: number, isGone: boolean): void {
    this.#segments.isAiling[segment] = 1
    if (isGone && this.#segments.goneSince[segment] === 0)
      this.#segments.goneSince[segment] = Math.floor(this.#now / secondMs)
    if (this.#policy.rule.kind !== 'periodic') this.#consider(segment)
  }

  #sweep(): void {
    if (this.#now >= this.#churnMeasuredAt + dayMs) this.#threshold = this.#thresholdNow()
    if (this.#policy.rule.kind !== 'periodic') this.#considerAll()
    this.#heap.push(this.#now + this.#parameters.sweepMs, kinds.sweep, 0)
  }

  #inspect(): void {
    if (this.#policy.rule.kind !== 'periodic') return
    this.#considerAll()
    this.#heap.push(this.#now + this.#policy.rule.everyMs, kinds.inspect, 0)
  }

  #considerAll(): void {
    this.#byUrgency(() => {
      for (let segment = 0; segment < this.#segments.count; segment++)
        if (this.#segments.isAiling[segment] === 1) this.#consider(segment)
    })
  }

  /** Many are found to be due at once: nothing begins before all are in the queue. */
  #byUrgency(consider: () => void): void {
    this.#isHeld = true
    consider()
    this.#isHeld = false
    this.#dispatch()
  }

  #consider(segment: number): void {
    const state = this.#segments.state[segment]
    if (state !== segmentStates.idle && state !== segmentStates.queued) return
    const view = this.#look(segment)
    if (!isDue(this.#policy.rule, view, this.#threshold)) return
    const urgency = Math.max(0, Math.min(this.#policy.code.m, view.margin))
    // Whoever waits and has lost more meanwhile moves up; where it was it is found to be done already.
    if (state === segmentStates.queued && urgency >= this.#urgency[segment]!) return
    if (state === segmentStates.idle) this.#dueAt[segment] = this.#now
    this.#segments.state[segment] = segmentStates.queued
    this.#urgency[segment] = urgency
    this.#queues[urgency]!.push(segment)
    this.#dispatch()
  }

  /** What is known of a segment; the same object each time. */
  #look(segment: number): SegmentView & { readable: number } {
    const view = this.#view
    const { holder, n } = this.#segments
    const { isOn, isGone, absentSince } = this.#providers
    view.readable = 0
    view.held = 0
    view.gone = 0
    view.missing = 0
    for (let slot = segment * n; slot < (segment + 1) * n; slot++) {
      const provider = holder[slot]!
      if (provider < holders.unnoticed) {
        if (isGone[provider] === 1) view.gone++
        else {
          view.held++
          // Who went away a moment ago is taken to be there.
          if (isOn[provider] === 1 || absentSince[provider]! > this.#now) view.readable++
        }
      } else if (provider === holders.unnoticed) view.held++
      else if (provider === holders.gone) view.gone++
      else view.missing++
    }
    view.margin = view.readable - this.#policy.code.k
    view.waiting = view.held - view.readable
    if (view.gone === 0) this.#segments.goneSince[segment] = 0
    if (view.gone + view.missing === 0) this.#segments.isAiling[segment] = 0
    const since = this.#segments.goneSince[segment]!
    view.goneForMs = since === 0 ? 0 : this.#now - since * secondMs
    return view
  }

  #dispatch(): void {
    if (this.#isDispatching || this.#isHeld) return
    const isFree = this.#parameters.exponentialRepairMs !== undefined
    while (isFree || this.#networkFreeAt <= this.#now) {
      const segment = this.#nextQueued()
      if (segment === undefined) return
      this.#start(segment)
    }
    if (this.#queues.every(({ size }) => size === 0)) return
    this.#isDispatching = true
    this.#heap.push(this.#networkFreeAt, kinds.dispatch, 0)
  }

  #nextQueued(): number | undefined {
    for (const queue of this.#queues) {
      const segment = queue.shift()
      if (segment !== undefined) return segment
    }
    return undefined
  }

  #start(segment: number): void {
    if (this.#segments.state[segment] !== segmentStates.queued) return // lost meanwhile
    this.#segments.state[segment] = segmentStates.idle
    const view = this.#look(segment)
    if (!isDue(this.#policy.rule, view, this.#threshold)) return
    const { exponentialRepairMs } = this.#parameters
    const job: Job = {
      segment,
      slots: [],
      targets: [],
      targetsJoinedAt: [],
      writtenAt: [],
      dueAt: this.#dueAt[segment]!,
      startedAt: this.#now
    }
    let endsAt = this.#now
    if (exponentialRepairMs !== undefined) endsAt += this.#random.exponential(exponentialRepairMs)
    else {
      const sources = this.#sourcesOf(segment)
      // The next sweep looks again. What begins and then stands in line for days would keep others from it.
      if (!this.#canRead(sources)) {
        this.#result.repair.blocked++
        return
      }
      this.#choose(job)
      if (job.slots.length === 0) return
      endsAt = Math.max(this.#takeLines(sources, job), this.#now) + repairFixedMs
    }
    this.#segments.state[segment] = segmentStates.repairing
    this.#result.repair.jobs++
    const id = this.#nextId++
    this.#jobs.set(id, job)
    this.#heap.push(endsAt, kinds.done, id)
  }

  /** Providers that shards can be read from: really, for who does not answer is replaced by another at once. */
  #sourcesOf(segment: number): number[] {
    const { holder, n } = this.#segments
    const { isOn } = this.#providers
    const sources: number[] = []
    for (let slot = segment * n; slot < (segment + 1) * n; slot++) {
      const provider = holder[slot]!
      if (provider < holders.unnoticed && isOn[provider] === 1) sources.push(provider)
    }
    return sources
  }

  /** At least `k` are there whose lines are not taken until the next sweep. Puts those first that are free first. */
  #canRead(sources: number[]): boolean {
    const { sendsUntil } = this.#providers
    sources.sort((a, b) => sendsUntil[a]! - sendsUntil[b]!)
    const last = sources[this.#policy.code.k - 1]
    return last !== undefined && sendsUntil[last]! <= this.#now + this.#parameters.sweepMs
  }

  #isWanted(slot: number): boolean {
    const provider = this.#segments.holder[slot]!
    return provider < holders.unnoticed ? this.#providers.isGone[provider] === 1 : provider !== holders.unnoticed
  }

  #choose(job: Job): void {
    const { n, holder } = this.#segments
    const wanted: number[] = []
    const held: Array<PlacementRequest['held'][number]> = []
    for (let index = 0; index < n; index++) {
      const slot = job.segment * n + index
      if (this.#isWanted(slot)) wanted.push(index)
      else if (holder[slot]! < holders.unnoticed) held.push(this.#providers.hosts[holder[slot]!]!)
    }
    for (const [index, host] of this.#place(wanted, held).assigned) {
      job.slots.push(job.segment * n + index)
      job.targets.push(indexOf(host))
      job.targetsJoinedAt.push(this.#providers.joinedAt[indexOf(host)]!)
    }
  }

  /**
   * @param sources those whose lines are free first come first
   * @returns when the last of the lines it takes is done with it
   */
  #takeLines(sources: readonly number[], { slots, targets, writtenAt }: Job): number {
    const { k } = this.#policy.code
    const { sendsUntil, takesUntil } = this.#providers
    const perMs = this.#parameters.repairBytesPerSecond / secondMs
    const readBytes = bytesReadFor(this.#policy, slots.length, this.#shardBytes)
    const standsFor = this.#lineBytes / this.#shardBytes
    let endsAt = this.#now
    const take = (until: Float64Array, provider: number, bytes: number): void => {
      until[provider] = Math.max(this.#now, until[provider]!) + (bytes * standsFor) / perMs
      endsAt = Math.max(endsAt, until[provider]!)
    }
    for (const source of sources.slice(0, k)) take(sendsUntil, source, readBytes / k)
    const readAt = endsAt
    for (const target of targets) {
      take(takesUntil, target, this.#shardBytes)
      writtenAt.push(Math.max(readAt, takesUntil[target]!))
    }
    const writtenBytes = slots.length * this.#shardBytes
    this.#result.repair.readBytes += readBytes
    this.#result.repair.writtenBytes += writtenBytes
    const networkPerMs = perMs * this.#parameters.networkShare * this.#providers.count
    this.#networkFreeAt =
      Math.max(this.#now, this.#networkFreeAt) + ((readBytes + writtenBytes) * standsFor) / networkPerMs
    return endsAt
  }

  #done(id: number): void {
    const job = this.#jobs.get(id)!
    this.#jobs.delete(id)
    const { segment } = job
    if (this.#segments.state[segment] === segmentStates.lost) return
    this.#segments.state[segment] = segmentStates.idle
    // Theory's repair makes the segment whole, whatever was lost meanwhile.
    if (this.#parameters.exponentialRepairMs !== undefined) this.#choose(job)
    for (const i of job.slots.keys()) this.#rebuilt(job, i)
    // Not the time in the queue: a threshold that rises because repairs wait makes more of them wait.
    this.#result.repair.meanMs += this.#now - job.dueAt // a sum until the end
    this.#consider(segment)
  }

  #rebuilt({ slots, targets, targetsJoinedAt, writtenAt }: Job, i: number): void {
    const [slot, target] = [slots[i]!, targets[i]!]
    const { isOn, joinedAt } = this.#providers
    const hasIt = isOn[target] === 1 || this.#providers.wentOffAt(target) >= (writtenAt[i] ?? this.#now)
    const isThere = hasIt && joinedAt[target] === targetsJoinedAt[i]
    if (!isThere || !this.#isWanted(slot)) {
      this.#result.repair.wasted++
      return
    }
    this.#segments.take(slot)
    this.#segments.put(slot, target)
    this.#result.repair.shards++
  }

  /** By the real functions, as `Candidates.thresholdOf` has it. */
  #thresholdNow(): number {
    this.#churnMeasuredAt = this.#now
    const { rule, graceMs, code } = this.#policy
    if (rule.kind !== 'margin') return 0
    if (rule.threshold !== undefined) return rule.threshold
    const windowMs = this.#longGraceMs() + graceMs
    return repairThreshold(code, churnOf(this.#providers.watched, Math.round(this.#now), graceMs).rate, windowMs)
  }

  #longGraceMs(): number {
    const { graceMs, graceSpan } = this.#policy
    if (graceSpan <= 1) return graceMs
    return longGraceOf(this.#providers.watched.values(), graceMs)
  }

  // What is measured.

  #settled(): void {
    this.#result.repair.readBytes = 0
    this.#result.repair.writtenBytes = 0
  }

  #read(): void {
    const { reads } = this.#result
    reads.count++
    const segment = this.#drawn()
    if (typeof segment === 'string') {
      reads[segment]++
      return
    }
    const { ms, isFirstTry } = this.#readOnce(segment)
    if (ms === Number.POSITIVE_INFINITY) {
      reads.unavailable++
      return
    }
    reads.done++
    if (ms <= this.#parameters.readMsMax) reads.withinBound++
    if (isFirstTry) reads.firstTry++
    this.#latencies.push(ms)
  }

  /**
   * A segment of the object that is read, or why there is none. Where an object is many segments enough of them have to be
   * there in this very moment: each is placed by itself, but what takes many providers takes a share of every object.
   */
  #drawn(): number | 'lost' | 'unavailable' {
    const { state, count } = this.#segments
    const { composite, code } = this.#policy
    const { chunks, parities } = composite ?? { chunks: 1, parities: 0 }
    let [lost, away, found] = [0, 0, 0]
    for (let i = 0; i < chunks + parities; i++) {
      const segment = this.#readRandom.int(count)
      if (state[segment] === segmentStates.lost) lost++
      else if (composite !== undefined && this.#sourcesOf(segment).length < code.k) away++
      else found = segment
    }
    if (lost > parities) return 'lost'
    return lost + away > parities ? 'unavailable' : found
  }

  #readOnce(segment: number): ReadOutcome {
    const { holder, n } = this.#segments
    const { isOn, absentSince } = this.#providers
    const sources: Source[] = []
    for (let slot = segment * n; slot < (segment + 1) * n; slot++) {
      const provider = holder[slot]!
      if (provider >= holders.unnoticed) continue
      const isThere = isOn[provider] === 1
      if (isThere || absentSince[provider]! > this.#now) sources.push({ line: this.#lines[provider]!, isThere })
    }
    const { code, eagerReads } = this.#policy
    return read({ sources, k: code.k, shardBytes: this.#shardBytes, eager: eagerReads ?? 0 }, this.#readRandom)
  }

  #measure(): void {
    const { n, count, state } = this.#segments
    const byReadable = new Array<number>(n + 1).fill(0)
    for (let segment = 0; segment < count; segment++)
      if (state[segment] !== segmentStates.lost) byReadable[this.#sourcesOf(segment).length]!++
    const atDays = (this.#now - this.#parameters.warmupMs) / dayMs
    this.#result.histograms.push({ atDays, byReadable })
  }

  #end(): ScaleResult {
    const { repair, shards } = this.#result
    repair.waiting = this.#segments.state.filter((state) => state === segmentStates.queued).length
    repair.meanMs = repair.jobs - this.#jobs.size === 0 ? 0 : repair.meanMs / (repair.jobs - this.#jobs.size)
    for (const holder of this.#segments.holder) {
      if (holder < holders.unnoticed) shards.placed++
      else if (holder === holders.unnoticed) shards.unnoticed++
      else if (holder === holders.gone) shards.gone++
      else if (holder === holders.missing) shards.missing++
      else shards.ofLost++
    }
    const rate = churnOf(this.#providers.watched, Math.round(this.#now), this.#policy.graceMs).rate
    return {
      ...this.#result,
      latencies: Float64Array.from(this.#latencies).sort(),
      churn: {
        departuresPerDay: rate * dayMs,
        threshold: this.#threshold,
        medianGraceMs: this.#longGraceMs()
      }
    }
  }
}

function emptyResult(
  timeline: Timeline,
  policy: Policy,
  { segments, segmentBytes, warmupMs, settleMs }: ScaleParameters,
  standsFor: number
): ScaleResult {
  const measuredMs = timeline.seconds * secondMs - warmupMs
  return {
    years: measuredMs / yearMs,
    settledYears: (measuredMs - settleMs) / yearMs,
    segments,
    providers: timeline.traits.length,
    standsFor,
    lostByDay: new Array<number>(Math.max(1, Math.ceil(measuredMs / dayMs))).fill(0),
    reads: { count: 0, done: 0, withinBound: 0, firstTry: 0, unavailable: 0, lost: 0 },
    latencies: new Float64Array(0),
    userBytes: segments * segmentBytes,
    storedPerByte: storedPerByteOf(policy),
    repair: { jobs: 0, shards: 0, wasted: 0, readBytes: 0, writtenBytes: 0, blocked: 0, meanMs: 0, waiting: 0 },
    histograms: [],
    churn: { departuresPerDay: 0, threshold: 0, medianGraceMs: 0 },
    shards: { placed: 0, unnoticed: 0, gone: 0, missing: 0, ofLost: 0 }
  }
}

/** First in, first out; its memory is given back as it goes. */
class Queue {
  #in: number[] = []
  #out: number[] = []

  get size(): number {
    return this.#in.length + this.#out.length
  }

  push(value: number): void {
    this.#in.push(value)
  }

  shift(): number | undefined {
    if (this.#out.length === 0) {
      this.#out = this.#in.reverse()
      this.#in = []
    }
    return this.#out.pop()
  }
}
