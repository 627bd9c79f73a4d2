/**
 * All that a segment's bytes go through in a gateway, on the threads and in the memory that it uses: MD5, cipher, code and
 * the hash of every shard. Rates count the object's bytes.
 */
import { createDecipheriv, createHash } from 'node:crypto'
import { blake3 as nobleBlake3 } from '@noble/hashes/blake3.js'
import { KiB, MiB } from '../../src/base/limits.ts'
import { type Code, formatCode } from '../../src/erasure/erasure-coder.ts'
import { createCodingMemory } from '../../src/object/coding-memory.ts'
import type { EncodedSegment } from '../../src/object/segment-codec.ts'
import { createWorkerCodec } from '../../src/object/worker-codec.ts'
import { seededBytes } from '../data.ts'
import { expectSame, measureRow, ratesOf, rateUnits, type Sampling, timed } from '../harness.ts'
import { createNpmWasmCoder } from '../peers/npm-wasm-coder.ts'
import type { Row } from '../result.ts'

export interface WholePathInit {
  code: Code
  threads: number
  shardBytes: number
  segments: number
  seed: number
  sampling: Sampling
  signal: AbortSignal
}

/** Segments in the memory at once, as many as a gateway has. */
const segmentsAtOnce = 3

export async function wholePathRow(init: WholePathInit): Promise<Row> {
  const { code, threads, shardBytes, segments, seed, sampling, signal } = init
  const length = code.k * shardBytes
  const slabBytes = (code.k + code.m) * shardBytes
  const sizes = { writeBytes: segmentsAtOnce * slabBytes, readBytes: 64 * KiB }
  const memory = createCodingMemory(sizes, threads)
  const codec = createWorkerCodec(memory)
  const plain = seededBytes(seed, segments * length)
  const cipher = { key: seededBytes(seed + 1, 32), nonce: seededBytes(seed + 2, 8) }
  const segmentOf = (i: number): Uint8Array => plain.subarray(i * length, (i + 1) * length)

  /** The segments in turn, each in a slab of its own as soon as there is one; MD5 in order, all else in any. */
  const run = async (check?: (i: number, encoded: EncodedSegment) => void): Promise<Uint8Array> => {
    const md5 = codec.startDigest()
    await Promise.all(
      Array.from({ length: segments }, async (_, i) => {
        const slab = await memory.writes.take(slabBytes, signal)
        slab.bytes.set(segmentOf(i))
        await md5.update(slab.bytes.subarray(0, length))
        const encoded = await codec.encode({ buffer: slab.bytes, length, code, cipher })
        check?.(i, encoded)
        slab.release()
      })
    )
    return await md5.digest()
  }

  try {
    // Every byte, once, by other implementations; then the digests of each sample, which are of every byte too.
    const digests: Uint8Array[] = []
    await run((i, { shards, digests: found }) => {
      const coded = Buffer.concat(shards)
      const iv = Buffer.concat([cipher.nonce, Buffer.alloc(8)])
      const decrypted = createDecipheriv('aes-256-ctr', cipher.key, iv).update(coded.subarray(0, length))
      expectSame(decrypted, segmentOf(i), 'decrypted bytes')
      const oracle = Buffer.from(coded)
      oracle.fill(0, length)
      createNpmWasmCoder().encode(oracle, code)
      expectSame(coded, oracle, `parity of ${formatCode(code)}`)
      for (const [s, shard] of shards.entries()) expectSame(found[s]!, nobleBlake3(shard), 'BLAKE3 of a shard')
      digests[i] = Buffer.concat(found)
    })
    const md5 = createHash('md5').update(plain).digest()
    return await measureRow({
      id: `whole-path-${formatCode(code)}-t${threads}`,
      label: `MD5, AES, RS ${formatCode(code)} and BLAKE3 of all shards, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
      units: rateUnits,
      sampling,
      signal,
      take: async () => {
        const found: Uint8Array[] = []
        const cost = await timed(
          () =>
            run((i, encoded) => {
              found[i] = Buffer.concat(encoded.digests)
            }),
          (answer) => {
            expectSame(answer, md5, 'MD5')
            expectSame(Buffer.concat(found), Buffer.concat(digests), 'BLAKE3 of the shards')
          }
        )
        return ratesOf(plain.length, cost)
      }
    })
  } finally {
    await codec.close()
  }
}

/** Bytes of a shard, and segments of a sample. */
export const wholePathSizes = (isFull: boolean): { shardBytes: number; segments: number } =>
  isFull ? { shardBytes: MiB, segments: 24 } : { shardBytes: 16 * KiB, segments: 2 }
