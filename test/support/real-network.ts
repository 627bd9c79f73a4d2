/** libp2p nodes on loopback, for tests that need the real thing. */

import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { generateIdentity } from '../../src/net/identity.ts'
import { type Libp2pNetwork, type Libp2pNetworkInit, startLibp2pNetwork } from '../../src/net/libp2p.ts'

export const realComponents = { clock: systemClock, random: systemRandom, log: silentLog }

export async function startNode(init: Partial<Libp2pNetworkInit> = {}): Promise<Libp2pNetwork> {
  const identity = init.identity ?? (await generateIdentity())
  const node = await startLibp2pNetwork(
    { listen: ['/ip4/127.0.0.1/tcp/0'], bootstrap: [], ...init, identity },
    realComponents
  )
  node.join()
  return node
}
