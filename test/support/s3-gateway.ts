/** A gateway on loopback over a store in memory, and hand-made requests to it. */
import { type Agent, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { parseTarget } from '../../src/gateway/request.ts'
import {
  createS3Server,
  type RequestObservation,
  type S3Server,
  type S3ServerOptions
} from '../../src/gateway/server.ts'
import {
  algorithm,
  amzDate,
  canonicalRequest,
  chunkStringToSign,
  type Scope,
  scopeText,
  sha256Hex,
  sign,
  signingKey,
  stringToSign,
  trailerStringToSign
} from '../../src/gateway/signature.ts'
import { MemoryObjectStore } from './memory-object-store.ts'

/** Shape of `fixtures/s3/sigv4-examples.json`. */
export interface SigV4Examples {
  accessKeyId: string
  secretAccessKey: string
  amzDate: string
  scope: Scope
  requests: Array<{
    name: string
    method: string
    path: string
    query: Array<[string, string]>
    headers: Record<string, string>
    payloadHash: string
    signature: string
  }>
  chunked: ChunkedExample
  chunkedWithTrailer: ChunkedExample & { trailer: { name: string; value: string }; trailerSignature: string }
}

export interface ChunkedExample {
  seedSignature: string
  chunks: Array<{ bytes: number; signature: string }>
}

export interface AccessKey {
  accessKeyId: string
  secretAccessKey: string
}

export const alice: AccessKey = { accessKeyId: 'ALICE0000000000000AK', secretAccessKey: 'alice-secret' }
export const bob: AccessKey = { accessKeyId: 'BOB000000000000000AK', secretAccessKey: 'bob-secret' }

export interface TestGateway {
  store: MemoryObjectStore
  server: S3Server
  port: number
  /** Signs as alice. */
  s3: S3Client
  client: (key: AccessKey, config?: S3ClientConfig) => S3Client
  observations: RequestObservation[]
  close: () => Promise<void>
}

export async function startGateway(
  options: Partial<S3ServerOptions> & { store?: MemoryObjectStore } = {}
): Promise<TestGateway> {
  const store = options.store ?? new MemoryObjectStore({ partBytesMin: 1024 })
  const observations: RequestObservation[] = []
  const server = createS3Server({
    credentials: {
      lookup: async (id) => {
        if (id === alice.accessKeyId)
          return { secretAccessKey: alice.secretAccessKey, owner: 'alice', displayName: 'Alice' }
        if (id === bob.accessKeyId) return { secretAccessKey: bob.secretAccessKey, owner: 'bob', displayName: 'Bob' }
        return undefined
      }
    },
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    onRequest: (observation) => observations.push(observation),
    ...options,
    store
  })
  const { port } = await server.listen('127.0.0.1', 0)
  const clients: S3Client[] = []
  const client = (key: AccessKey, config: S3ClientConfig = {}): S3Client => {
    const made = new S3Client({
      endpoint: `http://127.0.0.1:${port}`,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: key,
      maxAttempts: 1,
      ...config
    })
    clients.push(made)
    return made
  }
  return {
    store,
    server,
    port,
    s3: client(alice),
    client,
    observations,
    close: async () => {
      for (const made of clients) made.destroy()
      await server.close(1000)
    }
  }
}

export interface RawRequest {
  method: string
  /** As it goes over the wire: encoded path and query. */
  target: string
  headers?: Record<string, string>
  body?: Uint8Array | string
  /** Absent: anonymous. */
  key?: AccessKey
  /** Default: the body's SHA-256. */
  payloadHash?: string
  region?: string
  timeMs?: number
}

export interface Signed {
  headers: Record<string, string>
  signature: string
  amzDate: string
  scope: Scope
  signingKey: Buffer
}

/** The headers of a request, signed. */
export function signHeaders(port: number, request: RawRequest): Signed {
  const date = amzDate(request.timeMs ?? Date.now())
  const scope = { date: date.slice(0, 8), region: request.region ?? 'us-east-1', service: 's3' }
  const payloadHash = request.payloadHash ?? sha256Hex(request.body ?? '')
  const headers: Record<string, string> = {
    host: `127.0.0.1:${port}`,
    'x-amz-date': date,
    'x-amz-content-sha256': payloadHash,
    ...request.headers
  }
  const { path, query } = parseTarget(request.target, undefined, [])
  const signedHeaders = Object.keys(headers)
    .map((name) => name.toLowerCase())
    .sort()
  const map = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  const canonical = canonicalRequest({
    method: request.method,
    path,
    query: query.pairs,
    headers: map,
    signedHeaders,
    payloadHash
  })
  const secret = signingKey(request.key!.secretAccessKey, scope)
  const signature = sign(secret, stringToSign(date, scope, canonical))
  headers.authorization = `${algorithm} Credential=${request.key!.accessKeyId}/${scopeText(scope)}, SignedHeaders=${signedHeaders.join(';')}, Signature=${signature}`
  return { headers, signature, amzDate: date, scope, signingKey: secret }
}

/** A presigned target: path and query with the signature. */
export function presign(
  port: number,
  method: string,
  target: string,
  key: AccessKey,
  options: { expires?: string; timeMs?: number } = {}
): string {
  const date = amzDate(options.timeMs ?? Date.now())
  const scope = { date: date.slice(0, 8), region: 'us-east-1', service: 's3' }
  const parameters = [
    ['X-Amz-Algorithm', algorithm],
    ['X-Amz-Credential', `${key.accessKeyId}/${scopeText(scope)}`],
    ['X-Amz-Date', date],
    ['X-Amz-Expires', options.expires ?? '60'],
    ['X-Amz-SignedHeaders', 'host']
  ].map(([name, value]) => `${name}=${encodeURIComponent(value!)}`)
  const unsigned = `${target}${target.includes('?') ? '&' : '?'}${parameters.join('&')}`
  const { path, query } = parseTarget(unsigned, undefined, [])
  const canonical = canonicalRequest({
    method,
    path,
    query: query.pairs,
    headers: new Map([['host', `127.0.0.1:${port}`]]),
    signedHeaders: ['host'],
    payloadHash: 'UNSIGNED-PAYLOAD'
  })
  return `${unsigned}&X-Amz-Signature=${sign(signingKey(key.secretAccessKey, scope), stringToSign(date, scope, canonical))}`
}

export interface RawReply {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
  text: string
  /** `<Code>` of an error document. */
  code: string | undefined
}

/** Sends a request with `node:http`, on a connection of its own unless an agent is given. */
export async function send(port: number, request: RawRequest, agent: Agent | false = false): Promise<RawReply> {
  const headers = request.key === undefined ? { ...request.headers } : signHeaders(port, request).headers
  return await new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      { host: '127.0.0.1', port, method: request.method, path: request.target, headers, agent },
      (message) => readReply(message).then(resolve, reject)
    )
    outgoing.on('error', reject)
    if (request.body === undefined) outgoing.end()
    else outgoing.end(request.body)
  })
}

async function readReply(message: IncomingMessage): Promise<RawReply> {
  const parts: Buffer[] = []
  for await (const part of message) parts.push(part as Buffer)
  const body = Buffer.concat(parts)
  const text = body.toString('utf8')
  return {
    status: message.statusCode!,
    headers: message.headers,
    body,
    text,
    code: /<Code>(.*?)<\/Code>/.exec(text)?.[1]
  }
}

export interface ChunkedBody {
  data: readonly Uint8Array[]
  signed?: Pick<Signed, 'signature' | 'amzDate' | 'scope' | 'signingKey'>
  trailers?: ReadonlyArray<readonly [name: string, value: string]>
}

/** A body in `aws-chunked` framing, signed where a seed is given. */
export function encodeChunked({ data, signed, trailers }: ChunkedBody): Buffer {
  const parts: Uint8Array[] = []
  let previous = signed?.signature ?? ''
  for (const chunk of [...data.filter((part) => part.length > 0), new Uint8Array(0)]) {
    let extension = ''
    if (signed !== undefined) {
      previous = sign(signed.signingKey, chunkStringToSign(signed.amzDate, signed.scope, previous, sha256Hex(chunk)))
      extension = `;chunk-signature=${previous}`
    }
    parts.push(Buffer.from(`${chunk.length.toString(16)}${extension}\r\n`), chunk)
    if (chunk.length > 0) parts.push(Buffer.from('\r\n'))
  }
  for (const [name, value] of trailers ?? []) parts.push(Buffer.from(`${name}:${value}\r\n`))
  if (signed !== undefined && trailers !== undefined) {
    const canonical = trailers.map(([name, value]) => `${name}:${value}\n`).join('')
    const signature = sign(signed.signingKey, trailerStringToSign(signed.amzDate, signed.scope, previous, canonical))
    parts.push(Buffer.from(`x-amz-trailer-signature:${signature}\r\n`))
  }
  parts.push(Buffer.from('\r\n'))
  return Buffer.concat(parts)
}

/** A bare socket, and what has come out of it so far. */
export class RawConnection {
  readonly socket: Socket
  received = ''
  isClosed = false
  #wake: () => void = () => {}

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1')
    this.socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1')
      this.#wake()
    })
    this.socket.on('error', () => this.#wake()) // a reset is an end like any other here
    this.socket.on('close', () => {
      this.isClosed = true
      this.#wake()
    })
  }

  write(text: string | Uint8Array): void {
    this.socket.write(text)
  }

  /** Waits until what came matches, or rejects when the connection ends without. */
  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.received)) {
      if (this.isClosed) throw new Error(`closed before ${String(pattern)}; received: ${this.received}`)
      await this.#change()
    }
    return this.received
  }

  async closed(): Promise<string> {
    while (!this.isClosed) await this.#change()
    return this.received
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}

/** The head of a request, ready for a socket. */
export function headText(method: string, target: string, headers: Record<string, string>): string {
  return `${method} ${target} HTTP/1.1\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`
}
