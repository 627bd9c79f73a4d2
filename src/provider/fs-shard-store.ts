/**
 * Blocks as files: `blocks/<two characters>/<cid>`, the characters being the last but two of the CID's text, which
 * are evenly spread. A block is written to `tmp/`, fsynced, renamed into place, and its directory fsynced: what is in
 * `blocks/` is whole, and what `put` acknowledged stays.
 *
 * What a provider stores is read seldom and by chance: kept in the page cache it only drives out what is of use there, and
 * every page costs a copy (and, in a virtual machine that lends its free memory out, a fault in the host: 1.8 CPU-seconds a
 * gigabyte instead of 0.2, measured). So whole blocks go past it, both ways, where memory and file system allow; what is read
 * again soon after comes from the cache.
 */
import * as fs from 'node:fs'
import { mkdir, opendir, rename, rm, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CID } from 'multiformats/cid'
import { syncDirectory } from '../base/durable-file.ts'
import { HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'
import { alignmentBytes, isAligned } from './buffer-pool.ts'
import type { ShardStore } from './shard-store.ts'

/** Files looked at together when listing. */
const statWidth = 64
/** Blocks remembered as read once: the next read of one of them goes through the page cache. */
const readOnceMax = 4096

/** Absent on some systems; then nothing goes past the page cache. */
const directFlag: number | undefined = fs.constants.O_DIRECT
/** A write returns when its bytes are on the disk: one trip to a thread less than `fdatasync` after it. */
const dataSyncFlag: number | undefined = fs.constants.O_DSYNC
const createFlags = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL

/*
 * Plain descriptors, since what asks no disk is done at once rather than by another thread, which costs more than the work:
 * closing what has nothing left to write, opening a directory that was used a moment ago, the length of an open file.
 */
const openFile = promisify(fs.open)
const readFile = promisify(fs.read)
const writeFile = promisify(fs.write)
const syncFile = promisify(fs.fsync)
const syncData = promisify(fs.fdatasync)

export class FsShardStore implements ShardStore {
  readonly #blocksPath: string
  readonly #tmpPath: string
  readonly #directories = new Map<string, Promise<void>>()
  readonly #syncs = new Map<string, DirectorySync>()
  /** CIDs, least recently read first. */
  readonly #readOnce = new Set<string>()
  #written = 0
  #isDirectPossible = directFlag !== undefined

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
      await this.#write(temporary, bytes)
      await rename(temporary, path)
      await this.#sync(directory)
    } catch (error) {
      await rm(temporary, { force: true })
      throw asNoSpace(error)
    }
  }

  async get(cid: CID, into?: Uint8Array): Promise<Uint8Array | undefined> {
    return await orUndefined(async () => {
      const { path } = this.#place(cid)
      const bytes = this.#goesPastCache(cid, into) ? await this.#readDirect(path, into) : undefined
      return bytes ?? (await read(path, into))
    })
  }

  async size(cid: CID): Promise<number | undefined> {
    return await orUndefined(async () => (await stat(this.#place(cid).path)).size)
  }

  async delete(cid: CID): Promise<void> {
    // Not fsynced: a block that comes back after a crash is found to be an orphan, and deleted again.
    await orUndefined(() => unlink(this.#place(cid).path))
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

  /** A block read twice within a while is asked for by many: it is worth a place in the page cache. */
  #goesPastCache(cid: CID, into: Uint8Array | undefined): into is Uint8Array {
    if (into === undefined || !isAligned(into) || !this.#isDirectPossible) return false
    const key = cid.toString()
    if (this.#readOnce.delete(key)) {
      this.#readOnce.add(key)
      return false
    }
    this.#readOnce.add(key)
    if (this.#readOnce.size > readOnceMax) for (const oldest of this.#readOnce) return this.#readOnce.delete(oldest)
    return true
  }

  /** `undefined` where it can't be read that way. */
  async #readDirect(path: string, into: Uint8Array): Promise<Uint8Array | undefined> {
    const fd = await this.#unlessDirectFails(() => openFile(path, fs.constants.O_RDONLY | directFlag!))
    if (fd === undefined) return undefined
    try {
      const { size } = fs.fstatSync(fd)
      const length = Math.ceil(size / alignmentBytes) * alignmentBytes
      if (length > into.length) return undefined
      const done = await this.#unlessDirectFails(() => readFile(fd, into, 0, length, 0))
      return done?.bytesRead === size ? into.subarray(0, size) : undefined
    } finally {
      fs.closeSync(fd)
    }
  }

  async #write(path: string, bytes: Uint8Array): Promise<void> {
    if (this.#isDirectPossible && bytes.length > 0 && isAligned(bytes)) {
      const done = await this.#unlessDirectFails(async () => {
        await write(path, bytes, directFlag!)
        return true
      })
      if (done === true) return
      await rm(path, { force: true })
    }
    await write(path, bytes)
  }

  /** Not every file system goes past the page cache; the first refusal is remembered. */
  async #unlessDirectFails<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      if (!notDirectCodes.has((error as NodeJS.ErrnoException).code ?? '')) throw error
      this.#isDirectPossible = false
      return undefined
    }
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
    const running = syncWarmDirectory(this.#path)
    this.#running = running
    try {
      await running
    } finally {
      if (this.#running === running) this.#running = undefined
    }
  }
}

/** Durable when it resolves. */
async function write(path: string, bytes: Uint8Array, flags = 0): Promise<void> {
  const fd = await openFile(path, createFlags | (dataSyncFlag ?? 0) | flags, 0o666)
  try {
    let length = 0
    while (length < bytes.length)
      length += (await writeFile(fd, bytes, length, bytes.length - length, length)).bytesWritten
    if (dataSyncFlag === undefined) await syncData(fd)
  } finally {
    fs.closeSync(fd)
  }
}

async function read(path: string, into: Uint8Array | undefined): Promise<Uint8Array> {
  const fd = await openFile(path, fs.constants.O_RDONLY)
  try {
    // Whatever grew beyond a block's size is damaged, and shows as such when it is hashed.
    const size = Math.min(fs.fstatSync(fd).size, limits.shardBytesMax + 1)
    const bytes = into !== undefined && size <= into.length ? into : Buffer.allocUnsafeSlow(size)
    let length = 0
    while (length < size) {
      const { bytesRead } = await readFile(fd, bytes, length, size - length, length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    return bytes.subarray(0, length)
  } finally {
    fs.closeSync(fd)
  }
}

/** Makes renames in a directory durable that was used a moment ago. */
async function syncWarmDirectory(path: string): Promise<void> {
  const fd = fs.openSync(path, 'r')
  try {
    await syncFile(fd)
  } finally {
    fs.closeSync(fd)
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

/** What `open`, `read` and `write` answer where there is no way past the page cache. */
const notDirectCodes = new Set(['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'])
const noSpaceCodes = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

function asNoSpace(error: unknown): unknown {
  return noSpaceCodes.has((error as NodeJS.ErrnoException).code ?? '')
    ? new HoldfastError('NO_SPACE', 'the disk is full', { cause: error })
    : error
}
