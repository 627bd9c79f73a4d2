/**
 * Buffers of one size, used again: a fresh mebibyte costs more than hashing it. They begin at a page of memory, so that
 * blocks can go between them and the disk past the page cache; see `isAligned`.
 */
import { KiB } from '../base/limits.ts'
import { createMemory, pageBytes } from '../wasm/engine.ts'

/** What direct I/O wants offsets, lengths and memory to be multiples of: no disk in use has larger sectors. */
export const alignmentBytes = 4 * KiB

/** Memory that is known to begin at a page. JavaScript does not tell addresses. */
const alignedMemory = new WeakSet<ArrayBufferLike>()

/** Whether the bytes can be written past the page cache, or be read into that way. */
export function isAligned({ buffer, byteOffset, length }: Uint8Array): boolean {
  return byteOffset % alignmentBytes === 0 && length % alignmentBytes === 0 && alignedMemory.has(buffer)
}

export class BufferPool {
  readonly #bytes: number
  readonly #free: Uint8Array[]
  readonly #own: WeakSet<Uint8Array>

  /**
   * @param bytes of a buffer, a multiple of `alignmentBytes`
   * @param count of buffers kept; where more are taken at once, the rest is ordinary memory
   */
  constructor(bytes: number, count: number) {
    this.#bytes = bytes
    const memory = pageAligned(bytes * count)
    this.#free = Array.from({ length: count }, (_, i) => memory.subarray(i * bytes, (i + 1) * bytes))
    this.#own = new WeakSet(this.#free)
  }

  /** A buffer with anything in it. */
  take(): Uint8Array {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bytes)
  }

  /** Takes it back. Nobody may still be reading it. */
  give(buffer: Uint8Array): void {
    if (this.#own.has(buffer)) this.#free.push(buffer)
  }
}

/** A WebAssembly memory begins at a page (of it as of the machine), and takes up no memory before it is written to. */
function pageAligned(bytes: number): Uint8Array {
  const pages = Math.ceil(bytes / pageBytes)
  try {
    const { buffer } = createMemory({ initialPages: pages, maximumPages: pages })
    alignedMemory.add(buffer)
    return new Uint8Array(buffer, 0, bytes)
  } catch {
    return new Uint8Array(bytes) // address space is limited here: the page cache does as well
  }
}
