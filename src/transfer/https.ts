/**
 * The real `ProviderClient`: blocks over HTTPS to providers whose certificates prove the peer id that was asked for,
 * offers and leases over the control plane.
 *
 * Deadlines are the caller's signals; what is bounded here is the time to connect, and how long a provider may say
 * nothing at all. Where every data URL of a provider fails with `OFFLINE` they may be stale: the caller asks for a
 * fresh offer, or looks the peer up.
 */
import { subscribe } from 'node:diagnostics_channel'
import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { CID } from 'multiformats/cid'
import { buildConnector, type Dispatcher, Pool } from 'undici'
import type { Clock } from '../base/clock.ts'
import { check, type ErrorCode, HoldfastError, isCode } from '../base/errors.ts'
import { KiB, limits, secondMs } from '../base/limits.ts'
import type { ProofAnswers } from '../custody/answers.ts'
import type { Signed } from '../custody/audit-messages.ts'
import { decodeOffer, type Offer, type VerifySignature } from '../market/offer.ts'
import type { Network } from '../net/network.ts'
import { type PeerCertificate, peerIdOfCertificate } from '../net/peer-tls.ts'
import { dataHeaders, gatewayPath, shardsPath, statusOfCode } from './data-plane.ts'
import { controlProtocols, leaseAnswer, leaseRequest } from './lease-protocol.ts'
import { askForProofs, refusalOfProofs } from './prove.ts'
import type {
  GetShardOptions,
  LeaseState,
  LeaseTerms,
  ProviderClient,
  ProviderRef,
  PutShardOptions
} from './provider-client.ts'
import { askForRefusals } from './refusal-protocol.ts'

const connectMsMax = 3 * secondMs
/** Silence, not slowness: bytes that trickle in are for the caller's deadline. */
const silenceMsMax = 30 * secondMs
/** Shorter than providers keep idle connections. */
const idleMs = 30 * secondMs
const connectionsPerProvider = 8
/** Providers with open connections. */
const poolsMax = 512
const errorBytesMax = 4096
const bulkBytesMin = 128 * KiB

/** Sockets of this module: others in the process may use undici too. */
const ownSockets = new WeakSet<object>()

/**
 * A provider may answer before it has read: then what was sent is with the system, encrypted, but what would be sent next
 * on that connection waits as a reference to memory that has another use by the time it goes out. So nothing is sent on a
 * connection that has unsent bytes; the request fails before it has begun, and is repeated on another.
 */
subscribe('undici:client:sendHeaders', (message) => {
  const { socket } = message as { socket: Socket }
  if (ownSockets.has(socket) && socket.writableLength > 0) socket.destroy()
})

export interface HttpsProviderClientComponents {
  network: Pick<Network, 'request'>
  /** Proves our own peer id to providers. */
  certificate: PeerCertificate
  verifySignature: VerifySignature
  clock: Clock
}

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: Uint8Array
}

interface Question {
  method: 'GET' | 'PUT'
  path: string
  headers: Record<string, string>
  body?: Uint8Array
  signal?: AbortSignal
  /** Memory for the answer's body, where it fits. */
  into?: Uint8Array
}

export class HttpsProviderClient implements ProviderClient {
  readonly #network: Pick<Network, 'request'>
  readonly #certificate: PeerCertificate
  readonly #verifySignature: VerifySignature
  readonly #clock: Clock
  /** Least recently used first. */
  readonly #pools = new Map<string, Pool>()
  #isClosed = false
  #lastTurn: Promise<void> = Promise.resolve()

  constructor({ network, certificate, verifySignature, clock }: HttpsProviderClientComponents) {
    this.#network = network
    this.#certificate = certificate
    this.#verifySignature = verifySignature
    this.#clock = clock
  }

  async putShard(provider: ProviderRef, cid: CID, bytes: Uint8Array, options: PutShardOptions): Promise<void> {
    check(bytes.length <= limits.shardBytesMax, `a block has at most ${limits.shardBytesMax} bytes`)
    const headers: Record<string, string> = {
      'content-type': 'application/vnd.ipld.raw',
      [dataHeaders.leaseMs]: String(options.termMs)
    }
    if (options.announce === true) headers[dataHeaders.announce] = '1'
    if (options.ticket !== undefined) headers[dataHeaders.ticket] = Buffer.from(options.ticket).toString('base64url')
    const { signal } = options
    if (bytes.length >= bulkBytesMin) await this.#bulkTurn()
    signal?.throwIfAborted()
    const answer = await this.#ask(provider, {
      method: 'PUT',
      path: `${shardsPath}${cid}`,
      headers,
      body: bytes,
      signal
    })
    if (answer.status !== 200 && answer.status !== 201) throw failureOf(provider, answer)
  }

  async getShard(
    provider: ProviderRef,
    cid: CID,
    signal?: AbortSignal,
    into?: Uint8Array,
    { toMove = false }: GetShardOptions = {}
  ): Promise<Uint8Array> {
    const headers = { accept: 'application/vnd.ipld.raw', ...(toMove ? { [dataHeaders.move]: '1' } : {}) }
    const answer = await this.#ask(provider, { method: 'GET', path: `${gatewayPath}${cid}`, headers, signal, into })
    if (answer.status !== 200) throw failureOf(provider, answer)
    return answer.body
  }

  async renewLeases(
    provider: ProviderRef,
    cids: readonly CID[],
    { termMs }: LeaseTerms,
    signal?: AbortSignal
  ): Promise<LeaseState[]> {
    const states = await this.#askLease(
      provider,
      leaseRequest.encode({ v: 1, op: 'renew', cids: [...cids], termMs }),
      signal
    )
    if (states.length !== cids.length)
      throw new HoldfastError('PROTOCOL', `${provider.peerId} answered for other leases`)
    return states
  }

  async releaseLeases(provider: ProviderRef, cids: readonly CID[], signal?: AbortSignal): Promise<void> {
    await this.#askLease(provider, leaseRequest.encode({ v: 1, op: 'release', cids: [...cids] }), signal)
  }

  async getOffer(provider: ProviderRef, signal?: AbortSignal): Promise<Offer> {
    const bytes = await this.#network.request(provider, controlProtocols.offer, new Uint8Array(), signal)
    return await decodeOffer(bytes, provider.peerId, this.#verifySignature)
  }

  async prove(provider: ProviderRef, request: Signed, signal?: AbortSignal): Promise<ProofAnswers> {
    const asError = (cause: unknown): HoldfastError => asHoldfastError(provider, cause)
    const answer = await this.#reach(provider, signal, (pool) => askForProofs(pool, request, { signal, asError }))
    if ('status' in answer) throw refusalOfProofs(failureOf(provider, answer))
    return answer
  }

  async listRefusals(
    provider: ProviderRef,
    cids: readonly CID[],
    signal?: AbortSignal
  ): Promise<Array<Uint8Array | undefined>> {
    return await askForRefusals(this.#network, provider, cids, signal)
  }

  /**
   * One large body a turn of the event loop: encrypting it takes a millisecond, and a segment's shards, which come at the
   * same moment, would keep everybody else waiting for twenty.
   */
  #bulkTurn(): Promise<void> {
    this.#lastTurn = this.#lastTurn.then(() => new Promise((resolve) => setImmediate(resolve)))
    return this.#lastTurn
  }

  /** Ends all connections; requests under way fail. */
  async close(): Promise<void> {
    this.#isClosed = true
    const pools = [...this.#pools.values()]
    this.#pools.clear()
    await Promise.all(pools.map((pool) => pool.destroy()))
  }

  async #askLease(provider: ProviderRef, request: Uint8Array, signal?: AbortSignal): Promise<LeaseState[]> {
    const answer = leaseAnswer.decode(await this.#network.request(provider, controlProtocols.lease, request, signal))
    if ('states' in answer) return answer.states
    const code = answer.error.code === 'OVERLOADED' ? 'TIMEOUT' : 'PROTOCOL'
    throw new HoldfastError(code, `${provider.peerId} answered ${answer.error.code}: ${answer.error.message}`)
  }

  async #ask(provider: ProviderRef, question: Question): Promise<Answer> {
    return await this.#reach(provider, question.signal, (pool) => ask(pool, question))
  }

  /** Tries the provider's URLs in turn until one has a provider behind it. */
  async #reach<T>(
    provider: ProviderRef,
    signal: AbortSignal | undefined,
    exchange: (pool: Pool) => Promise<T>
  ): Promise<T> {
    let offline: HoldfastError = new HoldfastError('OFFLINE', `${provider.peerId} has no data URL`)
    for (const url of provider.dataUrls) {
      signal?.throwIfAborted()
      const pool = this.#poolOf(provider.peerId, url)
      try {
        return await againIfStale(signal, () => exchange(pool))
      } catch (cause) {
        if (signal?.aborted === true) throw signal.reason
        const error = asHoldfastError(provider, cause)
        if (error.code !== 'OFFLINE') throw error
        offline = error
      }
    }
    throw offline
  }

  #poolOf(peerId: string, url: string): Pool {
    if (this.#isClosed) throw new HoldfastError('ABORTED', 'the client is closed')
    const key = `${peerId} ${url}`
    let pool = this.#pools.get(key)
    if (pool === undefined) pool = this.#openPool(peerId, url)
    this.#pools.delete(key)
    this.#pools.set(key, pool)
    if (this.#pools.size > poolsMax) this.#closeOldest()
    return pool
  }

  #closeOldest(): void {
    const [oldest] = this.#pools
    if (oldest === undefined) return
    this.#pools.delete(oldest[0])
    oldest[1].close().catch(() => {}) // requests under way end as they may; their callers hear of it
  }

  #openPool(peerId: string, url: string): Pool {
    const connect = buildConnector({
      ...this.#certificate,
      rejectUnauthorized: false, // no authority: the peer id is checked below
      minVersion: 'TLSv1.3',
      // A resumed session has no certificate, and so no peer id.
      maxCachedSessions: 0,
      allowH2: false,
      timeout: connectMsMax
    })
    const checkPeer = async (socket: TLSSocket): Promise<void> => {
      const raw = socket.getPeerX509Certificate()?.raw
      const found = raw === undefined ? undefined : await peerIdOfCertificate(raw, this.#clock.now())
      if (found !== peerId) {
        throw new HoldfastError('OFFLINE', `another peer answers at ${url}`, { details: { expected: peerId, found } })
      }
    }
    return new Pool(originOf(url), {
      connections: connectionsPerProvider,
      pipelining: 1,
      allowH2: false,
      headersTimeout: silenceMsMax,
      bodyTimeout: silenceMsMax,
      keepAliveTimeout: idleMs,
      keepAliveMaxTimeout: idleMs,
      maxHeaderSize: 8192,
      connect: (options, callback) =>
        connect(options, (error, socket) => {
          if (error !== null) {
            callback(error, null)
            return
          }
          checkPeer(socket as TLSSocket).then(
            () => {
              ownSockets.add(socket)
              callback(null, socket)
            },
            (reason: Error) => {
              socket.destroy()
              callback(reason, null)
            }
          )
        })
    })
  }
}

function originOf(url: string): string {
  try {
    return new URL(url).origin
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', `not a data URL: ${url.slice(0, 256)}`, { cause })
  }
}

/**
 * A kept connection may have been closed by the other end just when it was used. Once more, then, and once only:
 * all requests here may be repeated.
 */
async function againIfStale<T>(signal: AbortSignal | undefined, exchange: () => Promise<T>): Promise<T> {
  try {
    return await exchange()
  } catch (error) {
    if (signal?.aborted === true || !brokenCodes.has((error as NodeJS.ErrnoException).code ?? '')) throw error
    return await exchange()
  }
}

const brokenCodes = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

/** One exchange; the body goes straight into a buffer of the announced length. */
function ask(pool: Pool, { method, path, headers, body, signal, into }: Question): Promise<Answer> {
  return new Promise<Answer>((resolve, reject) => {
    let answer: Answer | undefined
    let length = 0
    let controller: Dispatcher.DispatchController | undefined
    const onAbort = (): void => {
      reject(signal?.reason)
      controller?.abort(signal?.reason)
    }
    const settle = (): void => signal?.removeEventListener('abort', onAbort)
    signal?.addEventListener('abort', onAbort, { once: true })
    pool.dispatch(
      { method, path, headers, body: body ?? null },
      {
        onRequestStart: (started) => {
          controller = started
          if (signal?.aborted === true) started.abort(signal.reason)
        },
        onResponseStart: (_controller, status, responseHeaders) => {
          answer = { status, headers: responseHeaders, body: bodyBuffer(status, responseHeaders, into) }
        },
        onResponseData: (_controller, chunk) => {
          if (signal?.aborted === true) return // the memory may have another use by now
          if (answer === undefined || length + chunk.length > answer.body.length) throw surplus()
          answer.body.set(chunk, length)
          length += chunk.length
        },
        onResponseEnd: () => {
          settle()
          if (answer !== undefined) resolve({ ...answer, body: answer.body.subarray(0, length) })
        },
        onResponseError: (_controller, error) => {
          settle()
          reject(error)
        }
      }
    )
  })
}

const surplus = (): HoldfastError => new HoldfastError('PROTOCOL', 'the body is longer than announced')

function bodyBuffer(status: number, headers: IncomingHttpHeaders, into?: Uint8Array): Uint8Array {
  const length = Number(headers['content-length'] ?? Number.NaN)
  const lengthMax = status === 200 ? limits.shardBytesMax : errorBytesMax
  if (!(length <= lengthMax))
    throw new HoldfastError('PROTOCOL', `a body of ${headers['content-length'] ?? 'unknown'} bytes`)
  return into !== undefined && length <= into.length ? into.subarray(0, length) : Buffer.allocUnsafeSlow(length)
}

const codeOfStatus = new Map(Object.entries(statusOfCode).map(([code, status]) => [status, code as ErrorCode]))

function failureOf(provider: ProviderRef, { status, headers, body }: Answer): HoldfastError {
  const declared = codeOfStatus.get(status)
  const details: Record<string, unknown> = { status }
  if (headers[dataHeaders.rotten] === '1') details.rotten = true
  // Our own words for it: what a peer writes goes no further than the message.
  const message = `${provider.peerId} answered ${status}: ${Buffer.from(body).toString('utf8', 0, 256)}`
  if (declared === 'OVERLOADED')
    return new HoldfastError('TIMEOUT', message, { details: { ...details, overloaded: true } })
  if (declared === undefined || declared === 'BAD_INPUT') return new HoldfastError('PROTOCOL', message, { details })
  return new HoldfastError(declared, message, { details })
}

const timeoutCodes = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT'])
const protocolCodes = new Set([
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE'
])

function asHoldfastError({ peerId }: ProviderRef, cause: unknown): HoldfastError {
  if (isCode(cause, 'OFFLINE', 'PROTOCOL', 'ABORTED')) return cause
  const code = (cause as NodeJS.ErrnoException).code ?? ''
  if (timeoutCodes.has(code)) return new HoldfastError('TIMEOUT', `${peerId} went silent`, { cause })
  if (protocolCodes.has(code) || code.startsWith('HPE_'))
    return new HoldfastError('PROTOCOL', `${peerId} does not speak HTTP`, { cause })
  // Refused, reset, unreachable, unresolved, not TLS: there is no provider to talk to.
  return new HoldfastError('OFFLINE', `no connection to ${peerId}`, { cause })
}
