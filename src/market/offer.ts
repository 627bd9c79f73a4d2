/**
 * A provider's offer: what it has to give, signed by its peer key. Byte layout: FORMATS.md, "Offer".
 */
import * as dagCbor from '@ipld/dag-cbor'
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'

const offerSchema = z.strictObject({
  v: z.literal(1),
  /** libp2p peer id, base58btc. */
  peerId: z.string().min(1).max(128),
  /** Origins of the HTTPS data plane, best first: `https://192.0.2.1:4002`. */
  dataUrls: z
    .array(
      z
        .string()
        .max(256)
        .regex(/^https:\/\/[^/?#]+$/)
    )
    .min(1)
    .max(8),
  /** libp2p multiaddrs of the control plane. */
  addresses: z.array(z.string().max(256)).max(16),
  /** Bytes the operator gives in all, and what is left of them. */
  capacityBytes: z.number().int().nonnegative(),
  freeBytes: z.number().int().nonnegative(),
  /** The operator's name for what fails with it; the peer id where none was given. */
  domain: z.string().min(1).max(128),
  /** Price of a GiB-month, in the market's smallest unit. */
  price: z.number().int().nonnegative(),
  accepting: z.boolean(),
  /** It leaves, and hands over what it has; absent where it stays. */
  draining: z.literal(true).optional(),
  version: z.string().max(64),
  /** Milliseconds since the Unix epoch, by the provider's clock. A newer offer replaces an older one. */
  issuedAt: z.number().int().nonnegative()
})

export type Offer = z.infer<typeof offerSchema>

/** Signs with the provider's peer key. */
export interface Signer {
  peerId: string
  sign: (bytes: Uint8Array) => Promise<Uint8Array>
}

/** Checks a signature by the peer that `peerId` names. */
export type VerifySignature = (peerId: string, bytes: Uint8Array, signature: Uint8Array) => Promise<boolean>

const envelopeSchema = z.strictObject({
  offer: z.instanceof(Uint8Array),
  signature: z.instanceof(Uint8Array).refine((s) => s.length <= 256, 'signature too long')
})

/** Domain separation: a signature of an offer can never pass for one of anything else. */
const signingPrefix = new TextEncoder().encode('holdfast-offer:')

const signed = (offerBytes: Uint8Array): Uint8Array => Buffer.concat([signingPrefix, offerBytes])

export async function encodeOffer(offer: Offer, signer: Signer): Promise<Uint8Array> {
  const offerBytes = dagCbor.encode(offerSchema.parse(offer))
  return dagCbor.encode({ offer: offerBytes, signature: await signer.sign(signed(offerBytes)) })
}

/**
 * @throws HoldfastError `PROTOCOL` unless the bytes are a well-formed offer of `expectedPeerId`, signed by it
 */
export async function decodeOffer(bytes: Uint8Array, expectedPeerId: string, verify: VerifySignature): Promise<Offer> {
  try {
    const envelope = envelopeSchema.parse(dagCbor.decode(bytes))
    const offer = offerSchema.parse(dagCbor.decode(envelope.offer))
    if (offer.peerId !== expectedPeerId) throw new Error(`it names ${offer.peerId}`)
    if (!(await verify(expectedPeerId, signed(envelope.offer), envelope.signature))) throw new Error('bad signature')
    return offer
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', `provider ${expectedPeerId} sent an invalid offer`, { cause })
  }
}
