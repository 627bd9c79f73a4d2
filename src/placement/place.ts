/**
 * Placement, a pure function: candidates and randomness in, plan out. No two shards of a segment on one provider; no
 * failure domain with more than `floor(m / 2)` (at least one) of them; among the rest two random choices weighted by
 * score and free space, the better one favoured (after "the power of two choices", Mitzenmacher 2001). Free space is
 * what a provider says of itself, so it counts up to a bound; the score is measured, so it counts in both steps. Who is
 * a last resort gets only what none of the others could take.
 */

import { limits } from '../base/limits.ts'
import type { Random } from '../base/random.ts'

export interface Candidate {
  peerId: string
  /** Labels of what fails with it: `op:NAME`, `net:192.0.2.0/24`. Never empty. */
  domains: readonly string[]
  freeBytes: number
  /** 0 (avoid) to 1 (proven and quick). */
  score: number
  /**
   * Gets a shard only where nobody else can take it; at 2 only where nobody at 1 can either. Among such, the score decides
   * as among others. Absent: 0.
   */
  lastResort?: 0 | 1 | 2
}

export interface CodeShape {
  k: number
  m: number
}

export interface PlacementRequest {
  code: CodeShape
  /** Bytes each shard needs. */
  shardBytes: number
  /** Shard indices that want a home. */
  wanted: readonly number[]
  /** Providers that hold (or are being sent) other shards of the segment. */
  held: ReadonlyArray<{ peerId: string; domains: readonly string[] }>
  /** Providers not to use, though they hold nothing: they failed just now, or refused the content. */
  excluded?: ReadonlySet<string>
}

export interface PlacementPlan {
  /** Shard index to the provider chosen for it. */
  assigned: Map<number, Candidate>
  /** Indices for which nobody was left. */
  unplaced: number[]
}

/**
 * Free space counts up to so many times the median of those who could take a shard. Nothing shows that space which is
 * stated is there, and without a bound whoever states 100 TB among disks of 1 TB is drawn nearly always, vetted or not.
 * The factor stays below the 4 by which vetting divides a score: else a newcomer's word would make up for what it has
 * yet to prove. The price: a disk of ten times the median fills at twice its rate until the others are full.
 */
export const roomMedians = 2

/** Shards of one segment that a failure domain may hold. */
export function domainShardsMax({ m }: CodeShape): number {
  return Math.max(1, Math.floor(m / 2))
}

/** Durable shards a segment needs before it is acknowledged: it then survives `ceil(m / 2)` further losses. */
export function quorumOf({ k, m }: CodeShape): number {
  return k + Math.ceil(m / 2)
}

/** Draws that come to a dead end are made again so often. */
const drawsMax = 3

export function place(request: PlacementRequest, candidates: readonly Candidate[], random: Random): PlacementPlan {
  const used = new Set(request.held.map(({ peerId }) => peerId))
  const able = candidates.filter(
    (c) => c.freeBytes >= request.shardBytes && !used.has(c.peerId) && request.excluded?.has(c.peerId) !== true
  )
  let best = attempt(request, able, (pool) => ofTwo(pool, random))
  // With one label each nobody stands in the way of two others, and another draw finds no room either.
  const isFinal = (): boolean => best.unplaced.length === 0 || best.assigned.size === able.length
  if (isFinal() || able.every(({ domains }) => domains.length < 2)) return best
  for (let draws = 1; draws < drawsMax && !isFinal(); draws++)
    best = fuller(
      best,
      attempt(request, able, (pool) => ofTwo(pool, random))
    )
  if (isFinal()) return best
  // Whoever shares least with others, first: that finds as many places as `independentDomains` has counted.
  const order = new Map(leastShared(able).map((candidate, at) => [candidate, at]))
  const firstOf = (pool: readonly Weighted[]): Weighted | undefined =>
    pool.reduce<Weighted | undefined>(
      (first, entry) =>
        first === undefined || order.get(entry.candidate)! < order.get(first.candidate)! ? entry : first,
      undefined
    )
  return fuller(best, attempt(request, able, firstOf))
}

const fuller = (a: PlacementPlan, b: PlacementPlan): PlacementPlan => (b.assigned.size > a.assigned.size ? b : a)

function attempt(
  request: PlacementRequest,
  able: readonly Candidate[],
  choose: (pool: readonly Weighted[]) => Weighted | undefined
): PlacementPlan {
  const perDomainMax = domainShardsMax(request.code)
  const perDomain = new Map<string, number>()
  const occupy = (domains: readonly string[]): void => {
    for (const domain of domains) perDomain.set(domain, (perDomain.get(domain) ?? 0) + 1)
  }
  for (const { domains } of request.held) occupy(domains)

  const fits = (c: Candidate): boolean => c.domains.every((domain) => (perDomain.get(domain) ?? 0) < perDomainMax)
  const assigned = new Map<number, Candidate>()
  let unplaced = [...request.wanted]
  // Whoever is a last resort is looked at when all others are full: no weight, however small, keeps that promise.
  for (const level of [0, 1, 2]) {
    let pool = weighted(able.filter((c) => (c.lastResort ?? 0) === level))
    const left: number[] = []
    for (const index of unplaced) {
      pool = pool.filter(({ candidate }) => fits(candidate))
      const choice = choose(pool)
      if (choice === undefined) {
        left.push(index)
        continue
      }
      assigned.set(index, choice.candidate)
      occupy(choice.candidate.domains)
      pool = pool.filter((entry) => entry !== choice)
    }
    unplaced = left
  }
  return { assigned, unplaced }
}

/** How many shards of one segment these could take together: a domain as many as it may, a provider one. */
export function placeableShards(code: CodeShape, candidates: ReadonlyArray<Pick<Candidate, 'domains'>>): number {
  const perDomainMax = domainShardsMax(code)
  const perDomain = new Map<string, number>()
  let shards = 0
  for (const { domains } of candidates) {
    if (!domains.every((domain) => (perDomain.get(domain) ?? 0) < perDomainMax)) continue
    for (const domain of domains) perDomain.set(domain, (perDomain.get(domain) ?? 0) + 1)
    shards++
  }
  return Math.min(shards, code.k + code.m)
}

interface Weighted {
  candidate: Candidate
  weight: number
}

/** Score times free space, the latter up to `roomMedians` times the (lower) median of these. */
function weighted(candidates: readonly Candidate[]): Weighted[] {
  const room = candidates.map(({ freeBytes }) => freeBytes).sort((a, b) => a - b)
  const mostBytes = roomMedians * (room[(room.length - 1) >> 1] ?? 0)
  return candidates.map((candidate) => ({
    candidate,
    weight: candidate.score * Math.min(candidate.freeBytes, mostBytes)
  }))
}

/**
 * Two different ones are drawn, and the second takes the first one's place where its score is higher, by chance: never
 * at the same score, nearly always where the first one's is near nothing. Not always, or whoever is alone at the bottom
 * would get no shard at all, and a newcomer none to prove itself with.
 */
function ofTwo(pool: readonly Weighted[], random: Random): Weighted | undefined {
  const first = draw(pool, random)
  const second = draw(pool, random, first)
  if (first === undefined || second === undefined) return first
  const [before, after] = [first.candidate.score, second.candidate.score]
  return random.next() * after < after - before ? second : first
}

/** One with probability in proportion to its weight; any of them where none has a weight. `taken` is not among them. */
function draw(pool: readonly Weighted[], random: Random, taken?: Weighted): Weighted | undefined {
  let total = 0
  for (const entry of pool) if (entry !== taken) total += entry.weight
  let at = random.next() * total
  let last: Weighted | undefined // where rounding leads past the end
  for (const entry of pool) {
    if (entry === taken || entry.weight === 0) continue
    last = entry
    at -= entry.weight
    if (at < 0) return entry
  }
  if (last !== undefined) return last
  const others = pool.filter((entry) => entry !== taken)
  return others[Math.floor(random.next() * others.length)]
}

/**
 * How many of these are independent: no two of so many share a label. Counted from who shares least with others, whatever
 * their order, so it may be fewer than the most that there are, and is never fewer than the groups that share nothing with
 * each other. Those groups are no measure: where operators have machines in several datacenters, and these the machines of
 * several operators, all are one group.
 */
export function independentDomains(candidates: ReadonlyArray<Pick<Candidate, 'domains'>>): number {
  const taken = new Set<string>()
  let count = 0
  for (const { domains } of leastShared(candidates)) {
    if (domains.some((label) => taken.has(label))) continue
    for (const label of domains) taken.add(label)
    count++
  }
  return count
}

/** By how many others share a label with each, fewest first; in an order that does not depend on theirs. */
function leastShared<T extends Pick<Candidate, 'domains'>>(candidates: readonly T[]): T[] {
  const bearers = new Map<string, number>()
  for (const { domains } of candidates) for (const label of domains) bearers.set(label, (bearers.get(label) ?? 0) + 1)
  return candidates
    .map((candidate) => ({
      candidate,
      name: candidate.domains.join(' '),
      shared: candidate.domains.reduce((sum, label) => sum + bearers.get(label)! - 1, 0)
    }))
    .sort((a, b) => a.shared - b.shared || (a.name < b.name ? -1 : Number(a.name > b.name)))
    .map(({ candidate }) => candidate)
}

/** How much of a segment is parity, by S3 storage class. */
export const storageClasses = {
  STANDARD: { dataShare: 1 / 2 },
  REDUCED_REDUNDANCY: { dataShare: 2 / 3 }
} as const

export type StorageClass = keyof typeof storageClasses

export function isStorageClass(name: string): name is StorageClass {
  return Object.hasOwn(storageClasses, name)
}

/**
 * Of a network with room for it, whatever providers it loses. Under each churn model in which 10+10 loses nothing it loses
 * nothing either, fails no more reads, and takes 0.93 to 0.98 of the bytes, stored and moved by repair (`bench/churn`).
 * 12+10 takes as little and fails more reads where a tenth of all is away; longer codes take more again, since a single
 * shard that has to be rebuilt at once costs `k`; and each shard more is one more write for small objects.
 */
const large = { domainsMin: 40, code: { k: 14, m: 12 } } as const

/**
 * The code that a network of so many independent domains bears: `n = min(domains, 20)`, rate 1/2 for STANDARD, 2/3 for
 * REDUCED_REDUNDANCY, `m >= 2`; 14+12 for STANDARD from 40 domains on. `undefined` when there are too few: an error for the
 * caller, never a weaker code.
 */
export function codeFor(domains: number, storageClass: StorageClass): CodeShape | undefined {
  if (storageClass === 'STANDARD' && domains >= large.domainsMin) return { ...large.code }
  const n = Math.min(domains, limits.codeShardsDefaultMax)
  const k = Math.min(Math.floor(n * storageClasses[storageClass].dataShare), n - limits.parityMin)
  return k < 1 ? undefined : { k, m: n - k }
}
