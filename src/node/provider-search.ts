/**
 * Getting to know the network after a start: searches often while it is new to us, seldom once it is not. Until the
 * picture has stopped growing, a write would be given too weak a code.
 */
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { ProviderDirectory } from '../discovery/directory.ts'

const oftenEveryMs = secondMs
/** The picture has stopped growing when nobody new came online for so long. */
const stableForMs = 3 * secondMs
/** Whoever has not been found by then is not there: requests are told so instead of kept waiting. */
const knownByMsMax = 15 * secondMs

export interface ProviderSearchInit {
  /** With so many online the picture is complete, and nothing is waited for. */
  expected?: number
}

export interface ProviderSearchComponents {
  directory: Pick<ProviderDirectory, 'refresh' | 'run' | 'list'>
  clock: Clock
  log: Log
}

export class ProviderSearch {
  readonly #components: ProviderSearchComponents
  readonly #expected: number
  readonly #known = Promise.withResolvers<void>()
  #isKnown = false

  constructor(components: ProviderSearchComponents, { expected = 0 }: ProviderSearchInit = {}) {
    this.#components = components
    this.#expected = expected
  }

  /** Whether those who are online have been found, as far as one can tell. */
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
    let most = 0
    let grewAt = startedAt
    while (!signal.aborted && !this.#isKnown) {
      try {
        await directory.refresh(signal)
        const online = directory.list().filter(({ state }) => state === 'online').length
        if (online > most) {
          most = online
          grewAt = clock.now()
        }
        const isComplete = this.#expected > 0 && online >= this.#expected
        if (isComplete || (online > 0 && clock.now() - grewAt >= stableForMs)) this.#settle()
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
