/**
 * The control messages between a gateway and a provider, both ends: one dag-cbor request, one dag-cbor answer. Byte
 * layout: FORMATS.md, "Control messages".
 */
import * as dagCbor from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'

export const controlProtocols = {
  /** Asks for the signed offer; the request is empty. */
  offer: '/holdfast/offer/1',
  lease: '/holdfast/lease/1',
  status: '/holdfast/status/1',
  /** Asked of providers, and told to gateways: `refusal-protocol.ts`. */
  refusal: '/holdfast/refusal/1',
  /** Asked by a provider, about itself: `score-protocol.ts`. */
  score: '/holdfast/score/1'
} as const

const cidSchema = z.custom<CID>((value) => CID.asCID(value) !== null)
const cidsSchema = z.array(cidSchema).max(limits.leaseBatchMax)
const countSchema = z.number().int().nonnegative()

const leaseRequestSchema = z.discriminatedUnion('op', [
  z.strictObject({ v: z.literal(1), op: z.literal('renew'), cids: cidsSchema, termMs: countSchema.positive() }),
  z.strictObject({ v: z.literal(1), op: z.literal('release'), cids: cidsSchema })
])

const leaseAnswerSchema = z.union([
  z.strictObject({
    v: z.literal(1),
    /** Of a renewal, in the order of the CIDs asked for; empty for a release. */
    states: z.array(z.enum(['held', 'missing', 'refused'])).max(limits.leaseBatchMax)
  }),
  z.strictObject({
    v: z.literal(1),
    error: z.strictObject({ code: z.string().max(64), message: z.string().max(1024) })
  })
])

const statusRequestSchema = z.strictObject({
  v: z.literal(1),
  /** "Which of these do you hold?"; may be empty. */
  cids: cidsSchema
})

const statusAnswerSchema = z.strictObject({
  v: z.literal(1),
  has: z.array(z.boolean()).max(limits.leaseBatchMax),
  capacityBytes: countSchema,
  usedBytes: countSchema,
  blocks: countSchema,
  leases: countSchema,
  version: z.string().max(64)
})

export type LeaseRequest = z.infer<typeof leaseRequestSchema>
export type LeaseAnswer = z.infer<typeof leaseAnswerSchema>
export type StatusRequest = z.infer<typeof statusRequestSchema>
export type StatusAnswer = z.infer<typeof statusAnswerSchema>

interface Codec<T> {
  encode: (message: T) => Uint8Array
  /** @throws HoldfastError `PROTOCOL` for anything but exactly such a message */
  decode: (bytes: Uint8Array) => T
}

function codec<T>(name: string, schema: z.ZodType<T>): Codec<T> {
  return {
    encode: (message) => dagCbor.encode(message),
    decode: (bytes) => {
      try {
        return schema.parse(dagCbor.decode(bytes))
      } catch (cause) {
        throw new HoldfastError('PROTOCOL', `not a ${name}`, { cause })
      }
    }
  }
}

export const leaseRequest = codec<LeaseRequest>('lease request', leaseRequestSchema)
export const leaseAnswer = codec<LeaseAnswer>('lease answer', leaseAnswerSchema)
export const statusRequest = codec<StatusRequest>('status request', statusRequestSchema)
export const statusAnswer = codec<StatusAnswer>('status answer', statusAnswerSchema)
