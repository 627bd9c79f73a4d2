import type { ProviderView } from '../../admin/backend.ts'
import { systemClock } from '../../base/system.ts'
import { createAdminClient } from '../admin-client.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { adminOrigin, type ConnectionOptions, withAdminOptions } from '../connection.ts'
import { type Column, table } from '../output.ts'
import { formatBytes, formatDuration } from '../units.ts'

const stateOrder = ['offline', 'contained', 'unknown', 'online']

function seen(lastSeenAt: string | null, now: number): string {
  return lastSeenAt === null ? 'never' : `${formatDuration(now - Date.parse(lastSeenAt))} ago`
}

function failures(outcomes: Record<string, number>): string {
  const parts = Object.entries(outcomes).filter(([name, count]) => name !== 'ok' && count > 0)
  return parts.map(([name, count]) => `${count} ${name}`).join(', ') || '-'
}

function columns(now: number): Column<ProviderView>[] {
  return [
    { title: 'DOMAIN', value: (p) => p.domain || '-' },
    { title: 'PEER', value: (p) => p.peerId },
    { title: 'STATE', value: (p) => (p.state === 'online' && !p.accepting ? 'online, full' : p.state) },
    { title: 'USED', value: (p) => formatBytes(Math.max(0, p.capacityBytes - p.freeBytes)), align: 'right' },
    { title: 'CAPACITY', value: (p) => formatBytes(p.capacityBytes), align: 'right' },
    { title: 'SHARDS', value: (p) => String(p.shards), align: 'right' },
    { title: 'LATENCY', value: (p) => (p.latencyMs === null ? '-' : `${Math.round(p.latencyMs)} ms`), align: 'right' },
    { title: 'SEEN', value: (p) => seen(p.lastSeenAt, now), align: 'right' },
    { title: 'FAILURES', value: (p) => failures(p.outcomes) }
  ]
}

async function providers(context: CommandContext, options: ConnectionOptions): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const answer = await admin.request<{ providers: ProviderView[] }>('GET', '/v1/providers')
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
      'Lists the providers that the gateway has found, with what it has learned of each; those that need a look come first.'
    )
  action(withAdminOptions(command), run, { names: ['ok', 'failure', 'usage', 'network', 'interrupted'] }, providers)
}
