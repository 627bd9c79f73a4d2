/**
 * The index: where a gateway keeps what it owns. Each method is one transaction, durable when it resolves. `sqlite.ts`
 * implements it; `test/contracts/metadata-index.ts` is what every implementation must pass.
 */
import type { CID } from 'multiformats/cid'
import type {
  AccessKeyRecord,
  BucketRecord,
  KnownProviderRecord,
  ObjectRecord,
  PartRecord,
  SegmentRecord,
  ShardState,
  StoredObject,
  StoredSegment,
  UploadRecord
} from './records.ts'

/** S3's conditional writes, decided inside the committing transaction. ETags without quotes; `*` matches any. */
export interface WriteCondition {
  ifMatch?: string
  ifNoneMatch?: string
}

export interface Page<T> {
  items: T[]
  /** More follow after the last item. */
  isTruncated: boolean
}

/** What an object's bytes are made of, in order; `blocks` are the manifest and dag-pb nodes above them. */
export interface NewContent {
  segments: SegmentRecord[]
  blocks: SegmentRecord[]
}

/** The ids that committed segments were given, in the order of the input: later placements name them. */
export interface Committed {
  contentId: number
  segmentIds: number[]
  blockIds: number[]
}

export interface BucketIndex {
  /** @throws `BUCKET_EXISTS`, `BUCKET_OWNED_BY_YOU` */
  createBucket: (bucket: BucketRecord) => Promise<void>
  getBucket: (name: string) => Promise<BucketRecord | undefined>
  /** @throws `NO_SUCH_BUCKET`, `BUCKET_NOT_EMPTY` (objects or unfinished uploads) */
  deleteBucket: (name: string) => Promise<void>
  /** By name, bytewise, strictly after `after`. */
  listBuckets: (owner: string, options: { prefix: string; after: string; limit: number }) => Promise<Page<BucketRecord>>
}

export interface ObjectIndex {
  /**
   * Makes the object visible with all that it is made of, and queues for release what it replaces and nothing else
   * uses, in one transaction.
   *
   * @throws `NO_SUCH_BUCKET`, `PRECONDITION_FAILED`; `NO_SUCH_KEY` for `ifMatch` on an absent key
   */
  commitObject: (object: ObjectRecord, content: NewContent, condition?: WriteCondition) => Promise<Committed>
  /**
   * Another name (or other metadata) for content that is already there. `blocks` replace the source's where the
   * manifest differs (a re-wrapped key); otherwise they are shared.
   *
   * @throws `NO_SUCH_BUCKET`, `PRECONDITION_FAILED`; `NO_SUCH_KEY` when the content is gone by now
   */
  commitCopy: (
    object: ObjectRecord,
    sourceContentId: number,
    blocks?: SegmentRecord[],
    condition?: WriteCondition
  ) => Promise<Committed>
  getObject: (bucket: string, key: string) => Promise<StoredObject | undefined>
  /** @returns whether there was one. @throws `PRECONDITION_FAILED` */
  deleteObject: (bucket: string, key: string, condition?: WriteCondition) => Promise<boolean>
  /** Keys with `prefix`, in UTF-8 byte order, strictly after `after` (or at and after, with `inclusive`). */
  listObjects: (
    bucket: string,
    options: { prefix: string; after: string; inclusive?: boolean; limit: number }
  ) => Promise<Page<StoredObject>>
  /**
   * The data segments of a content that overlap bytes [start, end), in order, with the offset of each in the object.
   */
  getSegments: (
    contentId: number,
    start: number,
    end: number
  ) => Promise<Array<{ offset: number; segment: StoredSegment }>>
  getBlocks: (contentId: number) => Promise<StoredSegment[]>
  /**
   * Holds the content against release while a reader uses it; call the returned function when done (twice is fine).
   * In memory only. @throws `NO_SUCH_KEY` when the content is gone by now
   */
  pinContent: (contentId: number) => () => void
}

export interface UploadIndex {
  /** @throws `NO_SUCH_BUCKET` */
  createUpload: (upload: UploadRecord) => Promise<void>
  getUpload: (bucket: string, key: string, uploadId: string) => Promise<UploadRecord | undefined>
  /** By key, then by upload id, strictly after the pair. */
  listUploads: (
    bucket: string,
    options: { prefix: string; afterKey: string; afterUploadId: string; limit: number }
  ) => Promise<Page<UploadRecord>>
  /** Replaces a part of the same number. Returns the segments' ids. @throws `NO_SUCH_UPLOAD` */
  commitPart: (uploadId: string, part: PartRecord, segments: SegmentRecord[]) => Promise<number[]>
  listParts: (uploadId: string, options: { after: number; limit: number }) => Promise<Page<PartRecord>>
  /** All segments of the named parts, in part order: what the manifest is made of. @throws `NO_SUCH_UPLOAD`, `INVALID_PART` */
  getPartSegments: (uploadId: string, partNumbers: readonly number[]) => Promise<StoredSegment[]>
  /**
   * Turns the named parts into the object; parts not named, and the upload, are gone. `etags` must still be those of
   * the parts, so that a part replaced meanwhile is not taken for the one the caller saw.
   *
   * @throws `NO_SUCH_UPLOAD`, `INVALID_PART`, `INVALID_PART_ORDER`, `PRECONDITION_FAILED`; `NO_SUCH_KEY` for `ifMatch`
   * on an absent key
   */
  completeUpload: (
    uploadId: string,
    parts: ReadonlyArray<{ partNumber: number; etag: string }>,
    object: ObjectRecord,
    blocks: SegmentRecord[],
    condition?: WriteCondition
  ) => Promise<Committed>
  /** @returns whether there was one */
  abortUpload: (bucket: string, key: string, uploadId: string) => Promise<boolean>
}

/** One shard, by where it stands. */
export interface ShardAddress {
  segmentId: number
  index: number
}

export interface ShardPlacement extends ShardAddress {
  /** The shard's CID: what is released where its segment is gone by now. */
  cid: CID
  provider: string
  leaseUntil: number
  at: number
}

export interface LeaseRow {
  cid: CID
  leaseUntil: number
}

export interface ShardIndex {
  /**
   * Segments with at least one shard not placed or known lost (`unknown`, `missing`, `wrong`, `withdrawn`), ids
   * above `afterId`.
   */
  listIncomplete: (options: { afterId: number; limit: number }) => Promise<StoredSegment[]>
  getSegment: (id: number) => Promise<StoredSegment | undefined>
  /** Records where shards are now; a segment that is gone meanwhile is skipped, and its shards queued for release. */
  placeShards: (placements: readonly ShardPlacement[]) => Promise<void>
  /** Records what was observed. Only where the shard is still with that provider. */
  markShard: (shard: ShardAddress, provider: string, state: ShardState, proofAt?: number) => Promise<void>
  /** The same for every shard with this CID at this provider: what an answer about a lease tells. */
  markHolding: (provider: string, cid: CID, state: ShardState, proofAt?: number) => Promise<void>
  /** Every provider that holds something. What is `missing`, `wrong` or `withdrawn` is not held, here and below. */
  listHolders: () => Promise<Array<{ provider: string; shards: number; bytes: number }>>
  /** Distinct CIDs held by `provider` whose lease ends before `before`, soonest first. */
  listLeasesDue: (provider: string, before: number, limit: number) => Promise<LeaseRow[]>
  renewed: (provider: string, cids: readonly CID[], leaseUntil: number) => Promise<void>
  /** Which provider was given this CID, likeliest to have it first: for `/ipfs/{cid}`. */
  findHolders: (cid: CID) => Promise<Array<{ provider: string; state: ShardState }>>
  /** CIDs whose lease at `provider` nothing needs any more. */
  listReleases: (provider: string, limit: number) => Promise<CID[]>
  listReleaseProviders: () => Promise<string[]>
  /** Takes rows off the release queue once the provider has answered. */
  released: (provider: string, cids: readonly CID[]) => Promise<void>
  /**
   * Queues shards of a failed upload for release, so that even a gateway that dies right after gives them back.
   * Rows that a committed segment needs at the same provider are left out.
   */
  queueReleases: (rows: ReadonlyArray<{ provider: string; cid: CID }>) => Promise<void>
  totals: () => Promise<{
    buckets: number
    objects: number
    objectBytes: number
    segments: number
    shards: number
    incompleteSegments: number
  }>
}

/** A block that a provider is to have, as audits need it. */
export interface CustodyRow {
  cid: CID
  /** Length of the block. */
  bytes: number
  /** Milliseconds since the Unix epoch, the latest where it is to have the block for several segments; null: never. */
  lastProof: number | null
}

/** An audit request and what came of it, as its auditor signed it. */
export interface NewTranscript {
  provider: string
  askedAt: number
  bytes: Uint8Array
  signature: Uint8Array
  /** Challenges by how they ended: for listings, `bytes` says the same. */
  outcomes: Record<string, number>
}

export interface TranscriptRow extends NewTranscript {
  /** In the order in which they were added, from 1; never given twice. */
  id: number
}

/** What an auditor wants to keep, in one transaction. All parts may be absent. */
export interface AuditSave {
  /** State of the auditor as a whole. */
  auditor?: Uint8Array
  /** States of providers, by peer id; null: forgotten. */
  providers?: ReadonlyArray<{ provider: string; state: Uint8Array | null }>
  transcripts?: readonly NewTranscript[]
  /**
   * Transcripts asked for before `since` are dropped, and of the others those added first, beyond `rowsMax`. A backlog
   * goes a thousand at a time.
   */
  keep?: { since: number; rowsMax: number }
}

export interface CustodyIndex {
  /**
   * Raw blocks under BLAKE3 that `provider` is to have (not `missing`, `wrong`, `withdrawn`), each once, in the order
   * of their CIDs' bytes, strictly after `after`.
   */
  listCustody: (provider: string, options: { after?: CID; limit: number }) => Promise<CustodyRow[]>
  /** Those of them that were last proved before `before`, longest unproved first. */
  listUnproved: (provider: string, options: { before: number; limit: number }) => Promise<CustodyRow[]>
  /**
   * Notes that the provider has the blocks, of any kind; a time of proof never goes back. What was not known to be
   * there is then `healthy`. What is `missing`, `wrong` or `withdrawn` is left as it is: that was found by a read, a
   * renewal or an audit, and a proof of one chunk, asked for before or about the half that is left, does not take it
   * back. It ends with `placeShards`, or with a read of the whole (`markShard`).
   */
  recordProofs: (provider: string, cids: readonly CID[], at: number) => Promise<void>
  saveAudit: (save: AuditSave) => Promise<void>
  /** Providers by peer id. */
  loadAudit: () => Promise<{
    auditor: Uint8Array | undefined
    providers: Array<{ provider: string; state: Uint8Array }>
  }>
  /** Newest first, ids below `before`. */
  listTranscripts: (options: { before?: number; provider?: string; limit: number }) => Promise<Page<TranscriptRow>>
  /** Oldest first, ids above `after`: for exports, a page at a time. */
  scanTranscripts: (options: { after: number; limit: number }) => Promise<TranscriptRow[]>
}

/** Where a listing of a provider's segments goes on; `undefined` begins it. Its parts are the index's own business. */
export interface HeldCursor {
  leaseUntil: number
  segmentId: number
  index: number
}

export interface RefusalRow {
  provider: string
  cid: CID
  /** Milliseconds since the Unix epoch, by the provider's clock. */
  at: number
  /** The refusal as the provider signed it: `market/refusal.ts`. */
  signed: Uint8Array
}

/** What a provider has earned so far: bytes kept, times how long. */
export interface AccountRow {
  provider: string
  /** Byte-milliseconds up to `accruedAt`. */
  byteMs: number
  /** Milliseconds since the Unix epoch. */
  accruedAt: number
}

/** What repair needs: which segments a provider has part in, who works on which, and who refused what. */
export interface RepairIndex {
  /**
   * Segments with a shard that `provider` is to have (not `missing`, `wrong`, `withdrawn`), a page at a time. What is
   * renewed or placed meanwhile may come twice; nothing that stays is left out. `next` is absent after the last page.
   */
  listHeldSegments: (
    provider: string,
    options: { after?: HeldCursor; limit: number }
  ) => Promise<{ segments: StoredSegment[]; next?: HeldCursor }>
  /** All segments, by id, above `afterId`. */
  listSegments: (options: { afterId: number; limit: number }) => Promise<StoredSegment[]>
  /**
   * Segments in which `provider` is to have one of these blocks, each once; at most `limit`. `evenLost`: also those in
   * which it was given one that is `missing`, `wrong` or `withdrawn`.
   */
  listSegmentsWith: (
    provider: string,
    cids: readonly CID[],
    limit: number,
    options?: { evenLost?: boolean }
  ) => Promise<StoredSegment[]>
  /** Segments with one of these blocks among their shards, wherever that is and whether or not it is lost; likewise. */
  listSegmentsOf: (cids: readonly CID[], limit: number) => Promise<StoredSegment[]>
  /**
   * Takes segments for repair until a time: of those asked for, the ones that nobody else has taken (a claim that ended
   * by `now` counts for nothing; one's own is extended) and that still exist. Two gateways on one index never get the
   * same segment.
   */
  claimSegments: (ids: readonly number[], claim: { claimant: string; until: number; now: number }) => Promise<number[]>
  /** Gives claims back; those of others are left alone. */
  unclaimSegments: (ids: readonly number[], claimant: string) => Promise<void>
  /** Gives back all claims whose claimant's name begins so: those of a process that is known to have died. */
  endClaims: (claimantPrefix: string) => Promise<void>
  /**
   * Keeps signed refusals (the newest per provider and block) and marks what the providers were to have of them
   * `withdrawn`, in one transaction, after what they have earned by `now` has been counted.
   *
   * @returns segments in which something was withdrawn by this call
   */
  recordRefusals: (rows: readonly RefusalRow[], now: number) => Promise<number[]>
  /** Who has refused any of these blocks. */
  listRefusals: (cids: readonly CID[]) => Promise<Array<Pick<RefusalRow, 'provider' | 'cid' | 'at'>>>
  /** Adds to every provider's account what it kept since the last time. */
  accrue: (now: number) => Promise<void>
  /** Providers that ever earned anything, in the order of their peer ids. */
  listAccounts: () => Promise<AccountRow[]>
  /** States of providers' comings and goings, by peer id; null: forgotten. */
  savePresence: (rows: ReadonlyArray<{ provider: string; state: Uint8Array | null }>) => Promise<void>
  loadPresence: () => Promise<Array<{ provider: string; state: Uint8Array }>>
}

export interface AccountIndex {
  createAccessKey: (key: AccessKeyRecord) => Promise<void>
  getAccessKey: (accessKeyId: string) => Promise<AccessKeyRecord | undefined>
  listAccessKeys: () => Promise<AccessKeyRecord[]>
  /** @returns whether there was one */
  revokeAccessKey: (accessKeyId: string) => Promise<boolean>
}

export interface ProviderIndex {
  saveProviders: (providers: readonly KnownProviderRecord[]) => Promise<void>
  listProviders: () => Promise<KnownProviderRecord[]>
}

export interface MetadataIndex
  extends BucketIndex,
    ObjectIndex,
    UploadIndex,
    ShardIndex,
    CustodyIndex,
    RepairIndex,
    AccountIndex,
    ProviderIndex {
  /** Proves that the index is readable; rejects where it is not. */
  ping: () => Promise<void>
  close: () => Promise<void>
}
