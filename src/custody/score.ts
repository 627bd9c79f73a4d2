/**
 * What a provider is worth, and why. Custody and availability are beta reputations with forgetting (Jøsang and Ismail
 * 2002, "The Beta Reputation System"; Storj's satellites use the same): good and bad evidence each as a sum that
 * forgets, `good' = λ good + w`, `bad' = λ bad + w`, the score `good / (good + bad)`. Pure.
 *
 * λ = 0.995 remembers 200 units of evidence. A unit in favour is at most one an hour, whatever was proved in it: then
 * 200 units are 8.3 days at least, and neither a provider that is read a lot nor one that is audited more after a fault
 * can drown a fault in proofs. Evidence against counts each time: 4 for a missing shard, 8 for a wrong one (a disk that
 * rots says `missing`, since providers check what they read; wrong bytes are a lie or a defect).
 *
 * From a proven provider's 200 units: 1 missing shard leaves 0.980, 5 0.908, 6 0.891, 13 0.788; 1 wrong 0.961, 3 0.892,
 * 7 0.778. Below 0.9 (6 missing, or 3 wrong, within a week) it is closed, and gets new shards only where there is nobody
 * else for them; below 0.8 (13, or 7) it is suspended, and gets them only where no closed one is left either, and only while
 * it has proved, since it was suspended, eight shards and four more for each one that it lost since. A disk of which a
 * twentieth has rotted does; one that keeps nothing would lose what it is brought, have it rebuilt, and lose it again for ever.
 *
 * - False alarms: unrecoverable read errors, 1 in 10^14 bits as disks are sold, lose a shard of 1 MiB with 8.4e-8 at
 *   each reading: 0.08 a week for a provider with 1,000,000 shards that reads all of them weekly. Six in a week: 3e-10
 *   a week.
 * - Detection: 13 faults are found in minutes to hours where much is lost, since batches are eight times as large after
 *   the first (`sampling.ts`; the simulated month has the times). One that lost ten shards of a thousand is seen, gets
 *   nothing new for days, and is not suspended: it kept 99%.
 * - Forgiveness: 6 missing shards are above 0.9 again after 19 hours of proofs, 13 after a week.
 *
 * A new provider begins with 100 units in favour: a fault in its first days weighs twice as much (3 missing: 0.892, 7:
 * 0.778), and is forgotten as fast. With less, a network of a dozen providers would shut them all out after the first
 * power cut. It is *vetted* once it has 100 proofs, over 72 hours since it was first
 * seen; until then its weight is a quarter. 100 proofs are the default rate's one day; the time is what cannot be
 * hurried.
 *
 * Availability is a unit an hour (`judge` sees to that), present or absent. Absent for 12 hours: 0.94; for 3 days:
 * 0.70; below 0.6, absent for more than four days of the last eight or so, it gets no new shards. It never suspends:
 * offline is not losing. Here too a new provider begins with 100 units: a night away in its first days leaves 0.9.
 */
import { z } from 'zod'
import { hourMs, secondMs } from '../base/limits.ts'
import type { JudgeEffect } from './judge.ts'
import { latencyDigestSchema, latencyPercentile, withLatency } from './latency-digest.ts'

export interface ScoreConfig {
  /** λ. */
  kept: number
  goodEveryMs: number
  weights: { missing: number; wrong: number }
  /** Units in favour of who is new. */
  credit: { custody: number; availability: number }
  vetting: { proofsMin: number; ageMsMin: number; weight: number }
  /** Custody below the first: no new shards; below the second: suspended. */
  custodyMin: { newShards: number; suspended: number }
  availabilityMin: number
  /** Proofs that a suspended provider must have given since: so many, and so many more for each shard that it lost since. */
  mending: { proofsMin: number; proofsPerLoss: number }
  recordsMax: number
}

export const scoreDefaults: ScoreConfig = {
  kept: 0.995,
  goodEveryMs: hourMs,
  weights: { missing: 4, wrong: 8 },
  credit: { custody: 100, availability: 100 },
  vetting: { proofsMin: 100, ageMsMin: 72 * hourMs, weight: 0.25 },
  custodyMin: { newShards: 0.9, suspended: 0.8 },
  availabilityMin: 0.6,
  mending: { proofsMin: 8, proofsPerLoss: 4 },
  recordsMax: 128
}

const time = z.number().int()
const betaSchema = z.strictObject({ good: z.number().nonnegative(), bad: z.number().nonnegative() })
export type Beta = z.infer<typeof betaSchema>

export const scoreRecordSchema = z.strictObject({
  at: time,
  /** Of the last event in this record, and how many there are: good news without bad news between is one record. */
  until: time,
  count: z.number().int().positive(),
  kind: z.enum(['proved', 'missing', 'wrong', 'present', 'absent', 'vetted']),
  shard: z.string().optional(),
  /** Of custody, or availability for `present` and `absent`: 0 to 1. */
  before: z.number(),
  after: z.number(),
  /** For the operator. */
  why: z.string()
})
/** An event that moved a score. */
export type ScoreRecord = z.infer<typeof scoreRecordSchema>

export const scoreStateSchema = z.strictObject({
  v: z.literal(1),
  firstSeenAt: time,
  custody: betaSchema,
  availability: betaSchema,
  /** When evidence in favour was last taken. */
  goodAt: time.nullable(),
  /** Challenges and reads that proved a shard, ever. */
  proofs: z.number().int().nonnegative(),
  isVetted: z.boolean(),
  /** Proofs and losses since its custody fell below where it is suspended; absent where it has not, or is above again. */
  suspended: z
    .strictObject({ proofs: z.number().int().nonnegative(), lost: z.number().int().nonnegative() })
    .optional(),
  latency: latencyDigestSchema,
  /** Oldest first, `recordsMax` at most. */
  records: z.array(scoreRecordSchema)
})
/** Plain data. */
export type ScoreState = z.infer<typeof scoreStateSchema>

export const newScore = (now: number, config: ScoreConfig = scoreDefaults): ScoreState => ({
  v: 1,
  firstSeenAt: now,
  custody: { good: config.credit.custody, bad: 0 },
  availability: { good: config.credit.availability, bad: 0 },
  goodAt: null,
  proofs: 0,
  isVetted: false,
  latency: [],
  records: []
})

export const betaValue = ({ good, bad }: Beta): number => (good + bad === 0 ? 0 : good / (good + bad))

const lateWhy = 'it could be reached, and answered too often only when it was asked again'

const moved = ({ good, bad }: Beta, forIt: number, against: number, kept: number): Beta => ({
  good: good * kept + forIt,
  bad: bad * kept + against
})

/** Takes in what the judge concluded, in its order. The state given is not changed. */
export function scored(
  state: ScoreState,
  effects: readonly JudgeEffect[],
  config: ScoreConfig = scoreDefaults
): ScoreState {
  return effects.reduce(
    (before, effect) => sinceSuspended(before, scoredOne(before, effect, config), effect, config),
    state
  )
}

/** Counts what there is to say of one that is suspended; forgotten once it is not. */
function sinceSuspended(before: ScoreState, after: ScoreState, effect: JudgeEffect, config: ScoreConfig): ScoreState {
  const { suspended, ...rest } = after
  if (!isSuspended(after, config)) return suspended === undefined ? after : rest
  // What it is suspended for was lost before.
  const { proofs, lost } = suspended ?? { proofs: 0, lost: 0 }
  if (!isSuspended(before, config)) return { ...after, suspended: { proofs: 0, lost: 0 } }
  if (effect.kind === 'good') return { ...after, suspended: { proofs: proofs + effect.challenges, lost } }
  return effect.kind === 'lost'
    ? { ...after, suspended: { proofs, lost: lost + 1 } }
    : { ...after, suspended: { proofs, lost } }
}

const isSuspended = ({ custody }: ScoreState, { custodyMin }: ScoreConfig): boolean =>
  betaValue(custody) < custodyMin.suspended

/** Whether it is suspended, and has lost too much of what it was asked for since to be brought anything, even as a last resort. */
export function isLosing(state: ScoreState, config: ScoreConfig = scoreDefaults): boolean {
  if (!isSuspended(state, config)) return false
  const { proofs, lost } = state.suspended ?? { proofs: 0, lost: 0 }
  return proofs < config.mending.proofsMin + config.mending.proofsPerLoss * lost
}

function scoredOne(state: ScoreState, effect: JudgeEffect, config: ScoreConfig): ScoreState {
  const { at } = effect
  switch (effect.kind) {
    case 'good':
      return vetted(proved(state, effect.challenges, at, config), at, config)
    case 'lost': {
      const weight = config.weights[effect.outcome]
      const custody = moved(state.custody, 0, weight, config.kept)
      return recorded(
        { ...state, custody },
        { at, kind: effect.outcome, shard: effect.cid, why: effect.why },
        [state.custody, custody],
        config
      )
    }
    case 'availability': {
      const availability = moved(state.availability, effect.isUp ? 1 : 0, effect.isUp ? 0 : 1, config.kept)
      const what = effect.isUp
        ? ({ kind: 'present', why: 'it could be reached' } as const)
        : ({
            kind: 'absent',
            why: effect.isLate === true ? lateWhy : 'it could not be reached, and others could'
          } as const)
      return recorded({ ...state, availability }, { at, ...what }, [state.availability, availability], config)
    }
    case 'latency':
      return { ...state, latency: withLatency(state.latency, effect.ms) }
    default:
      return state
  }
}

function proved(state: ScoreState, challenges: number, at: number, config: ScoreConfig): ScoreState {
  const next = { ...state, proofs: state.proofs + challenges }
  if (state.goodAt !== null && at - state.goodAt < config.goodEveryMs) return next
  const custody = moved(state.custody, 1, 0, config.kept)
  return recorded(
    { ...next, custody, goodAt: at },
    { at, kind: 'proved', why: 'it proved the shards it was asked for' },
    [state.custody, custody],
    config
  )
}

function vetted(state: ScoreState, at: number, config: ScoreConfig): ScoreState {
  const { proofsMin, ageMsMin } = config.vetting
  const isDue = state.proofs >= proofsMin && at - state.firstSeenAt >= ageMsMin
  if (state.isVetted || !isDue || betaValue(state.custody) < config.custodyMin.newShards) return state
  const why = `${state.proofs} proofs over ${Math.floor((at - state.firstSeenAt) / hourMs)} hours`
  return recorded({ ...state, isVetted: true }, { at, kind: 'vetted', why }, [state.custody, state.custody], config)
}

type News = Pick<ScoreRecord, 'at' | 'kind' | 'why' | 'shard'>
const isGoodNews = ({ kind }: Pick<ScoreRecord, 'kind'>): boolean => kind === 'proved' || kind === 'present'
const isAboutAvailability = ({ kind }: Pick<ScoreRecord, 'kind'>): boolean => kind === 'present' || kind === 'absent'

/**
 * What happens every hour is one record that grows, until something else happens to the same score; so is an absence.
 * When the list is full, good news goes before bad, old before new.
 */
function recorded(state: ScoreState, news: News, [before, after]: [Beta, Beta], config: ScoreConfig): ScoreState {
  const records = [...state.records]
  const last = records.findLastIndex((record) => isAboutAvailability(record) === isAboutAvailability(news))
  const same = records[last]
  if (same !== undefined && same.kind === news.kind && same.why === news.why && news.shard === undefined) {
    records[last] = { ...same, until: news.at, count: same.count + 1, after: betaValue(after) }
  } else {
    records.push({ ...news, until: news.at, count: 1, before: betaValue(before), after: betaValue(after) })
    if (records.length > config.recordsMax) {
      const first = records.findIndex(isGoodNews)
      // Not the one that has just been added, or good news would be lost for as long as there is bad.
      records.splice(first === -1 || first === records.length - 1 ? 0 : first, 1)
    }
  }
  return { ...state, records }
}

/**
 * `closed`: no new shards but such as nobody else can take. `suspended`: none but such as no closed one can take either, and
 * none while `isLosing`; what it has is as good as lost to a cautious reader.
 */
export type Standing = 'vetted' | 'vetting' | 'closed' | 'suspended'

export interface ScoreReport {
  /** For placement: 0 (avoid) to 1. Zero exactly where `standing` is closed or suspended. */
  weight: number
  standing: Standing
  custody: number
  availability: number
  /** Milliseconds, each within 9.1%; null while nothing was measured. */
  latencyMsP50: number | null
  latencyMsP95: number | null
  ageMs: number
  proofs: number
  /** How the weight came about, in one sentence. */
  why: string
}

/**
 * One number for placement: custody squared (a fault is worse than an absence), times availability, times `1 / (1 + p50
 * / 1 s)`, times a quarter while it is vetted.
 */
export function scoreReport(state: ScoreState, now: number, config: ScoreConfig = scoreDefaults): ScoreReport {
  const custody = betaValue(state.custody)
  const availability = betaValue(state.availability)
  const p50 = latencyPercentile(state.latency, 0.5) ?? null
  const standing = standingOf(custody, availability, state.isVetted, config)
  const isOpen = standing === 'vetted' || standing === 'vetting'
  const quickness = 1 / (1 + (p50 ?? 100) / secondMs)
  const factor = standing === 'vetted' ? 1 : config.vetting.weight
  const weight = isOpen ? custody ** 2 * availability * quickness * factor : 0
  return {
    weight,
    standing,
    custody,
    availability,
    latencyMsP50: p50,
    latencyMsP95: latencyPercentile(state.latency, 0.95) ?? null,
    ageMs: Math.max(0, now - state.firstSeenAt),
    proofs: state.proofs,
    why: whyOf(standing, custody, availability, quickness, config)
  }
}

function standingOf(custody: number, availability: number, isVetted: boolean, config: ScoreConfig): Standing {
  if (custody < config.custodyMin.suspended) return 'suspended'
  if (custody < config.custodyMin.newShards || availability < config.availabilityMin) return 'closed'
  return isVetted ? 'vetted' : 'vetting'
}

function whyOf(
  standing: Standing,
  custody: number,
  availability: number,
  quickness: number,
  config: ScoreConfig
): string {
  const { newShards, suspended } = config.custodyMin
  const says = (name: string, value: number, min: number): string => `${name} ${value.toFixed(3)} is below ${min}`
  if (standing === 'suspended') return `${says('custody', custody, suspended)}: suspended`
  if (standing === 'closed') {
    const reason =
      custody < newShards
        ? says('custody', custody, newShards)
        : says('availability', availability, config.availabilityMin)
    return `${reason}: no new shards`
  }
  const product = `custody ${custody.toFixed(3)} squared x availability ${availability.toFixed(3)} x quickness ${quickness.toFixed(3)}`
  const { proofsMin, ageMsMin, weight } = config.vetting
  return standing === 'vetted'
    ? product
    : `${product} x ${weight} until it has ${proofsMin} proofs and is ${ageMsMin / hourMs} hours old`
}
