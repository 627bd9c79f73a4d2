/**
 * How a provider that leaves, or that refuses a content, asks the gateway whose blocks it keeps where they are to go: both
 * ends of `/holdfast/handover/1`. The blocks themselves go from provider to provider. Who asks is proven by the
 * connection; a gateway answers about what it leases from the one that asks, and nobody else. Byte layout: FORMATS.md,
 * "Control messages".
 */
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'
import { hourMs, KiB, limits } from '../base/limits.ts'
import { CID } from '../content/cid.ts'
import { byteArray, strictCodec } from '../custody/audit-messages.ts'
import { ticketBytesMax } from '../market/ticket.ts'
import type { Network, PeerAddress } from '../net/network.ts'
import { controlProtocols } from './lease-protocol.ts'

/** Blocks asked about, or said to be placed, in one request. */
export const handOverBatchMax = 64
/** Providers named as unwilling in one request. */
export const avoidedMax = 16
const urlCharsMax = 256
const urlsMax = 8
const addressesMax = 16
const answerBytesMax = 512 * KiB

if (handOverBatchMax * (ticketBytesMax + (urlsMax + addressesMax) * (urlCharsMax + 3) + 256) > answerBytesMax) {
  throw new Error('a full answer about a hand-over would be too long')
}
if (answerBytesMax > limits.rpcBytesMax) throw new Error('an answer about a hand-over would exceed a message')

const cidSchema = z.custom<CID>((value) => CID.asCID(value) !== null)
const peerIdSchema = z.string().min(1).max(128)
const ticketSchema = byteArray.refine(({ length }) => length > 0 && length <= ticketBytesMax, 'a ticket')

export const handOverReasons = ['drain', 'refusal'] as const
export type HandOverReason = (typeof handOverReasons)[number]

const whereSchema = z.strictObject({
  v: z.literal(1),
  op: z.literal('where'),
  cids: z.array(cidSchema).min(1).max(handOverBatchMax),
  reason: z.enum(handOverReasons),
  /** Peer ids of providers that did not take a block just now: any other will do. */
  avoid: z.array(peerIdSchema).max(avoidedMax)
})

const doneSchema = z.strictObject({
  v: z.literal(1),
  op: z.literal('done'),
  /** With the tickets, so that a gateway need not remember what it signed. */
  placed: z
    .array(z.strictObject({ cid: cidSchema, to: peerIdSchema, ticket: ticketSchema }))
    .min(1)
    .max(handOverBatchMax)
})

const requestSchema = z.discriminatedUnion('op', [whereSchema, doneSchema])

const placeSchema = z.union([
  z.strictObject({
    to: z.strictObject({
      peerId: peerIdSchema,
      dataUrls: z.array(z.string().max(urlCharsMax)).max(urlsMax),
      addresses: z.array(z.string().max(urlCharsMax)).max(addressesMax)
    }),
    ticket: ticketSchema,
    /** It was answered so before: the block may be there already. */
    again: z.boolean()
  }),
  /** The gateway needs it no longer, and has ended the lease. */
  z.strictObject({ release: z.literal(true) }),
  z.strictObject({
    keep: z.literal(true),
    /** `busy`: somebody else is at work on it. `nobody`: no other provider can take it now. */
    why: z.enum(['busy', 'nobody']),
    retryAfterMs: z.number().int().nonnegative().max(hourMs)
  })
])

const answerSchema = z.union([
  /** In the order of the CIDs asked about. */
  z.strictObject({ v: z.literal(1), places: z.array(placeSchema).max(handOverBatchMax) }),
  /** Whether each is now the other's, and no longer the asker's. */
  z.strictObject({ v: z.literal(1), accepted: z.array(z.boolean()).max(handOverBatchMax) }),
  z.strictObject({
    v: z.literal(1),
    error: z.strictObject({ code: z.string().max(64), message: z.string().max(1024) })
  })
])

export type WhereRequest = z.infer<typeof whereSchema>
export type DoneRequest = z.infer<typeof doneSchema>
export type HandOverRequest = z.infer<typeof requestSchema>
export type PlacedBlock = DoneRequest['placed'][number]
export type HandOverPlace = z.infer<typeof placeSchema>
export type HandOverAnswer = z.infer<typeof answerSchema>

const requestBytesMax = 256 * KiB
export const handOverRequest = strictCodec<HandOverRequest>('hand-over request', requestSchema, requestBytesMax)
export const handOverAnswer = strictCodec<HandOverAnswer>('hand-over answer', answerSchema, answerBytesMax)

/**
 * The gateway's end.
 *
 * @param answer rejects with `OVERLOADED` where it is asked too much at once; other failures close the stream
 */
export async function serveHandOver(
  network: Pick<Network, 'handle'>,
  answer: (from: string, request: HandOverRequest) => Promise<HandOverAnswer>
): Promise<void> {
  await network.handle(controlProtocols.handOver, async (from, body) => {
    const request = handOverRequest.decode(body)
    try {
      return handOverAnswer.encode(await answer(from, request))
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.code !== 'OVERLOADED') throw error
      return handOverAnswer.encode({ v: 1, error: { code: error.code, message: error.message } })
    }
  })
}

/**
 * The provider's end: where these blocks are to go, in order.
 *
 * @throws HoldfastError `OFFLINE`; `TIMEOUT`, also where the gateway has too much to do; `PROTOCOL`
 */
export async function askWhere(
  network: Pick<Network, 'request'>,
  gateway: PeerAddress,
  request: Omit<WhereRequest, 'v' | 'op'>,
  signal?: AbortSignal
): Promise<HandOverPlace[]> {
  const answer = await ask(network, gateway, { v: 1, op: 'where', ...request }, signal)
  if ('places' in answer && answer.places.length === request.cids.length) return answer.places
  throw new HoldfastError('PROTOCOL', `${gateway.peerId} answered for other blocks`)
}

/** Which of these blocks are the other's from now on, in order. @throws HoldfastError likewise */
export async function tellDone(
  network: Pick<Network, 'request'>,
  gateway: PeerAddress,
  placed: readonly PlacedBlock[],
  signal?: AbortSignal
): Promise<boolean[]> {
  const answer = await ask(network, gateway, { v: 1, op: 'done', placed: [...placed] }, signal)
  if ('accepted' in answer && answer.accepted.length === placed.length) return answer.accepted
  throw new HoldfastError('PROTOCOL', `${gateway.peerId} answered for other blocks`)
}

async function ask(
  network: Pick<Network, 'request'>,
  gateway: PeerAddress,
  request: HandOverRequest,
  signal: AbortSignal | undefined
): Promise<HandOverAnswer> {
  const body = handOverRequest.encode(request)
  const answer = handOverAnswer.decode(await network.request(gateway, controlProtocols.handOver, body, signal))
  if (!('error' in answer)) return answer
  const { code, message } = answer.error
  throw new HoldfastError(
    code === 'OVERLOADED' ? 'TIMEOUT' : 'PROTOCOL',
    `${gateway.peerId} answered ${code}: ${message}`
  )
}
