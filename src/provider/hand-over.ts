/**
 * The provider's side of handing over: brings blocks to where their owner's gateway wants them, itself, so that each
 * travels once. Used by a provider that leaves, and for content that it refuses.
 *
 * - A block is read and checked before it is sent; one that is damaged is confessed instead.
 * - Nothing is let go here: the lease ends when its owner ends it, which it does once the new holder has proved that it
 *   has the block.
 * - What was sent and not acknowledged is not sent again, where the gateway remembers and the new holder has it.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit, Semaphore } from '../base/concurrency.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { limits, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import type { Network } from '../net/network.ts'
import {
  askWhere,
  avoidedMax,
  type HandOverPlace,
  type HandOverReason,
  handOverBatchMax,
  type PlacedBlock,
  tellDone
} from '../transfer/hand-over-protocol.ts'
import { controlProtocols, statusAnswer, statusRequest } from '../transfer/lease-protocol.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { KeyedLock } from './keyed-lock.ts'
import type { StorageProvider } from './storage-provider.ts'

/**
 * Blocks asked about at once: what a slow line carries within the two minutes for which the gateway keeps others off
 * their segments.
 */
export const handOverBatch = 16
if (handOverBatch > handOverBatchMax) throw new Error('a batch would exceed a request')
/** Blocks on their way, in all; each is in memory once. */
const sendsAtOnce = 4
const sendsWaiting = 1024
/** Placed blocks that are told together: what a crash makes unsaid is asked about again. */
const tellBatch = 8
const askMsMax = 15 * secondMs
const sendMsMax = minuteMs
/** A gateway that does not answer about what was done is asked so often, later each time. */
const tellTries = 3
/** Whoever did not take a block is left in peace for so long. */
const avoidMs = minuteMs

export interface HandOverComponents {
  network: Pick<Network, 'request'>
  storage: Pick<StorageProvider, 'getToHandOver'>
  client: Pick<ProviderClient, 'putShard'>
  clock: Clock
  log: Log
  /** Whether a block is an object's root, which its holders announce. */
  isRoot: (cid: CID) => boolean
  /** Told of blocks that turn out to be damaged or gone. */
  onLost?: (cids: readonly CID[]) => void
}

/** What became of a batch. Blocks that are in none of the counts wait: `why` says for what. */
export interface HandOverResult {
  /** The owner's gateway has accepted the new holder, and will end the lease here. */
  moved: number
  movedBytes: number
  /** The owner's gateway needs them no longer, and has ended the lease. */
  released: number
  /** Blocks that somebody was to be sent, whether it could be reached or not. */
  tried: number
  /** Of blocks sent, whatever came of it; nothing where there was no connection. */
  sentBytes: number
  /** In words; absent where nothing waits. */
  why?: string
  /** When to ask about those again. */
  retryAfterMs: number
}

/** A block to be handed over, and its length. */
export interface HandOverBlock {
  cid: CID
  bytes: number
}

interface Sending extends HandOverBlock {
  to: ProviderRef
  ticket: Uint8Array
  again: boolean
}

/** Why a block waits, by how many. */
type Waiting = Map<string, number>

export class HandOver {
  readonly #components: HandOverComponents
  readonly #sends = new Semaphore(sendsAtOnce, sendsWaiting)
  /** A gateway answers one question of a provider at a time. */
  readonly #asking = new KeyedLock()
  /** Providers that did not take a block, and until when they are not asked again. */
  readonly #avoided = new Map<string, number>()

  constructor(components: HandOverComponents) {
    this.#components = components
  }

  /**
   * Brings blocks of one owner to where its gateway wants them.
   *
   * @param blocks at most `handOverBatch`
   * @throws HoldfastError `OFFLINE`, `TIMEOUT` or `PROTOCOL` where the gateway does not say where; the signal's reason
   */
  async batch(
    owner: string,
    blocks: readonly HandOverBlock[],
    reason: HandOverReason,
    signal?: AbortSignal
  ): Promise<HandOverResult> {
    const places = await this.#where(
      owner,
      blocks.map(({ cid }) => cid),
      reason,
      signal
    )
    const result: HandOverResult = { moved: 0, movedBytes: 0, released: 0, tried: 0, sentBytes: 0, retryAfterMs: 0 }
    const waiting: Waiting = new Map()
    const sendings: Sending[] = []
    for (const [at, place] of places.entries()) {
      if ('release' in place) result.released++
      else if ('to' in place) sendings.push({ ...blocks[at]!, ...place })
      else {
        add(waiting, place.why === 'nobody' ? 'no other provider can take them now' : 'somebody else works on them')
        result.retryAfterMs = Math.max(result.retryAfterMs, place.retryAfterMs)
      }
    }
    await this.#bring(owner, sendings, { result, waiting, signal })
    if (waiting.size > 0) result.why = [...waiting].map(([why, count]) => `${count}: ${why}`).join('; ')
    return result
  }

  async #where(
    owner: string,
    cids: readonly CID[],
    reason: HandOverReason,
    signal: AbortSignal | undefined
  ): Promise<HandOverPlace[]> {
    const { network, clock } = this.#components
    const request = { cids: [...cids], reason, avoid: this.#avoid() }
    return await this.#asking.run(owner, () =>
      withDeadline(clock, askMsMax, signal, (inner) =>
        askWhere(network, { peerId: owner, addresses: [] }, request, inner)
      )
    )
  }

  /** Sends what is not there yet, and tells the gateway as it goes. */
  async #bring(owner: string, sendings: readonly Sending[], turn: Turn): Promise<void> {
    const there = await this.#alreadyThere(sendings, turn.signal)
    let placed: Sending[] = []
    const telling: Array<Promise<void>> = []
    const tell = (): void => {
      if (placed.length === 0) return
      const told = this.#tell(owner, placed, turn)
      told.catch(() => {}) // awaited below
      telling.push(told)
      placed = []
    }
    try {
      await forEachLimit([...sendings], sendsAtOnce, async (sending) => {
        if (!there.has(sending) && !(await this.#send(sending, turn))) return
        placed.push(sending)
        if (placed.length >= tellBatch) tell()
      })
    } finally {
      tell()
      await Promise.all(telling)
    }
  }

  /** Those that their new holder has already: of a batch that was sent before a crash, or whose answer was lost. */
  async #alreadyThere(sendings: readonly Sending[], signal: AbortSignal | undefined): Promise<Set<Sending>> {
    const { network, clock, log } = this.#components
    const byHolder = Map.groupBy(
      sendings.filter(({ again }) => again),
      ({ to }) => to.peerId
    )
    const there = new Set<Sending>()
    await forEachLimit([...byHolder.values()], sendsAtOnce, async (group) => {
      const [{ to }] = group as [Sending]
      try {
        const body = statusRequest.encode({ v: 1, cids: group.map(({ cid }) => cid) })
        const answer = await withDeadline(clock, askMsMax, signal, (inner) =>
          network.request(to, controlProtocols.status, body, inner)
        )
        const { has } = statusAnswer.decode(answer)
        for (const [at, sending] of group.entries()) if (has[at] === true) there.add(sending)
      } catch (error) {
        signal?.throwIfAborted()
        log.debug('a provider did not say what it has', { provider: to.peerId, error: messageOf(error) })
      }
    })
    return there
  }

  /** @returns whether the block is with its new holder now */
  async #send({ cid, to, ticket }: Sending, { result, waiting, signal }: Turn): Promise<boolean> {
    const { client, clock, log, isRoot } = this.#components
    const release = await this.#sends.acquire(1, signal)
    try {
      const bytes = await this.#read(cid, waiting)
      if (bytes === undefined) return false
      result.tried++
      await withDeadline(clock, sendMsMax, signal, (inner) =>
        client.putShard(to, cid, bytes, {
          ...{ termMs: limits.provisionalLeaseMs, ticket, announce: isRoot(cid), signal: inner }
        })
      ).catch((error: unknown) => {
        if (!isCode(error, 'OFFLINE')) result.sentBytes += bytes.length
        throw error
      })
      result.sentBytes += bytes.length
      return true
    } catch (error) {
      signal?.throwIfAborted()
      this.#avoided.delete(to.peerId)
      this.#avoided.set(to.peerId, clock.now() + avoidMs)
      const code = error instanceof HoldfastError ? error.code : 'INTERNAL'
      add(waiting, `the provider that was to take them did not (${code})`)
      log.info('a block was not handed over', { cid, to: to.peerId, error: messageOf(error) })
      return false
    } finally {
      release()
    }
  }

  /** The block, checked; one that is damaged or gone is confessed, and waits for its owner to have it rebuilt. */
  async #read(cid: CID, waiting: Waiting): Promise<Uint8Array | undefined> {
    try {
      return await this.#components.storage.getToHandOver(cid)
    } catch (error) {
      if (!isCode(error, 'MISSING')) throw error
      add(waiting, 'damaged or gone here; their owner has been told')
      this.#components.onLost?.([cid])
      return undefined
    }
  }

  async #tell(owner: string, placed: readonly Sending[], { result, waiting, signal }: Turn): Promise<void> {
    const { network, clock, log } = this.#components
    const blocks = placed.map(({ cid, to, ticket }): PlacedBlock => ({ cid, to: to.peerId, ticket }))
    for (let failures = 0; ; ) {
      try {
        const accepted = await this.#asking.run(owner, () =>
          withDeadline(clock, askMsMax, signal, (inner) =>
            tellDone(network, { peerId: owner, addresses: [] }, blocks, inner)
          )
        )
        for (const [at, { bytes }] of placed.entries()) {
          if (accepted[at] === true) {
            result.moved++
            result.movedBytes += bytes
          } else add(waiting, 'the gateway could not verify yet that they have arrived')
        }
        return
      } catch (error) {
        signal?.throwIfAborted()
        if (++failures === tellTries) {
          add(waiting, 'the gateway has not heard yet that they have arrived', placed.length)
          log.info('a gateway did not hear what was handed over', { owner, error: messageOf(error) })
          return
        }
        await clock.sleep(secondMs * 2 ** failures, signal)
      }
    }
  }

  /** As many as a request may name; those that failed last. */
  #avoid(): string[] {
    const now = this.#components.clock.now()
    for (const [peerId, until] of this.#avoided) if (until <= now) this.#avoided.delete(peerId)
    return [...this.#avoided.keys()].slice(-avoidedMax)
  }
}

interface Turn {
  result: HandOverResult
  waiting: Waiting
  signal: AbortSignal | undefined
}

function add(waiting: Waiting, why: string, count = 1): void {
  waiting.set(why, (waiting.get(why) ?? 0) + count)
}
