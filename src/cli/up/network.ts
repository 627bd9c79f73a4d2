/**
 * A whole network on one machine: providers and a gateway, each a process of its own, watched from here.
 *
 * A provider that dies stays dead until the next start, since that is what people kill them for; the gateway, without which
 * nothing can be reached, is started again, so often and no more.
 */
import path from 'node:path'
import type { ProviderView } from '../../admin/backend.ts'
import { forEachLimit } from '../../base/concurrency.ts'
import { HoldfastError, messageOf } from '../../base/errors.ts'
import { minuteMs, secondMs } from '../../base/limits.ts'
import { systemClock } from '../../base/system.ts'
import { createAdminClient } from '../admin-client.ts'
import type { NetworkFile } from '../network-file.ts'
import { repairArguments } from '../repair-options.ts'
import { Child, type ChildHost, describeEnd } from './child.ts'
import { type GatewayReady, gatewayReadySchema, type ProviderReady, providerReadySchema } from './messages.ts'
import type { PlannedProvider } from './plan.ts'

export interface LocalNetworkInit {
  host: ChildHost
  providers: readonly PlannedProvider[]
  /** Multiaddrs of the providers that all others join through. */
  bootstrap: readonly string[]
  port: number
  adminPort: number
  code?: string
  /** Of the gateway's audits. */
  auditPace?: number
  /** Of the gateway's repairs. */
  offlineGraceMs?: number
  repairPatienceMs?: number
  repairBytesPerSecond?: number
  selfHostBytes?: number
  /** A line about what happened, for people. */
  note: (line: string) => void
}

/** Processes being started at once: more of them only make each other wait for the processors. */
const startsAtOnce = 4
/** How long all providers may take to be known to the gateway before the network is taken as it is. */
const allKnownMsMax = 40 * secondMs
const readyMsMax = 2 * minuteMs
const pollMs = 150
/** Longer than a gateway waits for its requests. */
const gatewayStopGraceMs = 10 * secondMs
const providerStopGraceMs = 5 * secondMs
const gatewayRestartsMax = 5
const gatewayRestartWindowMs = minuteMs
const gatewayFirstPauseMs = 500

/**
 * The bytes that pass through are outside the JavaScript heap, and go when it is collected: with the room that V8 gives itself
 * by default, 60 to 80 MB of them wait for that.
 */
const gatewayHeap = ['--heap-growing-percent=40']

/** On a machine that they all share, the one that everybody waits for comes first. */
const providerNiceness = 5

export class LocalNetwork {
  readonly #init: LocalNetworkInit
  readonly #providers = new Map<string, { child: Child; ready?: ProviderReady }>()
  #gateway: { child: Child; ready: GatewayReady } | undefined
  #startingGateway: Child | undefined
  readonly #stopping = new AbortController()
  #watching: Promise<void> | undefined

  constructor(init: LocalNetworkInit) {
    this.#init = init
  }

  providerDirectory(name: string): string {
    return path.join(this.#init.host.directory, 'providers', name)
  }

  get #gatewayDirectory(): string {
    return path.join(this.#init.host.directory, 'gateway')
  }

  /**
   * Resolves when S3 requests can be served, and every provider is known or has had its time.
   *
   * @throws HoldfastError when a process ends early, `TOO_FEW_PROVIDERS` when too few come up
   */
  async start(signal: AbortSignal): Promise<NetworkFile> {
    const starts = [...this.#init.providers.map((plan) => () => this.#startProvider(plan, signal))]
    // After those that the rest joins through, so that it is ready when they are.
    starts.splice(Math.min(3, starts.length), 0, () =>
      this.#startGateway({ port: this.#init.port, adminPort: this.#init.adminPort }, signal)
    )
    await forEachLimit(starts, startsAtOnce, (start) => start())
    await this.#untilReady(signal)
    this.#watching = this.#watchGateway()
    return this.describe()
  }

  /** `network.json` as things stand. */
  describe(): NetworkFile {
    const { ready } = this.#gateway!
    return {
      endpoint: ready.endpoint,
      accessKeyId: ready.accessKeyId,
      secretAccessKey: ready.secretAccessKey,
      admin: ready.admin,
      // Of all of them: whoever joins later must not depend on the few that this network was started through.
      bootstrap: [...this.#providers.values()].flatMap(({ ready: provider }) => provider?.addresses ?? []),
      providers: [...this.#providers].map(([name, { child, ready: provider }]) => ({
        peerId: provider?.peerId ?? '',
        pid: child.pid,
        data: this.providerDirectory(name)
      }))
    }
  }

  /** Ends all processes: the gateway first, so that what it is doing does not see its providers go. */
  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the network is being stopped'))
    await Promise.all([this.#gateway?.child.stop(gatewayStopGraceMs), this.#startingGateway?.stop(gatewayStopGraceMs)])
    await Promise.all([...this.#providers.values()].map(({ child }) => child.stop(providerStopGraceMs)))
    await this.#watching
  }

  async #startProvider(plan: PlannedProvider, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { bootstrap, host, note } = this.#init
    const child = new Child(
      {
        name: plan.name,
        args: providerArgs(plan, this.providerDirectory(plan.name), bootstrap),
        niceness: providerNiceness
      },
      host
    )
    const entry: { child: Child; ready?: ProviderReady } = { child }
    this.#providers.set(plan.name, entry)
    void child.ended.then((ended) => {
      if (child.isStopping || this.#stopping.signal.aborted) return
      note(
        `provider ${plan.name} (pid ${child.pid}) ${describeEnd(ended)}; it stays down until the next "holdfast up". Its log: ${child.logFile}`
      )
    })
    entry.ready = providerReadySchema.parse(await abortable(child.ready, signal))
  }

  async #startGateway(ports: { port: number; adminPort: number }, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const child = new Child(
      { name: 'gateway', args: this.#gatewayArgs(ports), runtimeOptions: gatewayHeap },
      this.#init.host
    )
    this.#startingGateway = child
    const ready = gatewayReadySchema.parse(await abortable(child.ready, signal))
    this.#gateway = { child, ready }
    this.#startingGateway = undefined
  }

  #gatewayArgs({ port, adminPort }: { port: number; adminPort: number }): string[] {
    const { bootstrap, code, auditPace } = this.#init
    return [
      'gateway',
      ...['--data', this.#gatewayDirectory],
      ...['--port', String(port)],
      ...['--admin', `127.0.0.1:${adminPort}`],
      ...bootstrap.flatMap((address) => ['--bootstrap', address]),
      ...(code === undefined ? [] : ['--code', code]),
      ...(auditPace === undefined ? [] : ['--audit-pace', String(auditPace)]),
      ...repairArguments(this.#init),
      ...['--expect-providers', String(this.#init.providers.length)]
    ]
  }

  /** Ready for requests, and (for a while) waiting for the last provider. */
  async #untilReady(signal: AbortSignal): Promise<void> {
    const { child, ready } = this.#gateway!
    const admin = createAdminClient(ready.admin, signal)
    const expected = new Set([...this.#providers.values()].map((entry) => entry.ready!.peerId))
    const startedAt = systemClock.now()
    for (;;) {
      if (child.hasEnded)
        throw new HoldfastError('INTERNAL', `the gateway ended while the network started; ${child.logFile} says why`)
      let reason: string | undefined
      try {
        await admin.request('GET', '/readyz')
        const { providers } = await admin.request<{ providers: ProviderView[] }>('GET', '/v1/providers')
        const online = providers.filter(({ peerId, state }) => state === 'online' && expected.has(peerId)).length
        if (online === expected.size) return
        if (systemClock.now() - startedAt > allKnownMsMax) {
          this.#init.note(`the gateway has found ${online} of ${expected.size} providers so far`)
          return
        }
      } catch (error) {
        signal.throwIfAborted()
        reason = messageOf(error) // not ready yet: that is what is being waited for
      }
      if (systemClock.now() - startedAt > readyMsMax) {
        throw new HoldfastError(
          'TOO_FEW_PROVIDERS',
          `the network is not ready after ${readyMsMax / secondMs} s: ${reason ?? 'no reason given'}`
        )
      }
      await systemClock.sleep(pollMs, signal)
    }
  }

  async #watchGateway(): Promise<void> {
    const { note } = this.#init
    const { signal } = this.#stopping
    const stopped = new Promise<undefined>((resolve) =>
      signal.addEventListener('abort', () => resolve(undefined), { once: true })
    )
    let restarts: number[] = []
    while (!signal.aborted) {
      const current = this.#gateway!
      const ended = await Promise.race([current.child.ended, stopped])
      if (ended === undefined || signal.aborted) return
      const now = systemClock.now()
      restarts = restarts.filter((at) => now - at < gatewayRestartWindowMs)
      const port = Number(new URL(current.ready.endpoint).port)
      const adminPort = Number(new URL(current.ready.admin).port)
      const what = `the gateway (pid ${current.child.pid}) ${describeEnd(ended)}`
      if (restarts.length >= gatewayRestartsMax) {
        note(`${what}, too often to start it again; its log: ${current.child.logFile}`)
        note(`to start it by hand: holdfast ${this.#gatewayArgs({ port, adminPort }).join(' ')}`)
        return
      }
      note(`${what}; starting it again`)
      const pauseMs = gatewayFirstPauseMs * 2 ** restarts.length
      restarts.push(now)
      try {
        await systemClock.sleep(pauseMs, signal)
        await this.#startGateway({ port, adminPort }, signal)
        note('the gateway is back')
      } catch (error) {
        if (signal.aborted) return
        note(`the gateway did not come back: ${messageOf(error)}`)
      }
    }
  }
}

function providerArgs(plan: PlannedProvider, directory: string, bootstrap: readonly string[]): string[] {
  return [
    'provider',
    ...['--data', directory],
    ...['--capacity', String(plan.capacityBytes)],
    ...['--listen', `127.0.0.1:${plan.port}`],
    ...['--domain', plan.domain],
    ...bootstrap.flatMap((address) => ['--bootstrap', address])
  ]
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  let onAbort = (): void => {}
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
