/** Providers of the scale simulator: who is there, for how long who is not has been away, and what that says of them. */
import { dayMs, hourMs } from '../../base/limits.ts'
import type { Candidate } from '../../placement/place.ts'
import { absentSince, newPresence, noticed, type PresenceState } from '../../repair/churn.ts'
import type { SeededRandom } from '../seeded-random.ts'
import type { ProviderTraits } from './timeline.ts'

/** As `src/custody/score.ts` has it: forgets 200 hours' worth, and below 0.6 nobody gets new shards. */
const keptAnHour = 0.995
const availabilityMin = 0.6
const vettingMs = 72 * hourMs
const unvettedWeight = 0.25
/** Complete absences that `graceOf` still knows of while another goes on: it keeps 64 moments, two an absence. */
export const absencesKept = 31
/** What a gateway would measure churn on, were it this large: enough that the rate is known within some per cent. */
const watchedMax = 256
const forgottenMs = 91 * dayMs

/** Candidate objects are made once, and given to `place` as they are. */
interface Host extends Candidate {
  freeBytes: number
  score: number
  lastResort: 0 | 1
}

export const indexOf = ({ peerId }: Pick<Candidate, 'peerId'>): number => Number(peerId)

export class Providers {
  readonly count: number
  readonly isOn: Uint8Array
  readonly isGone: Uint8Array
  readonly goneSince: Float64Array
  /** When it was noticed that it is away; infinite while it is there. */
  readonly absentSince: Float64Array
  readonly joinedAt: Float64Array
  /** Until when its line is taken by repairs, out and in. */
  readonly sendsUntil: Float64Array
  readonly takesUntil: Float64Array
  readonly hosts: readonly Host[]
  readonly #absences: Float64Array
  readonly #absencesCount: Int32Array
  readonly #availability: Float64Array
  readonly #availableAt: Float64Array
  readonly #stamps: Int32Array
  /** By a name that is new when somebody joins in another's place, who then stays away for good. */
  readonly #watched = new Map<string, PresenceState>()
  readonly #names = new Map<number, string>()
  readonly #noticeMs: number
  #stamp = 0

  constructor(traits: readonly ProviderTraits[], noticeMs: number) {
    this.count = traits.length
    this.isOn = new Uint8Array(this.count)
    this.isGone = new Uint8Array(this.count)
    this.goneSince = new Float64Array(this.count)
    this.absentSince = new Float64Array(this.count).fill(Number.POSITIVE_INFINITY)
    this.joinedAt = new Float64Array(this.count)
    this.sendsUntil = new Float64Array(this.count)
    this.takesUntil = new Float64Array(this.count)
    this.#absences = new Float64Array(this.count * absencesKept)
    this.#absencesCount = new Int32Array(this.count)
    this.#availability = new Float64Array(this.count).fill(1)
    this.#availableAt = new Float64Array(this.count)
    this.#stamps = new Int32Array(this.count)
    this.#noticeMs = noticeMs
    this.hosts = traits.map(({ operator, network }, index) => ({
      peerId: String(index),
      domains: [`op:${operator}`, `net:${network}`],
      freeBytes: 0,
      score: 1,
      lastResort: 0
    }))
    const watched = Math.min(watchedMax, this.count)
    for (let i = 0; i < watched; i++) this.#watch(Math.floor((i * this.count) / watched), 0)
  }

  /** As `churnOf` takes them. */
  get watched(): ReadonlyMap<string, PresenceState> {
    return this.#watched
  }

  #watch(provider: number, now: number): void {
    const name = `${provider} since ${now}`
    this.#names.set(provider, name)
    this.#watched.set(name, newPresence(now))
  }

  wentOff(provider: number, now: number): void {
    this.#settleAvailability(provider, now)
    this.isOn[provider] = 0
    this.absentSince[provider] = now + this.#noticeMs
  }

  /** Of one who is not there. */
  wentOffAt(provider: number): number {
    return this.absentSince[provider]! - this.#noticeMs
  }

  cameOn(provider: number, now: number): void {
    this.#settleAvailability(provider, now)
    const since = this.absentSince[provider]!
    if (since < now) {
      this.#absences[provider * absencesKept + (this.#absencesCount[provider]! % absencesKept)] = now - since
      this.#absencesCount[provider]!++
      this.#note(provider, since, false)
      this.#note(provider, now, true)
    }
    this.isOn[provider] = 1
    this.isGone[provider] = 0
    this.absentSince[provider] = Number.POSITIVE_INFINITY
  }

  /** For good, which nobody can tell from an absence. */
  left(provider: number, now: number): void {
    if (this.isOn[provider] === 1) this.wentOff(provider, now)
    this.joinedAt[provider] = Number.NaN // whoever was to get something here finds nobody of that time
  }

  /** Somebody of whom nothing is known. */
  joined(provider: number, now: number): void {
    if (this.#names.has(provider)) {
      this.#note(provider, this.absentSince[provider]!, false)
      if (this.#watched.size > 2 * watchedMax) this.#forgetLongGone(now)
      this.#watch(provider, Math.round(now))
    }
    this.isOn[provider] = 1
    this.isGone[provider] = 0
    this.absentSince[provider] = Number.POSITIVE_INFINITY
    this.#absencesCount[provider] = 0
    this.#availability[provider] = 1
    this.#availableAt[provider] = now
    this.joinedAt[provider] = now
  }

  #note(provider: number, at: number, isPresent: boolean): void {
    const name = this.#names.get(provider)
    const state = name === undefined ? undefined : this.#watched.get(name)
    if (state !== undefined) this.#watched.set(name!, noticed(state, { at: Math.max(0, Math.round(at)), isPresent }))
  }

  /** Whoever left before the window of `churnOf` counts for nothing there. */
  #forgetLongGone(now: number): void {
    for (const [name, state] of this.#watched)
      if ((absentSince(state) ?? now) < now - forgottenMs) this.#watched.delete(name)
  }

  /** What `graceOf` says of these absences: a sum of a few numbers where that sorts them. */
  graceMs(provider: number, graceMs: number, graceSpan: number): number {
    if (graceSpan <= 1) return graceMs
    const count = Math.min(this.#absencesCount[provider]!, absencesKept)
    // The 95th percentile is the longest of up to 19, and the second longest of 20 to 39.
    let longest = 0
    let second = 0
    const from = provider * absencesKept
    for (let i = from; i < from + count; i++) {
      const absence = this.#absences[i]!
      if (absence > longest) {
        second = longest
        longest = absence
      } else if (absence > second) second = absence
    }
    return Math.min(graceSpan * graceMs, Math.max(graceMs, 2 * (count < 20 ? longest : second)))
  }

  #settleAvailability(provider: number, now: number): void {
    this.#availability[provider] = this.availability(provider, now)
    this.#availableAt[provider] = now
  }

  availability(provider: number, now: number): number {
    const kept = keptAnHour ** ((now - this.#availableAt[provider]!) / hourMs)
    const before = this.#availability[provider]! * kept
    return this.isOn[provider] === 1 ? before + 1 - kept : before
  }

  /**
   * So many candidates (or all, if there are no more) drawn evenly from those who are there. `place` draws in proportion to
   * weights; among an even sample of some dozens that is nearly the same (a test measures it), and it does not have to
   * look at ten thousand for each shard. Whose line is taken for longer than `busyUntilMax` takes nothing.
   */
  candidates(
    size: number,
    now: number,
    random: SeededRandom,
    busyUntilMax: number,
    freeBytes: (provider: number) => number
  ): Host[] {
    const drawn: Host[] = []
    this.#stamp++
    // In a network of a hundred a sample would have too many who hold something of the segment already.
    const isSmall = this.count <= 4 * size
    // At least one in twenty is on in all models; where nobody is, looking for them has to end.
    for (let i = 0; i < (isSmall ? this.count : 40 * size) && drawn.length < (isSmall ? this.count : size); i++) {
      const provider = isSmall ? i : random.int(this.count)
      if (this.isOn[provider] === 0 || this.#stamps[provider] === this.#stamp) continue
      this.#stamps[provider] = this.#stamp
      if (this.takesUntil[provider]! > busyUntilMax) continue
      drawn.push(this.#host(provider, now, freeBytes(provider)))
    }
    return drawn
  }

  #host(provider: number, now: number, freeBytes: number): Host {
    const host = this.hosts[provider]!
    const availability = this.availability(provider, now)
    host.freeBytes = freeBytes
    host.score = availability * (now - this.joinedAt[provider]! < vettingMs ? unvettedWeight : 1)
    host.lastResort = availability < availabilityMin ? 1 : 0
    return host
  }
}
