import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CID, cidOfNode, cidOfShard, codecs, matchesCid, parseCid } from '../../src/content/cid.ts'
import { encodeManifest, type Manifest, readManifest } from '../../src/content/manifest.ts'
import { pattern } from './pattern.ts'

describe('CIDs', () => {
  it('of shards are raw blocks under BLAKE3; of nodes, sha2-256', () => {
    const shard = cidOfShard(pattern(1000))
    expect([shard.version, shard.code, shard.multihash.code, shard.multihash.digest.length]).toEqual([
      1, 0x55, 0x1e, 32
    ])
    const node = cidOfNode(codecs.dagCbor, pattern(10))
    expect([node.version, node.code, node.multihash.code]).toEqual([1, 0x71, 0x12])
  })

  it('match their bytes and nothing else', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 3000 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (bytes, at, flip) => {
          for (const cid of [cidOfShard(bytes), cidOfNode(codecs.dagPb, bytes)]) {
            expect(matchesCid(cid, bytes)).toBe(true)
            const altered = bytes.slice()
            altered[at % bytes.length]! ^= flip
            expect(matchesCid(cid, altered)).toBe(false)
            expect(matchesCid(cid, bytes.subarray(1))).toBe(false)
          }
        }
      )
    )
  })

  it('of other kinds, and other texts, are refused with advice', () => {
    expect(() => parseCid('not-a-cid')).toThrow(/not a CID/)
    expect(() =>
      matchesCid(CID.parse('bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy').toV1(), pattern(1))
    ).not.toThrow()
    expect(() =>
      matchesCid(
        CID.createV1(0x55, {
          code: 0x11,
          size: 20,
          digest: new Uint8Array(20),
          bytes: new Uint8Array([0x11, 20, ...new Uint8Array(20)])
        }),
        pattern(1)
      )
    ).toThrow(/hash function/)
  })
})

const segmentOf = (length: number, k: number, m: number, salt: number): Manifest['segments'][number] => ({
  length,
  k,
  m,
  nonce: Uint8Array.from([1, 2, 3, 4, 5, 6, 7, salt & 255]),
  shards: Array.from({ length: k + m }, (_, i) => cidOfShard(Uint8Array.from([salt & 255, salt >> 8, i])))
})

describe('manifests', () => {
  const read = (manifest: Manifest) => {
    const { root, blocks } = encodeManifest(manifest)
    const held = new Map(blocks.map(({ cid, bytes }) => [cid.toString(), bytes]))
    return readManifest(root, async (cid) => held.get(cid.toString())!)
  }

  it('come back as they were written, whatever their size', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 0, max: 20 }),
        fc.boolean(),
        async (count, k, m, isEncrypted) => {
          const segments = Array.from({ length: count }, (_, i) => segmentOf(1 + i * 7, k, m, i))
          const manifest: Manifest = {
            size: segments.reduce((sum, s) => sum + s.length, 0),
            wrappedKey: isEncrypted ? pattern(60) : undefined,
            segments
          }
          const back = await read(manifest)
          expect(back.size).toBe(manifest.size)
          expect(back.wrappedKey).toEqual(manifest.wrappedKey)
          expect(back.segments.map((s) => [s.length, s.k, s.m, [...s.nonce], s.shards.map(String)])).toEqual(
            segments.map((s) => [s.length, s.k, s.m, [...s.nonce], s.shards.map(String)])
          )
        }
      ),
      { numRuns: 30 }
    )
  })

  it('become a tree of blocks, none above 1 MiB, when an object has more shards than one block names', async () => {
    const segments = Array.from({ length: 2100 }, (_, i) => segmentOf(10, 10, 10, i))
    const { blocks } = encodeManifest({ size: 21_000, segments })
    expect(blocks.length).toBe(4)
    for (const { cid, bytes } of blocks) {
      expect(bytes.length).toBeLessThanOrEqual(1024 * 1024)
      expect(matchesCid(cid, bytes)).toBe(true)
    }
    const back = await read({ size: 21_000, segments })
    expect(back.segments.length).toBe(2100)
    expect(back.segments[2099]!.shards.map(String)).toEqual(segments[2099]!.shards.map(String))
  })

  it('give the same root for the same content', () => {
    const manifest = { size: 100, segments: [segmentOf(100, 4, 2, 9)] }
    expect(encodeManifest(manifest).root.toString()).toBe(encodeManifest(structuredCloneOf(manifest)).root.toString())
  })

  it('that are damaged are refused by name, never read as something else', async () => {
    const { root, blocks } = encodeManifest({ size: 100, segments: [segmentOf(100, 4, 2, 9)] })
    const bytes = blocks[0]!.bytes
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const altered = bytes.slice()
        altered[at]! ^= flip
        await readManifest(root, async () => altered).then(
          (manifest) =>
            expect(manifest.segments[0]!.shards.length).toBe(manifest.segments[0]!.k + manifest.segments[0]!.m),
          (error: unknown) => expect(error).toMatchObject({ code: 'DAMAGED' })
        )
      }),
      { numRuns: 300 }
    )
    await expect(readManifest(root, async () => bytes.subarray(0, 20))).rejects.toMatchObject({ code: 'DAMAGED' })
  })
})

const structuredCloneOf = (manifest: Manifest): Manifest => ({
  ...manifest,
  segments: manifest.segments.map((s) => ({ ...s, nonce: s.nonce.slice() }))
})
