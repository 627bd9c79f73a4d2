/** The gateway's planted bugs: each changes what one part has of another, and nothing of the parts themselves. */
import { isCode } from '../base/errors.ts'
import { limits } from '../base/limits.ts'
import { auditRequestCodec } from '../custody/audit-messages.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { HandOver } from '../repair/hand-over.ts'
import type { DoneRequest, HandOverAnswer } from '../transfer/hand-over-protocol.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'

/** An auditor that takes silence for a confession. */
export function hasty(client: ProviderClient): ProviderClient {
  return {
    ...client,
    prove: async (to, request, signal) => {
      try {
        return await client.prove(to, request, signal)
      } catch (error) {
        if (!isCode(error, 'TIMEOUT')) throw error
        const { challenges } = auditRequestCodec.decode(request.bytes)
        return {
          answers: challenges.map(() => ({ kind: 'missing', slice: new Uint8Array(0) })),
          statement: undefined
        }
      }
    }
  }
}

/** Peers that have nothing in common. */
export const unrelated = (peers: Peers): Peers => ({
  ...peers,
  candidates: () => peers.candidates().map((candidate) => ({ ...candidate, domains: [] })),
  domainsOf: () => []
})

/** An index in which nobody has ever refused anything. */
export const forgetful = (index: MetadataIndex): MetadataIndex => ({ ...index, listRefusals: async () => [] })

/** Lets go of the old copy first, and commits then. */
export function releasingFirst(
  index: MetadataIndex,
  client: Pick<ProviderClient, 'releaseLeases'>,
  peers: Pick<Peers, 'target'>
): MetadataIndex {
  return {
    ...index,
    placeShards: async (placements) => {
      for (const { segmentId, index: at, cid, provider } of placements) {
        const before = (await index.getSegment(segmentId))?.shards[at]?.provider
        const target = before === undefined || before === provider ? undefined : peers.target(before)
        // Whoever cannot be told is told later: the commit queues it.
        if (target !== undefined) await client.releaseLeases(target, [cid]).catch(() => {})
      }
      await index.placeShards(placements)
    }
  }
}

/** Believes who says that it has brought something. */
export function trusting(handOver: HandOver, index: MetadataIndex, now: () => number): HandOver['answer'] {
  const done = async (from: string, { placed }: DoneRequest): Promise<HandOverAnswer> => {
    for (const { cid, to } of placed) {
      for (const segment of await index.listSegmentsWith(from, [cid], 32)) {
        const at = segment.shards.findIndex((shard) => shard.provider === from && shard.cid.equals(cid))
        const leaseUntil = now() + limits.committedLeaseMs
        await index.placeShards([{ segmentId: segment.id, index: at, cid, provider: to, leaseUntil, at: now() }])
      }
    }
    return { v: 1, accepted: placed.map(() => true) }
  }
  return (from, request) => (request.op === 'done' ? done(from, request) : handOver.answer(from, request))
}
