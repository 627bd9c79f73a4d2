/**
 * Used space is exact, whatever the moment a provider is killed in: what it counts is what an independent walk over its
 * directory and its table of leases finds, and nothing that was acknowledged is gone, nothing released is back.
 *
 * A process with a storage provider is under a random load of three owners that want the same blocks, some of which its
 * operator refuses at times; it is killed outright, over and over on one directory. What it had said by then is held against what is there. 25 kills, 200 with
 * HOLDFAST_SOAK=1.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import { systemClock } from '../../src/base/system.ts'
import { CID, cidOfShard, parseCid } from '../../src/content/cid.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { isSoak } from '../support/processes.ts'
import { cids, longTermMs, openStorage, owners, pathOf } from '../support/storage-load.ts'

const kills = isSoak ? 200 : 25
const script = fileURLToPath(new URL('../support/storage-load.ts', import.meta.url))

let running: ChildProcess | undefined
const directories: string[] = []
afterEach(async () => {
  running?.kill('SIGKILL')
  for (const path of directories.splice(0)) await rm(path, { recursive: true, force: true })
})

/** What must be true of a lease: it is there, it is not, or either would do (it may have ended, or was being changed). */
type Known = 'held' | 'none' | 'either'

/** Runs the load until it is killed at some moment; what it said. */
async function killed(directory: string, seed: string): Promise<string[]> {
  const child = spawn(process.execPath, ['--no-warnings', script, directory, seed], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  running = child
  let said = ''
  const closed = new Promise((resolve) => child.once('close', resolve))
  const at = randomInt(5) === 0 ? 'starting' : 'ready'
  await new Promise<void>((resolve, reject) => {
    child.stdout!.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1')
      if (said.includes(at)) resolve()
    })
    child.once('exit', (code) => reject(new Error(`the load ended by itself: ${code}`)))
  })
  await sleep(randomInt(at === 'starting' ? 15 : 120))
  child.kill('SIGKILL')
  await closed
  return said.slice(0, said.lastIndexOf('\n')).split('\n')
}

/** Follows what was said; returns the blocks that were being spoiled. */
function follow(said: readonly string[], known: Map<string, Known>): Set<string> {
  const spoiled = new Set<string>()
  const open = new Map<string, string>()
  /** Blocks that are refused just then: `going` until what was kept of it has gone. */
  const refused = new Map<string, 'going' | 'gone'>()
  /** Requests beside which a block was refused, or allowed again: what came of them is not known. */
  const crossed = new Set<string>()
  const cross = (cid: string): void => {
    for (const key of open.keys()) if (key.endsWith(` ${cid}`)) crossed.add(key)
  }
  for (const line of said) {
    const [direction, op, owner, i, word] = line.split(' ')
    if (direction !== '<' && direction !== '>') continue
    const cid = cids[Number(i)]!.toString()
    const key = `${owner} ${cid}`
    if (owner === '-') {
      cross(cid)
      if (op === 'allow') refused.delete(cid)
      else refused.set(cid, direction === '>' ? 'going' : 'gone')
      for (const one of owners) if (op === 'evict') known.set(`${one} ${cid}`, direction === '>' ? 'either' : 'none')
    } else if (op === 'rot') spoiled.add(cid)
    else if (direction === '>') {
      open.set(key, `${op} ${word}`)
      crossed.delete(key)
      if (refused.get(cid) === 'going') crossed.add(key)
    } else {
      const isLong = open.get(key)!.endsWith(String(longTermMs))
      open.delete(key)
      if (crossed.has(key)) {
        known.set(key, 'either')
        continue
      }
      const next = answered(op!, word!, isLong, known.get(key) ?? 'none')
      const isTaken = refused.has(cid) && op !== 'release' && word?.toUpperCase() !== 'REFUSED'
      if (next === undefined || isTaken) throw new Error(`an answer that nothing explains: ${line}`)
      known.set(key, next)
    }
  }
  for (const key of open.keys()) known.set(key, 'either')
  return spoiled
}

function answered(op: string, word: string, isLong: boolean, before: Known): Known | undefined {
  const leased = isLong || before === 'held' ? 'held' : 'either'
  if (op === 'put' && (word === 'NO_SPACE' || word === 'REFUSED')) return before
  if (op === 'renew' && word === 'refused') return before
  if (op === 'put') return /^\d+$/.test(word) ? leased : undefined
  if (op === 'release') return word === 'released' ? 'none' : undefined
  // Of what is lost, leases go on until their owners give them up; those of an owner who was too late to save it do not.
  return word === 'held' ? leased : word === 'missing' ? (before === 'none' ? 'none' : 'either') : undefined
}

interface Found {
  /** Length by CID of the files in `blocks/`. */
  files: Map<string, number>
  /** End by `owner CID`. */
  leases: Map<string, number>
  /** Length by CID of what somebody leases and is not lost. */
  leased: Map<string, number>
}

/** What is there, seen without the code under test. */
async function look(directory: string): Promise<Found> {
  const found: Found = { files: new Map(), leases: new Map(), leased: new Map() }
  for (const entry of await readdir(join(directory, 'blocks'), { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) found.files.set(entry.name, (await readFile(join(entry.parentPath, entry.name))).length)
  }
  const db = new DatabaseSync(join(directory, 'leases.sqlite'))
  try {
    const lost = new Set(db.prepare('SELECT cid FROM lost').all().map(textOf))
    for (const row of db
      .prepare('SELECT cid, peer_id, until, bytes FROM leases JOIN owners ON owners.id = owner')
      .all()) {
      found.leases.set(`${row.peer_id} ${textOf(row)}`, Number(row.until))
      if (!lost.has(textOf(row))) found.leased.set(textOf(row), Number(row.bytes))
    }
  } finally {
    db.close()
  }
  return found
}

const textOf = (row: Record<string, unknown>): string => CID.decode(row.cid as Uint8Array).toString()
const sum = (lengths: Iterable<number>): number => [...lengths].reduce((total, length) => total + length, 0)

/** Compares a killed provider's directory with what was known of it, before and after it starts again. */
async function verify(directory: string, known: Map<string, Known>, spoiled: ReadonlySet<string>): Promise<void> {
  const before = await look(directory)
  for (const [key, is] of known)
    if (is !== 'either') expect([key, before.leases.has(key)]).toEqual([key, is === 'held'])
  for (const cid of before.leased.keys()) expect([cid, before.files.has(cid)]).toEqual([cid, true])
  for (const cid of before.files.keys()) {
    if (spoiled.has(cid)) continue
    expect(cidOfShard(await readFile(pathOf(directory, parseCid(cid)))).toString()).toBe(cid)
  }

  const { storage, leases } = await openStorage(directory)
  await storage.reconcileAtStart()
  for (const text of spoiled) await codeOf(storage.get(parseCid(text))) // so that no damage is left to the next round
  const { usedBytes, leasedBytes, reservedBytes, blocks, leases: leaseCount } = await storage.stats()
  await leases.close()
  expect(await readdir(join(directory, 'tmp'))).toEqual([])

  const after = await look(directory)
  const isOrphan = ([cid]: [string, number]): boolean => !after.leased.has(cid)
  const orphanBytes = sum([...after.files].filter(isOrphan).map(([, length]) => length))
  expect(after.leases).toEqual(before.leases)
  expect({ usedBytes, leasedBytes, reservedBytes, blocks, leaseCount }).toEqual({
    usedBytes: sum(after.files.values()),
    leasedBytes: sum(after.leased.values()),
    reservedBytes: 0,
    blocks: after.leased.size,
    leaseCount: after.leases.size
  })
  expect(usedBytes - leasedBytes).toBe(orphanBytes)
  for (const [cid, length] of after.leased) expect([cid, after.files.get(cid)]).toEqual([cid, length])
  for (const [key, is] of known) {
    const until = after.leases.get(key)
    if (is === 'either')
      known.set(key, until === undefined ? 'none' : until > Date.now() + longTermMs / 2 ? 'held' : 'either')
  }
}

/** Everything that waits to be deleted goes, and in the end everything. */
async function collectAll(directory: string, aheadMs: number): Promise<void> {
  let now = Date.now()
  const { storage, leases } = await openStorage(directory, {}, { ...systemClock, now: () => now })
  try {
    await storage.reconcileAtStart()
    now += aheadMs
    await storage.collect()
    const { usedBytes, leasedBytes } = await storage.stats()
    expect(usedBytes).toBe(leasedBytes)
  } finally {
    await leases.close()
  }
  const { files, leased } = await look(directory)
  expect(files).toEqual(leased)
}

test(
  'killed at any moment, over and over, it counts exactly what it holds, and holds what it said',
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-kills-'))
    directories.push(directory)
    const known = new Map<string, Known>()
    const seed = randomBytes(4).toString('hex')
    let answers = 0
    for (let kill = 0; kill < kills; kill++) {
      const said = await killed(directory, `${seed} ${kill}`)
      answers += said.filter((line) => line.startsWith('<')).length
      try {
        await verify(directory, known, follow(said, known))
        if (kill % 10 === 9) await collectAll(directory, 10_000)
      } catch (error) {
        throw new Error(`after kill ${kill} with seed ${seed}; it said last:\n${said.slice(-30).join('\n')}`, {
          cause: error
        })
      }
    }
    expect(answers).toBeGreaterThan(kills * 5)
    await collectAll(directory, 2 * longTermMs)
    expect((await look(directory)).files.size).toBe(0)
  },
  isSoak ? 1_800_000 : 300_000
)
