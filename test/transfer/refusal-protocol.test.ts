import { expect, it } from 'vitest'
import type { CID } from '../../src/content/cid.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import type { RequestHandler } from '../../src/net/network.ts'
import {
  askForRefusals,
  askOwnerForNode,
  nodeBytesMax,
  serveRefusals,
  tellGateway
} from '../../src/transfer/refusal-protocol.ts'

it('answers so many requests of one peer at a time, and no more, whatever they wait for', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  let handler: RequestHandler | undefined
  await serveRefusals(
    {
      handle: async (_protocol, given) => {
        handler = given
      }
    },
    {
      list: async (cids) => {
        await released
        return cids.map(() => undefined)
      }
    }
  )
  const ask = (from: string): Promise<unknown> =>
    askForRefusals(
      { request: async (_to, _protocol, body) => await handler!(from, body) },
      { peerId: 'provider', addresses: [] },
      [cidOfShard(Uint8Array.of(1))]
    )
  const asked = [ask('a'), ask('a'), ask('a'), ask('a')]
  await expect(ask('a')).rejects.toThrow('at most 4 requests')
  const other = ask('b')
  release()
  expect(await Promise.all([...asked, other])).toEqual(Array(5).fill([undefined]))
  expect(await ask('a')).toEqual([undefined])
})

it('gives a node of a content, and none that does not fit into a message', async () => {
  const handlers = new Map<string, RequestHandler>()
  const node = Uint8Array.of(1, 2, 3)
  const [known, huge, unknown] = [1, 2, 3].map((byte) => cidOfShard(Uint8Array.of(byte))) as [CID, CID, CID]
  const nodes = new Map([
    [`${known}`, node],
    [`${huge}`, new Uint8Array(nodeBytesMax + 1)]
  ])
  await serveRefusals(
    { handle: async (protocol, handler) => void handlers.set(protocol, handler) },
    { node: async (cid) => nodes.get(cid.toString()) }
  )
  const [handler] = handlers.values()
  const network = { request: async (_to: unknown, _protocol: string, body: Uint8Array) => await handler!('p', body) }
  const ask = (cid: CID): Promise<Uint8Array | undefined> =>
    askOwnerForNode(network, { peerId: 'gateway', addresses: [] }, cid)
  expect(await ask(known)).toEqual(node)
  expect(await ask(huge)).toBeUndefined()
  expect(await ask(unknown)).toBeUndefined()
  nodes.set(`${huge}`, new Uint8Array(nodeBytesMax))
  expect((await ask(huge))?.length).toBe(nodeBytesMax)
  const list = askForRefusals(network, { peerId: 'gateway', addresses: [] }, [known])
  await expect(list).rejects.toThrow('list is not answered here')
})

it('takes what is told while many ask for nodes that take long', async () => {
  const handlers = new Map<string, RequestHandler>()
  const { promise: released, resolve: release } = Promise.withResolvers<undefined>()
  const told: string[] = []
  await serveRefusals(
    { handle: async (protocol, handler) => void handlers.set(protocol, handler) },
    { node: () => released, tell: async (from) => void told.push(from) }
  )
  const [handler] = handlers.values()
  const as = (from: string) => ({
    request: async (_to: unknown, _protocol: string, body: Uint8Array) => await handler!(from, body)
  })
  const gateway = { peerId: 'gateway', addresses: [] }
  const node = cidOfShard(Uint8Array.of(1))
  const asked = Array.from({ length: 40 }, (_, i) => askOwnerForNode(as(`asks-${i}`), gateway, node))
  await tellGateway(as('tells'), gateway, { refusals: [], lost: [node], at: 1, handOver: false })
  expect(told).toEqual(['tells'])
  release(undefined)
  expect(await Promise.all(asked)).toEqual(asked.map(() => undefined))
})
