/** The gateway's master key: 32 random bytes that wrap every other key it has. Who loses it loses what it stored. */
import { link, open, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { syncDirectory } from '../base/durable-file.ts'
import { HoldfastError } from '../base/errors.ts'
import type { Random } from '../base/random.ts'
import { keyBytes } from '../object/keys.ts'

/**
 * Reads the key kept in a file, or makes one and keeps it there (mode 0600, durable).
 *
 * @throws HoldfastError `BAD_CONFIG` when the file is no such key, or others may read it
 */
export async function loadMasterKey(file: string, random: Random): Promise<Uint8Array> {
  const existing = await readKey(file)
  if (existing !== undefined) return existing
  const key = random.bytes(keyBytes)
  const temporary = `${file}.${process.pid}.tmp`
  try {
    const handle = await open(temporary, 'w', 0o600)
    try {
      await handle.writeFile(key)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(temporary, file) // unlike rename, this never replaces a key
  } finally {
    await rm(temporary, { force: true })
  }
  await syncDirectory(path.dirname(file))
  return key
}

async function readKey(file: string): Promise<Uint8Array | undefined> {
  try {
    const { mode, size } = await stat(file)
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new HoldfastError('BAD_CONFIG', `${file} may be read by others; make it private: chmod 600 ${file}`)
    }
    if (size !== keyBytes)
      throw new HoldfastError('BAD_CONFIG', `${file} is not a master key: it has ${size} bytes, not ${keyBytes}`)
    return await readFile(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
