/**
 * Who the providers are, as one gateway knows them: found through discovery, their offers signed, their behaviour
 * measured. An address is a hint, a peer id is the identity; what a provider did is kept by kind, since slow is not
 * lying and offline is not losing.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { type ErrorCode, HoldfastError, messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { Offer } from '../market/offer.ts'
import type { PeerAddress } from '../net/network.ts'
import type { Discovery } from './discovery.ts'

export interface ProviderTarget {
  peerId: string
  dataUrls: readonly string[]
  addresses: readonly string[]
}

/** `unknown`: seen in an earlier run, not asked yet. `contained`: it let requests time out, and rests for a while. */
export type ProviderState = 'online' | 'offline' | 'contained' | 'unknown'

/** What became of one request to a provider. */
export type RequestOutcome = 'ok' | 'offline' | 'timeout' | 'missing' | 'wrong' | 'refused' | 'full' | 'unknown'

export interface ProviderStatus extends ProviderTarget {
  state: ProviderState
  domain: string
  version: string
  capacityBytes: number
  freeBytes: number
  price: number
  accepting: boolean
  /** It leaves, and hands over what it has. */
  draining: boolean
  /** Milliseconds since the Unix epoch; 0 when never seen by this process. */
  lastSeenAt: number
  /** Moving average of answered requests. */
  latencyMs: number | null
  outcomes: Record<RequestOutcome, number>
}

export interface KnownProvider {
  peerId: string
  dataUrls: string[]
  addresses: string[]
  domain: string
  lastSeenAt: number
}

export interface Trust {
  /** 0 to 1, for placement. */
  weight: number
  /** `closed`: new shards only where nobody else can take them; `suspended`: where no closed one can either. Both are read last. */
  standing: 'vetted' | 'vetting' | 'closed' | 'suspended'
  /** Suspended, and loses most of what it has been asked for since: it gets nothing at all. */
  isLosing?: boolean
}

export interface DirectoryComponents {
  discovery: Discovery
  getOffer: (provider: ProviderTarget, signal?: AbortSignal) => Promise<Offer>
  clock: Clock
  random: Random
  log: Log
  /** What audits have shown of a provider. */
  trustOf?: (peerId: string) => Trust
}

export interface DirectoryInit {
  /** Time between searches for new providers. */
  refreshMs?: number
  /** How long a search, and one provider's answer with its offer, may take. */
  searchTimeoutMs?: number
  offerTimeoutMs?: number
  /** Most providers kept. */
  providersMax?: number
}

interface Entry {
  target: ProviderTarget
  offer?: Offer
  /** What it fails with, by its offer or by what an earlier run knew; empty while that is not known. */
  domains: string[]
  state: ProviderState
  lastSeenAt: number
  /** Not asked again before this, while offline or contained. */
  retryAt: number
  failuresInARow: number
  /** When the first of them was. */
  failingSince: number
  latencyMs: number | null
  latencyDeviationMs: number
  outcomes: Record<RequestOutcome, number>
  probing: boolean
  /** It has connected since it was last asked: whatever comes of that, it is there now. */
  hasCome: boolean
}

const firstRetryMs = 2 * secondMs
const retryMaxMs = 5 * minuteMs
/** Whoever comes back is to be known soon: asked again after a twentieth of its absence, and at least this often at first. */
const retryAbsenceShare = 1 / 20
const retryRecentMaxMs = 20 * secondMs
const offersAtOnce = 16
/** Of those who connect, so many are asked at once; a search finds the others. */
const comersAtOnce = 16
const trusted: Trust = { weight: 1, standing: 'vetted' }
/** Whoever audits speak against is hedged after this share of the time that others have. */
const doubtfulLateShare = 1 / 2

export function outcomeOf(error: unknown): RequestOutcome {
  const code: ErrorCode | undefined = error instanceof HoldfastError ? error.code : undefined
  switch (code) {
    case 'OFFLINE':
      return 'offline'
    case 'TIMEOUT':
      return 'timeout'
    case 'MISSING':
      return 'missing'
    case 'WRONG':
      return 'wrong'
    case 'REFUSED':
      return 'refused'
    case 'NO_SPACE':
      return 'full'
    default:
      return 'unknown'
  }
}

/** Nothing is known of it but its name: no offer, now or in an earlier run. */
const isStrange = ({ offer, target, probing }: Entry): boolean =>
  offer === undefined && target.dataUrls.length === 0 && !probing

const noOutcomes = (): Record<RequestOutcome, number> => ({
  ok: 0,
  offline: 0,
  timeout: 0,
  missing: 0,
  wrong: 0,
  refused: 0,
  full: 0,
  unknown: 0
})

export class ProviderDirectory {
  readonly #components: DirectoryComponents
  readonly #init: Required<DirectoryInit>
  readonly #entries = new Map<string, Entry>()
  readonly #listeners = new Set<(peerId: string, state: ProviderState) => void>()
  #searched: Promise<void> | undefined
  #comers = 0

  constructor(components: DirectoryComponents, init: DirectoryInit = {}) {
    this.#components = components
    this.#init = {
      refreshMs: 10 * secondMs,
      searchTimeoutMs: 8 * secondMs,
      offerTimeoutMs: 4 * secondMs,
      providersMax: 20_000,
      ...init
    }
  }

  /** Takes over what an earlier run knew: hints until each has answered. */
  remember(known: readonly KnownProvider[]): void {
    for (const { peerId, dataUrls, addresses, domain } of known) {
      if (this.#entries.has(peerId)) continue
      this.#add({ peerId, dataUrls, addresses }, domain === '' ? [] : domainLabels({ domain, dataUrls }))
    }
  }

  onChange(listener: (peerId: string, state: ProviderState) => void): void {
    this.#listeners.add(listener)
  }

  /** Searches and asks for offers until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#components
    while (!signal.aborted) {
      try {
        await this.refresh(signal)
      } catch (error) {
        if (signal.aborted) return
        log.warn('provider search failed', { error: messageOf(error) })
      }
      // Jitter, so that gateways started together do not search together.
      const pauseMs = this.#init.refreshMs * (0.75 + random.next() / 2)
      await clock.sleep(pauseMs, signal).catch(() => {}) // aborted: the loop ends
    }
  }

  /** Resolves once a first search has ended: until then few providers known does not mean few there. */
  async settled(signal?: AbortSignal): Promise<void> {
    await (this.#searched ?? this.refresh(signal))
  }

  /** One search for providers, then an offer from each that is due. */
  async refresh(signal?: AbortSignal): Promise<void> {
    const searching = this.#refresh(signal)
    this.#searched ??= searching.catch(() => {
      this.#searched = undefined // the next caller of settled() tries again
    })
    await searching
  }

  async #refresh(signal?: AbortSignal): Promise<void> {
    const { clock, discovery, log } = this.#components
    const asked = new Set<string>()
    const due = [...this.#entries.values()].filter((entry) => entry.state === 'unknown' || entry.retryAt <= clock.now())
    const probe = async (peerId: string): Promise<void> => {
      if (asked.has(peerId)) return
      asked.add(peerId)
      await this.#probe(peerId, signal)
    }
    const known = forEachLimit(due, offersAtOnce, (entry) => probe(entry.target.peerId))
    const found: Promise<void>[] = []
    try {
      await withDeadline(clock, this.#init.searchTimeoutMs, signal, async (inner) => {
        for await (const peer of discovery.findProviders(inner)) {
          const isNew = this.#meet(peer)
          if (isNew && found.length < this.#init.providersMax) found.push(probe(peer.peerId))
        }
      })
    } catch (error) {
      if (signal?.aborted === true) throw error
      log.debug('provider search ended early', { error: messageOf(error) })
    }
    await known
    await Promise.all(found)
  }

  /**
   * Asks peers that somebody else named for their offers, so that they are known like those that a search finds. Only a
   * signed offer counts; who gives none is forgotten.
   */
  async introduce(peers: readonly PeerAddress[], signal?: AbortSignal): Promise<void> {
    const strangers = peers.filter((peer) => !this.#entries.has(peer.peerId) && this.#meet(peer))
    await forEachLimit(strangers, offersAtOnce, async ({ peerId }) => {
      await this.#probe(peerId, signal)
      this.#forgetStranger(peerId)
    })
  }

  has(peerId: string): boolean {
    return this.#entries.has(peerId)
  }

  /**
   * A provider has connected to this node. One that is not online is asked for its offer now: whoever is back is worth more
   * than the wait for the next search, and its connection shows that asking is not in vain. Never rejects.
   */
  async meet(peer: PeerAddress, signal?: AbortSignal): Promise<void> {
    if (this.#entries.get(peer.peerId)?.state === 'online') return
    const isStranger = !this.has(peer.peerId)
    if (isStranger && this.#comers >= comersAtOnce) return
    this.#meet(peer)
    const entry = this.#entries.get(peer.peerId)
    if (entry === undefined) return // there are too many already
    entry.hasCome = true
    if (entry.probing || this.#comers >= comersAtOnce) return
    this.#comers++
    try {
      await this.#probe(peer.peerId, signal)
    } finally {
      this.#comers--
      if (isStranger) this.#forgetStranger(peer.peerId)
    }
  }

  /** Anybody can connect, under a new name each time: whoever has given no offer leaves nothing here to be asked again. */
  #forgetStranger(peerId: string): void {
    const entry = this.#entries.get(peerId)
    if (entry !== undefined && isStrange(entry)) this.#entries.delete(peerId)
  }

  /** @returns whether it should be asked now */
  #meet(peer: PeerAddress): boolean {
    const entry = this.#entries.get(peer.peerId)
    if (entry === undefined) {
      if (this.#entries.size >= this.#init.providersMax && !this.#makeRoom()) return false
      this.#add({ peerId: peer.peerId, dataUrls: [], addresses: peer.addresses })
      return true
    }
    if (peer.addresses.length > 0) entry.target = { ...entry.target, addresses: peer.addresses }
    return entry.state === 'unknown' || (entry.state !== 'online' && entry.retryAt <= this.#components.clock.now())
  }

  /** Forgets one of those that were named, and never gave an offer. */
  #makeRoom(): boolean {
    for (const [peerId, entry] of this.#entries) if (isStrange(entry)) return this.#entries.delete(peerId)
    return false
  }

  #add(target: ProviderTarget, domains: string[] = []): void {
    this.#entries.set(target.peerId, {
      target,
      domains,
      state: 'unknown',
      lastSeenAt: 0,
      retryAt: 0,
      failuresInARow: 0,
      failingSince: 0,
      latencyMs: null,
      latencyDeviationMs: 0,
      outcomes: noOutcomes(),
      probing: false,
      hasCome: false
    })
  }

  /** Asks one provider for its offer, once more if it connects meanwhile. */
  async #probe(peerId: string, signal?: AbortSignal): Promise<void> {
    const entry = this.#entries.get(peerId)
    if (entry === undefined || entry.probing) return
    entry.probing = true
    try {
      do {
        entry.hasCome = false
        await this.#ask(entry, signal)
      } while (entry.hasCome && entry.state !== 'online' && signal?.aborted !== true)
    } finally {
      entry.probing = false
    }
  }

  /** Where its address went stale, looks it up again first. */
  async #ask(entry: Entry, signal?: AbortSignal): Promise<void> {
    const { clock, discovery, log } = this.#components
    const { peerId } = entry.target
    try {
      const ask = (inner: AbortSignal): Promise<Offer> => this.#components.getOffer(entry.target, inner)
      // What is tried is remembered: a search under way may meanwhile bring the very addresses that are right.
      const tried = new Set(entry.target.addresses)
      let offer: Offer
      try {
        offer = await withDeadline(clock, this.#init.offerTimeoutMs, signal, ask)
      } catch (error) {
        signal?.throwIfAborted()
        const peer = await withDeadline(clock, this.#init.offerTimeoutMs, signal, (inner) =>
          discovery.findPeer(peerId, inner)
        )
        const addresses = [...new Set([...(peer?.addresses ?? []), ...entry.target.addresses])]
        if (addresses.every((address) => tried.has(address))) throw error
        entry.target = { ...entry.target, addresses }
        offer = await withDeadline(clock, this.#init.offerTimeoutMs, signal, ask)
      }
      this.#accept(entry, offer)
    } catch (error) {
      if (signal?.aborted === true) return
      log.debug('provider did not answer with an offer', { provider: peerId, error: messageOf(error) })
      this.#fail(entry, outcomeOf(error) === 'timeout' ? 'contained' : 'offline')
    }
  }

  #accept(entry: Entry, offer: Offer): void {
    if (entry.offer !== undefined && offer.issuedAt < entry.offer.issuedAt) return // a replayed old offer
    const now = this.#components.clock.now()
    entry.offer = offer
    entry.domains = domainLabels(offer)
    entry.target = {
      peerId: offer.peerId,
      dataUrls: offer.dataUrls,
      addresses: offer.addresses.length > 0 ? offer.addresses : entry.target.addresses
    }
    entry.lastSeenAt = now
    entry.failuresInARow = 0
    // Offers go stale (free space, draining): ask again after a while even though all is well.
    entry.retryAt = now + minuteMs / 2
    this.#change(entry, 'online')
  }

  #fail(entry: Entry, state: 'offline' | 'contained'): void {
    // All requests under way fail together when a provider goes: that is one failure, and no reason to wait for longer.
    if (entry.state === state && this.#components.clock.now() < entry.retryAt) return
    const now = this.#components.clock.now()
    if (entry.failuresInARow++ === 0) entry.failingSince = now
    const mostMs = Math.min(retryMaxMs, Math.max(retryRecentMaxMs, (now - entry.failingSince) * retryAbsenceShare))
    const backoffMs = Math.min(mostMs, firstRetryMs * 2 ** Math.min(entry.failuresInARow - 1, 16))
    entry.retryAt = now + backoffMs * (0.75 + this.#components.random.next() / 2)
    this.#change(entry, state)
  }

  #change(entry: Entry, state: ProviderState): void {
    if (entry.state === state) return
    const before = entry.state
    entry.state = state
    this.#components.log.info('provider changed state', { provider: entry.target.peerId, from: before, to: state })
    for (const listener of this.#listeners) listener(entry.target.peerId, state)
  }

  /** What became of a request to a provider. `elapsedMs` where it answered. */
  report(peerId: string, outcome: RequestOutcome, elapsedMs?: number): void {
    const entry = this.#entries.get(peerId)
    if (entry === undefined) return
    entry.outcomes[outcome]++
    if (outcome === 'offline') this.#fail(entry, 'offline')
    else if (outcome === 'timeout') this.#fail(entry, 'contained')
    else if (outcome !== 'unknown') {
      entry.lastSeenAt = this.#components.clock.now()
      if (entry.offer !== undefined) {
        entry.failuresInARow = 0
        this.#change(entry, 'online')
      }
      // A full provider gets nothing more until its next offer says that there is room again.
      if (outcome === 'full' && entry.offer !== undefined) entry.offer = { ...entry.offer, freeBytes: 0 }
    }
    if (outcome === 'ok' && elapsedMs !== undefined) this.#measure(entry, elapsedMs)
  }

  /** Mean and deviation as TCP estimates its round trip (RFC 6298). */
  #measure(entry: Entry, elapsedMs: number): void {
    if (entry.latencyMs === null) {
      entry.latencyMs = elapsedMs
      entry.latencyDeviationMs = elapsedMs / 2
      return
    }
    const error = elapsedMs - entry.latencyMs
    entry.latencyMs += error / 8
    entry.latencyDeviationMs += (Math.abs(error) - entry.latencyDeviationMs) / 4
  }

  /**
   * When a request to this provider is late, by its own history; half of that where audits speak against it, since a
   * wait for it is more often in vain. Not in vetting: in a new network that is everybody, and says nothing.
   */
  lateAfterMs(peerId: string): number {
    const standing = this.standing(peerId)
    const share = standing === 'closed' || standing === 'suspended' ? doubtfulLateShare : 1
    const entry = this.#entries.get(peerId)
    if (entry === undefined || entry.latencyMs === null) return share * secondMs
    return share * Math.min(3 * secondMs, Math.max(150, entry.latencyMs + 4 * entry.latencyDeviationMs))
  }

  /** What audits have shown of it. */
  standing(peerId: string): Trust['standing'] {
    return this.#trustOf(peerId).standing
  }

  #trustOf(peerId: string): Trust {
    return this.#components.trustOf?.(peerId) ?? trusted
  }

  target(peerId: string): ProviderTarget | undefined {
    const target = this.#entries.get(peerId)?.target
    return target !== undefined && target.dataUrls.length > 0 ? target : undefined
  }

  state(peerId: string): ProviderState {
    return this.#entries.get(peerId)?.state ?? 'unknown'
  }

  /** How long an offline provider has not been seen, milliseconds; without end where this process never saw it. Else 0. */
  absentMs(peerId: string): number {
    const entry = this.#entries.get(peerId)
    if (entry?.state !== 'offline') return 0
    return entry.lastSeenAt === 0 ? Number.POSITIVE_INFINITY : this.#components.clock.now() - entry.lastSeenAt
  }

  domainsOf(peerId: string): string[] {
    const entry = this.#entries.get(peerId)
    return entry === undefined || entry.domains.length === 0 ? [`peer:${peerId}`] : entry.domains
  }

  /** Whether it said that it leaves. */
  isDraining(peerId: string): boolean {
    return this.#entries.get(peerId)?.offer?.draining ?? false
  }

  /** It said so otherwise than by its offer, which may be half a minute old; the next one decides again. */
  saidToDrain(peerId: string): void {
    const entry = this.#entries.get(peerId)
    if (entry?.offer !== undefined) entry.offer = { ...entry.offer, accepting: false, draining: true }
  }

  /**
   * Where new shards may go.
   *
   * @param withLastResort those too that should get none while others can take them: for rebuilding what is lost, which
   * is better off with a provider that has lost a few shards than nowhere, and with one that has lost many if all have; not
   * with one that loses what it gets
   */
  candidates(
    withLastResort = false
  ): Array<{ peerId: string; domains: string[]; freeBytes: number; score: number; lastResort: 0 | 1 | 2 }> {
    const found = []
    for (const { target, offer, domains, state, outcomes, latencyMs } of this.#entries.values()) {
      if (state !== 'online' || offer === undefined || !offer.accepting || offer.draining || offer.freeBytes === 0)
        continue
      const trust = this.#trustOf(target.peerId)
      const lastResort: 0 | 1 | 2 = trust.standing === 'suspended' ? 2 : trust.standing === 'closed' ? 1 : 0
      if (trust.isLosing === true || (lastResort > 0 && !withLastResort)) continue
      // Its weight is nothing; among its like, what requests to it have shown is left.
      const weight = lastResort > 0 ? 1 : trust.weight
      const good = outcomes.ok + 1
      const bad = 10 * (outcomes.missing + outcomes.wrong) + outcomes.timeout + outcomes.offline
      // Reliability first; latency decides between equals (halved at one second).
      const score = weight * (good / (good + bad)) * (1 / (1 + (latencyMs ?? 100) / secondMs))
      found.push({ peerId: target.peerId, domains, freeBytes: offer.freeBytes, score, lastResort })
    }
    return found
  }

  list(): ProviderStatus[] {
    return [...this.#entries.values()].map(({ target, offer, state, lastSeenAt, latencyMs, outcomes }) => ({
      ...target,
      state,
      domain: offer?.domain ?? '',
      version: offer?.version ?? '',
      capacityBytes: offer?.capacityBytes ?? 0,
      freeBytes: offer?.freeBytes ?? 0,
      price: offer?.price ?? 0,
      accepting: offer?.accepting ?? false,
      draining: offer?.draining ?? false,
      lastSeenAt,
      latencyMs,
      outcomes: { ...outcomes }
    }))
  }
}

/**
 * What a provider fails with: its operator as it names itself, and the network it is in (/24 or /48), for addresses
 * that are in anybody's network: a loopback or private prefix says nothing about who shares it.
 */
export function domainLabels(offer: Pick<Offer, 'domain' | 'dataUrls'>): string[] {
  const labels = new Set([`op:${offer.domain}`])
  for (const url of offer.dataUrls) {
    const prefix = networkPrefix(new URL(url).hostname)
    if (prefix !== undefined) labels.add(`net:${prefix}`)
  }
  return [...labels]
}

function networkPrefix(host: string): string | undefined {
  const v4 = /^(\d+)\.(\d+)\.(\d+)\.\d+$/.exec(host)
  if (v4 !== null) {
    const [a, b] = [Number(v4[1]), Number(v4[2])]
    const isPrivate =
      a === 10 ||
      a === 127 ||
      a === 0 ||
      (a === 172 && b >= 16 && b < 32) ||
      (a === 192 && b === 168) ||
      (a === 169 && b === 254)
    return isPrivate ? undefined : `${v4[1]}.${v4[2]}.${v4[3]}.0/24`
  }
  const v6 = /^\[([0-9a-f:]+)\]$/i.exec(host)
  // URL has normalised the address; global unicast (2000::/3) writes its first three groups out, up to a `::`.
  if (v6 !== null && /^[23]/.test(v6[1]!)) {
    const head = v6[1]!.split('::')[0]!.split(':')
    return `${[head[0] ?? '0', head[1] ?? '0', head[2] ?? '0'].join(':')}::/48`
  }
  return undefined
}
