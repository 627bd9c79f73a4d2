/**
 * Whole objects over a network of providers: what an S3 gateway needs, without HTTP. PUT codes and scatters, commits to
 * the index when every segment has its quorum, and lets the rest of the shards follow; GET gathers, checks and decodes.
 */
import { createHash } from 'node:crypto'
import { copied, equalBytes, toHex } from '../base/bytes.ts'
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { limits, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { type CID, matchesCid } from '../content/cid.ts'
import { type Block, encodeManifest, type ManifestSegment } from '../content/manifest.ts'
import { buildFile } from '../content/unixfs-file.ts'
import { type Code, formatCode } from '../erasure/erasure-coder.ts'
import type { MetadataIndex, ShardPlacement, WriteCondition } from '../metadata/index-store.ts'
import { listWithDelimiter } from '../metadata/listing.ts'
import type {
  BucketRecord,
  ObjectRecord,
  PartRecord,
  SegmentRecord,
  ShardRecord,
  ShardState,
  StoredObject,
  StoredSegment,
  UploadRecord
} from '../metadata/records.ts'
import { isStorageClass } from '../placement/place.ts'
import type { ShardToFetch } from '../transfer/gather.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { CustodyObserver, PeerOutcome, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { type PlacedShard, peerOutcomeOf } from '../transfer/scatter.ts'
import type { Arenas } from './coding-memory.ts'
import { FairBudget } from './fair-budget.ts'
import { keyBytes, seal, unseal } from './keys.ts'
import type {
  Account,
  CompleteUploadRequest,
  CopyRequest,
  CreateUploadRequest,
  ObjectHealth,
  ObjectStore,
  OpenObject,
  PutPartRequest,
  PutRequest,
  SegmentHealth,
  SegmentOutlook,
  UploadBody
} from './object-store.ts'
import { type SegmentCodec, storedShardBytes } from './segment-codec.ts'
import { readSegments, type SegmentRead } from './segment-reader.ts'
import { recordOf, SegmentWriter, type WrittenSegment } from './segment-writer.ts'
import { whyUnplaced } from './unplaced.ts'

export interface ObjectStoreComponents {
  index: MetadataIndex
  client: ProviderClient
  peers: Peers
  codec: SegmentCodec
  /** What the codec works in, best shared with it. */
  arenas: Arenas
  /** Shared with all that releases leases. */
  guard: LeaseGuard
  /** 32 bytes: wraps the buckets' keys. */
  masterKey: Uint8Array
  /** Reads count as audits of what they verified. */
  custody?: CustodyObserver
  /** What repair makes of a segment, for views of health. */
  outlook?: (segment: StoredSegment) => SegmentOutlook
  /** Told of each segment that was read for a client. */
  onRead?: (read: SegmentRead) => void
  /** Told of a block that a provider would not take. */
  onRefused?: (provider: string, cid: CID) => void
  /** Whether an audit of the shard waits for an answer. */
  isContained?: (provider: string, cid: CID) => boolean
  clock: Clock
  random: Random
  log: Log
  /** Resolves once the providers that are online are known: a write before that would get too weak a code. */
  networkKnown: (signal?: AbortSignal) => Promise<void>
}

export interface ObjectStoreInit {
  /** The code of STANDARD objects; absent: what the network bears. */
  fixedCode?: Code
  shardBytesMax?: number
  /** For the simulator's planted bug alone. */
  quorumSlack?: number
}

export function createObjectStore(components: ObjectStoreComponents, init: ObjectStoreInit = {}): NetworkObjectStore {
  return new NetworkObjectStore(components, init)
}

/** Proofs of custody that reads gave, not yet in the index; the oldest are dropped beyond this. */
const proofsMax = 10_000
/** Proofs written down at once: they share commits. */
const proofsAtOnce = 64
/** Segments whose health is looked at before others have their turn: some ten milliseconds. */
const healthAtOnce = 32
/** How long one provider may take over one block. */
const blockTimeoutMs = 10 * secondMs

export class NetworkObjectStore implements ObjectStore {
  readonly #components: ObjectStoreComponents
  readonly #init: ObjectStoreInit
  readonly #writeMemory: FairBudget
  readonly #readMemory: FairBudget
  readonly #log: Log
  readonly #proofs = new Map<string, { segmentId: number; index: number; provider: string; at: number }>()
  /** Work that goes on after an answer was given: placing the rest, releasing. */
  readonly #background = new Set<Promise<void>>()
  /** Segments whose shards are still on their way, by the CID of the last: how many. */
  readonly #settling = new Map<string, number>()

  constructor(components: ObjectStoreComponents, init: ObjectStoreInit) {
    this.#components = components
    this.#init = init
    this.#writeMemory = new FairBudget(components.clock, components.arenas.writes.capacity)
    this.#readMemory = new FairBudget(components.clock, components.arenas.reads.capacity)
    this.#log = components.log.child('object')
  }

  // Buckets

  async createBucket(name: string, account: Account, options: { isPublic?: boolean } = {}): Promise<void> {
    const { index, masterKey, random, clock } = this.#components
    const isPublic = options.isPublic === true
    const wrappedKey = isPublic ? new Uint8Array(0) : seal(masterKey, random.bytes(keyBytes), `bucket:${name}`, random)
    await index.createBucket({ name, owner: account.owner, createdAt: clock.now(), isPublic, wrappedKey })
  }

  getBucket(name: string): Promise<BucketRecord | undefined> {
    return this.#components.index.getBucket(name)
  }

  deleteBucket(name: string): Promise<void> {
    return this.#components.index.deleteBucket(name)
  }

  listBuckets: ObjectStore['listBuckets'] = (owner, options) => this.#components.index.listBuckets(owner, options)

  // Objects

  async putObject(request: PutRequest): Promise<ObjectRecord> {
    const bucket = await this.#bucket(request.bucket)
    const keys = this.#newObjectKey(bucket)
    const writer = await this.#writer(request.storageClass, keys?.key, request.signal)
    return this.#whole(writer, async () => {
      const { md5 } = await this.#write(writer, request.body)
      const { root, blocks } = this.#manifestOf(writer.size, writer.segments.map(manifestSegment), keys?.wrapped)
      await writer.writeBlocks(blocks)
      const record: ObjectRecord = {
        bucket: request.bucket,
        key: request.key,
        size: writer.size,
        etag: toHex(md5),
        modifiedAt: this.#components.clock.now(),
        root,
        wrappedKey: keys?.wrapped ?? new Uint8Array(0),
        headers: request.headers,
        userMetadata: request.userMetadata,
        checksums: request.body.checksums?.() ?? {},
        storageClass: request.storageClass
      }
      if (Object.keys(record.checksums).length > 0) record.checksumType = 'FULL_OBJECT'
      await this.#commit(writer, [...writer.segments, ...writer.blocks], request.signal, async () => {
        const content = { segments: writer.segments.map(recordOf), blocks: writer.blocks.map(recordOf) }
        const { segmentIds, blockIds } = await this.#components.index.commitObject(record, content, request.condition)
        return [...segmentIds, ...blockIds]
      })
      return record
    })
  }

  async headObject(bucket: string, key: string): Promise<ObjectRecord> {
    return this.#object(bucket, key)
  }

  async openObject(bucket: string, key: string): Promise<OpenObject> {
    const record = await this.#object(bucket, key)
    const { index } = this.#components
    let unpin: () => void
    try {
      unpin = index.pinContent(record.contentId)
    } catch (error) {
      if (!isCode(error, 'NO_SUCH_KEY')) throw error
      return this.openObject(bucket, key) // replaced between the look-up and the pin: the newer one, or none
    }
    try {
      const objectKey = await this.#objectKey(record)
      let holds = 1
      const letGo = (): void => {
        if (--holds === 0) unpin()
      }
      let closed = false
      const read = (start: number, end: number, signal?: AbortSignal): AsyncIterable<Uint8Array> => {
        const bytes = readSegments(
          {
            ...this.#components,
            log: this.#log,
            memory: this.#readMemory,
            slabs: this.#components.arenas.reads,
            observe: (...seen) => this.#observe(...seen),
            onRead: this.#components.onRead
          },
          (from, to) => index.getSegments(record.contentId, from, to),
          { start, end, key: objectKey, signal }
        )
        holds++
        return releasing(bytes, letGo)
      }
      return {
        record,
        read,
        close: () => {
          if (closed) return
          closed = true
          letGo()
        }
      }
    } catch (error) {
      unpin()
      throw error
    }
  }

  async deleteObject(bucket: string, key: string, condition?: WriteCondition): Promise<void> {
    await this.#bucket(bucket)
    await this.#components.index.deleteObject(bucket, key, condition)
  }

  async copyObject(request: CopyRequest): Promise<ObjectRecord> {
    const { index, clock } = this.#components
    const opened = await this.openObject(request.source.bucket, request.source.key)
    try {
      const source = opened.record as StoredObject
      if (source.etag !== request.sourceEtag)
        throw new HoldfastError('PRECONDITION_FAILED', 'the source changed while it was being copied')
      const [from, to] = [await this.#bucket(source.bucket), await this.#bucket(request.bucket)]
      const storageClass = request.storageClass ?? source.storageClass
      if (from.isPublic !== to.isPublic || storageClass !== source.storageClass)
        return await this.#copyBytes(request, opened, storageClass)
      const record: ObjectRecord = {
        ...source,
        bucket: request.bucket,
        key: request.key,
        modifiedAt: clock.now(),
        headers: request.replace?.headers ?? source.headers,
        userMetadata: request.replace?.userMetadata ?? source.userMetadata
      }
      if (from.name === to.name || source.wrappedKey.length === 0) {
        await index.commitCopy(record, source.contentId, undefined, request.condition)
        return record
      }
      return await this.#copyRewrapped(request, source, record, to)
    } finally {
      opened.close()
    }
  }

  /** The same shards under another bucket's key: only the manifest, which has the wrapped key in it, is new. */
  async #copyRewrapped(
    request: CopyRequest,
    source: StoredObject,
    record: ObjectRecord,
    to: BucketRecord
  ): Promise<ObjectRecord> {
    const { index, random } = this.#components
    const key = await this.#objectKey(source)
    if (key === undefined) throw new HoldfastError('INTERNAL', 'an object without a key cannot be wrapped anew')
    const wrappedKey = seal(this.#bucketKey(to), key, `object:${to.name}`, random)
    const segments = (await index.getSegments(source.contentId, 0, source.size)).map(({ segment }) => segment)
    const { root, blocks } = this.#manifestOf(source.size, segments.map(storedManifestSegment), wrappedKey)
    const writer = await this.#writer(record.storageClass, undefined, request.signal)
    return this.#whole(writer, async () => {
      await writer.writeBlocks(blocks)
      const copy = { ...record, root, wrappedKey }
      await this.#commit(writer, writer.blocks, request.signal, async () => {
        const { blockIds } = await index.commitCopy(
          copy,
          source.contentId,
          writer.blocks.map(recordOf),
          request.condition
        )
        return blockIds
      })
      return copy
    })
  }

  /** A copy that must be coded or encrypted otherwise: read and written anew. */
  #copyBytes(request: CopyRequest, opened: OpenObject, storageClass: string): Promise<ObjectRecord> {
    const { record } = opened
    return this.putObject({
      bucket: request.bucket,
      key: request.key,
      body: {
        bytes: copied(opened.read(0, record.size, request.signal)),
        size: record.size,
        // A checksum of parts does not hold for the copy, which has none.
        checksums: () => (record.checksumType === 'COMPOSITE' ? {} : record.checksums)
      },
      headers: request.replace?.headers ?? record.headers,
      userMetadata: request.replace?.userMetadata ?? record.userMetadata,
      storageClass,
      condition: request.condition,
      signal: request.signal
    })
  }

  async listObjects(
    bucket: string,
    request: Parameters<ObjectStore['listObjects']>[1]
  ): ReturnType<ObjectStore['listObjects']> {
    await this.#bucket(bucket)
    return listWithDelimiter(this.#components.index, bucket, request)
  }

  // Multipart uploads

  async createUpload(request: CreateUploadRequest): Promise<UploadRecord> {
    const bucket = await this.#bucket(request.bucket)
    const { index, random, clock } = this.#components
    const upload: UploadRecord = {
      ...request,
      uploadId: toHex(random.bytes(24)),
      initiatedAt: clock.now(),
      wrappedKey: this.#newObjectKey(bucket)?.wrapped ?? new Uint8Array(0)
    }
    await index.createUpload(upload)
    return upload
  }

  async getUpload(bucket: string, key: string, uploadId: string): Promise<UploadRecord> {
    await this.#bucket(bucket)
    const upload = await this.#components.index.getUpload(bucket, key, uploadId)
    if (upload === undefined)
      throw new HoldfastError(
        'NO_SUCH_UPLOAD',
        'there is no such multipart upload; it may have been completed or aborted'
      )
    return upload
  }

  async putPart(request: PutPartRequest): Promise<PartRecord> {
    const upload = await this.getUpload(request.bucket, request.key, request.uploadId)
    const key = await this.#objectKey(upload)
    const writer = await this.#writer(upload.storageClass, key, request.signal)
    return this.#whole(writer, async () => {
      const { md5 } = await this.#write(writer, request.body)
      const part: PartRecord = {
        partNumber: request.partNumber,
        size: writer.size,
        etag: toHex(md5),
        modifiedAt: this.#components.clock.now(),
        checksums: request.body.checksums?.() ?? {}
      }
      await this.#commit(writer, writer.segments, request.signal, () =>
        this.#components.index.commitPart(request.uploadId, part, writer.segments.map(recordOf))
      )
      return part
    })
  }

  listParts: ObjectStore['listParts'] = async (bucket, key, uploadId, options) => {
    await this.getUpload(bucket, key, uploadId)
    return this.#components.index.listParts(uploadId, options)
  }

  async completeUpload(request: CompleteUploadRequest): Promise<ObjectRecord> {
    const { index, clock } = this.#components
    const upload = await this.getUpload(request.bucket, request.key, request.uploadId)
    const parts = await this.#chosenParts(request)
    const size = parts.reduce((sum, part) => sum + part.size, 0)
    if (size > limits.objectBytesMax)
      throw new HoldfastError('OBJECT_TOO_LARGE', `an object holds at most ${limits.objectBytesMax} bytes`)
    const segments = await index.getPartSegments(
      request.uploadId,
      parts.map(({ partNumber }) => partNumber)
    )
    const wrapped = upload.wrappedKey.length > 0 ? upload.wrappedKey : undefined
    const { root, blocks } = this.#manifestOf(size, segments.map(storedManifestSegment), wrapped)
    const writer = await this.#writer(upload.storageClass, undefined, request.signal)
    const md5 = createHash('md5')
    for (const { etag } of parts) md5.update(Buffer.from(etag, 'hex'))
    return this.#whole(writer, async () => {
      await writer.writeBlocks(blocks)
      const record: ObjectRecord = {
        bucket: request.bucket,
        key: request.key,
        size,
        etag: `${md5.digest('hex')}-${parts.length}`,
        modifiedAt: clock.now(),
        root,
        wrappedKey: upload.wrappedKey,
        headers: upload.headers,
        userMetadata: upload.userMetadata,
        checksums: request.checksums ?? {},
        checksumType: request.checksumType,
        storageClass: upload.storageClass,
        partSizes: parts.map((part) => part.size),
        ...(request.partChecksums !== undefined && { partChecksums: request.partChecksums })
      }
      await this.#commit(writer, writer.blocks, request.signal, async () => {
        const blocks = writer.blocks.map(recordOf)
        const { blockIds } = await index.completeUpload(
          request.uploadId,
          request.parts,
          record,
          blocks,
          request.condition
        )
        return blockIds
      })
      return record
    })
  }

  /** The parts that the client named, as the index has them. */
  async #chosenParts(request: CompleteUploadRequest): Promise<PartRecord[]> {
    const held = new Map<number, PartRecord>()
    for (let after = 0, more = true; more; ) {
      const page = await this.#components.index.listParts(request.uploadId, { after, limit: 1000 })
      for (const part of page.items) held.set(part.partNumber, part)
      more = page.isTruncated
      after = page.items.at(-1)?.partNumber ?? after
    }
    if (request.parts.length === 0)
      throw new HoldfastError('INVALID_PART', 'an upload is completed with at least one part')
    if (request.parts.some(({ partNumber }, at) => at > 0 && partNumber <= request.parts[at - 1]!.partNumber)) {
      throw new HoldfastError('INVALID_PART_ORDER', 'parts are listed in ascending order of their numbers')
    }
    const chosen = request.parts.map(({ partNumber, etag }) => {
      const part = held.get(partNumber)
      if (part === undefined || part.etag !== etag) {
        throw new HoldfastError('INVALID_PART', `part ${partNumber} was not uploaded, or with another ETag`, {
          details: { partNumber }
        })
      }
      return part
    })
    for (const [at, { partNumber, size, etag }] of chosen.entries()) {
      if (at < chosen.length - 1 && size < limits.partBytesMin) {
        throw new HoldfastError(
          'PART_TOO_SMALL',
          `part ${partNumber} has ${size} bytes; all but the last have at least ${limits.partBytesMin}`,
          {
            details: { partNumber, size, etag }
          }
        )
      }
    }
    return chosen
  }

  async abortUpload(bucket: string, key: string, uploadId: string): Promise<void> {
    await this.getUpload(bucket, key, uploadId)
    await this.#components.index.abortUpload(bucket, key, uploadId)
  }

  listUploads: ObjectStore['listUploads'] = async (bucket, options) => {
    await this.#bucket(bucket)
    return this.#components.index.listUploads(bucket, options)
  }

  // Custody and blocks

  async health(bucket: string, key: string): Promise<ObjectHealth> {
    const record = await this.#object(bucket, key)
    const { index, clock } = this.#components
    const segments: SegmentHealth[] = []
    for (const { segment } of await index.getSegments(record.contentId, 0, record.size)) {
      segments.push(await this.#segmentHealth(segment))
      // The index answers at once: without this a terabyte's segments would hold up everybody else.
      if (segments.length % healthAtOnce === 0) await clock.sleep(0)
    }
    const blocks: SegmentHealth[] = []
    for (const block of await index.getBlocks(record.contentId)) blocks.push(await this.#segmentHealth(block))
    const outlooks = [...segments, ...blocks].flatMap(({ outlook }) => outlook ?? [])
    const survival = outlooks.reduce((product, { lossPerYear }) => product * (1 - lossPerYear), 1)
    // A sum where the product would round to one: of small probabilities it is the same.
    const sum = outlooks.reduce((total, { lossPerYear }) => total + lossPerYear, 0)
    const lossPerYear = sum < 1e-6 ? sum : 1 - survival
    return {
      cid: record.root.toString(),
      size: record.size,
      ...(outlooks.length === 0 ? {} : { lossPerYear }),
      segments,
      blocks
    }
  }

  async #segmentHealth(segment: StoredSegment): Promise<SegmentHealth> {
    const { outlook: judge, peers, random } = this.#components
    const judged = judge?.(segment)
    const refusers = await this.#refusersOf(segment.shards.map(({ cid }) => cid))
    const shards = segment.shards.map((shard, index) => {
      const proof = Math.max(
        shard.lastProof ?? 0,
        this.#proofs.get(proofKey(segment.id, index, shard.provider))?.at ?? 0
      )
      return {
        cid: shard.cid.toString(),
        provider: shard.provider ?? null,
        state: this.#stateNow(shard),
        lastProof: proof === 0 ? null : new Date(proof).toISOString(),
        ...(judged === undefined ? {} : { condition: judged.conditions[index]! }),
        domains: shard.provider === undefined ? [] : peers.domainsOf(shard.provider)
      }
    })
    const healthy = shards.filter(({ state }) => state === 'healthy').length
    const health = {
      code: formatCode(segment),
      healthy,
      margin: healthy - segment.k,
      refusers: refusers.size,
      unplaced: whyUnplaced(segment, peers, refusers, random.fork('health')),
      shards
    }
    if (judged === undefined) return health
    const { conditions: _conditions, ...outlook } = judged
    return { ...health, outlook }
  }

  /** What the index knows of the shard, and what is known of its provider right now. */
  #stateNow(shard: ShardRecord): ShardState {
    if (shard.state !== 'healthy' || shard.provider === undefined) return shard.state
    const { peers, isContained } = this.#components
    const state = peers.state(shard.provider)
    if (state === 'offline' || state === 'contained') return state
    return isContained?.(shard.provider, shard.cid) === true ? 'contained' : 'healthy'
  }

  async getBlock(cid: CID, signal?: AbortSignal): Promise<Uint8Array> {
    const { index, client, peers, clock } = this.#components
    const holders = await index.findHolders(cid)
    if (holders.length === 0) throw new HoldfastError('MISSING', `block ${cid} is not known here`)
    if (holders.some(({ provider }) => peers.target(provider) === undefined))
      await this.#components.networkKnown(signal)
    const order = { online: 0, unknown: 1, contained: 2, offline: 3 }
    holders.sort((a, b) => order[peers.state(a.provider)] - order[peers.state(b.provider)])
    for (const { provider } of holders) {
      const target = peers.target(provider)
      if (target === undefined) continue
      try {
        const startedAt = clock.now()
        const bytes = await withDeadline(clock, blockTimeoutMs, signal, (inner) => client.getShard(target, cid, inner))
        if (matchesCid(cid, bytes)) {
          peers.report(provider, 'ok', clock.now() - startedAt)
          await this.#components.custody?.(provider, cid, 'ok')
          return bytes
        }
        peers.report(provider, 'wrong')
        await this.#components.custody?.(provider, cid, 'wrong')
        await index.markHolding(provider, cid, 'wrong')
      } catch (error) {
        signal?.throwIfAborted()
        const outcome = peerOutcomeOf(error)
        peers.report(provider, outcome)
        this.#log.info('provider did not give a block', { provider, cid, outcome, error: messageOf(error) })
        await this.#components.custody?.(provider, cid, outcome)
        if (outcome === 'missing') await index.markHolding(provider, cid, 'missing')
      }
    }
    throw new HoldfastError(
      'UNREADABLE',
      `none of the ${holders.length} holders of block ${cid} answers with it now; try again later`
    )
  }

  // What maintenance needs

  /**
   * Whether shards of this segment are still on their way from its upload. Whoever placed others meanwhile could give two
   * to one provider.
   */
  isSettling(segment: SegmentRecord): boolean {
    return this.#settling.has(segment.shards.at(-1)!.cid.toString())
  }

  /** Writes to the index which shards reads have verified since the last call. */
  async flushProofs(): Promise<void> {
    const { index } = this.#components
    const proofs = [...this.#proofs.values()]
    this.#proofs.clear()
    await forEachLimit(proofs, proofsAtOnce, async ({ segmentId, index: at, provider, at: provenAt }) => {
      const shard = (await index.getSegment(segmentId))?.shards[at]
      // What was found out since then counts more than an older proof.
      if (shard?.provider !== provider || shard.state !== 'healthy') return
      await index.markShard({ segmentId, index: at }, provider, 'healthy', provenAt)
    })
  }

  /** Resolves when what went on after answers were given has ended. */
  async idle(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background)
  }

  // Inside

  async #bucket(name: string): Promise<BucketRecord> {
    const bucket = await this.#components.index.getBucket(name)
    if (bucket === undefined) throw new HoldfastError('NO_SUCH_BUCKET', `there is no bucket ${name}`)
    return bucket
  }

  async #object(bucket: string, key: string): Promise<StoredObject> {
    const object = await this.#components.index.getObject(bucket, key)
    if (object !== undefined) return object
    await this.#bucket(bucket)
    throw new HoldfastError('NO_SUCH_KEY', `there is no object ${key} in ${bucket}`)
  }

  #bucketKey(bucket: BucketRecord): Uint8Array {
    return unseal(this.#components.masterKey, bucket.wrappedKey, `bucket:${bucket.name}`)
  }

  /** A fresh key for an object of this bucket; `undefined` where objects are public. */
  #newObjectKey(bucket: BucketRecord): { key: Uint8Array; wrapped: Uint8Array } | undefined {
    if (bucket.isPublic) return undefined
    const { random } = this.#components
    const key = random.bytes(keyBytes)
    return { key, wrapped: seal(this.#bucketKey(bucket), key, `object:${bucket.name}`, random) }
  }

  async #objectKey({
    bucket,
    wrappedKey
  }: {
    bucket: string
    wrappedKey: Uint8Array
  }): Promise<Uint8Array | undefined> {
    if (wrappedKey.length === 0) return undefined
    return unseal(this.#bucketKey(await this.#bucket(bucket)), wrappedKey, `object:${bucket}`)
  }

  async #writer(storageClass: string, key: Uint8Array | undefined, signal?: AbortSignal): Promise<SegmentWriter> {
    if (!isStorageClass(storageClass)) throw new HoldfastError('BAD_INPUT', `no such storage class: ${storageClass}`)
    await this.#components.networkKnown(signal)
    const { fixedCode, shardBytesMax, quorumSlack } = this.#init
    return new SegmentWriter(
      {
        ...this.#components,
        log: this.#log,
        memory: this.#writeMemory,
        slabs: this.#components.arenas.writes,
        refusersOf: (cids) => this.#refusersOf(cids)
      },
      { storageClass, fixedCode, key, shardBytesMax, quorumSlack, signal }
    )
  }

  async #refusersOf(cids: readonly CID[]): Promise<Set<string>> {
    return new Set((await this.#components.index.listRefusals(cids)).map(({ provider }) => provider))
  }

  async #write(writer: SegmentWriter, body: UploadBody): Promise<{ md5: Uint8Array }> {
    const md5 = await writer.write(body.bytes, body.size)
    if (body.size !== undefined && writer.size !== body.size) {
      throw new HoldfastError('INCOMPLETE_BODY', `${body.size} bytes were announced and ${writer.size} came`)
    }
    if (body.expectedMd5 !== undefined && !equalBytes(md5, body.expectedMd5)) {
      throw new HoldfastError('BAD_DIGEST', 'the Content-MD5 given is not that of the bytes received')
    }
    return { md5 }
  }

  #manifestOf(
    size: number,
    segments: ManifestSegment[],
    wrappedKey: Uint8Array | undefined
  ): { root: CID; blocks: Block[] } {
    if (wrappedKey !== undefined) return encodeManifest({ size, wrappedKey, segments })
    const leaves = segments.flatMap(({ length, k, m, shards }) =>
      shards
        .slice(0, k)
        .map((cid, index) => ({ cid, bytes: storedShardBytes(length, { k, m }, index) }))
        .filter(({ bytes }) => bytes > 0)
    )
    const file = buildFile(leaves)
    const { root, blocks } = encodeManifest({ size, file: file?.root, segments })
    return { root, blocks: [...(file?.nodes ?? []), ...blocks] }
  }

  /**
   * Runs an upload to its commit. Whatever fails on the way, nothing is left behind but shards whose release is queued;
   * once committed, the shards still on their way are recorded as they arrive.
   */
  async #whole<T>(writer: SegmentWriter, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      this.#after(async () => {
        try {
          await this.#components.index.queueReleases(await writer.abandon())
        } finally {
          writer.letGo() // or nothing of it could ever be released again
        }
      })
      throw error
    }
  }

  /**
   * The commit itself: `commit` gives the ids of `written`, in order. Placements that arrive while it is under way are
   * kept aside, and recorded under those ids.
   */
  async #commit(
    writer: SegmentWriter,
    written: readonly WrittenSegment[],
    signal: AbortSignal | undefined,
    commit: () => Promise<readonly number[]>
  ): Promise<void> {
    signal?.throwIfAborted()
    const { index } = this.#components
    const late: Array<{ at: number; shard: number; placed: PlacedShard }> = []
    for (const [at, { scatter }] of written.entries()) {
      scatter.onPlaced = (shard, placed) => late.push({ at, shard, placed })
    }
    const settled = this.#settle(written)
    let ids: readonly number[]
    try {
      ids = await commit()
    } catch (error) {
      settled()
      throw error
    }
    writer.detach()
    this.#after(async () => {
      try {
        await Promise.all(written.map(({ scatter }) => scatter.settled))
        const placements = late.map(({ at, shard, placed }): ShardPlacement => {
          return { segmentId: ids[at]!, index: shard, cid: written[at]!.cids[shard]!, ...placed }
        })
        if (placements.length > 0) await index.placeShards(placements)
        await index.queueReleases(await writer.strays())
      } finally {
        writer.letGo()
        settled()
      }
    })
  }

  /** From just before they are in the index until their last shards are, these segments are this store's to complete. */
  #settle(written: readonly WrittenSegment[]): () => void {
    const keys = written.map(({ cids }) => cids.at(-1)!.toString())
    for (const key of keys) this.#settling.set(key, (this.#settling.get(key) ?? 0) + 1)
    return () => {
      for (const key of keys) {
        const left = (this.#settling.get(key) ?? 1) - 1
        if (left > 0) this.#settling.set(key, left)
        else this.#settling.delete(key)
      }
    }
  }

  #after(work: () => Promise<void>): void {
    const running = work()
      .catch((error: unknown) => this.#log.error('work after an answer failed', { error: messageOf(error) }))
      .finally(() => this.#background.delete(running))
    this.#background.add(running)
  }

  #observe(segmentId: number, shard: ShardToFetch, provider: string, outcome: PeerOutcome): void {
    const { index, clock, custody } = this.#components
    const seen = custody?.(provider, shard.cid, outcome)
    if (outcome === 'ok') {
      if (shard.state === 'healthy') {
        if (this.#proofs.size >= proofsMax) this.#proofs.delete(this.#proofs.keys().next().value!)
        this.#proofs.set(proofKey(segmentId, shard.index, provider), {
          segmentId,
          index: shard.index,
          provider,
          at: clock.now()
        })
        return
      }
      this.#after(() => index.markShard({ segmentId, index: shard.index }, provider, 'healthy', clock.now()))
      return
    }
    this.#proofs.delete(proofKey(segmentId, shard.index, provider))
    // Evidence of loss is kept; the rest is waiting, and the directory knows of it.
    if (outcome === 'missing' || outcome === 'wrong') {
      this.#after(async () => {
        await seen
        await index.markShard({ segmentId, index: shard.index }, provider, outcome)
      })
    }
    // A refusal counts once it has been shown: whoever hears of it above sees to that.
  }
}

/** How often reads' proofs of custody are written down. */
export const flushProofsEveryMs = minuteMs

function proofKey(segmentId: number, index: number, provider: string | undefined): string {
  return `${segmentId} ${index} ${provider ?? ''}`
}

function manifestSegment({ length, code, nonce, cids }: WrittenSegment): ManifestSegment {
  return { length, k: code.k, m: code.m, nonce, shards: cids }
}

function storedManifestSegment({ length, k, m, nonce, shards }: SegmentRecord): ManifestSegment {
  return { length, k, m, nonce, shards: shards.map(({ cid }) => cid) }
}

/** The same bytes; `letGo` runs once when the last was taken or the reader went away, even before the first. */
function releasing(bytes: AsyncIterable<Uint8Array>, letGo: () => void): AsyncIterable<Uint8Array> {
  let released = false
  const once = (): void => {
    if (released) return
    released = true
    letGo()
  }
  return {
    [Symbol.asyncIterator]() {
      const iterator = bytes[Symbol.asyncIterator]()
      return {
        next: async () => {
          try {
            const result = await iterator.next()
            if (result.done === true) once()
            return result
          } catch (error) {
            once()
            throw error
          }
        },
        return: async () => {
          once()
          await iterator.return?.()
          return { done: true, value: undefined }
        }
      }
    }
  }
}
