/** `POST /holdfast/v1/proofs`: the HTTP around the proof service. The answer streams, as fast as the auditor takes it. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '../base/clock.ts'
import { check, HoldfastError } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import { proofRequestBytesMax, proofsType } from '../transfer/data-plane.ts'
import type { ProofService } from './proof-service.ts'

/** Far more than an auditor waits: whoever still reads after it only keeps a place. */
const answerMsMax = 30 * secondMs
/** A request has 200 KiB at most, and an auditor waits for the first answer no longer than this. */
const bodyMsMax = 2 * secondMs

export interface ProofExchange {
  request: IncomingMessage
  response: ServerResponse
  /** The peer id that the connection proves. */
  peer: string
  /** Aborts when the auditor goes away. */
  gone: AbortSignal
}

/** @throws HoldfastError `BAD_INPUT` or `OVERLOADED`, before anything is answered; after that only the connection can fail */
export async function serveProofs(
  service: ProofService,
  clock: Clock,
  { request, response, peer, gone }: ProofExchange
): Promise<void> {
  await service.recognise()
  const leave = service.admit(peer)
  const done = new AbortController()
  const late = clock.sleep(answerMsMax, done.signal).then(
    () => void response.destroy(),
    () => {} // in time
  )
  try {
    const received = await service.receive(peer, await readBodyInTime(request, clock, gone))
    response.writeHead(200, { 'content-type': proofsType, 'cache-control': 'no-store' })
    for await (const frames of service.answer(received, gone)) {
      if (!response.write(frames)) await drained(response, gone)
    }
    response.end()
  } finally {
    leave()
    done.abort('in time')
    await late
  }
}

async function drained(response: ServerResponse, gone: AbortSignal): Promise<void> {
  gone.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onDrain = (): void => {
      gone.removeEventListener('abort', onGone)
      resolve()
    }
    const onGone = (): void => {
      response.removeListener('drain', onDrain)
      reject(gone.reason)
    }
    response.once('drain', onDrain)
    gone.addEventListener('abort', onGone, { once: true })
  })
}

/** Whoever sends slowly only keeps a place. */
async function readBodyInTime(request: IncomingMessage, clock: Clock, gone: AbortSignal): Promise<Uint8Array> {
  const done = new AbortController()
  const late = clock.sleep(bodyMsMax, done.signal).then(() => {
    throw new HoldfastError('BAD_INPUT', `the request did not come within ${bodyMsMax} ms`)
  })
  late.catch(() => {}) // in time
  try {
    return await Promise.race([readBody(request, gone), late])
  } finally {
    done.abort('it has come')
  }
}

async function readBody(request: IncomingMessage, gone: AbortSignal): Promise<Uint8Array> {
  const announced = Number(request.headers['content-length'] ?? Number.NaN)
  check(announced <= proofRequestBytesMax, `an audit request says its length, at most ${proofRequestBytesMax} bytes`)
  gone.throwIfAborted()
  return await new Promise<Uint8Array>((resolve, reject) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => void chunks.push(chunk)) // Node holds the client to the length
    request.once('end', () => resolve(Buffer.concat(chunks)))
    request.once('error', reject)
    gone.addEventListener('abort', () => reject(gone.reason), { once: true })
  })
}
