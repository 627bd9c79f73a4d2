/**
 * What gateways are to be told without being asked: blocks that this provider refuses from now on, and blocks that it found
 * damaged or gone. Kept in `notices.sqlite` until the gateway has answered, tried again and again with a growing pause,
 * and forgotten when it leases the block no more; a gateway that never answers finds out by itself, from a renewal or an
 * audit, so what is too much or too old is dropped.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { dayMs, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { CID } from '../content/cid.ts'
import type { Network } from '../net/network.ts'
import { lostMax, refusalsMax, tellGateway } from '../transfer/refusal-protocol.ts'
import type { LeaseStore } from './lease-store.ts'

/** Notices kept, of all gateways together: 100 MB. */
const noticesMax = 500_000
/** A gateway that has not answered for so long is not told. */
const noticeAgeMsMax = 7 * dayMs
/** How long further notices are waited for: blocks are refused and found rotten by the dozen. */
const gatherMs = 200
const pauseMsMin = secondMs
const pauseMsMax = 10 * minuteMs
const tellMsMax = 30 * secondMs
/** Messages to one gateway before the others have their turn. */
const batchesInTurn = 4
/** Gateways told at once. */
const tellWidth = 4

const schema = `
  CREATE TABLE IF NOT EXISTS notices (
    owner TEXT NOT NULL,
    cid BLOB NOT NULL,
    kind INTEGER NOT NULL,
    hand_over INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (owner, cid, kind)
  ) STRICT, WITHOUT ROWID;
  PRAGMA user_version = 1;
`
const kinds = { lost: 0, refused: 1 } as const

export interface NoticesComponents {
  network: Pick<Network, 'request'>
  leases: Pick<LeaseStore, 'ownersOf' | 'get' | 'lossOf'>
  /** The signed refusals of these blocks; undefined: not refused any more. */
  signedOf: (cids: readonly CID[]) => Promise<Array<Uint8Array | undefined>>
  clock: Clock
  random: Random
  log: Log
}

interface Notice {
  cid: CID
  kind: keyof typeof kinds
  handOver: boolean
}

export type NoticesDatabase = DatabaseSync

/** A database that outlives the process that has it, as long as there is who keeps it: where processes are simulated. */
export const noticesInMemory = (): NoticesDatabase => new DatabaseSync(':memory:')

export class Notices {
  readonly #components: NoticesComponents
  readonly #log: Log
  readonly #db: DatabaseSync
  readonly #statements: ReturnType<typeof prepare>
  /** When gateways that did not answer are told again. */
  readonly #pauses = new Map<string, { until: number; failures: number }>()
  readonly #stopping = new AbortController()
  #wake = new AbortController()
  #count: number
  #running: Promise<void> | undefined

  /**
   * @param where the database's path, or the database; `stop` closes it either way
   * @throws HoldfastError `BAD_CONFIG` when a newer version wrote it
   */
  constructor(components: NoticesComponents, where: string | NoticesDatabase) {
    this.#components = components
    this.#log = components.log.child('notices')
    this.#db = typeof where === 'string' ? new DatabaseSync(where) : where
    try {
      this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
      const { user_version: version } = this.#db.prepare('PRAGMA user_version').get() as { user_version: number }
      if (version > 1)
        throw new HoldfastError(
          'BAD_CONFIG',
          `${typeof where === 'string' ? where : 'the database'} was written by a newer version`
        )
      this.#db.exec(schema)
      this.#statements = prepare(this.#db)
      this.#count = this.#counted()
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  /** Notices not delivered yet. */
  get waiting(): number {
    return this.#count
  }

  /** To be told to everybody who leases them: these blocks are damaged or gone. Durable when it resolves. */
  async lost(cids: readonly CID[]): Promise<void> {
    await this.#add(cids, 'lost', false)
  }

  /**
   * To be told to everybody who leases them: these blocks are refused. To be called before their leases are ended.
   * Durable when it resolves.
   *
   * @param handOver whether they are about to be handed over, so that nobody need rebuild them at once
   */
  async refused(cids: readonly CID[], handOver: boolean): Promise<void> {
    await this.#add(cids, 'refused', handOver)
  }

  /** Tells from now on, until `stop`. */
  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the provider stops'))
    await this.#running
    this.#db.close()
  }

  /**
   * Tells every gateway whose turn it is what there is to tell, or the beginning of it.
   *
   * @returns when somebody's turn comes again; undefined: nothing is left to tell
   */
  async turn(signal?: AbortSignal): Promise<number | undefined> {
    const { clock } = this.#components
    this.#forgetOld()
    const owners = this.#owners().filter((owner) => (this.#pauses.get(owner)?.until ?? 0) <= clock.now())
    await forEachLimit(owners, tellWidth, (owner) => this.#tellSome(owner, signal))
    const left = this.#owners()
    for (const owner of this.#pauses.keys()) if (!left.includes(owner)) this.#pauses.delete(owner)
    if (left.length === 0) return undefined
    return Math.min(...left.map((owner) => this.#pauses.get(owner)?.until ?? clock.now()))
  }

  async #add(cids: readonly CID[], kind: Notice['kind'], handOver: boolean): Promise<void> {
    const { leases, clock } = this.#components
    const at = clock.now()
    const rows: Array<{ owner: string; cid: CID }> = []
    for (const cid of cids) for (const owner of await leases.ownersOf(cid)) rows.push({ owner, cid })
    const kept = rows.slice(0, Math.max(0, noticesMax - this.#count))
    if (kept.length < rows.length)
      this.#log.warn('too much is to be told: gateways will find out by themselves', {
        dropped: rows.length - kept.length
      })
    if (kept.length === 0) return
    this.#transaction(() => {
      for (const { owner, cid } of kept) this.#statements.add.run(owner, cid.bytes, kinds[kind], Number(handOver), at)
    })
    this.#count = this.#counted()
    this.#wake.abort('there is something to tell')
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    while (!signal.aborted) {
      try {
        await clock.sleep(gatherMs, signal)
        this.#wake = new AbortController()
        const next = await this.turn(signal)
        const asleep = AbortSignal.any([signal, this.#wake.signal])
        const pauseMs = next === undefined ? noticeAgeMsMax / 7 : Math.max(0, next - clock.now())
        await clock.sleep(pauseMs, asleep).catch((error) => {
          if (!this.#wake.signal.aborted) throw error
        })
      } catch (error) {
        if (signal.aborted) return
        this.#log.error('notices could not be given', { error: messageOf(error) })
        await clock.sleep(minuteMs, signal).catch(() => {}) // it stops
      }
    }
  }

  /** Some batches, until nothing is left, or the gateway does not answer. */
  async #tellSome(owner: string, signal: AbortSignal | undefined): Promise<void> {
    for (let batches = 0; batches < batchesInTurn; batches++) {
      const batch = this.#batchOf(owner)
      if (batch.length === 0) return
      signal?.throwIfAborted()
      try {
        await this.#tell(owner, batch, signal)
      } catch (error) {
        signal?.throwIfAborted()
        this.#postpone(owner, error)
        return
      }
      this.#forget(owner, batch)
      this.#pauses.delete(owner)
    }
  }

  async #tell(owner: string, batch: readonly Notice[], signal: AbortSignal | undefined): Promise<void> {
    const { network, leases, signedOf, clock } = this.#components
    const lost: CID[] = []
    for (const { cid, kind } of batch) {
      if (kind !== 'lost' || (await leases.get(owner, cid)) === undefined) continue
      if ((await leases.lossOf(cid)) !== undefined) lost.push(cid) // else it was brought again
    }
    const refused = batch.filter(({ kind }) => kind === 'refused').map(({ cid }) => cid)
    const signed = await signedOf(refused)
    const refusals = signed.filter((bytes) => bytes !== undefined)
    for (const [at, cid] of refused.entries()) {
      // Taken back before it was told: what has been deleted by then is lost, and not to be so in silence.
      if (signed[at] === undefined && (await leases.get(owner, cid)) === undefined) lost.push(cid)
    }
    if (lost.length === 0 && refusals.length === 0) return
    const late = AbortSignal.any([...(signal ? [signal] : []), this.#stopping.signal])
    await withDeadline(clock, tellMsMax, late, (inner) =>
      tellGateway(
        network,
        { peerId: owner, addresses: [] },
        { refusals, lost, at: clock.now(), handOver: batch[0]!.handOver },
        inner
      )
    )
    this.#log.info('told a gateway', { gateway: owner, refused: refusals.length, lost: lost.length })
  }

  #postpone(owner: string, error: unknown): void {
    const { clock, random } = this.#components
    const failures = (this.#pauses.get(owner)?.failures ?? 0) + 1
    const usualMs = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(failures - 1, 20))
    const pauseMs = Math.round(usualMs * (0.75 + random.next() / 2))
    this.#pauses.set(owner, { until: clock.now() + pauseMs, failures })
    const say = failures % 10 === 1 ? this.#log.info : this.#log.debug
    say('a gateway was not told', { gateway: owner, failures, againInMs: pauseMs, error: messageOf(error) })
  }

  /** What goes into one message: all of it about to be handed over, or none. */
  #batchOf(owner: string): Notice[] {
    const rows = this.#statements.batch.all(owner, refusalsMax + lostMax) as unknown as NoticeRow[]
    const handOver = rows[0]?.hand_over
    // What was refused may turn out to be lost.
    const room = { [kinds.lost]: lostMax - refusalsMax, [kinds.refused]: refusalsMax } as Record<number, number>
    return rows.flatMap((row): Notice[] => {
      if (row.hand_over !== handOver || room[row.kind]! === 0) return []
      room[row.kind]! -= 1
      const kind = row.kind === kinds.lost ? 'lost' : 'refused'
      return [{ cid: CID.decode(row.cid), kind, handOver: row.hand_over === 1 }]
    })
  }

  #forget(owner: string, batch: readonly Notice[]): void {
    this.#transaction(() => {
      for (const { cid, kind } of batch) this.#statements.forget.run(owner, cid.bytes, kinds[kind])
    })
    this.#count = this.#counted()
  }

  #forgetOld(): void {
    const dropped = this.#statements.forgetOld.run(this.#components.clock.now() - noticeAgeMsMax).changes
    if (dropped === 0) return
    this.#log.warn('gateways did not answer for a week: they will find out by themselves', { dropped: Number(dropped) })
    this.#count = this.#counted()
  }

  #owners(): string[] {
    return this.#statements.owners.all().map((row) => (row as { owner: string }).owner)
  }

  #counted(): number {
    return (this.#statements.count.get() as { n: number }).n
  }

  #transaction(work: () => void): void {
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      work()
      this.#db.exec('COMMIT')
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      throw error
    }
  }
}

interface NoticeRow {
  cid: Uint8Array
  kind: number
  hand_over: number
}

function prepare(db: DatabaseSync) {
  const statement = (sql: string): StatementSync => db.prepare(sql)
  return {
    add: statement('INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?, ?)'),
    batch: statement('SELECT cid, kind, hand_over FROM notices WHERE owner = ? ORDER BY cid LIMIT ?'),
    forget: statement('DELETE FROM notices WHERE owner = ? AND cid = ? AND kind = ?'),
    forgetOld: statement('DELETE FROM notices WHERE at < ?'),
    owners: statement('SELECT DISTINCT owner FROM notices'),
    count: statement('SELECT count(*) AS n FROM notices')
  }
}
