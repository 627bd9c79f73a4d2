import { HoldfastError } from '../../base/errors.ts'
import type { Committed, ObjectIndex, WriteCondition } from '../index-store.ts'
import type { ObjectRecord } from '../records.ts'
import { bucketIds } from './buckets.ts'
import type { Contents } from './contents.ts'
import type { Database } from './database.ts'
import { integer, keyBytes, keyRange, objectOf, objectValues, pageOf, text } from './rows.ts'

const columns = `key, content_id, size, etag, modified_at, root, wrapped_key, headers, user_metadata, checksums,
  checksum_type, storage_class, part_sizes, part_checksums`

const matches = (tag: string, etag: string): boolean => tag === '*' || tag === etag

/** @throws HoldfastError `PRECONDITION_FAILED`; `NO_SUCH_KEY` for `ifMatch` on an absent key */
function checkCondition(key: string, etag: string | undefined, { ifMatch, ifNoneMatch }: WriteCondition): void {
  if (ifMatch !== undefined) {
    if (etag === undefined) throw new HoldfastError('NO_SUCH_KEY', `there is no object ${key} to match`)
    if (!matches(ifMatch, etag)) throw new HoldfastError('PRECONDITION_FAILED', `object ${key} is another version`)
  }
  if (ifNoneMatch !== undefined && etag !== undefined && matches(ifNoneMatch, etag)) {
    throw new HoldfastError('PRECONDITION_FAILED', `object ${key} exists`)
  }
}

/** Names for contents: what a commit of any kind ends with. To be called within a write. */
export class ObjectNames {
  readonly #contents: Contents
  readonly #buckets
  readonly #select
  readonly #put
  readonly #delete

  constructor(database: Database, contents: Contents) {
    this.#contents = contents
    this.#buckets = bucketIds(database)
    this.#select = database.prepare('SELECT content_id, etag FROM objects WHERE bucket_id = ? AND key = ?')
    this.#put = database.prepare(
      `INSERT INTO objects (bucket_id, ${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (bucket_id, key) DO UPDATE SET content_id = excluded.content_id, size = excluded.size,
         etag = excluded.etag, modified_at = excluded.modified_at, root = excluded.root,
         wrapped_key = excluded.wrapped_key, headers = excluded.headers, user_metadata = excluded.user_metadata,
         checksums = excluded.checksums, checksum_type = excluded.checksum_type,
         storage_class = excluded.storage_class, part_sizes = excluded.part_sizes,
         part_checksums = excluded.part_checksums`
    )
    this.#delete = database.prepare('DELETE FROM objects WHERE bucket_id = ? AND key = ?')
  }

  /**
   * Gives the object the content that `make` commits, and drops what had the name before.
   *
   * @throws HoldfastError `NO_SUCH_BUCKET`, `PRECONDITION_FAILED`, `NO_SUCH_KEY`
   */
  put(object: ObjectRecord, condition: WriteCondition, make: () => Committed): Committed {
    const bucketId = this.#buckets.get(object.bucket)
    const replaced = this.#select.get(bucketId, keyBytes(object.key))
    checkCondition(object.key, replaced && text(replaced, 'etag'), condition)
    const committed = make()
    this.#put.run(...objectValues(bucketId, committed.contentId, object))
    if (replaced !== undefined) this.#contents.retire(integer(replaced, 'content_id'))
    return committed
  }

  /** @returns whether there was one. @throws HoldfastError `PRECONDITION_FAILED` */
  delete(bucket: string, key: string, condition: WriteCondition): boolean {
    const bucketId = this.#buckets.find(bucket)
    const row = bucketId === undefined ? undefined : this.#select.get(bucketId, keyBytes(key))
    if (bucketId === undefined || row === undefined) return false
    checkCondition(key, text(row, 'etag'), condition)
    this.#delete.run(bucketId, keyBytes(key))
    this.#contents.retire(integer(row, 'content_id'))
    return true
  }
}

export function sqliteObjects(database: Database, contents: Contents, names: ObjectNames): ObjectIndex {
  const buckets = bucketIds(database)
  const select = database.prepare(`SELECT ${columns} FROM objects WHERE bucket_id = ? AND key = ?`)
  const list = database.prepare(
    `SELECT ${columns} FROM objects WHERE bucket_id = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?`
  )

  return {
    commitObject: (object, content, condition = {}) =>
      database.write(() => names.put(object, condition, () => contents.add(object.size, content))),

    commitCopy: (object, sourceContentId, blocks, condition = {}) =>
      database.write(() => names.put(object, condition, () => contents.share(sourceContentId, blocks))),

    getObject: (bucket, key) =>
      database.read(() => {
        const bucketId = buckets.find(bucket)
        const row = bucketId === undefined ? undefined : select.get(bucketId, keyBytes(key))
        return row === undefined ? undefined : objectOf(row, bucket)
      }),

    deleteObject: (bucket, key, condition = {}) => database.write(() => names.delete(bucket, key, condition)),

    listObjects: (bucket, { prefix, after, inclusive, limit }) =>
      database.read(() => {
        const bucketId = buckets.find(bucket)
        if (bucketId === undefined) return { items: [], isTruncated: false }
        const { from, to } = keyRange(prefix, after, inclusive)
        return pageOf(list.all(bucketId, from, to, limit + 1), limit, (row) => objectOf(row, bucket))
      }),

    getSegments: (contentId, start, end) => database.read(() => contents.data(contentId, start, end)),
    getBlocks: (contentId) => database.read(() => contents.blocks(contentId)),
    pinContent: (contentId) => database.readNow(() => contents.pin(contentId))
  }
}
