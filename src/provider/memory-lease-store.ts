/** Leases in memory: for simulations and tests. Everything happens within the call, so that runs replay. */
import type { CID } from 'multiformats/cid'
import { byBytes, type Lease, type LeaseStore, type OwnerTotals } from './lease-store.ts'

const compareCids = (a: CID, b: CID): number => Buffer.compare(a.bytes, b.bytes)

interface LeasedBlock {
  cid: CID
  bytes: number
  untilByOwner: Map<string, number>
}

export class MemoryLeaseStore implements LeaseStore {
  #blocks = new Map<string, LeasedBlock>()
  #leases = 0
  #usedBytes = 0

  async grant(leases: readonly Lease[]): Promise<void> {
    for (const { cid, owner, until, bytes } of leases) {
      const block = this.#blockOf(cid)
      this.#usedBytes += bytes - block.bytes
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

  async expire(now: number, limit: number): Promise<CID[]> {
    const freed: CID[] = []
    let ended = 0
    for (const block of [...this.#blocks.values()]) {
      for (const [owner, until] of [...block.untilByOwner]) {
        if (until >= now) continue
        if (ended === limit) return freed
        ended += 1
        if (this.#end(block, owner)) freed.push(block.cid)
      }
    }
    return freed
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

  async usedBytes(): Promise<number> {
    return this.#usedBytes
  }

  async totals(): Promise<{ leases: number; blocks: number; bytes: number }> {
    return { leases: this.#leases, blocks: this.#blocks.size, bytes: this.#usedBytes }
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

  #blockOf(cid: CID): LeasedBlock {
    const key = cid.toString()
    let block = this.#blocks.get(key)
    if (block === undefined) {
      block = { cid, bytes: 0, untilByOwner: new Map() }
      this.#blocks.set(key, block)
    }
    return block
  }

  /** Whether that was the block's last lease. */
  #end(block: LeasedBlock, owner: string): boolean {
    if (!block.untilByOwner.delete(owner)) return false
    this.#leases -= 1
    if (block.untilByOwner.size > 0) return false
    this.#blocks.delete(block.cid.toString())
    this.#usedBytes -= block.bytes
    return true
  }
}
