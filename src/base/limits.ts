/**
 * Bounds that several parts must agree on, and the relations between them, checked at import. A number that only one
 * file needs stays in that file.
 */
export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

export const secondMs = 1000
export const minuteMs = 60 * secondMs
export const hourMs = 60 * minuteMs
export const dayMs = 24 * hourMs

export const limits = {
  /** A shard, and any block: what a provider takes in one PUT. IPFS clients refuse blocks above 2 MiB. */
  shardBytesMax: MiB,
  /** GF(2^8) has 256 points; the first k + m of them are used. */
  codeShardsMax: 256,
  /** `n = min(independent domains, 20)` in a network of less than 40, unless told otherwise. */
  codeShardsDefaultMax: 20,
  /** Fewest parity shards of any code: below that one death and one slow provider stop a write. */
  parityMin: 2,
  /** Links in one manifest block: 41 bytes of CBOR each, so the block stays below shardBytesMax. */
  manifestLinksMax: 20_000,
  /** Control-plane messages (offers, lease batches): fits libp2p's stream buffer, which has no back-pressure. */
  rpcBytesMax: MiB,
  /** CIDs in one lease request: 40 bytes each stays far below rpcBytesMax. */
  leaseBatchMax: 1000,
  /** S3: the largest object of a single PUT, and of a part. */
  singlePutBytesMax: 5 * GiB,
  /** S3: the largest object. */
  objectBytesMax: 5 * 1024 * GiB,
  /** S3: the smallest part but the last. */
  partBytesMin: 5 * MiB,
  partsMax: 10_000,
  /** S3: UTF-8 bytes of a key. */
  keyBytesMax: 1024,
  /** S3: bytes of all x-amz-meta names and values. */
  userMetadataBytesMax: 2 * KiB,
  /**
   * Term of the lease a shard is uploaded with. It must outlive the slowest single PUT, since only committed shards
   * are renewed; what was never committed is collected by the provider after it.
   */
  provisionalLeaseMs: dayMs,
  /** Term of a committed shard's lease; renewed when less than half is left. */
  committedLeaseMs: 30 * dayMs
} as const

if (limits.manifestLinksMax * 42 > limits.shardBytesMax) throw new Error('a full manifest block would exceed a shard')
if (limits.leaseBatchMax * 64 > limits.rpcBytesMax) throw new Error('a full lease batch would exceed a message')
if (limits.provisionalLeaseMs >= limits.committedLeaseMs / 2)
  throw new Error('a provisional lease outlives its renewal')
