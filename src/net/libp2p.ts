/**
 * The real `Network`: a libp2p node (TCP, Noise, Yamux) that is a Kademlia DHT server, for small bounded messages.
 * Bulk goes over HTTPS: these streams have no back-pressure to rely on.
 */
import { identify } from '@libp2p/identify'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { type KadDHT, kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { type Ping, ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { type Clock, withDeadline } from '../base/clock.ts'
import { Semaphore } from '../base/concurrency.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { dayMs, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { Identity } from './identity.ts'
import { keepJoined } from './join-loop.ts'
import { encodeMessage, readMessage } from './message-stream.ts'
import type { Network, PeerAddress, RequestHandler } from './network.ts'
import { RecordDatastore } from './record-datastore.ts'

export const kadProtocol = '/holdfast/kad/1.0.0'

const dialMsMax = 3 * secondMs
const addressDialMsMax = 2 * secondMs
/** A request, dialling included, unless the caller's signal ends it sooner. */
const requestMsMax = 10 * secondMs
/** From the opening of a stream to its answer, on the answering side. */
const answerMsMax = 15 * secondMs
/** Requests to one peer at once, and those that wait for a place. */
const outboundPerPeer = 16
const outboundWaiting = 1024
/** Requests of one peer, and of all, that are answered at once; more are turned away. */
const inboundPerPeer = 32
const inboundTotal = 512
/** Addresses tried of one peer. */
const addressesMax = 16
/** Peers whose addresses are handed to `rememberPeers`. */
const rememberedMax = 32
const rememberEveryMs = minuteMs

export interface PeerMemory {
  load: () => Promise<string[]>
  save: (addresses: string[]) => Promise<void>
}

export interface Libp2pNetworkInit {
  identity: Identity
  /** Multiaddrs to listen on; empty for a node that only dials. */
  listen: readonly string[]
  /** Multiaddrs to announce instead of those listened on. */
  announce?: readonly string[]
  /** Multiaddrs (with peer ids) of nodes to join through. */
  bootstrap: readonly string[]
  /**
   * Most peers a lookup collects: the DHT's bucket size. Who lists all providers of a network wants more than the
   * usual 20, since a search ends once it has that many.
   */
  lookupPeersMax?: number
  /** Where addresses of neighbours are kept over a restart, so that a node whose bootstrap is gone finds back. */
  peerMemory?: PeerMemory
}

export interface Libp2pNetworkComponents {
  clock: Clock
  random: Random
  log: Log
}

/** The routing table's size is public in kad-dht's class, though not in its interface. */
type Services = { identify: unknown; ping: Ping; dht: KadDHT & { routingTable: { size: number } } } & Record<
  string,
  unknown
>

export class Libp2pNetwork implements Network {
  readonly peerId: string
  /** For the discovery and bitswap adapters, which speak libp2p too. */
  readonly node: Libp2p<Services>
  readonly #init: Libp2pNetworkInit
  readonly #clock: Clock
  readonly #random: Random
  readonly #log: Log
  readonly #stopping = new AbortController()
  readonly #outbound = new Map<string, Semaphore>()
  readonly #inbound = new Map<string, Semaphore>()
  readonly #inboundTotal = new Semaphore(inboundTotal)
  readonly #loops: Promise<void>[] = []

  constructor(node: Libp2p<Services>, init: Libp2pNetworkInit, { clock, random, log }: Libp2pNetworkComponents) {
    this.node = node
    this.peerId = node.peerId.toString()
    this.#init = init
    this.#clock = clock
    this.#random = random
    this.#log = log.child('net')
  }

  /**
   * Gets into the DHT, and stays there. To be called once, and after `handle`: a peer hears what this node answers when they
   * connect, and does not ask again.
   */
  join(): void {
    const { signal } = this.#stopping
    const { peerMemory } = this.#init
    const join = {
      clock: this.#clock,
      random: this.#random,
      log: this.#log,
      dial: (address: string) => this.#dialAddress(address, signal),
      neighbours: () => this.neighbours,
      addresses: async () => this.#knownAddresses(this.#init)
    }
    this.#loops.push(keepJoined(join, signal))
    if (peerMemory !== undefined) this.#loops.push(this.#remember(peerMemory, signal))
  }

  /** Peers in the DHT's routing table. */
  get neighbours(): number {
    return this.node.services.dht.routingTable.size
  }

  addresses(): string[] {
    return this.node.getMultiaddrs().map((address) => address.toString())
  }

  async request(peer: PeerAddress, protocol: string, body: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    const frame = encodeMessage(body)
    return await withDeadline(this.#clock, requestMsMax, signal, async (deadline) => {
      const limiter = limiterOf(this.#outbound, peer.peerId, outboundPerPeer, outboundWaiting)
      const release = await limiter.acquire(1, deadline)
      try {
        return await this.#exchange(peer, protocol, frame, deadline)
      } finally {
        release()
        forgetIdle(this.#outbound, peer.peerId)
      }
    })
  }

  async handle(protocol: string, handler: RequestHandler): Promise<void> {
    await this.node.handle(protocol, (stream, connection) => this.#answer(stream, connection, handler), {
      maxInboundStreams: inboundPerPeer,
      maxOutboundStreams: outboundPerPeer
    })
  }

  /** Hears of each peer that a connection is opened with, from either side, once it has said what it speaks. */
  onPeer(listener: (peer: PeerAddress, protocols: readonly string[]) => void): void {
    this.node.addEventListener('peer:identify', ({ detail: { peerId, listenAddrs, protocols } }) => {
      const addresses = listenAddrs.slice(0, addressesMax).map((address) => address.toString())
      listener({ peerId: peerId.toString(), addresses }, protocols)
    })
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the node stops'))
    await Promise.all(this.#loops)
    await this.node.stop()
  }

  async #exchange(peer: PeerAddress, protocol: string, frame: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const connection = await this.#connect(peer, signal)
    let stream: Stream | undefined
    try {
      stream = await connection.newStream(protocol, { signal })
      const answer = readMessage(stream, signal)
      answer.catch(() => {}) // sending may fail first
      stream.send(frame)
      const closing = stream.close({ signal }) // our half: the request is complete
      const message = await answer
      await closing
      return message
    } catch (error) {
      stream?.abort(error instanceof Error ? error : new Error(String(error)))
      if (signal.aborted) throw signal.reason
      if (connection.status !== 'open')
        throw new HoldfastError('OFFLINE', `lost connection to ${peer.peerId}`, { cause: error })
      if (isCode(error, 'PROTOCOL')) throw error
      throw new HoldfastError('PROTOCOL', `${peer.peerId} did not answer ${protocol}`, { cause: error })
    }
  }

  async #connect(peer: PeerAddress, signal: AbortSignal): Promise<Connection> {
    if (peer.peerId === this.peerId) throw new HoldfastError('BAD_INPUT', 'a node does not call itself')
    try {
      const id = peerIdFromString(peer.peerId)
      const open = this.node.getConnections(id).find(({ status }) => status === 'open')
      if (open !== undefined) return open
      const given = dialable(peer)
      try {
        return await this.node.dial(given.length > 0 ? given : id, {
          signal: AbortSignal.any([signal, AbortSignal.timeout(dialMsMax)])
        })
      } catch (error) {
        if (signal.aborted || given.length === 0) throw error
        // What the caller knew is stale; the peer store may know better.
        return await this.node.dial(id, { signal: AbortSignal.any([signal, AbortSignal.timeout(dialMsMax)]) })
      }
    } catch (cause) {
      if (signal.aborted) throw signal.reason
      throw new HoldfastError('OFFLINE', `no connection to ${peer.peerId}`, { cause })
    }
  }

  async #answer(stream: Stream, connection: Connection, handler: RequestHandler): Promise<void> {
    const from = connection.remotePeer.toString()
    const limiter = limiterOf(this.#inbound, from, inboundPerPeer, 0)
    const release = limiter.tryAcquire()
    const releaseTotal = release === undefined ? undefined : this.#inboundTotal.tryAcquire()
    try {
      if (releaseTotal === undefined) throw new HoldfastError('OVERLOADED', 'too many requests at once')
      await withDeadline(this.#clock, answerMsMax, this.#stopping.signal, async (signal) => {
        const request = await readMessage(stream, signal)
        stream.send(encodeMessage(await handler(from, request)))
        await stream.close({ signal })
      })
    } catch (error) {
      this.#log.debug('a request was not answered', { from, protocol: stream.protocol, error: messageOf(error) })
      stream.abort(error instanceof Error ? error : new Error(String(error)))
    } finally {
      releaseTotal?.()
      release?.()
      forgetIdle(this.#inbound, from)
    }
  }

  async #dialAddress(address: string, signal: AbortSignal): Promise<void> {
    const target = multiaddr(address)
    if (address.endsWith(`/p2p/${this.peerId}`)) return
    await this.node.dial(target, { signal: AbortSignal.any([signal, AbortSignal.timeout(dialMsMax)]) })
  }

  async #knownAddresses({ bootstrap, peerMemory }: Libp2pNetworkInit): Promise<string[]> {
    const remembered = this.neighbours === 0 ? ((await peerMemory?.load()) ?? []) : []
    return [...new Set([...bootstrap, ...remembered.slice(0, rememberedMax)])]
  }

  async #remember(memory: PeerMemory, signal: AbortSignal): Promise<void> {
    let saved = ''
    try {
      for (;;) {
        await this.#clock.sleep(saved === '' ? secondMs : rememberEveryMs, signal)
        const peers = await this.node.peerStore.all({
          limit: rememberedMax,
          filters: [({ protocols }) => protocols.includes(kadProtocol)]
        })
        const addresses = peers.flatMap(({ id, addresses }) => {
          const [first] = addresses
          return first === undefined ? [] : [withPeerId(first.multiaddr, id.toString()).toString()]
        })
        const text = addresses.join()
        if (addresses.length === 0 || text === saved) continue
        await memory.save(addresses)
        saved = text
      }
    } catch (error) {
      if (!signal.aborted) this.#log.error('neighbours are no longer remembered', { error: messageOf(error) })
    }
  }
}

/**
 * Starts a node. It dials nobody before `join()`.
 *
 * @throws HoldfastError `BAD_CONFIG` for an address that is no multiaddr or cannot be listened on
 */
export async function startLibp2pNetwork(
  init: Libp2pNetworkInit,
  components: Libp2pNetworkComponents
): Promise<Libp2pNetwork> {
  for (const address of [...init.listen, ...(init.announce ?? []), ...init.bootstrap]) checkMultiaddr(address)
  const bucketSize = init.lookupPeersMax ?? 20
  try {
    const node = await createLibp2p({
      privateKey: init.identity.privateKey,
      datastore: new RecordDatastore(),
      addresses: { listen: [...init.listen], announce: [...(init.announce ?? [])] },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      // Neighbours that stay connected are not looked up again, and the default hour would make them forgotten.
      peerStore: { maxAddressAge: 2 * dayMs, maxPeerAge: 7 * dayMs },
      connectionManager: {
        maxConnections: 1000,
        // Whole networks start behind one address (a machine, a NAT, a cluster): five a second would lock them out.
        inboundConnectionThreshold: 10_000,
        maxIncomingPendingConnections: 1000,
        dialTimeout: dialMsMax,
        addressDialTimeout: addressDialMsMax
      },
      // A machine that is merely busy must not lose its connections.
      connectionMonitor: {
        pingInterval: 30 * secondMs,
        pingTimeout: { minTimeout: 10 * secondMs, maxTimeout: 20 * secondMs }
      },
      services: {
        identify: identify(),
        ping: ping(),
        dht: kadDHT({
          protocol: kadProtocol,
          clientMode: false, // literally: by default it is decided by having a public address
          peerInfoMapper: passthroughMapper, // private addresses are addresses
          initialQuerySelfInterval: 100,
          kBucketSize: bucketSize,
          kBucketSplitThreshold: 20,
          // Peers that swallow packets cost a lookup this long at most, not six seconds each.
          networkDialTimeout: { minTimeout: 800, maxTimeout: dialMsMax }
        })
      }
    })
    return new Libp2pNetwork(node as unknown as Libp2p<Services>, init, components)
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `cannot listen on ${init.listen.join(', ')}: ${messageOf(cause)}`, { cause })
  }
}

function checkMultiaddr(address: string): void {
  try {
    multiaddr(address)
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `not a multiaddr: ${address.slice(0, 200)}`, { cause })
  }
}

/** The addresses that parse and name this peer, or nobody. They come from others: the rest is left out. */
function dialable({ peerId, addresses }: PeerAddress): Multiaddr[] {
  return addresses.slice(0, addressesMax).flatMap((text) => {
    try {
      const address = withPeerId(multiaddr(text), peerId)
      return address.toString().endsWith(`/p2p/${peerId}`) ? [address] : []
    } catch {
      return [] // not a multiaddr
    }
  })
}

function withPeerId(address: Multiaddr, peerId: string): Multiaddr {
  const hasPeerId = address.getComponents().some(({ name }) => name === 'p2p')
  return hasPeerId ? address : address.encapsulate(`/p2p/${peerId}`)
}

function limiterOf(limiters: Map<string, Semaphore>, peerId: string, width: number, waiting: number): Semaphore {
  let limiter = limiters.get(peerId)
  if (limiter === undefined) {
    limiter = new Semaphore(width, waiting)
    limiters.set(peerId, limiter)
  }
  return limiter
}

function forgetIdle(limiters: Map<string, Semaphore>, peerId: string): void {
  const limiter = limiters.get(peerId)
  if (limiter !== undefined && limiter.free === limiter.capacity && limiter.waiting === 0) limiters.delete(peerId)
}
