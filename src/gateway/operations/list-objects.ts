/** ListObjects, ListObjectsV2 and ListObjectVersions: three shapes of one listing. */
import type { ObjectRecord } from '../../metadata/records.ts'
import type { Account, ListResult } from '../../object/object-store.ts'
import { ownerAccount, requireBucket } from '../access.ts'
import { isoDate } from '../object-headers.ts'
import { decodeToken, encodeToken, nameEncoder, pageSize } from '../paging.ts'
import { element, optional, s3Document, type Xml } from '../xml.ts'
import { checksumAlgorithmElements, commonPrefixElements, ownerElement } from './elements.ts'
import type { GatewayContext, Operation, S3Request } from './operation.ts'

const keysPageMax = 1000

interface Listing extends ListResult {
  prefix: string
  delimiter: string
  limit: number
  owner: Account
  encodingType?: 'url'
  encode: (name: string) => string
}

async function list(request: S3Request, context: GatewayContext, after: string): Promise<Listing> {
  const bucket = await requireBucket(request, context, 'read')
  const prefix = request.query.get('prefix') ?? ''
  const delimiter = request.query.get('delimiter') ?? ''
  const limit = pageSize(request.query, 'max-keys', keysPageMax)
  const names = nameEncoder(request.query)
  const result: ListResult =
    limit === 0
      ? { objects: [], commonPrefixes: [], isTruncated: false }
      : await context.store.listObjects(request.bucket, { prefix, delimiter, after, limit })
  return { ...result, ...names, prefix, delimiter, limit, owner: ownerAccount(bucket.owner, request.account) }
}

function contents({ objects, encode, owner }: Listing, withOwner: boolean): Xml[] {
  return objects.map((object) =>
    element('Contents', [
      element('Key', encode(object.key)),
      ...versionElements(object),
      ...(withOwner ? [ownerElement(owner)] : [])
    ])
  )
}

function versionElements(object: ObjectRecord): Xml[] {
  return [
    element('LastModified', isoDate(object.modifiedAt)),
    element('ETag', `"${object.etag}"`),
    ...checksumAlgorithmElements(object.checksums, object.checksumType),
    element('Size', object.size),
    element('StorageClass', object.storageClass)
  ]
}

export const listObjects: Operation = async (request, context) => {
  const marker = request.query.get('marker') ?? ''
  const listing = await list(request, context, marker)
  const { encode, delimiter, isTruncated, nextAfter } = listing
  return {
    status: 200,
    body: s3Document('ListBucketResult', [
      element('Name', request.bucket),
      element('Prefix', encode(listing.prefix)),
      element('Marker', encode(marker)),
      // Without a delimiter the last key of the page is the next marker, and S3 leaves it to the client to see that.
      ...optional(
        'NextMarker',
        isTruncated && delimiter !== '' && nextAfter !== undefined ? encode(nextAfter) : undefined
      ),
      element('MaxKeys', listing.limit),
      ...optional('Delimiter', delimiter === '' ? undefined : encode(delimiter)),
      ...optional('EncodingType', listing.encodingType),
      element('IsTruncated', isTruncated),
      ...contents(listing, true),
      ...commonPrefixElements(listing.commonPrefixes, encode)
    ])
  }
}

export const listObjectsV2: Operation = async (request, context) => {
  const token = request.query.get('continuation-token')
  const startAfter = request.query.get('start-after')
  const listing = await list(request, context, token ? decodeToken(token) : (startAfter ?? ''))
  const { encode, delimiter, isTruncated, nextAfter } = listing
  return {
    status: 200,
    body: s3Document('ListBucketResult', [
      element('Name', request.bucket),
      element('Prefix', encode(listing.prefix)),
      ...optional('ContinuationToken', token),
      ...optional('NextContinuationToken', isTruncated && nextAfter !== undefined ? encodeToken(nextAfter) : undefined),
      ...optional('StartAfter', startAfter === undefined ? undefined : encode(startAfter)),
      element('KeyCount', listing.objects.length + listing.commonPrefixes.length),
      element('MaxKeys', listing.limit),
      ...optional('Delimiter', delimiter === '' ? undefined : encode(delimiter)),
      ...optional('EncodingType', listing.encodingType),
      element('IsTruncated', isTruncated),
      ...contents(listing, request.query.get('fetch-owner') === 'true'),
      ...commonPrefixElements(listing.commonPrefixes, encode)
    ])
  }
}

/** Buckets have no versioning: each object is the one version of its key, named `null`. */
export const listObjectVersions: Operation = async (request, context) => {
  const keyMarker = request.query.get('key-marker') ?? ''
  const versionMarker = request.query.get('version-id-marker') ?? ''
  const listing = await list(request, context, keyMarker)
  const { encode, delimiter, isTruncated, nextAfter } = listing
  const next = isTruncated && nextAfter !== undefined ? nextAfter : undefined
  return {
    status: 200,
    body: s3Document('ListVersionsResult', [
      element('Name', request.bucket),
      element('Prefix', encode(listing.prefix)),
      element('KeyMarker', encode(keyMarker)),
      element('VersionIdMarker', versionMarker),
      ...optional('NextKeyMarker', next === undefined ? undefined : encode(next)),
      ...optional(
        'NextVersionIdMarker',
        next === undefined || listing.commonPrefixes.includes(next) ? undefined : 'null'
      ),
      element('MaxKeys', listing.limit),
      ...optional('Delimiter', delimiter === '' ? undefined : encode(delimiter)),
      ...optional('EncodingType', listing.encodingType),
      element('IsTruncated', isTruncated),
      ...listing.objects.map((object) =>
        element('Version', [
          element('Key', encode(object.key)),
          element('VersionId', 'null'),
          element('IsLatest', true),
          ...versionElements(object),
          ownerElement(listing.owner)
        ])
      ),
      ...commonPrefixElements(listing.commonPrefixes, encode)
    ])
  }
}
