/**
 * A provider's refusal of a block, signed: a decision, not a failure. Whoever has one can show that the provider took the
 * blame off itself of losing the block, and put that of saying no on. Byte layout: FORMATS.md, "Refusal".
 */
import * as dagCbor from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'
import type { Signer, VerifySignature } from './offer.ts'

/** UTF-16 units. */
export const reasonCharsMax = 256
/** Of the envelope: the reason in UTF-8, two CIDs, a peer id, and what CBOR puts around them. */
export const refusalBytesMax = 3 * reasonCharsMax + 768

const cidSchema = z.custom<CID>((value) => CID.asCID(value) !== null)

const refusalSchema = z.strictObject({
  v: z.literal(1),
  /** libp2p peer id, base58btc. */
  provider: z.string().min(1).max(128),
  /** The block that is refused. */
  cid: cidSchema,
  /** The content as part of which it is; null: for itself. */
  root: cidSchema.nullable(),
  reason: z.string().max(reasonCharsMax),
  /** Milliseconds since the Unix epoch, by the provider's clock. */
  at: z.number().int().nonnegative().max(8.64e15)
})

export type Refusal = z.infer<typeof refusalSchema>

const envelopeSchema = z.strictObject({
  refusal: z.instanceof(Uint8Array),
  signature: z.instanceof(Uint8Array).refine(({ length }) => length > 0 && length <= 256, 'a signature')
})

/** Domain separation: a signature of a refusal can never pass for one of anything else. */
const signingPrefix = new TextEncoder().encode('holdfast-refusal:')

const signed = (bytes: Uint8Array): Uint8Array => Buffer.concat([signingPrefix, bytes])

export async function signRefusal(refusal: Refusal, signer: Signer): Promise<Uint8Array> {
  const bytes = dagCbor.encode(refusalSchema.parse(refusal))
  return dagCbor.encode({ refusal: bytes, signature: await signer.sign(signed(bytes)) })
}

/**
 * @throws HoldfastError `PROTOCOL` unless the bytes are a well-formed refusal by `provider`, signed by it
 */
export async function openRefusal(bytes: Uint8Array, provider: string, verify: VerifySignature): Promise<Refusal> {
  try {
    if (bytes.length > refusalBytesMax) throw new Error('it is too long')
    const envelope = envelopeSchema.parse(dagCbor.decode(bytes))
    const refusal = refusalSchema.parse(dagCbor.decode(envelope.refusal))
    if (refusal.provider !== provider) throw new Error(`it names ${refusal.provider}`)
    if (!(await verify(provider, signed(envelope.refusal), envelope.signature))) throw new Error('bad signature')
    return refusal
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', `provider ${provider} sent an invalid refusal`, { cause })
  }
}
