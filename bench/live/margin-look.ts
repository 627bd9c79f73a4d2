/** One look at all segments: how many of their shards are where the gateway says, at a provider that is there. */
import { access } from 'node:fs/promises'
import { forEachLimit } from '../../src/base/concurrency.ts'
import type { ObjectHealth } from '../../src/object/object-store.ts'
import { type SegmentView, viewsOf } from '../repair/margins.ts'
import { blockFile } from '../repair/network.ts'

/** Each asks the gateway for one object's health. */
const looksAtOnce = 4

export interface MarginLookInit {
  keys: readonly string[]
  healthOf: (key: string) => Promise<Pick<ObjectHealth, 'segments' | 'blocks'>>
  /** Whether a provider that is there, by what the trace did to it, has the shard on its disk. */
  isThere: (peerId: string, cid: string) => Promise<boolean>
}

export interface Margins {
  least: number
  mean: number
  fullShare: number
}

/** Copies of manifests are not among the segments: each is on `m + 1` providers. */
export async function lookAtMargins({ keys, healthOf, isThere }: MarginLookInit): Promise<Margins> {
  const margins: number[] = []
  let full = 0
  await forEachLimit(keys, looksAtOnce, async (key) => {
    for (const segment of viewsOf(key, { ...(await healthOf(key)), blocks: [] })) {
      const there = await countThere(segment, isThere)
      margins.push(there - segment.k)
      if (there === segment.shards.length) full++
    }
  })
  return {
    least: Math.min(...margins),
    mean: margins.reduce((sum, margin) => sum + margin, 0) / margins.length,
    fullShare: full / margins.length
  }
}

async function countThere({ shards }: SegmentView, isThere: MarginLookInit['isThere']): Promise<number> {
  const found = await Promise.all(
    shards.map(async ({ provider, cid }) => provider !== null && (await isThere(provider, cid)))
  )
  return found.filter(Boolean).length
}

/** @param data of a provider that runs; undefined: it is away */
export async function hasBlock(data: string | undefined, cid: string): Promise<boolean> {
  if (data === undefined) return false
  return await access(blockFile({ data }, cid)).then(
    () => true,
    () => false // not there: lost with a disk, or not written yet
  )
}
