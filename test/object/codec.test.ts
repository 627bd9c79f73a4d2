import { createDecipheriv } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { systemRandom } from '../../src/base/system.ts'
import { createCoder } from '../../src/erasure/coder.ts'
import { cipherAt } from '../../src/object/cipher.ts'
import { seal, unseal } from '../../src/object/keys.ts'
import { createSyncCodec, type SegmentCodec, shardBytesFor, storedShardBytes } from '../../src/object/segment-codec.ts'
import { createWorkerCodec } from '../../src/object/worker-codec.ts'

const key = Uint8Array.from({ length: 32 }, (_, i) => i)
const nonce = Uint8Array.from([9, 8, 7, 6, 5, 4, 3, 2])
const worker = createWorkerCodec(1)
afterAll(() => worker.close())

const bytesOf = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 131 + seed * 29 + (i >> 8)) & 255)

describe.each<[string, SegmentCodec]>([
  ['on the calling thread', createSyncCodec(createCoder())],
  ['on worker threads', worker]
])('the segment codec %s', (_name, codec) => {
  it('gives back every byte from any k shards', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 2, max: 5 }),
        fc.integer({ min: 1, max: 3000 }),
        fc.nat(),
        async (k, m, length, seed) => {
          const code = { k, m }
          const plain = bytesOf(length, seed)
          // A recycled buffer: what is in it from before must not matter.
          const buffer = new Uint8Array(shardBytesFor(length, code) * (k + m) + (seed % 50)).fill(0xee)
          buffer.set(plain)
          const { shards } = await codec.encode({ buffer, length, code, cipher: { key, nonce } })
          expect(shards.map((s) => s.length)).toEqual(
            Array.from({ length: k + m }, (_, i) => storedShardBytes(length, code, i))
          )
          const lost = new Set(Array.from({ length: m }, (_, i) => (seed + i * 3) % (k + m)))
          const some = shards.map((shard, i) => (lost.has(i) ? undefined : shard.slice()))
          const wanted = Array.from({ length: k }, (_, i) => i)
          const restored = await codec.reconstruct({ shards: some, length, code, wanted })
          const coded = Buffer.concat(restored)
          expect(coded.length).toBe(length)
          expect(Buffer.compare(cipherAt({ key, nonce }, 0)(coded), plain)).toBe(0)
        }
      ),
      { numRuns: 40 }
    )
  })
})

describe('the cipher', () => {
  it('is AES-256-CTR from block 0 of the segment, and can start anywhere', () => {
    const plain = bytesOf(5000, 1)
    const coded = Buffer.from(cipherAt({ key, nonce }, 0)(plain))
    const iv = Buffer.concat([nonce, Buffer.alloc(8)])
    expect(Buffer.compare(createDecipheriv('aes-256-ctr', key, iv).update(coded), plain)).toBe(0)
    fc.assert(
      fc.property(fc.nat(4999), fc.nat(5000), (from, length) => {
        const slice = coded.subarray(from, from + length)
        expect(Buffer.compare(cipherAt({ key, nonce }, from)(slice), plain.subarray(from, from + length))).toBe(0)
      })
    )
  })
})

describe('wrapped keys', () => {
  it('open with the same key and purpose, and with no other', () => {
    const sealed = seal(key, bytesOf(32, 5), 'bucket:a', systemRandom)
    expect(Buffer.compare(unseal(key, sealed, 'bucket:a'), bytesOf(32, 5))).toBe(0)
    expect(() => unseal(key, sealed, 'bucket:b')).toThrow(/cannot be opened/)
    expect(() => unseal(bytesOf(32, 9), sealed, 'bucket:a')).toThrow(/cannot be opened/)
    for (let at = 0; at < sealed.length; at++) {
      const altered = Uint8Array.from(sealed)
      altered[at]! ^= 1
      expect(() => unseal(key, altered, 'bucket:a')).toThrow(/cannot be opened/)
    }
    expect(() => unseal(key, new Uint8Array(3), 'bucket:a')).toThrow(/cannot be opened/)
  })
})
