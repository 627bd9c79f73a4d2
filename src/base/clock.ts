import { HoldfastError } from './errors.ts'

/** Time as the core sees it. `system.ts` has the machine's, `sim/` a virtual one. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now: () => number
  /** Resolves after `ms` milliseconds; rejects with the signal's reason as soon as it aborts. */
  sleep: (ms: number, signal?: AbortSignal) => Promise<void>
}

/** A reason that nobody is told: making the default one, an error with its stack, costs more than the rest together. */
const ended = 'the work ended first'

/**
 * Runs `work` with a signal that aborts after `ms` of the given clock, or when `signal` does.
 *
 * @throws HoldfastError `TIMEOUT` when the time ran out, the signal's reason when the caller aborted
 */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>
): Promise<T> {
  signal?.throwIfAborted()
  const inner = new AbortController()
  const done = new AbortController()
  const onAbort = (): void => inner.abort(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const late = clock.sleep(ms, done.signal).then(
    () => inner.abort(new HoldfastError('TIMEOUT', `no answer within ${ms} ms`)),
    () => {} // the work ended first: the sleep was cancelled
  )
  const aborted = new Promise<never>((_resolve, reject) => {
    inner.signal.addEventListener('abort', () => reject(inner.signal.reason), { once: true })
  })
  try {
    // The race makes the deadline hold even for work that ignores its signal.
    const working = work(inner.signal)
    working.catch(() => {}) // when the deadline won, the loser's failure is not news
    return await Promise.race([working, aborted])
  } finally {
    done.abort(ended)
    signal?.removeEventListener('abort', onAbort)
    aborted.catch(() => {})
    await late
  }
}
