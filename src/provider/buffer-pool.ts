/** Buffers of one size, used again: a fresh mebibyte costs more than hashing it. */
export class BufferPool {
  readonly #bytes: number
  readonly #keptMax: number
  #free: Buffer[] = []

  constructor(bytes: number, keptMax: number) {
    this.#bytes = bytes
    this.#keptMax = keptMax
  }

  /** A buffer with anything in it. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bytes)
  }

  /** Takes it back. Nobody may still be reading it. */
  give(buffer: Buffer): void {
    if (this.#free.length < this.#keptMax) this.#free.push(buffer)
  }
}
