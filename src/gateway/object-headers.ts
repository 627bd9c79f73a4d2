/** The headers that are kept with an object, in both directions. Values are bytes held as Latin-1, as HTTP has them. */
import { limits } from '../base/limits.ts'
import type { ContentHeaders, ObjectRecord } from '../metadata/records.ts'
import { S3Error } from './errors.ts'
import type { Query } from './request.ts'
import type { HeaderMap } from './signature.ts'

const contentHeaderNames = [
  'content-type',
  'content-encoding',
  'content-disposition',
  'content-language',
  'cache-control',
  'expires'
] as const satisfies ReadonlyArray<keyof ContentHeaders>

const metadataPrefix = 'x-amz-meta-'

export interface ObjectHeaders {
  headers: ContentHeaders
  userMetadata: Record<string, string>
}

/** @throws S3Error `MetadataTooLarge` */
export function objectHeaders(headers: HeaderMap): ObjectHeaders {
  const content: ContentHeaders = {}
  for (const name of contentHeaderNames) {
    const value = headers.get(name)?.trim()
    if (value !== undefined && value !== '') content[name] = value
  }
  const encoding = content['content-encoding']
  if (encoding !== undefined) {
    // That encoding is of the transfer, and was taken off.
    const rest = encoding.split(',').filter((coding) => coding.trim() !== 'aws-chunked')
    if (rest.length > 0) content['content-encoding'] = rest.join(',').trim()
    else delete content['content-encoding']
  }
  const userMetadata: Record<string, string> = {}
  let sizeBytes = 0
  for (const [name, value] of headers) {
    if (!name.startsWith(metadataPrefix) || name.length === metadataPrefix.length) continue
    const own = name.slice(metadataPrefix.length)
    sizeBytes += own.length + value.length
    userMetadata[own] = value
  }
  if (sizeBytes > limits.userMetadataBytesMax) {
    throw new S3Error('MetadataTooLarge', undefined, {
      details: { Size: sizeBytes, MaxSizeAllowed: limits.userMetadataBytesMax }
    })
  }
  return { headers: content, userMetadata }
}

const storageClasses = ['STANDARD', 'REDUCED_REDUNDANCY']

/** @throws S3Error `InvalidStorageClass` */
export function storageClassOf(headers: HeaderMap): string | undefined {
  const wanted = headers.get('x-amz-storage-class')
  if (wanted === undefined || storageClasses.includes(wanted)) return wanted
  throw new S3Error('InvalidStorageClass', undefined, { details: { StorageClassRequested: wanted } })
}

const knownAcls = [
  'private',
  'public-read',
  'public-read-write',
  'authenticated-read',
  'aws-exec-read',
  'bucket-owner-read',
  'bucket-owner-full-control'
]

/**
 * A canned ACL that says what holds anyway is taken; one that asks for more or less is refused, so that nobody believes
 * an object to be public, or private, that is not.
 *
 * @throws S3Error `InvalidArgument`, `NotImplemented`
 */
export function checkCannedAcl(headers: HeaderMap, isPublic: boolean): void {
  const acl = headers.get('x-amz-acl')
  const asked = acl !== undefined && acl !== ''
  if (asked && !knownAcls.includes(acl)) {
    throw new S3Error('InvalidArgument', undefined, { details: { ArgumentName: 'x-amz-acl', ArgumentValue: acl } })
  }
  // `private` is the default of common clients: it asks for nothing beyond the bucket's own rule.
  const isGranted =
    !asked || acl === 'private' || acl.startsWith('bucket-owner-') || (isPublic && acl === 'public-read')
  if (!isGranted)
    throw new S3Error(
      'NotImplemented',
      `Access is a matter of the bucket here; the canned ACL ${acl} is not implemented.`
    )
  refuseHeaders(headers, (name) => name.startsWith('x-amz-grant-'))
}

/** @throws S3Error `NotImplemented` for features an object would silently lack */
export function refuseUnsupported(headers: HeaderMap): void {
  refuseHeaders(
    headers,
    (name) =>
      name.startsWith('x-amz-server-side-encryption') ||
      name.startsWith('x-amz-copy-source-server-side-encryption') ||
      name.startsWith('x-amz-object-lock-') ||
      name === 'x-amz-tagging' ||
      name === 'x-amz-website-redirect-location' ||
      name === 'x-amz-write-offset-bytes'
  )
}

function refuseHeaders(headers: HeaderMap, isRefused: (name: string) => boolean): void {
  for (const [name, value] of headers) {
    if (value !== '' && isRefused(name)) throw new S3Error('NotImplemented', undefined, { details: { Header: name } })
  }
}

/** What GET and HEAD tell of an object, whatever part of it they send. */
export function describe(record: ObjectRecord): Record<string, string> {
  const headers: Record<string, string> = {
    'accept-ranges': 'bytes',
    'content-type': 'binary/octet-stream',
    ...mapValues(record.headers, headerBytes),
    etag: `"${record.etag}"`,
    'last-modified': httpDate(record.modifiedAt),
    'x-holdfast-cid': record.root.toString()
  }
  for (const [name, value] of Object.entries(record.userMetadata))
    headers[`${metadataPrefix}${name}`] = headerBytes(value)
  if (record.storageClass !== 'STANDARD') headers['x-amz-storage-class'] = record.storageClass
  return headers
}

/**
 * The `response-*` parameters of a signed GET.
 *
 * @throws S3Error `InvalidRequest` for an anonymous one, `InvalidArgument` for what no header can hold
 */
export function responseOverrides(query: Query, isSigned: boolean): Record<string, string> {
  const overrides: Record<string, string> = {}
  for (const name of contentHeaderNames) {
    const value = query.get(`response-${name}`)
    if (value === undefined) continue
    if (!isSigned)
      throw new S3Error(
        'InvalidRequest',
        'Request specific response headers cannot be used for anonymous GET requests.'
      )
    const bytes = utf8Bytes(value)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused here
    if (/[\u0000-\u0008\u000a-\u001f\u007f]/.test(bytes)) {
      throw new S3Error('InvalidArgument', undefined, { details: { ArgumentName: `response-${name}` } })
    }
    overrides[name] = bytes
  }
  return overrides
}

function utf8Bytes(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}

/** What did not come in by HTTP may hold any character; it leaves as UTF-8. */
function headerBytes(value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the range is all of Latin-1
  return /^[\u0000-\u00ff]*$/.test(value) ? value : utf8Bytes(value)
}

function mapValues(record: ContentHeaders, change: (value: string) => string): Record<string, string> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value)]))
}

/** RFC 1123, as HTTP headers have it. */
export function httpDate(timeMs: number): string {
  return new Date(timeMs).toUTCString()
}

/** As S3's XML has it: seconds, then a fraction that is always zero. */
export function isoDate(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19)}.000Z`
}
