/** What the listings share: page sizes, opaque tokens, URL encoding. */
import { S3Error } from './errors.ts'
import type { Query } from './request.ts'
import { uriEncode } from './signature.ts'

/**
 * A page size parameter: `pageMax` where it is absent or larger.
 *
 * @throws S3Error `InvalidArgument`
 */
export function pageSize(query: Query, name: string, pageMax: number, least = 0): number {
  const text = query.get(name)
  if (text === undefined || text === '') return pageMax
  const size = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (!(size >= least && size <= 2 ** 31 - 1)) {
    throw new S3Error('InvalidArgument', `Argument ${name} must be an integer between ${least} and 2147483647`, {
      details: { ArgumentName: name, ArgumentValue: text.slice(0, 64) }
    })
  }
  return Math.min(size, pageMax)
}

/** A part number marker: 0 where it is absent. @throws S3Error `InvalidArgument` */
export function numberMarker(text: string | undefined, name: string): number {
  if (text === undefined || text === '') return 0
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new S3Error('InvalidArgument', `Argument ${name} must be an integer between 0 and 2147483647`, {
    details: { ArgumentName: name, ArgumentValue: text.slice(0, 64) }
  })
}

const tokenVersion = '1'

/** Opaque to clients; survives XML whatever the key holds. */
export function encodeToken(after: string): string {
  return Buffer.from(tokenVersion + after, 'utf8').toString('base64url')
}

/** @throws S3Error `InvalidArgument` for what `encodeToken` did not make */
export function decodeToken(token: string): string {
  const bytes = Buffer.from(token, 'base64url')
  const text = bytes.toString('utf8')
  if (!text.startsWith(tokenVersion) || encodeToken(text.slice(1)) !== token) {
    throw new S3Error('InvalidArgument', 'The continuation token provided is incorrect', {
      details: { ArgumentName: 'continuation-token' }
    })
  }
  return text.slice(1)
}

/**
 * How names are written in a listing: as they are, or percent-encoded for `encoding-type=url`.
 *
 * @throws S3Error `InvalidArgument`
 */
export function nameEncoder(query: Query): { encodingType?: 'url'; encode: (name: string) => string } {
  const type = query.get('encoding-type')
  if (type === undefined || type === '') return { encode: (name) => name }
  if (type !== 'url') {
    throw new S3Error('InvalidArgument', 'Invalid Encoding Method specified in Request', {
      details: { ArgumentName: 'encoding-type', ArgumentValue: type.slice(0, 64) }
    })
  }
  return { encodingType: 'url', encode: (name) => uriEncode(name, true) }
}
