/**
 * A content that this gateway does not own, as its manifest describes it to anybody: the segments, and the blocks above them,
 * one after another. Nothing here needs a key, and nothing that stands in a stranger's manifest is believed before it is
 * checked: lengths that no shard has, or CIDs that are none of shards, make a segment one that cannot be helped.
 */
import { limits } from '../base/limits.ts'
import { type CID, isShardCid } from '../content/cid.ts'
import { type ManifestSegment, parseManifestPart, parseManifestRoot } from '../content/manifest.ts'
import { buildFile } from '../content/unixfs-file.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import { shardBytesFor, storedShardBytes } from '../object/segment-codec.ts'

/** What is repaired as a unit: a segment, or a block of which there are copies (then `k` is 1, and the bytes are known). */
export interface ForeignUnit {
  /** Place among the content's segments; null for a block of its manifest or of its UnixFS file. */
  segment: number | null
  length: number
  code: Code
  cids: readonly CID[]
  /** Of a block. */
  bytes?: Uint8Array
  isRoot: boolean
  /** Whether it can be what it says it is. */
  isSound: boolean
}

/**
 * Data shards up to which the nodes of a UnixFS file are made again: of a larger one they are left alone. A hundred GiB of
 * shards of 1 MiB, and some 50 MB of memory while they are made.
 */
const leavesMax = 100_000

/** Bytes of a shard of it, as stored. */
export const unitShardBytes = ({ length, code }: ForeignUnit, index: number): number =>
  storedShardBytes(length, code, index)

const unitOf = ({ length, k, m, shards }: ManifestSegment, segment: number): ForeignUnit => ({
  segment,
  length,
  code: { k, m },
  cids: shards,
  isRoot: false,
  isSound: shards.every(isShardCid) && shardBytesFor(length, { k }) <= limits.shardBytesMax
})

const copiesOf = (cid: CID, bytes: Uint8Array, m: number, isRoot = false): ForeignUnit => ({
  segment: null,
  length: bytes.length,
  code: { k: 1, m },
  cids: Array.from({ length: m + 1 }, () => cid),
  bytes,
  isRoot,
  isSound: true
})

/**
 * All units, always in the same order; a part of the manifest is held only while its segments are gone through. Blocks are
 * kept in one copy more than the largest `m` of the segments: with what a stranger knows that is the best guess.
 *
 * @param fetch gives the bytes of a block, already checked against its CID
 * @throws HoldfastError `DAMAGED` for what is no manifest; what `fetch` throws
 */
export async function* unitsOf(root: CID, fetch: (cid: CID) => Promise<Uint8Array>): AsyncGenerator<ForeignUnit> {
  const rootBytes = await fetch(root)
  const head = parseManifestRoot(root, rootBytes)
  const leaves: Array<{ cid: CID; bytes: number }> = []
  let count = 0
  let mMost = 0
  const look = (segment: ManifestSegment): ForeignUnit => {
    const unit = unitOf(segment, count++)
    mMost = Math.max(mMost, segment.m)
    if (head.file !== undefined && leaves.length <= leavesMax) {
      for (const [index, cid] of segment.shards.slice(0, segment.k).entries()) {
        const bytes = unitShardBytes(unit, index)
        if (bytes > 0) leaves.push({ cid, bytes })
      }
    }
    return unit
  }
  for (const segment of head.segments) yield look(segment)
  for (const cid of head.parts) {
    const bytes = await fetch(cid)
    for (const segment of parseManifestPart(cid, bytes)) yield look(segment)
    yield copiesOf(cid, bytes, mMost)
  }
  const m = count === 0 ? limits.parityMin : mMost
  if (head.file !== undefined && leaves.length <= leavesMax) {
    const file = buildFile(leaves)
    // Nodes that are not of this file would be rubbish that somebody else thought up.
    if (file?.root.equals(head.file) === true) for (const { cid, bytes } of file.nodes) yield copiesOf(cid, bytes, m)
  }
  yield copiesOf(root, rootBytes, m, true)
}
