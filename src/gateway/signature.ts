/**
 * AWS Signature Version 4 as S3 uses it: pure functions from a request's parts to the strings that are signed. S3
 * differs from the other services in that the path is encoded once and never normalised.
 *
 * Source: "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API reference.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'

export const algorithm = 'AWS4-HMAC-SHA256'
export const emptySha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

/** Header names in lower case, values as received (bytes as Latin-1), repeated headers joined by commas. */
export type HeaderMap = ReadonlyMap<string, string>

/** `20130524/us-east-1/s3/aws4_request`, taken apart. */
export interface Scope {
  /** `YYYYMMDD`. */
  date: string
  region: string
  service: string
}

export function scopeText(scope: Scope): string {
  return `${scope.date}/${scope.region}/${scope.service}/aws4_request`
}

const unreserved = /[A-Za-z0-9\-._~]/

const encodedByte = Array.from({ length: 256 }, (_unused, byte) => {
  const char = String.fromCharCode(byte)
  return unreserved.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
})

/** AWS's UriEncode: everything but unreserved characters, upper-case hex; `/` is kept in paths. */
export function uriEncode(text: string, keepSlash = false): string {
  if (/^[A-Za-z0-9\-._~]*$/.test(text)) return text
  let encoded = ''
  for (const byte of Buffer.from(text, 'utf8')) encoded += keepSlash && byte === 0x2f ? '/' : encodedByte[byte]
  return encoded
}

export interface SignedRequest {
  method: string
  /** Decoded path, beginning with `/`. */
  path: string
  /** Decoded names and values, without `X-Amz-Signature`. */
  query: ReadonlyArray<readonly [name: string, value: string]>
  headers: HeaderMap
  /** Lower-case names. */
  signedHeaders: readonly string[]
  /** Hex SHA-256 of the body, or one of S3's markers such as `UNSIGNED-PAYLOAD`. */
  payloadHash: string
}

const byBytes = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export function canonicalRequest(request: SignedRequest): string {
  const query = request.query
    .map(([name, value]) => [uriEncode(name), uriEncode(value)] as const)
    .sort((a, b) => byBytes(a[0], b[0]) || byBytes(a[1], b[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
  const headers = request.signedHeaders.map((name) => {
    const value = request.headers.get(name) ?? ''
    return `${name}:${value.trim().replace(/ {2,}/g, ' ')}\n`
  })
  return [
    request.method,
    uriEncode(request.path, true),
    query,
    headers.join(''),
    request.signedHeaders.join(';'),
    request.payloadHash
  ].join('\n')
}

/** @param amzDate `YYYYMMDD'T'HHMMSS'Z'` */
export function stringToSign(amzDate: string, scope: Scope, canonical: string): string {
  // Header values are bytes held as Latin-1 and the rest is ASCII: hashing as Latin-1 hashes what was sent.
  return [algorithm, amzDate, scopeText(scope), sha256Hex(Buffer.from(canonical, 'latin1'))].join('\n')
}

export function signingKey(secretAccessKey: string, scope: Scope): Buffer {
  const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()
  return hmac(hmac(hmac(hmac(`AWS4${secretAccessKey}`, scope.date), scope.region), scope.service), 'aws4_request')
}

/** Hex signature of a string to sign. */
export function sign(key: Buffer, text: string): string {
  return createHmac('sha256', key).update(text).digest('hex')
}

/** The string signed for one chunk of `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`. */
export function chunkStringToSign(
  amzDate: string,
  scope: Scope,
  previousSignature: string,
  chunkSha256: string
): string {
  return [`${algorithm}-PAYLOAD`, amzDate, scopeText(scope), previousSignature, emptySha256, chunkSha256].join('\n')
}

/** The string signed for the trailing headers; `trailers` is `name:value\n` of each, in the order sent. */
export function trailerStringToSign(
  amzDate: string,
  scope: Scope,
  previousSignature: string,
  trailers: string
): string {
  const digest = sha256Hex(Buffer.from(trailers, 'latin1'))
  return [`${algorithm}-TRAILER`, amzDate, scopeText(scope), previousSignature, digest].join('\n')
}

/** Compares without telling by its duration how much was right. */
export function sameText(a: string, b: string): boolean {
  const left = Buffer.from(a, 'latin1')
  const right = Buffer.from(b, 'latin1')
  return left.length === right.length && timingSafeEqual(left, right)
}

export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/**
 * `20130524T000000Z` to milliseconds since the Unix epoch; undefined for anything else, 30 February included.
 */
export function parseAmzDate(text: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text)
  if (match === null) return undefined
  const time = Date.parse(`${match[1]}-${match[2]}-${match[3]}T${match[4]}:${match[5]}:${match[6]}Z`)
  return Number.isNaN(time) || amzDate(time) !== text ? undefined : time
}

/** Milliseconds since the Unix epoch to `20130524T000000Z`. */
export function amzDate(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/[-:]|\.\d{3}/g, '')
}
