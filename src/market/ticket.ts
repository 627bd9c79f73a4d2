/**
 * A ticket: a gateway's signed word that one provider may put one block at another, under a lease of the gateway's. It
 * is how shards are handed over without going through their owner. Byte layout: FORMATS.md, "Ticket".
 *
 * Whoever redeems it twice has gained nothing: the block is there, and leased, as after the first time.
 */
import * as dagCbor from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'
import { minuteMs } from '../base/limits.ts'
import type { Signer, VerifySignature } from './offer.ts'

/**
 * How long a ticket is good for, and how far ahead its end may lie for whoever is to honour it: the difference is how far
 * apart the two clocks may be, either way.
 */
export const ticketLifeMs = 20 * minuteMs
const ticketLifeMsMax = 30 * minuteMs
/** Three peer ids, a CID, and what CBOR puts around them; base64url of it fits a header. */
export const ticketBytesMax = 1024

const peerIdSchema = z.string().min(1).max(128)

const ticketSchema = z.strictObject({
  v: z.literal(1),
  /** Peer id of the gateway that will lease the block, and that signs. */
  owner: peerIdSchema,
  /** Peer ids of the provider that has the block, and of the one that is to have it. */
  from: peerIdSchema,
  to: peerIdSchema,
  cid: z.custom<CID>((value) => CID.asCID(value) !== null),
  /** Of the lease, from when the block is put. */
  termMs: z.number().int().positive(),
  /** Milliseconds since the Unix epoch, by the owner's clock. */
  notAfter: z.number().int().nonnegative()
})
export type Ticket = z.infer<typeof ticketSchema>

const envelopeSchema = z.strictObject({
  ticket: z.instanceof(Uint8Array),
  signature: z.instanceof(Uint8Array).refine((s) => s.length > 0 && s.length <= 256, 'not a signature')
})

/** Domain separation: a signature of a ticket can never pass for one of anything else. */
const signingPrefix = new TextEncoder().encode('holdfast-ticket:')
const signed = (ticket: Uint8Array): Uint8Array => Buffer.concat([signingPrefix, ticket])

/** @param signer the owner */
export async function signTicket(ticket: Ticket, signer: Signer): Promise<Uint8Array> {
  const bytes = dagCbor.encode(ticketSchema.parse(ticket))
  return dagCbor.encode({ ticket: bytes, signature: await signer.sign(signed(bytes)) })
}

/** @throws HoldfastError `PROTOCOL` unless the bytes are a ticket, signed by the owner that it names */
export async function readTicket(bytes: Uint8Array, verify: VerifySignature): Promise<Ticket> {
  try {
    if (bytes.length > ticketBytesMax) throw new Error('too long')
    const envelope = envelopeSchema.parse(dagCbor.decode(bytes))
    const ticket = ticketSchema.parse(dagCbor.decode(envelope.ticket))
    if (!(await verify(ticket.owner, signed(envelope.ticket), envelope.signature))) throw new Error('bad signature')
    return ticket
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', 'not a ticket, or not signed by the owner that it names', { cause })
  }
}

/** What a ticket is shown for. */
export interface Redemption {
  /** Peer ids: who puts the block (the connection proves it), and who is asked to take it. */
  from: string
  to: string
  cid: CID
  now: number
}

/**
 * The ticket, where it is good for this.
 *
 * @throws HoldfastError `BAD_INPUT`, whose message says what is wrong with it
 */
export async function redeemTicket(
  bytes: Uint8Array,
  { from, to, cid, now }: Redemption,
  verify: VerifySignature
): Promise<Ticket> {
  const bad = (why: string, cause?: unknown): HoldfastError => new HoldfastError('BAD_INPUT', why, { cause })
  const ticket = await readTicket(bytes, verify).catch((error: unknown) => {
    throw bad('the ticket is none, or its owner did not sign it', error)
  })
  if (ticket.from !== from) throw bad(`the ticket is ${ticket.from}'s; the connection is ${from}'s`)
  if (ticket.to !== to) throw bad(`the ticket is for ${ticket.to}; this is ${to}`)
  if (!ticket.cid.equals(cid)) throw bad('the ticket is for another block')
  if (ticket.notAfter < now) throw bad('the ticket is too old, by the clock here')
  if (ticket.notAfter > now + ticketLifeMsMax) throw bad('the ticket is of a time to come, by the clock here')
  return ticket
}
