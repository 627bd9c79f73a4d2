/** What DESIGN section 3 promises, in numbers; worked out here again, so that an error in the product's own shows. */
import { minuteMs } from '../base/limits.ts'
import type { Code } from '../erasure/erasure-coder.ts'

/** Further losses that an acknowledged segment survives: `ceil(m / 2)`. */
export function parityLossesMax({ m }: Pick<Code, 'm'>): number {
  return Math.ceil(m / 2)
}

/** Shards that must be durable before a segment is acknowledged. */
export function durableMin(code: Code): number {
  return code.k + parityLossesMax(code)
}

/** Simulated gateways audit so many times as fast: a run lasts minutes, in which there should be days of audits. */
export const auditPace = 240

/** Silences in a row about one shard before its auditor may take it for missing, and the time from first to last. */
export const silencesMin = 4
export const silentMsMin = (71 * minuteMs) / auditPace

/** Shards of a segment that any one failure domain may hold. */
export function domainShardsMax({ m }: Pick<Code, 'm'>): number {
  return Math.max(1, Math.floor(m / 2))
}

/** How long a provider may be absent before its shards are rebuilt: less than the longest faults last. */
export const offlineGraceMs = minuteMs / 2
/** How long shards that are gone wait for more of their segment; a run has no weeks. */
export const repairPatienceMs = 24 * offlineGraceMs
