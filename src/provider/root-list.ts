/**
 * The roots a provider was asked to announce, over restarts: DHT records are kept by others for two days at most, and
 * by nobody's memory here. A line a CID; losing the last few lines in a crash loses nothing but announcements.
 */
import { appendFile, readFile } from 'node:fs/promises'
import type { CID } from 'multiformats/cid'
import { writeFileDurably } from '../base/durable-file.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { parseCid } from '../content/cid.ts'

/** Roots kept, newest last; a provider cannot announce more within a record's life. */
const rootsMax = 1000

export class RootList {
  readonly #path: string
  readonly #log: Log
  #roots = new Map<string, CID>()
  #appended = 0
  /** Writes, one after another. */
  #writing: Promise<void> = Promise.resolve()

  private constructor(path: string, log: Log) {
    this.#path = path
    this.#log = log
  }

  static async open(path: string, log: Log): Promise<RootList> {
    const list = new RootList(path, log)
    try {
      for (const line of (await readFile(path, 'utf8')).split('\n')) list.#read(line)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    return list
  }

  /** Oldest first. */
  get roots(): CID[] {
    return [...this.#roots.values()]
  }

  has(cid: CID): boolean {
    return this.#roots.has(cid.toString())
  }

  add(cid: CID): void {
    const key = cid.toString()
    const isKnown = this.#roots.has(key)
    this.#keep(key, cid)
    if (!isKnown) this.#write(key)
  }

  /** Resolves when what was added is with the file system. */
  async close(): Promise<void> {
    await this.#writing
  }

  #read(line: string): void {
    try {
      if (line !== '') this.#keep(line, parseCid(line))
    } catch {
      // a line that a crash cut short
    }
  }

  #keep(key: string, cid: CID): void {
    this.#roots.delete(key)
    this.#roots.set(key, cid)
    if (this.#roots.size <= rootsMax) return
    const [oldest] = this.#roots.keys()
    this.#roots.delete(oldest!)
  }

  #write(key: string): void {
    this.#appended += 1
    const isDue = this.#appended > rootsMax // the file is rewritten before it has grown to more than twice the list
    if (isDue) this.#appended = 0
    this.#writing = this.#writing
      .then(() =>
        isDue
          ? writeFileDurably(this.#path, [...this.#roots.keys(), ''].join('\n'))
          : appendFile(this.#path, `${key}\n`)
      )
      .catch((error) =>
        this.#log.warn('a root will not be announced after a restart', { cid: key, error: messageOf(error) })
      )
  }
}
