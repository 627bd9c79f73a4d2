/** Who sent a request: checks its signature (header or query) and says how the body that follows is protected. */
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Account } from '../object/object-store.ts'
import type { PayloadProtection } from './body.ts'
import { S3Error, type S3ErrorOptions } from './errors.ts'
import type { Query } from './request.ts'
import {
  algorithm,
  amzDate,
  canonicalRequest,
  type HeaderMap,
  parseAmzDate,
  type Scope,
  sameText,
  sign,
  signingKey,
  stringToSign
} from './signature.ts'

/** Where the secrets of access keys come from. */
export interface Credentials {
  /** Undefined for a key that does not exist or was revoked. */
  lookup: (accessKeyId: string) => Promise<{ secretAccessKey: string; owner: string; displayName: string } | undefined>
}

export interface Identity {
  /** Absent for an anonymous request. */
  account?: Account
  payload: PayloadProtection
}

export interface UnverifiedRequest {
  method: string
  path: string
  query: Query
  headers: HeaderMap
}

const skewMsMax = 15 * minuteMs
const expirySecondsMax = 7 * 24 * 3600
const hostHeader = 'host'
const hashHeader = 'x-amz-content-sha256'

/** The claims of a request, before anything of them is believed. */
interface Claim {
  accessKeyId: string
  scope: Scope
  signedHeaders: string[]
  signature: string
  amzDate: string
  timeMs: number
  payloadHash: string
  query: ReadonlyArray<readonly [string, string]>
  isPresigned: boolean
}

/**
 * @throws S3Error for whatever is wrong with the signature, its date, its scope or its key
 */
export async function authenticate(
  request: UnverifiedRequest,
  credentials: Credentials,
  region: string,
  now: number
): Promise<Identity> {
  const { headers, query } = request
  const byHeader = headers.has('authorization')
  const byQuery = query.has('X-Amz-Algorithm')
  const byOldQuery = query.has('Signature') && query.has('AWSAccessKeyId')
  if (Number(byHeader) + Number(byQuery) + Number(byOldQuery) > 1) {
    throw new S3Error(
      'InvalidArgument',
      'Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified'
    )
  }
  if (byOldQuery) throw unsupportedMechanism()
  if (!byHeader && !byQuery) return { payload: protectionOf(headers.get(hashHeader) ?? 'UNSIGNED-PAYLOAD') }

  const claim = byHeader ? claimOfHeader(headers, query) : claimOfQuery(headers, query)
  checkScope(claim, region)
  checkTime(claim, query, now)
  checkSignedHeaders(claim, headers)
  if (headers.has('x-amz-security-token') || query.has('X-Amz-Security-Token')) throw new S3Error('InvalidToken')

  const holder = await credentials.lookup(claim.accessKeyId)
  if (holder === undefined)
    throw new S3Error('InvalidAccessKeyId', undefined, { details: { AWSAccessKeyId: claim.accessKeyId } })
  const key = signingKey(holder.secretAccessKey, claim.scope)
  const canonical = canonicalRequest({ ...claim, method: request.method, path: request.path, headers })
  const text = stringToSign(claim.amzDate, claim.scope, canonical)
  if (!sameText(sign(key, text), claim.signature)) {
    throw new S3Error('SignatureDoesNotMatch', undefined, {
      details: {
        AWSAccessKeyId: claim.accessKeyId,
        StringToSign: text,
        SignatureProvided: claim.signature,
        CanonicalRequest: canonical
      }
    })
  }
  const signing = { key, amzDate: claim.amzDate, scope: claim.scope, seedSignature: claim.signature }
  return {
    account: { owner: holder.owner, displayName: holder.displayName },
    payload: protectionOf(claim.payloadHash, signing)
  }
}

function unsupportedMechanism(): S3Error {
  return new S3Error(
    'InvalidRequest',
    'The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.'
  )
}

function protectionOf(
  payloadHash: string,
  signing?: Extract<PayloadProtection, { kind: 'chunked' }>['signing']
): PayloadProtection {
  switch (payloadHash) {
    case 'UNSIGNED-PAYLOAD':
      return { kind: 'unsigned' }
    case 'STREAMING-UNSIGNED-PAYLOAD-TRAILER':
      return { kind: 'chunked', hasTrailers: true }
    case 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD':
    case 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER':
      if (signing === undefined) throw new S3Error('AccessDenied')
      return { kind: 'chunked', signing, hasTrailers: payloadHash.endsWith('-TRAILER') }
    default:
      if (/^[0-9a-f]{64}$/.test(payloadHash)) return { kind: 'sha256', hex: payloadHash }
      throw new S3Error(
        'InvalidArgument',
        'x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.',
        { details: { ArgumentName: hashHeader, ArgumentValue: payloadHash.slice(0, 128) } }
      )
  }
}

function claimOfHeader(headers: HeaderMap, query: Query): Claim {
  const malformed = (message: string): S3Error =>
    new S3Error('AuthorizationHeaderMalformed', `The authorization header is malformed; ${message}`)
  const authorization = headers.get('authorization')!.trim()
  const space = authorization.indexOf(' ')
  const mechanism = space === -1 ? authorization : authorization.slice(0, space)
  if (mechanism !== algorithm) {
    if (mechanism === 'AWS' || mechanism.startsWith('AWS4-')) throw unsupportedMechanism()
    throw new S3Error('InvalidArgument', 'Unsupported Authorization Type', {
      details: { ArgumentName: 'Authorization', ArgumentValue: mechanism.slice(0, 64) }
    })
  }
  const fields = new Map<string, string>()
  for (const field of authorization.slice(algorithm.length).split(',')) {
    const equals = field.indexOf('=')
    if (equals !== -1) fields.set(field.slice(0, equals).trim(), field.slice(equals + 1).trim())
  }
  const credential = fields.get('Credential')
  const signedHeaders = fields.get('SignedHeaders')
  const signature = fields.get('Signature')
  if (!credential) throw malformed('missing Credential.')
  if (!signedHeaders) throw malformed('missing SignedHeaders.')
  if (!signature) throw malformed('missing Signature.')
  const parts = parseCredential(credential)
  if (parts === undefined) {
    throw malformed('the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".')
  }
  const date = requestDate(headers)
  if (parts.scope.date !== date.amzDate.slice(0, 8)) {
    throw malformed(
      `Invalid credential date "${parts.scope.date}". This date is not the same as X-Amz-Date: "${date.amzDate.slice(0, 8)}".`
    )
  }
  const payloadHash = headers.get(hashHeader)
  if (payloadHash === undefined)
    throw new S3Error('InvalidRequest', 'Missing required header for this request: x-amz-content-sha256')
  return {
    ...parts,
    ...date,
    signedHeaders: signedHeaders.split(';'),
    signature,
    payloadHash,
    query: query.pairs,
    isPresigned: false
  }
}

/** `x-amz-date` where there is one, else `Date`. */
function requestDate(headers: HeaderMap): { amzDate: string; timeMs: number } {
  const own = headers.get('x-amz-date')
  const timeMs = own === undefined ? Date.parse(headers.get('date') ?? '') : (parseAmzDate(own) ?? parseHttpDate(own))
  if (Number.isNaN(timeMs))
    throw new S3Error('AccessDenied', 'AWS authentication requires a valid Date or x-amz-date header')
  return { amzDate: amzDate(timeMs), timeMs }
}

function parseHttpDate(text: string): number {
  return /GMT$|[+-]\d{4}$/.test(text) ? Date.parse(text) : Number.NaN
}

function parseCredential(credential: string): { accessKeyId: string; scope: Scope } | undefined {
  // An access key id may hold slashes of its own; the scope's four parts stand at the end.
  const match = /^(.{1,128})\/(\d{8})\/([A-Za-z0-9-]{1,64})\/([A-Za-z0-9-]{1,32})\/aws4_request$/.exec(credential)
  if (match === null) return undefined
  return { accessKeyId: match[1]!, scope: { date: match[2]!, region: match[3]!, service: match[4]! } }
}

function claimOfQuery(headers: HeaderMap, query: Query): Claim {
  const bad = (message: string): S3Error => new S3Error('AuthorizationQueryParametersError', message)
  if (query.get('X-Amz-Algorithm') !== algorithm) throw bad('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
  const [credential, date, expires, signedHeaders, signature] = [
    'Credential',
    'Date',
    'Expires',
    'SignedHeaders',
    'Signature'
  ].map((name) => query.get(`X-Amz-${name}`))
  if (!credential || !date || !expires || !signedHeaders || !signature) {
    throw bad(
      'Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.'
    )
  }
  const parts = parseCredential(credential)
  if (parts === undefined) {
    throw bad(
      'Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
    )
  }
  const timeMs = parseAmzDate(date)
  if (timeMs === undefined) throw bad("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
  if (parts.scope.date !== date.slice(0, 8)) {
    throw bad(
      `Invalid credential date "${parts.scope.date}". This date is not the same as X-Amz-Date: "${date.slice(0, 8)}".`
    )
  }
  if (!/^-?\d{1,15}$/.test(expires)) throw bad('X-Amz-Expires should be a number')
  if (Number(expires) < 0) throw bad('X-Amz-Expires must be non-negative')
  if (Number(expires) > expirySecondsMax) {
    throw new S3Error(
      'AccessDenied',
      `X-Amz-Expires must be less than a week (in seconds); that is, at most ${expirySecondsMax}`
    )
  }
  return {
    ...parts,
    amzDate: date,
    timeMs,
    signedHeaders: signedHeaders.split(';'),
    signature,
    payloadHash: query.get('X-Amz-Content-Sha256') ?? headers.get(hashHeader) ?? 'UNSIGNED-PAYLOAD',
    query: query.pairs.filter(([name]) => name !== 'X-Amz-Signature'),
    isPresigned: true
  }
}

function checkScope(claim: Claim, region: string): void {
  const refuse = (what: string, options: S3ErrorOptions = {}): S3Error =>
    claim.isPresigned
      ? new S3Error(
          'AuthorizationQueryParametersError',
          `Error parsing the X-Amz-Credential parameter; ${what}`,
          options
        )
      : new S3Error('AuthorizationHeaderMalformed', `The authorization header is malformed; ${what}`, options)
  const { scope } = claim
  if (scope.service !== 's3') throw refuse(`incorrect service "${scope.service}". This endpoint belongs to "s3".`)
  if (scope.region !== region) {
    throw refuse(`the region '${scope.region}' is wrong; expecting '${region}'`, { details: { Region: region } })
  }
}

function checkTime(claim: Claim, query: Query, now: number): void {
  const iso = (timeMs: number): string => new Date(timeMs).toISOString().replace(/\.\d{3}Z$/, 'Z')
  if (!claim.isPresigned) {
    if (Math.abs(now - claim.timeMs) <= skewMsMax) return
    throw new S3Error('RequestTimeTooSkewed', undefined, {
      details: { RequestTime: claim.amzDate, ServerTime: iso(now), MaxAllowedSkewMilliseconds: skewMsMax }
    })
  }
  if (claim.timeMs > now + skewMsMax) throw new S3Error('AccessDenied', 'Request is not valid yet')
  const expires = Number(query.get('X-Amz-Expires'))
  const endMs = claim.timeMs + expires * secondMs
  if (now < endMs) return
  throw new S3Error('AccessDenied', 'Request has expired', {
    details: { 'X-Amz-Expires': expires, Expires: iso(endMs), ServerTime: iso(now) }
  })
}

/** What changes the meaning of a request must be under its signature. */
function checkSignedHeaders(claim: Claim, headers: HeaderMap): void {
  const signed = new Set(claim.signedHeaders)
  if (!signed.has(hostHeader))
    throw new S3Error('MissingSecurityHeader', 'The host header must be among the signed headers.')
  // The payload's hash stands in what is signed whether or not its header is listed.
  const unsigned = [...headers.keys()].filter(
    (name) => name.startsWith('x-amz-') && name !== hashHeader && !signed.has(name)
  )
  if (unsigned.length === 0) return
  throw new S3Error('AccessDenied', 'There were headers present in the request which were not signed', {
    details: { HeadersNotSigned: unsigned.join(', ') }
  })
}
