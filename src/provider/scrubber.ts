/**
 * Looks at every block that somebody leases, again and again, so that what has rotted or vanished is found by its provider
 * and not by a reader in need: `StorageProvider.scrub` confesses it.
 *
 * A turn takes 30 days, as disks are commonly scrubbed: audits ask for chunks, now and then, of what they draw, and this
 * is what gets round to every byte. Blocks are spread over the turn evenly (100 GB a month is a block every half minute),
 * since a disk that is hashed for hours in one go is in everybody's way. What is behind, after days switched off or where
 * there is more than fits, goes faster, up to a rate: 4 MiB/s are 10 TB a turn, some percent of what a disk reads and half
 * a percent of a core. Nothing goes while requests are being served.
 *
 * One block is in memory at a time. Where it was is in `scrub.json`; blocks are taken in the order of their CIDs, which
 * no put and no release changes for the others, so a cursor is all that has to be kept.
 */
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { writeFileDurably } from '../base/durable-file.ts'
import { messageOf } from '../base/errors.ts'
import { dayMs, hourMs, KiB, limits, MiB, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type CID, parseCid } from '../content/cid.ts'
import { BufferPool } from './buffer-pool.ts'
import type { StorageProvider } from './storage-provider.ts'

const rateDefault = 4 * MiB
const turnMsDefault = 30 * dayMs
/** A turn over nothing is no work, and takes its time all the same. */
const turnMsMin = secondMs

/** What a block costs at least: finding and opening it, as bytes. With the usual rate no more than 256 small ones a second. */
const blockCostBytes = 16 * KiB
/** How often it is looked whether requests are still being served, and how long a block waits for them to end. */
const busyPollMs = 50
const busyMsMax = 30 * secondMs
/** How often progress is written down: what a crash forgets of it is scrubbed again. */
const saveEveryMs = minuteMs
/** Longest sleep: what is leased meanwhile may shorten it. */
const idleMsMax = hourMs
/** So many bad blocks one after another are a disk that is not there rather than blocks that rot. */
const suspectRunMax = 16
const suspectPauseMs = hourMs
const retryMs = minuteMs

const count = z.number().int().nonnegative()
/** How far it has come, for people. Times are milliseconds since the Unix epoch. */
export const scrubProgressSchema = z.strictObject({
  turnStartedAt: count,
  /** Looked at in this turn. */
  blocks: count,
  bytes: count,
  /** Whole turns so far, and the end of the last. */
  turns: count,
  turnEndedAt: count.nullable(),
  /** Found bad by scrubbing, ever. */
  rotten: count,
  missing: count
})
const stateSchema = scrubProgressSchema.extend({
  v: z.literal(1),
  /** The last block looked at in this turn, as text; null: none yet. */
  after: z.string().max(128).nullable()
})
export type ScrubState = z.infer<typeof stateSchema>
export type ScrubProgress = z.infer<typeof scrubProgressSchema>

export interface ScrubberComponents {
  storage: Pick<StorageProvider, 'scrub' | 'leasedBlocks' | 'stats'>
  /** Whether somebody is being served just now. */
  isBusy: () => boolean
  clock: Clock
  log: Log
}

export interface ScrubberInit {
  /** Where it is written down how far it has come. */
  path: string
  /** At most so many bytes of blocks are read in a second. */
  bytesPerSecond?: number
  /** How long a turn takes, unless the rate makes it longer: 30 days. */
  turnMs?: number
}

export class Scrubber {
  readonly #components: ScrubberComponents
  readonly #path: string
  readonly #bytesPerSecond: number
  readonly #turnMs: number
  readonly #log: Log
  readonly #buffer = new BufferPool(limits.shardBytesMax, 1).take()
  readonly #stopping = new AbortController()
  #state: ScrubState
  #savedAt: number
  #running: Promise<void> | undefined
  /** Bad blocks since the last good one. */
  #suspects = 0

  private constructor(components: ScrubberComponents, init: ScrubberInit, state: ScrubState) {
    this.#components = components
    this.#path = init.path
    this.#bytesPerSecond = init.bytesPerSecond ?? rateDefault
    this.#turnMs = Math.max(turnMsMin, init.turnMs ?? turnMsDefault)
    this.#log = components.log.child('scrubber')
    this.#state = state
    this.#savedAt = components.clock.now()
  }

  /** Goes on where it was; from the beginning where that is not to be read. */
  static async open(components: ScrubberComponents, init: ScrubberInit): Promise<Scrubber> {
    const state = (await readState(init.path, components.log)) ?? newState(components.clock.now())
    return new Scrubber(components, init, state)
  }

  get progress(): ScrubProgress {
    const { v, after, ...progress } = this.#state
    return progress
  }

  /** Scrubs from now on, until `stop`. */
  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort('the provider stops')
    await this.#running
    await this.#save()
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.turn(signal)
      } catch (error) {
        if (signal.aborted) return
        this.#log.error('scrubbing failed', { error: messageOf(error) })
        await this.#components.clock.sleep(retryMs, signal).catch(() => {}) // it stops
      }
    }
  }

  /** What is left of the turn, and the wait for the next. */
  async turn(signal: AbortSignal): Promise<void> {
    const { storage, clock } = this.#components
    for (;;) {
      await this.#waitUntilDue(signal)
      await this.#waitForQuiet(signal)
      const [block] = await storage.leasedBlocks(cursorOf(this.#state), 1)
      if (block === undefined) break
      await this.#look(block, signal)
    }
    await this.#sleepUntil(async () => this.#turnMs, signal)
    const { turns, blocks, bytes, rotten, missing } = this.#state
    if (blocks > 0) this.#log.info('all blocks have been looked at', { blocks, bytes, rotten, missing })
    const now = clock.now()
    this.#state = { ...newState(now), turns: turns + 1, turnEndedAt: now, rotten, missing }
    await this.#save()
  }

  async #look({ cid, bytes }: { cid: CID; bytes: number }, signal: AbortSignal): Promise<void> {
    const { storage, clock } = this.#components
    // Passed first: a file that may not be opened must not keep it from the others.
    const { blocks, bytes: doneBytes } = this.#state
    this.#state = { ...this.#state, after: cid.toString(), blocks: blocks + 1, bytes: doneBytes + bytes }
    const result = await storage.scrub(cid, this.#buffer)
    if (result === 'ok') this.#suspects = 0
    else if (result !== 'unleased') await this.#found(result, signal)
    if (clock.now() - this.#savedAt >= saveEveryMs) await this.#save()
    await clock.sleep(Math.ceil((Math.max(bytes, blockCostBytes) / this.#bytesPerSecond) * secondMs), signal)
  }

  async #found(kind: 'rotten' | 'missing', signal: AbortSignal): Promise<void> {
    this.#state = { ...this.#state, [kind]: this.#state[kind] + 1 }
    await this.#save()
    this.#suspects += 1
    if (this.#suspects < suspectRunMax) return
    this.#suspects = 0
    this.#log.error('one block after another is bad: is the disk there?', { blocks: suspectRunMax })
    await this.#components.clock.sleep(suspectPauseMs, signal)
  }

  /** The next block is due when as much of the turn has passed as of the blocks have been looked at. */
  async #waitUntilDue(signal: AbortSignal): Promise<void> {
    await this.#sleepUntil(async () => {
      const { blocks } = await this.#components.storage.stats()
      const { blocks: done } = this.#state
      return (this.#turnMs * done) / Math.max(blocks, done, 1)
    }, signal)
  }

  /** A provider that is never quiet is scrubbed all the same: a block now and then is in nobody's way. */
  async #waitForQuiet(signal: AbortSignal): Promise<void> {
    const { clock, isBusy } = this.#components
    const until = clock.now() + busyMsMax
    while (isBusy() && clock.now() < until) await clock.sleep(busyPollMs, signal)
  }

  /** Sleeps until the turn has lasted for so long, by what that is as time goes on. */
  async #sleepUntil(dueMs: () => Promise<number>, signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    for (;;) {
      // A clock that was set back must not put the turn off.
      if (clock.now() < this.#state.turnStartedAt) this.#state = { ...this.#state, turnStartedAt: clock.now() }
      const leftMs = this.#state.turnStartedAt + (await dueMs()) - clock.now()
      if (leftMs <= 0) return
      await clock.sleep(Math.min(Math.ceil(leftMs), idleMsMax), signal)
    }
  }

  async #save(): Promise<void> {
    this.#savedAt = this.#components.clock.now()
    try {
      await writeFileDurably(this.#path, `${JSON.stringify(this.#state)}\n`)
    } catch (error) {
      this.#log.error('how far scrubbing has come could not be written down', { error: messageOf(error) })
    }
  }
}

const newState = (turnStartedAt: number): ScrubState => ({
  ...{ v: 1, after: null, turnStartedAt, blocks: 0, bytes: 0 },
  ...{ turns: 0, turnEndedAt: null, rotten: 0, missing: 0 }
})

const cursorOf = ({ after }: ScrubState): CID | undefined => (after === null ? undefined : parseCid(after))

async function readState(path: string, log: Log): Promise<ScrubState | undefined> {
  try {
    const state = stateSchema.parse(JSON.parse(await readFile(path, 'utf8')))
    cursorOf(state)
    return state
  } catch (error) {
    const isNew = (error as NodeJS.ErrnoException).code === 'ENOENT'
    if (!isNew) log.warn('where scrubbing was cannot be read: it begins anew', { path, error: messageOf(error) })
    return undefined
  }
}
