/** The work of `holdfast repair` on what the gateway itself owns: the plan, and carrying it out now. */
import type { RepairItem, RepairListing, RepairRound } from '../admin/backend.ts'
import { createAdminClient } from './admin-client.ts'
import type { CommandContext } from './command.ts'
import { adminOrigin, type ConnectionOptions } from './connection.ts'
import { Exit, exitCodes } from './exit-codes.ts'
import { table } from './output.ts'
import { formatBytes, formatSpan } from './units.ts'

/** Rows of a plan that are shown; the totals are of all. */
const shownMax = 50

const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? '' : 's'}`

function itemTable(items: readonly RepairItem[]): string {
  return table(items.slice(0, shownMax), [
    { title: 'SEGMENT', value: ({ segment }) => String(segment), align: 'right' },
    { title: 'CODE', value: ({ code }) => code },
    { title: 'MARGIN', value: ({ margin }) => String(margin), align: 'right' },
    { title: 'PLACE', value: ({ wanted }) => String(wanted), align: 'right' },
    { title: 'LASTS', value: ({ secondsToLoss }) => formatSpan(secondsToLoss), align: 'right' },
    { title: 'WHY', value: ({ why, stuck }) => (stuck === null ? why : `${why}; not repaired: ${stuck}`) }
  ])
}

function renderPlan({ items, planned, paused, isTruncated }: RepairListing): string {
  const pause = paused === null ? [] : [`Held up:  ${paused}`]
  if (items.length === 0) return ['Plan:     nothing to repair', ...pause].join('\n')
  const more = planned.segments - Math.min(shownMax, items.length)
  const atLeast = isTruncated ? 'at least ' : ''
  return [
    `Plan:     ${atLeast}${plural(planned.segments, 'segment')}, ${plural(planned.shards, 'shard')} to place`,
    `Traffic:  ${formatBytes(planned.bytesToRead)} to read, ${formatBytes(planned.bytesToWrite)} to write`,
    ...pause,
    '',
    itemTable(items),
    ...(more > 0 ? [`and ${more} more`] : [])
  ].join('\n')
}

function renderRound({ done, left, isPartial }: RepairRound): string {
  const { shardsRebuilt, shardsMoved, repairs, bytesRead, bytesWritten } = done
  const state =
    left.items.length === 0
      ? 'nothing is left to repair'
      : `${plural(left.planned.segments, 'segment')} left${isPartial ? ': there was not time for all' : ''}`
  return [
    `Repair:   ${state}`,
    `Done:     ${plural(shardsRebuilt, 'shard')} rebuilt and ${shardsMoved} moved, of ${plural(repairs, 'segment')}`,
    `Traffic:  ${formatBytes(bytesRead)} read, ${formatBytes(bytesWritten)} written`,
    ...(left.paused === null ? [] : [`Held up:  ${left.paused}`]),
    ...(left.items.length === 0 ? [] : ['', itemTable(left.items)])
  ].join('\n')
}

/** What a repair would do, with totals; nothing moves. */
export async function showPlan(context: CommandContext, options: ConnectionOptions): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const plan = await admin.request<RepairListing>('GET', '/v1/repairs?limit=1000&eager=1')
  context.output.result(plan, () => renderPlan(plan))
}

/** Repairs all that can be repaired, call by call. */
export async function repairOwn(context: CommandContext, options: ConnectionOptions): Promise<void> {
  const { output, signal } = context
  const admin = createAdminClient(await adminOrigin(options, context), signal)
  let round = await admin.request<RepairRound>('POST', '/v1/repair', {})
  const done = { ...round.done }
  while (round.isPartial && round.done.repairs > 0) {
    output.note(`${plural(done.repairs, 'segment')} repaired, ${round.left.planned.segments} left`)
    round = await admin.request<RepairRound>('POST', '/v1/repair', {})
    for (const name of Object.keys(done) as Array<keyof typeof done>) done[name] += round.done[name]
  }
  const all = { ...round, done }
  output.result(all, () => renderRound(all))
  if (all.left.items.length > 0) throw new Exit(exitCodes.network)
}
