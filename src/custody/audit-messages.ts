/**
 * What auditor and provider sign. The auditor signs the request, whose challenges follow from a seed that nobody could
 * foresee; the provider signs which answers it gave to that very request. Byte layout: FORMATS.md, "Audit messages".
 */
import * as dagCbor from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { concatBytes, utf8 } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import { hourMs, limits } from '../base/limits.ts'
import { blake3 } from '../content/blake3.ts'
import { auditReasons } from './outcome.ts'

/** Chunks that proofs are about: BLAKE3's own. */
export const challengeChunkBytes = 1024
/** How often a challenge that timed out is put again before that counts as `missing`. */
export const repeatsMax = 3
/** `sampling` where every shard is drawn. */
export const samplingAll = 2 ** 32
/** In one request. */
export const challengesMax = 1024
export const auditRequestBytesMax = 256 * 1024
/** Of one answer: the chunk, a path of at most ten values, and the extent; see `Slice`. */
export const proofBytesMax = 8 + 11 * 32 + challengeChunkBytes

const peerIdSchema = z.string().min(1).max(128)
/** What dates can be of. */
const timeMsMax = 8.64e15
export const timeSchema = z.number().int().nonnegative().max(timeMsMax)
/** Of any buffer: `instanceof` alone would be typed for memory that is not shared. */
export const byteArray = z.custom<Uint8Array>((value) => value instanceof Uint8Array)
export const bytesOf = (length: number) => byteArray.refine((bytes) => bytes.length === length, `${length} bytes`)
const signatureSchema = byteArray.refine(({ length }) => length > 0 && length <= 256, 'a signature')

/** Chunks of a block; an empty one has one, which is empty. */
export const chunksOf = (blockBytes: number): number => Math.max(1, Math.ceil(blockBytes / challengeChunkBytes))

export const challengeSchema = z
  .strictObject({
    cid: z.custom<CID>((value) => CID.asCID(value) !== null),
    /** Of the block, as the auditor knows it: which chunk the seed means depends on it. */
    bytes: z.number().int().nonnegative().max(limits.shardBytesMax),
    /** Of `challengeChunkBytes`, from 0. */
    chunk: z.number().int().nonnegative(),
    reason: z.enum(auditReasons)
  })
  .refine(({ bytes, chunk }) => chunk < chunksOf(bytes), 'no such chunk')
export type Challenge = z.infer<typeof challengeSchema>

const requestFields = z.strictObject({
  v: z.literal(1),
  /** Peer ids. */
  auditor: peerIdSchema,
  provider: peerIdSchema,
  /** Hours (or whatever an epoch lasts, `epochMs`) since the Unix epoch: what the seed was drawn for. */
  epoch: timeSchema,
  epochMs: z.number().int().positive(),
  /** Of 2^32 shards of this provider so many are drawn by the seed: see `isSampled`. */
  sampling: z.number().int().nonnegative().max(samplingAll),
  /** ECVRF proof of the seed, 80 bytes. */
  vrfProof: bytesOf(80),
  /** By the auditor's clock, milliseconds since the Unix epoch. */
  issuedAt: timeSchema,
  /** From when the request is sent until the statement has come; later is a `timeout`. */
  deadlineMs: z.number().int().positive().max(hourMs),
  /**
   * A repeat puts challenges again that timed out: with epoch, `epochMs`, sampling and proof of the first request, so
   * that they still follow from its seed. `request`: BLAKE3 of the bytes of the request before this one in the series.
   */
  repeats: z.strictObject({ request: bytesOf(32), attempt: z.number().int().positive().max(repeatsMax) }).nullable(),
  challenges: z.array(challengeSchema).min(1).max(challengesMax)
})
const requestSchema = requestFields.refine(
  ({ repeats, challenges }) => challenges.every(({ reason }) => (reason === 'repeat') === (repeats !== null)),
  'repeats come in requests of their own'
)
export type AuditRequest = z.infer<typeof requestSchema>

const statementSchema = z.strictObject({
  v: z.literal(1),
  provider: peerIdSchema,
  /** BLAKE3 of the request's bytes. */
  request: bytesOf(32),
  /** `answersDigest` of all answers, in the order of the challenges. */
  answers: bytesOf(32),
  /** By the provider's clock. */
  answeredAt: timeSchema
})
/** What the provider signs at the end of its answers. */
export type AnswerStatement = z.infer<typeof statementSchema>

/** Bytes and the signature over them, so that nothing has to be encoded again to be checked. */
export interface Signed {
  bytes: Uint8Array
  signature: Uint8Array
}
export const signedSchema = z.strictObject({
  bytes: byteArray.refine(({ length }) => length <= auditRequestBytesMax, 'too long'),
  signature: signatureSchema
})

/** Domain separation: a signature of one kind of message can never pass for one of another. */
export const signingPrefixes = {
  request: utf8.encode('holdfast-audit-request:'),
  statement: utf8.encode('holdfast-audit-answer:'),
  transcript: utf8.encode('holdfast-audit-transcript:')
} as const

export const toSign = (kind: keyof typeof signingPrefixes, bytes: Uint8Array): Uint8Array =>
  concatBytes([signingPrefixes[kind], bytes])

/** One answer, by what it says: `proof` has a slice (see `sliceOf`), the others have no bytes. */
export const answerKinds = ['proof', 'missing', 'rotten', 'refused', 'overloaded'] as const
export type AnswerKind = (typeof answerKinds)[number]
export interface Answer {
  kind: AnswerKind
  /** Of a `proof`, at most `proofBytesMax`; else empty. */
  slice: Uint8Array
}

/** 32 bytes: BLAKE3 of the kind (one byte, its place in `answerKinds`) and the slice. */
export const answerDigest = ({ kind, slice }: Answer): Uint8Array =>
  blake3(concatBytes([Uint8Array.of(answerKinds.indexOf(kind)), slice]))

/** Over the digests of all answers, in order. */
export const answersDigest = (digests: readonly Uint8Array[]): Uint8Array => blake3(concatBytes([...digests]))

export interface Codec<T> {
  encode: (message: T) => Uint8Array
  /** @throws HoldfastError `PROTOCOL` for anything but exactly such a message */
  decode: (bytes: Uint8Array) => T
}

export function strictCodec<T>(name: string, schema: z.ZodType<T>, bytesMax: number): Codec<T> {
  return {
    encode: (message) => dagCbor.encode(schema.parse(message)),
    decode: (bytes) => {
      if (bytes.length > bytesMax) throw new HoldfastError('PROTOCOL', `${name}: longer than ${bytesMax} bytes`)
      try {
        return schema.parse(dagCbor.decode(bytes))
      } catch (cause) {
        throw new HoldfastError('PROTOCOL', `not a ${name}`, { cause })
      }
    }
  }
}

export const auditRequestCodec = strictCodec<AuditRequest>('audit request', requestSchema, auditRequestBytesMax)
export const answerStatementCodec = strictCodec<AnswerStatement>('answer statement', statementSchema, 1024)
export const signedCodec = strictCodec<Signed>('signed message', signedSchema, auditRequestBytesMax + 1024)
