/** An index of a gateway that has audited its shards for weeks: what is due, and when, is as it stays from then on. */
import { dayMs } from '../../src/base/limits.ts'
import { cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { sampleProbability, samplingDefaults } from '../../src/custody/sampling.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import type { SegmentRecord, ShardRecord } from '../../src/metadata/records.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { type Blocks, blockBytes } from './blocks.ts'

const code = { k: 10, m: 10 } as const
export const shardsPerSegment = code.k + code.m
/** Of an object: a thousand shards in one transaction. */
const segmentsMax = 50
const bucket = 'bench'

export interface FillInit {
  seed: number
  blocks: Blocks
  /** A multiple of `shardsPerSegment`; shard `i` is block `i`. */
  shards: number
  /** Shard `i` is with provider `i` modulo their number. */
  peerIds: readonly string[]
  /** When the audits are to begin. */
  now: number
  signal: AbortSignal
}

export async function fillIndex(index: MetadataIndex, init: FillInit): Promise<void> {
  const { shards, now, signal } = init
  await index.createBucket({
    name: bucket,
    owner: 'bench',
    createdAt: now,
    isPublic: true,
    wrappedKey: new Uint8Array(0)
  })
  const proofAt = lastProofs(init)
  const segments = shards / shardsPerSegment
  for (let first = 0; first < segments; first += segmentsMax) {
    signal.throwIfAborted()
    const count = Math.min(segmentsMax, segments - first)
    const made = Array.from({ length: count }, (_, i) => segmentOf(first + i, init, proofAt))
    const object = {
      bucket,
      key: `object ${first}`,
      size: made.reduce((sum, { length }) => sum + length, 0),
      etag: '0'.repeat(32),
      modifiedAt: now,
      root: cidOfNode(codecs.dagCbor, Buffer.from(`manifest ${first}`)),
      wrappedKey: new Uint8Array(0),
      headers: {},
      userMetadata: {},
      checksums: {},
      storageClass: 'STANDARD'
    }
    await index.commitObject(object, { segments: made, blocks: [] })
  }
}

function segmentOf(number: number, { blocks, peerIds, now }: FillInit, proofAt: () => number): SegmentRecord {
  const shards = Array.from({ length: shardsPerSegment }, (_, i): ShardRecord => {
    const shard = number * shardsPerSegment + i
    return {
      cid: cidOfShard(blocks.at(shard)),
      provider: peerIds[shard % peerIds.length]!,
      state: 'healthy',
      leaseUntil: now + 60 * dayMs,
      lastProof: proofAt()
    }
  })
  return { length: code.k * blockBytes, ...code, nonce: new Uint8Array(0), shards }
}

/**
 * Epochs since the last proof, where each draws a shard with the same probability and what was not drawn for a whole period
 * is proved then: geometric, cut off at the period. All never proved, or all at once, would be another load for a week.
 */
function lastProofs({ seed, shards, peerIds, now }: FillInit): () => number {
  const { epochMs, periodMs } = samplingDefaults
  const random = seededRandom(`proofs ${seed}`)
  const missed = 1 - sampleProbability(shards / peerIds.length)
  const everDrawn = 1 - missed ** (periodMs / epochMs)
  return () => {
    const epochs = Math.floor(Math.log(1 - random.next() * everDrawn) / Math.log(missed))
    return Math.floor(now - (epochs + random.next()) * epochMs)
  }
}
