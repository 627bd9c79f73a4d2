/**
 * Leases in SQLite: write-ahead log, every commit fsynced. Grants made together share a commit, since the fsync is
 * nearly all they cost.
 *
 * The database is held exclusively, which also keeps a second process off the data directory. The lock goes with the
 * process, however that ends.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { CID } from 'multiformats/cid'
import { HoldfastError } from '../base/errors.ts'
import {
  byBytes,
  type Expired,
  type Lease,
  type LeasedBlock,
  type LeaseStore,
  type LeaseTotals,
  type LossKind,
  type OwnerTotals
} from './lease-store.ts'

/** Leases in one commit. */
const commitLeasesMax = 10_000
/** Leases waiting for a commit. */
const waitingLeasesMax = 100_000

/** 2: blocks that are lost, and blocks that nobody leases. */
const formatVersion = 2

const schema = `
  CREATE TABLE IF NOT EXISTS owners (id INTEGER PRIMARY KEY, peer_id TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE IF NOT EXISTS leases (
    cid BLOB NOT NULL,
    owner INTEGER NOT NULL REFERENCES owners (id),
    until INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (cid, owner)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS leases_by_until ON leases (until);
  CREATE TABLE IF NOT EXISTS lost (cid BLOB PRIMARY KEY, kind TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS orphans (cid BLOB PRIMARY KEY, found_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${formatVersion};
`

interface Waiting {
  leases: readonly Lease[]
  resolve: () => void
  reject: (error: unknown) => void
}

type Owned = Pick<LeaseTotals, 'leases' | 'bytes'>

export class SqliteLeaseStore implements LeaseStore {
  readonly #db: DatabaseSync
  readonly #statements: ReturnType<typeof prepare>
  readonly #owners = new Map<string, number>()
  #waiting: Waiting[] = []
  #waitingLeases = 0
  #isScheduled = false
  #isClosed = false
  #totals: LeaseTotals
  /** By the owner's id. Kept up like the totals, since counting them takes a look at every lease. */
  #owned = new Map<number, Owned>()

  /**
   * @throws HoldfastError `BAD_CONFIG` when another process has the database, or a newer version wrote it
   */
  constructor(path: string) {
    this.#db = openExclusively(path)
    try {
      const { user_version: version } = this.#db.prepare('PRAGMA user_version').get() as { user_version: number }
      if (version > formatVersion) throw new HoldfastError('BAD_CONFIG', `${path} was written by a newer version`)
      this.#db.exec(schema)
      this.#statements = prepare(this.#db)
      this.#totals = this.#countTotals()
      this.#owned = this.#countOwned()
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  async grant(leases: readonly Lease[]): Promise<void> {
    if (this.#isClosed) throw new HoldfastError('ABORTED', 'the provider stops')
    if (leases.length === 0) return
    if (this.#waitingLeases + leases.length > waitingLeasesMax) {
      throw new HoldfastError('OVERLOADED', 'too many leases wait to be written')
    }
    await new Promise<void>((resolve, reject) => {
      this.#waiting.push({ leases, resolve, reject })
      this.#waitingLeases += leases.length
      this.#schedule()
    })
  }

  async release(owner: string, cids: readonly CID[]): Promise<CID[]> {
    this.#commitWaiting() // in the order they were asked
    return this.#transaction(() => {
      const ownerId = this.#ownerId(owner)
      return ownerId === undefined ? [] : cids.filter((cid) => this.#end(cid.bytes, ownerId))
    })
  }

  async expire(now: number, limit: number): Promise<Expired> {
    this.#commitWaiting()
    const due = this.#statements.due.all(now, limit) as Array<{ cid: Uint8Array; owner: number }>
    if (due.length === 0) return { ended: 0, freed: [] }
    const freed = this.#transaction(() => due.filter(({ cid, owner }) => this.#end(cid, owner)))
    return { ended: due.length, freed: freed.map(({ cid }) => CID.decode(cid)) }
  }

  async evict(cids: readonly CID[]): Promise<CID[]> {
    this.#commitWaiting()
    return this.#transaction(() =>
      cids.filter((cid) => {
        const owners = this.#statements.ownersOf.all(cid.bytes) as Array<{ owner: number }>
        for (const { owner } of owners) this.#end(cid.bytes, owner)
        return owners.length > 0
      })
    )
  }

  async get(owner: string, cid: CID): Promise<Lease | undefined> {
    this.#commitWaiting()
    const row = this.#statements.get.get(cid.bytes, owner) as { until: number; bytes: number } | undefined
    return row === undefined ? undefined : { cid, owner, until: row.until, bytes: row.bytes }
  }

  async list(owner: string, { after, limit }: { after?: CID; limit: number }): Promise<Lease[]> {
    this.#commitWaiting()
    const ownerId = this.#ownerId(owner)
    if (ownerId === undefined) return []
    const rows = this.#statements.list.all(after?.bytes ?? new Uint8Array(), ownerId, limit) as Array<{
      cid: Uint8Array
      until: number
      bytes: number
    }>
    return rows.map(({ cid, until, bytes }) => ({ cid: CID.decode(cid), owner, until, bytes }))
  }

  async ownersOf(cid: CID): Promise<string[]> {
    this.#commitWaiting()
    const owners = this.#statements.ownersOf.all(cid.bytes) as Array<{ owner: number }>
    return owners.map(({ owner }) => this.#peerIdOf(owner)).sort()
  }

  async isLeased(cid: CID): Promise<boolean> {
    this.#commitWaiting()
    return this.#statements.isLeased.get(cid.bytes) !== undefined
  }

  async lengthOf(cid: CID): Promise<number | undefined> {
    this.#commitWaiting()
    return (this.#statements.isLeased.get(cid.bytes) as { bytes: number } | undefined)?.bytes
  }

  async lose(cids: readonly CID[], kind: LossKind): Promise<CID[]> {
    this.#commitWaiting()
    return this.#transaction(() => cids.filter((cid) => this.#lose(cid.bytes, kind)))
  }

  #lose(cid: Uint8Array, kind: LossKind): boolean {
    const leased = this.#statements.isLeased.get(cid) as { bytes: number } | undefined
    if (leased === undefined || this.#isLost(cid)) return false
    this.#statements.lose.run(cid, kind)
    this.#count(leased.bytes, -1)
    this.#totals.lost += 1
    return true
  }

  async find(cid: CID): Promise<void> {
    const bytes = await this.lengthOf(cid)
    if (bytes !== undefined && this.#isLost(cid.bytes)) this.#transaction(() => this.#find(cid.bytes, bytes))
  }

  async lossOf(cid: CID): Promise<LossKind | undefined> {
    this.#commitWaiting()
    if (this.#totals.lost === 0) return undefined
    return (this.#statements.lossOf.get(cid.bytes) as { kind: LossKind } | undefined)?.kind
  }

  async blocks(after: CID | undefined, limit: number): Promise<LeasedBlock[]> {
    return this.#page(this.#statements.blocks, after, limit)
  }

  async losses(after: CID | undefined, limit: number): Promise<LeasedBlock[]> {
    return this.#page(this.#statements.losses, after, limit)
  }

  #page(statement: StatementSync, after: CID | undefined, limit: number): LeasedBlock[] {
    this.#commitWaiting()
    const rows = statement.all(after?.bytes ?? new Uint8Array(0), limit) as Array<{ cid: Uint8Array; bytes: number }>
    return rows.map(({ cid, bytes }) => ({ cid: CID.decode(cid), bytes }))
  }

  async noteOrphans(cids: readonly CID[], at: number): Promise<void> {
    if (cids.length === 0) return
    this.#transaction(() => {
      for (const cid of cids) this.#statements.noteOrphan.run(cid.bytes, at)
    })
  }

  async orphansSince(at: number, limit: number): Promise<CID[]> {
    const rows = this.#statements.orphans.all(at, limit) as Array<{ cid: Uint8Array }>
    return rows.map(({ cid }) => CID.decode(cid))
  }

  async forgetOrphans(cids: readonly CID[]): Promise<void> {
    if (cids.length === 0) return
    this.#transaction(() => {
      for (const cid of cids) this.#statements.forgetOrphan.run(cid.bytes)
    })
  }

  async usedBytes(): Promise<number> {
    return this.#totals.bytes
  }

  async totals(): Promise<LeaseTotals> {
    return { ...this.#totals }
  }

  async owners(limit: number): Promise<OwnerTotals[]> {
    const all = [...this.#owned].map(([id, { leases, bytes }]) => ({ owner: this.#peerIdOf(id), leases, bytes }))
    return all.sort(byBytes).slice(0, limit)
  }

  /** Writes what is waiting, then lets go of the database. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    while (this.#waiting.length > 0) this.#commitWaiting()
    this.#db.close()
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    // After the input that is ready now has been read: the grants it leads to join in.
    setImmediate(() => {
      this.#isScheduled = false
      this.#commitWaiting()
      if (this.#waiting.length > 0) this.#schedule()
    })
  }

  /** One commit; its fsync blocks the event loop, and meanwhile those who come next gather for the next one. */
  #commitWaiting(): void {
    if (this.#waiting.length === 0) return
    let count = 0
    const leases: Lease[] = []
    while (count < this.#waiting.length && (count === 0 || leases.length < commitLeasesMax)) {
      for (const lease of this.#waiting[count]!.leases) leases.push(lease)
      count += 1
    }
    const batch = this.#waiting.splice(0, count)
    this.#waitingLeases -= leases.length
    try {
      this.#transaction(() => {
        for (const lease of leases) this.#grantOne(lease)
      })
    } catch (error) {
      for (const { reject } of batch) reject(error)
      return
    }
    for (const { resolve } of batch) resolve()
  }

  #grantOne({ cid, owner, until, bytes }: Lease): void {
    const key = cid.bytes
    const known = this.#statements.isLeased.get(key) as { bytes: number } | undefined
    const ownerId = this.#ownerId(owner) ?? this.#addOwner(owner)
    const isNew = this.#statements.one.get(key, ownerId) === undefined
    this.#statements.grant.run(key, ownerId, until, bytes)
    if (isNew) {
      this.#totals.leases += 1
      this.#own(ownerId, 1, bytes)
    }
    if (known === undefined) this.#count(bytes, 1) // a CID has one length
  }

  #isLost(cid: Uint8Array): boolean {
    return this.#totals.lost > 0 && this.#statements.lossOf.get(cid) !== undefined
  }

  #find(cid: Uint8Array, bytes: number): void {
    this.#statements.find.run(cid)
    this.#count(bytes, 1)
    this.#totals.lost -= 1
  }

  #count(bytes: number, sign: 1 | -1): void {
    this.#totals.blocks += sign
    this.#totals.bytes += sign * bytes
  }

  /** Whether that was the block's last lease. */
  #end(cid: Uint8Array, ownerId: number): boolean {
    const row = this.#statements.one.get(cid, ownerId) as { bytes: number } | undefined
    if (row === undefined) return false
    this.#statements.end.run(cid, ownerId)
    this.#totals.leases -= 1
    this.#own(ownerId, -1, -row.bytes)
    if (this.#statements.isLeased.get(cid) !== undefined) return false
    if (this.#isLost(cid)) this.#find(cid, row.bytes)
    this.#count(row.bytes, -1)
    return true
  }

  #own(ownerId: number, leases: number, bytes: number): void {
    const own = this.#owned.get(ownerId) ?? { leases: 0, bytes: 0 }
    if (own.leases + leases === 0) this.#owned.delete(ownerId)
    else this.#owned.set(ownerId, { leases: own.leases + leases, bytes: own.bytes + bytes })
  }

  #peerIdOf(ownerId: number): string {
    return (this.#statements.peerId.get(ownerId) as { peer_id: string }).peer_id
  }

  #ownerId(peerId: string): number | undefined {
    const cached = this.#owners.get(peerId)
    if (cached !== undefined) return cached
    const row = this.#statements.owner.get(peerId) as { id: number } | undefined
    if (row !== undefined) this.#cacheOwner(peerId, row.id)
    return row?.id
  }

  #addOwner(peerId: string): number {
    const id = Number(this.#statements.addOwner.run(peerId).lastInsertRowid)
    this.#cacheOwner(peerId, id)
    return id
  }

  #cacheOwner(peerId: string, id: number): void {
    if (this.#owners.size >= 1000) this.#owners.clear()
    this.#owners.set(peerId, id)
  }

  #transaction<T>(work: () => T): T {
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      this.#db.exec('COMMIT')
      return result
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      this.#owners.clear()
      this.#totals = this.#countTotals()
      this.#owned = this.#countOwned()
      throw error
    }
  }

  #countTotals(): LeaseTotals {
    return { ...(this.#statements.totals.get() as unknown as LeaseTotals) }
  }

  #countOwned(): Map<number, Owned> {
    const rows = this.#statements.owned.all() as Array<{ owner: number; leases: number; bytes: number }>
    return new Map(rows.map(({ owner, leases, bytes }) => [owner, { leases, bytes }]))
  }
}

function openExclusively(path: string): DatabaseSync {
  const db = new DatabaseSync(path)
  try {
    // Before the write-ahead log is touched, so that its index lives in this process and no other can join.
    db.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; COMMIT'
    )
    return db
  } catch (cause) {
    db.close()
    if (String(cause).includes('locked')) {
      throw new HoldfastError('BAD_CONFIG', `another process is using ${path}`, { cause })
    }
    throw cause
  }
}

function prepare(db: DatabaseSync) {
  const statement = (sql: string): StatementSync => db.prepare(sql)
  return {
    owner: statement('SELECT id FROM owners WHERE peer_id = ?'),
    peerId: statement('SELECT peer_id FROM owners WHERE id = ?'),
    owned: statement('SELECT owner, count(*) AS leases, sum(bytes) AS bytes FROM leases GROUP BY owner'),
    addOwner: statement('INSERT INTO owners (peer_id) VALUES (?)'),
    grant: statement(`
      INSERT INTO leases (cid, owner, until, bytes) VALUES (?, ?, ?, ?)
      ON CONFLICT (cid, owner) DO UPDATE SET until = max(until, excluded.until)`),
    one: statement('SELECT bytes FROM leases WHERE cid = ? AND owner = ?'),
    end: statement('DELETE FROM leases WHERE cid = ? AND owner = ?'),
    due: statement('SELECT cid, owner FROM leases WHERE until < ? ORDER BY until LIMIT ?'),
    get: statement(
      'SELECT until, bytes FROM leases JOIN owners ON owners.id = leases.owner WHERE cid = ? AND owners.peer_id = ?'
    ),
    list: statement('SELECT cid, until, bytes FROM leases WHERE cid > ? AND owner = ? ORDER BY cid LIMIT ?'),
    ownersOf: statement('SELECT owner FROM leases WHERE cid = ?'),
    isLeased: statement('SELECT bytes FROM leases WHERE cid = ? LIMIT 1'),
    lose: statement('INSERT INTO lost (cid, kind) VALUES (?, ?)'),
    find: statement('DELETE FROM lost WHERE cid = ?'),
    lossOf: statement('SELECT kind FROM lost WHERE cid = ?'),
    blocks: statement(`
      SELECT cid, max(bytes) AS bytes FROM leases
      WHERE cid > ? AND cid NOT IN (SELECT cid FROM lost) GROUP BY cid ORDER BY cid LIMIT ?`),
    losses: statement(`
      SELECT cid, (SELECT max(bytes) FROM leases WHERE leases.cid = lost.cid) AS bytes FROM lost
      WHERE cid > ? ORDER BY cid LIMIT ?`),
    noteOrphan: statement('INSERT OR IGNORE INTO orphans (cid, found_at) VALUES (?, ?)'),
    orphans: statement('SELECT cid FROM orphans WHERE found_at <= ? ORDER BY found_at, cid LIMIT ?'),
    forgetOrphan: statement('DELETE FROM orphans WHERE cid = ?'),
    totals: statement(`
      SELECT coalesce(sum(n), 0) AS leases, count(*) - count(lost.cid) AS blocks, count(lost.cid) AS lost,
        coalesce(sum(bytes) FILTER (WHERE lost.cid IS NULL), 0) AS bytes
      FROM (SELECT cid, count(*) AS n, max(bytes) AS bytes FROM leases GROUP BY cid) AS held
      LEFT JOIN lost ON lost.cid = held.cid`)
  }
}
