/**
 * The admin address: health, metrics, what the gateway knows, audits, access keys, and the dashboard. JSON throughout;
 * errors are `{ "code", "message" }`.
 *
 * It is meant for loopback. A browser on the same machine is a way in for any web page, so: a request must name this
 * server by address (a name that an attacker's DNS points here is refused), and whatever makes or shows keys, or makes
 * the gateway go to work, must come from this machine, with a header that no page of another origin may send.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { errorSpecs, HoldfastError, isCode, messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { AdminBackend, AuditTarget } from './backend.ts'
import { dashboardHtml, dashboardPolicy } from './dashboard.ts'
import type { Metrics } from './metrics.ts'

export interface AdminServerInit {
  host: string
  /** 0 lets the system choose. */
  port: number
  backend: AdminBackend
  metrics: Metrics
  log: Log
}

export interface AdminServer {
  /** `http://127.0.0.1:9001`. */
  origin: string
  close: () => Promise<void>
}

/** A key of 1,024 control characters is 6 KiB of JSON. */
const bodyBytesMax = 8192
/** A report of 1 MiB in base64. */
const reportBodyBytesMax = 1_500_000
const pathCharsMax = 8192
const listingDefault = 100
const listingMax = 1000
const connectionsMax = 256

/** An answer other than 200 with what a backend returned. */
class HttpError extends Error {
  readonly status: number
  readonly code: string
  readonly headers: Record<string, string>

  constructor(status: number, code: string, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.status = status
    this.code = code
    this.headers = headers
  }
}

interface Answer {
  status: number
  type: string
  /** What is not text already is sent as it comes, no faster than the client reads. */
  body: string | AsyncIterable<Uint8Array>
  headers?: Record<string, string>
}

interface AdminRequest {
  /** Percent-decoded parts that the route's pattern captured. */
  parts: string[]
  query: URLSearchParams
  message: IncomingMessage
  /** Aborts when the client has gone. */
  signal: AbortSignal
}

type Handler = (request: AdminRequest) => Promise<Answer>

interface Route {
  pattern: RegExp
  methods: Partial<Record<string, Handler>>
  /** Only from this machine, with the admin header, never from another origin's page. */
  isGuarded?: boolean
}

const json = (value: unknown, status = 200): Answer => ({
  status,
  type: 'application/json',
  body: `${JSON.stringify(value)}\n`
})

function routesOf(backend: AdminBackend, metrics: Metrics): Route[] {
  return [
    { pattern: /^\/healthz$/, methods: { GET: async () => json({ status: 'ok' }) } },
    {
      pattern: /^\/readyz$/,
      methods: {
        GET: async () => {
          const reasons = await backend.readiness()
          return reasons.length === 0
            ? json({ ready: true })
            : json({ code: 'NOT_READY', message: reasons.join('; ') }, 503)
        }
      }
    },
    {
      pattern: /^\/metrics$/,
      methods: { GET: async () => ({ status: 200, type: metrics.contentType, body: await metrics.render() }) }
    },
    { pattern: /^\/v1\/status$/, methods: { GET: async () => json(await backend.status()) } },
    { pattern: /^\/v1\/providers$/, methods: { GET: async () => json({ providers: await backend.providers() }) } },
    {
      pattern: /^\/v1\/providers\/([^/]+)\/score$/,
      methods: { GET: async ({ parts: [peerId] }) => json(await backend.score(peerId!)) }
    },
    {
      pattern: /^\/v1\/repairs$/,
      methods: { GET: async ({ query }) => json(await backend.repairs(limitOf(query), isEagerOf(query))) }
    },
    { pattern: /^\/v1\/audits$/, methods: { GET: async ({ query }) => json(await backend.audits(limitOf(query))) } },
    {
      pattern: /^\/v1\/audits\/export$/,
      methods: {
        GET: async () => ({
          status: 200,
          type: 'application/x-ndjson',
          body: backend.exportAudits(),
          headers: { 'content-disposition': 'attachment; filename="audits.ndjson"' }
        })
      }
    },
    {
      pattern: /^\/v1\/audit$/,
      isGuarded: true,
      methods: {
        POST: async ({ message, signal }) => json(await backend.audit(auditTargetOf(await readJson(message)), signal))
      }
    },
    {
      pattern: /^\/v1\/repair$/,
      isGuarded: true,
      methods: {
        POST: async ({ message, signal }) => {
          const target = repairTargetOf(await readJson(message, reportBodyBytesMax))
          if ('report' in target) return json(await backend.acceptReport(target.report, signal))
          if ('cid' in target) return json(await backend.repairContent(target.cid, target.from, signal))
          return json(await backend.repair(signal))
        }
      }
    },
    {
      pattern: /^\/v1\/objects\/([^/]+)\/(.+)$/s,
      methods: { GET: async ({ parts: [bucket, key] }) => json(await backend.objectHealth(bucket!, key!)) }
    },
    {
      pattern: /^\/v1\/keys$/,
      isGuarded: true,
      methods: {
        GET: async () => json({ keys: await backend.listKeys() }),
        POST: async ({ message }) => json(await backend.createKey(accountOf(await readJson(message))), 201)
      }
    },
    {
      pattern: /^\/v1\/keys\/([^/]+)$/,
      isGuarded: true,
      methods: {
        DELETE: async ({ parts: [accessKeyId] }) => {
          await backend.revokeKey(accessKeyId!)
          return { status: 204, type: 'application/json', body: '' }
        }
      }
    },
    {
      pattern: /^\/$/,
      methods: {
        GET: async () => ({
          status: 200,
          type: 'text/html; charset=utf-8',
          body: dashboardHtml,
          headers: { 'content-security-policy': dashboardPolicy }
        })
      }
    }
  ]
}

/** Whether the plan is to include what still waits: `?eager=1`. */
function isEagerOf(query: URLSearchParams): boolean {
  const text = query.get('eager')
  if (text !== null && text !== '0' && text !== '1') throw new HoldfastError('BAD_INPUT', 'eager is 0 or 1')
  return text === '1'
}

function limitOf(query: URLSearchParams): number {
  const text = query.get('limit')
  if (text === null) return listingDefault
  const limit = Number(text)
  if (!/^\d{1,6}$/.test(text) || limit < 1 || limit > listingMax) {
    throw new HoldfastError('BAD_INPUT', `limit is a whole number from 1 to ${listingMax}`)
  }
  return limit
}

/** @throws HoldfastError `BAD_INPUT`, which says `what` the body may be, for anything but these names */
function fieldsOf<Name extends string>(
  body: unknown,
  names: readonly Name[],
  what: string
): Partial<Record<Name, unknown>> {
  const isRecord = typeof body === 'object' && body !== null && !Array.isArray(body)
  if (!isRecord || Object.keys(body).some((name) => !names.some((known) => known === name)))
    throw new HoldfastError('BAD_INPUT', `the body is ${what}`)
  return body as Partial<Record<Name, unknown>>
}

function auditTargetOf(body: unknown): AuditTarget {
  const what = '{}, { "provider": PEERID } or { "object": "BUCKET/KEY" }'
  const { provider, object } = fieldsOf(body, ['provider', 'object'], what)
  if (provider === undefined && object === undefined) return {}
  if (object === undefined && typeof provider === 'string' && /^[A-Za-z0-9]{1,128}$/.test(provider)) return { provider }
  const match = provider === undefined && typeof object === 'string' ? /^([^/]+)\/(.+)$/s.exec(object) : null
  if (match === null) throw new HoldfastError('BAD_INPUT', `the body is ${what}`)
  return { bucket: match[1]!, key: match[2]! }
}

function accountOf(body: unknown): string | undefined {
  const { account } = fieldsOf(body, ['account'], '{} or { "account": NAME }')
  if (account === undefined) return undefined
  if (typeof account !== 'string' || !/^[\w .@-]{1,64}$/.test(account)) {
    throw new HoldfastError('BAD_INPUT', 'an account is named by 1 to 64 letters, digits, spaces and any of . @ _ -')
  }
  return account
}

/** All of one's own; somebody else's content; or somebody else's report about one's own. */
function repairTargetOf(body: unknown): { cid: string; from: number } | { report: Uint8Array } | { own: true } {
  const what = '{}, { "cid": ROOT, "from": UNIT } or { "report": BASE64 }'
  const { cid, from = 0, report } = fieldsOf(body, ['cid', 'from', 'report'], what)
  if (Object.keys(body as object).length === 0) return { own: true }
  if (report === undefined && typeof cid === 'string' && Number.isSafeInteger(from) && Number(from) >= 0)
    return { cid, from: Number(from) }
  const isBase64 = typeof report === 'string' && /^[A-Za-z0-9+/]+={0,2}$/.test(report)
  if (!isBase64 || cid !== undefined || from !== 0) throw new HoldfastError('BAD_INPUT', `the body is ${what}`)
  return { report: new Uint8Array(Buffer.from(report, 'base64')) }
}

async function readJson(message: IncomingMessage, bytesMax = bodyBytesMax): Promise<unknown> {
  if (message.headers['content-type']?.split(';')[0]?.trim() !== 'application/json') {
    throw new HttpError(415, 'UNSUPPORTED_MEDIA_TYPE', 'the body has to be application/json')
  }
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > bytesMax)
      throw new HttpError(413, 'BODY_TOO_LARGE', `the body has at most ${bytesMax} bytes`, { connection: 'close' })
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', 'the body is not JSON', { cause })
  }
}

/** The name in a Host header, without port and brackets; `undefined` when it is no such header. */
function hostName(header: string | undefined): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?$/.exec(header ?? '')
  return (match?.[1] ?? match?.[2])?.toLowerCase()
}

const isLoopback = (address: string | undefined): boolean =>
  address !== undefined && (/^(::ffff:)?127\./.test(address) || address === '::1')

/** DNS rebinding makes a browser send its own name for our address; an address or `localhost` cannot be rebound. */
function checkHost(message: IncomingMessage, boundHost: string): void {
  const name = hostName(message.headers.host)
  if (name !== undefined && (name === 'localhost' || name === boundHost.toLowerCase() || isIP(name) !== 0)) return
  throw new HttpError(421, 'WRONG_HOST', 'name this server by its address, as in http://127.0.0.1:9001')
}

function checkGuard({ headers, socket }: IncomingMessage): void {
  const isProxied = headers.forwarded !== undefined || headers['x-forwarded-for'] !== undefined
  if (!isLoopback(socket.remoteAddress) || isProxied)
    throw new HttpError(403, 'FORBIDDEN', 'this is for the machine that the gateway runs on')
  if (headers['x-holdfast-admin'] !== '1')
    throw new HttpError(403, 'FORBIDDEN', 'send the header "x-holdfast-admin: 1"')
  const isForeign = headers.origin !== undefined && headers.origin !== `http://${headers.host}`
  const isCrossSite =
    headers['sec-fetch-site'] !== undefined && !['same-origin', 'none'].includes(String(headers['sec-fetch-site']))
  if (isForeign || isCrossSite)
    throw new HttpError(403, 'FORBIDDEN', 'requests from pages of other origins are refused')
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', 'the path is not percent-encoded UTF-8', { cause })
  }
}

async function answer(
  routes: readonly Route[],
  message: IncomingMessage,
  boundHost: string,
  signal: AbortSignal
): Promise<Answer> {
  checkHost(message, boundHost)
  const target = message.url ?? '/'
  if (target.length > pathCharsMax)
    throw new HttpError(414, 'PATH_TOO_LONG', `a path has at most ${pathCharsMax} characters`)
  // Not `new URL`: it would resolve the dots of a key like `a/../b`.
  const [path = '/', query = ''] = target.split('?', 2)
  for (const { pattern, methods, isGuarded } of routes) {
    const match = pattern.exec(path)
    if (match === null) continue
    const handler = methods[message.method === 'HEAD' ? 'GET' : (message.method ?? '')]
    if (handler === undefined) {
      const allow = Object.keys(methods).flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]))
      throw new HttpError(405, 'METHOD_NOT_ALLOWED', `${path} takes ${allow.join(', ')}`, { allow: allow.join(', ') })
    }
    if (isGuarded === true) checkGuard(message)
    return await handler({ parts: match.slice(1).map(decode), query: new URLSearchParams(query), message, signal })
  }
  throw new HttpError(404, 'NOT_FOUND', 'there is nothing at this path')
}

/** Internal faults stay opaque: their text may name files and peers. */
function answerOfError(error: unknown, log: Log): Answer {
  if (error instanceof HttpError)
    return { ...json({ code: error.code, message: error.message }, error.status), headers: error.headers }
  if (!(error instanceof HoldfastError)) {
    log.error('admin request failed', {
      error: messageOf(error),
      stack: error instanceof Error ? error.stack : undefined
    })
    return json({ code: 'INTERNAL', message: 'the gateway failed; its log says how' }, 500)
  }
  const { code, message } = error
  if (code.startsWith('NO_SUCH_') || code === 'MISSING') return json({ code, message }, 404)
  if (errorSpecs[code].blame === 'caller') return json({ code, message }, 400)
  if (errorSpecs[code].blame === 'self' && !isCode(error, 'OVERLOADED'))
    log.error('admin request failed', { code, error: message })
  return json({ code, message }, errorSpecs[code].retry === 'never' ? 500 : 503)
}

/** @throws what the body throws, after the connection was cut: to the client the answer is not whole */
async function send(
  message: IncomingMessage,
  response: ServerResponse,
  { status, type, body, headers }: Answer
): Promise<void> {
  if (response.destroyed) return
  const isText = typeof body === 'string'
  response.writeHead(status, {
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    ...(status === 204 ? {} : { 'content-type': type }),
    ...(status === 204 || !isText ? {} : { 'content-length': Buffer.byteLength(body) }),
    ...headers
  })
  if (message.method === 'HEAD') response.end()
  else if (isText) response.end(body)
  else await pipeline(body, response)
}

/** Answers one request, however that goes. Resolves when the answer is on its way, a stream when it has ended. */
async function serve(
  routes: readonly Route[],
  message: IncomingMessage,
  response: ServerResponse,
  { host, log }: Pick<AdminServerInit, 'host' | 'log'>
): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) gone.abort(new HoldfastError('ABORTED', 'the client went away'))
  })
  let made: Answer
  try {
    made = await answer(routes, message, host, gone.signal)
  } catch (error) {
    if (gone.signal.aborted) return // what it did not finish for a client that has gone is no failure
    made = answerOfError(error, log)
  }
  try {
    await send(message, response, made)
  } catch (error) {
    const hasGone = (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE'
    if (!hasGone) log.error('admin answer failed', { error: messageOf(error) })
    response.destroy()
  }
}

/** @throws HoldfastError `BAD_CONFIG` when the address cannot be listened on */
export async function startAdminServer({ host, port, backend, metrics, log }: AdminServerInit): Promise<AdminServer> {
  const routes = routesOf(backend, metrics)
  const server = createServer(
    { headersTimeout: 10_000, requestTimeout: 30_000, maxHeaderSize: 16 * 1024 },
    (message, response) => void serve(routes, message, response, { host, log })
  )
  server.maxConnections = connectionsMax
  await listen(server, host, port)
  server.on('error', (error) => log.error('admin server failed', { error: messageOf(error) }))
  const { address, port: boundPort, family } = server.address() as AddressInfo
  return {
    origin: `http://${family === 'IPv6' ? `[${address}]` : address}:${boundPort}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections() // neither a dashboard's idle connection nor a long export may hold up the end
      })
  }
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(
        new HoldfastError(
          'BAD_CONFIG',
          `cannot serve the admin API on ${host}:${port}: ${cause.code ?? cause.message}`,
          { cause }
        )
      )
    })
    server.listen(port, host, () => {
      server.removeAllListeners('error')
      resolve()
    })
  })
}
