/**
 * A small block from the network: from a gateway whose shards are kept here, else from those who announced it, else from
 * whichever provider says that it has it. Gateways come first, since where all others refuse a content nobody else gives it.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type CID, matchesCid } from '../content/cid.ts'
import type { Discovery } from '../discovery/discovery.ts'
import type { Network, PeerAddress } from '../net/network.ts'
import { controlProtocols, statusAnswer, statusRequest } from '../transfer/lease-protocol.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { askOwnerForNode } from '../transfer/refusal-protocol.ts'

const peersMax = 64
/** Gateways asked, all at once: those with most bytes here. */
const ownersMax = 8
const askMsMax = 5 * secondMs

export interface FindBlockComponents {
  discovery: Pick<Discovery, 'findRoot' | 'findProviders'>
  network: Pick<Network, 'request'>
  client: Pick<ProviderClient, 'getOffer' | 'getShard'>
  /** Peer ids of gateways that have leases here, most bytes first. */
  owners: (limit: number) => Promise<string[]>
  clock: Clock
  log: Log
}

/** Undefined where nobody of those asked has it. Checked against its CID. @throws the signal's reason */
export async function findBlock(
  components: FindBlockComponents,
  cid: CID,
  signal: AbortSignal
): Promise<Uint8Array | undefined> {
  const { discovery, clock, log } = components
  const owned = await fromOwners(components, cid, signal)
  if (owned !== undefined) return owned
  const asked = new Set<string>()
  const sources = [() => discovery.findRoot(cid, signal), () => discovery.findProviders(signal)]
  for (const source of sources) {
    for await (const peer of source()) {
      signal.throwIfAborted()
      if (asked.has(peer.peerId)) continue
      if (asked.size >= peersMax) return undefined
      asked.add(peer.peerId)
      try {
        const bytes = await withDeadline(clock, askMsMax, signal, (inner) => ask(components, peer, cid, inner))
        if (bytes !== undefined && matchesCid(cid, bytes)) return bytes
      } catch (error) {
        signal.throwIfAborted()
        log.debug('a peer did not give a block', { peer: peer.peerId, cid, error: messageOf(error) })
      }
    }
  }
  return undefined
}

async function fromOwners(
  { network, owners, clock, log }: FindBlockComponents,
  cid: CID,
  signal: AbortSignal
): Promise<Uint8Array | undefined> {
  const answers = await Promise.all(
    (await owners(ownersMax)).map(async (peerId) => {
      try {
        const gateway = { peerId, addresses: [] }
        const ask = (inner: AbortSignal): Promise<Uint8Array | undefined> =>
          askOwnerForNode(network, gateway, cid, inner)
        const bytes = await withDeadline(clock, askMsMax, signal, ask)
        return bytes !== undefined && matchesCid(cid, bytes) ? bytes : undefined
      } catch (error) {
        signal.throwIfAborted()
        log.debug('a gateway did not give a block', { gateway: peerId, cid, error: messageOf(error) })
        return undefined
      }
    })
  )
  return answers.find((bytes) => bytes !== undefined)
}

async function ask(
  { network, client }: FindBlockComponents,
  peer: PeerAddress,
  cid: CID,
  signal: AbortSignal
): Promise<Uint8Array | undefined> {
  const request = statusRequest.encode({ v: 1, cids: [cid] })
  const { has } = statusAnswer.decode(await network.request(peer, controlProtocols.status, request, signal))
  if (has[0] !== true) return undefined
  const { dataUrls } = await client.getOffer({ ...peer, dataUrls: [] }, signal)
  return await client.getShard({ ...peer, dataUrls }, cid, signal)
}
