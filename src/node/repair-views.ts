/** What repairs look like on the admin address: one's own, and those of and by others. */
import type { AcceptanceView, HelpView, RepairListing, RepairRound, RepairTotals } from '../admin/backend.ts'
import { type Clock, withDeadline } from '../base/clock.ts'
import { isCode } from '../base/errors.ts'
import { formatCode } from '../erasure/erasure-coder.ts'
import type { Acceptance } from '../repair/accept-report.ts'
import type { HelpRound } from '../repair/by-anybody.ts'
import type { Repairer, RepairPlan } from '../repair/repairer.ts'

const rowsShown = 1000
const itemsShown = 100

export function repairListingOf(plan: RepairPlan): RepairListing {
  const items = plan.items.map(({ k, m, readable, ...item }) => ({
    ...item,
    code: formatCode({ k, m }),
    healthy: readable
  }))
  return { ...plan, items }
}

export interface RepairNowComponents {
  repairer: Pick<Repairer, 'plan' | 'progress' | 'repairNow'>
  clock: Clock
}

/** Repairs what there is to repair, for `msMax` at most. */
export async function repairNow(
  { repairer, clock }: RepairNowComponents,
  msMax: number,
  signal: AbortSignal
): Promise<RepairRound> {
  const before = totalsOf(repairer.progress)
  let isPartial = false
  try {
    await withDeadline(clock, msMax, signal, (inner) => repairer.repairNow(inner))
  } catch (error) {
    signal.throwIfAborted()
    if (!isCode(error, 'TIMEOUT')) throw error
    isPartial = true
  }
  const after = totalsOf(repairer.progress)
  const done = Object.fromEntries(
    Object.entries(after).map(([name, count]) => [name, count - before[name as keyof RepairTotals]])
  ) as unknown as RepairTotals
  return { done, left: repairListingOf(await repairer.plan(itemsShown, signal, true)), isPartial }
}

const totalsOf = (totals: RepairTotals): RepairTotals => ({
  repairs: totals.repairs,
  shardsRebuilt: totals.shardsRebuilt,
  shardsMoved: totals.shardsMoved,
  bytesRead: totals.bytesRead,
  bytesWritten: totals.bytesWritten,
  bytesTheory: totals.bytesTheory,
  wastedBytes: totals.wastedBytes
})

export function helpViewOf({ root, held, unhelped, reports, ...round }: HelpRound): HelpView {
  const rebuilt = held.filter(({ isRebuilt }) => isRebuilt)
  const reasons: Record<string, number> = {}
  for (const { why } of unhelped) reasons[why] = (reasons[why] ?? 0) + 1
  return {
    root: root.toString(),
    ...round,
    found: held.length - rebuilt.length,
    rebuilt: rebuilt.length,
    unhelped: reasons,
    rows: rebuilt
      .slice(0, rowsShown)
      .map(({ segment, index, cid, provider }) => ({ segment, index, cid: cid.toString(), provider })),
    reports: reports.map((report) => Buffer.from(report).toString('base64'))
  }
}

export function acceptanceViewOf({ root, helper, at, counts, rows }: Acceptance): AcceptanceView {
  return {
    root: root.toString(),
    helper,
    // A stranger's clock may be anything.
    madeAt: new Date(Math.min(at, 8.64e15)).toISOString(),
    rows: counts,
    shards: rows.map(({ cid, provider, verdict }) => ({ cid: cid.toString(), provider, verdict }))
  }
}
