/** An `ObjectStore` in memory, as strict as the real one about what its interface promises. For tests of its users. */
import { createHash } from 'node:crypto'
import type { CID } from 'multiformats/cid'
import type { Clock } from '../../src/base/clock.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { KiB, limits } from '../../src/base/limits.ts'
import type { Random } from '../../src/base/random.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import type { Page, WriteCondition } from '../../src/metadata/index-store.ts'
import type { BucketRecord, ObjectRecord, PartRecord, UploadRecord } from '../../src/metadata/records.ts'
import type {
  Account,
  CompleteUploadRequest,
  CopyRequest,
  CreateUploadRequest,
  ListRequest,
  ListResult,
  ObjectHealth,
  ObjectStore,
  OpenObject,
  PutPartRequest,
  PutRequest,
  UploadBody
} from '../../src/object/object-store.ts'

interface StoredObject {
  record: ObjectRecord
  bytes: Buffer
}

interface StoredUpload {
  record: UploadRecord
  parts: Map<number, { record: PartRecord; bytes: Buffer }>
}

interface Bucket {
  record: BucketRecord
  objects: Map<string, StoredObject>
  uploads: Map<string, StoredUpload>
}

const byUtf8 = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

export interface MemoryObjectStoreOptions {
  clock?: Clock
  random?: Random
  /** Size of the chunks that reads yield. */
  chunkBytes?: number
  /** Smallest part but the last. */
  partBytesMin?: number
}

export class MemoryObjectStore implements ObjectStore {
  readonly #clock: Clock
  readonly #random: Random
  readonly #chunkBytes: number
  readonly #partBytesMin: number
  readonly #buckets = new Map<string, Bucket>()
  readonly blocks = new Map<string, Uint8Array>()
  /** Makes the next reads fail: before their first byte, or after so many. */
  failReadsAfter: { bytes: number; error: Error } | undefined
  /** Runs before any byte of an upload is asked for. */
  beforeUpload: () => Promise<void> = async () => {}
  /** Objects that were opened and not closed again. */
  openCount = 0
  /** Reads that were ended before their last byte. */
  unfinishedReads = 0

  constructor(options: MemoryObjectStoreOptions = {}) {
    this.#clock = options.clock ?? systemClock
    this.#random = options.random ?? systemRandom
    this.#chunkBytes = options.chunkBytes ?? 64 * KiB
    this.#partBytesMin = options.partBytesMin ?? limits.partBytesMin
  }

  #bucket(name: string): Bucket {
    const bucket = this.#buckets.get(name)
    if (bucket === undefined) throw new HoldfastError('NO_SUCH_BUCKET', `no bucket ${name}`)
    return bucket
  }

  #object(bucket: string, key: string): StoredObject {
    const object = this.#bucket(bucket).objects.get(key)
    if (object === undefined) throw new HoldfastError('NO_SUCH_KEY', `no object ${key}`)
    return object
  }

  #upload(bucket: string, key: string, uploadId: string): StoredUpload {
    const upload = this.#bucket(bucket).uploads.get(uploadId)
    if (upload?.record.key !== key) throw new HoldfastError('NO_SUCH_UPLOAD', `no upload ${uploadId}`)
    return upload
  }

  #checkCondition(existing: StoredObject | undefined, condition: WriteCondition | undefined): void {
    const { ifMatch, ifNoneMatch } = condition ?? {}
    if (ifMatch !== undefined) {
      if (existing === undefined) throw new HoldfastError('NO_SUCH_KEY', 'nothing to match')
      if (ifMatch !== '*' && ifMatch !== existing.record.etag)
        throw new HoldfastError('PRECONDITION_FAILED', 'the object changed')
    }
    if (
      ifNoneMatch !== undefined &&
      existing !== undefined &&
      (ifNoneMatch === '*' || ifNoneMatch === existing.record.etag)
    ) {
      throw new HoldfastError('PRECONDITION_FAILED', 'the object is there already')
    }
  }

  async #receive(body: UploadBody, signal: AbortSignal | undefined): Promise<{ bytes: Buffer; etag: string }> {
    await this.beforeUpload()
    const parts: Uint8Array[] = []
    for await (const chunk of body.bytes) {
      signal?.throwIfAborted()
      parts.push(chunk)
    }
    const bytes = Buffer.concat(parts)
    if (body.size !== undefined && body.size !== bytes.length)
      throw new HoldfastError('INCOMPLETE_BODY', 'the size is wrong')
    const md5 = createHash('md5').update(bytes).digest()
    if (body.expectedMd5 !== undefined && !md5.equals(body.expectedMd5))
      throw new HoldfastError('BAD_DIGEST', 'the MD5 is wrong')
    return { bytes, etag: md5.toString('hex') }
  }

  async createBucket(name: string, account: Account, options: { isPublic?: boolean } = {}): Promise<void> {
    const existing = this.#buckets.get(name)
    if (existing !== undefined) {
      const code = existing.record.owner === account.owner ? 'BUCKET_OWNED_BY_YOU' : 'BUCKET_EXISTS'
      throw new HoldfastError(code, `bucket ${name} exists`)
    }
    const record: BucketRecord = {
      name,
      owner: account.owner,
      createdAt: this.#clock.now(),
      isPublic: options.isPublic ?? false,
      wrappedKey: new Uint8Array(0)
    }
    this.#buckets.set(name, { record, objects: new Map(), uploads: new Map() })
  }

  async getBucket(name: string): Promise<BucketRecord | undefined> {
    return this.#buckets.get(name)?.record
  }

  async deleteBucket(name: string): Promise<void> {
    const bucket = this.#bucket(name)
    if (bucket.objects.size + bucket.uploads.size > 0)
      throw new HoldfastError('BUCKET_NOT_EMPTY', `bucket ${name} is not empty`)
    this.#buckets.delete(name)
  }

  async listBuckets(
    owner: string,
    options: { prefix: string; after: string; limit: number }
  ): Promise<Page<BucketRecord>> {
    const records = [...this.#buckets.values()]
      .map((bucket) => bucket.record)
      .filter(
        (record) =>
          record.owner === owner && record.name.startsWith(options.prefix) && byUtf8(record.name, options.after) > 0
      )
      .sort((a, b) => byUtf8(a.name, b.name))
    return { items: records.slice(0, options.limit), isTruncated: records.length > options.limit }
  }

  async putObject(request: PutRequest): Promise<ObjectRecord> {
    const { bucket, key, body, condition, headers, userMetadata, storageClass } = request
    this.#checkCondition(this.#bucket(bucket).objects.get(key), condition)
    const { bytes, etag } = await this.#receive(body, request.signal)
    const checksums = body.checksums?.() ?? {}
    return this.#commit(condition, bytes, {
      bucket,
      key,
      etag,
      headers,
      userMetadata,
      storageClass,
      checksums,
      ...(Object.keys(checksums).length > 0 && { checksumType: 'FULL_OBJECT' as const })
    })
  }

  #commit(
    condition: WriteCondition | undefined,
    bytes: Buffer,
    fields: Omit<ObjectRecord, 'size' | 'modifiedAt' | 'root' | 'wrappedKey'>
  ): ObjectRecord {
    const { objects } = this.#bucket(fields.bucket)
    this.#checkCondition(objects.get(fields.key), condition)
    const record: ObjectRecord = {
      ...fields,
      size: bytes.length,
      modifiedAt: this.#clock.now(),
      root: cidOfShard(bytes),
      wrappedKey: new Uint8Array(0)
    }
    objects.set(fields.key, { record, bytes })
    return record
  }

  async openObject(bucket: string, key: string): Promise<OpenObject> {
    const { record, bytes } = this.#object(bucket, key)
    this.openCount++
    let isOpen = true
    return {
      record,
      read: (start, end, signal) => this.#read(bytes.subarray(start, end), signal),
      close: () => {
        if (isOpen) this.openCount--
        isOpen = false
      }
    }
  }

  async *#read(bytes: Buffer, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    let offset = 0
    try {
      for (; offset < bytes.length; offset += this.#chunkBytes) {
        signal?.throwIfAborted()
        const failure = this.failReadsAfter
        if (failure !== undefined && offset >= failure.bytes) throw failure.error
        yield bytes.subarray(offset, offset + this.#chunkBytes)
      }
    } finally {
      if (offset < bytes.length) this.unfinishedReads++
    }
  }

  async headObject(bucket: string, key: string): Promise<ObjectRecord> {
    return this.#object(bucket, key).record
  }

  async deleteObject(bucket: string, key: string, condition?: WriteCondition): Promise<void> {
    const { objects } = this.#bucket(bucket)
    const existing = objects.get(key)
    if (condition?.ifMatch !== undefined && existing !== undefined) this.#checkCondition(existing, condition)
    objects.delete(key)
  }

  async copyObject(request: CopyRequest): Promise<ObjectRecord> {
    const { record, bytes } = this.#object(request.source.bucket, request.source.key)
    if (record.etag !== request.sourceEtag) throw new HoldfastError('PRECONDITION_FAILED', 'the source changed')
    const { size: _size, modifiedAt: _at, root: _root, wrappedKey: _key, ...kept } = record
    return this.#commit(request.condition, bytes, {
      ...kept,
      bucket: request.bucket,
      key: request.key,
      headers: request.replace?.headers ?? record.headers,
      userMetadata: request.replace?.userMetadata ?? record.userMetadata,
      storageClass: request.storageClass ?? record.storageClass
    })
  }

  async listObjects(bucket: string, request: ListRequest): Promise<ListResult> {
    const { prefix, delimiter, after, limit } = request
    const result: ListResult = { objects: [], commonPrefixes: [], isTruncated: false }
    const groupOf = (key: string): string | undefined => {
      const end = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
      return end === -1 ? undefined : key.slice(0, end + delimiter.length)
    }
    let group = after.startsWith(prefix) && groupOf(after) === after ? after : undefined
    const keys = [...this.#bucket(bucket).objects.keys()]
      .filter((key) => key.startsWith(prefix) && byUtf8(key, after) > 0)
      .sort(byUtf8)
    for (const key of keys) {
      const own = groupOf(key)
      if (own !== undefined && own === group) continue
      if (result.objects.length + result.commonPrefixes.length === limit) {
        result.isTruncated = true
        break
      }
      if (own === undefined) result.objects.push(this.#object(bucket, key).record)
      else result.commonPrefixes.push(own)
      group = own
      result.nextAfter = own ?? key
    }
    return result
  }

  async createUpload(request: CreateUploadRequest): Promise<UploadRecord> {
    const uploadId = Buffer.from(this.#random.bytes(16)).toString('base64url')
    const record: UploadRecord = { ...request, uploadId, initiatedAt: this.#clock.now(), wrappedKey: new Uint8Array(0) }
    this.#bucket(request.bucket).uploads.set(uploadId, { record, parts: new Map() })
    return record
  }

  async getUpload(bucket: string, key: string, uploadId: string): Promise<UploadRecord> {
    return this.#upload(bucket, key, uploadId).record
  }

  async putPart(request: PutPartRequest): Promise<PartRecord> {
    const { bucket, key, uploadId, partNumber, body } = request
    this.#upload(bucket, key, uploadId)
    const { bytes, etag } = await this.#receive(body, request.signal)
    const record: PartRecord = {
      partNumber,
      size: bytes.length,
      etag,
      modifiedAt: this.#clock.now(),
      checksums: body.checksums?.() ?? {}
    }
    this.#upload(bucket, key, uploadId).parts.set(partNumber, { record, bytes })
    return record
  }

  async listParts(
    bucket: string,
    key: string,
    uploadId: string,
    options: { after: number; limit: number }
  ): Promise<Page<PartRecord>> {
    const parts = [...this.#upload(bucket, key, uploadId).parts.values()]
      .map((part) => part.record)
      .filter((part) => part.partNumber > options.after)
      .sort((a, b) => a.partNumber - b.partNumber)
    return { items: parts.slice(0, options.limit), isTruncated: parts.length > options.limit }
  }

  async completeUpload(request: CompleteUploadRequest): Promise<ObjectRecord> {
    const { bucket, key, uploadId, condition } = request
    const upload = this.#upload(bucket, key, uploadId)
    const named = request.parts.map(({ partNumber, etag }, index) => {
      const part = upload.parts.get(partNumber)
      if (part === undefined || part.record.etag !== etag)
        throw new HoldfastError('INVALID_PART', `no part ${partNumber}`)
      if ((request.parts[index - 1]?.partNumber ?? 0) >= partNumber)
        throw new HoldfastError('INVALID_PART_ORDER', 'not ascending')
      if (part.bytes.length < this.#partBytesMin && index < request.parts.length - 1) {
        throw new HoldfastError('PART_TOO_SMALL', `part ${partNumber} is too small`)
      }
      return part
    })
    const digests = createHash('md5')
    for (const part of named) digests.update(Buffer.from(part.record.etag, 'hex'))
    const { headers, userMetadata, storageClass } = upload.record
    const record = this.#commit(condition, Buffer.concat(named.map((part) => part.bytes)), {
      bucket,
      key,
      etag: `${digests.digest('hex')}-${named.length}`,
      headers,
      userMetadata,
      storageClass,
      checksums: request.checksums ?? {},
      ...(request.checksumType !== undefined && { checksumType: request.checksumType }),
      ...(request.partChecksums !== undefined && { partChecksums: request.partChecksums }),
      partSizes: named.map((part) => part.bytes.length)
    })
    this.#bucket(bucket).uploads.delete(uploadId)
    return record
  }

  async abortUpload(bucket: string, key: string, uploadId: string): Promise<void> {
    this.#upload(bucket, key, uploadId)
    this.#bucket(bucket).uploads.delete(uploadId)
  }

  async listUploads(
    bucket: string,
    options: { prefix: string; afterKey: string; afterUploadId: string; limit: number }
  ): Promise<Page<UploadRecord>> {
    const uploads = [...this.#bucket(bucket).uploads.values()]
      .map((upload) => upload.record)
      .filter((upload) => {
        const order = byUtf8(upload.key, options.afterKey) || byUtf8(upload.uploadId, options.afterUploadId)
        return upload.key.startsWith(options.prefix) && order > 0
      })
      .sort((a, b) => byUtf8(a.key, b.key) || byUtf8(a.uploadId, b.uploadId))
    return { items: uploads.slice(0, options.limit), isTruncated: uploads.length > options.limit }
  }

  async health(bucket: string, key: string): Promise<ObjectHealth> {
    const { record } = this.#object(bucket, key)
    return { cid: record.root.toString(), size: record.size, segments: [], blocks: [] }
  }

  async getBlock(cid: CID): Promise<Uint8Array> {
    const block = this.blocks.get(cid.toString())
    if (block === undefined) throw new HoldfastError('MISSING', `no block ${cid.toString()}`)
    return block
  }
}
