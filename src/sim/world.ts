/**
 * Providers, a hundred of them or fewer, one gateway, its clients, and what befalls them. First faults rage and nothing may go wrong; then
 * they stop and all must come right: every object at full margin, every lease held, all rubbish gone.
 */
import type { Clock } from '../base/clock.ts'
import { HoldfastError } from '../base/errors.ts'
import { dayMs, hourMs, limits, minuteMs, secondMs } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { type CID, shardCid } from '../content/cid.ts'
import { readManifest } from '../content/manifest.ts'
import { createCoder } from '../erasure/coder.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import { openSqliteIndex } from '../metadata/sqlite.ts'
import { createSyncCodec, type SegmentCodec } from '../object/segment-codec.ts'
import type { BugName } from './bugs.ts'
import { Faults } from './faults.ts'
import { type Gateway, gatewayPeerId, startGateway } from './gateway.ts'
import { GroundTruth } from './ground-truth.ts'
import { Invariants } from './invariants.ts'
import { Machine } from './machine.ts'
import { Model } from './model.ts'
import { type Cut, SimulatedNetwork } from './network.ts'
import { recordIndex } from './recorded-index.ts'
import { regionOf } from './scale/latency.ts'
import { type SeededRandom, seededRandom } from './seeded-random.ts'
import { shortCid, Trace } from './trace.ts'
import { Timeline, VirtualProcess } from './virtual-clock.ts'
import { account, buckets, Workload } from './workload.ts'

export interface WorldInit {
  seed: number
  /** Instead of what the seed draws. */
  size?: RunSize | undefined
  machines?: number | undefined
  /** How long faults rage. */
  faultsMs?: number
  /** Planted: something is wrong with the network's own code. */
  bug?: BugName | undefined
  /** Instead of what the seed decides. */
  scenario?: Partial<Scenario>
  /** Hears each line of the trace. */
  onLine?: ((line: string) => void) | undefined
}

/** `short` costs less than half as much: fewer machines and clients, shorter faults, no months. Most seeds are. */
export type RunSize = 'short' | 'full'

export const isRunSize = (text: string): text is RunSize => text === 'short' || text === 'full'

/** What a seed decides before anything happens. */
export interface Scenario {
  size: RunSize
  machines: number
  code: Code | undefined
  shardBytesMax: number
  operators: number
  clients: number
  keys: number
  pauseMs: number
  faultsMs: number
  /** Whether months pass in the end, and leases must be renewed again and again. */
  isLong: boolean
  /** Days of audits in a few minutes more than double what a run costs: one in eight has them. */
  isAuditing: boolean
  /** Names of the faults that strike; undefined: a mix that the seed draws. */
  faults: readonly string[] | undefined
}

const codes: ReadonlyArray<Code | undefined> = [
  undefined,
  { k: 1, m: 2 },
  { k: 2, m: 2 },
  { k: 3, m: 3 },
  { k: 4, m: 2 },
  { k: 4, m: 5 },
  { k: 6, m: 6 },
  { k: 8, m: 4 }
]

/** What takes many machines, long absences or months is left to one seed of four. */
const shortShare = 3 / 4
const fullMachines = 100
const operatorPrefix = 'operator-'
/** Until everything has come right after the last fault. Providers that were away for long are asked again late. */
const convergenceMsMax = 30 * minuteMs
/** Until a command to leave that came to nothing is given up. */
const drainMsMax = minuteMs
/** Longer than a provisional lease and the grace after it. */
const dayAwayMs = 2 * dayMs + 2 * hourMs
const monthAwayMs = 14 * dayMs

export class World {
  readonly timeline = new Timeline()
  /** The clock of those who are not part of the system. */
  readonly clock: Clock
  readonly trace: Trace
  readonly machines: Map<string, Machine>
  readonly model = new Model()
  readonly truth: GroundTruth
  readonly invariants: Invariants
  readonly workload: Workload
  readonly faults: Faults
  readonly scenario: Scenario
  /** How often what happened. */
  readonly stats = new Map<string, number>()
  /** All providers are well, and known to be: nothing has an excuse to fail. */
  isCalm = false
  gateway: Gateway | undefined

  #addLater: (operator: number) => Machine = () => {
    throw new HoldfastError('INTERNAL', 'there are no machines yet')
  }
  readonly #random: SeededRandom
  /** All that an operator has is in one region. */
  readonly #operatorRegions: readonly number[]
  readonly #network: SimulatedNetwork
  readonly #index: MetadataIndex
  readonly #codec: SegmentCodec
  readonly #masterKey: Uint8Array
  readonly #bug: BugName | undefined

  static async create(init: WorldInit): Promise<World> {
    return new World(init, await openSqliteIndex(':memory:'))
  }

  private constructor(init: WorldInit, index: MetadataIndex) {
    const random = seededRandom(init.seed)
    this.#random = random
    this.#index = index
    this.#bug = init.bug
    this.#masterKey = random.bytes(32)
    this.clock = new VirtualProcess(this.timeline).clock
    this.trace = new Trace(this.timeline, init.onLine)
    this.scenario = { ...drawScenario(random.fork('scenario'), init), ...init.scenario }

    this.machines = new Map()
    this.truth = new GroundTruth(this.timeline, this.machines)
    const regions = random.fork('regions')
    this.#network = new SimulatedNetwork(
      {
        timeline: this.timeline,
        random: random.fork('network'),
        trace: this.trace,
        machines: this.machines,
        budget: this.truth,
        offered: (to, cid) => this.invariants.offered(to, cid, this.timeline.now)
      },
      { gateway: { region: regionOf(regions) } }
    )
    this.#operatorRegions = Array.from({ length: this.scenario.operators }, () => regionOf(regions))
    this.invariants = new Invariants(this.truth, this.machines)
    this.#buildMachines(init.machines ?? this.scenario.machines, random.fork('machines'))
    this.#codec = this.#observedCodec()
    this.workload = new Workload(this, random.fork('workload'), this.scenario.keys)
    this.faults = new Faults(this, random.fork('faults'), this.scenario.faults)
    this.timeline.afterEvent = () => this.invariants.check()
    this.trace.note(`seed ${init.seed}: ${JSON.stringify(this.scenario)} faults: ${this.faults.names.join(', ')}`)
  }

  get shardBytesMax(): number {
    return this.scenario.shardBytesMax
  }

  /** Bytes of a full segment. */
  get segmentBytes(): number {
    return (this.scenario.code?.k ?? limits.codeShardsDefaultMax / 2) * this.shardBytesMax
  }

  readonly count = (what: string): void => {
    this.stats.set(what, (this.stats.get(what) ?? 0) + 1)
  }

  /**
   * Everything, from the first start to the last check.
   *
   * @throws Violation
   */
  run(): Promise<void> {
    return this.#drive(async () => {
      await this.#begin()
      await this.#live()
    })
  }

  /**
   * No faults but what `work` does, once a few objects are stored and all is well. It may call `converge`.
   *
   * @throws Violation; whatever `work` throws
   */
  runCalm(objects: number, work: () => Promise<void>): Promise<void> {
    return this.#drive(async () => {
      await this.#begin()
      this.isCalm = true
      for (let i = 0; i < objects; i++) await this.workload.put()
      await this.converge('once all is stored')
      await work()
    })
  }

  async #drive(work: () => Promise<void>): Promise<void> {
    try {
      await this.timeline.drive(work())
      this.invariants.check()
    } finally {
      this.gateway?.process.kill()
      await this.#index.close()
    }
  }

  /** @returns whether there was one to kill. It is back after a while. */
  killGateway(backAfterMs: number): boolean {
    if (this.gateway === undefined) return false
    this.trace.note('fault: gateway killed')
    this.gateway.process.kill()
    this.gateway = undefined
    void this.clock.sleep(backAfterMs).then(() => this.#startGateway())
    return true
  }

  /** Calls that do not get through from now on. @returns how to heal it */
  cut(cut: Cut): () => void {
    return this.#network.cut(cut)
  }

  /** A machine's operator has it leave, and starts another once it has; or has it stay after all, `cancelAfterMs` later. */
  drain(machine: Machine, cancelAfterMs: number | undefined): void {
    void machine.commands.beginDrain()
    const until = this.clock.now() + drainMsMax
    const cancelAt = this.clock.now() + (cancelAfterMs ?? Number.POSITIVE_INFINITY)
    const watch = async (): Promise<void> => {
      for (;;) {
        await this.clock.sleep(secondMs)
        if (machine.isRetired) return
        if (!machine.isUp) continue
        if (!machine.isDraining) {
          // The command died with the process, or has not been carried out yet; in the end somebody gives it up.
          if (this.clock.now() >= until) return
          continue
        }
        if (this.clock.now() >= cancelAt) {
          this.trace.note(`${machine.peerId} is to stay`)
          void machine.commands.cancelDrain()
          return
        }
        if (await this.#hasLeft(machine)) return
      }
    }
    void watch()
  }

  /** Whether nothing is left at the machine; then it is gone for good. */
  async #hasLeft(machine: Machine): Promise<boolean> {
    const drained = machine.commands.isDrained()
    const answer = await Promise.race([drained, machine.process!.died.then(() => false)])
    if (!answer || !machine.isDraining || machine.isRetired) return false
    const due = await this.#index.listLeasesDue(machine.peerId, Number.MAX_SAFE_INTEGER, 10_000)
    if (due.some(({ cid }) => !this.truth.isExcused(machine.peerId, cid))) {
      this.invariants.report(6, `${machine.peerId} says that nothing is left at it, and the index counts on it`)
    }
    this.count('left')
    this.trace.note(`${machine.peerId} has left`)
    machine.retire('killed')
    this.replace(machine)
    return true
  }

  async #begin(): Promise<void> {
    for (const machine of this.machines.values()) machine.start()
    await this.#startGateway()
    for (const { name, isPublic } of buckets) await this.gateway!.store.createBucket(name, account, { isPublic })
  }

  async #live(): Promise<void> {
    this.count(`${this.scenario.size} run`)
    if (this.scenario.isAuditing) this.count('run with audits')
    await this.#rage()
    await this.#startGateway()
    await this.converge('after the faults')
    await this.#calmRequests()
    await this.converge('after more requests')
    await this.#away(dayAwayMs)
    await this.#checkRubbishGone()
    if (this.scenario.isLong) {
      for (let i = 0; i < 4; i++) {
        await this.#startGateway()
        // Leases last thirty days and are renewed with fifteen left: the second time, every provider has been asked.
        await this.converge('after two weeks more', i > 1)
        await this.#away(monthAwayMs)
      }
    }
    await this.#startGateway()
    await this.converge('at the end', this.scenario.isLong)
    await this.#readEverything()
    await this.#survive()
  }

  /** Clients at work while faults strike. */
  async #rage(): Promise<void> {
    const { clients, pauseMs, faultsMs } = this.scenario
    const working = Array.from({ length: clients }, () => this.workload.client(pauseMs))
    void this.faults.run()
    await this.clock.sleep(faultsMs)
    this.workload.stop()
    this.faults.end()
    await Promise.all(working)
  }

  async #startGateway(): Promise<void> {
    if (this.gateway !== undefined) return
    const process = new VirtualProcess(this.timeline)
    const random = this.#random.fork('gateway')
    const { trace, model, truth, invariants } = this
    const index = recordIndex({
      index: this.#index,
      process,
      random: random.fork('index'),
      trace,
      model,
      truth,
      invariants
    })
    trace.note('gateway starts')
    // Known at once: whoever asks to start it meanwhile must not get a second one.
    const starting = startGateway(
      {
        process,
        network: this.#network,
        witness: truth,
        index,
        codec: this.#codec,
        masterKey: this.#masterKey,
        random,
        trace
      },
      {
        code: this.scenario.code,
        shardBytesMax: this.shardBytesMax,
        isAuditing: this.scenario.isAuditing,
        bug: this.#bug
      }
    )
    const gateway = await starting
    if (this.gateway === undefined) this.gateway = gateway
    else process.kill()
  }

  /** Until every segment has all its shards, every lease is long, and nothing waits to be released. */
  async converge(when: string, wasRenewed = false): Promise<void> {
    const until = this.clock.now() + convergenceMsMax
    let missing = await this.#unfinished()
    while (missing !== undefined && this.clock.now() < until) {
      await this.clock.sleep(5 * secondMs)
      missing = await this.#unfinished()
    }
    if (missing !== undefined)
      this.invariants.report(0, `${when}: ${missing}, ${convergenceMsMax / minuteMs} minutes after the last fault`)
    for (const segment of this.truth.segments.values()) this.#checkFullMargin(segment.id, when, wasRenewed)
    const { auditor } = this.gateway!
    this.invariants.standings((peerId) => auditor.trustOf(peerId))
    this.trace.note(`all is well ${when}`)
  }

  /** What is still to be done, if anything. */
  async #unfinished(): Promise<string | undefined> {
    const { incompleteSegments } = await this.#index.totals()
    if (incompleteSegments > 0) return `${incompleteSegments} segments lack shards`
    // Whoever is gone for good will not hear of it.
    const releasing = (await this.#index.listReleaseProviders()).filter(
      (peerId) => this.machines.get(peerId)?.isRetired !== true
    )
    if (releasing.length > 0) return `shards wait to be released at ${releasing.join(', ')}`
    const soon = this.clock.now() + limits.committedLeaseMs / 2
    for (const { provider } of await this.#index.listHolders()) {
      const state = this.gateway?.directory.state(provider)
      if (state !== 'online') return `${provider} is taken to be ${state}`
      const due = await this.#index.listLeasesDue(provider, soon, 1)
      if (due.length > 0) return `a lease at ${provider} was not renewed`
    }
    for (const machine of this.machines.values()) {
      if (machine.isRetired || !machine.isUp) continue
      if (machine.isDraining) return `${machine.peerId} has not left`
      if (machine.files.hasRefusals && machine.disk.cids().some((cid) => machine.refuses(cid)))
        return `${machine.peerId} still has what it refuses`
    }
    const refused = this.#countedOnThoughRefused()
    if (refused !== undefined) return refused
    const { contained, ownOutage } = this.gateway?.auditor.status() ?? { contained: 0, ownOutage: false }
    if (ownOutage) return 'the auditor takes itself to be cut off'
    if (contained > 0) return `${contained} challenges wait to be put again`
    return undefined
  }

  /** A refusal that the gateway has not heard of: who could not tell a gateway that was away tries again in minutes. */
  #countedOnThoughRefused(): string | undefined {
    for (const { id, shards } of this.truth.segments.values()) {
      if (this.truth.doubtful.has(id)) continue
      for (const { provider, cid } of shards) {
        const machine = this.machines.get(provider ?? '')
        if (machine?.files.hasRefusals === true && machine.refuses(cid))
          return `segment ${id} counts on ${machine.peerId} for what it refuses`
      }
    }
    return undefined
  }

  #checkFullMargin(segmentId: number, when: string, wasRenewed: boolean): void {
    const segment = this.truth.segments.get(segmentId)
    if (segment === undefined || this.truth.doubtful.has(segmentId)) return
    for (const [index, { provider, cid, state }] of segment.shards.entries()) {
      const disk = this.machines.get(provider ?? '')?.disk
      // What was destroyed in secret is noticed when it is read or its lease is renewed; damage, only when it is read.
      if (this.machines.get(provider ?? '')?.refuses(cid) === true)
        this.invariants.report(6, `${when}: shard ${index} of segment ${segmentId} is at ${provider}, which refuses it`)
      const isSecret = this.truth.isExcused(provider ?? '', cid) && (!wasRenewed || disk?.has(cid) === true)
      if ((disk?.holds(cid) !== true && !isSecret) || state !== 'healthy') {
        this.invariants.report(
          3,
          `${when}: shard ${index} (${shortCid(cid)}) of segment ${segmentId} is ${state} and not at ${provider}`
        )
      }
    }
  }

  /** The same requests as before, none of which has an excuse now. */
  async #calmRequests(): Promise<void> {
    this.isCalm = true
    for (let i = 0; i < 4; i++) {
      await this.workload.put()
      await this.workload.get()
    }
    this.isCalm = false
  }

  /** Nobody runs the gateway for so long, and nobody asks. */
  async #away(ms: number): Promise<void> {
    this.gateway?.process.kill()
    this.gateway = undefined
    this.trace.note(`nobody is there for ${ms / hourMs} hours`)
    await this.clock.sleep(ms)
  }

  /** Providers hold what the index counts on under a lease, and nothing else. */
  async #checkRubbishGone(): Promise<void> {
    const needed = new Map<string, Map<string, CID>>()
    for (const id of [...this.truth.segments.keys()]) {
      const segment = await this.#index.getSegment(id)
      this.truth.update(id, segment)
      for (const { provider, cid } of segment?.shards ?? []) {
        const cids = needed.get(provider!) ?? new Map<string, CID>()
        needed.set(provider!, cids.set(cid.toString(), cid))
      }
    }
    for (const machine of [...this.machines.values()].filter(({ isRetired }) => !isRetired))
      await this.#checkHolds(machine, needed.get(machine.peerId) ?? new Map())
  }

  async #checkHolds(machine: Machine, needed: ReadonlyMap<string, CID>): Promise<void> {
    const held = new Map(machine.disk.cids().map((cid) => [cid.toString(), cid]))
    for (const [key, cid] of held) {
      if (!needed.has(key))
        this.invariants.report(0, `${machine.peerId} still has ${shortCid(cid)}, which nothing needs`)
      const lease = await machine.leases.get(gatewayPeerId, cid)
      if (lease === undefined || lease.until < this.clock.now() + limits.committedLeaseMs / 3) {
        this.invariants.report(1, `${machine.peerId} keeps ${shortCid(cid)} without a long lease`)
      }
    }
    for (const [key, cid] of needed) {
      const isExplained = held.has(key) || this.truth.isExcused(machine.peerId, cid)
      if (!isExplained) this.invariants.report(1, `${machine.peerId} has lost ${shortCid(cid)}`)
    }
    const { usedBytes, reservedBytes } = await machine.storage.stats()
    const bytes = await machine.disk.bytes()
    if (usedBytes !== bytes || reservedBytes !== 0) {
      this.invariants.report(
        0,
        `${machine.peerId} counts ${usedBytes} bytes, and ${reservedBytes} being written; ${bytes} are there`
      )
    }
  }

  /** Every object as it should be; its manifest, fetched and checked by CID alone, says of what it is made. */
  async #readEverything(): Promise<void> {
    this.isCalm = true
    const { store } = this.gateway!
    const objects = this.model.objects()
    for (const { bucket, key, version } of objects) {
      const opened = await store.openObject(bucket, key)
      const chunks: Uint8Array[] = []
      for await (const chunk of opened.read(0, version.bytes.length)) chunks.push(new Uint8Array(chunk))
      opened.close()
      if (Buffer.compare(Buffer.concat(chunks), version.bytes) !== 0)
        this.invariants.report(2, `${bucket}/${key} has changed`)
      const { root, etag } = opened.record
      if (root.toString() !== version.root || etag !== version.etag)
        this.invariants.report(4, `${bucket}/${key} has another root or ETag`)
      await this.#checkManifest(root, version.contentId, version.bytes.length)
    }
    // What was found damaged just now is repaired.
    await this.converge('after everything was read', this.scenario.isLong)
    for (const { bucket, key } of objects) {
      const { segments, blocks } = await store.health(bucket, key)
      for (const { code, margin } of [...segments, ...blocks]) {
        const m = Number(code.split('+')[1])
        if (margin !== m)
          this.invariants.report(3, `${bucket}/${key}: a ${code} segment has margin ${margin} when all is well`)
      }
    }
    const listed = await Promise.all(
      buckets.map(({ name }) => store.listObjects(name, { prefix: '', delimiter: '', after: '', limit: 1000 }))
    )
    const keys = listed.flatMap((page) => page.objects.map(({ bucket, key }) => `${bucket}/${key}`))
    const expected = objects.map(({ bucket, key }) => `${bucket}/${key}`)
    if (keys.sort().join() !== expected.sort().join())
      this.invariants.report(0, `the listing has ${keys.join()}, not ${expected.join()}`)
  }

  async #checkManifest(root: CID, contentId: number, size: number): Promise<void> {
    const manifest = await readManifest(root, (cid) => this.gateway!.store.getBlock(cid))
    const stored = await this.#index.getSegments(contentId, 0, Math.max(1, size))
    const named = manifest.segments.map(({ shards }) => shards.join())
    const kept = stored.map(({ segment }) => segment.shards.map(({ cid }) => cid).join())
    if (manifest.size !== size || named.join() !== kept.join())
      this.invariants.report(4, `manifest ${root} is not what is stored`)
  }

  /** Invariant 3 as it is written: any one domain at once; any `m` shards at once; everything reads back identical. */
  async #survive(): Promise<void> {
    this.isCalm = false
    const objects = this.#random.shuffle(this.model.objects())
    const somebody = this.#random.pick([...this.machines.values()])
    const domain = [...this.machines.values()].filter(({ domains }) => domains.includes(somebody.domains[0]!))
    await this.#without(domain, async () => {
      for (const object of objects) await this.workload.get(object)
    })
    for (const { bucket, key, version } of objects.slice(0, 3)) {
      for (const id of truthIds(this.truth, version.contentId)) {
        const segment = this.truth.segments.get(id)!
        const good = this.truth.goodShards(segment)
        const victims = this.#random.shuffle(good).slice(0, good.length - segment.k)
        const machines = victims.map(({ provider }) => this.machines.get(provider!)!)
        await this.#without(machines, () => this.workload.get({ bucket, key }))
      }
    }
  }

  async #without(machines: readonly Machine[], work: () => Promise<void>): Promise<void> {
    for (const machine of machines) machine.crash(this.#random.pick(['killed', 'vanished']))
    await work()
    for (const machine of machines) machine.start()
    await this.clock.sleep(5 * secondMs)
  }

  #buildMachines(count: number, random: SeededRandom): void {
    const isPublic = random.chance(0.5)
    for (let i = 0; i < count; i++) this.#addMachine(i, i % this.scenario.operators, isPublic, random)
    this.#addLater = (operator) => this.#addMachine(this.machines.size, operator, isPublic, random)
  }

  /** A new machine of the same operator, for one that is gone for good. */
  replace({ operator }: Machine): void {
    this.#addLater(Number(operator.slice(operatorPrefix.length))).start()
  }

  #addMachine(number: number, operator: number, isPublic: boolean, random: SeededRandom): Machine {
    const peerId = `p${String(number).padStart(3, '0')}`
    // Now and then an operator has a machine in somebody else's network: the two domains overlap.
    const network = isPublic && random.chance(0.03) ? random.int(this.scenario.operators) : operator
    const host = isPublic ? `198.51.${network}.${number + 1}` : `10.0.${network}.${number + 1}`
    const domains = isPublic ? [`operator ${operator}`, `network ${network}`] : [`operator ${operator}`]
    const machine = new Machine(
      {
        ...{ timeline: this.timeline, random: random.fork(peerId), log: silentLog },
        connect: (one, process) => this.#network.connectMachine(one, process)
      },
      {
        peerId,
        operator: `${operatorPrefix}${operator}`,
        host,
        domains,
        capacityBytes: 1_000_000 * (1 + random.int(4)),
        skewMs: random.int(4 * minuteMs) - 2 * minuteMs,
        latencyMs: Math.ceil(2 + random.exponential(25)),
        region: this.#operatorRegions[operator],
        collectEveryMs: this.scenario.isLong ? 12 * hourMs : 4 * hourMs,
        deletesLeased: this.#bug === 'deletes-leased'
      }
    )
    machine.onCounted = (usedBytes, bytes) => this.invariants.counted(peerId, usedBytes, bytes)
    machine.disk.onPut = (cid) => this.truth.stored(peerId, cid)
    machine.disk.onDelete = (cid) => {
      if (machine.refuses(cid)) this.truth.droppedRefused(peerId, cid)
      // A segment may be gone from the index before it is from here: its word counts.
      const mayCount = this.truth
        .segmentsOf(cid)
        .some(({ shards }) => shards.some(({ provider }) => provider === peerId))
      if (mayCount) void this.#index.findHolders(cid).then((holders) => this.invariants.deleted(peerId, cid, holders))
    }
    this.machines.set(peerId, machine)
    return machine
  }

  /** The real codec; the ground truth hears which shards belong together. */
  #observedCodec(): SegmentCodec {
    const codec = createSyncCodec(createCoder())
    return {
      ...codec,
      encode: async (job) => {
        const encoded = await codec.encode(job)
        this.truth.coded(job.code, encoded.digests.map(shardCid))
        return encoded
      }
    }
  }
}

const truthIds = (truth: GroundTruth, contentId: number): number[] => {
  const { segmentIds = [], blockIds = [] } = truth.contents.get(contentId) ?? {}
  return [...segmentIds, ...blockIds].filter((id) => truth.segments.has(id))
}

function drawScenario(random: SeededRandom, init: WorldInit): Scenario {
  const full = drawFull(random, init)
  const sizing = random.fork('size')
  const size = sizing.chance(shortShare) ? 'short' : 'full'
  return (init.size ?? size) === 'short' ? { ...full, ...drawShort(sizing, init) } : full
}

function drawShort(random: SeededRandom, init: WorldInit): Partial<Scenario> {
  const machines = random.pick([32, 48, 64])
  return {
    size: 'short',
    machines,
    operators: random.pick([machines, machines / 2, 24]),
    clients: 1 + random.int(4),
    pauseMs: random.pick([500, 1000, 2000]),
    // The longest outlasts the grace for those who are offline.
    faultsMs: init.faultsMs ?? random.pick([15, 30, 45]) * secondMs,
    isLong: false
  }
}

function drawFull(random: SeededRandom, init: WorldInit): Scenario {
  const faultsMs = init.faultsMs ?? random.pick([30, 60, 90]) * secondMs
  if (faultsMs < 0) throw new HoldfastError('BAD_INPUT', 'faults cannot rage for less than no time')
  return {
    size: 'full',
    machines: fullMachines,
    code: random.pick(codes),
    shardBytesMax: random.pick([16, 64, 200]),
    operators: random.pick([100, 50, 33, 25]),
    clients: 2 + random.int(6),
    keys: 2 + random.int(5),
    pauseMs: random.pick([500, 2000, 6000]),
    faultsMs,
    isLong: random.chance(0.1),
    isAuditing: random.chance(1 / 8),
    faults: undefined
  }
}
