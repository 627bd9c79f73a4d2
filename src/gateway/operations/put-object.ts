import { limits } from '../../base/limits.ts'
import { requireBucket } from '../access.ts'
import { checksumHeaders } from '../checksum.ts'
import { writeCondition } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { checkCannedAcl, objectHeaders, refuseUnsupported, storageClassOf } from '../object-headers.ts'
import type { Operation, S3Request } from './operation.ts'

export const putObject: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  checkKey(request.key)
  refuseUnsupported(request.headers)
  checkCannedAcl(request.headers, bucket.isPublic)
  const kept = objectHeaders(request.headers)
  const storageClass = storageClassOf(request.headers) ?? 'STANDARD'
  checkBodySize(request)
  const record = await context.store.putObject({
    bucket: request.bucket,
    key: request.key,
    body: await request.body.upload(),
    ...kept,
    storageClass,
    ...writeCondition(request.headers),
    signal: request.signal
  })
  return {
    status: 200,
    headers: {
      etag: `"${record.etag}"`,
      ...checksumHeaders(record.checksums, record.checksumType),
      'x-holdfast-cid': record.root.toString()
    }
  }
}

/** @throws S3Error `KeyTooLongError` */
export function checkKey(key: string): void {
  const sizeBytes = Buffer.byteLength(key)
  if (sizeBytes > limits.keyBytesMax) {
    throw new S3Error('KeyTooLongError', undefined, {
      details: { Size: sizeBytes, MaxSizeAllowed: limits.keyBytesMax }
    })
  }
}

/** Before a byte of it is read. @throws S3Error `MissingContentLength`, `EntityTooLarge` */
export function checkBodySize(request: S3Request): void {
  if (!request.body.isPresent) throw new S3Error('MissingContentLength')
  const sizeBytes = request.body.sizeBytes ?? 0
  if (sizeBytes > limits.singlePutBytesMax) {
    throw new S3Error('EntityTooLarge', undefined, {
      details: { ProposedSize: sizeBytes, MaxSizeAllowed: limits.singlePutBytesMax }
    })
  }
}
