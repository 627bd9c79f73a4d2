/** What a root is made of: the blocks that are refused with it. */
import * as dagPb from '@ipld/dag-pb'
import { check, HoldfastError, isCode } from '../base/errors.ts'
import { type CID, codecs } from '../content/cid.ts'
import { readManifest } from '../content/manifest.ts'
import { isEmptyContent } from './denylist.ts'

/** Of one content: 250 GB of object at 10+10. */
export const partsMax = 500_000
/** Blocks read to find them. A manifest's has 20,000 links at most, a file's node 174 as a rule. */
const manifestBlocksMax = 26
const nodesMax = 4096

/**
 * All blocks that a manifest or a dag-pb node leads to, itself not among them. What is empty is left out: it is a part of
 * others' contents too.
 *
 * @param fetch gives the bytes of a block, checked against its CID; it throws where it has not found it
 * @throws HoldfastError `BAD_INPUT` for a content of more blocks than that; what `fetch` throws
 */
export async function partsOf(root: CID, fetch: (cid: CID) => Promise<Uint8Array>): Promise<CID[]> {
  const parts = new Map<string, CID>()
  const add = (cid: CID): boolean => {
    const key = cid.toString()
    if (parts.has(key) || isEmptyContent(cid)) return false
    parts.set(key, cid)
    check(parts.size <= partsMax, `a content of more than ${partsMax} blocks`)
    return true
  }
  if (root.code === codecs.dagCbor) {
    const file = await addManifest(root, fetch, add)
    if (file !== undefined && add(file)) await addNodes(file, fetch, add)
  } else if (root.code === codecs.dagPb) {
    await addNodes(root, fetch, add)
  }
  parts.delete(root.toString())
  return [...parts.values()]
}

/** @returns the file that it is of, where the object is public */
async function addManifest(
  root: CID,
  fetch: (cid: CID) => Promise<Uint8Array>,
  add: (cid: CID) => boolean
): Promise<CID | undefined> {
  let read = 0
  try {
    const { segments, file } = await readManifest(root, async (cid) => {
      read += 1
      check(read <= manifestBlocksMax, `a manifest of more than ${manifestBlocksMax} blocks`)
      add(cid)
      return await fetch(cid)
    })
    for (const { shards } of segments) for (const cid of shards) add(cid)
    return file
  } catch (error) {
    if (isCode(error, 'DAMAGED')) return undefined // some other node: it is refused for itself
    throw error
  }
}

async function addNodes(
  root: CID,
  fetch: (cid: CID) => Promise<Uint8Array>,
  add: (cid: CID) => boolean
): Promise<void> {
  const waiting = [root]
  for (let read = 0; waiting.length > 0; read++) {
    check(read < nodesMax, `a file of more than ${nodesMax} nodes`)
    for (const cid of linksOf(await fetch(waiting.pop()!))) {
      if (add(cid) && cid.code === codecs.dagPb) waiting.push(cid)
    }
  }
}

function linksOf(bytes: Uint8Array): CID[] {
  try {
    return dagPb.decode(bytes).Links.map(({ Hash }) => (Hash.version === 0 ? Hash.toV1() : Hash))
  } catch {
    return [] // no node, whatever its CID says
  }
}

/** What `fetch` throws where a block is to be had nowhere. */
export const notFound = (cid: CID): HoldfastError => new HoldfastError('MISSING', `${cid} was found nowhere`)
