/** What an epoch asks: uniform, reproducible, and another thing for everybody else. */
import fc from 'fast-check'
import { base58btc } from 'multiformats/bases/base58'
import { beforeAll, describe, expect, it } from 'vitest'
import { utf8 } from '../../src/base/bytes.ts'
import { hourMs, KiB, MiB } from '../../src/base/limits.ts'
import { CID, cidOfShard } from '../../src/content/cid.ts'
import { samplingAll } from '../../src/custody/audit-messages.ts'
import {
  challengeOf,
  chunkOf,
  drawSeed,
  ed25519KeyOf,
  epochOf,
  isSampled,
  type SeedSubject,
  samplingOf,
  seedInput,
  verifySeed
} from '../../src/custody/challenge.ts'
import { generateIdentity, type Identity } from '../../src/net/identity.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const seedNamed = (name: string): Uint8Array => new Uint8Array(64).fill(name.charCodeAt(0))
const shards = Array.from({ length: 20_000 }, (_, i) => cidOfShard(utf8.encode(`shard ${i}`)))

/** Pearson's statistic against equal shares. */
function chiSquare(counts: readonly number[]): number {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
}

/** The bound that a uniform draw exceeds once in a million (Wilson and Hilferty's approximation, z = 4.75). */
function chiSquareMax(cells: number): number {
  const degrees = cells - 1
  return degrees * (1 - 2 / (9 * degrees) + 4.75 * Math.sqrt(2 / (9 * degrees))) ** 3
}

describe('a chunk', () => {
  it.each([2, 3, 7, 64, 1000, 1024])('of %i is as likely as another', (chunks) => {
    const counts = new Array<number>(chunks).fill(0)
    for (const cid of shards) counts[chunkOf(seedNamed('u'), cid, chunks * KiB)]!++
    expect(chiSquare(counts)).toBeLessThan(chiSquareMax(chunks))
  })

  it('is one of the block, for every length', () => {
    fc.assert(
      fc.property(fc.nat(MiB), fc.uint8Array({ minLength: 64, maxLength: 64 }), (bytes, seed) => {
        const chunk = chunkOf(seed, shards[0]!, bytes)
        expect(chunk).toBeGreaterThanOrEqual(0)
        expect(chunk === 0 || chunk * KiB < bytes).toBe(true)
      })
    )
  })

  it('is another in another epoch', () => {
    const counts = new Array<number>(64).fill(0)
    for (let i = 0; i < 10_000; i++) {
      const seed = new Uint8Array(64)
      new DataView(seed.buffer).setUint32(60, i)
      counts[chunkOf(seed, shards[0]!, 64 * KiB)]!++
    }
    expect(chiSquare(counts)).toBeLessThan(chiSquareMax(64))
  })

  it('does not depend on being drawn: among drawn shards chunks are as likely too', () => {
    const counts = new Array<number>(16).fill(0)
    for (const cid of shards) {
      if (isSampled(seedNamed('d'), cid, samplingOf(0.25))) counts[chunkOf(seedNamed('d'), cid, 16 * KiB)]!++
    }
    expect(chiSquare(counts)).toBeLessThan(chiSquareMax(16))
  })
})

describe('drawing shards', () => {
  it.each([0.001, 0.01, 0.1, 0.5, 0.9])('takes a share of %d', (probability) => {
    const sampling = samplingOf(probability)
    const drawn = shards.filter((cid) => isSampled(seedNamed('s'), cid, sampling)).length
    const sigma = Math.sqrt(shards.length * probability * (1 - probability))
    expect(Math.abs(drawn - shards.length * probability)).toBeLessThan(5 * sigma)
  })

  it('takes all at 1, none at 0, and at a higher probability whatever it takes at a lower', () => {
    fc.assert(
      fc.property(fc.nat(shards.length - 1), fc.nat(samplingAll), fc.nat(samplingAll), (i, a, b) => {
        const seed = seedNamed('m')
        const [low, high] = [Math.min(a, b), Math.max(a, b)]
        expect(isSampled(seed, shards[i]!, samplingAll)).toBe(true)
        expect(isSampled(seed, shards[i]!, 0)).toBe(false)
        if (isSampled(seed, shards[i]!, low)) expect(isSampled(seed, shards[i]!, high)).toBe(true)
      })
    )
  })

  it('says each probability in whole 2^32ths, never zero for one above it', () => {
    expect([0, 1e-300, 0.5, 1].map(samplingOf)).toEqual([0, 1, 2 ** 31, 2 ** 32])
    for (const bad of [-0.1, 1.1, Number.NaN]) {
      expect(() => samplingOf(bad)).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }))
    }
  })
})

describe('the same seed and shard', () => {
  it('mean the same for ever', () => {
    // Fixed: transcripts that were written before must verify after.
    const cid = CID.parse('bafkr4ifpcn42dm3ijkktqbvvbc4b2gvjmsslr5f5j4sccgywgrh3l6mjzi')
    const seed = Uint8Array.from({ length: 64 }, (_, i) => i)
    // Worked out with another implementation of BLAKE3.
    expect(challengeOf(seed, { cid, bytes: MiB }, 'sampled')).toEqual({
      cid,
      bytes: MiB,
      chunk: 668,
      reason: 'sampled'
    })
    expect(chunkOf(seed, cid, 1000 * KiB)).toBe(428)
    expect([976_137_118, 976_137_119].map((sampling) => isSampled(seed, cid, sampling))).toEqual([false, true])
    expect(Buffer.from(seedInput({ epoch: 1, epochMs: 2, auditor: 'a', provider: 'bc' })).toString('latin1')).toBe(
      'holdfast-audit-seed:1\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\x01a\0\x02bc'
    )
  })
})

describe('a seed', () => {
  let auditor: Identity
  let provider: Identity
  let subject: SeedSubject
  const secretOf = ({ privateKey }: Identity): Uint8Array => privateKey.raw.subarray(0, 32)

  beforeAll(async () => {
    ;[auditor, provider] = [await generateIdentity(), await generateIdentity()]
    subject = { epoch: 490_000, epochMs: hourMs, auditor: auditor.peerId, provider: provider.peerId }
  })

  it('drawn by the auditor is checked with nothing but its peer id', () => {
    const { proof, seed } = drawSeed(secretOf(auditor), subject)
    expect(drawSeed(secretOf(auditor), subject)).toEqual({ proof, seed })
    expect(verifySeed(subject, proof)).toEqual(seed)
  })

  it('is of this epoch, provider and auditor alone', () => {
    const { proof, seed } = drawSeed(secretOf(auditor), subject)
    const others: SeedSubject[] = [
      { ...subject, epoch: subject.epoch + 1 },
      { ...subject, epochMs: hourMs + 1 },
      { ...subject, provider: auditor.peerId },
      { ...subject, auditor: provider.peerId }
    ]
    for (const other of others) {
      expect(verifySeed(other, proof)).toBeUndefined()
      expect(hex(drawSeed(secretOf(auditor), other).seed)).not.toBe(hex(seed))
    }
    expect(verifySeed(subject, drawSeed(secretOf(provider), subject).proof)).toBeUndefined()
    expect(verifySeed({ ...subject, auditor: 'no peer' }, proof)).toBeUndefined()
  })

  it('has an input that no other subject has, wherever the ids are cut', () => {
    const text = fc.string({ maxLength: 8 })
    const subjects = fc.record({ epoch: fc.nat(3), epochMs: fc.constantFrom(1, 2), auditor: text, provider: text })
    fc.assert(
      fc.property(subjects, subjects, (a, b) => {
        const isSame = JSON.stringify(a) === JSON.stringify(b)
        expect(hex(seedInput(a)) === hex(seedInput(b))).toBe(isSame)
      })
    )
    const [ab, c] = [
      { ...subject, auditor: 'ab', provider: 'c' },
      { ...subject, auditor: 'a', provider: 'bc' }
    ]
    expect(hex(seedInput(ab))).not.toBe(hex(seedInput(c)))
  })

  it('belongs to the epoch of its time', () => {
    expect([0, hourMs - 1, hourMs, 25 * hourMs].map((time) => epochOf(time, hourMs))).toEqual([0, 0, 1, 25])
  })

  it('needs an Ed25519 key, as libp2p writes it, in base58 and no other way', () => {
    expect(hex(ed25519KeyOf(auditor.peerId)!)).toBe(hex(auditor.privateKey.publicKey.raw))
    const bytes = base58btc.decode(`z${auditor.peerId}`)
    const textOf = (altered: Uint8Array): string => base58btc.encode(altered).slice(1)
    for (let at = 0; at < 6; at++) {
      const altered = Uint8Array.from(bytes)
      altered[at]! ^= 1
      expect(ed25519KeyOf(textOf(altered))).toBeUndefined()
    }
    const junk = [
      '',
      'z'.repeat(52),
      `z${auditor.peerId}`,
      `${auditor.peerId} `,
      auditor.peerId.slice(1),
      `1${auditor.peerId.slice(0, -1)}`,
      '0'.repeat(52),
      'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
      'bafzaajaiaejcbzdibmxyzdjbbehgvizh6g5tikvy47mshdy6gwbruvgwvd24seje'
    ]
    for (const text of junk) expect([text, ed25519KeyOf(text)]).toEqual([text, undefined])
    fc.assert(fc.property(fc.string({ minLength: 52, maxLength: 52 }), (text) => ed25519KeyOf(text) === undefined))
  })
})
