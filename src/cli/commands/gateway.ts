import path from 'node:path'
import { secondMs } from '../../base/limits.ts'
import { systemClock, systemRandom } from '../../base/system.ts'
import { type Code, parseCode } from '../../erasure/erasure-coder.ts'
import { announceReady } from '../announce-ready.ts'
import { action, type CommandContext, collect, optionParser, type Register } from '../command.ts'
import { lockDirectory } from '../directory-lock.ts'
import { aborted } from '../interrupt.ts'
import { removeNetworkFile, writeNetworkFile } from '../network-file.ts'
import { addRepairOptions } from '../repair-options.ts'
import { type HostPort, parseHostPort, parseInteger, parsePort } from '../units.ts'

interface GatewayOptions {
  data: string
  host: string
  port: number
  admin?: HostPort
  listen: HostPort
  bootstrap?: string[]
  code?: Code
  expectProviders?: number
  auditPace?: number
  offlineGrace?: number
  repairPatience?: number
  repairRate?: number
  selfHost?: number
}

/** An earlier process on the directory, asked to end, may take this long. */
const lockWaitMs = 10 * secondMs

async function gateway(context: CommandContext, options: GatewayOptions): Promise<void> {
  const { output, signal, log } = context
  const directory = path.resolve(options.data)
  const lock = await lockDirectory(directory, 'gateway', lockWaitMs, signal)
  try {
    const { startGateway } = await import('../../node.ts')
    const running = await startGateway(
      {
        dataDir: directory,
        s3: { host: options.host, port: options.port },
        admin: options.admin ?? { host: '127.0.0.1', port: options.port === 0 ? 0 : options.port + 1 },
        listen: options.listen,
        bootstrap: options.bootstrap ?? [],
        code: options.code,
        expectedProviders: options.expectProviders,
        auditPace: options.auditPace,
        offlineGraceMs: options.offlineGrace,
        repairPatienceMs: options.repairPatience,
        repairBytesPerSecond: options.repairRate,
        selfHostBytes: options.selfHost
      },
      { clock: systemClock, random: systemRandom, log }
    )
    try {
      const { peerId, endpoint, admin, accessKey } = running
      const addresses = running.addresses()
      const network = { endpoint, ...accessKey, admin, bootstrap: addresses, providers: [] }
      await writeNetworkFile(directory, network)
      announceReady({ peerId, addresses, endpoint, admin, ...accessKey })
      output.result({ peerId, ...network }, () =>
        [
          `Endpoint    ${endpoint}`,
          `Access key  ${accessKey.accessKeyId} (its secret is in ${path.join(directory, 'network.json')})`,
          `Dashboard   ${admin}/`,
          `Peer        ${peerId}`,
          ...addresses.map((address) => `Bootstrap   ${address}`)
        ].join('\n')
      )
      await aborted(signal)
    } finally {
      await removeNetworkFile(directory)
      await running.stop()
    }
  } finally {
    await lock.release()
  }
}

export const register: Register = (program, run) => {
  const command = program
    .command('gateway')
    .summary('run a gateway: the S3 endpoint of a network')
    .description(
      'Runs a gateway until it is interrupted. It owns buckets, speaks S3, and keeps what it owns on the providers it finds. Client commands given its --data find it by DIR/network.json.'
    )
    .requiredOption('--data <dir>', 'where its keys and its index are kept')
    .option('--port <port>', 'port of the S3 endpoint; 0 for any', optionParser(parsePort), 9000)
    .option('--host <host>', 'address of the S3 endpoint', '127.0.0.1')
    .option(
      '--admin <host:port>',
      'admin API and dashboard (default: 127.0.0.1, the port after --port)',
      optionParser(parseHostPort)
    )
    .option('--listen <host:port>', 'where other nodes reach this one; port 0 for any', optionParser(parseHostPort), {
      host: '127.0.0.1',
      port: 0
    })
    .option('--bootstrap <multiaddr>', 'a node of the network to join through; may be given several times', collect)
    .option(
      '--code <k+m>',
      'shards of a segment: K of data, M of parity (default: by the number of providers)',
      optionParser(parseCode)
    )
    .option(
      '--expect-providers <n>',
      'take writes as soon as this many providers are found, instead of waiting for more (default: as many as last time)',
      optionParser((text) => parseInteger(text, 'a number of providers', 1, 100_000))
    )
    .option(
      '--audit-pace <n>',
      'put audits N times as often as usual, and wait N times less before a verdict (1 to 1000)',
      optionParser((text) => parseInteger(text, 'a pace', 1, 1000))
    )
  addRepairOptions(command)
  action<GatewayOptions>(
    command,
    run,
    { names: ['ok', 'failure', 'usage'], special: { ok: 'it was interrupted, and has stopped' } },
    gateway
  )
}
