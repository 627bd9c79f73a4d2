/**
 * Denylists that the operator has named: read at the start and whenever the file has changed, by a look every two seconds,
 * and sooner where the system says so. What cannot be read leaves what it said before in force.
 */
import { type FSWatcher, watch } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { dirname, isAbsolute } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { check, HoldfastError, messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type Denylist, denylistBytesMax, parseDenylist } from './denylist.ts'
import { KeyedLock } from './keyed-lock.ts'
import type { ListView, RefusalStore } from './refusal-store.ts'

const lookEveryMs = 2 * secondMs
/** A file that is still being written is not read: its rules would end and begin again. */
const quietMs = 200
const listsMax = 64
/** Rules written down in one transaction. */
const rulesAtOnce = 2000

export interface DenylistWatcherComponents {
  store: RefusalStore
  /** Told when rules may have changed. */
  onChange: () => void
  clock: Clock
  log: Log
  /** Gives others their turn of the event loop. */
  pause: () => Promise<void>
}

export class DenylistWatcher {
  readonly #components: DenylistWatcherComponents
  readonly #log: Log
  /** What a file was like when it was read, by path. */
  readonly #seen = new Map<string, string>()
  readonly #watchers = new Map<string, FSWatcher>()
  readonly #locks = new KeyedLock()
  readonly #stopping = new AbortController()
  #wake = new AbortController()
  #running: Promise<void> | undefined

  constructor(components: DenylistWatcherComponents) {
    this.#components = components
    this.#log = components.log.child('denylists')
  }

  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the provider stops'))
    await this.#running
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
  }

  /**
   * Reads a list, and watches it from now on; it is in force when it resolves.
   *
   * @throws HoldfastError `BAD_INPUT` where it cannot be read: then it is not remembered, unless it was before
   */
  async add(path: string, atOnce: boolean): Promise<ListView> {
    const { store } = this.#components
    check(isAbsolute(path), 'a list is named by its absolute path')
    const files = store.listFiles()
    const isKnown = files.some((list) => list.path === path)
    check(isKnown || files.length < listsMax, `at most ${listsMax} lists`)
    return await this.#locks.run(path, async () => {
      const looks = await appearance(path)
      const list = await this.#parse(path)
      await this.#take(store.addList(path, atOnce), list)
      this.#seen.set(path, looks)
      this.#watch(path)
      return store.lists().find((one) => one.path === path)!
    })
  }

  /** @returns whether it was known */
  async remove(path: string): Promise<boolean> {
    return await this.#locks.run(path, async () => {
      this.#watchers.get(path)?.close()
      this.#watchers.delete(path)
      this.#seen.delete(path)
      return this.#components.store.dropList(path)
    })
  }

  /** Reads again what has changed. */
  async look(): Promise<void> {
    for (const { id, path } of this.#components.store.listFiles()) {
      await this.#locks.run(path, () => this.#lookAt(id, path))
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    while (!signal.aborted) {
      this.#wake = new AbortController()
      try {
        await this.look()
        const asleep = AbortSignal.any([signal, this.#wake.signal])
        await clock.sleep(lookEveryMs, asleep).catch(() => {}) // woken, or it stops
        await clock.sleep(quietMs, signal) // whoever wakes us all the time gains nothing
      } catch (error) {
        if (!signal.aborted) this.#log.error('denylists could not be looked at', { error: messageOf(error) })
        await clock.sleep(lookEveryMs, signal).catch(() => {}) // it stops
      }
    }
  }

  async #lookAt(id: number, path: string): Promise<void> {
    const { store, clock } = this.#components
    // It may have been forgotten while others were read, and another list may have its number by now.
    const isKnown = store.listFiles().some((list) => list.id === id && list.path === path)
    if (!isKnown) return
    this.#watch(path)
    let looks: string
    try {
      looks = await appearance(path)
      if (looks === this.#seen.get(path)) return
      await clock.sleep(quietMs, this.#stopping.signal)
      if ((await appearance(path)) !== looks) return // the next look will find it at rest
      this.#seen.set(path, looks)
      await this.#take(id, await this.#parse(path))
    } catch (error) {
      if (this.#stopping.signal.aborted) return
      const why = messageOf(error)
      if (store.listFiles().find((list) => list.id === id)?.failure !== why)
        this.#log.error('a denylist cannot be read; what it said before is in force', { path, error: why })
      store.failReading(id, why)
    }
  }

  async #parse(path: string): Promise<Denylist> {
    let text: string
    try {
      const { size } = await stat(path)
      check(size <= denylistBytesMax, `${path} is longer than ${denylistBytesMax} bytes`)
      text = await readFile(path, 'utf8')
    } catch (cause) {
      if (cause instanceof HoldfastError) throw cause
      throw new HoldfastError('BAD_INPUT', `${path} cannot be read: ${messageOf(cause)}`, { cause })
    }
    return await parseDenylist(text, this.#components.pause)
  }

  async #take(id: number, { name, rules, notApplicable, problems, problemCount }: Denylist): Promise<void> {
    const { store, clock, pause, onChange } = this.#components
    const at = clock.now()
    const generation = store.beginReading(id)
    // What is allowed first: what is held may be settled before all is read, and what was deleted is gone.
    const all = [...rules.values()].sort((a, b) => Number(b.isAllowed) - Number(a.isAllowed))
    for (let from = 0; from < all.length; from += rulesAtOnce) {
      store.addRules(id, generation, all.slice(from, from + rulesAtOnce), at)
      await pause()
    }
    store.endReading(id, generation, { name, at, notApplicable, problems, problemCount })
    this.#log.info('a denylist is in force', { list: name, rules: all.length, notApplicable, problems: problemCount })
    onChange()
  }

  /** The directory, since a file is usually replaced. Where the system cannot say, there is the look every two seconds. */
  #watch(path: string): void {
    if (this.#watchers.has(path)) return
    try {
      const watcher = watch(dirname(path), { persistent: false }, () => this.#wake.abort('something has changed'))
      watcher.on('error', (error) => this.#log.debug('a directory cannot be watched', { path, error: error.message }))
      this.#watchers.set(path, watcher)
    } catch (error) {
      this.#log.debug('a directory cannot be watched', { path, error: messageOf(error) })
    }
  }
}

async function appearance(path: string): Promise<string> {
  try {
    const { mtimeMs, size, ino } = await stat(path)
    return `${mtimeMs} ${size} ${ino}`
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', `${path} cannot be read: ${messageOf(cause)}`, { cause })
  }
}
