/**
 * Sending the shards of one segment to as many providers. A shard whose provider fails goes to another; one that is late
 * is sent to a spare as well, and the loser is given back. The segment counts as durable at `quorum`; the rest follows.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { limits, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { CID } from '../content/cid.ts'
import { type CodeShape, place } from '../placement/place.ts'
import type { LeaseGuard } from './lease-guard.ts'
import type { PeerOutcome, Peers } from './peers.ts'
import type { ProviderClient } from './provider-client.ts'

export interface ShardToSend {
  index: number
  cid: CID
  bytes: Uint8Array
  /** The block is an object's root. */
  announce?: boolean
}

export interface PlacedShard {
  provider: string
  /** By the gateway's clock. */
  leaseUntil: number
  at: number
}

export interface ScatterComponents {
  client: ProviderClient
  peers: Peers
  guard: LeaseGuard
  /** Told of a block that a provider would not take. */
  onRefused?: (provider: string, cid: CID) => void
  clock: Clock
  random: Random
  log: Log
}

export interface ScatterRequest {
  code: CodeShape
  shards: readonly ShardToSend[]
  /** Where the segment's other shards are, when only some are sent (a repair). */
  held?: ReadonlyArray<{ index: number; provider: string }>
  /** Providers that are not to be asked, though they hold nothing: they refused the content. */
  excluded?: ReadonlySet<string>
  /** Shards of these that must be durable before `quorum` resolves. */
  quorum: number
  termMs?: number
  /** How long one provider may take over one shard. */
  putTimeoutMs?: number
  /** How long shards beyond the quorum may take; what is late is left to the completer, so that memory is given back. */
  tailMs?: number
  /** Stops everything; what is placed by then is in `placed`. */
  signal?: AbortSignal
}

const defaultPutTimeoutMs = 20 * secondMs
const defaultTailMs = 5 * secondMs
/** A write includes an fsync, and the slow ones are no reason to send twice. */
const lateWriteFactor = 4

export class Scatter {
  /** Shard index to where it is durable. Grows until `settled`. */
  readonly placed = new Map<number, PlacedShard>()
  /** Providers that answered otherwise than with yes. */
  readonly failed = new Map<string, PeerOutcome>()
  /** Resolves when enough shards are durable; rejects `NOT_DURABLE` when that can no longer happen. */
  readonly quorum: Promise<void>
  /** Resolves when each shard is placed or has been given up. Never rejects. */
  readonly settled: Promise<void>
  /** Hears of each shard that is placed from now on. */
  onPlaced: ((index: number, placed: PlacedShard) => void) | undefined

  readonly #components: ScatterComponents
  readonly #request: ScatterRequest
  /** Who holds or is being sent what: so that no provider gets two. Index of each. */
  readonly #taken = new Map<string, number>()
  /** Providers that were sent a shard and did not say no: `index provider` to its CID. */
  readonly #sent = new Map<string, { index: number; provider: string; cid: CID }>()
  readonly #holds: Array<() => void> = []
  readonly #stop = new AbortController()
  /** Aborted when the shards beyond the quorum have had their time. */
  readonly #tail = new AbortController()
  #open: number

  constructor(components: ScatterComponents, request: ScatterRequest) {
    this.#components = components
    this.#request = request
    this.#open = request.shards.length
    for (const { index, provider } of request.held ?? []) this.#taken.set(provider, index)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.quorum = promise
    promise.catch(() => {}) // whoever awaits it hears; nobody needs to
    const onAbort = (): void => {
      this.#stop.abort(request.signal?.reason)
      reject(request.signal?.reason)
    }
    if (request.signal?.aborted === true) onAbort()
    request.signal?.addEventListener('abort', onAbort, { once: true })
    const decide = (): void => {
      if (this.placed.size >= request.quorum) resolve()
      else if (this.placed.size + this.#open < request.quorum) reject(this.#notDurable())
    }
    const ended = new AbortController()
    promise.then(
      () =>
        components.clock.sleep(request.tailMs ?? defaultTailMs, ended.signal).then(
          () => this.#tail.abort(new HoldfastError('TIMEOUT', 'slower than the rest of its segment')),
          () => {} // all shards are placed
        ),
      () => {} // no quorum: the putting timeouts end it
    )
    const first = this.#choose(request.shards.map(({ index }) => index))
    this.settled = Promise.all(
      request.shards.map(async (shard) => {
        const ok = await this.#send(shard, first.get(shard.index)).catch((error: unknown) => {
          if (!this.#stop.signal.aborted)
            components.log.error('sending a shard failed', { cid: shard.cid, error: messageOf(error) })
          return false
        })
        this.#open--
        if (!ok && !this.#stop.signal.aborted)
          components.log.info('shard not placed', { cid: shard.cid, index: shard.index })
        decide()
      })
    ).then(() => {
      request.signal?.removeEventListener('abort', onAbort)
      decide()
      ended.abort('all shards are placed')
    })
  }

  /**
   * Copies that may exist though they are not in `placed`: of providers that were late, or whose yes was lost. They are
   * to be released: losers keep nothing. Complete once `settled`.
   */
  strays(): Array<{ provider: string; cid: CID }> {
    return [...this.#sent.values()].filter(({ index, provider }) => this.placed.get(index)?.provider !== provider)
  }

  /** To be called once the index knows what is placed and what is to be released: until then nothing here is. */
  letGo(): void {
    for (const letGo of this.#holds.splice(0)) letGo()
  }

  #notDurable(): HoldfastError {
    const { quorum, code, excluded = [] } = this.#request
    const refusing = [...this.failed].flatMap(([provider, outcome]) => (outcome === 'refused' ? [provider] : []))
    const refusers = new Set([...excluded, ...refusing]).size
    const why =
      refusers === 0
        ? 'are enough providers online (see holdfast providers)?'
        : `${refusers} ${refusers === 1 ? 'provider refuses' : 'providers refuse'} this content, and too few others are online with room`
    return new HoldfastError(
      'NOT_DURABLE',
      `only ${this.placed.size} shards of a ${code.k}+${code.m} segment could be stored and ${quorum} are needed; ${why}`,
      { details: { placed: this.placed.size, quorum, refusers, failed: Object.fromEntries(this.failed) } }
    )
  }

  /** Chooses providers for these shards, and marks them taken. */
  #choose(wanted: readonly number[]): Map<number, string> {
    const { peers, random } = this.#components
    const { assigned } = place(
      {
        code: this.#request.code,
        shardBytes: Math.max(1, ...this.#request.shards.map(({ bytes }) => bytes.length)),
        wanted,
        held: [...this.#taken.keys()].map((peerId) => ({ peerId, domains: peers.domainsOf(peerId) })),
        excluded: new Set([...this.failed.keys(), ...(this.#request.excluded ?? [])])
      },
      peers.candidates(),
      random
    )
    const chosen = new Map<number, string>()
    for (const [index, { peerId }] of assigned) {
      this.#taken.set(peerId, index)
      chosen.set(index, peerId)
    }
    return chosen
  }

  /** Until one provider has the shard, or nobody is left to ask. */
  #send(shard: ShardToSend, first: string | undefined): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const flying = new Map<string, AbortController>()
    let done = false
    const finish = (ok: boolean): void => {
      done = true
      for (const [provider, controller] of flying) {
        controller.abort(new HoldfastError('ABORTED', 'another provider was faster'))
        this.#taken.delete(provider)
      }
      resolve(ok)
    }
    const launch = (provider: string): void => {
      const controller = new AbortController()
      flying.set(provider, controller)
      void this.#put(shard, provider, controller, () => {
        if (done || this.#stop.signal.aborted || this.#tail.signal.aborted) return
        const spare = this.#choose([shard.index]).get(shard.index)
        if (spare !== undefined) launch(spare)
      }).then((outcome) => {
        flying.delete(provider)
        if (done) return
        if (outcome === 'ok') {
          const at = this.#components.clock.now()
          const placed = { provider, at, leaseUntil: at + (this.#request.termMs ?? limits.provisionalLeaseMs) }
          this.placed.set(shard.index, placed)
          finish(true)
          this.onPlaced?.(shard.index, placed)
          return
        }
        this.#taken.delete(provider)
        this.failed.set(provider, outcome)
        if (this.#stop.signal.aborted || this.#tail.signal.aborted) {
          if (flying.size === 0) finish(false)
          return
        }
        const next = this.#choose([shard.index]).get(shard.index)
        if (next !== undefined) launch(next)
        else if (flying.size === 0) finish(false)
      })
    }
    const start = first ?? this.#choose([shard.index]).get(shard.index)
    if (start === undefined) finish(false)
    else launch(start)
    return promise
  }

  /** One shard to one provider; never rejects. `onLate` is called when it takes unusually long. */
  async #put(shard: ShardToSend, provider: string, own: AbortController, onLate: () => void): Promise<PeerOutcome> {
    const { client, peers, guard, clock, log } = this.#components
    const signal = AbortSignal.any([own.signal, this.#stop.signal, this.#tail.signal])
    const target = peers.target(provider)
    if (target === undefined) return 'offline'
    this.#holds.push(await guard.hold(provider, shard.cid))
    if (signal.aborted) return 'unknown'
    const sent = `${shard.index} ${provider}`
    this.#sent.set(sent, { index: shard.index, provider, cid: shard.cid })
    const answered = new AbortController()
    const startedAt = clock.now()
    clock
      .sleep(Math.max(secondMs, lateWriteFactor * peers.lateAfterMs(provider)), answered.signal)
      .then(onLate, () => {}) // answered in time
    try {
      await withDeadline(clock, this.#request.putTimeoutMs ?? defaultPutTimeoutMs, signal, (inner) =>
        client.putShard(target, shard.cid, shard.bytes, {
          termMs: this.#request.termMs ?? limits.provisionalLeaseMs,
          announce: shard.announce,
          signal: inner
        })
      )
      peers.report(provider, 'ok')
      return 'ok'
    } catch (error) {
      if (own.signal.aborted || this.#stop.signal.aborted) return 'unknown' // ours to end, not its failure
      const outcome = peerOutcomeOf(error)
      if (outcome === 'full' || outcome === 'refused' || outcome === 'wrong') this.#sent.delete(sent)
      peers.report(provider, outcome)
      if (outcome === 'refused') this.#components.onRefused?.(provider, shard.cid)
      log.info('provider did not take a shard', {
        provider,
        cid: shard.cid,
        outcome,
        afterMs: clock.now() - startedAt,
        error: messageOf(error)
      })
      return outcome
    } finally {
      answered.abort('answered')
    }
  }
}

const outcomes = {
  OFFLINE: 'offline',
  TIMEOUT: 'timeout',
  MISSING: 'missing',
  WRONG: 'wrong',
  REFUSED: 'refused',
  NO_SPACE: 'full'
} as const

/** What a failed request says of the provider, and no more. */
export function peerOutcomeOf(error: unknown): PeerOutcome {
  return isCode(error, 'OFFLINE', 'TIMEOUT', 'MISSING', 'WRONG', 'REFUSED', 'NO_SPACE')
    ? outcomes[error.code as keyof typeof outcomes]
    : 'unknown'
}
