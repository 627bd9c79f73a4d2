/** Records for the index, where every field has a default: a test names only what matters to it. */
import { CID, cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import type {
  AccessKeyRecord,
  BucketRecord,
  KnownProviderRecord,
  ObjectRecord,
  PartRecord,
  SegmentRecord,
  ShardRecord,
  UploadRecord
} from '../../src/metadata/records.ts'

const encoder = new TextEncoder()

/** As it comes back from a store: so that records compare equal as a whole. */
const decoded = (cid: CID): CID => CID.decode(Uint8Array.from(cid.bytes))

/** The CID of the shard whose bytes are this text. */
export const testCid = (text: string): CID => decoded(cidOfShard(encoder.encode(text)))

/** `p0`, `p1`, …: one a shard, unless told otherwise. */
export const testPeers = (count: number): string[] => Array.from({ length: count }, (_, index) => `p${index}`)

let made = 0
/** A name that nothing else in this process has. */
const unique = (what: string): string => `${what}-${++made}`

export function aBucket(over: Partial<BucketRecord> = {}): BucketRecord {
  return { name: 'b', owner: 'alice', createdAt: 1000, isPublic: false, wrappedKey: Uint8Array.of(1, 2, 3), ...over }
}

export function anObject(over: Partial<ObjectRecord> = {}): ObjectRecord {
  return {
    bucket: 'b',
    key: 'key',
    size: 0,
    etag: 'd41d8cd98f00b204e9800998ecf8427e',
    modifiedAt: 2000,
    root: decoded(cidOfNode(codecs.dagCbor, encoder.encode('manifest'))),
    wrappedKey: Uint8Array.of(4, 5, 6),
    headers: {},
    userMetadata: {},
    checksums: {},
    storageClass: 'STANDARD',
    ...over
  }
}

export function aShard(over: Partial<ShardRecord> = {}): ShardRecord {
  const at = { provider: 'p0', state: 'healthy', leaseUntil: 10_000, lastProof: 100 } as const
  return { cid: testCid(unique('shard')), ...at, ...over }
}

/** A shard that waits to be placed. */
export function anUnplacedShard(over: Partial<ShardRecord> = {}): ShardRecord {
  return { cid: testCid(unique('shard')), state: 'unknown', leaseUntil: 0, ...over }
}

interface SegmentShape {
  length?: number
  k?: number
  m?: number
  nonce?: Uint8Array
  /** Who holds the shards, in their order; `undefined` for one that is not placed. */
  providers?: ReadonlyArray<string | undefined>
  shards?: ShardRecord[]
}

const shardAt = (provider: string | undefined, cid: CID): ShardRecord =>
  provider === undefined ? anUnplacedShard({ cid }) : aShard({ cid, provider })

/** 100 bytes, coded 2+1, on p0, p1 and p2. */
export function aSegment({ length = 100, k = 2, m = 1, nonce, providers, shards }: SegmentShape = {}): SegmentRecord {
  const at = providers ?? testPeers(k + m)
  return {
    length,
    k,
    m,
    nonce: nonce ?? new Uint8Array(8),
    shards: shards ?? at.map((provider) => shardAt(provider, testCid(unique('shard'))))
  }
}

/** A block of 30 bytes as two copies, on p0 and p1. */
export function aBlock({ length = 30, providers = testPeers(2) }: SegmentShape = {}): SegmentRecord {
  const cid = testCid(unique('block'))
  return {
    length,
    k: 1,
    m: providers.length - 1,
    nonce: new Uint8Array(),
    shards: providers.map((provider) => shardAt(provider, cid))
  }
}

export function anUpload(over: Partial<UploadRecord> = {}): UploadRecord {
  return {
    bucket: 'b',
    key: 'key',
    uploadId: 'upload-1',
    owner: 'alice',
    initiatedAt: 3000,
    wrappedKey: Uint8Array.of(7, 8, 9),
    headers: {},
    userMetadata: {},
    storageClass: 'STANDARD',
    ...over
  }
}

export function aPart(over: Partial<PartRecord> = {}): PartRecord {
  return { partNumber: 1, size: 100, etag: 'e1', modifiedAt: 4000, checksums: {}, ...over }
}

export function anAccessKey(over: Partial<AccessKeyRecord> = {}): AccessKeyRecord {
  const account = { owner: 'alice', displayName: 'Alice' }
  return { accessKeyId: 'AK1', sealedSecret: Uint8Array.of(1, 1, 2, 3), ...account, createdAt: 5000, ...over }
}

export function aKnownProvider(over: Partial<KnownProviderRecord> = {}): KnownProviderRecord {
  return {
    peerId: 'p0',
    dataUrls: ['https://127.0.0.1:4002'],
    addresses: ['/ip4/127.0.0.1/tcp/4001'],
    domain: 'home',
    lastSeenAt: 6000,
    ...over
  }
}
