/** One holder a key at a time, first come first served. Keys nobody wants cost nothing. */
export class KeyedLock {
  #tails = new Map<string, Promise<unknown>>()

  /** Keys that are held or waited for. */
  get size(): number {
    return this.#tails.size
  }

  /** Resolves when all who hold or wait for the key by now have let it go. Never rejects. */
  async settled(key: string): Promise<void> {
    await this.#tails.get(key)?.then(
      () => {},
      () => {} // theirs to hear
    )
  }

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key)
    const running = before === undefined ? work() : before.then(work, work)
    this.#tails.set(key, running)
    try {
      return await running
    } finally {
      if (this.#tails.get(key) === running) this.#tails.delete(key)
    }
  }
}
