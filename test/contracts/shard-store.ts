import { randomBytes, randomFillSync } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import { cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { BufferPool } from '../../src/provider/buffer-pool.ts'
import type { ShardStore } from '../../src/provider/shard-store.ts'

export interface ShardStoreFixture {
  store: ShardStore
  /** A second view of the same blocks, as a restarted process would have; absent where nothing outlives the process. */
  reopen?: () => Promise<ShardStore>
  cleanUp: () => Promise<void>
}

/** What every `ShardStore` promises. */
export function shardStoreContract(name: string, open: () => Promise<ShardStoreFixture>): void {
  describe(`${name} as a ShardStore`, () => {
    const fixtures: ShardStoreFixture[] = []
    const opened = async (): Promise<ShardStoreFixture> => {
      const fixture = await open()
      fixtures.push(fixture)
      return fixture
    }
    afterEach(async () => {
      for (const { cleanUp } of fixtures.splice(0)) await cleanUp()
    })

    const listed = async (store: ShardStore): Promise<Map<string, number>> => {
      const found = new Map<string, number>()
      for await (const { cid, bytes } of store.list()) found.set(cid.toString(), bytes)
      return found
    }

    test('gives back what was put, by kind and size', async () => {
      const { store } = await opened()
      for (const length of [0, 1, 4096, 1024 * 1024]) {
        const bytes = randomBytes(length)
        for (const cid of [cidOfShard(bytes), cidOfNode(codecs.dagPb, bytes), cidOfNode(codecs.dagCbor, bytes)]) {
          expect(await store.get(cid)).toBeUndefined()
          expect(await store.size(cid)).toBeUndefined()
          await store.put(cid, bytes)
          expect(Buffer.compare((await store.get(cid))!, bytes)).toBe(0)
          expect(await store.size(cid)).toBe(length)
        }
      }
    })

    test('gives back what was put in memory of the caller, again and again', async () => {
      const { store } = await opened()
      const pool = new BufferPool(1024 * 1024, 2)
      const [from, into] = [pool.take(), pool.take()]
      for (const length of [1, 4095, 4096, 5000, 64 * 1024, 1024 * 1024 - 1, 1024 * 1024]) {
        const bytes = from.subarray(0, length)
        randomFillSync(bytes)
        const cid = cidOfShard(bytes)
        await store.put(cid, bytes)
        const before = Buffer.from(bytes)
        from.fill(0)
        for (const memory of [into, into, into.subarray(0, 4096), into.subarray(1)]) {
          into.fill(1)
          expect(Buffer.compare((await store.get(cid, memory))!, before)).toBe(0)
        }
      }
    })

    test('does not see the caller change its buffer afterwards', async () => {
      const { store } = await opened()
      const bytes = randomBytes(100)
      const before = Uint8Array.from(bytes)
      const cid = cidOfShard(bytes)
      await store.put(cid, bytes)
      bytes.fill(0)
      expect(Buffer.compare((await store.get(cid))!, before)).toBe(0)
    })

    test('put is idempotent, and heals what is damaged', async () => {
      const { store } = await opened()
      const bytes = randomBytes(1000)
      const cid = cidOfShard(bytes)
      await store.put(cid, randomBytes(700)) // a store does not judge
      await store.put(cid, bytes)
      await store.put(cid, bytes)
      expect(Buffer.compare((await store.get(cid))!, bytes)).toBe(0)
      expect(await listed(store)).toEqual(new Map([[cid.toString(), 1000]]))
    })

    test('the same block put many times at once ends up there once', async () => {
      const { store } = await opened()
      const bytes = randomBytes(10_000)
      const cid = cidOfShard(bytes)
      await Promise.all(Array.from({ length: 20 }, () => store.put(cid, bytes)))
      expect(Buffer.compare((await store.get(cid))!, bytes)).toBe(0)
      expect((await listed(store)).size).toBe(1)
    })

    test('lists every block with its size, and none that was deleted', async () => {
      const { store } = await opened()
      const blocks = Array.from({ length: 150 }, (_, i) => randomBytes(i + 1))
      await Promise.all(blocks.map((bytes) => store.put(cidOfShard(bytes), bytes)))
      for (const bytes of blocks.slice(0, 50)) await store.delete(cidOfShard(bytes))
      const kept = blocks.slice(50)
      expect(await listed(store)).toEqual(new Map(kept.map((bytes) => [cidOfShard(bytes).toString(), bytes.length])))
    })

    test('deleting twice, or what never was, is fine', async () => {
      const { store } = await opened()
      const bytes = randomBytes(10)
      const cid = cidOfShard(bytes)
      await store.delete(cid)
      await store.put(cid, bytes)
      await store.delete(cid)
      await store.delete(cid)
      expect(await store.get(cid)).toBeUndefined()
    })

    test('what was put is there after a restart, where the store outlives one', async () => {
      const { store, reopen } = await opened()
      if (reopen === undefined) return
      const bytes = randomBytes(5000)
      await store.put(cidOfShard(bytes), bytes)
      const again = await reopen()
      expect(Buffer.compare((await again.get(cidOfShard(bytes)))!, bytes)).toBe(0)
      expect((await listed(again)).size).toBe(1)
    })
  })
}
