/** What repair needs of the index: segments by provider, claims, refusals, accounts, comings and goings. */
import { check } from '../../base/errors.ts'
import type { HeldCursor, RefusalRow, RepairIndex } from '../index-store.ts'
import type { StoredSegment } from '../records.ts'
import type { Providers, Segments } from './contents.ts'
import type { Database } from './database.ts'
import { bytes, cidOf, integer, type Row, real, stateCodes, text } from './rows.ts'

/** Of `migrations.ts`, word for word: what the index by lease is of. */
const isHeld = 'provider_id IS NOT NULL AND state IN (0, 1, 2, 6)'

export function sqliteRepair(database: Database, providers: Providers, segments: Segments): RepairIndex {
  return {
    ...sqliteHeld(database, providers, segments),
    ...sqliteClaims(database),
    ...sqliteRefusals(database, providers),
    ...sqliteAccounting(database),
    ...sqlitePresence(database, providers)
  }
}

type HeldMethods = 'listHeldSegments' | 'listSegments' | 'listSegmentsWith' | 'listSegmentsOf'

function sqliteHeld(database: Database, providers: Providers, segments: Segments): Pick<RepairIndex, HeldMethods> {
  // The index by lease ends in the table's key, so it pages without an index of its own.
  const held = database.prepare(
    `SELECT segment_id, idx, lease_until FROM shards INDEXED BY shards_by_lease
     WHERE provider_id = ?1 AND ${isHeld} AND (lease_until, segment_id, idx) > (?2, ?3, ?4)
     ORDER BY lease_until, segment_id, idx`
  )
  const all = database.prepare('SELECT id, length, k, m, nonce FROM segments WHERE id > ? ORDER BY id LIMIT ?')
  const givenCid = `SELECT segment_id FROM shards INDEXED BY shards_by_cid
     WHERE substr(cid, -6) = substr(?2, -6) AND cid = ?2 AND provider_id = ?1`
  const withCid = database.prepare(`${givenCid} AND ${isHeld} LIMIT ?3`)
  const evenLostCid = database.prepare(`${givenCid} LIMIT ?3`)

  const ofCid = database.prepare(
    `SELECT DISTINCT segment_id FROM shards INDEXED BY shards_by_cid
     WHERE substr(cid, -6) = substr(?1, -6) AND cid = ?1 LIMIT ?2`
  )

  const load = (ids: Iterable<number>): StoredSegment[] =>
    [...ids].flatMap((id) => {
      const segment = segments.get(id)
      return segment === undefined ? [] : [segment]
    })

  return {
    listHeldSegments: (provider, { after, limit }) =>
      database.read(() => {
        const providerId = providers.find(provider)
        if (providerId === undefined || limit <= 0) return { segments: [] }
        const ids = new Set<number>()
        let next: HeldCursor | undefined
        const { leaseUntil, segmentId, index } = after ?? { leaseUntil: -1, segmentId: -1, index: -1 }
        for (const row of held.iterate(providerId, leaseUntil, segmentId, index) as Iterable<Row>) {
          const id = integer(row, 'segment_id')
          if (ids.size === limit && !ids.has(id)) return { segments: load(ids), ...(next && { next }) }
          ids.add(id)
          next = { leaseUntil: integer(row, 'lease_until'), segmentId: id, index: integer(row, 'idx') }
        }
        return { segments: load(ids) }
      }),

    listSegments: ({ afterId, limit }) => database.read(() => all.all(afterId, limit).map((row) => segments.load(row))),

    listSegmentsWith: (provider, cids, limit, { evenLost = false } = {}) =>
      database.read(() => {
        const providerId = providers.find(provider)
        const ids = new Set<number>()
        if (providerId === undefined) return []
        for (const cid of cids) {
          for (const row of (evenLost ? evenLostCid : withCid).all(providerId, cid.bytes, limit)) {
            if (ids.size === limit) return load(ids)
            ids.add(integer(row, 'segment_id'))
          }
        }
        return load(ids)
      }),

    listSegmentsOf: (cids, limit) =>
      database.read(() => {
        const ids = new Set<number>()
        for (const cid of cids) {
          for (const row of ofCid.all(cid.bytes, limit)) {
            if (ids.size === limit) return load(ids)
            ids.add(integer(row, 'segment_id'))
          }
        }
        return load(ids)
      })
  }
}

function sqliteClaims(database: Database): Pick<RepairIndex, 'claimSegments' | 'endClaims' | 'unclaimSegments'> {
  const exists = database.prepare('SELECT 1 FROM segments WHERE id = ?')
  const claim = database.prepare(
    `INSERT INTO repair_claims VALUES (?1, ?2, ?3)
     ON CONFLICT (segment_id) DO UPDATE SET claimant = ?2, until = ?3
       WHERE repair_claims.claimant = ?2 OR repair_claims.until <= ?4`
  )
  const end = database.prepare('DELETE FROM repair_claims WHERE substr(claimant, 1, length(?1)) = ?1')
  const unclaim = database.prepare('DELETE FROM repair_claims WHERE segment_id = ? AND claimant = ?')
  return {
    claimSegments: (ids, { claimant, until, now }) =>
      database.write(() =>
        ids.filter((id) => exists.get(id) !== undefined && claim.run(id, claimant, until, now).changes > 0)
      ),
    endClaims: (claimantPrefix) => database.write(() => void end.run(claimantPrefix)),
    unclaimSegments: (ids, claimant) =>
      database.write(() => {
        for (const id of ids) unclaim.run(id, claimant)
      })
  }
}

function sqliteRefusals(
  database: Database,
  providers: Providers
): Pick<RepairIndex, 'recordRefusals' | 'listRefusals'> {
  const keep = database.prepare(
    `INSERT INTO refusals VALUES (?1, ?2, ?3, ?4)
     ON CONFLICT (cid, provider_id) DO UPDATE SET at = ?3, signed = ?4 WHERE at < ?3`
  )
  const touched = database.prepare(
    `SELECT segment_id FROM shards WHERE substr(cid, -6) = substr(?2, -6) AND cid = ?2 AND provider_id = ?1 AND ${isHeld}`
  )
  const withdraw = database.prepare(
    `UPDATE shards SET state = ${stateCodes.withdrawn}
     WHERE substr(cid, -6) = substr(?2, -6) AND cid = ?2 AND provider_id = ?1 AND ${isHeld}`
  )
  const find = database.prepare(
    `SELECT p.peer_id, r.cid, r.at FROM refusals r JOIN providers p ON p.id = r.provider_id
     WHERE r.cid = ? ORDER BY p.peer_id`
  )
  const accrueOne = database.prepare(`${accrual} WHERE id = ?2`)
  return {
    recordRefusals: (rows: readonly RefusalRow[], now) =>
      database.write(() => {
        const segmentIds = new Set<number>()
        for (const { provider, cid, at, signed } of rows) {
          const providerId = providers.findOrAdd(provider)
          keep.run(cid.bytes, providerId, at, signed)
          accrueOne.run(now, providerId)
          for (const row of touched.all(providerId, cid.bytes)) segmentIds.add(integer(row, 'segment_id'))
          withdraw.run(providerId, cid.bytes)
        }
        return [...segmentIds]
      }),
    listRefusals: (cids) =>
      database.read(() =>
        cids.flatMap((cid) =>
          find.all(cid.bytes).map((row) => ({
            provider: text(row, 'peer_id'),
            cid: cidOf(row),
            at: integer(row, 'at')
          }))
        )
      )
  }
}

/** A clock that was set back earns nobody anything, and takes nothing away. */
const accrual = `UPDATE providers SET
  byte_ms = byte_ms + held_bytes * 1.0 * max(0, ?1 - coalesce(accrued_at, ?1)), accrued_at = ?1`

function sqliteAccounting(database: Database): Pick<RepairIndex, 'accrue' | 'listAccounts'> {
  const accrue = database.prepare(`${accrual} WHERE held_bytes > 0 OR accrued_at IS NOT NULL`)
  const accounts = database.prepare(
    'SELECT peer_id, byte_ms, accrued_at FROM providers WHERE accrued_at IS NOT NULL ORDER BY peer_id'
  )
  return {
    accrue: (now) =>
      database.write(() => {
        check(Number.isSafeInteger(now) && now >= 0, 'no such time')
        accrue.run(now)
      }),
    listAccounts: () =>
      database.read(() =>
        accounts.all().map((row) => ({
          provider: text(row, 'peer_id'),
          byteMs: real(row, 'byte_ms'),
          accruedAt: integer(row, 'accrued_at')
        }))
      )
  }
}

function sqlitePresence(database: Database, providers: Providers): Pick<RepairIndex, 'savePresence' | 'loadPresence'> {
  const save = database.prepare('INSERT OR REPLACE INTO presence VALUES (?, ?)')
  const forget = database.prepare('DELETE FROM presence WHERE provider_id = ?')
  const load = database.prepare(
    'SELECT p.peer_id, a.state FROM presence a JOIN providers p ON p.id = a.provider_id ORDER BY p.peer_id'
  )
  return {
    savePresence: (rows) =>
      database.write(() => {
        for (const { provider, state } of rows) {
          const providerId = providers.findOrAdd(provider)
          if (state === null) forget.run(providerId)
          else save.run(providerId, state)
        }
      }),
    loadPresence: () =>
      database.read(() => load.all().map((row) => ({ provider: text(row, 'peer_id'), state: bytes(row, 'state') })))
  }
}
