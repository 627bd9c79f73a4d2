/** Blocks in memory: for simulations and tests. Everything happens within the call, so that runs replay. */
import type { CID } from 'multiformats/cid'
import { HoldfastError } from '../base/errors.ts'
import type { ShardStore } from './shard-store.ts'

export interface MemoryShardStoreInit {
  /** Size of the pretended disk; `put` rejects with `NO_SPACE` beyond it. */
  diskBytes?: number
}

export class MemoryShardStore implements ShardStore {
  readonly #diskBytes: number
  #blocks = new Map<string, { cid: CID; bytes: Uint8Array }>()
  #usedBytes = 0

  constructor(init: MemoryShardStoreInit = {}) {
    this.#diskBytes = init.diskBytes ?? Number.POSITIVE_INFINITY
  }

  async put(cid: CID, bytes: Uint8Array): Promise<void> {
    const key = cid.toString()
    const usedBytes = this.#usedBytes - (this.#blocks.get(key)?.bytes.length ?? 0) + bytes.length
    if (usedBytes > this.#diskBytes) throw new HoldfastError('NO_SPACE', 'the disk is full')
    this.#blocks.set(key, { cid, bytes: Uint8Array.from(bytes) }) // a copy: the caller may reuse its buffer
    this.#usedBytes = usedBytes
  }

  async get(cid: CID): Promise<Uint8Array | undefined> {
    return this.#blocks.get(cid.toString())?.bytes
  }

  async size(cid: CID): Promise<number | undefined> {
    return this.#blocks.get(cid.toString())?.bytes.length
  }

  async delete(cid: CID): Promise<void> {
    const key = cid.toString()
    this.#usedBytes -= this.#blocks.get(key)?.bytes.length ?? 0
    this.#blocks.delete(key)
  }

  async *list(): AsyncGenerator<{ cid: CID; bytes: number }> {
    for (const { cid, bytes } of [...this.#blocks.values()]) yield { cid, bytes: bytes.length }
  }
}
