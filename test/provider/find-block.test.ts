/** Where a provider looks for a block that says what a content is made of. */
import { expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import { type CID, cidOfNode, codecs } from '../../src/content/cid.ts'
import type { PeerAddress, RequestHandler } from '../../src/net/network.ts'
import { type FindBlockComponents, findBlock } from '../../src/provider/find-block.ts'
import { serveRefusals } from '../../src/transfer/refusal-protocol.ts'

const node = Uint8Array.of(0xa0)
const cid = cidOfNode(codecs.dagCbor, node)
const { signal } = new AbortController()
const nobody = async function* (): AsyncGenerator<PeerAddress> {}

/** The given gateways have leases here; who else is asked is written down. */
async function componentsOf(
  gateways: Record<string, (cid: CID) => Promise<Uint8Array | undefined>>
): Promise<{ components: FindBlockComponents; asked: string[] }> {
  const asked: string[] = []
  const handlers = new Map<string, RequestHandler>()
  for (const [peerId, answer] of Object.entries(gateways)) {
    await serveRefusals({ handle: async (_protocol, handler) => void handlers.set(peerId, handler) }, { node: answer })
  }
  const components: FindBlockComponents = {
    discovery: {
      findRoot: async function* () {
        asked.push('announced')
        yield* nobody()
      },
      findProviders: async function* () {
        asked.push('anybody')
        yield* nobody()
      }
    },
    network: {
      request: async ({ peerId }, _protocol, body) => {
        const handler = handlers.get(peerId)
        if (handler === undefined) throw new HoldfastError('OFFLINE', `${peerId} cannot be reached`)
        return await handler('provider', body)
      }
    },
    client: {
      getOffer: () => expect.fail('nobody says that it has it'),
      getShard: () => expect.fail('nobody says that it has it')
    },
    owners: async (limit) => Object.keys(gateways).concat('offline').slice(0, limit),
    clock: systemClock,
    log: silentLog
  }
  return { components, asked }
}

it('has it from a gateway whose shards are kept here, though nobody else gives it', async () => {
  const { components, asked } = await componentsOf({ other: async () => undefined, owner: async () => node })
  expect(await findBlock(components, cid, signal)).toEqual(node)
  expect(asked).toEqual([])
})

it('believes no gateway, and looks on where none knows it', async () => {
  const { components, asked } = await componentsOf({
    liar: async () => Uint8Array.of(0xa1),
    broken: () => Promise.reject(new HoldfastError('PROTOCOL', 'broken'))
  })
  expect(await findBlock(components, cid, signal)).toBeUndefined()
  expect(asked).toEqual(['announced', 'anybody'])
})
