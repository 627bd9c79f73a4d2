/** What repairs of and by others look like on the admin address. */
import type { AcceptanceView, HelpView } from '../admin/backend.ts'
import type { Acceptance } from '../repair/accept-report.ts'
import type { HelpRound } from '../repair/by-anybody.ts'

const rowsShown = 1000

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
