/** A network with objects in it, somebody who reads them and somebody who looks at their margins: the stage of all scenarios. */
import { forEachLimit } from '../../src/base/concurrency.ts'
import { secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import { WrongAnswerError } from '../harness.ts'
import { S3Client } from '../throughput/s3-client.ts'
import { type Cost, changesOf, costOf, type Leftovers, leftoversOf, type Snapshot } from './margins.ts'
import { blocksOf, type Provider, RepairNetwork, type RepairNetworkInit } from './network.ts'
import { ObjectSet, type ObjectSetInit } from './objects.ts'
import { waitUntil } from './wait.ts'
import { MarginWatch, Reader } from './watch.ts'

export interface SceneInit {
  network: RepairNetworkInit
  objects: ObjectSetInit
  /** How long margins may take to be full again after one loss. */
  healMsMax: number
  progress: (line: string) => void
}

/** What the gateway says that repair has moved so far, over all its lives. */
export interface Traffic {
  readBytes: number
  writtenBytes: number
  /** What its repairs should have moved, by its own account: `k + r` shards for each that placed `r`. */
  theoryBytes: number
}

const noTraffic: Traffic = { readBytes: 0, writtenBytes: 0, theoryBytes: 0 }

function combine(a: Traffic, b: Traffic, sign: 1 | -1): Traffic {
  return {
    readBytes: a.readBytes + sign * b.readBytes,
    writtenBytes: a.writtenBytes + sign * b.writtenBytes,
    theoryBytes: a.theoryBytes + sign * b.theoryBytes
  }
}

export interface Round {
  /** Names of the providers that went. */
  victims: string[]
  /** From the loss to the end of the first look that found every margin full. */
  seconds: number
  leastMargin: number
  /** What it should have cost, worked out from where shards were before and after. */
  cost: Cost
  /** What the gateway moved to repair. */
  traffic: Traffic
  /** What providers say to have handed over themselves. */
  handedOverBytes: number
}

export interface Ending {
  reads: number
  failedReads: number
  /** What failed reads said, and how often. */
  failures: string[]
  leftovers: Leftovers
}

const connections = 6
/** Releases go out every ten seconds. */
const leftoverMsMax = 60 * secondMs

export class Scene {
  readonly network: RepairNetwork
  readonly objects: ObjectSet
  readonly client: S3Client
  readonly watch: MarginWatch
  readonly #init: SceneInit
  readonly #reader: Reader
  /** Stored bytes of every block that was ever placed. */
  readonly #sizes = new Map<string, number>()
  /** Of the gateway's earlier lives. */
  #before = noTraffic
  #crashes = 0
  #full: Snapshot

  private constructor(init: SceneInit, network: RepairNetwork, objects: ObjectSet, client: S3Client) {
    this.#init = init
    this.network = network
    this.objects = objects
    this.client = client
    this.watch = new MarginWatch(network, objects)
    this.#reader = new Reader(client, objects, { seed: init.objects.seed })
    this.#full = []
  }

  /** Starts the network, stores the objects, and waits until every shard is placed. */
  static async start(init: SceneInit): Promise<Scene> {
    const { signal } = init.network
    const network = await RepairNetwork.start(init.network)
    const { endpoint, accessKeyId, secretAccessKey } = network.gateway
    const client = new S3Client({ endpoint, accessKeyId, secretAccessKey, connections, signal })
    try {
      const objects = new ObjectSet(init.objects)
      init.progress(`storing ${objects.stored.length} objects`)
      await objects.put(client)
      const scene = new Scene(init, network, objects, client)
      try {
        scene.#full = (await scene.watch.untilFull(init.healMsMax, signal)).snapshot
        await scene.#measureBlocks()
        return scene
      } catch (error) {
        await scene.#stopWatching()
        throw error
      }
    } catch (error) {
      await client.close()
      await network.stop()
      throw error
    }
  }

  get signal(): AbortSignal {
    return this.#init.network.signal
  }

  get healMsMax(): number {
    return this.#init.healMsMax
  }

  progress(line: string): void {
    this.#init.progress(line)
  }

  /** Where every shard was when last all were there. */
  get full(): Snapshot {
    return this.#full
  }

  /**
   * Takes providers away by `lose`, starts others in their domains, and waits until every margin is full again. They are
   * ended afterwards where `lose` has not done that.
   *
   * @param lose gives the bytes that were handed over
   * @param areServing they can be read from until they have gone
   * @param restored asked at the end: `PROVIDER CID` of shards that were put back in their old place meanwhile
   */
  async round(
    victims: readonly Provider[],
    lose: () => Promise<number>,
    { areServing = false, restored }: { areServing?: boolean; restored?: () => Promise<Set<string>> } = {}
  ): Promise<Round> {
    const before = await this.traffic()
    const start = this.#full
    this.watch.leastMargin = Number.POSITIVE_INFINITY
    for (const { peerId } of victims) (areServing ? this.watch.leaving : this.watch.gone).add(peerId)
    // They start while the others are repairing, as they would: who has gone is not waited for.
    const joining = Promise.all(victims.map(({ domain }) => this.network.addProvider(domain, victims)))
    joining.catch(() => {}) // awaited below
    const lostAt = systemClock.now()
    const handedOverBytes = await lose()
    const { snapshot, endedAt } = await this.watch.untilFull(this.#init.healMsMax, this.signal)
    this.#full = snapshot
    await joining
    await this.network.retire(victims.filter((victim) => this.network.providers.includes(victim)))
    await this.network.untilOnline()
    const traffic = combine(await this.traffic(), before, -1)
    const cost = costOf(changesOf(start, snapshot, await restored?.()), this.#sizes)
    const round: Round = {
      victims: victims.map(({ name }) => name),
      seconds: (endedAt - lostAt) / secondMs,
      leastMargin: this.watch.leastMargin,
      cost,
      traffic,
      handedOverBytes
    }
    this.progress(describe(round))
    if (round.leastMargin < 0) throw new WrongAnswerError(`a segment was ${-round.leastMargin} shards below k`)
    return round
  }

  /** Until every margin is full, where nobody has gone. */
  async healed(): Promise<void> {
    this.#full = (await this.watch.untilFull(this.#init.healMsMax, this.signal)).snapshot
  }

  /** Of all of the gateway's lives; waits for it where it is being started again. */
  async traffic(): Promise<Traffic> {
    return await waitUntil(
      'the gateway tells what it moved',
      async () => {
        const crashes = this.#crashes
        const now = await this.#trafficNow()
        if (crashes !== this.#crashes) return undefined // what it said is in the sum by now
        return combine(this.#before, now, 1)
      },
      { msMax: this.#init.healMsMax, signal: this.signal }
    )
  }

  async #trafficNow(): Promise<Traffic> {
    const [readBytes, writtenBytes, { bytesTheory }] = await Promise.all([
      this.network.metric('holdfast_repair_read_bytes_total'),
      this.network.metric('holdfast_repair_written_bytes_total'),
      this.network.repairTotals()
    ])
    return { readBytes, writtenBytes, theoryBytes: bytesTheory }
  }

  /** `kill -9` of the gateway, and another one in its place. What it moved in the moment before is not counted. */
  async crashGateway(): Promise<void> {
    const last = await this.#trafficNow()
    await this.network.killGateway()
    this.#crashes++
    this.#before = combine(this.#before, last, 1)
    await this.network.startGateway()
  }

  /**
   * Ends it all.
   *
   * @throws WrongAnswerError unless every object is what was stored, no read gave anything else, and every disk has what
   * it should
   */
  async end(): Promise<Ending> {
    await this.objects.verify(this.client)
    const leftovers = await this.#leftovers()
    if (leftovers.missing.length > 0) throw new WrongAnswerError(`not on disk: ${leftovers.missing.join(', ')}`)
    const { reads } = this.#reader
    const failedReads = this.#reader.failed
    await this.#reader.stop()
    return {
      reads: reads.count,
      failedReads,
      failures: [...reads.failures].map(([said, times]) => `${times} times: ${said}`),
      leftovers
    }
  }

  /** Ends the processes, whatever has become of the scenario. */
  async stop(): Promise<void> {
    await this.#stopWatching()
    await this.client.close()
    await this.network.stop()
  }

  async #stopWatching(): Promise<void> {
    await Promise.all([this.watch.stop(), this.#reader.stop().catch(() => {})]) // a wrong answer was thrown by end()
  }

  async #measureBlocks(): Promise<void> {
    for (const provider of this.network.providers) {
      for (const [cid, bytes] of await blocksOf(provider)) this.#sizes.set(cid, bytes)
    }
  }

  /** What the disks hold beside what they should, once that has stopped to change or is nothing. */
  async #leftovers(): Promise<Leftovers> {
    const look = async (): Promise<Leftovers> => {
      const disks = new Map<string, ReadonlyMap<string, number>>()
      await forEachLimit(this.network.providers, 4, async (provider) => {
        disks.set(provider.peerId, await blocksOf(provider))
      })
      return leftoversOf(await this.objects.look(this.network), disks)
    }
    let last = await look()
    const isClean = async (): Promise<boolean> => {
      last = await look()
      return last.leaked === 0 && last.missing.length === 0
    }
    try {
      await waitUntil('nothing is left over', isClean, { msMax: leftoverMsMax, signal: this.signal })
    } catch {
      this.signal.throwIfAborted() // else something is, and the caller is told what
    }
    return last
  }
}

/** What was moved, over what it should have cost to rebuild, or to hand over. */
export function excessOf({ cost, traffic, handedOverBytes }: Round, how: 'rebuilt' | 'moved'): number {
  const moved = traffic.readBytes + traffic.writtenBytes + handedOverBytes
  return moved / (how === 'rebuilt' ? cost.rebuiltBytes : cost.movedBytes)
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

function describe({ victims, seconds, leastMargin, cost, traffic, handedOverBytes }: Round): string {
  const moved = traffic.readBytes + traffic.writtenBytes
  return [
    `${victims.join(', ')}: full after ${seconds.toFixed(1)} s`,
    `least margin ${leastMargin}`,
    `${cost.shards} shards`,
    `${megabytes(moved)} moved by the gateway (${megabytes(traffic.theoryBytes)} in theory), ${megabytes(handedOverBytes)} handed over`,
    `${megabytes(cost.rebuiltBytes)} if all was rebuilt, ${megabytes(cost.movedBytes)} if all was handed over`
  ].join('; ')
}
