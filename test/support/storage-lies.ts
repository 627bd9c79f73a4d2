/**
 * What a provider may try with the blocks themselves, so that reads, renewals and audits are all lied to: for
 * whole-network tests, where each lie is to be found out.
 */
import { get as httpsGet } from 'node:https'
import { HoldfastError } from '../../src/base/errors.ts'
import { sliceOf } from '../../src/content/blake3-slice.ts'
import { treeOf } from '../../src/content/blake3-tree.ts'
import { type CID, matchesCid, parseCid } from '../../src/content/cid.ts'
import { challengeChunkBytes } from '../../src/custody/audit-messages.ts'
import { createCoder } from '../../src/erasure/coder.ts'
import { parseCode } from '../../src/erasure/erasure-coder.ts'
import type { ObjectHealth } from '../../src/object/object-store.ts'
import type { BlockProofs, StorageProvider } from '../../src/provider/storage-provider.ts'

/**
 * `half`: has only the first half of every block: proves chunks of it (it kept the trees), makes the others up, and
 * cuts what is read. `stale`: proves each shard with the first proof that it ever gave of it, freshly signed.
 * `fetch`: has none of the blocks that it was told of in `segments`; it gets others of the segment from their
 * providers when it is asked, and rebuilds.
 */
export const storageLies = ['half', 'stale', 'fetch'] as const
export type StorageLie = (typeof storageLies)[number]

/** A segment as `/v1/objects` has it: what a provider has to know in order to rebuild. */
export interface FetchableSegment {
  /** `6+6` */
  code: string
  /** In order. `url`: of a data plane where it is kept; null where it is not, or with the liar itself. */
  shards: Array<{ cid: string; url: string | null }>
}

export interface FetchInit {
  segments: FetchableSegment[]
  /** Of the liar's line, downwards, shared by all that it fetches at once. */
  bitsPerSecond: number
}

/** What `fetch` has to be told about an object, from what its gateway says of it and of the providers. */
export function fetchableSegments(
  { segments }: Pick<ObjectHealth, 'segments'>,
  providers: ReadonlyArray<{ peerId: string; dataUrls: readonly string[] }>,
  liar: string
): FetchableSegment[] {
  const urls = new Map(providers.map(({ peerId, dataUrls }) => [peerId, dataUrls[0]]))
  return segments.map(({ code, shards }) => ({
    code,
    shards: shards.map(({ cid, provider }) => ({
      cid,
      url: provider === null || provider === liar ? null : (urls.get(provider) ?? null)
    }))
  }))
}

export interface StorageLies {
  /** What `fetch` rebuilds, and over how fast a line. */
  setFetch: (init: FetchInit) => void
}

/**
 * Makes an honest provider lie as `current` says, each time that it is asked. Another word than a `StorageLie` is no
 * lie.
 */
export function lieInStorage(storage: StorageProvider, current: () => string): StorageLies {
  const fetcher = new Fetcher()
  const firstProofs = new Map<string, Uint8Array>()
  /** Of what was put since the start: a lost data shard's length is nowhere else. */
  const sizes = new Map<string, number>()
  const honest = {
    put: storage.put.bind(storage),
    get: storage.get.bind(storage),
    prove: storage.prove.bind(storage),
    renew: storage.renew.bind(storage),
    size: storage.size.bind(storage)
  }
  const isFetched = (cid: CID): boolean => current() === 'fetch' && fetcher.knows(cid)
  const fetch = (cid: CID): Promise<Uint8Array> => fetcher.fetch(cid, sizes.get(cid.toString()))
  storage.put = async (owner, cid, bytes, termMs) => {
    const result = await honest.put(owner, cid, bytes, termMs)
    sizes.set(cid.toString(), bytes.length)
    return result
  }
  storage.size = async (cid) => (isFetched(cid) ? sizes.get(cid.toString()) : undefined) ?? (await honest.size(cid))
  storage.renew = async (owner, cids, termMs) => {
    const own = cids.filter((cid) => !isFetched(cid))
    const states = await honest.renew(owner, own, termMs)
    return cids.map((cid) => (isFetched(cid) ? 'held' : states.shift()!))
  }
  storage.get = async (cid, into) => {
    if (current() === 'half') return firstHalf(await honest.get(cid, into))
    if (isFetched(cid)) return await fetch(cid)
    return await honest.get(cid, into)
  }
  storage.prove = async (cid, chunks, tree) => {
    if (isFetched(cid)) return proofsOf(await fetch(cid), chunks)
    const proofs = await honest.prove(cid, chunks, tree)
    if (current() === 'half')
      return { ...proofs, slices: proofs.slices.map((slice, i) => halfProof(slice, chunks[i]!, proofs)) }
    const first = firstProofs.get(cid.toString()) ?? proofs.slices[0]!
    firstProofs.set(cid.toString(), first)
    return current() === 'stale' ? { ...proofs, slices: chunks.map(() => first) } : proofs
  }
  return { setFetch: (init) => fetcher.set(init) }
}

const firstHalf = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, bytes.length >> 1)

/** The chunk's bytes, if they are in the second half, are made up. */
function halfProof(slice: Uint8Array, chunk: number, { tree: { blockBytes } }: BlockProofs): Uint8Array {
  const start = chunk * challengeChunkBytes
  const end = Math.min(blockBytes, start + challengeChunkBytes)
  if (end <= blockBytes >> 1) return slice
  const madeUp = Uint8Array.from(slice)
  madeUp.fill(0x5a, slice.length - (end - start))
  return madeUp
}

function proofsOf(bytes: Uint8Array, chunks: readonly number[]): BlockProofs {
  const tree = treeOf(bytes)
  const slices = chunks.map((chunk) =>
    sliceOf(bytes, tree, chunk * challengeChunkBytes, (chunk + 1) * challengeChunkBytes)
  )
  return { slices, tree }
}

class Fetcher {
  readonly #segments = new Map<string, FetchableSegment>()
  readonly #coder = createCoder()
  #bytesPerMs = Number.POSITIVE_INFINITY
  /** Until when the line is busy with what was fetched so far. */
  #busyUntil = 0

  set({ segments, bitsPerSecond }: FetchInit): void {
    for (const segment of segments) for (const { cid } of segment.shards) this.#segments.set(cid, segment)
    this.#bytesPerMs = bitsPerSecond / 8 / 1000
  }

  knows(cid: CID): boolean {
    return this.#segments.has(cid.toString())
  }

  /** The shard, rebuilt from any `k` others. @throws HoldfastError `MISSING` where there are not so many */
  async fetch(cid: CID, bytes: number | undefined): Promise<Uint8Array> {
    const { code: text, shards } = this.#segments.get(cid.toString())!
    const code = parseCode(text)
    const { k, m } = code
    const wanted = shards.findIndex((shard) => shard.cid === cid.toString())
    const sources = shards.flatMap((shard, i) => (i === wanted || shard.url === null ? [] : [{ ...shard, i }]))
    const stored: Array<Uint8Array | undefined> = Array.from({ length: k + m })
    let found = 0
    for (let from = 0; from < sources.length && found < k; ) {
      const batch = sources.slice(from, from + k - found)
      from += batch.length
      const got = await Promise.all(batch.map(({ cid: other, url }) => this.#download(other, url!)))
      for (const [at, { i }] of batch.entries()) {
        stored[i] = got[at]
        if (got[at] !== undefined) found += 1
      }
    }
    if (found < k) throw new HoldfastError('MISSING', 'no such block here')
    const shardBytes = Math.max(bytes ?? 0, ...stored.map((shard) => shard?.length ?? 0))
    const buffer = new Uint8Array((k + m) * shardBytes)
    for (const [i, shard] of stored.entries()) buffer.set(shard ?? [], i * shardBytes)
    const present = stored.map((shard) => shard !== undefined)
    this.#coder.reconstruct(buffer, code, present, [wanted])
    const rebuilt = buffer.slice(wanted * shardBytes, wanted * shardBytes + (bytes ?? shardBytes))
    if (!matchesCid(cid, rebuilt)) throw new HoldfastError('INTERNAL', 'rebuilt something else')
    return rebuilt
  }

  /** Resolves when it would have come over the line; undefined where it is not to be had. */
  async #download(name: string, url: string): Promise<Uint8Array | undefined> {
    const bytes = await download(`${url}/ipfs/${name}?format=raw`)
    if (bytes === undefined || !matchesCid(parseCid(name), bytes)) return undefined
    const now = performance.now()
    this.#busyUntil = Math.max(this.#busyUntil, now) + bytes.length / this.#bytesPerMs
    await new Promise((resolve) => setTimeout(resolve, this.#busyUntil - now))
    return bytes
  }
}

function download(url: string): Promise<Uint8Array | undefined> {
  return new Promise((resolve) => {
    httpsGet(url, { rejectUnauthorized: false }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => void chunks.push(chunk))
      response.once('end', () => resolve(response.statusCode === 200 ? Buffer.concat(chunks) : undefined))
      response.once('error', () => resolve(undefined))
    }).once('error', () => resolve(undefined))
  })
}
