/**
 * What the answers to an audit request say: whether they prove the blocks, and whether the provider signed for them.
 *
 * - A proof is checked with the CID alone. One that fails is `wrong` with or without a signature: the channel already
 *   proves who sent it.
 * - One that holds counts as `ok` once the provider's statement over this request and these answers is there. An answer
 *   that came whole but is not signed, or by another peer, or for another request, is `unknown`: old answers and borrowed
 *   signatures gain nothing.
 * - Where the stream ends before the last answer there can be no statement. The answers that came count as they are, so
 *   that a slow provider keeps the credit for what it did; each of the others is a `timeout`, however the stream ended: the
 *   very same challenges are put again, and whoever cuts connections on purpose is no better off than one that is silent.
 *   Junk, and our own change of mind, say nothing: `unknown`.
 * - What counts here is what the auditor goes by. To others nothing is evidence that the provider did not sign, whatever
 *   the reason: transcripts show it as the auditor's word (`verify-transcript.ts`).
 *
 * The auditor's idea of the block's length is not judged: a proof about the block's last chunk is taken for any chunk past
 * its end, since only the auditor can be wrong about that.
 */
import { equalBytes } from '../base/bytes.ts'
import { check, type HoldfastError, isCode } from '../base/errors.ts'
import { blake3 } from '../content/blake3.ts'
import { verifySlice } from '../content/blake3-slice.ts'
import { type CID, codecs, hashes } from '../content/cid.ts'
import type { VerifySignature } from '../market/offer.ts'
import {
  type Answer,
  type AuditRequest,
  answerDigest,
  answerStatementCodec,
  answersDigest,
  type Challenge,
  challengeChunkBytes,
  type Signed,
  toSign
} from './audit-messages.ts'
import type { CustodyOutcome } from './outcome.ts'

/** What came back for one audit request. */
export interface ProofAnswers {
  /** In the order of the challenges; fewer than those where the stream ended early. */
  answers: readonly Answer[]
  /** The provider's countersignature, unchecked; absent where it gave none. */
  statement: Signed | undefined
  /** Why nothing came after that; absent where the provider ended the stream itself. */
  failure?: HoldfastError
}

export interface AnswersJudgement {
  /** In the order of the challenges, one for each. */
  outcomes: CustodyOutcome[]
  /** Whether the provider's statement is over this very request and these very answers, and signed by it. */
  countersigned: boolean
}

export interface JudgeInit {
  verifySignature: VerifySignature
  /** Awaited between two batches of checks, of a millisecond or two each, so that others get their turn. */
  pause?: () => Promise<void>
}

/** A proof takes 40 µs to check. */
const checksInTurn = 32

/** Whether custody of the block can be proved by slices: its CID is the root of the tree they are checked against. */
export function isProvable(cid: CID): boolean {
  const { code, digest } = cid.multihash
  return cid.version === 1 && cid.code === codecs.raw && code === hashes.blake3 && digest.length === 32
}

/**
 * Judges what came back for a request of our own.
 *
 * @param requestBytes what was signed and sent, of which `request` is the meaning
 * @throws HoldfastError `BAD_INPUT` for a request about blocks that have no such proofs, or for more answers than challenges
 */
export async function judgeAnswers(
  request: AuditRequest,
  requestBytes: Uint8Array,
  { answers, statement, failure }: ProofAnswers,
  { verifySignature, pause }: JudgeInit
): Promise<AnswersJudgement> {
  const { challenges, provider } = request
  check(answers.length <= challenges.length, 'there are more answers than challenges')
  const countersigned =
    statement !== undefined &&
    answers.length === challenges.length &&
    (await isCountersigned({ provider, requestBytes, answers, statement }, verifySignature))
  const isCredited = countersigned || answers.length < challenges.length
  const outcomes: CustodyOutcome[] = []
  for (const [i, challenge] of challenges.entries()) {
    const answer = answers[i]
    if (answer === undefined) {
      outcomes.push(outcomeOfSilence(failure))
      continue
    }
    if (pause !== undefined && i > 0 && i % checksInTurn === 0) await pause()
    const outcome = outcomeOfAnswer(challenge, answer)
    outcomes.push(outcome === 'ok' && !isCredited ? 'unknown' : outcome)
  }
  return { outcomes, countersigned }
}

/** What one answer says about the block, whoever gave it. @throws HoldfastError `BAD_INPUT` for a CID without proofs */
export function outcomeOfAnswer({ cid, chunk }: Challenge, { kind, slice }: Answer): CustodyOutcome {
  check(isProvable(cid), `custody of ${cid} cannot be proved by slices: they need raw blocks under blake3`)
  if (kind === 'missing' || kind === 'rotten') return 'missing'
  if (kind === 'refused') return 'refused'
  if (kind === 'overloaded') return 'unknown'
  const start = chunk * challengeChunkBytes
  try {
    verifySlice(slice, cid.multihash.digest, start, start + challengeChunkBytes)
    return 'ok'
  } catch (error) {
    if (isCode(error, 'WRONG')) return 'wrong'
    throw error
  }
}

/** What each challenge of a request comes to for which no answer came at all; `error`: what asking rejected with. */
export function outcomeOfFailure(error: unknown): CustodyOutcome {
  if (isCode(error, 'OFFLINE')) return 'offline'
  if (isCode(error, 'TIMEOUT')) return error.details.overloaded === true ? 'unknown' : 'timeout'
  return 'unknown'
}

/** The provider was there and had begun to answer, so a connection that breaks is no longer `offline`. */
function outcomeOfSilence(failure: HoldfastError | undefined): CustodyOutcome {
  return failure === undefined || isCode(failure, 'OFFLINE', 'TIMEOUT') ? 'timeout' : 'unknown'
}

interface Countersignature {
  /** Peer id. */
  provider: string
  requestBytes: Uint8Array
  answers: readonly Answer[]
  statement: Signed
}

async function isCountersigned(
  { provider, requestBytes, answers, statement }: Countersignature,
  verifySignature: VerifySignature
): Promise<boolean> {
  let said: ReturnType<typeof answerStatementCodec.decode>
  try {
    said = answerStatementCodec.decode(statement.bytes)
  } catch {
    return false // signed or not, it says nothing
  }
  return (
    said.provider === provider &&
    equalBytes(said.request, blake3(requestBytes)) &&
    equalBytes(said.answers, answersDigest(answers.map(answerDigest))) &&
    (await verifySignature(provider, toSign('statement', statement.bytes), statement.signature))
  )
}
