/** Finding peers without a list: announcements under content identifiers. `kad-dht.ts` is the real one. */
import type { CID } from 'multiformats/cid'
import type { PeerAddress } from '../net/network.ts'

export interface Discovery {
  /** Announces this node as a storage provider of the network, now and again before the record expires, until stopped. */
  announceProvider: () => void
  /** Announces that this node holds an object's root. Queued, bounded, slow on purpose: one lookup costs 0.3 CPU-s. */
  announceRoot: (cid: CID) => void
  /** Every storage provider that can be found now; ends when the search does or the signal aborts. */
  findProviders: (signal?: AbortSignal) => AsyncIterable<PeerAddress>
  /** Who has announced this root, once each; ends as `findProviders` does. Nobody, where it is no CID that can be announced. */
  findRoot: (cid: CID, signal?: AbortSignal) => AsyncIterable<PeerAddress>
  /** Where a peer is now, when its known addresses have gone stale. */
  findPeer: (peerId: string, signal?: AbortSignal) => Promise<PeerAddress | undefined>
}
