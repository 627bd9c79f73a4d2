/**
 * Saying no. What the operator refuses is neither taken nor given from the moment it is written down; then what is held of
 * it is settled: its owners are told, signed, and it is kept to be handed over until they have released it or a day has
 * passed; or deleted at once, where the operator wants that. Each step is written down before the next, so that a crash
 * in between only means that it is taken again.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { check, HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { dayMs, hourMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { type CID, codecs, hashes, matchesCid } from '../content/cid.ts'
import type { Signer } from '../market/offer.ts'
import { reasonCharsMax, signRefusal } from '../market/refusal.ts'
import { type Parts, partsOf } from './content-parts.ts'
import { isEmptyContent } from './denylist.ts'
import { KeyedLock } from './keyed-lock.ts'
import type { Notices } from './notices.ts'
import { everything, type RefusalStore, type Unexpanded } from './refusal-store.ts'
import { isStorable, type StorageProvider } from './storage-provider.ts'

export const defaultReason = 'the operator of this provider does not host it'

/** Blocks settled in one go. */
const batch = 256
const everyMs = 10 * secondMs
/** While the operator waits. */
const expandMsMax = 60 * secondMs
const expandEveryMs = hourMs
/** Contents whose parts are looked for in the network, at once and before anything else has its turn. */
const expandsAtOnce = 4
const expandsInTurn = 8
/** How often a root's parts are looked for in the network; what a list names is mostly not of this network at all. */
const triesMax = { command: 24, list: 1 } as const

export interface RefuserComponents {
  store: RefusalStore
  storage: Pick<StorageProvider, 'heldOf' | 'held' | 'evict' | 'getToHandOver'>
  notices: Pick<Notices, 'refused'>
  signer: Signer
  /** Looks for a block in the network; absent: nowhere but in the own store. */
  findBlock?: (cid: CID, signal: AbortSignal) => Promise<Uint8Array | undefined>
  clock: Clock
  log: Log
  /** Gives others their turn of the event loop. */
  pause: () => Promise<void>
}

export interface RefuserInit {
  /** How long refused blocks are kept for being handed over: a day. */
  graceMs?: number
  /** Whether they are handed over, so that owners need not rebuild them at once. */
  handsOver?: boolean
}

export interface Refused {
  cid: CID
  /** Blocks that it is made of, as far as they are known. */
  parts: number
  /** Whether these are all. Where its manifest, or a node of its file, was found nowhere, it is looked for again. */
  isWhole: boolean
  /** Of all of them, those that are, or were, kept here. */
  held: number
}

export class Refuser {
  readonly #components: RefuserComponents
  readonly #log: Log
  readonly #graceMs: number
  readonly #handsOver: boolean
  readonly #locks = new KeyedLock()
  readonly #stopping = new AbortController()
  #wake = new AbortController()
  #running: Promise<void> | undefined

  constructor(components: RefuserComponents, { graceMs = dayMs, handsOver = false }: RefuserInit = {}) {
    this.#components = components
    this.#log = components.log.child('refusals')
    this.#graceMs = graceMs
    this.#handsOver = handsOver
  }

  /** Sees to what is left from last time, and from now on to what comes, until `stop`. */
  start(): void {
    this.#running ??= this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new HoldfastError('ABORTED', 'the provider stops'))
    await this.#running
  }

  /** There are new rules. */
  wake(): void {
    this.#wake.abort('there is something to settle')
  }

  /**
   * Refuses a block, and where it is a root all that it is made of. The block is refused before it is looked for what else
   * is; when it resolves what is held of both is settled. Aborted, or where that fails, the rest follows by itself.
   *
   * @throws HoldfastError `BAD_INPUT` for what no provider keeps, or is part of everybody's contents
   */
  async refuse(
    named: CID,
    { reason = defaultReason, atOnce = false }: { reason?: string; atOnce?: boolean },
    signal: AbortSignal
  ): Promise<Refused> {
    const { store, clock } = this.#components
    const cid = named.version === 0 ? named.toV1() : named
    const { code } = cid.multihash
    check(code === hashes.sha256 || code === hashes.blake3, 'no provider keeps blocks of that kind')
    check(!isEmptyContent(cid), 'nothing is in it, and it is part of many contents')
    check(reason.length <= reasonCharsMax, `a reason has at most ${reasonCharsMax} characters`)
    const isWhole = cid.code !== codecs.dagCbor && cid.code !== codecs.dagPb
    const target = store.refuse(cid, { reason, at: clock.now(), atOnce }, { cids: [], isWhole })
    const parts = isWhole ? { cids: [], isWhole } : await this.#partsOf(cid, signal)
    if (parts.cids.length > 0 || parts.isWhole) store.expand(target, parts)
    const known = { parts: parts.cids.length, isWhole: parts.isWhole }
    this.#log.info('a content is refused', { cid, ...known, reason, atOnce })
    const held = await this.#settle(target)
    return { cid, ...known, held }
  }

  /** @returns whether it was refused by command. Gateways that were told remember. */
  undo(named: CID): boolean {
    const cid = named.version === 0 ? named.toV1() : named
    const wasRefused = this.#components.store.undo(cid)
    if (wasRefused) this.#log.info('a content is refused no more', { cid })
    return wasRefused
  }

  /** The signed refusals of these blocks, in order; undefined where one is not refused. Each is signed once, and kept. */
  async signedOf(cids: readonly CID[]): Promise<Array<Uint8Array | undefined>> {
    const answers: Array<Uint8Array | undefined> = []
    for (const cid of cids) answers.push(await this.#signed(cid))
    return answers
  }

  async #signed(cid: CID): Promise<Uint8Array | undefined> {
    const { store, signer } = this.#components
    // A block has names without end, by any codec: what nobody keeps is not signed, for signatures are kept.
    const ground = isStorable(cid) ? store.find(cid) : undefined
    if (ground === undefined) return undefined
    const kept = store.signedOf(cid, ground.target)
    if (kept !== undefined) return kept
    const { reason, root, at } = ground
    const bytes = await signRefusal({ v: 1, provider: signer.peerId, cid, root, reason, at }, signer)
    store.keepSigned(cid, ground.target, bytes)
    return bytes
  }

  /** Settles what has not been, looks for parts that are not known, and deletes what has been kept for long enough. */
  async turn(signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#components
    await this.#expandHeld(signal)
    for (let targets = store.unsettled(batch); targets.length > 0; targets = store.unsettled(batch)) {
      for (const target of targets) {
        signal.throwIfAborted()
        await this.#settle(target)
      }
    }
    const due = store.unexpanded(clock.now(), expandsInTurn)
    await forEachLimit(due, expandsAtOnce, (one) => this.#expand(one, signal))
    await this.#dropOld()
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    while (!signal.aborted) {
      this.#wake = new AbortController()
      try {
        await this.turn(signal)
      } catch (error) {
        if (!signal.aborted) this.#log.error('refusals could not be settled', { error: messageOf(error) })
      }
      await clock.sleep(everyMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => {}) // woken, or it stops
    }
  }

  /** One after another: the same block may be part of several contents. */
  #settle(target: number): Promise<number> {
    return this.#locks.run('settle', () => this.#settleOne(target))
  }

  async #settleOne(target: number): Promise<number> {
    const { store, pause } = this.#components
    const mark = store.markOf(target)
    let held = 0
    for await (const cids of target === everything ? this.#held() : this.#cidsOf(target)) {
      held += await this.#settleBlocks(cids)
      await pause()
    }
    store.settled(target, mark)
    return held
  }

  async *#held(): AsyncGenerator<CID[]> {
    let cids: CID[] = []
    for await (const cid of this.#components.storage.held()) {
      if (cids.push(cid) < batch) continue
      yield cids
      cids = []
    }
    yield cids
  }

  async *#cidsOf(target: number): AsyncGenerator<CID[]> {
    const { store } = this.#components
    for (let after: CID | undefined; ; ) {
      const cids = store.cidsOf(target, after, batch)
      if (cids.length === 0) return
      yield cids
      after = cids.at(-1)
    }
  }

  /** @returns how many of these are refused and held */
  async #settleBlocks(cids: readonly CID[]): Promise<number> {
    const { store, storage, notices, clock } = this.#components
    const grounds = new Map(cids.map((cid) => [cid.toString(), store.find(cid)]))
    const held = await storage.heldOf(cids.filter((cid) => grounds.get(cid.toString()) !== undefined))
    const isAtOnce = (cid: CID): boolean => grounds.get(cid.toString())!.atOnce
    const atOnce = held.filter(isAtOnce)
    const toHandOver = held.filter((cid) => !isAtOnce(cid) && !store.isKept(cid))
    if (toHandOver.length > 0) {
      // What is kept has been told: the other way round, one that fails in between would never be.
      await notices.refused(toHandOver, this.#handsOver)
      store.keep(toHandOver, clock.now() + this.#graceMs)
    }
    if (atOnce.length > 0) {
      // While the leases are there, for they say who is to be told.
      await notices.refused(atOnce, false)
      await storage.evict(atOnce)
      store.keepNoMore(atOnce)
    }
    return held.length
  }

  async #dropOld(): Promise<void> {
    const { store, storage, clock } = this.#components
    for (let due = store.keptUntil(clock.now(), batch); due.length > 0; due = store.keptUntil(clock.now(), batch)) {
      await storage.evict(due)
      store.keepNoMore(due)
    }
  }

  /** New targets first of all from the own store, before the manifest that says what they are made of is deleted. */
  async #expandHeld(signal: AbortSignal): Promise<void> {
    const { store, storage, clock, pause } = this.#components
    const fresh = (): Unexpanded[] => store.unexpanded(clock.now(), batch).filter(({ tries }) => tries === 0)
    for (let targets = fresh(); targets.length > 0; targets = fresh()) {
      const held = new Set((await storage.heldOf(targets.map(({ cid }) => cid))).map(String))
      for (const one of targets) {
        signal.throwIfAborted()
        if (held.has(one.cid.toString())) await this.#expand(one, signal)
      }
      // Most of what a list names is not here: a commit for each would take hours, and what is here would wait for it.
      const others = targets.filter(({ cid }) => !held.has(cid.toString()))
      store.notFound(others.map((one) => ({ target: one.target, nextTry: this.#nextTryOf(one) })))
      await pause()
    }
  }

  /** The first time from the own store alone, then from the network. */
  async #expand(one: Unexpanded, signal: AbortSignal): Promise<void> {
    const { store } = this.#components
    const { target, cid, tries } = one
    try {
      const parts = await this.#partsOf(cid, signal, tries > 0)
      store.expand(target, parts)
      await this.#settle(target)
      if (parts.isWhole) return
    } catch (error) {
      signal.throwIfAborted()
      if (!isCode(error, 'BAD_INPUT')) throw error
      this.#log.warn('the parts of a refused content are too many', { cid, error: error.message })
      store.notFound([{ target, nextTry: null }])
      return
    }
    store.notFound([{ target, nextTry: this.#nextTryOf(one) }])
  }

  /** When the parts of what was not found are looked for again; null: never. */
  #nextTryOf({ cid, list, tries }: Unexpanded): number | null {
    // What a list names and is no manifest is hardly a root of this network: nobody is asked for it.
    const isWorthAsking = list === 0 || cid.code === codecs.dagCbor
    const isOver = !isWorthAsking || tries >= triesMax[list === 0 ? 'command' : 'list']
    return isOver ? null : this.#components.clock.now() + (tries === 0 ? 0 : expandEveryMs)
  }

  async #partsOf(cid: CID, signal: AbortSignal, asksNetwork = true): Promise<Parts> {
    const { clock } = this.#components
    const until = clock.now() + expandMsMax
    const parts = await partsOf(cid, (block) => this.#find(block, { asksNetwork, until, signal }))
    if (!parts.isWhole) this.#log.info('what a refused content is made of was not found', { cid })
    return parts
  }

  /** Undefined where it is not to be had in time. */
  async #find(
    cid: CID,
    { asksNetwork, until, signal }: { asksNetwork: boolean; until: number; signal: AbortSignal }
  ): Promise<Uint8Array | undefined> {
    const { storage, findBlock, clock } = this.#components
    try {
      return await storage.getToHandOver(cid)
    } catch (error) {
      if (!isCode(error, 'MISSING')) throw error
    }
    if (!asksNetwork || findBlock === undefined || clock.now() >= until) return undefined
    try {
      const found = await withDeadline(clock, until - clock.now(), signal, (inner) => findBlock(cid, inner))
      return found !== undefined && matchesCid(cid, found) ? found : undefined
    } catch (error) {
      signal.throwIfAborted()
      if (!isCode(error, 'TIMEOUT')) throw error
      return undefined
    }
  }
}
