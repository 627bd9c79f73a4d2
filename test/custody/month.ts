/**
 * A month of audits at the level of decisions: sampling, judge, outage and score wired as an audit loop wires them,
 * over providers that are numbers. Everything follows from a seed.
 */

import { dayMs, hourMs, minuteMs } from '../../src/base/limits.ts'
import type { Random } from '../../src/base/random.ts'
import {
  type ChallengeKey,
  type ChallengeResult,
  deadlineMs,
  dueRepeats,
  isContained,
  isLastRepeat,
  type JudgeEffect,
  type JudgeEvent,
  type JudgeState,
  judge,
  newJudge
} from '../../src/custody/judge.ts'
import { canaries, contacted, newOutage } from '../../src/custody/outage.ts'
import type { CustodyOutcome } from '../../src/custody/outcome.ts'
import { faulted, newSampling, plan, type SamplingInput } from '../../src/custody/sampling.ts'
import { newScore, type ScoreReport, type ScoreState, scored, scoreReport } from '../../src/custody/score.ts'
import { type SeededRandom, seededRandom } from '../../src/sim/seeded-random.ts'

/** How a provider that does not keep what it should behaves. `share`: of its shards. */
export type Dishonesty =
  | { kind: 'lost'; share: number; says: CustodyOutcome }
  | { kind: 'half of each' }
  | { kind: 'silent' }
  | { kind: 'no reads' }
  /** Silent first; what it is asked again so often it has fetched meanwhile, and reads may take long enough for it. */
  | { kind: 'fetches'; repeats: number }

export interface OwnOutage {
  from: number
  until: number
  /** Connections fail, or are made and nothing comes. */
  as: 'offline' | 'timeout'
}

export interface MonthInit {
  seed: string
  honest: number
  dishonest?: readonly Dishonesty[]
  days: number
  shards: number
  outages: readonly OwnOutage[]
}

interface Span {
  from: number
  until: number
}

export interface SimulatedProvider {
  peerId: string
  domain: string
  dishonesty: Dishonesty | undefined
  absences: Span[]
  /** Answers take seconds to minutes in them. */
  slowSpells: Span[]
  latencyMs: number
  judge: JudgeState
  score: ScoreState
  lostAt: Array<{ at: number; outcome: string; cid: string }>
  worst: ScoreReport
  /** When it first had no right to new shards, and was suspended. */
  closedAt: number | undefined
  suspendedAt: number | undefined
  asked: number
  timeouts: number
  containments: number
  random: SeededRandom
}

export interface MonthResult {
  providers: SimulatedProvider[]
  suspensions: Array<{ at: number; until: number | undefined }>
  bytes: number
}

const isIn = (spans: readonly Span[], at: number): boolean => spans.some(({ from, until }) => at >= from && at < until)

/** Times of an alternation: up for about `upMs`, then away for as long as is drawn. */
function spansOf(untilMs: number, random: SeededRandom, upMs: number, awayMs: () => number): Span[] {
  const spans: Span[] = []
  for (let at = random.exponential(upMs); at < untilMs; ) {
    const until = at + awayMs()
    spans.push({ from: at, until })
    at = until + random.exponential(upMs)
  }
  return spans
}

function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
}
const logNormal = (random: Random, median: number, sigma: number): number => median * Math.exp(sigma * normal(random))

/**
 * 70 of 100 are servers (restarts, once in ten days), 30 stand at home (every other day away, for a night at times).
 */
function simulatedProvider(i: number, dishonesty: Dishonesty | undefined, untilMs: number, root: SeededRandom) {
  const random = root.fork(`provider ${i}`)
  const isHome = i % 10 >= 7
  const absences = isHome
    ? spansOf(untilMs, random, 2 * dayMs, () => Math.min(14 * hourMs, logNormal(random, 40 * minuteMs, 1.3)))
    : spansOf(untilMs, random, 10 * dayMs, () => Math.min(6 * hourMs, logNormal(random, 8 * minuteMs, 1)))
  const slowSpells = spansOf(untilMs, random, 4 * dayMs, () => Math.min(hourMs, logNormal(random, 12 * minuteMs, 0.8)))
  const score = newScore(0)
  const provider: SimulatedProvider = {
    peerId: `p${i}`,
    // Some share an operator: 100 providers are 80 groups.
    domain: `op:${i % 80}`,
    dishonesty,
    absences: dishonesty === undefined ? absences : [],
    slowSpells: dishonesty === undefined ? slowSpells : [],
    latencyMs: logNormal(random, isHome ? 60 : 25, 0.6),
    judge: newJudge(),
    score,
    lostAt: [],
    worst: scoreReport(score, 0),
    closedAt: undefined,
    suspendedAt: undefined,
    asked: 0,
    timeouts: 0,
    containments: 0,
    random
  }
  return provider
}

/** What becomes of challenges put to it: one by one down a stream, where each waits for those before it. */
function answers(
  provider: SimulatedProvider,
  keys: readonly ChallengeKey[],
  isRepeat: boolean,
  now: number
): ChallengeResult[] {
  const { random } = provider
  if (isIn(provider.absences, now)) return keys.map((key) => ({ ...key, outcome: 'offline' }))
  const isSlow = isIn(provider.slowSpells, now)
  let elapsedMs = logNormal(random, provider.latencyMs, 0.5)
  // Heavy tail: one request in 200 stalls, for half a second or (Pareto, exponent 1.1) much longer.
  if (random.chance(0.005)) elapsedMs += 500 * (1 - random.next()) ** (-1 / 1.1)
  if (isSlow) elapsedMs += logNormal(random, 3000, 1)
  return keys.map((key, i) => {
    elapsedMs += logNormal(random, 8, 0.5)
    const outcome = lie(provider, key)
    if (
      elapsedMs > deadlineMs(provider.judge, i, isRepeat && (isLastRepeat(provider.judge, key) ? 'last' : true)) ||
      outcome === 'timeout'
    )
      return { ...key, outcome: 'timeout' }
    return { ...key, outcome: outcome ?? 'ok', elapsedMs }
  })
}

const shardOf = (cid: string): number => Number(cid.split('/')[1])

function lie(
  { dishonesty, judge: { waiting } }: SimulatedProvider,
  { cid, chunk }: ChallengeKey
): CustodyOutcome | undefined {
  switch (dishonesty?.kind) {
    case 'lost':
      return shardOf(cid) < dishonesty.share * 1000 ? dishonesty.says : undefined
    case 'half of each':
      return chunk === null || chunk >= 512 ? 'wrong' : undefined
    case 'silent':
      return 'timeout'
    case 'no reads':
      return chunk === null ? 'timeout' : undefined
    case 'fetches': {
      const silences = waiting.find((one) => one.cid === cid && one.chunk === chunk)?.silentAt.length ?? 0
      return chunk === null || silences >= dishonesty.repeats ? undefined : 'timeout'
    }
    default:
      return undefined
  }
}

/** `shards` is 1000 where somebody is dishonest: `lie` counts in thousandths. */
export function simulateMonth({ seed, honest, dishonest = [], days, shards, outages }: MonthInit): MonthResult {
  const root = seededRandom(seed)
  const untilMs = days * dayMs
  const providers = Array.from({ length: honest + dishonest.length }, (_, i) =>
    simulatedProvider(i, dishonest[i - honest], untilMs, root)
  )
  const byId = new Map(providers.map((provider) => [provider.peerId, provider]))
  const inputs: SamplingInput[] = providers.map(({ peerId }) => ({
    peerId,
    isOnline: true,
    shards,
    due: 0,
    isContained: false,
    repeats: 0,
    isVetted: false
  }))
  const result: MonthResult = { providers, suspensions: [], bytes: 0 }
  let sampling = newSampling(0)
  let outage = newOutage()
  const random = root.fork('auditor')
  const ownOutage = (now: number): OwnOutage | undefined =>
    outages.find(({ from, until }) => now >= from && now < until)

  function put(provider: SimulatedProvider, event: JudgeEvent): void {
    const judged = judge(provider.judge, event)
    provider.judge = judged.state
    if (judged.effects.length > 0) conclude(provider, judged.effects, event.now)
  }
  function conclude(provider: SimulatedProvider, effects: readonly JudgeEffect[], now: number): void {
    provider.score = scored(provider.score, effects)
    for (const effect of effects) {
      if (effect.kind === 'contained') provider.containments++
      if (effect.kind !== 'lost') continue
      provider.lostAt.push({ at: now, outcome: effect.outcome, cid: effect.cid })
      sampling = faulted(sampling, provider.peerId, now)
    }
    const report = scoreReport(provider.score, now)
    const { worst } = provider
    if (report.custody < worst.custody || report.availability < worst.availability) {
      provider.worst = {
        ...report,
        custody: Math.min(report.custody, worst.custody),
        availability: Math.min(report.availability, worst.availability)
      }
    }
    if (report.standing === 'closed' || report.standing === 'suspended') provider.closedAt ??= now
    if (report.standing === 'suspended') provider.suspendedAt ??= now
  }
  function contact(provider: SimulatedProvider, isUp: boolean, now: number): void {
    const next = contacted(outage, { now, peerId: provider.peerId, domains: [provider.domain], isUp })
    outage = next.state
    for (const effect of next.effects) {
      if (effect.kind === 'suspended') result.suspensions.push({ at: now, until: undefined })
      else result.suspensions.at(-1)!.until = now
      const event: JudgeEvent =
        effect.kind === 'suspended' ? { kind: 'suspended', now, from: effect.from } : { kind: 'resumed', now }
      for (const each of providers) put(each, event)
    }
  }
  function ask(provider: SimulatedProvider, keys: readonly ChallengeKey[], isRepeat: boolean, now: number): void {
    if (keys.length === 0) return // none drawn, or an outage was recognised since this was planned
    const own = ownOutage(now)
    const results =
      own === undefined
        ? answers(provider, keys, isRepeat, now)
        : keys.map((key): ChallengeResult => ({ ...key, outcome: own.as }))
    provider.asked += results.length
    provider.timeouts += results.filter(({ outcome }) => outcome === 'timeout').length
    put(provider, { kind: 'batch', now, id: `${now} ${isRepeat} ${keys[0]!.chunk === null}`, issuedAt: now, results })
    contact(
      provider,
      results.some(({ outcome }) => outcome !== 'offline' && outcome !== 'timeout'),
      now
    )
  }
  const drawn = (provider: SimulatedProvider, chunk: number | null): ChallengeKey => {
    return { cid: `${provider.peerId}/${random.int(shards)}`, chunk }
  }
  /** What the directory sees of presence, unless audits see it first: arrivals always, departures half of the time. */
  function presence(provider: SimulatedProvider, now: number): void {
    const isAway = isIn(provider.absences, now)
    const knows = provider.judge.isOnline
    if (ownOutage(now)?.as === 'offline') {
      if (knows === true && random.chance(0.1)) {
        put(provider, { kind: 'offline', now })
        contact(provider, false, now)
      }
    } else if (isAway && knows !== false && random.chance(0.03)) {
      put(provider, { kind: 'offline', now })
      contact(provider, false, now)
    } else if (!isAway && knows !== true) {
      put(provider, { kind: 'online', now })
      contact(provider, true, now)
    }
  }

  for (let now = 0; now < untilMs; now += minuteMs) {
    for (const [i, provider] of providers.entries()) {
      presence(provider, now)
      if (now % (5 * minuteMs) === 0) put(provider, { kind: 'tick', now })
      const input = inputs[i]!
      input.isOnline = provider.judge.isOnline !== false
      input.isContained = isContained(provider.judge)
      input.repeats = input.isContained ? dueRepeats(provider.judge, now).length : 0
      input.isVetted = provider.score.isVetted
    }
    const next = plan(sampling, inputs, now, random)
    sampling = next.state
    for (const one of next.asks) {
      const provider = byId.get(one.peerId)!
      result.bytes += one.bytes
      if (one.kind === 'repeat') ask(provider, dueRepeats(provider.judge, now), true, now)
      else if (one.kind === 'whole') ask(provider, [drawn(provider, null)], false, now)
      else {
        const count = Math.floor(one.challenges + random.next())
        const keys = Array.from({ length: count }, () => drawn(provider, random.int(1024)))
        ask(provider, keys, false, now)
      }
    }
    for (const peerId of canaries(outage, now, random)) {
      const provider = byId.get(peerId)!
      contact(provider, ownOutage(now) === undefined && !isIn(provider.absences, now), now)
    }
  }
  return result
}
