/**
 * A run under churn on virtual time: the gateway's own code over simulated machines. What is asked, who comes and goes,
 * and over what lines is the workload's; what is counted is the report's: the same as where the processes are real.
 *
 * Left out: that processes share a computer, and slow each other; that repair gives way to clients who wait (up to 16
 * times slower, `node/repair.ts`); how TCP begins slowly; the DHT, except that who starts connects to those it knows, among
 * them the gateway, which then asks for its offer.
 */
import { createHash } from 'node:crypto'
import { toHex } from '../../base/bytes.ts'
import { type Clock, withDeadline } from '../../base/clock.ts'
import { forEachLimit } from '../../base/concurrency.ts'
import { HoldfastError, isCode, messageOf } from '../../base/errors.ts'
import { MiB, minuteMs, secondMs } from '../../base/limits.ts'
import { createCoder } from '../../erasure/coder.ts'
import type { MetadataIndex } from '../../metadata/index-store.ts'
import { openSqliteIndex } from '../../metadata/sqlite.ts'
import { createSyncCodec } from '../../object/segment-codec.ts'
import type { SegmentRead } from '../../object/segment-reader.ts'
import { type Gateway, startGateway } from '../gateway.ts'
import { SimulatedNetwork } from '../network.ts'
import { type SeededRandom, seededRandom } from '../seeded-random.ts'
import { Trace } from '../trace.ts'
import { Timeline, VirtualProcess } from '../virtual-clock.ts'
import { type ChurnCosts, churnCosts, perMegabyte } from './costs.ts'
import { Population } from './population.ts'
import { type ChurnCounters, ChurnRecorder, type ChurnReport, type MarginSample } from './report.ts'
import { VersionHistory, WrongContentError } from './version-history.ts'
import {
  type ChurnWorkload,
  checkWorkload,
  eventsOf,
  keyOf,
  lookEveryMsOf,
  readBackMsMax,
  requestMsMax,
  requestsOf,
  sizesOf
} from './workload.ts'

export interface SimulateOptions {
  signal?: AbortSignal
  progress?: (line: string) => void
  /** Instead of those measured. */
  costs?: Partial<ChurnCosts>
}

const bucket = 'churn'
/** As `node.ts` has it. */
const memory = { writeBytes: 40 * MiB, readBytes: 18 * MiB, repairBytes: 32 * MiB }
/** Until everything is stored and whole, and until everybody is known to be back. */
const settleMsMax = 30 * minuteMs
const storingAtOnce = 4
/** Between two tries of what has not come to be yet. */
const pollMs = secondMs
const segmentsPage = 1000
const eventsMax = 200_000_000

/**
 * @throws HoldfastError `BAD_INPUT` for a run that can't be made, or whose providers can't hold it; the signal's reason
 * @throws WrongContentError when anything was read that was not stored, or no longer is
 */
export async function simulateChurn(workload: ChurnWorkload, options: SimulateOptions = {}): Promise<ChurnReport> {
  checkWorkload(workload)
  const index = await openSqliteIndex(':memory:')
  const { signal } = options
  try {
    const timeline = new Timeline({ eventsMax })
    timeline.afterEvent = () => signal?.throwIfAborted()
    const run = new ChurnRun(workload, options, timeline, index)
    return await timeline.drive(run.run())
  } finally {
    await index.close()
  }
}

/** Somebody who does one thing after another. */
class Worker {
  readonly #clock: Clock
  #freeAt = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async work(ms: number): Promise<void> {
    const now = this.#clock.now()
    this.#freeAt = Math.max(this.#freeAt, now) + ms
    // Time is in whole milliseconds; what is less adds up.
    const waitMs = Math.floor(this.#freeAt - now)
    if (waitMs > 0) await this.#clock.sleep(waitMs)
  }
}

interface Expectation {
  /** Its bytes, by the ETag that it is read with. @throws WrongContentError where no version that is right has it */
  find: (etag: string) => Uint8Array
}

/** What objects were given to be, by ETag. */
class Contents {
  readonly #seed: number
  readonly #sizes: readonly number[]
  /** Which version of its object has this ETag. */
  readonly #versions: Array<Map<string, number>>
  readonly #histories: VersionHistory[]
  /** The one asked for last, of each: making it again takes longer than to keep it. */
  readonly #kept: Array<{ version: number; bytes: Uint8Array } | undefined>

  constructor(workload: ChurnWorkload) {
    this.#seed = workload.seed
    this.#sizes = sizesOf(workload)
    this.#versions = this.#sizes.map(() => new Map())
    this.#histories = this.#sizes.map(() => new VersionHistory())
    this.#kept = this.#sizes.map(() => undefined)
  }

  get totalBytes(): number {
    return this.#sizes.reduce((sum, bytes) => sum + bytes, 0)
  }

  /** Bytes that it never had before, for `write`, whose end says whether they were stored. */
  async write(object: number, write: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    const history = this.#histories[object]!
    const version = history.begin()
    const bytes = this.#make(object, version)
    this.#versions[object]!.set(toHex(createHash('md5').update(bytes).digest()), version)
    try {
      await write(bytes)
    } catch (error) {
      history.failed(version)
      throw error
    }
    history.stored(version)
  }

  /** For a read that begins now. */
  expected(object: number): Expectation {
    const history = this.#histories[object]!
    const oldest = history.current
    return {
      find: (etag) => {
        const version = this.#versions[object]!.get(etag)
        if (version === undefined) throw new WrongContentError(`nobody wrote ${keyOf(object)} with that ETag`)
        if (!history.isRight(version, oldest))
          throw new WrongContentError(`version ${version} of ${keyOf(object)}, after ${oldest} was stored`)
        return this.#bytesOf(object, version)
      }
    }
  }

  #bytesOf(object: number, version: number): Uint8Array {
    const kept = this.#kept[object]
    if (kept?.version === version) return kept.bytes
    const bytes = this.#make(object, version)
    this.#kept[object] = { version, bytes }
    return bytes
  }

  #make(object: number, version: number): Uint8Array {
    return seededRandom(`churn content ${this.#seed}/${object}/${version}`).bytes(this.#sizes[object]!)
  }
}

const noCounters = (): ChurnCounters => ({
  segmentsStraight: 0,
  segmentsDecoded: 0,
  fetchedBytes: 0,
  wastedBytes: 0,
  repairReadBytes: 0,
  repairWrittenBytes: 0,
  repairTheoryBytes: 0,
  shardsRebuilt: 0
})

class ChurnRun {
  readonly #workload: ChurnWorkload
  readonly #progress: (line: string) => void
  readonly #costs: ChurnCosts
  readonly #timeline: Timeline
  readonly #index: MetadataIndex
  readonly #clock: Clock
  readonly #random: SeededRandom
  readonly #trace: Trace
  readonly #network: SimulatedNetwork
  readonly #population: Population
  readonly #recorder = new ChurnRecorder()
  readonly #contents: Contents
  /** The gateway's time. */
  readonly #worker: Worker
  #counters = noCounters()
  #gateway: Gateway | undefined

  constructor(workload: ChurnWorkload, options: SimulateOptions, timeline: Timeline, index: MetadataIndex) {
    this.#workload = workload
    this.#progress = options.progress ?? (() => {})
    this.#costs = { ...churnCosts, ...options.costs }
    this.#timeline = timeline
    this.#index = index
    this.#clock = new VirtualProcess(timeline).clock
    this.#random = seededRandom(`churn run ${workload.seed}`)
    this.#trace = new Trace(timeline)
    this.#contents = new Contents(workload)
    this.#worker = new Worker(this.#clock)
    this.#population = new Population(workload, this.#costs, {
      ...{ timeline, random: this.#random.fork('machines'), log: this.#trace.log('provider') },
      connect: (machine, process) => this.#network.connectMachine(machine, process),
      onServing: ({ peerId, address }) => void this.#gateway?.directory.meet({ peerId, addresses: [address] })
    })
    const budget = { spend: () => false, spendAll: () => false, renewed: () => {} } // nobody lies here
    this.#network = new SimulatedNetwork(
      {
        ...{ timeline, random: this.#random.fork('network'), trace: this.#trace, budget },
        machines: this.#population.machines
      },
      { jitterShare: 0, setUpRoundTrips: this.#costs.setUpRoundTrips }
    )
  }

  async run(): Promise<ChurnReport> {
    const { durationMs, clients } = this.#workload
    this.#population.begin()
    this.#gateway = await this.#startGateway()
    await this.#store()
    const startedAt = this.#clock.now()
    const before = this.#repaired()
    this.#counters = noCounters()
    for (const event of eventsOf(this.#workload)) {
      this.#timeline.schedule(event.atMs, () => {
        this.#recorder.happened(event.kind)
        this.#population.happens(event)
      })
    }
    const watching = this.#watch(startedAt).then(() => ({
      ...this.#counters,
      ...difference(this.#repaired(), before)
    }))
    const [counters] = await Promise.all([
      watching,
      ...Array.from({ length: clients }, (_, client) => this.#client(client, startedAt + durationMs))
    ])
    const lostObjects = await this.#lostObjects()
    return this.#recorder.report(durationMs, counters, { lostObjects, storedBytes: this.#contents.totalBytes })
  }

  #startGateway(): Promise<Gateway> {
    const process = new VirtualProcess(this.#timeline)
    const { code, offlineGraceMs, repairPatienceMs } = this.#workload
    return startGateway(
      {
        ...{ process, network: this.#network, index: this.#index, trace: this.#trace },
        codec: createSyncCodec(createCoder()),
        masterKey: this.#random.bytes(32),
        random: this.#random.fork('gateway'),
        onRead: (read) => this.#onRead(read)
      },
      { code, isAuditing: true, settings: { offlineGraceMs, repairPatienceMs, auditPace: 1, memory } }
    )
  }

  #onRead({ isDecoded, requestedBytes, wastedBytes }: SegmentRead): void {
    this.#counters[isDecoded ? 'segmentsDecoded' : 'segmentsStraight']++
    this.#counters.fetchedBytes += requestedBytes
    this.#counters.wastedBytes += wastedBytes
  }

  #repaired(): Pick<ChurnCounters, 'repairReadBytes' | 'repairWrittenBytes' | 'repairTheoryBytes' | 'shardsRebuilt'> {
    const { bytesRead, bytesWritten, bytesTheory, shardsRebuilt } = this.#gateway!.repairer.progress
    return {
      repairReadBytes: bytesRead,
      repairWrittenBytes: bytesWritten,
      repairTheoryBytes: bytesTheory,
      shardsRebuilt
    }
  }

  /** Everything, until all of it has all its shards. */
  async #store(): Promise<void> {
    const { store } = this.#gateway!
    const { objects } = this.#workload
    await store.createBucket(bucket, { owner: 'owner', displayName: 'owner' })
    try {
      const all = Array.from({ length: objects }, (_, object) => object)
      await forEachLimit(all, storingAtOnce, (object) => this.#put(object))
    } catch (cause) {
      if (!isCode(cause, 'TOO_FEW_PROVIDERS', 'NOT_DURABLE')) throw cause
      throw new HoldfastError('BAD_INPUT', `who is there at the start cannot hold it: ${messageOf(cause)}`, { cause })
    }
    await this.#until('all objects have all their shards', async () => {
      const { incompleteSegments } = await this.#index.totals()
      return incompleteSegments === 0
    })
    this.#progress(`${objects} objects stored, ${this.#contents.totalBytes} bytes`)
  }

  async #until(what: string, isSo: () => Promise<boolean>): Promise<void> {
    const until = this.#clock.now() + settleMsMax
    while (!(await isSo())) {
      if (this.#clock.now() > until)
        throw new HoldfastError('BAD_INPUT', `it never came to be that ${what}: there are too few providers`)
      await this.#clock.sleep(pollMs)
    }
  }

  #put(object: number, signal?: AbortSignal): Promise<void> {
    return this.#contents.write(object, (bytes) => this.#putBytes(object, bytes, signal))
  }

  async #putBytes(object: number, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    await this.#worker.work(this.#costs.writeMs + perMegabyte(bytes.length, this.#costs.writeMsPerMB))
    const body = (async function* () {
      yield bytes
    })()
    await this.#gateway!.store.putObject({
      ...{ bucket, key: keyOf(object), headers: {}, userMetadata: {}, storageClass: 'STANDARD' },
      body: { bytes: body, size: bytes.length },
      ...(signal === undefined ? {} : { signal })
    })
  }

  /** @returns time to the first byte, and how many there were. @throws WrongContentError for other bytes */
  async #get(object: number, signal: AbortSignal): Promise<{ firstByteMs: number; bytes: number }> {
    const startedAt = this.#clock.now()
    const expectation = this.#contents.expected(object)
    await this.#worker.work(this.#costs.readMs)
    const opened = await this.#gateway!.store.openObject(bucket, keyOf(object))
    try {
      const expected = expectation.find(opened.record.etag)
      let at = 0
      let firstByteMs = 0
      for await (const chunk of opened.read(0, expected.length, signal)) {
        await this.#worker.work(perMegabyte(chunk.length, this.#costs.readMsPerMB))
        if (at === 0) firstByteMs = this.#clock.now() - startedAt
        if (Buffer.compare(expected.subarray(at, at + chunk.length), chunk) !== 0)
          throw new WrongContentError(`other bytes of ${keyOf(object)} near ${at}`)
        at += chunk.length
      }
      if (at !== expected.length) throw new WrongContentError(`${at} of ${expected.length} bytes of ${keyOf(object)}`)
      return { firstByteMs, bytes: at }
    } finally {
      opened.close()
    }
  }

  async #client(client: number, until: number): Promise<void> {
    for (const { pauseMs, kind, object } of requestsOf(this.#workload, client)) {
      await this.#clock.sleep(pauseMs)
      if (this.#clock.now() >= until) return
      await this.#request(kind, object)
    }
  }

  async #request(kind: 'read' | 'write', object: number): Promise<void> {
    const startedAt = this.#clock.now()
    const elapsedMs = (): number => this.#clock.now() - startedAt
    try {
      await withDeadline(this.#clock, requestMsMax, undefined, async (signal) => {
        if (kind === 'write') {
          await this.#put(object, signal)
          this.#recorder.written(elapsedMs())
        } else {
          const { firstByteMs, bytes } = await this.#get(object, signal)
          this.#recorder.read({ firstByteMs, bytes, ms: elapsedMs() })
        }
      })
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error
      this.#recorder.failed(kind, error.code)
    }
  }

  async #watch(startedAt: number): Promise<void> {
    const { durationMs } = this.#workload
    const everyMs = lookEveryMsOf(this.#workload)
    for (let atMs = everyMs; atMs <= durationMs; atMs += everyMs) {
      await this.#clock.sleep(startedAt + atMs - this.#clock.now())
      const sample = await this.#look(atMs)
      this.#recorder.margin(sample)
      if (atMs % minuteMs === 0)
        this.#progress(`${atMs / secondMs} s: least margin ${sample.least}, mean ${sample.mean.toFixed(2)}`)
    }
    await this.#clock.sleep(Math.max(0, startedAt + durationMs - this.#clock.now()))
  }

  /** Of segments of objects; copies of manifests are not counted. */
  async #look(atMs: number): Promise<MarginSample> {
    const { k, m } = this.#workload.code
    const margins: number[] = []
    for (let afterId = 0; ; ) {
      const page = await this.#index.listSegments({ afterId, limit: segmentsPage })
      for (const segment of page) {
        if (segment.k !== k || segment.m !== m) continue
        const there = segment.shards.filter(({ provider, cid }) => {
          const machine = this.#population.machines.get(provider ?? '')
          return machine?.isUp === true && machine.disk.holds(cid)
        })
        margins.push(there.length - k)
      }
      if (page.length < segmentsPage) break
      afterId = page.at(-1)!.id
    }
    return {
      atMs,
      least: Math.min(...margins),
      mean: margins.reduce((sum, margin) => sum + margin, 0) / margins.length,
      fullShare: margins.filter((margin) => margin === m).length / margins.length
    }
  }

  /** Everybody who can come back does, and is known to be back; then everything is read. */
  async #lostObjects(): Promise<number> {
    this.#population.return()
    const { directory } = this.#gateway!
    await this.#until('everybody who returned is known to be there', async () =>
      this.#population.seated().every(({ peerId, isUp }) => isUp && directory.state(peerId) === 'online')
    )
    let lost = 0
    const all = Array.from({ length: this.#workload.objects }, (_, object) => object)
    await forEachLimit(all, storingAtOnce, async (object) => {
      if (!(await this.#isReadable(object))) lost++
    })
    return lost
  }

  async #isReadable(object: number): Promise<boolean> {
    const until = this.#clock.now() + readBackMsMax
    for (;;) {
      try {
        const leftMs = until - this.#clock.now()
        await withDeadline(this.#clock, leftMs, undefined, (signal) => this.#get(object, signal))
        return true
      } catch (error) {
        if (!(error instanceof HoldfastError)) throw error
        if (this.#clock.now() + pollMs >= until) return false
        await this.#clock.sleep(pollMs)
      }
    }
  }
}

function difference<K extends string>(after: Readonly<Record<K, number>>, before: Readonly<Record<K, number>>) {
  const names = Object.keys(after) as K[]
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as Record<K, number>
}
