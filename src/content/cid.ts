/**
 * Content identifiers (CIDv1). Shards are `raw` blocks under BLAKE3-256; the small nodes above them (dag-cbor
 * manifests, dag-pb files) use sha2-256, which is all that js kad-dht can announce.
 */
import { createHash } from 'node:crypto'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { equalBytes } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import { blake3 } from './blake3.ts'

export { CID }

export const codecs = { raw: 0x55, dagPb: 0x70, dagCbor: 0x71 } as const
export const hashes = { sha256: 0x12, blake3: 0x1e } as const

/** A shard's CID from its 32-byte BLAKE3 digest. */
export function shardCid(digest: Uint8Array): CID {
  return CID.createV1(codecs.raw, Digest.create(hashes.blake3, digest))
}

/** Whether it names a shard: only of such there are proofs of custody. */
export function isShardCid({ version, code, multihash }: CID): boolean {
  return version === 1 && code === codecs.raw && multihash.code === hashes.blake3 && multihash.digest.length === 32
}

export function cidOfShard(bytes: Uint8Array): CID {
  return shardCid(blake3(bytes))
}

export function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest()
}

export function cidOfNode(codec: number, bytes: Uint8Array): CID {
  return CID.createV1(codec, Digest.create(hashes.sha256, sha256(bytes)))
}

/**
 * Whether `bytes` are what `cid` names: the check before any byte is served or stored.
 *
 * @throws HoldfastError `BAD_INPUT` for a hash function nobody here can check
 */
export function matchesCid(cid: CID, bytes: Uint8Array): boolean {
  const { code, digest } = cid.multihash
  if (code === hashes.blake3 && digest.length === 32) return equalBytes(blake3(bytes), digest)
  if (code === hashes.sha256 && digest.length === 32) return equalBytes(sha256(bytes), digest)
  throw new HoldfastError(
    'BAD_INPUT',
    `CID ${cid.toString()} uses a hash function that is not supported; use blake3 or sha2-256`
  )
}

/** @throws HoldfastError `BAD_INPUT` */
export function parseCid(text: string): CID {
  try {
    return CID.parse(text)
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', `not a CID: ${text.slice(0, 120)}`, { cause })
  }
}

/** @throws HoldfastError `BAD_INPUT` */
export function decodeCid(bytes: Uint8Array): CID {
  try {
    return CID.decode(bytes)
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', 'not a binary CID', { cause })
  }
}
