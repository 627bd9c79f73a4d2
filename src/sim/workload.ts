/** Clients of the gateway: they write, read, copy and delete, and know what they must be told. */
import { createHash } from 'node:crypto'
import { toHex } from '../base/bytes.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { minuteMs } from '../base/limits.ts'
import type { WriteCondition } from '../metadata/index-store.ts'
import type { ObjectRecord, StoredSegment } from '../metadata/records.ts'
import type { Account, UploadBody } from '../object/object-store.ts'
import type { NetworkObjectStore } from '../object/store.ts'
import type { Machine } from './machine.ts'
import type { Version } from './model.ts'
import type { SeededRandom } from './seeded-random.ts'
import type { World } from './world.ts'

export const account: Account = { owner: 'owner', displayName: 'owner' }
/** Two that are encrypted, so that copies between them are wrapped anew, and one that is public. */
export const buckets = [
  { name: 'red', isPublic: false },
  { name: 'blue', isPublic: false },
  { name: 'open', isPublic: true }
] as const

/** What became of a request: an answer, an error's code, or nothing at all because the gateway died. */
type Outcome<T> = { answer: T } | { code: string } | 'gone'

/** No request may take longer, whatever the network does. */
const requestMsMax = 15 * minuteMs
/** What a write may be told while the network is in trouble, besides what the client itself did wrong. */
const troubles: ReadonlySet<string> = new Set(['NOT_DURABLE', 'TOO_FEW_PROVIDERS', 'UNREADABLE'])

/** What held when a read began. */
interface Reading {
  version: Version
  segments: StoredSegment[]
  /** Machines that the gateway knew the address of. */
  known: ReadonlySet<string>
  since: number
}

interface Wrong {
  /** The code that must come of it. */
  code: string
  spoil: (body: UploadBody, bytes: Uint8Array) => UploadBody
}

const wrongs: readonly Wrong[] = [
  { code: 'BAD_DIGEST', spoil: (body) => ({ ...body, expectedMd5: new Uint8Array(16) }) },
  { code: 'INCOMPLETE_BODY', spoil: (body, bytes) => ({ ...body, size: bytes.length + 1 }) },
  {
    code: 'ABORTED',
    spoil: (body) => ({
      ...body,
      bytes: (async function* () {
        for await (const chunk of body.bytes) {
          yield chunk
          break
        }
        throw new HoldfastError('ABORTED', 'the client went away')
      })()
    })
  }
]

export class Workload {
  readonly #world: World
  readonly #random: SeededRandom
  readonly #keys: string[]
  /** Equal contents: what is not encrypted shares its shards. */
  readonly #common: Uint8Array[]
  #isStopped = false

  constructor(world: World, random: SeededRandom, keys: number) {
    this.#world = world
    this.#random = random
    this.#keys = Array.from({ length: keys }, (_, i) => `key-${i}`)
    this.#common = Array.from({ length: 3 }, () => random.bytes(this.#size()))
  }

  stop(): void {
    this.#isStopped = true
  }

  /** One client: a request, a pause, the next. Ends once stopped. */
  async client(pauseMs: number): Promise<void> {
    while (!this.#isStopped) {
      await this.#next()
      await this.#world.clock.sleep(this.#random.exponential(pauseMs))
    }
  }

  async #next(): Promise<void> {
    const roll = this.#random.next()
    if (roll < 0.4) await this.put()
    else if (roll < 0.72) await this.get()
    else if (roll < 0.79) await this.#copy()
    else if (roll < 0.85) await this.#multipart()
    else if (roll < 0.93) await this.#delete()
    else if (roll < 0.97) await this.#head()
    else await this.#block()
  }

  async put(target = this.#anyKey()): Promise<void> {
    const { bucket, key } = target
    const bytes =
      bucket === 'open' && this.#random.chance(0.7) ? this.#random.pick(this.#common) : this.#random.bytes(this.#size())
    const wrong = this.#random.chance(0.06) ? this.#random.pick(wrongs) : undefined
    const body = this.#body(bytes)
    const condition = this.#condition(bucket, key)
    const cancel = this.#random.chance(0.04) ? this.#cancelSoon() : undefined
    this.#world.model.expect(md5(bytes), bytes)
    const outcome = await this.#ask(`put ${bucket}/${key} ${bytes.length}`, (store) =>
      store.putObject({
        bucket,
        key,
        body: wrong?.spoil(body, bytes) ?? body,
        headers: {},
        userMetadata: {},
        storageClass: this.#random.chance(0.15) ? 'REDUCED_REDUNDANCY' : 'STANDARD',
        condition,
        signal: cancel
      })
    )
    const allowed = [...(wrong === undefined ? [] : [wrong.code]), ...(condition === undefined ? [] : conditionCodes)]
    if (this.#expect('put', outcome, allowed, cancel)) this.#acknowledged(outcome.answer, md5(bytes))
  }

  /** Reads all of an object or a range; every byte is compared. */
  async get(target = this.#anyKey()): Promise<void> {
    const { bucket, key } = target
    const { model, timeline } = this.#world
    const tick = model.tick
    let read: Reading | undefined
    const cancel = this.#random.chance(0.04) ? this.#cancelSoon() : undefined
    const outcome = await this.#ask(`get ${bucket}/${key}`, async (store) => {
      const opened = await store.openObject(bucket, key)
      try {
        const version = this.#versionOf(opened.record, tick)
        if (version === undefined) return
        const known = new Set(
          [...this.#world.machines.values()].filter((machine) => this.#isKnown(machine)).map(({ peerId }) => peerId)
        )
        read = { version, segments: this.#segmentsOf(version), known, since: timeline.now }
        const [start, end] = this.#range(version.bytes.length)
        await this.#compare(version.bytes.subarray(start, end), opened.read(start, end, cancel), `${bucket}/${key}`)
      } finally {
        opened.close()
      }
    })
    if (isCode(outcome, 'NO_SUCH_KEY') && model.wasAbsentSince(bucket, key, tick)) {
      this.#world.count('get NO_SUCH_KEY')
      return
    }
    if (isCode(outcome, 'UNREADABLE') && read !== undefined) this.#mayBeUnreadable(read)
    this.#expect('get', outcome, [], cancel)
  }

  async #compare(expected: Uint8Array, chunks: AsyncIterable<Uint8Array>, what: string): Promise<void> {
    const isSlow = this.#random.chance(0.1)
    const readsMax = this.#random.chance(0.05) ? this.#random.int(3) : Number.POSITIVE_INFINITY
    let at = 0
    let reads = 0
    for await (const chunk of chunks) {
      if (Buffer.compare(expected.subarray(at, at + chunk.length), chunk) !== 0) {
        this.#world.invariants.report(
          2,
          `${what}: other bytes than were written came back, near ${at} of ${expected.length}`
        )
        return
      }
      at += chunk.length
      if (++reads > readsMax) return
      if (isSlow) await this.#world.clock.sleep(this.#random.int(3000))
    }
    if (at !== expected.length) this.#world.invariants.report(2, `${what}: ${at} of ${expected.length} bytes came back`)
  }

  /** Invariant 3: with `k` shards at machines that were well all the time, a read has no excuse. */
  #mayBeUnreadable({ version, segments, known, since }: Reading): void {
    const { truth, machines, invariants } = this.#world
    const standing = segments.map((segment) => {
      const now = truth.segments.get(segment.id)
      return segment.shards.filter(({ provider, cid }, index) => {
        const machine = provider === undefined ? undefined : machines.get(provider)
        return (
          machine !== undefined &&
          known.has(machine.peerId) &&
          this.#isKnown(machine) &&
          now?.shards[index]?.provider === provider &&
          machine.readableSince <= since &&
          truth.isGood(provider, cid)
        )
      }).length
    })
    if (segments.every(({ k }, at) => standing[at]! >= k)) {
      invariants.report(
        3,
        `an object (${version.root}) was unreadable, though ${standing.join(', ')} shards of its segments could be had all the time`
      )
    }
  }

  /** Whether the gateway knows where to reach it: a provider that moved is found again in time, not at once. */
  #isKnown(machine: Machine): boolean {
    return this.#world.gateway?.directory.target(machine.peerId)?.dataUrls.includes(machine.dataUrl) === true
  }

  #segmentsOf(version: Version): StoredSegment[] {
    const { truth } = this.#world
    const ids = truth.contents.get(version.contentId)?.segmentIds ?? []
    return ids.flatMap((id) => truth.segments.get(id) ?? [])
  }

  #range(size: number): [number, number] {
    if (size === 0 || this.#random.chance(0.5)) return [0, size]
    const start = this.#random.int(size)
    return [start, start + 1 + this.#random.int(size - start)]
  }

  /** Invariant 4, and that nothing is served which was not there: the record is of a version that was current meanwhile. */
  #versionOf(record: ObjectRecord, tick: number): Version | undefined {
    const version = this.#world.model.seenSince(record.bucket, record.key, tick, record.root.toString())
    if (version === undefined || version.etag !== record.etag || version.bytes.length !== record.size) {
      this.#world.invariants.report(
        4,
        `${record.bucket}/${record.key}: ETag ${record.etag}, root ${record.root} was not current`
      )
      return undefined
    }
    return version
  }

  async #head(): Promise<void> {
    const { bucket, key } = this.#anyKey()
    const tick = this.#world.model.tick
    const outcome = await this.#ask(`head ${bucket}/${key}`, (store) => store.headObject(bucket, key))
    const isAbsent = this.#world.model.wasAbsentSince(bucket, key, tick)
    if (this.#expect('head', outcome, isAbsent ? ['NO_SUCH_KEY'] : [])) this.#versionOf(outcome.answer, tick)
  }

  /** The manifest, as a foreign client fetches it. */
  async #block(): Promise<void> {
    const { bucket, key } = this.#anyKey()
    const version = this.#world.model.current(bucket, key)
    if (version === undefined) return
    const outcome = await this.#ask(`block ${bucket}/${key}`, async (store) => {
      const { root } = await store.headObject(bucket, key)
      return await store.getBlock(root)
    })
    this.#expect('block', outcome, ['NO_SUCH_KEY', 'MISSING'])
  }

  async #delete(): Promise<void> {
    const { bucket, key } = this.#anyKey()
    const outcome = await this.#ask(`delete ${bucket}/${key}`, (store) => store.deleteObject(bucket, key))
    this.#expect('delete', outcome, [])
  }

  async #copy(): Promise<void> {
    const [source, to] = [this.#anyKey(), this.#anyKey()]
    const { model } = this.#world
    const version = model.current(source.bucket, source.key)
    if (version === undefined) return
    // A copy that is coded anew has the ETag of its bytes.
    model.expect(md5(version.bytes), version.bytes)
    const storageClass = this.#random.chance(0.2) ? this.#random.pick(['STANDARD', 'REDUCED_REDUNDANCY']) : undefined
    const outcome = await this.#ask(`copy ${source.bucket}/${source.key} to ${to.bucket}/${to.key}`, (store) =>
      store.copyObject({ source, sourceEtag: version.etag, bucket: to.bucket, key: to.key, storageClass })
    )
    const codes = ['NO_SUCH_KEY', 'PRECONDITION_FAILED']
    if (this.#expect('copy', outcome, codes)) this.#acknowledged(outcome.answer, outcome.answer.etag)
  }

  /** Only one part: all but the last would have to be of 5 MiB. The others that were uploaded must go. */
  async #multipart(): Promise<void> {
    const { bucket, key } = this.#anyKey()
    const created = await this.#ask(`create upload ${bucket}/${key}`, (store) =>
      store.createUpload({ bucket, key, owner: account.owner, headers: {}, userMetadata: {}, storageClass: 'STANDARD' })
    )
    if (!this.#expect('create upload', created, [])) return
    const { uploadId } = created.answer
    const parts = new Map<number, { etag: string; bytes: Uint8Array }>()
    for (let left = 1 + this.#random.int(3); left > 0; left--) {
      const bytes = this.#random.bytes(this.#size())
      const partNumber = 1 + this.#random.int(3)
      const outcome = await this.#ask(`put part ${partNumber} of ${bucket}/${key}`, (store) =>
        store.putPart({ bucket, key, uploadId, partNumber, body: this.#body(bytes) })
      )
      // After a lost answer nobody knows which of two parts it is.
      if (this.#expect('put part', outcome, [])) parts.set(partNumber, { etag: outcome.answer.etag, bytes })
      else parts.delete(partNumber)
    }
    const chosen = [...parts][this.#random.int(parts.size)]
    if (chosen === undefined || this.#random.chance(0.15)) {
      const aborted = await this.#ask(`abort upload ${bucket}/${key}`, (store) =>
        store.abortUpload(bucket, key, uploadId)
      )
      this.#expect('abort upload', aborted, [])
      return
    }
    const [partNumber, { etag, bytes }] = chosen
    const whole = `${createHash('md5').update(Buffer.from(etag, 'hex')).digest('hex')}-1`
    this.#world.model.expect(whole, bytes)
    const outcome = await this.#ask(`complete upload ${bucket}/${key}`, (store) =>
      store.completeUpload({ bucket, key, uploadId, parts: [{ partNumber, etag }] })
    )
    if (this.#expect('complete upload', outcome, [])) this.#acknowledged(outcome.answer, whole)
  }

  // How requests are made and answers judged

  /** What was acknowledged is what the index committed, at that moment or before something else took its place. */
  #acknowledged(record: ObjectRecord, etag: string): void {
    const { model, invariants, count } = this.#world
    count('acknowledged')
    const root = record.root.toString()
    const version = model.seenSince(record.bucket, record.key, 0, root)
    if (version === undefined || record.etag !== etag) {
      invariants.report(
        1,
        `${record.bucket}/${record.key}: acknowledged with ETag ${record.etag}, but that was not committed`
      )
    }
  }

  async #ask<T>(label: string, work: (store: NetworkObjectStore) => Promise<T>): Promise<Outcome<T>> {
    const { gateway, trace, clock, invariants } = this.#world
    if (gateway === undefined) {
      await clock.sleep(200)
      return 'gone'
    }
    trace.note(`client: ${label}`)
    const answered = new AbortController()
    const late = clock.sleep(requestMsMax, answered.signal).then(
      () => invariants.report(0, `${label}: no end after ${requestMsMax / minuteMs} minutes`),
      () => {} // it ended
    )
    const working = work(gateway.store).then(
      (answer): Outcome<T> => ({ answer }),
      (error: unknown): Outcome<T> => this.#failed(label, error)
    )
    const outcome = await Promise.race([
      working,
      gateway.process.died.then((): Outcome<T> => 'gone'),
      late.then((): Outcome<T> => 'gone')
    ])
    answered.abort()
    trace.note(`client: ${label}: ${outcome === 'gone' ? 'gone' : 'code' in outcome ? outcome.code : 'ok'}`)
    return outcome
  }

  #failed(label: string, error: unknown): { code: string } {
    if (error instanceof Cancelled) return { code: 'cancelled' }
    if (error instanceof HoldfastError && error.code !== 'INTERNAL') return { code: error.code }
    const stack = error instanceof Error ? error.stack : undefined
    this.#world.invariants.report(0, `${label}: ${messageOf(error)}\n${stack ?? ''}`)
    return { code: 'INTERNAL' }
  }

  /** Whether it was answered; an answer of a kind that may not be is a violation. */
  #expect<T>(
    kind: string,
    outcome: Outcome<T>,
    allowed: readonly string[],
    cancel?: AbortSignal
  ): outcome is { answer: T } {
    const { count, invariants, isCalm } = this.#world
    if (outcome === 'gone') {
      count(`${kind} gone`)
      return false
    }
    if (!('code' in outcome)) {
      count(`${kind} ok`)
      return true
    }
    const { code } = outcome
    count(`${kind} ${code}`)
    const isExpected =
      allowed.includes(code) || (code === 'cancelled' && cancel !== undefined) || (troubles.has(code) && !isCalm)
    if (!isExpected) invariants.report(0, `${kind} gave ${code}${isCalm ? ', with all providers well' : ''}`)
    return false
  }

  #condition(bucket: string, key: string): WriteCondition | undefined {
    if (!this.#random.chance(0.15)) return undefined
    const etag = this.#world.model.current(bucket, key)?.etag
    return this.#random.pick<WriteCondition>([{ ifNoneMatch: '*' }, { ifMatch: etag ?? 'none' }, { ifMatch: '*' }])
  }

  #cancelSoon(): AbortSignal {
    const controller = new AbortController()
    void this.#world.clock
      .sleep(this.#random.exponential(500))
      .then(() => controller.abort(new Cancelled('the client went away')))
    return controller.signal
  }

  #body(bytes: Uint8Array): UploadBody {
    const { clock } = this.#world
    const chunkMax = this.#random.pick([7, 64, 1000, 100_000])
    const pauseMs = this.#random.chance(0.2) ? 100 : 0
    const random = this.#random
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; ) {
        const taken = 1 + random.int(Math.max(chunkMax, Math.ceil(bytes.length / 20)))
        if (pauseMs > 0) await clock.sleep(random.exponential(pauseMs))
        yield bytes.subarray(at, at + taken)
        at += taken
      }
    }
    return { bytes: chunks(), size: random.chance(0.7) ? bytes.length : undefined }
  }

  #anyKey(): { bucket: string; key: string } {
    return { bucket: this.#random.pick(buckets).name, key: this.#random.pick(this.#keys) }
  }

  /** Around every boundary there is: cipher blocks, shards, segments. */
  #size(): number {
    const segment = this.#world.segmentBytes
    const edge = this.#random.pick([0, 1, 16, this.#world.shardBytesMax, segment, segment, 2 * segment])
    const roll = this.#random.next()
    if (roll < 0.4) return Math.max(0, edge + this.#random.int(3) - 1)
    if (roll < 0.85) return this.#random.int(segment)
    return this.#random.int(3 * segment)
  }
}

class Cancelled extends Error {}

const conditionCodes = ['PRECONDITION_FAILED', 'NO_SUCH_KEY']

const isCode = <T>(outcome: Outcome<T>, code: string): boolean =>
  outcome !== 'gone' && 'code' in outcome && outcome.code === code

export function md5(bytes: Uint8Array): string {
  return toHex(createHash('md5').update(bytes).digest())
}
