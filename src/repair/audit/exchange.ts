/** One audit request: signed, put, its answers judged, and the transcript of it. */
import type { Clock } from '../../base/clock.ts'
import { blake3 } from '../../content/blake3.ts'
import { judgeAnswers, outcomeOfFailure, type ProofAnswers } from '../../custody/answers.ts'
import {
  type AuditRequest,
  answerDigest,
  auditRequestCodec,
  type Challenge,
  type Signed,
  toSign
} from '../../custody/audit-messages.ts'
import type { CustodyOutcome } from '../../custody/outcome.ts'
import { signTranscript } from '../../custody/transcript.ts'
import type { Signer, VerifySignature } from '../../market/offer.ts'
import type { NewTranscript } from '../../metadata/index-store.ts'
import { proveWithin } from '../../transfer/prove.ts'
import type { ProviderClient, ProviderRef } from '../../transfer/provider-client.ts'

export interface ExchangeComponents {
  client: Pick<ProviderClient, 'prove'>
  signer: Signer
  verifySignature: VerifySignature
  clock: Clock
  /** Lets others have the event loop. */
  pause: () => Promise<void>
}

export interface Exchange {
  challenges: readonly Challenge[]
  /** In their order. */
  outcomes: CustodyOutcome[]
  countersigned: boolean
  /** BLAKE3 of the request's bytes: its name. */
  digest: Uint8Array
  askedAt: number
  /** From sending the request to the end of the answer. */
  elapsedMs: number
  /** This process was so busy that it could not even give up in time: silence shows nothing then. */
  isOwnDelay: boolean
  transcript: NewTranscript
}

/** What `custody/verify-transcript.ts` forgives. */
const ownDelayMsMin = 1000

const nothing: ProofAnswers = { answers: [], statement: undefined }

/** @throws the signal's reason, and nothing else: what the provider did is an outcome */
export async function putChallenges(
  { client, signer, verifySignature, clock, pause }: ExchangeComponents,
  target: ProviderRef,
  /** Without `issuedAt` it is issued now. */
  asked: Omit<AuditRequest, 'v' | 'auditor' | 'provider' | 'issuedAt'> & { issuedAt?: number },
  signal: AbortSignal
): Promise<Exchange> {
  const askedAt = clock.now()
  const request: AuditRequest = {
    v: 1,
    auditor: signer.peerId,
    provider: target.peerId,
    ...asked,
    issuedAt: asked.issuedAt ?? askedAt
  }
  const bytes = auditRequestCodec.encode(request)
  const signed: Signed = { bytes, signature: await signer.sign(toSign('request', bytes)) }
  let received = nothing
  let failed: CustodyOutcome | undefined
  try {
    received = await proveWithin(client, target, signed, { clock, deadlineMs: request.deadlineMs, signal })
  } catch (error) {
    signal.throwIfAborted()
    failed = outcomeOfFailure(error)
  }
  // What has come is judged even if nobody waits for it any more: a provider has signed for it.
  const endedAt = clock.now()
  const judged = await judgeAnswers(request, bytes, received, { verifySignature, pause })
  const isOwnDelay = endedAt - askedAt > request.deadlineMs + ownDelayMsMin
  const told = failed === undefined ? judged.outcomes : request.challenges.map(() => failed)
  // A proof that this process took so long to look at is none that others would let count.
  const outcomes = told.map((outcome): CustodyOutcome => (isOwnDelay && outcome === 'ok' ? 'timeout' : outcome))
  const counts: Record<string, number> = {}
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1
  const kept = await signTranscript(
    {
      v: 1,
      request: signed,
      statement: withinBounds(received.statement),
      askedAt,
      endedAt,
      results: outcomes.map((outcome, i) => {
        const answer = received.answers[i]
        return {
          outcome,
          digest: answer === undefined ? null : answerDigest(answer),
          slice: answer !== undefined && outcome === 'wrong' ? answer.slice : null
        }
      })
    },
    signer
  )
  return {
    challenges: request.challenges,
    outcomes,
    countersigned: judged.countersigned,
    digest: blake3(bytes),
    askedAt,
    elapsedMs: endedAt - askedAt,
    isOwnDelay,
    transcript: { provider: target.peerId, askedAt, ...kept, outcomes: counts }
  }
}

const statementBytesMax = 1024

/** A statement longer than any is none: it would make the transcript one that nobody reads. */
function withinBounds(statement: Signed | undefined): Signed | null {
  return statement === undefined || statement.bytes.length > statementBytesMax ? null : statement
}
