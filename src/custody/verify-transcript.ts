/**
 * Replays what auditors signed: offline, with no trust in auditor or provider. Blame needs a signature of the one who
 * is blamed: an auditor is at fault for what it signed and what contradicts it, a provider for answers that it signed.
 * What rests on one side's word alone is `unproven`, and so is all that an auditor writes down where the other side
 * withheld its signature, or hung up: or a provider could make an honest auditor look guilty. What an auditor gains by
 * saying so of its own accord is what it always had by throwing the answer away: a transcript that shows nothing. All
 * ways in which a challenge can end here stand in `findingCases`.
 */
import { equalBytes, toHex } from '../base/bytes.ts'
import { isCode } from '../base/errors.ts'
import { minuteMs } from '../base/limits.ts'
import { blake3 } from '../content/blake3.ts'
import { verifySlice } from '../content/blake3-slice.ts'
import { type CID, hashes } from '../content/cid.ts'
import type { VerifySignature } from '../market/offer.ts'
import {
  type AnswerKind,
  type AnswerStatement,
  type AuditRequest,
  answerDigest,
  answerKinds,
  answerStatementCodec,
  answersDigest,
  type Challenge,
  challengeChunkBytes,
  repeatsMax,
  type Signed,
  type signingPrefixes,
  toSign
} from './audit-messages.ts'
import { chunkOf, epochOf, isSampled, verifySeed } from './challenge.ts'
import type { CustodyOutcome } from './outcome.ts'
import { type ChallengeResult, type DecodedTranscript, decodeTranscript, readTranscripts } from './transcript.ts'

export type Fault = 'auditor' | 'provider' | 'nobody'
/**
 * - `agreed`: both signed for it, and it is as they say.
 * - `unproven`: nothing speaks against it, and nothing but somebody's word for it.
 * - `refuted`: what the auditor signed contradicts itself, or the provider's signature, or arithmetic.
 */
export type Verdict = 'agreed' | 'unproven' | 'refuted'

interface FindingCase {
  verdict: Verdict
  atFault: Fault
  why: string
}

/** Everything that can be found, in the order in which it is looked for. The same table stands in FORMATS.md. */
export const findingCases = {
  // the file
  damaged: { verdict: 'unproven', atFault: 'nobody', why: 'the line is not a transcript' },
  unsigned: { verdict: 'unproven', atFault: 'nobody', why: 'not signed by the auditor that it names' },
  // the request
  miscounted: { verdict: 'refuted', atFault: 'auditor', why: 'not a result for each challenge' },
  disordered: { verdict: 'refuted', atFault: 'auditor', why: 'its times are not in order, or not in its epoch' },
  'not-the-seed': { verdict: 'refuted', atFault: 'auditor', why: 'the seed is not of this epoch and provider' },
  'not-a-shard': { verdict: 'refuted', atFault: 'auditor', why: 'nothing can be proved of such a block' },
  'not-drawn': { verdict: 'refuted', atFault: 'auditor', why: 'said to be drawn by the seed, and is not' },
  'not-the-chunk': { verdict: 'refuted', atFault: 'auditor', why: 'not the chunk that the seed asks for' },
  'not-a-repeat': { verdict: 'refuted', atFault: 'auditor', why: 'repeats what did not time out before' },
  // answers that the provider signed
  proved: { verdict: 'agreed', atFault: 'nobody', why: 'a proof, signed by the provider, taken by the auditor' },
  wrong: { verdict: 'agreed', atFault: 'provider', why: 'signed an answer that does not verify' },
  missing: { verdict: 'agreed', atFault: 'provider', why: 'signed that it does not have the block, or not intact' },
  refused: { verdict: 'agreed', atFault: 'nobody', why: 'signed that it does not keep the block' },
  overloaded: { verdict: 'agreed', atFault: 'nobody', why: 'signed that it had too much to do' },
  clocks: { verdict: 'unproven', atFault: 'nobody', why: 'the two clocks are too far apart to say when it answered' },
  late: { verdict: 'unproven', atFault: 'nobody', why: 'answered and signed, too late by the clock of the auditor' },
  'proved-late': { verdict: 'refuted', atFault: 'auditor', why: 'taken, though it came after the deadline' },
  altered: { verdict: 'refuted', atFault: 'auditor', why: 'not the outcome of the answer that the provider signed' },
  // signed by the provider, or not
  'wrong-unshown': { verdict: 'refuted', atFault: 'auditor', why: 'called wrong, and the answer is not shown' },
  'wrong-right': { verdict: 'refuted', atFault: 'auditor', why: 'called wrong, and it verifies' },
  // nothing that the provider signed
  contradictory: { verdict: 'refuted', atFault: 'auditor', why: 'by the digest noted, or none, it was not so' },
  unbacked: { verdict: 'unproven', atFault: 'nobody', why: 'not signed by the provider; only the auditor says so' },
  exhausted: { verdict: 'unproven', atFault: 'nobody', why: 'no answer to the last repeat; only the auditor says so' },
  'exhausted-unshown': { verdict: 'unproven', atFault: 'nobody', why: 'the last repeat of what is not all above it' },
  timeout: { verdict: 'unproven', atFault: 'nobody', why: 'no answer in time; only the auditor says so' },
  cut: { verdict: 'unproven', atFault: 'nobody', why: 'ended without answer before its deadline, whoever ended it' },
  offline: { verdict: 'unproven', atFault: 'nobody', why: 'not reached; only the auditor says so' },
  unknown: { verdict: 'unproven', atFault: 'nobody', why: 'no answer that says anything' },
  foreign: { verdict: 'unproven', atFault: 'nobody', why: 'the statement is not signed by the provider' },
  replayed: { verdict: 'unproven', atFault: 'nobody', why: 'the statement is of another request' },
  mismatched: { verdict: 'unproven', atFault: 'nobody', why: 'the statement is of other answers' }
} as const satisfies Record<string, FindingCase>
export type FindingName = keyof typeof findingCases

export interface Finding extends FindingCase {
  case: FindingName
  /** What it is about; absent where that cannot be read. */
  subject?: {
    auditor: string
    provider: string
    /** By the auditor's clock. */
    askedAt: number
    cid: CID
    chunk: number
    outcome: CustodyOutcome
  }
}

/** How far the clocks of auditor and provider may be apart: what people without NTP get used to. */
const skewMsMax = 5 * minuteMs
/** Timers fire early by as much, at most; and what came in time may be looked at later by as much. */
const timerEarlyMsMax = 50
const timerLateMsMax = 1000

/** The provider's signature over exactly these answers; or what is the matter with the statement. */
type Countersignature = AnswerStatement | 'none' | 'foreign' | 'replayed' | 'mismatched'

/** Answers without bytes have one digest each, for all challenges: so a digest says what it is of. */
const kindByDigest = new Map<string, AnswerKind>(
  answerKinds
    .filter((kind) => kind !== 'proof')
    .map((kind) => [toHex(answerDigest({ kind, slice: new Uint8Array(0) })), kind])
)
const kindOf = (digest: Uint8Array): AnswerKind => kindByDigest.get(toHex(digest)) ?? 'proof'

/** The outcomes that an answer may be given where the provider signed for it. */
const outcomesOf: Record<AnswerKind, readonly CustodyOutcome[]> = {
  proof: ['ok', 'wrong'],
  missing: ['missing'],
  rotten: ['missing'],
  refused: ['refused'],
  overloaded: ['unknown']
}

/** A transcript whose signatures are the auditor's. */
interface Entry extends DecodedTranscript {
  /** Hex of BLAKE3 of the request. */
  requestId: string
  seed: Uint8Array
  countersignature: Countersignature
}

export interface VerifierInit {
  verifySignature: VerifySignature
  /** Requests, and challenges of theirs that timed out, that are remembered for the repeats below them. */
  rememberedRequestsMax?: number
  rememberedTimeoutsMax?: number
}

/** Verifies transcripts one after the other; a repeat is held against those before it. Memory is bounded. */
export class TranscriptVerifier {
  readonly #verifySignature: VerifySignature
  readonly #past: PastRequests

  constructor({ verifySignature, rememberedRequestsMax = 4096, rememberedTimeoutsMax = 50_000 }: VerifierInit) {
    this.#verifySignature = verifySignature
    this.#past = new PastRequests(rememberedRequestsMax, rememberedTimeoutsMax)
  }

  /** @returns a finding for each challenge; one in all where the transcript cannot be read */
  async verify(signed: Signed): Promise<Finding[]> {
    let decoded: DecodedTranscript
    try {
      decoded = decodeTranscript(signed.bytes)
    } catch (error) {
      if (!isCode(error, 'PROTOCOL')) throw error
      return [finding('damaged')]
    }
    const entry = await this.#entryOf(signed, decoded)
    if (typeof entry === 'string') return findings(decoded, () => entry)
    const found = findings(decoded, (challenge, result) => this.#judge(entry, challenge, result))
    this.#past.add(entry, this.#timeoutsOf(entry, found))
    return found
  }

  /** What may be put again, and whether all of its series is known. */
  #timeoutsOf({ request }: Entry, found: readonly Finding[]): Map<string, ShownSeries> {
    const timeouts = new Map<string, ShownSeries>()
    for (const { case: name, subject } of found) {
      const series = timedOut.has(name) ? this.#past.seriesOf(request, subject!.cid) : 'broken'
      if (series !== 'broken') timeouts.set(subject!.cid.toString(), series)
    }
    return timeouts
  }

  /** What is the same for all challenges: signatures, times, seed. */
  async #entryOf(signed: Signed, decoded: DecodedTranscript): Promise<Entry | FindingName> {
    const { request, transcript } = decoded
    const isSigned =
      (await this.#isSigned('request', request.auditor, transcript.request)) &&
      (await this.#isSigned('transcript', request.auditor, signed))
    if (!isSigned) return 'unsigned'
    if (transcript.results.length !== request.challenges.length) return 'miscounted'
    if (!isInOrder(decoded)) return 'disordered'
    const seed = verifySeed(request, request.vrfProof)
    if (seed === undefined) return 'not-the-seed'
    const requestHash = blake3(transcript.request.bytes)
    const countersignature = await this.#countersignatureOf(decoded, requestHash)
    return { ...decoded, requestId: toHex(requestHash), seed, countersignature }
  }

  #isSigned(kind: keyof typeof signingPrefixes, peerId: string, { bytes, signature }: Signed): Promise<boolean> {
    return this.#verifySignature(peerId, toSign(kind, bytes), signature)
  }

  async #countersignatureOf(
    { request, transcript: { statement, results } }: DecodedTranscript,
    requestHash: Uint8Array
  ): Promise<Countersignature> {
    if (statement === null) return 'none'
    const stated = readStatement(statement.bytes)
    if (stated === undefined || stated.provider !== request.provider) return 'foreign'
    if (!(await this.#isSigned('statement', request.provider, statement))) return 'foreign'
    if (!equalBytes(stated.request, requestHash)) return 'replayed'
    const digests = results.flatMap(({ digest }) => (digest === null ? [] : [digest]))
    const isOfThese = digests.length === results.length && equalBytes(stated.answers, answersDigest(digests))
    return isOfThese ? stated : 'mismatched'
  }

  #judge(entry: Entry, challenge: Challenge, result: ChallengeResult): FindingName {
    const { request, countersignature } = entry
    const misasked = misaskedOf(entry, challenge)
    if (misasked !== undefined) return misasked
    const series = this.#past.seriesOf(request, challenge.cid)
    if (series === 'broken') return 'not-a-repeat'
    if (typeof countersignature !== 'string') return judgeSigned(entry, countersignature, challenge, result)
    const name = judgeUnsigned(entry, countersignature, challenge, result)
    const isLast = request.repeats?.attempt === repeatsMax && (name === 'timeout' || name === 'cut')
    if (!isLast) return name
    return series === 'whole' ? 'exhausted' : 'exhausted-unshown'
  }
}

/** What an auditor alone is to blame for: a challenge that does not follow from the seed. */
function misaskedOf({ request, seed }: Entry, { cid, bytes, chunk, reason }: Challenge): FindingName | undefined {
  const { code, digest } = cid.multihash
  if (code !== hashes.blake3 || digest.length !== 32) return 'not-a-shard'
  if (reason === 'sampled' && !isSampled(seed, cid, request.sampling)) return 'not-drawn'
  return chunk === chunkOf(seed, cid, bytes) ? undefined : 'not-the-chunk'
}

function judgeSigned(
  entry: Entry,
  statement: AnswerStatement,
  challenge: Challenge,
  { outcome, digest, slice }: ChallengeResult
): FindingName {
  const kind = kindOf(digest!)
  if (outcome === 'timeout') return isEarly(entry) ? 'altered' : 'late'
  if (!outcomesOf[kind].includes(outcome)) return 'altered'
  if (kind === 'rotten') return 'missing'
  if (kind !== 'proof') return kind
  if (outcome === 'wrong') return judgeWrong(challenge, digest!, slice)
  if (elapsedMs(entry) > entry.request.deadlineMs + timerLateMsMax) return 'proved-late'
  return areClocksApart(entry, statement) ? 'clocks' : 'proved'
}

function judgeWrong({ cid, chunk }: Challenge, digest: Uint8Array, slice: Uint8Array | null): FindingName {
  if (slice === null || !equalBytes(answerDigest({ kind: 'proof', slice }), digest)) return 'wrong-unshown'
  const start = chunk * challengeChunkBytes
  try {
    verifySlice(slice, cid.multihash.digest, start, start + challengeChunkBytes)
    return 'wrong-right'
  } catch (error) {
    if (isCode(error, 'WRONG')) return 'wrong'
    throw error
  }
}

/** Why there is no good statement may be the provider's doing alone: all that can be refuted is self-contradiction. */
function judgeUnsigned(
  entry: Entry,
  countersignature: Exclude<Countersignature, AnswerStatement>,
  challenge: Challenge,
  result: ChallengeResult
): FindingName {
  const { outcome, digest, slice } = result
  if (contradictsItself(result, isEarly(entry))) return 'contradictory'
  switch (outcome) {
    case 'ok':
    case 'missing':
    case 'refused':
      return 'unbacked'
    case 'wrong': {
      const name = judgeWrong(challenge, digest!, slice)
      return name === 'wrong' ? 'unbacked' : name
    }
    case 'timeout':
      return isEarly(entry) ? 'cut' : 'timeout'
    case 'offline':
      return 'offline'
    case 'unknown':
      return countersignature === 'none' ? 'unknown' : countersignature
  }
}

/** Whether the digest noted, or that there is none, excludes the outcome, whoever signed for what. */
function contradictsItself({ outcome, digest }: ChallengeResult, early: boolean): boolean {
  if (outcome === 'unknown') return false // an answer that is not signed for may be held for none
  if (digest === null) return outcome !== 'timeout' && outcome !== 'offline'
  // An answer that came before its deadline is no timeout, whatever came after it. One that came later may be.
  if (outcome === 'timeout') return early
  return !outcomesOf[kindOf(digest)].includes(outcome)
}

const elapsedMs = ({ transcript }: DecodedTranscript): number => transcript.endedAt - transcript.askedAt
const isEarly = (entry: Entry): boolean => elapsedMs(entry) + timerEarlyMsMax < entry.request.deadlineMs

/** A new request is of the epoch it was made in, a repeat of one that was then or before. */
function isInOrder({ request, transcript: { askedAt, endedAt } }: DecodedTranscript): boolean {
  const { issuedAt, epoch, epochMs, repeats } = request
  const made = epochOf(issuedAt, epochMs)
  return issuedAt <= askedAt && askedAt <= endedAt && (repeats === null ? epoch === made : epoch <= made)
}

function areClocksApart({ request, transcript }: Entry, { answeredAt }: AnswerStatement): boolean {
  return answeredAt < request.issuedAt - skewMsMax || answeredAt > transcript.endedAt + skewMsMax
}

function readStatement(bytes: Uint8Array): AnswerStatement | undefined {
  try {
    return answerStatementCodec.decode(bytes)
  } catch {
    return undefined // whatever the provider sent: the transcript keeps it as it came
  }
}

const finding = (name: FindingName, subject?: Finding['subject']): Finding => ({
  case: name,
  ...findingCases[name],
  ...(subject === undefined ? {} : { subject })
})

function findings(
  { request, transcript }: DecodedTranscript,
  judge: (challenge: Challenge, result: ChallengeResult) => FindingName
): Finding[] {
  const { auditor, provider, challenges } = request
  // There may be fewer results than challenges, or more: that is found, too.
  const judged = challenges.slice(0, transcript.results.length)
  return judged.map((challenge, i) => {
    const result = transcript.results[i]!
    const { cid, chunk } = challenge
    const { askedAt } = transcript
    return finding(judge(challenge, result), { auditor, provider, askedAt, cid, chunk, outcome: result.outcome })
  })
}

/** After what a challenge may be put again. */
const timedOut: ReadonlySet<FindingName> = new Set(['timeout', 'cut', 'late', 'exhausted', 'exhausted-unshown'])

/** `whole`: this challenge timed out in all requests before it. `unknown`: they are not all above it, or forgotten. */
type ShownSeries = 'whole' | 'unknown'

interface PastRequest {
  request: Omit<AuditRequest, 'v' | 'deadlineMs' | 'challenges'>
  endedAt: number
  /** By CID: the chunk follows from the seed. */
  timeouts: Map<string, ShownSeries>
}

/** The last requests, by hash, with what of them timed out: what a repeat may refer to. */
class PastRequests {
  readonly #requestsMax: number
  readonly #timeoutsMax: number
  readonly #requests = new Map<string, PastRequest>()
  #timeouts = 0

  constructor(requestsMax: number, timeoutsMax: number) {
    this.#requestsMax = requestsMax
    this.#timeoutsMax = timeoutsMax
  }

  add({ request, requestId, transcript }: Entry, timeouts: Map<string, ShownSeries>): void {
    if (this.#requests.has(requestId)) return // the first one counts: a second is no new request
    const { v: _v, deadlineMs: _deadlineMs, challenges: _challenges, ...kept } = request
    kept.vrfProof = kept.vrfProof.slice() // not a view of the whole request
    if (kept.repeats !== null) kept.repeats = { ...kept.repeats, request: kept.repeats.request.slice() }
    this.#requests.set(requestId, { request: kept, endedAt: transcript.endedAt, timeouts })
    this.#timeouts += timeouts.size
    for (const [id, oldest] of this.#requests) {
      if (this.#requests.size <= this.#requestsMax && this.#timeouts <= this.#timeoutsMax) break
      this.#requests.delete(id)
      this.#timeouts -= oldest.timeouts.size
    }
  }

  /** What is known of the requests before this one. Each was held against those before it when it was added. */
  seriesOf(request: AuditRequest, cid: CID): ShownSeries | 'broken' {
    if (request.repeats === null) return 'whole'
    const earlier = this.#requests.get(toHex(request.repeats.request))
    if (earlier === undefined) return 'unknown'
    if (!isNext(earlier.request, request) || earlier.endedAt > request.issuedAt) return 'broken'
    return earlier.timeouts.get(cid.toString()) ?? 'broken'
  }
}

/**
 * Whether `later` is the next repeat of `earlier`: of the same seed, counted one further. Numbers end at the last
 * repeat, series need not: silences during an outage of the auditor's own are taken back, and then it asks again.
 */
function isNext(earlier: PastRequest['request'], later: AuditRequest): boolean {
  return (
    later.repeats?.attempt === Math.min(repeatsMax, (earlier.repeats?.attempt ?? 0) + 1) &&
    later.auditor === earlier.auditor &&
    later.provider === earlier.provider &&
    later.epoch === earlier.epoch &&
    later.epochMs === earlier.epochMs &&
    later.sampling === earlier.sampling &&
    equalBytes(later.vrfProof, earlier.vrfProof)
  )
}

export interface ExportFinding extends Finding {
  /** Of the file, from 1. */
  line: number
}

/**
 * Verifies an export, line by line; needs no network and no clock.
 *
 * @throws HoldfastError `BAD_INPUT` if it does not begin as an export of this version does
 */
export async function* verifyExport(
  chunks: AsyncIterable<Uint8Array>,
  init: VerifierInit
): AsyncGenerator<ExportFinding> {
  const verifier = new TranscriptVerifier(init)
  for await (const read of readTranscripts(chunks)) {
    const { line } = read
    if ('problem' in read) yield { line, ...finding('damaged'), why: `the line ${read.problem}` }
    else for (const found of await verifier.verify(read.signed)) yield { line, ...found }
  }
}
