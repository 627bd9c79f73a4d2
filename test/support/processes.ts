/**
 * Networks of real processes, as `holdfast up` runs them: started in a directory of their own, on ports of their own,
 * and ended with all their processes whatever became of the test. Providers can be killed outright, frozen, and started
 * again with the very command line that `up` gave them; further providers and gateways are started by hand.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import type { GatewayStatus, ProviderView } from '../../src/admin/backend.ts'
import { type NetworkFile, readNetworkFile } from '../../src/cli/network-file.ts'
import { type GatewayReady, gatewayReadySchema, providerReadySchema } from '../../src/cli/up/messages.ts'
import type { ObjectHealth } from '../../src/object/object-store.ts'
import { isAlive, launcher } from './cli.ts'

/** `npm run soak`: the sizes that the project promises, instead of those that every change can afford. */
export const isSoak = process.env.HOLDFAST_SOAK === '1'

/** On the machine that judges changes a missing tool is a failure, elsewhere a reason to skip. */
export const isCi = process.env.CI === 'true'

const pollMs = 100
const startMsMax = 120_000
const stopMsMax = 20_000

/**
 * Polls until `probe` gives something.
 *
 * @throws Error naming `what`, and the last failure of the probe, after `timeoutMs`
 */
export async function waitFor<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 60_000
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  let failure: unknown
  do {
    try {
      const found = await probe()
      if (found !== undefined && found !== false) return found
      failure = undefined
    } catch (error) {
      failure = error // not yet: that is what is being waited for
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  } while (performance.now() < deadline)
  throw new Error(`waited ${timeoutMs} ms in vain: ${what}`, { cause: failure })
}

/**
 * Does something again and again until `probe` sees what comes of it. What `act` throws is thrown: unlike a probe's, its failure
 * is no "not yet".
 */
export async function repeatUntil(
  what: string,
  act: () => Promise<unknown>,
  probe: () => Promise<boolean>,
  timeoutMs = 60_000
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    await act()
    for (let polls = 0; polls < 3; polls++) {
      if (await probe()) return
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
    if (performance.now() > deadline) throw new Error(`tried for ${timeoutMs} ms in vain: ${what}`)
  }
}

/** Below the ports that the system gives to outgoing connections, so that one let go for a moment can be had again. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + 2 * Math.floor(Math.random() * 11_000)
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  })
}

interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
}

/** A child of the test; it ends when the test's process does, however that came, since it hears its channel close. */
export class TestProcess {
  readonly command: readonly string[]
  readonly logFile: string
  readonly ended: Promise<Ended>
  /** What it said first on its channel. Rejects when it ends before. */
  readonly ready: Promise<unknown>
  readonly #child: ChildProcess

  constructor(command: readonly string[], logFile: string, env: Record<string, string> = {}) {
    this.command = command
    this.logFile = logFile
    const log = openSync(logFile, 'a')
    try {
      this.#child = spawn(command[0]!, command.slice(1), {
        stdio: ['ignore', log, log, 'ipc'],
        // Nothing of the environment that tests run in, but for finding other programs.
        env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '', ...env }
      })
    } finally {
      closeSync(log)
    }
    this.ended = new Promise((resolve, reject) => {
      this.#child.once('exit', (code, signal) => resolve({ code, signal }))
      this.#child.once('error', reject)
    })
    this.ready = new Promise((resolve, reject) => {
      this.#child.once('message', resolve)
      void this.ended.then(async ({ code, signal }) => {
        reject(new Error(`${command.join(' ')} ended (${signal ?? code}): ${await tail(logFile)}`))
      }, reject)
    })
    this.ready.catch(() => {}) // heard by whoever waits for it
  }

  get pid(): number {
    return this.#child.pid!
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  /** Sends a message; resolves with what it says next. */
  async ask(message: object): Promise<unknown> {
    const answer = once(this.#child, 'message')
    this.#child.send(message)
    const [said] = await answer
    return said
  }

  /** Resolves when it has ended. What does not end on being asked is killed. */
  async end(signal: NodeJS.Signals): Promise<Ended> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopMsMax)
    this.#child.kill(signal)
    const ended = await this.ended
    clearTimeout(timer)
    return ended
  }
}

async function tail(file: string): Promise<string> {
  return (await readFile(file, 'utf8').catch(() => '')).slice(-2000)
}

/** A provider of the network, whichever process it is at the moment. */
export interface ProviderProcess {
  name: string
  peerId: string
  data: string
  pid: number
  logFile: string
  /** To start it again. */
  command: readonly string[]
  /** Where the test itself started it. */
  process?: TestProcess
}

export interface GatewayProcess extends GatewayReady {
  data: string
  process: TestProcess
}

export interface NetworkOptions {
  providers?: number
  /** As `up` takes it: `64MB`. */
  capacity?: string
  code?: string
  /** Audits go so many times as fast as usual. */
  auditPace?: number
  /** As `up` takes them: `2s`, `64MB`. */
  offlineGrace?: string
  repairPatience?: string
  repairRate?: string
  selfHost?: string
}

export interface ProviderOptions {
  name: string
  /** Made in the network's directory unless given. */
  data?: string
  capacity?: string
  bootstrap?: readonly string[]
  /** `HOST:PORT`; any port unless given. */
  listen?: string
  /** A program to run instead of the command line's `provider`; it takes the same arguments. */
  script?: string
}

/** What the index and the directory say of one object. */
export type { ObjectHealth } from '../../src/object/object-store.ts'

/** Talks to one gateway: its admin API, and S3 through Amazon's own client. */
export class GatewayHandle {
  readonly endpoint: string
  readonly admin: string
  readonly credentials: { accessKeyId: string; secretAccessKey: string }
  readonly #clients: S3Client[] = []

  constructor({ endpoint, admin, accessKeyId, secretAccessKey }: Omit<GatewayReady, 'peerId' | 'addresses'>) {
    this.endpoint = endpoint
    this.admin = admin
    this.credentials = { accessKeyId, secretAccessKey }
  }

  /** Without retries, unless asked for: they would hide what is to be seen. */
  s3(config: S3ClientConfig = {}): S3Client {
    const client = new S3Client({
      endpoint: this.endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      maxAttempts: 1,
      credentials: this.credentials,
      ...config
    })
    this.#clients.push(client)
    return client
  }

  closeClients(): void {
    for (const client of this.#clients.splice(0)) client.destroy()
  }

  async get<T>(route: string): Promise<T> {
    const response = await fetch(`${this.admin}${route}`, { signal: AbortSignal.timeout(10_000) })
    if (!response.ok) throw new Error(`${route}: ${response.status} ${await response.text()}`)
    return (await response.json()) as T
  }

  status(): Promise<GatewayStatus> {
    return this.get('/v1/status')
  }

  async providerViews(): Promise<ProviderView[]> {
    return (await this.get<{ providers: ProviderView[] }>('/v1/providers')).providers
  }

  /** Audit requests written down so far. */
  async auditCount(): Promise<number> {
    return (await this.status()).custody.audits
  }

  /** Challenges that wait to be put again. */
  async containedCount(): Promise<number> {
    return (await this.status()).custody.contained
  }

  async providerView(peerId: string): Promise<ProviderView> {
    const found = (await this.providerViews()).find((view) => view.peerId === peerId)
    if (found === undefined) throw new Error(`the gateway does not know ${peerId}`)
    return found
  }

  health(bucket: string, key: string): Promise<ObjectHealth> {
    return this.get(`/v1/objects/${bucket}/${key.split('/').map(encodeURIComponent).join('/')}`)
  }

  /** Until requests can be served. */
  async untilReady(timeoutMs?: number): Promise<void> {
    await waitFor('the gateway is ready', () => this.get('/readyz'), timeoutMs)
  }

  /** Until so many providers are online. */
  async untilOnline(count: number, timeoutMs?: number): Promise<void> {
    await waitFor(
      `${count} providers are online`,
      async () => (await this.status()).providers.online >= count,
      timeoutMs
    )
  }

  /** Until every shard of everything is placed: from then on any `m` providers may go. */
  async untilComplete(timeoutMs?: number): Promise<void> {
    await waitFor(
      'all shards of all segments are placed',
      async () => (await this.get<{ items: unknown[] }>('/v1/repairs')).items.length === 0,
      timeoutMs
    )
  }
}

export class ProcessNetwork {
  readonly directory: string
  readonly gateway: GatewayHandle
  readonly bootstrap: readonly string[]
  readonly providers: ProviderProcess[]
  readonly #up: TestProcess
  /** Everything that was started by hand. */
  readonly #started: TestProcess[] = []
  readonly #handles: GatewayHandle[] = []
  readonly #cleanups: Array<() => Promise<void>> = []

  private constructor(directory: string, up: TestProcess, file: NetworkFile, providers: ProviderProcess[]) {
    this.directory = directory
    this.#up = up
    this.gateway = new GatewayHandle(file)
    this.bootstrap = file.bootstrap
    this.providers = providers
  }

  /** One `holdfast up`, ready for requests, with all its providers online. */
  static async start(options: NetworkOptions = {}): Promise<ProcessNetwork> {
    const { providers = 12, capacity, code, auditPace, offlineGrace, repairPatience, repairRate, selfHost } = options
    const directory = await mkdtemp(path.join(tmpdir(), 'holdfast-net-'))
    const port = await freePort()
    const up = new TestProcess(
      [
        ...[process.execPath, launcher, 'up', '--json', '--data', directory, '--providers', String(providers)],
        ...['--port', String(port), '--admin-port', String(port + 1)],
        ...(capacity === undefined ? [] : ['--capacity', capacity]),
        ...(code === undefined ? [] : ['--code', code]),
        ...(auditPace === undefined ? [] : ['--audit-pace', String(auditPace)]),
        ...(offlineGrace === undefined ? [] : ['--offline-grace', offlineGrace]),
        ...(repairPatience === undefined ? [] : ['--repair-patience', repairPatience]),
        ...(repairRate === undefined ? [] : ['--repair-rate', repairRate]),
        ...(selfHost === undefined ? [] : ['--self-host', selfHost])
      ],
      path.join(directory, 'up.log')
    )
    try {
      up.ended.catch(() => {}) // seen below
      const file = await waitFor(
        `holdfast up is ready in ${directory}`,
        async () => {
          if (up.hasEnded) throw new Error(await tail(up.logFile))
          return await readNetworkFile(directory)
        },
        startMsMax
      )
      const network = new ProcessNetwork(directory, up, file, await Promise.all(file.providers.map(describe)))
      await network.gateway.untilOnline(providers)
      return network
    } catch (error) {
      await up.end('SIGTERM')
      await rm(directory, { recursive: true, force: true })
      throw error
    }
  }

  get upLog(): string {
    return this.#up.logFile
  }

  /** The process of the gateway that `up` keeps, as of now. */
  async gatewayPid(): Promise<number> {
    return Number(await readFile(path.join(this.directory, 'run', 'gateway.pid'), 'utf8'))
  }

  gatewayLog(): Promise<LogLine[]> {
    return readLog(path.join(this.directory, 'logs', 'gateway.log'))
  }

  /** Runs at the end, after all processes are gone. */
  onStop(cleanup: () => Promise<void>): void {
    this.#cleanups.push(cleanup)
  }

  /** `kill -9`; resolves when they are gone. */
  async kill(...victims: ProviderProcess[]): Promise<void> {
    for (const { pid } of victims) process.kill(pid, 'SIGKILL')
    await Promise.all(victims.map(({ pid, name }) => waitFor(`${name} is dead`, () => !isAlive(pid))))
  }

  /** From now on it takes connections, as its kernel does that for it, and answers nothing. */
  freeze(...victims: ProviderProcess[]): void {
    for (const { pid } of victims) process.kill(pid, 'SIGSTOP')
  }

  thaw(...victims: ProviderProcess[]): void {
    for (const { pid } of victims) process.kill(pid, 'SIGCONT')
  }

  isAlive({ pid }: ProviderProcess): boolean {
    return isAlive(pid)
  }

  /** Starts a dead provider again, on its directory and addresses; resolves when it serves. */
  async restart(...providers: ProviderProcess[]): Promise<void> {
    await Promise.all(
      providers.map(async (provider) => {
        const process = this.#spawn(provider.command, provider.logFile)
        await process.ready
        provider.process = process
        provider.pid = process.pid
      })
    )
  }

  /** Makes sure that all providers run and are online. */
  async restore(): Promise<void> {
    await this.restart(...this.providers.filter(({ pid }) => !isAlive(pid)))
    await this.gateway.untilOnline(this.providers.length)
  }

  /** A further provider, started by hand; resolves when it serves, which is before anybody has found it. */
  async startProvider(options: ProviderOptions): Promise<ProviderProcess> {
    const { name, data = path.join(this.directory, 'providers', name), capacity, bootstrap = this.bootstrap } = options
    const program = options.script === undefined ? [launcher, 'provider'] : [options.script]
    const command = [
      ...[process.execPath, ...program, '--data', data, '--domain', `local-${name}`],
      ...(capacity === undefined ? [] : ['--capacity', capacity]),
      ...(options.listen === undefined ? [] : ['--listen', options.listen]),
      ...bootstrap.flatMap((address) => ['--bootstrap', address])
    ]
    const logFile = path.join(this.directory, 'logs', `${name}.log`)
    const child = this.#spawn(command, logFile)
    const { peerId } = providerReadySchema.parse(await child.ready)
    const provider = { name, peerId, data, pid: child.pid, logFile, command, process: child }
    this.providers.push(provider)
    return provider
  }

  /**
   * A gateway of its own on this network, started by hand. Called again with the same name, it is the same gateway.
   *
   * @param options.isReady false: it is not waited for until it can serve, since it never will
   */
  async startGateway(
    name: string,
    port: number,
    { code, isReady = true }: { code?: string; isReady?: boolean } = {}
  ): Promise<{ handle: GatewayHandle; process: TestProcess }> {
    const data = path.join(this.directory, name)
    await mkdir(data, { recursive: true })
    const child = this.#spawn(
      [
        ...[process.execPath, launcher, 'gateway', '--data', data, '--port', String(port)],
        ...this.bootstrap.flatMap((address) => ['--bootstrap', address]),
        ...(code === undefined ? [] : ['--code', code])
      ],
      path.join(this.directory, 'logs', `${name}.log`)
    )
    const handle = new GatewayHandle(gatewayReadySchema.parse(await child.ready))
    this.#handles.push(handle)
    if (isReady) await handle.untilReady()
    return { handle, process: child }
  }

  /** Ends every process of the network, and removes its directory. */
  async stop(): Promise<void> {
    for (const handle of [this.gateway, ...this.#handles]) handle.closeClients()
    for (const provider of this.providers) if (isAlive(provider.pid)) this.thaw(provider)
    await Promise.all(this.#started.map((started) => started.end('SIGTERM')))
    await this.#up.end('SIGTERM')
    for (const cleanup of this.#cleanups.reverse()) await cleanup()
    if (process.env.HOLDFAST_KEEP !== '1') await rm(this.directory, { recursive: true, force: true })
  }

  #spawn(command: readonly string[], logFile: string): TestProcess {
    const child = new TestProcess(command, logFile)
    this.#started.push(child)
    return child
  }
}

async function describe({ peerId, pid, data }: NetworkFile['providers'][number]): Promise<ProviderProcess> {
  const name = path.basename(data)
  const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1)
  return { name, peerId, pid, data, command, logFile: path.join(data, '../../logs', `${name}.log`) }
}

/** Where a provider keeps a block: FORMATS.md. */
export function blockFile({ data }: Pick<ProviderProcess, 'data'>, cid: string): string {
  return path.join(data, 'blocks', cid.slice(-3, -1), cid)
}

export interface LogLine {
  level: string
  scope: string
  message: string
  [field: string]: unknown
}

/** Lines that are not of the log (a warning of the runtime) are left out. */
export async function readLog(file: string): Promise<LogLine[]> {
  return (await readFile(file, 'utf8')).split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as LogLine]
    } catch {
      return []
    }
  })
}
