/**
 * The blocks that say what the contents of this gateway are made of, for providers that refuse one of them and were given none:
 * where everybody else refuses it too they could ask nobody else.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type CID, codecs, matchesCid } from '../content/cid.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'

const readMsMax = 2 * secondMs
/** Holders asked: whoever waits for the answer does so for five seconds. */
const holdersMax = 4

export interface OwnedNodesComponents {
  index: Pick<MetadataIndex, 'findHolders'>
  client: Pick<ProviderClient, 'getShard'>
  peers: Pick<Peers, 'target' | 'state'>
  clock: Clock
  log: Log
}

/** Gives a manifest's block or a dag-pb node, never a shard; undefined where it is not of ours, or cannot be read now. Never rejects. */
export function ownedNodes({
  index,
  client,
  peers,
  clock,
  log
}: OwnedNodesComponents): (cid: CID) => Promise<Uint8Array | undefined> {
  return async (cid) => {
    if (cid.code !== codecs.dagCbor && cid.code !== codecs.dagPb) return undefined
    try {
      const holders = (await index.findHolders(cid)).filter(({ provider }) => peers.state(provider) !== 'offline')
      for (const { provider } of holders.slice(0, holdersMax)) {
        const target = peers.target(provider)
        if (target === undefined) continue
        try {
          const read = (inner: AbortSignal): Promise<Uint8Array> =>
            // Also from who refuses it: it gives it to its owner, to be moved.
            client.getShard(target, cid, inner, undefined, { toMove: true })
          const bytes = await withDeadline(clock, readMsMax, undefined, read)
          if (matchesCid(cid, bytes)) return bytes
        } catch (error) {
          log.debug('a holder did not give a node', { provider, cid, error: messageOf(error) })
        }
      }
    } catch (error) {
      log.warn('a node that was asked for was not looked up', { cid, error: messageOf(error) })
    }
    return undefined
  }
}
