/**
 * An S3 client that costs as little as it can: SigV4 by header over an unsigned payload, bodies handed over in large
 * views of memory that is there already, answers compared as they arrive and kept nowhere. What is measured is then
 * the network, and the client's own CPU time is shown beside it.
 */
import { Readable } from 'node:stream'
import { type Dispatcher, Pool } from 'undici'
import { minuteMs } from '../../src/base/limits.ts'
import {
  amzDate,
  canonicalRequest,
  type Scope,
  scopeText,
  sign,
  signingKey,
  stringToSign
} from '../../src/gateway/signature.ts'
import type { ObjectData } from '../data.ts'
import { WrongAnswerError } from '../harness.ts'

export const clientDescription =
  'Client: undici on the Node of this run, one process, HTTP/1.1 keep-alive, SigV4 with UNSIGNED-PAYLOAD, no checksums.'

const payloadHash = 'UNSIGNED-PAYLOAD'
const signedHeaders = ['host', 'x-amz-content-sha256', 'x-amz-date']
const region = 'us-east-1'
const silenceMsMax = 5 * minuteMs
const errorBytesMax = 4096
/** Bodies up to this are sent in one piece. */
const pieceBytesMax = 256 * 1024

export interface S3ClientInit {
  endpoint: string
  accessKeyId: string
  secretAccessKey: string
  /** Requests at once: each has a connection. */
  connections: number
  signal: AbortSignal
}

/** What an object is held against. */
export type Expected = Pick<ObjectData, 'size' | 'verify'>

export interface RequestOptions {
  /** Ends this request alone. */
  signal?: AbortSignal
  /** Called once, with the first byte of the body of an answer that is no error. */
  onFirstByte?: () => void
}

/** An answer that was an error. */
export class S3Failure extends Error {
  /** As S3 names it, such as `SlowDown`; the status where it does not. */
  readonly code: string

  constructor(what: string, status: number, body: string) {
    super(`${what} answered ${status}: ${body}`)
    this.name = 'S3Failure'
    this.code = /<Code>(\w{1,64})<\/Code>/.exec(body)?.[1] ?? `status ${status}`
  }
}

export class S3Client {
  readonly #init: S3ClientInit
  readonly #host: string
  readonly #pool: Pool
  #signing: { date: string; key: Buffer } | undefined

  constructor(init: S3ClientInit) {
    this.#init = init
    this.#host = new URL(init.endpoint).host
    this.#pool = new Pool(init.endpoint, {
      connections: init.connections,
      headersTimeout: silenceMsMax,
      bodyTimeout: silenceMsMax
    })
  }

  async createBucket(bucket: string): Promise<void> {
    await this.#request('PUT', `/${bucket}`)
  }

  async put(bucket: string, key: string, data: ObjectData, options: RequestOptions = {}): Promise<void> {
    await this.#request('PUT', `/${bucket}/${key}`, { ...options, body: data })
  }

  /** @throws WrongAnswerError unless the object is `expected`, byte for byte */
  async get(bucket: string, key: string, expected: Expected, options: RequestOptions = {}): Promise<void> {
    await this.#request('GET', `/${bucket}/${key}`, { ...options, expected })
  }

  async close(): Promise<void> {
    await this.#pool.destroy()
  }

  #request(
    method: 'GET' | 'PUT',
    path: string,
    { body, expected, signal: own, onFirstByte }: RequestOptions & { body?: ObjectData; expected?: Expected } = {}
  ): Promise<void> {
    const headers = this.#sign(method, path)
    if (method === 'PUT') headers['content-length'] = String(body?.size ?? 0)
    return new Promise((resolve, reject) => {
      let status = 0
      let received = 0
      let failure = ''
      const signal = own === undefined ? this.#init.signal : AbortSignal.any([this.#init.signal, own])
      let onAbort = (): void => {}
      const settle = (): void => signal.removeEventListener('abort', onAbort)
      this.#pool.dispatch(
        { method, path, headers, body: body === undefined ? null : bodyOf(body) },
        {
          onRequestStart: (controller) => {
            onAbort = () => controller.abort(signal.reason)
            if (signal.aborted) onAbort()
            signal.addEventListener('abort', onAbort, { once: true })
          },
          onResponseStart: (_controller, statusCode) => {
            status = statusCode
          },
          onResponseData: (_controller, chunk) => {
            if (status !== 200) failure = (failure + chunk.toString('utf8')).slice(0, errorBytesMax)
            else {
              if (received === 0) onFirstByte?.()
              expected?.verify(received, chunk)
            }
            received += chunk.length
          },
          onResponseEnd: () => {
            settle()
            if (status !== 200) reject(new S3Failure(`${method} ${path}`, status, failure))
            else if (expected !== undefined && received !== expected.size) {
              reject(new WrongAnswerError(`${received} of ${expected.size} bytes of ${path}`))
            } else resolve()
          },
          onResponseError: (_controller, error) => {
            settle()
            reject(error)
          }
        }
      )
    })
  }

  #sign(method: string, path: string): Record<string, string> {
    const now = amzDate(Date.now())
    const scope: Scope = { date: now.slice(0, 8), region, service: 's3' }
    const { accessKeyId, secretAccessKey } = this.#init
    if (this.#signing?.date !== scope.date)
      this.#signing = { date: scope.date, key: signingKey(secretAccessKey, scope) }
    const signed = { 'x-amz-content-sha256': payloadHash, 'x-amz-date': now }
    const headers = new Map([['host', this.#host], ...Object.entries(signed)] as const)
    const canonical = canonicalRequest({ method, path, query: [], headers, signedHeaders, payloadHash })
    const signature = sign(this.#signing.key, stringToSign(now, scope, canonical))
    return {
      ...signed,
      authorization: `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scopeText(scope)}, SignedHeaders=${signedHeaders.join(';')}, Signature=${signature}`
    }
  }
}

function bodyOf(data: ObjectData): NonNullable<Dispatcher.DispatchOptions['body']> {
  if (data.size <= pieceBytesMax) return Buffer.concat([...data.chunks()])
  return Readable.from(data.chunks(), { objectMode: false, highWaterMark: pieceBytesMax })
}
