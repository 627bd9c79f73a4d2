/**
 * Comings and goings of providers, and what follows from them: how long to wait for one, and how often they leave for
 * good. Pure. What happened is kept as a short list of moments, newest first by their own times and not by when they were
 * heard of, so events may come twice and in any order.
 *
 * Whoever does not answer is absent from the first time that this was seen. Time in which nobody watched, since the gateway
 * was down or cut off itself, is nobody's absence, and is taken out (`unwatched`): a provider may have been there all the
 * while. What had been seen of an absence before counts on, so that a gateway which is restarted often still finds out.
 */
import { z } from 'zod'
import { dayMs } from '../base/limits.ts'

/** Moments kept of a provider: two for each absence. */
const momentsMax = 64
/** What happened longer ago says nothing of today's network. */
const windowMs = 90 * dayMs
/** Before anything is measured: one departure in so much time of one provider. */
const priorMs = 180 * dayMs
/** How much the network's rate counts in one provider's, in departures. */
const priorDepartures = 2
const factorMax = 16
/**
 * The longest grace, and what a past absence has to exceed to count as a departure, in units of the least. Three days at
 * an hour: with one day a weekend, or the one day in twenty that a home machine stays off, counted as leaving for good,
 * and raised the threshold of everybody.
 */
export const graceSpan = 72
const stateBytesMax = 4096

const time = z.number().int().min(0)
const stateSchema = z.strictObject({
  v: z.literal(1),
  /** First seen. */
  since: time,
  /** Latest time at which it was known to answer; 0: never. */
  seenAt: time,
  /** Times at which it began to answer (1), or no longer did (0), oldest first. */
  moments: z.array(z.tuple([time, z.union([z.literal(0), z.literal(1)])])).max(momentsMax),
  /** Until when an absence that goes on was watched. */
  watchedUntil: time
})
export type PresenceState = z.infer<typeof stateSchema>

export interface PresenceEvent {
  at: number
  isPresent: boolean
}

export const newPresence = (at: number): PresenceState => ({
  v: 1,
  since: at,
  seenAt: 0,
  moments: [],
  watchedUntil: at
})

/** Takes one event in. Each counts once, whenever it comes. */
export function noticed(state: PresenceState, { at, isPresent }: PresenceEvent): PresenceState {
  const kind = isPresent ? 1 : 0
  const seenAt = isPresent ? Math.max(state.seenAt, at) : state.seenAt
  const isKnown = state.moments.some(([time, known]) => time === at && known === kind)
  const moments = isKnown
    ? state.moments
    : [...state.moments, [at, kind] as [number, 0 | 1]]
        .sort(([a, kindA], [b, kindB]) => a - b || kindA - kindB)
        .slice(-momentsMax)
  return {
    ...state,
    since: Math.min(state.since, at),
    seenAt,
    moments,
    watchedUntil: Math.max(state.watchedUntil, at)
  }
}

interface Absence {
  from: number
  /** Infinite while it goes on. */
  to: number
}

function absencesOf({ moments, seenAt }: PresenceState): Absence[] {
  const absences: Absence[] = []
  let from: number | undefined
  for (const [at, kind] of moments) {
    if (kind === 0) from ??= at
    else if (from !== undefined) {
      if (at > from) absences.push({ from, to: at })
      from = undefined
    }
  }
  if (from !== undefined && seenAt <= from) absences.push({ from, to: Number.POSITIVE_INFINITY })
  return absences
}

/** Since when it has been absent, in time that was watched; undefined while it is there. */
export function absentSince(state: PresenceState): number | undefined {
  const last = absencesOf(state).at(-1)
  return last?.to === Number.POSITIVE_INFINITY ? last.from : undefined
}

/** Takes time out that nobody watched: an absence that went on before and after is shorter by it. */
export function unwatched(state: PresenceState, { from, to }: { from: number; to: number }): PresenceState {
  const since = absentSince(state)
  if (since === undefined || to <= from) return state
  const began = Math.max(since, from)
  const shiftMs = to - began
  if (shiftMs <= 0) return state
  const at = since + shiftMs
  const moments = state.moments.filter(([time]) => time < since)
  return { ...state, moments: [...moments, [at, 0]], watchedUntil: to }
}

/** How long to wait for it: twice as long as 95% of its absences lasted, within [`graceMs`, `graceSpan` x `graceMs`]. */
export function graceOf(state: PresenceState, graceMs: number): number {
  const lengths = absencesOf(state)
    .map(({ from, to }) => to - from)
    .filter(Number.isFinite)
    .sort((a, b) => a - b)
  const typical = lengths[Math.max(0, Math.ceil(lengths.length * 0.95) - 1)] ?? 0
  return Math.min(graceSpan * graceMs, Math.max(graceMs, 2 * typical))
}

/** Of all providers, so many have the grace that is planned with, or a shorter one. */
const longGraceShare = 0.9

/**
 * What passes before somebody who left for good counts as gone, for nine in ten of these. Not for half of them: where the
 * others are waited for three days, segments at these would be taken to be repaired within hours.
 */
export function longGraceOf(states: Iterable<PresenceState>, graceMs: number): number {
  const graces = [...states].map((state) => graceOf(state, graceMs)).sort((a, b) => a - b)
  return graces[Math.floor(longGraceShare * graces.length)] ?? graceMs
}

/** For how long it has been absent beyond its grace; 0 while it is not gone. */
export function goneForMs(state: PresenceState, now: number, graceMs: number): number {
  const since = absentSince(state)
  return since === undefined ? 0 : Math.max(0, now - since - graceOf(state, graceMs))
}

/** Times it left for good: is gone now, or stayed away for longer than any grace. */
function departuresOf(state: PresenceState, now: number, graceMs: number): number {
  return absencesOf(state).filter(({ from, to }) => {
    if (from < now - windowMs) return false
    return to === Number.POSITIVE_INFINITY ? goneForMs(state, now, graceMs) > 0 : to - from > graceSpan * graceMs
  }).length
}

/** Time for which it was part of the network, within the window. */
function exposureMs(state: PresenceState, now: number): number {
  return Math.max(0, (absentSince(state) ?? now) - Math.max(state.since, now - windowMs))
}

export interface Churn {
  /** Departures for good per provider and millisecond. */
  rate: number
  /** The same for one provider: by its own record, as far as there is one. */
  rateOf: (provider: string) => number
}

/**
 * How often providers leave for good. Before much is known one is taken to leave in 180 days; each provider's own rate is
 * the network's times what its own record says, shrunk towards 1 by two departures, and at most 16 times as high or low.
 */
export function churnOf(states: ReadonlyMap<string, PresenceState>, now: number, graceMs: number): Churn {
  let departures = 1
  let providerMs = priorMs
  for (const state of states.values()) {
    departures += departuresOf(state, now, graceMs)
    providerMs += exposureMs(state, now)
  }
  const rate = departures / providerMs
  return {
    rate,
    rateOf: (provider) => {
      const state = states.get(provider)
      if (state === undefined) return rate
      const own = priorDepartures + departuresOf(state, now, graceMs)
      const expected = priorDepartures + rate * exposureMs(state, now)
      return rate * Math.min(factorMax, Math.max(1 / factorMax, own / expected))
    }
  }
}

export function encodePresence(state: PresenceState): Uint8Array {
  return Buffer.from(JSON.stringify(state), 'utf8')
}

/** Undefined for what is no state: then the provider's record begins anew. */
export function decodePresence(bytes: Uint8Array): PresenceState | undefined {
  if (bytes.length > stateBytesMax) return undefined
  try {
    const state = stateSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
    const isSorted = state.moments.every(([at], i) => i === 0 || state.moments[i - 1]![0] <= at)
    return isSorted ? state : undefined
  } catch {
    return undefined // not JSON, or not ours
  }
}
