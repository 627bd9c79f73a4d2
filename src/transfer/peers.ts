/** What sending and fetching need to know of providers; the gateway's directory gives it. */
import type { CID } from 'multiformats/cid'
import type { Standing } from '../custody/score.ts'
import type { Candidate } from '../placement/place.ts'
import type { ProviderRef } from './provider-client.ts'

export type PeerOutcome = 'ok' | 'offline' | 'timeout' | 'missing' | 'wrong' | 'refused' | 'full' | 'unknown'

/**
 * Told what a request about a whole block has shown of its custody. Whoever then writes to the index that the block is lost waits
 * for it: whether it was owed at all is read there.
 */
export type CustodyObserver = (provider: string, cid: CID, outcome: PeerOutcome) => Promise<void>

export interface Peers {
  /** Where new shards may go now. */
  candidates: () => Candidate[]
  /** How to reach a provider; `undefined` when that is not known. */
  target: (peerId: string) => ProviderRef | undefined
  state: (peerId: string) => 'online' | 'offline' | 'contained' | 'unknown'
  domainsOf: (peerId: string) => string[]
  /** A request that has taken longer than this is late, by the provider's own history. */
  lateAfterMs: (peerId: string) => number
  /** What audits have shown of it; everybody is trusted where nothing audits. */
  standing?: (peerId: string) => Standing
  report: (peerId: string, outcome: PeerOutcome, elapsedMs?: number) => void
}
