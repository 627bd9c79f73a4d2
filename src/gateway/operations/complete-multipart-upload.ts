import { createHash } from 'node:crypto'
import { isCode } from '../../base/errors.ts'
import { limits, MiB } from '../../base/limits.ts'
import type { Checksums, ObjectRecord, PartRecord, UploadRecord } from '../../metadata/records.ts'
import { requireBucket } from '../access.ts'
import {
  algorithmOfHeader,
  type ChecksumAlgorithm,
  type ChecksumType,
  checkChecksum,
  checksumAlgorithms,
  checksumLabel,
  combineCrcs,
  compositeChecksum,
  parseAlgorithm
} from '../checksum.ts'
import { bareEtag, writeCondition } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { uriEncode } from '../signature.ts'
import { childText, element, parseXml, s3Document, type XmlNode } from '../xml.ts'
import { checksumElements } from './elements.ts'
import { uploadIdOf } from './multipart-upload.ts'
import type { GatewayContext, Operation, S3Request } from './operation.ts'

/** 10,000 parts, each with its ETag and the longest checksum, take 2.2 MB. */
const documentBytesMax = 4 * MiB
const partsPageMax = 1000

interface NamedPart {
  partNumber: number
  etag: string
  checksums: Checksums
}

export const completeMultipartUpload: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const named = parseCompletion(await request.body.text(documentBytesMax, 'object'))
  let record: ObjectRecord
  try {
    record = await complete(request, context, named)
  } catch (error) {
    if (!isCode(error, 'NO_SUCH_UPLOAD')) throw error
    record = await completedBefore(request, context, named, error)
  }
  const host = request.headers.get('host') ?? ''
  return {
    status: 200,
    headers: { 'x-holdfast-cid': record.root.toString() },
    body: s3Document('CompleteMultipartUploadResult', [
      element('Location', `${request.scheme}://${host}/${request.bucket}/${uriEncode(request.key, true)}`),
      element('Bucket', request.bucket),
      element('Key', request.key),
      element('ETag', `"${record.etag}"`),
      ...checksumElements(record.checksums, record.checksumType)
    ])
  }
}

function parseCompletion(document: string): NamedPart[] {
  const parts = parseXml(document, 'CompleteMultipartUpload').children.filter((child) => child.name === 'Part')
  if (parts.length === 0 || parts.length > limits.partsMax) throw new S3Error('MalformedXML')
  const named = parts.map(parsePart)
  for (const [index, part] of named.entries()) {
    const previous = named[index - 1]
    if (previous !== undefined && previous.partNumber >= part.partNumber) throw new S3Error('InvalidPartOrder')
  }
  return named
}

function parsePart(node: XmlNode): NamedPart {
  const number = childText(node, 'PartNumber')?.trim() ?? ''
  const etag = childText(node, 'ETag')
  if (!/^\d{1,9}$/.test(number) || etag === undefined) throw new S3Error('MalformedXML')
  const checksums: Checksums = {}
  for (const algorithm of checksumAlgorithms) {
    const value = childText(node, `Checksum${checksumLabel(algorithm)}`)
    if (value !== undefined && value !== '') checksums[algorithm] = value
  }
  return { partNumber: Number(number), etag: bareEtag(etag), checksums }
}

async function complete(
  request: S3Request,
  context: GatewayContext,
  named: readonly NamedPart[]
): Promise<ObjectRecord> {
  const { bucket, key, headers } = request
  const uploadId = uploadIdOf(request)
  const upload = await context.store.getUpload(bucket, key, uploadId)
  const parts = await storedParts(request, context, named)
  checkDeclaredSize(headers.get('x-amz-mp-object-size'), parts)
  const whole = await wholeChecksum(upload, parts)
  checkDeclaredChecksum(request, upload, whole)
  return await context.store.completeUpload({
    bucket,
    key,
    uploadId,
    parts: named.map(({ partNumber, etag }) => ({ partNumber, etag })),
    ...(whole !== undefined && { checksums: { [whole.algorithm]: whole.value }, checksumType: whole.type }),
    ...(parts.some((part) => Object.keys(part.checksums).length > 0) && {
      partChecksums: parts.map((part) => part.checksums)
    }),
    ...writeCondition(headers),
    signal: request.signal
  })
}

/** The parts as they are stored, each checked against what the client says of it. */
async function storedParts(
  request: S3Request,
  context: GatewayContext,
  named: readonly NamedPart[]
): Promise<PartRecord[]> {
  const stored = new Map<number, PartRecord>()
  for (let after = 0, isTruncated = true; isTruncated; ) {
    const page = await context.store.listParts(request.bucket, request.key, uploadIdOf(request), {
      after,
      limit: partsPageMax
    })
    for (const part of page.items) stored.set(part.partNumber, part)
    after = page.items.at(-1)?.partNumber ?? after
    isTruncated = page.isTruncated && page.items.length > 0
  }
  return named.map(({ partNumber, etag, checksums }) => {
    const part = stored.get(partNumber)
    const isSame =
      part?.etag === etag &&
      checksumAlgorithms.every(
        (algorithm) => (checksums[algorithm] ?? part.checksums[algorithm]) === part.checksums[algorithm]
      )
    if (part === undefined || !isSame)
      throw new S3Error('InvalidPart', undefined, { details: { PartNumber: partNumber, ETag: etag.slice(0, 128) } })
    return part
  })
}

function checkDeclaredSize(declared: string | undefined, parts: readonly PartRecord[]): void {
  if (declared === undefined) return
  const sizeBytes = parts.reduce((sum, part) => sum + part.size, 0)
  if (declared === String(sizeBytes)) return
  throw new S3Error(
    'InvalidRequest',
    "The provided 'x-amz-mp-object-size' header value does not match what was computed."
  )
}

interface WholeChecksum {
  algorithm: ChecksumAlgorithm
  type: ChecksumType
  value: string
}

async function wholeChecksum(upload: UploadRecord, parts: readonly PartRecord[]): Promise<WholeChecksum | undefined> {
  const algorithm = upload.checksumAlgorithm === undefined ? undefined : parseAlgorithm(upload.checksumAlgorithm)
  const type = upload.checksumType
  if (algorithm === undefined || type === undefined) return undefined
  const values = parts.map((part) => {
    const value = part.checksums[algorithm]
    if (value === undefined) throw new S3Error('InvalidPart', undefined, { details: { PartNumber: part.partNumber } })
    return { value, sizeBytes: part.size }
  })
  const value = type === 'FULL_OBJECT' ? combineCrcs(algorithm, values) : await compositeChecksum(algorithm, values)
  return { algorithm, type, value }
}

function checkDeclaredChecksum(request: S3Request, upload: UploadRecord, whole: WholeChecksum | undefined): void {
  const type = request.headers.get('x-amz-checksum-type')?.toUpperCase()
  if (type !== undefined && type !== upload.checksumType) {
    throw new S3Error(
      'InvalidRequest',
      `The upload was created using the ${upload.checksumType ?? 'null'} checksum mode. The complete request must use the same checksum mode.`
    )
  }
  for (const [name, declared] of request.headers) {
    const algorithm = algorithmOfHeader(name)
    if (algorithm === undefined) continue
    if (whole?.algorithm !== algorithm) {
      throw new S3Error(
        'InvalidRequest',
        `Checksum Type mismatch occurred, expected checksum Type: ${whole?.algorithm ?? 'null'}, actual checksum Type: ${algorithm}`
      )
    }
    // Some clients leave the number of parts off.
    const isBare = whole.type === 'COMPOSITE' && !declared.includes('-')
    checkChecksum(algorithm, declared, isBare ? whole.value.replace(/-\d+$/, '') : whole.value)
  }
}

/**
 * A client that missed the answer to its completion asks again. The upload is gone by then; what tells that it ended
 * well is an object of that key with the very ETag those parts give.
 *
 * @throws `unknownUpload` where that is not so
 */
async function completedBefore(
  request: S3Request,
  context: GatewayContext,
  named: readonly NamedPart[],
  unknownUpload: Error
): Promise<ObjectRecord> {
  let record: ObjectRecord
  try {
    record = await context.store.headObject(request.bucket, request.key)
  } catch {
    throw unknownUpload // the upload is what was asked for
  }
  const hash = createHash('md5')
  for (const part of named) hash.update(Buffer.from(part.etag, 'hex'))
  if (record.etag !== `${hash.digest('hex')}-${named.length}`) throw unknownUpload
  return record
}
