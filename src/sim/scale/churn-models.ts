/**
 * Churn models: seeded generators of comings and goings. Each provider has a stream of its own, so that a longer time or
 * more providers change nothing of what there was. Where a parameter is no measurement it says so.
 *
 * In all of them somebody new joins in the place of whoever leaves for good, after a day on average, so that the network
 * keeps its size; a fifth of those who lose their disk go on with an empty one (an assumption), and are found out by audits
 * instead of by their absence.
 */
import { dayMs, hourMs, minuteMs, secondMs } from '../../base/limits.ts'
import { type SeededRandom, seededRandom } from '../seeded-random.ts'
import { type Draw, exponential, lognormal, weibull, weibullMean, weibullThrough } from './distributions.ts'
import { regionOf, zoneHours } from './latency.ts'
import { type EventKind, type ProviderTraits, type Timeline, TimelineBuilder } from './timeline.ts'

/** Lengths are in milliseconds. */
export interface SessionModel {
  on: Draw
  off: Draw
  /** For good, since it joined. */
  life: Draw
  /** Share of such losses after which the owner goes on with an empty disk. */
  wipedShare: number
  /** Share of time for which it is on: where it stands at the beginning. */
  onShare: number
}

export interface ChurnModel {
  name: string
  /** In one sentence, with the parameters. */
  what: string
  /** Where its numbers come from. */
  source: string
  sessionOf: (provider: number, random: SeededRandom) => SessionModel
  /** On at local day, away at night, instead of by `on` and `off`. */
  isDiurnal?: boolean
  /** What takes many at once. */
  disasters?: readonly Disaster[]
}

/** Strikes each group of those who have this in common, at a rate of its own. */
interface Disaster {
  shared: 'operator' | 'network' | 'version'
  everyMs: number
  /** Away for so long; each one's return is spread by `spreadMs`. */
  off: Draw
  spreadMs: number
  /** Probability that the disks are gone afterwards, for all of them together, and then of each. */
  lossChance: number
  lossShare: number
}

const always = Number.POSITIVE_INFINITY
const never: Draw = () => always
const halfYear = exponential(180 * dayMs)

const sessions = (on: Draw, off: Draw, onShare: number, life: Draw): SessionModel => ({
  on,
  off,
  life,
  wipedShare: 0.2,
  onShare
})

/** Losses a node and day: of professionally run storage providers. */
export const professionalLossesPerDay = 5.4e-5
const professional = sessions(
  exponential(30 * dayMs),
  lognormal(30 * minuteMs, 1),
  0.999,
  exponential(dayMs / professionalLossesPerDay)
)

/** What RFM 2 says of new peers: half are gone in 2 hours, 80% in 8, and a tenth stays for all of the measurement. */
export const dhtSessions = { gone: [0.5, 0.8] as const, atHours: [2, 8] as const, alwaysOn: 0.1 }

/** Of those who are not always on: their sessions are Weibull's through the two points. */
export const dhtFit = weibullThrough(
  { at: dhtSessions.atHours[0] * hourMs, share: dhtSessions.gone[0] / (1 - dhtSessions.alwaysOn) },
  { at: dhtSessions.atHours[1] * hourMs, share: dhtSessions.gone[1] / (1 - dhtSessions.alwaysOn) }
)
const dhtOffMs = 6 * hourMs
const dhtOnShare = weibullMean(dhtFit.scale, dhtFit.shape) / (weibullMean(dhtFit.scale, dhtFit.shape) + dhtOffMs)
const weibullSession = { scale: 12 * hourMs, shape: 0.5 }

export const churnModels = [
  {
    name: 'departure',
    what: 'Always there until it leaves for good: exponential, 180 days on average.',
    source: 'The Markov model’s own assumption; 180 days is what repair assumes before it has measured anything.',
    sessionOf: () => sessions(never, never, 1, halfYear)
  },
  {
    name: 'exponential',
    what: 'Sessions of 3 days, absences of 6 hours, a life of 180 days, all exponential.',
    source: 'The usual textbook model; its numbers are assumptions.',
    sessionOf: () => sessions(exponential(3 * dayMs), exponential(6 * hourMs), 72 / 78, halfYear)
  },
  {
    name: 'weibull',
    what: 'Weibull sessions of shape 0.5 and 24 hours on average, absences of 3 hours (exponential), a life of 180 days.',
    source:
      'Stutzbach and Rejaie, Understanding Churn in Peer-to-Peer Networks (IMC 2006): Weibull with shapes 0.38 to 0.59; the means are assumptions.',
    sessionOf: () =>
      sessions(weibull(weibullSession.scale, weibullSession.shape), exponential(3 * hourMs), 24 / 27, halfYear)
  },
  {
    name: 'diurnal',
    what: 'On from about 7 to 23 of local time, one day in twenty not at all, a life of 180 days.',
    source:
      'The shape of home machines (Bhagwan, Savage, Voelker, Understanding Availability, IPTPS 2003); the numbers are assumptions.',
    sessionOf: () => sessions(never, never, 2 / 3, halfYear),
    isDiurnal: true
  },
  {
    name: 'professional',
    what: '5.4e-5 losses a node and day; away every 30 days, for half an hour (median, lognormal).',
    source: 'Losses a node-day as measured on professional providers; the short absences are assumptions.',
    sessionOf: () => professional
  },
  {
    name: 'correlated',
    what: 'Professional providers, and what takes many at once: a datacenter away for 6 hours every 2 years (one time in 20 for good), an operator that goes out of business every 5 years, a client version that fails every 180 days for 4 hours (one time in 10 it costs 2% of the disks).',
    source: 'The kinds are from postmortems; every rate here is an assumption, chosen to be worse than what is usual.',
    sessionOf: () => professional,
    disasters: [
      {
        shared: 'network',
        everyMs: 730 * dayMs,
        off: lognormal(6 * hourMs, 0.8),
        spreadMs: 10 * minuteMs,
        lossChance: 0.05,
        lossShare: 1
      },
      { shared: 'operator', everyMs: 1825 * dayMs, off: exponential(hourMs), spreadMs: 0, lossChance: 1, lossShare: 1 },
      {
        shared: 'version',
        everyMs: 180 * dayMs,
        off: lognormal(4 * hourMs, 0.5),
        spreadMs: 2 * hourMs,
        lossChance: 0.1,
        lossShare: 0.02
      }
    ]
  },
  {
    name: 'ipfs',
    what: `A tenth always on; of the others half (of all) gone in 2 hours and 80% in 8: Weibull of shape ${dhtFit.shape.toFixed(2)}; away for 6 hours on average; a life of 60 days, 180 of those always on.`,
    source:
      'Sessions: ProbeLab, RFM 2 Uptime and Churn (2022). Absences and lives are assumptions: a crawl does not tell who comes back.',
    sessionOf: (_provider, random) =>
      random.chance(dhtSessions.alwaysOn)
        ? sessions(never, never, 1, halfYear)
        : sessions(weibull(dhtFit.scale, dhtFit.shape), exponential(dhtOffMs), dhtOnShare, exponential(60 * dayMs))
  }
] as const satisfies readonly ChurnModel[]

export type ChurnModelName = (typeof churnModels)[number]['name']

/** @throws RangeError for a name that is none */
export function churnModelOf(name: string): ChurnModel {
  const model = churnModels.find((one) => one.name === name)
  if (model === undefined) throw new RangeError(`no churn model is called ${name}`)
  return model
}

export interface TimelineInit {
  seed: number | string
  providers: number
  durationMs: number
}

/** Providers an operator runs, and machines on one network, on average. */
const operatorProviders = 20
const networkProviders = 50
const versions = 5
const replacedMs = dayMs

export function timelineOf(model: ChurnModel, { seed, providers, durationMs }: TimelineInit): Timeline {
  const random = seededRandom(`${seed}/${model.name}`)
  const builder = new TimelineBuilder()
  const seconds = Math.floor(durationMs / secondMs)
  const traits = Array.from({ length: providers }, (_, i) => traitsOf(random.fork(`traits${i}`), providers))
  const struck = strikesOf(model, traits, durationMs, random.fork('disasters'))
  const isOnAtStart = new Uint8Array(providers)
  for (let i = 0; i < providers; i++) {
    const own = new OwnTimeline(model, i, traits[i]!, struck[i]!, random.fork(`provider${i}`))
    isOnAtStart[i] = own.run(seconds, (second, kind) => builder.add(second, i, kind)) ? 1 : 0
  }
  return builder.build(traits, isOnAtStart, seconds)
}

/** Small networks have at least as many groups as a code of 20 needs. */
function traitsOf(random: SeededRandom, providers: number): ProviderTraits {
  const operators = Math.max(24, Math.ceil(providers / operatorProviders))
  const networks = Math.max(24, Math.ceil(providers / networkProviders))
  return {
    region: regionOf(random),
    operator: random.int(operators),
    network: random.int(networks),
    // The newest versions are the most common.
    version: Math.min(versions - 1, Math.floor(random.exponential(1)))
  }
}

interface Strike {
  fromMs: number
  /** Infinite: it leaves for good. */
  toMs: number
}

/** What strikes each provider, in order of time. */
function strikesOf(
  { disasters = [] }: ChurnModel,
  traits: readonly ProviderTraits[],
  durationMs: number,
  random: SeededRandom
): Strike[][] {
  const struck: Strike[][] = traits.map(() => [])
  for (const { shared, everyMs, off, spreadMs, lossChance, lossShare } of disasters) {
    const members = Map.groupBy(traits.keys(), (i) => traits[i]![shared])
    for (const [group, those] of [...members].sort(([a], [b]) => a - b)) {
      const own = random.fork(`${shared}${group}`)
      for (let at = own.exponential(everyMs); at < durationMs; at += own.exponential(everyMs)) {
        const offMs = off(own)
        const isLoss = own.chance(lossChance)
        for (const i of those) {
          const isGone = isLoss && own.chance(lossShare)
          struck[i]!.push({ fromMs: at, toMs: isGone ? always : at + offMs + own.next() * spreadMs })
        }
      }
    }
  }
  for (const strikes of struck) strikes.sort((a, b) => a.fromMs - b.fromMs)
  return struck
}

/** Of one provider, and of whoever takes its place. */
class OwnTimeline {
  readonly #model: ChurnModel
  readonly #provider: number
  readonly #zoneMs: number
  readonly #strikes: readonly Strike[]
  readonly #random: SeededRandom
  #nextStrike = 0

  constructor(
    model: ChurnModel,
    provider: number,
    traits: ProviderTraits,
    strikes: readonly Strike[],
    random: SeededRandom
  ) {
    this.#model = model
    this.#provider = provider
    this.#zoneMs = (24 + zoneHours[traits.region]!) * hourMs
    this.#strikes = strikes
    this.#random = random
  }

  /** @returns whether it is there at the beginning */
  run(seconds: number, emit: (second: number, kind: EventKind) => void): boolean {
    const random = this.#random
    let session = this.#model.sessionOf(this.#provider, random)
    let now = 0
    let last = 0
    const at = (ms: number, kind: EventKind): boolean => {
      // Two things that happen to one provider do so in different seconds, in their order.
      last = Math.max(last + 1, Math.round(ms / secondMs))
      if (last >= seconds) return false
      now = last * secondMs
      emit(last, kind)
      return true
    }
    let deathMs = session.life(random)
    const startsOn = this.#model.isDiurnal === true ? this.#isDay(0) : random.chance(session.onShare)
    let isOn = startsOn
    for (;;) {
      const turnMs = isOn ? this.#offAt(now, session) : this.#onAt(now, session)
      const strike = this.#strikeAfter(now)
      if (Math.min(turnMs, deathMs, strike?.fromMs ?? always) === always) return startsOn
      if (
        deathMs <= Math.min(turnMs, strike?.fromMs ?? always) ||
        (strike?.toMs === always && strike.fromMs <= turnMs)
      ) {
        const whenMs = Math.min(deathMs, strike?.fromMs ?? always)
        if (strike !== undefined && strike.fromMs <= whenMs) this.#nextStrike++
        const isWiped = isOn && strike?.fromMs !== whenMs && random.chance(session.wipedShare)
        if (!at(whenMs, isWiped ? 'wiped' : 'leaves')) return startsOn
        if (!isWiped) {
          if (!at(now + random.exponential(replacedMs), 'joins')) return startsOn
          session = this.#model.sessionOf(this.#provider, random)
        }
        isOn = true
        deathMs = now + session.life(random)
      } else if (strike !== undefined && strike.fromMs <= turnMs) {
        this.#nextStrike++
        if (isOn && !at(strike.fromMs, 'off')) return startsOn
        if (!at(isOn ? strike.toMs : Math.max(strike.toMs, turnMs), 'on')) return startsOn
        isOn = true
      } else {
        if (!at(turnMs, isOn ? 'off' : 'on')) return startsOn
        isOn = !isOn
      }
    }
  }

  /** What falls into a time in which it was away already passes it by. */
  #strikeAfter(now: number): Strike | undefined {
    while ((this.#strikes[this.#nextStrike]?.fromMs ?? always) < now) this.#nextStrike++
    return this.#strikes[this.#nextStrike]
  }

  #isDay(atMs: number): boolean {
    const hour = ((atMs + this.#zoneMs) % dayMs) / hourMs
    return hour >= 7 && hour < 23
  }

  #offAt(now: number, { on }: SessionModel): number {
    if (this.#model.isDiurnal !== true) return now + on(this.#random)
    return this.#localHour(now, 23)
  }

  #onAt(now: number, { off }: SessionModel): number {
    if (this.#model.isDiurnal !== true) return now + off(this.#random)
    const daysOff = this.#random.chance(0.05) ? 1 : 0
    return this.#localHour(now, 7) + daysOff * dayMs
  }

  /** The next time that it is this hour there, give or take half an hour. */
  #localHour(now: number, hour: number): number {
    const local = now + this.#zoneMs
    const today = Math.floor(local / dayMs) * dayMs + hour * hourMs
    // An hour's slack, or a late evening would be followed by another on the same day.
    const next = today > local + hourMs ? today : today + dayMs
    return next - this.#zoneMs + this.#random.between(-0.5, 0.5) * hourMs
  }
}
