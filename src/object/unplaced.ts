/** Why shards that want a home have none, in words for whoever owns the content. Pure. */
import type { Random } from '../base/random.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { place } from '../placement/place.ts'
import type { Peers } from '../transfer/peers.ts'
import { shardBytesFor } from './segment-codec.ts'

const lost = new Set(['unknown', 'missing', 'wrong', 'withdrawn'])

/**
 * Null where all that is wanted could be placed now, or nothing is wanted.
 *
 * @param refusers who refuses any of the segment's blocks
 */
export function whyUnplaced(
  segment: StoredSegment,
  peers: Pick<Peers, 'candidates' | 'domainsOf'>,
  refusers: ReadonlySet<string>,
  random: Random
): string | null {
  const wanted = segment.shards.flatMap(({ state }, at) => (lost.has(state) ? [at] : []))
  if (wanted.length === 0) return null
  const holders = segment.shards.flatMap(({ state, provider }) =>
    provider !== undefined && !lost.has(state) ? [provider] : []
  )
  const held = holders.map((peerId) => ({ peerId, domains: peers.domainsOf(peerId) }))
  const code = { k: segment.k, m: segment.m }
  const shardBytes = Math.max(1, shardBytesFor(segment.length, code))
  const candidates = peers.candidates()
  const { unplaced } = place({ code, shardBytes, wanted, held, excluded: refusers }, candidates, random)
  if (unplaced.length === 0) return null
  const shards = unplaced.length === 1 ? '1 shard has' : `${unplaced.length} shards have`
  const online = `${candidates.length} ${candidates.length === 1 ? 'provider takes' : 'providers take'} new shards now`
  const refusing =
    refusers.size === 0 ? '' : `, ${refusers.size} ${refusers.size === 1 ? 'refuses' : 'refuse'} this content`
  return `${shards} no place: ${online}${refusing}, and ${holders.length} of the ${segment.shards.length} that it needs hold others of it`
}
