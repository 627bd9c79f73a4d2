/** What both ends of the HTTPS data plane agree on. Described in FORMATS.md, "Data plane". */
import type { ErrorCode } from '../base/errors.ts'
import { minuteMs } from '../base/limits.ts'
import { auditRequestBytesMax } from '../custody/audit-messages.ts'

export const shardsPath = '/holdfast/v1/shards/'
export const gatewayPath = '/ipfs/'
export const proofsPath = '/holdfast/v1/proofs'

export const proofsType = 'application/vnd.holdfast.proofs'
/** A signed audit request: the request, its signature, and what CBOR puts around them. */
export const proofRequestBytesMax = auditRequestBytesMax + 1024
/** How far apart the clocks of auditor and provider may be, the way between them included. */
export const auditClockToleranceMs = 10 * minuteMs

export const dataHeaders = {
  /** On a GET: the caller knows that the block is refused, leases it, and reads it to keep it elsewhere. */
  move: 'x-holdfast-move',
  /** Term of the lease a PUT asks for, milliseconds. */
  leaseMs: 'x-holdfast-lease-ms',
  /** `1` with a PUT: the block is an object's root, and the provider announces it. */
  announce: 'x-holdfast-announce',
  /** With a PUT, base64url: who else than the peer that sends it is to lease the block. `market/ticket.ts`. */
  ticket: 'x-holdfast-ticket',
  /** `1` with a 404: the block is there but damaged. */
  rotten: 'x-holdfast-rotten'
} as const

/** HTTP statuses of the failures that a provider declares. */
export const statusOfCode: Partial<Record<ErrorCode, number>> = {
  BAD_INPUT: 400,
  MISSING: 404,
  WRONG: 422,
  REFUSED: 451,
  OVERLOADED: 503,
  NO_SPACE: 507
}
