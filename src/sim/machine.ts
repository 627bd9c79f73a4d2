/**
 * A provider's computer: its disk and its lease table outlive the process, which is the real provider core. What a fault
 * does to it is here; who does it, and when, is in `faults.ts`.
 */

import { HoldfastError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import { challengeChunkBytes } from '../custody/audit-messages.ts'
import type { RequestHandler } from '../net/network.ts'
import { serveControlPlane } from '../provider/control-plane.ts'
import type { LeaseStore } from '../provider/lease-store.ts'
import { MemoryLeaseStore } from '../provider/memory-lease-store.ts'
import { MemoryShardStore } from '../provider/memory-shard-store.ts'
import { ProofService } from '../provider/proof-service.ts'
import type { Refuser } from '../provider/refuser.ts'
import type { ShardStore } from '../provider/shard-store.ts'
import { type BlockProofs, leaseTermMsMax, StorageProvider } from '../provider/storage-provider.ts'
import type { ProviderRef } from '../transfer/provider-client.ts'
import { serveRefusals } from '../transfer/refusal-protocol.ts'
import { type Place, SharedLine } from './line.ts'
import type { Line, Plane } from './network.ts'
import { Operator, OperatorFiles } from './operator.ts'
import type { SeededRandom } from './seeded-random.ts'
import { simulatedSigner, verifySimulated } from './signatures.ts'
import { type Timeline, VirtualProcess } from './virtual-clock.ts'

/** How a machine treats those who talk to it. The honest one answers what is true, in its usual time. */
export interface Behaviour {
  /** `refused`: no connection, at once. `silent`: packets vanish, and nobody ever answers. */
  reach: 'open' | 'refused' | 'silent'
  /** Share of requests that are lost on the way, and of answers. */
  lossRate: number
  /** Factor on every delay of its own. */
  slowness: number
  /** What its line carries at most, each way. */
  bytesPerSecond: number
  /** Factor on what its disk takes for a block; above 1 reading takes its time as well. */
  diskSlowness: number
  /** Time it lets pass before it answers what it has long done. */
  stallMs: number
  /** `stalled`: never answered. */
  gets: 'true' | 'other-bytes' | 'missing' | 'oversized' | 'stalled'
  /** `false-yes`: acknowledges without storing anything. */
  puts: 'true' | 'false-yes' | 'refused'
  leases: 'true' | 'held' | 'missing' | 'garbage'
  offers: 'true' | 'garbage'
  /** `stalled`: audits are never answered. `half`: it proves the first half of a block, and makes up the rest. */
  proofs: 'true' | 'stalled' | 'half'
  /** `unsent`: it tells the gateway that it has brought blocks to others, and has not. */
  handOvers: 'true' | 'unsent'
}

export const honest: Behaviour = {
  reach: 'open',
  lossRate: 0,
  slowness: 1,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  diskSlowness: 1,
  stallMs: 0,
  gets: 'true',
  puts: 'true',
  leases: 'true',
  offers: 'true',
  proofs: 'true',
  handOvers: 'true'
}

export interface MachineInit {
  peerId: string
  /** The operator, as its offer names it. */
  operator: string
  /** IPv4 address. */
  host: string
  /** Everything that fails together with it, as DESIGN has it. */
  domains: readonly string[]
  capacityBytes: number
  /** How far its clock is ahead. */
  skewMs: number
  /** Usual one-way delay to it, within its region. */
  latencyMs: number
  /** Index of `regions`; undefined: it is nowhere in particular. */
  region?: number | undefined
  /** What its line carries each way, all connections together; default: whatever there is. */
  bytesPerSecond?: number | undefined
  /** Time it works on a request, by the bytes that it takes and gives; default: none. */
  serviceMs?: ((bytes: number) => number) | undefined
  /** Time its disk takes to write a block; default: 1 to 12 ms, whatever its length. */
  writeMs?: ((bytes: number) => number) | undefined
  collectEveryMs: number
  /** The planted bug: what is leased is collected, too. */
  deletesLeased?: boolean
}

export interface MachineComponents {
  timeline: Timeline
  random: SeededRandom
  log: Log
  /** What a process of it has of the network; absent: it calls nobody. */
  connect?: (machine: Machine, process: VirtualProcess) => Line
}

export class Machine {
  readonly peerId: string
  readonly domains: readonly string[]
  readonly place: Place
  readonly disk: SimulatedDisk
  leases = new MemoryLeaseStore()
  /** What its operator has commanded; as durable as its leases. */
  readonly files = new OperatorFiles()
  /** Hears how many bytes it counts as used, and how many are there, at each start. */
  onCounted: (usedBytes: number, bytes: number) => void = () => {}
  /** Connections that are open: what a crash does to each. */
  readonly connections = new Set<() => void>()
  readonly handlers = new Map<string, RequestHandler>()
  readonly #init: MachineInit
  readonly #components: MachineComponents
  #behaviour = honest
  #process: VirtualProcess | undefined
  #storage: StorageProvider | undefined
  #proofs: ProofService | undefined
  #operator: Operator | undefined
  #port = 4001
  #vanished = false
  #isRetired = false
  /** Partitions that keep it from clients' requests. */
  #partings = 0
  #readableSince: number

  constructor(components: MachineComponents, init: MachineInit) {
    this.#components = components
    this.#init = init
    this.peerId = init.peerId
    this.domains = init.domains
    const { region, latencyMs, bytesPerSecond } = init
    const line = (): SharedLine => new SharedLine(components.timeline, bytesPerSecond)
    this.place = { region, latencyMs, up: line(), down: line() }
    this.disk = new SimulatedDisk(components.random, init.writeMs)
    this.#readableSince = Number.POSITIVE_INFINITY
  }

  get process(): VirtualProcess | undefined {
    return this.#process
  }

  get isUp(): boolean {
    return this.#process !== undefined
  }

  /** Whether it is gone for good. */
  get isRetired(): boolean {
    return this.#isRetired
  }

  get operator(): string {
    return this.#init.operator
  }

  /** Index of `regions`. */
  get region(): number | undefined {
    return this.place.region
  }

  /** Whether its absence shows as silence, where a computer that is still there would refuse the connection. */
  get hasVanished(): boolean {
    return this.#vanished
  }

  /** @throws HoldfastError `OFFLINE` while it is down */
  get storage(): StorageProvider {
    if (this.#storage === undefined) throw new HoldfastError('OFFLINE', 'the machine is down')
    return this.#storage
  }

  /** @throws HoldfastError `OFFLINE` while it is down */
  get proofs(): ProofService {
    if (this.#proofs === undefined) throw new HoldfastError('OFFLINE', 'the machine is down')
    return this.#proofs
  }

  /** Takes commands. @throws HoldfastError `OFFLINE` while it is down */
  get commands(): Operator {
    if (this.#operator === undefined) throw new HoldfastError('OFFLINE', 'the machine is down')
    return this.#operator
  }

  /** @throws HoldfastError `OFFLINE` while it is down */
  get refuser(): Refuser {
    return this.commands.refuser
  }

  /** Whether its operator refuses the block. */
  refuses(cid: CID): boolean {
    return this.files.find(cid) !== undefined
  }

  get isDraining(): boolean {
    return this.files.drain !== undefined
  }

  get behaviour(): Behaviour {
    return this.#behaviour
  }

  get dataUrl(): string {
    return `https://${this.#init.host}:${this.#port}`
  }

  get address(): string {
    return `/ip4/${this.#init.host}/tcp/${this.#port + 1}/p2p/${this.peerId}`
  }

  isAt(plane: Plane, { dataUrls, addresses }: Pick<ProviderRef, 'dataUrls' | 'addresses'>): boolean {
    return plane === 'data' ? dataUrls.includes(this.dataUrl) : addresses.includes(this.address)
  }

  /** Since when it has answered reads truly and in time, without a break; infinite while it does not. */
  get readableSince(): number {
    return this.#readableSince
  }

  behave(change: Partial<Behaviour>): void {
    this.#behaviour = { ...this.#behaviour, ...change }
    const { bytesPerSecond, diskSlowness } = this.#behaviour
    const rate = Math.min(bytesPerSecond, this.#init.bytesPerSecond ?? Number.POSITIVE_INFINITY)
    this.place.up.setRate(rate)
    this.place.down.setRate(rate)
    this.disk.slowness = diskSlowness
    this.#judge()
  }

  beHonest(): void {
    this.behave(honest)
  }

  serviceMs(bytes: number): number {
    return this.#init.serviceMs?.(bytes) ?? 0
  }

  /** The gateway does not reach it, or does not hear it, until it rejoins as often. */
  part(): void {
    this.#partings++
    this.#judge()
  }

  rejoin(): void {
    this.#partings--
    this.#judge()
  }

  /** Starts the process on the disk as it is. */
  start(): void {
    if (this.#process !== undefined || this.#isRetired) return
    const { timeline, log, random, connect } = this.#components
    const process = new VirtualProcess(timeline, this.#init.skewMs)
    const signer = simulatedSigner(this.peerId)
    const kept = slowLeases(this.leases, process, random)
    const leases = this.#init.deletesLeased === true ? careless(kept) : kept
    const storage = new StorageProvider(
      {
        shards: this.disk.mount(process),
        ...{ leases, clock: process.clock, log, signer },
        refusals: this.files,
        onLost: (cids) => operator.notices.lost(cids)
      },
      {
        capacityBytes: this.#init.capacityBytes,
        domain: this.#init.operator,
        price: 1,
        dataUrls: () => [this.dataUrl],
        addresses: () => [this.address],
        version: 'sim'
      }
    )
    const operator = new Operator({
      ...{ files: this.files, process, storage, leases, signer, random, log },
      line: connect?.(this, process),
      behaviour: () => this.#behaviour
    })
    this.#process = process
    this.#storage = storage
    this.#operator = operator
    this.#proofs = new ProofService({
      storage: {
        isLeasedBy: (owner, cid) => storage.isLeasedBy(owner, cid),
        owners: (...args) => storage.owners(...args),
        prove: async (cid, chunks, tree) => {
          const proofs = await storage.prove(cid, chunks, tree)
          return this.#behaviour.proofs === 'half' ? await this.#halved(cid, chunks, proofs) : proofs
        }
      },
      signer,
      verifySignature: verifySimulated,
      clock: process.clock,
      log,
      pause: async () => {} // time is virtual, and so are its turns
    })
    this.#vanished = false
    this.handlers.clear()
    void serveControlPlane({ handle: async (protocol, handler) => void this.handlers.set(protocol, handler) }, storage)
    const signedOf = async (cids: readonly CID[]): Promise<Array<Uint8Array | undefined>> =>
      this.files.hasRefusals ? await process.wait(operator.refuser.signedOf(cids)) : cids.map(() => undefined)
    void serveRefusals(
      { handle: async (protocol, handler) => void this.handlers.set(protocol, handler) },
      { list: signedOf }
    )
    void this.#collectNowAndThen(process, storage) // what is there is counted before anything else is done
    operator.start()
    this.#judge()
  }

  /**
   * Ends the process as `kill -9` does (`killed`: whoever talks to it sees the connection break) or as losing power does
   * (`vanished`: nobody hears anything any more).
   *
   * @param isTorn what was being written is left as it happens to be
   */
  crash(how: 'killed' | 'vanished', isTorn = false): void {
    this.#process?.kill()
    this.disk.crash(isTorn)
    this.#process = undefined
    this.#storage = undefined
    this.#proofs = undefined
    this.#operator = undefined
    this.#vanished = how === 'vanished'
    const broken = [...this.connections]
    this.connections.clear()
    if (how === 'killed') for (const reset of broken) reset()
    for (const line of [this.place.up, this.place.down]) line.cut(how === 'killed')
    this.#judge()
  }

  /** Gone with all that it had, and never to start again. */
  retire(how: 'killed' | 'vanished'): void {
    this.crash(how)
    this.wipe('shards and leases')
    this.#isRetired = true
  }

  /** Another address from the next start on. */
  move(): void {
    this.#port += 10
  }

  /** All that it had is gone; `leases`: that it ever had it, too. */
  wipe(what: 'shards' | 'shards and leases'): void {
    this.disk.wipe()
    if (what === 'shards and leases') this.leases = new MemoryLeaseStore()
  }

  /** Proofs as one can make them who kept the tree, and the first half of the block. */
  async #halved(cid: CID, chunks: readonly number[], proofs: BlockProofs): Promise<BlockProofs> {
    const kept = ((await this.storage.size(cid)) ?? 0) / 2
    const slices = proofs.slices.map((slice, i) => {
      if ((chunks[i]! + 1) * challengeChunkBytes <= kept) return slice
      const madeUp = Uint8Array.from(slice)
      madeUp[madeUp.length - 1]! ^= 1
      return madeUp
    })
    return { ...proofs, slices }
  }

  #judge(): void {
    const { reach, lossRate, slowness, bytesPerSecond, diskSlowness, stallMs, gets, proofs } = this.#behaviour
    const isQuick = slowness === 1 && diskSlowness === 1 && bytesPerSecond === Number.POSITIVE_INFINITY
    const isReached = this.isUp && reach === 'open' && this.#partings === 0
    const isPrompt = lossRate === 0 && isQuick && stallMs === 0
    const isFine = isReached && isPrompt && gets === 'true' && proofs === 'true'
    if (!isFine) this.#readableSince = Number.POSITIVE_INFINITY
    else if (this.#readableSince === Number.POSITIVE_INFINITY) this.#readableSince = this.#components.timeline.now
  }

  async #collectNowAndThen(process: VirtualProcess, storage: StorageProvider): Promise<void> {
    await storage.reconcileAtStart()
    const { usedBytes, reservedBytes } = await storage.stats()
    if (reservedBytes === 0) this.onCounted(usedBytes, await this.disk.bytes())
    // Spread out, as a fleet of machines started at different times would be.
    await process.clock.sleep(this.#components.random.int(this.#init.collectEveryMs))
    for (;;) {
      await storage.collect()
      await process.clock.sleep(this.#init.collectEveryMs)
    }
  }
}

/** Of a block that was being written when the power failed. */
const tornStates = ['absent', 'prefix', 'zeros', 'whole'] as const

/**
 * What is written takes time, and is there whole or not at all when the process dies meanwhile.
 *
 * When the power fails it may also be there in part, until then and only then: the file store writes beside, syncs and
 * renames, but a file system, or a disk that lies about its cache, can keep the name and lose the bytes. What was
 * acknowledged is whole, since nothing else that a provider promises would mean anything on a disk where it is not.
 */
export class SimulatedDisk {
  isFull = false
  /** Factor on the time that it takes; above 1 reading takes its time as well. */
  slowness = 1
  /** Hears of each block that the provider's own code deletes. */
  onDelete: (cid: CID) => void = () => {}
  /** Hears of each block that has been written. */
  onPut: (cid: CID) => void = () => {}
  readonly #random: SeededRandom
  readonly #writeMs: (bytes: number) => number
  #blocks = new MemoryShardStore()
  #held = new Map<string, CID>()
  readonly #rotten = new Set<string>()
  readonly #writing = new Set<{ cid: CID; bytes: Uint8Array }>()
  #failPower: (() => boolean) | undefined

  /** @param writeMs time to write a block of so many bytes */
  constructor(random: SeededRandom, writeMs: (bytes: number) => number = () => 1 + random.int(12)) {
    this.#random = random
    this.#writeMs = writeMs
  }

  /** The disk as one process sees it: a write that it does not live to see the end of is not acknowledged. */
  mount(process: VirtualProcess): ShardStore {
    return {
      put: async (cid, bytes) => {
        const write = { cid, bytes }
        this.#writing.add(write)
        await process.clock.sleep(this.#writeMs(bytes.length) * this.slowness)
        const failPower = this.#failPower
        this.#failPower = undefined
        if (failPower?.() === true) await new Promise(() => {}) // nobody is there any more to hear of it
        this.#writing.delete(write)
        if (this.isFull) throw new HoldfastError('NO_SPACE', 'the disk is full')
        await this.#keep(cid, bytes)
      },
      get: async (cid) => {
        if (this.slowness > 1) await process.clock.sleep((1 + this.#random.int(12)) * this.slowness)
        return await process.wait(this.#blocks.get(cid))
      },
      size: (cid) => process.wait(this.#blocks.size(cid)),
      delete: async (cid) => {
        await process.wait(this.#blocks.delete(cid))
        const key = cid.toString()
        const wasWhole = !this.#rotten.delete(key) // what is damaged counts for nothing already
        if (this.#held.delete(key) && wasWhole) this.onDelete(cid)
      },
      list: () => this.#blocks.list()
    }
  }

  async #keep(cid: CID, bytes: Uint8Array): Promise<void> {
    await this.#blocks.put(cid, bytes)
    const key = cid.toString()
    this.#held.set(key, cid)
    this.#rotten.delete(key)
    this.onPut(cid)
  }

  /** In the midst of the next write `fail` is called; it says whether the power failed. Undefined: not, after all. */
  failPowerAtNextWrite(fail: (() => boolean) | undefined): void {
    this.#failPower = fail
  }

  /** The process has died: what was being written is gone, or torn. */
  crash(isTorn: boolean): void {
    const writing = [...this.#writing]
    this.#writing.clear()
    if (isTorn) for (const { cid, bytes } of writing) this.#tear(cid, bytes)
  }

  #tear(cid: CID, bytes: Uint8Array): void {
    const state = this.#random.pick(tornStates)
    const sound = state === 'whole' ? bytes.length : this.#random.int(bytes.length)
    if (state === 'absent') return
    const left = bytes.slice(0, state === 'prefix' ? sound : bytes.length)
    left.fill(0, sound)
    void this.#blocks.put(cid, left) // in memory: done when it returns
    const key = cid.toString()
    this.#held.set(key, cid)
    if (Buffer.compare(left, bytes) !== 0) {
      this.#rotten.add(key)
      return
    }
    this.#rotten.delete(key)
    this.onPut(cid)
  }

  /** Whether the block is there, and undamaged. */
  holds(cid: CID): boolean {
    const key = cid.toString()
    return this.#held.has(key) && !this.#rotten.has(key)
  }

  /** Whether the block is there, in whatever condition. */
  has(cid: CID): boolean {
    return this.#held.has(cid.toString())
  }

  /** Every block that is there. */
  cids(): CID[] {
    return [...this.#held.values()]
  }

  /** Bytes of all of them. */
  async bytes(): Promise<number> {
    let total = 0
    for await (const { bytes } of this.#blocks.list()) total += bytes
    return total
  }

  /** The block is gone, and nobody is told. */
  async drop(cid: CID): Promise<void> {
    await this.#blocks.delete(cid)
    this.#held.delete(cid.toString())
  }

  /** Flips a bit of the block. */
  async rot(cid: CID): Promise<void> {
    const bytes = await this.#blocks.get(cid)
    if (bytes === undefined || bytes.length === 0) return
    const damaged = Uint8Array.from(bytes)
    damaged[this.#random.int(damaged.length)]! ^= 1 << this.#random.int(8)
    await this.#blocks.put(cid, damaged)
    this.#rotten.add(cid.toString())
  }

  wipe(): void {
    this.#blocks = new MemoryShardStore()
    this.#held = new Map()
    this.#rotten.clear()
  }
}

/** The planted bug: every lease is taken to have ended. */
const careless = (leases: LeaseStore): LeaseStore => ({
  ...leases,
  expire: (now, limit) => leases.expire(now + 4 * leaseTermMsMax, limit)
})

/** Granting is a commit, and takes time as one. */
function slowLeases(store: MemoryLeaseStore, process: VirtualProcess, random: SeededRandom): LeaseStore {
  return {
    grant: async (leases) => {
      await process.clock.sleep(1 + random.int(4))
      await store.grant(leases)
    },
    release: (owner, cids) => process.wait(store.release(owner, cids)),
    evict: (cids) => process.wait(store.evict(cids)),
    expire: (now, limit) => process.wait(store.expire(now, limit)),
    get: (owner, cid) => process.wait(store.get(owner, cid)),
    list: (...args) => process.wait(store.list(...args)),
    ownersOf: (cid) => process.wait(store.ownersOf(cid)),
    isLeased: (cid) => process.wait(store.isLeased(cid)),
    lengthOf: (cid) => process.wait(store.lengthOf(cid)),
    lose: (cids, kind) => process.wait(store.lose(cids, kind)),
    find: (cid) => process.wait(store.find(cid)),
    lossOf: (cid) => process.wait(store.lossOf(cid)),
    blocks: (after, limit) => process.wait(store.blocks(after, limit)),
    losses: (after, limit) => process.wait(store.losses(after, limit)),
    noteOrphans: (cids, at) => process.wait(store.noteOrphans(cids, at)),
    orphansSince: (at, limit) => process.wait(store.orphansSince(at, limit)),
    forgetOrphans: (cids) => process.wait(store.forgetOrphans(cids)),
    usedBytes: () => process.wait(store.usedBytes()),
    totals: () => process.wait(store.totals()),
    owners: (limit) => process.wait(store.owners(limit)),
    close: () => store.close()
  }
}
