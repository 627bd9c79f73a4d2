import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { dayMs, hourMs, KiB, MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import { Scrubber, type ScrubberInit } from '../../src/provider/scrubber.ts'
import { ManualClock, testProvider } from '../support/provider.ts'

const directories: string[] = []
afterEach(async () => {
  for (const path of directories.splice(0)) await rm(path, { recursive: true, force: true })
})

/** Nothing but sleeping takes time, and that takes none: until `end`, when whoever sleeps is woken by the stop. */
class SleepingClock extends ManualClock implements Clock {
  readonly startedAt = this.now()
  endsAt = Number.POSITIVE_INFINITY
  onEnd: () => void = () => {}

  override sleep = async (ms?: number, signal?: AbortSignal): Promise<void> => {
    signal?.throwIfAborted()
    this.advance(ms ?? 0)
    await Promise.resolve()
    if (this.now() >= this.endsAt) this.onEnd()
    signal?.throwIfAborted()
  }

  get elapsedMs(): number {
    return this.now() - this.startedAt
  }
}

/** Notes what is read, and when. */
class WatchedShardStore extends MemoryShardStore {
  readonly reads: Array<{ cid: string; at: number }> = []
  readonly now: () => number

  constructor(now: () => number) {
    super()
    this.now = now
  }

  override async get(cid: CID): Promise<Uint8Array | undefined> {
    this.reads.push({ cid: cid.toString(), at: this.now() })
    return await super.get(cid)
  }
}

async function scene(lengths: readonly number[]) {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-scrubber-'))
  directories.push(directory)
  const clock = new SleepingClock()
  const shards = new WatchedShardStore(clock.now)
  const told: string[] = []
  const onLost = async (cids: readonly CID[]): Promise<void> => void told.push(...cids.map(String))
  const { provider, leases } = testProvider({ shards, clock, onLost, capacityBytes: 1024 * MiB })
  const cids: CID[] = []
  for (const length of lengths) {
    const bytes = randomBytes(length)
    const cid = cidOfShard(bytes)
    await provider.put('a', cid, bytes, 80 * dayMs)
    cids.push(cid)
  }
  cids.sort((a, b) => Buffer.compare(a.bytes, b.bytes))
  shards.reads.length = 0
  const path = join(directory, 'scrub.json')
  let busy = (): boolean => false
  const open = (init: Partial<ScrubberInit> = {}): Promise<Scrubber> =>
    Scrubber.open({ storage: provider, isBusy: () => busy(), clock, log: silentLog }, { path, ...init })
  /** Lets it scrub for so long, as a process that starts and stops would. */
  const run = async (ms: number, init: Partial<ScrubberInit> = {}): Promise<Scrubber> => {
    const scrubber = await open(init)
    const ended = Promise.withResolvers<void>()
    clock.endsAt = clock.now() + ms
    clock.onEnd = () => {
      clock.endsAt = Number.POSITIVE_INFINITY
      ended.resolve(scrubber.stop())
    }
    scrubber.start()
    await ended.promise
    return scrubber
  }
  const rot = async (cid: CID): Promise<void> => {
    const bytes = Uint8Array.from((await MemoryShardStore.prototype.get.call(shards, cid))!)
    bytes[bytes.length - 1]! ^= 1
    await shards.put(cid, bytes)
  }
  const setBusy = (is: () => boolean): void => {
    busy = is
  }
  return { clock, shards, provider, leases, told, cids, path, open, run, rot, setBusy }
}

const kilobytes = (count: number): number[] => Array.from({ length: count }, () => KiB)

describe('the scrubber', () => {
  test('looks at every block once a turn, evenly spread, in order', async () => {
    const { run, shards, cids, clock } = await scene(kilobytes(30))
    const { progress } = await run(30 * dayMs + hourMs)
    expect(shards.reads.slice(0, 30).map(({ cid }) => cid)).toEqual(cids.map(String))
    for (const [i, { at }] of shards.reads.slice(0, 30).entries()) {
      expect(Math.abs(at - clock.startedAt - i * dayMs)).toBeLessThan(minuteMs)
    }
    expect(progress).toMatchObject({ turns: 1, rotten: 0, missing: 0 })
    expect(progress.turnEndedAt! - clock.startedAt).toBe(30 * dayMs)
  })

  test('never reads more than the rate, and not many small files a second, however far behind it is', async () => {
    const { run, shards, clock } = await scene([...kilobytes(200), ...Array.from({ length: 40 }, () => MiB)])
    clock.advance(hourMs)
    await run(30 * secondMs, { bytesPerSecond: 4 * MiB, turnMs: 1000 })
    const times = shards.reads.map(({ at }) => at)
    const wholeTurnMs = 10 * secondMs + (200 * 16 * KiB * secondMs) / (4 * MiB) // 40 MiB, and 200 at 16 KiB
    expect(times[239]! - times[0]!).toBeGreaterThan(wholeTurnMs - secondMs)
    expect(times[239]! - times[0]!).toBeLessThan(wholeTurnMs + secondMs)
  })

  test('passes by a block that cannot be looked at, and looks at the others', async () => {
    const { run, shards, cids } = await scene(kilobytes(10))
    const get = shards.get.bind(shards)
    shards.get = async (cid) => {
      if (cid.equals(cids[2]!)) throw Object.assign(new Error('permission denied'), { code: 'EACCES' })
      return await get(cid)
    }
    const { progress } = await run(31 * dayMs)
    expect(new Set(shards.reads.map(({ cid }) => cid)).size).toBe(9)
    expect(progress).toMatchObject({ turns: 1, rotten: 0, missing: 0 })
  })

  test('goes on where it was after a restart, and catches up', async () => {
    const { run, shards, cids, clock } = await scene(kilobytes(30))
    await run(10 * dayMs - hourMs)
    expect(shards.reads.map(({ cid }) => cid)).toEqual(cids.slice(0, 10).map(String))
    clock.advance(10 * dayMs) // switched off
    const { progress } = await run(hourMs / 2)
    expect(shards.reads.map(({ cid }) => cid)).toEqual(cids.slice(0, 20).map(String))
    expect(progress).toMatchObject({ blocks: 20, bytes: 20 * KiB, turns: 0 })
  })

  test('tells what is rotten or gone, counts it, and goes on', async () => {
    const { run, rot, shards, provider, cids, told, path } = await scene(kilobytes(30))
    await rot(cids[3]!)
    await shards.delete(cids[7]!)
    const { progress } = await run(31 * dayMs)
    expect(told.sort()).toEqual([cids[3], cids[7]].map(String).sort())
    expect(progress).toMatchObject({ turns: 1, rotten: 1, missing: 1 })
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ v: 1, ...progress })
    expect(await provider.stats()).toMatchObject({ blocks: 28, usedBytes: 28 * KiB, leasedBytes: 28 * KiB, lost: 2 })
  })

  test('waits while requests are served, and no longer than half a minute for each block', async () => {
    const { run, shards, clock, setBusy } = await scene(kilobytes(4))
    const quietAt = clock.startedAt + 10 * secondMs
    setBusy(() => clock.now() < quietAt)
    await run(20 * secondMs, { turnMs: 1000 })
    expect(shards.reads[0]!.at).toBeGreaterThanOrEqual(quietAt)
    expect(shards.reads[0]!.at).toBeLessThan(quietAt + secondMs)
    setBusy(() => true)
    shards.reads.length = 0
    await run(3 * minuteMs, { turnMs: 1000 })
    expect(shards.reads.length).toBeGreaterThanOrEqual(4)
    expect(shards.reads.length).toBeLessThanOrEqual(6)
  })

  test('a disk that is not there is not taken for rot, block after block', async () => {
    const { run, shards, cids, told } = await scene(kilobytes(100))
    for (const cid of cids) await shards.delete(cid)
    await run(hourMs - minuteMs, { turnMs: 1000 })
    expect(told).toHaveLength(16)
  })

  test('what is put, and what goes, while it is under way does not disturb it', async () => {
    const { run, shards, provider, cids, told } = await scene(kilobytes(30))
    await run(10 * dayMs - hourMs)
    const added: string[] = []
    for (let i = 0; i < 30; i++) {
      const bytes = randomBytes(100)
      const cid = cidOfShard(bytes)
      if (Buffer.compare(cid.bytes, cids[9]!.bytes) > 0) added.push(cid.toString())
      await provider.put('a', cid, bytes, 80 * dayMs)
    }
    await provider.release('a', cids.slice(10, 15))
    await run(20 * dayMs + 2 * hourMs)
    const looked = shards.reads.map(({ cid }) => cid)
    for (const cid of [...cids.slice(15).map(String), ...added]) expect(looked).toContain(cid)
    expect(looked.some((cid) => cids.slice(10, 15).map(String).includes(cid))).toBe(false)
    expect(told).toEqual([])
  })

  test('a state that cannot be read is begun anew, and a clock set back does not put the turn off', async () => {
    const { run, path, shards, clock } = await scene(kilobytes(3))
    await writeFile(path, '{"v":1,"after":"not a cid"')
    await run(minuteMs)
    expect(shards.reads).toHaveLength(1)
    clock.advance(-100 * dayMs)
    await run(10 * dayMs + hourMs)
    expect(shards.reads).toHaveLength(2)
  })

  test('nothing to look at is no work', async () => {
    const { run } = await scene([])
    expect((await run(hourMs + secondMs, { turnMs: minuteMs })).progress).toMatchObject({ turns: 60, blocks: 0 })
  })
})
