/** What every `RepairIndex` must do: part of `metadata-index.ts`. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseCid } from '../../src/content/cid.ts'
import type { HeldCursor, MetadataIndex } from '../../src/metadata/index-store.ts'
import type { SegmentRecord, ShardState } from '../../src/metadata/records.ts'
import { aBucket, anObject, aSegment, aShard, testCid } from '../support/records.ts'

/** @param open a new, empty index each time */
export function repairIndexContract(name: string, open: () => Promise<MetadataIndex>): void {
  describe(`${name} as an index of repairs`, () => {
    let index: MetadataIndex
    beforeEach(async () => {
      index = await open()
      await index.createBucket(aBucket())
    })
    afterEach(() => index.close())

    let keys = 0
    const put = async (segments: SegmentRecord[], key = `k${keys++}`): Promise<number[]> =>
      (
        await index.commitObject(anObject({ key, size: segments.reduce((sum, { length }) => sum + length, 0) }), {
          segments,
          blocks: []
        })
      ).segmentIds
    const states = async (id: number): Promise<ShardState[]> =>
      (await index.getSegment(id))!.shards.map(({ state }) => state)

    describe('claims', () => {
      const until = 1000
      const claim = (claimant: string, ids: number[], now: number, end = now + until) =>
        index.claimSegments(ids, { claimant, until: end, now })

      test('are one claimant’s at a time, until they end', async () => {
        const [a, b] = (await put([aSegment(), aSegment()])) as [number, number]
        expect(await claim('x', [a], 0)).toEqual([a])
        expect(await claim('y', [a, b], 1)).toEqual([b])
        expect(await claim('x', [a, b], 2)).toEqual([a]) // extended: until 1002 now
        expect(await claim('y', [a], 1001)).toEqual([])
        expect(await claim('y', [a], 1002)).toEqual([a])
        expect(await claim('x', [a], 1003)).toEqual([])
      })

      test('are given back by whoever has them', async () => {
        const [a] = (await put([aSegment()])) as [number]
        await claim('x', [a], 0)
        await index.unclaimSegments([a], 'y')
        expect(await claim('y', [a], 1)).toEqual([])
        await index.unclaimSegments([a, 12345], 'x')
        expect(await claim('y', [a], 1)).toEqual([a])
      })

      test('of the dead are given back by how their name begins', async () => {
        const [a, b] = (await put([aSegment(), aSegment()])) as [number, number]
        await claim('gateway:1', [a], 0)
        await claim('gateway%:1', [b], 0)
        await index.endClaims('gateway:')
        expect(await claim('y', [a, b], 1)).toEqual([a])
      })

      test('are of segments that exist, and go with them', async () => {
        const [a] = (await put([aSegment()], 'gone')) as [number]
        expect(await claim('x', [a, a + 1], 0)).toEqual([a])
        await index.deleteObject('b', 'gone')
        for (let i = 0; i < 10 && (await index.getSegment(a)) !== undefined; i++) await index.totals()
        expect(await claim('x', [a], 0)).toEqual([])
        expect(await claim('x', [], 0)).toEqual([])
      })
    })

    describe('segments of a provider', () => {
      const pages = async (
        provider: string,
        limit: number,
        between: () => Promise<void> = async () => {}
      ): Promise<number[]> => {
        const seen: number[] = []
        let after: HeldCursor | undefined
        for (let i = 0; i < 100; i++) {
          const page = await index.listHeldSegments(provider, { after, limit })
          expect(page.segments.length).toBeLessThanOrEqual(limit)
          seen.push(...page.segments.map(({ id }) => id))
          if (page.next === undefined) return seen
          after = page.next
          await between()
        }
        throw new Error('no end of pages')
      }

      test('are listed in pages, without those that it has lost', async () => {
        const ids = await put(Array.from({ length: 7 }, () => aSegment()))
        await put([aSegment({ providers: ['p5', 'p6', 'p7'] })])
        for (const [i, state] of (['missing', 'wrong', 'withdrawn'] as const).entries())
          await index.markShard({ segmentId: ids[i]!, index: 0 }, 'p0', state)
        for (const limit of [1, 2, 3, 4, 100]) expect((await pages('p0', limit)).sort()).toEqual(ids.slice(3))
        expect(await pages('nobody', 10)).toEqual([])
        expect((await index.listHeldSegments('p1', { limit: 100 })).segments[0]).toEqual(
          await index.getSegment(ids[0]!)
        )
      })

      test('name a segment once in a page, however many shards of it are there', async () => {
        const [id] = (await put([aSegment({ providers: ['p0', 'p0', 'p0'] })])) as [number]
        expect(await pages('p0', 1)).toEqual([id])
      })

      test('leave out none that stays while others are renewed or placed', async () => {
        const ids = await put(Array.from({ length: 9 }, () => aSegment()))
        let leaseUntil = 20_000
        const seen = await pages('p0', 2, async () => {
          const [due] = await index.listLeasesDue('p0', 20_000, 1)
          if (due !== undefined) await index.renewed('p0', [due.cid], ++leaseUntil)
        })
        expect([...new Set(seen)].sort()).toEqual([...ids].sort())
      })

      test('are found by the blocks that it has of them', async () => {
        const shared = testCid('shared')
        const ids = await put(
          [1, 2, 3].map((n) => aSegment({ shards: [aShard({ cid: shared }), aShard({ provider: `q${n}` }), aShard()] }))
        )
        const found = async (...args: Parameters<MetadataIndex['listSegmentsWith']>): Promise<number[]> =>
          (await index.listSegmentsWith(...args)).map(({ id }) => id).sort()
        expect(await found('p0', [shared], 10)).toEqual(ids)
        expect(await found('p0', [shared, shared], 2)).toHaveLength(2)
        expect(await found('q1', [shared], 10)).toEqual([])
        await index.markShard({ segmentId: ids[1]!, index: 0 }, 'p0', 'missing')
        expect(await found('p0', [shared, testCid('none')], 10)).toEqual([ids[0], ids[2]])
      })
    })

    test('all segments are listed by id, in pages', async () => {
      const ids = await put(Array.from({ length: 5 }, () => aSegment()))
      const page = async (afterId: number, limit: number): Promise<number[]> =>
        (await index.listSegments({ afterId, limit })).map(({ id }) => id)
      expect(await page(0, 3)).toEqual(ids.slice(0, 3))
      expect(await page(ids[2]!, 3)).toEqual(ids.slice(3))
      expect(await page(ids[4]!, 3)).toEqual([])
    })

    describe('refusals', () => {
      const signed = Uint8Array.of(1)

      test('withdraw what the provider was to have, and say of which segments', async () => {
        const segment = aSegment()
        const [a] = (await put([segment])) as [number]
        const cid = segment.shards[0]!.cid
        expect(await index.recordRefusals([{ provider: 'p0', cid, at: 5, signed }], 10)).toEqual([a])
        expect(await states(a)).toEqual(['withdrawn', 'healthy', 'healthy'])
        expect((await index.listIncomplete({ afterId: 0, limit: 9 })).map(({ id }) => id)).toEqual([a])
        // Once is enough; and who never had it may refuse it too.
        expect(await index.recordRefusals([{ provider: 'p0', cid, at: 6, signed }], 11)).toEqual([])
        expect(await index.recordRefusals([{ provider: 'p9', cid, at: 6, signed }], 11)).toEqual([])
        expect(await index.listRefusals([cid, segment.shards[1]!.cid])).toEqual([
          { provider: 'p0', cid, at: 6 },
          { provider: 'p9', cid, at: 6 }
        ])
      })

      test('are the newest of each provider and block, and outlive the content', async () => {
        const cid = testCid('not here')
        await index.recordRefusals([{ provider: 'p0', cid, at: 6, signed }], 0)
        await index.recordRefusals([{ provider: 'p0', cid, at: 5, signed }], 0)
        expect(await index.listRefusals([parseCid(cid.toString())])).toEqual([{ provider: 'p0', cid, at: 6 }])
        expect(await index.listRefusals([])).toEqual([])
      })
    })

    describe('accounts', () => {
      const earned = async (): Promise<Record<string, number>> =>
        Object.fromEntries((await index.listAccounts()).map(({ provider, byteMs }) => [provider, byteMs]))

      test('add what was kept times how long, from the first time on', async () => {
        await put([aSegment({ length: 100 })]) // shards of 50 bytes
        await index.accrue(1000)
        expect(await earned()).toEqual({ p0: 0, p1: 0, p2: 0 })
        await index.accrue(1010)
        await put([aSegment({ length: 100, providers: ['p0', 'p3', 'p4'] })])
        await index.accrue(1020)
        expect(await earned()).toMatchObject({ p0: 500 + 1000, p1: 1000, p2: 1000 })
      })

      test('neither earn nor lose by a clock that is set back', async () => {
        await put([aSegment({ length: 100 })])
        await index.accrue(1000)
        await index.accrue(1010)
        await index.accrue(500)
        expect((await earned()).p0).toBe(500)
        await index.accrue(510)
        expect((await earned()).p0).toBe(1000)
        await expect(index.accrue(-1)).rejects.toMatchObject({ code: 'BAD_INPUT' })
        await expect(index.accrue(1.5)).rejects.toMatchObject({ code: 'BAD_INPUT' })
      })

      test('are up to date when a refusal ends what is kept', async () => {
        const segment = aSegment({ length: 100 })
        await put([segment])
        await index.accrue(1000)
        const refusal = { provider: 'p0', cid: segment.shards[0]!.cid, at: 0, signed: Uint8Array.of(1) }
        await index.recordRefusals([refusal], 1010)
        await index.accrue(2000)
        expect((await earned()).p0).toBe(500)
      })
    })

    test('comings and goings are kept by provider, and forgotten', async () => {
      const [one, two] = [Uint8Array.of(1), Uint8Array.of(2, 3)]
      await index.savePresence([
        { provider: 'p1', state: one },
        { provider: 'p0', state: one }
      ])
      await index.savePresence([{ provider: 'p1', state: two }])
      expect(await index.loadPresence()).toEqual([
        { provider: 'p0', state: one },
        { provider: 'p1', state: two }
      ])
      await index.savePresence([
        { provider: 'p0', state: null },
        { provider: 'nobody', state: null }
      ])
      expect(await index.loadPresence()).toEqual([{ provider: 'p1', state: two }])
    })
  })
}
