/**
 * A provider's storage under a random load, as a process that a test kills: `storage-load.ts DIR SEED`. Says on stdout
 * what it is about to do (`>`) and what was answered (`<`), each line written before it goes on: what a kill takes away is
 * in the pipe already, or was never answered.
 */
import { randomFillSync } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { FsShardStore } from '../../src/provider/fs-shard-store.ts'
import type { RefusalStore } from '../../src/provider/refusal-store.ts'
import { SqliteLeaseStore } from '../../src/provider/sqlite-lease-store.ts'
import { StorageProvider, type StorageProviderInit } from '../../src/provider/storage-provider.ts'
import { type SeededRandom, seededRandom } from '../../src/sim/seeded-random.ts'

export const owners = ['a', 'b', 'c'] as const
export type Owner = (typeof owners)[number]
export const blockCount = 24
/** The last of the blocks, which the operator refuses now and then. */
export const refusableCount = 4
/** Ends while the process still runs. */
export const shortTermMs = 30
export const longTermMs = 3_600_000
export const expiryGraceMs = 20
export const orphanGraceMs = 60

export const loadInit: StorageProviderInit = {
  ...{ capacityBytes: 1_000_000, domain: 'd', price: 0, version: 't', expiryGraceMs, orphanGraceMs },
  ...{ dataUrls: () => [], addresses: () => [] }
}

/** The same for whoever asks: of many sizes, so that no two sums are equal by chance. */
export function blockOf(i: number): Buffer {
  return Buffer.alloc(1 + i * i * 331, `block ${i} `)
}

export const cids: readonly CID[] = Array.from({ length: blockCount }, (_, i) => cidOfShard(blockOf(i)))

export const pathOf = (directory: string, cid: CID): string =>
  join(directory, 'blocks', cid.toString().slice(-3, -1), cid.toString())

export async function openStorage(
  directory: string,
  init: Partial<StorageProviderInit> = {},
  clock = systemClock,
  refusals?: Pick<RefusalStore, 'find'>
): Promise<{ storage: StorageProvider; leases: SqliteLeaseStore }> {
  const leases = new SqliteLeaseStore(join(directory, 'leases.sqlite'))
  const shards = await FsShardStore.open(directory)
  const signer = { peerId: 'p', sign: async () => new Uint8Array(64) }
  const storage = new StorageProvider(
    { shards, leases, clock, log: silentLog, signer, refusals },
    { ...loadInit, ...init }
  )
  return { storage, leases }
}

const say = (...words: readonly unknown[]): void => void writeSync(1, `${words.join(' ')}\n`)

/** Writes other bytes into a file, where there is one. */
function spoil(path: string, length: number): boolean {
  try {
    const file = openSync(path, 'r+')
    writeSync(file, randomFillSync(Buffer.alloc(length)))
    closeSync(file)
    return true
  } catch {
    return false
  }
}

async function load(directory: string, random: SeededRandom): Promise<void> {
  const refused = new Set<string>()
  const ground = { reason: 'not here', at: 0, root: null, list: null, atOnce: true, target: 1 }
  const refusals: Pick<RefusalStore, 'find'> = { find: (cid) => (refused.has(cid.toString()) ? ground : undefined) }
  const { storage } = await openStorage(directory, {}, systemClock, refusals)
  say('starting')
  await storage.reconcileAtStart()
  say('ready')
  const pick = (chances: Record<string, number>): string => {
    let left = random.int(Object.values(chances).reduce((sum, chance) => sum + chance, 0))
    for (const [name, chance] of Object.entries(chances)) {
      left -= chance
      if (left < 0) return name
    }
    throw new Error('nothing was picked')
  }
  /** Blocks that only this one touches for this owner, so that what came first is known of each lease. */
  const lane = async (owner: Owner, own: readonly number[]): Promise<never> => {
    for (;;) {
      const i = own[random.int(own.length)]!
      const op = pick({ put: 40, renew: 15, release: 25, rot: 3 })
      const termMs = random.int(4) === 0 ? shortTermMs : longTermMs
      say('>', op, owner, i, termMs)
      say('<', op, owner, i, await act(op, owner, i, termMs))
    }
  }
  const act = async (op: string, owner: Owner, i: number, termMs: number): Promise<string> => {
    const cid = cids[i]!
    if (op === 'put')
      return await storage.put(owner, cid, blockOf(i), termMs).then(
        ({ until }) => String(until),
        (error) => error.code
      )
    if (op === 'renew') return (await storage.renew(owner, [cid], termMs))[0]!
    if (op === 'release') return await storage.release(owner, [cid]).then(() => 'released')
    return spoil(pathOf(directory, cid), blockOf(i).length) ? await storage.scrub(cid) : 'absent'
  }
  const collector = async (): Promise<never> => {
    for (;;) {
      await systemClock.sleep(random.int(40))
      await storage.collect()
    }
  }
  /** Refuses a block, has it gone, and thinks better of it. */
  const operator = async (): Promise<never> => {
    for (;;) {
      const i = blockCount - 1 - random.int(refusableCount)
      say('>', 'evict', '-', i, 0)
      refused.add(cids[i]!.toString())
      await storage.evict([cids[i]!])
      say('<', 'evict', '-', i, 'gone')
      await systemClock.sleep(random.int(20))
      say('>', 'allow', '-', i, 0)
      refused.delete(cids[i]!.toString())
    }
  }
  const all = Array.from({ length: blockCount }, (_, i) => i)
  const half = (rest: number): number[] => all.filter((i) => i % 2 === rest)
  await Promise.all([
    collector(),
    operator(),
    ...owners.flatMap((owner) => [lane(owner, half(0)), lane(owner, half(1))])
  ])
}

if (process.argv[1] === import.meta.filename) await load(process.argv[2]!, seededRandom(process.argv[3]!))
