/** An auditor, a provider, some shards, and audits of them that go as a row of letters says. */
import { hourMs, KiB } from '../../src/base/limits.ts'
import { blake3 } from '../../src/content/blake3.ts'
import { sliceOf } from '../../src/content/blake3-slice.ts'
import { treeOf } from '../../src/content/blake3-tree.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { judgeAnswers } from '../../src/custody/answers.ts'
import {
  type Answer,
  type AnswerKind,
  type AuditRequest,
  answerDigest,
  answerStatementCodec,
  answersDigest,
  auditRequestCodec,
  type Challenge,
  challengeChunkBytes,
  type Signed,
  samplingAll,
  toSign
} from '../../src/custody/audit-messages.ts'
import { challengeOf, drawSeed, epochOf } from '../../src/custody/challenge.ts'
import type { CustodyOutcome } from '../../src/custody/outcome.ts'
import { signTranscript, type Transcript } from '../../src/custody/transcript.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { bytesOf } from '../support/bytes.ts'

export const startedAt = 490_000 * hourMs + 1000

export interface Shard {
  cid: CID
  block: Uint8Array
}

export interface Scene {
  auditor: Identity
  provider: Identity
  other: Identity
  shards: Shard[]
}

export const shardNamed = (name: string, bytes: number): Shard => {
  const block = bytesOf(name, bytes)
  return { cid: cidOfShard(block), block }
}

export async function scene(): Promise<Scene> {
  const [auditor, provider, other] = await Promise.all([generateIdentity(), generateIdentity(), generateIdentity()])
  return { auditor, provider, other, shards: [20 * KiB + 7, 100 * KiB, 3].map((bytes, i) => shardNamed(`${i}`, bytes)) }
}

/** What the provider answers: `w` is a proof of another block. */
const answerLetters: Record<string, AnswerKind> = {
  o: 'proof',
  w: 'proof',
  m: 'missing',
  x: 'rotten',
  r: 'refused',
  b: 'overloaded'
}
/** What the auditor writes down. */
const claimLetters: Record<string, CustodyOutcome> = {
  o: 'ok',
  w: 'wrong',
  m: 'missing',
  r: 'refused',
  t: 'timeout',
  f: 'offline',
  u: 'unknown'
}

export interface Audit {
  /** A letter for each shard; `-` is no answer. */
  answers: string
  /** A letter for each shard; or what an honest auditor makes of the answers before the first that is none. */
  claims: string | 'as judged'
  /** Changes before anything is signed. */
  request?: Partial<AuditRequest>
  /** Also before the proof is made: what the seed is drawn for. */
  seedFor?: Partial<AuditRequest>
  challenge?: (challenge: Challenge, i: number, seed: Uint8Array) => Challenge
  transcript?: (transcript: Transcript) => Transcript
  /** What the provider signs; absent: these answers, if there is one for each. */
  statement?:
    | 'none'
    | 'of another request'
    | 'of other answers'
    | 'by another peer'
    | 'for another peer'
    | 'garbage'
    | 'anyway'
  /** By the provider's clock, after `startedAt`. */
  answeredAfterMs?: number
  tookMs?: number
  signer?: Identity
}

export interface Audited {
  signed: Signed
  request: AuditRequest
  requestId: Uint8Array
  transcript: Transcript
}

export async function audit(world: Scene, what: Audit): Promise<Audited> {
  const { auditor, provider, shards } = world
  const issuedAt = what.request?.issuedAt ?? startedAt
  const subject = {
    epoch: epochOf(issuedAt, hourMs),
    epochMs: hourMs,
    auditor: auditor.peerId,
    provider: provider.peerId
  }
  const secretKey = auditor.privateKey.raw.subarray(0, 32)
  const { proof, seed } = drawSeed(secretKey, { ...subject, ...what.request, ...what.seedFor })
  const reason = what.request?.repeats ? 'repeat' : 'sampled'
  const challenges = shards.map(({ cid, block }, i) => {
    const honest = challengeOf(seed, { cid, bytes: block.length }, reason)
    return what.challenge?.(honest, i, seed) ?? honest
  })
  const request: AuditRequest = {
    v: 1,
    ...subject,
    sampling: samplingAll,
    vrfProof: proof,
    issuedAt,
    deadlineMs: 1500,
    repeats: null,
    challenges,
    ...what.request
  }
  const signedRequest = await sign('request', auditRequestCodec.encode(request), what.signer ?? auditor)
  const requestId = blake3(signedRequest.bytes)
  const answers = challenges.map((challenge, i) => answerOf(what.answers[i]!, shards[i]!, challenge))
  const digests = answers.map((answer) => answer && answerDigest(answer))
  const statement = await statementOf(world, what, { requestId, digests })
  const outcomes =
    what.claims === 'as judged'
      ? await judged(request, signedRequest.bytes, answers, statement)
      : [...what.claims].map((letter) => claimLetters[letter]!)
  const results = answers.map((answer, i) => {
    const outcome = outcomes[i]!
    return { outcome, digest: digests[i] ?? null, slice: outcome === 'wrong' && answer ? answer.slice : null }
  })
  const claimsTimeout = what.claims.includes('t')
  const transcript: Transcript = {
    v: 1,
    request: signedRequest,
    statement,
    askedAt: issuedAt + 10,
    endedAt: issuedAt + 10 + (what.tookMs ?? (claimsTimeout ? 1500 : 100)),
    results
  }
  const told = what.transcript?.(transcript) ?? transcript
  return { signed: await signTranscript(told, what.signer ?? auditor), request, requestId, transcript: told }
}

async function judged(
  request: AuditRequest,
  requestBytes: Uint8Array,
  answers: ReadonlyArray<Answer | undefined>,
  statement: Signed | null
): Promise<CustodyOutcome[]> {
  const came = answers.flatMap((answer) => (answer === undefined ? [] : [answer]))
  const received = { answers: came, statement: statement ?? undefined }
  return (await judgeAnswers(request, requestBytes, received, { verifySignature })).outcomes
}

const sign = async (kind: 'request' | 'statement', bytes: Uint8Array, signer: Identity): Promise<Signed> => ({
  bytes,
  signature: await signer.sign(toSign(kind, bytes))
})

export function proofOf(block: Uint8Array, chunk: number): Uint8Array {
  return sliceOf(block, treeOf(block), chunk * challengeChunkBytes, (chunk + 1) * challengeChunkBytes)
}

function answerOf(letter: string, { block }: Shard, { chunk }: Challenge): Answer | undefined {
  const kind = answerLetters[letter]
  if (kind === undefined) return undefined
  if (kind !== 'proof') return { kind, slice: new Uint8Array(0) }
  const kept = letter === 'w' ? block.map((byte, i) => (i % 1024 === 0 ? byte ^ 1 : byte)) : block
  return { kind, slice: proofOf(kept, chunk) }
}

async function statementOf(
  { provider, other }: Scene,
  { statement, answeredAfterMs = 60, request }: Audit,
  { requestId, digests }: { requestId: Uint8Array; digests: Array<Uint8Array | undefined> }
): Promise<Signed | null> {
  const known = digests.flatMap((digest) => (digest === undefined ? [] : [digest]))
  if (statement === 'none' || (statement === undefined && known.length < digests.length)) return null
  if (statement === 'garbage') return { bytes: new Uint8Array(7), signature: new Uint8Array(64) }
  const bytes = answerStatementCodec.encode({
    v: 1,
    provider: statement === 'for another peer' ? other.peerId : provider.peerId,
    request: statement === 'of another request' ? blake3(new Uint8Array(1)) : requestId,
    answers: answersDigest(statement === 'of other answers' ? known.toReversed() : known),
    answeredAt: (request?.issuedAt ?? startedAt) + answeredAfterMs
  })
  return await sign('statement', bytes, statement === 'by another peer' ? other : provider)
}
