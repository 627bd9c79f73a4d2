/**
 * The manifest: how to rebuild an object. One dag-cbor block, or a root over parts when the shard links would not fit in
 * one. Placement is not in it, so repair never changes it. Byte layout: FORMATS.md, "Manifest".
 */
import * as dagCbor from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'
import { cidOfNode, codecs } from './cid.ts'

export interface ManifestSegment {
  /** Bytes of the object in this segment. */
  length: number
  k: number
  m: number
  /** 8 bytes for the counter block; empty without a cipher. */
  nonce: Uint8Array
  /** CIDs of the `k + m` shards, data first. */
  shards: CID[]
}

export interface Manifest {
  /** Bytes of the object. */
  size: number
  /** The object's key, wrapped by its bucket's (see `object/keys.ts`); absent when the object is not encrypted. */
  wrappedKey?: Uint8Array
  /** Root of the UnixFS file whose leaves are the data shards; only without encryption. */
  file?: CID
  segments: ManifestSegment[]
}

export interface Block {
  cid: CID
  bytes: Uint8Array
}

const cidSchema = z.custom<CID>((value) => CID.asCID(value) !== null, 'not a CID')
const bytesSchema = z.instanceof(Uint8Array)
const segmentSchema = z
  .tuple([
    z.number().int().positive(),
    z.number().int().min(1),
    z.number().int().min(0),
    bytesSchema.refine((b) => b.length === 0 || b.length === 8, 'a nonce is 8 bytes'),
    z.array(cidSchema).max(limits.codeShardsMax)
  ])
  .refine(([, k, m, , shards]) => shards.length === k + m, 'a segment has k + m shards')

const cipherSchema = z.strictObject({ alg: z.literal('aes-256-ctr'), key: bytesSchema.refine((b) => b.length <= 256) })
const rootSchema = z.strictObject({
  type: z.literal('holdfast/manifest'),
  v: z.literal(1),
  size: z.number().int().nonnegative(),
  cipher: cipherSchema.nullable(),
  file: cidSchema.nullable(),
  segments: z.array(segmentSchema).max(limits.manifestLinksMax),
  parts: z.array(cidSchema).max(limits.manifestLinksMax)
})
const partSchema = z.strictObject({
  type: z.literal('holdfast/manifest-part'),
  v: z.literal(1),
  segments: z.array(segmentSchema).max(limits.manifestLinksMax)
})

const packSegment = ({ length, k, m, nonce, shards }: ManifestSegment): unknown[] => [length, k, m, nonce, shards]
const unpackSegment = ([length, k, m, nonce, shards]: z.infer<typeof segmentSchema>): ManifestSegment => ({
  length,
  k,
  m,
  nonce,
  shards
})

const encodeBlock = (value: unknown): Block => {
  const bytes = dagCbor.encode(value)
  if (bytes.length > limits.shardBytesMax)
    throw new HoldfastError('OBJECT_TOO_LARGE', 'the object needs a larger manifest than a block holds')
  return { cid: cidOfNode(codecs.dagCbor, bytes), bytes }
}

/** The blocks of the manifest, root last. The same manifest gives the same bytes. */
export function encodeManifest(manifest: Manifest): { root: CID; blocks: Block[] } {
  const groups: ManifestSegment[][] = [[]]
  let links = 0
  for (const segment of manifest.segments) {
    if (links + segment.shards.length > limits.manifestLinksMax) {
      groups.push([])
      links = 0
    }
    groups[groups.length - 1]!.push(segment)
    links += segment.shards.length
  }
  const isTree = groups.length > 1
  const parts = isTree
    ? groups.map((segments) =>
        encodeBlock({ type: 'holdfast/manifest-part', v: 1, segments: segments.map(packSegment) })
      )
    : []
  const root = encodeBlock({
    type: 'holdfast/manifest',
    v: 1,
    size: manifest.size,
    cipher: manifest.wrappedKey === undefined ? null : { alg: 'aes-256-ctr', key: manifest.wrappedKey },
    file: manifest.file ?? null,
    segments: isTree ? [] : groups[0]!.map(packSegment),
    parts: parts.map(({ cid }) => cid)
  })
  return { root: root.cid, blocks: [...parts, root] }
}

/**
 * Reads a manifest; `fetch` gives the bytes of a block, already checked against its CID.
 *
 * @throws HoldfastError `DAMAGED` when the blocks are no manifest, or its lengths disagree
 */
export async function readManifest(root: CID, fetch: (cid: CID) => Promise<Uint8Array>): Promise<Manifest> {
  const head = parseManifestRoot(root, await fetch(root))
  const segments = [...head.segments]
  for (const cid of head.parts) {
    for (const segment of parseManifestPart(cid, await fetch(cid))) segments.push(segment)
  }
  const total = segments.reduce((sum, { length }) => sum + length, 0)
  if (total !== head.size)
    throw new HoldfastError('DAMAGED', `manifest ${root}: segments of ${total} bytes for an object of ${head.size}`)
  return { size: head.size, wrappedKey: head.wrappedKey, file: head.file, segments }
}

export interface ManifestRoot extends Manifest {
  /** Blocks with the segments, in order, where `segments` is empty for want of room. */
  parts: CID[]
}

/**
 * One block of a manifest, for whoever goes through a large one a block at a time: `size` is not checked.
 *
 * @throws HoldfastError `DAMAGED` when it is no root of a manifest
 */
export function parseManifestRoot(cid: CID, bytes: Uint8Array): ManifestRoot {
  const { size, cipher, file, segments, parts } = parseBlock(cid, rootSchema, bytes)
  return { size, wrappedKey: cipher?.key, file: file ?? undefined, segments: segments.map(unpackSegment), parts }
}

/** @throws HoldfastError `DAMAGED` when it is no part of a manifest */
export function parseManifestPart(cid: CID, bytes: Uint8Array): ManifestSegment[] {
  return parseBlock(cid, partSchema, bytes).segments.map(unpackSegment)
}

function parseBlock<T>(cid: CID, schema: z.ZodType<T>, bytes: Uint8Array): T {
  try {
    return schema.parse(dagCbor.decode(bytes))
  } catch (cause) {
    throw new HoldfastError('DAMAGED', `block ${cid} is not a manifest of a version known here`, { cause })
  }
}
