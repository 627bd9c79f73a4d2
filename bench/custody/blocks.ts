/**
 * Blocks without memory: each is one BLAKE3 chunk, made when it is asked for, and found by its digest in a table of a few
 * bytes a block.
 */
import { setImmediate } from 'node:timers/promises'
import { check } from '../../src/base/errors.ts'
import { KiB } from '../../src/base/limits.ts'
import { blake3 } from '../../src/content/blake3.ts'
import { seededBytes } from '../data.ts'

export const blockBytes = KiB
export const blocksMax = 2 ** 24
const hashesInTurn = 1000

export class Blocks {
  readonly #bytes: Buffer

  constructor(seed: number) {
    this.#bytes = seededBytes(seed, blockBytes)
  }

  /** Block number `index`, which differs from all others. The memory is the next one's as well. */
  at(index: number): Uint8Array {
    this.#bytes.writeUInt32LE(index, 0)
    return this.#bytes
  }
}

/** From a digest's first eight bytes to the number of the block: 16 to 24 bytes each, where a `Map` of strings takes 200. */
export class BlockTable {
  /** Numbers from 1, in the first free place from the one that the digest says; 0: free. */
  readonly #places: Uint32Array
  /** Two for each block. */
  readonly #starts: Uint32Array
  readonly #mask: number

  private constructor(count: number) {
    check(count > 0 && count <= blocksMax, `1 to ${blocksMax} blocks, not ${count}`)
    this.#places = new Uint32Array(2 ** Math.ceil(Math.log2(2 * count)))
    this.#starts = new Uint32Array(2 * count)
    this.#mask = this.#places.length - 1
  }

  static async of(blocks: Blocks, count: number): Promise<BlockTable> {
    const table = new BlockTable(count)
    for (let index = 0; index < count; index++) {
      table.#add(index, blake3(blocks.at(index)))
      // What the native hash holds outside the heap, 2.6 kB a call, goes with the next turn of the event loop.
      if (index % hashesInTurn === 0) await setImmediate()
    }
    return table
  }

  #add(index: number, digest: Uint8Array): void {
    const [low, high] = startOf(digest)
    this.#starts[2 * index] = low
    this.#starts[2 * index + 1] = high
    let place = low & this.#mask
    while (this.#places[place] !== 0) place = (place + 1) & this.#mask
    this.#places[place] = index + 1
  }

  get bytes(): number {
    return this.#places.byteLength + this.#starts.byteLength
  }

  /** Undefined for the digest of none of the blocks. */
  find(digest: Uint8Array): number | undefined {
    const [low, high] = startOf(digest)
    for (let place = low & this.#mask; ; place = (place + 1) & this.#mask) {
      const index = this.#places[place]! - 1
      if (index < 0) return undefined
      if (this.#starts[2 * index] === low && this.#starts[2 * index + 1] === high) return index
    }
  }
}

function startOf(digest: Uint8Array): [low: number, high: number] {
  const view = new DataView(digest.buffer, digest.byteOffset, 8)
  return [view.getUint32(0), view.getUint32(4)]
}
