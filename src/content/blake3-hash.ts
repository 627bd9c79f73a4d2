/** BLAKE3 of whole inputs on the kernel: its three modes, in one go or bit by bit, with output of any length. */

import { utf8 } from '../base/bytes.ts'
import { check } from '../base/errors.ts'
import { type Blake3Kernel, type Blake3Start, hashStart, runBytesMax, runChunksMax } from './blake3-kernel.ts'
import { chunkBytes, flags, valueBytes } from './blake3-module.ts'

/** `hash` unless one of them is given. */
export interface Blake3Mode {
  /** `keyed_hash`: 32 bytes. */
  key?: Uint8Array
  /** `derive_key`: a text that no other use has; the input is the key material. */
  context?: string
}

export interface Blake3Options extends Blake3Mode {
  /** Bytes of output; the first 32 of a longer one are the usual digest. */
  outputBytes?: number
}

/** The stack of subtrees that wait for what is to their right (paper, section 5.1): a run each, or more. */
const stackMax = 48
/** Of what is held back, room for so much at first; a run at last. */
const heldBytesMin = 4096
const noBytes = new Uint8Array(0)

/** @throws HoldfastError `BAD_INPUT` for a key of another length, or both a key and a context */
export function startOf(kernel: Blake3Kernel, { key, context }: Blake3Mode): Blake3Start {
  check(key === undefined || context === undefined, 'BLAKE3 takes a key or a context, not both')
  if (key !== undefined) {
    check(key.length === valueBytes, `a BLAKE3 key has ${valueBytes} bytes, not ${key.length}`)
    return { key: key.slice(), flags: flags.keyedHash }
  }
  if (context === undefined) return hashStart
  const hasher = new Blake3Hasher(kernel, { key: hashStart.key, flags: flags.deriveKeyContext })
  return { key: hasher.digestOf(utf8.encode(context)), flags: flags.deriveKeyMaterial }
}

/** The digest of the bytes. Where they lie in the kernel's memory they are not copied. */
export function digestWith(
  kernel: Blake3Kernel,
  bytes: Uint8Array,
  { outputBytes = valueBytes, ...mode }: Blake3Options = {}
): Uint8Array {
  return new Blake3Hasher(kernel, startOf(kernel, mode)).digestOf(bytes, outputBytes)
}

export function hasherWith(kernel: Blake3Kernel, mode: Blake3Mode = {}): Blake3Hasher {
  return new Blake3Hasher(kernel, startOf(kernel, mode))
}

/** Several may share a kernel. */
export class Blake3Hasher {
  readonly #kernel: Blake3Kernel
  readonly #start: Blake3Start
  /** Chaining values of finished subtrees, the largest (and leftmost) first. */
  #stack = noBytes
  #stackLength = 0
  /** Runs that are in the stack. */
  #runs = 0
  /** The end of the input, at most one run: whether it is the last one is not known yet. */
  #held = noBytes
  #heldBytes = 0

  constructor(kernel: Blake3Kernel, start: Blake3Start) {
    this.#kernel = kernel
    this.#start = start
  }

  update(bytes: Uint8Array): this {
    let rest = bytes
    if (this.#heldBytes > 0) {
      const taken = Math.min(rest.length, runBytesMax - this.#heldBytes)
      this.#hold(rest.subarray(0, taken))
      rest = rest.subarray(taken)
      if (rest.length === 0) return this
      this.#addRun(this.#held)
      this.#heldBytes = 0
    }
    this.#hold(this.#addRuns(rest))
    return this
  }

  /** Of all that was given so far; more may follow. */
  digest(outputBytes = valueBytes): Uint8Array {
    return this.#finish(this.#held.subarray(0, this.#heldBytes), outputBytes)
  }

  /** The same as `update(bytes).digest(outputBytes)`, without a copy; the hasher is spent. */
  digestOf(bytes: Uint8Array, outputBytes = valueBytes): Uint8Array {
    if (this.#heldBytes > 0) return this.update(bytes).digest(outputBytes)
    return this.#finish(this.#addRuns(bytes), outputBytes)
  }

  /** Adds all runs but the last one. @returns that one */
  #addRuns(bytes: Uint8Array): Uint8Array {
    let at = 0
    for (; bytes.length - at > runBytesMax; at += runBytesMax) this.#addRun(bytes.subarray(at, at + runBytesMax))
    return at === 0 ? bytes : bytes.subarray(at)
  }

  #hold(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    const needed = this.#heldBytes + bytes.length
    if (needed > this.#held.length) {
      const larger = new Uint8Array(Math.min(runBytesMax, Math.max(heldBytesMin, 2 * needed)))
      larger.set(this.#held.subarray(0, this.#heldBytes))
      this.#held = larger
    }
    this.#held.set(bytes, this.#heldBytes)
    this.#heldBytes += bytes.length
  }

  /** A whole run, after which more input follows. Subtrees of equal size become one. */
  #addRun(bytes: Uint8Array): void {
    this.#kernel.begin(this.#start)
    this.#kernel.fold(this.#kernel.chunks(bytes, this.#runs * runChunksMax))
    this.#runs++
    for (let size = this.#runs; size % 2 === 0; size /= 2) this.#joinTop()
    if (this.#stack.length === 0) this.#stack = new Uint8Array(stackMax * valueBytes)
    this.#stack.set(this.#kernel.values(1), this.#stackLength++ * valueBytes)
  }

  /** Makes of the stack's top and the kernel's first value their parent's value. */
  #joinTop(): void {
    this.#pairUp(--this.#stackLength)
    this.#kernel.fold(2)
  }

  /** Puts the stack's value number `at` in front of the kernel's first. */
  #pairUp(at: number): void {
    this.#kernel.setValues(this.#kernel.values(1), 1)
    this.#kernel.setValues(this.#stack.subarray(at * valueBytes, (at + 1) * valueBytes))
  }

  #finish(last: Uint8Array, outputBytes: number): Uint8Array {
    check(Number.isSafeInteger(outputBytes) && outputBytes >= 0, `not a length of output: ${outputBytes}`)
    const kernel = this.#kernel
    const output = new Uint8Array(outputBytes)
    kernel.begin(this.#start)
    if (this.#stackLength === 0 && last.length <= chunkBytes) {
      kernel.rootOfChunk(last, output)
      return output
    }
    const chunks = kernel.chunks(last, this.#runs * runChunksMax)
    if (this.#stackLength === 0) {
      kernel.fold(chunks, { atMost: 2 })
    } else {
      kernel.fold(chunks)
      for (let at = this.#stackLength - 1; at > 0; at--) {
        this.#pairUp(at)
        kernel.fold(2)
      }
      this.#pairUp(0)
    }
    kernel.rootOfPair(output)
    return output
  }
}
