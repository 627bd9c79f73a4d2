/**
 * What the operator refuses, and not at once, lives on elsewhere: each block that is kept for it is brought to where its
 * owners want it, and deleted as soon as nobody leases it here any more. Which blocks those are is in the store of
 * refusals, so nothing is kept here that a restart would miss.
 */
import type { Clock } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import { type HandOver, type HandOverBlock, type HandOverResult, handOverBatch } from './hand-over.ts'
import type { LeaseStore } from './lease-store.ts'
import type { RefusalStore } from './refusal-store.ts'
import type { StorageProvider } from './storage-provider.ts'

/** Between two looks at what is kept; and after which an owner that did not answer, or could place nothing, is asked again. */
const everyMs = secondMs
const firstRetryMs = 2 * secondMs
const retryMsMax = minuteMs
const pageBlocks = 256
/** How many times as long as a look that found nothing to do took is rested after it, and at most. */
const idleRest = 9
const ownersAtOnce = 4
/** After what time an owner has no further batch of a page: the others wait for it. */
const ownerMsMax = 30 * secondMs

export interface RefusedHandOverComponents {
  handOver: Pick<HandOver, 'batch'>
  store: Pick<RefusalStore, 'find' | 'listKept' | 'keepNoMore'>
  leases: Pick<LeaseStore, 'ownersOf' | 'get'>
  storage: Pick<StorageProvider, 'evict'>
  clock: Clock
  log: Log
  /** Gives others their turn of the event loop. */
  pause: () => Promise<void>
}

/** Since the start. What was sent may exceed what was moved: not everything sent arrives, or is accepted. */
export type Brought = Pick<HandOverResult, 'moved' | 'movedBytes' | 'sentBytes'>

export class RefusedHandOver {
  readonly #components: RefusedHandOverComponents
  readonly #log: Log
  /** Owners that have blocks waiting, and when they are asked again. */
  #pauses = new Map<string, { until: number; failures: number }>()
  readonly #stopping = new AbortController()
  readonly #broughtSoFar: Brought = { moved: 0, movedBytes: 0, sentBytes: 0 }
  #running: Promise<void> | undefined

  constructor(components: RefusedHandOverComponents) {
    this.#components = components
    this.#log = components.log.child('refusals')
  }

  get brought(): Brought {
    return { ...this.#broughtSoFar }
  }

  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the provider stops'))
    await this.#running
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    while (!signal.aborted) {
      try {
        const startedAt = clock.now()
        const isIdle = !(await this.turn(signal))
        // Much may be kept for an owner that is away: looking through all of it every second would be a core's work.
        const restMs = isIdle ? Math.min(retryMsMax, idleRest * (clock.now() - startedAt)) : 0
        await clock.sleep(Math.max(everyMs, restMs), signal)
      } catch (error) {
        if (signal.aborted) return
        this.#log.error('refused blocks could not be handed over', { error: messageOf(error) })
        await clock.sleep(everyMs, signal).catch(() => {}) // it stops
      }
    }
  }

  /** Looks at all that is kept, once. @returns whether there was anything to do about any of it */
  async turn(signal: AbortSignal): Promise<boolean> {
    const { store, clock, pause } = this.#components
    const met = new Set<string>()
    let isIdle = true
    let after: CID | undefined
    for (let page = store.listKept(after, pageBlocks); page.length > 0; page = store.listKept(after, pageBlocks)) {
      after = page.at(-1)
      await forEachLimit([...(await this.#byOwner(page))], ownersAtOnce, async ([owner, blocks]) => {
        met.add(owner)
        const endsAt = clock.now() + ownerMsMax
        for (let at = 0; at < blocks.length && clock.now() < endsAt; at += handOverBatch) {
          if (this.#isPausing(owner)) break
          isIdle = false
          await this.#bring(owner, blocks.slice(at, at + handOverBatch), signal)
        }
      })
      await pause()
      signal.throwIfAborted()
    }
    this.#pauses = new Map([...this.#pauses].filter(([owner]) => met.has(owner)))
    return !isIdle
  }

  /** Those that somebody leases; the others are done with. */
  async #byOwner(cids: readonly CID[]): Promise<Map<string, HandOverBlock[]>> {
    const { store, leases, storage } = this.#components
    const found = new Map<string, HandOverBlock[]>()
    for (const cid of cids) {
      if (store.find(cid) === undefined) {
        store.keepNoMore([cid]) // refused no more: it stays
        continue
      }
      const owners = await leases.ownersOf(cid)
      for (const owner of owners) {
        const lease = await leases.get(owner, cid)
        if (lease !== undefined) found.set(owner, [...(found.get(owner) ?? []), { cid, bytes: lease.bytes }])
      }
      if (owners.length > 0) continue
      await storage.evict([cid])
      store.keepNoMore([cid])
    }
    return found
  }

  #isPausing(owner: string): boolean {
    return (this.#pauses.get(owner)?.until ?? 0) > this.#components.clock.now()
  }

  async #bring(owner: string, blocks: readonly HandOverBlock[], signal: AbortSignal): Promise<void> {
    const { handOver } = this.#components
    try {
      const { moved, movedBytes, released, sentBytes, why } = await handOver.batch(owner, blocks, 'refusal', signal)
      this.#broughtSoFar.moved += moved
      this.#broughtSoFar.movedBytes += movedBytes
      this.#broughtSoFar.sentBytes += sentBytes
      if (moved > 0) this.#log.info('refused blocks were handed over', { owner, blocks: moved })
      if (moved + released > 0) this.#pauses.delete(owner)
      if (why === undefined) return
      this.#log.info('refused blocks wait to be handed over', { owner, why })
      if (moved + released === 0) this.#pause(owner)
    } catch (error) {
      signal.throwIfAborted()
      this.#log.info('an owner does not say where refused blocks go', { owner, error: messageOf(error) })
      this.#pause(owner)
    }
  }

  #pause(owner: string): void {
    const failures = (this.#pauses.get(owner)?.failures ?? 0) + 1
    const until = this.#components.clock.now() + Math.min(retryMsMax, firstRetryMs * 2 ** Math.min(failures - 1, 10))
    this.#pauses.set(owner, { until, failures })
  }
}
