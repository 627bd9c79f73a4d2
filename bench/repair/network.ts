/**
 * A network whose every provider can be lost and replaced: each node is a process of its own, started as an operator
 * starts it, and nobody joins through a node that may be gone.
 */
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { GatewayStatus, ProviderView, RepairTotals } from '../../src/admin/backend.ts'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { minuteMs } from '../../src/base/limits.ts'
import { type GatewayReady, gatewayReadySchema, providerReadySchema } from '../../src/cli/up/messages.ts'
import { GatewayAdmin } from '../gateway-admin.ts'
import { PortPairs } from '../ports.ts'
import { NodeProcess } from './node-process.ts'
import { waitUntil } from './wait.ts'

export interface RepairNetworkInit {
  directory: string
  /** Running at any time. */
  providers: number
  /** Names of failure domains: provider `i` is in domain `i % domains`. */
  domains: number
  /** `K+M`. */
  code: string
  /** How long a provider may be away, as `--offline-grace` takes it; absent: the gateway's own default. */
  offlineGrace?: string
  repairPatience?: string
  /** Bytes a second that repair may move, as `--repair-rate` takes it; absent: the gateway's own default. */
  repairRate?: string
  signal: AbortSignal
}

export interface Provider {
  /** `p03`: number 3 of all that ever ran here. */
  name: string
  domain: string
  peerId: string
  data: string
  addresses: string[]
  process: NodeProcess
}

const startMsMax = 2 * minuteMs
const startsAtOnce = 4
/** Enough that one of them is there when somebody joins. */
const bootstrapCount = 3

export class RepairNetwork {
  readonly init: RepairNetworkInit
  readonly providers: Provider[] = []
  readonly #admin: GatewayAdmin
  /** Of S3; the admin API has the next. The same after each start. */
  readonly #port: number
  #gateway: { process: NodeProcess; ready: GatewayReady } | undefined
  #made = 0

  private constructor(init: RepairNetworkInit, port: number) {
    this.init = init
    this.#admin = new GatewayAdmin(() => this.gateway.admin, init.signal)
    this.#port = port
  }

  /** Resolves when every provider is known to the gateway, and it serves. */
  static async start(init: RepairNetworkInit): Promise<RepairNetwork> {
    await mkdir(join(init.directory, 'logs'), { recursive: true })
    const network = new RepairNetwork(init, await new PortPairs().next())
    try {
      const domains = Array.from({ length: init.providers }, (_, i) => `site-${i % init.domains}`)
      await network.addProvider(domains[0]!) // the one that the others join through
      const starts: Array<() => Promise<unknown>> = domains.slice(1).map((domain) => () => network.addProvider(domain))
      starts.splice(startsAtOnce, 0, () => network.startGateway())
      await forEachLimit(starts, startsAtOnce, async (start) => void (await start()))
      await network.untilOnline()
      await waitUntil('the gateway takes writes', async () => (await network.get<object>('/readyz')) !== undefined, {
        msMax: startMsMax,
        signal: init.signal
      })
      return network
    } catch (error) {
      await network.stop()
      throw error
    }
  }

  /** How the gateway is reached: the same after each of its starts. */
  get gateway(): GatewayReady {
    return this.#gateway!.ready
  }

  /**
   * Starts a new provider; resolves when it serves, which is before the gateway has found it.
   *
   * @param leaving whom it must not join through
   */
  async addProvider(domain: string, leaving: readonly Provider[] = []): Promise<Provider> {
    const name = `p${String(++this.#made).padStart(2, '0')}`
    const data = join(this.init.directory, name)
    const child = new NodeProcess(
      ['provider', '--data', data, '--capacity', '20GB', '--domain', domain, ...this.#bootstrap(leaving)],
      this.#logFile(name)
    )
    const entry: Provider = { name, domain, peerId: '', data, addresses: [], process: child }
    this.providers.push(entry)
    const { peerId, addresses } = providerReadySchema.parse(await child.ready)
    return Object.assign(entry, { peerId, addresses })
  }

  /** For good: `kill -9`, and its disk is gone as well. */
  async lose(victims: readonly Provider[]): Promise<void> {
    await this.#remove(victims, (child) => child.kill())
  }

  /** Ends providers that nobody needs any more, in good order. */
  async retire(victims: readonly Provider[]): Promise<void> {
    await this.#remove(victims, (child) => child.stop())
  }

  async #remove(victims: readonly Provider[], end: (child: NodeProcess) => Promise<void>): Promise<void> {
    await Promise.all(victims.map(({ process: child }) => end(child)))
    for (const victim of victims) this.providers.splice(this.providers.indexOf(victim), 1)
    await Promise.all(victims.map(({ data }) => rm(data, { recursive: true, force: true })))
  }

  /** Resolves when its process serves; see `untilReady`. */
  async startGateway(): Promise<void> {
    const { directory, code, offlineGrace, repairPatience, repairRate, providers } = this.init
    const child = new NodeProcess(
      [
        ...['gateway', '--data', join(directory, 'gateway'), '--port', String(this.#port)],
        ...['--code', code, '--expect-providers', String(providers)],
        ...(offlineGrace === undefined ? [] : ['--offline-grace', offlineGrace]),
        ...(repairPatience === undefined ? [] : ['--repair-patience', repairPatience]),
        ...(repairRate === undefined ? [] : ['--repair-rate', repairRate]),
        ...this.#bootstrap()
      ],
      this.#logFile('gateway')
    )
    this.#gateway = { process: child, ready: this.#gateway?.ready ?? ({} as GatewayReady) }
    this.#gateway.ready = gatewayReadySchema.parse(await child.ready)
  }

  async killGateway(): Promise<void> {
    await this.#gateway!.process.kill()
  }

  /**
   * Until every provider that runs is online to the gateway. Not until it would take a write: whoever was caught with
   * rot gets nothing new for a while, and its shards are repaired all the same.
   */
  async untilOnline(): Promise<void> {
    await waitUntil(
      'all providers are online',
      async () => {
        const online = new Set((await this.providerViews()).filter(({ state }) => state === 'online').map(peerIdOf))
        const absent = this.providers.filter(({ peerId }) => !online.has(peerId))
        if (absent.length > 0) throw new Error(`${absent.map(({ name }) => name).join(', ')} are not`)
        return true
      },
      { msMax: startMsMax, signal: this.init.signal }
    )
  }

  async get<T>(path: string): Promise<T> {
    return await this.#admin.get(path)
  }

  async post<T>(path: string, body: object): Promise<T> {
    return await this.#admin.post(path, body)
  }

  async status(): Promise<GatewayStatus> {
    return await this.get('/v1/status')
  }

  async providerViews(): Promise<ProviderView[]> {
    return await this.#admin.providerViews()
  }

  async repairTotals(): Promise<RepairTotals> {
    return await this.#admin.repairTotals()
  }

  /** A counter or gauge of `GET /metrics`, summed over its labels; 0 while there is none. */
  async metric(name: string): Promise<number> {
    return await this.#admin.metric(name)
  }

  async stop(): Promise<void> {
    await this.#gateway?.process.stop()
    await Promise.all(this.providers.map(({ process: child }) => child.stop()))
  }

  #logFile(name: string): string {
    return join(this.init.directory, 'logs', `${name}.log`)
  }

  #bootstrap(leaving: readonly Provider[] = []): string[] {
    const known = this.providers.filter(
      (one) => one.addresses.length > 0 && !one.process.hasEnded && !leaving.includes(one)
    )
    return known.slice(-bootstrapCount).flatMap(({ addresses }) => ['--bootstrap', addresses[0]!])
  }
}

const peerIdOf = ({ peerId }: { peerId: string }): string => peerId

/** Blocks on a provider's disk, with their bytes. */
export async function blocksOf({ data }: Pick<Provider, 'data'>): Promise<Map<string, number>> {
  const blocks = new Map<string, number>()
  const entries = await readdir(join(data, 'blocks'), { recursive: true, withFileTypes: true })
  await forEachLimit(
    entries.filter((entry) => entry.isFile()),
    64,
    async ({ name, parentPath }) => {
      // One that is being written, or deleted, is none yet, or none any more.
      const found = await stat(join(parentPath, name)).catch(() => undefined)
      if (found !== undefined && /^b[a-z2-7]{20,}$/.test(name)) blocks.set(name, found.size)
    }
  )
  return blocks
}

/** Where a provider keeps a block: FORMATS.md. */
export const blockFile = ({ data }: Pick<Provider, 'data'>, cid: string): string =>
  join(data, 'blocks', cid.slice(-3, -1), cid)
