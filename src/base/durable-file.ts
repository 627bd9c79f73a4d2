/** Files that survive a crash whole or not at all. */
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes renames and removals in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

let written = 0

/** A name beside `path` that no other writer of this machine uses. */
export function temporaryName(path: string): string {
  written += 1
  return `${path}.${process.pid}.${written}.tmp`
}

/** Replaces a small file: after a crash it has the old bytes or the new ones. `mode` such as 0o600. */
export async function writeFileDurably(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
  const temporary = temporaryName(path)
  try {
    const handle = await open(temporary, 'w', mode)
    try {
      await handle.writeFile(bytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDirectory(dirname(path))
}
