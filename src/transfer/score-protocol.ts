/**
 * How a provider learns what a gateway thinks of it, and on what grounds: both ends of `/holdfast/score/1`. A gateway
 * answers about nobody but the peer that asks, which the connection proves; what it says is bounded, parsed strictly,
 * and shown by transcripts that the provider can check. Byte layout: FORMATS.md, "Control messages".
 */
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { HoldfastError, isCode } from '../base/errors.ts'
import { KiB, limits, secondMs } from '../base/limits.ts'
import { byteArray, type Signed, strictCodec, timeSchema } from '../custody/audit-messages.ts'
import { type ScoreRecord, type ScoreReport, scoreRecordSchema } from '../custody/score.ts'
import { decodeTranscript } from '../custody/transcript.ts'
import type { Network, PeerAddress } from '../net/network.ts'
import { controlProtocols } from './lease-protocol.ts'

export const scoreEventsMax = 256
export const scoreEvidenceMax = 16
/**
 * Of all transcripts of an answer together. One of 1,024 challenges has 185 KB and 1.4 KB for each wrong answer: those
 * that are longer than this alone are left out, the events that they led to are not.
 */
export const scoreEvidenceBytesMax = 640 * KiB
const whyCharsMax = 256
/** Of one event: its words, a CID, and what CBOR puts around names and numbers. */
const eventBytesMax = 3 * whyCharsMax + 384
if (scoreEventsMax * eventBytesMax + scoreEvidenceBytesMax + 16 * KiB > limits.rpcBytesMax) {
  throw new Error('a full answer about a score would exceed a message')
}

const part = z.number().min(0).max(1)
const durationSchema = z.number().nonnegative().max(Number.MAX_SAFE_INTEGER)
/** `ScoreReport`, as strangers may say it. */
export const scoreReportSchema = z.strictObject({
  weight: part,
  standing: z.enum(['vetted', 'vetting', 'closed', 'suspended']),
  custody: part,
  availability: part,
  latencyMsP50: durationSchema.nullable(),
  latencyMsP95: durationSchema.nullable(),
  ageMs: durationSchema,
  proofs: z.number().int().nonnegative(),
  why: z.string().max(whyCharsMax)
}) satisfies z.ZodType<ScoreReport>

export const scoreEventSchema = scoreRecordSchema.extend({
  at: timeSchema,
  until: timeSchema,
  shard: z.string().max(128).optional(),
  before: part,
  after: part,
  why: z.string().max(whyCharsMax)
}) satisfies z.ZodType<ScoreRecord>

const evidenceSchema = z.strictObject({
  bytes: byteArray.refine(({ length }) => length <= scoreEvidenceBytesMax, 'too long'),
  signature: byteArray.refine(({ length }) => length > 0 && length <= 256, 'a signature')
}) satisfies z.ZodType<Signed>

const requestSchema = z.strictObject({
  v: z.literal(1),
  /** By the gateway's clock, out of its own answers: what ended earlier is left out. */
  after: timeSchema.optional()
})

const scoreAnswerSchema = z.strictObject({
  v: z.literal(1),
  /** Null: it was not audited yet. */
  score: scoreReportSchema.nullable(),
  /** What moved the score, newest first. */
  events: z.array(scoreEventSchema).max(scoreEventsMax),
  /** Signed transcripts with a fault or a silence, in the order in which they were signed. */
  evidence: z
    .array(evidenceSchema)
    .max(scoreEvidenceMax)
    .refine((all) => bytesOf(all) <= scoreEvidenceBytesMax, 'too long')
})
const answerSchema = z.union([
  scoreAnswerSchema,
  z.strictObject({
    v: z.literal(1),
    error: z.strictObject({ code: z.string().max(64), message: z.string().max(1024) })
  })
])

export type ScoreRequest = z.infer<typeof requestSchema>
export type ScoreAnswer = z.infer<typeof scoreAnswerSchema>
type Answer = z.infer<typeof answerSchema>

export const scoreRequest = strictCodec<ScoreRequest>('request for a score', requestSchema, 64)
export const scoreAnswer = strictCodec<Answer>('score', answerSchema, limits.rpcBytesMax)

/** What a gateway knows of one provider: more than an answer may have, `scoreAnswerOf` cuts it down. */
export interface KnownScore {
  score: ScoreReport | null
  /** Newest first. */
  events: readonly ScoreRecord[]
  /** In the order in which they were signed. */
  evidence: readonly Signed[]
}

/** Of the events the newest, and of the evidence the newest that fits together. */
export function scoreAnswerOf({ score, events, evidence }: KnownScore, after = 0): ScoreAnswer {
  const taken: Signed[] = []
  let left = scoreEvidenceBytesMax
  for (const signed of evidence.toReversed()) {
    if (taken.length === scoreEvidenceMax) break
    if (signed.bytes.length > left || !endedSince(signed, after)) continue
    left -= signed.bytes.length
    taken.push(signed)
  }
  const recent = events.filter(({ until }) => until >= after).slice(0, scoreEventsMax)
  return { v: 1, score: score && shortened(score), events: recent.map(shortened), evidence: taken.reverse() }
}

/** An answer with too many words would not be read at all. */
const shortened = <T extends { why: string }>(said: T): T =>
  said.why.length <= whyCharsMax ? said : { ...said, why: `${said.why.slice(0, whyCharsMax - 3)}...` }

const bytesOf = (all: readonly Signed[]): number => all.reduce((sum, { bytes }) => sum + bytes.length, 0)

function endedSince({ bytes }: Signed, after: number): boolean {
  try {
    return after === 0 || decodeTranscript(bytes).transcript.endedAt >= after
  } catch (error) {
    if (isCode(error, 'PROTOCOL')) return false // not of this version: it would show nothing
    throw error
  }
}

/** A provider asks every ten minutes, and once more after a fault. */
const asksAtOnceMax = 4
const askEveryMs = 30 * secondMs
/**
 * Peer ids cost nothing: all together get so many answers in a second, which is a fleet of 20,000 at the usual pace.
 */
const answersPerSecond = 32
const peersRemembered = 4096

/** When the next request is allowed, as GCRA has it: `burst` at once, then one every `everyMs`. */
class Pace {
  readonly #burst: number
  readonly #everyMs: number
  #fullAt = 0

  constructor(burst: number, everyMs: number) {
    this.#burst = burst
    this.#everyMs = everyMs
  }

  take(now: number): boolean {
    const fullAt = Math.max(this.#fullAt, now) + this.#everyMs
    if (fullAt - now > this.#burst * this.#everyMs) return false
    this.#fullAt = fullAt
    return true
  }
}

/**
 * The gateway's end. Answers the peer that asks about itself, at most as often as it needs to.
 *
 * @param knownOf what is known of a provider; where nothing is, null and empty lists. `after` is a hint: what is
 *   older is left out afterwards
 */
export async function serveScores(
  network: Pick<Network, 'handle'>,
  knownOf: (peerId: string, after: number | undefined) => Promise<KnownScore>,
  { clock }: { clock: Clock }
): Promise<void> {
  /** Least recently heard of first. */
  const paces = new Map<string, Pace>()
  const everybody = new Pace(answersPerSecond, secondMs / answersPerSecond)
  const isAllowed = (peerId: string): boolean => {
    const own = paces.get(peerId) ?? new Pace(asksAtOnceMax, askEveryMs)
    paces.delete(peerId)
    paces.set(peerId, own)
    if (paces.size > peersRemembered) paces.delete(paces.keys().next().value!)
    return own.take(clock.now()) && everybody.take(clock.now())
  }
  await network.handle(controlProtocols.score, async (from, body) => {
    const { after } = scoreRequest.decode(body)
    if (!isAllowed(from)) {
      return scoreAnswer.encode({
        v: 1,
        error: { code: 'OVERLOADED', message: 'asked too often: once a minute will do' }
      })
    }
    return scoreAnswer.encode(scoreAnswerOf(await knownOf(from, after), after))
  })
}

/**
 * The provider's end: what this gateway thinks of the peer that `network` is. Nothing in the answer is checked yet
 * but its form.
 *
 * @throws HoldfastError `OFFLINE`; `TIMEOUT`, also where the gateway was asked too often; `PROTOCOL` for an answer
 *   that is none, or a gateway that does not speak of scores
 */
export async function askForScore(
  network: Pick<Network, 'request'>,
  gateway: PeerAddress,
  { after, signal }: { after?: number; signal?: AbortSignal } = {}
): Promise<ScoreAnswer> {
  const request = scoreRequest.encode({ v: 1, ...(after === undefined ? {} : { after }) })
  const answer = scoreAnswer.decode(await network.request(gateway, controlProtocols.score, request, signal))
  if (!('error' in answer)) return answer
  const { code, message } = answer.error
  throw new HoldfastError(
    code === 'OVERLOADED' ? 'TIMEOUT' : 'PROTOCOL',
    `${gateway.peerId} answered ${code}: ${message}`
  )
}
