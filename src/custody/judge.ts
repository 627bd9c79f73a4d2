/**
 * What is concluded of one provider from how its challenges ended. Pure: state and event in, new state and effects out.
 *
 * Silence is ambiguous, so it *contains*: the very same challenges are put again, three times with growing gaps, and
 * only when the last repeat too has ended in silence is the shard missing. An answer is not ambiguous: it counts at
 * once.
 *
 * | challenge ended    | not contained              | its own repeat, due       | others while contained      |
 * | ------------------ | -------------------------- | ------------------------- | --------------------------- |
 * | ok                 | proved, counts for it      | proved, clears it, counts | proved, counts for nothing  |
 * |                    |                            | for nothing               |                             |
 * | wrong, missing     | lost                       | lost                      | lost: it said so            |
 * | refused            | withdrawn, score untouched | withdrawn, clears it      | withdrawn                   |
 * | timeout, unknown   | contained                  | a silence more; the last: | ignored: enough is waited   |
 * |                    |                            | missing                   | for already                 |
 * | offline            | waits, absent from now     | waits, not used up        | waits                       |
 * | own outage: either | ignored                    | ignored                   | ignored                     |
 * | of the last two    |                            |                           |                             |
 *
 * - *Contained* is a provider with at least one challenge that is waited for. Its proofs count for nothing meanwhile,
 *   or one that has lost a few shards could let just those time out and earn with the rest. They do prove their shards.
 * - What clears a waiting challenge: the very same one answered, the whole shard read, or the shard withdrawn or
 *   dropped. A proof of another chunk of the same shard does not: half a shard has many chunks.
 * - What clears counts for nothing either: it may have been fetched since the question was put. A provider that has freed
 *   itself by late answers six times within a day is *late*, and remains so for as long as that is true: nothing counts
 *   for it, and each hour counts as one in which it could not be reached. Its line is as slow as that, or it answers
 *   every first question with silence and fetches the answer while it is waited for.
 * - A repeat is one that was issued when it was due. What was issued earlier (a late report, a duplicate) uses none up.
 * - A provider that is offline is not asked. Once it is back, its repeats wait for the first gap again, so that it can
 *   start in peace. Flapping thus puts a verdict off, for the price of availability and of earning nothing.
 * - The last silence is no verdict before `verdictDelayMs`: an outage on the auditor's own side takes that long to
 *   show, and then the silences since it began are taken back.
 * - Availability is one observation every `availabilityEveryMs`, whatever was asked in it, so that who is audited more
 *   is not charged more. Time in which nobody looked (the auditor was down, or had an outage) counts for nothing.
 *
 * So a provider gets from the first silence to a loss in 71 minutes and the verdict's delay at the earliest. The price:
 * one whose answers all take longer than the ceiling below for so long is treated as if it had lost what it was asked
 * for.
 */
import { z } from 'zod'
import { dayMs, hourMs, minuteMs, secondMs } from '../base/limits.ts'
import type { CustodyOutcome } from './outcome.ts'

export interface JudgeConfig {
  /** From a silence to the next repeat, milliseconds; as many repeats as there are gaps. */
  repeatGapsMs: readonly number[]
  /** From the last silence to the verdict: at least the window in which an own outage is recognised. */
  verdictDelayMs: number
  /** Challenges waited for at once. Of a longer silent batch the rest is ignored: it will be sampled again. */
  containedMax: number
  /** Requests remembered, so that one that is reported twice counts once. */
  requestsMax: number
  /** Shards remembered as lost, so that two answers about one shard cost its provider once. */
  lostMax: number
  availabilityEveryMs: number
  /** So many containments, each ended by a late answer, within so long: late. See `isLate`. */
  lateCount: number
  lateWindowMs: number
  /** Deadlines: see `deadlineMs`. */
  deadlineMsMin: number
  deadlineMsMax: number
  /** Of the last repeat. */
  lastDeadlineMs: number
  answerMs: number
}

export const judgeDefaults: JudgeConfig = {
  repeatGapsMs: [minuteMs, 10 * minuteMs, hourMs],
  verdictDelayMs: 5 * minuteMs,
  containedMax: 64,
  requestsMax: 32,
  lostMax: 64,
  availabilityEveryMs: hourMs,
  lateCount: 6,
  lateWindowMs: dayMs,
  deadlineMsMin: 500,
  deadlineMsMax: 2 * secondMs,
  lastDeadlineMs: 20 * secondMs,
  answerMs: 25
}

/** One question, by name. CIDs are text here, so that all state is plain data. */
export interface ChallengeKey {
  cid: string
  /** Of 1 KiB; null for a read of the whole shard. */
  chunk: number | null
}

export interface ChallengeResult extends ChallengeKey {
  outcome: CustodyOutcome
  /** From sending the request to this answer, milliseconds; where there was one. */
  elapsedMs?: number
}

const time = z.number().int()
const waitingSchema = z.strictObject({
  cid: z.string(),
  chunk: z.number().int().nullable(),
  /** When each silence was reported, oldest first; the first is no repeat. */
  silentAt: z.array(time).min(1),
  /** The next repeat, or the verdict, is not due before. */
  nextAt: time
})
export type Waiting = z.infer<typeof waitingSchema>

export const judgeStateSchema = z.strictObject({
  v: z.literal(1),
  waiting: z.array(waitingSchema),
  isSuspended: z.boolean(),
  /** Null: not known. */
  isOnline: z.boolean().nullable(),
  /** Since when `isOnline` is what it is. */
  since: time,
  /** When availability was last observed, or last could not be. */
  observedAt: time.nullable(),
  /** Of answers, as RFC 6298 estimates a round trip. */
  latency: z.strictObject({ meanMs: z.number(), deviationMs: z.number() }).nullable(),
  /** Last requests judged, newest last. */
  requests: z.array(z.strictObject({ id: z.string(), issuedAt: time })),
  /** Last shards lost, newest last. */
  lost: z.array(z.string()),
  /** When late answers last ended containments, newest last; `lateCount` at most. */
  lateAt: z.array(time)
})
/** Plain data: store it as JSON or DAG-CBOR, check it with the schema when it is read. */
export type JudgeState = z.infer<typeof judgeStateSchema>

export const newJudge = (isSuspended = false): JudgeState => ({
  v: 1,
  waiting: [],
  isSuspended,
  isOnline: null,
  since: 0,
  observedAt: null,
  latency: null,
  requests: [],
  lost: [],
  lateAt: []
})

/** `now` in milliseconds since the Unix epoch, by the auditor's clock. */
export type JudgeEvent = { now: number } & (
  | {
      kind: 'batch'
      /** Of the request (its digest, say): a second report of it changes nothing. */
      id: string
      issuedAt: number
      results: readonly ChallengeResult[]
    }
  /** A client's or a repair's read of a whole shard that verified. */
  | { kind: 'read'; cid: string }
  | { kind: 'online' }
  | { kind: 'offline' }
  /** An own outage, recognised now, that began at `from`. */
  | { kind: 'suspended'; from: number }
  | { kind: 'resumed' }
  /** The shard is no longer this provider's to keep: deleted, moved, or just placed anew. */
  | { kind: 'dropped'; cid: string }
  | { kind: 'tick' }
)

export type JudgeEffect = { at: number } /** The shards' last proof is now. */ & (
  | { kind: 'proved'; cids: string[] }
  /** Counts for the provider. */
  | { kind: 'good'; challenges: number }
  /** Counts against it, and the shard is to be marked so and repaired. */
  | { kind: 'lost'; cid: string; outcome: 'missing' | 'wrong'; why: string }
  | { kind: 'withdrawn'; cid: string }
  | { kind: 'contained'; cid: string; chunk: number | null }
  | { kind: 'cleared'; cid: string; chunk: number | null; why: string }
  /** `isLate`: it is there, and not up because of that. */
  | { kind: 'availability'; isUp: boolean; isLate?: true }
  | { kind: 'latency'; ms: number }
)

export interface Judgement {
  state: JudgeState
  effects: JudgeEffect[]
}

/** Whether silence about this challenge, put again now, would be the last. */
export function isLastRepeat(
  state: JudgeState,
  { cid, chunk }: ChallengeKey,
  config: JudgeConfig = judgeDefaults
): boolean {
  const waiting = state.waiting.find((one) => one.cid === cid && one.chunk === chunk)
  return waiting !== undefined && waiting.silentAt.length >= config.repeatGapsMs.length
}

export const isContained = ({ waiting }: JudgeState): boolean => waiting.length > 0

/** Whether the shard is waited for, for `contained` as the state of a shard. */
export const isShardContained = ({ waiting }: JudgeState, cid: string): boolean => waiting.some((w) => w.cid === cid)

/**
 * Whether it owes its clean record to second chances. A containment counts once, when a late answer ends it; one that was the
 * auditor's fault, or ended because the shard is no longer this provider's, does not. In three simulated months of a
 * hundred honest providers each had ten or eleven, and the worst day of all had five. One that is silent first and answers
 * the first repeat has 48 a day, the third repeat 14; to have fewer than six it would have to be offline for half of the
 * time. So six a day also mean that who lost one shard of 25 and is asked for three each half hour is not found by this.
 */
export function isLate({ lateAt }: JudgeState, now: number, config: JudgeConfig = judgeDefaults): boolean {
  // What lies in the future was noted before the clock was set back.
  return lateAt.filter((at) => at <= now && now - at < config.lateWindowMs).length >= config.lateCount
}

/** The challenges to put again now, all in one request. */
export function dueRepeats(state: JudgeState, now: number, config: JudgeConfig = judgeDefaults): ChallengeKey[] {
  if (state.isSuspended || state.isOnline === false) return []
  return state.waiting
    .filter(({ silentAt, nextAt }) => silentAt.length <= config.repeatGapsMs.length && nextAt <= now)
    .map(({ cid, chunk }) => ({ cid, chunk }))
}

/**
 * How long after the request the answer number `index` (from 0) may arrive, milliseconds: what this provider needs for
 * the first by its own history (mean and four deviations, as RFC 6298 has it; 500 ms at least), two seconds at most,
 * and 25 ms for each before it: a seek, a read of 1 MiB and its hash on a spinning disk. A request is waited for as a
 * whole, so of its `n` answers all have the time of the last, `deadlineMs(state, n - 1, ...)`.
 *
 * The ceiling is there because a provider that kept nothing would always be slow, and its history would excuse it. To
 * rebuild one shard of 10+10 it has to fetch 10 MiB: 2 s allow that from 42 Mbit/s on, so a single challenge says
 * little about a fast line. Who kept nothing has to fetch 240 MiB for a batch of 24 in 2.6 s, 780 Mbit/s, and 2.5 GiB
 * for the largest, of 256, in 8.4 s: 2.6 Gbit/s. But who lost a part has the time of all for that part: with one shard
 * in twenty gone, some 13 of 256, 130 MiB in 8.4 s, which are 130 Mbit/s. Before that it has to learn the siblings' CIDs
 * (only the manifest has them) and who keeps them (nobody announces shards; a look-up in js kad-dht takes seconds). And
 * a shard is asked for 1.58 times a week: rebuilding it for each costs 16 MiB to save one.
 *
 * The last repeat has 20 s: what follows from silence then is that the shard is lost, and somebody slow has not lost it. Who needs
 * it to fetch the shard from others proves that it has it now, and earns nothing by it (see `isLate`).
 *
 * A repeat always has the ceiling: a silence gives no measurement to learn from, as a lost segment gives TCP none.
 */
export function deadlineMs(
  state: JudgeState,
  index: number,
  isRepeat: boolean | 'last',
  config: JudgeConfig = judgeDefaults
): number {
  if (isRepeat === 'last') return Math.round(config.lastDeadlineMs + index * config.answerMs)
  const { latency } = state
  const own = latency === null || isRepeat ? Number.POSITIVE_INFINITY : latency.meanMs + 4 * latency.deviationMs
  const first = Math.min(config.deadlineMsMax, Math.max(config.deadlineMsMin, own))
  return Math.round(first + index * config.answerMs)
}

/** Judges one event. The state given is not changed. */
export function judge(before: JudgeState, event: JudgeEvent, config: JudgeConfig = judgeDefaults): Judgement {
  const state: JudgeState = { ...before }
  const effects: JudgeEffect[] = []
  const { now } = event
  switch (event.kind) {
    case 'batch':
      judgeBatch(state, event, effects, config)
      break
    case 'read':
      seen(state, true, now)
      answeredLate(state, ({ cid }) => cid === event.cid, 'the whole shard was read', now, effects, config)
      prove(state, isContained(before), [event.cid], 1, now, effects, config)
      break
    case 'online':
      seen(state, true, now)
      postpone(state, now, config)
      break
    case 'offline':
      seen(state, false, now)
      break
    case 'suspended':
      suspend(state, event.from, now, effects, config)
      break
    case 'resumed':
      if (state.isSuspended) postpone(state, now, config)
      state.isSuspended = false
      break
    case 'dropped':
      clear(state, ({ cid }) => cid === event.cid, 'not kept here any more', now, effects)
      state.lost = state.lost.filter((cid) => cid !== event.cid)
      break
    case 'tick':
      break
  }
  pronounce(state, now, effects, config)
  observe(state, now, effects, config)
  return { state, effects }
}

type Batch = Extract<JudgeEvent, { kind: 'batch' }>

function judgeBatch(state: JudgeState, batch: Batch, effects: JudgeEffect[], config: JudgeConfig): void {
  if (!isNews(state, batch, config)) return
  const { now, results } = batch
  const wasContained = isContained(state)
  const isAbsent = results.every(({ outcome }) => outcome === 'offline')
  if (results.length > 0) seen(state, !isAbsent, now)
  const same = (a: ChallengeKey) => (b: ChallengeKey) => a.cid === b.cid && a.chunk === b.chunk

  // Answers first: they may end the containment that silences in the same batch would be ignored for.
  for (const result of results) {
    const { cid, outcome } = result
    if (outcome === 'wrong' || outcome === 'missing') {
      const why = outcome === 'wrong' ? 'its answer did not verify' : 'it said that it does not have the shard whole'
      lose(state, cid, outcome, why, now, effects, config)
    } else if (outcome === 'refused') {
      clear(state, (waiting) => waiting.cid === cid, 'the provider refused the shard', now, effects)
      effects.push({ kind: 'withdrawn', cid, at: now })
    } else if (outcome === 'ok') {
      const answers = result.chunk === null ? (waiting: Waiting) => waiting.cid === cid : same(result)
      answeredLate(state, answers, 'answered', now, effects, config)
    }
  }
  if (!state.isSuspended) {
    const isStillContained = isContained(state)
    for (const result of results) {
      if (result.outcome !== 'timeout' && result.outcome !== 'unknown') continue
      const waiting = state.waiting.find(same(result))
      if (waiting !== undefined) silentAgain(state, waiting, batch, config)
      else if (!isStillContained && state.waiting.length < config.containedMax && !state.lost.includes(result.cid)) {
        const { cid, chunk } = result
        const nextAt = now + (config.repeatGapsMs[0] ?? config.verdictDelayMs)
        state.waiting = [...state.waiting, { cid, chunk, silentAt: [now], nextAt }]
        effects.push({ kind: 'contained', cid, chunk, at: now })
      }
    }
  }
  const proved = results.filter(({ cid, outcome }) => outcome === 'ok' && !state.lost.includes(cid))
  if (proved.length > 0) {
    const cids = [...new Set(proved.map(({ cid }) => cid))]
    prove(state, wasContained, cids, proved.length, now, effects, config)
  }
  measure(state, results, now, effects, config)
}

/** False for what was judged already, and for what is so old that it may have been. */
function isNews(state: JudgeState, { id, issuedAt }: Batch, config: JudgeConfig): boolean {
  const { requests } = state
  if (requests.some((request) => request.id === id)) return false
  if (requests.length >= config.requestsMax && issuedAt < requests[0]!.issuedAt) return false
  state.requests = [...requests, { id, issuedAt }]
    .sort((a, b) => a.issuedAt - b.issuedAt || (a.id < b.id ? -1 : 1))
    .slice(-config.requestsMax)
  return true
}

function silentAgain(state: JudgeState, waiting: Waiting, { now, issuedAt }: Batch, config: JudgeConfig): void {
  const silences = waiting.silentAt.length
  if (issuedAt < waiting.nextAt || silences > config.repeatGapsMs.length) return
  const nextAt = now + (config.repeatGapsMs[silences] ?? config.verdictDelayMs)
  const next: Waiting = { ...waiting, silentAt: [...waiting.silentAt, now], nextAt }
  state.waiting = state.waiting.map((one) => (one === waiting ? next : one))
}

/** The verdict on what was silent as often as it may. */
function pronounce(state: JudgeState, now: number, effects: JudgeEffect[], config: JudgeConfig): void {
  if (state.isSuspended) return
  for (const { cid, silentAt, nextAt } of state.waiting) {
    if (silentAt.length <= config.repeatGapsMs.length || nextAt > now) continue
    const why = `the same challenge went unanswered ${silentAt.length} times`
    lose(state, cid, 'missing', why, now, effects, config)
  }
}

function lose(
  state: JudgeState,
  cid: string,
  outcome: 'missing' | 'wrong',
  why: string,
  now: number,
  effects: JudgeEffect[],
  config: JudgeConfig
): void {
  state.waiting = state.waiting.filter((waiting) => waiting.cid !== cid)
  if (state.lost.includes(cid)) return
  state.lost = [...state.lost, cid].slice(-config.lostMax)
  effects.push({ kind: 'lost', cid, outcome, why, at: now })
}

function clear(
  state: JudgeState,
  isCleared: (waiting: Waiting) => boolean,
  why: string,
  now: number,
  effects: JudgeEffect[]
): void {
  const cleared = state.waiting.filter(isCleared)
  if (cleared.length === 0) return
  state.waiting = state.waiting.filter((waiting) => !cleared.includes(waiting))
  for (const { cid, chunk } of cleared) effects.push({ kind: 'cleared', cid, chunk, why, at: now })
}

/** Clears, and remembers that it took more than one question where that ends the containment. */
function answeredLate(
  state: JudgeState,
  isCleared: (waiting: Waiting) => boolean,
  why: string,
  now: number,
  effects: JudgeEffect[],
  config: JudgeConfig
): void {
  const wasContained = isContained(state)
  clear(state, isCleared, why, now, effects)
  if (wasContained && !isContained(state)) state.lateAt = [...state.lateAt, now].slice(-config.lateCount)
}

function prove(
  state: JudgeState,
  wasContained: boolean,
  cids: string[],
  challenges: number,
  now: number,
  effects: JudgeEffect[],
  config: JudgeConfig
): void {
  effects.push({ kind: 'proved', cids, at: now })
  if (wasContained || isContained(state) || isLate(state, now, config)) return
  effects.push({ kind: 'good', challenges, at: now })
}

function seen(state: JudgeState, isOnline: boolean, now: number): void {
  if (state.isOnline === isOnline || (state.isSuspended && !isOnline)) return
  state.isOnline = isOnline
  state.since = now
}

/** Repeats and verdicts wait for the first gap, at least. */
function postpone(state: JudgeState, now: number, config: JudgeConfig): void {
  const earliest = now + (config.repeatGapsMs[0] ?? config.verdictDelayMs)
  state.waiting = state.waiting.map((waiting) => ({ ...waiting, nextAt: Math.max(waiting.nextAt, earliest) }))
}

/** Takes back what was the auditor's own fault before it was known to be. */
function suspend(state: JudgeState, from: number, now: number, effects: JudgeEffect[], config: JudgeConfig): void {
  state.isSuspended = true
  state.waiting = state.waiting.map((waiting) => ({ ...waiting, silentAt: waiting.silentAt.filter((at) => at < from) }))
  clear(state, ({ silentAt }) => silentAt.length === 0, "the auditor's own outage", now, effects)
  postpone(state, now, config)
  if (state.isOnline === false && state.since >= from) {
    state.isOnline = null
    state.since = now
  }
}

function observe(state: JudgeState, now: number, effects: JudgeEffect[], config: JudgeConfig): void {
  const { observedAt, isOnline, isSuspended, since } = state
  const elapsedMs = observedAt === null ? 0 : now - observedAt
  // The first look, and a clock set back or forward or an auditor that slept: the slot begins anew.
  const isGap = observedAt === null || elapsedMs < 0 || elapsedMs >= 2 * config.availabilityEveryMs
  if (isGap || isSuspended || isOnline === null) {
    state.observedAt = now
    return
  }
  if (elapsedMs < config.availabilityEveryMs) return
  if (!isOnline && now - since < config.verdictDelayMs) return // it may yet be the auditor who is offline
  state.observedAt = now
  const late = isOnline && isLate(state, now, config)
  effects.push({ kind: 'availability', isUp: isOnline && !late, ...(late ? { isLate: true } : {}), at: now })
}

/** The least first deadline that all answers would have met: never less than the first answer took. */
function measure(
  state: JudgeState,
  results: readonly ChallengeResult[],
  now: number,
  effects: JudgeEffect[],
  config: JudgeConfig
): void {
  const elapsed = results.flatMap(({ chunk, outcome, elapsedMs }) =>
    outcome === 'ok' && chunk !== null && elapsedMs !== undefined ? [Math.max(0, elapsedMs)] : []
  )
  if (elapsed.length === 0) return
  const ms = elapsed.sort((a, b) => a - b).reduce((most, at, i) => Math.max(most, at - i * config.answerMs), 0)
  const { latency } = state
  if (latency === null) state.latency = { meanMs: ms, deviationMs: ms / 2 }
  else {
    state.latency = {
      meanMs: latency.meanMs + (ms - latency.meanMs) / 8,
      deviationMs: latency.deviationMs + (Math.abs(ms - latency.meanMs) - latency.deviationMs) / 4
    }
  }
  effects.push({ kind: 'latency', ms, at: now })
}
