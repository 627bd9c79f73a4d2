/** A run under churn on real processes, from an empty directory to its report. */
import { withDeadline } from '../../src/base/clock.ts'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { messageOf } from '../../src/base/errors.ts'
import { minuteMs, secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import type { ObjectHealth } from '../../src/object/object-store.ts'
import { type ChurnCounters, ChurnRecorder, type ChurnReport, type MarginSample } from '../../src/sim/churn/report.ts'
import {
  type ChurnWorkload,
  checkWorkload,
  eventsOf,
  keyOf,
  lookEveryMsOf,
  readBackMsMax,
  sizesOf
} from '../../src/sim/churn/workload.ts'
import { DataSource } from '../data.ts'
import { WrongAnswerError } from '../harness.ts'
import { waitUntil } from '../repair/wait.ts'
import { S3Client } from '../throughput/s3-client.ts'
import { bucket, Clients } from './clients.ts'
import { ChurnDriver, type Lateness } from './driver.ts'
import { hasBlock, lookAtMargins, type Margins } from './margin-look.ts'
import { LiveNetwork } from './network.ts'
import type { ProxyStrain } from './proxy-process.ts'
import { steadyClock } from './steady-clock.ts'
import { Versions } from './versions.ts'

export interface LiveRunInit {
  workload: ChurnWorkload
  directory: string
  progress: (line: string) => void
  signal: AbortSignal
}

export interface LiveRun {
  report: ChurnReport
  lateness: Lateness
  /** Of every start of a provider during the run, to when it served. */
  startUpsMs: readonly number[]
  /** Undefined without lines. */
  proxyStrain: ProxyStrain | undefined
}

const storesAtOnce = 4
/** Over the workload's lines, with everybody there. */
const storeMsMax = 10 * minuteMs
/** Of a look at margins or at counters, until the gateway has answered. */
const lookMsMax = minuteMs

/**
 * @throws HoldfastError `BAD_INPUT` for a workload that can't be run
 * @throws WrongAnswerError when anything was read that was not stored
 */
export async function runLive({ workload, directory, progress, signal }: LiveRunInit): Promise<LiveRun> {
  checkWorkload(workload)
  progress('starting the network')
  const network = await LiveNetwork.start({ directory, workload, signal })
  try {
    const { endpoint, accessKeyId, secretAccessKey } = network.gateway
    const connections = Math.max(storesAtOnce, workload.clients)
    const s3 = new S3Client({ endpoint, accessKeyId, secretAccessKey, connections, signal })
    try {
      return await new Live({ workload, network, s3, progress, signal }).run()
    } finally {
      await s3.close()
    }
  } finally {
    await network.stop()
  }
}

interface LiveInit {
  workload: ChurnWorkload
  network: LiveNetwork
  s3: S3Client
  progress: (line: string) => void
  signal: AbortSignal
}

class Live {
  readonly #init: LiveInit
  readonly #sizes: readonly number[]
  readonly #versions: Versions
  readonly #recorder = new ChurnRecorder()

  constructor(init: LiveInit) {
    this.#init = init
    this.#sizes = sizesOf(init.workload)
    this.#versions = new Versions(new DataSource(init.workload.seed), this.#sizes)
  }

  async run(): Promise<LiveRun> {
    const { workload, network, progress, signal } = this.#init
    await this.#store()
    const before = await network.counters()
    await network.proxyStrain() // what was before is not of the run
    const startsBefore = network.startUpsMs.length
    const startedAt = steadyClock.now()
    const driver = this.#driverOf()
    progress(`${workload.durationMs / secondMs} s of churn`)
    const ending = new AbortController()
    const during = AbortSignal.any([signal, ending.signal])
    const counting = this.#countersAt(startedAt + workload.durationMs, during)
    const parts = [
      driver.run(startedAt, during),
      this.#clients().run(startedAt, during),
      this.#watch(startedAt, during),
      counting
    ]
    // Where one fails there is nothing left to measure: the others end as well.
    for (const part of parts) part.catch((error: unknown) => ending.abort(error))
    await Promise.allSettled(parts)
    signal.throwIfAborted()
    if (!(ending.signal.reason instanceof WrongAnswerError)) network.checkRunning()
    if (ending.signal.aborted) throw ending.signal.reason
    const counters = differenceOf(await counting, before)
    const proxyStrain = await network.proxyStrain()
    const startUpsMs = network.startUpsMs.slice(startsBefore)
    progress('everybody comes back, and all is read')
    await driver.bringBack()
    await network.untilOnline()
    const lostObjects = await this.#countLost()
    const storedBytes = this.#sizes.reduce((sum, size) => sum + size, 0)
    const report = this.#recorder.report(workload.durationMs, counters, { lostObjects, storedBytes })
    return { report, lateness: driver.lateness, startUpsMs, proxyStrain }
  }

  #driverOf(): ChurnDriver {
    const { workload, network, progress } = this.#init
    return new ChurnDriver({
      events: eventsOf(workload),
      isOnAtStart: workload.timeline.isOnAtStart,
      places: network,
      clock: steadyClock,
      onEvent: ({ kind, provider, atMs }, lateMs) => {
        this.#recorder.happened(kind)
        const late = lateMs >= secondMs ? `, ${(lateMs / secondMs).toFixed(1)} s late` : ''
        progress(`${(atMs / secondMs).toFixed(1)} s: provider ${provider} ${kind}${late}`)
      }
    })
  }

  #clients(): Clients {
    const { workload, s3 } = this.#init
    return new Clients({ workload, versions: this.#versions, s3, recorder: this.#recorder })
  }

  /** Everything, with every shard in its place. */
  async #store(): Promise<void> {
    const { s3, progress, signal } = this.#init
    progress(`storing ${this.#sizes.length} objects`)
    await s3.createBucket(bucket)
    await forEachLimit([...this.#sizes.keys()], storesAtOnce, async (object) => {
      const { version, data } = this.#versions.begin(object)
      const put = async (): Promise<boolean> => {
        await s3.put(bucket, keyOf(object), data)
        return true
      }
      // A busy machine makes the gateway avoid providers for a while that were late.
      await waitUntil(`${keyOf(object)} is stored`, put, { msMax: storeMsMax, signal })
      this.#versions.stored(object, version)
    })
    const isFull = async (): Promise<boolean> => (await this.#look()).fullShare === 1
    await waitUntil('every shard is in its place', isFull, { msMax: storeMsMax, signal })
  }

  async #look(): Promise<Margins> {
    const { network } = this.#init
    return await lookAtMargins({
      keys: [...this.#sizes.keys()].map(keyOf),
      healthOf: (key) => network.admin.get<ObjectHealth>(`/v1/objects/${bucket}/${key}`),
      isThere: (peerId, cid) => hasBlock(network.dataOf(peerId), cid)
    })
  }

  /** At the end of the run's time, whoever still waits for an answer: as the simulator counts. */
  async #countersAt(endsAt: number, signal: AbortSignal): Promise<ChurnCounters> {
    await steadyClock.sleep(Math.max(0, endsAt - steadyClock.now()), signal)
    const count = (): Promise<ChurnCounters> => this.#init.network.counters()
    return await waitUntil('the gateway says what it has counted', count, { msMax: lookMsMax, signal })
  }

  /** @throws where the gateway does not say for long how its objects are */
  async #watch(startedAt: number, signal: AbortSignal): Promise<void> {
    const { durationMs } = this.#init.workload
    const everyMs = lookEveryMsOf(this.#init.workload)
    for (let atMs = everyMs; atMs <= durationMs; atMs += everyMs) {
      const waitMs = startedAt + atMs - steadyClock.now()
      // Where a look took longer than that, the next begins at once, and those that have passed are left out.
      if (waitMs < -everyMs) continue
      if (waitMs > 0) await systemClock.sleep(waitMs, signal)
      signal.throwIfAborted()
      const look = async (): Promise<MarginSample> => {
        const lookedAt = steadyClock.now() - startedAt
        return { atMs: lookedAt, ...(await this.#look()) }
      }
      this.#recorder.margin(await waitUntil('the gateway says how all is', look, { msMax: lookMsMax, signal }))
    }
  }

  /** @throws WrongAnswerError when one is read that is not what was stored */
  async #countLost(): Promise<number> {
    const { s3, progress, signal } = this.#init
    let lost = 0
    await forEachLimit([...this.#sizes.keys()], storesAtOnce, async (object) => {
      let wrong: WrongAnswerError | undefined
      const read = async (inner: AbortSignal): Promise<boolean> => {
        try {
          await s3.get(bucket, keyOf(object), this.#versions.expected(object), { signal: inner })
        } catch (error) {
          if (!(error instanceof WrongAnswerError)) throw error
          wrong = error
        }
        return true
      }
      try {
        await withDeadline(systemClock, readBackMsMax, signal, (inner) =>
          waitUntil('it can be read', () => read(inner), { msMax: readBackMsMax, signal: inner })
        )
      } catch (error) {
        signal.throwIfAborted()
        lost++
        progress(`${keyOf(object)} is lost: ${messageOf(error)}`)
      }
      if (wrong !== undefined) throw wrong
    })
    return lost
  }
}

function differenceOf(after: ChurnCounters, before: ChurnCounters): ChurnCounters {
  const names = Object.keys(after) as Array<keyof ChurnCounters>
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as Record<
    keyof ChurnCounters,
    number
  >
}
