/** DeleteObject and DeleteObjects. */
import { forEachLimit } from '../../base/concurrency.ts'
import { MiB } from '../../base/limits.ts'
import type { WriteCondition } from '../../metadata/index-store.ts'
import { requireBucket } from '../access.ts'
import { bareEtag, writeCondition } from '../conditions.ts'
import { S3Error, toS3Error } from '../errors.ts'
import { childText, element, optional, parseXml, s3Document, type Xml, type XmlNode } from '../xml.ts'
import { checkVersion } from './get-object.ts'
import type { Operation } from './operation.ts'
import { checkKey } from './put-object.ts'

/** 1,000 keys of 1,024 bytes fit, most of them written with references such as `&amp;`. */
const documentBytesMax = 2 * MiB
const keysMax = 1000
const deletesAtOnce = 8

export const deleteObject: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  checkKey(request.key)
  checkVersion(request.query)
  await context.store.deleteObject(request.bucket, request.key, writeCondition(request.headers).condition)
  return { status: 204 }
}

interface Deletion {
  key: string
  versionId?: string
  condition?: WriteCondition
}

export const deleteObjects: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const { deletions, isQuiet } = parseDelete(await request.body.text(documentBytesMax))
  const results = new Array<Xml[]>(deletions.length)
  await forEachLimit(deletions.entries(), deletesAtOnce, async ([index, deletion]) => {
    const { key, versionId, condition } = deletion
    const names = [element('Key', key), ...optional('VersionId', versionId)]
    try {
      checkKey(key)
      if (versionId !== undefined && versionId !== 'null') throw new S3Error('NoSuchVersion')
      await context.store.deleteObject(request.bucket, key, condition)
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
    ...(etag ? { condition: { ifMatch: bareEtag(etag) } } : {})
  }
}
