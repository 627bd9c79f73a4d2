/**
 * How much to ask of whom, and when. Pure; its state is per provider, never per shard, so a million shards cost nothing
 * here.
 *
 * - Time is cut into epochs of half an hour, and each provider gets one request an epoch at a time drawn at random in
 *   it. So two are less than an hour apart (budget permitting), nobody can foresee when, there is no herd, and an
 *   epoch's seed serves once. What is asked in an epoch has 1024 challenges at most (beyond 217,000 shards at one
 *   provider the epoch has to be shorter), and is called a request here; the audit loop puts it as several, of 256 at
 *   most, one after the other and under the same seed.
 * - In it each shard is asked for with the same probability, `1 / (epochs in the period)`, so once a week on average;
 *   with more where that would be less than two challenges a request. Independent draws miss a shard for a whole period
 *   with 1/e = 37%: those are *due*, and asked for as well. Asking for all as they fall due would be cheaper (1 proof a
 *   shard and period instead of 1.58), but whoever has just proved a shard could then do without it for a week.
 * - After a fault of that provider eight times as much, halved every day.
 * - While a provider is contained only the repeats are put: nothing else would count.
 * - Rarely a whole shard is read, like any client reads, at times drawn from an exponential distribution.
 * - Everything is within a budget, a bucket of bytes that fills steadily. When it is short, whoever is ready waits in
 *   the order of `readyAt + class x half an hour`, repeats first. That is a deadline which never moves back, so
 *   whatever is ready two hours later goes behind: nobody starves, and nothing small overtakes the first that is large.
 *   A shortage that lasts stretches the period; `needBytesPerSecond` says beforehand whether it will.
 */
import { z } from 'zod'
import { dayMs, hourMs, limits, minuteMs } from '../base/limits.ts'
import type { Random } from '../base/random.ts'
import { challengesMax } from './audit-messages.ts'

export interface SamplingConfig {
  epochMs: number
  /** Every shard is asked for at least once in it. */
  periodMs: number
  /** Challenges of a request, on average, where the provider has so many shards. */
  challengesMin: number
  /** Times as much right after a fault, and until when half of the excess is gone. */
  faultFactor: number
  faultHalfLifeMs: number
  /** Between whole-shard reads of a provider, on average. */
  wholeReadEveryMs: number
  /** For everything here, and the share of it that is kept for whole-shard reads. */
  bytesPerSecond: number
  wholeReadShare: number
  /** What may be spent at once, in seconds of the budget; never less than one request, or one shard, takes. */
  burstSeconds: number
  /** What things cost, both ways: a request with its signatures and headers, a challenge with its proof. */
  requestBytes: number
  challengeBytes: number
}

export const samplingDefaults: SamplingConfig = {
  epochMs: 30 * minuteMs,
  periodMs: 7 * dayMs,
  challengesMin: 2,
  faultFactor: 8,
  faultHalfLifeMs: dayMs,
  wholeReadEveryMs: 12 * hourMs,
  bytesPerSecond: 64 * 1024,
  wholeReadShare: 0.5,
  burstSeconds: 60,
  requestBytes: 1024,
  challengeBytes: 1500
}

/** Best first. */
export const askClasses = ['repeat', 'overdue', 'fault', 'new', 'rest'] as const
export type AskClass = (typeof askClasses)[number]

const time = z.number()
const planSchema = z.strictObject({
  /** The epoch that `askAt` is in, and when the next request is to be made. */
  epoch: z.number().int(),
  askAt: time,
  /** Since when the request is ready and waits for the budget. */
  readyAt: time.nullable(),
  askedAt: time.nullable(),
  wholeAt: time,
  faultAt: time.nullable()
})
type Plan = z.infer<typeof planSchema>
const bucketSchema = z.strictObject({ bytes: z.number(), at: time })
type Bucket = z.infer<typeof bucketSchema>

export const samplingStateSchema = z.strictObject({
  v: z.literal(1),
  proofs: bucketSchema,
  wholes: bucketSchema,
  providers: z.record(z.string(), planSchema)
})
/** Plain data, about 150 bytes a provider. */
export type SamplingState = z.infer<typeof samplingStateSchema>

/** Buckets begin full: the first requests need not wait. */
export const newSampling = (now: number, config: SamplingConfig = samplingDefaults): SamplingState => {
  const { proofs, wholes } = budgetsOf(config)
  return { v: 1, proofs: { bytes: proofs.burst, at: now }, wholes: { bytes: wholes.burst, at: now }, providers: {} }
}

/** What the caller knows of a provider now. */
export interface SamplingInput {
  peerId: string
  /** Whom to ask: one that is offline is not, and its plan waits. */
  isOnline: boolean
  /** How many shards it is to have. */
  shards: number
  /** Of them, how many were last proved longer ago than the period; counting may stop at `challengesMax`. */
  due: number
  isContained: boolean
  /** How many challenges are to be put again now. */
  repeats: number
  isVetted: boolean
}

/** To be put now. Its bytes are spent. */
export type Ask =
  | { kind: 'repeat'; peerId: string; challenges: number; bytes: number; class: AskClass }
  | {
      kind: 'sample'
      peerId: string
      /** For the seed; one request an epoch. */
      epoch: number
      /** Of each shard to be asked for; what the draw gives beyond `challengesMax` is left out. */
      probability: number
      /** Besides, so many of those that are due, longest unproved first. */
      due: number
      /** As expected: sampled and due. */
      challenges: number
      bytes: number
      class: AskClass
    }
  /** One shard of the provider's, drawn uniformly. */
  | { kind: 'whole'; peerId: string; bytes: number }

const epochsPerPeriod = (config: SamplingConfig): number => Math.max(1, Math.floor(config.periodMs / config.epochMs))

/** Times as much as usual: `faultFactor` right after a fault, 1 long after. */
export function factorAfterFault(
  faultAt: number | null,
  now: number,
  config: SamplingConfig = samplingDefaults
): number {
  if (faultAt === null) return 1
  return 1 + (config.faultFactor - 1) * 2 ** (-Math.max(0, now - faultAt) / config.faultHalfLifeMs)
}

/** That a shard is asked for in an epoch; so that the expected challenges fit into one request. */
export function sampleProbability(shards: number, factor = 1, config: SamplingConfig = samplingDefaults): number {
  if (shards === 0) return 0
  const usual = Math.max(1 / epochsPerPeriod(config), config.challengesMin / shards)
  return Math.min(1, usual * factor, challengesMax / shards)
}

/** Proofs of a shard in an epoch, sampled and due: a renewal after a draw, or after the period at the latest. */
export function proofsPerEpoch(probability: number, config: SamplingConfig = samplingDefaults): number {
  if (probability === 0) return 1 / epochsPerPeriod(config)
  return probability / (1 - (1 - probability) ** epochsPerPeriod(config))
}

/** What a network without faults takes; more than the budget, and the period stretches. */
export function needBytesPerSecond(
  shardsOfProviders: readonly number[],
  config: SamplingConfig = samplingDefaults
): { proofs: number; wholes: number } {
  const perEpoch = shardsOfProviders
    .filter((shards) => shards > 0)
    .map(
      (shards) =>
        config.requestBytes +
        shards * proofsPerEpoch(sampleProbability(shards, 1, config), config) * config.challengeBytes
    )
  const sum = perEpoch.reduce((total, bytes) => total + bytes, 0)
  return {
    proofs: (1000 * sum) / config.epochMs,
    wholes: (1000 * perEpoch.length * limits.shardBytesMax) / config.wholeReadEveryMs
  }
}

/** After evidence against a provider. */
export function faulted(
  state: SamplingState,
  peerId: string,
  now: number,
  config: SamplingConfig = samplingDefaults
): SamplingState {
  const own = state.providers[peerId]
  if (own === undefined) return state
  // The next whole read was drawn for better times. What is left of an exponential wait is one again, so it is scaled.
  const scale = factorAfterFault(own.faultAt, now, config) / config.faultFactor
  const wholeAt = Math.floor(now + Math.max(0, own.wholeAt - now) * scale)
  return { ...state, providers: { ...state.providers, [peerId]: { ...own, faultAt: now, wholeAt } } }
}

interface Ready {
  input: SamplingInput
  class: AskClass
  /** Who is served first. */
  key: number
}

/**
 * What to ask now. To be called every second or few, once a minute at least: what is ready waits for the next call, and
 * what is a minute late counts as missed, and is drawn anew. Providers that are
 * not in `inputs` are forgotten. The state given is not changed.
 *
 * @param random unpredictable for providers
 */
export function plan(
  before: SamplingState,
  inputs: readonly SamplingInput[],
  now: number,
  random: Random,
  config: SamplingConfig = samplingDefaults
): { state: SamplingState; asks: Ask[] } {
  const { proofs: proofsBudget, wholes: wholesBudget } = budgetsOf(config)
  const proofs = filled(before.proofs, now, proofsBudget)
  const wholes = filled(before.wholes, now, wholesBudget)
  const providers: Record<string, Plan> = {}
  const ready: Ready[] = []
  for (const input of inputs) {
    const known = before.providers[input.peerId]
    const next = known === undefined ? firstPlan(now, random, config) : refreshed(known, input, now, random, config)
    providers[input.peerId] = next
    const askClass = classOf(next, input, now, config)
    if (askClass === undefined) continue
    const key = (next.readyAt ?? now) + askClasses.indexOf(askClass) * config.epochMs
    ready.push({ input, class: askClass, key })
  }
  ready.sort((a, b) => a.key - b.key)

  const asks: Ask[] = []
  for (const one of ready) {
    const own = providers[one.input.peerId]!
    const ask = askOf(one, own, proofsBudget.burst, now, config)
    if (ask.bytes > proofs.bytes) break
    proofs.bytes -= ask.bytes
    asks.push(ask)
    // Repeats have times of their own; the epoch's request stays as it is planned.
    providers[one.input.peerId] = ask.kind === 'repeat' ? { ...own, readyAt: null } : served(own, now, random, config)
  }
  const readers = inputs
    .filter(({ peerId, isOnline, isContained, shards }) => {
      return isOnline && !isContained && shards > 0 && providers[peerId]!.wholeAt <= now
    })
    .sort((a, b) => providers[a.peerId]!.wholeAt - providers[b.peerId]!.wholeAt)
  for (const { peerId } of readers) {
    if (limits.shardBytesMax > wholes.bytes) break
    wholes.bytes -= limits.shardBytesMax
    asks.push({ kind: 'whole', peerId, bytes: limits.shardBytesMax })
    const own = providers[peerId]!
    providers[peerId] = { ...own, wholeAt: nextWholeAt(own.faultAt, now, random, config) }
  }
  return { state: { v: 1, proofs, wholes, providers }, asks }
}

interface Budget {
  bytesPerMs: number
  burst: number
}

function budgetsOf(config: SamplingConfig): { proofs: Budget; wholes: Budget } {
  const budget = (share: number, atLeast: number): Budget => ({
    bytesPerMs: (config.bytesPerSecond * share) / 1000,
    burst: Math.max(config.bytesPerSecond * share * config.burstSeconds, atLeast)
  })
  const oneChallenge = config.requestBytes + config.challengeBytes
  return {
    proofs: budget(1 - config.wholeReadShare, oneChallenge),
    wholes: budget(config.wholeReadShare, limits.shardBytesMax)
  }
}

function filled({ bytes, at }: Bucket, now: number, { bytesPerMs, burst }: Budget): Bucket {
  return { bytes: Math.min(burst, bytes + Math.max(0, now - at) * bytesPerMs), at: now }
}

function firstPlan(now: number, random: Random, config: SamplingConfig): Plan {
  const epoch = Math.floor(now / config.epochMs)
  const wholeAt = nextWholeAt(null, now, random, config)
  return { ...drawn(epoch, now, random, config), askedAt: null, wholeAt, faultAt: null }
}

/** A time in the epoch, from `from` on. */
function drawn(
  epoch: number,
  from: number,
  random: Random,
  config: SamplingConfig
): Pick<Plan, 'epoch' | 'askAt' | 'readyAt'> {
  const start = Math.max(from, epoch * config.epochMs)
  const end = (epoch + 1) * config.epochMs
  return { epoch, askAt: Math.floor(start + random.next() * (end - start)), readyAt: null }
}

/**
 * What was planned for while nobody looked, or for a provider that could not be asked, is drawn anew: no herd at a
 * restart.
 */
function refreshed(known: Plan, input: SamplingInput, now: number, random: Random, config: SamplingConfig): Plan {
  if (!input.isOnline) return known.readyAt === null ? known : { ...known, readyAt: null }
  if (input.isContained) return { ...known, readyAt: input.repeats > 0 ? (known.readyAt ?? now) : null }
  if (known.readyAt !== null) return known
  const epoch = Math.floor(now / config.epochMs)
  const wholeAt = now - known.wholeAt >= hourMs ? nextWholeAt(known.faultAt, now, random, config) : known.wholeAt
  const isMissed = known.epoch < epoch && now - known.askAt >= minuteMs
  const isClockSetBack = known.epoch > epoch + 1
  if (isMissed || isClockSetBack) return { ...known, wholeAt, ...drawn(epoch, now, random, config) }
  const isReady = known.askAt <= now
  // The common case, a thousand times a second: nothing to do, and nothing made.
  return !isReady && wholeAt === known.wholeAt ? known : { ...known, wholeAt, readyAt: isReady ? now : null }
}

function served(own: Plan, now: number, random: Random, config: SamplingConfig): Plan {
  return { ...own, ...drawn(Math.floor(now / config.epochMs) + 1, now, random, config), askedAt: now }
}

function nextWholeAt(faultAt: number | null, now: number, random: Random, config: SamplingConfig): number {
  const meanMs = config.wholeReadEveryMs / factorAfterFault(faultAt, now, config)
  return Math.floor(now - Math.log(1 - random.next()) * meanMs)
}

function classOf(own: Plan, input: SamplingInput, now: number, config: SamplingConfig): AskClass | undefined {
  if (!input.isOnline || input.shards === 0) return undefined
  if (input.isContained) return input.repeats > 0 ? 'repeat' : undefined
  if (own.readyAt === null) return undefined
  if (input.due > 0 || now - (own.askedAt ?? own.readyAt) >= 2 * config.epochMs) return 'overdue'
  if (factorAfterFault(own.faultAt, now, config) > 1.5) return 'fault'
  return input.isVetted ? 'rest' : 'new'
}

function askOf({ input, class: askClass }: Ready, own: Plan, burst: number, now: number, config: SamplingConfig): Ask {
  const { peerId, shards } = input
  const affordable = Math.floor((burst - config.requestBytes) / config.challengeBytes)
  const most = Math.max(1, Math.min(challengesMax, affordable))
  const bytesOf = (challenges: number): number => config.requestBytes + Math.ceil(challenges * config.challengeBytes)
  if (askClass === 'repeat') {
    const challenges = Math.min(input.repeats, most)
    return { kind: 'repeat', peerId, challenges, bytes: bytesOf(challenges), class: askClass }
  }
  const wanted = sampleProbability(shards, factorAfterFault(own.faultAt, now, config), config)
  const probability = Math.min(wanted, most / shards)
  const sampled = probability * shards
  const due = Math.min(input.due, Math.floor(most - sampled))
  const challenges = sampled + due
  const epoch = Math.floor(now / config.epochMs)
  return { kind: 'sample', peerId, epoch, probability, due, challenges, bytes: bytesOf(challenges), class: askClass }
}
