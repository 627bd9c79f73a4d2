/**
 * `/holdfast/refusal/1`, both ends. Anybody may ask a provider which of some blocks it refuses, and gets what it has signed;
 * a provider tells the gateways that lease here what it refuses from now on, and what it found damaged or gone by itself, and
 * asks them for the block that says what a content is made of: where all others refuse it too nobody else gives it.
 * Byte layout: FORMATS.md, "Control messages".
 */
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { Semaphore } from '../base/concurrency.ts'
import { HoldfastError, isCode } from '../base/errors.ts'
import { KiB, limits } from '../base/limits.ts'
import { byteArray, strictCodec, timeSchema } from '../custody/audit-messages.ts'
import { refusalBytesMax } from '../market/refusal.ts'
import type { Network, PeerAddress } from '../net/network.ts'
import { controlProtocols } from './lease-protocol.ts'

/** In one message, asked for or told. */
export const refusalsMax = 256
/** Blocks told to be lost, in one message. */
export const lostMax = 1000
/** Of a manifest's block, or a dag-pb node, as an answer: a message, without what is around it. */
export const nodeBytesMax = limits.rpcBytesMax - KiB
if (refusalsMax * refusalBytesMax + lostMax * 64 + KiB > limits.rpcBytesMax)
  throw new Error('a full message about refusals would exceed a message')

const cidSchema = z.custom<CID>((value) => CID.asCID(value) !== null)
const signedSchema = byteArray.refine(({ length }) => length > 0 && length <= refusalBytesMax, 'a signed refusal')

const listSchema = z.strictObject({ v: z.literal(1), op: z.literal('list'), cids: z.array(cidSchema).max(refusalsMax) })
const tellSchema = z.strictObject({
  v: z.literal(1),
  op: z.literal('tell'),
  /** Signed by the peer that tells. */
  refusals: z.array(signedSchema).max(refusalsMax),
  /** Blocks that it was to keep, and found damaged or gone. */
  lost: z.array(cidSchema).max(lostMax),
  /** By its clock. */
  at: timeSchema,
  /** Whether it is about to hand over what it refuses: then others need not rebuild it at once. */
  handOver: z.boolean()
})
const nodeSchema = z.strictObject({ v: z.literal(1), op: z.literal('node'), cid: cidSchema })
const requestSchema = z.discriminatedUnion('op', [listSchema, tellSchema, nodeSchema])
export type RefusalRequest = z.infer<typeof requestSchema>
export type Tell = z.infer<typeof tellSchema>

const errorSchema = z.strictObject({
  v: z.literal(1),
  error: z.strictObject({ code: z.string().max(64), message: z.string().max(1024) })
})
const answerSchema = z.union([
  /** In the order asked; null: not refused. */
  z.strictObject({ v: z.literal(1), refusals: z.array(signedSchema.nullable()).max(refusalsMax) }),
  z.strictObject({ v: z.literal(1) }),
  /** Null: not of a content of this gateway, or not to be had now. */
  z.strictObject({ v: z.literal(1), node: byteArray.refine(({ length }) => length <= nodeBytesMax).nullable() }),
  errorSchema
])
export type RefusalAnswer = z.infer<typeof answerSchema>

export const refusalRequest = strictCodec<RefusalRequest>('message about refusals', requestSchema, limits.rpcBytesMax)
export const refusalAnswer = strictCodec<RefusalAnswer>('answer about refusals', answerSchema, limits.rpcBytesMax)

/** Requests worked on at once, and waiting: each is some hundred look-ups, or signatures. */
const atOnce = 2
const waitingMax = 64
/** Of one peer, worked on or waiting: the places are not one peer's alone. */
const perPeerMax = 4

/**
 * The end that is asked: a provider gives `list`, a gateway `tell` and `node`.
 *
 * @param handlers `tell` throws what the peer did wrong as `PROTOCOL`
 */
export async function serveRefusals(
  network: Pick<Network, 'handle'>,
  handlers: {
    list?: (cids: readonly CID[]) => Promise<Array<Uint8Array | undefined>>
    tell?: (from: string, told: Tell) => Promise<void>
    node?: (cid: CID) => Promise<Uint8Array | undefined>
  }
): Promise<void> {
  const places = new Semaphore(atOnce, waitingMax)
  // These wait for others' answers: whoever asks for many is not to keep waiting who has something to tell.
  const nodePlaces = new Semaphore(atOnce, waitingMax)
  const asking = new Map<string, number>()
  const answer = async (from: string, request: RefusalRequest): Promise<RefusalAnswer> => {
    if (request.op === 'list' && handlers.list !== undefined) {
      return { v: 1, refusals: (await handlers.list(request.cids)).map((signed) => signed ?? null) }
    }
    if (request.op === 'tell' && handlers.tell !== undefined) {
      await handlers.tell(from, request)
      return { v: 1 }
    }
    if (request.op === 'node' && handlers.node !== undefined) {
      const bytes = await handlers.node(request.cid)
      return { v: 1, node: bytes === undefined || bytes.length > nodeBytesMax ? null : bytes }
    }
    throw new HoldfastError('BAD_INPUT', `${request.op} is not answered here`)
  }
  const inTurn = async (from: string, request: RefusalRequest): Promise<RefusalAnswer> => {
    const own = asking.get(from) ?? 0
    if (own >= perPeerMax) throw new HoldfastError('OVERLOADED', `at most ${perPeerMax} requests at a time`)
    asking.set(from, own + 1)
    try {
      return await (request.op === 'node' ? nodePlaces : places).run(() => answer(from, request))
    } finally {
      const left = asking.get(from)! - 1
      if (left === 0) asking.delete(from)
      else asking.set(from, left)
    }
  }
  await network.handle(controlProtocols.refusal, async (from, body) => {
    const request = refusalRequest.decode(body)
    try {
      return refusalAnswer.encode(await inTurn(from, request))
    } catch (error) {
      if (!isCode(error, 'BAD_INPUT', 'OVERLOADED', 'PROTOCOL')) throw error
      return refusalAnswer.encode({ v: 1, error: { code: error.code, message: error.message.slice(0, 1024) } })
    }
  })
}

/**
 * What a provider has signed of these blocks, in order, at most `refusalsMax`; nothing of it is checked yet.
 *
 * @throws HoldfastError `OFFLINE`, `TIMEOUT`, `PROTOCOL`
 */
export async function askForRefusals(
  network: Pick<Network, 'request'>,
  provider: PeerAddress,
  cids: readonly CID[],
  signal?: AbortSignal
): Promise<Array<Uint8Array | undefined>> {
  const request = refusalRequest.encode({ v: 1, op: 'list', cids: [...cids] })
  const body = await network.request(provider, controlProtocols.refusal, request, signal)
  return refusalsOf(provider.peerId, cids, refusalAnswer.decode(body))
}

/** @throws HoldfastError `TIMEOUT`, `PROTOCOL` */
export function refusalsOf(peerId: string, cids: readonly CID[], answer: RefusalAnswer): Array<Uint8Array | undefined> {
  if ('error' in answer) throw failureOf(peerId, answer.error)
  if (!('refusals' in answer) || answer.refusals.length !== cids.length)
    throw new HoldfastError('PROTOCOL', `${peerId} answered about other blocks`)
  return answer.refusals.map((signed) => signed ?? undefined)
}

/** The provider's end of `tell`: resolves once the gateway has taken it in. @throws as `askForRefusals` */
export async function tellGateway(
  network: Pick<Network, 'request'>,
  gateway: PeerAddress,
  told: Omit<Tell, 'v' | 'op'>,
  signal?: AbortSignal
): Promise<void> {
  const request = refusalRequest.encode({ v: 1, op: 'tell', ...told })
  const answer = refusalAnswer.decode(await network.request(gateway, controlProtocols.refusal, request, signal))
  if ('error' in answer) throw failureOf(gateway.peerId, answer.error)
}

/**
 * The provider's end of `node`: the bytes that a gateway gives for a block of its contents, not checked yet; undefined where
 * it has none.
 *
 * @throws as `askForRefusals`
 */
export async function askOwnerForNode(
  network: Pick<Network, 'request'>,
  gateway: PeerAddress,
  cid: CID,
  signal?: AbortSignal
): Promise<Uint8Array | undefined> {
  const request = refusalRequest.encode({ v: 1, op: 'node', cid })
  const answer = refusalAnswer.decode(await network.request(gateway, controlProtocols.refusal, request, signal))
  if ('error' in answer) throw failureOf(gateway.peerId, answer.error)
  if (!('node' in answer)) throw new HoldfastError('PROTOCOL', `${gateway.peerId} answered something else`)
  return answer.node ?? undefined
}

function failureOf(peerId: string, { code, message }: { code: string; message: string }): HoldfastError {
  return new HoldfastError(code === 'OVERLOADED' ? 'TIMEOUT' : 'PROTOCOL', `${peerId} answered ${code}: ${message}`)
}
