import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { cidOfShard } from '../../src/content/cid.ts'
import { BufferPool } from '../../src/provider/buffer-pool.ts'
import { FsShardStore } from '../../src/provider/fs-shard-store.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import { SqliteLeaseStore } from '../../src/provider/sqlite-lease-store.ts'
import { leaseStoreContract } from '../contracts/lease-store.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { shardStoreContract } from '../contracts/shard-store.ts'

const directories: string[] = []
const temporary = async (): Promise<string> => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-stores-'))
  directories.push(path)
  return path
}
const removeAll = async (): Promise<void> => {
  for (const path of directories.splice(0)) await rm(path, { recursive: true, force: true })
}
afterEach(removeAll)

shardStoreContract('MemoryShardStore', async () => ({ store: new MemoryShardStore(), cleanUp: async () => {} }))

shardStoreContract('FsShardStore', async () => {
  const path = await temporary()
  return { store: await FsShardStore.open(path), reopen: () => FsShardStore.open(path), cleanUp: removeAll }
})

leaseStoreContract('MemoryLeaseStore', async () => ({ store: new MemoryLeaseStore(), cleanUp: async () => {} }))

leaseStoreContract('SqliteLeaseStore', async () => {
  const path = join(await temporary(), 'leases.sqlite')
  let store = new SqliteLeaseStore(path)
  return {
    store,
    reopen: async () => {
      await store.close()
      store = new SqliteLeaseStore(path)
      return store
    },
    cleanUp: async () => {
      await store.close()
      await removeAll()
    }
  }
})

describe('MemoryShardStore', () => {
  test('pretends a disk of a given size', async () => {
    const store = new MemoryShardStore({ diskBytes: 100 })
    const [a, b] = [randomBytes(60), randomBytes(60)]
    await store.put(cidOfShard(a), a)
    expect(await codeOf(store.put(cidOfShard(b), b))).toBe('NO_SPACE')
    await store.delete(cidOfShard(a))
    await store.put(cidOfShard(b), b)
  })
})

describe('FsShardStore', () => {
  test('a block that was cut, or grew beyond the memory given, is read as it is', async () => {
    const path = await temporary()
    const store = await FsShardStore.open(path)
    const into = new BufferPool(1024 * 1024, 1).take()
    for (const length of [0, 100, 4096, 1024 * 1024 + 1]) {
      const cid = cidOfShard(randomBytes(1024 * 1024))
      await store.put(cid, randomBytes(10))
      const found = randomBytes(length)
      await writeFile(join(path, 'blocks', cid.toString().slice(-3, -1), cid.toString()), found)
      expect(Buffer.compare((await store.get(cid, into))!, found)).toBe(0)
    }
  })

  test('removes what a crash left half-written, and leaves foreign files alone', async () => {
    const path = await temporary()
    const store = await FsShardStore.open(path)
    const bytes = randomBytes(100)
    await store.put(cidOfShard(bytes), bytes)
    await writeFile(join(path, 'tmp', '17'), 'half a block')
    const [directory] = await readdir(join(path, 'blocks'))
    await writeFile(join(path, 'blocks', directory!, 'notes.txt'), 'not a block')
    await mkdir(join(path, 'blocks', 'zz-not-ours'))
    const again = await FsShardStore.open(path)
    expect(await readdir(join(path, 'tmp'))).toEqual([])
    const found = []
    for await (const block of again.list()) found.push(block)
    expect(found.map((it) => [it.cid.toString(), it.bytes])).toEqual([[cidOfShard(bytes).toString(), 100]])
  })

  test('a file that grew is not read beyond what a block may have', async () => {
    const path = await temporary()
    const store = await FsShardStore.open(path)
    const bytes = randomBytes(100)
    const cid = cidOfShard(bytes)
    await store.put(cid, bytes)
    await writeFile(join(path, 'blocks', cid.toString().slice(-3, -1), cid.toString()), new Uint8Array(5 * 1024 * 1024))
    expect((await store.get(cid))!.length).toBe(1024 * 1024 + 1)
  })

  test('a disk that takes no more is NO_SPACE, and nothing is left behind', async () => {
    const path = await temporary()
    // The limit on file size makes the kernel refuse to write, as a full disk would.
    const script = `
      import { readdirSync } from 'node:fs'
      import { randomBytes } from 'node:crypto'
      import { FsShardStore } from ${JSON.stringify(new URL('../../src/provider/fs-shard-store.ts', import.meta.url).href)}
      import { cidOfShard } from ${JSON.stringify(new URL('../../src/content/cid.ts', import.meta.url).href)}
      process.on('SIGXFSZ', () => {})
      const store = await FsShardStore.open(process.argv[1])
      const large = randomBytes(1024 * 1024), small = randomBytes(1000)
      const code = await store.put(cidOfShard(large), large).then(() => 'stored', (error) => error.code)
      await store.put(cidOfShard(small), small)
      const left = readdirSync(process.argv[1] + '/tmp')
      console.log(JSON.stringify({ code, left, large: await store.size(cidOfShard(large)) ?? null, small: await store.size(cidOfShard(small)) }))
    `
    const output = execFileSync(
      'bash',
      ['-c', 'ulimit -f 256; exec "$0" --no-warnings --input-type=module -e "$1" "$2"', process.execPath, script, path],
      { encoding: 'utf8' }
    )
    expect(JSON.parse(output)).toEqual({ code: 'NO_SPACE', left: [], large: null, small: 1000 })
  })
})

describe('SqliteLeaseStore', () => {
  test('one process at a time', async () => {
    const path = join(await temporary(), 'leases.sqlite')
    const store = new SqliteLeaseStore(path)
    expect(() => new SqliteLeaseStore(path)).toThrow(/another process/)
    await store.close()
    await new SqliteLeaseStore(path).close()
  })

  test('what a newer version wrote is left alone', async () => {
    const path = join(await temporary(), 'leases.sqlite')
    const { DatabaseSync } = await import('node:sqlite')
    const db = new DatabaseSync(path)
    db.exec('PRAGMA user_version = 99')
    db.close()
    expect(() => new SqliteLeaseStore(path)).toThrow(/newer version/)
  })

  test('a batch that fails leaves no lease, and the store goes on', async () => {
    const path = join(await temporary(), 'leases.sqlite')
    const store = new SqliteLeaseStore(path)
    const [good, bad] = [cidOfShard(randomBytes(1)), cidOfShard(randomBytes(1))]
    const settled = await Promise.allSettled([
      store.grant([{ cid: good, owner: 'a', until: 10, bytes: 1 }]),
      store.grant([{ cid: bad, owner: 'a', until: 1.5, bytes: 1 }]) // a strict table takes no such time
    ])
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(await store.totals()).toEqual({ leases: 0, blocks: 0, bytes: 0, lost: 0 })
    await store.grant([{ cid: good, owner: 'a', until: 10, bytes: 1 }])
    expect(await store.isLeased(good)).toBe(true)
    await store.close()
    expect(await codeOf(store.grant([{ cid: good, owner: 'a', until: 20, bytes: 1 }]))).toBe('ABORTED')
  })
})
