/** Leases in memory: for simulations and tests. Everything happens within the call, so that runs replay. */
import type { CID } from 'multiformats/cid'
import {
  byBytes,
  type Expired,
  type Lease,
  type LeasedBlock,
  type LeaseStore,
  type LeaseTotals,
  type LossKind,
  type OwnerTotals
} from './lease-store.ts'

const compareCids = (a: CID, b: CID): number => Buffer.compare(a.bytes, b.bytes)

interface Block extends LeasedBlock {
  untilByOwner: Map<string, number>
  loss?: LossKind
}

export class MemoryLeaseStore implements LeaseStore {
  #blocks = new Map<string, Block>()
  #orphans = new Map<string, { cid: CID; at: number }>()
  #leases = 0
  #lost = 0
  #usedBytes = 0

  async grant(leases: readonly Lease[]): Promise<void> {
    for (const { cid, owner, until, bytes } of leases) {
      const block = this.#blockOf(cid)
      if (block.loss === undefined) this.#usedBytes += bytes - block.bytes
      block.bytes = bytes
      const before = block.untilByOwner.get(owner)
      if (before === undefined) this.#leases += 1
      block.untilByOwner.set(owner, Math.max(until, before ?? 0))
    }
  }

  async release(owner: string, cids: readonly CID[]): Promise<CID[]> {
    const freed: CID[] = []
    for (const cid of cids) {
      const block = this.#blocks.get(cid.toString())
      if (block !== undefined && this.#end(block, owner)) freed.push(block.cid)
    }
    return freed
  }

  async expire(now: number, limit: number): Promise<Expired> {
    const freed: CID[] = []
    let ended = 0
    for (const block of [...this.#blocks.values()]) {
      for (const [owner, until] of [...block.untilByOwner]) {
        if (until >= now) continue
        if (ended === limit) return { ended, freed }
        ended += 1
        if (this.#end(block, owner)) freed.push(block.cid)
      }
    }
    return { ended, freed }
  }

  async evict(cids: readonly CID[]): Promise<CID[]> {
    const freed: CID[] = []
    for (const cid of cids) {
      const block = this.#blocks.get(cid.toString())
      if (block === undefined) continue
      for (const owner of [...block.untilByOwner.keys()]) this.#end(block, owner)
      freed.push(block.cid)
    }
    return freed
  }

  async get(owner: string, cid: CID): Promise<Lease | undefined> {
    const block = this.#blocks.get(cid.toString())
    const until = block?.untilByOwner.get(owner)
    return block === undefined || until === undefined ? undefined : { cid: block.cid, owner, until, bytes: block.bytes }
  }

  async list(owner: string, { after, limit }: { after?: CID; limit: number }): Promise<Lease[]> {
    const found: Lease[] = []
    for (const { cid, bytes, untilByOwner } of this.#blocks.values()) {
      const until = untilByOwner.get(owner)
      if (until === undefined || (after !== undefined && compareCids(cid, after) <= 0)) continue
      found.push({ cid, owner, until, bytes })
    }
    return found.sort((a, b) => compareCids(a.cid, b.cid)).slice(0, limit)
  }

  async ownersOf(cid: CID): Promise<string[]> {
    return [...(this.#blocks.get(cid.toString())?.untilByOwner.keys() ?? [])].sort()
  }

  async isLeased(cid: CID): Promise<boolean> {
    return this.#blocks.has(cid.toString())
  }

  async lengthOf(cid: CID): Promise<number | undefined> {
    return this.#blocks.get(cid.toString())?.bytes
  }

  async lose(cids: readonly CID[], kind: LossKind): Promise<CID[]> {
    return cids.filter((cid) => {
      const block = this.#blocks.get(cid.toString())
      if (block === undefined || block.loss !== undefined) return false
      block.loss = kind
      this.#lost += 1
      this.#usedBytes -= block.bytes
      return true
    })
  }

  async find(cid: CID): Promise<void> {
    const block = this.#blocks.get(cid.toString())
    if (block !== undefined) this.#find(block)
  }

  async lossOf(cid: CID): Promise<LossKind | undefined> {
    return this.#blocks.get(cid.toString())?.loss
  }

  async blocks(after: CID | undefined, limit: number): Promise<LeasedBlock[]> {
    return this.#page(false, after, limit)
  }

  async losses(after: CID | undefined, limit: number): Promise<LeasedBlock[]> {
    return this.#page(true, after, limit)
  }

  #page(isLost: boolean, after: CID | undefined, limit: number): LeasedBlock[] {
    return [...this.#blocks.values()]
      .filter(({ cid, loss }) => (loss !== undefined) === isLost && (after === undefined || compare(cid, after) > 0))
      .sort((a, b) => compare(a.cid, b.cid))
      .slice(0, limit)
      .map(({ cid, bytes }) => ({ cid, bytes }))
  }

  async noteOrphans(cids: readonly CID[], at: number): Promise<void> {
    for (const cid of cids) if (!this.#orphans.has(cid.toString())) this.#orphans.set(cid.toString(), { cid, at })
  }

  async orphansSince(at: number, limit: number): Promise<CID[]> {
    const due = [...this.#orphans.values()].filter((orphan) => orphan.at <= at)
    return due
      .sort((a, b) => a.at - b.at || compare(a.cid, b.cid))
      .slice(0, limit)
      .map(({ cid }) => cid)
  }

  async forgetOrphans(cids: readonly CID[]): Promise<void> {
    for (const cid of cids) this.#orphans.delete(cid.toString())
  }

  async usedBytes(): Promise<number> {
    return this.#usedBytes
  }

  async totals(): Promise<LeaseTotals> {
    return {
      leases: this.#leases,
      blocks: this.#blocks.size - this.#lost,
      bytes: this.#usedBytes,
      lost: this.#lost
    }
  }

  async owners(limit: number): Promise<OwnerTotals[]> {
    const totals = new Map<string, OwnerTotals>()
    for (const { bytes, untilByOwner } of this.#blocks.values()) {
      for (const owner of untilByOwner.keys()) {
        const own = totals.get(owner) ?? { owner, leases: 0, bytes: 0 }
        totals.set(owner, { owner, leases: own.leases + 1, bytes: own.bytes + bytes })
      }
    }
    return [...totals.values()].sort(byBytes).slice(0, limit)
  }

  async close(): Promise<void> {}

  #blockOf(cid: CID): Block {
    const key = cid.toString()
    let block = this.#blocks.get(key)
    if (block === undefined) {
      block = { cid, bytes: 0, untilByOwner: new Map() }
      this.#blocks.set(key, block)
    }
    return block
  }

  #find(block: Block): void {
    if (block.loss === undefined) return
    block.loss = undefined
    this.#lost -= 1
    this.#usedBytes += block.bytes
  }

  /** Whether that was the block's last lease. */
  #end(block: Block, owner: string): boolean {
    if (!block.untilByOwner.delete(owner)) return false
    this.#leases -= 1
    if (block.untilByOwner.size > 0) return false
    this.#find(block)
    this.#blocks.delete(block.cid.toString())
    this.#usedBytes -= block.bytes
    return true
  }
}

const compare = (a: CID, b: CID): number => Buffer.compare(a.bytes, b.bytes)
