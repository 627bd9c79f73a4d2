/** What goes on beside a repair: somebody who looks at every margin all the time, and somebody who reads. */
import { messageOf } from '../../src/base/errors.ts'
import { secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { WrongAnswerError } from '../harness.ts'
import type { S3Client } from '../throughput/s3-client.ts'
import { lacking, leastMargin, type Snapshot } from './margins.ts'
import type { RepairNetwork } from './network.ts'
import { bucket, type ObjectSet } from './objects.ts'
import { waitUntil } from './wait.ts'

/** Looking at a thousand segments costs the gateway CPU: it gets so many times as long to itself. */
const restShare = 2
const restMsMin = 100

interface Look {
  startedAt: number
  endedAt: number
  snapshot: Snapshot
}

export class MarginWatch {
  /** The least margin seen of any segment since this was last reset. Shards of providers that are gone do not count. */
  leastMargin = Number.POSITIVE_INFINITY
  /** Providers that serve nothing any more. */
  readonly gone = new Set<string>()
  /** Those that serve, and where nothing may be left all the same. */
  readonly leaving = new Set<string>()
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>
  /** Why the last look came to nothing: the gateway may be away. */
  #failure: string | undefined
  #last: Look | undefined

  constructor(network: RepairNetwork, objects: ObjectSet) {
    const { signal } = this.#stopping
    this.#running = (async () => {
      while (!signal.aborted) {
        const startedAt = systemClock.now()
        // As of the beginning: what is said now of one that goes meanwhile is no longer true at the end.
        const gone = new Set(this.gone)
        try {
          const snapshot = await objects.look(network)
          const endedAt = systemClock.now()
          this.#failure = undefined
          this.#last = { startedAt, endedAt, snapshot }
          this.leastMargin = Math.min(this.leastMargin, leastMargin(snapshot, gone))
        } catch (error) {
          this.#failure = messageOf(error) // shown by whoever waits in vain
        }
        const restMs = Math.max(restMsMin, restShare * (systemClock.now() - startedAt))
        await systemClock.sleep(restMs, signal).catch(() => {}) // it stops
      }
    })()
  }

  /**
   * Resolves with the first look, begun from now on, that finds every shard healthy and none at who is gone, and when
   * it ended.
   */
  async untilFull(msMax: number, signal: AbortSignal): Promise<Look> {
    const since = systemClock.now()
    const probe = async (): Promise<Look | undefined> => {
      const last = this.#last
      if (last === undefined || last.startedAt < since) {
        if (this.#failure !== undefined) throw new Error(this.#failure)
        return undefined
      }
      const lacks = lacking(last.snapshot, this.gone.union(this.leaving))
      if (lacks.length === 0) return last
      const states = Map.groupBy(lacks, ({ state }) => state)
      throw new Error([...states].map(([state, of]) => `${of.length} ${state}`).join(', '))
    }
    return await waitUntil('every margin is full', probe, { msMax, signal })
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('enough seen'))
    await this.#running
  }
}

export interface Reads {
  count: number
  bytes: number
  /** Reads that failed, by what was said. */
  failures: Map<string, number>
}

/** Reads one object after another, each checked byte for byte, with a rest that leaves the machine to the repair. */
export class Reader {
  readonly reads: Reads = { count: 0, bytes: 0, failures: new Map() }
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>
  #wrong: WrongAnswerError | undefined

  constructor(
    client: S3Client,
    objects: ObjectSet,
    { seed, restMs = secondMs / 10 }: { seed: number; restMs?: number }
  ) {
    const { signal } = this.#stopping
    const random = seededRandom(`repair reader ${seed}`)
    this.#running = (async () => {
      while (!signal.aborted) {
        const { key, data } = random.pick(objects.stored)
        try {
          await client.get(bucket, key, data)
          this.reads.bytes += data.size
        } catch (error) {
          if (error instanceof WrongAnswerError) this.#wrong = error
          const said = messageOf(error).replaceAll(key, 'KEY').slice(0, 200)
          this.reads.failures.set(said, (this.reads.failures.get(said) ?? 0) + 1)
        }
        this.reads.count++
        await systemClock.sleep(restMs, signal).catch(() => {}) // it stops
      }
    })()
  }

  get failed(): number {
    return [...this.reads.failures.values()].reduce((sum, count) => sum + count, 0)
  }

  /** @throws WrongAnswerError when a read gave other bytes than were stored */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('enough read'))
    await this.#running
    if (this.#wrong !== undefined) throw this.#wrong
  }
}
