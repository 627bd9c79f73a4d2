import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CID, cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import type { Discovery } from '../../src/discovery/discovery.ts'

export interface DiscoveryMember {
  peerId: string
  discovery: Discovery
}

export interface DiscoveryFixture {
  /** At least three members of one network that know of each other only through it. */
  members: DiscoveryMember[]
  cleanUp: () => Promise<void>
}

async function found(discovery: Discovery): Promise<string[]> {
  const peerIds: string[] = []
  for await (const { peerId } of discovery.findProviders()) peerIds.push(peerId)
  return peerIds
}

/** What every `Discovery` promises. */
export function discoveryContract(name: string, open: () => Promise<DiscoveryFixture>): void {
  describe(`${name} as a Discovery`, () => {
    let fixture: DiscoveryFixture
    beforeAll(async () => {
      fixture = await open()
    })
    afterAll(async () => {
      await fixture?.cleanUp()
    })

    test('who announced itself is found by the others, once each; who did not is not', async () => {
      const [asker, ...rest] = fixture.members
      const announcing = rest.slice(0, -1)
      const silent = rest.at(-1)!
      for (const { discovery } of announcing) {
        discovery.announceProvider()
        discovery.announceProvider() // twice is once
      }
      await expect
        .poll(async () => (await found(asker!.discovery)).sort(), { timeout: 20_000 })
        .toEqual(announcing.map(({ peerId }) => peerId).sort())
      expect(await found(asker!.discovery)).not.toContain(silent.peerId)
    })

    test('a peer is found by its id; one that is not there is not', async () => {
      const [asker, ...rest] = fixture.members
      const other = rest.at(-1)!
      await expect
        .poll(async () => (await asker!.discovery.findPeer(other.peerId))?.peerId, { timeout: 20_000 })
        .toBe(other.peerId)
      expect(await asker!.discovery.findPeer('12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv')).toBeUndefined()
      expect(await asker!.discovery.findPeer('not a peer id')).toBeUndefined()
    })

    test('an aborted search ends', async () => {
      const peers = []
      for await (const peer of fixture.members[0]!.discovery.findProviders(AbortSignal.abort())) peers.push(peer)
      expect(peers).toEqual([])
    })

    test('who announced a root is found by it, once; of what nobody announced, or could, nobody is', async () => {
      const [asker, holder] = fixture.members
      const root = cidOfNode(codecs.dagCbor, Buffer.from('a root of somebody'))
      const holders = async (cid: CID, signal?: AbortSignal): Promise<string[]> => {
        const peerIds: string[] = []
        for await (const { peerId } of asker!.discovery.findRoot(cid, signal)) peerIds.push(peerId)
        return peerIds
      }
      holder!.discovery.announceRoot(root)
      await expect.poll(() => holders(root), { timeout: 20_000 }).toEqual([holder!.peerId])
      expect(await holders(cidOfNode(codecs.dagCbor, Buffer.from('a root of nobody')))).toEqual([])
      expect(await holders(cidOfShard(Buffer.from('a shard')))).toEqual([])
      expect(await holders(root, AbortSignal.abort())).toEqual([])
    })

    test('roots may be announced any number of times', () => {
      const cid = cidOfNode(codecs.dagCbor, Buffer.from('a root'))
      for (let i = 0; i < 3; i++) fixture.members[1]!.discovery.announceRoot(cid)
    })
  })
}
