import type { ObjectRecord } from '../../metadata/records.ts'
import { requireBucket } from '../access.ts'
import { evaluate, readConditions } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { httpDate } from '../object-headers.ts'
import { numberMarker } from '../paging.ts'
import { element, optional, s3Document, type Xml } from '../xml.ts'
import { checksumElements } from './elements.ts'
import { checkVersion } from './get-object.ts'
import type { Operation, S3Request } from './operation.ts'

const attributeNames = ['ETag', 'Checksum', 'ObjectParts', 'StorageClass', 'ObjectSize'] as const
type AttributeName = (typeof attributeNames)[number]
const partsPageMax = 1000

export const getObjectAttributes: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  checkVersion(request.query)
  const wanted = wantedAttributes(request)
  const record = await context.store.headObject(request.bucket, request.key)
  if (evaluate(readConditions(request.headers), record) === 'not-modified') return { status: 304 }
  const builders: Record<AttributeName, () => Xml[]> = {
    ETag: () => [element('ETag', record.etag)],
    Checksum: () => {
      const values = checksumElements(record.checksums, record.checksumType ?? 'FULL_OBJECT')
      return values.length === 0 ? [] : [element('Checksum', values)]
    },
    ObjectParts: () => (record.partSizes === undefined ? [] : [partsElement(request, record, record.partSizes)]),
    StorageClass: () => [element('StorageClass', record.storageClass)],
    ObjectSize: () => [element('ObjectSize', record.size)]
  }
  return {
    status: 200,
    headers: { 'last-modified': httpDate(record.modifiedAt), 'x-holdfast-cid': record.root.toString() },
    body: s3Document(
      'GetObjectAttributesResponse',
      attributeNames.filter((name) => wanted.has(name)).flatMap((name) => builders[name]())
    )
  }
}

function wantedAttributes(request: S3Request): ReadonlySet<string> {
  const wanted = new Set((request.headers.get('x-amz-object-attributes') ?? '').split(',').map((name) => name.trim()))
  wanted.delete('')
  const known: ReadonlySet<string> = new Set(attributeNames)
  if (wanted.size > 0 && [...wanted].every((name) => known.has(name))) return wanted
  throw new S3Error('InvalidArgument', 'Invalid attribute name specified.', {
    details: { ArgumentName: 'x-amz-object-attributes' }
  })
}

function partsElement(request: S3Request, record: ObjectRecord, sizes: readonly number[]): Xml {
  const marker = numberMarker(request.headers.get('x-amz-part-number-marker'), 'x-amz-part-number-marker')
  const asked = numberMarker(request.headers.get('x-amz-max-parts'), 'x-amz-max-parts')
  const limit = asked === 0 ? partsPageMax : Math.min(asked, partsPageMax)
  const end = Math.min(sizes.length, marker + limit)
  const parts = sizes
    .slice(marker, end)
    .map((size, offset) =>
      element('Part', [
        element('PartNumber', marker + offset + 1),
        element('Size', size),
        ...checksumElements(record.partChecksums?.[marker + offset] ?? {})
      ])
    )
  return element('ObjectParts', [
    element('PartsCount', sizes.length),
    element('PartNumberMarker', marker),
    ...optional('NextPartNumberMarker', parts.length > 0 ? end : undefined),
    element('MaxParts', limit),
    element('IsTruncated', end < sizes.length),
    ...parts
  ])
}
