import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { HoldfastError } from '../../base/errors.ts'
import { secondMs } from '../../base/limits.ts'
import { systemClock, systemRandom } from '../../base/system.ts'
import { type Code, formatCode, parseCode } from '../../erasure/erasure-coder.ts'
import { action, type CommandContext, optionParser, type Register } from '../command.ts'
import { defaultDataDirectory } from '../connection.ts'
import { lockDirectory, whenUnlocked } from '../directory-lock.ts'
import { aborted } from '../interrupt.ts'
import { type NetworkFile, removeNetworkFile, writeNetworkFile } from '../network-file.ts'
import { addRepairOptions } from '../repair-options.ts'
import { formatBytes, formatDuration, parseInteger, parsePort, parseSize } from '../units.ts'

interface UpOptions {
  providers: number
  port: number
  adminPort?: number
  data: string
  code?: Code
  auditPace?: number
  offlineGrace?: number
  repairPatience?: number
  repairRate?: number
  selfHost?: number
  capacity?: number
}

/** What dies with 2 of a segment's shards out, and still needs one to read from: `1+2`. */
const providersMin = 3
const providersMax = 200
const bootstrapCount = 3
/** The processes of a network whose parent was killed notice at once, and then need a moment to end. */
const leftoversMsMax = 10 * secondMs

/** Waits for them, so that their ports and directories are free again. */
async function leftovers(directory: string, signal: AbortSignal): Promise<void> {
  const names = await readdir(path.join(directory, 'providers')).catch(() => []) // none yet
  await Promise.all([
    whenUnlocked(path.join(directory, 'gateway'), 'gateway', leftoversMsMax, signal),
    ...names.map((name) => whenUnlocked(path.join(directory, 'providers', name), 'provider', leftoversMsMax, signal))
  ])
}

async function checkPorts(port: number, adminPort: number): Promise<void> {
  const { isPortFree } = await import('../up/plan.ts')
  for (const [value, flag] of [
    [port, '--port'],
    [adminPort, '--admin-port']
  ] as const) {
    if (value !== 0 && !(await isPortFree(value))) {
      throw new HoldfastError('BAD_CONFIG', `port ${value} is in use on 127.0.0.1; choose another with ${flag}`)
    }
  }
}

function render(network: NetworkFile, directory: string, startMs: number): string {
  const credentials = `AWS_ACCESS_KEY_ID=${network.accessKeyId} AWS_SECRET_ACCESS_KEY=${network.secretAccessKey} AWS_DEFAULT_REGION=us-east-1`
  return [
    `Holdfast is up after ${formatDuration(startMs)}: ${network.providers.length} providers and a gateway, data in ${directory}`,
    '',
    `  Endpoint    ${network.endpoint}`,
    `  Access key  ${network.accessKeyId}`,
    `  Secret key  ${network.secretAccessKey}`,
    `  Dashboard   ${network.admin}/`,
    '',
    'Try it:',
    '',
    `  ${credentials} aws --endpoint-url ${network.endpoint} s3 mb s3://demo`,
    `  ${credentials} aws --endpoint-url ${network.endpoint} s3 cp README.md s3://demo/`,
    '',
    'Ctrl-C stops it; the data stays.'
  ].join('\n')
}

async function up(context: CommandContext, options: UpOptions): Promise<void> {
  const { output, signal, launcher, env } = context
  const { providers: count, port, code } = options
  if (code !== undefined && code.k + code.m > count) {
    throw new HoldfastError(
      'BAD_INPUT',
      `code ${formatCode(code)} needs ${code.k + code.m} providers; there are to be ${count}`
    )
  }
  const adminPort = options.adminPort ?? (port === 0 ? 0 : port + 1)
  const startedAt = systemClock.now()
  const directory = path.resolve(options.data)
  const lock = await lockDirectory(directory, 'up', 0, signal)
  try {
    await leftovers(directory, signal)
    await checkPorts(port, adminPort)
    await removeNetworkFile(directory) // of a network that was killed
    const [{ preparePlan, host }, { LocalNetwork }, { loadIdentity }] = await Promise.all([
      import('../up/plan.ts'),
      import('../up/network.ts'),
      import('../../net/identity.ts')
    ])
    const reserved = [port, adminPort].filter((one) => one !== 0)
    const plan = await preparePlan(directory, {
      providers: count,
      capacityBytes: options.capacity,
      reserved,
      random: systemRandom
    })
    if (plan.left > 0)
      output.note(`${plan.left} more providers of this directory stay down; what they hold is offline meanwhile`)
    // Identities are made here where need be, so that everybody can be told whom to join before anybody runs.
    const bootstrap = await Promise.all(
      plan.providers.slice(0, bootstrapCount).map(async ({ name, port: p2pPort }) => {
        const { peerId } = await loadIdentity(path.join(directory, 'providers', name, 'identity.key'))
        return `/ip4/${host}/tcp/${p2pPort}/p2p/${peerId}`
      })
    )
    const network = new LocalNetwork({
      host: { directory, launcher, env },
      providers: plan.providers,
      bootstrap,
      port,
      adminPort,
      code: code === undefined ? undefined : formatCode(code),
      auditPace: options.auditPace,
      offlineGraceMs: options.offlineGrace,
      repairPatienceMs: options.repairPatience,
      repairBytesPerSecond: options.repairRate,
      selfHostBytes: options.selfHost,
      note: (line) => void output.stderr.write(`${line}\n`)
    })
    try {
      output.note(
        `starting ${count} providers (${formatBytes(plan.providers[0]!.capacityBytes)} each) and a gateway in ${directory}`
      )
      const description = await network.start(signal)
      await writeNetworkFile(directory, description)
      output.result(description, () => render(description, directory, systemClock.now() - startedAt))
      await aborted(signal)
      output.note('stopping')
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      await removeNetworkFile(directory)
      await network.stop()
    }
  } finally {
    await lock.release()
  }
}

export const register: Register = (program, run) => {
  const command = program
    .command('up')
    .summary('run a whole network on this machine')
    .description(
      'Runs providers and a gateway on this machine, each a process of its own, until it is interrupted. When the network is ready, DIR/network.json says how to reach it. Data, keys and addresses are kept for the next run.'
    )
    .option(
      '--providers <n>',
      'how many providers',
      optionParser((text) => parseInteger(text, 'a number of providers', providersMin, providersMax)),
      12
    )
    .option('--port <port>', 'port of the S3 endpoint on 127.0.0.1; 0 for any', optionParser(parsePort), 9000)
    .option(
      '--admin-port <port>',
      'port of the admin API and the dashboard (default: the one after --port)',
      optionParser(parsePort)
    )
    .option('--data <dir>', 'where everything is kept', `./${defaultDataDirectory}`)
    .option(
      '--code <k+m>',
      'shards of a segment: K of data, M of parity (default: by the number of providers)',
      optionParser(parseCode)
    )
    .option(
      '--capacity <size>',
      'space of each provider (default: 20GB, less on a small disk; kept from the first run)',
      optionParser(parseSize)
    )
    .option(
      '--audit-pace <n>',
      'put audits N times as often as usual, and wait N times less before a verdict (1 to 1000)',
      optionParser((text) => parseInteger(text, 'a pace', 1, 1000))
    )
  addRepairOptions(command)
  action<UpOptions>(
    command,
    run,
    {
      names: ['ok', 'failure', 'usage', 'network'],
      special: { ok: 'it was interrupted, and has stopped', network: 'too few providers came up' }
    },
    up
  )
}
