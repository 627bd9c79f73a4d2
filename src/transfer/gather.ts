/**
 * Fetching shards of one segment: those that are wanted where they can be had, any `k` where they cannot. Every byte is
 * checked against its CID here, whoever sent it. A provider that is late by its own history is hedged with one more shard;
 * what is no longer needed is cancelled. Where there is a choice, providers that audits speak against come after others,
 * however quick they are.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type CID, matchesCid } from '../content/cid.ts'
import type { CodeShape } from '../placement/place.ts'
import type { PeerOutcome, Peers } from './peers.ts'
import type { ProviderClient } from './provider-client.ts'
import { peerOutcomeOf } from './scatter.ts'

export interface ShardToFetch {
  index: number
  cid: CID
  /** Bytes as stored; an empty shard needs no fetching. */
  bytes: number
  provider?: string
  /** What the index knows; evidence of loss puts a shard last in line. */
  state: string
}

export interface GatherRequest {
  code: CodeShape
  shards: readonly ShardToFetch[]
  /** Indices that are wanted. With fewer than all of them to be had, any `k` are fetched instead. */
  wanted: readonly number[]
  getTimeoutMs?: number
  signal?: AbortSignal
  /**
   * Memory to fetch shards into. What is in the result may lie there; from the moment that it is there, or the failure is
   * known, nothing more is written to any of it.
   */
  buffer?: (byteLength: number) => Uint8Array | undefined
  /** Shards are read to be kept elsewhere: who refused one, and still has it, gives it for that. */
  isMoving?: boolean
  /** Hears what became of each request; `ok` means: verified. */
  observe?: (shard: ShardToFetch, provider: string, outcome: PeerOutcome) => void
}

export interface Gathered {
  /** By index, as stored, verified. Either all that were wanted, or at least `k`. */
  shards: Map<number, Uint8Array>
  /** Whether all that were wanted are there without decoding. */
  complete: boolean
  /** Verified bytes that were fetched beyond what was needed, and requests that were started because another was late. */
  hedged: number
  /**
   * Bytes of all shards that were asked for of somebody who may have sent them: those that came too late, or were
   * cancelled on their way, count in full.
   */
  requestedBytes: number
}

export interface GatherComponents {
  client: ProviderClient
  peers: Peers
  clock: Clock
  log: Log
}

const defaultGetTimeoutMs = 10 * secondMs

/** How good the prospect of a shard is: lower is asked first. */
const prospects = {
  online: 0,
  /** Not asked yet by this process. */
  unknown: 1,
  closed: 2,
  suspended: 3,
  /** Offline, or let a request time out. */
  unlikely: 4,
  /** Known to be lost, tried when nothing else is left. */
  lost: 5
} as const

/** @throws HoldfastError `UNREADABLE` when fewer than `k` shards can be had, and not all that are wanted */
export function gather(components: GatherComponents, request: GatherRequest): Promise<Gathered> {
  return new Gather(components, request).run()
}

class Gather {
  readonly #components: GatherComponents
  readonly #request: GatherRequest
  readonly #have = new Map<number, Uint8Array>()
  readonly #flying = new Map<number, { late: boolean }>()
  readonly #failed = new Map<number, PeerOutcome>()
  readonly #stop = new AbortController()
  readonly #done = Promise.withResolvers<Gathered>()
  /** Not started yet, best first. */
  #queue: ShardToFetch[] = []
  /** Not all that is wanted will come in time: any `k` will do. */
  #degraded = false
  #hedged = 0
  #requestedBytes = 0
  #over = false

  constructor(components: GatherComponents, request: GatherRequest) {
    this.#components = components
    this.#request = request
  }

  async run(): Promise<Gathered> {
    const { signal, shards } = this.#request
    signal?.throwIfAborted()
    const onAbort = (): void => this.#end(() => this.#done.reject(signal?.reason))
    signal?.addEventListener('abort', onAbort, { once: true })
    for (const shard of shards) {
      if (shard.bytes === 0) this.#have.set(shard.index, new Uint8Array(0))
    }
    const rank = new Map(shards.map((shard) => [shard, this.#rank(shard)]))
    this.#queue = shards
      .filter((shard) => shard.bytes > 0 && shard.provider !== undefined)
      .sort((a, b) => this.#order(a, b, rank))
    this.#degraded = this.#isDegradedFromStart(rank)
    this.#pump()
    try {
      return await this.#done.promise
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /**
   * Whether any `k` are fetched at once: where not all that is wanted can be expected, or where some of it is at a
   * suspended provider and `k` others cost no more requests, only the decoding. A read of fewer than `k` shards goes to
   * that provider all the same, with a short wait: it would cost others several times the bytes. For a closed provider,
   * which as a rule still has what it should, decoding every read is too much.
   */
  #isDegradedFromStart(rank: ReadonlyMap<ShardToFetch, number>): boolean {
    const { wanted, code } = this.#request
    const best = (worst: number): Set<number> =>
      new Set([
        ...this.#have.keys(),
        ...this.#queue.filter((shard) => rank.get(shard)! <= worst).map(({ index }) => index)
      ])
    const likely = best(prospects.suspended)
    if (!wanted.every((index) => likely.has(index))) return true
    const open = best(prospects.closed)
    return wanted.length >= code.k && open.size >= code.k && !wanted.every((index) => open.has(index))
  }

  #rank(shard: ShardToFetch): number {
    const { provider, state } = shard
    if (provider === undefined || state === 'missing' || state === 'wrong' || state === 'withdrawn')
      return prospects.lost
    const { peers } = this.#components
    const seen = peers.state(provider)
    if (seen !== 'online' && seen !== 'unknown') return prospects.unlikely
    const standing = peers.standing?.(provider)
    return standing === 'closed' || standing === 'suspended' ? prospects[standing] : prospects[seen]
  }

  #order(a: ShardToFetch, b: ShardToFetch, rank: Map<ShardToFetch, number>): number {
    const byRank = rank.get(a)! - rank.get(b)!
    if (byRank !== 0) return byRank
    const wantedFirst = Number(this.#request.wanted.includes(b.index)) - Number(this.#request.wanted.includes(a.index))
    if (wantedFirst !== 0) return wantedFirst
    const { peers } = this.#components
    return peers.lateAfterMs(a.provider!) - peers.lateAfterMs(b.provider!) || a.index - b.index
  }

  #pump(): void {
    if (this.#over) return
    const { wanted, code } = this.#request
    const complete = wanted.every((index) => this.#have.has(index))
    if (complete || this.#have.size >= code.k) {
      const [shards, hedged, requestedBytes] = [this.#have, this.#hedged, this.#requestedBytes]
      this.#end(() => this.#done.resolve({ shards, complete, hedged, requestedBytes }))
      return
    }
    if (!this.#degraded) {
      for (const index of wanted) {
        const at = this.#queue.findIndex((shard) => shard.index === index)
        if (at >= 0) this.#start(this.#queue.splice(at, 1)[0]!)
      }
    } else {
      let expected = this.#have.size + [...this.#flying.values()].filter(({ late }) => !late).length
      for (; expected < code.k && this.#queue.length > 0; expected++) this.#start(this.#queue.shift()!)
    }
    if (this.#flying.size === 0 && !this.#over) this.#end(() => this.#done.reject(this.#unreadable()))
  }

  #end(settle: () => void): void {
    if (this.#over) return
    this.#over = true
    settle()
    this.#stop.abort(new HoldfastError('ABORTED', 'no longer needed'))
  }

  #unreadable(): HoldfastError {
    const { code, shards } = this.#request
    const seen = shards.map(
      (shard) =>
        this.#failed.get(shard.index) ??
        (this.#have.has(shard.index) ? 'ok' : shard.provider === undefined ? 'not placed' : 'not asked')
    )
    return new HoldfastError(
      'UNREADABLE',
      `only ${this.#have.size} of the ${code.k} shards that a segment needs can be had now; try again when more providers are online`,
      { details: { outcomes: seen } }
    )
  }

  #start(shard: ShardToFetch): void {
    const { clock, peers, log } = this.#components
    const provider = shard.provider!
    const flight = { late: false }
    this.#flying.set(shard.index, flight)
    const answered = new AbortController()
    clock.sleep(peers.lateAfterMs(provider), answered.signal).then(
      () => {
        if (this.#over) return
        flight.late = true
        this.#degraded = true
        this.#hedged++
        this.#pump()
      },
      () => {} // answered in time
    )
    void this.#fetch(shard, provider)
      .then(
        (outcome) => {
          if (outcome !== 'ok') this.#failed.set(shard.index, outcome)
        },
        (error: unknown) => {
          this.#failed.set(shard.index, 'unknown')
          log.error('fetching a shard failed', { cid: shard.cid, error: messageOf(error) })
        }
      )
      .then(() => {
        answered.abort('answered')
        this.#flying.delete(shard.index)
        if (this.#failed.has(shard.index)) this.#degraded = true
        this.#pump()
      })
  }

  async #fetch(shard: ShardToFetch, provider: string): Promise<PeerOutcome> {
    const { client, clock, peers, log } = this.#components
    const startedAt = clock.now()
    const report = (outcome: PeerOutcome, elapsedMs?: number): PeerOutcome => {
      peers.report(provider, outcome, elapsedMs)
      this.#request.observe?.(shard, provider, outcome)
      return outcome
    }
    const target = peers.target(provider)
    if (target === undefined) return 'unknown' // not asked: that says nothing about it
    this.#requestedBytes += shard.bytes
    try {
      const bytes = await withDeadline(
        clock,
        this.#request.getTimeoutMs ?? defaultGetTimeoutMs,
        this.#stop.signal,
        (inner) =>
          client.getShard(target, shard.cid, inner, this.#request.buffer?.(shard.bytes), {
            toMove: this.#request.isMoving === true && shard.state === 'withdrawn'
          })
      )
      const elapsedMs = clock.now() - startedAt
      if (!matchesCid(shard.cid, bytes)) {
        log.warn('provider returned wrong bytes', { provider, cid: shard.cid })
        return report('wrong')
      }
      if (!this.#over) this.#have.set(shard.index, bytes)
      return report('ok', elapsedMs)
    } catch (error) {
      if (this.#stop.signal.aborted) return 'unknown' // ours to end, not its failure
      const outcome = peerOutcomeOf(error)
      if (outcome === 'offline' || outcome === 'missing' || outcome === 'refused') this.#requestedBytes -= shard.bytes
      log.info('provider did not give a shard', { provider, cid: shard.cid, outcome, error: messageOf(error) })
      return report(outcome)
    }
  }
}
