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
  /** What this gateway has placed there. */
  shards: number
  shardBytes: number
  /** Moving average of answered requests. */
  latencyMs: number | null
  lastSeenAt: string | null
  /** Requests by what became of them: `ok`, `offline`, `timeout`, `missing`, `wrong`, `refused`, `full`, `unknown`. */
  outcomes: Record<string, number>
  dataUrls: readonly string[]
  addresses: readonly string[]
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
  /** Code that a new object of each storage class gets now, `null` where there are too few providers. */
  codes: Record<string, string | null>
  /** Which implementation of each kernel this machine has got: `erasure`, `blake3`. */
  kernels: Record<string, string>
}

/** A segment waiting for shards to be placed. */
export interface RepairItem {
  segment: number
  code: string
  healthy: number
  margin: number
  /** Shards to place: never placed, or lost. */
  wanted: number
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
  repairs: (limit: number) => Promise<Listing<RepairItem>>
  audits: (limit: number) => Promise<Listing<object>>
  listKeys: () => Promise<KeyView[]>
  createKey: (account: string | undefined) => Promise<NewKey>
  /** @throws HoldfastError `NO_SUCH_KEY` */
  revokeKey: (accessKeyId: string) => Promise<void>
}
