/**
 * Which providers are gone: what the directory hears of their coming and going, kept over restarts, and judged by
 * `churn.ts`. While the gateway itself seems to be cut off nobody becomes gone; and nobody does before this process has
 * asked for them.
 */
import type { Clock } from '../base/clock.ts'
import { dayMs, hourMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import {
  absentSince,
  type Churn,
  churnOf,
  decodePresence,
  encodePresence,
  goneForMs,
  longGraceOf,
  newPresence,
  noticed,
  type PresenceState,
  unwatched
} from './churn.ts'

export type SeenState = 'online' | 'offline' | 'contained' | 'unknown'

export interface PresenceComponents {
  index: Pick<MetadataIndex, 'listHolders' | 'loadPresence' | 'savePresence'>
  /** As the directory has it. */
  stateOf: (provider: string) => SeenState
  clock: Clock
  log: Log
  /** Whether so many unrelated providers are silent that it is rather this side that is cut off. */
  isOwnOutage?: () => boolean
  /** Somebody is gone, or judged again: there may be something to repair. */
  onGone?: () => void
}

export interface PresenceInit {
  /** The least grace: how long a provider may be absent before its shards count as gone. */
  graceMs?: number
}

export const defaultGraceMs = hourMs
/** Kept of providers that hold nothing here: longer than what churn looks at. */
const forgetMs = 100 * dayMs
/** Churn changes slowly, and is asked for at every segment. */
const churnAgeMsMax = 10 * secondMs
/** Until when a provider that was not asked yet by this process is not taken for gone. */
const warmUpMs = 30 * secondMs

export class Presence {
  readonly graceMs: number
  /** How often to call `tick`. */
  readonly tickMs: number
  readonly #components: PresenceComponents
  readonly #states = new Map<string, PresenceState>()
  readonly #dirty = new Set<string>()
  readonly #heartbeatMs: number
  #startedAt = 0
  #heartbeatAt = 0
  /** Who was gone when an outage of our own began, and when that was. */
  #outage: { from: number; gone: ReadonlySet<string> } | undefined
  #known: ReadonlySet<string> = new Set()
  #churn: { at: number; churn: Churn; longGraceMs: number } | undefined

  constructor(components: PresenceComponents, { graceMs = defaultGraceMs }: PresenceInit = {}) {
    this.#components = components
    this.graceMs = graceMs
    this.tickMs = Math.min(5 * secondMs, Math.max(secondMs / 4, graceMs / 4))
    this.#heartbeatMs = Math.min(30 * secondMs, Math.max(secondMs, graceMs / 8))
    this.#startedAt = components.clock.now()
  }

  /** Takes up what an earlier run knew. The time since then is nobody's absence. */
  async load(): Promise<void> {
    const { index, clock, log } = this.#components
    const now = clock.now()
    this.#startedAt = now
    for (const { provider, state } of await index.loadPresence()) {
      const known = decodePresence(state)
      if (known === undefined) log.warn('when a provider came and went cannot be read, so it begins anew', { provider })
      else this.#set(provider, unwatched(known, { from: known.watchedUntil, to: now }))
    }
  }

  /** Hears from the directory. Providers that were never there, and hold nothing, leave no trace. */
  changed(provider: string, state: SeenState): void {
    const known = this.#states.get(provider)
    const at = this.#components.clock.now()
    if (state === 'online') {
      if (known === undefined || absentSince(known) !== undefined)
        this.#set(provider, noticed(known ?? newPresence(at), { at, isPresent: true }))
    } else if (state !== 'unknown' && known !== undefined && absentSince(known) === undefined) {
      this.#set(provider, noticed(known, { at, isPresent: false }))
    }
  }

  /** Looks at what time alone has changed, and writes down what is new. */
  async tick(): Promise<void> {
    const { index, clock } = this.#components
    const now = clock.now()
    const holders = new Set((await index.listHolders()).map(({ provider }) => provider))
    for (const provider of holders) this.#meet(provider, now)
    this.#watchOutage(now)
    const gone = new Set(this.gone())
    if ([...gone].some((provider) => !this.#known.has(provider))) this.#components.onGone?.()
    this.#known = gone
    await this.#save(now, holders)
  }

  /** A holder that an earlier run knew and this one does not find is absent from now on. */
  #meet(provider: string, now: number): void {
    const state = this.#components.stateOf(provider)
    const isMissed = state === 'unknown' ? this.#isWarm(now) : state !== 'online'
    const known = this.#states.get(provider)
    if (isMissed && (known === undefined || absentSince(known) === undefined))
      this.#set(provider, noticed(known ?? newPresence(now), { at: now, isPresent: false }))
    else if (known === undefined && state === 'online') this.changed(provider, 'online')
  }

  #isWarm(now: number): boolean {
    return now - this.#startedAt >= warmUpMs
  }

  #watchOutage(now: number): void {
    const isOut = this.#components.isOwnOutage?.() === true
    if (isOut && this.#outage === undefined) this.#outage = { from: now, gone: new Set(this.gone()) }
    if (isOut || this.#outage === undefined) return
    const { from, gone } = this.#outage
    this.#outage = undefined
    for (const [provider, state] of [...this.#states]) {
      if (!gone.has(provider) && absentSince(state) !== undefined)
        this.#set(provider, unwatched(state, { from, to: now }))
    }
  }

  /** Whether verdicts are suspended for an outage on this side. */
  get isSuspended(): boolean {
    return this.#outage !== undefined
  }

  /** For how long it has been absent beyond its grace; 0 while it is not gone. */
  goneForMs(provider: string): number {
    const state = this.#states.get(provider)
    return state === undefined || !this.#isMissed(provider)
      ? 0
      : goneForMs(state, this.#components.clock.now(), this.graceMs)
  }

  /** Absent for longer than the least grace, though perhaps within its own. */
  isLate(provider: string): boolean {
    const since = this.absentSince(provider)
    return since !== undefined && this.#components.clock.now() - since > this.graceMs && this.#isMissed(provider)
  }

  /** Those that are late, and not gone yet. */
  late(): string[] {
    return [...this.#states.keys()].filter((provider) => this.isLate(provider) && !this.isGone(provider))
  }

  /** Whether its absence, if it is absent, counts: not while we may be the ones who are cut off, or have not looked yet. */
  #isMissed(provider: string): boolean {
    const seen = this.#components.stateOf(provider)
    if (seen === 'online' || (seen === 'unknown' && !this.#isWarm(this.#components.clock.now()))) return false
    return this.#outage === undefined || this.#outage.gone.has(provider)
  }

  isGone(provider: string): boolean {
    return this.goneForMs(provider) > 0
  }

  gone(): string[] {
    return [...this.#states.keys()].filter((provider) => this.isGone(provider))
  }

  /** Since when it has been absent; undefined while it is there. */
  absentSince(provider: string): number | undefined {
    const state = this.#states.get(provider)
    return state === undefined ? undefined : absentSince(state)
  }

  churn(): Churn {
    return this.#measured().churn
  }

  /** What may pass before somebody who left counts as gone, by how long absences in this network last. */
  longGraceMs(): number {
    return this.#measured().longGraceMs
  }

  #measured(): { churn: Churn; longGraceMs: number } {
    const now = this.#components.clock.now()
    if (this.#churn === undefined || now - this.#churn.at >= churnAgeMsMax) {
      const churn = churnOf(new Map(this.#states), now, this.graceMs)
      this.#churn = { at: now, churn, longGraceMs: longGraceOf(this.#states.values(), this.graceMs) }
    }
    return this.#churn
  }

  #set(provider: string, state: PresenceState): void {
    this.#states.set(provider, state)
    this.#dirty.add(provider)
  }

  async #save(now: number, holders: ReadonlySet<string>): Promise<void> {
    const rows = new Map<string, Uint8Array | null>()
    const isHeartbeat = now - this.#heartbeatAt >= this.#heartbeatMs
    for (const [provider, state] of [...this.#states]) {
      const since = absentSince(state)
      if (since !== undefined && now - since > forgetMs && !holders.has(provider)) {
        this.#states.delete(provider)
        rows.set(provider, null)
        continue
      }
      // How long an absence has been watched is known after a crash, give or take a heartbeat. Presence needs none.
      const isWatched = since !== undefined && isHeartbeat && this.#outage === undefined
      if (!isWatched && !this.#dirty.has(provider)) continue
      const watched = { ...state, watchedUntil: Math.max(state.watchedUntil, now) }
      if (this.#outage === undefined) this.#states.set(provider, watched)
      rows.set(provider, encodePresence(this.#outage === undefined ? watched : state))
    }
    if (isHeartbeat) this.#heartbeatAt = now
    this.#dirty.clear()
    if (rows.size === 0) return
    try {
      await this.#components.index.savePresence([...rows].map(([provider, state]) => ({ provider, state })))
    } catch (error) {
      for (const provider of rows.keys()) if (this.#states.has(provider)) this.#dirty.add(provider)
      throw error
    }
  }
}
