import type { ObjectRecord } from '../../metadata/records.ts'
import { requireBucket } from '../access.ts'
import { storedBytes } from '../body.ts'
import { type ChecksumAlgorithm, parseAlgorithm } from '../checksum.ts'
import { writeCondition } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { checkCannedAcl, isoDate, objectHeaders, refuseUnsupported, storageClassOf } from '../object-headers.ts'
import { element, s3Document } from '../xml.ts'
import { type CopySource, checkSourceConditions, requireSource, withSource } from './copy-source.ts'
import { checksumElements } from './elements.ts'
import type { GatewayContext, Operation, S3Request } from './operation.ts'
import { checkKey } from './put-object.ts'

export const copyObject: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  checkKey(request.key)
  refuseUnsupported(request.headers)
  checkCannedAcl(request.headers, bucket.isPublic)
  const source = await requireSource(request, context)
  const directive = request.headers.get('x-amz-metadata-directive')?.toUpperCase() ?? 'COPY'
  if (directive !== 'COPY' && directive !== 'REPLACE') {
    throw new S3Error('InvalidArgument', 'Unknown metadata directive.', {
      details: { ArgumentName: 'x-amz-metadata-directive' }
    })
  }
  const replace = directive === 'REPLACE' ? objectHeaders(request.headers) : undefined
  const storageClass = storageClassOf(request.headers)
  const algorithm = wantedAlgorithm(request)

  const sourceRecord = await context.store.headObject(source.bucket, source.key)
  checkSourceConditions(request, sourceRecord)
  const isOntoItself = source.bucket === request.bucket && source.key === request.key
  if (
    isOntoItself &&
    replace === undefined &&
    (storageClass ?? sourceRecord.storageClass) === sourceRecord.storageClass
  ) {
    throw new S3Error(
      'InvalidRequest',
      "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
    )
  }
  const copy = { source, sourceRecord, replace, storageClass }
  const record =
    algorithm === undefined || sourceRecord.checksums[algorithm] !== undefined
      ? await context.store.copyObject({
          source,
          sourceEtag: sourceRecord.etag,
          bucket: request.bucket,
          key: request.key,
          ...(replace !== undefined && { replace }),
          ...(storageClass !== undefined && { storageClass }),
          ...writeCondition(request.headers),
          signal: request.signal
        })
      : await copyByReading(request, context, copy, algorithm)
  return {
    status: 200,
    headers: { 'x-holdfast-cid': record.root.toString() },
    body: s3Document('CopyObjectResult', [
      element('LastModified', isoDate(record.modifiedAt)),
      element('ETag', `"${record.etag}"`),
      ...checksumElements(record.checksums, record.checksumType ?? 'FULL_OBJECT')
    ])
  }
}

function wantedAlgorithm(request: S3Request): ChecksumAlgorithm | undefined {
  const label = request.headers.get('x-amz-checksum-algorithm')
  if (label === undefined) return undefined
  const algorithm = parseAlgorithm(label)
  if (algorithm === undefined) throw new S3Error('InvalidRequest', 'Checksum algorithm provided is unsupported.')
  return algorithm
}

interface Copy {
  source: CopySource
  sourceRecord: ObjectRecord
  replace: ReturnType<typeof objectHeaders> | undefined
  storageClass: string | undefined
}

/** A checksum that the source does not have is had by reading it: the copy is then an upload of its own. */
async function copyByReading(
  request: S3Request,
  context: GatewayContext,
  copy: Copy,
  algorithm: ChecksumAlgorithm
): Promise<ObjectRecord> {
  return await withSource(context, copy.source, async (open) => {
    const { record } = open
    if (record.etag !== copy.sourceRecord.etag) throw new S3Error('PreconditionFailed')
    return await context.store.putObject({
      bucket: request.bucket,
      key: request.key,
      body: await storedBytes(open.read(0, record.size, request.signal), record.size, algorithm),
      headers: copy.replace?.headers ?? record.headers,
      userMetadata: copy.replace?.userMetadata ?? record.userMetadata,
      storageClass: copy.storageClass ?? 'STANDARD',
      ...writeCondition(request.headers),
      signal: request.signal
    })
  })
}
