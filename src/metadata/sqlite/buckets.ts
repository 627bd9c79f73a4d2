import { HoldfastError } from '../../base/errors.ts'
import type { BucketIndex } from '../index-store.ts'
import type { Database } from './database.ts'
import { bucketOf, bucketValues, integer, pageOf, text } from './rows.ts'

/** The bucket's number, by which its objects and uploads are kept. */
export function bucketIds(database: Database): {
  find: (name: string) => number | undefined
  /** @throws HoldfastError `NO_SUCH_BUCKET` */
  get: (name: string) => number
} {
  const select = database.prepare('SELECT id FROM buckets WHERE name = ?')
  const find = (name: string): number | undefined => {
    const row = select.get(name)
    return row === undefined ? undefined : integer(row, 'id')
  }
  return {
    find,
    get: (name) => {
      const id = find(name)
      if (id === undefined) throw new HoldfastError('NO_SUCH_BUCKET', `there is no bucket ${name}`)
      return id
    }
  }
}

export function sqliteBuckets(database: Database): BucketIndex {
  const ids = bucketIds(database)
  const select = database.prepare('SELECT name, owner, created_at, is_public, wrapped_key FROM buckets WHERE name = ?')
  const insert = database.prepare(
    'INSERT INTO buckets (name, owner, created_at, is_public, wrapped_key) VALUES (?, ?, ?, ?, ?)'
  )
  const isUsed = database.prepare(
    `SELECT EXISTS (SELECT 1 FROM objects WHERE bucket_id = ?1) AS objects,
       EXISTS (SELECT 1 FROM uploads WHERE bucket_id = ?1) AS uploads`
  )
  const remove = database.prepare('DELETE FROM buckets WHERE id = ?')
  const list = database.prepare(
    `SELECT name, owner, created_at, is_public, wrapped_key FROM buckets
     WHERE owner = ?1 AND name >= ?2 AND name > ?3 ORDER BY name LIMIT ?4`
  )

  return {
    createBucket: (bucket) =>
      database.write(() => {
        const existing = select.get(bucket.name)
        if (existing === undefined) {
          insert.run(...bucketValues(bucket))
          return
        }
        if (text(existing, 'owner') === bucket.owner) {
          throw new HoldfastError('BUCKET_OWNED_BY_YOU', `you have a bucket ${bucket.name} already`)
        }
        throw new HoldfastError('BUCKET_EXISTS', `the name ${bucket.name} is taken`)
      }),

    getBucket: (name) =>
      database.read(() => {
        const row = select.get(name)
        return row === undefined ? undefined : bucketOf(row)
      }),

    deleteBucket: (name) =>
      database.write(() => {
        const id = ids.get(name)
        const used = isUsed.get(id)
        if (used?.objects !== 0) throw new HoldfastError('BUCKET_NOT_EMPTY', `bucket ${name} still has objects`)
        if (used.uploads !== 0) throw new HoldfastError('BUCKET_NOT_EMPTY', `bucket ${name} has unfinished uploads`)
        remove.run(id)
      }),

    listBuckets: (owner, { prefix, after, limit }) =>
      database.read(() => {
        const rows = list.all(owner, prefix, after, limit + 1)
        // In order, names with the prefix come first; the first without it ends them.
        const end = rows.findIndex((row) => !text(row, 'name').startsWith(prefix))
        return pageOf(end === -1 ? rows : rows.slice(0, end), limit, bucketOf)
      })
  }
}
