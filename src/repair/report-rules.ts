/**
 * Whether the owner of a segment takes a shard where somebody else's report says that it is. Pure. The answer is about the
 * owner's own picture alone: a report can fill a gap that the owner sees, within the rules of placement, and nothing else.
 */
import type { CID } from '../content/cid.ts'
import type { Standing } from '../custody/score.ts'
import type { ShardRecord } from '../metadata/records.ts'
import { type CodeShape, domainShardsMax } from '../placement/place.ts'

/**
 * - `accepted`: proved, leased, and in the index.
 * - `unknown`: no segment of this gateway has such a block.
 * - `not-needed`: the shard is where it should be, or within its grace.
 * - `busy`: the segment is being written or repaired.
 * - `refused`: the provider has refused a block of the segment.
 * - `holds-another`: it has another shard of the segment.
 * - `crowded`: its failure domain has as many as it may.
 * - `untrusted`: audits speak against it.
 * - `unreachable`: it is not online, as far as this gateway knows.
 * - `unproved`: it would not lease the block to this gateway, or did not prove that it has it.
 * - `not-looked-at`: there was no time.
 */
export const rowVerdicts = [
  'accepted',
  'unknown',
  'not-needed',
  'busy',
  'refused',
  'holds-another',
  'crowded',
  'untrusted',
  'unreachable',
  'unproved',
  'not-looked-at'
] as const
export type RowVerdict = (typeof rowVerdicts)[number]

export interface SeatView {
  /** Whether the owner counts the shard as lost now: evidence, a refusal, or an absence beyond grace. */
  isLost: (shard: ShardRecord) => boolean
  domainsOf: (provider: string) => readonly string[]
  isOnline: (provider: string) => boolean
  standing: (provider: string) => Standing
  /** Who has refused a block of the segment. */
  refusers: ReadonlySet<string>
}

export interface SegmentToFill extends CodeShape {
  shards: readonly ShardRecord[]
}

/** Where a reported holder of a block could stand in a segment, with those in `seated` (by index) taken as placed already. */
export function seatOf(
  segment: SegmentToFill,
  { cid, provider }: { cid: CID; provider: string },
  seated: ReadonlyMap<number, string>,
  view: SeatView
): { index: number } | { why: RowVerdict } {
  const places = segment.shards.flatMap((shard, index) => (shard.cid.equals(cid) ? [index] : []))
  if (places.length === 0) return { why: 'unknown' }
  const isThere = (at: number): boolean =>
    (seated.get(at) ?? (view.isLost(segment.shards[at]!) ? undefined : segment.shards[at]!.provider)) === provider
  if (places.some(isThere)) return { why: 'not-needed' } // of several copies it has one
  const index = places.find((at) => !seated.has(at) && view.isLost(segment.shards[at]!))
  if (index === undefined) return { why: 'not-needed' }
  if (view.refusers.has(provider)) return { why: 'refused' }
  const others = segment.shards.flatMap((shard, at) => {
    const holder = seated.get(at) ?? (view.isLost(shard) ? undefined : shard.provider)
    return holder === undefined || at === index ? [] : [holder]
  })
  if (others.includes(provider)) return { why: 'holds-another' }
  if (!view.isOnline(provider)) return { why: 'unreachable' }
  const standing = view.standing(provider)
  if (standing === 'closed' || standing === 'suspended') return { why: 'untrusted' }
  const most = domainShardsMax(segment)
  const isCrowded = view
    .domainsOf(provider)
    .some((domain) => others.filter((holder) => view.domainsOf(holder).includes(domain)).length >= most)
  return isCrowded ? { why: 'crowded' } : { index }
}
