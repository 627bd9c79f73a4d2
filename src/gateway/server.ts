/**
 * The S3 server: takes requests off sockets, finds out who asks, runs the operation and writes its answer.
 *
 * What it guarantees: a body is asked for (`100 Continue`) only once the operation wants it, so a refused upload does
 * not send it; an answer that fails after its head was sent ends in a broken connection, never in a short body that
 * looks whole; and everything that waits has a bound in bytes and in time.
 */
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { HoldfastError, isCode } from '../base/errors.ts'
import { KiB, MiB, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { ObjectStore } from '../object/object-store.ts'
import { authenticate, type Credentials, type Identity } from './authenticate.ts'
import { RequestBody, SocketBody } from './body.ts'
import { S3Error, toS3Error } from './errors.ts'
import { getBlock, isBlockRequest } from './ipfs.ts'
import { operations } from './operations/index.ts'
import type { ByteStream, GatewayContext, Reply } from './operations/operation.ts'
import { headerMap, parseTarget } from './request.ts'
import { type OperationName, route } from './router.ts'
import type { HeaderMap } from './signature.ts'
import { errorDocument } from './xml.ts'

export type { Credentials } from './authenticate.ts'

/** One request, when it is over: for metrics and access logs. */
export interface RequestObservation {
  /** S3's name of the operation, `GetBlock`, or `Unknown` where the request did not get that far. */
  operation: OperationName | 'GetBlock' | 'Unknown'
  /** 499 where the client went away before its answer. */
  status: number
  durationMs: number
  /** Body bytes, without head. */
  bytesIn: number
  bytesOut: number
}

export interface S3ServerOptions {
  store: ObjectStore
  credentials: Credentials
  clock: Clock
  random: Random
  log: Log
  /** Default `us-east-1`. */
  region?: string
  /** Base domains whose subdomains are buckets. Default `localhost` and `s3.localhost`. */
  domains?: readonly string[]
  /** Requests at once; what comes on top is told to slow down. Default 1024. */
  requestsMax?: number
  /** How long a client may send or take nothing. Default 60 s. */
  idleTimeoutMs?: number
  /** PEM; absent: plain HTTP. */
  tls?: { cert: string | Buffer; key: string | Buffer }
  onRequest?: (observation: RequestObservation) => void
}

export interface S3Server {
  /** @returns the port, which the system chooses for port 0 */
  listen: (host: string, port: number) => Promise<{ port: number }>
  /** Takes no more requests, lets those under way end for a while, then cuts them off. */
  close: (graceMs?: number) => Promise<void>
  /** Gauges, as of now. */
  stats: () => { connections: number; requests: number }
}

const headBytesMax = 32 * KiB
const headTimeoutMs = 30 * secondMs
const keepAliveMs = 60 * secondMs
const connectionsMax = 10_000
/** An unread body up to this size is read and dropped, so that the connection can be used again. */
const drainBytesMax = 1 * MiB
/** Of a larger one this much, so that a client that sends before it reads gets to read why it was refused. */
const lingerBytesMax = 64 * MiB
const lingerMs = 10 * secondMs
const drainIdleMs = 5 * secondMs
const closeGraceMs = 10 * secondMs

export function createS3Server(options: S3ServerOptions): S3Server {
  return new Gateway(options)
}

/** What is known of one request while it is handled. */
interface Exchange {
  message: IncomingMessage
  response: ServerResponse
  headers: HeaderMap
  source: SocketBody
  /** The client waits for `100 Continue`, and has not had it. */
  awaitsContinue: boolean
  path: string
  operation: RequestObservation['operation']
  requestId: string
  hostId: string
  bytesOut: number
  abort: AbortController
}

class Gateway implements S3Server {
  readonly #context: GatewayContext
  readonly #credentials: Credentials
  readonly #random: Random
  readonly #domains: readonly string[]
  readonly #requestsMax: number
  readonly #idleTimeoutMs: number
  readonly #onRequest: (observation: RequestObservation) => void
  readonly #server: Server
  readonly #scheme: 'http' | 'https'
  readonly #sockets = new Set<Socket>()
  /** Sockets on which a request is being handled: a raw answer must not be written between. */
  readonly #busy = new WeakSet<Socket>()
  #requests = 0
  #isClosing = false

  constructor(options: S3ServerOptions) {
    const { store, clock, log, region = 'us-east-1' } = options
    this.#context = { store, clock, log, region }
    this.#credentials = options.credentials
    this.#random = options.random
    this.#domains = (options.domains ?? ['localhost', 's3.localhost']).map((domain) => domain.toLowerCase())
    this.#requestsMax = options.requestsMax ?? 1024
    this.#idleTimeoutMs = options.idleTimeoutMs ?? 60 * secondMs
    this.#onRequest = options.onRequest ?? (() => {})
    this.#scheme = options.tls === undefined ? 'http' : 'https'
    this.#server = this.#createServer(options.tls)
  }

  #createServer(tls: S3ServerOptions['tls']): Server {
    const http: ServerOptions = {
      maxHeaderSize: headBytesMax,
      headersTimeout: headTimeoutMs,
      // Uploads take as long as they take; a client that stalls is timed out where its body is read.
      requestTimeout: 0,
      keepAliveTimeout: keepAliveMs
    }
    const server: Server =
      tls === undefined ? createServer(http) : createTlsServer({ ...http, ...tls, minVersion: 'TLSv1.2' })
    server.maxConnections = connectionsMax
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    server.on('request', (message, response) => void this.#handle(message, response, false))
    server.on('checkContinue', (message, response) => void this.#handle(message, response, true))
    // Other expectations mean nothing to S3, which goes on as if they were not there.
    server.on('checkExpectation', (message, response) => void this.#handle(message, response, false))
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => this.#refuseRaw(error, socket))
    return server
  }

  async listen(host: string, port: number): Promise<{ port: number }> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
    return { port: (this.#server.address() as AddressInfo).port }
  }

  async close(graceMs = closeGraceMs): Promise<void> {
    this.#isClosing = true
    if (!this.#server.listening) return
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeIdleConnections()
    const timer = setTimeout(() => this.#server.closeAllConnections(), graceMs)
    await closed
    clearTimeout(timer)
  }

  stats(): { connections: number; requests: number } {
    return { connections: this.#sockets.size, requests: this.#requests }
  }

  async #handle(message: IncomingMessage, response: ServerResponse, awaitsContinue: boolean): Promise<void> {
    const startedAt = this.#context.clock.now()
    const exchange = this.#open(message, response, awaitsContinue)
    const { abort } = exchange
    this.#requests++
    this.#busy.add(message.socket)
    const closed = new Promise<void>((resolve) => response.once('close', resolve))
    response.once('close', () => {
      if (!response.writableFinished) abort.abort(new HoldfastError('ABORTED', 'the client went away'))
    })
    try {
      await this.#answer(exchange)
      const stalled = setTimeout(() => response.destroy(), this.#idleTimeoutMs)
      await closed
      clearTimeout(stalled)
    } catch (error) {
      // Too late to say anything: a broken connection is the only honest end.
      if (!isAborted(error))
        this.#context.log.warn('an answer broke off', {
          operation: exchange.operation,
          requestId: exchange.requestId,
          error
        })
      response.destroy()
    } finally {
      this.#requests--
      this.#busy.delete(message.socket)
      if (this.#isClosing) this.#server.closeIdleConnections()
      this.#onRequest({
        operation: exchange.operation,
        status: abort.signal.aborted && !response.headersSent ? 499 : response.statusCode,
        durationMs: this.#context.clock.now() - startedAt,
        bytesIn: exchange.source.bytesRead,
        bytesOut: exchange.bytesOut
      })
    }
  }

  #open(message: IncomingMessage, response: ServerResponse, awaitsContinue: boolean): Exchange {
    const exchange: Exchange = {
      message,
      response,
      headers: headerMap(message.rawHeaders),
      source: new SocketBody(message, this.#idleTimeoutMs, () => {
        if (!exchange.awaitsContinue) return
        exchange.awaitsContinue = false
        response.writeContinue()
      }),
      awaitsContinue,
      path: '/',
      operation: 'Unknown',
      requestId: Buffer.from(this.#random.bytes(8)).toString('hex').toUpperCase(),
      hostId: Buffer.from(this.#random.bytes(36)).toString('base64'),
      bytesOut: 0,
      abort: new AbortController()
    }
    response.setHeader('server', 'Holdfast')
    response.setHeader('x-amz-request-id', exchange.requestId)
    response.setHeader('x-amz-id-2', exchange.hostId)
    return exchange
  }

  /** @throws what went wrong after the head of the answer was sent */
  async #answer(exchange: Exchange): Promise<void> {
    try {
      const reply = await this.#run(exchange)
      await this.#send(exchange, reply)
    } catch (cause) {
      if (exchange.response.headersSent || exchange.abort.signal.aborted) throw cause
      const error = toS3Error(cause)
      this.#logFailure(exchange, error, cause)
      await this.#send(exchange, errorReply(exchange, error))
    }
  }

  async #run(exchange: Exchange): Promise<Reply> {
    if (this.#requests > this.#requestsMax) throw new S3Error('SlowDown')
    const { message, headers, abort } = exchange
    const method = message.method ?? 'GET'
    const target = parseTarget(message.url ?? '/', headers.get('host'), this.#domains)
    exchange.path = target.path
    const common = { method, ...target, headers, signal: abort.signal }
    if (isBlockRequest(target)) {
      exchange.operation = 'GetBlock'
      return await getBlock(common, this.#context)
    }
    exchange.operation = route(method, target, headers)
    const { region, clock } = this.#context
    // Browsers ask beforehand without signing, for a URL that was signed for another method.
    const identity: Identity =
      exchange.operation === 'PreflightRequest'
        ? { payload: { kind: 'unsigned' } }
        : await authenticate(common, this.#credentials, region, clock.now())
    const body = new RequestBody(exchange.source, headers, identity.payload)
    return await operations[exchange.operation](
      { ...common, body, scheme: this.#scheme, ...(identity.account !== undefined && { account: identity.account }) },
      this.#context
    )
  }

  #logFailure(exchange: Exchange, error: S3Error, cause: unknown): void {
    if (error.status < 500 || error.code === 'NotImplemented') return
    const fields = { operation: exchange.operation, code: error.code, requestId: exchange.requestId, error: cause }
    if (error.code === 'InternalError') {
      this.#context.log.error('a request failed', {
        ...fields,
        stack: cause instanceof Error ? cause.stack : undefined
      })
    } else {
      this.#context.log.warn('a request could not be served', fields)
    }
  }

  async #send(exchange: Exchange, reply: Reply): Promise<void> {
    const { response, message } = exchange
    const { status } = reply
    // As bytes: Node would send the head in UTF-8 along with a text.
    const body = typeof reply.body === 'string' ? Buffer.from(reply.body) : reply.body
    const { 'content-length': declaredLength, ...headers } = reply.headers ?? {}
    if (typeof reply.body === 'string') headers['content-type'] ??= 'application/xml'
    // Last, because Node re-encodes a Content-Disposition that comes after it.
    const length = body === undefined ? (declaredLength ?? '0') : String(sizeOf(body))
    if (status !== 204 && status !== 304) headers['content-length'] = length

    if (body !== undefined && isStream(body)) {
      await this.#sendStream(exchange, status, headers, body)
      return
    }
    const settle = this.#settleRequestBody(exchange, headers)
    response.writeHead(status, headers)
    if (body !== undefined && body.byteLength > 0 && message.method !== 'HEAD' && status !== 204 && status !== 304) {
      response.write(body)
      exchange.bytesOut += body.byteLength
    } else {
      response.flushHeaders()
    }
    await settle()
    response.end()
  }

  /**
   * Decides what becomes of a request body that nobody read, and says so in the answer's head.
   *
   * @returns what to do between the answer and its end
   */
  #settleRequestBody(exchange: Exchange, headers: Record<string, string>): () => Promise<void> {
    const { headers: request, source, response, message } = exchange
    if (this.#isClosing) headers.connection = 'close'
    const declared = Number(request.get('content-length') ?? 0)
    const hasBody = request.has('transfer-encoding') || declared > 0
    if (!hasBody || source.isEnded) return async () => {}
    // Whoever still waits for `100 Continue` need not send the body; on this connection it might come all the same.
    if (exchange.awaitsContinue || source.isBroken) {
      headers.connection = 'close'
      return async () => {}
    }
    const isSmall = !request.has('transfer-encoding') && declared - source.bytesRead <= drainBytesMax
    if (!isSmall) headers.connection = 'close'
    return async () => {
      const timer = setTimeout(() => response.destroy(), lingerMs)
      const isDrained = await source.discard(isSmall ? drainBytesMax : lingerBytesMax, drainIdleMs)
      clearTimeout(timer)
      if (!isDrained) response.once('finish', () => message.socket.destroySoon())
    }
  }

  /** Waits for the first bytes before the head: what cannot be read at all is an error, not an empty success. */
  async #sendStream(
    exchange: Exchange,
    status: number,
    headers: Record<string, string>,
    body: ByteStream
  ): Promise<void> {
    const { response } = exchange
    const chunks = body.chunks[Symbol.asyncIterator]()
    try {
      let next = await chunks.next()
      const settle = this.#settleRequestBody(exchange, headers)
      response.writeHead(status, headers)
      while (next.done !== true) {
        const chunk = next.value
        exchange.bytesOut += chunk.length
        if (exchange.bytesOut > body.sizeBytes)
          throw new HoldfastError('INTERNAL', 'the store gave more bytes than were asked for')
        // The next one may come to lie where this one does: not before this one is with the kernel.
        await flushed(response, chunk, this.#idleTimeoutMs)
        next = await chunks.next()
      }
      if (exchange.bytesOut !== body.sizeBytes)
        throw new HoldfastError('INTERNAL', 'the store gave fewer bytes than were asked for')
      await settle()
      response.end()
    } catch (error) {
      if (response.headersSent) {
        response.destroy() // what it has not sent yet lies in memory that the read gives back
        exchange.abort.abort(error) // ends the read under way, which is waited for below
      }
      throw error
    } finally {
      body.close()
      await chunks.return?.()
    }
  }

  /** Answers what is no HTTP request, where there is nobody else writing. */
  #refuseRaw(error: NodeJS.ErrnoException, socket: Socket): void {
    if (error.code === 'ECONNRESET' || !socket.writable || this.#busy.has(socket)) {
      socket.destroy()
      return
    }
    const codes: Record<string, ConstructorParameters<typeof S3Error>[0]> = {
      HPE_HEADER_OVERFLOW: 'RequestHeaderSectionTooLarge',
      ERR_HTTP_REQUEST_TIMEOUT: 'RequestTimeout'
    }
    const s3Error = new S3Error(codes[error.code ?? ''] ?? 'BadRequest')
    const requestId = Buffer.from(this.#random.bytes(8)).toString('hex').toUpperCase()
    const document = errorDocument(s3Error, '/', requestId, '')
    socket.end(
      [
        `HTTP/1.1 ${s3Error.status} Bad Request`,
        'Server: Holdfast',
        `x-amz-request-id: ${requestId}`,
        'Content-Type: application/xml',
        `Content-Length: ${Buffer.byteLength(document)}`,
        'Connection: close',
        '',
        document
      ].join('\r\n')
    )
  }
}

/** The client's own doing, and no news. */
function isAborted(error: unknown): boolean {
  return isCode(error, 'ABORTED', 'INCOMPLETE_BODY')
}

function errorReply(exchange: Exchange, error: S3Error): Reply {
  return {
    status: error.status,
    headers: { ...error.headers, ...(error.status === 503 && { 'retry-after': '1' }) },
    body: errorDocument(error, exchange.path, exchange.requestId, exchange.hostId)
  }
}

function isStream(body: Uint8Array | ByteStream): body is ByteStream {
  return 'chunks' in body
}

function sizeOf(body: Uint8Array | ByteStream): number {
  return isStream(body) ? body.sizeBytes : body.byteLength
}

/** Resolves when the client has taken what was written. Rejects when it goes away, or takes nothing for too long. */
function flushed(response: ServerResponse, chunk: Uint8Array, idleTimeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void): void => {
      clearTimeout(timer)
      response.off('close', onClose)
      settle()
    }
    const fail = (message: string): void => finish(() => reject(new HoldfastError('ABORTED', message)))
    const onClose = (): void => fail('the client went away')
    const timer = setTimeout(() => fail('the client stopped reading'), idleTimeoutMs)
    response.once('close', onClose)
    if (response.destroyed) onClose()
    else response.write(chunk, (error) => (error ? onClose() : finish(resolve)))
  })
}
