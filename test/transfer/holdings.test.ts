import { expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import type { RequestHandler } from '../../src/net/network.ts'
import { serveControlPlane } from '../../src/provider/control-plane.ts'
import { holdingsBy } from '../../src/transfer/holdings.ts'
import { controlProtocols, statusAnswer } from '../../src/transfer/lease-protocol.ts'
import { blockOf } from '../support/audits.ts'
import { testProvider } from '../support/provider.ts'

const to = { peerId: 'provider', addresses: ['/ip4/192.0.2.1/tcp/1'] }
const [kept, other] = [blockOf(100), blockOf(100, 2)]

test('a provider says which of some blocks it has, in order, to whoever asks', async () => {
  const { provider } = testProvider()
  await provider.put('somebody', kept.cid, kept.bytes.slice(), 60_000)
  const handlers = new Map<string, RequestHandler>()
  await serveControlPlane({ handle: async (name, handler) => void handlers.set(name, handler) }, provider)
  const ask = holdingsBy({ request: async (_peer, name, body) => await handlers.get(name)!('a stranger', body) })
  expect(await ask(to, [other.cid, kept.cid, other.cid])).toEqual([false, true, false])
  expect(await ask(to, [])).toEqual([])
})

test('an answer of another length is none', async () => {
  const stats = { capacityBytes: 1, usedBytes: 1, blocks: 1, leases: 1, version: '1' }
  const ask = holdingsBy({
    request: async (peer, name) => {
      expect([peer, name]).toEqual([to, controlProtocols.status])
      return statusAnswer.encode({ v: 1, has: [true], ...stats })
    }
  })
  await expect(ask(to, [kept.cid, other.cid])).rejects.toMatchObject({ code: 'PROTOCOL' })
  const silent = holdingsBy({
    request: async () => {
      throw new HoldfastError('TIMEOUT', 'silent')
    }
  })
  await expect(silent(to, [kept.cid])).rejects.toMatchObject({ code: 'TIMEOUT' })
})
