/** What is stored in a network under repair, and how all of it is looked at. */
import { forEachLimit } from '../../src/base/concurrency.ts'
import { KiB, MiB } from '../../src/base/limits.ts'
import type { ObjectHealth } from '../../src/object/object-store.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { DataSource, type ObjectData } from '../data.ts'
import type { S3Client } from '../throughput/s3-client.ts'
import { type Snapshot, viewsOf } from './margins.ts'
import type { RepairNetwork } from './network.ts'

export const bucket = 'repair'

export interface ObjectSetInit {
  seed: number
  count: number
  totalBytes: number
}

interface Stored {
  key: string
  data: ObjectData
}

const sizeMin = 4 * KiB
/** Where the search for the largest size ends: 2 GiB in 500 objects come to 37 MiB. */
const sizeMax = 64 * MiB
const putsAtOnce = 4
const getsAtOnce = 4
const looksAtOnce = 8

/**
 * Sizes from 4 KiB up, evenly spread over the orders of magnitude, that come to about `totalBytes`: the largest follows
 * from the mean.
 */
export function sizesOf({ seed, count, totalBytes }: ObjectSetInit): number[] {
  const mean = totalBytes / count
  // Mean of a log-uniform distribution on [a, b] is (b - a) / ln(b / a), which grows with b.
  let [low, high] = [sizeMin + 1, sizeMax]
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2
    if ((middle - sizeMin) / Math.log(middle / sizeMin) < mean) low = middle
    else high = middle
  }
  const random = seededRandom(`repair sizes ${seed}`)
  // One of each of `count` equal strata: the sum is near the mean's, whatever the seed.
  const sizes = Array.from({ length: count }, (_, i) => {
    const at = (i + random.next()) / count
    return Math.floor(sizeMin * (high / sizeMin) ** at)
  })
  return random.shuffle(sizes)
}

export class ObjectSet {
  readonly stored: readonly Stored[]
  readonly totalBytes: number

  constructor(init: ObjectSetInit) {
    const data = new DataSource(init.seed)
    const sizes = sizesOf(init)
    this.stored = sizes.map((size, i) => ({ key: `o-${String(i).padStart(4, '0')}`, data: data.object(i, size) }))
    this.totalBytes = sizes.reduce((sum, size) => sum + size, 0)
  }

  async put(client: S3Client): Promise<void> {
    await client.createBucket(bucket)
    await forEachLimit(this.stored, putsAtOnce, ({ key, data }) => client.put(bucket, key, data))
  }

  /** @throws WrongAnswerError unless every object is what was stored, byte for byte */
  async verify(client: S3Client): Promise<void> {
    await forEachLimit(this.stored, getsAtOnce, ({ key, data }) => client.get(bucket, key, data))
  }

  /** Every segment and block of every object, as the gateway has it now. */
  async look(network: RepairNetwork): Promise<Snapshot> {
    const found = new Map<string, ObjectHealth>()
    await forEachLimit(this.stored, looksAtOnce, async ({ key }) => {
      found.set(key, await network.get<ObjectHealth>(`/v1/objects/${bucket}/${key}`))
    })
    return this.stored.flatMap(({ key }) => viewsOf(key, found.get(key)!))
  }

  /** Roots of all objects. */
  async roots(network: RepairNetwork): Promise<string[]> {
    const roots: string[] = []
    await forEachLimit(this.stored, looksAtOnce, async ({ key }) => {
      roots.push((await network.get<ObjectHealth>(`/v1/objects/${bucket}/${key}`)).cid)
    })
    return roots
  }
}
