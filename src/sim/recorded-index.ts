/**
 * The index as a gateway's process has it: the real one, whose writes take time. A gateway that is killed in the midst
 * of one leaves it done or undone, and never hears which. Each write is told to the model and the invariants at the
 * moment it happens, so that both know exactly what was true when.
 */
import { HoldfastError } from '../base/errors.ts'
import type { CID } from '../content/cid.ts'
import type { Committed, MetadataIndex, WriteCondition } from '../metadata/index-store.ts'
import type { ObjectRecord, SegmentRecord } from '../metadata/records.ts'
import type { GroundTruth } from './ground-truth.ts'
import type { Invariants } from './invariants.ts'
import type { Model } from './model.ts'
import type { SeededRandom } from './seeded-random.ts'
import type { Trace } from './trace.ts'
import type { VirtualProcess } from './virtual-clock.ts'

export interface RecordedIndexComponents {
  index: MetadataIndex
  process: VirtualProcess
  random: SeededRandom
  trace: Trace
  model: Model
  truth: GroundTruth
  invariants: Invariants
}

type Method = (...args: never[]) => Promise<unknown>

export function recordIndex(components: RecordedIndexComponents): MetadataIndex {
  const { index, process, model, truth, invariants, random, trace } = components
  let last: Promise<unknown> = Promise.resolve()

  const refresh = async (ids: Iterable<number>): Promise<void> => {
    for (const id of ids) {
      const segment = await index.getSegment(id)
      truth.update(id, segment)
      if (segment !== undefined) invariants.segment(segment)
    }
  }

  /** Segments that may have lost their last name; those still held, or shared, are looked at again with the next. */
  const retire = async (ids: Iterable<number> = []): Promise<void> => {
    for (const id of ids) truth.doubtful.add(id)
    for (const id of truth.doubtful) {
      if ((await index.getSegment(id)) !== undefined) continue
      truth.doubtful.delete(id)
      truth.update(id, undefined)
    }
  }

  const idsOf = (contentId: number): number[] => {
    const { segmentIds = [], blockIds = [] } = truth.contents.get(contentId) ?? {}
    return [...segmentIds, ...blockIds]
  }

  /** One write after another, as in a database with one writer; each takes a while before it is done, and after. */
  const write = <T>(label: string, work: () => Promise<T>): Promise<T> => {
    const turn = last.then(async () => {
      await process.clock.sleep(random.int(4))
      trace.note(`index ${label}`)
      try {
        return await work()
      } finally {
        await process.clock.sleep(random.int(4))
      }
    })
    last = turn.catch(() => {}) // whoever asked for it hears; the next one's turn has come
    return turn
  }

  const read = <M extends Method>(method: M): M =>
    ((...args: Parameters<M>) => (process.isAlive ? process.wait(method(...args)) : new Promise(() => {}))) as M

  /** A write that needs no more than to be done, and told of. */
  const plain = <M extends Method>(
    label: string,
    method: M,
    concerns: (...args: Parameters<M>) => Iterable<number> = () => []
  ): M =>
    ((...args: Parameters<M>) =>
      write(label, async () => {
        const result = await method(...args)
        await refresh(concerns(...args))
        return result
      })) as M

  const commit = async (
    object: ObjectRecord,
    condition: WriteCondition | undefined,
    work: () => Promise<Committed>,
    written: readonly SegmentRecord[]
  ): Promise<Committed> => {
    const verdict = model.verdict(object.bucket, object.key, condition)
    const replaced = model.current(object.bucket, object.key)
    const what = `${object.bucket}/${object.key}`
    let committed: Committed
    try {
      committed = await work()
    } catch (error) {
      const code = error instanceof HoldfastError ? error.code : undefined
      const isConditional =
        code === 'PRECONDITION_FAILED' || (code === 'NO_SUCH_KEY' && condition?.ifMatch !== undefined)
      if (isConditional && code !== verdict)
        invariants.report(0, `${what}: a conditional write gave ${code}, not ${verdict}`)
      throw error
    }
    if (verdict !== 'ok') invariants.report(0, `${what}: a conditional write was done that should fail with ${verdict}`)
    for (const segment of written) invariants.acknowledged(segment, what)
    if (model.commit(object, committed.contentId) === undefined)
      invariants.report(0, `${what}: nobody wrote an object with ETag ${object.etag}`)
    await refresh([...committed.segmentIds, ...committed.blockIds])
    truth.contents.set(committed.contentId, committed)
    if (replaced !== undefined) await retire(idsOf(replaced.contentId))
    return committed
  }

  /** Segments of which the provider was not known to have one of these blocks: a proof of it may change that. */
  const doubted = (provider: string, cids: readonly CID[]): number[] =>
    cids.flatMap((cid) =>
      truth
        .segmentsOf(cid)
        .filter(({ shards }) =>
          shards.some((shard) => shard.provider === provider && shard.cid.equals(cid) && shard.state !== 'healthy')
        )
        .map(({ id }) => id)
    )

  return {
    createBucket: plain('create bucket', index.createBucket),
    getBucket: read(index.getBucket),
    deleteBucket: plain('delete bucket', index.deleteBucket),
    listBuckets: read(index.listBuckets),

    commitObject: (object, content, condition) =>
      write(`commit ${object.bucket}/${object.key}`, () =>
        commit(object, condition, () => index.commitObject(object, content, condition), [
          ...content.segments,
          ...content.blocks
        ])
      ),
    commitCopy: (object, sourceContentId, blocks, condition) =>
      write(`commit copy ${object.bucket}/${object.key}`, () =>
        commit(object, condition, () => index.commitCopy(object, sourceContentId, blocks, condition), blocks ?? [])
      ),
    getObject: read(index.getObject),
    deleteObject: (bucket, key, condition) =>
      write(`delete ${bucket}/${key}`, async () => {
        const wasThere = await index.deleteObject(bucket, key, condition)
        if (wasThere !== (model.current(bucket, key) !== undefined))
          invariants.report(0, `${bucket}/${key}: deleted, or not, against the model`)
        const removed = model.current(bucket, key)
        model.remove(bucket, key)
        if (removed !== undefined) await retire(idsOf(removed.contentId))
        return wasThere
      }),
    listObjects: read(index.listObjects),
    getSegments: read(index.getSegments),
    getBlocks: read(index.getBlocks),
    pinContent: (contentId) => {
      const unpin = index.pinContent(contentId)
      // A process that dies lets go of all it held.
      void process.died.then(unpin)
      return () => {
        if (process.isAlive) unpin()
      }
    },

    createUpload: plain('create upload', index.createUpload),
    getUpload: read(index.getUpload),
    listUploads: read(index.listUploads),
    commitPart: (uploadId, part, segments) =>
      write(`commit part ${part.partNumber}`, async () => {
        const ids = await index.commitPart(uploadId, part, segments)
        for (const segment of segments) invariants.acknowledged(segment, `part ${part.partNumber}`)
        await refresh(ids)
        await retire(truth.uploads.get(uploadId))
        truth.uploads.set(uploadId, [...(truth.uploads.get(uploadId) ?? []), ...ids])
        return ids
      }),
    listParts: read(index.listParts),
    getPartSegments: read(index.getPartSegments),
    completeUpload: (uploadId, parts, object, blocks, condition) =>
      write(`complete ${object.bucket}/${object.key}`, async () => {
        const committed = await commit(
          object,
          condition,
          () => index.completeUpload(uploadId, parts, object, blocks, condition),
          blocks
        )
        await retire(truth.uploads.get(uploadId))
        return committed
      }),
    abortUpload: (bucket, key, uploadId) =>
      write(`abort upload ${bucket}/${key}`, async () => {
        const wasThere = await index.abortUpload(bucket, key, uploadId)
        await retire(truth.uploads.get(uploadId))
        return wasThere
      }),

    listIncomplete: read(index.listIncomplete),
    getSegment: read(index.getSegment),
    placeShards: (placements) =>
      write(`place ${placements.length} shards`, async () => {
        await index.placeShards(placements)
        await refresh(new Set(placements.map(({ segmentId }) => segmentId)))
        for (const { provider, cid, segmentId } of placements) {
          if (truth.segments.has(segmentId)) invariants.placed(provider, cid, segmentId)
        }
      }),
    markShard: (shard, provider, state, proofAt) =>
      write(`mark segment ${shard.segmentId} shard ${shard.index} at ${provider} ${state}`, async () => {
        invariants.marked(`${shard.segmentId} ${shard.index} ${provider}`, state, proofAt, process.clock.now())
        const known = truth.segments.get(shard.segmentId)?.shards[shard.index]
        if (known?.provider === provider) invariants.takenForLost(provider, known.cid, state)
        await index.markShard(shard, provider, state, proofAt)
        if (known?.provider === provider && known.state !== state) await refresh([shard.segmentId])
      }),
    markHolding: (provider, cid, state, proofAt) =>
      write(`mark ${provider} ${state}`, async () => {
        invariants.takenForLost(provider, cid, state)
        await index.markHolding(provider, cid, state, proofAt)
        await refresh(truth.segmentIdsOf(cid))
      }),
    listHolders: read(index.listHolders),
    listLeasesDue: read(index.listLeasesDue),
    renewed: plain('renewed', index.renewed),
    findHolders: read(index.findHolders),
    listReleases: read(index.listReleases),
    listReleaseProviders: read(index.listReleaseProviders),
    released: plain('released', index.released),
    queueReleases: plain('queue releases', index.queueReleases),
    totals: read(index.totals),

    listCustody: read(index.listCustody),
    listUnproved: read(index.listUnproved),
    recordProofs: plain('record proofs', index.recordProofs, (provider, cids) => doubted(provider, cids)),
    saveAudit: plain('save audit', index.saveAudit),
    loadAudit: read(index.loadAudit),
    listTranscripts: read(index.listTranscripts),
    scanTranscripts: read(index.scanTranscripts),

    listHeldSegments: read(index.listHeldSegments),
    listSegments: read(index.listSegments),
    listSegmentsWith: read(index.listSegmentsWith),
    listSegmentsOf: read(index.listSegmentsOf),
    claimSegments: (ids, claim) =>
      write(`claim ${ids.length} segments`, async () => {
        const claimed = await index.claimSegments(ids, claim)
        invariants.claimed(claimed, claim)
        return claimed
      }),
    endClaims: (claimantPrefix) =>
      write('end claims', async () => {
        await index.endClaims(claimantPrefix)
        invariants.claimsEnded(claimantPrefix)
      }),
    unclaimSegments: (ids, claimant) =>
      write('give claims back', async () => {
        await index.unclaimSegments(ids, claimant)
        invariants.unclaimed(ids, claimant)
      }),
    recordRefusals: (rows, now) =>
      write(`record ${rows.length} refusals`, async () => {
        const ids = await index.recordRefusals(rows, now)
        for (const { provider, cid } of rows) invariants.refusalKnown(provider, cid, process.clock.now())
        await refresh(ids)
        return ids
      }),
    listRefusals: read(index.listRefusals),
    accrue: plain('accrue', index.accrue),
    listAccounts: read(index.listAccounts),
    savePresence: plain('save presence', index.savePresence),
    loadPresence: read(index.loadPresence),

    createAccessKey: plain('create access key', index.createAccessKey),
    getAccessKey: read(index.getAccessKey),
    listAccessKeys: read(index.listAccessKeys),
    revokeAccessKey: plain('revoke access key', index.revokeAccessKey),
    saveProviders: plain('save providers', index.saveProviders),
    listProviders: read(index.listProviders),
    ping: read(index.ping),
    close: async () => {} // it outlives the process
  }
}
