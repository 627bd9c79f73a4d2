/** What the index keeps. Times are milliseconds since the Unix epoch; sizes are bytes. */
import type { CID } from 'multiformats/cid'

/**
 * What is known of one shard. `offline`: its provider does not answer (waiting, not evidence). `contained`: it let a
 * request time out. Both are about the provider, worked out when asked for. `missing` and `wrong` are evidence of loss.
 * `withdrawn`: refused, signed. `unknown`: not placed yet.
 */
export const shardStates = ['healthy', 'offline', 'contained', 'missing', 'wrong', 'withdrawn', 'unknown'] as const
export type ShardState = (typeof shardStates)[number]

export interface ShardRecord {
  cid: CID
  /** Peer id of the provider that holds it; absent while the shard waits to be placed. */
  provider?: string
  state: ShardState
  /** End of the lease by the gateway's clock, as agreed when it was last renewed. 0 while not placed. */
  leaseUntil: number
  /** When the provider last proved that it has the shard: an acknowledged write, a verified read, or an audit. */
  lastProof?: number
}

/**
 * A run of an object's bytes, coded as a unit; or, with `k = 1`, a manifest or dag-pb block kept as `m + 1` copies
 * (all of its shards then have the same CID).
 */
export interface SegmentRecord {
  /** Bytes of the object in this segment (of the block, for copies); at least 1. */
  length: number
  k: number
  m: number
  /** 8 bytes: the high half of the AES-CTR counter block; empty where the content is not encrypted. */
  nonce: Uint8Array
  /** `k + m` entries, data first. */
  shards: ShardRecord[]
}

/** A segment as the index returns it, with the id it was given. */
export interface StoredSegment extends SegmentRecord {
  id: number
}

export interface BucketRecord {
  name: string
  /** Account that owns it. */
  owner: string
  createdAt: number
  /** Readable by anyone, and not encrypted. */
  isPublic: boolean
  /** AES-256 key of the bucket, wrapped by the gateway's; empty for a public bucket. */
  wrappedKey: Uint8Array
}

/** Headers that S3 keeps with an object and gives back: lower-case names. */
export type ContentHeaders = Partial<
  Record<
    'content-type' | 'content-encoding' | 'content-disposition' | 'content-language' | 'cache-control' | 'expires',
    string
  >
>

/** `x-amz-checksum-*` of an object: lower-case algorithm to base64 value (`-N` suffixed where composite). */
export type Checksums = Partial<Record<'crc32' | 'crc32c' | 'crc64nvme' | 'sha1' | 'sha256', string>>

export interface ObjectRecord {
  bucket: string
  key: string
  size: number
  /** Without quotes: 32 hex digits, `-N` for multipart. */
  etag: string
  modifiedAt: number
  /** CID of the manifest. */
  root: CID
  /** The object's AES-256 key wrapped by the bucket's; empty where it is not encrypted. */
  wrappedKey: Uint8Array
  headers: ContentHeaders
  /** Names without `x-amz-meta-`, lower-case. */
  userMetadata: Record<string, string>
  checksums: Checksums
  /** `FULL_OBJECT` or `COMPOSITE`, as S3 reports it; absent without checksums. */
  checksumType?: 'FULL_OBJECT' | 'COMPOSITE'
  storageClass: string
  /** Byte sizes of the parts of a multipart object, in order; absent otherwise. */
  partSizes?: number[]
  /** Checksums of those parts, in the same order; absent where no part has one. */
  partChecksums?: Checksums[]
}

export interface StoredObject extends ObjectRecord {
  contentId: number
}

export interface UploadRecord {
  bucket: string
  key: string
  uploadId: string
  owner: string
  initiatedAt: number
  wrappedKey: Uint8Array
  headers: ContentHeaders
  userMetadata: Record<string, string>
  storageClass: string
  /** Checksum algorithm chosen at creation, lower-case, and whether parts are combined or the whole is checked. */
  checksumAlgorithm?: string
  checksumType?: 'FULL_OBJECT' | 'COMPOSITE'
}

export interface PartRecord {
  partNumber: number
  size: number
  /** MD5 of the part, 32 hex digits. */
  etag: string
  modifiedAt: number
  checksums: Checksums
}

export interface AccessKeyRecord {
  accessKeyId: string
  /** The secret, sealed by the gateway's key: SigV4 needs it back. */
  sealedSecret: Uint8Array
  /** Account: owns what is made with this key. */
  owner: string
  displayName: string
  createdAt: number
}

/** A provider as the gateway last knew it, so that a restart need not wait for the DHT. */
export interface KnownProviderRecord {
  peerId: string
  dataUrls: string[]
  addresses: string[]
  domain: string
  lastSeenAt: number
}
