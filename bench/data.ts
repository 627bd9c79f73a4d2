/**
 * The bytes that benchmarks store: pseudo-random, the same for the same seed, of any length, and never in memory as a
 * whole, so that a client can make and check gigabytes at the cost of a memory comparison.
 *
 * All objects are windows of one endless repetition of a block. Its length is prime, so that an object's segments,
 * shards and chunks all differ: bytes at a wrong place never compare as right.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { MiB } from '../src/base/limits.ts'
import { WrongAnswerError } from './harness.ts'

/** The largest prime below 16 MiB. */
const blockBytes = 16 * MiB - 3
/** Where object `i` begins in the block, times `i`; a prime. */
const objectStride = 1_000_003
/** What the client hands over in one write. */
const chunkBytes = MiB / 4

/** `length` bytes of the AES-256-CTR key stream of the seed. */
export function seededBytes(seed: number, length: number): Buffer<ArrayBuffer> {
  const key = createHash('sha256').update(`holdfast bench ${seed}`).digest()
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
  return Buffer.from(stream.buffer as ArrayBuffer, stream.byteOffset, stream.length)
}

export class DataSource {
  readonly #block: Buffer

  constructor(seed: number) {
    this.#block = seededBytes(seed, blockBytes)
  }

  /** Object number `index`; others differ from it in nearly every byte. */
  object(index: number, size: number): ObjectData {
    return new ObjectData(this.#block, (index * objectStride) % blockBytes, size)
  }
}

export class ObjectData {
  readonly size: number
  readonly #block: Buffer
  readonly #start: number

  constructor(block: Buffer, start: number, size: number) {
    this.#block = block
    this.#start = start
    this.size = size
  }

  /** The bytes, in views that must not be written to. */
  *chunks(): Generator<Buffer> {
    for (let at = 0; at < this.size; ) {
      const chunk = this.#at(at, Math.min(chunkBytes, this.size - at))
      yield chunk
      at += chunk.length
    }
  }

  /** @throws WrongAnswerError unless `bytes` are the object's from `offset` on */
  verify(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const expected = this.#at(offset + at, Math.min(bytes.length - at, Math.max(0, this.size - offset - at)))
      if (expected.length === 0) throw new WrongAnswerError(`more than the ${this.size} bytes of the object`)
      if (expected.compare(bytes, at, at + expected.length) !== 0) {
        throw new WrongAnswerError(`other bytes than were stored, from ${offset + at} on`)
      }
      at += expected.length
    }
  }

  /** At most `length` bytes from `offset`: fewer where the block wraps around. */
  #at(offset: number, length: number): Buffer {
    const from = (this.#start + offset) % blockBytes
    return this.#block.subarray(from, Math.min(from + length, blockBytes))
  }
}
