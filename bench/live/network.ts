/**
 * A network of real processes that a trace is carried out on: providers in places that somebody comes to and goes from, each
 * behind a line of its own where the workload has lines. A provider announces the proxy's ports, and comes back at the same.
 *
 * What a provider itself dials (the gateway, to join) is next door: only those who dial a provider come over its line.
 */
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { withDeadline } from '../../src/base/clock.ts'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { minuteMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import { repairArguments } from '../../src/cli/repair-options.ts'
import { type GatewayReady, gatewayReadySchema, providerReadySchema } from '../../src/cli/up/messages.ts'
import { formatCode } from '../../src/erasure/erasure-coder.ts'
import type { ChurnCounters } from '../../src/sim/churn/report.ts'
import { type ChurnWorkload, domainOf, linesOf, type ProviderLine } from '../../src/sim/churn/workload.ts'
import { GatewayAdmin, metricIn } from '../gateway-admin.ts'
import { PortPairs } from '../ports.ts'
import { NodeProcess } from '../repair/node-process.ts'
import { waitUntil } from '../repair/wait.ts'
import type { Places } from './driver.ts'
import { ProxyProcess, type ProxyStrain } from './proxy-process.ts'

export interface LiveNetworkInit {
  directory: string
  workload: ChurnWorkload
  signal: AbortSignal
}

const startsAtOnce = 4
const onlineMsMax = 2 * minuteMs
/** Of a process, to when it serves. */
const readyMsMax = 2 * minuteMs
/** Providers that one joins through, beside the gateway. */
const bootstrapCount = 2
const capacity = '20GB'
/** What an emptied disk keeps: who its owner is. */
const identityFile = 'identity.key'

/** Somebody in a place, running or not. */
interface Occupant {
  name: string
  data: string
  /** Of the control plane; the data plane has the next. */
  port: number
  /** What it announces instead, where there is a line. */
  announcedPort: number | undefined
  /** Known once it has run. */
  peerId: string | undefined
  addresses: string[]
  process: NodeProcess | undefined
  isUp: boolean
}

interface Place {
  number: number
  domain: string
  line: ProviderLine | undefined
  occupant: Occupant | undefined
}

export class LiveNetwork implements Places {
  readonly admin: GatewayAdmin
  readonly #init: LiveNetworkInit
  readonly #places: Place[]
  readonly #ports = new PortPairs()
  readonly #proxy: ProxyProcess | undefined
  #gateway: { process: NodeProcess; ready?: GatewayReady } | undefined
  #made = 0
  readonly #startUpsMs: number[] = []

  private constructor(init: LiveNetworkInit) {
    this.#init = init
    const { workload } = init
    const lines = linesOf(workload)
    this.#places = lines.map((line, number) => ({
      number,
      domain: domainOf(workload, number),
      line,
      occupant: undefined
    }))
    this.#proxy = workload.hasLines ? new ProxyProcess() : undefined
    this.admin = new GatewayAdmin(() => this.gateway.admin, init.signal)
  }

  /** Resolves when everybody who is there at the beginning is online to the gateway. */
  static async start(init: LiveNetworkInit): Promise<LiveNetwork> {
    await mkdir(join(init.directory, 'logs'), { recursive: true })
    const network = new LiveNetwork(init)
    try {
      await network.#startGateway()
      const { isOnAtStart } = init.workload.timeline
      const there = network.#places.filter(({ number }) => isOnAtStart[number] === 1)
      await forEachLimit(there, startsAtOnce, ({ number }) => network.start(number))
      await network.untilOnline()
      return network
    } catch (error) {
      await network.stop()
      throw error
    }
  }

  get gateway(): GatewayReady {
    const ready = this.#gateway?.ready
    if (ready === undefined) throw new Error('the gateway does not serve yet')
    return ready
  }

  /** Of every provider that was started, from that to when it served. */
  get startUpsMs(): readonly number[] {
    return this.#startUpsMs
  }

  /** @throws Error when it does not serve in two minutes, the signal's reason */
  async start(place: number): Promise<void> {
    this.#init.signal.throwIfAborted()
    const at = this.#places[place]!
    at.occupant ??= await this.#newcomer(at)
    const { occupant } = at
    const { data, port, announcedPort, name } = occupant
    const startedAt = performance.now()
    occupant.process = new NodeProcess(
      [
        ...['provider', '--data', data, '--capacity', capacity, '--domain', at.domain],
        ...['--listen', `127.0.0.1:${port}`],
        ...(announcedPort === undefined ? [] : ['--announce', `127.0.0.1:${announcedPort}`]),
        ...this.#bootstrap()
      ],
      this.#logFile(name)
    )
    const { peerId, addresses } = providerReadySchema.parse(await this.#readyOf(occupant.process))
    this.#startUpsMs.push(performance.now() - startedAt)
    if (occupant.peerId !== undefined && occupant.peerId !== peerId) throw new Error(`${name} came back as another`)
    Object.assign(occupant, { peerId, addresses, isUp: true })
  }

  /** @throws when it had ended by itself: what was measured is then something else than the trace */
  async kill(place: number): Promise<void> {
    const { occupant } = this.#places[place]!
    if (occupant === undefined) return
    if (occupant.isUp && occupant.process?.hasEnded === true) throw new Error(`${occupant.name} ended by itself`)
    occupant.isUp = false
    await occupant.process?.kill()
  }

  async remove(place: number): Promise<void> {
    const at = this.#places[place]!
    const { occupant } = at
    if (occupant === undefined) return
    at.occupant = undefined
    if (occupant.announcedPort !== undefined) await this.#proxy!.close(occupant.name)
    await rm(occupant.data, { recursive: true, force: true })
  }

  async empty(place: number): Promise<void> {
    const { occupant } = this.#places[place]!
    if (occupant === undefined) return
    const files = (await readdir(occupant.data)).filter((file) => file !== identityFile)
    await Promise.all(files.map((file) => rm(join(occupant.data, file), { recursive: true, force: true })))
  }

  async join(place: number): Promise<void> {
    await this.start(place)
  }

  /** Where the data of a provider is that is there now. */
  dataOf(peerId: string): string | undefined {
    return this.#places.find(({ occupant }) => occupant?.isUp === true && occupant.peerId === peerId)?.occupant?.data
  }

  /** @throws naming processes that have ended though the trace did not say so: what was measured is then something else */
  checkRunning(): void {
    const ended = this.#places.flatMap(({ occupant }) =>
      occupant?.isUp === true && occupant.process?.hasEnded === true ? [occupant.name] : []
    )
    if (this.#gateway?.process.hasEnded === true) ended.push('gateway')
    if (this.#proxy?.hasEnded === true) ended.push('proxy')
    if (ended.length > 0) throw new Error(`ended by themselves: ${ended.join(', ')}`)
  }

  /** Until every provider that runs is online to the gateway. */
  async untilOnline(): Promise<void> {
    const up = this.#places.flatMap(({ occupant }) => (occupant?.isUp === true ? [occupant] : []))
    const probe = async (): Promise<boolean> => {
      await this.admin.get('/readyz')
      const views = await this.admin.providerViews()
      const online = new Set(views.filter(({ state }) => state === 'online').map(({ peerId }) => peerId))
      const absent = up.filter(({ peerId }) => !online.has(peerId!))
      if (absent.length > 0) throw new Error(`${absent.map(({ name }) => name).join(', ')} are not`)
      return true
    }
    await waitUntil('all providers are online', probe, { msMax: onlineMsMax, signal: this.#init.signal })
  }

  /** Since the gateway began. */
  async counters(): Promise<ChurnCounters> {
    const [text, totals] = await Promise.all([this.admin.metrics(), this.admin.repairTotals()])
    return {
      segmentsStraight: metricIn(text, 'holdfast_segment_reads_total', 'how="straight"'),
      segmentsDecoded: metricIn(text, 'holdfast_segment_reads_total', 'how="decoded"'),
      fetchedBytes: metricIn(text, 'holdfast_segment_read_requested_bytes_total'),
      wastedBytes: metricIn(text, 'holdfast_segment_read_wasted_bytes_total'),
      repairReadBytes: metricIn(text, 'holdfast_repair_read_bytes_total'),
      repairWrittenBytes: metricIn(text, 'holdfast_repair_written_bytes_total'),
      repairTheoryBytes: totals.bytesTheory,
      shardsRebuilt: totals.shardsRebuilt
    }
  }

  /** Of the proxy since it was last asked; undefined without lines. */
  async proxyStrain(): Promise<ProxyStrain | undefined> {
    return await this.#proxy?.strain()
  }

  /** All at once, and all of them whatever one does. @throws what the first threw that could not be ended */
  async stop(): Promise<void> {
    const processes = [this.#gateway?.process, ...this.#places.map(({ occupant }) => occupant?.process)]
    const stopped = await Promise.allSettled(processes.map((process) => process?.stop()))
    await this.#proxy?.stop()
    for (const outcome of stopped) if (outcome.status === 'rejected') throw outcome.reason
  }

  async #readyOf(process: NodeProcess): Promise<unknown> {
    return await withDeadline(systemClock, readyMsMax, this.#init.signal, () => process.ready)
  }

  async #startGateway(): Promise<void> {
    const { directory, workload } = this.#init
    const { code, timeline, offlineGraceMs, repairPatienceMs } = workload
    const there = timeline.isOnAtStart.reduce((sum, isOn) => sum + isOn, 0)
    const child = new NodeProcess(
      [
        ...['gateway', '--data', join(directory, 'gateway'), '--port', String(await this.#ports.next())],
        ...['--code', formatCode(code), '--expect-providers', String(there)],
        ...repairArguments({ offlineGraceMs, repairPatienceMs })
      ],
      this.#logFile('gateway')
    )
    this.#gateway = { process: child }
    this.#gateway.ready = gatewayReadySchema.parse(await this.#readyOf(child))
  }

  async #newcomer({ line, number }: Place): Promise<Occupant> {
    const name = `p${String(number).padStart(2, '0')}-${++this.#made}`
    const port = await this.#ports.next()
    const announcedPort = line === undefined ? undefined : await this.#forward(name, port, line)
    const data = join(this.#init.directory, name)
    return { name, data, port, announcedPort, peerId: undefined, addresses: [], process: undefined, isUp: false }
  }

  /** @returns the first of two ports by which these two are reached over the line */
  async #forward(name: string, port: number, line: ProviderLine): Promise<number> {
    const listen = await this.#ports.next()
    const forwards = [0, 1].map((plane) => ({ listen: listen + plane, target: port + plane }))
    await this.#proxy!.open(name, { line, forwards })
    return listen
  }

  #bootstrap(): string[] {
    const up = this.#places.flatMap(({ occupant }) => (occupant?.isUp === true ? [occupant.addresses[0]!] : []))
    return [this.gateway.addresses[0]!, ...up.slice(-bootstrapCount)].flatMap((address) => ['--bootstrap', address])
  }

  #logFile(name: string): string {
    return join(this.#init.directory, 'logs', `${name}.log`)
  }
}
