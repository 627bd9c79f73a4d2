/** Audit requests, and answers to them, as tests need them. */
import { blake3 } from '../../src/content/blake3.ts'
import { sliceOf } from '../../src/content/blake3-slice.ts'
import { treeOf } from '../../src/content/blake3-tree.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import {
  type Answer,
  type AuditRequest,
  answerDigest,
  answerStatementCodec,
  answersDigest,
  auditRequestCodec,
  type Signed,
  toSign
} from '../../src/custody/audit-messages.ts'
import type { Signer } from '../../src/market/offer.ts'

export interface Question {
  cid: CID
  /** Of the block. */
  bytes: number
  chunk: number
}

export interface TestRequest {
  request: AuditRequest
  signed: Signed
}

/** A request of `auditor` as an auditor makes it, but for its proof of the seed. */
export async function requestOf(
  auditor: Signer,
  provider: string,
  questions: readonly Question[],
  change: Partial<AuditRequest> = {}
): Promise<TestRequest> {
  const request: AuditRequest = {
    v: 1,
    auditor: auditor.peerId,
    provider,
    epoch: 7,
    epochMs: 3_600_000,
    sampling: 0,
    vrfProof: new Uint8Array(80),
    issuedAt: 1_700_000_000_000,
    deadlineMs: 5000,
    repeats: null,
    challenges: questions.map(({ cid, bytes, chunk }) => ({ cid, bytes, chunk, reason: 'asked' as const })),
    ...change
  }
  const bytes = auditRequestCodec.encode(request)
  return { request, signed: { bytes, signature: await auditor.sign(toSign('request', bytes)) } }
}

/** The proof that an honest holder of the block gives. */
export function proofOf(block: Uint8Array, chunk: number): Answer {
  return { kind: 'proof', slice: sliceOf(block, treeOf(block), chunk * 1024, (chunk + 1) * 1024) }
}

/** `provider`'s signature, as the statement has it, over these answers to this request. */
export async function statementOf(
  signer: Signer,
  requestBytes: Uint8Array,
  answers: readonly Answer[],
  provider = signer.peerId,
  answeredAt = 1_700_000_000_001
): Promise<Signed> {
  const bytes = answerStatementCodec.encode({
    v: 1,
    provider,
    request: blake3(requestBytes),
    answers: answersDigest(answers.map(answerDigest)),
    answeredAt
  })
  return { bytes, signature: await signer.sign(toSign('statement', bytes)) }
}

/** A block that differs by length and seed. */
export function blockOf(length: number, seed = 1): { bytes: Uint8Array; cid: CID } {
  const bytes = new Uint8Array(length)
  let x = (length * 2_654_435_761 + seed) >>> 0 || 1
  for (let i = 0; i < length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    bytes[i] = x
  }
  return { bytes, cid: cidOfShard(bytes) }
}
