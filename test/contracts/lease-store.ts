import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import type { Lease, LeaseStore } from '../../src/provider/lease-store.ts'

export interface LeaseStoreFixture {
  store: LeaseStore
  /** Closes the store and opens it again; absent where nothing outlives the process. */
  reopen?: () => Promise<LeaseStore>
  cleanUp: () => Promise<void>
}

const cids = Array.from({ length: 8 }, () => cidOfShard(randomBytes(10)))
const texts = (found: readonly CID[]): string[] => found.map((cid) => cid.toString()).sort()

/** What every `LeaseStore` promises. */
export function leaseStoreContract(name: string, open: () => Promise<LeaseStoreFixture>): void {
  describe(`${name} as a LeaseStore`, () => {
    const fixtures: LeaseStoreFixture[] = []
    const opened = async (): Promise<LeaseStoreFixture> => {
      const fixture = await open()
      fixtures.push(fixture)
      return fixture
    }
    afterEach(async () => {
      for (const { cleanUp } of fixtures.splice(0)) await cleanUp()
    })
    const lease = (i: number, owner: string, until: number, bytes = 100): Lease => ({
      cid: cids[i]!,
      owner,
      until,
      bytes
    })

    test('grants, extends, and never shortens', async () => {
      const { store } = await opened()
      await store.grant([lease(0, 'a', 50)])
      await store.grant([lease(0, 'a', 80)])
      await store.grant([lease(0, 'a', 20)])
      expect(await store.get('a', cids[0]!)).toMatchObject({ owner: 'a', until: 80, bytes: 100 })
      expect(await store.get('b', cids[0]!)).toBeUndefined()
      expect(await store.isLeased(cids[0]!)).toBe(true)
      expect(await store.isLeased(cids[1]!)).toBe(false)
    })

    test('counts a block once, however many lease it', async () => {
      const { store } = await opened()
      await store.grant([lease(0, 'a', 50), lease(0, 'b', 60), lease(1, 'a', 50, 7)])
      expect(await store.totals()).toEqual({ leases: 3, blocks: 2, bytes: 107, lost: 0 })
      expect(await store.usedBytes()).toBe(107)
      expect(texts(await store.release('a', [cids[0]!, cids[1]!, cids[2]!]))).toEqual(texts([cids[1]!]))
      expect(await store.totals()).toEqual({ leases: 1, blocks: 1, bytes: 100, lost: 0 })
    })

    test('tells who leases how much, most first', async () => {
      const { store, reopen } = await opened()
      expect(await store.owners(10)).toEqual([])
      await store.grant([
        lease(0, 'a', 50),
        lease(0, 'a', 70),
        lease(0, 'b', 60),
        lease(1, 'b', 50, 7),
        lease(2, 'c', 9)
      ])
      const b = { owner: 'b', leases: 2, bytes: 107 }
      expect(await store.owners(10)).toEqual([
        b,
        { owner: 'a', leases: 1, bytes: 100 },
        { owner: 'c', leases: 1, bytes: 100 }
      ])
      expect(await store.owners(1)).toEqual([b])
      await store.expire(10, 100)
      await store.release('b', [cids[0]!])
      const left = [
        { owner: 'a', leases: 1, bytes: 100 },
        { owner: 'b', leases: 1, bytes: 7 }
      ]
      expect(await store.owners(10)).toEqual(left)
      if (reopen !== undefined) expect(await (await reopen()).owners(10)).toEqual(left)
    })

    test('lists the leases of one owner, a page at a time, each once', async () => {
      const { store, reopen } = await opened()
      expect(await store.list('a', { limit: 10 })).toEqual([])
      await store.grant([...cids.map((_, i) => lease(i, 'a', 50 + i)), lease(3, 'b', 9)])
      const inOrder = cids.toSorted((a, b) => Buffer.compare(a.bytes, b.bytes)).map(String)
      for (const open of [async () => store, ...(reopen === undefined ? [] : [reopen])]) {
        const it = await open()
        const listed: Lease[] = []
        for (let page: Lease[] = []; ; listed.push(...page)) {
          page = await it.list('a', { after: page.at(-1)?.cid, limit: 3 })
          if (page.length === 0) break
          expect(page.length).toBeLessThanOrEqual(3)
        }
        expect(listed.map(({ cid }) => cid.toString())).toEqual(inOrder)
        expect(listed.find(({ cid }) => cid.equals(cids[3]!))).toMatchObject({ owner: 'a', until: 53, bytes: 100 })
        expect(await it.list('b', { limit: 10 })).toMatchObject([{ owner: 'b', until: 9 }])
        expect(await it.list('nobody', { limit: 10 })).toEqual([])
      }
    })

    test('releasing ends one owner’s leases only, and again changes nothing', async () => {
      const { store } = await opened()
      await store.grant([lease(0, 'a', 50), lease(0, 'b', 60)])
      expect(await store.release('a', [cids[0]!])).toEqual([])
      expect(await store.release('a', [cids[0]!])).toEqual([])
      expect(await store.release('nobody', [cids[0]!])).toEqual([])
      expect(texts(await store.release('b', [cids[0]!]))).toEqual(texts([cids[0]!]))
    })

    test('evicts blocks from under all who lease them, and knew who they were', async () => {
      const { store, reopen } = await opened()
      await store.grant([lease(0, 'b', 50), lease(0, 'a', 60), lease(1, 'a', 50, 7)])
      expect(await store.ownersOf(cids[0]!)).toEqual(['a', 'b'])
      expect(await store.ownersOf(cids[2]!)).toEqual([])
      expect(texts(await store.evict([cids[0]!, cids[2]!]))).toEqual(texts([cids[0]!]))
      expect(await store.ownersOf(cids[0]!)).toEqual([])
      expect(await store.totals()).toEqual({ leases: 1, blocks: 1, bytes: 7, lost: 0 })
      expect(await store.owners(10)).toEqual([{ owner: 'a', leases: 1, bytes: 7 }])
      expect(await store.evict([cids[0]!])).toEqual([])
      if (reopen !== undefined)
        expect(await (await reopen()).totals()).toEqual({ leases: 1, blocks: 1, bytes: 7, lost: 0 })
    })

    test('expires what ran out before now, at most so many', async () => {
      const { store } = await opened()
      await store.grant([lease(0, 'a', 10), lease(1, 'a', 20), lease(2, 'a', 30), lease(2, 'b', 10)])
      expect(await store.expire(10, 100)).toEqual({ ended: 0, freed: [] })
      const first = await store.expire(25, 2)
      const second = await store.expire(25, 2)
      expect([first.ended, second.ended]).toEqual([2, 1])
      expect(texts([...first.freed, ...second.freed])).toEqual(texts([cids[0]!, cids[1]!]))
      expect(await store.expire(25, 2)).toEqual({ ended: 0, freed: [] })
      expect(await store.totals()).toEqual({ leases: 1, blocks: 1, bytes: 100, lost: 0 })
    })

    test('a lost block counts no longer, until it is found or its last lease ends', async () => {
      const { store, reopen } = await opened()
      await store.grant([lease(0, 'a', 50), lease(0, 'b', 60), lease(1, 'a', 50, 7), lease(2, 'a', 50, 9)])
      expect(texts(await store.lose([cids[0]!, cids[1]!, cids[3]!], 'rotten'))).toEqual(texts([cids[0]!, cids[1]!]))
      expect(await store.lose([cids[0]!], 'missing')).toEqual([]) // known already
      expect(await store.totals()).toEqual({ leases: 4, blocks: 1, bytes: 9, lost: 2 })
      expect(await store.usedBytes()).toBe(9)
      expect(await store.lossOf(cids[0]!)).toBe('rotten')
      expect(await store.lossOf(cids[2]!)).toBeUndefined()
      expect(await store.lossOf(cids[3]!)).toBeUndefined()
      await store.grant([lease(0, 'b', 90), lease(0, 'c', 90)]) // leases alone bring nothing back
      expect(await store.totals()).toEqual({ leases: 5, blocks: 1, bytes: 9, lost: 2 })
      const again = (await reopen?.()) ?? store
      expect(await again.totals()).toEqual({ leases: 5, blocks: 1, bytes: 9, lost: 2 })
      expect(await again.lengthOf(cids[0]!)).toBe(100)
      await again.find(cids[0]!)
      await again.find(cids[2]!)
      expect(await again.totals()).toEqual({ leases: 5, blocks: 2, bytes: 109, lost: 1 })
      expect(texts(await again.release('a', [cids[1]!]))).toEqual(texts([cids[1]!]))
      expect(await again.totals()).toEqual({ leases: 4, blocks: 2, bytes: 109, lost: 0 })
      await again.grant([lease(1, 'a', 50, 7)])
      expect(await again.lossOf(cids[1]!)).toBeUndefined()
    })

    test('lists blocks in an order that lasts, a page at a time, and lost ones apart', async () => {
      const { store } = await opened()
      await store.grant(cids.flatMap((_, i) => [lease(i, 'a', 50, i), lease(i, 'b', 50, i)]))
      await store.lose([cids[2]!, cids[5]!], 'missing')
      const listed = async (page: LeaseStore['blocks'], limit: number): Promise<Array<{ cid: CID; bytes: number }>> => {
        const found = []
        for (let after: CID | undefined; ; after = found.at(-1)!.cid) {
          const blocks = await page(after, limit)
          expect(blocks.length).toBeLessThanOrEqual(limit)
          if (blocks.length === 0) return found
          found.push(...blocks)
        }
      }
      const sorted = cids.map((cid, bytes) => ({ cid, bytes })).sort((a, b) => Buffer.compare(a.cid.bytes, b.cid.bytes))
      const isLost = ({ bytes }: { bytes: number }): boolean => bytes === 2 || bytes === 5
      const plain = (blocks: ReadonlyArray<{ cid: CID; bytes: number }>) => blocks.map((it) => [`${it.cid}`, it.bytes])
      for (const limit of [1, 3, 100]) {
        expect(plain(await listed((...args) => store.blocks(...args), limit))).toEqual(
          plain(sorted.filter((it) => !isLost(it)))
        )
        expect(plain(await listed((...args) => store.losses(...args), limit))).toEqual(plain(sorted.filter(isLost)))
      }
    })

    test('remembers orphans since when they were first found, over restarts', async () => {
      const { store, reopen } = await opened()
      await store.noteOrphans([cids[0]!, cids[1]!], 10)
      await store.noteOrphans([cids[1]!, cids[2]!], 20)
      const again = (await reopen?.()) ?? store
      expect(await again.orphansSince(9, 10)).toEqual([])
      expect(texts(await again.orphansSince(10, 10))).toEqual(texts([cids[0]!, cids[1]!]))
      expect(texts(await again.orphansSince(30, 10))).toEqual(texts(cids.slice(0, 3)))
      expect(await again.orphansSince(30, 2)).toHaveLength(2)
      await again.forgetOrphans([cids[1]!, cids[5]!])
      expect(texts(await again.orphansSince(30, 10))).toEqual(texts([cids[0]!, cids[2]!]))
    })

    test('grants made together are all there when they resolve', async () => {
      const { store, reopen } = await opened()
      await Promise.all(cids.flatMap((_, i) => ['a', 'b', 'c'].map((owner) => store.grant([lease(i, owner, 1000)]))))
      expect(await store.totals()).toEqual({ leases: 24, blocks: 8, bytes: 800, lost: 0 })
      if (reopen === undefined) return
      const again = await reopen()
      expect(await again.totals()).toEqual({ leases: 24, blocks: 8, bytes: 800, lost: 0 })
      expect(await again.get('b', cids[3]!)).toMatchObject({ until: 1000 })
    })

    test('agrees with a plain model, whatever is done to it', async () => {
      const step = fc.record({
        op: fc.constantFrom('grant', 'release', 'expire', 'evict', 'lose', 'find'),
        cid: fc.nat(cids.length - 1),
        owner: fc.constantFrom('a', 'b', 'c'),
        time: fc.nat(20)
      })
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
          const { store } = await opened()
          const model = new Map<string, { cid: number; until: number }>()
          const lost = new Set<number>()
          const isLeased = (i: number): boolean => [...model.values()].some(({ cid }) => cid === i)
          for (const { op, cid, owner, time } of steps) {
            const key = `${owner}${cid}`
            if (op === 'grant') {
              await store.grant([lease(cid, owner, time)])
              model.set(key, { cid, until: Math.max(time, model.get(key)?.until ?? 0) })
            } else if (op === 'release') {
              const had = model.delete(key)
              expect(texts(await store.release(owner, [cids[cid]!]))).toEqual(
                texts(had && !isLeased(cid) ? [cids[cid]!] : [])
              )
            } else if (op === 'lose') {
              const isNews = isLeased(cid) && !lost.has(cid)
              if (isNews) lost.add(cid)
              expect(texts(await store.lose([cids[cid]!], 'missing'))).toEqual(texts(isNews ? [cids[cid]!] : []))
            } else if (op === 'find') {
              lost.delete(cid)
              await store.find(cids[cid]!)
            } else if (op === 'evict') {
              const wasLeased = isLeased(cid)
              for (const [ended, it] of [...model]) if (it.cid === cid) model.delete(ended)
              expect(texts(await store.evict([cids[cid]!]))).toEqual(texts(wasLeased ? [cids[cid]!] : []))
            } else {
              const due = [...model].filter(([, { until }]) => until < time)
              for (const [ended] of due) model.delete(ended)
              const freed = new Set(due.map(([, it]) => it.cid).filter((i) => !isLeased(i)))
              const expired = await store.expire(time, 100)
              expect(expired.ended).toBe(due.length)
              expect(texts(expired.freed)).toEqual(texts([...freed].map((i) => cids[i]!)))
            }
            for (const i of lost) if (!isLeased(i)) lost.delete(i)
          }
          const blocks = new Set([...model.values()].map(({ cid }) => cid)).size
          const held = blocks - lost.size
          const totals = { leases: model.size, blocks: held, bytes: 100 * held, lost: lost.size }
          expect(await store.totals()).toEqual(totals)
          const owners = await store.owners(10)
          expect(owners.reduce((sum, { leases }) => sum + leases, 0)).toBe(model.size)
          expect(owners.map(({ owner }) => owner).sort()).toEqual(
            [...new Set([...model.keys()].map((key) => key[0]!))].sort()
          )
          for (const [i, cid] of cids.entries()) expect(await store.isLeased(cid)).toBe(isLeased(i))
        }),
        { numRuns: 20 }
      )
    })
  })
}
