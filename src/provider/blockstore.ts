/**
 * The provider's blocks as IPFS software sees them: an `interface-blockstore` to read from. Every block is checked
 * against its CID before it is handed out. Nothing can be written or deleted through it: blocks come in under a lease
 * and go when nobody leases them, and bitswap knows no leases.
 */
import type { Blockstore, InputPair, Pair } from 'interface-blockstore'
import { NotFoundError } from 'interface-store'
import type { CID } from 'multiformats/cid'
import { HoldfastError, isCode } from '../base/errors.ts'
import type { ShardStore } from './shard-store.ts'
import type { StorageProvider } from './storage-provider.ts'

export class ReadOnlyBlockstore implements Blockstore {
  readonly #storage: Pick<StorageProvider, 'get' | 'has'>
  readonly #shards: Pick<ShardStore, 'list'>

  constructor(storage: Pick<StorageProvider, 'get' | 'has'>, shards: Pick<ShardStore, 'list'>) {
    this.#storage = storage
    this.#shards = shards
  }

  async has(cid: CID): Promise<boolean> {
    return await this.#storage.has(cid)
  }

  async *get(cid: CID): AsyncGenerator<Uint8Array> {
    try {
      yield await this.#storage.get(cid)
    } catch (error) {
      throw isCode(error, 'MISSING', 'REFUSED') ? new NotFoundError() : error
    }
  }

  async *getMany(source: Iterable<CID> | AsyncIterable<CID>): AsyncGenerator<Pair> {
    for await (const cid of source) yield { cid, bytes: this.get(cid) }
  }

  async *getAll(): AsyncGenerator<Pair> {
    for await (const { cid } of this.#shards.list()) yield { cid, bytes: this.get(cid) }
  }

  async put(): Promise<CID> {
    throw readOnly()
  }

  // biome-ignore lint/correctness/useYield: it refuses before anything could be yielded
  async *putMany(_source: Iterable<InputPair> | AsyncIterable<InputPair>): AsyncGenerator<CID> {
    throw readOnly()
  }

  async delete(): Promise<void> {
    throw readOnly()
  }

  // biome-ignore lint/correctness/useYield: it refuses before anything could be yielded
  async *deleteMany(_source: Iterable<CID> | AsyncIterable<CID>): AsyncGenerator<CID> {
    throw readOnly()
  }
}

const readOnly = (): HoldfastError =>
  new HoldfastError('REFUSED', 'blocks are stored under a lease, not through bitswap')
