/** What every `MetadataIndex` must do: `src/metadata/index-store.ts`, sentence by sentence. */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { CID, cidOfNode, cidOfShard, codecs, shardCid } from '../../src/content/cid.ts'
import type { CustodyRow, MetadataIndex, NewTranscript } from '../../src/metadata/index-store.ts'
import type { ObjectRecord, SegmentRecord, ShardRecord, ShardState, StoredSegment } from '../../src/metadata/records.ts'
import {
  aBlock,
  aBucket,
  aKnownProvider,
  anAccessKey,
  anObject,
  anUnplacedShard,
  anUpload,
  aPart,
  aSegment,
  aShard,
  testCid
} from '../support/records.ts'
import { repairIndexContract } from './repair-index.ts'

const sum = (segments: readonly SegmentRecord[]): number => segments.reduce((total, { length }) => total + length, 0)
const strings = (values: readonly unknown[]): string[] => values.map(String)
const withoutId = ({ id: _id, ...segment }: StoredSegment): SegmentRecord => segment

/** @param open a new, empty index each time */
export function metadataIndexContract(name: string, open: () => Promise<MetadataIndex>): void {
  repairIndexContract(name, open)
  describe(`${name} as a metadata index`, () => {
    let index: MetadataIndex
    beforeEach(async () => {
      index = await open()
      await index.createBucket(aBucket())
    })
    afterEach(() => index.close())

    const put = async (
      over: Partial<ObjectRecord> = {},
      segments: SegmentRecord[] = [aSegment()],
      blocks: SegmentRecord[] = []
    ): Promise<number> => {
      const committed = await index.commitObject(anObject({ size: sum(segments), ...over }), { segments, blocks })
      return committed.contentId
    }
    const keys = async (options: { prefix?: string; after?: string; inclusive?: boolean; limit?: number } = {}) => {
      const page = await index.listObjects('b', { prefix: '', after: '', limit: 100, ...options })
      return page.items.map(({ key }) => key)
    }
    /** All rows of the release queue, as `provider cid`. */
    const queue = async (): Promise<string[]> => {
      const rows: string[] = []
      for (const provider of await index.listReleaseProviders()) {
        for (const cid of await index.listReleases(provider, 1000)) rows.push(`${provider} ${cid}`)
      }
      return rows.sort()
    }
    /** What the queue holds when just these segments are not needed any more. */
    const rowsOf = (...segments: SegmentRecord[]): string[] => [
      ...new Set(
        segments
          .flatMap(({ shards }) => shards)
          .flatMap(({ provider, cid }) => (provider === undefined ? [] : [`${provider} ${cid}`]))
          .sort()
      )
    ]
    const states = async (segmentId: number): Promise<ShardState[]> =>
      (await index.getSegment(segmentId))!.shards.map(({ state }) => state)

    describe('buckets', () => {
      test('come back as they were made', async () => {
        const bucket = aBucket({
          name: 'full',
          owner: 'bob',
          createdAt: 7,
          isPublic: true,
          wrappedKey: new Uint8Array()
        })
        await index.createBucket(bucket)
        expect(await index.getBucket('full')).toEqual(bucket)
        expect(await index.getBucket('b')).toEqual(aBucket())
        expect(await index.getBucket('none')).toBeUndefined()
      })

      test('have one owner', async () => {
        await expect(index.createBucket(aBucket())).rejects.toMatchObject({ code: 'BUCKET_OWNED_BY_YOU' })
        await expect(index.createBucket(aBucket({ owner: 'bob' }))).rejects.toMatchObject({ code: 'BUCKET_EXISTS' })
        expect((await index.getBucket('b'))?.owner).toBe('alice')
      })

      test('are deleted only when empty of objects and of unfinished uploads', async () => {
        await expect(index.deleteBucket('none')).rejects.toMatchObject({ code: 'NO_SUCH_BUCKET' })
        await put()
        await expect(index.deleteBucket('b')).rejects.toMatchObject({ code: 'BUCKET_NOT_EMPTY' })
        await index.deleteObject('b', 'key')
        await index.createUpload(anUpload())
        await expect(index.deleteBucket('b')).rejects.toMatchObject({ code: 'BUCKET_NOT_EMPTY' })
        await index.abortUpload('b', 'key', 'upload-1')
        await index.deleteBucket('b')
        expect(await index.getBucket('b')).toBeUndefined()
        await index.createBucket(aBucket({ owner: 'bob' }))
        expect((await index.getBucket('b'))?.owner).toBe('bob')
      })

      test('are listed by owner, by name, in pages', async () => {
        for (const bucket of ['x-2', 'x-10', 'y', 'a'])
          await index.createBucket(aBucket({ name: bucket, owner: 'bob' }))
        const list = async (prefix: string, after: string, limit: number) => {
          const page = await index.listBuckets('bob', { prefix, after, limit })
          return [page.items.map((bucket) => bucket.name), page.isTruncated]
        }
        expect(await list('', '', 10)).toEqual([['a', 'x-10', 'x-2', 'y'], false])
        expect(await list('', '', 4)).toEqual([['a', 'x-10', 'x-2', 'y'], false])
        expect(await list('', '', 2)).toEqual([['a', 'x-10'], true])
        expect(await list('', 'x-10', 2)).toEqual([['x-2', 'y'], false])
        expect(await list('x', '', 10)).toEqual([['x-10', 'x-2'], false])
        expect(await list('x', '', 1)).toEqual([['x-10'], true])
        expect(await list('x', 'x-10', 1)).toEqual([['x-2'], false])
        expect(await list('x', 'x-2', 1)).toEqual([[], false])
        expect(await list('', '', 0)).toEqual([[], false])
        expect((await index.listBuckets('alice', { prefix: '', after: '', limit: 9 })).items).toEqual([aBucket()])
      })
    })

    describe('objects', () => {
      test('come back as they were committed, bare or with everything', async () => {
        const bare = anObject({ key: 'bare', wrappedKey: new Uint8Array() })
        const full = anObject({
          key: 'full',
          size: 100,
          headers: { 'content-type': 'text/plain', 'cache-control': 'no-cache' },
          userMetadata: { mtime: '1', ünï: 'wörld \u0000 \u{1f600}', __proto__x: 'y' },
          checksums: { crc32: 'AAAAAA==', sha256: 'x-2' },
          checksumType: 'COMPOSITE',
          storageClass: 'REDUCED_REDUNDANCY',
          partSizes: [60, 40],
          partChecksums: [{ crc32: 'AAAAAA==' }, {}]
        })
        await index.commitObject(bare, { segments: [], blocks: [] })
        const { contentId } = await index.commitObject(full, { segments: [aSegment()], blocks: [] })
        expect(await index.getObject('b', 'full')).toEqual({ ...full, contentId })
        expect(await index.getObject('b', 'bare')).toMatchObject(bare)
        expect(await index.getObject('b', 'bare')).not.toHaveProperty('partSizes')
        expect(await index.getObject('b', 'bare')).not.toHaveProperty('partChecksums')
        expect(await index.getObject('b', 'none')).toBeUndefined()
        expect(await index.getObject('none', 'full')).toBeUndefined()
      })

      test('need a bucket, and content of their own size', async () => {
        await expect(put({ bucket: 'none' })).rejects.toMatchObject({ code: 'NO_SUCH_BUCKET' })
        await expect(put({ size: 99 })).rejects.toMatchObject({ code: 'BAD_INPUT' })
        const incomplete = { ...aSegment(), shards: [aShard()] }
        await expect(put({ size: 100 }, [incomplete])).rejects.toMatchObject({ code: 'BAD_INPUT' })
        expect(await index.totals()).toMatchObject({ objects: 0, segments: 0, shards: 0 })
        expect(await index.listHolders()).toEqual([])
      })

      test('report the ids of what they are made of', async () => {
        const segments = [aSegment(), aSegment({ length: 50, k: 1, m: 2 })]
        const blocks = [aBlock(), aBlock()]
        const committed = await index.commitObject(anObject({ size: 150 }), { segments, blocks })
        const [first, second] = await index.getSegments(committed.contentId, 0, 150)
        expect([first?.segment.id, second?.segment.id]).toEqual(committed.segmentIds)
        expect(withoutId(first!.segment)).toEqual(segments[0])
        expect(withoutId(second!.segment)).toEqual(segments[1])
        const stored = await index.getBlocks(committed.contentId)
        expect(stored.map(({ id }) => id)).toEqual(committed.blockIds)
        expect(stored.map(withoutId)).toEqual(blocks)
      })

      test('give the segments of a range of bytes, with their offsets', async () => {
        const contentId = await put(
          {},
          [100, 50, 100, 1].map((length) => aSegment({ length }))
        )
        const offsets = async (start: number, end: number) =>
          (await index.getSegments(contentId, start, end)).map(({ offset, segment }) => [offset, segment.length])
        const all = [
          [0, 100],
          [100, 50],
          [150, 100],
          [250, 1]
        ]
        expect(await offsets(0, 251)).toEqual(all)
        expect(await offsets(0, 10_000)).toEqual(all)
        expect(await offsets(0, 1)).toEqual(all.slice(0, 1))
        expect(await offsets(99, 101)).toEqual(all.slice(0, 2))
        expect(await offsets(99, 100)).toEqual(all.slice(0, 1))
        expect(await offsets(100, 101)).toEqual(all.slice(1, 2))
        expect(await offsets(149, 151)).toEqual(all.slice(1, 3))
        expect(await offsets(250, 251)).toEqual(all.slice(3))
        expect(await offsets(251, 300)).toEqual([])
        expect(await offsets(120, 120)).toEqual([])
        expect(await index.getSegments(contentId + 1000, 0, 10)).toEqual([])
      })

      test('keep what was said of each shard', async () => {
        const shards = [
          aShard({ provider: 'p5', state: 'contained', leaseUntil: 77, lastProof: undefined }),
          anUnplacedShard(),
          aShard({ provider: 'p6', state: 'withdrawn' })
        ]
        const contentId = await put({}, [aSegment({ shards, nonce: Uint8Array.of(1, 0, 255) })])
        const [only] = await index.getSegments(contentId, 0, 1)
        expect(only!.segment.shards).toEqual(shards)
        expect(only!.segment.nonce).toEqual(Uint8Array.of(1, 0, 255))
        expect(only!.segment.shards[1]).not.toHaveProperty('provider')
        expect(only!.segment.shards[0]).not.toHaveProperty('lastProof')
      })

      test('are deleted once', async () => {
        await put()
        expect(await index.deleteObject('b', 'key')).toBe(true)
        expect(await index.deleteObject('b', 'key')).toBe(false)
        expect(await index.deleteObject('none', 'key')).toBe(false)
        expect(await index.getObject('b', 'key')).toBeUndefined()
      })
    })

    describe('conditions', () => {
      const attempt = (condition: { ifMatch?: string; ifNoneMatch?: string }, etag = 'new') =>
        index.commitObject(anObject({ etag }), { segments: [], blocks: [] }, condition)

      test('on an absent key', async () => {
        await expect(attempt({ ifMatch: '*' })).rejects.toMatchObject({ code: 'NO_SUCH_KEY' })
        await expect(attempt({ ifMatch: 'e' })).rejects.toMatchObject({ code: 'NO_SUCH_KEY' })
        await attempt({ ifNoneMatch: '*' })
        expect((await index.getObject('b', 'key'))?.etag).toBe('new')
      })

      test('on a present key', async () => {
        await put({ etag: 'old' })
        for (const failing of [{ ifMatch: 'other' }, { ifNoneMatch: '*' }, { ifNoneMatch: 'old' }]) {
          await expect(attempt(failing)).rejects.toMatchObject({ code: 'PRECONDITION_FAILED' })
          expect((await index.getObject('b', 'key'))?.etag).toBe('old')
          expect(await queue()).toEqual([])
        }
        await attempt({ ifMatch: 'old' }, 'second')
        await attempt({ ifMatch: '*' }, 'third')
        await attempt({ ifNoneMatch: 'other' }, 'fourth')
        expect((await index.getObject('b', 'key'))?.etag).toBe('fourth')
      })

      test('on a deletion', async () => {
        await put({ etag: 'old' })
        await expect(index.deleteObject('b', 'key', { ifMatch: 'other' })).rejects.toMatchObject({
          code: 'PRECONDITION_FAILED'
        })
        expect(await index.deleteObject('b', 'key', { ifMatch: 'old' })).toBe(true)
        expect(await index.deleteObject('b', 'key', { ifMatch: 'old' })).toBe(false)
      })

      test('let exactly one of many concurrent creations through', async () => {
        const etags = Array.from({ length: 20 }, (_, at) => `e${at}`)
        const outcomes = await Promise.allSettled(etags.map((etag) => attempt({ ifNoneMatch: '*' }, etag)))
        const winners = etags.filter((_, at) => outcomes[at]!.status === 'fulfilled')
        expect(winners).toHaveLength(1)
        expect((await index.getObject('b', 'key'))?.etag).toBe(winners[0])
      })
    })

    describe('writes at the same time', () => {
      test('fail alone', async () => {
        const outcomes = await Promise.allSettled([
          index.createBucket(aBucket({ name: 'c1' })),
          index.createBucket(aBucket({ name: 'c1' })),
          put({ key: 'k1' }, [aSegment({ providers: ['fresh-1', 'fresh-2', 'fresh-3'] })]),
          put({ key: 'k2', size: 1 }, [aSegment({ providers: ['fresh-4', 'fresh-5', 'fresh-6'] })]),
          put({ key: 'k3' }, [aSegment({ providers: ['fresh-4', 'fresh-5', 'fresh-1'] })])
        ])
        expect(outcomes.map(({ status }) => status)).toEqual([
          'fulfilled',
          'rejected',
          'fulfilled',
          'rejected',
          'fulfilled'
        ])
        expect(await keys()).toEqual(['k1', 'k3'])
        expect(await index.totals()).toMatchObject({ buckets: 2, objects: 2, segments: 2, shards: 6 })
        const third = await index.getObject('b', 'k3')
        const [first] = await index.getSegments(third!.contentId, 0, 1)
        expect(first!.segment.shards.map(({ provider }) => provider)).toEqual(['fresh-4', 'fresh-5', 'fresh-1'])
      })

      test('take effect in the order they were asked for', async () => {
        const etags = Array.from({ length: 50 }, (_, at) => `e${at}`)
        await Promise.all(etags.map((etag) => put({ etag })))
        expect((await index.getObject('b', 'key'))?.etag).toBe('e49')
      })
    })

    describe('listing objects', () => {
      const fill = (...names: string[]) => Promise.all(names.map((key) => put({ key }, [])))

      test('is in UTF-8 byte order, which is not that of JavaScript strings', async () => {
        // U+FF5E is before U+1F600 in UTF-8, after it in UTF-16.
        const ordered = ['\u0001', ' ', 'A', 'Z', 'a', 'a\u0000', 'a\u0000b', 'a\u0001', 'aa', 'ä', '\ud7ff', '\ue000']
        ordered.push('\ufeffbom', '\uff5e', '\uffff', '\u{10000}', '\u{1f600}', '\u{1f600}a', '\u{10ffff}')
        await fill(...[...ordered].reverse())
        expect(await keys()).toEqual(ordered)
        for (const [at, key] of ordered.entries()) {
          expect(await keys({ after: key })).toEqual(ordered.slice(at + 1))
          expect(await keys({ after: key, inclusive: true })).toEqual(ordered.slice(at))
          expect((await index.getObject('b', key))?.key).toBe(key)
        }
        expect(await keys({ prefix: '\u{1f600}' })).toEqual(['\u{1f600}', '\u{1f600}a'])
        expect(await keys({ prefix: '\u{10ffff}' })).toEqual(['\u{10ffff}'])
        expect(await keys({ prefix: 'a\u0000' })).toEqual(['a\u0000', 'a\u0000b'])
        expect(await keys({ prefix: '\ud7ff' })).toEqual(['\ud7ff'])
      })

      test('keeps to the prefix, wherever the marker is', async () => {
        await fill('a', 'b', 'b/', 'b/1', 'b/2', 'b0', 'c')
        expect(await keys({ prefix: 'b/' })).toEqual(['b/', 'b/1', 'b/2'])
        expect(await keys({ prefix: 'b/', after: 'a' })).toEqual(['b/', 'b/1', 'b/2'])
        expect(await keys({ prefix: 'b/', after: 'b/' })).toEqual(['b/1', 'b/2'])
        expect(await keys({ prefix: 'b/', after: 'b/', inclusive: true })).toEqual(['b/', 'b/1', 'b/2'])
        expect(await keys({ prefix: 'b/', after: 'b/15' })).toEqual(['b/2'])
        expect(await keys({ prefix: 'b/', after: 'b0' })).toEqual([])
        expect(await keys({ prefix: 'd' })).toEqual([])
        expect(await keys({ after: 'b/15', inclusive: true })).toEqual(['b/2', 'b0', 'c'])
      })

      test('says whether more follows', async () => {
        await fill('1', '2', '3')
        const page = async (limit: number, after = '') => {
          const { items, isTruncated } = await index.listObjects('b', { prefix: '', after, limit })
          return [items.map(({ key }) => key).join(''), isTruncated]
        }
        expect(await page(2)).toEqual(['12', true])
        expect(await page(3)).toEqual(['123', false])
        expect(await page(1, '2')).toEqual(['3', false])
        expect(await page(0)).toEqual(['', false])
        expect(await index.listObjects('none', { prefix: '', after: '', limit: 9 })).toEqual({
          items: [],
          isTruncated: false
        })
      })

      test('gives whole records, of this bucket only', async () => {
        await index.createBucket(aBucket({ name: 'other' }))
        await put({ bucket: 'other', key: 'x' })
        const contentId = await put({ key: 'y', checksums: { sha1: 's' } })
        const { items } = await index.listObjects('b', { prefix: '', after: '', limit: 10 })
        expect(items).toEqual([{ ...anObject({ key: 'y', size: 100, checksums: { sha1: 's' } }), contentId }])
      })

      test('refuses a key that UTF-8 cannot say', async () => {
        await expect(put({ key: 'half \ud83d' })).rejects.toMatchObject({ code: 'BAD_INPUT' })
      })
    })

    describe('releases', () => {
      test('hold what a deletion leaves behind, once each', async () => {
        const segment = aSegment()
        const block = aBlock()
        await put({}, [segment], [block])
        expect(await queue()).toEqual([])
        await index.deleteObject('b', 'key')
        expect(await queue()).toEqual(rowsOf(segment, block))
        expect(await index.totals()).toMatchObject({ objects: 0, objectBytes: 0, segments: 0, shards: 0 })
        expect(await index.listHolders()).toEqual([])
      })

      test('hold what a replaced object leaves behind, and nothing that is used', async () => {
        const old = aSegment()
        const kept = old.shards[0]!
        await put({}, [old])
        // The new content has one of the old shards, at the same provider.
        const next = aSegment({ shards: [kept, aShard({ provider: 'p8' }), aShard({ provider: 'p9' })] })
        await put({}, [next])
        expect(await queue()).toEqual(rowsOf(old).filter((row) => row !== `${kept.provider} ${kept.cid}`))
        await index.deleteObject('b', 'key')
        expect(await queue()).toEqual(rowsOf(old, next))
      })

      test('lose a row that a commit needs again', async () => {
        const segment = aSegment()
        await put({}, [segment])
        await index.deleteObject('b', 'key')
        await put({ key: 'again' }, [aSegment({ shards: segment.shards })])
        expect(await queue()).toEqual([])
        await index.deleteObject('b', 'again')
        expect(await queue()).toEqual(rowsOf(segment))
      })

      test('lose a row that a placement needs again', async () => {
        const cid = testCid('moved')
        const shards = [anUnplacedShard({ cid }), aShard(), aShard({ provider: 'p1' })]
        const { segmentIds } = await index.commitObject(anObject({ size: 100 }), {
          segments: [aSegment({ shards })],
          blocks: []
        })
        await index.queueReleases([{ provider: 'p7', cid }])
        expect(await queue()).toEqual([`p7 ${cid}`])
        await index.placeShards([{ segmentId: segmentIds[0]!, index: 0, cid, provider: 'p7', leaseUntil: 5, at: 4 }])
        expect(await queue()).toEqual([])
      })

      test('leave out what a committed segment needs at the same provider', async () => {
        const segment = aSegment()
        const [first] = segment.shards
        await put({}, [segment])
        const stray = testCid('stray')
        await index.queueReleases([
          { provider: first!.provider!, cid: first!.cid },
          { provider: 'p9', cid: first!.cid },
          { provider: 'p9', cid: stray },
          { provider: 'p9', cid: stray }
        ])
        expect(await queue()).toEqual([`p9 ${first!.cid}`, `p9 ${stray}`].sort())
      })

      test('are taken off once answered, a page at a time', async () => {
        const cids = Array.from({ length: 5 }, (_, at) => testCid(`r${at}`))
        await index.queueReleases(cids.map((cid) => ({ provider: 'p1', cid })))
        await index.queueReleases([{ provider: 'p2', cid: cids[0]! }])
        const page = await index.listReleases('p1', 3)
        expect(page).toHaveLength(3)
        await index.released('p1', page)
        const rest = await index.listReleases('p1', 10)
        expect(strings([...page, ...rest]).sort()).toEqual(strings(cids).sort())
        expect(rest).toHaveLength(2)
        await index.released('p1', rest)
        await index.released('nobody', rest)
        expect(await index.listReleases('p1', 10)).toEqual([])
        expect(await index.listReleases('nobody', 10)).toEqual([])
        expect(await index.listReleaseProviders()).toEqual(['p2'])
      })
    })

    describe('copies', () => {
      test('share segments and blocks; only the last deletion releases them', async () => {
        const segment = aSegment()
        const block = aBlock()
        const original = { segments: [segment], blocks: [block] }
        const source = await index.commitObject(anObject({ size: 100 }), original)
        const copy = await index.commitCopy(anObject({ key: 'copy', size: 100, etag: 'c' }), source.contentId)
        expect(copy.segmentIds).toEqual(source.segmentIds)
        expect(copy.blockIds).toEqual(source.blockIds)
        expect(await index.totals()).toMatchObject({ objects: 2, objectBytes: 200, segments: 2, shards: 5 })
        await index.deleteObject('b', 'key')
        expect(await queue()).toEqual([])
        const read = await index.getObject('b', 'copy')
        expect(read).toMatchObject({ etag: 'c', contentId: copy.contentId })
        expect((await index.getSegments(copy.contentId, 0, 100)).map((row) => withoutId(row.segment))).toEqual([
          segment
        ])
        expect((await index.getBlocks(copy.contentId)).map(withoutId)).toEqual([block])
        await index.deleteObject('b', 'copy')
        expect(await queue()).toEqual(rowsOf(segment, block))
      })

      test('may have blocks of their own', async () => {
        const segments = [aSegment(), aSegment({ length: 7 })]
        const [oldBlock, newBlock] = [aBlock(), aBlock()]
        const source = await index.commitObject(anObject({ size: 107 }), { segments, blocks: [oldBlock!] })
        const copy = await index.commitCopy(anObject({ key: 'copy', size: 107 }), source.contentId, [newBlock!])
        expect(copy.segmentIds).toEqual(source.segmentIds)
        expect(copy.blockIds).not.toEqual(source.blockIds)
        expect((await index.getSegments(copy.contentId, 0, 107)).map(({ offset }) => offset)).toEqual([0, 100])
        expect((await index.getBlocks(copy.contentId)).map(withoutId)).toEqual([newBlock])
        await index.deleteObject('b', 'key')
        expect(await queue()).toEqual(rowsOf(oldBlock!))
        await index.deleteObject('b', 'copy')
        expect(await queue()).toEqual(rowsOf(...segments, oldBlock!, newBlock!))
      })

      test('onto themselves change the metadata and lose nothing', async () => {
        const segment = aSegment()
        const contentId = await put({}, [segment])
        await index.commitCopy(anObject({ size: 100, headers: { 'content-type': 'x' } }), contentId)
        const object = await index.getObject('b', 'key')
        expect(object?.headers).toEqual({ 'content-type': 'x' })
        const block = aBlock()
        await index.commitCopy(anObject({ size: 100 }), object!.contentId, [block])
        expect(await queue()).toEqual([])
        const again = await index.getObject('b', 'key')
        expect(await index.getSegments(again!.contentId, 0, 100)).toHaveLength(1)
      })

      test('release what they replace', async () => {
        const replaced = aSegment()
        await put({ key: 'copy' }, [replaced])
        const contentId = await put()
        await index.commitCopy(anObject({ key: 'copy', size: 100 }), contentId)
        expect(await queue()).toEqual(rowsOf(replaced))
      })

      test('fail where the bucket, the condition or the content does not hold', async () => {
        const contentId = await put()
        const copy = (over: Partial<ObjectRecord>, source: number, ifNoneMatch?: string) =>
          index.commitCopy(anObject({ key: 'copy', size: 100, ...over }), source, undefined, { ifNoneMatch })
        await expect(copy({ bucket: 'none' }, contentId)).rejects.toMatchObject({ code: 'NO_SUCH_BUCKET' })
        await expect(copy({ key: 'key' }, contentId, '*')).rejects.toMatchObject({ code: 'PRECONDITION_FAILED' })
        await index.deleteObject('b', 'key')
        await expect(copy({}, contentId)).rejects.toMatchObject({ code: 'NO_SUCH_KEY' })
        expect(await keys()).toEqual([])
      })
    })

    describe('a pinned content', () => {
      test('outlives its object until the last reader lets go', async () => {
        const segment = aSegment()
        const contentId = await put({}, [segment], [])
        const first = index.pinContent(contentId)
        const second = index.pinContent(contentId)
        await index.deleteObject('b', 'key')
        expect(await index.getObject('b', 'key')).toBeUndefined()
        first()
        first()
        expect(await index.getSegments(contentId, 0, 100)).toHaveLength(1)
        expect(await queue()).toEqual([])
        second()
        await vi.waitFor(async () => expect(await queue()).toEqual(rowsOf(segment)))
        expect(await index.getSegments(contentId, 0, 100)).toEqual([])
        expect(() => index.pinContent(contentId)).toThrow(expect.objectContaining({ code: 'NO_SUCH_KEY' }))
      })

      test('outlives its replacement', async () => {
        const segment = aSegment()
        const contentId = await put({}, [segment], [])
        const unpin = index.pinContent(contentId)
        await put()
        expect(await index.getSegments(contentId, 0, 100)).toHaveLength(1)
        expect(await queue()).toEqual([])
        unpin()
        await vi.waitFor(async () => expect(await queue()).toEqual(rowsOf(segment)))
      })

      test('may be copied though its object is gone, and then stays', async () => {
        const contentId = await put()
        const unpin = index.pinContent(contentId)
        await index.deleteObject('b', 'key')
        await index.commitCopy(anObject({ key: 'copy', size: 100 }), contentId)
        unpin()
        await index.createBucket(aBucket({ name: 'later' }))
        expect(await queue()).toEqual([])
        expect(await index.getSegments(contentId, 0, 100)).toHaveLength(1)
        expect(() => index.pinContent(contentId)()).not.toThrow()
      })

      test('is not disturbed when nobody deletes it', async () => {
        const contentId = await put()
        index.pinContent(contentId)()
        await index.createBucket(aBucket({ name: 'later' }))
        expect(await index.getSegments(contentId, 0, 100)).toHaveLength(1)
      })
    })

    describe('content of very many segments', () => {
      test('goes in the end, and is not readable half gone', async () => {
        const segments = Array.from({ length: 300 }, () => aSegment())
        const shared = segments.at(-1)!
        const contentId = await put({}, segments)
        await put({ key: 'other' }, [aSegment({ shards: shared.shards })])
        await index.deleteObject('b', 'key')
        expect(await index.getSegments(contentId, 0, 100)).toEqual([])
        await expect(index.commitCopy(anObject({ size: 30_000 }), contentId)).rejects.toMatchObject({
          code: 'NO_SUCH_KEY'
        })
        expect(() => index.pinContent(contentId)).toThrow(expect.objectContaining({ code: 'NO_SUCH_KEY' }))
        await vi.waitFor(async () => expect(await queue()).toEqual(rowsOf(...segments.slice(0, -1))))
        expect(await index.totals()).toMatchObject({ objects: 1, segments: 1, shards: 3 })
      })
    })

    describe('uploads', () => {
      /** @param named part numbers and ETags: `1 a, 3 c` */
      const complete = (
        named: string,
        over: Partial<ObjectRecord> = {},
        condition: { ifMatch?: string; ifNoneMatch?: string } = {},
        blocks: SegmentRecord[] = []
      ) => {
        const pairs = named === '' ? [] : named.split(', ').map((pair) => pair.split(' '))
        const parts = pairs.map(([partNumber, etag]) => ({ partNumber: Number(partNumber), etag: etag! }))
        return index.completeUpload('upload-1', parts, anObject({ size: 100, ...over }), blocks, condition)
      }

      test('come back as they were made', async () => {
        const full = anUpload({
          uploadId: 'full',
          key: 'k\u0000 \u{1f600}',
          headers: { 'content-type': 'x' },
          userMetadata: { a: 'b' },
          checksumAlgorithm: 'crc64nvme',
          checksumType: 'FULL_OBJECT'
        })
        await index.createUpload(anUpload())
        await index.createUpload(full)
        expect(await index.getUpload('b', 'key', 'upload-1')).toEqual(anUpload())
        expect(await index.getUpload('b', full.key, 'full')).toEqual(full)
        expect(await index.getUpload('b', 'key', 'full')).toBeUndefined()
        expect(await index.getUpload('none', 'key', 'upload-1')).toBeUndefined()
        expect(await index.getUpload('b', 'key', 'upload-1\u0000')).toBeUndefined()
        await expect(index.createUpload(anUpload({ bucket: 'none' }))).rejects.toMatchObject({ code: 'NO_SUCH_BUCKET' })
      })

      test('are listed by key, then by id, in pages', async () => {
        for (const [key, uploadId] of ['a:2', 'a:1', 'b:3', 'ba:4', 'c:5'].map((pair) => pair.split(':'))) {
          await index.createUpload(anUpload({ key, uploadId }))
        }
        const list = async (prefix: string, afterKey: string, afterUploadId: string, limit = 10) => {
          const page = await index.listUploads('b', { prefix, afterKey, afterUploadId, limit })
          return [page.items.map(({ uploadId }) => uploadId).join(''), page.isTruncated]
        }
        expect(await list('', '', '')).toEqual(['12345', false])
        expect(await list('', '', '', 2)).toEqual(['12', true])
        expect(await list('', 'a', '1')).toEqual(['2345', false])
        expect(await list('', 'a', '')).toEqual(['12345', false])
        expect(await list('', 'a', '2', 3)).toEqual(['345', false])
        expect(await list('b', 'a', '1')).toEqual(['34', false])
        expect(await list('b', '', '', 1)).toEqual(['3', true])
        expect(await list('b', 'b', '3')).toEqual(['4', false])
        expect(await list('b', 'z', '')).toEqual(['', false])
        expect(
          (await index.listUploads('b', { prefix: 'c', afterKey: '', afterUploadId: '', limit: 5 })).items
        ).toEqual([anUpload({ key: 'c', uploadId: '5' })])
        expect(
          (await index.listUploads('none', { prefix: '', afterKey: '', afterUploadId: '', limit: 5 })).items
        ).toEqual([])
      })

      test('take parts, in any order, and list them in pages', async () => {
        await index.createUpload(anUpload())
        const parts = [
          aPart({ partNumber: 3, checksums: { sha1: 'x' } }),
          aPart({ partNumber: 1 }),
          aPart({ partNumber: 2 })
        ]
        for (const part of parts) await index.commitPart('upload-1', part, [aSegment()])
        const list = async (after: number, limit: number) => {
          const page = await index.listParts('upload-1', { after, limit })
          return [page.items.map(({ partNumber }) => partNumber).join(''), page.isTruncated]
        }
        expect(await list(0, 10)).toEqual(['123', false])
        expect(await list(0, 2)).toEqual(['12', true])
        expect(await list(2, 2)).toEqual(['3', false])
        expect((await index.listParts('upload-1', { after: 2, limit: 1 })).items).toEqual([parts[0]])
        expect(await index.listParts('none', { after: 0, limit: 9 })).toEqual({ items: [], isTruncated: false })
        await expect(index.commitPart('none', aPart(), [aSegment()])).rejects.toMatchObject({ code: 'NO_SUCH_UPLOAD' })
        await expect(index.commitPart('upload-1', aPart({ size: 99 }), [aSegment()])).rejects.toMatchObject({
          code: 'BAD_INPUT'
        })
      })

      test('replace a part of the same number', async () => {
        await index.createUpload(anUpload())
        const [old, next] = [aSegment(), aSegment()]
        await index.commitPart('upload-1', aPart({ etag: 'old' }), [old!])
        const ids = await index.commitPart('upload-1', aPart({ etag: 'next' }), [next!])
        expect(await queue()).toEqual(rowsOf(old!))
        const stored = await index.getPartSegments('upload-1', [1])
        expect(stored.map(({ id }) => id)).toEqual(ids)
        expect(stored.map(withoutId)).toEqual([next])
        await expect(complete('1 old')).rejects.toMatchObject({ code: 'INVALID_PART' })
        await complete('1 next')
        expect(await queue()).toEqual(rowsOf(old!))
      })

      test('give the segments of the named parts', async () => {
        await index.createUpload(anUpload())
        const segments = [1, 2, 3, 4].map((length) => aSegment({ length }))
        await index.commitPart('upload-1', aPart({ partNumber: 7, size: 4 }), [segments[3]!])
        await index.commitPart('upload-1', aPart({ partNumber: 2, size: 3 }), segments.slice(0, 2))
        await index.commitPart('upload-1', aPart({ partNumber: 5, size: 3 }), [segments[2]!])
        const lengths = async (numbers: number[]) =>
          (await index.getPartSegments('upload-1', numbers)).map(({ length }) => length)
        expect(await lengths([2, 5, 7])).toEqual([1, 2, 3, 4])
        expect(await lengths([2, 7])).toEqual([1, 2, 4])
        await expect(lengths([2, 3])).rejects.toMatchObject({ code: 'INVALID_PART' })
        await expect(index.getPartSegments('none', [1])).rejects.toMatchObject({ code: 'NO_SUCH_UPLOAD' })
      })

      test('become an object of the named parts; the others are released', async () => {
        await index.createUpload(anUpload())
        const segments = [60, 40, 9, 50].map((length) => aSegment({ length }))
        const block = aBlock()
        const first = await index.commitPart('upload-1', aPart({ partNumber: 1, etag: 'a' }), segments.slice(0, 2))
        await index.commitPart('upload-1', aPart({ partNumber: 2, size: 9 }), [segments[2]!])
        const third = await index.commitPart('upload-1', aPart({ partNumber: 3, size: 50, etag: 'c' }), [segments[3]!])
        const replaced = aSegment()
        await put({}, [replaced])
        const object = { size: 150, etag: 'x-2', partSizes: [100, 50] }
        const committed = await complete('1 a, 3 c', object, {}, [block])
        expect(committed.segmentIds).toEqual([...first, ...third])
        expect(await index.getObject('b', 'key')).toEqual({ ...anObject(object), contentId: committed.contentId })
        const rows = await index.getSegments(committed.contentId, 0, 150)
        expect(rows.map(({ offset }) => offset)).toEqual([0, 60, 100])
        expect(rows.map(({ segment }) => withoutId(segment))).toEqual([segments[0], segments[1], segments[3]])
        expect((await index.getBlocks(committed.contentId)).map(({ id }) => id)).toEqual(committed.blockIds)
        expect(await queue()).toEqual(rowsOf(segments[2]!, replaced))
        expect(await index.getUpload('b', 'key', 'upload-1')).toBeUndefined()
        expect((await index.listParts('upload-1', { after: 0, limit: 9 })).items).toEqual([])
        await expect(complete('1 a, 3 c')).rejects.toMatchObject({ code: 'NO_SUCH_UPLOAD' })
        await index.deleteObject('b', 'key')
        expect(await queue()).toEqual(rowsOf(...segments, replaced, block))
        expect(await index.totals()).toMatchObject({ segments: 0, shards: 0 })
      })

      test('are complete or untouched', async () => {
        await index.createUpload(anUpload())
        await index.commitPart('upload-1', aPart({ partNumber: 1, etag: 'a' }), [aSegment()])
        await index.commitPart('upload-1', aPart({ partNumber: 2, etag: 'b' }), [aSegment()])
        await put({ etag: 'there' })
        const failing: Array<[string, Parameters<typeof complete>]> = [
          ['INVALID_PART', ['3 a']],
          ['INVALID_PART', ['1 b']],
          ['INVALID_PART', ['']],
          ['INVALID_PART_ORDER', ['2 b, 1 a', { size: 200 }]],
          ['INVALID_PART_ORDER', ['1 a, 1 a', { size: 200 }]],
          ['PRECONDITION_FAILED', ['1 a', {}, { ifNoneMatch: '*' }]],
          ['PRECONDITION_FAILED', ['1 a', {}, { ifMatch: 'other' }]],
          ['BAD_INPUT', ['1 a', { key: 'another' }]],
          ['BAD_INPUT', ['1 a', { size: 99 }]]
        ]
        for (const [code, attempt] of failing) await expect(complete(...attempt)).rejects.toMatchObject({ code })
        await expect(
          index.completeUpload('none', [{ partNumber: 1, etag: 'a' }], anObject(), [])
        ).rejects.toMatchObject({ code: 'NO_SUCH_UPLOAD' })
        expect((await index.listParts('upload-1', { after: 0, limit: 9 })).items).toHaveLength(2)
        expect((await index.getObject('b', 'key'))?.etag).toBe('there')
        expect(await queue()).toEqual([])
      })

      test('are aborted with all their parts', async () => {
        await index.createUpload(anUpload())
        const segments = [aSegment(), aSegment()]
        await index.commitPart('upload-1', aPart({ size: 200 }), segments)
        expect(await index.abortUpload('b', 'other', 'upload-1')).toBe(false)
        expect(await index.abortUpload('none', 'key', 'upload-1')).toBe(false)
        expect(await index.abortUpload('b', 'key', 'upload-1')).toBe(true)
        expect(await index.abortUpload('b', 'key', 'upload-1')).toBe(false)
        expect(await queue()).toEqual(rowsOf(...segments))
        expect(await index.totals()).toMatchObject({ segments: 0, shards: 0 })
      })
    })

    describe('shards', () => {
      const commit = async (segment: SegmentRecord, key = 'key'): Promise<number> => {
        const content = { segments: [segment], blocks: [] }
        const { segmentIds } = await index.commitObject(anObject({ key, size: segment.length }), content)
        return segmentIds[0]!
      }
      const incompleteIds = async (afterId = 0, limit = 100) =>
        (await index.listIncomplete({ afterId, limit })).map(({ id }) => id)

      test('that are not placed, or known lost, make their segment incomplete', async () => {
        const whole = await commit(aSegment(), 'whole')
        const unplaced = await commit(aSegment({ providers: ['p0', undefined, undefined] }), 'unplaced')
        const lost: number[] = []
        for (const state of ['missing', 'wrong', 'withdrawn'] as const) {
          lost.push(await commit(aSegment({ shards: [aShard({ state }), aShard(), aShard()] }), state))
        }
        for (const state of ['offline', 'contained'] as const) {
          await commit(aSegment({ shards: [aShard({ state }), aShard(), aShard()] }), state)
        }
        await index.createUpload(anUpload())
        const [inPart] = await index.commitPart('upload-1', aPart(), [aSegment({ providers: [undefined, 'p1', 'p2'] })])
        const all = [unplaced, ...lost, inPart!]
        expect(await incompleteIds()).toEqual(all)
        expect(await incompleteIds(0, 2)).toEqual(all.slice(0, 2))
        expect(await incompleteIds(all[1], 10)).toEqual(all.slice(2))
        expect(await index.totals()).toMatchObject({ incompleteSegments: 5 })
        const [first] = await index.listIncomplete({ afterId: 0, limit: 1 })
        expect(first).toEqual(await index.getSegment(unplaced))
        expect(await index.getSegment(whole)).toMatchObject({ id: whole, length: 100, k: 2, m: 1 })
        expect(await index.getSegment(987_654)).toBeUndefined()
      })

      test('are placed, one by one, until the segment is whole', async () => {
        const segment = aSegment({ providers: [undefined, 'p1', undefined] })
        const segmentId = await commit(segment)
        const placement = (at: number, provider: string) => ({
          segmentId,
          index: at,
          cid: segment.shards[at]!.cid,
          provider,
          leaseUntil: 500,
          at: 400
        })
        await index.placeShards([placement(0, 'p8')])
        expect(await incompleteIds()).toEqual([segmentId])
        await index.placeShards([placement(2, 'p9')])
        expect(await incompleteIds()).toEqual([])
        const stored = await index.getSegment(segmentId)
        expect(stored!.shards[0]).toEqual({
          cid: segment.shards[0]!.cid,
          provider: 'p8',
          state: 'healthy',
          leaseUntil: 500,
          lastProof: 400
        })
        expect(await index.listHolders()).toEqual([
          { provider: 'p1', shards: 1, bytes: 50 },
          { provider: 'p8', shards: 1, bytes: 50 },
          { provider: 'p9', shards: 1, bytes: 50 }
        ])
      })

      test('that are placed anew are released where they were', async () => {
        const cid = testCid('twice')
        const segmentId = await commit(aSegment({ shards: [aShard({ cid }), aShard(), aShard()] }))
        const other = await commit(aSegment({ shards: [aShard({ cid }), aShard(), aShard()] }), 'other')
        const move = (id: number) => ({ segmentId: id, index: 0, cid, provider: 'p9', leaseUntil: 5, at: 4 })
        await index.markShard({ segmentId, index: 0 }, 'p0', 'missing')
        await index.placeShards([move(segmentId)])
        expect(await states(segmentId)).toEqual(['healthy', 'healthy', 'healthy'])
        expect(await queue()).toEqual([]) // the other segment needs it there
        await index.placeShards([move(other)])
        expect(await queue()).toEqual([`p0 ${cid}`])
        await index.placeShards([move(other)])
        expect(await queue()).toEqual([`p0 ${cid}`])
      })

      test('whose segment is gone are released where they were just placed', async () => {
        const segment = aSegment({ providers: ['p0', undefined, 'p2'] })
        const segmentId = await commit(segment)
        await index.deleteObject('b', 'key')
        const cid = segment.shards[1]!.cid
        await index.placeShards([{ segmentId, index: 1, cid, provider: 'p9', leaseUntil: 5, at: 4 }])
        expect(await queue()).toEqual([...rowsOf(segment), `p9 ${cid}`].sort())
        expect(await index.getSegment(segmentId)).toBeUndefined()
      })

      test('are not placed under another CID', async () => {
        const segmentId = await commit(aSegment())
        const wrong = { segmentId, index: 0, cid: testCid('other'), provider: 'p9', leaseUntil: 5, at: 4 }
        await expect(index.placeShards([wrong])).rejects.toMatchObject({ code: 'BAD_INPUT' })
        expect((await index.getSegment(segmentId))!.shards[0]!.provider).toBe('p0')
      })

      test('are marked only where they still are', async () => {
        const segmentId = await commit(aSegment())
        await index.markShard({ segmentId, index: 1 }, 'p1', 'wrong')
        await index.markShard({ segmentId, index: 2 }, 'p1', 'missing')
        await index.markShard({ segmentId, index: 2 }, 'nobody', 'missing')
        await index.markShard({ segmentId: 999, index: 2 }, 'p1', 'missing')
        expect(await states(segmentId)).toEqual(['healthy', 'wrong', 'healthy'])
        expect(await incompleteIds()).toEqual([segmentId])
        await index.markShard({ segmentId, index: 1 }, 'p1', 'healthy', 900)
        const shard = async () => (await index.getSegment(segmentId))!.shards[1]!
        expect(await shard()).toMatchObject({ state: 'healthy', lastProof: 900 })
        await index.markShard({ segmentId, index: 1 }, 'p1', 'healthy', 800)
        await index.markShard({ segmentId, index: 1 }, 'p1', 'contained')
        expect(await shard()).toMatchObject({ state: 'contained', lastProof: 900 })
        expect(await incompleteIds()).toEqual([])
      })

      test('with one CID at one provider are marked together', async () => {
        const cid = testCid('common')
        const one = await commit(
          aSegment({ shards: [aShard({ cid }), aShard(), aShard({ cid, provider: 'p1' })] }),
          '1'
        )
        const two = await commit(aSegment({ shards: [aShard(), aShard({ cid }), aShard()] }), '2')
        await index.markHolding('p0', cid, 'missing')
        await index.markHolding('nobody', cid, 'missing')
        expect(await states(one)).toEqual(['missing', 'healthy', 'healthy'])
        expect(await states(two)).toEqual(['healthy', 'missing', 'healthy'])
        expect(await incompleteIds()).toEqual([one, two])
        await index.markHolding('p0', cid, 'healthy', 777)
        expect(await incompleteIds()).toEqual([])
        expect((await index.getSegment(two))!.shards[1]).toMatchObject({ state: 'healthy', lastProof: 777 })
      })

      test('are counted with who holds them', async () => {
        const first = aSegment({ length: 101 })
        const id = await commit(first)
        await commit(aBlock({ length: 10, providers: ['p0', 'p3'] }), 'block')
        const holders = async () =>
          Object.fromEntries(
            (await index.listHolders()).map(({ provider, shards, bytes }) => [provider, [shards, bytes]])
          )
        expect(await holders()).toEqual({ p0: [2, 61], p1: [1, 51], p2: [1, 51], p3: [1, 10] })
        await index.markShard({ segmentId: id, index: 1 }, 'p1', 'missing')
        await index.markShard({ segmentId: id, index: 2 }, 'p2', 'offline')
        expect(await holders()).toEqual({ p0: [2, 61], p2: [1, 51], p3: [1, 10] })
        await index.markShard({ segmentId: id, index: 1 }, 'p1', 'healthy')
        await index.deleteObject('b', 'block')
        expect(await holders()).toEqual({ p0: [1, 51], p1: [1, 51], p2: [1, 51] })
      })

      test('are found by CID, healthy first, once a provider', async () => {
        const cid = testCid('wanted')
        const at = (provider: string, state: ShardState) => aShard({ cid, provider, state })
        await commit(aSegment({ shards: [at('p3', 'missing'), at('p2', 'offline'), at('p1', 'healthy')] }), '1')
        await commit(aSegment({ shards: [at('p3', 'healthy'), at('p4', 'wrong'), anUnplacedShard({ cid })] }), '2')
        expect(await index.findHolders(cid)).toEqual([
          { provider: 'p1', state: 'healthy' },
          { provider: 'p3', state: 'healthy' },
          { provider: 'p2', state: 'offline' },
          { provider: 'p4', state: 'wrong' }
        ])
        expect(await index.findHolders(testCid('unheard of'))).toEqual([])
      })
    })

    describe('leases', () => {
      test('that are due come soonest first, each CID once, of what is held', async () => {
        const common = testCid('common')
        const at = (leaseUntil: number, over = {}) => aShard({ leaseUntil, ...over })
        const due = [at(300), at(100, { cid: common }), at(200, { state: 'offline' })]
        const more = [at(250, { cid: common }), at(400, { state: 'contained' }), at(500)]
        const lost = [at(1, { state: 'missing' }), at(2, { state: 'wrong' }), at(3, { state: 'withdrawn' })]
        const others = [anUnplacedShard(), at(10, { provider: 'p1' }), at(20, { provider: 'p2' })]
        for (const [at_, shards] of [due, more, lost, others].entries())
          await put({ key: `${at_}` }, [aSegment({ shards })])
        const rows = async (before: number, limit = 100) =>
          (await index.listLeasesDue('p0', before, limit)).map(({ cid, leaseUntil }) => `${leaseUntil} ${cid}`)
        const row = ({ leaseUntil, cid }: { leaseUntil: number; cid: unknown }) => `${leaseUntil} ${cid}`
        const expected = [due[1]!, due[2]!, due[0]!, more[1]!, more[2]!].map(row)
        expect(await rows(1000)).toEqual(expected)
        expect(await rows(500)).toEqual(expected.slice(0, 4))
        expect(await rows(1000, 2)).toEqual(expected.slice(0, 2))
        expect(await rows(100)).toEqual([])
        expect(await rows(1000, 0)).toEqual([])
        expect(await index.listLeasesDue('nobody', 1000, 10)).toEqual([])

        await index.renewed('p0', [common, due[2]!.cid, testCid('unheard of')], 2000)
        await index.renewed('nobody', [common], 3000)
        expect(await rows(1000)).toEqual([due[0]!, more[1]!, more[2]!].map(row))
        expect(await rows(3000)).toHaveLength(5)
      })
    })

    describe('a lease', () => {
      // The provider may have lost its table of leases since, and have the block under the new one alone.
      test('that is new and short makes an old, long one of the block due, even once it is gone', async () => {
        const cid = testCid('common')
        const due = async (provider: string) =>
          (await index.listLeasesDue(provider, 1000, 10)).map((row) => `${row.leaseUntil} ${row.cid}`)
        const others = [aShard({ provider: 'p1' }), aShard({ provider: 'p2' })]
        await put({ key: 'first' }, [aSegment({ shards: [aShard({ cid, leaseUntil: 5000 }), ...others] })])
        const third = aSegment({ shards: [anUnplacedShard({ cid }), ...others] })
        const content = { segments: [third], blocks: [] }
        const { segmentIds } = await index.commitObject(anObject({ key: 'third', size: third.length }), content)
        expect(await due('p0')).toEqual([])
        await put({ key: 'second' }, [aSegment({ shards: [aShard({ cid, leaseUntil: 100 }), ...others] })])
        await index.deleteObject('b', 'second')
        expect(await due('p0')).toEqual([`100 ${cid}`])
        await index.renewed('p0', [cid], 5000)
        const where = { segmentId: segmentIds[0]!, index: 0, cid }
        await index.placeShards([{ ...where, provider: 'p0', leaseUntil: 200, at: 1 }])
        await index.deleteObject('b', 'third')
        expect(await due('p0')).toEqual([`200 ${cid}`])
      })
    })

    describe('a lease of the empty shard', () => {
      test('is left as it is: all small objects have it, and nobody reads it', async () => {
        const cid = cidOfShard(new Uint8Array(0))
        const others = [aShard({ provider: 'p1' }), aShard({ provider: 'p2' })]
        await put({ key: 'first' }, [aSegment({ shards: [aShard({ cid, leaseUntil: 5000 }), ...others] })])
        await put({ key: 'second' }, [aSegment({ shards: [aShard({ cid, leaseUntil: 2000 }), ...others] })])
        expect(await index.listLeasesDue('p0', 1000, 10)).toEqual([])
        await index.deleteObject('b', 'second')
        const leases = await index.listLeasesDue('p0', 10_000, 10)
        expect(leases.map(({ leaseUntil }) => leaseUntil)).toEqual([5000])
      })
    })

    describe('segments by what they are made of', () => {
      test('are found by a block of theirs, wherever it is, each once and no more than asked for', async () => {
        const common = testCid('common')
        const [lost, unplaced, twice, other] = [
          aSegment({ shards: [aShard({ cid: common, state: 'missing' }), aShard(), aShard()] }),
          aSegment({ shards: [anUnplacedShard({ cid: common }), aShard(), aShard()] }),
          aSegment({ shards: [aShard({ cid: common }), aShard({ cid: common, provider: 'p1' }), aShard()] }),
          aSegment()
        ]
        await put({}, [lost, unplaced, twice, other])
        const all = await index.listSegments({ afterId: 0, limit: 10 })
        const ids = async (cids: CID[], limit = 10) => (await index.listSegmentsOf(cids, limit)).map(({ id }) => id)
        expect((await ids([common])).sort()).toEqual(all.slice(0, 3).map(({ id }) => id))
        expect(await ids([common, common], 2)).toHaveLength(2)
        expect((await index.listSegmentsOf([other.shards[1]!.cid, testCid('unheard of')], 10))[0]).toEqual(all[3])
        expect(await ids([testCid('unheard of')])).toEqual([])
        expect(await ids([common], 0)).toEqual([])
      })
    })

    describe('custody', () => {
      const inOrder = <T extends { cid: CID }>(rows: readonly T[]): T[] =>
        [...rows].sort((a, b) => Buffer.compare(a.cid.bytes, b.cid.bytes))
      /** All pages, checked to be as long as they may. */
      const custody = async (provider: string, limit = 100): Promise<CustodyRow[]> => {
        const rows: CustodyRow[] = []
        for (;;) {
          const page = await index.listCustody(provider, { after: rows.at(-1)?.cid, limit })
          expect(page.length).toBeLessThanOrEqual(limit)
          rows.push(...page)
          if (page.length < limit) return rows
        }
      }
      const unproved = (before: number, limit = 100) => index.listUnproved('p0', { before, limit })
      const putShards = (shards: ShardRecord[], key = 'key') =>
        put({ key }, [aSegment({ k: 1, m: shards.length - 1, shards })])
      const node = (text: string): CID => CID.decode(cidOfNode(codecs.dagCbor, Buffer.from(text)).bytes)

      test('is of blocks as long as they are stored', async () => {
        // Shards of ceil(17 / 6) = 3 bytes: the last data shard has 2.
        const short = aSegment({ length: 17, k: 6, m: 1, providers: Array(7).fill('p0') })
        // Of ceil(6 / 5) = 2 bytes: three data shards have all, two are empty.
        const hollow = aSegment({ length: 6, k: 5, m: 2, providers: Array(7).fill('p0') })
        const copies = aBlock({ length: 30, providers: ['p0', 'p1'] })
        await put({}, [short, hollow], [copies])
        const lengths = [
          [short, [3, 3, 3, 3, 3, 2, 3]],
          [hollow, [2, 2, 2, 0, 0, 2, 2]],
          [copies, [30]]
        ] as const
        const expected = lengths.flatMap(([{ shards }, sizes]) =>
          sizes.map((bytes, at) => ({ cid: shards[at]!.cid, bytes, lastProof: 100 }))
        )
        expect(await custody('p0')).toEqual(inOrder(expected))
        expect(await custody('p1')).toEqual([{ cid: copies.shards[0]!.cid, bytes: 30, lastProof: 100 }])
        expect(await custody('nobody')).toEqual([])
      })

      test('is of what is held, where it is held, under BLAKE3', async () => {
        const states = ['healthy', 'offline', 'contained', 'unknown', 'missing', 'wrong', 'withdrawn'] as const
        const shards = states.map((state) => aShard({ state }))
        const others = [anUnplacedShard(), aShard({ provider: 'p1' }), aShard({ cid: node('manifest') })]
        await putShards([...shards, ...others])
        const held = inOrder(shards.slice(0, 4)).map(({ cid }) => cid)
        expect((await custody('p0')).map(({ cid }) => cid)).toEqual(held)
        expect(strings((await unproved(1000)).map(({ cid }) => cid)).sort()).toEqual(strings(held).sort())
        await index.deleteObject('b', 'key')
        expect(await custody('p0')).toEqual([])
        expect(await unproved(1000)).toEqual([])
      })

      test('follows a block that is placed anew', async () => {
        const cid = testCid('moved')
        const { segmentIds } = await index.commitObject(anObject({ size: 100 }), {
          segments: [aSegment({ shards: [aShard({ cid, state: 'missing' }), aShard(), aShard()] })],
          blocks: []
        })
        const moved = { segmentId: segmentIds[0]!, index: 0, cid, provider: 'p9', leaseUntil: 5, at: 400 }
        await index.placeShards([moved])
        expect(await custody('p9')).toEqual([{ cid, bytes: 50, lastProof: 400 }])
        expect(await index.listUnproved('p9', { before: 401, limit: 9 })).toHaveLength(1)
        expect(await index.listUnproved('p9', { before: 400, limit: 9 })).toEqual([])
      })

      test('goes on after any CID, page by page', async () => {
        const shards = Array.from({ length: 7 }, () => aShard())
        await putShards(shards)
        const all = await custody('p0')
        expect(all.map(({ cid }) => cid)).toEqual(inOrder(shards).map(({ cid }) => cid))
        for (const limit of [1, 2, 3, 7, 8]) expect(await custody('p0', limit)).toEqual(all)
        expect(await index.listCustody('p0', { limit: 0 })).toEqual([])
        const listAfter = (cid: CID) => index.listCustody('p0', { after: cid, limit: 100 })
        expect(await listAfter(shardCid(new Uint8Array(32)))).toEqual(all)
        expect(await listAfter(shardCid(new Uint8Array(32).fill(255)))).toEqual([])
        // Raw under sha2-256 comes before raw under BLAKE3, a node after it.
        expect(await listAfter(cidOfNode(codecs.raw, new Uint8Array()))).toEqual(all)
        expect(await listAfter(node('later'))).toEqual([])
      })

      test('lists each block once, proved when it was proved last', async () => {
        const [common, single] = [testCid('common'), testCid('single')]
        const at = (cid: CID, lastProof?: number, state: ShardState = 'healthy') =>
          aShard({ cid, state, ...(lastProof === undefined ? { lastProof: undefined } : { lastProof }) })
        await putShards([at(common, 50), at(single, 200), at(common)], '1')
        await putShards([at(common, 300), at(common, 300)], '2')
        await putShards([at(common, 900, 'missing'), at(common, 10)], '3')
        const rows = {
          common: { cid: common, bytes: 100, lastProof: 300 },
          single: { cid: single, bytes: 100, lastProof: 200 }
        }
        expect(await custody('p0')).toEqual(inOrder(Object.values(rows)))
        expect(await custody('p0', 1)).toEqual(inOrder(Object.values(rows)))
        expect(await unproved(301)).toEqual([rows.single, rows.common])
        expect(await unproved(301, 1)).toEqual([rows.single])
        expect(await unproved(300)).toEqual([rows.single])
        expect(await unproved(200)).toEqual([])
      })

      test('that is longest unproved comes first, what never was before all', async () => {
        const proofs = [500, undefined, 200, 0, 800]
        const shards = proofs.map((lastProof) => aShard({ lastProof }))
        await putShards(shards)
        const listed = async (before: number, limit?: number) =>
          (await unproved(before, limit)).map(({ lastProof }) => lastProof)
        expect(await listed(1000)).toEqual([null, 0, 200, 500, 800])
        expect(await listed(500)).toEqual([null, 0, 200])
        expect(await listed(1000, 2)).toEqual([null, 0])
        expect(await listed(1000, 0)).toEqual([])
        expect(await index.listUnproved('nobody', { before: 1000, limit: 9 })).toEqual([])
        await index.recordProofs('p0', [shards[1]!.cid, shards[2]!.cid], 600)
        expect(await listed(1000)).toEqual([0, 500, 600, 600, 800])
      })

      test('agrees with a list of all shards', async () => {
        // Of the same few CIDs, some of which begin alike, so that pages end between blocks that an index may mix up.
        const cids = Array.from({ length: 8 }, (_, at) => {
          const digest = new Uint8Array(32).fill(at >> 2)
          digest[31] = at % 4
          return CID.decode(Uint8Array.from(shardCid(digest).bytes))
        })
        const shard = fc.record({
          cid: fc.constantFrom(...cids, node('other')),
          provider: fc.constantFrom('p0', 'p1'),
          state: fc.constantFrom<ShardState>('healthy', 'contained', 'unknown', 'missing'),
          leaseUntil: fc.constant(1),
          lastProof: fc.option(fc.nat(9), { nil: undefined })
        })
        const proofs = fc.array(
          fc.tuple(fc.constantFrom('p0', 'p1'), fc.uniqueArray(fc.constantFrom(...cids), { maxLength: 3 }), fc.nat(12)),
          { maxLength: 3 }
        )
        const shards = fc.array(shard, { minLength: 1, maxLength: 24 })
        await fc.assert(
          fc.asyncProperty(
            shards,
            proofs,
            fc.integer({ min: 1, max: 4 }),
            fc.nat(12),
            async (all, noted, limit, before) => {
              const model = all.map((one) => ({ ...one }))
              await putShards(all)
              for (const [provider, proved, at] of noted) {
                await index.recordProofs(provider, proved, at)
                for (const one of model) {
                  if (
                    one.provider !== provider ||
                    one.state === 'missing' ||
                    !proved.some((cid) => cid.equals(one.cid))
                  )
                    continue
                  one.lastProof = Math.max(one.lastProof ?? 0, at)
                  one.state = 'healthy'
                }
              }
              const { contentId } = (await index.getObject('b', 'key'))!
              const [stored] = await index.getSegments(contentId, 0, 1)
              expect(stored!.segment.shards.map(({ state }) => state)).toEqual(model.map(({ state }) => state))
              for (const provider of ['p0', 'p1']) {
                const latest = new Map<string, CustodyRow>()
                for (const { cid, lastProof = -1, ...one } of model) {
                  if (one.provider !== provider || one.state === 'missing' || cid.code !== codecs.raw) continue
                  const known = latest.get(`${cid}`)?.lastProof ?? -1
                  const proof = Math.max(lastProof, known)
                  latest.set(`${cid}`, { cid, bytes: 100, lastProof: proof < 0 ? null : proof })
                }
                const expected = inOrder([...latest.values()])
                expect(await custody(provider, limit)).toEqual(expected)
                const old = expected.filter(({ lastProof }) => (lastProof ?? -1) < before)
                const listed = await index.listUnproved(provider, { before, limit: 100 })
                expect(inOrder(listed)).toEqual(old)
                const times = listed.map(({ lastProof }) => lastProof ?? -1)
                expect(times).toEqual([...times].sort((a, b) => a - b))
                expect(await index.listUnproved(provider, { before, limit })).toEqual(listed.slice(0, limit))
              }
            }
          ),
          { numRuns: 60 }
        )
      })
    })

    describe('proofs', () => {
      const shardsOf = async (key: string): Promise<ShardRecord[]> => {
        const { contentId } = (await index.getObject('b', key))!
        const [only] = await index.getSegments(contentId, 0, 1)
        return only!.segment.shards
      }

      test('are noted wherever the provider is to have the block, and never go back', async () => {
        const common = testCid('common')
        await put({ key: '1' }, [aSegment({ shards: [aShard({ cid: common }), aShard(), aShard()] })])
        await put({ key: '2' }, [
          aSegment({
            shards: [aShard(), aShard({ cid: common, lastProof: undefined }), aShard({ cid: common, provider: 'p1' })]
          })
        ])
        const proved = async () => [
          (await shardsOf('1')).map(({ lastProof }) => lastProof),
          (await shardsOf('2')).map(({ lastProof }) => lastProof)
        ]
        await index.recordProofs('p0', [common, testCid('unheard of')], 700)
        await index.recordProofs('nobody', [common], 800)
        await index.recordProofs('p0', [common], 600)
        await index.recordProofs('p0', [], 900)
        expect(await proved()).toEqual([
          [700, 100, 100],
          [100, 700, 100]
        ])
        await expect(index.recordProofs('p0', [common], Number.NaN)).rejects.toMatchObject({ code: 'BAD_INPUT' })
      })

      test('of nodes, which only reads can give, are noted as well', async () => {
        const cid = CID.decode(cidOfNode(codecs.dagCbor, Buffer.from('manifest')).bytes)
        await put({}, [aSegment({ shards: [aShard({ cid }), aShard(), aShard()] })])
        await index.recordProofs('p0', [cid], 700)
        expect((await shardsOf('key'))[0]).toMatchObject({ cid, lastProof: 700 })
      })

      test('end doubts, and take back no loss', async () => {
        const states = ['healthy', 'offline', 'contained', 'unknown', 'missing', 'wrong', 'withdrawn'] as const
        const shards = states.map((state) => aShard({ state }))
        const segment = aSegment({ k: 2, m: 5, shards })
        const { segmentIds } = await index.commitObject(anObject({ size: 100 }), { segments: [segment], blocks: [] })
        const cids = shards.map(({ cid }) => cid)
        await index.recordProofs('p0', cids, 700)
        const after = (await shardsOf('key')).map(({ state, lastProof }) => `${state} ${lastProof}`)
        const lost = ['missing 100', 'wrong 100', 'withdrawn 100']
        expect(after).toEqual([...Array(4).fill('healthy 700'), ...lost])
        expect(await index.listHolders()).toEqual([{ provider: 'p0', shards: 4, bytes: 200 }])
        const placed = { segmentId: segmentIds[0]!, provider: 'p0', leaseUntil: 5, at: 800 }
        await index.placeShards([4, 5, 6].map((at) => ({ ...placed, index: at, cid: cids[at]! })))
        await index.recordProofs('p0', cids, 900)
        expect((await shardsOf('key')).map(({ state, lastProof }) => `${state} ${lastProof}`)).toEqual(
          Array(7).fill('healthy 900')
        )
        expect(await index.totals()).toMatchObject({ incompleteSegments: 0 })
      })
    })

    describe('audits', () => {
      const state = (...bytes: number[]) => Uint8Array.of(...bytes)
      let asked = 0
      const aTranscript = (over: Partial<NewTranscript> = {}): NewTranscript => ({
        provider: 'p0',
        askedAt: ++asked,
        bytes: state(1, asked),
        signature: state(2, asked),
        outcomes: { ok: 3, missing: 1 },
        ...over
      })
      const all = async () => index.scanTranscripts({ after: 0, limit: 5000 })
      const ids = (rows: ReadonlyArray<{ id: number }>) => rows.map(({ id }) => id)
      /** Adds as many, and returns their ids. */
      const add = async (count: number, over: Partial<NewTranscript> = {}): Promise<number[]> => {
        await index.saveAudit({ transcripts: Array.from({ length: count }, () => aTranscript(over)) })
        return ids(await all()).slice(-count)
      }

      test('keep the state of the auditor and of each provider', async () => {
        expect(await index.loadAudit()).toEqual({ auditor: undefined, providers: [] })
        const providers = [
          { provider: 'p9', state: state() },
          { provider: 'p0', state: state(1, 0, 255) }
        ]
        await index.saveAudit({ auditor: state(7), providers })
        await index.saveAudit({})
        expect(await index.loadAudit()).toEqual({ auditor: state(7), providers: [...providers].reverse() })
        await index.saveAudit({
          auditor: state(),
          providers: [
            { provider: 'p0', state: state(2) },
            { provider: 'p9', state: null },
            { provider: 'nobody', state: null }
          ]
        })
        expect(await index.loadAudit()).toEqual({ auditor: state(), providers: [{ provider: 'p0', state: state(2) }] })
        expect(await index.listHolders()).toEqual([])
      })

      test('are saved wholly or not at all', async () => {
        const bad = [
          aTranscript({ outcomes: { ok: -1 } }),
          aTranscript({ outcomes: { ok: 0.5 } }),
          aTranscript({ provider: '' })
        ]
        for (const one of bad) {
          const save = { auditor: state(1), providers: [{ provider: 'p0', state: state(1) }] }
          await expect(index.saveAudit({ ...save, transcripts: [aTranscript(), one] })).rejects.toMatchObject({
            code: 'BAD_INPUT'
          })
        }
        expect(await index.loadAudit()).toEqual({ auditor: undefined, providers: [] })
        expect(await all()).toEqual([])
      })

      test('leave transcripts, which come back as they were, in order', async () => {
        const transcripts = [
          aTranscript(),
          aTranscript({ provider: 'p1', bytes: state(), signature: state(), outcomes: {} }),
          aTranscript({ askedAt: 0, bytes: new Uint8Array(100_000).fill(7) })
        ]
        await index.saveAudit({ transcripts: transcripts.slice(0, 1) })
        await index.saveAudit({ transcripts: transcripts.slice(1) })
        expect(await all()).toEqual(transcripts.map((one, at) => ({ id: at + 1, ...one })))
        expect(ids(await index.scanTranscripts({ after: 0, limit: 2 }))).toEqual([1, 2])
        expect(ids(await index.scanTranscripts({ after: 2, limit: 2 }))).toEqual([3])
        expect(await index.scanTranscripts({ after: 3, limit: 2 })).toEqual([])
        expect(await index.scanTranscripts({ after: 0, limit: 0 })).toEqual([])
      })

      test('list transcripts newest first, of all or of one provider', async () => {
        for (const provider of ['p0', 'p1', 'p0', 'p0', 'p1']) await add(1, { provider })
        const page = async (options: { before?: number; provider?: string; limit: number }) => {
          const { items, isTruncated } = await index.listTranscripts(options)
          return [ids(items), isTruncated]
        }
        expect((await index.listTranscripts({ limit: 1 })).items).toEqual((await all()).slice(-1))
        expect(await page({ limit: 5 })).toEqual([[5, 4, 3, 2, 1], false])
        expect(await page({ limit: 2 })).toEqual([[5, 4], true])
        expect(await page({ limit: 2, before: 4 })).toEqual([[3, 2], true])
        expect(await page({ limit: 2, before: 3 })).toEqual([[2, 1], false])
        expect(await page({ limit: 2, before: 1 })).toEqual([[], false])
        expect(await page({ limit: 3, provider: 'p0' })).toEqual([[4, 3, 1], false])
        expect(await page({ limit: 2, provider: 'p0' })).toEqual([[4, 3], true])
        expect(await page({ limit: 2, provider: 'p1', before: 5 })).toEqual([[2], false])
        expect(await page({ limit: 2, provider: 'nobody' })).toEqual([[], false])
        expect(await page({ limit: 0 })).toEqual([[], false])
      })

      test('keep transcripts for a time', async () => {
        for (const askedAt of [100, 300, 200, 400]) await add(1, { askedAt })
        await index.saveAudit({ keep: { since: 300, rowsMax: 100 } })
        expect(ids(await all())).toEqual([2, 4])
        // Those added by the same save are under the same rule.
        const transcripts = [aTranscript({ askedAt: 250 }), aTranscript({ askedAt: 500 })]
        await index.saveAudit({ transcripts, keep: { since: 300, rowsMax: 100 } })
        expect(ids(await all())).toEqual([2, 4, 6])
      })

      test('keep no more transcripts than they may, and never an id twice', async () => {
        expect(await add(5)).toEqual([1, 2, 3, 4, 5])
        await index.saveAudit({ keep: { since: 0, rowsMax: 5 } })
        expect(ids(await all())).toEqual([1, 2, 3, 4, 5])
        await index.saveAudit({ transcripts: [aTranscript()], keep: { since: 0, rowsMax: 3 } })
        expect(ids(await all())).toEqual([4, 5, 6])
        await index.saveAudit({ keep: { since: 0, rowsMax: 0 } })
        expect(await all()).toEqual([])
        expect(await add(2)).toEqual([7, 8])
        await index.saveAudit({ keep: { since: 1e9, rowsMax: 10 } })
        expect(await add(1)).toEqual([9])
      })

      test('drop a backlog of transcripts bit by bit, the oldest first', async () => {
        await add(2500)
        const keep = { since: 1e9, rowsMax: 10 }
        await index.saveAudit({ keep })
        expect(ids(await all())[0]).toBe(1001)
        await index.saveAudit({ keep: { since: 0, rowsMax: 10 } })
        expect(ids(await all())[0]).toBe(2001)
        await index.saveAudit({ keep })
        expect(await all()).toEqual([])
      })
    })

    test('totals count what is there', async () => {
      expect(await index.totals()).toEqual({
        buckets: 1,
        objects: 0,
        objectBytes: 0,
        segments: 0,
        shards: 0,
        incompleteSegments: 0
      })
      await put({}, [aSegment(), aSegment({ length: 11, providers: [undefined, 'p0', 'p1'] })], [aBlock()])
      await put({ key: 'empty' }, [])
      expect(await index.totals()).toEqual({
        buckets: 1,
        objects: 2,
        objectBytes: 111,
        segments: 3,
        shards: 8,
        incompleteSegments: 1
      })
      await put({ key: 'empty' }, [aSegment()])
      await put({}, [])
      expect(await index.totals()).toMatchObject({ objects: 2, objectBytes: 100, segments: 1, incompleteSegments: 0 })
    })

    test('access keys are made, found, listed and revoked', async () => {
      const other = anAccessKey({ accessKeyId: 'AK0', owner: 'bob', displayName: 'Bøb' })
      await index.createAccessKey(anAccessKey())
      await index.createAccessKey(other)
      await expect(index.createAccessKey(anAccessKey({ owner: 'eve' }))).rejects.toMatchObject({ code: 'BAD_INPUT' })
      expect(await index.getAccessKey('AK1')).toEqual(anAccessKey())
      expect(await index.getAccessKey('ak1')).toBeUndefined()
      expect(await index.listAccessKeys()).toEqual([other, anAccessKey()])
      expect(await index.revokeAccessKey('AK1')).toBe(true)
      expect(await index.revokeAccessKey('AK1')).toBe(false)
      expect(await index.getAccessKey('AK1')).toBeUndefined()
      await expect(index.createAccessKey(anAccessKey({ displayName: 'a\u0000b' }))).rejects.toMatchObject({
        code: 'BAD_INPUT'
      })
    })

    test('providers are remembered as they were last seen', async () => {
      const moved = aKnownProvider({
        dataUrls: ['https://10.0.0.1:1', 'https://10.0.0.2:1'],
        addresses: [],
        lastSeenAt: 9
      })
      await index.saveProviders([aKnownProvider(), aKnownProvider({ peerId: 'p1' })])
      await index.saveProviders([moved])
      await index.saveProviders([])
      expect(await index.listProviders()).toEqual([moved, aKnownProvider({ peerId: 'p1' })])
    })

    test('finds the segments that a provider has a block of; on demand also where it was lost or withdrawn', async () => {
      const [a, b, c] = [aSegment(), aSegment(), aSegment()] as const
      await put({}, [a, b, c])
      const [idOfA, idOfB] = (await index.listSegments({ afterId: 0, limit: 2 })).map(({ id }) => id) as [
        number,
        number
      ]
      const cids = [a, b].map(({ shards }) => shards[0]!.cid)
      const found = async (limit = 10, evenLost?: boolean): Promise<number[]> =>
        (await index.listSegmentsWith('p0', cids, limit, evenLost === undefined ? undefined : { evenLost }))
          .map(({ id }) => id)
          .sort((x, y) => x - y)
      expect(await found()).toEqual([idOfA, idOfB])
      expect(await found(1)).toHaveLength(1)
      expect(await index.listSegmentsWith('p1', cids, 10, { evenLost: true })).toEqual([])
      await index.markHolding('p0', cids[0]!, 'missing')
      await index.markHolding('p0', cids[1]!, 'withdrawn')
      expect(await found()).toEqual([])
      expect(await found(10, false)).toEqual([])
      expect(await found(10, true)).toEqual([idOfA, idOfB])
    })

    test('a closed index says so', async () => {
      const pending = put()
      await index.ping()
      await index.close()
      await pending
      await index.close()
      await expect(index.ping()).rejects.toMatchObject({ code: 'ABORTED' })
      await expect(index.createBucket(aBucket({ name: 'late' }))).rejects.toMatchObject({ code: 'ABORTED' })
      await expect(index.getObject('b', 'key')).rejects.toMatchObject({ code: 'ABORTED' })
    })
  })
}
