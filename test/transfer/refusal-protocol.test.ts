import { expect, it } from 'vitest'
import { cidOfShard } from '../../src/content/cid.ts'
import type { RequestHandler } from '../../src/net/network.ts'
import { askForRefusals, serveRefusals } from '../../src/transfer/refusal-protocol.ts'

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
