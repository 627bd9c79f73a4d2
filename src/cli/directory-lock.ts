/**
 * One process a data directory. The lock is the operating system's, taken through SQLite on an empty file: it is gone
 * the moment its holder is, however that ended, so that there is no stale lock to clean up after `kill -9`.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { systemClock } from '../base/system.ts'

export interface DirectoryLock {
  release: () => Promise<void>
}

const pollMs = 100
const sqliteBusy = 5

function tryLock(file: string): DatabaseSync | undefined {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(file, { timeout: 0 })
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    return database
  } catch (error) {
    database?.close()
    if ((error as { errcode?: number }).errcode === sqliteBusy) return undefined
    throw new HoldfastError('BAD_CONFIG', `cannot lock ${file}: ${messageOf(error)}`, { cause: error })
  }
}

/**
 * Makes the directory (mode 0700) where there is none, and locks it.
 *
 * @param role what runs there: names the lock file and `<role>.pid`
 * @param waitMs how long an earlier holder may take to end
 * @throws HoldfastError `BAD_CONFIG` when it is held by another process, or cannot be made
 */
export async function lockDirectory(
  directory: string,
  role: string,
  waitMs: number,
  signal?: AbortSignal
): Promise<DirectoryLock> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `cannot make the directory ${directory}: ${messageOf(cause)}`, { cause })
  }
  const pidFile = path.join(directory, `${role}.pid`)
  const lockFile = path.join(directory, `${role}.lock`)
  const deadline = systemClock.now() + waitMs
  let lock = tryLock(lockFile)
  while (lock === undefined) {
    if (systemClock.now() >= deadline) {
      const pid = (await readFile(pidFile, 'utf8').catch(() => '')).trim() // only for the message
      throw new HoldfastError(
        'BAD_CONFIG',
        `${directory} is in use by another process${pid === '' ? '' : ` (pid ${pid})`}; stop that one, or choose another --data`
      )
    }
    await systemClock.sleep(pollMs, signal)
    lock = tryLock(lockFile)
  }
  const held = lock
  await writeFile(pidFile, `${process.pid}\n`)
  return {
    release: async () => {
      await rm(pidFile, { force: true })
      held.close()
    }
  }
}

/** Resolves once nobody holds the lock of that role there, or after `waitMs`: then whoever wants it will be told. */
export async function whenUnlocked(
  directory: string,
  role: string,
  waitMs: number,
  signal?: AbortSignal
): Promise<void> {
  const lockFile = path.join(directory, `${role}.lock`)
  const deadline = systemClock.now() + waitMs
  while (existsSync(lockFile) && systemClock.now() < deadline) {
    const lock = tryLock(lockFile)
    if (lock !== undefined) {
      lock.close()
      return
    }
    await systemClock.sleep(pollMs, signal)
  }
}
