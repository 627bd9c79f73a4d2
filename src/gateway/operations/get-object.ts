import type { ObjectRecord } from '../../metadata/records.ts'
import { requireBucket } from '../access.ts'
import { checksumHeaders } from '../checksum.ts'
import { type ByteRange, evaluate, honoursRange, parseRange, readConditions } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { describe, responseOverrides } from '../object-headers.ts'
import type { Query } from '../request.ts'
import type { Operation, Reply, S3Request } from './operation.ts'

export const getObject: Operation = async (request, context) => {
  await requireBucket(request, context, 'read')
  checkVersion(request.query)
  const overrides = responseOverrides(request.query, request.account !== undefined)
  const open = await context.store.openObject(request.bucket, request.key)
  try {
    const { range, ...head } = answerHead(request, open.record)
    const headers = { ...head.headers, ...overrides }
    const sizeBytes = range.end - range.start
    if (head.status === 304 || sizeBytes === 0) {
      open.close()
      return { ...head, headers }
    }
    return {
      ...head,
      headers,
      body: { sizeBytes, chunks: open.read(range.start, range.end, request.signal), close: () => open.close() }
    }
  } catch (error) {
    open.close()
    throw error
  }
}

export const headObject: Operation = async (request, context) => {
  await requireBucket(request, context, 'read')
  checkVersion(request.query)
  const overrides = responseOverrides(request.query, request.account !== undefined)
  const record = await context.store.headObject(request.bucket, request.key)
  const { status, headers } = answerHead(request, record)
  return { status, headers: { ...headers, ...overrides } }
}

/** Without versioning the one version of a key is `null`. @throws S3Error `NoSuchVersion` */
export function checkVersion(query: Query): void {
  const version = query.get('versionId')
  if (version === undefined || version === '' || version === 'null') return
  throw new S3Error('NoSuchVersion', undefined, { details: { VersionId: version.slice(0, 128) } })
}

interface AnswerHead extends Reply {
  headers: Record<string, string>
  /** Which bytes of the object belong to the answer. */
  range: ByteRange
}

/** Status, headers and extent of the answer: the same for GET and HEAD. */
function answerHead(request: S3Request, record: ObjectRecord): AnswerHead {
  const { headers, query } = request
  const whole = { start: 0, end: record.size }
  if (evaluate(readConditions(headers), record) === 'not-modified') {
    const { etag, 'last-modified': modified, 'x-holdfast-cid': cid, 'cache-control': cache, expires } = describe(record)
    const kept = { etag, 'last-modified': modified, 'x-holdfast-cid': cid, 'cache-control': cache, expires }
    return {
      status: 304,
      headers: Object.fromEntries(
        Object.entries(kept).filter((entry): entry is [string, string] => entry[1] !== undefined)
      ),
      range: { start: 0, end: 0 }
    }
  }
  const partNumber = query.get('partNumber')
  if (partNumber !== undefined) return answerPart(request, record, partNumber)
  const range = honoursRange(headers.get('if-range'), record)
    ? parseRange(headers.get('range'), record.size)
    : undefined
  if (range !== undefined) return partial(record, range)
  const wantsChecksums = headers.get('x-amz-checksum-mode')?.toUpperCase() === 'ENABLED'
  return {
    status: 200,
    headers: {
      ...describe(record),
      'content-length': String(record.size),
      ...(wantsChecksums && checksumHeaders(record.checksums, record.checksumType))
    },
    range: whole
  }
}

function partial(record: ObjectRecord, range: ByteRange): AnswerHead {
  return {
    status: 206,
    headers: {
      ...describe(record),
      'content-length': String(range.end - range.start),
      'content-range': `bytes ${range.start}-${range.end - 1}/${record.size}`
    },
    range
  }
}

function answerPart(request: S3Request, record: ObjectRecord, partNumber: string): AnswerHead {
  if (request.headers.has('range')) {
    throw new S3Error('InvalidRequest', 'Cannot specify both Range header and partNumber query parameter')
  }
  if (!/^[1-9]\d{0,4}$/.test(partNumber) || Number(partNumber) > 10_000) {
    throw new S3Error('InvalidArgument', 'Part number must be an integer between 1 and 10000, inclusive', {
      details: { ArgumentName: 'partNumber', ArgumentValue: partNumber.slice(0, 64) }
    })
  }
  const index = Number(partNumber) - 1
  const sizes = record.partSizes ?? [record.size]
  const sizeBytes = sizes[index]
  if (sizeBytes === undefined) throw new S3Error('InvalidPart')
  const start = sizes.slice(0, index).reduce((sum, size) => sum + size, 0)
  const checksums = record.partSizes === undefined ? record.checksums : (record.partChecksums?.[index] ?? {})
  // An object of length zero has one part with no byte to point at.
  const range = { start, end: start + sizeBytes }
  const answer =
    sizeBytes === 0
      ? { status: 200, headers: { ...describe(record), 'content-length': '0' }, range }
      : partial(record, range)
  return {
    ...answer,
    headers: {
      ...answer.headers,
      ...checksumHeaders(checksums, record.checksumType),
      ...(record.partSizes !== undefined && { 'x-amz-mp-parts-count': String(record.partSizes.length) })
    }
  }
}
