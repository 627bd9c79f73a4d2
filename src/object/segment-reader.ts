/**
 * From stored segments to a stream of bytes. Only the data shards that a range touches are fetched, a few segments ahead
 * within a memory budget; what is lost or late is decoded from the others. Every shard was checked against its CID.
 */
import type { Clock } from '../base/clock.ts'
import type { Semaphore } from '../base/concurrency.ts'
import type { Log } from '../base/log.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { gather, type ShardToFetch } from '../transfer/gather.ts'
import type { PeerOutcome, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { cipherAt } from './cipher.ts'
import { type SegmentCodec, shardBytesFor, storedShardBytes } from './segment-codec.ts'

export interface ReaderComponents {
  client: ProviderClient
  peers: Peers
  codec: SegmentCodec
  /** Bytes of fetched segments that all readers may hold together. */
  memory: Semaphore
  /** Memory of shards that were read before. */
  spares: SpareBuffers
  clock: Clock
  log: Log
  /** Resolves once the providers that are online are known. */
  networkKnown: (signal?: AbortSignal) => Promise<void>
  /** Hears what became of each request for a shard. */
  observe: (segmentId: number, shard: ShardToFetch, provider: string, outcome: PeerOutcome) => void
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

/** Shard-sized memory that is used again: fresh pages for every shard read cost more than reading it. */
export class SpareBuffers {
  readonly #idle: Uint8Array[] = []
  readonly #idleMax: number
  readonly #byteLength: number

  constructor(byteLength: number, idleMax: number) {
    this.#byteLength = byteLength
    this.#idleMax = idleMax
  }

  take(): Uint8Array {
    return this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.#byteLength)
  }

  /** Only what nobody reads or writes any more. Memory of another size, or one too many, is left to the collector. */
  give(bytes: Uint8Array): void {
    if (bytes.buffer.byteLength !== this.#byteLength || this.#idle.length >= this.#idleMax) return
    this.#idle.push(new Uint8Array(bytes.buffer, 0, this.#byteLength))
  }
}

/** Bytes of the index that are read at a time: 64 segments of the usual size. */
const windowBytes = 64 * 10 * 1024 * 1024
const segmentsAheadMax = 3

interface Ahead {
  offset: number
  segment: StoredSegment
  shards: Promise<Map<number, Uint8Array>>
  release: () => void
}

export async function* readSegments(
  components: ReaderComponents,
  segmentsOf: SegmentSource,
  range: ReadRange
): AsyncGenerator<Uint8Array> {
  const stop = new AbortController()
  const onAbort = (): void => stop.abort(range.signal?.reason)
  if (range.signal?.aborted === true) onAbort()
  range.signal?.addEventListener('abort', onAbort, { once: true })
  const ahead: Ahead[] = []
  try {
    const upcoming = walk(segmentsOf, range)
    let next = await upcoming.next()
    while (ahead.length > 0 || next.done !== true) {
      stop.signal.throwIfAborted()
      while (next.done !== true && ahead.length < segmentsAheadMax) {
        const { offset, segment } = next.value
        const bytes = fetchBytes(offset, segment, range)
        // The first waits its turn; those after it are a luxury, taken only while there is room.
        const release =
          ahead.length === 0 ? await components.memory.acquire(bytes, stop.signal) : components.memory.tryAcquire(bytes)
        if (release === undefined) break
        const shards = fetchShards(components, offset, segment, range, stop.signal)
        shards.catch(() => {}) // heard when its turn comes
        ahead.push({ offset, segment, shards, release })
        next = await upcoming.next()
      }
      const first = ahead.shift()!
      try {
        const shards = await first.shards
        yield* plainBytes(first.offset, first.segment, shards, range)
        // Decrypted bytes are copies; plain ones are these very bytes, and may still be on their way to the client.
        if (range.key !== undefined) for (const shard of shards.values()) components.spares.give(shard)
      } finally {
        first.release()
      }
    }
  } finally {
    range.signal?.removeEventListener('abort', onAbort)
    stop.abort(new Error('the reader has gone'))
    for (const { release } of ahead) release()
  }
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

async function fetchShards(
  components: ReaderComponents,
  offset: number,
  segment: StoredSegment,
  range: ReadRange,
  signal: AbortSignal
): Promise<Map<number, Uint8Array>> {
  const { first, last } = touched(offset, segment, range)
  const wanted = Array.from({ length: last - first + 1 }, (_, i) => first + i)
  const code = { k: segment.k, m: segment.m }
  // Just started, and who holds the shards has not been found yet: that is no reason to call them unreadable.
  const isFound = segment.shards.every(
    ({ provider }) => provider === undefined || components.peers.target(provider) !== undefined
  )
  if (!isFound) await components.networkKnown(signal)
  const { shards, complete } = await gather(components, {
    code,
    shards: shardsToFetch(segment),
    wanted,
    signal,
    buffer: () => components.spares.take(),
    observe: (shard, provider, outcome) => components.observe(segment.id, shard, provider, outcome)
  })
  if (complete) return shards
  const lost = wanted.filter((index) => !shards.has(index))
  const restored = await components.codec.reconstruct({
    shards: segment.shards.map((_, index) => shards.get(index)),
    length: segment.length,
    code,
    wanted: lost
  })
  for (const [at, index] of lost.entries()) shards.set(index, restored[at]!)
  return shards
}

function* plainBytes(
  offset: number,
  segment: StoredSegment,
  shards: Map<number, Uint8Array>,
  range: ReadRange
): Generator<Uint8Array> {
  const { first, last } = touched(offset, segment, range)
  const shardBytes = shardBytesFor(segment.length, segment)
  const from = Math.max(0, range.start - offset)
  const to = Math.min(segment.length, range.end - offset)
  const decrypt = range.key === undefined ? undefined : cipherAt({ key: range.key, nonce: segment.nonce }, from)
  for (let index = first; index <= last; index++) {
    const base = index * shardBytes
    const slice = shards.get(index)!.subarray(Math.max(0, from - base), Math.min(shardBytes, to - base))
    if (slice.length > 0) yield decrypt === undefined ? slice : decrypt(slice)
  }
}
