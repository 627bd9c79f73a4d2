/**
 * The gateway's side of handing over: where a provider that leaves, or refuses a content, is to bring what it keeps, and
 * the proof that it arrived. The shard travels once, from provider to provider, where rebuilding it would read `k`.
 *
 * - A place is chosen as for any shard: `place`, with the segment's other holders as they are. The choice is the ticket
 *   that is signed for it, so nothing here need survive a crash: the provider asks again, or shows its ticket.
 * - Whoever says that a block has been placed is not believed. The index changes once the new holder has said that it
 *   keeps the block under our lease and has proved that it has it; until then the old one is the holder, and its lease is
 *   not touched. A provider that says so and has not done it has lost its turn, and nothing else.
 * - A segment is claimed while a shard of it is on its way, so that repair does not rebuild what is about to arrive.
 * - Asked are the index and, for proofs, the holders; no socket is opened here, so that the simulator can drive it.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit, Semaphore } from '../base/concurrency.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { limits, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { CID } from '../content/cid.ts'
import { isEvidence } from '../custody/outcome.ts'
import type { Signer, VerifySignature } from '../market/offer.ts'
import { readTicket, signTicket, type Ticket, ticketLifeMs } from '../market/ticket.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { StoredSegment } from '../metadata/records.ts'
import { storedShardBytes } from '../object/segment-codec.ts'
import { type Candidate, domainShardsMax, place } from '../placement/place.ts'
import type {
  DoneRequest,
  HandOverAnswer,
  HandOverPlace,
  HandOverRequest,
  PlacedBlock,
  WhereRequest
} from '../transfer/hand-over-protocol.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { peerOutcomeOf } from '../transfer/scatter.ts'
import type { ProveHolding } from './prove-holding.ts'

export interface HandOverComponents {
  index: MetadataIndex
  client: Pick<ProviderClient, 'renewLeases' | 'releaseLeases'>
  prove: ProveHolding
  /** With those too that get new shards only where nobody else can take them: they are better than losing one. */
  peers: Peers
  guard: LeaseGuard
  /** The gateway: signs tickets. */
  signer: Signer
  verifySignature: VerifySignature
  clock: Clock
  random: Random
  log: Log
  /** Whether the segment's upload is still placing shards of it: where those go is not in the index yet. */
  isSettling: (segment: StoredSegment) => boolean
  /** A provider asks since it leaves. */
  onDraining?: (provider: string) => void
  /** Leases wait to be ended. */
  onReleases?: () => void
}

/** For a batch on a slow line; a provider that dies in the middle holds up its segments' repair for as long. */
const claimMs = 2 * minuteMs
/**
 * A provider that asks again and again, and brings nothing, holds nobody up: for so long after the first claim, of which
 * there may be more until that ends, a segment is not kept for it.
 */
const claimRestMs = 20 * minuteMs
/** When to ask again: after somebody else's work on the segment; when a provider may have come, or have room. */
const busyMs = 5 * secondMs
const nobodyMs = 30 * secondMs
/** Segments looked at for one block: of what very many share the rest is asked for again. */
const segmentsPerBlock = 32
/** Requests worked on at once, and waiting. Of one provider there is one at a time. */
const answersAtOnce = 4
const answersWaiting = 64
/** The asker waits for ten seconds. */
const verifyMsMax = 6 * secondMs
const holdersAtOnce = 8
/** Places given and not heard of again: forgotten when their tickets end, or the oldest of so many. */
const openMax = 8192
/** A late word is welcome, as what it says is verified; a ticket of last year would be a strange one. */
const lateMsMax = 60 * minuteMs

/** One shard of a segment that is at the asking provider. */
interface Part {
  segment: StoredSegment
  index: number
}

interface Open {
  to: string
  until: number
}

const lost = new Set(['unknown', 'missing', 'wrong', 'withdrawn'])

export class HandOver {
  readonly #components: HandOverComponents
  readonly #answering = new Set<string>()
  readonly #turns = new Semaphore(answersAtOnce, answersWaiting)
  /** By `segment index`; oldest first. So that nothing is sent twice that was asked for twice. */
  readonly #open = new Map<string, Open>()
  /** When a segment was first claimed for a provider, by `provider segment`; oldest first. */
  readonly #claimedAt = new Map<string, number>()

  constructor(components: HandOverComponents) {
    this.#components = components
  }

  /**
   * @param from the provider that asks, as the connection proves
   * @throws HoldfastError `OVERLOADED`
   */
  async answer(from: string, request: HandOverRequest, signal?: AbortSignal): Promise<HandOverAnswer> {
    if (this.#answering.has(from)) throw new HoldfastError('OVERLOADED', 'one request at a time')
    this.#answering.add(from)
    try {
      return await this.#turns.run(
        async () =>
          request.op === 'where' ? await this.#where(from, request, signal) : await this.#done(from, request, signal),
        signal
      )
    } finally {
      this.#answering.delete(from)
    }
  }

  async #where(from: string, request: WhereRequest, signal?: AbortSignal): Promise<HandOverAnswer> {
    const { index, onDraining } = this.#components
    if (request.reason === 'drain') onDraining?.(from)
    const cids = distinct(request.cids)
    const parts = await this.#partsOf(from, cids)
    const needless = cids.filter((cid) => !parts.has(cid.toString()))
    const released = await this.#release(from, needless, signal)
    const claimed = await this.#claim(from, [...parts.values()].flat())
    const chooser = new Chooser(this.#components, { from, avoid: request.avoid, refusers: await this.#refusers(parts) })
    const answers = new Map<string, HandOverPlace>()
    const used = new Set<number>()
    for (const cid of cids) {
      const key = cid.toString()
      const free = (parts.get(key) ?? []).filter(({ segment }) => claimed.has(segment.id))
      if (released.has(key)) answers.set(key, { release: true })
      else if (free.length === 0) answers.set(key, { keep: true, why: 'busy', retryAfterMs: busyMs })
      else answers.set(key, await this.#placeFor(from, cid, free, chooser, used))
    }
    await index.unclaimSegments(
      [...claimed].filter((id) => !used.has(id)),
      claimantOf(from)
    )
    return { v: 1, places: request.cids.map((cid) => answers.get(cid.toString())!) }
  }

  /** Where one block goes. Of several segments that have it the first decides; those it does not suit ask again. */
  async #placeFor(
    from: string,
    cid: CID,
    parts: readonly Part[],
    chooser: Chooser,
    used: Set<number>
  ): Promise<HandOverPlace> {
    const { peers, signer, clock, index } = this.#components
    const first = parts[0]!
    const before = this.#openFor(first)
    const held = this.#heldBeside(first)
    const again = before !== undefined && chooser.suits(before.to, first, held)
    const to = again ? before.to : chooser.choose(first, held)
    const target = to === undefined ? undefined : peers.target(to)
    if (to === undefined || target === undefined) return { keep: true, why: 'nobody', retryAfterMs: nobodyMs }
    if (before !== undefined && !again) await index.queueReleases([{ provider: before.to, cid }]) // it may have it
    const notAfter = clock.now() + ticketLifeMs
    const suited = parts.filter((part) => part === first || chooser.suits(to, part, this.#heldBeside(part)))
    for (const part of suited) {
      this.#remember(part, { to, until: notAfter })
      if (this.#isKeptFor(from, part)) used.add(part.segment.id)
    }
    const ticket: Ticket = {
      ...{ v: 1, owner: signer.peerId, from, to, cid },
      ...{ termMs: limits.provisionalLeaseMs, notAfter }
    }
    return { to: boundedRef(target), ticket: await signTicket(ticket, signer), again }
  }

  async #done(from: string, { placed }: DoneRequest, signal?: AbortSignal): Promise<HandOverAnswer> {
    const byHolder = new Map<string, PlacedBlock[]>()
    for (const one of placed) {
      if (await this.#isOurs(from, one)) byHolder.set(one.to, [...(byHolder.get(one.to) ?? []), one])
    }
    const accepted = new Set<string>()
    await forEachLimit([...byHolder], holdersAtOnce, async ([to, blocks]) => {
      const cids = distinct(blocks.map(({ cid }) => cid))
      for (const key of await this.#accept(from, to, cids, signal)) accepted.add(`${key} ${to}`)
    })
    if (accepted.size > 0) this.#components.onReleases?.()
    return { v: 1, accepted: placed.map(({ cid, to }) => accepted.has(`${cid} ${to}`)) }
  }

  /** Whether we chose that place: the ticket is ours, and for this. */
  async #isOurs(from: string, { cid, to, ticket: bytes }: PlacedBlock): Promise<boolean> {
    const { signer, verifySignature, clock, log } = this.#components
    try {
      const ticket = await readTicket(bytes, verifySignature)
      const isThis = ticket.from === from && ticket.to === to && ticket.cid.equals(cid)
      return isThis && ticket.owner === signer.peerId && ticket.notAfter + lateMsMax >= clock.now()
    } catch (error) {
      log.info('a hand-over without a ticket of ours', { from, to, cid, error: messageOf(error) })
      return false
    }
  }

  /** Makes `to` the holder of those of the blocks that it proves to have; returns their CIDs. */
  async #accept(from: string, to: string, cids: readonly CID[], signal?: AbortSignal): Promise<Set<string>> {
    const { guard, index, clock, log } = this.#components
    // From here to the commit nothing that `to` has is released: a release that waits may be of this very block.
    const holds = await Promise.all(cids.map((cid) => guard.hold(to, cid)))
    let claimed = new Set<number>()
    try {
      claimed = await this.#claim(from, [...(await this.#partsOf(from, cids)).values()].flat())
      // As they are now that nobody else works on them.
      const parts = await this.#partsOf(from, cids)
      const accepted = new Set<string>()
      const wanted: CID[] = []
      const suited = await this.#suited(from, to, cids, parts, claimed)
      for (const cid of cids) {
        const key = cid.toString()
        const isBusy = parts.get(key)?.every(({ segment }) => !claimed.has(segment.id)) ?? false
        if (suited.has(key)) wanted.push(cid)
        if (!parts.has(key)) accepted.add(key) // said before, and the answer was lost; or nobody needs it any more
        // Whatever does not go there is released there, unless something else needs it.
        if (!suited.has(key) && !isBusy) await index.queueReleases([{ provider: to, cid }])
      }
      const { proven, disproved } = await this.#verify(to, wanted, suited, signal)
      const at = clock.now()
      const moves = wanted
        .filter((cid) => proven.has(cid.toString()))
        .flatMap((cid) => suited.get(cid.toString())!.map((part) => ({ cid, part })))
      await index.placeShards(
        moves.map(({ cid, part }) => ({
          ...{ segmentId: part.segment.id, index: part.index, cid },
          ...{ provider: to, leaseUntil: at + limits.provisionalLeaseMs, at }
        }))
      )
      // Its lease was extended for the proof: what is not counted on is to be rubbish there. Whoever was only too busy to
      // prove it has another chance as long as its ticket lasts, or the block would travel twice.
      const isWaitedFor = (cid: CID): boolean =>
        !disproved.has(cid.toString()) && suited.get(cid.toString())!.some((part) => this.#openFor(part)?.to === to)
      const unproved = wanted.filter((cid) => !proven.has(cid.toString()) && !isWaitedFor(cid))
      await index.queueReleases(unproved.map((cid) => ({ provider: to, cid })))
      this.#forget([...moves.map(({ part }) => part), ...unproved.flatMap((cid) => suited.get(cid.toString())!)])
      for (const { cid } of moves) accepted.add(cid.toString())
      if (moves.length > 0) log.info('shards were handed over', { from, to, shards: moves.length })
      return accepted
    } finally {
      for (const letGo of holds) letGo()
      await index.unclaimSegments([...claimed], claimantOf(from))
    }
  }

  /** The shards of these blocks that may go to `to`, by CID; each segment as it is now. */
  async #suited(
    from: string,
    to: string,
    cids: readonly CID[],
    parts: ReadonlyMap<string, Part[]>,
    claimed: ReadonlySet<number>
  ): Promise<Map<string, Part[]>> {
    const chooser = new Chooser(this.#components, { from, avoid: [], refusers: await this.#refusers(parts) })
    const found = new Map<string, Part[]>()
    // Several blocks of one segment: what goes before in this very request counts.
    const taken = new Set<number>()
    for (const cid of cids) {
      const suited = (parts.get(cid.toString()) ?? []).filter(
        (part) =>
          claimed.has(part.segment.id) &&
          !taken.has(part.segment.id) &&
          chooser.suitsOnceThere(to, part, this.#heldBeside(part))
      )
      for (const { segment } of suited) taken.add(segment.id)
      if (suited.length > 0) found.set(cid.toString(), suited)
    }
    return found
  }

  /** Which of the blocks `to` keeps under our lease and proves to have, and which it shows not to have. */
  async #verify(
    to: string,
    cids: readonly CID[],
    suited: ReadonlyMap<string, Part[]>,
    signal?: AbortSignal
  ): Promise<{ proven: ReadonlySet<string>; disproved: ReadonlySet<string> }> {
    const { client, peers, prove, clock, log } = this.#components
    const target = peers.target(to)
    const proven = new Set<string>()
    const disproved = new Set<string>()
    if (target === undefined || cids.length === 0) return { proven, disproved }
    try {
      await withDeadline(clock, verifyMsMax, signal, async (inner) => {
        // What is not committed after all ends by itself, soon; what is, is renewed with the others.
        const terms = { termMs: limits.provisionalLeaseMs }
        const states = await client.renewLeases(target, cids, terms, inner)
        const kept = cids.filter((_, at) => states[at] === 'held')
        for (const [at, cid] of cids.entries()) if (states[at] !== 'held') disproved.add(cid.toString())
        const blocks = kept.map((cid) => ({ cid, bytes: blockBytesOf(suited.get(cid.toString())![0]!) }))
        const outcomes = await prove(target, blocks, inner)
        for (const [at, cid] of kept.entries()) {
          if (outcomes[at] === 'ok') proven.add(cid.toString())
          else if (isEvidence(outcomes[at] ?? 'unknown')) disproved.add(cid.toString())
        }
      })
      peers.report(to, disproved.size > 0 ? 'missing' : proven.size > 0 ? 'ok' : 'unknown')
      if (disproved.size > 0) {
        log.warn('what was said to be handed over is not there', { to, blocks: cids.length, missing: disproved.size })
      } else if (proven.size < cids.length) {
        log.info('what was said to be handed over is not proved yet', { to, blocks: cids.length, proved: proven.size })
      }
    } catch (error) {
      signal?.throwIfAborted()
      peers.report(to, peerOutcomeOf(error))
      log.info('a hand-over could not be verified', { to, error: messageOf(error) })
    }
    return { proven, disproved }
  }

  /** Ends the leases on what nothing needs; returns the CIDs. Nothing is kept of it, so strangers fill no table. */
  async #release(from: string, cids: readonly CID[], signal?: AbortSignal): Promise<Set<string>> {
    const { guard, client, peers, clock, log } = this.#components
    const target = peers.target(from)
    const claim = guard.claim(from, cids)
    try {
      // Looked up again: a write of it may have been committed just before the claim.
      const needed = await this.#partsOf(from, claim.cids)
      const needless = claim.cids.filter((cid) => !needed.has(cid.toString()))
      if (target === undefined || needless.length === 0) return new Set()
      await withDeadline(clock, verifyMsMax, signal, (inner) => client.releaseLeases(target, needless, inner))
      await this.#components.index.released(from, needless)
      return new Set(needless.map(String))
    } catch (error) {
      signal?.throwIfAborted()
      log.info('leases were not released', { provider: from, error: messageOf(error) })
      return new Set()
    } finally {
      claim.done()
    }
  }

  /** What the index says that `from` has of these blocks, lost or not: by CID, absent where it has no part. */
  async #partsOf(from: string, cids: readonly CID[]): Promise<Map<string, Part[]>> {
    const parts = new Map<string, Part[]>()
    for (const cid of cids) {
      const segments = await this.#components.index.listSegmentsWith(from, [cid], segmentsPerBlock, { evenLost: true })
      const found = segments.flatMap((segment) =>
        segment.shards.flatMap((shard, index): Part[] =>
          shard.provider === from && shard.cid.equals(cid) ? [{ segment, index }] : []
        )
      )
      if (found.length > 0) parts.set(cid.toString(), found)
    }
    return parts
  }

  async #claim(from: string, parts: readonly Part[]): Promise<Set<number>> {
    const { index, clock, isSettling } = this.#components
    const ids = new Set(parts.filter(({ segment }) => !isSettling(segment)).map(({ segment }) => segment.id))
    if (ids.size === 0) return new Set()
    const now = clock.now()
    const claim = { claimant: claimantOf(from), until: now + claimMs, now }
    return new Set(await index.claimSegments([...ids], claim))
  }

  /**
   * As `CID provider`: who refused any shard of a block's segment is not brought the block, as in a repair. Whoever refuses a
   * content has told of those parts only that it had.
   */
  async #refusers(parts: ReadonlyMap<string, readonly Part[]>): Promise<Set<string>> {
    const shardsOf = (key: string): CID[] =>
      parts.get(key)!.flatMap(({ segment }) => segment.shards.map(({ cid }) => cid))
    const known = await this.#components.index.listRefusals(distinct([...parts.keys()].flatMap(shardsOf)))
    const byCid = Map.groupBy(known, ({ cid }) => cid.toString())
    const refusers = new Set<string>()
    for (const key of parts.keys())
      for (const cid of shardsOf(key))
        for (const { provider } of byCid.get(cid.toString()) ?? []) refusers.add(`${key} ${provider}`)
    return refusers
  }

  /** Who has, or is being brought, other shards of the segment. */
  #heldBeside({ segment, index }: Part): string[] {
    const held = new Set<string>()
    for (const [at, { provider, state }] of segment.shards.entries()) {
      if (at === index) continue
      if (provider !== undefined && !lost.has(state)) held.add(provider)
      const open = this.#openFor({ segment, index: at })
      if (open !== undefined) held.add(open.to)
    }
    return [...held]
  }

  /**
   * Whether repair leaves the segment alone until `from` has had its time. Not where the shard is known to be lost there:
   * it is repair's, and what `from` may still have of it is welcome all the same.
   */
  #isKeptFor(from: string, { segment, index }: Part): boolean {
    const { state } = segment.shards[index]!
    if (state === 'missing' || state === 'wrong') return false
    const now = this.#components.clock.now()
    const key = `${from} ${segment.id}`
    const since = this.#claimedAt.get(key)
    if (since !== undefined && now - since < claimRestMs) return now - since < claimMs
    this.#claimedAt.delete(key)
    setBounded(this.#claimedAt, key, now)
    return true
  }

  #openFor(part: Part): Open | undefined {
    const open = this.#open.get(nameOf(part))
    return open !== undefined && open.until >= this.#components.clock.now() ? open : undefined
  }

  #forget(parts: readonly Part[]): void {
    for (const part of parts) this.#open.delete(nameOf(part))
  }

  #remember(part: Part, open: Open): void {
    const name = nameOf(part)
    this.#open.delete(name)
    setBounded(this.#open, name, open)
  }
}

interface ChooserInit {
  from: string
  avoid: readonly string[]
  /** `cid provider`. */
  refusers: ReadonlySet<string>
}

/** Chooses for one batch: what it has given away already counts against whoever it was given to. */
class Chooser {
  readonly #components: Pick<HandOverComponents, 'peers' | 'random'>
  readonly #init: ChooserInit
  readonly #given = new Map<string, { shards: number; bytes: number }>()
  #candidates: Candidate[] | undefined

  constructor(components: Pick<HandOverComponents, 'peers' | 'random'>, init: ChooserInit) {
    this.#components = components
    this.#init = init
  }

  /** Whether the shard can go there, with the segment's others where they are. */
  suits(to: string, part: Part, held: readonly string[]): boolean {
    return this.#components.peers.state(to) === 'online' && this.suitsOnceThere(to, part, held)
  }

  /** The same of a shard that is said to be there: it is asked for a proof, which says more than when it was last seen. */
  suitsOnceThere(to: string, { segment, index }: Part, held: readonly string[]): boolean {
    const { peers } = this.#components
    if (this.#isExcluded(to, segment.shards[index]!.cid) || held.includes(to)) return false
    const shared = (domain: string): number => held.filter((other) => peers.domainsOf(other).includes(domain)).length
    return peers.domainsOf(to).every((domain) => shared(domain) < domainShardsMax(segment))
  }

  choose(part: Part, held: readonly string[]): string | undefined {
    const { peers, random } = this.#components
    this.#candidates ??= peers.candidates()
    const { segment, index } = part
    const { cid } = segment.shards[index]!
    const shardBytes = blockBytesOf(part)
    const candidates = this.#candidates
      .filter(({ peerId }) => !this.#isExcluded(peerId, cid))
      .map((candidate) => this.#lessGiven(candidate))
    const { assigned } = place(
      {
        ...{ code: segment, shardBytes: Math.max(1, shardBytes), wanted: [index] },
        held: held.map((peerId) => ({ peerId, domains: peers.domainsOf(peerId) }))
      },
      candidates,
      random
    )
    const to = assigned.get(index)?.peerId
    if (to === undefined) return undefined
    const given = this.#given.get(to) ?? { shards: 0, bytes: 0 }
    this.#given.set(to, { shards: given.shards + 1, bytes: given.bytes + shardBytes })
    return to
  }

  /** A batch comes at once: it is spread, and nobody is promised more than there is room for. */
  #lessGiven(candidate: Candidate): Candidate {
    const given = this.#given.get(candidate.peerId)
    if (given === undefined) return candidate
    return {
      ...candidate,
      freeBytes: candidate.freeBytes - given.bytes,
      score: candidate.score / (1 + given.shards)
    }
  }

  #isExcluded(peerId: string, cid: CID): boolean {
    const { from, avoid, refusers } = this.#init
    return peerId === from || avoid.includes(peerId) || refusers.has(`${cid} ${peerId}`)
  }
}

/** The oldest makes room. */
function setBounded<T>(map: Map<string, T>, key: string, value: T): void {
  map.set(key, value)
  if (map.size > openMax) map.delete(map.keys().next().value!)
}

const claimantOf = (from: string): string => `hand-over:${from}`
const nameOf = ({ segment, index }: Part): string => `${segment.id} ${index}`
const distinct = (cids: readonly CID[]): CID[] => [...new Map(cids.map((cid) => [cid.toString(), cid])).values()]

const blockBytesOf = ({ segment, index }: Part): number => storedShardBytes(segment.length, segment, index)

/** What a message has room for. */
function boundedRef({ peerId, dataUrls, addresses }: ProviderRef): ProviderRef & {
  dataUrls: string[]
  addresses: string[]
} {
  return { peerId, dataUrls: dataUrls.slice(0, 8), addresses: addresses.slice(0, 16) }
}
