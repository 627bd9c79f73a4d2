/** How a challenge can end. Slow is not lying and offline is not losing: only `missing` and `wrong` are evidence. */

/**
 * - `ok`: the proof verifies against the shard's CID.
 * - `offline`: no connection, or another peer behind the address.
 * - `timeout`: connected, and no whole answer by the deadline.
 * - `missing`: the provider said that it has no such block, or that the block is damaged; or it let the same challenge time
 *   out as often as it may.
 * - `wrong`: an answer that does not verify.
 * - `refused`: the provider says that it will not keep the block.
 * - `unknown`: an answer that says nothing about the block: overloaded, not in the protocol, not signed.
 */
export const custodyOutcomes = ['ok', 'offline', 'timeout', 'missing', 'wrong', 'refused', 'unknown'] as const
export type CustodyOutcome = (typeof custodyOutcomes)[number]

/** What says something about the shard; the rest is waiting. */
export const isEvidence = (outcome: CustodyOutcome): boolean =>
  outcome === 'ok' || outcome === 'missing' || outcome === 'wrong' || outcome === 'refused'

/**
 * Why a shard was challenged: drawn by the epoch's seed; unproved for too long; the same challenge put again after a timeout;
 * or asked for by a person, or after a fault.
 */
export const auditReasons = ['sampled', 'due', 'repeat', 'asked'] as const
export type AuditReason = (typeof auditReasons)[number]
