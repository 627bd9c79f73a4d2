/** What audits need: which blocks a provider is to have, what it proved of them, and what the auditor keeps. */
import { check } from '../../base/errors.ts'
import { codecs, hashes } from '../../content/cid.ts'
import type { AuditSave, CustodyIndex, CustodyRow, NewTranscript, TranscriptRow } from '../index-store.ts'
import type { Providers } from './contents.ts'
import { type Database, damaged } from './database.ts'
import { bytes, cidOf, countsOf, countsText, integer, pageOf, type Row, text } from './rows.ts'

/** Of `migrations.ts`, word for word: what the indexes over blocks that can be proved are of. */
const isProvable = "state IN (0, 1, 2, 6) AND substr(cid, 1, 4) = x'01551e20'"
/** How those CIDs begin: version, codec, hash, length of the digest. */
const provableStart = Uint8Array.of(1, codecs.raw, hashes.blake3, 32)
/** Before all CIDs, and before all parts of one. */
const beforeAll = Uint8Array.of(0)
/** Blocks remembered, within one listing, as proved since. */
const provedSinceMax = 4096
/** Transcripts dropped in one transaction: after a long stop the gateway must not stand still for all that expired. */
const droppedMax = 1000

export function sqliteCustody(database: Database, providers: Providers): CustodyIndex {
  return { ...sqliteBlocks(database, providers), ...sqliteAudits(database, providers) }
}

type BlockMethods = 'listCustody' | 'listUnproved' | 'recordProofs'

function sqliteBlocks(database: Database, providers: Providers): Pick<CustodyIndex, BlockMethods> {
  // Indexes are named where the planner, which keeps no statistics, would take one that leads through all of a
  // provider's blocks.
  const from = (index: string) =>
    `SELECT h.cid, h.idx, coalesce(h.last_proof, -1) AS proof, s.length, s.k
     FROM shards h INDEXED BY ${index} JOIN segments s ON s.id = h.segment_id
     WHERE h.provider_id = ?1 AND ${isProvable}`
  // Ordered by what the index has of the digest; only blocks that have it in common are sorted.
  const byCid = database.prepare(
    `${from('shards_by_custody')} AND substr(cid, 5, 4) >= ?2 AND cid > ?3 ORDER BY substr(cid, 5, 4), cid`
  )
  const byProof = database.prepare(
    `${from('shards_by_proof')} AND coalesce(last_proof, -1) < ?2 ORDER BY coalesce(last_proof, -1)`
  )
  const latest = database.prepare(
    `SELECT max(coalesce(last_proof, -1)) AS proof FROM shards INDEXED BY shards_by_custody
     WHERE provider_id = ?1 AND ${isProvable} AND substr(cid, 5, 4) = substr(?2, 5, 4) AND cid = ?2`
  )
  // By CID among all providers' blocks, since nodes are proved too, by reads. Two statements, so that a proof of what
  // is healthy leaves the indexes alone that depend on the state.
  const located = 'substr(cid, -6) = substr(?2, -6) AND cid = ?2 AND provider_id = ?1'
  const prove = database.prepare(
    `UPDATE shards INDEXED BY shards_by_cid SET last_proof = ?3
     WHERE ${located} AND state IN (0, 1, 2, 6) AND coalesce(last_proof, -1) < ?3`
  )
  const heal = database.prepare(
    `UPDATE shards INDEXED BY shards_by_cid SET state = 0 WHERE ${located} AND state IN (1, 2, 6)`
  )

  return {
    listCustody: (provider, { after, limit }) =>
      database.read(() => {
        const providerId = providers.find(provider)
        const found: CustodyRow[] = []
        if (providerId === undefined || limit <= 0) return found
        const marker = after?.bytes ?? beforeAll
        const start = startsProvable(marker) ? marker.subarray(4, 8) : beforeAll
        for (const row of byCid.iterate(providerId, start, marker) as Iterable<Row>) {
          const next = custodyOf(row)
          const last = found.at(-1)
          if (last?.cid.equals(next.cid)) {
            last.lastProof = later(last.lastProof, next.lastProof)
            continue
          }
          if (found.length === limit) break
          found.push(next)
        }
        return found
      }),

    listUnproved: (provider, { before, limit }) =>
      database.read(() => {
        const providerId = providers.find(provider)
        const found = new Map<string, CustodyRow>()
        if (providerId === undefined || limit <= 0) return []
        // Of a block in several rows only the latest counts: the others are passed by.
        const provedSince = new Map<string, number>()
        for (const row of byProof.iterate(providerId, before) as Iterable<Row>) {
          const key = Buffer.from(bytes(row, 'cid')).toString('latin1')
          if (found.has(key)) continue
          const proof = provedSince.get(key) ?? integer(latest.get(providerId, bytes(row, 'cid'))!, 'proof')
          if (proof === integer(row, 'proof')) {
            found.set(key, custodyOf(row))
            if (found.size === limit) break
            continue
          }
          if (provedSince.size === provedSinceMax) provedSince.clear()
          provedSince.set(key, proof)
        }
        return [...found.values()]
      }),

    recordProofs: (provider, cids, at) =>
      database.write(() => {
        check(Number.isSafeInteger(at) && at >= 0, 'no such time of a proof')
        const providerId = providers.find(provider)
        if (providerId === undefined) return
        for (const cid of cids) {
          prove.run(providerId, cid.bytes, at)
          heal.run(providerId, cid.bytes)
        }
      })
  }
}

const startsProvable = (cid: Uint8Array): boolean => Buffer.compare(cid.subarray(0, 4), provableStart) === 0

const later = (a: number | null, b: number | null): number | null => (a === null || (b !== null && b > a) ? b : a)

function custodyOf(row: Row): CustodyRow {
  const proof = integer(row, 'proof')
  return { cid: cidOf(row), bytes: blockBytes(row), lastProof: proof < 0 ? null : proof }
}

/** Data shards are stored without padding, so the last ones of a segment are shorter, or empty; copies are whole. */
function blockBytes(row: Row): number {
  const length = integer(row, 'length')
  const k = integer(row, 'k')
  const index = integer(row, 'idx')
  const shardBytes = Math.ceil(length / k)
  return index < k ? Math.max(0, Math.min(shardBytes, length - index * shardBytes)) : shardBytes
}

function sqliteAudits(database: Database, providers: Providers): Omit<CustodyIndex, BlockMethods> {
  const saveAuditor = database.prepare(
    'INSERT INTO auditor VALUES (0, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state'
  )
  const saveProvider = database.prepare(
    `INSERT INTO audited_providers VALUES (?, ?)
     ON CONFLICT (provider_id) DO UPDATE SET state = excluded.state`
  )
  const forgetProvider = database.prepare('DELETE FROM audited_providers WHERE provider_id = ?')
  const auditor = database.prepare('SELECT state FROM auditor')
  const audited = database.prepare(
    'SELECT p.peer_id, a.state FROM audited_providers a JOIN providers p ON p.id = a.provider_id ORDER BY p.peer_id'
  )
  const insert = database.prepare(
    'INSERT INTO transcripts (provider_id, asked_at, bytes, signature, outcomes) VALUES (?, ?, ?, ?, ?)'
  )
  const dropOld = database.prepare(
    `DELETE FROM transcripts WHERE id IN
       (SELECT id FROM transcripts WHERE asked_at < ? ORDER BY asked_at LIMIT ?)`
  )
  const count = database.prepare('SELECT transcripts FROM totals')
  const dropFirst = database.prepare(
    'DELETE FROM transcripts WHERE id IN (SELECT id FROM transcripts ORDER BY id LIMIT ?)'
  )
  const columns = 't.id, p.peer_id, t.asked_at, t.bytes, t.signature, t.outcomes'
  const list = `SELECT ${columns} FROM transcripts t JOIN providers p ON p.id = t.provider_id`
  const newest = database.prepare(`${list} WHERE t.id < ? ORDER BY t.id DESC LIMIT ?`)
  const newestOf = database.prepare(`${list} WHERE t.provider_id = ? AND t.id < ? ORDER BY t.id DESC LIMIT ?`)
  const scan = database.prepare(`${list} WHERE t.id > ? ORDER BY t.id LIMIT ?`)

  const add = ({ provider, askedAt, bytes: signed, signature, outcomes }: NewTranscript): void => {
    insert.run(providers.findOrAdd(provider), askedAt, signed, signature, countsText(outcomes))
  }

  /** @throws HoldfastError `DAMAGED` when the totals are gone */
  const kept = (): number => {
    const row = count.get()
    if (row === undefined) throw damaged('no totals')
    return integer(row, 'transcripts')
  }

  /** @param added how many the same transaction added: no fewer can go, or the bound would not hold */
  const drop = ({ since, rowsMax }: NonNullable<AuditSave['keep']>, added: number): void => {
    const most = droppedMax + added
    const dropped = Number(dropOld.run(since, most).changes)
    const excess = kept() - rowsMax
    if (excess > 0) dropFirst.run(Math.min(excess, most - dropped))
  }

  return {
    saveAudit: (save) =>
      database.write(() => {
        if (save.auditor !== undefined) saveAuditor.run(save.auditor)
        for (const { provider, state } of save.providers ?? []) {
          const providerId = providers.findOrAdd(provider)
          if (state === null) forgetProvider.run(providerId)
          else saveProvider.run(providerId, state)
        }
        for (const transcript of save.transcripts ?? []) add(transcript)
        if (save.keep !== undefined) drop(save.keep, save.transcripts?.length ?? 0)
      }),

    loadAudit: () =>
      database.read(() => {
        const row = auditor.get()
        return {
          auditor: row === undefined ? undefined : bytes(row, 'state'),
          providers: audited.all().map((one) => ({ provider: text(one, 'peer_id'), state: bytes(one, 'state') }))
        }
      }),

    listTranscripts: ({ before = Number.MAX_SAFE_INTEGER, provider, limit }) =>
      database.read(() => {
        const rowsMax = Math.max(0, limit) + 1
        if (provider === undefined) return pageOf(newest.all(before, rowsMax), limit, transcriptOf)
        const providerId = providers.find(provider)
        const rows = providerId === undefined ? [] : newestOf.all(providerId, before, rowsMax)
        return pageOf(rows, limit, transcriptOf)
      }),

    scanTranscripts: ({ after, limit }) => database.read(() => scan.all(after, Math.max(0, limit)).map(transcriptOf))
  }
}

function transcriptOf(row: Row): TranscriptRow {
  return {
    id: integer(row, 'id'),
    provider: text(row, 'peer_id'),
    askedAt: integer(row, 'asked_at'),
    bytes: bytes(row, 'bytes'),
    signature: bytes(row, 'signature'),
    outcomes: countsOf(row, 'outcomes')
  }
}
