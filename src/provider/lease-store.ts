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

export interface OwnerTotals {
  /** Peer id. */
  owner: string
  leases: number
  bytes: number
}

/** The order of `owners`; the same for all stores, so that runs replay. */
export const byBytes = (a: OwnerTotals, b: OwnerTotals): number => b.bytes - a.bytes || (a.owner < b.owner ? -1 : 1)

export interface LeaseStore {
  /** Adds or extends (never shortens); durable when it resolves. Calls made together may share one commit. */
  grant: (leases: readonly Lease[]) => Promise<void>
  /** Ends these leases of `owner`; returns the CIDs that nobody leases any more. */
  release: (owner: string, cids: readonly CID[]) => Promise<CID[]>
  /** Ends the leases that ran out before `now`, at most `limit`; returns the CIDs that nobody leases any more. */
  expire: (now: number, limit: number) => Promise<CID[]>
  /** Ends all leases on these blocks, whoever's; returns those of them that somebody had leased. */
  evict: (cids: readonly CID[]) => Promise<CID[]>
  get: (owner: string, cid: CID) => Promise<Lease | undefined>
  /** Leases of `owner`, in the order of their CIDs' bytes, strictly after `after`. */
  list: (owner: string, options: { after?: CID; limit: number }) => Promise<Lease[]>
  /** Who leases the block, in the order of the peer ids. */
  ownersOf: (cid: CID) => Promise<string[]>
  /** Whether anybody leases the block. */
  isLeased: (cid: CID) => Promise<boolean>
  /** Bytes of distinct leased blocks: what is in use. */
  usedBytes: () => Promise<number>
  totals: () => Promise<{ leases: number; blocks: number; bytes: number }>
  /** Who leases how much, most bytes first, at most `limit`. */
  owners: (limit: number) => Promise<OwnerTotals[]>
  close: () => Promise<void>
}
