/**
 * The audit loop: asks every provider for proofs of what it is to have, as `custody/sampling.ts` plans it, has
 * `custody/judge.ts` conclude what follows, and writes that down. Reads by clients and repairs count too: whoever makes them
 * tells by `observed`.
 *
 * Judgements and scores are in memory, a few kilobytes a provider, and in the index after each round; shards are never listed
 * but a page at a time.
 */
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { equalBytes, toHex, utf8 } from '../base/bytes.ts'
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { cidOfShard, matchesCid } from '../content/cid.ts'
import { isProvable } from '../custody/answers.ts'
import { type Challenge, repeatsMax, samplingAll } from '../custody/audit-messages.ts'
import { challengeOf, drawSeed, epochOf, isSampled, samplingOf } from '../custody/challenge.ts'
import {
  type ChallengeResult,
  deadlineMs,
  dueRepeats,
  isContained,
  isLastRepeat,
  isShardContained,
  type JudgeEffect,
  type JudgeEvent,
  type JudgeState,
  judge
} from '../custody/judge.ts'
import { canaries, contacted, newOutage, type OutageState, outageStateSchema } from '../custody/outage.ts'
import type { AuditReason, CustodyOutcome } from '../custody/outcome.ts'
import { type Ask, faulted, newSampling, plan, type SamplingState, samplingStateSchema } from '../custody/sampling.ts'
import {
  isLosing,
  newScore,
  type ScoreConfig,
  type ScoreRecord,
  type ScoreReport,
  type ScoreState,
  type Standing,
  scored,
  scoreReport
} from '../custody/score.ts'
import type { Trust } from '../discovery/directory.ts'
import type { Signer, VerifySignature } from '../market/offer.ts'
import type { CustodyRow, MetadataIndex, NewTranscript, TranscriptRow } from '../metadata/index-store.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { peerOutcomeOf } from '../transfer/scatter.ts'
import { type Exchange, putChallenges } from './audit/exchange.ts'
import { type AuditTimes, auditTimes } from './audit/pace.ts'
import {
  decodeRecord,
  encodeRecord,
  isOf,
  newRecord,
  type ProviderRecord,
  type Series
} from './audit/provider-record.ts'

export interface AuditorComponents {
  index: Pick<
    MetadataIndex,
    | 'findHolders'
    | 'listCustody'
    | 'listHolders'
    | 'listLeasesDue'
    | 'listTranscripts'
    | 'listUnproved'
    | 'loadAudit'
    | 'markHolding'
    | 'recordProofs'
    | 'saveAudit'
  >
  client: Pick<ProviderClient, 'getOffer' | 'getShard' | 'prove'>
  peers: Pick<Peers, 'domainsOf' | 'report' | 'state' | 'target'>
  signer: Signer
  /** The Ed25519 seed of the signer's key, 32 bytes: seeds of epochs are drawn with it. */
  secretKey: Uint8Array
  verifySignature: VerifySignature
  clock: Clock
  random: Random
  log: Log
  /** Lets others have the event loop. */
  pause: () => Promise<void>
  /** Absent: the verifiable random function. Simulations have no time for it. */
  drawSeed?: typeof drawSeed
  /**
   * Which of these blocks the provider has refused, signed. Absent: none is known to be, and who says so has said nothing.
   */
  confirmRefusals?: (provider: string, cids: readonly CID[]) => Promise<ReadonlySet<string>>
  /** A shard is known to be lost, or withdrawn: somebody should rebuild it. */
  onLost?: () => void
  /** An audit request has ended. */
  onAudit?: (event: AuditEvent) => void
}

export interface AuditorInit {
  /** Times as fast as usual; see `auditTimes`. */
  pace?: number
}

/** What became of one request, or of a read of a whole shard. */
export interface AuditEvent {
  provider: string
  outcomes: readonly CustodyOutcome[]
  elapsedMs: number
}

/** Challenges in one request: more would hold a provider's event loop for longer than a few milliseconds. */
const challengesAtOnce = 256
const pageRows = 256
const requestsAtOnce = 16
const wholeReadMsMax = 10 * secondMs
const offerMsMax = 4 * secondMs
/** How long transcripts are kept, and how many. */
const transcriptMsMax = 30 * 24 * 3600 * secondMs
const transcriptRowsMax = 200_000
const unprovedListed = 1000
const auditsListed = 1000
/** Transcripts in memory while somebody waits for an audit. */
const transcriptsAtOnce = 16
/** Transcripts looked through for such as show a fault. */
const evidencePagesMax = 4
const evidencePageRows = 100
/** Whole shards read in one look at what is to be put again: each may take ten seconds. */
const wholeRepeatsAtOnce = 2
/** Leases looked at to see whether one that a provider let go had ended. */
const lapsedLooked = 4096
/** Asking again whoever has too much to do, when a person waits for the answer. */
const overloadRetriesMax = 8
const overloadPauseMs = secondMs
/** Epochs of audits that people ask for, so that their seeds give nothing away of those to come. */
const askedEpochMs = secondMs

/** Plans are written down so often; what was concluded, with every round that concluded anything. */
const saveEveryMs = 60 * secondMs

const plansSchema = z.strictObject({ v: z.literal(1), sampling: samplingStateSchema, outage: outageStateSchema })

interface Group {
  /** When its seed was drawn; absent: it is issued when it is put. */
  issuedAt?: number
  challenges: Challenge[]
  epoch: number
  epochMs: number
  sampling: number
  vrfProof: Uint8Array
  repeats: { request: Uint8Array; attempt: number } | null
}

export interface AuditorStatus {
  /** Challenges that wait to be put again. */
  contained: number
  ownOutage: boolean
  standings: Record<Standing, number>
}

/** One request of an audit that somebody asked for. */
export interface AuditLine {
  provider: string
  askedAt: number
  tookMs: number
  challenges: number
  outcomes: Record<string, number>
  countersigned: boolean
}

export interface AuditSummary {
  /** The first thousand. */
  audits: AuditLine[]
  outcomes: Record<string, number>
  unproved: Array<{ cid: string; provider: string; outcome: CustodyOutcome }>
}

export class Auditor {
  readonly #components: AuditorComponents
  readonly #times: AuditTimes
  readonly #records = new Map<string, ProviderRecord>()
  readonly #dirty = new Set<string>()
  /** Of providers: how many shards are due, and when that was counted. */
  readonly #due = new Map<string, { count: number; at: number; oldestProof: number }>()
  /** When reads last counted for a provider. */
  readonly #readAt = new Map<string, number>()
  /** Placement asks for all of them at every segment; a record is replaced when it changes. */
  readonly #trusts = new WeakMap<ProviderRecord, Trust>()
  readonly #newcomer: Trust
  readonly #log: Log
  #sampling: SamplingState
  #outage: OutageState = newOutage()
  #transcripts: NewTranscript[] = []
  #reads = 0
  #working = Promise.resolve()
  readonly #concluding = new Set<Promise<void>>()
  #tickedAt = 0
  #savedAt = 0
  #savedOutage: OutageState['suspended'] = null
  /** Losses that the index did not take, by provider and CID. */
  readonly #unmarked = new Map<string, { peerId: string; cid: string; outcome: 'missing' | 'wrong' }>()
  /** The last exchange with a provider: two at once would be one too many for it. */
  readonly #turns = new Map<string, Promise<void>>()

  constructor(components: AuditorComponents, { pace }: AuditorInit = {}) {
    this.#components = components
    this.#times = auditTimes(pace)
    this.#log = components.log
    this.#sampling = newSampling(components.clock.now(), this.#times.sampling)
    this.#newcomer = trustIn(newScore(0, this.#times.score), this.#times.score)
  }

  get tickMs(): number {
    return this.#times.tickMs
  }

  /** Takes up what an earlier run knew. To be called before anything else. */
  async load(): Promise<void> {
    const { auditor, providers } = await this.#components.index.loadAudit()
    for (const { provider, state } of providers) {
      const record = decodeRecord(state)
      if (record !== undefined) this.#records.set(provider, record)
      else this.#log.warn('what was known of a provider cannot be read, so it begins anew', { provider })
    }
    if (auditor !== undefined) this.#takeUp(auditor)
    this.#agreeOnOutage()
  }

  #takeUp(plans: Uint8Array): void {
    try {
      const known = plansSchema.parse(JSON.parse(Buffer.from(plans).toString('utf8')))
      this.#sampling = known.sampling
      this.#outage = known.outage
      this.#savedOutage = known.outage.suspended
    } catch (error) {
      this.#log.warn('the plan of audits cannot be read, so it is made anew', { error: messageOf(error) })
    }
  }

  /** A provider that took an outage for going on that nobody knows of would never be judged again. */
  #agreeOnOutage(): void {
    const now = this.#components.clock.now()
    const { suspended } = this.#outage
    for (const [peerId, { judge: judged }] of [...this.#records]) {
      if (judged.isSuspended === (suspended !== null)) continue
      this.#judge(
        peerId,
        suspended === null ? { kind: 'resumed', now } : { kind: 'suspended', now, from: suspended.from }
      )
    }
  }

  /** One look at what is to be asked now; resolves when it has been asked and written down. */
  async round(signal: AbortSignal): Promise<void> {
    const { index, clock, random } = this.#components
    const now = clock.now()
    const holders = await index.listHolders()
    const holding = new Set(holders.map(({ provider }) => provider))
    await this.#countDue(holders)
    await this.#tick(now, holders)
    await this.#markUnmarked()
    const inputs = holders.map(({ provider, shards }) => {
      const record = this.#recordOf(provider)
      return {
        peerId: provider,
        isOnline: this.#isOnline(provider),
        shards,
        due: this.#due.get(provider)?.count ?? 0,
        isContained: isContained(record.judge),
        repeats: dueRepeats(record.judge, now, this.#times.judge).length,
        isVetted: record.score.isVetted
      }
    })
    const planned = plan(this.#sampling, inputs, now, random, this.#times.sampling)
    this.#sampling = planned.state
    await forEachLimit(planned.asks, requestsAtOnce, (ask) => this.#ask(ask, signal))
    await forEachLimit(canaries(this.#outage, clock.now(), random, 8, this.#times.outage), requestsAtOnce, (peerId) =>
      this.#call(peerId, signal)
    )
    for (const [peerId, { judge: judged, score }] of [...this.#records]) {
      if (holding.has(peerId)) continue
      // What it left unanswered is not its to keep any more, and nobody would ever ask it again.
      for (const { cid } of judged.waiting) this.#judge(peerId, { kind: 'dropped', now: clock.now(), cid })
      // One that holds nothing is remembered for what it did, as long as there are transcripts of it.
      if (now - (score.records.at(-1)?.until ?? 0) > transcriptMsMax) this.#forget(peerId)
    }
    if (this.#transcripts.length > 0 || clock.now() - this.#savedAt >= saveEveryMs) await this.save()
  }

  async #tick(now: number, holders: ReadonlyArray<{ provider: string }>): Promise<void> {
    const { judge: times } = this.#times
    if (now - this.#tickedAt < times.verdictDelayMs / 5) return
    this.#tickedAt = now
    const waitedFor = [...this.#records].filter(([, record]) => isContained(record.judge)).map(([provider]) => provider)
    for (const provider of new Set([...holders.map((holder) => holder.provider), ...waitedFor])) {
      for (const { cid, silentAt, nextAt } of this.#recordOf(provider).judge.waiting) {
        const isVerdictDue = silentAt.length > times.repeatGapsMs.length && nextAt <= now
        if (isVerdictDue && !(await this.#isToHave(provider, CID.parse(cid))))
          this.#judge(provider, { kind: 'dropped', now, cid })
      }
      this.#judge(provider, { kind: 'tick', now })
    }
  }

  /**
   * Writes down what has changed.
   *
   * @param isLast plans too, whenever they were last written
   */
  async save(isLast = false): Promise<void> {
    const { index, clock } = this.#components
    const now = clock.now()
    await Promise.all(this.#concluding)
    await this.#working
    const dirty = [...this.#dirty]
    const outage = this.#outage.suspended
    // Providers' records say whether there is one: both or neither.
    const isWhole = isLast || now - this.#savedAt >= saveEveryMs || outage?.since !== this.#savedOutage?.since
    const transcripts = this.#transcripts
    this.#dirty.clear()
    this.#transcripts = []
    try {
      await index.saveAudit({
        ...(isWhole ? { auditor: utf8.encode(JSON.stringify(this.#plans())) } : {}),
        providers: dirty.map((provider) => {
          const record = this.#records.get(provider)
          return { provider, state: record === undefined ? null : encodeRecord(record) }
        }),
        transcripts,
        ...(isWhole ? { keep: { since: now - transcriptMsMax, rowsMax: transcriptRowsMax } } : {})
      })
      if (isWhole) {
        this.#savedAt = now
        this.#savedOutage = outage
      }
    } catch (error) {
      for (const provider of dirty) this.#dirty.add(provider)
      this.#transcripts = [...transcripts, ...this.#transcripts].slice(-challengesAtOnce)
      throw error
    }
  }

  #plans(): { v: 1; sampling: SamplingState; outage: OutageState } {
    return { v: 1, sampling: this.#sampling, outage: this.#outage }
  }

  /**
   * What a client's or a repair's read of a whole shard, or a renewal of its lease, has shown. The shard's state in the index is
   * the reader's to write, once this has resolved: it never rejects.
   */
  async observed(provider: string, cid: CID, outcome: CustodyOutcome): Promise<void> {
    const { clock } = this.#components
    const now = clock.now()
    if (outcome === 'ok') {
      // A unit in favour is at most one an hour: a read a second is more than enough to see.
      const record = this.#records.get(provider)
      if (record === undefined) return
      const isWaiting = isShardContained(record.judge, cid.toString())
      if (!isWaiting && now - (this.#readAt.get(provider) ?? 0) < secondMs) return
      this.#readAt.set(provider, now)
      this.#judge(provider, { kind: 'read', now, cid: cid.toString() })
    } else if (outcome === 'missing' || outcome === 'wrong' || outcome === 'refused') {
      const result: ChallengeResult = { cid: cid.toString(), chunk: null, outcome }
      const concluding = this.#conclude(provider, [result], { id: `read ${this.#reads++} ${now}`, issuedAt: now })
        .catch((error: unknown) => this.#log.error('what a read showed was not taken in', { error: messageOf(error) }))
        .finally(() => this.#concluding.delete(concluding))
      this.#concluding.add(concluding)
      await concluding
    }
  }

  /** The directory has seen a provider come or go. */
  presence(peerId: string, isUp: boolean): void {
    const now = this.#components.clock.now()
    // Peers that keep nothing here come and go as they like: their going says nothing about this side.
    if (!this.#records.has(peerId)) return
    this.#contact(peerId, isUp)
    this.#judge(peerId, { kind: isUp ? 'online' : 'offline', now })
  }

  /** For placement. One that nobody has asked anything yet is as good as any that is new. */
  trustOf(peerId: string): Trust {
    const record = this.#records.get(peerId)
    if (record === undefined) return this.#newcomer
    let trust = this.#trusts.get(record)
    if (trust === undefined) {
      trust = trustIn(record.score, this.#times.score)
      this.#trusts.set(record, trust)
    }
    return trust
  }

  /** Undefined for a provider that was never asked. Events oldest first. */
  reportOf(peerId: string): { report: ScoreReport; events: ScoreRecord[]; contained: number } | undefined {
    const record = this.#records.get(peerId)
    if (record === undefined) return undefined
    const { score, judge: judged } = record
    const report = scoreReport(score, this.#components.clock.now(), this.#times.score)
    return { report, events: score.records, contained: judged.waiting.length }
  }

  /** Whether a challenge of this shard waits to be put again. */
  isContained(peerId: string, cid: CID): boolean {
    const record = this.#records.get(peerId)
    return record !== undefined && isShardContained(record.judge, cid.toString())
  }

  status(): AuditorStatus {
    const standings: Record<Standing, number> = { vetted: 0, vetting: 0, closed: 0, suspended: 0 }
    const now = this.#components.clock.now()
    let contained = 0
    for (const { judge: judged, score } of this.#records.values()) {
      standings[scoreReport(score, now, this.#times.score).standing]++
      contained += judged.waiting.length
    }
    return { contained, ownOutage: this.isOwnOutage, standings }
  }

  /** Judgement is suspended: so many unrelated providers are silent that it may be this side. */
  get isOwnOutage(): boolean {
    return this.#outage.suspended !== null
  }

  /** When the shard whose proof is oldest was last proved, as of the last count; null where one never was, or there is none. */
  get oldestProof(): number | null {
    const oldest = Math.min(...[...this.#due.values()].map(({ oldestProof }) => oldestProof))
    return Number.isFinite(oldest) && oldest > 0 ? oldest : null
  }

  /** Transcripts of a provider that show a fault or a silence, newest first. */
  async evidenceOf(peerId: string, limit: number): Promise<TranscriptRow[]> {
    const found: TranscriptRow[] = []
    let before: number | undefined
    for (let page = 0; page < evidencePagesMax && found.length < limit; page++) {
      await this.#components.pause()
      const { items, isTruncated } = await this.#components.index.listTranscripts({
        provider: peerId,
        before,
        limit: evidencePageRows
      })
      found.push(...items.filter(({ outcomes }) => Object.keys(outcomes).some((outcome) => outcome !== 'ok')))
      if (!isTruncated) break
      before = items.at(-1)!.id
    }
    return found.slice(0, limit)
  }

  /**
   * Puts a challenge for each shard now, because somebody asks.
   *
   * @param cids of the shards wanted; absent: all that the provider is to have
   * @throws HoldfastError `MISSING` for a provider that is to have nothing
   */
  async audit(peerId: string, cids: readonly CID[] | undefined, signal: AbortSignal): Promise<AuditSummary> {
    const summary: AuditSummary = { audits: [], outcomes: {}, unproved: [] }
    let any = false
    for await (const rows of this.#pages(peerId, cids)) {
      any = true
      signal.throwIfAborted()
      await this.#inTurn(peerId, () => this.#auditRows(peerId, rows, summary, signal))
      if (this.#transcripts.length >= transcriptsAtOnce) await this.save()
    }
    if (!any && cids === undefined) throw new HoldfastError('MISSING', `provider ${peerId} is to have no shards`)
    await this.save()
    return summary
  }

  async *#pages(peerId: string, cids: readonly CID[] | undefined): AsyncGenerator<CustodyRow[]> {
    const { index } = this.#components
    if (cids !== undefined) {
      const rows: CustodyRow[] = []
      for (const cid of cids) {
        const [row] = await index.listCustody(peerId, { after: before(cid), limit: 1 })
        if (row !== undefined && equalBytes(row.cid.bytes, cid.bytes)) rows.push(row)
      }
      for (let at = 0; at < rows.length; at += pageRows) yield rows.slice(at, at + pageRows)
      return
    }
    let after: CID | undefined
    for (;;) {
      const rows = await index.listCustody(peerId, { after, limit: pageRows })
      await this.#components.pause()
      if (rows.length > 0) yield rows
      if (rows.length < pageRows) return
      after = rows.at(-1)!.cid
    }
  }

  async #auditRows(peerId: string, rows: CustodyRow[], summary: AuditSummary, signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    let left = rows
    for (const { cid } of rows) this.#placedAnew(peerId, cid)
    for (let attempt = 0; left.length > 0; attempt++) {
      const isLast = attempt === overloadRetriesMax
      const group = this.#groupOf(peerId, askedEpochMs, samplingAll)
      group.challenges = left.map((row) => challengeOf(group.seed, row, 'asked'))
      const exchange = await this.#put(peerId, group, false, signal, !isLast)
      if (exchange === undefined) {
        // Nobody was asked: there is no transcript of it.
        summary.outcomes.offline = (summary.outcomes.offline ?? 0) + left.length
        summary.unproved.push(...unprovedOf(peerId, left, 'offline', summary))
        return
      }
      addTo(summary, exchange, peerId)
      const again: CustodyRow[] = []
      for (const [i, outcome] of exchange.outcomes.entries()) {
        if (outcome === 'unknown' && !isLast) again.push(left[i]!)
        else if (outcome !== 'ok') summary.unproved.push(...unprovedOf(peerId, [left[i]!], outcome, summary))
      }
      left = again
      if (left.length > 0) await clock.sleep(overloadPauseMs, signal)
    }
  }

  async #countDue(holders: ReadonlyArray<{ provider: string; shards: number }>): Promise<void> {
    const { index, clock } = this.#components
    const { epochMs, periodMs } = this.#times.sampling
    const now = clock.now()
    // Half an epoch is soon enough for what is due in a week, and spreads the counting.
    const stale = holders.filter(({ provider }) => now - (this.#due.get(provider)?.at ?? 0) > epochMs / 2).slice(0, 64)
    for (const { provider } of stale) {
      const rows = await index.listUnproved(provider, { before: now - periodMs, limit: challengesAtOnce })
      // What was never proved comes first.
      const [oldest] = await index.listUnproved(provider, { before: Number.MAX_SAFE_INTEGER, limit: 1 })
      this.#due.set(provider, {
        count: rows.length,
        at: now,
        oldestProof: oldest === undefined ? now : (oldest.lastProof ?? 0)
      })
    }
  }

  async #ask(ask: Ask, signal: AbortSignal): Promise<void> {
    const { peerId } = ask
    try {
      await this.#inTurn(peerId, async () => {
        if (ask.kind === 'repeat') await this.#repeat(peerId, signal)
        else if (ask.kind === 'whole') await this.#readWhole(peerId, undefined, signal)
        else await this.#sample(ask, signal)
      })
    } catch (error) {
      if (signal.aborted) throw error
      this.#log.error('an audit failed on this side', { provider: peerId, error: messageOf(error) })
    }
  }

  /** After what is being asked of this provider already. */
  async #inTurn(peerId: string, work: () => Promise<void>): Promise<void> {
    const working = (this.#turns.get(peerId) ?? Promise.resolve()).then(work)
    const turn = working
      .catch(() => {})
      .then(() => {
        if (this.#turns.get(peerId) === turn) this.#turns.delete(peerId)
      })
    this.#turns.set(peerId, turn)
    await working
  }

  async #sample(
    { peerId, probability, due, epoch }: Extract<Ask, { kind: 'sample' }>,
    signal: AbortSignal
  ): Promise<void> {
    const { index, clock } = this.#components
    const { epochMs, periodMs } = this.#times.sampling
    const now = clock.now()
    const sampling = samplingOf(probability)
    const group = this.#groupOf(peerId, epochMs, sampling)
    // It had to wait until its epoch was over. The next one's seed is for the request that is planned there.
    if (group.epoch !== epoch) return
    const chosen = new Set<string>()
    let batch: Challenge[] = []
    const send = async (): Promise<void> => {
      const challenges = batch
      batch = []
      if (challenges.length > 0) await this.#put(peerId, { ...group, challenges }, false, signal, false)
    }
    const add = async (row: CustodyRow, reason: AuditReason): Promise<void> => {
      if (!isProvable(row.cid) || chosen.has(row.cid.toString())) return
      chosen.add(row.cid.toString())
      this.#placedAnew(peerId, row.cid)
      batch.push(challengeOf(group.seed, row, reason))
      if (batch.length === challengesAtOnce) await send()
    }
    let after: CID | undefined
    for (;;) {
      const rows = await index.listCustody(peerId, { after, limit: pageRows })
      await this.#components.pause()
      for (const row of rows) if (isSampled(group.seed, row.cid, sampling)) await add(row, 'sampled')
      if (rows.length < pageRows) break
      after = rows.at(-1)!.cid
    }
    if (due > 0) {
      const rows = await index.listUnproved(peerId, { before: now - periodMs, limit: due })
      for (const row of rows) await add(row, isSampled(group.seed, row.cid, sampling) ? 'sampled' : 'due')
      const counted = this.#due.get(peerId)
      if (counted !== undefined) this.#due.set(peerId, { ...counted, at: 0 })
    }
    // Chance may draw none: whoever has gone unproved longest is asked for then, so that nobody is left in peace for an hour.
    if (chosen.size === 0) {
      const [row] = await index.listUnproved(peerId, { before: Number.MAX_SAFE_INTEGER, limit: 1 })
      if (row !== undefined) await add(row, 'due')
    }
    await send()
  }

  #groupOf(peerId: string, epochMs: number, sampling: number): Group & { seed: Uint8Array } {
    const { signer, secretKey, clock } = this.#components
    const draw = this.#components.drawSeed ?? drawSeed
    const issuedAt = clock.now()
    const epoch = epochOf(issuedAt, epochMs)
    const { proof, seed } = draw(secretKey, { epoch, epochMs, auditor: signer.peerId, provider: peerId })
    return { issuedAt, challenges: [], epoch, epochMs, sampling, vrfProof: proof, repeats: null, seed }
  }

  /** Puts the very same challenges again, those together that were together before. */
  async #repeat(peerId: string, signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    const groups = new Map<string, Series[]>()
    let reads = 0
    for (const key of dueRepeats(this.#recordOf(peerId).judge, clock.now(), this.#times.judge)) {
      const cid = CID.parse(key.cid)
      if (!(await this.#isToHave(peerId, cid))) {
        this.#judge(peerId, { kind: 'dropped', now: clock.now(), cid: key.cid })
        continue
      }
      const series = key.chunk === null ? undefined : this.#recordOf(peerId).series.find(isOf(key))
      if (series === undefined) {
        // A read of the whole shard; or what was not answered by silence: reading it all answers any challenge. A few at a time.
        if (reads++ >= wholeRepeatsAtOnce) continue
        await this.#readWhole(peerId, { cid, chunk: key.chunk }, signal)
        continue
      }
      const name = `${series.request} ${series.attempt}`
      groups.set(name, [...(groups.get(name) ?? []), series])
    }
    for (const group of groups.values()) {
      const { epoch, epochMs, sampling, vrfProof, request, attempt } = group[0]!
      await this.#put(
        peerId,
        {
          challenges: group.map(({ cid, chunk, bytes }) => ({ cid: CID.parse(cid), chunk, bytes, reason: 'repeat' })),
          epoch,
          epochMs,
          sampling,
          vrfProof: Buffer.from(vrfProof, 'base64'),
          repeats: { request: Buffer.from(request, 'base64'), attempt: Math.min(repeatsMax, attempt + 1) }
        },
        true,
        signal,
        false
      )
    }
  }

  /** @param isPatient whether answers that say nothing are to be left out of judgement: they will be asked for again */
  async #put(
    peerId: string,
    group: Group,
    isRepeat: boolean,
    signal: AbortSignal,
    isPatient: boolean
  ): Promise<Exchange | undefined> {
    const { peers, onAudit } = this.#components
    const target = peers.target(peerId)
    if (target === undefined || group.challenges.length === 0) return undefined
    const { issuedAt, challenges, epoch, epochMs, sampling, vrfProof, repeats } = group
    const record = this.#recordOf(peerId)
    const exchange = await putChallenges(
      this.#components,
      target,
      {
        issuedAt,
        challenges,
        epoch,
        epochMs,
        sampling,
        vrfProof,
        repeats,
        deadlineMs: deadlineMs(
          record.judge,
          challenges.length - 1,
          isRepeat && (challenges.some((one) => this.#isLast(record, one)) ? 'last' : true),
          this.#times.judge
        )
      },
      signal
    )
    this.#transcripts.push(exchange.transcript)
    if (exchange.outcomes.every((outcome) => outcome === 'offline')) peers.report(peerId, 'offline')
    onAudit?.({ provider: peerId, outcomes: exchange.outcomes, elapsedMs: exchange.elapsedMs })
    if (!exchange.isOwnDelay)
      this.#contact(
        peerId,
        exchange.outcomes.some((outcome) => outcome !== 'offline' && outcome !== 'timeout')
      )
    if (!exchange.isOwnDelay) this.#rememberSeries(peerId, group, exchange)
    const lastOk = exchange.outcomes.lastIndexOf('ok')
    const results = challenges.flatMap(({ cid, chunk }, i): ChallengeResult[] => {
      const outcome = exchange.outcomes[i]!
      if ((isPatient && outcome === 'unknown') || (exchange.isOwnDelay && outcome === 'timeout')) return []
      // The whole answer's time is that of its last proof.
      return [
        { cid: cid.toString(), chunk, outcome, ...(i === lastOk ? { elapsedMs: this.#perAnswer(exchange, i) } : {}) }
      ]
    })
    await this.#conclude(peerId, results, { id: toHex(exchange.digest), issuedAt: exchange.askedAt })
    if (exchange.outcomes.some((outcome) => outcome !== 'ok' && outcome !== 'offline'))
      this.#log.info('an audit was not answered as it should be', {
        provider: peerId,
        outcomes: exchange.transcript.outcomes
      })
    return exchange
  }

  #isLast({ judge: judged }: ProviderRecord, { cid, chunk }: Challenge): boolean {
    return isLastRepeat(judged, { cid: cid.toString(), chunk }, this.#times.judge)
  }

  /** How long an answer took, as far as can be told: one stream brings them all. */
  #perAnswer({ elapsedMs }: Exchange, index: number): number {
    return Math.max(1, Math.round(elapsedMs / (index + 1)))
  }

  /** What timed out will be put again just as it was. */
  #rememberSeries(peerId: string, group: Group, { outcomes, digest }: Exchange): void {
    const record = this.#recordOf(peerId)
    const attempt = group.repeats?.attempt ?? 0
    const { epoch, epochMs, sampling } = group
    const vrfProof = Buffer.from(group.vrfProof).toString('base64')
    const series = group.challenges.flatMap(({ cid, chunk, bytes }, i): Series[] => {
      if (outcomes[i] !== 'timeout') return []
      const request = Buffer.from(digest).toString('base64')
      return [{ cid: cid.toString(), chunk, bytes, epoch, epochMs, sampling, vrfProof, request, attempt }]
    })
    if (series.length === 0) return
    const others = record.series.filter((one) => !series.some(isOf(one)))
    this.#set(peerId, { ...record, series: [...others, ...series].slice(-1024) })
  }

  /**
   * Reads a shard as any client does: who answers audits alone, or kept half of it, fails here.
   *
   * @param again what is put again; absent: any shard of the provider's
   */
  async #readWhole(
    peerId: string,
    again: { cid: CID; chunk: number | null } | undefined,
    signal: AbortSignal
  ): Promise<void> {
    const { client, clock, peers, onAudit } = this.#components
    const cid = again?.cid ?? (await this.#anyShard(peerId))
    const target = peers.target(peerId)
    if (cid === undefined || target === undefined) return
    const askedAt = clock.now()
    let outcome: CustodyOutcome
    try {
      const bytes = await withDeadline(clock, wholeReadMsMax, signal, (inner) => client.getShard(target, cid, inner))
      outcome = matchesCid(cid, bytes) ? 'ok' : 'wrong'
    } catch (error) {
      signal.throwIfAborted()
      const failed = peerOutcomeOf(error)
      outcome = failed === 'full' ? 'unknown' : failed
    }
    if (outcome === 'offline') peers.report(peerId, 'offline')
    onAudit?.({ provider: peerId, outcomes: [outcome], elapsedMs: clock.now() - askedAt })
    this.#contact(peerId, outcome !== 'offline' && outcome !== 'timeout')
    const chunk = outcome === 'ok' ? null : (again?.chunk ?? null)
    await this.#conclude(peerId, [{ cid: cid.toString(), chunk, outcome }], {
      id: `whole ${this.#reads++} ${askedAt}`,
      issuedAt: askedAt
    })
  }

  /** One at random: the first behind a random place in the order of CIDs. */
  async #anyShard(peerId: string): Promise<CID | undefined> {
    const { index, random } = this.#components
    const after = cidOfShard(random.bytes(32))
    const [row] = await index.listCustody(peerId, { after, limit: 1 })
    const cid = (row ?? (await index.listCustody(peerId, { limit: 1 }))[0])?.cid
    if (cid !== undefined) this.#placedAnew(peerId, cid)
    return cid
  }

  /** Whether the provider is there, for whoever doubts it. */
  async #call(peerId: string, signal: AbortSignal): Promise<void> {
    const { client, clock, peers } = this.#components
    const target: ProviderRef | undefined = peers.target(peerId)
    if (target === undefined) return
    try {
      await withDeadline(clock, offerMsMax, signal, (inner) => client.getOffer(target, inner))
      this.#contact(peerId, true)
    } catch {
      signal.throwIfAborted()
      this.#contact(peerId, false) // for whatever reason: it is not there for us
    }
  }

  async #isToHave(peerId: string, cid: CID): Promise<boolean> {
    return (await this.#debtOf(peerId, cid)) === 'owed'
  }

  /**
   * A provider may let go what was given back to it, and what its lease has ended for: that it does not have such a block is no
   * fault of its own, however the question crossed the release.
   */
  async #debtOf(peerId: string, cid: CID): Promise<'owed' | 'given back' | 'lapsed'> {
    const { index, clock } = this.#components
    const holders = await index.findHolders(cid)
    const holder = holders.find(({ provider }) => provider === peerId)
    if (holder === undefined || holder.state === 'unknown' || holder.state === 'withdrawn') return 'given back'
    const lapsed = await index.listLeasesDue(peerId, clock.now(), lapsedLooked)
    return lapsed.some((lease) => equalBytes(lease.cid.bytes, cid.bytes)) ? 'lapsed' : 'owed'
  }

  async #conclude(
    peerId: string,
    results: readonly ChallengeResult[],
    { id, issuedAt }: { id: string; issuedAt: number }
  ): Promise<void> {
    const { clock, index, onLost } = this.#components
    const kept: ChallengeResult[] = []
    for (const result of await this.#withProvenRefusals(peerId, results)) {
      const cid = CID.parse(result.cid)
      const debt = result.outcome === 'missing' ? await this.#debtOf(peerId, cid) : 'owed'
      if (debt === 'owed') {
        kept.push(result)
        continue
      }
      this.#judge(peerId, { kind: 'dropped', now: clock.now(), cid: result.cid })
      if (debt === 'given back') continue
      // Nobody's fault, and gone all the same.
      await index.markHolding(peerId, cid, 'missing')
      onLost?.()
    }
    if (kept.length === 0) return
    await this.#judge(peerId, { kind: 'batch', now: clock.now(), id, issuedAt, results: kept })
  }

  /** A refusal takes the shard off the provider without harm to its score, so it has to be signed for each block. */
  async #withProvenRefusals(peerId: string, results: readonly ChallengeResult[]): Promise<readonly ChallengeResult[]> {
    const refused = results.filter(({ outcome }) => outcome === 'refused')
    if (refused.length === 0) return results
    const cids = refused.map(({ cid }) => CID.parse(cid))
    const proven = await this.#components.confirmRefusals?.(peerId, cids)
    return results.map((result) =>
      result.outcome === 'refused' && proven?.has(result.cid) !== true ? { ...result, outcome: 'unknown' } : result
    )
  }

  /** A shard that was lost and is to be here again was given to the provider anew. */
  #placedAnew(peerId: string, cid: CID): void {
    const key = cid.toString()
    if (this.#recordOf(peerId).judge.lost.includes(key))
      this.#judge(peerId, { kind: 'dropped', now: this.#components.clock.now(), cid: key })
  }

  /** Resolves when what follows from it is in the index. */
  #judge(peerId: string, event: JudgeEvent): Promise<void> {
    const record = this.#recordOf(peerId)
    const { state, effects } = judge(record.judge, event, this.#times.judge)
    if (effects.length === 0 && isUnchanged(record.judge, state)) return Promise.resolve()
    const score = effects.length === 0 ? record.score : scored(record.score, effects, this.#times.score)
    const isWaitedFor = (one: Series): boolean => state.waiting.some(isOf(one))
    const series = record.series.length === 0 ? record.series : record.series.filter(isWaitedFor)
    this.#set(peerId, { v: 1, judge: state, score, series })
    this.#sayIfFallen(peerId, record, effects)
    return this.#work(() => this.#apply(peerId, effects, event))
  }

  async #apply(peerId: string, effects: readonly JudgeEffect[], event: JudgeEvent): Promise<void> {
    const { index, onLost } = this.#components
    let isLost = false
    for (const effect of effects) {
      if (effect.kind === 'proved' && event.kind !== 'read') {
        await index.recordProofs(
          peerId,
          effect.cids.map((cid) => CID.parse(cid)),
          effect.at
        )
      } else if (effect.kind === 'lost') {
        this.#log.warn('a shard is lost', {
          provider: peerId,
          cid: effect.cid,
          outcome: effect.outcome,
          why: effect.why
        })
        this.#sampling = faulted(this.#sampling, peerId, effect.at, this.#times.sampling)
        this.#unmarked.set(`${peerId} ${effect.cid}`, { peerId, cid: effect.cid, outcome: effect.outcome })
        await this.#markUnmarked()
        isLost = true
      } else if (effect.kind === 'withdrawn') {
        await index.markHolding(peerId, CID.parse(effect.cid), 'withdrawn')
        isLost = true
      }
    }
    if (isLost) onLost?.()
  }

  /** A loss that the index did not take is tried again: the judge will not say it twice. */
  async #markUnmarked(): Promise<void> {
    for (const [key, { peerId, cid, outcome }] of [...this.#unmarked]) {
      await this.#components.index.markHolding(peerId, CID.parse(cid), outcome)
      this.#unmarked.delete(key)
    }
  }

  #sayIfFallen(peerId: string, before: ProviderRecord, effects: readonly JudgeEffect[]): void {
    if (!effects.some(({ kind }) => kind === 'lost')) return
    const now = this.#components.clock.now()
    const was = scoreReport(before.score, now, this.#times.score)
    const is = scoreReport(this.#recordOf(peerId).score, now, this.#times.score)
    if (was.standing !== is.standing)
      this.#log.warn('a provider changed its standing', {
        provider: peerId,
        from: was.standing,
        to: is.standing,
        why: is.why
      })
  }

  #contact(peerId: string, isUp: boolean): void {
    const now = this.#components.clock.now()
    const domains = this.#components.peers.domainsOf(peerId)
    const { state, effects } = contacted(this.#outage, { now, peerId, domains, isUp }, this.#times.outage)
    this.#outage = state
    for (const effect of effects) {
      this.#log.warn(effect.kind === 'suspended' ? 'nobody is judged for now' : 'providers are judged again', {
        why: effect.why
      })
      for (const each of [...this.#records.keys()]) {
        this.#judge(
          each,
          effect.kind === 'suspended' ? { kind: 'suspended', now, from: effect.from } : { kind: 'resumed', now }
        )
      }
    }
  }

  #isOnline(peerId: string): boolean {
    const state = this.#components.peers.state(peerId)
    return (state === 'online' || state === 'contained') && this.#components.peers.target(peerId) !== undefined
  }

  #recordOf(peerId: string): ProviderRecord {
    let record = this.#records.get(peerId)
    if (record === undefined) {
      record = newRecord(this.#components.clock.now(), this.#outage.suspended !== null, this.#times.score)
      this.#set(peerId, record)
    }
    return record
  }

  #set(peerId: string, record: ProviderRecord): void {
    this.#records.set(peerId, record)
    this.#dirty.add(peerId)
  }

  #forget(peerId: string): void {
    this.#records.delete(peerId)
    this.#due.delete(peerId)
    this.#readAt.delete(peerId)
    this.#dirty.add(peerId)
  }

  /** One after the other, so that what is concluded later is written later. */
  #work(work: () => Promise<void>): Promise<void> {
    const working = this.#working.then(work)
    this.#working = working.catch((error: unknown) =>
      this.#log.error('a conclusion could not be written down', { error: messageOf(error) })
    )
    return working
  }
}

/** Neither figure depends on the time. */
function trustIn(score: ScoreState, config: ScoreConfig): Trust {
  const { weight, standing } = scoreReport(score, score.firstSeenAt, config)
  return { weight, standing, isLosing: isLosing(score, config) }
}

function addTo({ audits, outcomes }: AuditSummary, exchange: Exchange, provider: string): void {
  const { transcript, challenges, countersigned, elapsedMs } = exchange
  for (const [outcome, count] of Object.entries(transcript.outcomes))
    outcomes[outcome] = (outcomes[outcome] ?? 0) + count
  if (audits.length >= auditsListed) return
  audits.push({
    provider,
    askedAt: transcript.askedAt,
    tookMs: elapsedMs,
    challenges: challenges.length,
    outcomes: transcript.outcomes,
    countersigned
  })
}

/** Most ticks change nothing: no reason to write. What the judge leaves alone it passes on as it is, so no comparing in depth. */
function isUnchanged(before: JudgeState, after: JudgeState): boolean {
  return (Object.keys(after) as Array<keyof JudgeState>).every((key) => after[key] === before[key])
}

/** The place just before a CID in the order of their bytes; undefined for the beginning. */
function before(cid: CID): CID | undefined {
  const bytes = cid.bytes.slice()
  for (let at = bytes.length - 1; at >= bytes.length - cid.multihash.digest.length; at--) {
    if (bytes[at]!-- > 0) return CID.decode(bytes)
  }
  return undefined // all zeros
}

function unprovedOf(
  provider: string,
  rows: readonly CustodyRow[],
  outcome: CustodyOutcome,
  { unproved }: AuditSummary
): AuditSummary['unproved'] {
  return rows.slice(0, unprovedListed - unproved.length).map(({ cid }) => ({ cid: cid.toString(), provider, outcome }))
}
