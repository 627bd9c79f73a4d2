import path from 'node:path'
import { HoldfastError } from '../../base/errors.ts'
import { secondMs } from '../../base/limits.ts'
import { systemClock, systemRandom } from '../../base/system.ts'
import { announceReady } from '../announce-ready.ts'
import { action, type CommandContext, collect, optionParser, type Register } from '../command.ts'
import { lockDirectory } from '../directory-lock.ts'
import { aborted } from '../interrupt.ts'
import { type HostPort, parseHostPort, parseInteger, parseSize } from '../units.ts'

interface ProviderOptions {
  data: string
  capacity: number
  listen: HostPort
  announce?: string
  bootstrap?: string[]
  domain?: string
  price: number
  scrubRate?: number
}

/** An earlier process on the directory, asked to end, may take this long. */
const lockWaitMs = 10 * secondMs
const capacityDefault = '100GB'

function parseDomain(text: string): string {
  if (!/^[\x21-\x7e]{1,128}$/.test(text))
    throw new HoldfastError('BAD_INPUT', 'a domain is 1 to 128 visible ASCII characters')
  return text
}

async function provider(context: CommandContext, options: ProviderOptions): Promise<void> {
  const { output, signal, log } = context
  const directory = path.resolve(options.data)
  const lock = await lockDirectory(directory, 'provider', lockWaitMs, signal)
  try {
    const { startProvider } = await import('../../provider/provider-node.ts')
    const running = await startProvider(
      {
        dataDir: directory,
        capacityBytes: options.capacity,
        listen: options.listen,
        announce: options.announce,
        bootstrap: options.bootstrap ?? [],
        domain: options.domain,
        price: options.price,
        scrubBytesPerSecond: options.scrubRate
      },
      { clock: systemClock, random: systemRandom, log }
    )
    try {
      const ready = { peerId: running.peerId, addresses: running.multiaddrs, dataUrls: [running.dataUrl] }
      announceReady(ready)
      output.result(ready, () =>
        [
          `Peer       ${ready.peerId}`,
          `Data       ${running.dataUrl}`,
          ...ready.addresses.map((address) => `Bootstrap  ${address}`)
        ].join('\n')
      )
      await aborted(signal)
    } finally {
      await running.stop()
    }
  } finally {
    await lock.release()
  }
}

export const register: Register = (program, run) => {
  const command = program
    .command('provider')
    .summary('run a storage provider')
    .description(
      'Runs a storage provider until it is interrupted: it joins the network, offers its space, and keeps what gateways lease there. It prints the addresses that others can join through. Without --bootstrap it starts a network of its own.'
    )
    .requiredOption('--data <dir>', 'where its identity, its blocks and its leases are kept')
    .option('--capacity <size>', 'space to give', optionParser(parseSize), parseSize(capacityDefault))
    .option(
      '--listen <host:port>',
      'address of the control plane; the data plane has the next port; port 0 for any, kept from then on',
      optionParser(parseHostPort),
      { host: '127.0.0.1', port: 0 }
    )
    .option(
      '--announce <addr>',
      'HOST or HOST:PORT that others reach it by, where that is not the address it listens on; the data plane has the port after PORT'
    )
    .option('--bootstrap <multiaddr>', 'a node of the network to join through; may be given several times', collect)
    .option(
      '--domain <name>',
      'what fails together with this provider, say its operator or site (default: its peer id)',
      optionParser(parseDomain)
    )
    .option(
      '--price <n>',
      "price of a GiB-month, in the market's smallest unit",
      optionParser((text) => parseInteger(text, 'a price', 0, Number.MAX_SAFE_INTEGER)),
      0
    )
    .option(
      '--scrub-rate <size>',
      'bytes read in a second, at most, to find damage before others do, all in 30 days; 0: none (default: 4MiB)',
      optionParser(parseSize)
    )
  action<ProviderOptions>(
    command,
    run,
    { names: ['ok', 'failure', 'usage'], special: { ok: 'it was interrupted, and has stopped' } },
    provider
  )
}
