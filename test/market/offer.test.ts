import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeOffer, encodeOffer, type Offer } from '../../src/market/offer.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'

const offerOf = (peerId: string, more: Partial<Offer> = {}): Offer => ({
  v: 1,
  peerId,
  dataUrls: ['https://192.0.2.1:4002'],
  addresses: ['/ip4/192.0.2.1/tcp/4001'],
  capacityBytes: 1000,
  freeBytes: 900,
  domain: 'home',
  price: 0,
  accepting: true,
  version: '1',
  issuedAt: 1_700_000_000_000,
  ...more
})

describe('an offer', () => {
  it('comes back as it was signed', async () => {
    const identity = await generateIdentity()
    const offer = offerOf(identity.peerId)
    expect(await decodeOffer(await encodeOffer(offer, identity), identity.peerId, verifySignature)).toEqual(offer)
  })

  it('altered in any byte, of another peer, or signed by another is refused', async () => {
    const [identity, other] = [await generateIdentity(), await generateIdentity()]
    const bytes = await encodeOffer(offerOf(identity.peerId), identity)
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const altered = Uint8Array.from(bytes)
        altered[at]! ^= flip
        await expect(decodeOffer(altered, identity.peerId, verifySignature)).rejects.toMatchObject({ code: 'PROTOCOL' })
      }),
      { numRuns: 200 }
    )
    await expect(decodeOffer(bytes, other.peerId, verifySignature)).rejects.toMatchObject({ code: 'PROTOCOL' })
    const forged = await encodeOffer(offerOf(identity.peerId), other)
    await expect(decodeOffer(forged, identity.peerId, verifySignature)).rejects.toMatchObject({ code: 'PROTOCOL' })
  })

  it('that is not exactly an offer is refused, whatever else it is', async () => {
    const identity = await generateIdentity()
    const signedBytes = async (value: unknown): Promise<Uint8Array> => {
      const offer = dagCbor.encode(value)
      const signature = await identity.sign(Buffer.concat([Buffer.from('holdfast-offer:'), offer]))
      return dagCbor.encode({ offer, signature })
    }
    const good = offerOf(identity.peerId)
    expect(await decodeOffer(await signedBytes(good), identity.peerId, verifySignature)).toEqual(good)
    for (const bad of [
      { ...good, v: 2 },
      { ...good, extra: 1 },
      { ...good, dataUrls: [] },
      { ...good, dataUrls: ['http://192.0.2.1'] },
      { ...good, dataUrls: ['https://192.0.2.1/path'] },
      { ...good, freeBytes: -1 },
      { ...good, domain: '' },
      { ...good, domain: 'x'.repeat(1000) },
      'offer',
      null
    ]) {
      await expect(decodeOffer(await signedBytes(bad), identity.peerId, verifySignature)).rejects.toMatchObject({
        code: 'PROTOCOL'
      })
    }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        await expect(decodeOffer(bytes, identity.peerId, verifySignature)).rejects.toMatchObject({ code: 'PROTOCOL' })
      })
    )
  })
})
