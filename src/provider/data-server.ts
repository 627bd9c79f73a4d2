/**
 * The provider's data plane: HTTP/1.1 on TLS 1.3.
 *
 * - `PUT /holdfast/v1/shards/{cid}` from peers that prove who they are: the block is durable and leased before it is
 *   acknowledged.
 * - `GET` and `HEAD /ipfs/{cid}` for anybody: raw blocks, after the trustless gateway specification
 *   (https://specs.ipfs.tech/http-gateways/trustless-gateway/).
 * - `POST /holdfast/v1/proofs` from peers that prove who they are: see `proof-service.ts`.
 *
 * Every body, connection, wait and queue has a bound. Errors are JSON: `{ "code", "message" }`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { CID } from 'multiformats/cid'
import type { Clock } from '../base/clock.ts'
import { Semaphore } from '../base/concurrency.ts'
import { type ErrorCode, HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { KiB, limits, MiB, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { parseCid } from '../content/cid.ts'
import type { VerifySignature } from '../market/offer.ts'
import { redeemTicket, ticketBytesMax } from '../market/ticket.ts'
import { type PeerCertificate, peerIdOfCertificate } from '../net/peer-tls.ts'
import { dataHeaders, gatewayPath, proofsPath, shardsPath, statusOfCode } from '../transfer/data-plane.ts'
import { BufferPool } from './buffer-pool.ts'
import { serveProofs } from './proof-route.ts'
import type { ProofService } from './proof-service.ts'
import type { StorageProvider } from './storage-provider.ts'

const connectionsMax = 1024
/** Bodies of uploads in memory at once, and uploads that wait for their share. */
const uploadBytesInFlight = 64 * MiB
const uploadsWaiting = 256
/** Blocks being sent to clients that read slowly. */
const downloadBytesInFlight = 64 * MiB
const downloadsWaiting = 512
/** Buffers of a block's size that are used again, for both. */
const buffersKept = 12
/** Smaller blocks are read into memory of their own. */
const pooledBytesMin = 64 * KiB
/** A whole request, body included, and a whole answer. */
const requestMsMax = 30 * secondMs
const answerMsMax = 2 * minuteMs
/** Longer than clients keep idle connections, so that they and not we close them. */
const keepAliveMs = 75 * secondMs
const handshakeMsMax = 10 * secondMs

/** What a browser may keep forever, which is true of anything named by its hash. */
const immutable = 'public, max-age=29030400, immutable'
const rawType = 'application/vnd.ipld.raw'
const identityHash = 0x00

export interface DataServerComponents {
  storage: StorageProvider
  proofs: ProofService
  certificate: PeerCertificate
  verifySignature: VerifySignature
  clock: Clock
  log: Log
  /** Called for every root that was stored and is to be announced. */
  announceRoot: (cid: CID) => void
}

export class DataServer {
  readonly #storage: StorageProvider
  readonly #proofs: ProofService
  readonly #verifySignature: VerifySignature
  readonly #clock: Clock
  readonly #log: Log
  readonly #announceRoot: (cid: CID) => void
  readonly #server: Server
  readonly #peers = new WeakMap<object, Promise<string | undefined>>()
  readonly #uploads = new Semaphore(uploadBytesInFlight, uploadsWaiting)
  readonly #downloads = new Semaphore(downloadBytesInFlight, downloadsWaiting)
  readonly #buffers = new BufferPool(limits.shardBytesMax, buffersKept)
  readonly #handling = new Set<Promise<void>>()

  constructor({ storage, proofs, certificate, verifySignature, clock, log, announceRoot }: DataServerComponents) {
    this.#storage = storage
    this.#proofs = proofs
    this.#verifySignature = verifySignature
    this.#clock = clock
    this.#log = log.child('data')
    this.#announceRoot = announceRoot
    this.#server = createServer(
      {
        ...certificate,
        minVersion: 'TLSv1.3',
        ALPNProtocols: ['http/1.1'],
        // Asked for, and judged by peer id: no authority is involved, and readers need none.
        requestCert: true,
        rejectUnauthorized: false,
        handshakeTimeout: handshakeMsMax,
        requestTimeout: requestMsMax,
        headersTimeout: handshakeMsMax,
        connectionsCheckingInterval: 5 * secondMs,
        keepAliveTimeout: keepAliveMs,
        maxHeaderSize: 8192,
        noDelay: true
      },
      (request, response) => {
        const handling = this.#handle(request, response)
        this.#handling.add(handling)
        void handling.finally(() => this.#handling.delete(handling))
      }
    )
    this.#server.maxConnections = connectionsMax
    this.#server.setTimeout(keepAliveMs)
    this.#server.on('tlsClientError', (error) => this.#log.debug('a handshake failed', { error: error.message }))
  }

  /** Whether a request is being served. */
  get isBusy(): boolean {
    return this.#handling.size > 0
  }

  /** Resolves with the port. @throws HoldfastError `BAD_CONFIG` when the address is taken or not ours */
  async listen(host: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause) =>
        reject(new HoldfastError('BAD_CONFIG', `cannot listen on ${host}:${port}: ${cause.message}`, { cause }))
      )
      this.#server.listen(port, host, resolve)
    })
    this.#server.removeAllListeners('error')
    this.#server.on('error', (error) => this.#log.error('the server failed', { error: error.message }))
    return (this.#server.address() as AddressInfo).port
  }

  /** Stops taking connections, ends those there are, and waits for what their requests had begun. */
  async stop(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
      this.#server.closeIdleConnections()
      // Whoever is in the middle of something sees a broken connection, as with any provider that goes.
      this.#server.closeAllConnections()
    })
    await Promise.all(this.#handling)
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort(new HoldfastError('ABORTED', 'the client went away')))
    try {
      const url = new URL(request.url ?? '/', 'https://provider')
      if (url.pathname.startsWith(shardsPath)) await this.#handleShard(request, response, url, gone.signal)
      else if (url.pathname.startsWith(gatewayPath)) await this.#handleBlock(request, response, url, gone.signal)
      else if (url.pathname === proofsPath) await this.#handleProofs(request, response, gone.signal)
      else throw new HttpError(404, 'MISSING', 'no such resource')
    } catch (error) {
      this.#fail(request, response, error)
    }
  }

  async #handleShard(request: IncomingMessage, response: ServerResponse, url: URL, gone: AbortSignal): Promise<void> {
    if (request.method !== 'PUT') throw new HttpError(405, 'BAD_INPUT', 'a shard is PUT here', { allow: 'PUT' })
    const peer = await this.#peerOf(request)
    if (peer === undefined) throw new HttpError(401, 'BAD_INPUT', 'a client certificate with a peer id is needed')
    const cid = parseCid(url.pathname.slice(shardsPath.length))
    const { owner, termMs } = await this.#leaseOf(request, peer, cid)
    const length = wholeNumber(request.headers['content-length'], 'content-length')
    if (length > limits.shardBytesMax)
      throw new HttpError(413, 'BAD_INPUT', `a block has at most ${limits.shardBytesMax} bytes`)
    const release = await this.#uploads.acquire(length, gone)
    const buffer = this.#buffers.take()
    try {
      const body = buffer.subarray(0, length)
      await readBody(request, body, gone)
      gone.throwIfAborted() // nobody waits for the answer: what would be kept is rubbish
      const { created, until } = await this.#storage.put(owner, cid, body, termMs)
      if (request.headers[dataHeaders.announce] === '1') this.#announceRoot(cid)
      sendJson(response, created ? 201 : 200, { until })
    } finally {
      this.#buffers.give(buffer)
      release()
    }
  }

  /** Whose lease a PUT asks for, and for how long: the peer's own, or what its ticket says. */
  async #leaseOf(request: IncomingMessage, peer: string, cid: CID): Promise<{ owner: string; termMs: number }> {
    const ticket = request.headers[dataHeaders.ticket]
    if (ticket === undefined)
      return { owner: peer, termMs: wholeNumber(request.headers[dataHeaders.leaseMs], dataHeaders.leaseMs) }
    if (typeof ticket !== 'string' || ticket.length > 2 * ticketBytesMax)
      throw new HoldfastError('BAD_INPUT', `${dataHeaders.ticket} is too long`)
    const shown = { from: peer, to: this.#storage.peerId, cid, now: this.#clock.now() }
    return await redeemTicket(Buffer.from(ticket, 'base64url'), shown, this.#verifySignature)
  }

  async #handleBlock(request: IncomingMessage, response: ServerResponse, url: URL, gone: AbortSignal): Promise<void> {
    const { method, headers } = request
    if (method !== 'GET' && method !== 'HEAD')
      throw new HttpError(405, 'BAD_INPUT', 'GET or HEAD', { allow: 'GET, HEAD' })
    const cid = cidOfPath(url.pathname.slice(gatewayPath.length))
    checkFormat(url.searchParams.get('format'), headers.accept)
    const refusal = this.#storage.refusalOf(cid)
    const isMoving = refusal !== undefined && method === 'GET' && (await this.#mayMove(request, cid))
    if (refusal !== undefined && !isMoving) throw new HoldfastError('REFUSED', refusal) // also to who has it already
    const etag = `"${cid}.raw"`
    if (headers['if-none-match']?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag) === true) {
      response.writeHead(304, { etag, 'cache-control': immutable }).end()
      return
    }
    const size = isMoving ? limits.shardBytesMax : await this.#sizeOf(cid)
    if (size === undefined) {
      if (headers['cache-control'] === 'only-if-cached') throw new HttpError(412, 'MISSING', 'no such block here')
      throw new HoldfastError('MISSING', 'no such block here')
    }
    const release = method === 'HEAD' ? undefined : await this.#downloads.acquire(size, gone)
    const buffer = method === 'HEAD' || size < pooledBytesMin ? undefined : this.#buffers.take()
    let isReading = true
    // Held until the last byte is with the client, however slow it is; closed for it when it takes too long.
    const late = setTimeout(() => response.destroy(), answerMsMax)
    const settle = (): void => {
      if (isReading || !gone.aborted) return
      clearTimeout(late)
      release?.()
      if (buffer !== undefined) this.#buffers.give(buffer)
    }
    gone.addEventListener('abort', settle, { once: true })
    let bytes: Uint8Array | undefined
    try {
      if (method === 'GET') bytes = await this.#bytesOf(cid, buffer, isMoving)
      if (gone.aborted) return
    } finally {
      isReading = false
      settle()
    }
    response.writeHead(200, {
      'content-type': rawType,
      'content-length': bytes?.length ?? size,
      'content-disposition': `attachment; filename="${cid}.bin"`,
      'cache-control': immutable,
      etag,
      vary: 'Accept',
      'accept-ranges': 'none',
      'access-control-allow-origin': '*',
      'x-content-type-options': 'nosniff',
      'x-ipfs-path': `/ipfs/${cid}`,
      'x-ipfs-roots': cid.toString()
    })
    response.end(bytes)
  }

  async #handleProofs(request: IncomingMessage, response: ServerResponse, gone: AbortSignal): Promise<void> {
    if (request.method !== 'POST') throw new HttpError(405, 'BAD_INPUT', 'audits are POSTed here', { allow: 'POST' })
    const peer = await this.#peerOf(request)
    if (peer === undefined) throw new HttpError(401, 'BAD_INPUT', 'a client certificate with a peer id is needed')
    await serveProofs(this.#proofs, this.#clock, { request, response, peer, gone })
  }

  async #mayMove(request: IncomingMessage, cid: CID): Promise<boolean> {
    if (request.headers[dataHeaders.move] !== '1') return false
    const peer = await this.#peerOf(request)
    return peer !== undefined && (await this.#storage.mayMove(peer, cid))
  }

  async #sizeOf(cid: CID): Promise<number | undefined> {
    return cid.multihash.code === identityHash ? cid.multihash.digest.length : await this.#storage.size(cid)
  }

  async #bytesOf(cid: CID, into: Uint8Array | undefined, isMoving: boolean): Promise<Uint8Array> {
    if (isMoving) return await this.#storage.getToHandOver(cid, into)
    // Gateways are probed with an identity CID, which contains its own bytes.
    return cid.multihash.code === identityHash ? cid.multihash.digest : await this.#storage.get(cid, into)
  }

  /** The peer id that the connection's certificate proves; `undefined` without a certificate, or with a foreign one. */
  async #peerOf(request: IncomingMessage): Promise<string | undefined> {
    const socket = request.socket as TLSSocket
    let peer = this.#peers.get(socket)
    if (peer === undefined) {
      const raw = socket.getPeerX509Certificate()?.raw
      peer =
        raw === undefined
          ? Promise.resolve(undefined)
          : peerIdOfCertificate(raw, this.#clock.now()).catch((error) => {
              this.#log.debug('a client certificate was not accepted', { error: messageOf(error.cause ?? error) })
              return undefined
            })
      this.#peers.set(socket, peer)
    }
    return await peer
  }

  #fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (response.headersSent || response.destroyed || request.socket.destroyed) {
      response.destroy()
      return
    }
    const { status, code, message, headers } = answerOf(error)
    if (status === 500)
      this.#log.error('a request failed', { method: request.method, path: request.url, error: messageOf(error) })
    // What is left of a body is not read: the connection has no further use then.
    if (!request.complete) response.setHeader('connection', 'close')
    sendJson(response, status, { code, message }, headers)
  }
}

/** A failure that only HTTP knows. */
class HttpError extends Error {
  readonly status: number
  readonly code: ErrorCode
  readonly headers: Record<string, string>

  constructor(status: number, code: ErrorCode, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.status = status
    this.code = code
    this.headers = headers
  }
}

function answerOf(error: unknown): {
  status: number
  code: ErrorCode
  message: string
  headers: Record<string, string>
} {
  if (error instanceof HttpError) return error
  const status = error instanceof HoldfastError ? statusOfCode[error.code] : undefined
  if (!(error instanceof HoldfastError) || status === undefined) {
    return { status: 500, code: 'INTERNAL', message: 'the provider has a problem of its own', headers: {} }
  }
  const headers: Record<string, string> = {}
  if (error.details.rotten === true) headers[dataHeaders.rotten] = '1'
  if (isCode(error, 'OVERLOADED')) headers['retry-after'] = '1'
  return { status, code: error.code, message: error.message, headers }
}

function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string> = {}
): void {
  const text = JSON.stringify(value)
  response.writeHead(status, {
    ...headers,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text)
  })
  response.end(text)
}

function wholeNumber(text: string | string[] | undefined, name: string): number {
  if (text === undefined) throw new HttpError(name === 'content-length' ? 411 : 400, 'BAD_INPUT', `${name} is missing`)
  if (typeof text !== 'string' || !/^\d{1,15}$/.test(text))
    throw new HoldfastError('BAD_INPUT', `${name} is not a whole number`)
  return Number(text)
}

function cidOfPath(text: string): CID {
  if (text.includes('/')) throw new HoldfastError('BAD_INPUT', 'raw blocks have no paths below their CID')
  return parseCid(text)
}

function checkFormat(format: string | null, accept: string | undefined): void {
  if (format === 'raw') return
  if (format !== null) throw new HttpError(406, 'BAD_INPUT', 'only raw blocks are served here: format=raw')
  const types = (accept ?? '*/*').split(',').map((type) => type.split(';')[0]!.trim().toLowerCase())
  if (!types.some((type) => type === rawType || type === '*/*' || type === 'application/*')) {
    throw new HttpError(406, 'BAD_INPUT', `only ${rawType} is served here`)
  }
}

/** Fills `body` with the request's bytes. @throws HoldfastError `BAD_INPUT` when they are not as many */
async function readBody(request: IncomingMessage, body: Uint8Array, gone: AbortSignal): Promise<void> {
  gone.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    let length = 0
    request.on('data', (chunk: Buffer) => {
      if (length + chunk.length <= body.length) body.set(chunk, length)
      length += chunk.length
    })
    request.once('end', () => {
      if (length === body.length) resolve()
      else reject(new HoldfastError('BAD_INPUT', 'the body is not as long as announced'))
    })
    request.once('error', reject)
    gone.addEventListener('abort', () => reject(gone.reason), { once: true })
  })
}
