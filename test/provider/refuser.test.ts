import { randomBytes } from 'node:crypto'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { dayMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import { CID, cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { encodeManifest } from '../../src/content/manifest.ts'
import { openRefusal } from '../../src/market/refusal.ts'
import { DenylistWatcher } from '../../src/provider/denylist-watch.ts'
import { RefusalStore } from '../../src/provider/refusal-store.ts'
import { Refuser } from '../../src/provider/refuser.ts'
import { simulatedSigner, verifySimulated } from '../../src/sim/signatures.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { testProvider } from '../support/provider.ts'

const { signal } = new AbortController()
const termMs = 30 * dayMs
const cleanUps: Array<() => Promise<unknown>> = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
})

async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-refuser-'))
  cleanUps.push(() => rm(path, { recursive: true, force: true }))
  return path
}

function scene(store = new RefusalStore(':memory:'), pause = async (): Promise<void> => {}) {
  const signer = simulatedSigner('provider')
  const core = testProvider({ refusals: store })
  const told: Array<{ cid: string; handOver: boolean; owners: string[] }> = []
  const elsewhere = new Map<string, Uint8Array>()
  let isTellingBroken = false
  const refuser = new Refuser(
    {
      store,
      storage: core.provider,
      notices: {
        refused: async (cids, handOver) => {
          if (isTellingBroken) throw new Error('no room')
          for (const cid of cids) told.push({ cid: `${cid}`, handOver, owners: await core.leases.ownersOf(cid) })
        }
      },
      signer,
      findBlock: async (cid) => elsewhere.get(cid.toString()),
      clock: core.clock,
      log: silentLog,
      pause
    },
    { handsOver: true }
  )
  const breakTelling = (isBroken: boolean): void => {
    isTellingBroken = isBroken
  }
  return { ...core, store, refuser, told, elsewhere, breakTelling }
}

const block = (bytes: Uint8Array = randomBytes(500)): { cid: CID; bytes: Uint8Array } => ({
  cid: cidOfShard(bytes),
  bytes
})

function content(shards: number): { root: CID; bytes: Uint8Array; shards: Array<{ cid: CID; bytes: Uint8Array }> } {
  const all = Array.from({ length: shards }, () => block())
  const segments = Array.from({ length: shards / 4 }, (_, i) => ({
    length: 1000,
    k: 2,
    m: 2,
    nonce: new Uint8Array(8),
    shards: all.slice(4 * i, 4 * i + 4).map(({ cid }) => cid)
  }))
  const { root, blocks } = encodeManifest({ size: 250 * shards, segments })
  return { root, bytes: blocks.at(-1)!.bytes, shards: all }
}

describe('what is refused', () => {
  test('is not taken, given, proved or leased on, and is kept for its owners for a day', async () => {
    const { provider, refuser, told, clock, shards } = scene()
    const { cid, bytes } = block()
    await provider.put('a', cid, bytes, termMs)
    await provider.put('b', cid, bytes, termMs)
    expect(await refuser.refuse(cid, { reason: 'because' }, signal)).toMatchObject({ parts: 0, isWhole: true, held: 1 })
    for (const asked of [
      provider.put('c', cid, bytes, termMs),
      provider.get(cid),
      provider.size(cid),
      provider.prove(cid, [0])
    ])
      await expect(asked).rejects.toMatchObject({ code: 'REFUSED', message: 'because' })
    expect(await provider.has(cid)).toBe(false)
    expect(await provider.renew('a', [cid], termMs)).toEqual(['refused'])
    expect(told).toEqual([{ cid: `${cid}`, handOver: true, owners: ['a', 'b'] }])
    expect((await provider.getToHandOver(cid)).length).toBe(bytes.length)
    expect(await provider.stats()).toMatchObject({ usedBytes: bytes.length, leases: 2 })
    // One lets go, the other never does.
    await provider.release('a', [cid])
    clock.advance(dayMs - 1)
    await refuser.turn(signal)
    expect(await shards.size(cid)).toBe(bytes.length)
    clock.advance(2)
    await refuser.turn(signal)
    expect(await shards.size(cid)).toBeUndefined()
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0, blocks: 0 })
  })

  test('goes when its last owner lets go of it, as any block', async () => {
    const { provider, refuser, shards } = scene()
    const { cid, bytes } = block()
    await provider.put('a', cid, bytes, termMs)
    await refuser.refuse(cid, {}, signal)
    await provider.release('a', [cid])
    expect(await shards.size(cid)).toBeUndefined()
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0 })
  })

  test('at once is deleted at once, after its owners were noted; also what was being kept to be handed over', async () => {
    const { provider, refuser, told, shards } = scene()
    const [first, second] = [block(), block()]
    for (const { cid, bytes } of [first, second]) await provider.put('a', cid, bytes, termMs)
    await refuser.refuse(first.cid, { atOnce: true }, signal)
    expect(told).toEqual([{ cid: `${first.cid}`, handOver: false, owners: ['a'] }])
    await refuser.refuse(second.cid, {}, signal)
    await refuser.refuse(second.cid, { atOnce: true }, signal)
    for (const { cid } of [first, second]) expect(await shards.size(cid)).toBeUndefined()
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0 })
  })

  test('at once is deleted at once, whatever else refuses it, and since when', async () => {
    const { provider, refuser, clock, shards } = scene()
    const { root, bytes, shards: all } = content(4)
    const shard = all[0]!
    await provider.put('a', root, bytes, termMs)
    await provider.put('a', shard.cid, shard.bytes, termMs)
    await refuser.refuse(root, {}, signal)
    clock.advance(1000)
    await refuser.refuse(shard.cid, { atOnce: true }, signal)
    expect(await shards.size(shard.cid)).toBeUndefined()
    expect(await shards.size(root)).toBe(bytes.length)
  })

  test('is all that a root is made of, held or not; what its manifest does not name is welcome', async () => {
    const { provider, refuser, told } = scene()
    const { root, bytes, shards } = content(8)
    await provider.put('a', root, bytes, termMs)
    await provider.put('a', shards[0]!.cid, shards[0]!.bytes, termMs)
    expect(await refuser.refuse(root, {}, signal)).toMatchObject({ parts: 8, isWhole: true, held: 2 })
    expect(told.map(({ cid }) => cid).sort()).toEqual([root, shards[0]!.cid].map(String).sort())
    for (const shard of shards) expect(await codeOf(provider.put('a', shard.cid, shard.bytes, termMs))).toBe('REFUSED')
    const other = block()
    expect(await codeOf(provider.put('a', other.cid, other.bytes, termMs))).toBe('resolved')
    const [signed] = await refuser.signedOf([shards[3]!.cid])
    expect(`${(await openRefusal(signed!, 'provider', verifySimulated)).root}`).toBe(`${root}`)
  })

  test('is in force before it is known what it is made of, and stays so where nobody waits for that', async () => {
    const { provider, refuser, elsewhere, store } = scene()
    const { root, bytes, shards } = content(4)
    const leaving = new AbortController()
    let seen: string | undefined
    elsewhere.get = () => {
      seen = provider.refusalOf(root)
      leaving.abort(new Error('the operator has left'))
      throw new Error('given up')
    }
    await expect(refuser.refuse(root, { reason: 'no' }, leaving.signal)).rejects.toThrow('left')
    expect([seen, provider.refusalOf(root)]).toEqual(['no', 'no'])
    elsewhere.get = () => bytes
    await refuser.turn(signal)
    expect(provider.refusalOf(shards[0]!.cid)).toBe('no')
    expect(store.commands(1)).toMatchObject([{ isExpanded: true, blocks: 4 }])
  })

  test('by a root whose manifest comes to light later', async () => {
    const { provider, refuser, elsewhere, clock, shards: stored } = scene()
    const { root, bytes, shards } = content(4)
    await provider.put('a', shards[0]!.cid, shards[0]!.bytes, termMs)
    expect(await refuser.refuse(root, { atOnce: true }, signal)).toMatchObject({ parts: 0, isWhole: false, held: 0 })
    expect(await provider.has(shards[0]!.cid)).toBe(true)
    elsewhere.set(root.toString(), bytes)
    await refuser.turn(signal)
    clock.advance(3_600_001)
    await refuser.turn(signal)
    expect(await stored.size(shards[0]!.cid)).toBeUndefined()
    expect(await codeOf(provider.put('a', shards[1]!.cid, shards[1]!.bytes, termMs))).toBe('REFUSED')
  })

  test('is not refused any more when that is taken back, unless by something else', async () => {
    const { provider, refuser, clock } = scene()
    const { root, bytes, shards } = content(4)
    await provider.put('a', root, bytes, termMs)
    const shard = shards[0]!
    await provider.put('a', shard.cid, shard.bytes, termMs)
    await refuser.refuse(root, {}, signal)
    await refuser.refuse(shard.cid, {}, signal)
    expect(refuser.undo(root)).toBe(true)
    expect(refuser.undo(root)).toBe(false)
    expect([await provider.has(root), await provider.has(shard.cid)]).toEqual([true, false])
    expect(refuser.undo(shard.cid)).toBe(true)
    expect(await provider.renew('a', [root, shard.cid], termMs)).toEqual(['held', 'held'])
    clock.advance(2 * dayMs)
    await refuser.turn(signal) // what was kept for a day is kept as ever now
    expect(await provider.stats()).toMatchObject({ blocks: 2 })
  })

  test('is what it was after a restart, with what had not been settled', async () => {
    const path = join(await directory(), 'refusals.sqlite')
    const before = new RefusalStore(path)
    const { cid, bytes } = block()
    // Written down, and then the process died.
    before.refuse(cid, { reason: 'x', at: 1, atOnce: true }, { cids: [], isWhole: true })
    before.close()
    const { provider, refuser, shards, told, store } = scene(new RefusalStore(path))
    await shards.put(cid, bytes)
    expect(await codeOf(provider.get(cid))).toBe('REFUSED')
    await refuser.turn(signal)
    expect([await shards.size(cid), told.length]).toEqual([undefined, 1])
    expect(store.unsettled(1)).toEqual([])
    store.close()
  })

  test('is told also where that failed, or the process died, before it was written down', async () => {
    const { provider, store, refuser, told, breakTelling } = scene()
    const { cid, bytes } = block()
    await provider.put('a', cid, bytes, termMs)
    breakTelling(true)
    await expect(refuser.refuse(cid, {}, signal)).rejects.toThrow('no room')
    breakTelling(false)
    await refuser.turn(signal)
    expect(told).toEqual([{ cid: `${cid}`, handOver: true, owners: ['a'] }])
    expect(store.isKept(cid)).toBe(true)
  })

  test('is signed for what providers keep, however many other names of it are asked about', async () => {
    const { refuser, store } = scene()
    const { cid } = block()
    await refuser.refuse(cid, {}, signal)
    const others = Array.from({ length: 50 }, (_, i) => CID.createV1(0x300000 + i, cid.multihash))
    expect((await refuser.signedOf([cid, ...others])).map((bytes) => bytes !== undefined)).toEqual([
      true,
      ...others.map(() => false)
    ])
    expect(store.signed).toBe(1)
    refuser.undo(cid)
    expect(store.signed).toBe(0)
  })

  test('is signed anew by whatever comes after what was taken back', async () => {
    const { refuser, store } = scene()
    const { cid } = block()
    await refuser.refuse(cid, { reason: 'by command' }, signal)
    await refuser.signedOf([cid])
    refuser.undo(cid)
    const list = store.addList('/a.deny', false)
    const rule = { key: cid.multihash.bytes, cid, isAllowed: false, reason: 'by a list' }
    store.addRules(list, store.beginReading(list), [rule], 1)
    const [signed] = await refuser.signedOf([cid])
    expect((await openRefusal(signed!, 'provider', verifySimulated)).reason).toBe('by a list')
  })

  test('is signed once', async () => {
    const { refuser, clock } = scene()
    const { cid } = block()
    await refuser.refuse(cid, { reason: 'first' }, signal)
    const [first] = await refuser.signedOf([cid])
    clock.advance(1000)
    const [again, never] = await refuser.signedOf([cid, block().cid])
    expect([Buffer.compare(again!, first!), never]).toEqual([0, undefined])
    await refuser.refuse(cid, { reason: 'second' }, signal)
    const [second] = await refuser.signedOf([cid])
    expect((await openRefusal(second!, 'provider', verifySimulated)).reason).toBe('second')
  })

  test('cannot be nothing, nor what nobody keeps', async () => {
    const { refuser } = scene()
    expect(await codeOf(refuser.refuse(cidOfShard(new Uint8Array(0)), {}, signal))).toBe('BAD_INPUT')
    expect(await codeOf(refuser.refuse(block().cid, { reason: 'x'.repeat(257) }, signal))).toBe('BAD_INPUT')
  })

  test('in any order, with writes and releases between: what is used is what is there', async () => {
    const blocks = Array.from({ length: 4 }, () => block())
    const step = fc.record({
      op: fc.constantFrom('put', 'release', 'refuse', 'now', 'undo', 'day', 'renew'),
      at: fc.nat(blocks.length - 1),
      owner: fc.constantFrom('a', 'b')
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { provider, refuser, clock, shards } = scene()
        for (const { op, at, owner } of steps) {
          const { cid, bytes } = blocks[at]!
          if (op === 'put')
            await provider.put(owner, cid, bytes, termMs).catch(() => {}) // refused
          else if (op === 'release') await provider.release(owner, [cid])
          else if (op === 'renew') await provider.renew(owner, [cid], termMs)
          else if (op === 'undo') refuser.undo(cid)
          else if (op === 'day') clock.advance(dayMs + 1)
          else await refuser.refuse(cid, { atOnce: op === 'now' }, signal)
          await refuser.turn(signal)
          let there = 0
          for await (const { bytes: length } of shards.list()) there += length
          const { usedBytes, leasedBytes } = await provider.stats()
          expect([op, usedBytes, leasedBytes]).toEqual([op, there, there])
        }
      }),
      { numRuns: 60 }
    )
  })
})

describe('a denylist of the operator', () => {
  async function watched(pause = async (_it: ReturnType<typeof scene>): Promise<void> => {}) {
    const it = scene()
    const path = join(await directory(), 'some.deny')
    const watcher = new DenylistWatcher({
      store: it.store,
      onChange: () => {},
      clock: systemClock,
      log: silentLog,
      pause: () => pause(it)
    })
    cleanUps.push(() => watcher.stop())
    /** As an editor saves it. */
    const save = async (...lines: string[]): Promise<void> => {
      await writeFile(`${path}.new`, lines.join('\n'))
      await rename(`${path}.new`, path)
    }
    return { ...it, path, watcher, save }
  }

  test('is in force for what is held and what comes, by CID and by hash, and names its reason', async () => {
    const { provider, refuser, watcher, save, path, told } = await watched()
    const [held, coming, other] = [block(), block(), block()]
    await provider.put('a', held.cid, held.bytes, termMs)
    const { createHash } = await import('node:crypto')
    const hash = createHash('sha256').update(`${held.cid}/`).digest('hex')
    await save('name: Bad', '---', `//${hash}`, `/ipfs/${coming.cid} reason=DMCA`, 'nonsense', '/ipns/x')
    expect(await watcher.add(path, false)).toMatchObject({ name: 'Bad', rules: 2, notApplicable: 1, problemCount: 1 })
    await refuser.turn(signal)
    expect(told.map(({ cid }) => cid)).toEqual([`${held.cid}`])
    await expect(provider.get(held.cid)).rejects.toMatchObject({ code: 'REFUSED', message: 'on the list Bad' })
    await expect(provider.put('a', coming.cid, coming.bytes, termMs)).rejects.toMatchObject({ message: 'DMCA' })
    expect(await codeOf(provider.put('a', other.cid, other.bytes, termMs))).toBe('resolved')
    expect(await watcher.remove(path)).toBe(true)
    expect(await provider.has(held.cid)).toBe(true)
  })

  test('is read again when it changes; what it does not say any more ends, and a damaged one changes nothing', async () => {
    const { provider, watcher, save, path, store } = await watched()
    const [first, second] = [block(), block()]
    await save(`/ipfs/${first.cid}`)
    await watcher.add(path, false)
    watcher.start()
    const refused = () => [first, second].map(({ cid }) => provider.refusalOf(cid) !== undefined)
    expect(refused()).toEqual([true, false])
    await save(`/ipfs/${first.cid}`, `/ipfs/${second.cid}`)
    await expect.poll(refused, { timeout: 10_000 }).toEqual([true, true])
    await save(`/ipfs/${first.cid}`, `/ipfs/${second.cid}`, `!/ipfs/${first.cid}`)
    await expect.poll(refused, { timeout: 10_000 }).toEqual([false, true])
    await save('version: 7', '---')
    await expect.poll(() => store.lists()[0]!.failure, { timeout: 10_000 }).toMatch(/version 7/)
    expect(refused()).toEqual([false, true])
    await save('# nothing any more')
    await expect.poll(refused, { timeout: 10_000 }).toEqual([false, false])
  })

  test('that names roots refuses what they are made of, once that is known', async () => {
    const { provider, refuser, watcher, save, path, elsewhere, shards: stored } = await watched()
    const { root, bytes, shards } = content(4)
    const others = Array.from({ length: 8 }, () => content(4))
    for (const other of others) elsewhere.set(other.root.toString(), other.bytes)
    await provider.put('a', root, bytes, termMs)
    for (const { cid, bytes: shard } of [shards[0]!, ...others.map((other) => other.shards[0]!)])
      await provider.put('a', cid, shard, termMs)
    const lines = others.map((other) => `/ipfs/${other.root}`)
    await save(`/ipfs/${root}/*`, ...lines, `/ipfs/${cidOfNode(codecs.dagPb, randomBytes(9))}`)
    await watcher.add(path, true)
    await refuser.turn(signal)
    const all = [...shards, ...others.flatMap((other) => other.shards)].map(({ cid }) => cid)
    expect(all.filter((cid) => provider.refusalOf(cid) === undefined)).toEqual([])
    for (const cid of [root, ...all]) expect(await stored.size(cid)).toBeUndefined()
  })

  test('that is being read refuses nothing that it takes back further down', async () => {
    // What is held is settled while the list is half read.
    const {
      provider,
      watcher,
      save,
      path,
      shards: stored
    } = await watched(async ({ refuser }) => {
      await refuser.turn(signal)
    })
    const { root, bytes, shards } = content(4)
    const allowed = shards[0]!
    await provider.put('a', root, bytes, termMs)
    await provider.put('a', allowed.cid, allowed.bytes, termMs)
    const others = Array.from({ length: 4500 }, () => `/ipfs/${cidOfShard(randomBytes(8))}`)
    await save(`/ipfs/${root}`, ...others, `!/ipfs/${allowed.cid}`)
    await watcher.add(path, true)
    expect(await stored.size(root)).toBeUndefined()
    expect(await stored.size(allowed.cid)).toBe(allowed.bytes.length)
  })

  test('that names thousands of contents held by nobody here holds nothing up: they are written down together', async () => {
    const { store, refuser, watcher, save, path } = await watched()
    await save(...Array.from({ length: 3000 }, () => `/ipfs/${cidOfNode(codecs.dagPb, randomBytes(8))}`))
    await watcher.add(path, false)
    const writes = [vi.spyOn(store, 'notFound'), vi.spyOn(store, 'expand'), vi.spyOn(store, 'settled')]
    await refuser.turn(signal)
    expect(writes.reduce((sum, { mock }) => sum + mock.calls.length, 0)).toBeLessThan(50)
    expect(store.unexpanded(Number.MAX_SAFE_INTEGER - 1, 1)).toEqual([])
  })

  test('that is taken back while others are being read does not come back under the number of the next', async () => {
    const it = await watched(async () => {
      // While the first is being read, the operator replaces the second.
      if (isReading) return
      isReading = true
      await it.watcher.remove(second)
      await it.watcher.add(third, false)
    })
    let isReading = true
    const [second, third] = [`${it.path}.2`, `${it.path}.3`]
    const [old, current] = [block(), block()]
    await writeFile(second, `/ipfs/${old.cid}`)
    await writeFile(third, `/ipfs/${current.cid}`)
    await it.save('# nothing')
    await it.watcher.add(it.path, false)
    await it.watcher.add(second, false)
    await it.save(...Array.from({ length: 6000 }, () => '#'))
    await writeFile(second, `/ipfs/${old.cid}\n`)
    isReading = false
    await it.watcher.look()
    expect(it.store.lists().map(({ path, failure }) => [path, failure])).toEqual([
      [it.path, null],
      [third, null]
    ])
    expect([old, current].map(({ cid }) => it.provider.refusalOf(cid) !== undefined)).toEqual([false, true])
  })

  test('that says more while what is held is being settled has that settled too, and so has one that allows less', async () => {
    const store = new RefusalStore(':memory:')
    const [first, second] = [block(), block()]
    const ruleOf = ({ cid }: { cid: CID }, isAllowed = false) => ({
      key: cid.multihash.bytes,
      cid,
      isAllowed,
      reason: ''
    })
    let onPause = (): void => {}
    const { provider, refuser, told } = scene(store, async () => onPause())
    for (const { cid, bytes } of [first, second]) await provider.put('a', cid, bytes, termMs)
    const list = store.addList('/a.deny', false)
    const generation = store.beginReading(list)
    store.addRules(list, generation, [ruleOf(first)], 1)
    onPause = () => {
      onPause = () => {}
      store.addRules(list, generation, [ruleOf(second)], 1)
    }
    await refuser.turn(signal)
    expect(told.map(({ cid }) => cid).sort()).toEqual([first, second].map(({ cid }) => `${cid}`).sort())
    // Another list, of a root, allows a part of it; what it says next does not.
    const third = content(4)
    const { cid, bytes } = third.shards[0]!
    await provider.put('a', third.root, third.bytes, termMs)
    await provider.put('a', cid, bytes, termMs)
    const other = store.addList('/b.deny', false)
    const root = ruleOf({ cid: third.root })
    store.addRules(other, store.beginReading(other), [root, ruleOf({ cid }, true)], 1)
    await refuser.turn(signal)
    expect(provider.refusalOf(cid)).toBeUndefined()
    const next = store.beginReading(other)
    store.addRules(other, next, [root], 1)
    await refuser.turn(signal)
    store.endReading(other, next, { name: undefined, at: 1, notApplicable: 0, problems: [], problemCount: 0 })
    await refuser.turn(signal)
    expect(told.map(({ cid: one }) => one)).toContain(`${cid}`)
  })

  test('that cannot be read is not remembered', async () => {
    const { watcher, path, store } = await watched()
    expect(await codeOf(watcher.add(path, false))).toBe('BAD_INPUT')
    expect(await codeOf(watcher.add('relative.deny', false))).toBe('BAD_INPUT')
    expect(store.lists()).toEqual([])
  })
})
