/**
 * The rule of the release queue against a model that knows only what is reachable: whatever was needed and is not any
 * more is queued exactly once, and nothing that is needed ever is.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import type { SegmentRecord, ShardRecord, ShardState } from '../../src/metadata/records.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { aBucket, anObject, anUpload, aPart, aSegment, testCid, testPeers } from '../support/records.ts'

// Few of each, so that they meet: the same CID at the same provider, in segments that know nothing of each other.
const cids = Array.from({ length: 5 }, (_, at) => testCid(`model-${at}`))
const providers = testPeers(4)
const keys = ['k0', 'k1', 'k2']
const uploadIds = ['u0', 'u1']
const segmentBytes = 10

interface ModelSegment {
  id: number
  shards: ShardRecord[]
}

interface ModelContent {
  id: number
  data: ModelSegment[]
  blocks: ModelSegment[]
}

interface Model {
  objects: Map<string, ModelContent>
  uploads: Map<string, Map<number, ModelSegment[]>>
  pins: Array<{ content: ModelContent; unpin: () => void }>
  queue: Set<string>
  /** Every segment there ever was, to place shards of segments that are gone. */
  segments: ModelSegment[]
}

const heldStates: readonly ShardState[] = ['healthy', 'offline', 'contained', 'unknown']
const lostStates: readonly ShardState[] = ['missing', 'wrong', 'withdrawn', 'unknown']
const rowOf = (provider: string, { cid }: Pick<ShardRecord, 'cid'>): string => `${provider} ${cid}`

function reachable({ objects, uploads, pins }: Model): Set<ModelSegment> {
  const contents = [...objects.values(), ...pins.map(({ content }) => content)]
  return new Set([
    ...contents.flatMap(({ data, blocks }) => [...data, ...blocks]),
    ...[...uploads.values()].flatMap((parts) => [...parts.values()].flat())
  ])
}

function needed(model: Model): Set<string> {
  const rows = new Set<string>()
  for (const { shards } of reachable(model)) {
    for (const shard of shards) if (shard.provider !== undefined) rows.add(rowOf(shard.provider, shard))
  }
  return rows
}

class World {
  readonly model: Model = { objects: new Map(), uploads: new Map(), pins: [], queue: new Set(), segments: [] }
  readonly index: MetadataIndex

  constructor(index: MetadataIndex) {
    this.index = index
  }

  added(records: readonly SegmentRecord[], ids: readonly number[]): ModelSegment[] {
    const segments = records.map(({ shards }, at) => ({ id: ids[at]!, shards: shards.map((shard) => ({ ...shard })) }))
    this.model.segments.push(...segments)
    return segments
  }

  /** Runs a step on both sides and moves the model's queue by what became reachable and what did not stay so. */
  async step(work: () => Promise<void>): Promise<void> {
    const before = needed(this.model)
    await work()
    const after = needed(this.model)
    for (const row of before) if (!after.has(row)) this.model.queue.add(row)
    for (const row of after) this.model.queue.delete(row)
  }

  async check(): Promise<void> {
    const queued: string[] = []
    for (const provider of await this.index.listReleaseProviders()) {
      for (const cid of await this.index.listReleases(provider, 1000)) queued.push(rowOf(provider, { cid }))
    }
    expect(queued.sort()).toEqual([...this.model.queue].sort())

    const segments = [...reachable(this.model)]
    const shards = segments.flatMap((segment) => segment.shards)
    const incomplete = segments.filter((segment) => segment.shards.some(({ state }) => lostStates.includes(state)))
    expect(await this.index.totals()).toMatchObject({
      objects: this.model.objects.size,
      segments: segments.length,
      shards: shards.length,
      incompleteSegments: incomplete.length
    })
    const listed = await this.index.listIncomplete({ afterId: 0, limit: 1000 })
    expect(listed.map(({ id }) => id)).toEqual(incomplete.map(({ id }) => id).sort((a, b) => a - b))
    for (const { provider, shards: count } of await this.index.listHolders()) {
      const held = shards.filter((shard) => shard.provider === provider && heldStates.includes(shard.state))
      expect([provider, count]).toEqual([provider, held.length])
    }
    for (const { id, shards: expected } of segments) {
      const stored = await this.index.getSegment(id)
      expect(stored?.shards.map(({ provider, state }) => ({ provider, state }))).toEqual(
        expected.map(({ provider, state }) => ({ provider, state }))
      )
    }
  }
}

type Step = (world: World) => Promise<void>

const index = (length: number) => fc.nat({ max: length - 1 })
const shard: fc.Arbitrary<ShardRecord> = fc.record({ cid: index(5), provider: fc.option(index(4)) }).map((picked) => {
  const cid = cids[picked.cid]!
  if (picked.provider === null) return { cid, state: 'unknown', leaseUntil: 0 }
  return { cid, provider: providers[picked.provider]!, state: 'healthy', leaseUntil: 1 }
})
const segment = fc.tuple(shard, shard, shard).map((shards) => aSegment({ length: segmentBytes, shards }))
const segments = fc.array(segment, { maxLength: 2 })
const sizeOf = (records: readonly unknown[]): number => records.length * segmentBytes
const key = index(keys.length).map((at) => keys[at]!)
const uploadId = index(uploadIds.length).map((at) => uploadIds[at]!)

const put = fc.tuple(key, segments, segments).map(
  ([name, data, blocks]): Step =>
    async (world) => {
      const object = anObject({ key: name, size: sizeOf(data) })
      const { contentId, segmentIds, blockIds } = await world.index.commitObject(object, { segments: data, blocks })
      const content = { id: contentId, data: world.added(data, segmentIds), blocks: world.added(blocks, blockIds) }
      world.model.objects.set(name, content)
    }
)

const copy = fc.tuple(key, key, fc.option(segments)).map(
  ([from, to, blocks]): Step =>
    async (world) => {
      const source = world.model.objects.get(from)
      if (source === undefined) return
      const object = anObject({ key: to, size: sizeOf(source.data) })
      const committed = await world.index.commitCopy(object, source.id, blocks ?? undefined)
      const own = blocks === null ? source.blocks : world.added(blocks, committed.blockIds)
      world.model.objects.set(to, { id: committed.contentId, data: source.data, blocks: own })
    }
)

const remove = key.map(
  (name): Step =>
    async ({ model, index }) => {
      expect(await index.deleteObject('b', name)).toBe(model.objects.delete(name))
    }
)

const part = fc.tuple(uploadId, fc.integer({ min: 1, max: 3 }), segments).map(
  ([id, partNumber, data]): Step =>
    async (world) => {
      if (!world.model.uploads.has(id)) {
        await world.index.createUpload(anUpload({ uploadId: id, key: 'k0' }))
        world.model.uploads.set(id, new Map())
      }
      const ids = await world.index.commitPart(id, aPart({ partNumber, size: sizeOf(data) }), data)
      world.model.uploads.get(id)!.set(partNumber, world.added(data, ids))
    }
)

const complete = fc.tuple(uploadId, fc.nat(7), segments).map(
  ([id, mask, blocks]): Step =>
    async (world) => {
      const parts = [...(world.model.uploads.get(id) ?? [])].sort(([a], [b]) => a - b)
      const named = parts.filter(([partNumber]) => (mask >> (partNumber - 1)) & 1)
      if (named.length === 0) return
      const data = named.flatMap(([, list]) => list)
      const object = anObject({ key: 'k0', size: sizeOf(data) })
      const tags = named.map(([partNumber]) => ({ partNumber, etag: 'e1' }))
      const { contentId, segmentIds, blockIds } = await world.index.completeUpload(id, tags, object, blocks)
      expect(segmentIds).toEqual(data.map((one) => one.id))
      world.model.uploads.delete(id)
      world.model.objects.set('k0', { id: contentId, data, blocks: world.added(blocks, blockIds) })
    }
)

const abort = uploadId.map(
  (id): Step =>
    async ({ model, index }) => {
      expect(await index.abortUpload('b', 'k0', id)).toBe(model.uploads.delete(id))
    }
)

const place = fc.tuple(fc.nat(), index(3), index(4)).map(
  ([pick, at, to]): Step =>
    async ({ model, index }) => {
      if (model.segments.length === 0) return
      const { id, shards } = model.segments[pick % model.segments.length]!
      const isThere = [...reachable(model)].some((one) => one.id === id)
      const { cid } = shards[at]!
      const provider = providers[to]!
      await index.placeShards([{ segmentId: id, index: at, cid, provider, leaseUntil: 5, at: 4 }])
      if (isThere) shards[at] = { cid, provider, state: 'healthy', leaseUntil: 5 }
      else model.queue.add(rowOf(provider, { cid }))
    }
)

const observed: readonly ShardState[] = ['healthy', 'offline', 'contained', 'missing', 'wrong', 'withdrawn', 'unknown']
const mark = fc.tuple(fc.nat(), index(3), index(4), index(observed.length)).map(
  ([pick, at, by, to]): Step =>
    async ({ model, index }) => {
      if (model.segments.length === 0) return
      const { id, shards } = model.segments[pick % model.segments.length]!
      await index.markShard({ segmentId: id, index: at }, providers[by]!, observed[to]!)
      if (shards[at]!.provider === providers[by]) shards[at]!.state = observed[to]!
    }
)

const queueReleases = fc.array(fc.tuple(index(5), index(4)), { maxLength: 4 }).map(
  (picks): Step =>
    async (world) => {
      const rows = picks.map(([cid, by]) => ({ provider: providers[by]!, cid: cids[cid]! }))
      await world.index.queueReleases(rows)
      for (const row of rows) world.model.queue.add(rowOf(row.provider, row))
    }
)

const released = fc.tuple(index(5), index(4)).map(
  ([cid, by]): Step =>
    async ({ model, index }) => {
      await index.released(providers[by]!, [cids[cid]!])
      model.queue.delete(rowOf(providers[by]!, { cid: cids[cid]! }))
    }
)

const pin = key.map(
  (name): Step =>
    async ({ model, index }) => {
      const content = model.objects.get(name)
      if (content !== undefined) model.pins.push({ content, unpin: index.pinContent(content.id) })
    }
)

const unpin = fc.nat().map(
  (pick): Step =>
    async ({ model, index }) => {
      if (model.pins.length === 0) return
      const [{ unpin: letGo }] = model.pins.splice(pick % model.pins.length, 1) as [Model['pins'][number]]
      letGo()
      // What follows from letting go is a write before this one.
      await index.createBucket(aBucket({ name: 'barrier' }))
      await index.deleteBucket('barrier')
    }
)

const steps = fc.oneof(
  { weight: 4, arbitrary: put },
  { weight: 3, arbitrary: copy },
  { weight: 4, arbitrary: remove },
  { weight: 4, arbitrary: part },
  { weight: 2, arbitrary: complete },
  { weight: 1, arbitrary: abort },
  { weight: 4, arbitrary: place },
  { weight: 3, arbitrary: mark },
  { weight: 2, arbitrary: queueReleases },
  { weight: 2, arbitrary: released },
  { weight: 2, arbitrary: pin },
  { weight: 2, arbitrary: unpin }
)

test('what is queued for release is what was needed and is not any more', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { minLength: 1, maxLength: 40 }), async (list) => {
      const world = new World(await openSqliteIndex(':memory:'))
      await world.index.createBucket(aBucket())
      for (const step of list) {
        await world.step(() => step(world))
        await world.check()
      }
      await world.index.close()
    }),
    { numRuns: 150 }
  )
})
