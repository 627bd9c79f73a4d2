/**
 * What gateways think of this provider: asked for, checked, kept, and said aloud when it is less than before, so that
 * no score falls in silence. Asked are those that lease something here, every ten minutes or so, and soon after an
 * audit in which this provider had to say that something is missing. All of it is bounded; nobody else can make it
 * ask or keep more than that.
 */
import { toHex } from '../base/bytes.ts'
import type { Clock } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { dayMs, hourMs, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { blake3 } from '../content/blake3.ts'
import type { Signed } from '../custody/audit-messages.ts'
import type { ScoreRecord, ScoreReport, Standing } from '../custody/score.ts'
import { type DecodedTranscript, decodeTranscript } from '../custody/transcript.ts'
import { TranscriptVerifier } from '../custody/verify-transcript.ts'
import type { VerifySignature } from '../market/offer.ts'
import type { Network } from '../net/network.ts'
import { askForScore, type ScoreAnswer, scoreEventsMax } from '../transfer/score-protocol.ts'
import type { OwnerTotals } from './lease-store.ts'
import type { SignedAnswers } from './proof-service.ts'
import {
  againstMax,
  type Evidence,
  evidenceMax,
  findingsMax,
  type GatewayScore,
  gatewaysMax,
  groundsOf,
  noScores,
  readScores,
  type Scores,
  statementsMax,
  writeScores
} from './scores-file.ts'

/** Gateways asked at once. */
const askWidth = 4
/** A gateway that does not answer is asked less and less often, down to this. */
const askEveryMsMax = 6 * hourMs
/** A gateway that leases nothing any more is forgotten after this. */
const forgottenAfterMs = 30 * dayMs
/** Statements that wait to be told apart: those to gateways are kept, those to strangers are nobody's business. */
const unsortedMax = 256
/** Of falls logged for one answer; the rest is counted. */
const fallsLoggedMax = 16
/** What a repeat may refer to: an answer has 16 transcripts. */
const verifierMemory = { rememberedRequestsMax: 256, rememberedTimeoutsMax: 8192 }

export interface OwnScoresComponents {
  network: Pick<Network, 'peerId' | 'request'>
  storage: { owners: (limit: number) => Promise<OwnerTotals[]> }
  verifySignature: VerifySignature
  clock: Clock
  random: Random
  log: Log
}

export interface OwnScoresInit {
  /** Holds `scores.json`. */
  dataDir: string
  /**
   * Ten minutes. After a fault it takes a sixtieth of it; between two questions to a gateway there is a tenth at
   * least.
   */
  askEveryMs?: number
}

/** What is remembered of a gateway beside what is kept in the file. */
interface Appointment {
  nextAt: number
  askedAt: number
  failures: number
  verifier: TranscriptVerifier
}

export class OwnScores {
  readonly #components: OwnScoresComponents
  readonly #log: Log
  readonly #dataDir: string
  readonly #askEveryMs: number
  readonly #soonMs: number
  #scores: Scores
  #isChanged = false
  readonly #appointments = new Map<string, Appointment>()
  #unsorted: SignedAnswers[] = []
  readonly #stopping = new AbortController()
  #wake = new AbortController()
  #running: Promise<void> | undefined

  private constructor(components: OwnScoresComponents, init: OwnScoresInit, scores: Scores) {
    const { dataDir, askEveryMs = 10 * minuteMs } = init
    this.#components = components
    this.#log = components.log.child('scores')
    this.#dataDir = dataDir
    this.#askEveryMs = askEveryMs
    this.#soonMs = askEveryMs / 60
    this.#scores = scores
  }

  /** With what was kept; where that is damaged, with nothing: it can be asked for again. */
  static async open(components: OwnScoresComponents, init: OwnScoresInit): Promise<OwnScores> {
    let scores = noScores
    try {
      scores = await readScores(init.dataDir)
    } catch (error) {
      if (!isCode(error, 'DAMAGED')) throw error
      components.log.warn('what gateways said of this provider cannot be read, and is asked for anew', {
        error: error.message
      })
    }
    return new OwnScores(components, init, scores)
  }

  /** As they are now, in the file or about to be. */
  get scores(): Scores {
    return this.#scores
  }

  /** Takes note of what this provider signed, and of whom to ask what came of it. */
  signed(answers: SignedAnswers): void {
    if (answers.against.length === 0 || this.#unsorted.length === unsortedMax) return
    this.#unsorted.push(answers)
    this.#wake.abort('there is something to ask about')
  }

  /** Asks from now on, until `stop`. */
  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the provider stops'))
    await this.#running
    this.#sortStatements() // of audits since the last turn
    await this.#save()
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    while (!signal.aborted) {
      try {
        await clock.sleep(Math.min(secondMs, this.#soonMs), signal) // whoever wakes us all the time gains nothing
        const nextAt = await this.turn(signal)
        this.#wake = new AbortController()
        if (this.#unsorted.length > 0) continue
        const asleep = AbortSignal.any([signal, this.#wake.signal])
        await clock.sleep(Math.max(0, nextAt - clock.now()), asleep).catch((error) => {
          if (!this.#wake.signal.aborted) throw error
        })
      } catch (error) {
        if (!signal.aborted) this.#log.error('scores could not be asked for', { error: messageOf(error) })
      }
    }
  }

  /**
   * Asks those whose turn it is, and keeps what they say.
   *
   * @returns when there is something to do again, unless somebody audits in the meantime
   */
  async turn(signal?: AbortSignal): Promise<number> {
    const { clock } = this.#components
    await this.#meetGateways()
    this.#sortStatements()
    const now = clock.now()
    const due = [...this.#appointments].filter(([, { nextAt }]) => nextAt <= now)
    await forEachLimit(due, askWidth, ([gateway, appointment]) => this.#ask(gateway, appointment, signal))
    await this.#save()
    const soonest = Math.min(...[...this.#appointments.values()].map(({ nextAt }) => nextAt))
    return Math.min(soonest, clock.now() + Math.min(minuteMs, this.#askEveryMs))
  }

  /** Those that lease most, and those that did a while ago. */
  async #meetGateways(): Promise<void> {
    const { storage, clock, network } = this.#components
    const owners = await storage.owners(gatewaysMax + 1)
    const others = owners.map(({ owner }) => owner).filter((owner) => owner !== network.peerId)
    const names = new Set(others.slice(0, gatewaysMax))
    const now = clock.now()
    const known = this.#scores.gateways
    const isNew = (owner: string): boolean => known.every(({ gateway }) => gateway !== owner)
    const lessees = known.filter(({ gateway }) => names.has(gateway))
    const former = known.filter(
      ({ gateway, answeredAt }) => !names.has(gateway) && (answeredAt ?? 0) > now - forgottenAfterMs
    )
    const all = [...lessees, ...[...names].filter(isNew).map(stranger), ...former]
    this.#change({ gateways: all.slice(0, gatewaysMax) })
    for (const { gateway } of this.#scores.gateways) {
      if (!this.#appointments.has(gateway)) this.#appointments.set(gateway, this.#newAppointment())
    }
    const kept = new Set(this.#scores.gateways.map(({ gateway }) => gateway))
    for (const gateway of this.#appointments.keys()) if (!kept.has(gateway)) this.#appointments.delete(gateway)
  }

  #newAppointment(): Appointment {
    const { clock, random, verifySignature } = this.#components
    const nextAt = clock.now() + this.#soonMs * (0.5 + 3 * random.next())
    const verifier = new TranscriptVerifier({ verifySignature, ...verifierMemory })
    return { nextAt, askedAt: Number.NEGATIVE_INFINITY, failures: 0, verifier }
  }

  #sortStatements(): void {
    const { random } = this.#components
    for (const { auditor, request, answeredAt, challenges, against } of this.#unsorted.splice(0)) {
      const appointment = this.#appointments.get(auditor)
      if (appointment === undefined) continue
      const soon = answeredAt + this.#soonMs * (0.5 + random.next())
      appointment.nextAt = Math.min(appointment.nextAt, Math.max(soon, appointment.askedAt + 6 * this.#soonMs))
      const statement = {
        at: answeredAt,
        auditor,
        request: toHex(request),
        challenges,
        faults: against.length,
        against: against.slice(0, againstMax).map(({ cid, kind }) => ({ cid: cid.toString(), kind }))
      }
      this.#change({ statements: [statement, ...this.#scores.statements].slice(0, statementsMax) })
    }
  }

  async #ask(gateway: string, appointment: Appointment, signal: AbortSignal | undefined): Promise<void> {
    const { network, clock, random } = this.#components
    const before = this.#scores.gateways.find((one) => one.gateway === gateway)!
    const isFirst = appointment.askedAt === Number.NEGATIVE_INFINITY
    appointment.askedAt = clock.now()
    try {
      // The first time all of it, since the verifier begins with nothing to hold repeats against.
      const after = isFirst ? undefined : lastTimeOf(before)
      const answer = await askForScore(network, { peerId: gateway, addresses: [] }, { after, signal })
      const evidence = await this.#examine(before, answer.evidence, appointment.verifier)
      const gained = { answeredAt: clock.now(), failure: null, score: answer.score }
      const now: GatewayScore = { ...before, ...gained, events: merged(before.events, answer.events), evidence }
      this.#replace(now)
      this.#tell(before, now, answer)
      appointment.failures = 0
    } catch (error) {
      if (signal?.aborted === true) return
      appointment.failures += 1
      const code = error instanceof HoldfastError ? error.code : 'INTERNAL'
      const failure = { at: clock.now(), code, why: messageOf(error).slice(0, 1024) }
      this.#replace({ ...before, failure })
      this.#log.debug('a gateway did not say what it thinks of us', { gateway, error: failure.why })
    }
    const everyMs = Math.min(this.#askEveryMs * 2 ** Math.min(appointment.failures, 16), askEveryMsMax)
    appointment.nextAt = clock.now() + Math.max(everyMs, this.#askEveryMs) * (0.75 + random.next() / 2)
  }

  /** What the transcripts show; those that were seen before are not looked at again. */
  async #examine(
    { gateway, evidence }: GatewayScore,
    shown: readonly Signed[],
    verifier: TranscriptVerifier
  ): Promise<Evidence[]> {
    const found: Evidence[] = []
    for (const signed of shown) {
      const id = toHex(blake3(signed.bytes))
      const isKnown = evidence.some((one) => one.id === id) || found.some((one) => one.id === id)
      const decoded = this.#aboutUs(gateway, signed)
      if (decoded === undefined) continue
      const findings = await verifier.verify(signed) // known ones too: repeats refer to them
      if (isKnown) continue
      const notable = findings
        .filter(({ case: name }) => name !== 'proved')
        .map(({ case: name, subject }) => ({
          case: name,
          cid: subject?.cid.toString() ?? null,
          outcome: subject?.outcome ?? null
        }))
      const request = toHex(blake3(decoded.transcript.request.bytes))
      const { askedAt } = decoded.transcript
      const refuted = findings.find(({ verdict }) => verdict === 'refuted')
      if (refuted !== undefined) {
        this.#log.warn('a gateway shows evidence that speaks against itself', { gateway, request, why: refuted.why })
      }
      found.push({ id, request, askedAt, challenges: findings.length, findings: notable.slice(0, findingsMax) })
    }
    return [...found.reverse(), ...evidence].slice(0, evidenceMax)
  }

  #aboutUs(gateway: string, { bytes }: Signed): DecodedTranscript | undefined {
    try {
      const decoded = decodeTranscript(bytes)
      const { auditor, provider } = decoded.request
      if (auditor === gateway && provider === this.#components.network.peerId) return decoded
      this.#log.warn('a gateway shows evidence about others', { gateway, auditor, provider })
    } catch (error) {
      if (!isCode(error, 'PROTOCOL')) throw error
      this.#log.warn('a gateway shows evidence that cannot be read', { gateway, error: messageOf(error) })
    }
    return undefined
  }

  /** Every fall, with its reason; and what has none. */
  #tell(before: GatewayScore, now: GatewayScore, answer: ScoreAnswer): void {
    const { gateway } = now
    const falls = answer.events.filter((event) => event.after < event.before && isNews(event, before.events)).reverse()
    for (const { at, kind, shard, before: from, after: to, why } of falls.slice(-fallsLoggedMax)) {
      const grounds = groundsOf({ at, until: at, count: 1, kind, shard, before: from, after: to, why }, now.evidence)
      this.#log.warn('a gateway lowered the score of this provider', {
        ...{ gateway, kind, from: rounded(from), to: rounded(to), why, at: new Date(at).toISOString() },
        ...(shard === undefined ? {} : { shard }),
        ...(grounds === undefined ? {} : { evidence: grounds })
      })
    }
    const left = falls.length - fallsLoggedMax
    if (left > 0) this.#log.warn('and earlier ones', { gateway, events: left })
    if (before.score === null || now.score === null) return
    for (const what of ['custody', 'availability'] as const) {
      const isExplained = falls.some(({ kind }) => (kind === 'absent') === (what === 'availability'))
      if (isExplained || !isLess(before.score[what], now.score[what])) continue
      const [from, to] = [rounded(before.score[what]), rounded(now.score[what])]
      this.#log.warn('a gateway lowered the score of this provider and does not say why', { gateway, what, from, to })
    }
    if (standings.indexOf(now.score.standing) < standings.indexOf(before.score.standing)) {
      const { standing, why } = now.score
      this.#log.warn('this provider lost standing with a gateway', {
        gateway,
        from: before.score.standing,
        standing,
        why
      })
    }
  }

  #replace(now: GatewayScore): void {
    this.#change({ gateways: this.#scores.gateways.map((one) => (one.gateway === now.gateway ? now : one)) })
  }

  #change(part: Partial<Scores>): void {
    const changed = { ...this.#scores, ...part }
    const names = (scores: Scores): string => scores.gateways.map(({ gateway }) => gateway).join()
    const isSame =
      changed.statements === this.#scores.statements &&
      names(changed) === names(this.#scores) &&
      changed.gateways.every((one, i) => one === this.#scores.gateways[i])
    this.#scores = changed
    this.#isChanged ||= !isSame
  }

  async #save(): Promise<void> {
    if (!this.#isChanged) return
    this.#isChanged = false
    try {
      await writeScores(this.#dataDir, this.#scores)
    } catch (error) {
      this.#isChanged = true
      this.#log.error('scores could not be kept', { error: messageOf(error) })
    }
  }
}

/** Worst first. */
const standings: readonly Standing[] = ['suspended', 'closed', 'vetting', 'vetted']

const stranger = (gateway: string): GatewayScore => ({
  gateway,
  answeredAt: null,
  failure: null,
  score: null,
  events: [],
  evidence: []
})

/** By the gateway's clock, as far as we have heard. */
function lastTimeOf({ events, evidence }: GatewayScore): number | undefined {
  const last = Math.max(0, ...events.map(({ until }) => until), ...evidence.map(({ askedAt }) => askedAt))
  return last === 0 ? undefined : last
}

/** A record that has grown is the same one. */
const isSameRecord = (a: ScoreRecord, b: ScoreRecord): boolean =>
  a.at === b.at && a.kind === b.kind && a.shard === b.shard

const isNews = (event: ScoreRecord, known: readonly ScoreRecord[]): boolean =>
  !known.some((one) => isSameRecord(one, event) && one.count >= event.count)

function merged(known: readonly ScoreRecord[], said: readonly ScoreRecord[]): ScoreRecord[] {
  const rest = known.filter((one) => !said.some((event) => isSameRecord(event, one)))
  return [...said, ...rest].sort((a, b) => b.until - a.until).slice(0, scoreEventsMax)
}

/** Numbers are worked out anew each time: the last digits are noise. */
const isLess = (before: number, now: number): boolean => now < before - 1e-6
const rounded = (value: ScoreReport['custody']): number => Math.round(value * 1000) / 1000
