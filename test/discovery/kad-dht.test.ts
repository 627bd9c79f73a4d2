import { afterEach, describe, expect, test } from 'vitest'
import { cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { KadDiscovery } from '../../src/discovery/kad-dht.ts'
import type { Libp2pNetwork } from '../../src/net/libp2p.ts'
import { discoveryContract } from '../contracts/discovery.ts'
import { realComponents, startNode } from '../support/real-network.ts'

interface Member {
  peerId: string
  network: Libp2pNetwork
  discovery: KadDiscovery
}

async function startMembers(count: number): Promise<Member[]> {
  const first = await startNode()
  const rest = await Promise.all(
    Array.from({ length: count - 1 }, () => startNode({ bootstrap: first.addresses(), lookupPeersMax: 256 }))
  )
  return [first, ...rest].map((network) => ({
    peerId: network.peerId,
    network,
    discovery: new KadDiscovery({ network, ...realComponents }, { rootEveryMs: 20 })
  }))
}

async function stopMembers(members: readonly Member[]): Promise<void> {
  await Promise.all(members.map(({ discovery }) => discovery.stop()))
  await Promise.all(members.map(({ network }) => network.stop()))
}

discoveryContract('KadDiscovery', async () => {
  const members = await startMembers(5)
  return { members, cleanUp: () => stopMembers(members) }
})

describe('announcing in the DHT', () => {
  let members: Member[] = []
  afterEach(async () => {
    await stopMembers(members)
    members = []
  })

  test('roots can be found by any client of the DHT', async () => {
    members = await startMembers(4)
    const [holder, , , asker] = members
    const roots = ['one', 'two', 'three'].map((text) => cidOfNode(codecs.dagCbor, Buffer.from(text)))
    for (const cid of roots) holder!.discovery.announceRoot(cid)
    for (const cid of roots) {
      await expect
        .poll(
          async () => {
            const found: string[] = []
            for await (const { id } of asker!.network.node.contentRouting.findProviders(cid)) found.push(id.toString())
            return found
          },
          { timeout: 20_000 }
        )
        .toContain(holder!.peerId)
    }
    expect(() => holder!.discovery.announceRoot(cidOfShard(Buffer.from('a shard')))).toThrow(/sha2-256/)
  })

  test('a search ends in bounded time although peers are gone, and finds those that are not', async () => {
    members = await startMembers(6)
    for (const { discovery } of members) discovery.announceProvider()
    await Promise.all(members.map(({ discovery }) => discovery.announced))
    const asker = members[5]!
    const all = new Set(members.slice(0, 5).map(({ peerId }) => peerId))
    const found = async (): Promise<Set<string>> => {
      const peerIds = new Set<string>()
      for await (const { peerId } of asker.discovery.findProviders()) peerIds.add(peerId)
      return peerIds
    }
    await expect.poll(found, { timeout: 20_000 }).toEqual(all)
    const gone = members.splice(1, 2)
    await stopMembers(gone)
    const left = await found()
    for (const { peerId } of members.slice(0, 3)) expect(left).toContain(peerId)
  })
})
