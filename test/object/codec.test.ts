import { createDecipheriv, createHash } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { systemRandom } from '../../src/base/system.ts'
import { blake3 } from '../../src/content/blake3.ts'
import { createCoder } from '../../src/erasure/coder.ts'
import type { Slab } from '../../src/object/arena.ts'
import { cipherAt } from '../../src/object/cipher.ts'
import { createCodingMemory } from '../../src/object/coding-memory.ts'
import { seal, unseal } from '../../src/object/keys.ts'
import { createSyncCodec, type SegmentCodec, shardBytesFor, storedShardBytes } from '../../src/object/segment-codec.ts'
import { createWorkerCodec } from '../../src/object/worker-codec.ts'

const key = Uint8Array.from({ length: 32 }, (_, i) => i)
const nonce = Uint8Array.from([9, 8, 7, 6, 5, 4, 3, 2])
const memory = createCodingMemory({ writeBytes: 4 * MiB, readBytes: MiB }, 1)
const worker = createWorkerCodec(memory)
afterAll(() => worker.close())

const bytesOf = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 131 + seed * 29 + (i >> 8)) & 255)

const onHeap = (bytes: number): Slab => ({ bytes: new Uint8Array(bytes), release: () => {} })
const inArena = (bytes: number): Slab => memory.writes.tryTake(bytes)!

describe.each<[string, SegmentCodec, (bytes: number) => Slab]>([
  ['on the calling thread', createSyncCodec(createCoder()), onHeap],
  ['on worker threads, copying', worker, onHeap],
  ['on worker threads, in place', worker, inArena]
])('the segment codec %s', (_name, codec, slab) => {
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
          const { bytes: buffer, release } = slab(shardBytesFor(length, code) * (k + m) + (seed % 50))
          buffer.fill(0xee)
          buffer.set(plain)
          const { shards, digests } = await codec.encode({ buffer, length, code, cipher: { key, nonce } })
          expect(digests.map((digest) => Buffer.from(digest).toString('hex'))).toEqual(
            shards.map((shard) => Buffer.from(blake3(shard)).toString('hex'))
          )
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
          release()
        }
      ),
      { numRuns: 40 }
    )
    expect(memory.writes.freeBytes).toBe(memory.writes.capacity)
  })

  it('hashes what comes a segment at a time', async () => {
    const [one, other] = [codec.startDigest(), codec.startDigest()]
    const dropped = codec.startDigest()
    const expected = createHash('md5')
    for (const [i, length] of [0, 1, 70_000, 5].entries()) {
      const { bytes, release } = slab(length)
      bytes.set(bytesOf(length, i))
      expected.update(bytes)
      await Promise.all([one.update(bytes), other.update(bytesOf(3, i)), dropped.update(bytes)])
      release()
    }
    dropped.drop()
    expect(Buffer.compare(await one.digest(), expected.digest())).toBe(0)
    const others = Buffer.concat([0, 1, 2, 3].map((i) => bytesOf(3, i)))
    expect(Buffer.compare(await other.digest(), createHash('md5').update(others).digest())).toBe(0)
    one.drop()
  })

  it('decrypts in place, from anywhere', async () => {
    if (slab === onHeap && codec === worker) {
      const lost = codec.decrypt({ pieces: [bytesOf(3, 1)], cipher: { key, nonce }, offset: 0 })
      return expect(lost).rejects.toMatchObject({ code: 'INTERNAL' })
    }
    const plain = bytesOf(60_000, 7)
    const coded = cipherAt({ key, nonce }, 0)(plain)
    for (const [from, cut, to] of [
      [0, 20_000, 60_000],
      [17, 18, 50_001]
    ] as const) {
      const pieces = [coded.subarray(from, cut), coded.subarray(cut, to)].map((bytes) => {
        const place = slab(bytes.length).bytes
        place.set(bytes)
        return place
      })
      await codec.decrypt({ pieces, cipher: { key, nonce }, offset: from })
      expect(Buffer.compare(Buffer.concat(pieces), plain.subarray(from, to))).toBe(0)
    }
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
