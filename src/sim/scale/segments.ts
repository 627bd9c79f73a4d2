/**
 * Where every shard is, in flat arrays: 20 million of them take 12 bytes each. Shards of one provider are a doubly linked
 * list through the slots, so that all of them can be walked when it goes, and one be taken out when it is rebuilt elsewhere.
 */
import { HoldfastError } from '../../base/errors.ts'
import type { CodeShape } from '../../placement/place.ts'

/** Holders that are no provider: the disk is gone, and nobody knows yet; known by absence; known by an audit; never placed. */
export const holders = { unnoticed: 0xfff0, gone: 0xfff1, missing: 0xfff2, none: 0xfff3 } as const

/** Of a segment: nothing to do; waits for its turn; is being repaired; lost for good. */
export const segmentStates = { idle: 0, queued: 1, repairing: 2, lost: 3 } as const

const slotsMax = 2 ** 27

export class Segments {
  readonly count: number
  readonly n: number
  readonly k: number
  /** Provider, or one of `holders`, of each shard: `segment * n + index`. */
  readonly holder: Uint16Array
  readonly state: Uint8Array
  /** Shards whose disk exists, whether its provider is there or not. */
  readonly alive: Uint8Array
  /** Something of it is gone or missing. */
  readonly isAiling: Uint8Array
  /** Second since which something of it has been gone; 0: nothing is. */
  readonly goneSince: Uint32Array
  /** Shards at each provider. */
  readonly shards: Int32Array
  readonly #head: Int32Array
  readonly #next: Int32Array
  readonly #before: Int32Array

  constructor(count: number, { k, m }: CodeShape, providers: number) {
    if (count * (k + m) > slotsMax) throw new HoldfastError('BAD_INPUT', `more than ${slotsMax} shards`)
    this.count = count
    this.k = k
    this.n = k + m
    this.holder = new Uint16Array(count * this.n).fill(holders.none)
    this.state = new Uint8Array(count)
    this.alive = new Uint8Array(count)
    this.isAiling = new Uint8Array(count)
    this.goneSince = new Uint32Array(count)
    this.shards = new Int32Array(providers)
    this.#head = new Int32Array(providers).fill(-1)
    this.#next = new Int32Array(count * this.n)
    this.#before = new Int32Array(count * this.n)
  }

  segmentOf(slot: number): number {
    return Math.floor(slot / this.n)
  }

  /** Puts a shard that is nowhere at a provider. */
  put(slot: number, provider: number): void {
    const first = this.#head[provider]!
    this.holder[slot] = provider
    this.#next[slot] = first
    this.#before[slot] = -1
    if (first >= 0) this.#before[first] = slot
    this.#head[provider] = slot
    this.shards[provider]!++
    this.alive[this.segmentOf(slot)]!++
  }

  /** Takes a shard away from wherever it is. */
  take(slot: number, into: number = holders.none): void {
    const provider = this.holder[slot]!
    this.holder[slot] = into
    if (provider >= holders.unnoticed) return
    const [before, next] = [this.#before[slot]!, this.#next[slot]!]
    if (before >= 0) this.#next[before] = next
    else this.#head[provider] = next
    if (next >= 0) this.#before[next] = before
    this.shards[provider]!--
    this.alive[this.segmentOf(slot)]!--
  }

  /** All shards at a provider; they may be taken while this is walked. */
  *slotsOf(provider: number): Generator<number> {
    for (let slot = this.#head[provider]!; slot >= 0; ) {
      const next = this.#next[slot]!
      yield slot
      slot = next
    }
  }

  /** A disk is gone: its shards are where nobody has noticed yet. @returns their slots */
  destroy(provider: number): Int32Array {
    const slots = new Int32Array(this.shards[provider]!)
    let i = 0
    for (let slot = this.#head[provider]!; slot >= 0; slot = this.#next[slot]!) {
      slots[i++] = slot
      this.holder[slot] = holders.unnoticed
      this.alive[this.segmentOf(slot)]!--
    }
    this.#head[provider] = -1
    this.shards[provider] = 0
    return slots
  }

  /** Fewer than `k` are left: what there is of it is of no use. */
  abandon(segment: number): void {
    this.state[segment] = segmentStates.lost
    for (let slot = segment * this.n; slot < (segment + 1) * this.n; slot++) this.take(slot)
  }
}
