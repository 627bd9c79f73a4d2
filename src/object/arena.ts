/**
 * Memory for segments and shards on their way: one fixed region, cut into slabs on demand. Its pages are touched once and
 * used again, and where the region is shared between threads, nothing that lies in it is copied to be worked on.
 */
import { HoldfastError } from '../base/errors.ts'

export interface Slab {
  /** May have old bytes in it. */
  readonly bytes: Uint8Array
  /** Gives the memory back. Safe to call twice. Whoever still reads the bytes then may see others'. */
  release: () => void
}

interface Gap {
  start: number
  end: number
}

interface Waiter {
  byteLength: number
  grant: (slab: Slab) => void
}

/** So that vector loads do not straddle cache lines. */
const alignment = 64
const waitersMax = 100_000

/** First fit with neighbours joined; large slabs from the front and small ones from the back, so that they do not mix. */
export class Arena {
  readonly capacity: number
  readonly #buffer: ArrayBufferLike
  readonly #start: number
  /** In order of address, none adjacent to the next. */
  #gaps: Gap[]
  #waiters: Waiter[] = []

  /** The bytes [start, end) of `buffer`. */
  constructor(buffer: ArrayBufferLike, start = 0, end: number = buffer.byteLength) {
    this.#buffer = buffer
    this.#start = align(start)
    this.capacity = end - this.#start
    if (this.capacity <= 0) throw new RangeError('an arena has room for something')
    this.#gaps = [{ start: this.#start, end }]
  }

  get freeBytes(): number {
    return this.#gaps.reduce((sum, { start, end }) => sum + end - start, 0)
  }

  get waiting(): number {
    return this.#waiters.length
  }

  /** Bytes that a slab of `byteLength` takes up. */
  sizeOf(byteLength: number): number {
    return Math.min(this.capacity, align(Math.max(1, byteLength)))
  }

  owns(bytes: Uint8Array): boolean {
    return (
      bytes.buffer === this.#buffer && bytes.byteOffset >= this.#start && bytes.byteOffset < this.#start + this.capacity
    )
  }

  /**
   * Waits for room, first come first served.
   *
   * @throws HoldfastError `INTERNAL` for more than the whole arena, `OVERLOADED` when too many wait; the signal's reason
   */
  async take(byteLength: number, signal?: AbortSignal): Promise<Slab> {
    signal?.throwIfAborted()
    if (byteLength > this.capacity)
      throw new HoldfastError('INTERNAL', `a slab of ${byteLength} bytes in an arena of ${this.capacity}`)
    const slab = this.tryTake(byteLength)
    if (slab !== undefined) return slab
    if (this.#waiters.length >= waitersMax) throw new HoldfastError('OVERLOADED', 'too much work is queued')
    return await new Promise((resolve, reject) => {
      const waiter: Waiter = {
        byteLength,
        grant: (granted) => {
          signal?.removeEventListener('abort', onAbort)
          resolve(granted)
        }
      }
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter)
        reject(signal?.reason)
        this.#grant() // what waited behind may fit now
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#waiters.push(waiter)
    })
  }

  /** A slab if there is room right now and nobody waits. */
  tryTake(byteLength: number): Slab | undefined {
    return this.#waiters.length > 0 ? undefined : this.#cut(byteLength)
  }

  #cut(byteLength: number): Slab | undefined {
    const wanted = this.sizeOf(byteLength)
    const isSmall = wanted <= this.capacity / 16
    const fits = ({ start, end }: Gap): boolean => end - start >= wanted
    const at = isSmall ? this.#gaps.findLastIndex(fits) : this.#gaps.findIndex(fits)
    const gap = this.#gaps[at]
    if (gap === undefined) return undefined
    const start = isSmall ? gap.end - wanted : gap.start
    if (isSmall) gap.end -= wanted
    else gap.start += wanted
    if (gap.start === gap.end) this.#gaps.splice(at, 1)
    let released = false
    return {
      bytes: new Uint8Array(this.#buffer, start, byteLength),
      release: () => {
        if (released) return
        released = true
        this.#join(start, start + wanted)
        this.#grant()
      }
    }
  }

  #join(start: number, end: number): void {
    const next = this.#gaps.findIndex((gap) => gap.start >= end)
    const at = next < 0 ? this.#gaps.length : next
    const [before, after] = [this.#gaps[at - 1], this.#gaps[at]]
    const joinsBefore = before?.end === start
    const joinsAfter = after?.start === end
    if (joinsBefore && joinsAfter) {
      before.end = after.end
      this.#gaps.splice(at, 1)
    } else if (joinsBefore) before.end = end
    else if (joinsAfter) after.start = start
    else this.#gaps.splice(at, 0, { start, end })
  }

  #grant(): void {
    for (let first = this.#waiters[0]; first !== undefined; first = this.#waiters[0]) {
      const slab = this.#cut(first.byteLength)
      if (slab === undefined) return
      this.#waiters.shift()
      first.grant(slab)
    }
  }
}

const align = (bytes: number): number => Math.ceil(bytes / alignment) * alignment
