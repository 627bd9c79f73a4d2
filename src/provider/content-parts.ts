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

export interface Parts {
  /** Blocks of the content, the root not among them. */
  cids: CID[]
  /** Whether that is all: every block that says what others it is made of was found. */
  isWhole: boolean
}

/**
 * The blocks that a manifest or a dag-pb node leads to. What is empty is left out: it is a part of others' contents too.
 *
 * @param find gives the bytes of a block, checked against its CID; undefined where it is not to be had
 * @throws HoldfastError `BAD_INPUT` for a content of more blocks than that; what `find` throws
 */
export async function partsOf(root: CID, find: (cid: CID) => Promise<Uint8Array | undefined>): Promise<Parts> {
  return await new Search(find).run(root)
}

class Search {
  readonly #find: (cid: CID) => Promise<Uint8Array | undefined>
  readonly #parts = new Map<string, CID>()
  #isWhole = true

  constructor(find: (cid: CID) => Promise<Uint8Array | undefined>) {
    this.#find = find
  }

  async run(root: CID): Promise<Parts> {
    if (root.code === codecs.dagCbor) {
      const file = await this.#addManifest(root)
      if (file !== undefined && this.#add(file) && file.code === codecs.dagPb) await this.#addNodes(file)
    } else if (root.code === codecs.dagPb) {
      await this.#addNodes(root)
    }
    this.#parts.delete(root.toString())
    return { cids: [...this.#parts.values()], isWhole: this.#isWhole }
  }

  /** @returns whether it is new */
  #add(cid: CID): boolean {
    const key = cid.toString()
    if (this.#parts.has(key) || isEmptyContent(cid)) return false
    this.#parts.set(key, cid)
    check(this.#parts.size <= partsMax, `a content of more than ${partsMax} blocks`)
    return true
  }

  /** @returns the file that it is of, where the object is public */
  async #addManifest(root: CID): Promise<CID | undefined> {
    let read = 0
    try {
      const { segments, file } = await readManifest(root, async (cid) => {
        read += 1
        check(read <= manifestBlocksMax, `a manifest of more than ${manifestBlocksMax} blocks`)
        this.#add(cid)
        const bytes = await this.#find(cid)
        if (bytes === undefined) throw new HoldfastError('MISSING', `${cid} was found nowhere`)
        return bytes
      })
      for (const { shards } of segments) for (const cid of shards) this.#add(cid)
      return file
    } catch (error) {
      if (!isCode(error, 'DAMAGED', 'MISSING')) throw error
      // Some other node than a manifest is refused for itself, and has no parts.
      if (isCode(error, 'MISSING')) this.#isWhole = false
      return undefined
    }
  }

  async #addNodes(root: CID): Promise<void> {
    const waiting = [root]
    for (let read = 0; waiting.length > 0; read++) {
      check(read < nodesMax, `a file of more than ${nodesMax} nodes`)
      const bytes = await this.#find(waiting.pop()!)
      if (bytes === undefined) this.#isWhole = false
      else for (const cid of linksOf(bytes)) if (this.#add(cid) && cid.code === codecs.dagPb) waiting.push(cid)
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
