/**
 * Placement, a pure function: candidates and randomness in, plan out. No two shards of a segment on one provider; no
 * failure domain with more than `floor(m / 2)` (at least one) of them; among the rest the better of two random choices
 * weighted by free space ("the power of two choices", Mitzenmacher 2001).
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

/** Shards of one segment that a failure domain may hold. */
export function domainShardsMax({ m }: CodeShape): number {
  return Math.max(1, Math.floor(m / 2))
}

/** Durable shards a segment needs before it is acknowledged: it then survives `ceil(m / 2)` further losses. */
export function quorumOf({ k, m }: CodeShape): number {
  return k + Math.ceil(m / 2)
}

export function place(request: PlacementRequest, candidates: readonly Candidate[], random: Random): PlacementPlan {
  const perDomainMax = domainShardsMax(request.code)
  const used = new Set(request.held.map(({ peerId }) => peerId))
  const perDomain = new Map<string, number>()
  const occupy = (domains: readonly string[]): void => {
    for (const domain of domains) perDomain.set(domain, (perDomain.get(domain) ?? 0) + 1)
  }
  for (const { domains } of request.held) occupy(domains)

  let pool = candidates.filter(
    (c) => c.freeBytes >= request.shardBytes && !used.has(c.peerId) && request.excluded?.has(c.peerId) !== true
  )
  const fits = (c: Candidate): boolean => c.domains.every((domain) => (perDomain.get(domain) ?? 0) < perDomainMax)
  const assigned = new Map<number, Candidate>()
  const unplaced: number[] = []
  for (const index of request.wanted) {
    pool = pool.filter(fits)
    if (pool.length === 0) {
      unplaced.push(index)
      continue
    }
    const choice = better(draw(pool, random), draw(pool, random))
    assigned.set(index, choice)
    occupy(choice.domains)
    pool = pool.filter((c) => c !== choice)
  }
  return { assigned, unplaced }
}

/** A candidate with probability in proportion to its free space. */
function draw(pool: readonly Candidate[], random: Random): Candidate {
  let total = 0
  for (const { freeBytes } of pool) total += freeBytes
  let at = random.next() * total
  for (const candidate of pool) {
    at -= candidate.freeBytes
    if (at < 0) return candidate
  }
  return pool[pool.length - 1]!
}

function better(a: Candidate, b: Candidate): Candidate {
  return b.score > a.score ? b : a
}

/**
 * How many groups of providers are independent: providers that share any label count as one.
 */
export function independentDomains(candidates: ReadonlyArray<Pick<Candidate, 'domains'>>): number {
  const parent = new Map<string, string>()
  const root = (label: string): string => {
    let at = label
    for (let up = parent.get(at); up !== undefined && up !== at; up = parent.get(at)) at = up
    parent.set(label, at)
    return at
  }
  for (const { domains } of candidates) {
    const first = domains[0]
    if (first === undefined) continue
    for (const label of domains) parent.set(root(label), root(first))
  }
  return new Set([...parent.keys()].map(root)).size
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
 * The code that a network of so many independent domains bears: `n = min(domains, 20)`, rate 1/2 for STANDARD, 2/3 for
 * REDUCED_REDUNDANCY, `m >= 2`. `undefined` when there are too few: an error for the caller, never a weaker code.
 */
export function codeFor(domains: number, storageClass: StorageClass): CodeShape | undefined {
  const n = Math.min(domains, limits.codeShardsDefaultMax)
  const k = Math.min(Math.floor(n * storageClasses[storageClass].dataShare), n - limits.parityMin)
  return k < 1 ? undefined : { k, m: n - k }
}
