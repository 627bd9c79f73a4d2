import { HoldfastError } from './errors.ts'

interface Waiter {
  amount: number
  grant: () => void
}

/** A counting semaphore over an amount (slots or bytes), first come first served, with a bounded queue. */
export class Semaphore {
  readonly capacity: number
  readonly #waitersMax: number
  #free: number
  #waiters: Waiter[] = []

  constructor(capacity: number, waitersMax = 100_000) {
    this.capacity = capacity
    this.#free = capacity
    this.#waitersMax = waitersMax
  }

  get free(): number {
    return this.#free
  }

  get waiting(): number {
    return this.#waiters.length
  }

  /**
   * Resolves with a release function (safe to call twice) once `amount` is free. An amount above the capacity waits
   * for all of it.
   *
   * @throws HoldfastError `OVERLOADED` when the queue is full; the signal's reason when aborted while waiting
   */
  async acquire(amount = 1, signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted()
    const wanted = Math.min(amount, this.capacity)
    if (this.#waiters.length === 0 && this.#free >= wanted) {
      this.#free -= wanted
      return this.#releaser(wanted)
    }
    if (this.#waiters.length >= this.#waitersMax) throw new HoldfastError('OVERLOADED', 'too much work is queued')
    await new Promise<void>((resolve, reject) => {
      const waiter: Waiter = {
        amount: wanted,
        grant: () => {
          signal?.removeEventListener('abort', onAbort)
          resolve()
        }
      }
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((w) => w !== waiter)
        reject(signal?.reason)
        this.#grant() // what waited behind may fit now
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#waiters.push(waiter)
    })
    return this.#releaser(wanted)
  }

  /** Takes `amount` if it is free right now. */
  tryAcquire(amount = 1): (() => void) | undefined {
    const wanted = Math.min(amount, this.capacity)
    if (this.#waiters.length > 0 || this.#free < wanted) return undefined
    this.#free -= wanted
    return this.#releaser(wanted)
  }

  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const release = await this.acquire(1, signal)
    try {
      return await work()
    } finally {
      release()
    }
  }

  #releaser(amount: number): () => void {
    let released = false
    return () => {
      if (released) return
      released = true
      this.#free += amount
      this.#grant()
    }
  }

  #grant(): void {
    for (let first = this.#waiters[0]; first !== undefined && first.amount <= this.#free; first = this.#waiters[0]) {
      this.#waiters.shift()
      this.#free -= first.amount
      first.grant()
    }
  }
}

/** Runs `work` over all items, at most `width` at once; rejects with the first failure after all have settled. */
export async function forEachLimit<T>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<void>
): Promise<void> {
  const iterator = items[Symbol.iterator]()
  let failure: { error: unknown } | undefined
  const lane = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true && failure === undefined; next = iterator.next()) {
      try {
        await work(next.value)
      } catch (error) {
        failure ??= { error }
      }
    }
  }
  const lanes = Array.isArray(items) ? Math.min(width, items.length) : width
  await Promise.all(Array.from({ length: lanes }, lane))
  if (failure !== undefined) throw failure.error
}
