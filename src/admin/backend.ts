/**
 * What the admin server shows and does, as it needs it. The gateway's composition implements it; tests stand in
 * their own. All of it is JSON as it stands: sizes in bytes, times as ISO 8601 text, unknown times `null`.
 */

/** `online`: answers. `contained`: let requests time out. `unknown`: not asked yet by this process. */
export type ProviderState = 'online' | 'offline' | 'contained' | 'unknown'

export interface ProviderView {
  peerId: string
  state: ProviderState
  domain: string
  version: string
  capacityBytes: number
  freeBytes: number
  /** Of a GiB-month, in the market's smallest unit. */
  price: number
  /** Whether it takes new shards. */
  accepting: boolean
  /** Whether it leaves, and hands over what it has. */
  draining: boolean
  /** What this gateway has placed there. */
  shards: number
  shardBytes: number
  /** Moving average of answered requests. */
  latencyMs: number | null
  lastSeenAt: string | null
  /** Requests by what became of them: `ok`, `offline`, `timeout`, `missing`, `wrong`, `refused`, `full`, `unknown`. */
  outcomes: Record<string, number>
  /** Null while it has not been audited. */
  score: ScoreView | null
  dataUrls: readonly string[]
  addresses: readonly string[]
}

/** `vetting`: too new for its full share. `closed`: gets no new shards. `suspended`: nor is what it has relied on. */
export type Standing = 'vetted' | 'vetting' | 'closed' | 'suspended'

/** What a provider is worth to this gateway; see `custody/score.ts`. Figures from 0 to 1. */
export interface ScoreView {
  /** For placement: 0 where it gets no new shards. */
  weight: number
  standing: Standing
  custody: number
  availability: number
  latencyMsP50: number | null
  latencyMsP95: number | null
  proofs: number
  /** In one sentence. */
  why: string
  /** Challenges that wait to be put again. */
  contained: number
}

/** One event that moved a score. */
export interface ScoreEvent {
  at: string
  kind: string
  /** CID; null where it is about no shard in particular. */
  shard: string | null
  before: number
  after: number
  why: string
}

/** One audit request that has ended. */
export interface AuditView {
  /** In the order in which they were written down; null while it has not been. */
  id: number | null
  askedAt: string
  tookMs: number
  provider: string
  challenges: number
  /** Challenges by how they ended: `ok`, `offline`, `timeout`, `missing`, `wrong`, `refused`, `unknown`. */
  outcomes: Record<string, number>
  /** Whether the provider signed for its answers. */
  countersigned: boolean
}

/** What to audit now: one provider, one object (`key` with `bucket`), or everything. */
export interface AuditTarget {
  provider?: string
  bucket?: string
  key?: string
}

export interface AuditRound {
  audits: AuditView[]
  /** Challenges of all of them by how they ended. */
  outcomes: Record<string, number>
  /** Shards that were not proved, a thousand at most. */
  unproved: Array<{ cid: string; provider: string; outcome: string }>
}

export interface CustodyStatus {
  /** Audit requests that have ended, ever. */
  audits: number
  /** Challenges that timed out and wait to be put again. */
  contained: number
  /** Judgement is suspended: too many unrelated providers fell silent at once. */
  ownOutage: boolean
  /** Providers that have been audited. */
  standings: Record<Standing, number>
  /** When the shard that has gone unproved longest was proved; null where one never was, or there is none. */
  oldestProofAt: string | null
}

export interface GatewayStatus {
  peerId: string
  version: string
  /** Origin of the S3 endpoint. */
  endpoint: string
  /** Multiaddrs by which others join the network through this node. */
  addresses: string[]
  startedAt: string
  /** Whether requests can be served; `reasons` say why not. */
  ready: boolean
  reasons: string[]
  providers: Record<ProviderState, number>
  /** Sum over the providers that are online. */
  capacityBytes: number
  freeBytes: number
  buckets: number
  objects: number
  objectBytes: number
  segments: number
  shards: number
  /** Segments with shards not placed yet, or known lost. */
  incompleteSegments: number
  custody: CustodyStatus
  /** What the gateway holds itself, since no provider takes it; null where it would hold nothing. */
  selfHost: { blocks: number; bytes: number; capacityBytes: number } | null
  /** Code that a new object of each storage class gets now, `null` where there are too few providers. */
  codes: Record<string, string | null>
  /** Which implementation of each kernel this machine has got: `erasure`, `blake3`. */
  kernels: Record<string, string>
}

/** A segment that wants shards placed now. */
export interface RepairItem {
  segment: number
  code: string
  /** Shards that can be read. */
  healthy: number
  margin: number
  /** Shards to place anew. */
  wanted: number
  /** What is the matter, in one sentence. */
  why: string
  /** Why the last try came to nothing; null where there was none, or it did not. */
  stuck: string | null
  /** Expected, if nobody repaired it. */
  secondsToLoss: number
}

/** Counted since the gateway started. Bytes as stored. */
export interface RepairTotals {
  /** Segments that got shards placed. */
  repairs: number
  shardsRebuilt: number
  shardsMoved: number
  bytesRead: number
  bytesWritten: number
  /** What the same repairs take where nothing goes wrong: `k + r` shards for `r` rebuilt. */
  bytesTheory: number
  /** Read or written, and of no use. */
  wastedBytes: number
}

/** What is to be repaired now, most urgent first, and what has been. */
export interface RepairListing extends Listing<RepairItem> {
  /** What that comes to, of a thousand segments at most. */
  planned: { segments: number; shards: number; bytesToRead: number; bytesToWrite: number }
  totals: RepairTotals
  /** Whether something is being repaired at this moment. */
  running: boolean
  /** Why less is repaired than could be; null where nothing holds it up. */
  paused: string | null
}

/** What one call of `POST /v1/repair` has done. */
export interface RepairRound {
  /** Since the call began; what other rounds did meanwhile included. */
  done: RepairTotals
  /** What is still to be repaired, and why it was not. */
  left: RepairListing
  /** It ended for time: call again. */
  isPartial: boolean
}

/** What one call has done for a content of somebody else's. */
export interface HelpView {
  root: string
  /** Units looked at (segments, and the blocks above them), and the number of the first. */
  from: number
  units: number
  /** What to go on with; null: that was all. */
  next: number | null
  /** Why it ended before its end, where that was not for time. */
  failure: string | null
  providersAsked: number
  bytesRead: number
  bytesWritten: number
  found: number
  rebuilt: number
  /** Shards without a holder, by why. */
  unhelped: Record<string, number>
  /** What was stored, a thousand at most; `segment` is null for a block of the manifest or of the UnixFS file. */
  rows: Array<{ segment: number | null; index: number; cid: string; provider: string }>
  /** Signed, for the owner of the content: base64 of `market/repair-report.ts`. */
  reports: string[]
}

/** What the owner made of a report. */
export interface AcceptanceView {
  root: string
  /** Peer id of who made the report. */
  helper: string
  madeAt: string
  /** Rows by what became of them: see `repair/report-rules.ts`. */
  rows: Record<string, number>
  /** Those that were neither unknown nor not needed, a thousand at most. */
  shards: Array<{ cid: string; provider: string; verdict: string }>
}

export interface Listing<T> {
  items: T[]
  /** There are more than were asked for. */
  isTruncated: boolean
}

export interface KeyView {
  accessKeyId: string
  /** Account that owns what is made with the key. */
  account: string
  createdAt: string
}

export interface NewKey extends KeyView {
  /** Shown this once. */
  secretAccessKey: string
}

export interface AdminBackend {
  /** Why S3 requests cannot be served now; empty when they can. */
  readiness: () => Promise<string[]>
  status: () => Promise<GatewayStatus>
  providers: () => Promise<ProviderView[]>
  /** DESIGN section 9's shape. @throws HoldfastError `NO_SUCH_BUCKET`, `NO_SUCH_KEY` */
  objectHealth: (bucket: string, key: string) => Promise<object>
  /** @param isEager what `repair` would do: also what waits for more to be lost */
  repairs: (limit: number, isEager: boolean) => Promise<RepairListing>
  /** Repairs what there is to repair, for as long as one call may take. @throws HoldfastError `OVERLOADED` (ask later) */
  repair: (signal: AbortSignal) => Promise<RepairRound>
  /**
   * Repairs a content of somebody else's, from unit `from` on, for as long as one call may take.
   *
   * @throws HoldfastError `BAD_INPUT` (it is this gateway's own, or no content), `UNREADABLE` (its manifest is nowhere to be
   * had), `OVERLOADED` (ask later)
   */
  repairContent: (root: string, from: number, signal: AbortSignal) => Promise<HelpView>
  /**
   * Takes over what somebody else has repaired, as far as it can be proved.
   *
   * @throws HoldfastError `BAD_INPUT` for what is no signed report, `OVERLOADED` (ask later)
   */
  acceptReport: (report: Uint8Array, signal: AbortSignal) => Promise<AcceptanceView>
  /** Newest first. */
  audits: (limit: number) => Promise<Listing<AuditView>>
  /**
   * Puts challenges now, and answers when all have ended.
   *
   * @throws HoldfastError `NO_SUCH_BUCKET`, `NO_SUCH_KEY`, `MISSING` (no such provider), `OVERLOADED` (ask later)
   */
  audit: (target: AuditTarget, signal: AbortSignal) => Promise<AuditRound>
  /** All transcripts kept, as the file that `holdfast audit --verify` takes. */
  exportAudits: () => AsyncIterable<Uint8Array>
  /** Newest event first. @throws HoldfastError `MISSING` for a provider that is not known */
  score: (peerId: string) => Promise<{ score: ScoreView | null; events: ScoreEvent[] }>
  listKeys: () => Promise<KeyView[]>
  createKey: (account: string | undefined) => Promise<NewKey>
  /** @throws HoldfastError `NO_SUCH_KEY` */
  revokeKey: (accessKeyId: string) => Promise<void>
}
