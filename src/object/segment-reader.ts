/**
 * From stored segments to a stream of bytes. Only the data shards that a range touches are fetched, a few segments ahead
 * within a memory budget; what is lost or late is decoded from the others. Every shard was checked against its CID.
 */
import type { Clock } from '../base/clock.ts'
import { HoldfastError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { gather, type ShardToFetch } from '../transfer/gather.ts'
import type { PeerOutcome, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import type { Arena, Slab } from './arena.ts'
import { applyCipher } from './cipher.ts'
import type { FairBudget, Hold } from './fair-budget.ts'
import { type SegmentCodec, shardBytesFor, storedShardBytes } from './segment-codec.ts'

export interface ReaderComponents {
  client: ProviderClient
  peers: Peers
  codec: SegmentCodec
  /** Bytes of fetched segments that all readers may hold together. */
  memory: FairBudget
  /** Where they are kept, as far as there is room. */
  slabs: Arena
  clock: Clock
  log: Log
  /** Resolves once the providers that are online are known. */
  networkKnown: (signal?: AbortSignal) => Promise<void>
  /** Hears what became of each request for a shard. */
  observe: (segmentId: number, shard: ShardToFetch, provider: string, outcome: PeerOutcome) => void
  onRead?: ((read: SegmentRead) => void) | undefined
}

/** One segment that was read for a client. */
export interface SegmentRead {
  /** Not all of the data shards that were wanted came in time. */
  isDecoded: boolean
  /** Of all shards that were asked for. */
  requestedBytes: number
  /** Of these, what was of no use: late, cancelled or wrong. */
  wastedBytes: number
}

export interface ReadRange {
  /** Bytes of the object, [start, end). */
  start: number
  end: number
  /** The object's key; absent where it is not encrypted. */
  key?: Uint8Array
  signal?: AbortSignal
}

export type SegmentSource = (start: number, end: number) => Promise<Array<{ offset: number; segment: StoredSegment }>>

/** Bytes of the index that are read at a time: 64 segments of the usual size. */
const windowBytes = 64 * 10 * 1024 * 1024
const segmentsAheadMax = 3
/** Shards below this are not worth a slab, nor a worker thread's attention. */
const slabBytesMin = 32 * 1024

/** Memory of one segment's shards. */
class ShardMemory {
  readonly #arena: Arena
  readonly #slabs: Slab[] = []

  constructor(arena: Arena) {
    this.#arena = arena
  }

  take(byteLength: number): Uint8Array | undefined {
    const slab = byteLength < slabBytesMin ? undefined : this.#arena.tryTake(byteLength)
    if (slab === undefined) return undefined // the receiver makes its own
    this.#slabs.push(slab)
    return slab.bytes
  }

  /** The same bytes where nobody else has them: a client may have answered with what it keeps. */
  own(bytes: Uint8Array): Uint8Array {
    if (this.#slabs.some((slab) => slab.bytes.buffer === bytes.buffer && slab.bytes.byteOffset === bytes.byteOffset))
      return bytes
    const copy = this.take(bytes.length) ?? new Uint8Array(bytes.length)
    copy.set(bytes)
    return copy
  }

  releaseAllBut(piece: Uint8Array): void {
    for (const slab of this.#slabs) {
      const isIts = slab.bytes.buffer === piece.buffer && isWithin(piece.byteOffset, slab.bytes)
      if (!isIts) slab.release()
    }
  }

  release(): void {
    for (const slab of this.#slabs.splice(0)) slab.release()
  }
}

const isWithin = (byteOffset: number, bytes: Uint8Array): boolean =>
  byteOffset >= bytes.byteOffset && byteOffset < bytes.byteOffset + bytes.length

interface Ahead {
  hold: Hold
  memory: ShardMemory
  /** The range's bytes of the segment, in order. */
  pieces: Promise<Uint8Array[]>
  /** Set when the reader was too slow and others needed the memory. */
  isTakenBack: boolean
}

/** Each chunk is valid until the next is asked for: then its memory is used again. */
export async function* readSegments(
  components: ReaderComponents,
  segmentsOf: SegmentSource,
  range: ReadRange
): AsyncGenerator<Uint8Array> {
  const stop = new AbortController()
  const onAbort = (): void => stop.abort(range.signal?.reason)
  if (range.signal?.aborted === true) onAbort()
  range.signal?.addEventListener('abort', onAbort, { once: true })
  const run = new ReadRun(components, segmentsOf, range, stop.signal)
  try {
    // It may stop before the end, where memory was taken back or is short; it goes on with the byte that comes then.
    while (run.at < range.end) yield* run.bytes()
  } finally {
    range.signal?.removeEventListener('abort', onAbort)
    stop.abort(new Error('the reader has gone'))
    run.letGo()
  }
}

class ReadRun {
  /** The next byte of the object to be given. */
  at: number
  readonly #components: ReaderComponents
  readonly #segmentsOf: SegmentSource
  readonly #range: ReadRange
  readonly #signal: AbortSignal
  #ahead: Ahead[] = []

  constructor(components: ReaderComponents, segmentsOf: SegmentSource, range: ReadRange, signal: AbortSignal) {
    this.#components = components
    this.#segmentsOf = segmentsOf
    this.#range = range
    this.#signal = signal
    this.at = range.start
  }

  letGo(): void {
    for (const ahead of this.#ahead.splice(0)) discard(ahead)
  }

  /** From `at` on; not always to the end. */
  async *bytes(): AsyncGenerator<Uint8Array> {
    const { memory } = this.#components
    const upcoming = walk(this.#segmentsOf, { start: this.at, end: this.#range.end })
    let next = await upcoming.next()
    if (next.done === true) throw new HoldfastError('INTERNAL', `the index has no segment at byte ${this.at}`)
    while (this.#ahead.length > 0 || next.done !== true) {
      this.#signal.throwIfAborted()
      while (next.done !== true && this.#ahead.length < segmentsAheadMax) {
        const { offset, segment } = next.value
        const range = { ...this.#range, start: this.at }
        const hold = memory.tryAcquire(fetchBytes(offset, segment, range))
        // Those after the first are a luxury, taken only while there is room.
        if (hold === undefined && this.#ahead.length > 0) break
        if (hold === undefined) {
          // Others need the memory too: a shard at a time, in turn.
          yield* this.#oneShard(offset, segment)
          return
        }
        this.#ahead.push(this.#fetch(offset, segment, range, hold))
        next = await upcoming.next()
      }
      const isWhole = yield* this.#give(this.#ahead[0]!)
      if (!isWhole) return
    }
  }

  /** The part of the range in the shard that holds its next byte. */
  async *#oneShard(offset: number, segment: StoredSegment): AsyncGenerator<Uint8Array> {
    const shardBytes = shardBytesFor(segment.length, segment)
    const shard = Math.floor((this.at - offset) / shardBytes)
    const end = Math.min(this.#range.end, offset + (shard + 1) * shardBytes)
    const hold = await this.#components.memory.acquire(shardBytes, this.#signal)
    const ahead = this.#fetch(offset, segment, { ...this.#range, start: this.at, end }, hold)
    this.#ahead.push(ahead)
    yield* this.#give(ahead)
  }

  /** @returns false where the rest was taken back */
  async *#give(first: Ahead): AsyncGenerator<Uint8Array, boolean> {
    const pieces = await first.pieces
    let left = pieces.reduce((sum, { length }) => sum + length, 0)
    while (pieces.length > 0) {
      const piece = pieces.shift()!
      this.at += piece.length
      first.hold.shrink(left)
      left -= piece.length
      first.hold.canGiveUp(() => {
        // All but the piece that is in the reader's hands.
        first.isTakenBack = true
        for (const ahead of this.#ahead.splice(1)) discard(ahead)
        pieces.length = 0
        first.memory.releaseAllBut(piece)
        first.hold.shrink(piece.length)
      })
      yield piece
      if (first.isTakenBack) {
        this.letGo()
        return false
      }
    }
    this.#ahead.shift()
    discard(first)
    return true
  }

  #fetch(offset: number, segment: StoredSegment, range: ReadRange, hold: Hold): Ahead {
    const memory = new ShardMemory(this.#components.slabs)
    const pieces = fetchPieces(this.#components, offset, segment, range, this.#signal, memory)
    pieces.catch(() => {}) // heard when its turn comes
    return { hold, memory, pieces, isTakenBack: false }
  }
}

/** Gives its memory back as soon as nothing is written there any more. */
function discard({ hold, memory, pieces }: Ahead): void {
  const release = (): void => {
    memory.release()
    hold.release()
  }
  pieces.then(release, release)
}

/** The segments of the range, a window of the index at a time. */
async function* walk(
  segmentsOf: SegmentSource,
  { start, end }: ReadRange
): AsyncGenerator<{ offset: number; segment: StoredSegment }> {
  let at = start
  while (at < end) {
    const found = await segmentsOf(at, Math.min(end, at + windowBytes))
    if (found.length === 0) return
    for (const entry of found) {
      yield entry
      at = entry.offset + entry.segment.length
    }
  }
}

/** Data shards that hold bytes of the range, first and last. */
function touched(offset: number, segment: StoredSegment, { start, end }: ReadRange): { first: number; last: number } {
  const shardBytes = shardBytesFor(segment.length, segment)
  const from = Math.max(0, start - offset)
  const to = Math.min(segment.length, end - offset)
  return { first: Math.floor(from / shardBytes), last: Math.floor((to - 1) / shardBytes) }
}

function fetchBytes(offset: number, segment: StoredSegment, range: ReadRange): number {
  const { first, last } = touched(offset, segment, range)
  return (last - first + 1) * shardBytesFor(segment.length, segment)
}

export function shardsToFetch(segment: StoredSegment): ShardToFetch[] {
  return segment.shards.map(({ cid, provider, state }, index) => ({
    index,
    cid,
    bytes: storedShardBytes(segment.length, segment, index),
    provider,
    state
  }))
}

/** The range's bytes of a segment, decrypted, in order. */
async function fetchPieces(
  components: ReaderComponents,
  offset: number,
  segment: StoredSegment,
  range: ReadRange,
  signal: AbortSignal,
  memory: ShardMemory
): Promise<Uint8Array[]> {
  const { first, last } = touched(offset, segment, range)
  const shards = await fetchShards(components, segment, { first, last }, signal, memory)
  const shardBytes = shardBytesFor(segment.length, segment)
  const from = Math.max(0, range.start - offset)
  const to = Math.min(segment.length, range.end - offset)
  const pieces: Uint8Array[] = []
  for (let index = first; index <= last; index++) {
    const base = index * shardBytes
    const slice = shards.get(index)!.subarray(Math.max(0, from - base), Math.min(shardBytes, to - base))
    if (slice.length > 0) pieces.push(slice)
  }
  const { key } = range
  if (key === undefined) return pieces
  const cipher = { key, nonce: segment.nonce }
  const isInSlabs = pieces.every((piece) => components.slabs.owns(piece))
  if (isInSlabs) await components.codec.decrypt({ pieces, cipher, offset: from })
  else applyCipher(cipher, from, pieces)
  return pieces
}

/** Data shards of a segment, each in memory of the reader's own. */
async function fetchShards(
  components: ReaderComponents,
  segment: StoredSegment,
  { first, last }: { first: number; last: number },
  signal: AbortSignal,
  memory: ShardMemory
): Promise<Map<number, Uint8Array>> {
  const wanted = Array.from({ length: last - first + 1 }, (_, i) => first + i)
  const code = { k: segment.k, m: segment.m }
  // Just started, and who holds the shards has not been found yet: that is no reason to call them unreadable.
  const isFound = segment.shards.every(
    ({ provider }) => provider === undefined || components.peers.target(provider) !== undefined
  )
  if (!isFound) await components.networkKnown(signal)
  const { shards, complete, requestedBytes } = await gather(components, {
    code,
    shards: shardsToFetch(segment),
    wanted,
    signal,
    buffer: (byteLength) => memory.take(byteLength),
    observe: (shard, provider, outcome) => components.observe(segment.id, shard, provider, outcome)
  })
  const usedBytes = [...shards.values()].reduce((sum, { length }) => sum + length, 0)
  components.onRead?.({ isDecoded: !complete, requestedBytes, wastedBytes: requestedBytes - usedBytes })
  const own = new Map<number, Uint8Array>()
  for (const index of wanted) {
    const shard = shards.get(index)
    if (shard !== undefined) own.set(index, memory.own(shard))
  }
  if (complete) return own
  const lost = wanted.filter((index) => !shards.has(index))
  const restored = await components.codec.reconstruct({
    shards: segment.shards.map((_, index) => own.get(index) ?? shards.get(index)),
    length: segment.length,
    code,
    wanted: lost
  })
  for (const [at, index] of lost.entries()) own.set(index, restored[at]!)
  return own
}
