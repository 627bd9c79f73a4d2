/** The asking end of the proof protocol: one audit request out, its answers as they stream in. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { Clock } from '../base/clock.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import type { ProofAnswers } from '../custody/answers.ts'
import { auditRequestCodec, type Signed, signedCodec } from '../custody/audit-messages.ts'
import { proofsPath, proofsType } from './data-plane.ts'
import { ProofFrameDecoder } from './proof-frames.ts'
import type { ProviderClient, ProviderRef } from './provider-client.ts'

const refusalBytesMax = 4096

export interface RefusedAnswer {
  status: number
  headers: IncomingHttpHeaders
  body: Uint8Array
}

export interface ProveInit {
  signal?: AbortSignal
  /** What a failure of the connection means, in our own codes. */
  asError: (cause: unknown) => HoldfastError
}

/**
 * One exchange. Until the provider begins to answer it rejects, with whatever the connection had or the signal's reason; from
 * then on it resolves with what came, whatever ended it. A status other than 200 is given back as it is.
 */
export function askForProofs(
  pool: Pick<Dispatcher, 'dispatch'>,
  request: Signed,
  { signal, asError }: ProveInit
): Promise<ProofAnswers | RefusedAnswer> {
  const decoder = new ProofFrameDecoder(auditRequestCodec.decode(request.bytes).challenges.length)
  const body = signedCodec.encode(request)
  return new Promise<ProofAnswers | RefusedAnswer>((resolve, reject) => {
    let answer: RefusedAnswer | undefined
    let controller: Dispatcher.DispatchController | undefined
    const fail = (reason: unknown, asFailure: (reason: unknown) => HoldfastError): void => {
      signal?.removeEventListener('abort', onAbort)
      if (answer?.status === 200) resolve(answersOf(decoder, asFailure(reason)))
      else reject(reason)
    }
    const onAbort = (): void => {
      // Time is up, and there is not even a connection: nobody is there, as far as can be told.
      const isOffline = controller === undefined && isCode(signal?.reason, 'TIMEOUT')
      const reason = isOffline ? new HoldfastError('OFFLINE', 'no connection in time') : signal?.reason
      fail(reason, asAborted)
      controller?.abort(signal?.reason)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    pool.dispatch(
      { method: 'POST', path: proofsPath, headers: { 'content-type': 'application/cbor', accept: proofsType }, body },
      {
        onRequestStart: (started) => {
          controller = started
          if (signal?.aborted === true) started.abort(signal.reason)
        },
        onResponseStart: (_controller, status, headers) => {
          answer = { status, headers, body: new Uint8Array(0) }
        },
        onResponseData: (_controller, chunk) => {
          if (answer?.status === 200) decoder.push(chunk)
          else if (answer !== undefined) answer.body = withMore(answer.body, chunk)
        },
        onResponseEnd: () => {
          signal?.removeEventListener('abort', onAbort)
          resolve(answer === undefined || answer.status === 200 ? answersOf(decoder) : answer)
        },
        onResponseError: (_controller, error) => fail(error, asError)
      }
    )
  })
}

/** As they are now: nothing that comes later changes them. */
function answersOf({ answers, statement }: ProofFrameDecoder, failure?: HoldfastError): ProofAnswers {
  return { answers: [...answers], statement, ...(failure === undefined ? {} : { failure }) }
}

function withMore(body: Uint8Array, chunk: Uint8Array): Uint8Array {
  if (body.length + chunk.length > refusalBytesMax) throw new HoldfastError('PROTOCOL', 'an error of many words')
  return Buffer.concat([body, chunk])
}

function asAborted(reason: unknown): HoldfastError {
  return reason instanceof HoldfastError ? reason : new HoldfastError('ABORTED', messageOf(reason), { cause: reason })
}

/** A provider cannot say by a status what it has to say, challenge by challenge, in answers. */
export function refusalOfProofs(error: HoldfastError): HoldfastError {
  if (error.code === 'TIMEOUT' || error.code === 'PROTOCOL') return error
  return new HoldfastError('PROTOCOL', error.message, { cause: error, details: error.details })
}

/** The answers, or that part of a stream's bytes which was in the protocol. */
export function decodeProofs(challenges: number, chunks: Iterable<Uint8Array>): ProofAnswers {
  const decoder = new ProofFrameDecoder(challenges)
  try {
    for (const chunk of chunks) decoder.push(chunk)
  } catch (error) {
    if (isCode(error, 'PROTOCOL')) return answersOf(decoder, error)
    throw error
  }
  return answersOf(decoder)
}

export interface DeadlineInit {
  clock: Clock
  /** From now on. */
  deadlineMs: number
  signal?: AbortSignal
}

/**
 * Asks for proofs, and takes what has come by the deadline. (`withDeadline` would throw the answers away.)
 *
 * @throws what `prove` rejects with; HoldfastError `TIMEOUT` when nothing had come by then
 */
export async function proveWithin(
  client: Pick<ProviderClient, 'prove'>,
  provider: ProviderRef,
  request: Signed,
  { clock, deadlineMs, signal }: DeadlineInit
): Promise<ProofAnswers> {
  signal?.throwIfAborted()
  const late = new AbortController()
  const done = new AbortController()
  const onAbort = (): void => late.abort(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const sleeping = clock.sleep(deadlineMs, done.signal).then(
    () => late.abort(new HoldfastError('TIMEOUT', `no whole answer within ${deadlineMs} ms`)),
    () => {} // the answer came first
  )
  try {
    return await client.prove(provider, request, late.signal)
  } finally {
    done.abort('the answer came first')
    signal?.removeEventListener('abort', onAbort)
    await sleeping
  }
}
