import { check, HoldfastError } from '../../base/errors.ts'
import type { UploadIndex } from '../index-store.ts'
import { bucketIds } from './buckets.ts'
import type { Contents, Segments } from './contents.ts'
import type { Database } from './database.ts'
import type { ObjectNames } from './objects.ts'
import {
  integer,
  keyBytes,
  keyRange,
  keyText,
  pageOf,
  partOf,
  partValues,
  text,
  uploadOf,
  uploadValues
} from './rows.ts'

const columns = `upload_id, bucket_id, key, owner, initiated_at, wrapped_key, headers, user_metadata, storage_class,
  checksum_algorithm, checksum_type`

export function sqliteUploads(
  database: Database,
  segments: Segments,
  contents: Contents,
  names: ObjectNames
): UploadIndex {
  const buckets = bucketIds(database)
  const insert = database.prepare(`INSERT INTO uploads (${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
  const select = database.prepare(`SELECT ${columns} FROM uploads WHERE upload_id = ?1 AND bucket_id = ?2 AND key = ?3`)
  const find = database.prepare(
    'SELECT u.id, u.key, b.name FROM uploads u JOIN buckets b ON b.id = u.bucket_id WHERE u.upload_id = ?'
  )
  const list = database.prepare(
    `SELECT ${columns} FROM uploads
     WHERE bucket_id = ?1 AND key >= ?2 AND key < ?3 AND (key > ?4 OR key = ?4 AND upload_id > ?5)
     ORDER BY key, upload_id LIMIT ?6`
  )
  const insertPart = database.prepare(
    'INSERT INTO parts (upload, number, size, etag, modified_at, checksums) VALUES (?, ?, ?, ?, ?, ?)'
  )
  const insertPartSegment = database.prepare(
    'INSERT INTO part_segments (part_id, ordinal, segment_id) VALUES (?, ?, ?)'
  )
  const selectPart = database.prepare('SELECT id, etag, size FROM parts WHERE upload = ? AND number = ?')
  const selectParts = database.prepare(
    'SELECT number, size, etag, modified_at, checksums FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?'
  )
  const allParts = database.prepare('SELECT id FROM parts WHERE upload = ? ORDER BY number')
  const partSegments = database.prepare(
    `SELECT s.id, s.length, s.k, s.m, s.nonce FROM part_segments p JOIN segments s ON s.id = p.segment_id
     WHERE p.part_id = ? ORDER BY p.ordinal`
  )
  const deletePartSegments = database.prepare('DELETE FROM part_segments WHERE part_id = ?')
  const deletePart = database.prepare('DELETE FROM parts WHERE id = ?')
  const deleteUpload = database.prepare('DELETE FROM uploads WHERE id = ?')

  /** Drops the part's row. @returns the ids of the segments that it named */
  const takePart = (partId: number): number[] => {
    const ids = partSegments.all(partId).map((row) => integer(row, 'id'))
    deletePartSegments.run(partId)
    deletePart.run(partId)
    return ids
  }

  /** @throws HoldfastError `NO_SUCH_UPLOAD` */
  const getUpload = (uploadId: string): { id: number; bucket: string; key: string } => {
    const row = find.get(uploadId)
    if (row === undefined) throw new HoldfastError('NO_SUCH_UPLOAD', `there is no upload ${uploadId}`)
    return { id: integer(row, 'id'), bucket: text(row, 'name'), key: keyText(row) }
  }

  /** @throws HoldfastError `INVALID_PART` */
  const getPart = (upload: number, partNumber: number): { id: number; etag: string } => {
    const row = selectPart.get(upload, partNumber)
    if (row === undefined) throw new HoldfastError('INVALID_PART', `part ${partNumber} was not uploaded`)
    return { id: integer(row, 'id'), etag: text(row, 'etag') }
  }

  /** Takes the upload and all its parts away. @returns the segments of those parts but the kept ones */
  const takeUpload = (upload: number, kept: ReadonlySet<number> = new Set()): number[] => {
    const orphans: number[] = []
    for (const row of allParts.all(upload)) {
      const id = integer(row, 'id')
      const ids = takePart(id)
      if (!kept.has(id)) orphans.push(...ids)
    }
    deleteUpload.run(upload)
    return orphans
  }

  return {
    createUpload: (upload) =>
      database.write(() => {
        insert.run(...uploadValues(buckets.get(upload.bucket), upload))
      }),

    getUpload: (bucket, key, uploadId) =>
      database.read(() => {
        const bucketId = buckets.find(bucket)
        const row = bucketId === undefined ? undefined : select.get(uploadId, bucketId, keyBytes(key))
        return row === undefined ? undefined : uploadOf(row, bucket)
      }),

    listUploads: (bucket, { prefix, afterKey, afterUploadId, limit }) =>
      database.read(() => {
        const bucketId = buckets.find(bucket)
        if (bucketId === undefined) return { items: [], isTruncated: false }
        const { from, to } = keyRange(prefix, afterKey, true)
        const rows = list.all(bucketId, from, to, keyBytes(afterKey), afterUploadId, limit + 1)
        return pageOf(rows, limit, (row) => uploadOf(row, bucket))
      }),

    commitPart: (uploadId, part, newSegments) =>
      database.write(() => {
        const { id: upload } = getUpload(uploadId)
        const bytes = newSegments.reduce((sum, { length }) => sum + length, 0)
        check(bytes === part.size, `the segments hold ${bytes} bytes, the part ${part.size}`)
        const replaced = selectPart.get(upload, part.partNumber)
        const orphans = replaced === undefined ? [] : takePart(integer(replaced, 'id'))
        const partId = Number(insertPart.run(...partValues(upload, part)).lastInsertRowid)
        const ids = newSegments.map((segment, ordinal) => {
          const id = segments.add(segment)
          insertPartSegment.run(partId, ordinal, id)
          return id
        })
        contents.discard(orphans)
        return ids
      }),

    listParts: (uploadId, { after, limit }) =>
      database.read(() => {
        const row = find.get(uploadId)
        if (row === undefined) return { items: [], isTruncated: false }
        return pageOf(selectParts.all(integer(row, 'id'), after, limit + 1), limit, partOf)
      }),

    getPartSegments: (uploadId, partNumbers) =>
      database.read(() => {
        const { id: upload } = getUpload(uploadId)
        return partNumbers.flatMap((number) =>
          partSegments.all(getPart(upload, number).id).map((row) => segments.load(row))
        )
      }),

    completeUpload: (uploadId, parts, object, blocks, condition = {}) =>
      database.write(() => {
        const { id: upload, bucket, key } = getUpload(uploadId)
        check(bucket === object.bucket && key === object.key, 'the upload is for another object')
        if (parts.length === 0) throw new HoldfastError('INVALID_PART', 'an object needs at least one part')
        const partIds = parts.map(({ partNumber, etag }, index) => {
          if (index > 0 && partNumber <= parts[index - 1]!.partNumber) {
            throw new HoldfastError('INVALID_PART_ORDER', 'parts must be in ascending order')
          }
          const part = getPart(upload, partNumber)
          if (part.etag !== etag) throw new HoldfastError('INVALID_PART', `part ${partNumber} has another ETag`)
          return part.id
        })
        const committed = names.put(object, condition, () => {
          const named = partIds.flatMap((id) =>
            partSegments.all(id).map((row) => ({ id: integer(row, 'id'), length: integer(row, 'length') }))
          )
          return contents.assemble(object.size, named, blocks)
        })
        contents.discard(takeUpload(upload, new Set(partIds)))
        return committed
      }),

    abortUpload: (bucket, key, uploadId) =>
      database.write(() => {
        const row = find.get(uploadId)
        if (row === undefined || text(row, 'name') !== bucket || keyText(row) !== key) return false
        contents.discard(takeUpload(integer(row, 'id')))
        return true
      })
  }
}
