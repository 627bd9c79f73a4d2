/**
 * What objects and parts are made of: segments with their shards, shared by all that name them, dropped with the last
 * one. What a drop means for the release queue is in the triggers of `migrations.ts`.
 */
import { check, HoldfastError, messageOf } from '../../base/errors.ts'
import { type Log, silentLog } from '../../base/log.ts'
import { type CID, cidOfShard } from '../../content/cid.ts'
import type { Committed, NewContent } from '../index-store.ts'
import { type SegmentRecord, type ShardRecord, type ShardState, type StoredSegment, shardStates } from '../records.ts'
import { type Database, damaged } from './database.ts'
import { bytes, integer, type Row, shardOf, stateCodes } from './rows.ts'

/** Segments dropped in one transaction: an object of a terabyte must not stop the gateway while it goes. */
const reapSegmentsMax = 64

/** Peer ids as the small numbers that shard rows hold. */
export class Providers {
  readonly #ids = new Map<string, number>()
  readonly #find
  readonly #insert

  constructor(database: Database) {
    this.#find = database.prepare('SELECT id FROM providers WHERE peer_id = ?')
    this.#insert = database.prepare('INSERT INTO providers (peer_id) VALUES (?)')
    database.onRollback(() => this.#ids.clear())
  }

  find(peerId: string): number | undefined {
    const known = this.#ids.get(peerId)
    if (known !== undefined) return known
    const row = this.#find.get(peerId)
    if (row === undefined) return undefined
    const id = integer(row, 'id')
    this.#ids.set(peerId, id)
    return id
  }

  /** Only within a write. */
  findOrAdd(peerId: string): number {
    const known = this.find(peerId)
    if (known !== undefined) return known
    check(peerId !== '' && peerId.isWellFormed() && !peerId.includes('\0'), 'not a peer id')
    const id = Number(this.#insert.run(peerId).lastInsertRowid)
    this.#ids.set(peerId, id)
    return id
  }
}

const emptyShard = cidOfShard(new Uint8Array(0))
/** Of the segments that share a block, so many are looked at for an older lease. */
const sharedRowsMax = 256

/** Segments and shards, whoever they belong to. The methods that write must be called within a write. */
export class Segments {
  readonly #providers: Providers
  readonly #select
  readonly #selectShards
  readonly #insert
  readonly #insertShard
  readonly #shorten
  readonly #isUsed
  readonly #deleteShards
  readonly #delete

  constructor(database: Database, providers: Providers) {
    this.#providers = providers
    this.#select = database.prepare('SELECT id, length, k, m, nonce FROM segments WHERE id = ?')
    this.#selectShards = database.prepare(
      `SELECT h.idx, h.cid, p.peer_id, h.state, h.lease_until, h.last_proof
       FROM shards h LEFT JOIN providers p ON p.id = h.provider_id WHERE h.segment_id = ? ORDER BY h.idx`
    )
    this.#insert = database.prepare(
      'INSERT INTO segments (length, k, m, nonce, shard_bytes, lost) VALUES (?, ?, ?, ?, ?, ?)'
    )
    this.#insertShard = database.prepare(
      `INSERT INTO shards (segment_id, idx, cid, provider_id, state, lease_until, last_proof)
       VALUES (?, ?, ?, ?, ?, ?, ?)`
    )
    this.#shorten = database.prepare(
      `UPDATE shards SET lease_until = ?3 WHERE (segment_id, idx) = (
         SELECT segment_id, idx FROM (
           SELECT segment_id, idx, provider_id, state, lease_until FROM shards
           WHERE substr(cid, -6) = substr(?1, -6) AND cid = ?1 LIMIT ${sharedRowsMax})
         WHERE provider_id = ?2 AND lease_until > ?3 AND state IN (0, 1, 2, 6) LIMIT 1)`
    )
    this.#isUsed = database.prepare(
      `SELECT EXISTS (SELECT 1 FROM content_segments WHERE segment_id = ?1)
         OR EXISTS (SELECT 1 FROM part_segments WHERE segment_id = ?1) AS used`
    )
    this.#deleteShards = database.prepare('DELETE FROM shards WHERE segment_id = ?')
    this.#delete = database.prepare('DELETE FROM segments WHERE id = ?')
  }

  get(id: number): StoredSegment | undefined {
    const row = this.#select.get(id)
    return row === undefined ? undefined : this.load(row)
  }

  /** @param row with the columns of `segments` */
  load(row: Row): StoredSegment {
    const id = integer(row, 'id')
    const shards = this.#selectShards.all(id)
    const segment: StoredSegment = {
      id,
      length: integer(row, 'length'),
      k: integer(row, 'k'),
      m: integer(row, 'm'),
      nonce: bytes(row, 'nonce'),
      shards: shards.map(shardOf)
    }
    const isWhole = shards.length === segment.k + segment.m && shards.every((shard, index) => shard.idx === index)
    if (!isWhole) throw damaged(`segment ${id} lacks shards`)
    return segment
  }

  /** @returns the new segment's id */
  add(segment: SegmentRecord): number {
    checkSegment(segment)
    const { length, k, m, nonce, shards } = segment
    const lost = shards.filter((shard) => isLost(shard)).length
    const id = Number(this.#insert.run(length, k, m, nonce, Math.ceil(length / k), lost).lastInsertRowid)
    for (const [index, { cid, provider, state, leaseUntil, lastProof }] of shards.entries()) {
      const providerId = provider === undefined ? null : this.#providers.findOrAdd(provider)
      if (providerId !== null) this.doubtLease(cid, providerId, leaseUntil)
      this.#insertShard.run(id, index, cid.bytes, providerId, stateCodes[state], leaseUntil, lastProof ?? null)
    }
    return id
  }

  /**
   * The provider took the block again for another segment, under a lease until then: whatever is written of an older
   * one may be gone with its table of leases. One row that says so is enough for a renewal soon, even if what the block
   * was taken for now is released before.
   */
  doubtLease(cid: CID, providerId: number, leaseUntil: number): void {
    // Every small object has the empty shard, and nobody ever reads it.
    if (cid.equals(emptyShard)) return
    this.#shorten.run(cid.bytes, providerId, leaseUntil)
  }

  /** Drops the segment if no content and no part names it; the trigger queues its shards for release. */
  dropUnused(id: number): void {
    if (this.#isUsed.get(id)?.used !== 0) return
    this.#deleteShards.run(id)
    this.#delete.run(id)
  }
}

const lostStates: readonly ShardState[] = ['missing', 'wrong', 'withdrawn', 'unknown']

const isLost = ({ state }: ShardRecord): boolean => lostStates.includes(state)

function checkSegment({ length, k, m, shards }: SegmentRecord): void {
  check(Number.isSafeInteger(length) && length > 0, 'a segment has at least one byte')
  check(Number.isSafeInteger(k) && k >= 1 && Number.isSafeInteger(m) && m >= 0, `no such code: ${k}+${m}`)
  check(shards.length === k + m, `a segment of code ${k}+${m} has ${k + m} shards, not ${shards.length}`)
  for (const { provider, state } of shards) {
    check(shardStates.includes(state), 'no such shard state')
    check(provider !== undefined || state === 'unknown', `a shard without a provider is unknown, not ${state}`)
  }
}

/** Contents by id, and who reads them. The methods that write must be called within a write. */
export class Contents {
  readonly #database: Database
  readonly #segments: Segments
  readonly #isServing: boolean
  readonly #log: Log
  readonly #pins = new Map<number, number>()
  /** Contents that are to be dropped as soon as their last reader lets go. */
  readonly #awaited = new Set<number>()
  #isReaping = false
  readonly #select
  readonly #insert
  readonly #setDoomed
  readonly #delete
  readonly #isNamed
  readonly #addSegment
  readonly #share
  readonly #ids
  readonly #some
  readonly #removeSegment
  readonly #data
  readonly #blocks
  readonly #doomed

  constructor(database: Database, segments: Segments, options: { isServing: boolean; log?: Log }) {
    this.#database = database
    this.#segments = segments
    this.#isServing = options.isServing
    this.#log = options.log ?? silentLog
    this.#select = database.prepare('SELECT is_doomed FROM contents WHERE id = ?')
    this.#insert = database.prepare('INSERT INTO contents (is_doomed) VALUES (?)')
    this.#setDoomed = database.prepare('UPDATE contents SET is_doomed = ?2 WHERE id = ?1 AND is_doomed <> ?2')
    this.#delete = database.prepare('DELETE FROM contents WHERE id = ?')
    this.#isNamed = database.prepare('SELECT EXISTS (SELECT 1 FROM objects WHERE content_id = ?) AS named')
    this.#addSegment = database.prepare(
      'INSERT INTO content_segments (content_id, is_block, position, segment_id) VALUES (?, ?, ?, ?)'
    )
    this.#share = database.prepare(
      `INSERT INTO content_segments (content_id, is_block, position, segment_id)
       SELECT ?2, is_block, position, segment_id FROM content_segments WHERE content_id = ?1 AND is_block = 0`
    )
    this.#ids = database.prepare(
      'SELECT segment_id FROM content_segments WHERE content_id = ? AND is_block = ? ORDER BY position'
    )
    this.#some = database.prepare(
      'SELECT is_block, position, segment_id FROM content_segments WHERE content_id = ? LIMIT ?'
    )
    this.#removeSegment = database.prepare(
      'DELETE FROM content_segments WHERE content_id = ? AND is_block = ? AND position = ?'
    )
    // From the segment that byte `start` falls into: positions are offsets, so that is the last at or before it.
    this.#data = database.prepare(
      `SELECT c.position, s.id, s.length, s.k, s.m, s.nonce
       FROM content_segments c JOIN segments s ON s.id = c.segment_id
       WHERE c.content_id = ?1 AND c.is_block = 0 AND c.position < ?3 AND c.position + s.length > ?2
         AND c.position >= coalesce((SELECT max(position) FROM content_segments
           WHERE content_id = ?1 AND is_block = 0 AND position <= ?2), 0)
       ORDER BY c.position`
    )
    this.#blocks = database.prepare(
      `SELECT s.id, s.length, s.k, s.m, s.nonce
       FROM content_segments c JOIN segments s ON s.id = c.segment_id
       WHERE c.content_id = ? AND c.is_block = 1 ORDER BY c.position`
    )
    this.#doomed = database.prepare('SELECT id FROM contents WHERE is_doomed = 1 AND id > ? ORDER BY id LIMIT 1')
  }

  /** @throws HoldfastError `BAD_INPUT` when the segments are not `size` bytes together */
  add(size: number, { segments, blocks }: NewContent): Committed {
    const contentId = this.#create()
    let offset = 0
    const segmentIds = segments.map((segment) => {
      const id = this.#segments.add(segment)
      this.#addSegment.run(contentId, 0, offset, id)
      offset += segment.length
      return id
    })
    check(offset === size, `the segments hold ${offset} bytes, the object ${size}`)
    return { contentId, segmentIds, blockIds: this.#addBlocks(contentId, blocks) }
  }

  /**
   * The same data under other blocks, or the very same content where there are none.
   *
   * @throws HoldfastError `NO_SUCH_KEY` when the source is gone
   */
  share(sourceId: number, blocks: SegmentRecord[] | undefined): Committed {
    if (!this.#isWhole(sourceId)) throw new HoldfastError('NO_SUCH_KEY', 'the source of the copy was deleted meanwhile')
    const segmentIds = this.#segmentIds(sourceId, 0)
    if (blocks === undefined) {
      // It may have lost its last name while the caller held it: it has one again.
      this.#setDoomed.run(sourceId, 0)
      return { contentId: sourceId, segmentIds, blockIds: this.#segmentIds(sourceId, 1) }
    }
    const contentId = this.#create()
    this.#share.run(sourceId, contentId)
    return { contentId, segmentIds, blockIds: this.#addBlocks(contentId, blocks) }
  }

  /** Makes a content of segments that are there already, in this order, and new blocks. */
  assemble(size: number, segments: ReadonlyArray<{ id: number; length: number }>, blocks: SegmentRecord[]): Committed {
    const contentId = this.#create()
    let offset = 0
    for (const { id, length } of segments) {
      this.#addSegment.run(contentId, 0, offset, id)
      offset += length
    }
    check(offset === size, `the parts hold ${offset} bytes, the object ${size}`)
    return { contentId, segmentIds: segments.map(({ id }) => id), blockIds: this.#addBlocks(contentId, blocks) }
  }

  /** Takes over segments that lost their owner, so that they are dropped: now, or piecemeal if they are many. */
  discard(segmentIds: readonly number[]): void {
    if (segmentIds.length === 0) return
    const contentId = Number(this.#insert.run(1).lastInsertRowid)
    for (const [ordinal, id] of segmentIds.entries()) this.#addSegment.run(contentId, 0, ordinal, id)
    this.retire(contentId)
  }

  /** Drops the content unless an object names it or a reader holds it. */
  retire(contentId: number): void {
    if (this.#isNamed.get(contentId)?.named !== 0) return
    const mayReap = this.#mayReap(contentId)
    if (mayReap && this.#reap(contentId)) return
    this.#setDoomed.run(contentId, 1)
    if (mayReap) this.#reapLater()
    else this.#awaited.add(contentId)
  }

  data(contentId: number, start: number, end: number): Array<{ offset: number; segment: StoredSegment }> {
    if (end <= start || !this.#isWhole(contentId)) return []
    return this.#data
      .all(contentId, start, end)
      .map((row) => ({ offset: integer(row, 'position'), segment: this.#segments.load(row) }))
  }

  blocks(contentId: number): StoredSegment[] {
    if (!this.#isWhole(contentId)) return []
    return this.#blocks.all(contentId).map((row) => this.#segments.load(row))
  }

  /** @throws HoldfastError `NO_SUCH_KEY` */
  pin(contentId: number): () => void {
    if (!this.#isWhole(contentId)) throw new HoldfastError('NO_SUCH_KEY', 'the object was deleted meanwhile')
    this.#pins.set(contentId, (this.#pins.get(contentId) ?? 0) + 1)
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      const left = this.#pins.get(contentId)! - 1
      if (left > 0) {
        this.#pins.set(contentId, left)
        return
      }
      this.#pins.delete(contentId)
      if (this.#awaited.delete(contentId)) this.#reapLater()
    }
  }

  /** Drops what an earlier process left: its readers are gone with it. */
  sweep(): Promise<void> {
    return this.#isServing ? this.#reapNext() : Promise.resolve()
  }

  #create(): number {
    return Number(this.#insert.run(0).lastInsertRowid)
  }

  #addBlocks(contentId: number, blocks: SegmentRecord[]): number[] {
    return blocks.map((block, ordinal) => {
      const id = this.#segments.add(block)
      this.#addSegment.run(contentId, 1, ordinal, id)
      return id
    })
  }

  #segmentIds(contentId: number, isBlock: 0 | 1): number[] {
    return this.#ids.all(contentId, isBlock).map((row) => integer(row, 'segment_id'))
  }

  /** What is doomed may be half dropped already, unless a reader holds it. */
  #isWhole(contentId: number): boolean {
    const row = this.#select.get(contentId)
    return row !== undefined && (row.is_doomed === 0 || this.#pins.has(contentId))
  }

  /** Where another process serves, its readers are not known here: it reaps. */
  #mayReap(contentId: number): boolean {
    return this.#isServing && !this.#pins.has(contentId)
  }

  /** Drops some of the content's segments, and the content with the last. @returns whether that was all */
  #reap(contentId: number): boolean {
    const rows = this.#some.all(contentId, reapSegmentsMax)
    for (const row of rows) {
      this.#removeSegment.run(contentId, integer(row, 'is_block'), integer(row, 'position'))
      this.#segments.dropUnused(integer(row, 'segment_id'))
    }
    if (rows.length === reapSegmentsMax) return false
    this.#delete.run(contentId)
    return true
  }

  #reapLater(): void {
    if (this.#isReaping || !this.#isServing || this.#database.isClosed) return
    this.#reapNext().catch((error: unknown) => {
      // What is left stays marked: the next deletion or start takes it up again.
      this.#log.warn('could not drop deleted content', { error: messageOf(error) })
    })
  }

  async #reapNext(): Promise<void> {
    this.#isReaping = true
    // Known to be over within the transaction that finds nothing more: whoever comes later starts anew.
    const round = (): boolean => {
      this.#isReaping = this.#reapOne()
      return this.#isReaping
    }
    try {
      while (!this.#database.isClosed && (await this.#database.write(round))) {
        // Each round is a transaction of its own, between which others have their turn.
      }
    } catch (error) {
      this.#isReaping = false
      throw error
    }
  }

  /** @returns whether there may be more to do */
  #reapOne(): boolean {
    let afterId = 0
    for (;;) {
      const row = this.#doomed.get(afterId)
      if (row === undefined) return false
      const id = integer(row, 'id')
      if (this.#mayReap(id)) {
        this.#reap(id)
        return true
      }
      afterId = id
    }
  }
}
