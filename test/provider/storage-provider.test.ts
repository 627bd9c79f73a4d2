import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import * as Digest from 'multiformats/hashes/digest'
import { describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { dayMs, hourMs, limits } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { CID, cidOfNode, cidOfShard, codecs, hashes } from '../../src/content/cid.ts'
import type { Lease } from '../../src/provider/lease-store.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import { RefusalStore } from '../../src/provider/refusal-store.ts'
import type { ShardStore } from '../../src/provider/shard-store.ts'
import { leaseTermMsMax, type StorageProvider } from '../../src/provider/storage-provider.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { testProvider } from '../support/provider.ts'

const block = (length = 1000): { bytes: Buffer; cid: CID } => {
  const bytes = randomBytes(length)
  return { bytes, cid: cidOfShard(bytes) }
}

/** A store whose calls wait until the test lets them go on. */
class GatedShardStore extends MemoryShardStore {
  gates = new Map<'put' | 'delete', PromiseWithResolvers<void>>()
  reached = new Map<'put' | 'delete', PromiseWithResolvers<void>>()

  gate(call: 'put' | 'delete'): { reached: Promise<void>; open: () => void } {
    this.gates.set(call, Promise.withResolvers())
    this.reached.set(call, Promise.withResolvers())
    return { reached: this.reached.get(call)!.promise, open: () => this.gates.get(call)!.resolve() }
  }

  override async put(cid: CID, bytes: Uint8Array): Promise<void> {
    this.reached.get('put')?.resolve()
    await this.gates.get('put')?.promise
    await super.put(cid, bytes)
  }

  override async delete(cid: CID): Promise<void> {
    this.reached.get('delete')?.resolve()
    await this.gates.get('delete')?.promise
    await super.delete(cid)
  }
}

describe('putting', () => {
  test('takes only kinds of blocks it can vouch for, of a size, for a term', async () => {
    const { provider } = testProvider()
    const bytes = randomBytes(10)
    const rawSha256 = cidOfNode(codecs.raw, bytes)
    const identity = CID.createV1(codecs.raw, Digest.create(0, bytes))
    const dagPbBlake3 = CID.createV1(codecs.dagPb, cidOfShard(bytes).multihash)
    const short = CID.createV1(
      codecs.raw,
      Digest.create(hashes.blake3, cidOfShard(bytes).multihash.digest.subarray(0, 16))
    )
    const v0 = cidOfNode(codecs.dagPb, bytes).toV0()
    for (const cid of [rawSha256, identity, dagPbBlake3, short, v0]) {
      expect(await codeOf(provider.put('a', cid, bytes, 1000))).toBe('BAD_INPUT')
    }
    const large = new Uint8Array(limits.shardBytesMax + 1)
    expect(await codeOf(provider.put('a', cidOfShard(large), large, 1000))).toBe('BAD_INPUT')
    for (const termMs of [0, -1, 1.5, Number.NaN, leaseTermMsMax + 1]) {
      expect(await codeOf(provider.put('a', cidOfShard(bytes), bytes, termMs))).toBe('BAD_INPUT')
    }
    expect(await codeOf(provider.put('a', cidOfShard(bytes), randomBytes(10), 1000))).toBe('WRONG')
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0 })
  })

  test('is acknowledged only when the block and then the lease are stored', async () => {
    const order: string[] = []
    class Shards extends MemoryShardStore {
      override async put(cid: CID, bytes: Uint8Array): Promise<void> {
        await super.put(cid, bytes)
        order.push('block')
      }
    }
    class Leases extends MemoryLeaseStore {
      override async grant(...args: Parameters<MemoryLeaseStore['grant']>): Promise<void> {
        await super.grant(...args)
        order.push('lease')
      }
    }
    const { provider } = testProvider({ shards: new Shards(), leases: new Leases() })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    expect(order).toEqual(['block', 'lease'])
  })

  test('never exceeds the capacity, however many come at once', async () => {
    const { provider } = testProvider({ capacityBytes: 10_500 })
    const blocks = Array.from({ length: 30 }, () => block(1000))
    const codes = await Promise.all(blocks.map(({ bytes, cid }) => codeOf(provider.put('a', cid, bytes, 1000))))
    expect(codes.filter((code) => code === 'resolved')).toHaveLength(10)
    expect(codes.filter((code) => code === 'NO_SPACE')).toHaveLength(20)
    expect(await provider.stats()).toMatchObject({ usedBytes: 10_000, reservedBytes: 0, freeBytes: 500 })
  })

  test('the same block from many owners at once costs its bytes once', async () => {
    const { provider } = testProvider({ capacityBytes: 1000 })
    const { bytes, cid } = block(1000)
    const results = await Promise.all(
      Array.from({ length: 10 }, (_, i) => provider.put(`owner ${i}`, cid, bytes, 1000))
    )
    expect(results.filter(({ created }) => created)).toHaveLength(1)
    expect(await provider.stats()).toMatchObject({ usedBytes: 1000, leases: 10, blocks: 1 })
  })

  test('a full disk is NO_SPACE, shows in the offer, and is forgotten when something goes', async () => {
    const { provider, clock } = testProvider({ shards: new MemoryShardStore({ diskBytes: 1500 }) })
    const [first, second] = [block(1000), block(1000)]
    await provider.put('a', first.cid, first.bytes, 1000)
    expect(await codeOf(provider.put('a', second.cid, second.bytes, 1000))).toBe('NO_SPACE')
    expect((await provider.offer()).freeBytes).toBe(0)
    expect(await provider.stats()).toMatchObject({ usedBytes: 1000, reservedBytes: 0 })
    await provider.release('a', [first.cid])
    expect((await provider.offer()).freeBytes).toBeGreaterThan(0)
    await provider.put('a', second.cid, second.bytes, 1000)
    clock.advance(1)
  })

  test('a lease that cannot be written leaves no acknowledgement, and the block is collected later', async () => {
    class Leases extends MemoryLeaseStore {
      fails = true
      override async grant(...args: Parameters<MemoryLeaseStore['grant']>): Promise<void> {
        if (this.fails) throw new HoldfastError('INTERNAL', 'disk trouble')
        await super.grant(...args)
      }
    }
    const leases = new Leases()
    const { provider, clock } = testProvider({ leases })
    const [lost, kept] = [block(), block()]
    await expect(provider.put('a', lost.cid, lost.bytes, 1000)).rejects.toThrow('disk trouble')
    await expect(provider.put('a', kept.cid, kept.bytes, 1000)).rejects.toThrow('disk trouble')
    leases.fails = false
    await provider.put('a', kept.cid, kept.bytes, 10 * dayMs)
    clock.advance(2 * dayMs)
    expect(await provider.collect()).toEqual({ blocks: 1, bytes: 1000 })
    expect(await provider.has(lost.cid)).toBe(false)
    expect(await provider.has(kept.cid)).toBe(true)
  })

  test('draining takes nothing new, and keeps what it has', async () => {
    const { provider } = testProvider()
    const [old, fresh] = [block(), block()]
    await provider.put('a', old.cid, old.bytes, 1000)
    provider.setAccepting(false)
    expect((await provider.offer()).accepting).toBe(false)
    expect(await codeOf(provider.put('a', fresh.cid, fresh.bytes, 1000))).toBe('NO_SPACE')
    expect(await provider.put('b', old.cid, old.bytes, 1000)).toMatchObject({ created: false })
    expect(await provider.renew('a', [old.cid], 5000)).toEqual(['held'])
  })
})

test('one that drains says so, takes nothing new, and keeps what it has', async () => {
  const { provider } = testProvider()
  const [old, fresh] = [block(), block()]
  await provider.put('a', old.cid, old.bytes, 1000)
  expect(await provider.offer()).not.toHaveProperty('draining')
  provider.setDraining(true)
  expect(await provider.offer()).toMatchObject({ draining: true, accepting: false })
  expect(await codeOf(provider.put('a', fresh.cid, fresh.bytes, 1000))).toBe('NO_SPACE')
  expect(await provider.renew('a', [old.cid], 5000)).toEqual(['held'])
  provider.setDraining(false)
  expect(await provider.offer()).toMatchObject({ accepting: true })
  expect(await provider.put('a', fresh.cid, fresh.bytes, 1000)).toMatchObject({ created: true })
})

test('what nobody leases goes at once where it is told so; what is leased stays', async () => {
  const { provider, shards } = testProvider()
  const [leased, orphan] = [block(), block()]
  await shards.put(orphan.cid, orphan.bytes)
  await provider.reconcileAtStart()
  await provider.put('a', leased.cid, leased.bytes, 1000)
  await provider.dropUnleased()
  expect([await shards.size(orphan.cid), await provider.has(leased.cid)]).toEqual([undefined, true])
  expect((await provider.stats()).usedBytes).toBe(leased.bytes.length)
})

describe('getting', () => {
  test('damaged bytes never leave, are remembered, and a fresh copy heals them', async () => {
    const logged: string[] = []
    const log = { ...silentLog, error: (message: string) => void logged.push(message) }
    const { provider, shards } = testProvider({ log: { ...log, child: () => log } })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    const rotten = Buffer.from(bytes)
    rotten[500]! ^= 1
    await shards.put(cid, rotten)
    await expect(provider.get(cid)).rejects.toMatchObject({ code: 'MISSING', details: { rotten: true } })
    await expect(provider.get(cid)).rejects.toMatchObject({ code: 'MISSING' })
    expect(logged).toEqual(['a stored block is damaged'])
    expect(await provider.has(cid)).toBe(false)
    expect(await provider.renew('a', [cid], 1000)).toEqual(['missing'])
    expect(await provider.stats()).toMatchObject({ rotten: 1, lost: 1, usedBytes: 0, leasedBytes: 0 })
    expect(await provider.put('a', cid, bytes, 1000)).toMatchObject({ created: true })
    expect(Buffer.compare(await provider.get(cid), bytes)).toBe(0)
    expect(await provider.stats()).toMatchObject({ rotten: 1, lost: 0, usedBytes: 1000 })
  })

  test('a put does not take a block that rotted unnoticed for a good one', async () => {
    const { provider, shards } = testProvider()
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    await shards.put(cid, randomBytes(1000))
    await provider.put('b', cid, bytes, 1000)
    expect(Buffer.compare(await provider.get(cid), bytes)).toBe(0)
  })

  test('dag-pb blocks are found by their old CIDs too', async () => {
    const { provider } = testProvider()
    const bytes = randomBytes(10)
    const cid = cidOfNode(codecs.dagPb, bytes)
    await provider.put('a', cid, bytes, 1000)
    expect(Buffer.compare(await provider.get(cid.toV0()), bytes)).toBe(0)
  })
})

describe('leases', () => {
  test('an expired block is kept for a grace, then collected; a renewal in time saves it', async () => {
    const { provider, clock } = testProvider({ expiryGraceMs: hourMs })
    const [lost, saved] = [block(), block()]
    for (const { bytes, cid } of [lost, saved]) await provider.put('a', cid, bytes, 1000)
    clock.advance(1001 + hourMs / 2)
    expect(await provider.collect()).toEqual({ blocks: 0, bytes: 0 })
    expect(await provider.renew('a', [saved.cid], hourMs)).toEqual(['held'])
    clock.advance(hourMs / 2)
    expect(await provider.collect()).toEqual({ blocks: 1, bytes: 1000 })
    expect(await provider.has(lost.cid)).toBe(false)
    expect(await provider.has(saved.cid)).toBe(true)
    expect(await provider.stats()).toMatchObject({ usedBytes: 1000, leases: 1, blocks: 1 })
  })

  test('collects more than one batch', async () => {
    const { provider, clock } = testProvider({ expiryGraceMs: 0 })
    const blocks = Array.from({ length: 2500 }, () => block(8))
    await Promise.all(blocks.map(({ bytes, cid }) => provider.put('a', cid, bytes, 1000)))
    clock.advance(1001)
    expect(await provider.collect()).toEqual({ blocks: 2500, bytes: 20_000 })
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0 })
  })

  test('collects what nobody leases also behind many that one of two owners has given up', async () => {
    const { provider, leases, clock } = testProvider({ expiryGraceMs: 0 })
    const shared = Array.from({ length: 1500 }, () => block(8).cid)
    const [soon, late] = [clock.now() + 1000, clock.now() + dayMs]
    await leases.grant(shared.map((cid) => ({ cid, owner: 'a', until: soon, bytes: 8 })))
    await leases.grant(shared.map((cid) => ({ cid, owner: 'b', until: late, bytes: 8 })))
    const { bytes, cid } = block(8)
    await provider.put('a', cid, bytes, 1500)
    clock.advance(2000)
    expect(await provider.collect()).toEqual({ blocks: 1, bytes: 8 })
    expect(await provider.stats()).toMatchObject({ leases: 1500, blocks: 1500 })
  })

  test('a put that comes while its block is being collected leaves the block there', async () => {
    const shards = new GatedShardStore()
    const { provider, clock } = testProvider({ shards, expiryGraceMs: 0 })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    clock.advance(1001)
    const deletion = shards.gate('delete')
    const collecting = provider.collect()
    await deletion.reached // judged unleased, and about to go
    const putting = provider.put('b', cid, bytes, 1000)
    deletion.open()
    await Promise.all([collecting, putting])
    expect(Buffer.compare(await provider.get(cid), bytes)).toBe(0)
    expect(await provider.stats()).toMatchObject({ usedBytes: 1000, leases: 1 })
  })

  test('a renewal that comes while its block is being collected says that it is missing', async () => {
    const shards = new GatedShardStore()
    const { provider, leases, clock } = testProvider({ shards, expiryGraceMs: 0 })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    clock.advance(1001)
    const deletion = shards.gate('delete')
    const collecting = provider.collect()
    await deletion.reached
    const renewing = provider.renew('a', [cid], 1000)
    // The renewal has seen the block and written its lease; only then does the deletion go on.
    await expect.poll(() => leases.isLeased(cid)).toBe(true)
    await new Promise(setImmediate)
    deletion.open()
    expect(await renewing).toEqual(['missing'])
    await collecting
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0 })
  })

  test('a renewal that began before its block was refused does not keep it from being deleted', async () => {
    const granted = Promise.withResolvers<void>()
    const evicted = Promise.withResolvers<void>()
    class Leases extends MemoryLeaseStore {
      override async grant(leases: readonly Lease[]): Promise<void> {
        await super.grant(leases)
        if (leases[0]?.owner === 'b') granted.resolve()
      }
      override async evict(cids: readonly CID[]): Promise<CID[]> {
        const freed = await super.evict(cids)
        evicted.resolve()
        await granted.promise
        return freed
      }
    }
    class Shards extends MemoryShardStore {
      isSlow = false
      override async size(cid: CID): Promise<number | undefined> {
        const size = await super.size(cid)
        if (this.isSlow) {
          this.isSlow = false
          await evicted.promise
        }
        return size
      }
    }
    const shards = new Shards()
    const refusals = new RefusalStore(':memory:')
    const { provider } = testProvider({ leases: new Leases(), shards, refusals })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, dayMs)
    shards.isSlow = true
    const renewing = provider.renew('b', [cid], dayMs)
    while (shards.isSlow) await Promise.resolve()
    refusals.refuse(cid, { reason: 'x', at: 1, atOnce: true }, { cids: [], isWhole: true })
    await provider.evict([cid])
    expect(await renewing).toEqual(['refused'])
    expect(await shards.size(cid)).toBeUndefined()
    expect(await provider.stats()).toMatchObject({ leases: 0, blocks: 0, usedBytes: 0 })
  })

  test('a release that overtakes its own put still ends the lease, and the block is gone', async () => {
    const shards = new GatedShardStore()
    const { provider } = testProvider({ shards })
    const { bytes, cid } = block()
    const { reached, open } = shards.gate('put')
    const putting = provider.put('a', cid, bytes, 1000)
    await reached
    const releasing = provider.release('a', [cid])
    open()
    await Promise.all([putting, releasing])
    expect(await provider.stats()).toMatchObject({ leases: 0, usedBytes: 0 })
    expect(await provider.has(cid)).toBe(false)
  })

  test('a release while the same block is being put by another keeps the block', async () => {
    const shards = new GatedShardStore()
    const { provider } = testProvider({ shards })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    await shards.delete(cid) // so that the next put has to write
    const write = shards.gate('put')
    const putting = provider.put('b', cid, bytes, 1000)
    await write.reached
    const releasing = provider.release('a', [cid])
    write.open()
    await Promise.all([putting, releasing])
    expect(Buffer.compare(await provider.get(cid), bytes)).toBe(0)
  })

  test('requests have a bound', async () => {
    const { provider } = testProvider()
    const cids = Array.from({ length: limits.leaseBatchMax + 1 }, () => block(1).cid)
    expect(await codeOf(provider.renew('a', cids, 1000))).toBe('BAD_INPUT')
    expect(await codeOf(provider.release('a', cids))).toBe('BAD_INPUT')
  })
})

describe('starting', () => {
  test('finds what a crash left between block and lease, and keeps it for a grace', async () => {
    const { provider: before, shards, leases, clock } = testProvider()
    const [good, orphan, saved, gone] = [block(), block(300), block(200), block()]
    for (const { bytes, cid } of [good, gone]) await before.put('a', cid, bytes, 30 * dayMs)
    await shards.put(orphan.cid, orphan.bytes)
    await shards.put(saved.cid, saved.bytes)
    await shards.delete(gone.cid)
    const { provider } = testProvider({ shards, leases, clock })
    expect(await provider.reconcileAtStart()).toEqual({ blocks: 3, bytes: 1500, orphans: 2, missing: 1 })
    expect(await provider.stats()).toMatchObject({ usedBytes: 1500 })
    expect(await provider.renew('a', [good.cid, gone.cid, saved.cid], 30 * dayMs)).toEqual(['held', 'missing', 'held'])
    expect(await provider.collect()).toEqual({ blocks: 0, bytes: 0 })
    clock.advance(dayMs)
    expect(await provider.collect()).toEqual({ blocks: 1, bytes: 300 })
    expect(await provider.stats()).toMatchObject({ usedBytes: 1200 })
    expect(await provider.has(saved.cid)).toBe(true)
  })

  test('an orphan goes a day after it was first found, though the provider starts anew every hour', async () => {
    const { shards, leases, clock } = testProvider()
    const orphan = block()
    await shards.put(orphan.cid, orphan.bytes)
    for (let hour = 0; hour < 24; hour++) {
      const { provider } = testProvider({ shards, leases, clock })
      expect(await provider.reconcileAtStart()).toMatchObject({ orphans: 1 })
      expect(await provider.collect()).toEqual({ blocks: 0, bytes: 0 })
      clock.advance(hourMs)
    }
    const { provider } = testProvider({ shards, leases, clock })
    await provider.reconcileAtStart()
    expect(await provider.collect()).toEqual({ blocks: 1, bytes: 1000 })
    expect(await provider.stats()).toMatchObject({ usedBytes: 0 })
  })

  test('what comes while the store is listed waits, and is counted right', async () => {
    const { shards, leases } = testProvider()
    const old = block(500)
    await shards.put(old.cid, old.bytes)
    const { provider } = testProvider({ shards, leases })
    const fresh = block()
    const [result] = await Promise.all([provider.reconcileAtStart(), provider.put('a', fresh.cid, fresh.bytes, 1000)])
    expect(result).toMatchObject({ blocks: 1, bytes: 500 })
    expect((await provider.stats()).usedBytes).toBe(1500)
    await expect(provider.reconcileAtStart()).rejects.toThrow()
  })
})

describe('losing', () => {
  /** A provider whose losses are heard. */
  const listened = (options: Parameters<typeof testProvider>[0] = {}) => {
    const told: string[] = []
    const onLost = async (cids: readonly CID[]): Promise<void> => void told.push(...cids.map(String))
    return { told, ...testProvider({ onLost, ...options }) }
  }
  const rot = (bytes: Uint8Array): Buffer => {
    const rotten = Buffer.from(bytes)
    rotten[rotten.length >> 1]! ^= 1
    return rotten
  }

  test('what a read, a proof, a scrub or a renewal finds bad is told once, and counts no longer', async () => {
    const finders: Array<[string, (it: StorageProvider, cid: CID) => Promise<unknown>, boolean]> = [
      ['get', (it, cid) => codeOf(it.get(cid)), true],
      ['prove', (it, cid) => codeOf(it.prove(cid, [0])), true],
      ['scrub', (it, cid) => it.scrub(cid), true],
      ['renew', (it, cid) => it.renew('b', [cid], 1000), false]
    ]
    for (const [name, find, looksInside] of finders) {
      for (const damage of looksInside ? ['rotten', 'cut', 'gone'] : ['gone']) {
        const { provider, shards, leases, told } = listened()
        const [{ bytes, cid }, other] = [block(), block(300)]
        await provider.put('a', cid, bytes, 1000)
        await provider.put('b', cid, bytes, 1000)
        await provider.put('a', other.cid, other.bytes, 1000)
        if (damage === 'gone') await shards.delete(cid)
        else await shards.put(cid, damage === 'cut' ? bytes.subarray(0, 10) : rot(bytes))
        await find(provider, cid)
        await find(provider, cid)
        expect(told, `${name} ${damage}`).toEqual([String(cid)])
        expect(await provider.stats()).toMatchObject({ usedBytes: 300, leasedBytes: 300, blocks: 1, lost: 1 })
        expect(await shards.size(cid)).toBeUndefined()
        expect(await provider.renew('a', [cid], 1000)).toEqual(['missing'])
        expect(await leases.lossOf(cid)).toBe(damage === 'gone' ? 'missing' : 'rotten')
        // Brought again by anybody, it is there for all who lease it.
        expect(await provider.put('c', cid, bytes, 1000)).toMatchObject({ created: true })
        expect(await provider.stats()).toMatchObject({ usedBytes: 1300, leasedBytes: 1300, lost: 0 })
        expect(await provider.renew('a', [cid], 1000)).toEqual(['held'])
      }
    }
  })

  test('a sector that cannot be read is a loss, trouble of another kind is not', async () => {
    class Shards extends MemoryShardStore {
      code: string | undefined
      override async get(cid: CID): Promise<Uint8Array | undefined> {
        if (this.code !== undefined) throw Object.assign(new Error(this.code), { code: this.code })
        return await super.get(cid)
      }
    }
    const shards = new Shards()
    const { provider, told } = listened({ shards })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    shards.code = 'EMFILE'
    await expect(provider.get(cid)).rejects.toThrow('EMFILE')
    await expect(provider.scrub(cid)).rejects.toThrow('EMFILE')
    expect(told).toEqual([])
    shards.code = 'EIO'
    await expect(provider.get(cid)).rejects.toMatchObject({ code: 'MISSING', details: { rotten: true } })
    expect(told).toEqual([String(cid)])
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, lost: 1 })
  })

  test('a block that is brought again while it is found bad is not lost', async () => {
    const shards = new GatedShardStore()
    const { provider, told } = listened({ shards })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    await MemoryShardStore.prototype.put.call(shards, cid, rot(bytes))
    const write = shards.gate('put')
    const putting = provider.put('a', cid, bytes, 1000)
    await write.reached
    const scrubbing = provider.scrub(cid) // has seen the damage, and waits for the write
    write.open()
    expect(await scrubbing).toBe('ok')
    await putting
    expect(told).toEqual([])
    expect(await provider.stats()).toMatchObject({ usedBytes: 1000, lost: 0 })
  })

  test('a release of what is being scrubbed takes it away in good order', async () => {
    const { provider, told } = listened()
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    const [result] = await Promise.all([provider.scrub(cid), provider.release('a', [cid])])
    expect(['ok', 'unleased', 'missing']).toContain(result)
    expect(await provider.scrub(cid)).toBe('unleased')
    expect(told).toEqual([])
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0, lost: 0 })
  })

  test('a start finds what is gone, cut, or was being given up, and tells again what it told before', async () => {
    const before = testProvider()
    const blocks = Array.from({ length: 6 }, (_, i) => block(1000 + i))
    const [whole, gone, cut, half, back, told] = blocks.map(({ cid }) => cid) as [CID, CID, CID, CID, CID, CID]
    for (const { cid, bytes } of blocks) await before.provider.put('a', cid, bytes, 1000)
    const { shards, leases } = before
    await shards.delete(gone)
    await shards.put(cut, blocks[2]!.bytes.subarray(0, 10))
    await shards.put(half, rot(blocks[3]!.bytes)) // killed between its note and its deletion
    await leases.lose([half, back], 'rotten') // and that one was brought again, and killed before that was noted
    await shards.delete(told)
    await leases.lose([told], 'missing')
    const after = listened({ shards, leases })
    expect(await after.provider.reconcileAtStart()).toEqual({ blocks: 2, bytes: 2004, orphans: 0, missing: 4 })
    expect(await after.provider.stats()).toMatchObject({ usedBytes: 2004, leasedBytes: 2004, lost: 4, leases: 6 })
    expect(after.told.sort()).toEqual([gone, cut, half, told].map(String).sort())
    for (const cid of [whole, back]) expect(await after.provider.has(cid)).toBe(true)
    for (const cid of [gone, cut, half, told]) expect(await shards.size(cid)).toBeUndefined()
  })

  test('a telling that fails does not keep the loss from being known, and is made good at the next start', async () => {
    const { provider, shards, leases } = listened({ onLost: () => Promise.reject(new Error('the disk is full')) })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    await shards.put(cid, rot(bytes))
    expect(await provider.scrub(cid)).toBe('rotten')
    const after = listened({ shards, leases })
    await after.provider.reconcileAtStart()
    expect(after.told).toEqual([String(cid)])
  })

  test('a write over a loss that fails leaves the count right', async () => {
    class Shards extends MemoryShardStore {
      fails = false
      override async put(cid: CID, bytes: Uint8Array): Promise<void> {
        if (this.fails) throw new Error('the disk is gone')
        await super.put(cid, bytes)
      }
    }
    const shards = new Shards()
    const { provider, told } = listened({ shards })
    const [known, unknown] = [block(), block(500)]
    for (const { cid, bytes } of [known, unknown]) await provider.put('a', cid, bytes, 1000)
    await shards.delete(known.cid)
    await provider.scrub(known.cid)
    await shards.delete(unknown.cid) // and nobody has looked
    shards.fails = true
    for (const { cid, bytes } of [known, unknown]) await expect(provider.put('a', cid, bytes, 1000)).rejects.toThrow()
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leasedBytes: 0, lost: 2, reservedBytes: 0 })
    expect(told).toEqual([known.cid, unknown.cid].map(String))
    shards.fails = false
    for (const { cid, bytes } of [known, unknown]) await provider.put('a', cid, bytes, 1000)
    expect(await provider.stats()).toMatchObject({ usedBytes: 1500, leasedBytes: 1500, lost: 0 })
  })

  test('a damaged block that nobody leases goes without a word, and is leased to nobody', async () => {
    const { shards, leases } = testProvider()
    const [read, renewed] = [block(), block()]
    for (const { cid, bytes } of [read, renewed]) await shards.put(cid, rot(bytes))
    const { provider, told } = listened({ shards, leases })
    await provider.reconcileAtStart()
    expect(await codeOf(provider.get(read.cid))).toBe('MISSING')
    expect(await provider.renew('a', [renewed.cid], 1000)).toEqual(['missing'])
    expect(told).toEqual([])
    expect(await provider.stats()).toMatchObject({ usedBytes: 1000, leasedBytes: 0, leases: 0 })
  })
})

describe('gateways that lease the same block', () => {
  test('each keeps it alive, by renewing as by not releasing', async () => {
    const { provider, clock } = testProvider({ expiryGraceMs: 0 })
    const { bytes, cid } = block()
    await provider.put('a', cid, bytes, 1000)
    await provider.put('b', cid, bytes, 1000)
    await provider.release('a', [cid])
    expect(await provider.has(cid)).toBe(true)
    await provider.put('a', cid, bytes, 1000)
    await provider.renew('b', [cid], 5000)
    clock.advance(2000) // the lease of a has run out
    expect(await provider.collect()).toEqual({ blocks: 0, bytes: 0 })
    expect(await provider.has(cid)).toBe(true)
    expect(await provider.isLeasedBy('a', cid)).toBe(false)
    expect(await provider.renew('b', [cid], 5000)).toEqual(['held'])
    await provider.release('b', [cid])
    expect(await provider.has(cid)).toBe(false)
    expect(await provider.stats()).toMatchObject({ usedBytes: 0, leases: 0 })
  })
})

/** Damages what somebody leases, and has it looked at: the next round finds it given up. */
async function damage(op: string, provider: StorageProvider, shards: ShardStore, it: { cid: CID }): Promise<void> {
  const stored = await shards.get(it.cid)
  if (stored === undefined || (op !== 'rot' && op !== 'vanish')) return
  if (op === 'rot') await shards.put(it.cid, randomBytes(stored.length))
  else await shards.delete(it.cid)
  expect(await provider.scrub(it.cid)).toBe(op === 'rot' ? 'rotten' : 'missing')
}

test('whatever is done in whatever order: used bytes are exact, leased blocks are there', async () => {
  const blocks = Array.from({ length: 6 }, (_, i) => block(100 * (i + 1)))
  const step = fc.record({
    op: fc.constantFrom('put', 'renew', 'release', 'collect', 'pass', 'rot', 'vanish', 'get', 'scrub'),
    i: fc.nat(blocks.length - 1),
    owner: fc.constantFrom('a', 'b'),
    termMs: fc.integer({ min: 1, max: 50 })
  })
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(step, { maxLength: 6 }), { maxLength: 12 }), async (rounds) => {
      const { provider, shards, leases, clock } = testProvider({ capacityBytes: 1200, expiryGraceMs: 0 })
      for (const round of rounds) {
        await Promise.all(
          round.map(async ({ op, i, owner, termMs }) => {
            const { bytes, cid } = blocks[i]!
            if (op === 'put') await codeOf(provider.put(owner, cid, bytes, termMs))
            else if (op === 'renew') await provider.renew(owner, [cid], termMs)
            else if (op === 'release') await provider.release(owner, [cid])
            else if (op === 'collect') await provider.collect()
            else if (op === 'get') await codeOf(provider.get(cid))
            else if (op === 'scrub') await provider.scrub(cid)
          })
        )
        if (round.some(({ op }) => op === 'pass')) clock.advance(20)
        for (const { op, i } of round) await damage(op, provider, shards, blocks[i]!)
        let storedBytes = 0
        for await (const { bytes } of shards.list()) storedBytes += bytes
        const { usedBytes, reservedBytes } = await provider.stats()
        expect({ usedBytes, reservedBytes }).toEqual({ usedBytes: storedBytes, reservedBytes: 0 })
        expect(usedBytes).toBeLessThanOrEqual(1200)
        for (const { cid } of blocks) {
          const isOwed = (await leases.isLeased(cid)) && (await leases.lossOf(cid)) === undefined
          if (isOwed) expect(await shards.size(cid)).toBeDefined()
        }
      }
    }),
    { numRuns: 150 }
  )
})

test('the signed offer is used again for a moment only', async () => {
  const { provider, clock } = testProvider()
  const first = await provider.signedOffer()
  expect(await provider.signedOffer()).toBe(first)
  clock.advance(5000)
  expect(Buffer.compare(await provider.signedOffer(), first)).not.toBe(0)
})
