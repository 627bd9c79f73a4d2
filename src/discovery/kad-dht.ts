/** The real `Discovery`: provider records in the libp2p Kademlia DHT. Nothing here says that who is found is alive. */
import { createHash } from 'node:crypto'
import { peerIdFromString } from '@libp2p/peer-id'
import type { Multiaddr } from '@multiformats/multiaddr'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { type Clock, withDeadline } from '../base/clock.ts'
import { check, messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { codecs, hashes } from '../content/cid.ts'
import type { Libp2pNetwork } from '../net/libp2p.ts'
import type { PeerAddress } from '../net/network.ts'
import type { Discovery } from './discovery.ts'

/** What providers announce themselves under: a CID nobody has the content of. */
export const providersNamespace = 'holdfast/v1/providers'

const announceEveryMs = 10 * minuteMs
/** While there are few neighbours, or more of them than last time, the next announcement comes sooner. */
const announceGrowingMs = 5 * secondMs
const announceRetryMs = secondMs
/** A node that joins meets the others within a second or two; whom it announces itself to before, it tells twice. */
const settlePollMs = secondMs / 4
const settledPolls = 3
const settleMsMax = 3 * secondMs
const lookupMsMax = 20 * secondMs
const provideMsMax = 30 * secondMs
/** One provide costs 0.3 CPU-seconds over the network. */
const rootEveryMsDefault = 30 * secondMs
const rootsQueuedMax = 1000
/** Roots announced lately, which are not announced again: kad-dht repeats its own records itself. */
const rootsDoneMax = 10_000
const foundMax = 10_000

export interface KadDiscoveryInit {
  /** Apart from the default only where several networks share a DHT. */
  namespace?: string
  /** Least time between two announcements of roots. */
  rootEveryMs?: number
}

export interface KadDiscoveryComponents {
  network: Pick<Libp2pNetwork, 'node' | 'neighbours' | 'peerId'>
  clock: Clock
  random: Random
  log: Log
}

const textOf = (multiaddrs: readonly Multiaddr[]): string[] => [...new Set(multiaddrs.map((it) => it.toString()))]

/** js kad-dht keeps records of sha2-256 multihashes only. */
export function rendezvousCid(namespace: string): CID {
  const digest = createHash('sha256').update(namespace).digest()
  return CID.createV1(codecs.raw, Digest.create(hashes.sha256, digest))
}

export class KadDiscovery implements Discovery {
  readonly #network: KadDiscoveryComponents['network']
  readonly #clock: Clock
  readonly #random: Random
  readonly #log: Log
  readonly #rendezvous: CID
  readonly #rootEveryMs: number
  readonly #stopping = new AbortController()
  /** Oldest first; taken from the end. */
  readonly #roots = new Map<string, CID>()
  readonly #rootsDone = new Set<string>()
  readonly #firstAnnounced = Promise.withResolvers<void>()
  #announcing: Promise<void> | undefined
  #announcingRoots: Promise<void> | undefined

  constructor({ network, clock, random, log }: KadDiscoveryComponents, init: KadDiscoveryInit = {}) {
    this.#network = network
    this.#clock = clock
    this.#random = random
    this.#log = log.child('discovery')
    this.#rendezvous = rendezvousCid(init.namespace ?? providersNamespace)
    this.#rootEveryMs = init.rootEveryMs ?? rootEveryMsDefault
  }

  /** Resolves after the first announcement that reached somebody. */
  get announced(): Promise<void> {
    return this.#firstAnnounced.promise
  }

  announceProvider(): void {
    this.#announcing ??= this.#untilStopped('announcing', (signal) => this.#announceLoop(signal))
  }

  announceRoot(cid: CID): void {
    check(cid.multihash.code === hashes.sha256, 'only sha2-256 CIDs can be announced')
    const key = cid.toString()
    if (this.#rootsDone.has(key)) return
    this.#roots.delete(key) // to the end: newest first
    this.#roots.set(key, cid)
    if (this.#roots.size > rootsQueuedMax) {
      const [oldest] = this.#roots.keys()
      this.#roots.delete(oldest!)
    }
    this.#announcingRoots ??= this.#untilStopped('announcing roots', (signal) => this.#rootLoop(signal))
  }

  findProviders(signal?: AbortSignal): AsyncGenerator<PeerAddress> {
    return this.#findHolders(this.#rendezvous, signal)
  }

  async *findRoot(cid: CID, signal?: AbortSignal): AsyncGenerator<PeerAddress> {
    if (cid.multihash.code === hashes.sha256) yield* this.#findHolders(cid, signal)
  }

  async *#findHolders(cid: CID, signal?: AbortSignal): AsyncGenerator<PeerAddress> {
    const ended = AbortSignal.any([
      this.#stopping.signal,
      AbortSignal.timeout(lookupMsMax),
      ...(signal === undefined ? [] : [signal])
    ])
    const seen = new Set<string>()
    try {
      for await (const { id, multiaddrs } of this.#network.node.contentRouting.findProviders(cid, {
        signal: ended
      })) {
        const peerId = id.toString()
        if (seen.has(peerId) || peerId === this.#network.peerId) continue
        if (seen.size >= foundMax) return
        seen.add(peerId)
        yield { peerId, addresses: textOf(multiaddrs) }
      }
    } catch (error) {
      // A search that was cut short has found what it has found; that nobody is there yet is an answer too.
      this.#log.debug('a search ended early', { found: seen.size, error: messageOf(error) })
    }
  }

  async findPeer(peerId: string, signal?: AbortSignal): Promise<PeerAddress | undefined> {
    const ended = AbortSignal.any([
      this.#stopping.signal,
      AbortSignal.timeout(lookupMsMax),
      ...(signal === undefined ? [] : [signal])
    ])
    try {
      // The peer store answers first otherwise, with the very addresses that have gone stale.
      const { multiaddrs } = await this.#network.node.peerRouting.findPeer(peerIdFromString(peerId), {
        signal: ended,
        useCache: false
      })
      return { peerId, addresses: textOf(multiaddrs) }
    } catch (error) {
      this.#log.debug('peer not found', { peerId, error: messageOf(error) })
      return undefined // not found, or not in time
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('discovery stops'))
    await Promise.all([this.#announcing, this.#announcingRoots])
  }

  async #announceLoop(signal: AbortSignal): Promise<void> {
    let reached = 0
    await this.#untilSettled(signal)
    for (;;) {
      const neighbours = this.#network.neighbours
      const isDone = neighbours > 0 && (await this.#provide(this.#rendezvous, signal))
      if (isDone) {
        this.#firstAnnounced.resolve()
        this.#log.debug('announced', { neighbours })
      }
      const isGrowing = this.#network.neighbours > neighbours
      if (isDone) reached = neighbours
      const waitMs = isDone ? (isGrowing ? announceGrowingMs : announceEveryMs) : announceRetryMs
      await this.#waitForNews(waitMs * (0.75 + this.#random.next() / 2), reached, signal)
    }
  }

  /** Until there are neighbours, and no more of them come, or not for long. */
  async #untilSettled(signal: AbortSignal): Promise<void> {
    let most = 0
    for (let polls = 0, quiet = 0; quiet < settledPolls && polls < settleMsMax / settlePollMs; ) {
      await this.#clock.sleep(settlePollMs, signal)
      const { neighbours } = this.#network
      if (neighbours === 0) continue
      polls++
      quiet = neighbours > most ? 0 : quiet + 1
      most = Math.max(most, neighbours)
    }
  }

  /** Sleeps, but not through the arrival of the first neighbours: a node that starts a network is alone at first. */
  async #waitForNews(ms: number, reached: number, signal: AbortSignal): Promise<void> {
    let left = ms
    while (left > 0) {
      const step = Math.min(left, reached === 0 ? announceRetryMs / 4 : announceGrowingMs)
      await this.#clock.sleep(step, signal)
      left -= step
      const { neighbours } = this.#network
      if (reached === 0 ? neighbours > 0 : neighbours >= 2 * reached) return
    }
  }

  async #rootLoop(signal: AbortSignal): Promise<void> {
    for (;;) {
      const newest = [...this.#roots].at(-1)
      if (newest !== undefined && this.#network.neighbours > 0) {
        const [key, cid] = newest
        this.#roots.delete(key)
        if (await this.#provide(cid, signal)) this.#rememberDone(key)
        else if (this.#roots.size < rootsQueuedMax) this.#roots.set(key, cid)
      }
      await this.#clock.sleep(this.#rootEveryMs * (0.75 + this.#random.next() / 2), signal)
    }
  }

  #rememberDone(key: string): void {
    this.#rootsDone.add(key)
    if (this.#rootsDone.size <= rootsDoneMax) return
    const [oldest] = this.#rootsDone
    this.#rootsDone.delete(oldest!)
  }

  async #provide(cid: CID, signal: AbortSignal): Promise<boolean> {
    try {
      await withDeadline(this.#clock, provideMsMax, signal, (deadline) =>
        this.#network.node.contentRouting.provide(cid, { signal: deadline })
      )
      return true
    } catch (error) {
      signal.throwIfAborted()
      this.#log.debug('an announcement failed', { cid: cid.toString(), error: messageOf(error) })
      return false
    }
  }

  async #untilStopped(name: string, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { signal } = this.#stopping
    try {
      await work(signal)
    } catch (error) {
      if (!signal.aborted) this.#log.error(`${name} ended`, { error: messageOf(error) })
    }
  }
}
