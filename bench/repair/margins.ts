/** What health says of everything stored, taken together: margins, what a repair should have cost, what is left over. Pure. */
import { parseCode } from '../../src/erasure/erasure-coder.ts'
import type { ObjectHealth, SegmentHealth } from '../../src/object/object-store.ts'

export interface ShardView {
  cid: string
  /** Peer id; null where it is placed nowhere. */
  provider: string | null
  state: string
}

/** A segment of an object, or a manifest or other small block (`k` is 1: its shards are copies). */
export interface SegmentView {
  /** `KEY#2`, `KEY/block#0`: the same in every snapshot. */
  name: string
  k: number
  margin: number
  shards: readonly ShardView[]
}

/** All segments of all objects. */
export type Snapshot = readonly SegmentView[]

export function viewsOf(key: string, { segments, blocks }: Pick<ObjectHealth, 'segments' | 'blocks'>): SegmentView[] {
  const view = (name: string, { code, margin, shards }: SegmentHealth): SegmentView => ({
    name,
    k: parseCode(code).k,
    margin,
    shards: shards.map(({ cid, provider, state }) => ({ cid, provider, state }))
  })
  return [
    ...segments.map((segment, i) => view(`${key}#${i}`, segment)),
    ...blocks.map((block, i) => view(`${key}/block#${i}`, block))
  ]
}

/** The fewest shards beyond `k` that any segment has. Those of providers in `gone` count for nothing, whatever is said of them. */
export function leastMargin(snapshot: Snapshot, gone: ReadonlySet<string> = new Set()): number {
  return Math.min(
    ...snapshot.map(({ k, margin, shards }) =>
      Math.min(
        margin,
        shards.filter(({ provider, state }) => state === 'healthy' && !isGone(provider, gone)).length - k
      )
    )
  )
}

/** What keeps the snapshot from being full: every shard healthy, at a provider that is not gone. */
export function lacking(snapshot: Snapshot, gone: ReadonlySet<string>): ShardView[] {
  return snapshot.flatMap(({ shards }) =>
    shards.filter(({ provider, state }) => state !== 'healthy' || isGone(provider, gone))
  )
}

const isGone = (provider: string | null, gone: ReadonlySet<string>): boolean => provider === null || gone.has(provider)

export interface Change {
  segment: SegmentView
  /** Indices of shards that are elsewhere now, or were put back where they had been. */
  moved: number[]
}

/** @param restored `PROVIDER CID` of shards that were rebuilt in their old place */
export function changesOf(before: Snapshot, after: Snapshot, restored: ReadonlySet<string> = new Set()): Change[] {
  const now = new Map(after.map((segment) => [segment.name, segment]))
  return before.flatMap((segment) => {
    const shards = now.get(segment.name)?.shards ?? []
    const moved = segment.shards.flatMap(({ provider, cid }, at) =>
      shards[at]?.provider !== provider || restored.has(`${provider} ${cid}`) ? [at] : []
    )
    return moved.length === 0 ? [] : [{ segment, moved }]
  })
}

export interface Cost {
  shards: number
  /** Of the shards themselves: what handing them over moves, each once. */
  movedBytes: number
  /** `k + r` shards for each segment of which `r` were lost: what rebuilding moves, when it reads `k` once and writes `r`. */
  rebuiltBytes: number
}

/** @param bytesOf stored bytes of a block. @throws RangeError for one that is not known */
export function costOf(changes: readonly Change[], bytesOf: ReadonlyMap<string, number>): Cost {
  const cost: Cost = { shards: 0, movedBytes: 0, rebuiltBytes: 0 }
  for (const { segment, moved } of changes) {
    const sizes = segment.shards.map(({ cid }) => {
      const bytes = bytesOf.get(cid)
      if (bytes === undefined) throw new RangeError(`nobody has ever held block ${cid}`)
      return bytes
    })
    const movedBytes = moved.reduce((sum, at) => sum + sizes[at]!, 0)
    cost.shards += moved.length
    cost.movedBytes += movedBytes
    // The last data shards of a segment may be shorter: which `k` are read is the gateway's choice, so the full ones count.
    cost.rebuiltBytes += movedBytes + segment.k * Math.max(...sizes)
  }
  return cost
}

export interface Leftovers {
  /** Held, and needed by nothing. */
  leaked: number
  leakedBytes: number
  /** `PROVIDER CID` that should be held, and is not. */
  missing: string[]
}

/** Sets what each provider's disk holds beside what the snapshot has there. */
export function leftoversOf(snapshot: Snapshot, disks: ReadonlyMap<string, ReadonlyMap<string, number>>): Leftovers {
  const owed = new Set<string>()
  for (const { shards } of snapshot) for (const { provider, cid } of shards) owed.add(`${provider} ${cid}`)
  const result: Leftovers = { leaked: 0, leakedBytes: 0, missing: [] }
  const held = new Set<string>()
  for (const [provider, blocks] of disks) {
    for (const [cid, bytes] of blocks) {
      const name = `${provider} ${cid}`
      held.add(name)
      if (owed.has(name)) continue
      result.leaked++
      result.leakedBytes += bytes
    }
  }
  result.missing = [...owed.difference(held)]
  return result
}
