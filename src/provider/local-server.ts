/**
 * How the operator's commands reach a running provider, which alone may touch its directory: HTTP on 127.0.0.1, at any
 * port, named by `DATA/control.json` together with a token that changes with every start. Whoever may read that file may
 * command the provider; nobody else, and no web page, knows the token. FORMATS.md, "The operator's channel".
 */
import { timingSafeEqual } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { writeFileDurably } from '../base/durable-file.ts'
import { errorSpecs, HoldfastError, messageOf } from '../base/errors.ts'
import { KiB, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { type ControlFile, controlPath } from './control-file.ts'

const bodyBytesMax = 64 * KiB
const connectionsMax = 32
const requestMsMax = 10 * secondMs
/** A silent answer says now and then that it is still there: clients give up on minutes of nothing. */
const aliveEveryMs = 20 * secondMs

/**
 * Gets the request's parsed JSON body (undefined where there was none) and a signal that aborts when the client goes
 * away or the provider stops. What it returns is the answer; an async iterable is sent item by item. Errors with a code
 * reach the client as they are.
 */
export type LocalHandler = (body: unknown, signal: AbortSignal) => Promise<unknown>

/** By method and path: `POST /refuse`. */
export type LocalRoutes = Readonly<Record<string, LocalHandler>>

export interface LocalServerComponents {
  clock: Clock
  random: Random
  log: Log
}

export interface LocalServer {
  readonly port: number
  /** Takes the file away, ends what is being answered, and waits for it. */
  stop: () => Promise<void>
}

/** @throws HoldfastError `BAD_CONFIG` when nothing on 127.0.0.1 can be listened on */
export async function serveLocally(
  dataDir: string,
  routes: LocalRoutes,
  components: LocalServerComponents
): Promise<LocalServer> {
  const server = new Local(routes, Buffer.from(components.random.bytes(32)).toString('base64url'), components)
  const port = await server.listen()
  const path = controlPath(dataDir)
  const file: ControlFile = { port, token: server.token }
  try {
    await writeFileDurably(path, `${JSON.stringify(file)}\n`, 0o600)
  } catch (error) {
    await server.stop()
    throw error
  }
  return {
    port,
    stop: async () => {
      await rm(path, { force: true })
      await server.stop()
    }
  }
}

class Local {
  readonly token: string
  readonly #routes: LocalRoutes
  readonly #clock: Clock
  readonly #log: Log
  readonly #server: Server
  readonly #stopping = new AbortController()
  readonly #handling = new Set<Promise<void>>()

  constructor(routes: LocalRoutes, token: string, { clock, log }: LocalServerComponents) {
    this.token = token
    this.#routes = routes
    this.#clock = clock
    this.#log = log.child('local')
    this.#server = createServer({ requestTimeout: requestMsMax, headersTimeout: requestMsMax }, (request, response) => {
      const handling = this.#handle(request, response)
      this.#handling.add(handling)
      void handling.finally(() => this.#handling.delete(handling))
    })
    this.#server.maxConnections = connectionsMax
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause) =>
        reject(new HoldfastError('BAD_CONFIG', `cannot listen on 127.0.0.1: ${cause.message}`, { cause }))
      )
      this.#server.listen(0, '127.0.0.1', resolve)
    })
    this.#server.removeAllListeners('error')
    this.#server.on('error', (error) => this.#log.error('the server failed', { error: error.message }))
    return (this.#server.address() as AddressInfo).port
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the provider stops'))
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
      this.#server.closeAllConnections()
    })
    await Promise.all(this.#handling)
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort(new HoldfastError('ABORTED', 'the client went away')))
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal])
    try {
      this.#checkToken(request)
      const path = new URL(request.url ?? '/', 'http://provider').pathname
      const name = `${request.method} ${path}`
      const handler = Object.hasOwn(this.#routes, name) ? this.#routes[name] : undefined
      if (handler === undefined) throw new HoldfastError('MISSING', `this provider knows no ${name}`)
      const answer = await handler(await readBody(request, signal), signal)
      if (isAsyncIterable(answer)) await this.#stream(answer, response, signal)
      else send(response, 200, answer ?? null)
    } catch (error) {
      this.#fail(request, response, error)
    }
  }

  #checkToken(request: IncomingMessage): void {
    const given = Buffer.from(request.headers.authorization ?? '')
    const right = Buffer.from(`Bearer ${this.token}`)
    if (given.length !== right.length || !timingSafeEqual(given, right))
      throw new Denied('only who can read control.json of this start may command the provider')
  }

  /** Lines of `{ "value" }`, the last of which is `{ "error" }` where it failed; empty lines mean nothing. */
  async #stream(items: AsyncIterable<unknown>, response: ServerResponse, signal: AbortSignal): Promise<void> {
    response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
    response.flushHeaders()
    const ended = new AbortController()
    const alive = this.#sayAlive(response, AbortSignal.any([signal, ended.signal]))
    try {
      for await (const value of items) {
        if (!response.write(`${JSON.stringify({ value })}\n`)) await drained(response, signal)
        signal.throwIfAborted()
      }
      response.end()
    } catch (error) {
      if (!signal.aborted) response.end(`${JSON.stringify({ error: errorOf(error, this.#log) })}\n`)
      else response.destroy()
    } finally {
      ended.abort('answered')
      await alive
    }
  }

  async #sayAlive(response: ServerResponse, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#clock.sleep(aliveEveryMs, signal)
      } catch {
        return // all is said
      }
      if (response.writableLength === 0) response.write('\n')
    }
  }

  #fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (response.headersSent || response.destroyed) {
      response.destroy()
      return
    }
    // What is left of a body is not read: the connection has no further use then.
    if (!request.complete) response.setHeader('connection', 'close')
    if (error instanceof Denied) send(response, 401, { code: 'DENIED', message: error.message })
    else send(response, statusOf(error), errorOf(error, this.#log))
  }
}

class Denied extends Error {}

function statusOf(error: unknown): number {
  if (!(error instanceof HoldfastError)) return 500
  if (error.code === 'MISSING') return 404
  if (error.code === 'OVERLOADED') return 503
  return errorSpecs[error.code].blame === 'caller' ? 400 : 500
}

function errorOf(error: unknown, log: Log): { code: string; message: string } {
  if (error instanceof HoldfastError) return { code: error.code, message: error.message }
  log.error('a command failed', { error: messageOf(error) })
  return { code: 'INTERNAL', message: 'the provider has a problem of its own; its log says more' }
}

function send(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store'
  })
  response.end(text)
}

const isAsyncIterable = (value: unknown): value is AsyncIterable<unknown> =>
  typeof value === 'object' && value !== null && Symbol.asyncIterator in value

/** @throws HoldfastError `BAD_INPUT` */
async function readBody(request: IncomingMessage, signal: AbortSignal): Promise<unknown> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    signal.throwIfAborted()
    length += (chunk as Buffer).length
    if (length > bodyBytesMax) throw new HoldfastError('BAD_INPUT', `a command has at most ${bodyBytesMax} bytes`)
    chunks.push(chunk as Buffer)
  }
  if (length === 0) return undefined
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', 'a command is JSON', { cause })
  }
}

async function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onDrain = (): void => {
      signal.removeEventListener('abort', onGone)
      resolve()
    }
    const onGone = (): void => {
      response.removeListener('drain', onDrain)
      reject(signal.reason)
    }
    response.once('drain', onDrain)
    signal.addEventListener('abort', onGone, { once: true })
  })
}
