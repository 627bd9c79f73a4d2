/**
 * Whole objects, as the S3 gateway and the command line use them. `store.ts` implements it over a network of
 * providers; tests of the gateway may stand in their own.
 */
import type { CID } from 'multiformats/cid'
import type { Page, WriteCondition } from '../metadata/index-store.ts'
import type {
  BucketRecord,
  Checksums,
  ContentHeaders,
  ObjectRecord,
  PartRecord,
  ShardState,
  UploadRecord
} from '../metadata/records.ts'

/** An account, as the signature of a request proved it. */
export interface Account {
  owner: string
  displayName: string
}

/** The bytes of a PUT, and what is checked once they have all been read. */
export interface UploadBody {
  /** Rejects when the client's body is cut short, or fails a signature or checksum: then nothing is committed. */
  bytes: AsyncIterable<Uint8Array>
  /** Decoded length, where the client said it; used to choose segment sizes and refuse early. */
  size?: number
  /** MD5 the client declared (`Content-MD5`), 16 bytes. */
  expectedMd5?: Uint8Array
  /** Called after the last byte: the checksums to keep with the object (they may come in a trailer). */
  checksums?: () => Checksums
}

export interface PutRequest {
  bucket: string
  key: string
  body: UploadBody
  headers: ContentHeaders
  userMetadata: Record<string, string>
  storageClass: string
  condition?: WriteCondition
  signal?: AbortSignal
}

export interface OpenObject {
  record: ObjectRecord
  /**
   * The bytes [start, end) of the object, every one checked against a CID; rejects with `UNREADABLE` when fewer than
   * `k` shards of a segment can be had. The first chunk is ready (or the failure known) before much is buffered. A chunk
   * is valid until the next is asked for: its memory is used again.
   */
  read: (start: number, end: number, signal?: AbortSignal) => AsyncIterable<Uint8Array>
  /** Lets go of the content. Reads under way keep their own hold. Safe to call twice. */
  close: () => void
}

export interface CopyRequest {
  source: { bucket: string; key: string }
  /** Source's ETag as the caller checked it: the copy is of that version or fails with `PRECONDITION_FAILED`. */
  sourceEtag: string
  bucket: string
  key: string
  /** Absent: keep the source's. */
  replace?: { headers: ContentHeaders; userMetadata: Record<string, string> }
  storageClass?: string
  condition?: WriteCondition
  signal?: AbortSignal
}

export interface CreateUploadRequest {
  bucket: string
  key: string
  owner: string
  headers: ContentHeaders
  userMetadata: Record<string, string>
  storageClass: string
  checksumAlgorithm?: string
  checksumType?: 'FULL_OBJECT' | 'COMPOSITE'
}

export interface PutPartRequest {
  bucket: string
  key: string
  uploadId: string
  partNumber: number
  body: UploadBody
  signal?: AbortSignal
}

export interface CompleteUploadRequest {
  bucket: string
  key: string
  uploadId: string
  /** Ascending part numbers with the ETags (no quotes) the client was given. */
  parts: ReadonlyArray<{ partNumber: number; etag: string }>
  /** Checksums of the whole object to keep, computed by the caller from the parts. */
  checksums?: Checksums
  checksumType?: 'FULL_OBJECT' | 'COMPOSITE'
  /** Checksums of the parts, in the order of `parts`, to keep in the object's record. */
  partChecksums?: Checksums[]
  condition?: WriteCondition
  signal?: AbortSignal
}

export interface ListRequest {
  prefix: string
  /** Empty: no grouping. */
  delimiter: string
  /** Strictly after this key or common prefix; empty for the beginning. */
  after: string
  limit: number
}

export interface ListResult {
  objects: ObjectRecord[]
  commonPrefixes: string[]
  isTruncated: boolean
  /** What to pass as `after` for the next page; the last key or common prefix of this one. */
  nextAfter?: string
}

export interface SegmentHealth {
  /** `6+6`. */
  code: string
  healthy: number
  /** Healthy shards minus k: how many more may go. Negative: unreadable now. */
  margin: number
  shards: ShardHealth[]
  /** What repair makes of it; absent where nothing repairs. */
  outlook?: Omit<SegmentOutlook, 'conditions'>
}

export interface ShardHealth {
  cid: string
  provider: string | null
  state: ShardState
  lastProof: string | null
  /** What is the matter with it, in repair's finer terms: `gone`, `crowded`, `draining` and so on. */
  condition?: string
  /** What fails together with its provider; empty while it has none. */
  domains?: string[]
}

/** The prospects of a segment, as repair judges them. */
export interface SegmentOutlook {
  /** What is the matter, and why nothing is done about it where that is so, in one sentence. */
  why: string
  /** At this margin shards of providers that stay away are rebuilt. */
  threshold: number
  /** Distinct failure domains that hold shards that can be read. */
  domains: number
  /** Probability of loss within a year: a model's, with the churn measured here. Of providers alone: no disaster, no bug. */
  lossPerYear: number
  /** Of each shard. */
  conditions: string[]
}

export interface ObjectHealth {
  cid: string
  size: number
  /** That any part of it is lost within a year; absent where nothing repairs. */
  lossPerYear?: number
  segments: SegmentHealth[]
  /** Copies of the manifest and dag-pb blocks, in the same terms (`1+6`). */
  blocks: SegmentHealth[]
}

export interface ObjectStore {
  /** @throws `BUCKET_EXISTS`, `BUCKET_OWNED_BY_YOU` */
  createBucket: (name: string, account: Account, options?: { isPublic?: boolean }) => Promise<void>
  getBucket: (name: string) => Promise<BucketRecord | undefined>
  deleteBucket: (name: string) => Promise<void>
  listBuckets: (owner: string, options: { prefix: string; after: string; limit: number }) => Promise<Page<BucketRecord>>

  /** Acknowledges as DESIGN invariant 1 has it. */
  putObject: (request: PutRequest) => Promise<ObjectRecord>
  /** @throws `NO_SUCH_BUCKET`, `NO_SUCH_KEY` */
  openObject: (bucket: string, key: string) => Promise<OpenObject>
  /** The record alone: nothing is fetched. @throws `NO_SUCH_BUCKET`, `NO_SUCH_KEY` */
  headObject: (bucket: string, key: string) => Promise<ObjectRecord>
  /** Deleting what is not there is fine. @throws `NO_SUCH_BUCKET`, `PRECONDITION_FAILED` */
  deleteObject: (bucket: string, key: string, condition?: WriteCondition) => Promise<void>
  copyObject: (request: CopyRequest) => Promise<ObjectRecord>
  /** @throws `NO_SUCH_BUCKET` */
  listObjects: (bucket: string, request: ListRequest) => Promise<ListResult>

  createUpload: (request: CreateUploadRequest) => Promise<UploadRecord>
  getUpload: (bucket: string, key: string, uploadId: string) => Promise<UploadRecord>
  putPart: (request: PutPartRequest) => Promise<PartRecord>
  listParts: (
    bucket: string,
    key: string,
    uploadId: string,
    options: { after: number; limit: number }
  ) => Promise<Page<PartRecord>>
  /** @throws `NO_SUCH_UPLOAD`, `INVALID_PART`, `INVALID_PART_ORDER`, `PART_TOO_SMALL`, `PRECONDITION_FAILED` */
  completeUpload: (request: CompleteUploadRequest) => Promise<ObjectRecord>
  abortUpload: (bucket: string, key: string, uploadId: string) => Promise<void>
  listUploads: (
    bucket: string,
    options: { prefix: string; afterKey: string; afterUploadId: string; limit: number }
  ) => Promise<Page<UploadRecord>>

  /** @throws `NO_SUCH_BUCKET`, `NO_SUCH_KEY` */
  health: (bucket: string, key: string) => Promise<ObjectHealth>
  /** One block by CID, verified, wherever it is held. @throws `MISSING`, `UNREADABLE` */
  getBlock: (cid: CID, signal?: AbortSignal) => Promise<Uint8Array>
}
