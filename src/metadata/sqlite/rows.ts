/**
 * Between rows and records. What is read is checked as if a stranger had written it: a value of another kind than was
 * stored means a damaged file, never a record with a hole.
 */

import type { SQLInputValue, SQLOutputValue } from 'node:sqlite'
import { CID } from 'multiformats/cid'
import { check } from '../../base/errors.ts'
import type { Page } from '../index-store.ts'
import type {
  AccessKeyRecord,
  BucketRecord,
  KnownProviderRecord,
  ObjectRecord,
  PartRecord,
  ShardRecord,
  ShardState,
  StoredObject,
  UploadRecord
} from '../records.ts'
import { damaged } from './database.ts'

export type Row = Record<string, SQLOutputValue>

export function integer(row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw damaged(`${column} is no integer`)
  return value
}

export function real(row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'number' || !Number.isFinite(value)) throw damaged(`${column} is no number`)
  return value
}

export function text(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw damaged(`${column} is no text`)
  return value
}

export function bytes(row: Row, column: string): Uint8Array {
  const value = row[column]
  if (!(value instanceof Uint8Array)) throw damaged(`${column} is no byte string`)
  // The driver's empty array has no memory behind it, and would be stored as NULL where it is written back.
  return value.length === 0 ? new Uint8Array(0) : value
}

export function cidOf(row: Row): CID {
  return decodeCid(bytes(row, 'cid'))
}

function decodeCid(stored: Uint8Array): CID {
  try {
    return CID.decode(stored)
  } catch (cause) {
    throw damaged('not a CID', cause)
  }
}

const keyDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws HoldfastError `BAD_INPUT` for half a surrogate pair, which UTF-8 cannot say */
export function keyBytes(key: string): Uint8Array {
  check(key.isWellFormed(), 'a key must be valid Unicode')
  return Buffer.from(key, 'utf8')
}

export function keyText(row: Row): string {
  try {
    return keyDecoder.decode(bytes(row, 'key'))
  } catch (cause) {
    throw damaged('key is not UTF-8', cause)
  }
}

/**
 * The keys [from, to) that start with `prefix` and come after `after`, bytewise.
 *
 * @param inclusive `after` itself is one of them
 */
export function keyRange(prefix: string, after: string, inclusive = false): { from: Uint8Array; to: Uint8Array } {
  const low = keyBytes(prefix)
  const marker = keyBytes(after)
  // The next byte string after X is X with a zero byte behind it.
  const first = inclusive || marker.length === 0 ? marker : Buffer.concat([marker, Buffer.of(0)])
  return { from: Buffer.compare(low, first) > 0 ? low : first, to: prefixEnd(low) }
}

/** The first byte string after all that start with `prefix`. UTF-8 has no byte 0xff, so there always is one. */
function prefixEnd(prefix: Uint8Array): Uint8Array {
  if (prefix.length === 0) return Buffer.of(0xff)
  const end = Buffer.from(prefix)
  end[end.length - 1]! += 1
  return end
}

/** Text that comes back as it went in: the driver cuts what it reads at a NUL. */
function plain(value: string): string {
  check(!value.includes('\0') && value.isWellFormed(), 'text to be kept must be valid Unicode without NUL')
  return value
}

export const optional = <T, U>(value: T | undefined, store: (value: T) => U): U | null =>
  value === undefined ? null : store(value)

function json(stored: string, column: string): unknown {
  try {
    return JSON.parse(stored)
  } catch (cause) {
    throw damaged(`${column} is not JSON`, cause)
  }
}

function stringMap(row: Row, column: string): Record<string, string> {
  const stored = text(row, column)
  if (stored === '{}') return {}
  const value = json(stored, column)
  if (!isStringMap(value)) throw damaged(`${column} is no map of text`)
  return value
}

const isStringMap = (value: unknown): value is Record<string, string> =>
  value !== null && typeof value === 'object' && !Array.isArray(value) && Object.values(value).every(isText)

function array<T>(row: Row, column: string, isItem: (item: unknown) => item is T): T[] {
  const value = json(text(row, column), column)
  if (!Array.isArray(value) || !value.every(isItem)) throw damaged(`${column} is no such list`)
  return value
}

/** How often each of several things happened, as JSON. @throws HoldfastError `BAD_INPUT` for what is no count */
export function countsText(counts: Record<string, number>): string {
  check(Object.values(counts).every(isCount), 'what is counted must be counted in whole numbers')
  return JSON.stringify(counts)
}

export function countsOf(row: Row, column: string): Record<string, number> {
  const value = json(text(row, column), column)
  const isMap = value !== null && typeof value === 'object' && !Array.isArray(value)
  if (!isMap || !Object.values(value).every(isCount)) throw damaged(`${column} is no map of counts`)
  return value as Record<string, number>
}

const isCount = (item: unknown): item is number => Number.isSafeInteger(item) && (item as number) >= 0
const isSize = (item: unknown): item is number => Number.isSafeInteger(item)
const isText = (item: unknown): item is string => typeof item === 'string'

/** What is stored for each state: see `migrations.ts`. */
export const stateCodes = {
  healthy: 0,
  offline: 1,
  contained: 2,
  missing: 3,
  wrong: 4,
  withdrawn: 5,
  unknown: 6
} as const satisfies Record<ShardState, number>

const stateNames = new Map<number, ShardState>(
  (Object.entries(stateCodes) as Array<[ShardState, number]>).map(([name, code]) => [code, name])
)

export function stateOf(row: Row): ShardState {
  const state = stateNames.get(integer(row, 'state'))
  if (state === undefined) throw damaged('unknown shard state')
  return state
}

export function shardOf(row: Row): ShardRecord {
  const shard: ShardRecord = { cid: cidOf(row), state: stateOf(row), leaseUntil: integer(row, 'lease_until') }
  if (row.peer_id !== null) shard.provider = text(row, 'peer_id')
  if (row.last_proof !== null) shard.lastProof = integer(row, 'last_proof')
  return shard
}

export function bucketOf(row: Row): BucketRecord {
  return {
    name: text(row, 'name'),
    owner: text(row, 'owner'),
    createdAt: integer(row, 'created_at'),
    isPublic: integer(row, 'is_public') === 1,
    wrappedKey: bytes(row, 'wrapped_key')
  }
}

export function bucketValues(bucket: BucketRecord): SQLInputValue[] {
  return [plain(bucket.name), plain(bucket.owner), bucket.createdAt, bucket.isPublic ? 1 : 0, bucket.wrappedKey]
}

const checksumTypes = ['FULL_OBJECT', 'COMPOSITE'] as const

function checksumTypeOf(row: Row): (typeof checksumTypes)[number] {
  const stored = text(row, 'checksum_type')
  const type = checksumTypes.find((name) => name === stored)
  if (type === undefined) throw damaged('unknown checksum type')
  return type
}

export function objectOf(row: Row, bucket: string): StoredObject {
  const object: StoredObject = {
    bucket,
    key: keyText(row),
    size: integer(row, 'size'),
    etag: text(row, 'etag'),
    modifiedAt: integer(row, 'modified_at'),
    root: decodeCid(bytes(row, 'root')),
    wrappedKey: bytes(row, 'wrapped_key'),
    headers: stringMap(row, 'headers'),
    userMetadata: stringMap(row, 'user_metadata'),
    checksums: stringMap(row, 'checksums'),
    storageClass: text(row, 'storage_class'),
    contentId: integer(row, 'content_id')
  }
  if (row.checksum_type !== null) object.checksumType = checksumTypeOf(row)
  if (row.part_sizes !== null) object.partSizes = array(row, 'part_sizes', isSize)
  if (row.part_checksums !== null) object.partChecksums = array(row, 'part_checksums', isStringMap)
  return object
}

/** In the order of the columns of `objects`. */
export function objectValues(bucketId: number, contentId: number, object: ObjectRecord): SQLInputValue[] {
  return [
    bucketId,
    keyBytes(object.key),
    contentId,
    object.size,
    plain(object.etag),
    object.modifiedAt,
    object.root.bytes,
    object.wrappedKey,
    JSON.stringify(object.headers),
    JSON.stringify(object.userMetadata),
    JSON.stringify(object.checksums),
    object.checksumType ?? null,
    plain(object.storageClass),
    optional(object.partSizes, JSON.stringify),
    optional(object.partChecksums, JSON.stringify)
  ]
}

export function uploadOf(row: Row, bucket: string): UploadRecord {
  const upload: UploadRecord = {
    bucket,
    key: keyText(row),
    uploadId: text(row, 'upload_id'),
    owner: text(row, 'owner'),
    initiatedAt: integer(row, 'initiated_at'),
    wrappedKey: bytes(row, 'wrapped_key'),
    headers: stringMap(row, 'headers'),
    userMetadata: stringMap(row, 'user_metadata'),
    storageClass: text(row, 'storage_class')
  }
  if (row.checksum_algorithm !== null) upload.checksumAlgorithm = text(row, 'checksum_algorithm')
  if (row.checksum_type !== null) upload.checksumType = checksumTypeOf(row)
  return upload
}

/** In the order of the columns of `uploads` after `id`. */
export function uploadValues(bucketId: number, upload: UploadRecord): SQLInputValue[] {
  return [
    plain(upload.uploadId),
    bucketId,
    keyBytes(upload.key),
    plain(upload.owner),
    upload.initiatedAt,
    upload.wrappedKey,
    JSON.stringify(upload.headers),
    JSON.stringify(upload.userMetadata),
    plain(upload.storageClass),
    optional(upload.checksumAlgorithm, plain),
    upload.checksumType ?? null
  ]
}

export function partOf(row: Row): PartRecord {
  return {
    partNumber: integer(row, 'number'),
    size: integer(row, 'size'),
    etag: text(row, 'etag'),
    modifiedAt: integer(row, 'modified_at'),
    checksums: stringMap(row, 'checksums')
  }
}

/** In the order of the columns of `parts` after `id`. */
export function partValues(upload: number, part: PartRecord): SQLInputValue[] {
  return [upload, part.partNumber, part.size, plain(part.etag), part.modifiedAt, JSON.stringify(part.checksums)]
}

export function accessKeyOf(row: Row): AccessKeyRecord {
  return {
    accessKeyId: text(row, 'access_key_id'),
    sealedSecret: bytes(row, 'sealed_secret'),
    owner: text(row, 'owner'),
    displayName: text(row, 'display_name'),
    createdAt: integer(row, 'created_at')
  }
}

export function accessKeyValues(key: AccessKeyRecord): SQLInputValue[] {
  return [plain(key.accessKeyId), key.sealedSecret, plain(key.owner), plain(key.displayName), key.createdAt]
}

export function knownProviderOf(row: Row): KnownProviderRecord {
  return {
    peerId: text(row, 'peer_id'),
    dataUrls: array(row, 'data_urls', isText),
    addresses: array(row, 'addresses', isText),
    domain: text(row, 'domain'),
    lastSeenAt: integer(row, 'last_seen_at')
  }
}

export function knownProviderValues(provider: KnownProviderRecord): SQLInputValue[] {
  return [
    plain(provider.peerId),
    JSON.stringify(provider.dataUrls),
    JSON.stringify(provider.addresses),
    plain(provider.domain),
    provider.lastSeenAt
  ]
}

/** @param rows one more than `limit` where more follow */
export function pageOf<T>(rows: Row[], limit: number, record: (row: Row) => T): Page<T> {
  return { items: rows.slice(0, limit).map(record), isTruncated: limit > 0 && rows.length > limit }
}
