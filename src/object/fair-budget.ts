/**
 * A budget of bytes that many share, in which nobody who is slow keeps the others waiting: while somebody waits for room,
 * whoever has held theirs longest without getting on is asked to give it back.
 */
import type { Clock } from '../base/clock.ts'
import { HoldfastError } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'

export interface Hold {
  readonly byteLength: number
  /**
   * From now on it is the holder who is waited for. `giveUp` is called at most once, when others have waited and the
   * holder has not got on for the budget's patience; it has to see to it that the hold is released soon.
   */
  canGiveUp: (giveUp: () => void) => void
  /** Keeps only so many bytes. */
  shrink: (byteLength: number) => void
  /** Safe to call twice. */
  release: () => void
}

interface Waiter {
  byteLength: number
  grant: (hold: Hold) => void
}

interface Yieldable {
  since: number
  giveUp: () => void
}

const defaultPatienceMs = 2 * secondMs
/** Between two that are asked: what the first gives back may be enough. */
const pressMsMin = 100
const waitersMax = 100_000

export class FairBudget {
  readonly capacity: number
  readonly #clock: Clock
  readonly #patienceMs: number
  #free: number
  #waiters: Waiter[] = []
  /** Oldest first. */
  readonly #yieldable = new Set<Yieldable>()
  #pressing: AbortController | undefined
  /** Others who wait for what the holders have. */
  #pressers = 0

  constructor(clock: Clock, capacity: number, patienceMs = defaultPatienceMs) {
    this.#clock = clock
    this.capacity = capacity
    this.#patienceMs = patienceMs
    this.#free = capacity
  }

  get free(): number {
    return this.#free
  }

  get waiting(): number {
    return this.#waiters.length
  }

  /**
   * Resolves once there is room, first come first served. An amount above the capacity waits for all of it.
   *
   * @throws HoldfastError `OVERLOADED` when too many wait; the signal's reason
   */
  async acquire(byteLength: number, signal?: AbortSignal): Promise<Hold> {
    signal?.throwIfAborted()
    const now = this.tryAcquire(byteLength)
    if (now !== undefined) return now
    if (this.#waiters.length >= waitersMax) throw new HoldfastError('OVERLOADED', 'too much work is queued')
    return await new Promise((resolve, reject) => {
      const waiter: Waiter = {
        byteLength: Math.min(byteLength, this.capacity),
        grant: (hold) => {
          signal?.removeEventListener('abort', onAbort)
          resolve(hold)
        }
      }
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter)
        reject(signal?.reason)
        this.#grant() // what waited behind may fit now
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#waiters.push(waiter)
      this.#press()
    })
  }

  /** A hold if there is room right now and nobody waits. */
  tryAcquire(byteLength: number): Hold | undefined {
    const wanted = Math.min(byteLength, this.capacity)
    return this.#waiters.length > 0 || this.#free < wanted ? undefined : this.#hold(wanted)
  }

  /** Until `waiting` settles, holders are asked to give up as if somebody waited here. */
  async pressedBy<T>(waiting: Promise<T>): Promise<T> {
    this.#pressers++
    this.#press()
    try {
      return await waiting
    } finally {
      this.#pressers--
      this.#grant()
    }
  }

  get #isWaitedFor(): boolean {
    return this.#waiters.length > 0 || this.#pressers > 0
  }

  #hold(byteLength: number): Hold {
    let held = byteLength
    let yieldable: Yieldable | undefined
    this.#free -= held
    const shrink = (to: number): void => {
      if (to >= held) return
      this.#free += held - to
      held = to
      this.#grant()
    }
    return {
      byteLength,
      shrink,
      canGiveUp: (giveUp) => {
        if (yieldable !== undefined) this.#yieldable.delete(yieldable)
        yieldable = { since: this.#clock.now(), giveUp }
        this.#yieldable.add(yieldable)
        this.#press()
      },
      release: () => {
        if (yieldable !== undefined) this.#yieldable.delete(yieldable)
        shrink(0)
      }
    }
  }

  #grant(): void {
    for (
      let first = this.#waiters[0];
      first !== undefined && first.byteLength <= this.#free;
      first = this.#waiters[0]
    ) {
      this.#waiters.shift()
      first.grant(this.#hold(first.byteLength))
    }
    if (!this.#isWaitedFor) this.#pressing?.abort('nobody waits')
  }

  /** While somebody waits: asks the oldest holder once its time has come, then the next. */
  #press(): void {
    if (this.#pressing !== undefined || !this.#isWaitedFor || this.#yieldable.size === 0) return
    const pressing = new AbortController()
    this.#pressing = pressing
    const [oldest] = this.#yieldable
    const leftMs = oldest!.since + this.#patienceMs - this.#clock.now()
    const asked = this.#clock.sleep(Math.max(pressMsMin, leftMs), pressing.signal).then(
      () => {
        // It may have got on meanwhile, and another be the oldest now.
        const [now] = this.#yieldable
        if (now === undefined || now.since + this.#patienceMs > this.#clock.now()) return
        this.#yieldable.delete(now)
        now.giveUp()
      },
      () => {} // nobody waits any more
    )
    void asked.finally(() => {
      this.#pressing = undefined
      this.#press()
    })
  }
}
