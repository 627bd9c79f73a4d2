/**
 * Leaving well: a provider that drains takes nothing new, says so in its offer, and hands over all that anybody leases
 * here. That it drains is kept in its directory, so that one which is killed goes on when it is started again.
 *
 * Owners are asked in turns, each by itself, so that one that does not answer holds up nobody else. There is no end to
 * trying: what nobody can take now stays, as it was promised to.
 */
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { syncDirectory, writeFileDurably } from '../base/durable-file.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { CID } from '../content/cid.ts'
import { type HandOver, handOverBatch } from './hand-over.ts'
import type { LocalRoutes } from './local-server.ts'
import type { StorageProvider } from './storage-provider.ts'

const ownersAtOnce = 4
/** Those that lease most; the others have their turn when these are done. */
const ownersMax = 1024
/** Batches of one owner before the others have their turn, and after what time it has no further one. */
const batchesInTurn = 8
const turnMsMax = 30 * secondMs
/** Between two turns of an owner: while it goes well, and at most. */
const soonMs = secondMs / 2
const retryMsMax = minuteMs
/** How soon it is seen that a drained provider has leases again, or a draining one none any more. */
const lookEveryMs = secondMs
/** Owners that are named as waited for. */
const waitingMax = 32

const count = z.number().int().nonnegative()
const fileSchema = z.strictObject({
  v: z.literal(1),
  /** Milliseconds since the Unix epoch. */
  since: count,
  moved: count,
  movedBytes: count,
  released: count,
  sentBytes: count
})
type DrainFile = z.infer<typeof fileSchema>

const commandSchema = z.strictObject({ cancel: z.boolean().optional() })

/** Where it is kept that this provider drains, and how far it has come; each write is durable when it resolves. */
export interface DrainRecord {
  /** `undefined`: it does not drain. */
  read: () => Promise<string | undefined>
  write: (text: string) => Promise<void>
  remove: () => Promise<void>
}

const inDirectory = (dataDir: string): DrainRecord => {
  const path = join(dataDir, 'draining.json')
  return {
    read: () =>
      readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined
        throw error
      }),
    write: (text) => writeFileDurably(path, text),
    remove: async () => {
      await rm(path, { force: true })
      await syncDirectory(dataDir) // or it drains again after a power cut
    }
  }
}

export interface DrainState {
  /** `done`: it drains, nobody leases anything here any more, and what was is deleted. */
  state: 'off' | 'draining' | 'done'
  /** Milliseconds since the Unix epoch; null while it does not drain. */
  since: number | null
  /** What is left. */
  leases: number
  leasedBytes: number
  /** Since it began to drain, over restarts: blocks with a new holder; blocks that their owners needed no longer. */
  moved: number
  movedBytes: number
  released: number
  /** Of blocks sent to others, whatever came of it; nothing where there was no connection. */
  sentBytes: number
  /** Owners of which something waits, and what for. */
  waiting: Array<{ owner: string; why: string }>
}

export interface DrainComponents {
  storage: Pick<StorageProvider, 'owners' | 'leasesOf' | 'stats' | 'setDraining' | 'dropUnleased'>
  clock: Clock
  random: Random
  log: Log
}

/** When an owner has its next turn, and where in its leases that begins. */
interface Appointment {
  nextAt: number
  after: CID | undefined
  fruitless: number
  why: string | undefined
}

export class Drain {
  readonly #components: DrainComponents
  readonly #record: DrainRecord
  readonly #log: Log
  readonly #appointments = new Map<string, Appointment>()
  /** Owners whose turn it is. */
  readonly #serving = new Map<string, Promise<void>>()
  #file: DrainFile | undefined
  #isChanged = false
  #stopping = new AbortController()
  #running: Promise<void> | undefined
  #handOver: Pick<HandOver, 'batch'> | undefined
  /**
   * Where the leases are. `none`: none since this process began; what the store has besides, if anything, keeps its
   * grace, as the table of leases may be what was lost. `some`; `ended`: those that there were have, and their blocks are
   * deleted.
   */
  #leases: 'none' | 'some' | 'ended' = 'none'

  private constructor(components: DrainComponents, record: DrainRecord, file: DrainFile | undefined) {
    this.#components = components
    this.#record = record
    this.#log = components.log.child('drain')
    this.#file = file
  }

  /**
   * As it was left: one that was draining takes nothing new from now on; to be called before anything can be put. A file
   * that cannot be read still says that it drains: whoever wants to stay says so with `cancel`.
   *
   * @param where in a provider's directory, or in a record of another kind
   */
  static async open(components: DrainComponents, where: { dataDir: string } | DrainRecord): Promise<Drain> {
    const record = 'dataDir' in where ? inDirectory(where.dataDir) : where
    const file = await readRecord(record, components)
    if (file !== undefined) components.storage.setDraining(true)
    return new Drain(components, record, file)
  }

  get isDraining(): boolean {
    return this.#file !== undefined
  }

  /** Hands over from now on, where it drains; `begin` does from then on. */
  start(handOver: Pick<HandOver, 'batch'>): void {
    this.#handOver = handOver
    this.#goOn()
  }

  #goOn(): void {
    if (this.#handOver === undefined || this.#file === undefined || this.#running !== undefined) return
    this.#stopping = new AbortController()
    this.#running = this.#run(this.#handOver, this.#stopping.signal)
  }

  /** Drains from now on, over restarts; nothing changes where it does already. */
  async begin(): Promise<void> {
    if (this.#file !== undefined) return
    const { clock, storage } = this.#components
    const file = { v: 1 as const, since: clock.now(), moved: 0, movedBytes: 0, released: 0, sentBytes: 0 }
    await writeRecord(this.#record, file)
    this.#file = file
    storage.setDraining(true)
    this.#log.info('this provider drains: it takes nothing new, and hands over what it has')
    this.#goOn()
  }

  /** Stays after all; what has been handed over stays where it is. */
  async cancel(): Promise<void> {
    if (this.#file === undefined) return
    await this.#halt()
    await this.#record.remove()
    this.#file = undefined
    this.#appointments.clear()
    this.#components.storage.setDraining(false)
    this.#log.info('this provider does not drain any more')
  }

  async stop(): Promise<void> {
    this.#handOver = undefined
    await this.#halt()
  }

  async #halt(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the hand-over was stopped'))
    await this.#running
    this.#running = undefined
    await this.#save()
  }

  async state(): Promise<DrainState> {
    const { leases, leasedBytes } = await this.#components.storage.stats()
    const { since = null, moved = 0, movedBytes = 0, released = 0, sentBytes = 0 } = this.#file ?? {}
    const waiting = [...this.#appointments].flatMap(([owner, { why }]) => (why === undefined ? [] : [{ owner, why }]))
    return {
      state: this.#file === undefined ? 'off' : leases > 0 || this.#leases === 'some' ? 'draining' : 'done',
      ...{ since, leases, leasedBytes, moved, movedBytes, released, sentBytes },
      waiting: leases === 0 ? [] : waiting.slice(0, waitingMax)
    }
  }

  /** How it stands, every second, until it is done or does not drain any more: that is the last one. */
  async *watch(signal: AbortSignal): AsyncGenerator<DrainState> {
    for (;;) {
      const state = await this.state()
      yield state
      if (state.state !== 'draining') return
      await this.#components.clock.sleep(lookEveryMs, signal)
    }
  }

  async #run(handOver: Pick<HandOver, 'batch'>, signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    while (!signal.aborted) {
      try {
        const nextAt = await this.turn(handOver, signal)
        await clock.sleep(Math.max(soonMs / 2, Math.min(lookEveryMs, nextAt - clock.now())), signal)
      } catch (error) {
        if (signal.aborted) return
        this.#log.error('handing over failed', { error: messageOf(error) })
        await clock.sleep(lookEveryMs, signal).catch(() => {}) // stopped: the loop ends
      }
    }
  }

  /**
   * Gives owners whose turn it is some batches, those first that have waited longest, and waits for them for a moment.
   * Whoever takes longer keeps one place, and nobody else.
   *
   * @returns when the next turn is
   */
  async turn(handOver: Pick<HandOver, 'batch'>, signal: AbortSignal): Promise<number> {
    const { storage, clock } = this.#components
    const owners = await storage.owners(ownersMax)
    if (owners.length > 0) this.#leases = 'some'
    else if (this.#leases === 'some') {
      await storage.dropUnleased()
      this.#leases = 'ended'
    }
    const names = new Set(owners.map(({ owner }) => owner))
    for (const owner of this.#appointments.keys()) if (!names.has(owner)) this.#appointments.delete(owner)
    for (const owner of names) {
      if (!this.#appointments.has(owner))
        this.#appointments.set(owner, { nextAt: clock.now(), after: undefined, fruitless: 0, why: undefined })
    }
    const due = [...this.#appointments]
      .filter(([owner, { nextAt }]) => nextAt <= clock.now() && !this.#serving.has(owner))
      .sort(([, a], [, b]) => a.nextAt - b.nextAt)
    for (const [owner, appointment] of due.slice(0, ownersAtOnce - this.#serving.size)) {
      const serving = this.#serve(handOver, owner, appointment, signal).finally(() => this.#serving.delete(owner))
      serving.catch(() => {}) // it fails when it is stopped
      this.#serving.set(owner, serving)
    }
    await this.#awaitServed(signal)
    return Math.min(clock.now() + lookEveryMs, ...[...this.#appointments.values()].map(({ nextAt }) => nextAt))
  }

  /** Until all are served, or a moment has passed; to the end, where it is stopped. @throws the signal's reason */
  async #awaitServed(signal: AbortSignal): Promise<void> {
    const served = new AbortController()
    const late = this.#components.clock.sleep(lookEveryMs, AbortSignal.any([signal, served.signal]))
    try {
      await Promise.race([Promise.all(this.#serving.values()), late])
    } finally {
      served.abort('all are served')
      if (signal.aborted) await Promise.allSettled(this.#serving.values())
    }
  }

  async #serve(
    handOver: Pick<HandOver, 'batch'>,
    owner: string,
    appointment: Appointment,
    signal: AbortSignal
  ): Promise<void> {
    const { clock, random } = this.#components
    const endsAt = clock.now() + turnMsMax
    let pauseMs = soonMs
    try {
      for (let batches = 0; batches < batchesInTurn && clock.now() < endsAt; batches++) {
        const { isFruitful, isEnd, isVain, retryAfterMs } = await this.#batch(handOver, owner, appointment, signal)
        if (isFruitful) appointment.fruitless = 0
        else if (isVain) pauseMs = secondMs * 2 ** Math.min(++appointment.fruitless, 10)
        if (isEnd) pauseMs = Math.max(pauseMs, lookEveryMs) // leases that are being ended need not be asked about
        if (isFruitful && !isEnd) continue
        if (!isFruitful) pauseMs = Math.max(pauseMs, retryAfterMs)
        break
      }
    } catch (error) {
      signal.throwIfAborted()
      appointment.why = `its gateway does not say where: ${messageOf(error).slice(0, 256)}`
      this.#log.info('an owner does not answer about a hand-over', { owner, error: messageOf(error) })
      pauseMs = secondMs * 2 ** Math.min(++appointment.fruitless, 10)
    }
    appointment.nextAt = clock.now() + Math.min(pauseMs, retryMsMax) * (0.75 + random.next() / 2)
  }

  /** The owner's next leases; behind the last the first come again. */
  async #batch(
    handOver: Pick<HandOver, 'batch'>,
    owner: string,
    appointment: Appointment,
    signal: AbortSignal
  ): Promise<{ isFruitful: boolean; isEnd: boolean; isVain: boolean; retryAfterMs: number }> {
    const { storage } = this.#components
    const leases = await storage.leasesOf(owner, { after: appointment.after, limit: handOverBatch })
    const isEnd = leases.length < handOverBatch
    appointment.after = isEnd ? undefined : leases.at(-1)!.cid
    if (leases.length === 0) return { isFruitful: false, isEnd: true, isVain: false, retryAfterMs: 0 }
    const { why, retryAfterMs, tried, ...counts } = await handOver.batch(owner, leases, 'drain', signal)
    appointment.why = why
    this.#count(counts)
    await this.#save()
    const isFruitful = counts.moved + counts.released > 0
    return { isFruitful, isEnd, isVain: !isFruitful && tried > 0, retryAfterMs }
  }

  #count({ moved, movedBytes, released, sentBytes }: Omit<DrainFile, 'v' | 'since'>): void {
    if (this.#file === undefined) return
    this.#isChanged ||= moved + released + sentBytes > 0
    this.#file = {
      ...this.#file,
      moved: this.#file.moved + moved,
      movedBytes: this.#file.movedBytes + movedBytes,
      released: this.#file.released + released,
      sentBytes: this.#file.sentBytes + sentBytes
    }
  }

  async #save(): Promise<void> {
    if (!this.#isChanged || this.#file === undefined) return
    this.#isChanged = false
    try {
      await writeRecord(this.#record, this.#file)
    } catch (error) {
      this.#isChanged = true
      this.#log.error('how far the hand-over has come could not be kept', { error: messageOf(error) })
    }
  }
}

async function readRecord(
  record: DrainRecord,
  { clock, log }: Pick<DrainComponents, 'clock' | 'log'>
): Promise<DrainFile | undefined> {
  try {
    const text = await record.read()
    return text === undefined ? undefined : fileSchema.parse(JSON.parse(text))
  } catch (error) {
    log.warn('how far the hand-over had come cannot be read; it goes on', { error: messageOf(error) })
    return { v: 1, since: clock.now(), moved: 0, movedBytes: 0, released: 0, sentBytes: 0 }
  }
}

const writeRecord = (record: DrainRecord, file: DrainFile): Promise<void> => record.write(`${JSON.stringify(file)}\n`)

/** `POST /drain` begins, `{ cancel: true }` ends it; `GET /drain` tells how it goes, until it is over. */
export function drainRoutes(drain: Drain): LocalRoutes {
  return {
    'POST /drain': async (body) => {
      const { success, data } = commandSchema.safeParse(body ?? {})
      if (!success) throw new HoldfastError('BAD_INPUT', 'the command is {} or { "cancel": true }')
      if (data.cancel === true) await drain.cancel()
      else await drain.begin()
      return await drain.state()
    },
    'GET /drain': async (_body, signal) => drain.watch(signal)
  }
}
