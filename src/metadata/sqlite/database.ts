/**
 * A SQLite file with what the index asks of one: durable commits shared by whoever writes at the same time, and
 * failures in our own terms.
 */
import { chmodSync, closeSync, fsyncSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { setImmediate } from 'node:timers'
import { HoldfastError, messageOf } from '../../base/errors.ts'
import { migrate } from '../migrations.ts'

/** How long a write waits for another process (a tool beside a running gateway) before it gives up. */
const busyTimeoutMs = 5000
/** Writes that share a commit: the event loop stands still while they run. */
const groupMax = 128
/** Writes that wait for their turn; each holds its request in memory. */
const waitingMax = 20_000
const cacheKiB = 32 * 1024
/** Pages of the log before they are moved into the file: fewer moves of pages that change again and again. */
const checkpointPages = 4000
const logBytesMax = 64 * 1024 * 1024

interface Write {
  /** Does the work and returns how to tell of its success. */
  run: () => () => void
  reject: (error: unknown) => void
}

export class Database {
  readonly #sqlite: DatabaseSync
  readonly #defer: (work: () => void) => void
  readonly #begin: StatementSync
  readonly #commit: StatementSync
  readonly #savepoint: StatementSync
  readonly #release: StatementSync
  readonly #rollbackTo: StatementSync
  readonly #onRollback: Array<() => void> = []
  #waiting: Write[] = []
  #isScheduled = false
  #isClosed = false

  /**
   * @param path file, made with mode 0600 where there is none; or `:memory:`, which uses no timer and no thread, so
   *   that a seeded run repeats
   * @throws HoldfastError `BAD_CONFIG`, `DAMAGED`
   */
  constructor(path: string) {
    const isFile = path !== ':memory:'
    // A turn of the event loop gathers all requests that are ready; a commit to memory has nothing to share.
    this.#defer = isFile ? (work) => void setImmediate(work) : queueMicrotask
    try {
      if (isFile) makePrivate(path)
      this.#sqlite = new DatabaseSync(path, { timeout: busyTimeoutMs })
    } catch (error) {
      throw cannotOpen(path, error)
    }
    try {
      configure(this.#sqlite, isFile)
      migrate(this.#sqlite)
      this.#begin = this.#sqlite.prepare('BEGIN IMMEDIATE')
      this.#commit = this.#sqlite.prepare('COMMIT')
      this.#savepoint = this.#sqlite.prepare('SAVEPOINT one')
      this.#release = this.#sqlite.prepare('RELEASE one')
      this.#rollbackTo = this.#sqlite.prepare('ROLLBACK TO one')
    } catch (error) {
      this.#sqlite.close()
      throw cannotOpen(path, error)
    }
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** @throws HoldfastError `DAMAGED` where the tables are not those that the migrations made */
  prepare(sql: string): StatementSync {
    try {
      return this.#sqlite.prepare(sql)
    } catch (error) {
      throw resultOf(error) === results.error ? damaged(messageOf(error), error) : translate(error)
    }
  }

  /** Called after any rollback: what was remembered of rows written before may be false. */
  onRollback(forget: () => void): void {
    this.#onRollback.push(forget)
  }

  /** Runs `work`, which may only read. */
  async read<T>(work: () => T): Promise<T> {
    return this.readNow(work)
  }

  readNow<T>(work: () => T): T {
    this.#checkOpen()
    try {
      return work()
    } catch (error) {
      throw translate(error)
    }
  }

  /**
   * Runs `work` in a transaction, after all writes asked for before; resolves once it is on the disk. Writes of the
   * same turn of the event loop share a commit, each behind a savepoint of its own: what one throws undoes only its
   * own work.
   *
   * @throws whatever `work` throws; HoldfastError `OVERLOADED`, `DAMAGED`, `INTERNAL`
   */
  async write<T>(work: () => T): Promise<T> {
    this.#checkOpen()
    if (this.#waiting.length >= waitingMax) throw new HoldfastError('OVERLOADED', 'too many writes wait for the index')
    return new Promise<T>((resolve, reject) => {
      const run = (): (() => void) => {
        const result = work()
        return () => resolve(result)
      }
      this.#waiting.push({ run, reject })
      this.#schedule()
    })
  }

  /** Commits what waits, then lets go of the file. Safe to call twice. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    while (this.#waiting.length > 0) this.#flush()
    this.#sqlite.close()
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#defer(() => {
      this.#isScheduled = false
      this.#flush()
      if (this.#waiting.length > 0) this.#schedule()
    })
  }

  #flush(): void {
    const group = this.#waiting.splice(0, groupMax)
    if (group.length === 0) return
    const outcomes: Array<() => void> = []
    try {
      this.#begin.run()
      for (const write of group) outcomes.push(this.#attempt(write))
      this.#commit.run()
    } catch (error) {
      if (this.#sqlite.isTransaction) this.#sqlite.exec('ROLLBACK')
      this.#forget()
      const failure = translate(error)
      for (const write of group) write.reject(failure)
      return
    }
    for (const tell of outcomes) tell()
  }

  #attempt(write: Write): () => void {
    this.#savepoint.run()
    try {
      const tell = write.run()
      this.#release.run()
      return tell
    } catch (error) {
      // On some failures (disk full, I/O) SQLite ends the whole transaction by itself: then nobody's work is left.
      if (!this.#sqlite.isTransaction) throw error
      this.#rollbackTo.run()
      this.#release.run()
      this.#forget()
      return () => write.reject(translate(error))
    }
  }

  #forget(): void {
    for (const forget of this.#onRollback) forget()
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new HoldfastError('ABORTED', 'the index is closed')
  }
}

/** The file, its log and its shared memory get the mode of the file: nobody else reads wrapped keys. */
function makePrivate(path: string): void {
  let isNew = true
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    isNew = false
  }
  chmodSync(path, 0o600)
  if (!isNew) return
  const directory = openSync(dirname(path), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

function configure(sqlite: DatabaseSync, isFile: boolean): void {
  const mode = sqlite.prepare('PRAGMA journal_mode = WAL').get()?.journal_mode
  if (isFile && mode !== 'wal') {
    throw new HoldfastError('BAD_CONFIG', 'the file system cannot hold a write-ahead log; use a local disk')
  }
  sqlite.exec(`
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA cache_size = -${cacheKiB};
    PRAGMA wal_autocheckpoint = ${checkpointPages};
    PRAGMA journal_size_limit = ${logBytesMax};
  `)
}

const advice =
  'stop the gateway, put back a copy of the index, or move the file away and rebuild it with `holdfast recover`'

/** @param what says which stored value cannot be what was written */
export function damaged(what: string, cause?: unknown): HoldfastError {
  return new HoldfastError('DAMAGED', `the index is damaged (${what}); ${advice}`, { cause })
}

/** https://www.sqlite.org/rescode.html: the low byte is the kind, the rest details it. */
const results = {
  error: 1,
  busy: 5,
  locked: 6,
  ioError: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  notADatabase: 26
} as const
/** Reads that failed or came short; a checksum of the file system that does not hold. */
const unreadable: readonly number[] = [10 | (1 << 8), 10 | (2 << 8), 10 | (32 << 8), 10 | (33 << 8)]

function resultOf(error: unknown): number | undefined {
  if (error === null || typeof error !== 'object' || !('errcode' in error)) return undefined
  return typeof error.errcode === 'number' ? error.errcode : undefined
}

/** SQLite's failures as ours; everything else as it is. */
function translate(error: unknown): unknown {
  if (error instanceof HoldfastError) return error
  // An integer beyond what a number can hold: nothing here writes one.
  if (error instanceof Error && 'code' in error && error.code === 'ERR_OUT_OF_RANGE')
    return damaged(error.message, error)
  const result = resultOf(error)
  if (result === undefined) return error
  const kind = result & 0xff
  if (kind === results.corrupt || kind === results.notADatabase || unreadable.includes(result)) {
    return damaged(messageOf(error), error)
  }
  if (kind === results.busy || kind === results.locked) {
    return new HoldfastError('OVERLOADED', 'another process keeps the index busy', { cause: error })
  }
  const details = { sqlite: result }
  if (kind === results.full) {
    return new HoldfastError('INTERNAL', 'the disk of the index is full; make room on it', { cause: error, details })
  }
  return new HoldfastError('INTERNAL', `the index failed: ${messageOf(error)}`, { cause: error, details })
}

function cannotOpen(path: string, error: unknown): HoldfastError {
  const translated = translate(error)
  const withPath = { cause: error, details: { path } }
  if (!(translated instanceof HoldfastError) || resultOf(error) === results.cannotOpen) {
    return new HoldfastError('BAD_CONFIG', `cannot open the index ${path}: ${messageOf(error)}`, withPath)
  }
  return new HoldfastError(translated.code, `${path}: ${translated.message}`, withPath)
}
