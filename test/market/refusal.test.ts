import { describe, expect, test } from 'vitest'
import { cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { openRefusal, type Refusal, reasonCharsMax, refusalBytesMax, signRefusal } from '../../src/market/refusal.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'
import { codeOf } from '../contracts/provider-client.ts'

const provider = await generateIdentity()
const refusal: Refusal = {
  v: 1,
  provider: provider.peerId,
  cid: cidOfShard(Buffer.from('a shard')),
  root: cidOfNode(codecs.dagCbor, Buffer.from('a manifest')),
  reason: 'by court order 12/34',
  at: 1_700_000_000_000
}

describe('a signed refusal', () => {
  test('says what was signed, with a root and without', async () => {
    for (const root of [refusal.root, null]) {
      const bytes = await signRefusal({ ...refusal, root }, provider)
      const opened = await openRefusal(bytes, provider.peerId, verifySignature)
      expect(JSON.stringify(opened)).toBe(JSON.stringify({ ...refusal, root }))
    }
  })

  test('is refused with any bit of it altered', async () => {
    const bytes = await signRefusal(refusal, provider)
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const altered = Uint8Array.from(bytes)
      altered[bit >> 3]! ^= 1 << (bit & 7)
      expect([bit, await codeOf(openRefusal(altered, provider.peerId, verifySignature))]).toEqual([bit, 'PROTOCOL'])
    }
  })

  test('is nobody else’s, nor anything but a refusal', async () => {
    const other = await generateIdentity()
    const bytes = await signRefusal(refusal, provider)
    expect(await codeOf(openRefusal(bytes, other.peerId, verifySignature))).toBe('PROTOCOL')
    // Signed by somebody in another's name.
    const forged = await signRefusal(refusal, { ...other, peerId: provider.peerId })
    expect(await codeOf(openRefusal(forged, provider.peerId, verifySignature))).toBe('PROTOCOL')
    expect(await codeOf(openRefusal(bytes.subarray(1), provider.peerId, verifySignature))).toBe('PROTOCOL')
    expect(await codeOf(openRefusal(new Uint8Array(refusalBytesMax + 1), provider.peerId, verifySignature))).toBe(
      'PROTOCOL'
    )
  })

  test('fits its bound with the longest reason there may be', async () => {
    const bytes = await signRefusal({ ...refusal, reason: '\u{ffff}'.repeat(reasonCharsMax) }, provider)
    expect(bytes.length).toBeLessThanOrEqual(refusalBytesMax)
    await expect(signRefusal({ ...refusal, reason: 'x'.repeat(reasonCharsMax + 1) }, provider)).rejects.toThrow()
  })
})
