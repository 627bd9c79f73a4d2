/** Conditional requests and ranges, with S3's precedence among the conditions (RFC 9110, section 13.2.2). */
import type { WriteCondition } from '../metadata/index-store.ts'
import type { ObjectRecord } from '../metadata/records.ts'
import { S3Error } from './errors.ts'
import type { HeaderMap } from './signature.ts'

export interface ReadConditions {
  ifMatch?: string | undefined
  ifNoneMatch?: string | undefined
  ifModifiedSince?: string | undefined
  ifUnmodifiedSince?: string | undefined
}

/** @param prefix `x-amz-copy-source-` for the source of a copy */
export function readConditions(headers: HeaderMap, prefix = ''): ReadConditions {
  return {
    ifMatch: headers.get(`${prefix}if-match`),
    ifNoneMatch: headers.get(`${prefix}if-none-match`),
    ifModifiedSince: headers.get(`${prefix}if-modified-since`),
    ifUnmodifiedSince: headers.get(`${prefix}if-unmodified-since`)
  }
}

type Version = Pick<ObjectRecord, 'etag' | 'modifiedAt'>

/**
 * `not-modified` is a 304 for a read and a failure for a copy.
 *
 * @throws S3Error `PreconditionFailed`
 */
export function evaluate(conditions: ReadConditions, version: Version): 'proceed' | 'not-modified' {
  if (conditions.ifMatch !== undefined) {
    if (!matchesEtag(conditions.ifMatch, version.etag)) throw failed('If-Match')
  } else if (isAfter(version, conditions.ifUnmodifiedSince) === true) {
    throw failed('If-Unmodified-Since')
  }
  if (conditions.ifNoneMatch !== undefined) {
    if (matchesEtag(conditions.ifNoneMatch, version.etag)) return 'not-modified'
  } else if (isAfter(version, conditions.ifModifiedSince) === false) {
    return 'not-modified'
  }
  return 'proceed'
}

function failed(condition: string): S3Error {
  return new S3Error('PreconditionFailed', undefined, { details: { Condition: condition } })
}

function matchesEtag(header: string, etag: string): boolean {
  return header.split(',').some((candidate) => ['*', etag].includes(bareEtag(candidate)))
}

/** Without quotes and without the mark of a weak one. */
export function bareEtag(text: string): string {
  return text
    .trim()
    .replace(/^W\//, '')
    .replace(/^"(.*)"$/, '$1')
}

/** Whether the version is younger than the date; undefined where there is no valid one: such a condition is ignored. */
function isAfter(version: Version, date: string | undefined): boolean | undefined {
  const time = date === undefined ? Number.NaN : Date.parse(date)
  if (Number.isNaN(time)) return undefined
  return Math.floor(version.modifiedAt / 1000) > Math.floor(time / 1000)
}

/** The conditions of a write, for the transaction that commits it. */
export function writeCondition(headers: HeaderMap): { condition?: WriteCondition } {
  const ifMatch = headers.get('if-match')
  const ifNoneMatch = headers.get('if-none-match')
  if (ifMatch === undefined && ifNoneMatch === undefined) return {}
  return {
    condition: {
      ...(ifMatch !== undefined && { ifMatch: bareEtag(ifMatch) }),
      ...(ifNoneMatch !== undefined && { ifNoneMatch: bareEtag(ifNoneMatch) })
    }
  }
}

/** Bytes [start, end). */
export interface ByteRange {
  start: number
  end: number
}

/**
 * A `Range` header of one range. Undefined for what S3 ignores: other units, several ranges, bad syntax.
 *
 * @throws S3Error `InvalidRange`
 */
export function parseRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const match = /^bytes=\s*(\d*)\s*-\s*(\d*)$/.exec(header?.trim() ?? '')
  if (match === null || (match[1] === '' && match[2] === '')) return undefined
  const [first, last] = [match[1]!, match[2]!]
  let range: ByteRange
  if (first === '') range = { start: Math.max(0, sizeBytes - Number(last)), end: sizeBytes }
  else if (last === '') range = { start: Number(first), end: sizeBytes }
  else if (Number(last) < Number(first)) return undefined
  else range = { start: Number(first), end: Math.min(sizeBytes, Number(last) + 1) }
  if (range.start < range.end) return range
  throw new S3Error('InvalidRange', undefined, {
    details: { RangeRequested: header ?? '', ActualObjectSize: sizeBytes },
    headers: { 'content-range': `bytes */${sizeBytes}` }
  })
}

/** Whether a `Range` is to be honoured: `If-Range` names the version the client has the rest of. */
export function honoursRange(ifRange: string | undefined, version: Version): boolean {
  if (ifRange === undefined) return true
  const time = Date.parse(ifRange)
  if (/^(W\/)?"/.test(ifRange.trim()) || Number.isNaN(time)) return bareEtag(ifRange) === version.etag
  return Math.floor(version.modifiedAt / 1000) === Math.floor(time / 1000)
}
