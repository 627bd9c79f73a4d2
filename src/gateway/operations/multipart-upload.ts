/** The life of a multipart upload up to its completion: create, parts, abort. */
import { limits } from '../../base/limits.ts'
import type { PartRecord, UploadRecord } from '../../metadata/records.ts'
import { requireBucket } from '../access.ts'
import { storedBytes } from '../body.ts'
import {
  type ChecksumAlgorithm,
  type ChecksumType,
  checksumHeaders,
  checksumLabel,
  checksumTypes,
  parseAlgorithm
} from '../checksum.ts'
import type { ByteRange } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { checkCannedAcl, isoDate, objectHeaders, refuseUnsupported, storageClassOf } from '../object-headers.ts'
import type { HeaderMap } from '../signature.ts'
import { element, s3Document } from '../xml.ts'
import { checkSourceConditions, requireSource, withSource } from './copy-source.ts'
import { checksumElements } from './elements.ts'
import type { Operation, S3Request } from './operation.ts'
import { checkBodySize, checkKey } from './put-object.ts'

export const createMultipartUpload: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  checkKey(request.key)
  refuseUnsupported(request.headers)
  checkCannedAcl(request.headers, bucket.isPublic)
  const kept = objectHeaders(request.headers)
  const storageClass = storageClassOf(request.headers) ?? 'STANDARD'
  const checksum = wantedChecksum(request.headers)
  const upload = await context.store.createUpload({
    bucket: request.bucket,
    key: request.key,
    owner: bucket.owner,
    ...kept,
    storageClass,
    ...(checksum !== undefined && { checksumAlgorithm: checksum.algorithm, checksumType: checksum.type })
  })
  return {
    status: 200,
    headers: {
      ...(checksum !== undefined && {
        'x-amz-checksum-algorithm': checksumLabel(checksum.algorithm),
        'x-amz-checksum-type': checksum.type
      })
    },
    body: s3Document('InitiateMultipartUploadResult', [
      element('Bucket', request.bucket),
      element('Key', request.key),
      element('UploadId', upload.uploadId)
    ])
  }
}

/** @throws S3Error `InvalidRequest` */
function wantedChecksum(headers: HeaderMap): { algorithm: ChecksumAlgorithm; type: ChecksumType } | undefined {
  const label = headers.get('x-amz-checksum-algorithm')
  const type = headers.get('x-amz-checksum-type')?.toUpperCase()
  if (label === undefined) {
    if (type === undefined) return undefined
    throw new S3Error(
      'InvalidRequest',
      'The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.'
    )
  }
  const algorithm = parseAlgorithm(label)
  if (algorithm === undefined) throw new S3Error('InvalidRequest', 'Checksum algorithm provided is unsupported.')
  const types = checksumTypes(algorithm)
  const chosen = type === undefined ? types[0] : types.find((known) => known === type)
  if (chosen === undefined) {
    const stated = type === 'FULL_OBJECT' || type === 'COMPOSITE' ? type : 'given'
    throw new S3Error(
      'InvalidRequest',
      `The ${stated} checksum type cannot be used with the ${algorithm} checksum algorithm.`
    )
  }
  return { algorithm, type: chosen }
}

/** @throws S3Error `InvalidArgument` */
function partNumberOf(request: S3Request): number {
  const text = request.query.get('partNumber') ?? ''
  const partNumber = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (partNumber >= 1 && partNumber <= limits.partsMax) return partNumber
  throw new S3Error('InvalidArgument', `Part number must be an integer between 1 and ${limits.partsMax}, inclusive`, {
    details: { ArgumentName: 'partNumber', ArgumentValue: text.slice(0, 64) }
  })
}

export function uploadIdOf(request: S3Request): string {
  return request.query.get('uploadId') ?? ''
}

function algorithmOf(upload: UploadRecord): ChecksumAlgorithm | undefined {
  return upload.checksumAlgorithm === undefined ? undefined : parseAlgorithm(upload.checksumAlgorithm)
}

export const uploadPart: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const partNumber = partNumberOf(request)
  refuseUnsupported(request.headers)
  checkBodySize(request)
  const uploadId = uploadIdOf(request)
  const upload = await context.store.getUpload(request.bucket, request.key, uploadId)
  const algorithm = algorithmOf(upload)
  const body = await request.body.upload(algorithm)
  const declared = request.body.declaredAlgorithm
  if (algorithm !== undefined && declared !== undefined && declared !== algorithm) {
    throw new S3Error(
      'InvalidRequest',
      `Checksum Type mismatch occurred, expected checksum Type: ${algorithm}, actual checksum Type: ${declared}`
    )
  }
  const part = await context.store.putPart({
    bucket: request.bucket,
    key: request.key,
    uploadId,
    partNumber,
    body,
    signal: request.signal
  })
  const { 'x-amz-checksum-type': _type, ...checksums } = checksumHeaders(part.checksums)
  return { status: 200, headers: { etag: `"${part.etag}"`, ...checksums } }
}

export const uploadPartCopy: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const partNumber = partNumberOf(request)
  refuseUnsupported(request.headers)
  const uploadId = uploadIdOf(request)
  const source = await requireSource(request, context)
  const upload = await context.store.getUpload(request.bucket, request.key, uploadId)
  const part = await withSource(context, source, async (open): Promise<PartRecord> => {
    checkSourceConditions(request, open.record)
    const { start, end } = sourceRange(request.headers.get('x-amz-copy-source-range'), open.record.size)
    if (end - start > limits.singlePutBytesMax) {
      throw new S3Error(
        'InvalidRequest',
        `The specified copy source is larger than the maximum allowable size for a copy source: ${limits.singlePutBytesMax}`
      )
    }
    const body = await storedBytes(open.read(start, end, request.signal), end - start, algorithmOf(upload))
    return await context.store.putPart({
      bucket: request.bucket,
      key: request.key,
      uploadId,
      partNumber,
      body,
      signal: request.signal
    })
  })
  return {
    status: 200,
    body: s3Document('CopyPartResult', [
      element('LastModified', isoDate(part.modifiedAt)),
      element('ETag', `"${part.etag}"`),
      ...checksumElements(part.checksums)
    ])
  }
}

/** Unlike `Range`, this one is strict: both ends, and within the object. */
function sourceRange(header: string | undefined, sizeBytes: number): ByteRange {
  if (header === undefined) return { start: 0, end: sizeBytes }
  const match = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(header)
  const [start, end] = match === null ? [1, 0] : [Number(match[1]), Number(match[2]) + 1]
  if (start >= end) {
    throw new S3Error(
      'InvalidArgument',
      'The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy',
      { details: { ArgumentName: 'x-amz-copy-source-range', ArgumentValue: header.slice(0, 128) } }
    )
  }
  if (end > sizeBytes)
    throw new S3Error('InvalidRange', undefined, { details: { RangeRequested: header, ActualObjectSize: sizeBytes } })
  return { start, end }
}

export const abortMultipartUpload: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  await context.store.abortUpload(request.bucket, request.key, uploadIdOf(request))
  return { status: 204 }
}
