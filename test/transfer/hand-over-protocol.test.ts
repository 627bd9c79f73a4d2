import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { ticketBytesMax } from '../../src/market/ticket.ts'
import type { RequestHandler } from '../../src/net/network.ts'
import {
  askWhere,
  avoidedMax,
  type HandOverAnswer,
  type HandOverPlace,
  handOverAnswer,
  handOverBatchMax,
  handOverRequest,
  serveHandOver,
  tellDone
} from '../../src/transfer/hand-over-protocol.ts'

const cid = cidOfShard(Uint8Array.of(1))
const place: HandOverPlace = {
  to: { peerId: 'other', dataUrls: ['https://192.0.2.1:4002'], addresses: [] },
  ...{ ticket: new Uint8Array(300), again: false }
}
const gateway = { peerId: 'gateway', addresses: [] }

/** The asking end against what a gateway answers. */
async function wired(answer: (from: string) => HandOverAnswer | Promise<HandOverAnswer>) {
  let handler: RequestHandler | undefined
  await serveHandOver(
    {
      handle: async (_protocol, given) => {
        handler = given
      }
    },
    async (from) => await answer(from)
  )
  return { request: (_peer: unknown, _protocol: string, body: Uint8Array) => handler!('provider', body) }
}

describe('the hand-over protocol', () => {
  it('carries answers of all kinds, and the largest', async () => {
    const places: HandOverPlace[] = [
      place,
      { release: true },
      { keep: true, why: 'busy', retryAfterMs: 5 },
      { keep: true, why: 'nobody', retryAfterMs: 5 }
    ]
    const network = await wired(() => ({ v: 1, places }))
    const cids = places.map(() => cid)
    expect(await askWhere(network, gateway, { cids, reason: 'drain', avoid: [] })).toEqual(places)
    const url = `https://${'x'.repeat(248)}`
    const to = { peerId: 'p'.repeat(128), dataUrls: Array(8).fill(url), addresses: Array(16).fill(url) }
    const largest = Array<HandOverPlace>(handOverBatchMax).fill({
      to,
      ticket: new Uint8Array(ticketBytesMax),
      again: true
    })
    expect(handOverAnswer.decode(handOverAnswer.encode({ v: 1, places: largest }))).toEqual({ v: 1, places: largest })
    const placed = Array(handOverBatchMax).fill({ cid, to: to.peerId, ticket: new Uint8Array(ticketBytesMax) })
    expect(handOverRequest.decode(handOverRequest.encode({ v: 1, op: 'done', placed }))).toMatchObject({ op: 'done' })
  })

  it('an answer about other blocks, or to another question, is PROTOCOL; too much at once is TIMEOUT', async () => {
    const placed = [{ cid, to: 'other', ticket: Uint8Array.of(1) }]
    const where = { cids: [cid], reason: 'refusal' as const, avoid: [] }
    for (const answer of [
      { v: 1 as const, places: [] },
      { v: 1 as const, accepted: [] }
    ]) {
      const network = await wired(() => answer)
      await expect(askWhere(network, gateway, where)).rejects.toMatchObject({ code: 'PROTOCOL' })
      await expect(tellDone(network, gateway, placed)).rejects.toMatchObject({ code: 'PROTOCOL' })
    }
    const busy = await wired(() => Promise.reject(new HoldfastError('OVERLOADED', 'later')))
    await expect(askWhere(busy, gateway, where)).rejects.toMatchObject({ code: 'TIMEOUT' })
    await expect(tellDone(busy, gateway, placed)).rejects.toMatchObject({ code: 'TIMEOUT' })
  })

  it('refuses what is more than a request may have, and whatever is none', async () => {
    const good = { v: 1, op: 'where', cids: [cid], reason: 'drain', avoid: [] } as const
    expect(handOverRequest.decode(handOverRequest.encode(good as never))).toEqual(good)
    for (const bad of [
      { ...good, cids: [] },
      { ...good, cids: Array(handOverBatchMax + 1).fill(cid) },
      { ...good, avoid: Array(avoidedMax + 1).fill('p') },
      { ...good, reason: 'spite' },
      { ...good, more: 1 },
      { v: 1, op: 'done', placed: [{ cid, to: 'p', ticket: new Uint8Array(ticketBytesMax + 1) }] }
    ]) {
      expect(() => handOverRequest.encode(bad as never)).toThrow()
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (junk) => {
        expect(() => handOverRequest.decode(junk)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
        expect(() => handOverAnswer.decode(junk)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
      })
    )
  })
})
