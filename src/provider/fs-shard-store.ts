/**
 * Blocks as files: `blocks/<two characters>/<cid>`, the characters being the last but two of the CID's text, which
 * are evenly spread. A block is written to `tmp/`, fsynced, renamed into place, and its directory fsynced: what is in
 * `blocks/` is whole, and what `put` acknowledged stays.
 */
import { mkdir, open, opendir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CID } from 'multiformats/cid'
import { syncDirectory } from '../base/durable-file.ts'
import { HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'
import type { ShardStore } from './shard-store.ts'

/** Files looked at together when listing. */
const statWidth = 64

export class FsShardStore implements ShardStore {
  readonly #blocksPath: string
  readonly #tmpPath: string
  readonly #directories = new Map<string, Promise<void>>()
  readonly #syncs = new Map<string, DirectorySync>()
  #written = 0

  private constructor(path: string) {
    this.#blocksPath = join(path, 'blocks')
    this.#tmpPath = join(path, 'tmp')
  }

  /** Opens the store in a directory, which is made if need be, and removes what a crash left half-written. */
  static async open(path: string): Promise<FsShardStore> {
    const store = new FsShardStore(path)
    await rm(store.#tmpPath, { recursive: true, force: true })
    await mkdir(store.#tmpPath, { recursive: true })
    await mkdir(store.#blocksPath, { recursive: true })
    await syncDirectory(path)
    return store
  }

  async put(cid: CID, bytes: Uint8Array): Promise<void> {
    const { directory, path } = this.#place(cid)
    const temporary = join(this.#tmpPath, String(this.#written++))
    try {
      await this.#ensureDirectory(directory)
      await writeFile(temporary, bytes)
      await rename(temporary, path)
      await this.#sync(directory)
    } catch (error) {
      await rm(temporary, { force: true })
      throw asNoSpace(error)
    }
  }

  async get(cid: CID): Promise<Uint8Array | undefined> {
    return await orUndefined(async () => {
      const handle = await open(this.#place(cid).path, 'r')
      try {
        const { size } = await handle.stat()
        // Whatever grew beyond a block's size is damaged, and shows as such when it is hashed.
        const bytes = Buffer.allocUnsafeSlow(Math.min(size, limits.shardBytesMax + 1))
        let length = 0
        while (length < bytes.length) {
          const { bytesRead } = await handle.read(bytes, length, bytes.length - length, length)
          if (bytesRead === 0) break
          length += bytesRead
        }
        return bytes.subarray(0, length)
      } finally {
        await handle.close()
      }
    })
  }

  async size(cid: CID): Promise<number | undefined> {
    return await orUndefined(async () => (await stat(this.#place(cid).path)).size)
  }

  async delete(cid: CID): Promise<void> {
    // Not fsynced: a block that comes back after a crash is found to be an orphan, and deleted again.
    await rm(this.#place(cid).path, { force: true })
  }

  async *list(): AsyncGenerator<{ cid: CID; bytes: number }> {
    for await (const directory of await opendir(this.#blocksPath)) {
      if (!directory.isDirectory()) continue
      let batch: CID[] = []
      for await (const { name } of await opendir(join(this.#blocksPath, directory.name))) {
        const cid = cidOfName(name)
        if (cid === undefined || this.#place(cid).directory !== join(this.#blocksPath, directory.name)) continue
        batch.push(cid)
        if (batch.length < statWidth) continue
        yield* await this.#sized(batch)
        batch = []
      }
      yield* await this.#sized(batch)
    }
  }

  async #sized(cids: readonly CID[]): Promise<Array<{ cid: CID; bytes: number }>> {
    const sizes = await Promise.all(cids.map((cid) => this.size(cid)))
    return cids.flatMap((cid, i) => (sizes[i] === undefined ? [] : [{ cid, bytes: sizes[i] }])) // else deleted meanwhile
  }

  #place(cid: CID): { directory: string; path: string } {
    const name = cid.toString()
    const directory = join(this.#blocksPath, name.slice(-3, -1))
    return { directory, path: join(directory, name) }
  }

  /** Makes a directory once, durably. */
  async #ensureDirectory(directory: string): Promise<void> {
    let made = this.#directories.get(directory)
    if (made === undefined) {
      made = mkdir(directory, { recursive: true }).then((created) =>
        created === undefined ? undefined : syncDirectory(this.#blocksPath)
      )
      this.#directories.set(directory, made)
      made.catch(() => this.#directories.delete(directory)) // tried again with the next block
    }
    await made
  }

  async #sync(directory: string): Promise<void> {
    let sync = this.#syncs.get(directory)
    if (sync === undefined) {
      sync = new DirectorySync(directory)
      this.#syncs.set(directory, sync)
    }
    await sync.run()
    if (sync.isIdle) this.#syncs.delete(directory)
  }
}

/** Lets those who want the same directory synced share: whoever comes while one runs gets the next one. */
class DirectorySync {
  readonly #path: string
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined

  constructor(path: string) {
    this.#path = path
  }

  get isIdle(): boolean {
    return this.#running === undefined
  }

  async run(): Promise<void> {
    if (this.#running === undefined) return await this.#start()
    this.#next ??= this.#running.then(
      () => this.#startNext(),
      () => this.#startNext() // that failure is news to those who waited for that one
    )
    await this.#next
  }

  async #startNext(): Promise<void> {
    this.#next = undefined
    await this.#start()
  }

  async #start(): Promise<void> {
    const running = syncDirectory(this.#path)
    this.#running = running
    try {
      await running
    } finally {
      if (this.#running === running) this.#running = undefined
    }
  }
}

async function writeFile(path: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(path, 'wx')
  try {
    await handle.writeFile(bytes)
    await handle.datasync()
  } finally {
    await handle.close()
  }
}

function cidOfName(name: string): CID | undefined {
  try {
    return CID.parse(name)
  } catch {
    return undefined // somebody else's file
  }
}

async function orUndefined<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

const noSpaceCodes = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

function asNoSpace(error: unknown): unknown {
  return noSpaceCodes.has((error as NodeJS.ErrnoException).code ?? '')
    ? new HoldfastError('NO_SPACE', 'the disk is full', { cause: error })
    : error
}
