/**
 * Which blocks a provider says it has. Anybody may ask anybody, without lease or key. What it says is a hint: only a proof
 * of custody, or the block itself, shows anything.
 */
import type { CID } from 'multiformats/cid'
import { HoldfastError } from '../base/errors.ts'
import type { Network } from '../net/network.ts'
import { controlProtocols, statusAnswer, statusRequest } from './lease-protocol.ts'
import type { ProviderRef } from './provider-client.ts'

/**
 * In the order of the CIDs, at most `limits.leaseBatchMax`.
 *
 * @throws HoldfastError `OFFLINE`, `TIMEOUT`, `PROTOCOL`; or the signal's reason
 */
export type AskHoldings = (
  provider: Pick<ProviderRef, 'peerId' | 'addresses'>,
  cids: readonly CID[],
  signal?: AbortSignal
) => Promise<boolean[]>

export function holdingsBy(network: Pick<Network, 'request'>): AskHoldings {
  return async ({ peerId, addresses }, cids, signal) => {
    const body = statusRequest.encode({ v: 1, cids: [...cids] })
    const answer = await network.request({ peerId, addresses }, controlProtocols.status, body, signal)
    const { has } = statusAnswer.decode(answer)
    if (has.length !== cids.length) throw new HoldfastError('PROTOCOL', 'an answer for each block was expected')
    return has
  }
}
