/**
 * The tree that a BLAKE3 digest is the root of, kept, so that a slice of the block can be proved later without hashing the
 * block again. Its leaves are groups of chunks: with groups of 1 KiB it takes 1/16 of the block's size, with 16 KiB 1/256.
 *
 * Levels are cut pairwise from the left, an odd node at the end goes up as it is. That gives BLAKE3's tree, whose left
 * subtrees are the largest powers of two (paper, section 2.1), at any group size that is a power of two.
 */
import { check } from '../base/errors.ts'
import { type Blake3Kernel, hashStart, runBytesMax, runChunksMax, threadKernel } from './blake3-kernel.ts'
import { chunkBytes, valueBytes } from './blake3-module.ts'

export const groupSizes = [1024, 16_384] as const
/** Bytes of a leaf. */
export type GroupBytes = (typeof groupSizes)[number]

export interface Blake3Tree {
  /** The block's digest. */
  root: Uint8Array
  groupBytes: GroupBytes
  blockBytes: number
  /** Chaining values, 32 bytes each, level by level from the groups' up; the last one is the root. */
  nodes: Uint8Array
}

export interface TreeInit {
  groupBytes?: GroupBytes
  /** A block in this kernel's memory is hashed where it is. Absent: the thread's own. */
  kernel?: Blake3Kernel
}

/** Groups of a block; an empty block has one. */
export function groupsOf(blockBytes: number, groupBytes: GroupBytes): number {
  return Math.max(1, Math.ceil(blockBytes / groupBytes))
}

export function checkGroupBytes(groupBytes: GroupBytes): void {
  check(groupSizes.includes(groupBytes), `a chunk group has ${groupSizes.join(' or ')} bytes, not ${groupBytes}`)
}

/** The block is read once, for the root and the tree. */
export function treeOf(block: Uint8Array, { groupBytes = 1024, kernel = threadKernel() }: TreeInit = {}): Blake3Tree {
  checkGroupBytes(groupBytes)
  const groups = groupsOf(block.length, groupBytes)
  let size = 1
  for (let count = groups; count > 1; count = Math.ceil(count / 2)) size += count
  const nodes = new Uint8Array(size * valueBytes)
  const root = nodes.subarray(-valueBytes)
  kernel.begin(hashStart)
  if (groups === 1) {
    rootOfGroup(kernel, block, root)
  } else {
    groupValues(kernel, block, { firstGroup: 0, groupBytes, into: nodes })
    let level = nodes
    for (let count = groups; count > 2; count = Math.ceil(count / 2)) {
      const above = level.subarray(count * valueBytes)
      foldLevel(kernel, level.subarray(0, count * valueBytes), above)
      level = above
    }
    rootOfPair(kernel, level, root)
  }
  return { root, groupBytes, blockBytes: block.length, nodes }
}

/** The digest of a block of one group. */
export function rootOfGroup(kernel: Blake3Kernel, block: Uint8Array, root: Uint8Array): void {
  if (block.length <= chunkBytes) {
    kernel.rootOfChunk(block, root)
  } else {
    kernel.fold(kernel.chunks(block, 0), { atMost: 2 })
    kernel.rootOfPair(root)
  }
}

/** The digest, from the two nodes of the level below. */
export function rootOfPair(kernel: Blake3Kernel, pair: Uint8Array, root: Uint8Array): void {
  kernel.setValues(pair.subarray(0, 2 * valueBytes))
  kernel.rootOfPair(root)
}

export interface GroupValuesInit {
  /** Number of the first group that `bytes` are of. */
  firstGroup: number
  groupBytes: GroupBytes
  into: Uint8Array
}

/** Chaining values of the groups that `bytes` are, of a block of several. */
export function groupValues(
  kernel: Blake3Kernel,
  bytes: Uint8Array,
  { firstGroup, groupBytes, into }: GroupValuesInit
): void {
  const chunksPerGroup = groupBytes / chunkBytes
  const levels = Math.log2(chunksPerGroup)
  let filled = 0
  for (let at = 0; at < bytes.length; at += runBytesMax) {
    const chunks = kernel.chunks(bytes.subarray(at, at + runBytesMax), firstGroup * chunksPerGroup + at / chunkBytes)
    const values = kernel.values(kernel.fold(chunks, { levels }))
    into.set(values, filled)
    filled += values.length
  }
}

/** The level above: parents of the pairs in `nodes`, and an odd one as it is. `into` may begin where `nodes` do, or before. */
export function foldLevel(kernel: Blake3Kernel, nodes: Uint8Array, into: Uint8Array): void {
  const step = runChunksMax * valueBytes
  for (let at = 0; at < nodes.length; at += step) {
    const piece = nodes.subarray(at, at + step)
    kernel.setValues(piece)
    into.set(kernel.values(kernel.fold(piece.length / valueBytes, { levels: 1 })), at / 2)
  }
}
