/**
 * Keeps releases and writes of the same block at the same provider apart. A provider knows one lease per gateway and block,
 * so a release that crosses a new write of equal bytes (empty shards, public content, a shard placed again where it once
 * was) would take away what the write had just been promised.
 */
import type { CID } from '../content/cid.ts'

export class LeaseGuard {
  /** Writes that are under way, or stored and not in the index yet: how many, by provider and CID. */
  readonly #held = new Map<string, number>()
  /** Releases under way. */
  readonly #releasing = new Map<string, Promise<void>>()

  /** Waits for a release under way; from then on nothing is released here until the returned function is called. */
  async hold(provider: string, cid: CID): Promise<() => void> {
    const key = keyOf(provider, cid)
    this.#held.set(key, (this.#held.get(key) ?? 0) + 1)
    let letGo = false
    await this.#releasing.get(key)
    return () => {
      if (letGo) return
      letGo = true
      const left = (this.#held.get(key) ?? 1) - 1
      if (left > 0) this.#held.set(key, left)
      else this.#held.delete(key)
    }
  }

  /**
   * Claims for release those of `cids` that nobody holds; writes of them wait until `done`. Whether they are still to be
   * released has to be looked up after the claim: a write may have been committed just before.
   */
  claim(provider: string, cids: readonly CID[]): { cids: CID[]; done: () => void } {
    const free = cids.filter(
      (cid) => !this.#held.has(keyOf(provider, cid)) && !this.#releasing.has(keyOf(provider, cid))
    )
    const { promise, resolve } = Promise.withResolvers<void>()
    for (const cid of free) this.#releasing.set(keyOf(provider, cid), promise)
    return {
      cids: free,
      done: () => {
        for (const cid of free) this.#releasing.delete(keyOf(provider, cid))
        resolve()
      }
    }
  }
}

const keyOf = (provider: string, cid: CID): string => `${provider} ${cid}`
