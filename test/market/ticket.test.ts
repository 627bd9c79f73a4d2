import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { minuteMs } from '../../src/base/limits.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { readTicket, redeemTicket, signTicket, type Ticket, ticketBytesMax } from '../../src/market/ticket.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'

const now = 1_700_000_000_000
const [owner, from, to] = await Promise.all([generateIdentity(), generateIdentity(), generateIdentity()])
const cid = cidOfShard(Uint8Array.of(1, 2, 3))
const ticket: Ticket = {
  ...{ v: 1, owner: owner.peerId, from: from.peerId, to: to.peerId, cid },
  ...{ termMs: 60_000, notAfter: now + 10 * minuteMs }
}
const shown = { from: from.peerId, to: to.peerId, cid, now }

describe('a ticket', () => {
  it('comes back as it was signed, and is good for what it says', async () => {
    const bytes = await signTicket(ticket, owner)
    expect(bytes.length).toBeLessThanOrEqual(ticketBytesMax)
    expect(await readTicket(bytes, verifySignature)).toEqual(ticket)
    expect(await redeemTicket(bytes, shown, verifySignature)).toEqual(ticket)
  })

  it('with any bit altered is refused', async () => {
    const bytes = await signTicket(ticket, owner)
    await fc.assert(
      fc.asyncProperty(fc.nat(8 * bytes.length - 1), async (bit) => {
        const altered = Uint8Array.from(bytes)
        altered[bit >> 3]! ^= 1 << (bit & 7)
        await expect(readTicket(altered, verifySignature)).rejects.toMatchObject({ code: 'PROTOCOL' })
      }),
      { numRuns: 400 }
    )
  })

  it('is good for nobody else, nothing else, and at no other time', async () => {
    const bytes = await signTicket(ticket, owner)
    const others = [
      { from: to.peerId },
      { to: from.peerId },
      { cid: cidOfShard(Uint8Array.of(4)) },
      { now: ticket.notAfter + 1 },
      { now: ticket.notAfter - 30 * minuteMs - 1 }
    ]
    for (const other of others) {
      await expect(redeemTicket(bytes, { ...shown, ...other }, verifySignature)).rejects.toMatchObject({
        code: 'BAD_INPUT'
      })
    }
    for (const at of [ticket.notAfter, ticket.notAfter - 30 * minuteMs]) {
      expect(await redeemTicket(bytes, { ...shown, now: at }, verifySignature)).toEqual(ticket)
    }
  })

  it('signed by another than its owner, or no ticket at all, is refused', async () => {
    const bytes = await signTicket(ticket, from)
    await expect(redeemTicket(bytes, shown, verifySignature)).rejects.toMatchObject({ code: 'BAD_INPUT' })
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (junk) => {
        await expect(readTicket(junk, verifySignature)).rejects.toMatchObject({ code: 'PROTOCOL' })
      })
    )
  })
})
