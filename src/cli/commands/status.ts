import type { GatewayStatus } from '../../admin/backend.ts'
import { systemClock } from '../../base/system.ts'
import { createAdminClient } from '../admin-client.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { adminOrigin, type ConnectionOptions, providerDirectory, withAdminOptions } from '../connection.ts'
import { Exit, exitCodes } from '../exit-codes.ts'
import { formatBytes, formatDuration } from '../units.ts'

const countsOf = (counts: Record<string, number>): string =>
  Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')

function custodyOf({ audits, contained, ownOutage, oldestProofAt }: GatewayStatus['custody'], now: number): string {
  return [
    `${audits} audits`,
    ...(oldestProofAt === null ? [] : [`oldest proof ${formatDuration(now - Date.parse(oldestProofAt))} ago`]),
    ...(contained === 0 ? [] : [`${contained} challenges to be put again`]),
    ...(ownOutage ? ['judgement suspended for an outage on this side'] : [])
  ].join('; ')
}

function render(status: GatewayStatus, dashboard: string, now: number): string {
  const { providers } = status
  const others = (['offline', 'contained', 'unknown'] as const)
    .filter((state) => providers[state] > 0)
    .map((state) => `${providers[state]} ${state}`)
  const codes = Object.entries(status.codes).map(([name, code]) => `${name} ${code ?? '(too few providers)'}`)
  const lines: Array<[string, string]> = [
    ['State', status.ready ? 'ready' : `not ready: ${status.reasons.join('; ')}`],
    ['Endpoint', status.endpoint],
    ['Dashboard', dashboard],
    ['Peer', status.peerId],
    ['Providers', [`${providers.online} online`, ...others].join(', ')],
    ['Space', `${formatBytes(status.freeBytes)} free of ${formatBytes(status.capacityBytes)}`],
    [
      'Objects',
      `${status.objects} in ${status.buckets} ${status.buckets === 1 ? 'bucket' : 'buckets'}, ${formatBytes(status.objectBytes)}`
    ],
    ['Segments', `${status.segments}, ${status.incompleteSegments} below full margin; ${status.shards} shards`],
    ['Custody', custodyOf(status.custody, now)],
    ['Standing', countsOf(status.custody.standings) || 'no provider audited yet'],
    ['New objects', codes.join(', ')],
    [
      'Kernels',
      Object.entries(status.kernels)
        .map(([name, implementation]) => `${name} ${implementation}`)
        .join('; ')
    ]
  ]
  return lines.map(([name, value]) => `${`${name}:`.padEnd(13)}${value}`).join('\n')
}

async function status(context: CommandContext, options: ConnectionOptions): Promise<void> {
  const directory = providerDirectory(options)
  if (directory !== undefined) {
    await providerStatus(context, directory)
    return
  }
  const origin = await adminOrigin(options, context)
  const answer = await createAdminClient(origin, context.signal).request<GatewayStatus>('GET', '/v1/status')
  context.output.result(answer, () => render(answer, `${origin}/`, systemClock.now()))
  if (!answer.ready) throw new Exit(exitCodes.network)
}

async function providerStatus({ output }: CommandContext, directory: string): Promise<void> {
  const { render, reportOf } = await import('../provider-status.ts')
  const now = systemClock.now()
  const report = await reportOf(directory, now)
  output.result(report, () => render(report, now))
  if (!report.isRunning) throw new Exit(exitCodes.network)
}

export const register: Register = (program, run) => {
  const command = program
    .command('status')
    .summary('how the network stands')
    .description(
      'Shows whether the gateway can serve, how many providers answer, what is stored, and how it is proved. With the directory of a provider as --data: what it keeps, its score with each gateway, and every event that moved it.'
    )
  const special = { network: 'the gateway does not answer, or cannot serve requests now; the provider does not run' }
  action(
    withAdminOptions(command),
    run,
    { names: ['ok', 'failure', 'usage', 'network', 'interrupted'], special },
    status
  )
}
