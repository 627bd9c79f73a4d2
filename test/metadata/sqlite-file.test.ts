/** What only a file can show: kills, restarts, modes, formats and damage. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { cidOfNode, codecs } from '../../src/content/cid.ts'
import type { AuditSave, MetadataIndex } from '../../src/metadata/index-store.ts'
import { applicationId, migrate, migrations } from '../../src/metadata/migrations.ts'
import { Database } from '../../src/metadata/sqlite/database.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import {
  aBlock,
  aBucket,
  aKnownProvider,
  anAccessKey,
  anObject,
  anUpload,
  aPart,
  aSegment,
  testCid
} from '../support/records.ts'

let directory: string
let path: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-index-'))
  path = join(directory, 'index.db')
})
afterEach(() => rm(directory, { recursive: true }))

const anAudit = (): AuditSave => ({
  auditor: Uint8Array.of(1),
  providers: [{ provider: 'p0', state: Uint8Array.of(2) }],
  transcripts: [
    { provider: 'p0', askedAt: 5, bytes: Uint8Array.of(3), signature: Uint8Array.of(4), outcomes: { ok: 2 } }
  ]
})
const content = () => ({ segments: [aSegment()], blocks: [aBlock()] })

async function withIndex<T>(work: (index: MetadataIndex) => Promise<T>, options = {}): Promise<T> {
  const index = await openSqliteIndex(path, options)
  try {
    return await work(index)
  } finally {
    await index.close()
  }
}

/** Changes the file behind the index's back. */
function tamper(...statements: string[]): void {
  const sqlite = new DatabaseSync(path)
  sqlite.exec('PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON')
  for (const statement of statements) sqlite.exec(statement)
  sqlite.close()
}

async function queueLength(index: MetadataIndex): Promise<number> {
  let length = 0
  for (const provider of await index.listReleaseProviders()) length += (await index.listReleases(provider, 100)).length
  return length
}

describe('what was acknowledged', () => {
  test('survives kill -9 in the middle of concurrent commits', async () => {
    await withIndex((index) => index.createBucket(aBucket()))
    const acknowledged: string[] = []
    for (const round of ['1', '2', '3']) {
      const script = fileURLToPath(new URL('commit-loop.ts', import.meta.url))
      const child = spawn(process.execPath, ['--no-warnings', script, path, round], {
        stdio: ['ignore', 'pipe', 'inherit']
      })
      let output = ''
      child.stdout.on('data', (chunk) => {
        output += chunk
        if (output.split('\n').length > 100) child.kill('SIGKILL')
      })
      const [, signal] = await once(child, 'close')
      expect(signal).toBe('SIGKILL')
      acknowledged.push(...output.split('\n').slice(0, -1))
    }
    expect(acknowledged.length).toBeGreaterThanOrEqual(300)
    await withIndex(async (index) => {
      for (const key of acknowledged) {
        const object = await index.getObject('b', key)
        expect(await index.getSegments(object!.contentId, 0, 100), key).toHaveLength(1)
        expect(await index.getBlocks(object!.contentId), key).toHaveLength(1)
      }
      // At most one object a lane was committed and not yet heard of; nothing else came into being.
      const { objects, segments, shards } = await index.totals()
      expect(objects).toBeLessThanOrEqual(acknowledged.length + 3 * 4)
      expect([segments, shards]).toEqual([2 * objects, 5 * objects])
      expect(await queueLength(index)).toBe(0)
    })
  })

  test('is there after a restart, all of it', async () => {
    const before = await withIndex(async (index) => {
      await index.createBucket(aBucket())
      const committed = await index.commitObject(anObject({ size: 100 }), content())
      await index.createUpload(anUpload())
      await index.commitPart('upload-1', aPart(), [aSegment()])
      await index.createAccessKey(anAccessKey())
      await index.saveProviders([aKnownProvider()])
      await index.queueReleases([{ provider: 'p7', cid: testCid('stray') }])
      await index.saveAudit(anAudit())
      return { committed, ...(await dump(index, committed.contentId)) }
    })
    await withIndex(async (index) => {
      expect({ committed: before.committed, ...(await dump(index, before.committed.contentId)) }).toEqual(before)
    })
  })

  async function dump(index: MetadataIndex, contentId: number) {
    return {
      buckets: await index.listBuckets('alice', { prefix: '', after: '', limit: 10 }),
      objects: await index.listObjects('b', { prefix: '', after: '', limit: 10 }),
      segments: await index.getSegments(contentId, 0, 100),
      blocks: await index.getBlocks(contentId),
      uploads: await index.listUploads('b', { prefix: '', afterKey: '', afterUploadId: '', limit: 10 }),
      parts: await index.listParts('upload-1', { after: 0, limit: 10 }),
      partSegments: await index.getPartSegments('upload-1', [1]),
      keys: await index.listAccessKeys(),
      providers: await index.listProviders(),
      holders: await index.listHolders(),
      releases: (await index.listReleases('p7', 10)).map(String),
      totals: await index.totals(),
      custody: await index.listCustody('p0', { limit: 10 }),
      unproved: await index.listUnproved('p0', { before: 1e9, limit: 10 }),
      audit: await index.loadAudit(),
      transcripts: await index.listTranscripts({ limit: 10 })
    }
  }

  test('never gets the id of something that is gone', async () => {
    const first = await withIndex(async (index) => {
      await index.createBucket(aBucket())
      const committed = await index.commitObject(anObject({ size: 100 }), content())
      await index.deleteObject('b', 'key')
      await index.saveAudit(anAudit())
      await index.saveAudit({ keep: { since: 0, rowsMax: 0 } })
      return committed
    })
    await withIndex(async (index) => {
      await index.saveAudit(anAudit())
      expect((await index.scanTranscripts({ after: 0, limit: 9 })).map(({ id }) => id)).toEqual([2])
      const second = await index.commitObject(anObject({ size: 100 }), content())
      expect(second.contentId).toBeGreaterThan(first.contentId)
      expect(second.segmentIds[0]).toBeGreaterThan(first.blockIds[0]!)
    })
  })
})

describe('deleted content', () => {
  const deletePinned = (options = {}) =>
    withIndex(async (index) => {
      await index.createBucket(aBucket())
      const { contentId } = await index.commitObject(anObject({ size: 100 }), content())
      index.pinContent(contentId)
      await index.deleteObject('b', 'key')
      expect(await queueLength(index)).toBe(0)
    }, options)

  test('that a reader held when the process ended is released at the next start', async () => {
    await deletePinned()
    await withIndex(async (index) => {
      expect(await queueLength(index)).toBe(5)
      expect(await index.totals()).toMatchObject({ segments: 0, shards: 0 })
    })
  })

  test('is left to the serving process by a tool beside it', async () => {
    await deletePinned()
    const isServing = false
    await withIndex(
      async (tool) => {
        expect(await queueLength(tool)).toBe(0)
        await tool.commitObject(anObject({ size: 100 }), content())
        await tool.deleteObject('b', 'key')
        expect(await queueLength(tool)).toBe(0)
      },
      { isServing }
    )
    await withIndex(async (index) => expect(await queueLength(index)).toBe(10))
  })

  test('of many segments goes on being dropped after a restart', async () => {
    await withIndex(async (index) => {
      await index.createBucket(aBucket())
      const segments = Array.from({ length: 1000 }, () => aSegment())
      await index.commitObject(anObject({ size: 100_000 }), { segments, blocks: [] })
      await index.deleteObject('b', 'key')
    })
    await withIndex(async (index) => {
      await vi.waitFor(async () => expect(await index.totals()).toMatchObject({ segments: 0, shards: 0 }))
    })
  })
})

test('two processes may write, and see each other', async () => {
  await withIndex(async (gateway) => {
    await gateway.createBucket(aBucket())
    await withIndex((tool) => tool.createAccessKey(anAccessKey()), { isServing: false })
    expect(await gateway.getAccessKey('AK1')).toEqual(anAccessKey())
    await gateway.createBucket(aBucket({ name: 'second' }))
  })
})

describe('the file', () => {
  test('is for its owner alone, and so are its log and shared memory', async () => {
    await withIndex(async (index) => {
      await index.createBucket(aBucket())
      const names = await readdir(directory)
      expect(names.sort()).toEqual(['index.db', 'index.db-shm', 'index.db-wal'])
      for (const name of names) expect((await stat(join(directory, name))).mode & 0o777, name).toBe(0o600)
    })
    await chmod(path, 0o644)
    await withIndex((index) => index.ping())
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  test('says what it is', async () => {
    await withIndex((index) => index.ping())
    const header = await readFile(path)
    expect(header.readUInt32BE(68)).toBe(applicationId)
    expect(header.readUInt32BE(60)).toBe(migrations.length)
  })

  test('of a newer version is refused, and left as it is', async () => {
    await withIndex((index) => index.createBucket(aBucket()))
    tamper(`PRAGMA user_version = ${migrations.length + 1}`)
    await expect(openSqliteIndex(path)).rejects.toMatchObject({
      code: 'BAD_CONFIG',
      message: expect.stringMatching(/newer version.*upgrade/)
    })
    tamper(`PRAGMA user_version = ${migrations.length}`)
    await withIndex(async (index) => expect(await index.getBucket('b')).toEqual(aBucket()))
  })

  test('of another program is refused, and left as it is', async () => {
    tamper('CREATE TABLE buckets (mine TEXT)')
    await expect(openSqliteIndex(path)).rejects.toMatchObject({ code: 'BAD_CONFIG' })
    tamper("INSERT INTO buckets VALUES ('still here')")
  })

  test('that cannot be opened is a matter of configuration', async () => {
    await mkdir(join(directory, 'folder'))
    for (const bad of [join(directory, 'no', 'such.db'), join(directory, 'folder')]) {
      await expect(openSqliteIndex(bad)).rejects.toMatchObject({ code: 'BAD_CONFIG' })
    }
  })
})

describe('migrations', () => {
  const version = (sqlite: DatabaseSync) => sqlite.prepare('PRAGMA user_version').get()?.user_version

  test('take up where the file stands, and do each step once', () => {
    const sqlite = new DatabaseSync(path)
    const steps = ['CREATE TABLE one (a TEXT)', "INSERT INTO one VALUES ('x')", "INSERT INTO one VALUES ('y')"]
    migrate(sqlite, steps.slice(0, 1))
    migrate(sqlite, steps)
    migrate(sqlite, steps)
    expect(version(sqlite)).toBe(3)
    expect(sqlite.prepare('SELECT a FROM one').all()).toEqual([{ a: 'x' }, { a: 'y' }])
    sqlite.close()
  })

  test('do a step wholly or not at all', () => {
    const sqlite = new DatabaseSync(path)
    const good = 'CREATE TABLE one (a TEXT)'
    expect(() => migrate(sqlite, [good, "INSERT INTO one VALUES ('x'); INSERT INTO none VALUES (1)"])).toThrow(/none/)
    expect(version(sqlite)).toBe(1)
    expect(sqlite.prepare('SELECT a FROM one').all()).toEqual([])
    migrate(sqlite, [good, "INSERT INTO one VALUES ('z')"])
    expect(version(sqlite)).toBe(2)
    sqlite.close()
  })

  test('keep what a file of the first format holds, and count what it has withdrawn as lost', async () => {
    const sqlite = new DatabaseSync(path)
    migrate(sqlite, migrations.slice(0, 1))
    const cid = testCid('a shard')
    sqlite.exec("INSERT INTO providers (peer_id) VALUES ('p0')")
    sqlite.exec("INSERT INTO segments (length, k, m, nonce, shard_bytes, lost) VALUES (9, 1, 1, x'', 9, 1)")
    const shard = sqlite.prepare('INSERT INTO shards VALUES (1, ?, ?, 1, ?, 0, 77, NULL)')
    shard.run(0, cid.bytes, 5)
    shard.run(1, cid.bytes, 3)
    sqlite.close()
    await withIndex(async (index) => {
      expect((await index.listIncomplete({ afterId: 0, limit: 9 })).map(({ shards }) => shards)).toEqual([
        [
          { cid, provider: 'p0', state: 'withdrawn', leaseUntil: 77 },
          { cid, provider: 'p0', state: 'missing', leaseUntil: 77 }
        ]
      ])
      await index.markHolding('p0', cid, 'healthy', 1)
      expect(await index.listIncomplete({ afterId: 0, limit: 9 })).toEqual([])
      expect(await index.listHolders()).toEqual([{ provider: 'p0', shards: 2, bytes: 18 }])
      expect(await index.listCustody('p0', { limit: 9 })).toEqual([{ cid, bytes: 9, lastProof: 1 }])
    })
  })

  test('find the blocks of a file of the second format, and keep what follows with them', async () => {
    const sqlite = new DatabaseSync(path)
    migrate(sqlite, migrations.slice(0, 2))
    const cids = [testCid('a'), testCid('b'), testCid('c'), cidOfNode(codecs.dagCbor, new Uint8Array())]
    sqlite.exec("INSERT INTO providers (peer_id) VALUES ('p0')")
    sqlite.exec("INSERT INTO segments (length, k, m, nonce, shard_bytes, lost) VALUES (9, 2, 2, x'', 5, 1)")
    const shard = sqlite.prepare('INSERT INTO shards VALUES (1, ?, ?, 1, ?, 77, ?)')
    for (const [at, cid] of cids.entries()) shard.run(at, cid.bytes, at === 2 ? 3 : 0, at === 0 ? null : 500)
    sqlite.close()
    const [unproved, proved] = [
      { cid: cids[0]!, bytes: 5, lastProof: null },
      { cid: cids[1]!, bytes: 4, lastProof: 500 }
    ]
    await withIndex(async (index) => {
      const inOrder = [unproved, proved].sort((a, b) => Buffer.compare(a.cid.bytes, b.cid.bytes))
      expect(await index.listCustody('p0', { limit: 9 })).toEqual(inOrder)
      expect(await index.listUnproved('p0', { before: 501, limit: 9 })).toEqual([unproved, proved])
      await index.recordProofs('p0', [cids[0]!], 600)
      expect(await index.listUnproved('p0', { before: 601, limit: 9 })).toEqual([
        proved,
        { ...unproved, lastProof: 600 }
      ])
      expect(await index.loadAudit()).toEqual({ auditor: undefined, providers: [] })
      await index.saveAudit({ ...anAudit(), keep: { since: 0, rowsMax: 1 } })
      expect(await index.scanTranscripts({ after: 0, limit: 9 })).toHaveLength(1)
    })
  })
})

describe('damage', () => {
  const damaged = { code: 'DAMAGED', message: expect.stringContaining('holdfast recover') }

  async function fill(): Promise<{ contentId: number; segmentIds: number[] }> {
    return withIndex(async (index) => {
      await index.createBucket(aBucket())
      await index.createUpload(anUpload())
      await index.commitPart('upload-1', aPart(), [aSegment()])
      await index.createAccessKey(anAccessKey())
      await index.saveProviders([aKnownProvider()])
      await index.queueReleases([{ provider: 'p7', cid: testCid('stray') }])
      await index.saveAudit(anAudit())
      return index.commitObject(anObject({ size: 100 }), content())
    })
  }

  test('of the header is found at the start', async () => {
    await writeFile(path, Buffer.alloc(8192, 'not a database. '))
    await expect(openSqliteIndex(path)).rejects.toMatchObject(damaged)
  })

  test('of the tables is found at the start', async () => {
    await fill()
    const copy = await readFile(path)
    for (const statement of ['DROP TABLE releases', 'DROP INDEX shards_by_custody']) {
      await writeFile(path, copy)
      tamper(statement)
      await expect(openSqliteIndex(path)).rejects.toMatchObject(damaged)
    }
  })

  test('of pages is found when they are read, and does not spread', async () => {
    await withIndex(async (index) => {
      await index.createBucket(aBucket())
      for (let at = 0; at < 200; at++) {
        await index.commitObject(anObject({ key: `${at}`, size: 100 }), { segments: [aSegment()], blocks: [] })
      }
    })
    const sqlite = new DatabaseSync(path)
    const leaves = sqlite.prepare("SELECT pageno FROM dbstat WHERE name = 'objects' AND pagetype = 'leaf'").all()
    sqlite.close()
    // Zeroes, as a write that was lost leaves them.
    const file = await open(path, 'r+')
    for (const { pageno } of leaves.slice(1)) await file.write(Buffer.alloc(4096), 0, 4096, (Number(pageno) - 1) * 4096)
    await file.close()
    await withIndex(async (index) => {
      let failures = 0
      for (let at = 0; at < 200; at++) {
        try {
          await index.getObject('b', `${at}`)
        } catch (error) {
          expect(error).toMatchObject(damaged)
          failures += 1
        }
      }
      expect(failures).toBeGreaterThan(0)
      expect(failures).toBeLessThan(200)
      await expect(index.listObjects('b', { prefix: '', after: '', limit: 1000 })).rejects.toMatchObject(damaged)
    })
  })

  const rows: Array<[string, (index: MetadataIndex, ids: { contentId: number; segmentIds: number[] }) => unknown]> = [
    ["UPDATE objects SET headers = '{'", (index) => index.getObject('b', 'key')],
    ["UPDATE objects SET user_metadata = '[]'", (index) => index.getObject('b', 'key')],
    [`UPDATE objects SET checksums = '{"a":1}'`, (index) => index.getObject('b', 'key')],
    ['UPDATE objects SET part_sizes = \'[1,"2"]\'', (index) => index.getObject('b', 'key')],
    ["UPDATE objects SET checksum_type = 'NONE'", (index) => index.getObject('b', 'key')],
    ["UPDATE objects SET root = x'00ff'", (index) => index.getObject('b', 'key')],
    ['UPDATE objects SET size = 9007199254740993', (index) => index.getObject('b', 'key')],
    ["UPDATE objects SET key = x'6bff'", (index) => index.listObjects('b', { prefix: '', after: '', limit: 9 })],
    ["UPDATE shards SET cid = x'0155'", (index, { contentId }) => index.getSegments(contentId, 0, 100)],
    ['DELETE FROM shards WHERE idx = 1', (index, { segmentIds }) => index.getSegment(segmentIds[0]!)],
    ['DROP TRIGGER shards_lost; UPDATE shards SET state = 9', (index, ids) => index.getBlocks(ids.contentId)],
    ["UPDATE releases SET cid = x''", (index) => index.listReleases('p7', 9)],
    ["UPDATE known_providers SET addresses = '7'", (index) => index.listProviders()],
    ['DELETE FROM totals', (index) => index.ping()],
    ['DELETE FROM totals', (index) => index.saveAudit({ keep: { since: 0, rowsMax: 9 } })],
    ["UPDATE shards SET cid = x'01551e20ff'", (index) => index.listCustody('p0', { limit: 9 })],
    ["UPDATE shards SET cid = x'01551e20ff'", (index) => index.listUnproved('p0', { before: 1e9, limit: 9 })],
    ["UPDATE transcripts SET outcomes = '{}}'", (index) => index.scanTranscripts({ after: 0, limit: 9 })],
    [`UPDATE transcripts SET outcomes = '{"ok":-1}'`, (index) => index.scanTranscripts({ after: 0, limit: 9 })],
    ["UPDATE transcripts SET outcomes = '[1]'", (index) => index.listTranscripts({ limit: 9 })],
    ["UPDATE uploads SET headers = 'x'", (index) => index.getUpload('b', 'key', 'upload-1')]
  ]
  test.each(rows)('of a row is found when it is read: %s', async (statement, read) => {
    const ids = await fill()
    tamper(statement)
    await withIndex((index) => expect(read(index, ids)).rejects.toMatchObject(damaged))
  })

  test('to a copy leaves the copied file good', async () => {
    await fill()
    const copy = join(directory, 'copy.db')
    await copyFile(path, copy)
    const index = await openSqliteIndex(copy)
    await index.deleteObject('b', 'key')
    await index.close()
    await withIndex(async (original) => expect(await original.getObject('b', 'key')).toBeDefined())
  })
})

describe('a full disk', () => {
  test('fails the writes that share the commit, and no later one', async () => {
    const database = new Database(path)
    const limit = (pages: number) => database.prepare(`PRAGMA max_page_count = ${pages}`).get()
    const insert = database.prepare("INSERT INTO access_keys VALUES (?, ?, 'o', 'd', 0)")
    const count = database.prepare('SELECT COUNT(*) AS n FROM access_keys')
    const write = (id: string, size: number) => database.write(() => void insert.run(id, new Uint8Array(size)))
    await write('first', 10)
    limit(1)
    const outcomes = await Promise.allSettled([write('small', 10), write('large', 100_000), write('after', 10)])
    const full = { code: 'INTERNAL', message: expect.stringContaining('full') }
    for (const outcome of outcomes) {
      expect(outcome).toEqual({ status: 'rejected', reason: expect.objectContaining(full) })
    }
    expect(count.get()?.n).toBe(1)
    limit(1_000_000)
    await Promise.all([write('small', 10), write('large', 100_000)])
    expect(count.get()?.n).toBe(3)
    database.close()
  })
})
