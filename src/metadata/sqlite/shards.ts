import { check } from '../../base/errors.ts'
import type { LeaseRow, ShardIndex, ShardPlacement } from '../index-store.ts'
import type { ShardState } from '../records.ts'
import type { Providers, Segments } from './contents.ts'
import { type Database, damaged } from './database.ts'
import { bytes, cidOf, integer, type Row, stateCodes, stateOf, text } from './rows.ts'

/** Most hopeful first. */
const hope: readonly ShardState[] = ['healthy', 'contained', 'offline', 'unknown', 'missing', 'wrong', 'withdrawn']
/** Rows looked at for one CID: blocks that very many objects have in common need no more. */
const holderRowsMax = 4096

export function sqliteShards(database: Database, providers: Providers, segments: Segments): ShardIndex {
  const incomplete = database.prepare(
    'SELECT id, length, k, m, nonce FROM segments WHERE lost > 0 AND id > ? ORDER BY id LIMIT ?'
  )
  const selectCid = database.prepare('SELECT cid FROM shards WHERE segment_id = ? AND idx = ?')
  const place = database.prepare(
    `UPDATE shards SET provider_id = ?1, state = ${stateCodes.healthy}, lease_until = ?2, last_proof = ?3
     WHERE segment_id = ?4 AND idx = ?5`
  )
  const observe = `UPDATE shards SET state = ?2,
    last_proof = CASE WHEN ?3 IS NULL THEN last_proof ELSE max(coalesce(last_proof, 0), ?3) END`
  const markOne = database.prepare(`${observe} WHERE provider_id = ?1 AND segment_id = ?4 AND idx = ?5`)
  const markAll = database.prepare(
    `${observe} WHERE substr(cid, -6) = substr(?4, -6) AND cid = ?4 AND provider_id = ?1`
  )
  const holders = database.prepare(
    'SELECT peer_id, held_shards, held_bytes FROM providers WHERE held_shards > 0 ORDER BY peer_id'
  )
  const due = database.prepare(
    `SELECT cid, lease_until FROM shards
     WHERE provider_id = ? AND state IN (0, 1, 2, 6) AND lease_until < ? ORDER BY lease_until`
  )
  const renew = database.prepare(
    `UPDATE shards SET lease_until = ?1 WHERE substr(cid, -6) = substr(?2, -6) AND cid = ?2 AND provider_id = ?3`
  )
  const holdersOf = database.prepare(
    `SELECT p.peer_id, h.state FROM shards h JOIN providers p ON p.id = h.provider_id WHERE substr(h.cid, -6) = substr(?1, -6) AND h.cid = ?1 LIMIT ?2`
  )
  const releases = database.prepare('SELECT cid FROM releases WHERE provider_id = ? ORDER BY cid LIMIT ?')
  const releaseProviders = database.prepare(
    `SELECT peer_id FROM providers p WHERE EXISTS (SELECT 1 FROM releases WHERE provider_id = p.id) ORDER BY peer_id`
  )
  const dequeue = database.prepare('DELETE FROM releases WHERE provider_id = ? AND cid = ?')
  const enqueue = database.prepare(
    `INSERT INTO releases SELECT ?1, ?2
     WHERE NOT EXISTS (SELECT 1 FROM shards WHERE substr(cid, -6) = substr(?2, -6) AND cid = ?2 AND provider_id = ?1) ON CONFLICT DO NOTHING`
  )
  const totals = database.prepare(
    `SELECT objects, object_bytes, segments, shards, (SELECT COUNT(*) FROM buckets) AS buckets,
       (SELECT COUNT(*) FROM segments WHERE lost > 0) AS incomplete FROM totals`
  )

  const placeOne = ({ segmentId, index, cid, provider, leaseUntil, at }: ShardPlacement): void => {
    const providerId = providers.findOrAdd(provider)
    const row = selectCid.get(segmentId, index)
    if (row === undefined) {
      enqueue.run(providerId, cid.bytes)
      return
    }
    check(cidOf(row).equals(cid), `shard ${index} of segment ${segmentId} is another than was placed`)
    place.run(providerId, leaseUntil, at, segmentId, index)
    segments.doubtLease(cid, providerId, leaseUntil)
  }

  /** @throws HoldfastError `DAMAGED` when the totals are gone */
  const readTotals = (): Row => {
    const row = totals.get()
    if (row === undefined) throw damaged('no totals')
    return row
  }

  return {
    listIncomplete: ({ afterId, limit }) =>
      database.read(() => incomplete.all(afterId, limit).map((row) => segments.load(row))),

    getSegment: (id) => database.read(() => segments.get(id)),

    placeShards: (placements) =>
      database.write(() => {
        for (const placement of placements) placeOne(placement)
      }),

    markShard: ({ segmentId, index }, provider, state, proofAt) =>
      database.write(() => {
        const providerId = providers.find(provider)
        if (providerId === undefined) return
        markOne.run(providerId, stateCodes[state], proofAt ?? null, segmentId, index)
      }),

    markHolding: (provider, cid, state, proofAt) =>
      database.write(() => {
        const providerId = providers.find(provider)
        if (providerId === undefined) return
        markAll.run(providerId, stateCodes[state], proofAt ?? null, cid.bytes)
      }),

    listHolders: () =>
      database.read(() =>
        holders.all().map((row) => ({
          provider: text(row, 'peer_id'),
          shards: integer(row, 'held_shards'),
          bytes: integer(row, 'held_bytes')
        }))
      ),

    listLeasesDue: (provider, before, limit) =>
      database.read(() => {
        const providerId = providers.find(provider)
        const found = new Map<string, LeaseRow>()
        if (providerId === undefined || limit <= 0) return []
        for (const row of due.iterate(providerId, before) as Iterable<Row>) {
          const key = Buffer.from(bytes(row, 'cid')).toString('latin1')
          if (!found.has(key)) found.set(key, { cid: cidOf(row), leaseUntil: integer(row, 'lease_until') })
          if (found.size === limit) break
        }
        return [...found.values()]
      }),

    renewed: (provider, cids, leaseUntil) =>
      database.write(() => {
        const providerId = providers.find(provider)
        if (providerId === undefined) return
        for (const cid of cids) renew.run(leaseUntil, cid.bytes, providerId)
      }),

    findHolders: (cid) =>
      database.read(() => {
        const best = new Map<string, ShardState>()
        for (const row of holdersOf.all(cid.bytes, holderRowsMax)) {
          const provider = text(row, 'peer_id')
          const state = stateOf(row)
          const known = best.get(provider)
          if (known === undefined || hope.indexOf(state) < hope.indexOf(known)) best.set(provider, state)
        }
        return [...best]
          .map(([provider, state]) => ({ provider, state }))
          .sort((a, b) => hope.indexOf(a.state) - hope.indexOf(b.state) || (a.provider < b.provider ? -1 : 1))
      }),

    listReleases: (provider, limit) =>
      database.read(() => {
        const providerId = providers.find(provider)
        return providerId === undefined ? [] : releases.all(providerId, limit).map(cidOf)
      }),

    listReleaseProviders: () => database.read(() => releaseProviders.all().map((row) => text(row, 'peer_id'))),

    released: (provider, cids) =>
      database.write(() => {
        const providerId = providers.find(provider)
        if (providerId === undefined) return
        for (const cid of cids) dequeue.run(providerId, cid.bytes)
      }),

    queueReleases: (rows) =>
      database.write(() => {
        for (const { provider, cid } of rows) enqueue.run(providers.findOrAdd(provider), cid.bytes)
      }),

    totals: () =>
      database.read(() => {
        const row = readTotals()
        return {
          buckets: integer(row, 'buckets'),
          objects: integer(row, 'objects'),
          objectBytes: integer(row, 'object_bytes'),
          segments: integer(row, 'segments'),
          shards: integer(row, 'shards'),
          incompleteSegments: integer(row, 'incomplete')
        }
      })
  }
}
