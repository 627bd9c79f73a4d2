/**
 * What happens to a segment's bytes between the client and the shards: cipher, code, hash. Synchronous here (the
 * simulator and the workers run this very code); `worker-codec.ts` runs it off the event loop.
 */
import { createHash } from 'node:crypto'
import { HoldfastError } from '../base/errors.ts'
import { blake3 } from '../content/blake3.ts'
import type { Code, ErasureCoder } from '../erasure/erasure-coder.ts'
import { applyCipher, type SegmentCipher } from './cipher.ts'

export interface EncodeJob {
  /**
   * Room for `n` shards of `shardBytesFor(length, code)` each (or more), holding `length` plain bytes from the start.
   * The codec owns it until it answers. Best in an arena that the codec shares: then nothing is copied.
   */
  buffer: Uint8Array
  length: number
  code: Code
  cipher?: SegmentCipher
}

export interface EncodedSegment {
  /** `n` views of the shards as they are stored, the last data shards without their padding; in the job's buffer where that lies in an arena. */
  shards: Uint8Array[]
  /** BLAKE3 of each, 32 bytes. */
  digests: Uint8Array[]
}

export interface ReconstructJob {
  /** `n` entries as stored; `undefined` where a shard is not to be had. */
  shards: ReadonlyArray<Uint8Array | undefined>
  length: number
  code: Code
  /** Indices to restore. */
  wanted: readonly number[]
}

export interface DecryptJob {
  /** Consecutive bytes of one segment; changed in place. */
  pieces: readonly Uint8Array[]
  cipher: SegmentCipher
  /** Where in the segment the first begins. */
  offset: number
}

/** The MD5 of bytes that come a segment at a time. */
export interface StreamDigest {
  /** Calls are worked off in order. The bytes must stay as they are until it resolves. */
  update: (bytes: Uint8Array) => Promise<void>
  /** Ends it. */
  digest: () => Promise<Uint8Array>
  /** Ends it without an answer. Safe to call at any time. */
  drop: () => void
}

export interface SegmentCodec {
  encode: (job: EncodeJob) => Promise<EncodedSegment>
  /** The wanted shards, as stored, in the order asked for. The inputs are never changed. */
  reconstruct: (job: ReconstructJob) => Promise<Uint8Array[]>
  decrypt: (job: DecryptJob) => Promise<void>
  startDigest: () => StreamDigest
  close: () => Promise<void>
}

/** Bytes of each (padded) shard of a segment of `length` bytes. */
export function shardBytesFor(length: number, { k }: Pick<Code, 'k'>): number {
  return Math.ceil(length / k)
}

/**
 * Bytes of shard `index` as stored. Parity shards are whole; data shards are slices of the segment as it stands, so the
 * last ones of a segment that does not divide evenly are shorter, even empty (the padding is zeros, and implied).
 */
export function storedShardBytes(length: number, code: Code, index: number): number {
  const shardBytes = shardBytesFor(length, code)
  if (index >= code.k) return shardBytes
  return Math.max(0, Math.min(shardBytes, length - index * shardBytes))
}

export function storedViews(buffer: Uint8Array, length: number, code: Code): Uint8Array[] {
  const shardBytes = shardBytesFor(length, code)
  return Array.from({ length: code.k + code.m }, (_, index) =>
    buffer.subarray(index * shardBytes, index * shardBytes + storedShardBytes(length, code, index))
  )
}

export function encodeSync(coder: ErasureCoder, { buffer, length, code, cipher }: EncodeJob): EncodedSegment {
  const shardBytes = shardBytesFor(length, code)
  const total = shardBytes * (code.k + code.m)
  if (length < 1 || total > buffer.length)
    throw new HoldfastError('INTERNAL', `no room to code ${length} bytes in ${buffer.length}`)
  const plain = buffer.subarray(0, length)
  if (cipher !== undefined) applyCipher(cipher, 0, [plain])
  buffer.fill(0, length, code.k * shardBytes) // a pooled buffer has old bytes where the padding belongs
  coder.encode(buffer.subarray(0, total), code)
  const shards = storedViews(buffer, length, code)
  // Copied out: a digest may be a view into memory that must not travel between threads.
  return { shards, digests: shards.map((shard) => Uint8Array.from(blake3(shard))) }
}

export function reconstructSync(coder: ErasureCoder, { shards, length, code, wanted }: ReconstructJob): Uint8Array[] {
  const shardBytes = shardBytesFor(length, code)
  const buffer = new Uint8Array(shardBytes * (code.k + code.m))
  const present = shards.map((shard, index) => {
    if (shard === undefined) return false
    if (shard.length !== storedShardBytes(length, code, index))
      throw new HoldfastError('INTERNAL', `shard ${index} has ${shard.length} bytes`)
    buffer.set(shard, index * shardBytes)
    return true
  })
  coder.reconstruct(buffer, code, present, wanted)
  const views = storedViews(buffer, length, code)
  return wanted.map((index) => views[index]!)
}

/** The codec on the calling thread. */
export function createSyncCodec(coder: ErasureCoder): SegmentCodec {
  return {
    encode: async (job) => encodeSync(coder, job),
    reconstruct: async (job) => reconstructSync(coder, job),
    decrypt: async ({ pieces, cipher, offset }) => applyCipher(cipher, offset, pieces),
    startDigest: syncDigest,
    close: async () => {}
  }
}

export function syncDigest(): StreamDigest {
  const md5 = createHash('md5')
  return {
    update: async (bytes) => void md5.update(bytes),
    digest: async () => md5.digest(),
    drop: () => {}
  }
}
