/**
 * Segment buffers that are used again. A fresh 12 MiB ArrayBuffer for every segment costs page faults, zeroing and, since
 * the collector is in no hurry with memory outside its heap, several times the budget in resident memory.
 */
import { Semaphore } from '../base/concurrency.ts'

export interface PooledBuffer {
  bytes: Uint8Array<ArrayBuffer>
  /** Gives the memory back: the same bytes, or those they were transferred into. Safe to call twice. */
  release: (bytes?: Uint8Array<ArrayBuffer>) => void
}

export class BufferPool {
  readonly #budget: Semaphore
  /** Buffers nobody uses, most recently used last. */
  #idle: Uint8Array<ArrayBuffer>[] = []
  #idleBytes = 0

  constructor(budgetBytes: number) {
    this.#budget = new Semaphore(budgetBytes)
  }

  /** Waits for room in the budget. The buffer may have old bytes in it. */
  async take(byteLength: number, signal?: AbortSignal): Promise<PooledBuffer> {
    const giveBack = await this.#budget.acquire(byteLength, signal)
    const bytes = this.#reuse(byteLength) ?? new Uint8Array(byteLength)
    let released = false
    return {
      bytes,
      release: (now = bytes) => {
        if (released) return
        released = true
        // One that was transferred away and never came back has no memory left to keep.
        if (now.byteLength > 0) {
          this.#idle.push(now)
          this.#idleBytes += now.byteLength
        }
        // Not trimmed while others are at work: whoever waited is given room at once, and takes this very buffer a moment later.
        giveBack()
        if (this.#budget.free === this.#budget.capacity) this.#trim(this.#budget.capacity / 4)
      }
    }
  }

  #reuse(byteLength: number): Uint8Array<ArrayBuffer> | undefined {
    const at = this.#idle.findLastIndex((buffer) => buffer.byteLength === byteLength)
    if (at >= 0) {
      const [buffer] = this.#idle.splice(at, 1)
      this.#idleBytes -= byteLength
      return buffer
    }
    this.#trim(this.#budget.free)
    return undefined
  }

  /** Lets go of idle buffers, oldest first, until at most so many bytes are kept. */
  #trim(keptBytesMax: number): void {
    while (this.#idle.length > 0 && this.#idleBytes > keptBytesMax) {
      const bytes = this.#idle.shift()!
      this.#idleBytes -= bytes.byteLength
      bytes.buffer.transfer(0) // gives the memory back now: the collector would let tens of megabytes wait
    }
  }
}
