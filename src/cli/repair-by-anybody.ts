/** The work of `holdfast repair` for other people's contents, and with other people's reports. */
import { createReadStream } from 'node:fs'
import path from 'node:path'
import type { AcceptanceView, HelpView } from '../admin/backend.ts'
import { HoldfastError } from '../base/errors.ts'
import { parseCid } from '../content/cid.ts'
import { frameReport, reportsIn } from '../market/repair-report.ts'
import { type AdminClient, createAdminClient } from './admin-client.ts'
import type { CommandContext } from './command.ts'
import { adminOrigin, type ConnectionOptions } from './connection.ts'
import { Exit, exitCodes } from './exit-codes.ts'
import { table } from './output.ts'
import { formatBytes } from './units.ts'
import { writeWholeFile } from './whole-file.ts'

type Counts = Record<string, number>

const sumOf = (counts: Counts): number => Object.values(counts).reduce((sum, count) => sum + count, 0)

const counted = (counts: Counts): string =>
  Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')

function add(to: Counts, counts: Counts): void {
  for (const [name, count] of Object.entries(counts)) to[name] = (to[name] ?? 0) + count
}

type Helped = Omit<HelpView, 'from' | 'next' | 'reports' | 'providersAsked'> & { file: string }

const nothingHelped = (root: string, file: string): Helped => ({
  root,
  file,
  units: 0,
  failure: null,
  bytesRead: 0,
  bytesWritten: 0,
  found: 0,
  rebuilt: 0,
  unhelped: {},
  rows: []
})

const rowsShown = 1000

/** Calls until all of the content has been gone through; each call's reports are in the file before the next is made. */
async function helpContent(
  { output }: CommandContext,
  admin: AdminClient,
  root: string,
  file: string
): Promise<Helped> {
  const helped = nothingHelped(root, file)
  await writeWholeFile(file, async (sink) => {
    for (let from: number | null = 0; from !== null; ) {
      const round: HelpView = await admin.request<HelpView>('POST', '/v1/repair', { cid: root, from })
      for (const report of round.reports) await sink(frameReport(Buffer.from(report, 'base64')))
      helped.units += round.units
      helped.bytesRead += round.bytesRead
      helped.bytesWritten += round.bytesWritten
      helped.found += round.found
      helped.rebuilt += round.rebuilt
      helped.failure = round.failure
      add(helped.unhelped, round.unhelped)
      helped.rows.push(...round.rows.slice(0, Math.max(0, rowsShown - helped.rows.length)))
      from = round.next
      if (from !== null) output.note(`${root}: ${helped.units} segments and blocks, ${helped.rebuilt} shards rebuilt`)
    }
  })
  return helped
}

function renderHelped(helped: Helped): string {
  const { units, found, rebuilt, bytesRead, bytesWritten, unhelped, failure, file } = helped
  const left = sumOf(unhelped)
  return [
    `Content:    ${helped.root}`,
    `Looked at:  ${units} segments and manifest blocks: ${found} shards proved`,
    `Rebuilt:    ${rebuilt} shards (${formatBytes(bytesRead)} read, ${formatBytes(bytesWritten)} written)`,
    ...(left === 0 ? [] : [`Not helped: ${left} shards: ${counted(unhelped)}`]),
    ...(failure === null ? [] : [`Ended:      before its end: ${failure}`]),
    `Report:     ${file}, for the owner: holdfast repair --accept FILE`
  ].join('\n')
}

/** @param report where the report is written; default: named for the root, here */
export async function repairContent(
  context: CommandContext,
  options: ConnectionOptions,
  cid: string,
  report: string | undefined
): Promise<void> {
  const root = parseCid(cid).toString()
  const file = path.resolve(report ?? `${root}.repair`)
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const helped = await helpContent(context, admin, root, file)
  context.output.result(helped, () => renderHelped(helped))
  if (helped.failure !== null || sumOf(helped.unhelped) > 0) throw new Exit(exitCodes.network)
}

interface Accepted {
  reports: number
  helpers: string[]
  roots: string[]
  rows: Counts
  shards: AcceptanceView['shards']
}

function renderAccepted({ reports, helpers, rows, shards }: Accepted): string {
  const { accepted = 0, ...others } = rows
  return [
    `Reports:     ${reports}, by ${helpers.join(', ')}`,
    `Taken over:  ${accepted} shards`,
    ...(sumOf(others) === 0 ? [] : [`Others:      ${counted(others)}`]),
    ...(shards.length === 0
      ? []
      : [
          '',
          table(shards, [
            { title: 'VERDICT', value: ({ verdict }) => verdict },
            { title: 'SHARD', value: ({ cid }) => cid },
            { title: 'PROVIDER', value: ({ provider }) => provider }
          ])
        ])
  ].join('\n')
}

export async function acceptFile(context: CommandContext, options: ConnectionOptions, file: string): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const total: Accepted = { reports: 0, helpers: [], roots: [], rows: {}, shards: [] }
  for await (const report of reportsIn(readFileChunks(file))) {
    const body = { report: Buffer.from(report).toString('base64') }
    const { helper, root, rows, shards } = await admin.request<AcceptanceView>('POST', '/v1/repair', body)
    total.reports++
    if (!total.helpers.includes(helper)) total.helpers.push(helper)
    if (!total.roots.includes(root)) total.roots.push(root)
    add(total.rows, rows)
    total.shards.push(...shards.slice(0, Math.max(0, rowsShown - total.shards.length)))
  }
  if (total.reports === 0) throw new HoldfastError('BAD_INPUT', `there is no report in ${file}`)
  context.output.result(total, () => renderAccepted(total))
  const { unproved = 0, unreachable = 0, busy = 0, 'not-looked-at': unseen = 0 } = total.rows
  if (unproved > 0) throw new Exit(exitCodes.fault)
  if (unreachable + busy + unseen > 0) throw new Exit(exitCodes.network)
}

async function* readFileChunks(file: string): AsyncGenerator<Uint8Array> {
  try {
    yield* createReadStream(file)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
    throw new HoldfastError('MISSING', `there is no file ${file}`, { cause })
  }
}
