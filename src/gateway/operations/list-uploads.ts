/** ListParts and ListMultipartUploads. */
import type { UploadRecord } from '../../metadata/records.ts'
import { ownerAccount, requireBucket } from '../access.ts'
import { checksumLabel, parseAlgorithm } from '../checksum.ts'
import { isoDate } from '../object-headers.ts'
import { nameEncoder, numberMarker, pageSize } from '../paging.ts'
import { element, optional, s3Document, type Xml } from '../xml.ts'
import { checksumElements, commonPrefixElements, ownerElement } from './elements.ts'
import { uploadIdOf } from './multipart-upload.ts'
import type { GatewayContext, Operation } from './operation.ts'

const pageMax = 1000
/** Sorts after every upload id. */
const afterAllUploads = '\u{10ffff}'

export const listParts: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const uploadId = uploadIdOf(request)
  const limit = pageSize(request.query, 'max-parts', pageMax)
  const marker = numberMarker(request.query.get('part-number-marker'), 'part-number-marker')
  const { encodingType, encode } = nameEncoder(request.query)
  const upload = await context.store.getUpload(request.bucket, request.key, uploadId)
  const page =
    limit === 0
      ? { items: [], isTruncated: false }
      : await context.store.listParts(request.bucket, request.key, uploadId, { after: marker, limit })
  const owner = ownerAccount(upload.owner, request.account)
  return {
    status: 200,
    body: s3Document('ListPartsResult', [
      element('Bucket', request.bucket),
      element('Key', encode(request.key)),
      ...optional('EncodingType', encodingType),
      element('UploadId', uploadId),
      ownerElement(owner, 'Initiator'),
      ownerElement(owner),
      element('StorageClass', upload.storageClass),
      element('PartNumberMarker', marker),
      ...optional('NextPartNumberMarker', page.items.at(-1)?.partNumber),
      element('MaxParts', limit),
      element('IsTruncated', page.isTruncated),
      ...checksumKind(upload),
      ...page.items.map((part) =>
        element('Part', [
          element('PartNumber', part.partNumber),
          element('LastModified', isoDate(part.modifiedAt)),
          element('ETag', `"${part.etag}"`),
          element('Size', part.size),
          ...checksumElements(part.checksums)
        ])
      )
    ])
  }
}

function checksumKind(upload: UploadRecord): Xml[] {
  const algorithm = upload.checksumAlgorithm === undefined ? undefined : parseAlgorithm(upload.checksumAlgorithm)
  if (algorithm === undefined) return []
  return [element('ChecksumAlgorithm', checksumLabel(algorithm)), ...optional('ChecksumType', upload.checksumType)]
}

interface UploadsPage {
  uploads: UploadRecord[]
  commonPrefixes: string[]
  isTruncated: boolean
  nextKeyMarker: string
  nextUploadIdMarker: string
}

interface UploadsRequest {
  prefix: string
  delimiter: string
  keyMarker: string
  uploadIdMarker: string
  limit: number
}

export const listMultipartUploads: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  const { query } = request
  const { encodingType, encode } = nameEncoder(query)
  const keyMarker = query.get('key-marker') ?? ''
  const listing: UploadsRequest = {
    prefix: query.get('prefix') ?? '',
    delimiter: query.get('delimiter') ?? '',
    keyMarker,
    // An upload id says nothing without its key.
    uploadIdMarker: keyMarker === '' ? '' : (query.get('upload-id-marker') ?? ''),
    limit: pageSize(query, 'max-uploads', pageMax)
  }
  const page = await collectUploads(request.bucket, context, listing)
  const owner = ownerAccount(bucket.owner, request.account)
  return {
    status: 200,
    body: s3Document('ListMultipartUploadsResult', [
      element('Bucket', request.bucket),
      element('KeyMarker', encode(keyMarker)),
      element('UploadIdMarker', listing.uploadIdMarker),
      ...(page.isTruncated
        ? [element('NextKeyMarker', encode(page.nextKeyMarker)), element('NextUploadIdMarker', page.nextUploadIdMarker)]
        : []),
      element('Prefix', encode(listing.prefix)),
      ...optional('Delimiter', listing.delimiter === '' ? undefined : encode(listing.delimiter)),
      ...optional('EncodingType', encodingType),
      element('MaxUploads', listing.limit),
      element('IsTruncated', page.isTruncated),
      ...page.uploads.map((upload) =>
        element('Upload', [
          element('Key', encode(upload.key)),
          element('UploadId', upload.uploadId),
          ownerElement(owner, 'Initiator'),
          ownerElement(owner),
          element('StorageClass', upload.storageClass),
          element('Initiated', isoDate(upload.initiatedAt)),
          ...checksumKind(upload)
        ])
      ),
      ...commonPrefixElements(page.commonPrefixes, encode)
    ])
  }
}

/** Groups uploads by common prefix while walking them, since the store lists them plainly. */
async function collectUploads(bucket: string, context: GatewayContext, request: UploadsRequest): Promise<UploadsPage> {
  const { prefix, delimiter, limit } = request
  const page: UploadsPage = {
    uploads: [],
    commonPrefixes: [],
    isTruncated: false,
    nextKeyMarker: '',
    nextUploadIdMarker: ''
  }
  if (limit === 0) return page
  const groupOf = (key: string): string | undefined => {
    const end = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
    return end === -1 ? undefined : key.slice(0, end + delimiter.length)
  }
  let afterKey = request.keyMarker
  let afterUploadId = request.uploadIdMarker || (afterKey === '' ? '' : afterAllUploads)
  // A marker that is itself a common prefix stands for everything below it.
  let group = afterKey.startsWith(prefix) && groupOf(afterKey) === afterKey ? afterKey : undefined
  for (;;) {
    const batch = await context.store.listUploads(bucket, { prefix, afterKey, afterUploadId, limit: pageMax })
    for (const upload of batch.items) {
      afterKey = upload.key
      afterUploadId = upload.uploadId
      const own = groupOf(upload.key)
      if (own !== undefined && own === group) continue
      if (page.uploads.length + page.commonPrefixes.length === limit) return { ...page, isTruncated: true }
      if (own === undefined) page.uploads.push(upload)
      else page.commonPrefixes.push(own)
      group = own
      page.nextKeyMarker = own ?? upload.key
      page.nextUploadIdMarker = own === undefined ? upload.uploadId : ''
    }
    if (!batch.isTruncated || batch.items.length === 0) return page
  }
}
