/**
 * Getting to know the network after a start: searches often while it is new to us, seldom once it is not. Until the
 * picture has stopped growing, a write would be given too weak a code.
 */
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { ProviderDirectory } from '../discovery/directory.ts'

/** How long after a start searches come often: a network that starts with us has joined by then. */
const oftenForMs = minuteMs
const oftenEveryMs = secondMs
/** With nobody found for so long, nobody is there: requests are told so instead of kept waiting. */
const knownByMsMax = 15 * secondMs

export interface ProviderSearchComponents {
  directory: Pick<ProviderDirectory, 'refresh' | 'run' | 'list'>
  clock: Clock
  log: Log
}

export class ProviderSearch {
  readonly #components: ProviderSearchComponents
  readonly #known = Promise.withResolvers<void>()
  #isKnown = false

  constructor(components: ProviderSearchComponents) {
    this.#components = components
  }

  /** Whether two searches in a row have found the same providers online. */
  get isKnown(): boolean {
    return this.#isKnown
  }

  /** Resolves once it is known who is there; rejects with the signal's reason. */
  async whenKnown(signal?: AbortSignal): Promise<void> {
    if (this.#isKnown) return
    signal?.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => reject(signal?.reason)
      signal?.addEventListener('abort', onAbort, { once: true })
      void this.#known.promise.then(() => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      })
    })
  }

  /** Searches until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { directory, clock, log } = this.#components
    const startedAt = clock.now()
    const late = clock.sleep(knownByMsMax, signal).then(
      () => this.#settle(),
      () => {} // stopped before
    )
    let online = 0
    while (!signal.aborted && clock.now() - startedAt < oftenForMs) {
      try {
        await directory.refresh(signal)
        const before = online
        online = directory.list().filter(({ state }) => state === 'online').length
        if (online > 0 && online === before) this.#settle()
        await clock.sleep(oftenEveryMs, signal)
      } catch (error) {
        if (signal.aborted) break
        log.warn('provider search failed', { error: messageOf(error) })
        await clock.sleep(oftenEveryMs, signal).catch(() => {}) // stopped: the loop ends
      }
    }
    if (!signal.aborted) await directory.run(signal)
    await late
  }

  #settle(): void {
    this.#isKnown = true
    this.#known.resolve()
  }
}
