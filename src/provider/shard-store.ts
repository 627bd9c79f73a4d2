/** Where a provider keeps blocks. `fs-shard-store.ts` is the durable one; all pass `test/contracts/shard-store.ts`. */
import type { CID } from 'multiformats/cid'

export interface ShardStore {
  /**
   * Durable when it resolves: no crash afterwards loses or truncates the block, and no crash before leaves anything
   * visible. Idempotent. The caller has checked the bytes against the CID.
   *
   * @throws HoldfastError `NO_SPACE` when the disk is full
   */
  put: (cid: CID, bytes: Uint8Array) => Promise<void>
  /**
   * The stored bytes, unchecked; `undefined` when there is no such block. They may be put `into` the memory given, where they
   * fit; it is written to until the promise has settled.
   */
  get: (cid: CID, into?: Uint8Array) => Promise<Uint8Array | undefined>
  /** Length in bytes; `undefined` when there is no such block. */
  size: (cid: CID) => Promise<number | undefined>
  /** Removing what is not there is fine. */
  delete: (cid: CID) => Promise<void>
  /** Every block, in no particular order. */
  list: () => AsyncIterable<{ cid: CID; bytes: number }>
}
