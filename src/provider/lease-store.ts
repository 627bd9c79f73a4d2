/** Which gateway wants which block kept, until when. `sqlite-lease-store.ts` is the durable one. */
import type { CID } from 'multiformats/cid'

export interface Lease {
  cid: CID
  /** Peer id of the gateway. */
  owner: string
  /** Milliseconds since the Unix epoch, by the provider's clock. */
  until: number
  /** Length of the block: what the lease costs of the capacity. */
  bytes: number
}

/** What is wrong with a leased block: its bytes are not what they were, or there is no file. */
export type LossKind = 'rotten' | 'missing'

export interface LeasedBlock {
  cid: CID
  bytes: number
}

export interface LeaseTotals {
  /** Those on lost blocks among them. */
  leases: number
  /** Distinct blocks that somebody leases, without the lost ones: what is to be on the disk. */
  blocks: number
  bytes: number
  /** Leased blocks that are known to be lost. */
  lost: number
}

export interface OwnerTotals {
  /** Peer id. */
  owner: string
  leases: number
  bytes: number
}

/** The order of `owners`; the same for all stores, so that runs replay. */
export const byBytes = (a: OwnerTotals, b: OwnerTotals): number => b.bytes - a.bytes || (a.owner < b.owner ? -1 : 1)

export interface Expired {
  /** Leases. */
  ended: number
  /** The blocks that nobody leases any more. */
  freed: CID[]
}

export interface LeaseStore {
  /**
   * Adds or extends (never shortens); durable when it resolves. Calls made together may share one commit. What is lost
   * stays so.
   */
  grant: (leases: readonly Lease[]) => Promise<void>
  /** Ends these leases of `owner`; returns the CIDs that nobody leases any more. */
  release: (owner: string, cids: readonly CID[]) => Promise<CID[]>
  /** Ends the leases that ran out before `now`, at most `limit`. Only where it ended fewer is none left. */
  expire: (now: number, limit: number) => Promise<Expired>
  /** Ends all leases on these blocks, whoever's; returns those of them that somebody had leased. */
  evict: (cids: readonly CID[]) => Promise<CID[]>
  get: (owner: string, cid: CID) => Promise<Lease | undefined>
  /** Leases of `owner`, in the order of their CIDs' bytes, strictly after `after`. */
  list: (owner: string, options: { after?: CID; limit: number }) => Promise<Lease[]>
  /** Who leases the block, in the order of the peer ids. */
  ownersOf: (cid: CID) => Promise<string[]>
  /** Whether anybody leases the block. */
  isLeased: (cid: CID) => Promise<boolean>
  /** Length of the block as it was leased; `undefined` where nobody leases it. */
  lengthOf: (cid: CID) => Promise<number | undefined>
  /**
   * Notes that these blocks are not there any more, undamaged, though they are leased: they count neither as blocks nor
   * their bytes as used, until they are found again or the last lease ends. Durable when it resolves.
   *
   * @returns those of which that is news: somebody leases them, and they were not lost before
   */
  lose: (cids: readonly CID[], kind: LossKind) => Promise<CID[]>
  /** Notes that a lost block is there again. Does nothing to others. */
  find: (cid: CID) => Promise<void>
  lossOf: (cid: CID) => Promise<LossKind | undefined>
  /** The leased blocks that are not lost, in the order of their CIDs' bytes, from behind `after`; at most `limit`. */
  blocks: (after: CID | undefined, limit: number) => Promise<LeasedBlock[]>
  /** Those that are, in the same way. */
  losses: (after: CID | undefined, limit: number) => Promise<LeasedBlock[]>
  /**
   * Remembers blocks that are stored and that nobody leases, and since when; what is remembered already, since then. It
   * outlives the process: who restarts every day is to get rid of them all the same.
   */
  noteOrphans: (cids: readonly CID[], at: number) => Promise<void>
  /** Those noted no later than `at`, oldest first, at most `limit`. Some may have been leased since. */
  orphansSince: (at: number, limit: number) => Promise<CID[]>
  forgetOrphans: (cids: readonly CID[]) => Promise<void>
  /** Bytes of distinct leased blocks that are not lost: what is in use. */
  usedBytes: () => Promise<number>
  totals: () => Promise<LeaseTotals>
  /** Who leases how much, most bytes first, at most `limit`. */
  owners: (limit: number) => Promise<OwnerTotals[]>
  close: () => Promise<void>
}
