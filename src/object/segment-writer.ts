/**
 * From a stream of bytes to coded, durable segments. A segment is read into a slab, where worker threads hash, encrypt and
 * code it in place, and its shards are sent from there while the next is read. Memory is bounded by a budget that all
 * writers share, never by an object's size.
 */
import type { Clock } from '../base/clock.ts'
import { HoldfastError, isCode } from '../base/errors.ts'
import { KiB, limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { type CID, shardCid } from '../content/cid.ts'
import type { Block } from '../content/manifest.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import type { SegmentRecord } from '../metadata/records.ts'
import { codeFor, independentDomains, place, quorumOf, type StorageClass } from '../placement/place.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { Scatter } from '../transfer/scatter.ts'
import type { Arena, Slab } from './arena.ts'
import { cipherAt, type SegmentCipher } from './cipher.ts'
import type { FairBudget, Hold } from './fair-budget.ts'
import { type SegmentCodec, type StreamDigest, shardBytesFor, syncDigest } from './segment-codec.ts'

export interface WriterComponents {
  client: ProviderClient
  peers: Peers
  codec: SegmentCodec
  guard: LeaseGuard
  /** Slabs of segments being filled, coded and sent. */
  slabs: Arena
  /** The bytes of `slabs`: who may take how many next. */
  memory: FairBudget
  /** Who has refused any of these blocks: they are not offered them again. */
  refusersOf: (cids: readonly CID[]) => Promise<ReadonlySet<string>>
  /** Told of a block that a provider would not take. */
  onRefused?: (provider: string, cid: CID) => void
  clock: Clock
  random: Random
  log: Log
}

export interface WriterInit {
  storageClass: StorageClass
  /** The code to use whatever the network's size; absent: what the network bears. */
  fixedCode?: Code
  /** The object's key; absent: not encrypted. */
  key?: Uint8Array
  shardBytesMax?: number
  /** Shards that may be missing from the quorum: 0, but for the simulator's planted bug. */
  quorumSlack?: number
  signal?: AbortSignal
}

/** A segment on its way: `scatter.placed` grows until all shards have settled. */
export interface WrittenSegment {
  length: number
  code: Code
  nonce: Uint8Array
  cids: CID[]
  scatter: Scatter
}

const segmentsInFlightMax = 4
/** A client that is too slow to fill a segment is given room for less at a time, down to this. */
const windowBytesMin = 64 * KiB
/** The hash of an object with less than this is done sooner than a worker has been asked. */
const workerDigestBytesMin = 64 * KiB

export class SegmentWriter {
  /** In object order. */
  readonly segments: WrittenSegment[] = []
  /** Manifest and dag-pb blocks. */
  readonly blocks: WrittenSegment[] = []
  size = 0

  readonly #components: WriterComponents
  readonly #init: WriterInit
  #digest: StreamDigest | undefined
  /** The segment that is being filled. */
  #filling: OpenSegment | undefined
  /** Bytes of the next segment, at most: less than a whole one for a client that could not fill it in time. */
  #windowBytes = Number.POSITIVE_INFINITY
  /** Segments are hashed in order. */
  #entered: Promise<void> = Promise.resolve()
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  /** Segments that are not durable yet. */
  readonly #pending = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined

  constructor(components: WriterComponents, init: WriterInit) {
    this.#components = components
    this.#init = init
    this.#signal = this.#stop.signal
    if (init.signal?.aborted === true) this.#onCallerAbort()
    init.signal?.addEventListener('abort', this.#onCallerAbort, { once: true })
  }

  readonly #onCallerAbort = (): void => this.#stop.abort(this.#init.signal?.reason)

  /** From here on the shards still on their way go on, whatever becomes of the caller. */
  detach(): void {
    this.#init.signal?.removeEventListener('abort', this.#onCallerAbort)
  }

  /**
   * Reads all of `bytes`; resolves with their MD5 when every segment has its quorum.
   *
   * @param expectedBytes the length where it is known: sizes the last segment's buffer
   * @throws HoldfastError `TOO_FEW_PROVIDERS`, `NOT_DURABLE`; whatever the source throws
   */
  async write(bytes: AsyncIterable<Uint8Array>, expectedBytes?: number): Promise<Uint8Array> {
    try {
      for await (const chunk of bytes) {
        for (let at = 0; at < chunk.length; ) {
          // Not kept in a variable: it may be closed at any time that is waited here.
          if (this.#filling === undefined) {
            await this.#throttle()
            this.#filling = await this.#open(expectedBytes === undefined ? undefined : expectedBytes - this.size)
          }
          const segment = this.#filling
          const taken = Math.min(chunk.length - at, segment.capacity - segment.length)
          segment.bytes.set(chunk.subarray(at, at + taken), segment.length)
          segment.length += taken
          this.size += taken
          at += taken
          if (segment.length === segment.capacity) {
            if (segment.capacity >= this.#windowBytes) this.#windowBytes *= 4
            this.#close(segment)
          }
        }
      }
      if (this.#filling !== undefined) this.#close(this.#filling)
      await this.#drain()
      return (await this.#digest?.digest()) ?? (await syncDigest().digest())
    } finally {
      this.#filling?.release()
      this.#filling = undefined
      this.#digest?.drop()
    }
  }

  /** Stores blocks (manifest, dag-pb) as `m + 1` copies each; resolves when each has its quorum. The last is the root. */
  async writeBlocks(blocks: readonly Block[]): Promise<void> {
    const m = Math.max(0, ...this.segments.map(({ code }) => code.m)) || this.code(1).m
    const code = { k: 1, m }
    for (const [at, { cid, bytes }] of blocks.entries()) {
      const excluded = await this.#components.refusersOf([cid])
      this.blocks.push(
        this.#scatter({
          excluded,
          length: bytes.length,
          code,
          nonce: new Uint8Array(0),
          cids: Array.from({ length: m + 1 }, () => cid),
          shards: Array.from({ length: m + 1 }, () => bytes),
          announce: at === blocks.length - 1
        })
      )
    }
    await Promise.all(this.blocks.map(({ scatter }) => scatter.quorum))
  }

  /** Stops sending; resolves with all that was stored by then, so that it can be released. */
  async abandon(): Promise<Array<{ provider: string; cid: CID }>> {
    this.detach()
    this.#stop.abort(new HoldfastError('ABORTED', 'the upload was given up'))
    await Promise.allSettled(this.#pending)
    return storedBy([...this.segments, ...this.blocks, ...this.#recoded])
  }

  /** To be called when the index knows what is kept and what is to be released. */
  letGo(): void {
    for (const { scatter } of [...this.segments, ...this.blocks, ...this.#recoded]) scatter.letGo()
  }

  /** Shards that may be stored and are not part of the object: of lost races, and of segments that were coded again. */
  async strays(): Promise<Array<{ provider: string; cid: CID }>> {
    const kept = [...this.segments, ...this.blocks]
    await Promise.all(kept.map(({ scatter }) => scatter.settled))
    return [...kept.flatMap(({ scatter }) => scatter.strays()), ...(await storedBy(this.#recoded))]
  }

  /** The code for a segment written now. @throws HoldfastError `TOO_FEW_PROVIDERS` */
  code(shardBytes: number): Code {
    const { peers, random } = this.#components
    const candidates = peers.candidates()
    const domains = independentDomains(candidates)
    const { fixedCode, storageClass } = this.#init
    const code = codeFor(fixedCode === undefined ? domains : fixedCode.k + fixedCode.m, storageClass)
    const chosen = fixedCode !== undefined && storageClass === 'STANDARD' ? fixedCode : code
    if (chosen === undefined) {
      throw new HoldfastError(
        'TOO_FEW_PROVIDERS',
        `${domains} independent providers are online and a durable write needs at least ${limits.parityMin + 1}; start more (holdfast provider --help)`
      )
    }
    const n = chosen.k + chosen.m
    const { assigned } = place(
      { code: chosen, shardBytes, wanted: Array.from({ length: n }, (_, i) => i), held: [] },
      candidates,
      random
    )
    if (assigned.size < quorumOf(chosen)) {
      throw new HoldfastError(
        'TOO_FEW_PROVIDERS',
        `a ${chosen.k}+${chosen.m} write needs ${quorumOf(chosen)} independent providers with room, and ${assigned.size} are online; start more (holdfast provider --help)`
      )
    }
    return chosen
  }

  async #open(remaining: number | undefined): Promise<OpenSegment> {
    const { memory, slabs } = this.#components
    const code = this.code(Math.min(this.#shardBytesMax({ k: 1, m: 0 }), remaining ?? Number.POSITIVE_INFINITY))
    // Half of the memory at most: one segment is coded while another is sent.
    const whole = code.k * this.#shardBytesMax(code, Math.floor(slabs.capacity / 2))
    const capacity = Math.max(1, Math.min(whole, this.#windowBytes, remaining ?? whole))
    const slabBytes = slabs.sizeOf(shardBytesFor(capacity, code) * (code.k + code.m))
    const hold = await memory.acquire(slabBytes, this.#signal)
    const segment: OpenSegment = { code, capacity, length: 0, ...(await this.#slab(slabBytes, hold)) }
    hold.canGiveUp(() => {
      if (this.#filling !== segment) return // closed already, and on its way
      this.#windowBytes = Math.max(windowBytesMin, 2 * segment.length)
      if (segment.length > 0) this.#close(segment)
    })
    return segment
  }

  async #slab(byteLength: number, hold: Hold): Promise<Slab> {
    try {
      const { memory, slabs } = this.#components
      // There is room, but perhaps not in one piece: that is waited for like the room itself.
      const { bytes, release } = await memory.pressedBy(slabs.take(byteLength, this.#signal))
      return {
        bytes,
        release: () => {
          release()
          hold.release()
        }
      }
    } catch (error) {
      hold.release()
      throw error
    }
  }

  /** Bytes of a shard, so that a segment of the code takes at most `slabBytes`. */
  #shardBytesMax({ k, m }: Code, slabBytes = Number.POSITIVE_INFINITY): number {
    return Math.max(1, Math.min(this.#init.shardBytesMax ?? limits.shardBytesMax, Math.floor(slabBytes / (k + m))))
  }

  #close(segment: OpenSegment): void {
    this.#filling = undefined
    // Its place in the object is fixed now; coding and sending finish in any order.
    const slot: WrittenSegment[] = []
    this.#slots.push(slot)
    const before = this.#entered
    const { promise: entered, resolve: enter } = Promise.withResolvers<void>()
    this.#entered = entered
    const work = this.#enter(segment, before)
      .finally(enter)
      .then((filled) => this.#encodeAndSend(filled, slot))
      .catch((error: unknown) => {
        this.#failure ??= { error }
        this.#stop.abort(error)
      })
      .finally(() => this.#pending.delete(work))
    this.#pending.add(work)
  }

  /** Has the segment's bytes hashed, in their turn. */
  async #enter({ code, capacity, length, bytes, release }: OpenSegment, before: Promise<void>): Promise<FilledSegment> {
    await before
    this.#digest ??= capacity < workerDigestBytesMin ? syncDigest() : this.#components.codec.startDigest()
    // Before it is encrypted in the same place; who comes next need not wait for it.
    const hashed = this.#digest.update(bytes.subarray(0, length))
    hashed.catch(() => {}) // awaited by whoever codes the segment
    return { code, length, slab: { bytes, release }, hashed }
  }

  readonly #slots: WrittenSegment[][] = []

  async #encodeAndSend(segment: FilledSegment, slot: WrittenSegment[]): Promise<void> {
    const { codec } = this.#components
    const { slab, length, code } = segment
    const cipher = this.#cipher()
    let written: WrittenSegment | undefined
    try {
      await segment.hashed
      const encoded = await codec.encode({ buffer: slab.bytes, length, code, cipher })
      const cids = encoded.digests.map(shardCid)
      const excluded = await this.#components.refusersOf(cids)
      this.#signal.throwIfAborted()
      const scattered = this.#scatter({
        excluded,
        length,
        code,
        nonce: cipher?.nonce ?? new Uint8Array(0),
        cids,
        shards: encoded.shards,
        announce: false
      })
      written = scattered
      slot.push(scattered)
      this.segments.push(scattered) // for abandon(); put in order by drain()
      await scattered.scatter.quorum
    } catch (error) {
      const recoded =
        written !== undefined && isCode(error, 'NOT_DURABLE') ? this.#recode(segment, written, cipher) : undefined
      if (recoded === undefined) throw error
      // Providers died under the write: what is left of the network bears a smaller code.
      this.#components.log.warn('re-coding a segment for a smaller network', {
        from: code,
        to: recoded[0]?.code
      })
      await Promise.all(recoded.map((piece) => this.#encodeAndSend(piece, piece.slot)))
      slot.splice(0, 1, ...recoded.flatMap((piece) => piece.slot))
    } finally {
      if (written === undefined) slab.release()
      else void written.scatter.settled.then(slab.release)
    }
  }

  /** The segment's plain bytes cut anew for the code of now; `undefined` when that is the code that failed. */
  #recode(
    { slab, length }: FilledSegment,
    failed: WrittenSegment,
    cipher?: SegmentCipher
  ): RecodedSegment[] | undefined {
    if (this.#signal.aborted) return undefined
    const shardBytesMax = this.#shardBytesMax({ k: 1, m: 0 })
    const code = this.code(shardBytesMax)
    if (code.k + code.m >= failed.code.k + failed.code.m) return undefined
    const coded = slab.bytes.subarray(0, length)
    const plain = cipher === undefined ? coded : cipherAt(cipher, 0)(coded)
    const pieces: RecodedSegment[] = []
    const capacity = code.k * shardBytesMax
    for (let at = 0; at < plain.length; at += capacity) {
      const part = plain.subarray(at, at + capacity)
      const own = new Uint8Array(shardBytesFor(part.length, code) * (code.k + code.m))
      own.set(part)
      // Not from the budget: this segment holds a part of it already, and two such waiting for each other never end.
      const ownSlab = { bytes: own, release: () => {} }
      pieces.push({ code, length: part.length, slab: ownSlab, hashed: Promise.resolve(), slot: [] })
    }
    this.#recoded.push(failed)
    return pieces
  }

  /** Segments that were coded again, and are not part of the object. */
  readonly #recoded: WrittenSegment[] = []

  #scatter(segment: SegmentToSend): WrittenSegment {
    const { length, code, nonce, cids } = segment
    const scatter = new Scatter(this.#components, {
      code,
      shards: segment.shards.map((bytes, index) => ({
        index,
        cid: cids[index]!,
        bytes,
        announce: segment.announce && index < announcersMax
      })),
      excluded: segment.excluded,
      quorum: quorumOf(code) - (this.#init.quorumSlack ?? 0),
      signal: this.#signal
    })
    return { length, code, nonce, cids, scatter }
  }

  #cipher(): SegmentCipher | undefined {
    const { key } = this.#init
    return key === undefined ? undefined : { key, nonce: this.#components.random.bytes(8) }
  }

  async #throttle(): Promise<void> {
    while (this.#pending.size >= segmentsInFlightMax) await Promise.race(this.#pending)
    if (this.#failure !== undefined) throw this.#failure.error
  }

  async #drain(): Promise<void> {
    await Promise.all(this.#pending)
    if (this.#failure !== undefined) throw this.#failure.error
    this.segments.splice(0, this.segments.length, ...this.#slots.flat())
  }
}

interface SegmentToSend extends Omit<WrittenSegment, 'scatter'> {
  shards: Uint8Array[]
  announce: boolean
  /** Who refused any of it. */
  excluded: ReadonlySet<string>
}

/** A segment that is being filled, in its slab. */
interface OpenSegment extends Slab {
  code: Code
  /** Bytes of the object it takes. */
  capacity: number
  length: number
}

/** A segment that is complete. */
interface FilledSegment {
  code: Code
  length: number
  slab: Slab
  /** Its plain bytes have been hashed, and may be encrypted where they are. */
  hashed: Promise<void>
}

interface RecodedSegment extends FilledSegment {
  slot: WrittenSegment[]
}

/** Announcing costs 0.3 CPU-s across the network: two holders of a root do it, not all. */
const announcersMax = 2

/** All that may be stored of these segments, once nothing more is being sent. */
async function storedBy(segments: readonly WrittenSegment[]): Promise<Array<{ provider: string; cid: CID }>> {
  const stored: Array<{ provider: string; cid: CID }> = []
  for (const { scatter, cids } of segments) {
    await scatter.settled
    for (const [index, { provider }] of scatter.placed) stored.push({ provider, cid: cids[index]! })
    stored.push(...scatter.strays())
  }
  return stored
}

/** What the index keeps of a written segment, as it stands now. */
export function recordOf({ length, code, nonce, cids, scatter }: WrittenSegment): SegmentRecord {
  return {
    length,
    k: code.k,
    m: code.m,
    nonce,
    shards: cids.map((cid, index) => {
      const placed = scatter.placed.get(index)
      return placed === undefined
        ? { cid, state: 'unknown', leaseUntil: 0 }
        : { cid, provider: placed.provider, state: 'healthy', leaseUntil: placed.leaseUntil, lastProof: placed.at }
    })
  }
}
