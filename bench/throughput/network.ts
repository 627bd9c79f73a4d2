/** A real network for a benchmark: `holdfast up`, with each node a process of its own. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { GatewayStatus } from '../../src/admin/backend.ts'
import { withDeadline } from '../../src/base/clock.ts'
import { messageOf } from '../../src/base/errors.ts'
import { secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import { createAdminClient } from '../../src/cli/admin-client.ts'
import { type NetworkFile, readNetworkFile } from '../../src/cli/network-file.ts'
import { ownCpuSeconds } from '../harness.ts'
import { cpuSecondsOf, type ResidentBytes, residentBytesOf } from './processes.ts'

const launcher = fileURLToPath(new URL('../../src/cli/holdfast.js', import.meta.url))
const startMsMax = 180 * secondMs
const settleMsMax = 300 * secondMs
const settlePollMs = 50
const stopGraceMs = 30 * secondMs
/** Between two samples of the event loop: prom-client's default. */
const loopSampleMs = 10
const stderrBytesKept = 8192

export interface NetworkInit {
  directory: string
  providers: number
  code?: string
  /** Node executable; absent: this one. */
  runtime?: string
  signal: AbortSignal
}

/** CPU-seconds since the processes started. */
export interface CpuUse {
  gateway: number
  providers: number
  client: number
}

export const runtimeVersionOf = (runtime = process.execPath): string =>
  execFileSync(runtime, ['--version'], { encoding: 'utf8' }).trim().replace(/^v/, '')

export class BenchNetwork {
  readonly file: NetworkFile
  readonly #up: ChildProcess
  readonly #gatewayPid: number
  readonly #signal: AbortSignal

  private constructor(up: ChildProcess, file: NetworkFile, gatewayPid: number, signal: AbortSignal) {
    this.#up = up
    this.file = file
    this.#gatewayPid = gatewayPid
    this.#signal = signal
  }

  /** Resolves when every node is ready. @throws with the end of what it said when it does not come up */
  static async start({
    directory,
    providers,
    code,
    runtime = process.execPath,
    signal
  }: NetworkInit): Promise<BenchNetwork> {
    if (process.platform !== 'linux') throw new Error('benchmarks of a network read /proc, so they need Linux')
    const args = ['up', '--providers', String(providers), '--port', '0', '--data', directory, '--json']
    const up = spawn(runtime, [launcher, ...args, ...(code === undefined ? [] : ['--code', code])], {
      // By the channel it sees when this process is killed, and ends the network.
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: environment()
    })
    let said = ''
    up.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-stderrBytesKept)
    })
    try {
      await withDeadline(systemClock, startMsMax, signal, async (inner) => {
        const ended = once(up, 'exit', { signal: inner }).then(() => {
          throw new Error('it ended')
        })
        // It says what runs, once, when everything does.
        await Promise.race([once(up.stdout!, 'data', { signal: inner }), ended])
      })
      up.stdout!.resume()
      const file = await readNetworkFile(directory)
      const gatewayPid = Number(await readFile(join(directory, 'run', 'gateway.pid'), 'utf8'))
      return new BenchNetwork(up, file, gatewayPid, signal)
    } catch (cause) {
      await stop(up)
      throw new Error(`the network did not come up: ${messageOf(cause)}; it said:\n${said}`, { cause })
    }
  }

  async cpu(): Promise<CpuUse> {
    const providers = await Promise.all(this.file.providers.map(({ pid }) => cpuSecondsOf(pid)))
    return {
      gateway: await cpuSecondsOf(this.#gatewayPid),
      providers: providers.reduce((sum, one) => sum + one, 0),
      client: ownCpuSeconds()
    }
  }

  async gatewayMemory(): Promise<ResidentBytes> {
    return await residentBytesOf(this.#gatewayPid)
  }

  /**
   * 99th percentile of how late the gateway's event loop was since this was last asked, milliseconds. Node samples it every
   * 10 ms and counts those in.
   */
  async gatewayLoopDelayMs(): Promise<number> {
    const response = await fetch(`${this.file.admin}/metrics`, { signal: this.#signal })
    const found = /^nodejs_eventloop_lag_p99_seconds (\S+)$/m.exec(await response.text())
    if (found === null) throw new Error('the gateway does not say how late its event loop is')
    return Math.max(0, Number(found[1]) * 1000 - loopSampleMs)
  }

  /** The highest peak among the providers. */
  async providerPeakBytes(): Promise<number> {
    const memory = await Promise.all(this.file.providers.map(({ pid }) => residentBytesOf(pid)))
    return Math.max(...memory.map(({ peak }) => peak))
  }

  /** `K+M` that a new STANDARD object gets. @throws when the providers known are too few for any */
  async code(): Promise<string> {
    const { STANDARD: code } = (await this.#status()).codes
    if (code === undefined || code === null) throw new Error('the network has too few providers for a code')
    return code
  }

  /** Resolves when every segment has all its shards: a PUT is acknowledged before, at its quorum. */
  async settled(): Promise<void> {
    const deadline = systemClock.now() + settleMsMax
    for (;;) {
      const { incompleteSegments } = await this.#status()
      if (incompleteSegments === 0) return
      if (systemClock.now() > deadline) {
        throw new Error(`${incompleteSegments} segments still lack shards after ${settleMsMax / secondMs} s`)
      }
      await systemClock.sleep(settlePollMs, this.#signal)
    }
  }

  async stop(): Promise<void> {
    await stop(this.#up)
  }

  async #status(): Promise<GatewayStatus> {
    return await createAdminClient(this.file.admin, this.#signal).request<GatewayStatus>('GET', '/v1/status')
  }
}

/** Whatever the caller has set for its own network is not for this one. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('HOLDFAST_') && name !== 'NODE_OPTIONS')
  )
}

async function stop(up: ChildProcess): Promise<void> {
  if (up.pid === undefined || up.exitCode !== null || up.signalCode !== null) return
  const ended = once(up, 'exit')
  up.kill('SIGTERM')
  const waiting = new AbortController()
  const late = systemClock.sleep(stopGraceMs, waiting.signal).then(
    () => up.kill('SIGKILL'), // its processes see that, and end
    () => {} // it ended in time
  )
  await ended
  waiting.abort()
  await late
}
