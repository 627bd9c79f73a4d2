/** A run under churn on real processes, from an empty directory to its report. */
import { forEachLimit } from '../../src/base/concurrency.ts'
import { messageOf } from '../../src/base/errors.ts'
import { minuteMs, secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import type { ObjectHealth } from '../../src/object/object-store.ts'
import { type ChurnCounters, ChurnRecorder, type ChurnReport, type MarginSample } from '../../src/sim/churn/report.ts'
import { type ChurnWorkload, checkWorkload, eventsOf, keyOf, sizesOf } from '../../src/sim/churn/workload.ts'
import { DataSource } from '../data.ts'
import { WrongAnswerError } from '../harness.ts'
import { waitUntil } from '../repair/wait.ts'
import { S3Client } from '../throughput/s3-client.ts'
import { bucket, Clients } from './clients.ts'
import { ChurnDriver, type Lateness } from './driver.ts'
import { hasBlock, lookAtMargins, type Margins } from './margin-look.ts'
import { LiveNetwork } from './network.ts'
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
}

const storesAtOnce = 4
/** Over the workload's lines, with everybody there. */
const storeMsMax = 10 * minuteMs
/** Looks over a run, and the least time between two: a look costs the gateway some of its CPU. */
const looks = 120
const lookEveryMsMin = secondMs
const lookMsMax = minuteMs
/** At the end an object counts as lost when it can't be read for so long. */
const readBackMsMax = minuteMs

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
    const startedAt = systemClock.now()
    const driver = this.#driverOf()
    progress(`${workload.durationMs / secondMs} s of churn`)
    const ending = new AbortController()
    const during = AbortSignal.any([signal, ending.signal])
    const parts = [
      driver.run(startedAt, during),
      this.#clients().run(startedAt, during),
      this.#watch(startedAt, during)
    ]
    // Where one fails there is nothing left to measure: the others end as well.
    for (const part of parts) part.catch((error: unknown) => ending.abort(error))
    await Promise.allSettled(parts)
    signal.throwIfAborted()
    if (!(ending.signal.reason instanceof WrongAnswerError)) network.checkRunning()
    if (ending.signal.aborted) throw ending.signal.reason
    const durationMs = systemClock.now() - startedAt
    const counters = differenceOf(await network.counters(), before)
    progress('everybody comes back, and all is read')
    await driver.bringBack()
    await network.untilOnline()
    const lostObjects = await this.#countLost()
    const storedBytes = this.#sizes.reduce((sum, size) => sum + size, 0)
    const report = this.#recorder.report(durationMs, counters, { lostObjects, storedBytes })
    return { report, lateness: driver.lateness }
  }

  #driverOf(): ChurnDriver {
    const { workload, network, progress } = this.#init
    return new ChurnDriver({
      events: eventsOf(workload),
      isOnAtStart: workload.timeline.isOnAtStart,
      places: network,
      clock: systemClock,
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

  /** @throws where the gateway does not say for long how its objects are */
  async #watch(startedAt: number, signal: AbortSignal): Promise<void> {
    const { durationMs } = this.#init.workload
    const everyMs = Math.min(durationMs, Math.max(lookEveryMsMin, durationMs / looks))
    for (let atMs = everyMs; atMs <= durationMs; atMs += everyMs) {
      const waitMs = startedAt + atMs - systemClock.now()
      // Where a look took longer than that, the next begins at once, and those that have passed are left out.
      if (waitMs < -everyMs) continue
      if (waitMs > 0) await systemClock.sleep(waitMs, signal)
      signal.throwIfAborted()
      const look = async (): Promise<MarginSample> => {
        const lookedAt = systemClock.now() - startedAt
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
      const read = async (): Promise<boolean> => {
        try {
          await s3.get(bucket, keyOf(object), this.#versions.expected(object))
        } catch (error) {
          if (!(error instanceof WrongAnswerError)) throw error
          wrong = error
        }
        return true
      }
      try {
        await waitUntil('it can be read', read, { msMax: readBackMsMax, signal })
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
