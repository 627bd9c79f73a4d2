import type { ProviderView, ScoreEvent, ScoreView } from '../../admin/backend.ts'
import { HoldfastError } from '../../base/errors.ts'
import { systemClock } from '../../base/system.ts'
import { type AdminClient, createAdminClient } from '../admin-client.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { adminOrigin, type ConnectionOptions, withAdminOptions } from '../connection.ts'
import { type Column, table } from '../output.ts'
import { formatBytes, formatDuration } from '../units.ts'

interface ScoreAnswer {
  score: ScoreView | null
  events: ScoreEvent[]
}

const stateOrder = ['offline', 'contained', 'unknown', 'online']

function seen(lastSeenAt: string | null, now: number): string {
  return lastSeenAt === null ? 'never' : `${formatDuration(now - Date.parse(lastSeenAt))} ago`
}

function failures(outcomes: Record<string, number>): string {
  const parts = Object.entries(outcomes).filter(([name, count]) => name !== 'ok' && count > 0)
  return parts.map(([name, count]) => `${count} ${name}`).join(', ') || '-'
}

/** A figure from 0 to 1, cut and not rounded: 0.9499 is below 0.95. */
const figure = (value: number): string => (Math.floor(value * 1000) / 1000).toFixed(3)
const scored = (p: ProviderView, value: (score: ScoreView) => string): string =>
  p.score === null ? '-' : value(p.score)
const stateOf = (p: ProviderView): string => (p.state === 'online' && !p.accepting ? 'online, full' : p.state)

function columns(now: number): Column<ProviderView>[] {
  return [
    { title: 'DOMAIN', value: (p) => p.domain || '-' },
    { title: 'PEER', value: (p) => p.peerId },
    { title: 'STATE', value: stateOf },
    { title: 'STANDING', value: (p) => scored(p, ({ standing }) => standing) },
    { title: 'CUSTODY', value: (p) => scored(p, ({ custody }) => figure(custody)), align: 'right' },
    { title: 'AVAILABLE', value: (p) => scored(p, ({ availability }) => figure(availability)), align: 'right' },
    { title: 'WEIGHT', value: (p) => scored(p, ({ weight }) => figure(weight)), align: 'right' },
    { title: 'USED', value: (p) => formatBytes(Math.max(0, p.capacityBytes - p.freeBytes)), align: 'right' },
    { title: 'CAPACITY', value: (p) => formatBytes(p.capacityBytes), align: 'right' },
    { title: 'SHARDS', value: (p) => String(p.shards), align: 'right' },
    { title: 'LATENCY', value: (p) => (p.latencyMs === null ? '-' : `${Math.round(p.latencyMs)} ms`), align: 'right' },
    { title: 'SEEN', value: (p) => seen(p.lastSeenAt, now), align: 'right' },
    { title: 'FAILURES', value: (p) => failures(p.outcomes) }
  ]
}

const eventColumns: Column<ScoreEvent>[] = [
  { title: 'WHEN', value: ({ at }) => at },
  { title: 'EVENT', value: ({ kind }) => kind },
  { title: 'FROM', value: ({ before }) => figure(before), align: 'right' },
  { title: 'TO', value: ({ after }) => figure(after), align: 'right' },
  { title: 'SHARD', value: ({ shard }) => shard ?? '-' },
  { title: 'WHY', value: ({ why }) => why }
]

/** Fractions of the smallest unit matter where little has been kept for long. */
const earned = ({ amount }: ProviderView['earned']): string =>
  amount === 0 || amount >= 100 ? amount.toFixed(0) : amount.toPrecision(3)

function scoreLines(score: ScoreView | null): Array<[string, string]> {
  if (score === null) return [['Standing', 'not audited yet']]
  const ms = (value: number | null): string => (value === null ? 'not measured' : `${Math.round(value)} ms`)
  return [
    ['Standing', score.standing],
    ['Weight', `${figure(score.weight)}: ${score.why}`],
    ['Custody', `${figure(score.custody)}; ${score.proofs} proofs, ${score.contained} challenges to be put again`],
    ['Availability', figure(score.availability)],
    ['Proofs take', `p50 ${ms(score.latencyMsP50)}, p95 ${ms(score.latencyMsP95)}`]
  ]
}

function renderOne(p: ProviderView, { score, events }: ScoreAnswer, now: number): string {
  const lines: Array<[string, string]> = [
    ['Peer', p.peerId],
    ['Domain', p.domain || '-'],
    ['State', `${stateOf(p)}; seen ${seen(p.lastSeenAt, now)}`],
    ['Space', `${formatBytes(p.freeBytes)} free of ${formatBytes(p.capacityBytes)}`],
    ['Shards', `${p.shards}, ${formatBytes(p.shardBytes)}`],
    ['Failures', failures(p.outcomes)],
    ['Earned', `${earned(p.earned)} for ${formatBytes(p.earned.byteHours)}-hours, at ${p.price} a GiB-month`],
    ...scoreLines(score)
  ]
  return [
    ...lines.map(([name, value]) => `${`${name}:`.padEnd(14)}${value}`),
    '',
    events.length === 0 ? 'Nothing has moved its score yet.' : table(events, eventColumns)
  ].join('\n')
}

async function provider(
  context: CommandContext,
  admin: AdminClient,
  listed: readonly ProviderView[],
  peerId: string
): Promise<void> {
  const found = listed.find((one) => one.peerId === peerId)
  if (found === undefined) throw new HoldfastError('MISSING', `the gateway knows no provider ${peerId}`)
  const answer = await admin.request<ScoreAnswer>('GET', `/v1/providers/${encodeURIComponent(peerId)}/score`)
  context.output.result({ provider: found, ...answer }, () => renderOne(found, answer, systemClock.now()))
}

async function providers(context: CommandContext, options: ConnectionOptions, [peerId]: string[]): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const answer = await admin.request<{ providers: ProviderView[] }>('GET', '/v1/providers')
  if (peerId !== undefined) return await provider(context, admin, answer.providers, peerId)
  const rows = answer.providers.toSorted(
    (a, b) =>
      stateOrder.indexOf(a.state) - stateOrder.indexOf(b.state) ||
      a.domain.localeCompare(b.domain, 'en', { numeric: true }) ||
      (a.peerId < b.peerId ? -1 : 1)
  )
  context.output.result(answer, () =>
    rows.length === 0 ? 'no providers known yet' : table(rows, columns(systemClock.now()))
  )
}

export const register: Register = (program, run) => {
  const command = program
    .command('providers')
    .summary('list the providers the gateway knows')
    .description(
      'Lists the providers that the gateway has found, with what it has learned of each; those that need a look come first. ' +
        'Of one provider it shows the score, and every event that moved it.'
    )
    .argument('[peer-id]', 'one provider, with what moved its score')
  const special = { notFound: 'the gateway knows no such provider' }
  action(
    withAdminOptions(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'interrupted'], special },
    providers
  )
}
