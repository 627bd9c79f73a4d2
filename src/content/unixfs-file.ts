/**
 * The dag-pb nodes that make an unencrypted object's data shards the raw leaves of an ordinary UnixFS file, which any
 * IPFS client can fetch (UnixFS specification, "File"). Balanced, 174 links a node, as Kubo and Helia build it.
 */
import * as dagPb from '@ipld/dag-pb'
import { UnixFS } from 'ipfs-unixfs'
import { type CID, cidOfNode, codecs } from './cid.ts'
import type { Block } from './manifest.ts'

const linksPerNode = 174

interface Child {
  cid: CID
  /** Bytes of the file below this node. */
  fileBytes: number
  /** Bytes of all blocks at and below this node (dag-pb's Tsize). */
  dagBytes: number
}

/** The file's root and the nodes to store (root last); a file of one leaf is that leaf, and needs none. */
export function buildFile(
  leaves: ReadonlyArray<{ cid: CID; bytes: number }>
): { root: CID; nodes: Block[] } | undefined {
  if (leaves.length === 0) return undefined
  const nodes: Block[] = []
  let level: Child[] = leaves.map(({ cid, bytes }) => ({ cid, fileBytes: bytes, dagBytes: bytes }))
  while (level.length > 1) {
    const next: Child[] = []
    for (let at = 0; at < level.length; at += linksPerNode)
      next.push(parentOf(level.slice(at, at + linksPerNode), nodes))
    level = next
  }
  return { root: level[0]!.cid, nodes }
}

function parentOf(children: readonly Child[], nodes: Block[]): Child {
  const file = new UnixFS({ type: 'file', blockSizes: children.map(({ fileBytes }) => BigInt(fileBytes)) })
  const bytes = dagPb.encode(
    dagPb.prepare({
      Data: file.marshal(),
      Links: children.map(({ cid, dagBytes }) => ({ Hash: cid, Name: '', Tsize: dagBytes }))
    })
  )
  const cid = cidOfNode(codecs.dagPb, bytes)
  nodes.push({ cid, bytes })
  const sum = (of: (child: Child) => number): number => children.reduce((total, child) => total + of(child), 0)
  return { cid, fileBytes: sum((c) => c.fileBytes), dagBytes: bytes.length + sum((c) => c.dagBytes) }
}
