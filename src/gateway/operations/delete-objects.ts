/** DeleteObject and DeleteObjects. */
import { forEachLimit } from '../../base/concurrency.ts'
import { isCode } from '../../base/errors.ts'
import { MiB, secondMs } from '../../base/limits.ts'
import type { WriteCondition } from '../../metadata/index-store.ts'
import type { ObjectRecord } from '../../metadata/records.ts'
import { requireBucket } from '../access.ts'
import { bareEtag, writeCondition } from '../conditions.ts'
import { S3Error, toS3Error } from '../errors.ts'
import { childText, element, optional, parseXml, s3Document, type Xml, type XmlNode } from '../xml.ts'
import { checkVersion } from './get-object.ts'
import type { GatewayContext, Operation } from './operation.ts'
import { checkKey } from './put-object.ts'

/** 1,000 keys of 1,024 bytes fit, most of them written with references such as `&amp;`. */
const documentBytesMax = 2 * MiB
const keysMax = 1000
const deletesAtOnce = 8

export const deleteObject: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  checkVersion(request.query)
  const { headers, key } = request
  await remove(request.bucket, context, {
    key,
    ...writeCondition(headers),
    ...versionFacts(headers.get('x-amz-if-match-size'), headers.get('x-amz-if-match-last-modified-time'))
  })
  return { status: 204 }
}

interface Deletion {
  key: string
  versionId?: string
  condition?: WriteCondition
  /** What else must be true of the object, if there is one. */
  sizeBytes?: number
  /** To the second. */
  modifiedAt?: number
}

/** @throws S3Error `InvalidArgument` */
function versionFacts(
  size: string | undefined,
  modified: string | undefined
): Pick<Deletion, 'sizeBytes' | 'modifiedAt'> {
  const sizeBytes = size === undefined ? undefined : Number(size.trim() === '' ? Number.NaN : size)
  const modifiedAt = modified === undefined ? undefined : Date.parse(modified)
  if (Number.isNaN(sizeBytes) || Number.isNaN(modifiedAt))
    throw new S3Error('InvalidArgument', 'A condition of the deletion is not valid.')
  return { ...(sizeBytes !== undefined && { sizeBytes }), ...(modifiedAt !== undefined && { modifiedAt }) }
}

async function remove(bucket: string, { store }: GatewayContext, deletion: Deletion): Promise<void> {
  const { key, versionId, sizeBytes, modifiedAt } = deletion
  checkKey(key)
  if (versionId !== undefined && versionId !== 'null') throw new S3Error('NoSuchVersion')
  let condition = deletion.condition
  if (sizeBytes !== undefined || modifiedAt !== undefined) {
    const record = await existing(store.headObject(bucket, key))
    if (record === undefined) return
    const isSame =
      (sizeBytes ?? record.size) === record.size &&
      (modifiedAt === undefined || Math.floor(modifiedAt / secondMs) === Math.floor(record.modifiedAt / secondMs))
    if (!isSame) throw new S3Error('PreconditionFailed')
    // What was looked at is what goes, or nothing does.
    condition = { ifMatch: record.etag, ...condition }
  }
  await store.deleteObject(bucket, key, condition)
}

async function existing(lookup: Promise<ObjectRecord>): Promise<ObjectRecord | undefined> {
  try {
    return await lookup
  } catch (error) {
    if (isCode(error, 'NO_SUCH_KEY')) return undefined
    throw error
  }
}

export const deleteObjects: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const { deletions, isQuiet } = parseDelete(await request.body.text(documentBytesMax))
  const results = new Array<Xml[]>(deletions.length)
  await forEachLimit(deletions.entries(), deletesAtOnce, async ([index, deletion]) => {
    const { key, versionId } = deletion
    const names = [element('Key', key), ...optional('VersionId', versionId)]
    try {
      await remove(request.bucket, context, deletion)
      results[index] = isQuiet ? [] : [element('Deleted', names)]
    } catch (cause) {
      // One key's failure is that key's answer.
      const error = toS3Error(cause)
      if (error.status >= 500)
        context.log.warn('a key of a multi-object delete failed', { bucket: request.bucket, error: cause })
      results[index] = [element('Error', [...names, element('Code', error.code), element('Message', error.message)])]
    }
  })
  return { status: 200, body: s3Document('DeleteResult', results.flat()) }
}

function parseDelete(document: string): { deletions: Deletion[]; isQuiet: boolean } {
  const root = parseXml(document, 'Delete')
  const objects = root.children.filter((child) => child.name === 'Object')
  if (objects.length === 0 || objects.length > keysMax) throw new S3Error('MalformedXML')
  return { deletions: objects.map(parseDeletion), isQuiet: childText(root, 'Quiet')?.trim().toLowerCase() === 'true' }
}

function parseDeletion(node: XmlNode): Deletion {
  const key = childText(node, 'Key')
  if (key === undefined || key === '') throw new S3Error('MalformedXML')
  const versionId = childText(node, 'VersionId')
  const etag = childText(node, 'ETag')
  return {
    key,
    ...(versionId ? { versionId } : {}),
    ...(etag ? { condition: { ifMatch: bareEtag(etag) } } : {}),
    ...versionFacts(childText(node, 'Size'), childText(node, 'LastModifiedTime'))
  }
}
