/**
 * The network between a gateway and the machines, and among these: each request takes its time to arrive, and its answer to come back;
 * either may be lost, and what was asked may have been done all the same. Stands in for the HTTPS data plane, the libp2p
 * control plane and the DHT, and keeps their bounds.
 */
import { HoldfastError, isCode } from '../base/errors.ts'
import { limits, secondMs } from '../base/limits.ts'
import type { CID } from '../content/cid.ts'
import { auditRequestCodec, signedCodec } from '../custody/audit-messages.ts'
import type { Discovery } from '../discovery/discovery.ts'
import { redeemTicket, type Ticket } from '../market/ticket.ts'
import type { Network, PeerAddress, RequestHandler } from '../net/network.ts'
import { statusOfCode } from '../transfer/data-plane.ts'
import { controlProtocols, type LeaseRequest, leaseAnswer, leaseRequest } from '../transfer/lease-protocol.ts'
import { decodeProofs } from '../transfer/prove.ts'
import type { LeaseState, ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { refusalAnswer, refusalRequest, refusalsOf } from '../transfer/refusal-protocol.ts'
import { carryOver, type Place, SharedLine } from './line.ts'
import { type Behaviour, honest, type Machine } from './machine.ts'
import { drawnMs, roundTripOf } from './scale/latency.ts'
import type { SeededRandom } from './seeded-random.ts'
import { verifySimulated } from './signatures.ts'
import { shortCid, type Trace } from './trace.ts'
import type { Timeline, VirtualProcess } from './virtual-clock.ts'

/**
 * How a machine goes back on its word about a block: it never stored what it acknowledged, denies having it (by other
 * bytes, too), no longer has it, or did not extend the lease it said it did. Or how it takes it back: it refuses, and says so.
 */
export type Loss = 'pretended' | 'denied' | 'destroyed' | 'unleased' | 'refused'

/** Decides, and remembers, whether a fault may cost a shard: all of them together stay within what the code promises to survive. */
export interface LossBudget {
  spend: (peerId: string, cid: CID, loss: Loss) => boolean
  /** All of these, or none. */
  spendAll: (peerId: string, cids: readonly CID[], loss: Loss) => boolean
  /** The machine has really extended its leases on these. */
  renewed: (peerId: string, cids: readonly CID[]) => void
}

/** Hears how audits ended; what a provider that is well does with one is the auditor's to find out. */
export interface AuditWitness {
  /** `silent`: nothing that says anything came in time, and the machine was not well all the while. */
  audited: (peerId: string, cids: readonly CID[], ended: 'answered' | 'silent') => void
}

export interface NetworkComponents {
  timeline: Timeline
  random: SeededRandom
  trace: Trace
  machines: ReadonlyMap<string, Machine>
  budget: LossBudget
  /** Hears of each block that somebody sets out to put at a machine. */
  offered?: (to: string, cid: CID) => void
}

/** What of the network is the same throughout a run. */
export interface NetworkInit {
  /** Where the gateway is. */
  gateway?: { region?: number | undefined; bytesPerSecond?: number }
  /** Mean of what a delay is longer than it usually is, as a share of that; default: a quarter. */
  jitterShare?: number
  /**
   * Round trips that it takes to connect, before the first request to somebody; a connection is kept for the next.
   * Default: none, which is a network of kept connections.
   */
  setUpRoundTrips?: Record<Plane, number>
}

/** Calls that do not get through, for a while. */
export interface Cut {
  /** Peer ids of those who call. */
  from: ReadonlySet<string>
  /** And of those who are called. */
  to: ReadonlySet<string>
  /**
   * `refused`: there is no connection, at once. `silent`: they vanish. `unanswered`: they arrive and are done, and what
   * is answered vanishes.
   */
  calls: 'refused' | 'silent' | 'unanswered'
}

/** Who can be called: a machine, or the gateway. */
interface Callee {
  readonly peerId: string
  readonly process: VirtualProcess | undefined
  readonly place: Place
  /** Time it works on a request, by the bytes that it takes and gives. */
  serviceMs: (bytes: number) => number
  readonly behaviour: Behaviour
  readonly hasVanished: boolean
  readonly connections: Set<() => void>
  readonly handlers: ReadonlyMap<string, RequestHandler>
  /** Whether it is there, and not where it was once. */
  isAt: (plane: Plane, to: Pick<ProviderRef, 'dataUrls' | 'addresses'>) => boolean
}

export type Plane = 'data' | 'control'

/** Who calls. What is wrong with a machine is wrong with the calls that it makes, too. */
interface Caller {
  process: VirtualProcess
  peerId: string
  machine?: Machine
}

interface Call<T> {
  from: Caller
  to: ProviderRef
  plane: Plane
  label: string
  /** Of the request's body; the answer's speak for themselves. */
  bytes?: number
  signal: AbortSignal | undefined
  /** Of an audit. */
  about?: { cids: readonly CID[]; witness: AuditWitness } | undefined
  serve: (machine: Machine) => Promise<T>
}

/** What a machine's process has of the network. */
export interface Line {
  client: ProviderClient
  network: Pick<Network, 'request'>
  discovery: Discovery
}

/** Where the gateway is, as seen by those who call it: one process after another. */
class GatewayHost implements Callee {
  readonly peerId: string
  readonly process: VirtualProcess
  readonly place: Place
  readonly behaviour = honest
  readonly hasVanished = false
  readonly connections = new Set<() => void>()
  readonly handlers = new Map<string, RequestHandler>()

  constructor(peerId: string, process: VirtualProcess, place: Place) {
    this.peerId = peerId
    this.process = process
    this.place = place
    void process.died.then(() => {
      for (const reset of this.connections) reset()
    })
  }

  /** What a gateway's work costs is for its clients to wait for. */
  serviceMs(): number {
    return 0
  }

  isAt(): boolean {
    return this.process.isAlive
  }
}

/** A peer that does not exist any more, or never did. */
const noRouteMs = 30
/** Of a request or an answer, besides its body. */
const headerBytes = 256
/** How long the data plane's client keeps connections that are idle. */
const idleMs = 30 * secondMs
const defaultJitterShare = 1 / 4

interface Connection {
  process: VirtualProcess
  until: number
}

/**
 * Connections that are kept: of the data plane one for each request at a time, of the control plane one for all. Those
 * of a process that has died are gone, and both ends know.
 */
class Connections {
  readonly #kept = new Map<string, Connection[]>()

  /** @returns whether there was one */
  take(key: string, plane: Plane, process: VirtualProcess, now: number): boolean {
    const kept = (this.#kept.get(key) ?? []).filter((one) => one.process === process && one.until > now)
    const isThere = kept.length > 0
    if (plane === 'data') kept.pop()
    this.#kept.set(key, kept)
    return isThere
  }

  give(key: string, plane: Plane, process: VirtualProcess, now: number): void {
    const kept = this.#kept.get(key) ?? []
    if (plane === 'data') kept.push({ process, until: now + idleMs })
    else kept.splice(0, kept.length, { process, until: Number.POSITIVE_INFINITY })
    this.#kept.set(key, kept)
  }
}

export class SimulatedNetwork {
  readonly #components: NetworkComponents
  readonly #init: NetworkInit
  readonly #hosts = new Map<string, GatewayHost>()
  readonly #cuts = new Set<Cut>()
  readonly #connections = new Connections()
  /** Of whoever is no machine. */
  readonly #gatewayPlace: Place

  constructor(components: NetworkComponents, init: NetworkInit = {}) {
    this.#components = components
    this.#init = init
    const { region, bytesPerSecond } = init.gateway ?? {}
    const line = (): SharedLine => new SharedLine(components.timeline, bytesPerSecond)
    this.#gatewayPlace = { region, latencyMs: 0, up: line(), down: line() }
  }

  /** From now on these calls do not get through. @returns how to heal it; safe to call twice */
  cut(cut: Cut): () => void {
    const { machines } = this.#components
    this.#cuts.add(cut)
    const parted = [...cut.to].flatMap((peerId) => machines.get(peerId) ?? [])
    // What machines keep from each other is nothing that a client's read notices.
    const isFelt = [...cut.from].some((peerId) => !machines.has(peerId))
    if (isFelt) for (const machine of parted) machine.part()
    return () => {
      if (!this.#cuts.delete(cut)) return
      if (isFelt) for (const machine of parted) machine.rejoin()
    }
  }

  #cutBetween(from: string, to: string): Cut['calls'] | undefined {
    for (const cut of this.#cuts) if (cut.from.has(from) && cut.to.has(to)) return cut.calls
    return undefined
  }

  /** From now on this process is who is called by that name. */
  host(peerId: string, process: VirtualProcess): Pick<Network, 'handle'> {
    const host = new GatewayHost(peerId, process, this.#gatewayPlace)
    this.#hosts.set(peerId, host)
    return { handle: async (protocol, handler) => void host.handlers.set(protocol, handler) }
  }

  /** What a gateway's process sees of the network. */
  connect(
    process: VirtualProcess,
    owner: string,
    witness?: AuditWitness
  ): { client: ProviderClient; discovery: Discovery; auditClient: ProviderClient } {
    const from = { process, peerId: owner }
    const client = this.#client(from, owner)
    const auditClient = witness === undefined ? client : this.#client(from, owner, witness)
    return { client, discovery: this.#discovery(process), auditClient }
  }

  /** What a machine's process sees of it. */
  connectMachine(machine: Machine, process: VirtualProcess): Line {
    const from = { process, peerId: machine.peerId, machine }
    return {
      client: this.#client(from, machine.peerId),
      network: {
        request: (to, protocol, body, signal) =>
          this.#request({ from, to: { ...to, dataUrls: [] }, protocol, signal }, body)
      },
      discovery: this.#discovery(process)
    }
  }

  /** A control message to a machine, or to the gateway. */
  #request(
    { from, to, protocol, signal }: Pick<Call<never>, 'from' | 'to' | 'signal'> & { protocol: string },
    body: Uint8Array
  ): Promise<Uint8Array> {
    const answer = async ({ handlers }: Callee): Promise<Uint8Array> => {
      const handler = handlers.get(protocol)
      if (handler === undefined) throw new HoldfastError('PROTOCOL', `${protocol} is not spoken here`)
      return await handler(from.peerId, body)
    }
    const label = `${protocol} of ${from.peerId}`
    const call = { from, to, plane: 'control' as const, label, signal, bytes: body.length }
    const host = this.#hosts.get(to.peerId)
    return host === undefined ? this.#call({ ...call, serve: answer }) : this.#carry({ ...call, callee: host, answer })
  }

  #client(from: Caller, owner: string, witness?: AuditWitness): ProviderClient {
    const about = (cids: readonly CID[]): Call<never>['about'] =>
      witness === undefined ? undefined : { cids, witness }
    return {
      putShard: (to, cid, bytes, { termMs, ticket, signal }) => {
        if (bytes.length > limits.shardBytesMax)
          return Promise.reject(new HoldfastError('BAD_INPUT', 'too large for a shard'))
        this.#components.offered?.(to.peerId, cid)
        return this.#call({
          from,
          to,
          plane: 'data',
          label: `put ${shortCid(cid)}`,
          bytes: bytes.length,
          signal,
          serve: async (machine) => {
            const lease = ticket === undefined ? { owner, termMs } : await this.#redeem(machine, owner, cid, ticket)
            await this.#servePut(machine, lease.owner, cid, bytes, lease.termMs)
          }
        })
      },
      getShard: async (to, cid, signal, into) => {
        const bytes = await this.#call({
          from,
          to,
          plane: 'data',
          label: `get ${shortCid(cid)}`,
          signal,
          about: about([cid]),
          serve: (machine) => this.#serveGet(machine, cid)
        })
        if (bytes.length > limits.shardBytesMax)
          throw new HoldfastError('PROTOCOL', 'the answer is larger than a shard')
        if (into === undefined || into.length < bytes.length) return bytes
        into.set(bytes)
        return into.subarray(0, bytes.length)
      },
      renewLeases: async (to, cids, { termMs }, signal) => {
        const states = await this.#lease({ from, to, owner, signal }, { v: 1, op: 'renew', cids: [...cids], termMs })
        if (states.length !== cids.length) throw new HoldfastError('PROTOCOL', 'an answer for each lease was expected')
        return states
      },
      releaseLeases: async (to, cids, signal) => {
        await this.#lease({ from, to, owner, signal }, { v: 1, op: 'release', cids: [...cids] })
      },
      getOffer: (to, signal) =>
        this.#call({
          from,
          to,
          plane: 'control',
          label: 'offer',
          signal,
          serve: async (machine) => {
            if (machine.behaviour.offers === 'garbage') throw new HoldfastError('PROTOCOL', 'an invalid offer')
            return await machine.storage.offer()
          }
        }),
      prove: async (to, request, signal) => {
        const { challenges } = auditRequestCodec.decode(request.bytes)
        const body = signedCodec.encode(request)
        const stream = await this.#call({
          from,
          to,
          plane: 'data',
          label: `prove ${challenges.length}`,
          bytes: body.length,
          signal,
          about: about(challenges.map(({ cid }) => cid)),
          serve: (machine) => this.#serveProofs(machine, owner, body)
        }).catch((error: unknown) => {
          if (!isCode(error, 'OVERLOADED')) throw error
          throw new HoldfastError('TIMEOUT', error.message, { details: { overloaded: true } })
        })
        return decodeProofs(challenges.length, stream)
      },
      listRefusals: async (to, cids, signal) => {
        const body = refusalRequest.encode({ v: 1, op: 'list', cids: [...cids] })
        const answer = await this.#call({
          from,
          to,
          plane: 'control',
          label: `refusals of ${cids.map(shortCid).join(' ')}`,
          bytes: body.length,
          signal,
          serve: (machine) => machine.handlers.get(controlProtocols.refusal)!(owner, body)
        })
        return refusalsOf(to.peerId, cids, refusalAnswer.decode(answer))
      }
    }
  }

  /** Streams are not simulated: an answer arrives whole, or not at all. */
  async #serveProofs(machine: Machine, owner: string, body: Uint8Array): Promise<Uint8Array[]> {
    const { proofs } = machine
    if (machine.behaviour.proofs === 'stalled') return await new Promise(() => {})
    await proofs.recognise()
    const leave = proofs.admit(owner)
    try {
      const stream: Uint8Array[] = []
      for await (const frames of proofs.answer(await proofs.receive(owner, body))) stream.push(frames)
      return stream
    } finally {
      leave()
    }
  }

  async #redeem(machine: Machine, from: string, cid: CID, ticket: Uint8Array): Promise<Ticket> {
    const shown = { from, to: machine.peerId, cid, now: machine.process!.clock.now() }
    return await redeemTicket(ticket, shown, verifySimulated)
  }

  async #servePut(machine: Machine, owner: string, cid: CID, bytes: Uint8Array, termMs: number): Promise<void> {
    const { puts } = machine.behaviour
    if (puts === 'refused') throw new HoldfastError('REFUSED', 'this provider does not want it')
    if (puts === 'false-yes' && this.#components.budget.spend(machine.peerId, cid, 'pretended')) return
    await machine.storage.put(owner, cid, bytes, termMs)
  }

  async #serveGet(machine: Machine, cid: CID): Promise<Uint8Array> {
    const { gets } = machine.behaviour
    if (gets === 'stalled') return await new Promise(() => {})
    const bytes = await machine.storage.get(cid)
    if (gets === 'true' || !this.#components.budget.spend(machine.peerId, cid, 'denied')) return Uint8Array.from(bytes)
    if (gets === 'missing') throw new HoldfastError('MISSING', 'no such block here')
    if (gets === 'oversized') return new Uint8Array(limits.shardBytesMax + 1)
    const other = Uint8Array.from(bytes)
    if (this.#components.random.chance(0.2)) return other.subarray(0, Math.max(0, other.length - 1))
    other[this.#components.random.int(other.length)]! ^= 1
    return other
  }

  async #lease(
    { owner, ...call }: { from: Caller; to: ProviderRef; owner: string; signal: AbortSignal | undefined },
    request: LeaseRequest
  ): Promise<LeaseState[]> {
    if (request.cids.length > limits.leaseBatchMax)
      throw new HoldfastError('BAD_INPUT', 'too many leases in one request')
    const body = leaseRequest.encode(request)
    const answer = leaseAnswer.decode(
      await this.#call({
        ...call,
        plane: 'control',
        label: `${request.op} ${request.cids.map(shortCid).join(' ')}`,
        bytes: body.length,
        serve: (machine) => this.#serveLease(machine, owner, body, request)
      })
    )
    if ('error' in answer) throw new HoldfastError('PROTOCOL', answer.error.message)
    return answer.states
  }

  async #serveLease(machine: Machine, owner: string, body: Uint8Array, request: LeaseRequest): Promise<Uint8Array> {
    const { leases } = machine.behaviour
    const { budget } = this.#components
    if (leases === 'garbage') return new Uint8Array([0xff])
    if (request.op === 'renew' && leases === 'held') {
      // It says yes, and lets the lease run out.
      if (budget.spendAll(machine.peerId, request.cids, 'unleased')) {
        return leaseAnswer.encode({ v: 1, states: request.cids.map((): LeaseState => 'held') })
      }
    }
    const answer = await machine.handlers.get(controlProtocols.lease)!(owner, body)
    const decoded = leaseAnswer.decode(answer)
    if (request.op === 'release' || 'error' in decoded) return answer
    budget.renewed(machine.peerId, request.cids)
    if (leases !== 'missing') return answer
    const states = decoded.states.map((state, at): LeaseState => {
      return state === 'held' && budget.spend(machine.peerId, request.cids[at]!, 'denied') ? 'missing' : state
    })
    return leaseAnswer.encode({ v: 1, states })
  }

  /** One request to a machine and its answer, or whatever comes of it. */
  #call<T>({ serve, about, ...call }: Call<T>): Promise<T> {
    const machine = this.#components.machines.get(call.to.peerId)
    const askedAt = this.#components.timeline.now
    const onEnd = (outcome: string): void => {
      if (about !== undefined && machine !== undefined) hear(about, machine, outcome, askedAt)
    }
    return this.#carry({ ...call, callee: machine, answer: () => serve(machine!), onEnd })
  }

  #carry<T>(
    call: Omit<Call<T>, 'serve' | 'about'> & {
      callee: Callee | undefined
      answer: (callee: Callee) => Promise<T>
      onEnd?: (outcome: string) => void
    }
  ): Promise<T> {
    const { from, to, plane, bytes = 0, signal, callee, answer, onEnd } = call
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      const asker = from.machine
      const cut = (): Cut['calls'] | undefined => this.#cutBetween(from.peerId, to.peerId)
      const exchange = new Exchange(this.#components, { ...call, resolve, reject, onEnd })
      if (callee === undefined || asker?.behaviour.reach === 'refused' || cut() === 'refused') {
        exchange.unreachable(noRouteMs)
        return
      }
      const connection = `${from.peerId} ${to.peerId} ${plane}`
      const roundTrips = this.#setUpRoundTrips(connection, plane, callee)
      const route: Route = {
        ...{ callee, asker, bytes, cut },
        place: asker?.place ?? this.#gatewayPlace,
        delayMs: () => this.#delayMs(asker, callee),
        keep: (process) => this.#keep(connection, plane, process)
      }
      if (roundTrips === 0) exchange.send(route, answer)
      else this.#components.timeline.schedule(2 * roundTrips * route.delayMs(), () => exchange.send(route, answer))
    })
  }

  /** One way, between a machine or the gateway and whom it calls. */
  #delayMs(asker: Machine | undefined, callee: Pick<Callee, 'place' | 'behaviour'>): number {
    const { random } = this.#components
    const { jitterShare = defaultJitterShare } = this.#init
    const own = ({ place: { latencyMs }, behaviour }: Pick<Callee, 'place' | 'behaviour'>): number => {
      const jitterMs = jitterShare === 0 ? 0 : random.exponential(latencyMs * jitterShare)
      return (latencyMs + jitterMs) * behaviour.slowness
    }
    const { region } = asker?.place ?? this.#gatewayPlace
    const isFar = region !== undefined && callee.place.region !== undefined
    const regionsMs = isFar ? drawnMs(roundTripOf(region, callee.place.region!) / 2, random) : 0
    // Not always up: what is next door is within the same millisecond.
    return Math.round(own(callee) + (asker === undefined ? 0 : own(asker)) + regionsMs)
  }

  /** Until a request can be sent; a closed port answers the first packet. */
  #setUpRoundTrips(connection: string, plane: Plane, { process }: Callee): number {
    const roundTrips = this.#init.setUpRoundTrips?.[plane] ?? 0
    if (roundTrips === 0 || process === undefined) return 0
    return this.#connections.take(connection, plane, process, this.#components.timeline.now) ? 0 : roundTrips
  }

  #keep(connection: string, plane: Plane, process: VirtualProcess): void {
    if ((this.#init.setUpRoundTrips?.[plane] ?? 0) > 0)
      this.#connections.give(connection, plane, process, this.#components.timeline.now)
  }

  #discovery(process: VirtualProcess): Discovery {
    const { random } = this.#components
    const addressOf = (machine: Machine): PeerAddress => ({ peerId: machine.peerId, addresses: [machine.address] })
    const machines = this.#components.machines
    return {
      announceProvider: () => {},
      announceRoot: () => {},
      findProviders: async function* (signal) {
        await process.clock.sleep(50 + random.int(300), signal)
        // Records of the dead linger for a while, and those of the living are not always found.
        const found = random
          .shuffle([...machines.values()])
          .filter((machine) => random.chance(machine.isUp ? 0.97 : 0.5))
        for (let at = 0; at < found.length; at += 20) {
          for (const machine of found.slice(at, at + 20)) yield addressOf(machine)
          await process.clock.sleep(20 + random.int(60), signal)
        }
      },
      // Roots are announced too slowly for what is simulated: whoever looks for one asks everybody.
      findRoot: async function* (_cid, signal) {
        await process.clock.sleep(100 + random.int(400), signal)
        yield* []
      },
      findPeer: async (peerId, signal) => {
        await process.clock.sleep(100 + random.int(400), signal)
        const machine = machines.get(peerId)
        return machine?.isUp === true ? addressOf(machine) : undefined
      }
    }
  }
}

/** Whoever could not be reached at all was not silent, nor was one that is well. */
function hear(
  { cids, witness }: NonNullable<Call<never>['about']>,
  machine: Machine,
  outcome: string,
  askedAt: number
): void {
  if (outcome === 'ok') witness.audited(machine.peerId, cids, 'answered')
  else if (outcome !== 'offline' && machine.readableSince > askedAt) witness.audited(machine.peerId, cids, 'silent')
}

/** How a request gets to whom it is for, and its answer back. */
interface Route {
  callee: Callee
  asker: Machine | undefined
  /** Of who asks. */
  place: Place
  /** Of the request's body. */
  bytes: number
  /** One way, now. */
  delayMs: () => number
  cut: () => Cut['calls'] | undefined
  /** The connection has served, and is there for the next. */
  keep: (process: VirtualProcess) => void
}

/** A call, and who hears what comes of it. */
interface Asked<T> extends Pick<Call<T>, 'from' | 'to' | 'plane' | 'label' | 'signal'> {
  resolve: (value: T) => void
  reject: (reason: unknown) => void
  onEnd: ((outcome: string) => void) | undefined
}

/** One request and its answer. Whoever asks hears once what comes of it, if anything does. */
class Exchange<T> {
  readonly #components: NetworkComponents
  readonly #call: Asked<T>
  readonly #onAbort: () => void
  #isOver = false
  /** Ends what is on its way. */
  #stop = (): void => {}

  constructor(components: NetworkComponents, call: Asked<T>) {
    this.#components = components
    this.#call = call
    const { signal, reject } = call
    this.#onAbort = () => {
      this.#stop()
      this.#settle('given up', () => reject(signal?.reason))
    }
    signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** Whoever asks learns so after a while that there is nobody. */
  unreachable(afterMs: number): void {
    this.#components.timeline.schedule(afterMs, () => this.#tellOffline())
  }

  send(route: Route, answer: (callee: Callee) => Promise<T>): void {
    if (this.#isOver) return
    const { callee, place, bytes, delayMs } = route
    const sent = (): void => void this.#components.timeline.schedule(delayMs(), () => this.#arrived(route, answer))
    const lines = [place.up, callee.place.down]
    this.#stop = carryOver(lines, bytes + headerBytes, sent, () => this.unreachable(delayMs()))
  }

  #arrived(route: Route, answer: (callee: Callee) => Promise<T>): void {
    const { random, trace } = this.#components
    const { from, to, plane, label, resolve, reject } = this.#call
    const { callee, delayMs, cut } = route
    // Whoever has given up may have sent it or not.
    if ((this.#isOver || !from.process.isAlive) && random.chance(0.5)) return
    const { behaviour, process } = callee
    const isCut = cut() === 'silent'
    if (behaviour.reach === 'silent' || callee.hasVanished || isCut || this.#isLost(route)) return
    if (process === undefined || behaviour.reach === 'refused' || !callee.isAt(plane, to)) {
      this.unreachable(delayMs())
      return
    }
    const reset = (): void => this.unreachable(delayMs())
    callee.connections.add(reset)
    const say = (outcome: string, answerBytes: number, tell: () => void): void =>
      this.#answer(route, process, answerBytes, () => {
        callee.connections.delete(reset)
        this.#answered(route, process, outcome, tell)
      })
    trace.note(`${to.peerId} hears ${label}`)
    process.wait(answer(callee)).then(
      (value) => say('ok', bytesOf(value), () => resolve(value)),
      (error: unknown) => {
        const sent = onTheWire(error)
        say(sent.code, 0, () => reject(sent))
      }
    )
  }

  /** Works on it, and sends what it comes to. */
  #answer(route: Route, process: VirtualProcess, answerBytes: number, answered: () => void): void {
    const { callee, place, bytes, delayMs } = route
    const send = (): void => {
      const sent = (): void => void process.schedule(delayMs(), answered)
      // Whoever has given up has closed the connection, and who is killed has reset it.
      if (this.#isOver) sent()
      else this.#stop = carryOver([callee.place.up, place.down], answerBytes + headerBytes, sent, () => {})
    }
    const workMs = callee.behaviour.stallMs + callee.serviceMs(bytes + answerBytes)
    if (workMs === 0) send()
    else process.schedule(workMs, send)
  }

  #answered(route: Route, process: VirtualProcess, outcome: string, tell: () => void): void {
    const { callee, cut, keep } = route
    const calls = cut()
    if (calls === 'refused') this.#tellOffline()
    if (callee.behaviour.reach === 'silent' || calls !== undefined || this.#isLost(route)) return
    if (!this.#isOver) keep(process)
    this.#settle(outcome, tell)
  }

  #isLost({ callee, asker }: Route): boolean {
    const { random } = this.#components
    if (random.chance(callee.behaviour.lossRate)) return true
    return asker !== undefined && (asker.behaviour.reach === 'silent' || random.chance(asker.behaviour.lossRate))
  }

  #tellOffline(): void {
    const { to, reject } = this.#call
    this.#settle('offline', () => reject(new HoldfastError('OFFLINE', `no connection to ${to.peerId}`)))
  }

  #settle(outcome: string, tell: () => void): void {
    const { from, to, label, signal, onEnd } = this.#call
    if (this.#isOver || !from.process.isAlive) return
    this.#isOver = true
    signal?.removeEventListener('abort', this.#onAbort)
    this.#components.trace.note(`${to.peerId} ${label}: ${outcome}`)
    onEnd?.(outcome)
    tell()
  }
}

/** Of an answer's body, where that is what is answered. */
function bytesOf(value: unknown): number {
  if (value instanceof Uint8Array) return value.length
  return Array.isArray(value) ? value.reduce((sum: number, part: unknown) => sum + bytesOf(part), 0) : 0
}

/** What is left of a provider's error once it has crossed the network: a status, or none that is known. */
function onTheWire(error: unknown): HoldfastError {
  if (
    error instanceof HoldfastError &&
    error.code !== 'BAD_INPUT' &&
    (statusOfCode[error.code] !== undefined || error.code === 'PROTOCOL')
  ) {
    return new HoldfastError(error.code, error.message)
  }
  return new HoldfastError('PROTOCOL', `the provider failed: ${error instanceof Error ? error.message : String(error)}`)
}
