/**
 * Slices: a range of a block with what it takes to check it against the block's BLAKE3 digest, and nothing else. Layout,
 * and why no byte of it can be another: FORMATS.md, "Slice".
 */
import { equalBytes } from '../base/bytes.ts'
import { check, HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'
import { type Blake3Kernel, hashStart, threadKernel } from './blake3-kernel.ts'
import { valueBytes } from './blake3-module.ts'
import {
  type Blake3Tree,
  checkGroupBytes,
  foldLevel,
  type GroupBytes,
  groupsOf,
  groupValues,
  rootOfGroup,
  rootOfPair
} from './blake3-tree.ts'

const extentBytes = 8

/** What of a block a slice consists of. */
interface Selection {
  /** Groups of the block, or as many as are known to be there. */
  groups: number
  /** First and last group of the slice. */
  first: number
  last: number
}

export interface VerifyInit {
  groupBytes?: GroupBytes
  /** Longer blocks are refused. Absent: 1 MiB, as no shard is longer. */
  blockBytesMax?: number
  /** A slice in this kernel's memory is hashed where it is. Absent: the thread's own. */
  kernel?: Blake3Kernel
}

/**
 * The slice for bytes `start` to `end` (exclusive) of a block whose tree is at hand. Nothing is hashed. A range that goes
 * past the end of the block is cut there; an empty one, or one that begins past the end, takes one group all the same.
 *
 * @throws HoldfastError `BAD_INPUT` for something that is no range, or a tree of another block's size
 */
export function sliceOf(block: Uint8Array, tree: Blake3Tree, start: number, end: number): Uint8Array {
  check(block.length === tree.blockBytes, `a tree of ${tree.blockBytes} bytes for a block of ${block.length}`)
  const { groupBytes, nodes } = tree
  const selection = select(block.length, groupBytes, start, end)
  const { from, to } = bytesOf(selection, groupBytes, block.length)
  const siblings = siblingsOf(selection)
  const slice = new Uint8Array(extentBytes + siblings * valueBytes + to - from)
  const extent = extentOf(selection, groupBytes, block.length)
  const view = new DataView(slice.buffer)
  view.setUint32(0, Math.floor(extent / 2 ** 32))
  view.setUint32(4, extent % 2 ** 32)
  let at = extentBytes
  const put = (node: number): void => {
    slice.set(nodes.subarray(node * valueBytes, (node + 1) * valueBytes), at)
    at += valueBytes
  }
  let { first, last, groups: count } = selection
  for (let level = 0; count > 1; level += count, count = (count + 1) >>> 1, first >>>= 1, last >>>= 1) {
    if (hasLeft(first)) put(level + first - 1)
    if (hasRight(last, count)) put(level + last + 1)
  }
  slice.set(block.subarray(from, to), at)
  return slice
}

/**
 * Bytes `start` to `end` (exclusive) of the block with this digest, out of a slice that somebody else made: a view of it.
 * They are fewer than asked for only where the block ends before `end`, which the slice then proves. Nobody may write to the
 * slice meanwhile, nor to what it gives.
 *
 * @param root 32 bytes
 * @throws HoldfastError `WRONG` unless the slice is, to the bit, the one that an honest holder makes for this range
 */
export function verifySlice(
  slice: Uint8Array,
  root: Uint8Array,
  start: number,
  end: number,
  { groupBytes = 1024, blockBytesMax = limits.shardBytesMax, kernel = threadKernel() }: VerifyInit = {}
): Uint8Array {
  checkGroupBytes(groupBytes)
  check(root.length === valueBytes, `a BLAKE3 digest has ${valueBytes} bytes, not ${root.length}`)
  if (slice.length < extentBytes) throw wrong(`${slice.length} bytes`)
  const view = new DataView(slice.buffer, slice.byteOffset, extentBytes)
  const extent = view.getUint32(0) * 2 ** 32 + view.getUint32(4)
  if (extent > blockBytesMax) throw wrong(`a block of ${extent} bytes, above ${blockBytesMax}`)
  const selection = select(extent, groupBytes, start, end)
  if (extent !== extentOf(selection, groupBytes, extent)) throw wrong('an extent that an honest one would not have')
  const { from, to } = bytesOf(selection, groupBytes, extent)
  const bytesAt = extentBytes + siblingsOf(selection) * valueBytes
  if (slice.length !== bytesAt + to - from) throw wrong(`${slice.length} bytes instead of ${bytesAt + to - from}`)
  const bytes = slice.subarray(bytesAt)
  const actual = rootOfSlice(kernel, { selection, groupBytes, siblings: slice.subarray(extentBytes, bytesAt), bytes })
  if (!equalBytes(actual, root)) throw wrong('bytes that are not of the block')
  return bytes.subarray(Math.min(start - from, to - from), Math.min(end, to) - from)
}

interface Parts {
  selection: Selection
  groupBytes: GroupBytes
  siblings: Uint8Array
  bytes: Uint8Array
}

/** The digest of a block of which these are parts. */
function rootOfSlice(kernel: Blake3Kernel, { selection, groupBytes, siblings, bytes }: Parts): Uint8Array {
  const root = new Uint8Array(valueBytes)
  let { first, last, groups: count } = selection
  kernel.begin(hashStart)
  if (count === 1) {
    rootOfGroup(kernel, bytes, root)
    return root
  }
  // What is known of a level stands from node 1 on, between the places for its siblings.
  const nodes = new Uint8Array((last - first + 3) * valueBytes)
  const known = nodes.subarray(valueBytes)
  groupValues(kernel, bytes, { firstGroup: first, groupBytes, into: known })
  let at = 0
  const take = (node: number): void => {
    nodes.set(siblings.subarray(at, at + valueBytes), node * valueBytes)
    at += valueBytes
  }
  for (; ; count = (count + 1) >>> 1, first >>>= 1, last >>>= 1) {
    let begin = 1
    let end = last - first + 2
    if (hasLeft(first)) take(--begin)
    if (hasRight(last, count)) take(end++)
    const level = nodes.subarray(begin * valueBytes, end * valueBytes)
    if (count === 2) {
      rootOfPair(kernel, level, root)
      return root
    }
    foldLevel(kernel, level, known)
  }
}

const wrong = (what: string): HoldfastError => new HoldfastError('WRONG', `not the slice that was asked for: ${what}`)

/** On each level the slice covers nodes `first` to `last` of `count`: whether it needs the ones beside them. */
const hasLeft = (first: number): boolean => first % 2 === 1
const hasRight = (last: number, count: number): boolean => last % 2 === 0 && last + 1 < count

function select(blockBytes: number, groupBytes: GroupBytes, start: number, end: number): Selection {
  const isRange = Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end
  check(isRange, `not a range of bytes: ${start} to ${end}`)
  const groups = groupsOf(blockBytes, groupBytes)
  const first = Math.min(Math.floor(start / groupBytes), groups - 1)
  const last = Math.min(Math.max(Math.ceil(end / groupBytes) - 1, first), groups - 1)
  return { groups, first, last }
}

function bytesOf({ first, last }: Selection, groupBytes: GroupBytes, blockBytes: number): { from: number; to: number } {
  return { from: first * groupBytes, to: Math.min((last + 1) * groupBytes, blockBytes) }
}

/** Nodes that a slice carries. */
function siblingsOf(selection: Selection): number {
  let { first, last, groups: count } = selection
  let siblings = 0
  for (; count > 1; count = (count + 1) >>> 1, first >>>= 1, last >>>= 1)
    siblings += Number(hasLeft(first)) + Number(hasRight(last, count))
  return siblings
}

/**
 * What a slice says of the block's length, in bytes. The digest commits to the length through the last chunk; a slice with
 * the last group in it proves the length, and gives it. One without could prove any of several, and gives the least.
 */
function extentOf(selection: Selection, groupBytes: GroupBytes, blockBytes: number): number {
  const { groups, last } = selection
  return last === groups - 1 ? blockBytes : (leastGroups(groups, last) - 1) * groupBytes + 1
}

/** The fewest groups of a tree in which the way from the root to group `last` (not the last of all) turns as in one of `groups`. */
function leastGroups(groups: number, last: number): number {
  let before = 0
  for (let left = groups; ; ) {
    const half = 2 ** Math.floor(Math.log2(left - 1)) // the left subtree: the largest power of two below
    if (last - before < half) return before + half + 1
    before += half
    left -= half
  }
}
