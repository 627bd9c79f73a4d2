/**
 * BLAKE3 on one WebAssembly memory: chaining values of runs of chunks, of their parents, and of the root. What hashes,
 * trees and slices are made of; it knows nothing of how they are put together.
 */
import { check } from '../base/errors.ts'
import { type SimdLevel, simdLevel } from '../wasm/assembler.ts'
import { createMemory, instantiate, pageBytes, type WasmMemory } from '../wasm/engine.ts'
import {
  type Blake3Exports,
  blake3Module,
  blockBytes,
  chunkBytes,
  flags,
  frame,
  frameBytes,
  iv,
  littleEndian,
  messageAddresses,
  valueBytes
} from './blake3-module.ts'

/** Chunks whose values fit the scratch. A power of two: a run of so many is a subtree. */
export const runChunksMax = 256
export const runBytesMax = runChunksMax * chunkBytes
/** Bytes that are copied, or touched, and then hashed: they stay in the processor's cache in between. Whole chunks. */
const pieceBytesMax = 65_536

/** Where a mode of BLAKE3 starts from (paper, section 2.3). */
export interface Blake3Start {
  /** 8 words. */
  key: Uint8Array
  flags: number
}

export const hashStart: Blake3Start = { key: littleEndian(iv), flags: 0 }

export interface Region {
  /** In bytes, from the beginning of the memory. A multiple of 64. */
  address: number
  bytes: number
}

export interface KernelInit {
  /** What to run on; the engine's best unless told otherwise. */
  level?: SimdLevel
  /** Input that lies in this memory is hashed where it is. Absent: a memory of the kernel's own. */
  memory?: WasmMemory
  /** The kernel's own place in `memory`: nothing else may write there, and the kernel writes nowhere else. */
  scratch?: Region
}

/** Of `scratch`: the frame, the chaining values of a run, and a chunk to copy through. */
export const scratchBytesMin = frameBytes + runChunksMax * valueBytes + chunkBytes
/** With this much, input from elsewhere is copied in pieces that are worth it. */
export const scratchBytesGood = scratchBytesMin - chunkBytes + pieceBytesMax

/** Serves one thread, and one caller at a time: what `values` shows is gone with the next call. */
export class Blake3Kernel {
  readonly level: SimdLevel
  readonly #memory: WasmMemory
  readonly #exports: Blake3Exports
  /** Addresses. */
  readonly #frame: number
  readonly #values: number
  readonly #copy: number
  /** Bytes at `#copy`: whole chunks. */
  readonly #copyBytes: number
  readonly #scratchEnd: number
  #view: Uint8Array
  #start = hashStart

  /** @throws HoldfastError `BAD_INPUT` when `scratch` is too small, askew or not in the memory */
  constructor({ level = simdLevel, memory, scratch }: KernelInit = {}) {
    const own = memory === undefined
    this.#memory = memory ?? createMemory({ initialPages: Math.ceil(scratchBytesGood / pageBytes) })
    this.#view = new Uint8Array(this.#memory.buffer)
    const { address, bytes } = scratch ?? { address: 0, bytes: own ? this.#view.length : 0 }
    check(address % 64 === 0 && address >= 0, `scratch begins at a multiple of 64, not at ${address}`)
    check(bytes >= scratchBytesMin, `scratch has at least ${scratchBytesMin} bytes, not ${bytes}`)
    check(address + bytes <= this.#view.length, 'scratch lies outside of the memory')
    this.level = level
    this.#frame = address
    this.#values = address + frameBytes
    this.#copy = this.#values + runChunksMax * valueBytes
    const room = address + bytes - this.#copy
    this.#copyBytes = Math.min(pieceBytesMax, room - (room % chunkBytes))
    this.#scratchEnd = this.#copy + this.#copyBytes
    const isShared = this.#memory.buffer instanceof SharedArrayBuffer
    this.#exports = instantiate(blake3Module(level, isShared), this.#memory) as unknown as Blake3Exports
    this.#put(frame.order, messageAddresses(address))
    this.#put(frame.key, this.#start.key)
  }

  /** To be called before anything of another mode is hashed. */
  begin(start: Blake3Start): void {
    if (this.#start === start) return
    this.#put(frame.key, start.key)
    this.#start = start
  }

  /**
   * Chaining values of a run's chunks (the empty run's is none), left in `values`.
   *
   * @param bytes at most `runBytesMax`
   * @param firstChunk its number in the whole input
   * @returns how many there are
   */
  chunks(bytes: Uint8Array, firstChunk: number): number {
    const isHere = this.#isHere(bytes)
    const step = isHere ? pieceBytesMax : this.#copyBytes
    for (let at = 0; at < bytes.length; at += step) {
      const length = Math.min(step, bytes.length - at)
      const address = this.#place(length === bytes.length ? bytes : bytes.subarray(at, at + length))
      if (isHere && this.level !== 'scalar') this.#exports.touch(this.#frame, address, length)
      const chunk = firstChunk + at / chunkBytes
      const high = Math.floor(chunk / 2 ** 32)
      const out = this.#values + (at / chunkBytes) * valueBytes
      this.#exports.chunks(this.#frame, address, length, chunk >>> 0, high, this.#flags, out)
    }
    return Math.ceil(bytes.length / chunkBytes)
  }

  /**
   * Goes up the tree from `count` chaining values in `values`: a level at a time, an odd one at the end as it is, until
   * `levels` are done or `atMost` are left. @returns how many are left
   */
  fold(count: number, { levels = 32, atMost = 1 }: { levels?: number; atMost?: number } = {}): number {
    return this.#exports.fold(this.#frame, this.#values, count, levels, atMost, this.#flags)
  }

  /** The first `count` chaining values, 32 bytes each: a view, good until the next call. */
  values(count: number): Uint8Array {
    return this.#here.subarray(this.#values, this.#values + count * valueBytes)
  }

  /** Puts chaining values into `values`, from number `at` on: up to `runChunksMax`. */
  setValues(bytes: Uint8Array, at = 0): void {
    this.#here.set(bytes, this.#values + at * valueBytes)
  }

  /** Output of the root of a tree of one chunk: of 0 to 1024 bytes. */
  rootOfChunk(bytes: Uint8Array, output: Uint8Array): void {
    const value = this.#frame + frame.value
    const lastFlags = this.#exports.open(this.#frame, this.#place(bytes), bytes.length, 0, 0, this.#flags, value)
    const lastLength = bytes.length === 0 ? 0 : ((bytes.length - 1) % blockBytes) + 1
    this.#output(value, this.#frame + frame.block, lastLength, lastFlags, output)
  }

  /** Output of the root whose children are the first two of `values`. */
  rootOfPair(output: Uint8Array): void {
    this.#output(this.#frame + frame.key, this.#values, blockBytes, this.#flags | flags.parent, output)
  }

  #output(value: number, block: number, blockLength: number, flagBits: number, output: Uint8Array): void {
    const out = this.#frame + frame.output
    const isWide = output.length > valueBytes ? 1 : 0
    for (let at = 0; at < output.length; at += blockBytes) {
      const counter = at / blockBytes
      const high = Math.floor(counter / 2 ** 32)
      this.#exports.compress(value, block, blockLength, counter >>> 0, high, flagBits | flags.root, out, isWide)
      output.set(this.#here.subarray(out, out + Math.min(blockBytes, output.length - at)), at)
    }
  }

  get #flags(): number {
    return this.#start.flags
  }

  /** The memory as it is now: one that is not shared gets a new buffer when it grows. */
  get #here(): Uint8Array {
    if (this.#view.buffer !== this.#memory.buffer) this.#view = new Uint8Array(this.#memory.buffer)
    return this.#view
  }

  #isHere(bytes: Uint8Array): boolean {
    return bytes.buffer === this.#memory.buffer
  }

  /** @returns where the bytes lie in the memory, once they do. `bytes` fit the place for copies, or are here already */
  #place(bytes: Uint8Array): number {
    if (!this.#isHere(bytes)) {
      this.#here.set(bytes, this.#copy)
      return this.#copy
    }
    const { byteOffset, length } = bytes
    const isApart = length === 0 || byteOffset + length <= this.#frame || byteOffset >= this.#scratchEnd
    check(isApart, 'the input lies in the scratch of the kernel that is to hash it')
    return byteOffset
  }

  #put(at: number, bytes: Uint8Array): void {
    this.#here.set(bytes, this.#frame + at)
  }
}

let own: Blake3Kernel | undefined

/** The kernel of this thread for whoever brings none; compiled when it is first asked for. */
export function threadKernel(): Blake3Kernel {
  own ??= new Blake3Kernel()
  return own
}
