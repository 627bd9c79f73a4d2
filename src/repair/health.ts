/**
 * What is the matter with a segment, and what is to be done about it. Pure: what is known of providers is given as a
 * function, so the same words are used by repair, by the plan it shows beforehand, and by the views of health.
 *
 * - *lost*: never placed, or known to be gone from where it was (`unknown`, `missing`, `wrong`). *withdrawn*: refused.
 * - *gone*: its provider has been absent beyond its grace. It counts as lost for repair, and is no evidence.
 * - *offline*, *contained*: waiting; held, and not readable now.
 * - *draining*: its provider is leaving, and hands it over itself. *selfHosted*: the gateway keeps it, as a last resort.
 * - *crowded*: there, and one too many where it is: a provider, or a failure domain, has more of the segment than
 *   placement allows.
 */
import type { CID } from '../content/cid.ts'
import type { SegmentRecord, ShardRecord } from '../metadata/records.ts'
import { domainShardsMax } from '../placement/place.ts'
import { readableFloor } from './threshold.ts'

export const shardConditions = [
  'healthy',
  'contained',
  'offline',
  'gone',
  'lost',
  'withdrawn',
  'crowded',
  'draining',
  'selfHosted'
] as const
export type ShardCondition = (typeof shardConditions)[number]

/** What is known of a provider, and of one shard that it is to have. */
export interface ProviderFacts {
  /** What requests to it have shown; `unknown`: not asked yet by this process, and taken to be there. */
  state: 'online' | 'offline' | 'contained' | 'unknown'
  /** Absent beyond its grace. */
  isGone?: boolean
  isDraining?: boolean
  /** The gateway itself. */
  isSelf?: boolean
  /** A challenge of this very shard went unanswered, and waits to be put again. */
  isShardContained?: boolean
  /** Labels of what fails with it. */
  domains: readonly string[]
}

export type FactsOf = (provider: string, cid: CID) => ProviderFacts

export interface SegmentCondition {
  /** In the order of the shards. */
  conditions: ShardCondition[]
  counts: Record<ShardCondition, number>
  /** Shards that can be read now: healthy, crowded, draining, self-hosted. */
  readable: number
  /** `readable - k`: how many more may go. Negative: unreadable now. */
  margin: number
  /** Shards that repair would place anew: lost, withdrawn, gone, crowded, self-hosted. */
  wanted: number
  /** In one sentence. */
  why: string
}

type Shaped = Pick<SegmentRecord, 'k' | 'm' | 'shards'>

const readableConditions: ReadonlySet<ShardCondition> = new Set(['healthy', 'crowded', 'draining', 'selfHosted'])
const wantedConditions: ReadonlySet<ShardCondition> = new Set(['lost', 'withdrawn', 'gone', 'crowded', 'selfHosted'])

export const isReadable = (condition: ShardCondition): boolean => readableConditions.has(condition)

export function classify(segment: Shaped, factsOf: FactsOf): SegmentCondition {
  const conditions = segment.shards.map((shard) => conditionOf(shard, factsOf))
  for (const index of surplusOf(segment, conditions, factsOf)) conditions[index] = 'crowded'
  const counts = Object.fromEntries(shardConditions.map((condition) => [condition, 0])) as Record<
    ShardCondition,
    number
  >
  for (const condition of conditions) counts[condition]++
  const readable = conditions.filter(isReadable).length
  const wanted = conditions.filter((condition) => wantedConditions.has(condition)).length
  return { conditions, counts, readable, margin: readable - segment.k, wanted, why: whyOf(counts, readable, segment.k) }
}

/** Of the shard by itself; what is crowded depends on the others. */
function conditionOf({ state, provider, cid }: ShardRecord, factsOf: FactsOf): ShardCondition {
  if (state === 'withdrawn') return 'withdrawn'
  if (provider === undefined || state === 'unknown' || state === 'missing' || state === 'wrong') return 'lost'
  const facts = factsOf(provider, cid)
  if (facts.isSelf === true) return 'selfHosted'
  if (facts.isGone === true) return 'gone'
  if (facts.state === 'offline') return 'offline'
  if (facts.state === 'contained' || facts.isShardContained === true) return 'contained'
  return facts.isDraining === true ? 'draining' : 'healthy'
}

/**
 * Healthy shards beyond what placement allows. Whoever waits or leaves has its place meanwhile; of the healthy ones those
 * proved last keep theirs, and names decide between equals, so that the order of the shards means nothing.
 */
function surplusOf(segment: Shaped, conditions: readonly ShardCondition[], factsOf: FactsOf): number[] {
  const domainMax = domainShardsMax(segment)
  const providers = new Set<string>()
  const perDomain = new Map<string, number>()
  const surplus: number[] = []
  const isMovable = (index: number): boolean => conditions[index] === 'healthy'
  const holding = conditions.flatMap((condition, index) =>
    condition === 'healthy' || condition === 'contained' || condition === 'offline' || condition === 'draining'
      ? [index]
      : []
  )
  holding.sort(
    (a, b) => Number(isMovable(a)) - Number(isMovable(b)) || byProof(segment.shards[a]!, segment.shards[b]!) || a - b
  )
  for (const index of holding) {
    const { provider, cid } = segment.shards[index]!
    const { domains } = factsOf(provider!, cid)
    const isFull = providers.has(provider!) || domains.some((domain) => (perDomain.get(domain) ?? 0) >= domainMax)
    if (isFull && isMovable(index)) {
      surplus.push(index)
      continue
    }
    providers.add(provider!)
    for (const domain of domains) perDomain.set(domain, (perDomain.get(domain) ?? 0) + 1)
  }
  return surplus
}

/** Proved last comes first. */
function byProof(a: ShardRecord, b: ShardRecord): number {
  const byTime = (b.lastProof ?? 0) - (a.lastProof ?? 0)
  if (byTime !== 0) return byTime
  const [nameA, nameB] = [`${a.provider} ${a.cid}`, `${b.provider} ${b.cid}`]
  return nameA < nameB ? -1 : Number(nameA > nameB)
}

const words: Record<ShardCondition, string> = {
  healthy: 'healthy',
  contained: 'contained',
  offline: 'offline',
  gone: 'with providers that stay away',
  lost: 'lost or never placed',
  withdrawn: 'refused',
  crowded: 'too close to others',
  draining: 'with providers that leave',
  selfHosted: 'kept by the gateway itself'
}

function whyOf(counts: Record<ShardCondition, number>, readable: number, k: number): string {
  const unwell = shardConditions.filter((condition) => condition !== 'healthy' && counts[condition] > 0)
  if (unwell.length === 0) return 'all shards are healthy'
  const parts = unwell.map((condition) => `${counts[condition]} ${words[condition]}`)
  return `${parts.join(', ')}; ${readable} can be read, ${k} are needed`
}

/** When shards of providers that stay away are rebuilt; everything else is at once. */
export interface Patience {
  /** At this margin, or below it, counting who is offline within its grace; at `readableFloor` of it without these. */
  threshold: number
  /** Or once one of them has been gone for longer than this. */
  patienceMs: number
  /** For how long a provider has been gone: absent beyond its grace. */
  goneForMs: (provider: string) => number
  /** Whether one that is offline within its grace has been for longer than the least grace. */
  isLate?: (provider: string) => boolean
  /** Providers that have been leaving for too long: their shards are moved, too. */
  isOverdue?: (provider: string) => boolean
}

export interface Treatment {
  /** Shards to rebuild from `k` others. */
  rebuild: number[]
  /** Shards that are there, to be had elsewhere: read from where they are, if that can be. */
  move: number[]
  /** Shards are wanted that it is not yet time for. */
  isWaiting: boolean
}

/** Whether repair is to begin, if there is anything to repair: of who is offline within its grace most will be back. */
export const isLow = ({ counts, margin }: Pick<SegmentCondition, 'counts' | 'margin'>, threshold: number): boolean =>
  margin + counts.offline <= threshold || margin <= readableFloor(threshold)

/** What is to be done about a segment now. */
export function treatmentOf(
  segment: Shaped,
  { conditions, counts, margin }: Pick<SegmentCondition, 'conditions' | 'counts' | 'margin'>,
  { threshold, patienceMs, goneForMs, isLate, isOverdue }: Patience
): Treatment {
  const of = (...which: ShardCondition[]): number[] =>
    conditions.flatMap((condition, index) => (which.includes(condition) ? [index] : []))
  const gone = of('gone')
  const urgent = of('lost', 'withdrawn')
  const isLong = gone.some((index) => goneForMs(segment.shards[index]!.provider!) >= patienceMs)
  // Whoever reads `k` shards anyway rebuilds the others for the price of writing them.
  // With so few that can be read, whoever is late is not waited for: all of them may have left together.
  const late =
    margin > readableFloor(threshold)
      ? []
      : of('offline').filter((index) => isLate?.(segment.shards[index]!.provider!) === true)
  const isDue = urgent.length > 0 || (gone.length + late.length > 0 && (isLow({ counts, margin }, threshold) || isLong))
  const overdue = of('draining').filter((index) => isOverdue?.(segment.shards[index]!.provider!) === true)
  return {
    rebuild: isDue ? [...urgent, ...gone, ...late].sort((a, b) => a - b) : [],
    // What the gateway holds itself is offered to others again and again.
    move: [...of('crowded', 'selfHosted'), ...overdue].sort((a, b) => a - b),
    isWaiting: !isDue && gone.length > 0
  }
}
