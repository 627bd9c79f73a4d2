/**
 * The seam between the gateway's core and one provider. `https.ts` has the real one, `sim/` a simulated one; both are
 * run against `test/contracts/provider-client.ts`.
 */
import type { CID } from 'multiformats/cid'
import type { ProofAnswers } from '../custody/answers.ts'
import type { Signed } from '../custody/audit-messages.ts'
import type { Offer } from '../market/offer.ts'

/** Where a provider is reached. Its identity is the peer id; the rest are hints that may go stale. */
export interface ProviderRef {
  /** libp2p peer id, base58btc. */
  peerId: string
  dataUrls: readonly string[]
  addresses: readonly string[]
}

export interface LeaseTerms {
  /** How long from now, by the provider's clock. */
  termMs: number
}

export interface PutShardOptions extends LeaseTerms {
  /** The block is an object's root: the provider announces it to the DHT. */
  announce?: boolean
  /** Signed by whom the lease is to be of, which is not the caller then; the term is the ticket's. */
  ticket?: Uint8Array
  signal?: AbortSignal
}

export interface GetShardOptions {
  /**
   * The provider has refused the block, which the caller leases and is about to keep elsewhere: it gives it for that, as
   * long as it still has it.
   */
  toMove?: boolean
}

/**
 * What a provider says of a lease it was asked to extend. `missing`: it does not have the block. `refused`: it will
 * not keep it any longer.
 */
export type LeaseState = 'held' | 'missing' | 'refused'

/**
 * Every method rejects with a HoldfastError whose code says what happened, and nothing more than was observed:
 * `OFFLINE` (no connection), `TIMEOUT`, `MISSING`, `REFUSED`, `NO_SPACE`, `WRONG` (it rejected or returned bytes that do
 * not match), `PROTOCOL` (an answer that makes no sense); or with the signal's reason.
 */
export interface ProviderClient {
  /** Resolves when the provider holds the block durably (fsynced) under a lease of the caller's. Idempotent. */
  putShard: (provider: ProviderRef, cid: CID, bytes: Uint8Array, options: PutShardOptions) => Promise<void>
  /**
   * At most `limits.shardBytesMax` bytes, NOT yet checked against the CID: the caller does, always. They may be put
   * `into` the memory given, where they fit; that is the caller's again once the promise has resolved, not before.
   */
  getShard: (
    provider: ProviderRef,
    cid: CID,
    signal?: AbortSignal,
    into?: Uint8Array,
    options?: GetShardOptions
  ) => Promise<Uint8Array>
  /** Extends the caller's leases to at least `termMs` from now; answers in order. At most `limits.leaseBatchMax`. */
  renewLeases: (
    provider: ProviderRef,
    cids: readonly CID[],
    terms: LeaseTerms,
    signal?: AbortSignal
  ) => Promise<LeaseState[]>
  /** Ends the caller's leases on these blocks; unknown ones are ignored. At most `limits.leaseBatchMax`. */
  releaseLeases: (provider: ProviderRef, cids: readonly CID[], signal?: AbortSignal) => Promise<void>
  /** The provider's current offer, its signature checked. */
  getOffer: (provider: ProviderRef, signal?: AbortSignal) => Promise<Offer>
  /**
   * Puts the challenges of an audit request of our own, signed, to a provider. Rejects (`OFFLINE`, `TIMEOUT`, `PROTOCOL`, or
   * with the signal's reason) while the provider has not begun to answer; from then on it resolves with what came, none of it
   * checked (`judgeAnswers` does), and with `failure` where something else than the provider's end of the stream ended it,
   * the signal included.
   *
   * @throws HoldfastError `PROTOCOL` for a request that is none
   */
  prove: (provider: ProviderRef, request: Signed, signal?: AbortSignal) => Promise<ProofAnswers>
  /**
   * What the provider has signed about refusing these blocks, in order, none of it checked (`openRefusal` does); undefined
   * where it does not refuse one. At most `refusalsMax`.
   */
  listRefusals: (
    provider: ProviderRef,
    cids: readonly CID[],
    signal?: AbortSignal
  ) => Promise<Array<Uint8Array | undefined>>
}
