/**
 * What a network does about loss, as parameters: ours, and those of the alternatives as far as their documents tell. All
 * run on the same engine with the same placement, so that what differs is the code, and when it is repaired.
 */
import { dayMs, hourMs } from '../../base/limits.ts'
import { type CodeShape, codeFor } from '../../placement/place.ts'
import { defaultPatienceMs } from '../../repair/candidates.ts'
import { graceSpan } from '../../repair/churn.ts'
import { defaultGraceMs } from '../../repair/presence.ts'
import { readableFloor } from '../../repair/threshold.ts'

/** What is known of one segment when it is looked at. */
export interface SegmentView {
  /** Can be read now, minus `k`. */
  margin: number
  /** Not known to be gone or lost: readable, and offline within grace. */
  held: number
  /** Offline within grace, minus what is readable: `margin + waiting` is the margin when all of these come back. */
  waiting: number
  /** Their providers are absent beyond grace. */
  gone: number
  /** An audit has found that they are not there. */
  missing: number
  /** For how long the first of those gone has been so. */
  goneForMs: number
}

/**
 * When a segment is repaired; then all that is gone or missing is rebuilt.
 * - `margin`: ours. At the threshold that follows measured churn, or `threshold` where that is pinned; after `patienceMs`
 *   in any case; at once for what is missing, if `isMissingUrgent`.
 * - `held`: once so few are held.
 * - `periodic`: the same, looked at by hand every `everyMs` only.
 */
export type RepairRule =
  | { kind: 'margin'; threshold?: number; patienceMs: number; isMissingUrgent: boolean }
  | { kind: 'held'; atMost: number }
  | { kind: 'periodic'; atMost: number; everyMs: number }

export interface Policy {
  name: string
  label: string
  code: CodeShape
  /** Absent for so long, a provider counts as gone; up to `graceSpan` times as long by its own past absences. */
  graceMs: number
  graceSpan: number
  rule: RepairRule
  /** Bytes read for a repair of `lost` shards, in shards. Without: `k`. */
  readShards?: (lost: number) => number
  /** Requests started beyond the `k` that a read needs. */
  eagerReads?: number
  /** Stored bytes a byte, where it is not `n / k`. */
  storedPerByte?: number
  /** Where an object is many of these: what is made of their figures. */
  composite?: { name: 'swarm'; chunks: number; parities: number }
  /** Where its numbers come from, and what was left out. */
  source: string
}

/** Whether a segment is to be repaired now. */
export function isDue(rule: RepairRule, view: SegmentView, threshold: number): boolean {
  if (view.gone + view.missing === 0) return false
  if (rule.kind !== 'margin') return view.held <= rule.atMost
  if (rule.isMissingUrgent && view.missing > 0) return true
  return (
    view.margin + view.waiting <= threshold ||
    view.margin <= readableFloor(threshold) ||
    (view.gone > 0 && view.goneForMs >= rule.patienceMs)
  )
}

export const bytesReadFor = ({ code, readShards }: Policy, lost: number, shardBytes: number): number =>
  (readShards?.(lost) ?? code.k) * shardBytes

export const storedPerByteOf = ({ code: { k, m }, storedPerByte }: Policy): number => storedPerByte ?? (k + m) / k

const atOnce = ({ k, m }: CodeShape): RepairRule => ({ kind: 'held', atMost: k + m - 1 })
const replicated = (copies: number): Policy => ({
  name: `replication-${copies}`,
  label: `replication x${copies}`,
  code: { k: 1, m: copies - 1 },
  graceMs: hourMs,
  graceSpan: 1,
  rule: atOnce({ k: 1, m: copies - 1 }),
  source: 'Every copy is replaced an hour after its provider went.'
})

export interface OurChoice {
  code: CodeShape
  graceMs: number
  graceSpan: number
  /** Pinned; otherwise by measured churn. */
  threshold?: number
  patienceMs: number
  isMissingUrgent: boolean
}

/** Independent domains: as many as any code asks for. */
const largeNetwork = 1000

/** As the product has it: `src/repair`, and `codeFor` of a large network. */
export const ourDefaults: OurChoice = {
  code: codeFor(largeNetwork, 'STANDARD')!,
  graceMs: defaultGraceMs,
  graceSpan,
  patienceMs: defaultPatienceMs,
  isMissingUrgent: true
}

export function ours(choice: Partial<OurChoice> = {}, label = 'holdfast'): Policy {
  const { code, graceMs, graceSpan, threshold, patienceMs, isMissingUrgent } = { ...ourDefaults, ...choice }
  return {
    name: label.replace(/[^a-z0-9+]+/gi, '-').toLowerCase(),
    label: `${label}, ${code.k}+${code.m}`,
    code,
    graceMs,
    graceSpan,
    rule: { kind: 'margin', threshold, patienceMs, isMissingUrgent },
    source: 'src/repair: threshold by measured churn, grace by each provider’s own absences.'
  }
}

/** f of 3f + 1 nodes may be faulty: Walrus runs 1,000 shards; here f = 10. */
const walrusFaulty = 10
const walrusNodes = 3 * walrusFaulty + 1
const walrusStored = 4.5

export const alternatives: readonly Policy[] = [
  replicated(3),
  replicated(10),
  {
    name: 'storj',
    label: 'Storj, 29 of 80, repair at 35',
    code: { k: 29, m: 51 },
    graceMs: 4 * hourMs,
    graceSpan: 1,
    rule: { kind: 'held', atMost: 35 },
    eagerReads: 6,
    source:
      'Whoever is offline for 4 hours counts as lost; 35 requests are started for 29 pieces, and the rest cut off.'
  },
  {
    name: 'sia',
    label: 'Sia, 10 of 30, repair at 25',
    code: { k: 10, m: 20 },
    graceMs: 24 * hourMs,
    graceSpan: 1,
    rule: { kind: 'held', atMost: 25 },
    source: 'Migration at a health of 0.75; that a host counts as lost after a day is an assumption.'
  },
  {
    name: 'tahoe',
    label: 'Tahoe, 3 of 10, by hand each month',
    code: { k: 3, m: 7 },
    graceMs: hourMs,
    graceSpan: 1,
    rule: { kind: 'periodic', atMost: 9, everyMs: 30 * dayMs },
    source:
      'deep-check --repair once a month rebuilds whatever is not there at that moment. Happiness (7) is a rule for uploads and changes nothing here.'
  },
  {
    name: 'walrus',
    label: 'Walrus, 11 of 31 in two dimensions, 4.5x (model)',
    code: { k: walrusFaulty + 1, m: 2 * walrusFaulty },
    graceMs: 14 * dayMs,
    graceSpan: 1,
    rule: { kind: 'held', atMost: walrusNodes - 1 },
    // A node's slivers are 4.5 / n of the blob, and it gets them back from as many bytes of others' (Red Stuff).
    readShards: (lost) => lost,
    storedPerByte: walrusStored,
    source:
      'Modelled: a read needs slivers of a third of the nodes; a lost node’s are recovered for the bytes that they have, at the end of an epoch of 14 days. 31 nodes instead of 1,000 shards.'
  },
  {
    name: 'swarm',
    label: 'Swarm, 107+21 chunks in neighbourhoods of 4 (model)',
    code: { k: 1, m: 3 },
    graceMs: hourMs,
    graceSpan: 1,
    rule: atOnce({ k: 1, m: 3 }),
    composite: { name: 'swarm', chunks: 107, parities: 21 },
    storedPerByte: (4 * 128) / 107,
    source:
      'Modelled: a chunk is 4 copies that pull-syncing replaces after an hour; an object is 128 of them (level strong: 21 parities), each placed by itself. Nothing rebuilds a chunk from parities before somebody uploads again.'
  }
]
