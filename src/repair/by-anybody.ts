/**
 * Repair of a content that somebody else owns, from what everybody may know: the manifest under its root, and what providers
 * say and prove that they hold. No key, no index of the owner; ciphertext goes in and out. What is found or rebuilt is leased
 * to this gateway for a week, and stands in a signed report, by which the owner takes it over (`accept-report.ts`).
 *
 * Nothing is kept here: killed anywhere, the next run finds what this one has stored, by asking, and reports it as found.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit, Semaphore } from '../base/concurrency.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { dayMs, limits, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { type CID, codecs, hashes, matchesCid } from '../content/cid.ts'
import type { Discovery } from '../discovery/discovery.ts'
import type { Signer } from '../market/offer.ts'
import {
  encodeReport,
  type HeldRow,
  type ReportedProvider,
  reportProvidersMax,
  reportRowsMax,
  type UnhelpedReason,
  type UnhelpedRow
} from '../market/repair-report.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { SegmentCodec } from '../object/segment-codec.ts'
import { place } from '../placement/place.ts'
import { gather } from '../transfer/gather.ts'
import type { AskHoldings } from '../transfer/holdings.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { peerOutcomeOf, Scatter } from '../transfer/scatter.ts'
import { Claims } from './claims.ts'
import { type ForeignUnit, unitShardBytes, unitsOf } from './foreign-content.ts'
import type { BlockToProve, ProveHolding } from './prove-holding.ts'

export interface ByAnybodyComponents {
  client: ProviderClient
  askHoldings: AskHoldings
  prove: ProveHolding
  discovery: Pick<Discovery, 'findRoot'>
  /** Makes peers known that the DHT has named. */
  introduce: (
    peers: ReadonlyArray<{ peerId: string; addresses: readonly string[] }>,
    signal?: AbortSignal
  ) => Promise<void>
  /** Peer ids of providers that are online: all are asked. */
  known: () => readonly string[]
  /** Resolves once the providers that are online are known. */
  networkKnown: (signal?: AbortSignal) => Promise<void>
  peers: Peers
  /** Whether the content is this gateway's own; and where it writes down what it has to give back. */
  index: Pick<MetadataIndex, 'findHolders' | 'queueReleases'>
  codec: SegmentCodec
  guard: LeaseGuard
  signer: Signer
  /** Bytes that rebuilding may hold. */
  memory: Semaphore
  /** Waits until so many bytes may go over the line. */
  spend?: (bytes: number, signal?: AbortSignal) => Promise<void>
  clock: Clock
  random: Random
  log: Log
}

/** What one call has done: all of the content, or as much as there was time for. */
export interface HelpRound {
  root: CID
  /** Units looked at; they are numbered through the content: segments and the blocks above them. */
  from: number
  units: number
  /** Where to go on; null: that was all. */
  next: number | null
  /** Why it ended before the end, where it was not for time: a block of the manifest could not be had. */
  failure: string | null
  providersAsked: number
  bytesRead: number
  bytesWritten: number
  held: HeldRow[]
  unhelped: UnhelpedRow[]
  /** Signed, each at most `reportBytesMax`. */
  reports: Uint8Array[]
}

/** What is leased for the owner to take over. */
export const helperTermMs = 7 * dayMs
/** After that much time, or so many rows, a call ends with what it has: the next goes on from there. */
const roundMsMax = minuteMs
const roundRowsMax = 4 * reportRowsMax
const batchUnitsMax = 16
const batchBlocksMax = limits.leaseBatchMax / 2
const providersAskedMax = 2000
const askedAtOnce = 16
const provedAtOnce = 8
const restoredAtOnce = 4
/** A shard that so many have claimed and not proved is taken for lost. */
const proofRoundsMax = 4
const requestTimeoutMs = 10 * secondMs
/** Whoever has not said by then what it holds of a batch is taken to hold nothing. */
const askMsMax = 30 * secondMs
/** Roots are announced slowly: whoever is not found in the DHT by then is found by asking. */
const rootSearchMs = 5 * secondMs
const rootHoldersMax = 20
const roundsWaitingMax = 4

export class ByAnybody {
  readonly #components: ByAnybodyComponents
  readonly #turn = new Semaphore(1, roundsWaitingMax)

  constructor(components: ByAnybodyComponents) {
    this.#components = components
  }

  /**
   * Goes through the content from unit `from` on; to be called again with `next` until that is null.
   *
   * @throws HoldfastError `BAD_INPUT` for a content of this gateway's own, and for what is no root of a content; `UNREADABLE`
   * when it is nowhere to be had, `OVERLOADED` when others wait already
   */
  async help(root: CID, from: number, signal?: AbortSignal): Promise<HelpRound> {
    return await this.#turn.run(async () => {
      const { index, networkKnown } = this.#components
      if (root.code !== codecs.dagCbor || root.multihash.code !== hashes.sha256) throw notManifest(root)
      if ((await index.findHolders(root)).length > 0)
        throw new HoldfastError('BAD_INPUT', 'this gateway owns that content, and repairs it without being asked')
      await networkKnown(signal)
      return await new Help(this.#components, root, from, signal).run()
    }, signal)
  }
}

const notManifest = (root: CID, cause?: unknown): HoldfastError =>
  new HoldfastError('BAD_INPUT', `${root} is not the root of a content`, { cause })

interface Stored {
  unit: ForeignUnit
  index: number
  provider: string
  bytes: number
}

class Help {
  readonly #components: ByAnybodyComponents
  readonly #signal: AbortSignal | undefined
  readonly #round: HelpRound
  readonly #asked = new Set<string>()

  constructor(components: ByAnybodyComponents, root: CID, from: number, signal: AbortSignal | undefined) {
    this.#components = components
    this.#signal = signal
    this.#round = {
      root,
      from,
      units: 0,
      next: null,
      failure: null,
      providersAsked: 0,
      bytesRead: 0,
      bytesWritten: 0,
      held: [],
      unhelped: [],
      reports: []
    }
  }

  async run(): Promise<HelpRound> {
    const { clock } = this.#components
    const { root, from } = this.#round
    const until = clock.now() + roundMsMax
    let at = 0
    let batch: ForeignUnit[] = []
    const work = async (): Promise<void> => {
      const units = batch
      batch = []
      await this.#help(units)
      this.#round.units += units.length
    }
    try {
      for await (const unit of unitsOf(root, (cid) => this.#fetch(cid))) {
        if (at++ < from) continue
        batch.push(unit)
        if (batch.length < batchUnitsMax && blocksOf(batch) < batchBlocksMax) continue
        await work()
        const rows = this.#round.held.length + this.#round.unhelped.length
        if (clock.now() < until && rows < roundRowsMax) continue
        this.#round.next = at
        break
      }
      if (batch.length > 0) await work()
    } catch (error) {
      this.#signal?.throwIfAborted()
      if (at === 0) throw isCode(error, 'DAMAGED') ? notManifest(root, error) : error
      // What was helped so far is not to be thrown away with the rest.
      this.#round.failure = messageOf(error)
      if (batch.length > 0) await work()
    }
    this.#round.providersAsked = this.#asked.size
    this.#round.reports = await this.#sign()
    return this.#round
  }

  // The manifest

  async #fetch(cid: CID): Promise<Uint8Array> {
    const isRoot = cid.equals(this.#round.root)
    const announced = isRoot ? await this.#announcers(cid) : []
    const found = await this.#firstOf(announced, cid)
    if (found !== undefined) return found
    const claims = new Claims()
    await this.#ask([cid], claims)
    const claimed = await this.#firstOf(claims.claimants(cid), cid)
    if (claimed !== undefined) return claimed
    throw new HoldfastError(
      'UNREADABLE',
      `none of ${this.#asked.size} providers gives block ${cid}, which says what the content is made of`
    )
  }

  async #announcers(root: CID): Promise<string[]> {
    const { clock, discovery, introduce, log } = this.#components
    const found: Array<{ peerId: string; addresses: readonly string[] }> = []
    try {
      await withDeadline(clock, rootSearchMs, this.#signal, async (inner) => {
        for await (const peer of discovery.findRoot(root, inner)) {
          found.push(peer)
          if (found.length === rootHoldersMax) return
        }
      })
    } catch (error) {
      this.#signal?.throwIfAborted()
      log.debug('the search for a root ended early', { root, found: found.length, error: messageOf(error) })
    }
    await introduce(found, this.#signal)
    return found.map(({ peerId }) => peerId)
  }

  async #firstOf(providers: readonly string[], cid: CID): Promise<Uint8Array | undefined> {
    for (const provider of providers) {
      const bytes = await this.#read(provider, cid)
      if (bytes !== undefined) return bytes
    }
    return undefined
  }

  /** The whole block, checked; `undefined` where this provider does not give it. */
  async #read(provider: string, cid: CID): Promise<Uint8Array | undefined> {
    const { client, clock, peers, log } = this.#components
    const target = peers.target(provider)
    if (target === undefined) return undefined
    try {
      const bytes = await withDeadline(clock, requestTimeoutMs, this.#signal, (inner) =>
        client.getShard(target, cid, inner)
      )
      if (matchesCid(cid, bytes)) return bytes
      peers.report(provider, 'wrong')
    } catch (error) {
      this.#signal?.throwIfAborted()
      const outcome = peerOutcomeOf(error)
      // Nobody owes it to this gateway, and an announcement in the DHT may be a day old.
      if (outcome !== 'missing' && outcome !== 'refused') peers.report(provider, outcome)
      log.debug('provider did not give a foreign block', { provider, cid, error: messageOf(error) })
    }
    return undefined
  }

  // Who holds what

  async #ask(cids: readonly CID[], claims: Claims): Promise<void> {
    const { clock, known, log } = this.#components
    const providers = known().slice(0, providersAskedMax)
    try {
      await withDeadline(clock, askMsMax, this.#signal, (inner) =>
        forEachLimit(providers, askedAtOnce, async (provider) => {
          if (!inner.aborted) await this.#askOne(provider, cids, claims, inner)
        })
      )
    } catch (error) {
      this.#signal?.throwIfAborted()
      log.info('not all providers said in time what they hold', { asked: this.#asked.size, error: messageOf(error) })
    }
  }

  async #askOne(provider: string, cids: readonly CID[], claims: Claims, signal: AbortSignal): Promise<void> {
    const { askHoldings, clock, peers, log } = this.#components
    const target = peers.target(provider)
    if (target === undefined) return
    this.#asked.add(provider)
    try {
      const has = await withDeadline(clock, requestTimeoutMs, signal, (inner) => askHoldings(target, cids, inner))
      for (const [at, cid] of cids.entries()) if (has[at] === true) claims.claim(provider, cid)
    } catch (error) {
      if (signal.aborted) return // ours to end, not its failure
      peers.report(provider, peerOutcomeOf(error))
      log.debug('provider does not say what it holds', { provider, error: messageOf(error) })
    }
  }

  /** Puts to the proof who is relied on, and whoever comes next where that fails. */
  async #proveAll(units: readonly ForeignUnit[], claims: Claims): Promise<void> {
    for (let round = 0; round < proofRoundsMax; round++) {
      const questions = new Map<string, Map<string, BlockToProve>>()
      for (const unit of units) {
        for (const [index, provider] of claims.assign(unit.cids).entries()) {
          const cid = unit.cids[index]!
          if (provider === undefined || claims.shown(provider, cid) !== undefined) continue
          const own = questions.get(provider) ?? new Map<string, BlockToProve>()
          questions.set(provider, own.set(cid.toString(), { cid, bytes: unitShardBytes(unit, index) }))
        }
      }
      if (questions.size === 0) return
      await forEachLimit([...questions], provedAtOnce, ([provider, blocks]) =>
        this.#proveOne(provider, [...blocks.values()], claims)
      )
    }
  }

  async #proveOne(provider: string, blocks: readonly BlockToProve[], claims: Claims): Promise<void> {
    const { clock, client, peers, log } = this.#components
    const target = peers.target(provider)
    let leased: BlockToProve[] = []
    if (target !== undefined) {
      try {
        // First the lease: what nobody leases any more is not to go meanwhile; and who leases may ask for more proofs.
        const cids = blocks.map(({ cid }) => cid)
        const states = await withDeadline(clock, requestTimeoutMs, this.#signal, (inner) =>
          client.renewLeases(target, cids, { termMs: helperTermMs }, inner)
        )
        leased = blocks.filter((_, at) => states[at] === 'held')
      } catch (error) {
        this.#signal?.throwIfAborted()
        peers.report(provider, peerOutcomeOf(error))
        log.debug('provider does not lease what it says it has', { provider, error: messageOf(error) })
      }
    }
    for (const { cid } of blocks) claims.show(provider, cid, false)
    if (target === undefined || leased.length === 0) return
    for (const { cid } of await this.#proved(target, leased)) claims.show(provider, cid, true)
  }

  /** Those that the provider has, by a proof, or by the whole where it is too busy for proofs. */
  async #proved(target: ProviderRef, blocks: readonly BlockToProve[]): Promise<BlockToProve[]> {
    const outcomes = await this.#components.prove(target, blocks, this.#signal)
    const proved: BlockToProve[] = []
    for (const [at, block] of blocks.entries()) {
      const isProved =
        outcomes[at] === 'ok' ||
        (outcomes[at] === 'unknown' && (await this.#read(target.peerId, block.cid)) !== undefined)
      if (isProved) proved.push(block)
    }
    return proved
  }

  // Rebuilding

  async #help(units: readonly ForeignUnit[]): Promise<void> {
    const claims = new Claims()
    const sound = units.filter(({ isSound }) => isSound)
    for (const unit of units) if (!unit.isSound) this.#giveUp(unit, allOf(unit), 'damaged')
    const cids = new Map(sound.flatMap((unit) => unit.cids.map((cid) => [cid.toString(), cid])))
    const all = [...cids.values()]
    for (let at = 0; at < all.length; at += limits.leaseBatchMax)
      await this.#ask(all.slice(at, at + limits.leaseBatchMax), claims)
    await this.#proveAll(sound, claims)
    const stored: Stored[] = []
    await forEachLimit(sound, restoredAtOnce, async (unit) => {
      const holders = claims
        .assign(unit.cids)
        .map((provider, at) =>
          provider !== undefined && claims.shown(provider, unit.cids[at]!) === true ? provider : undefined
        )
      for (const [index, provider] of holders.entries()) {
        if (provider !== undefined) this.#hold(unit, index, provider, false)
      }
      stored.push(...(await this.#restore(unit, holders, claims.refuted(unit.cids))))
    })
    await this.#verify(stored)
  }

  async #restore(
    unit: ForeignUnit,
    holders: ReadonlyArray<string | undefined>,
    refuted: ReadonlySet<string>
  ): Promise<Stored[]> {
    const { memory, spend, log } = this.#components
    const wanted = allOf(unit).filter((index) => holders[index] === undefined)
    if (wanted.length === 0) return []
    const readable = allOf(unit).filter((index) => holders[index] !== undefined || unitShardBytes(unit, index) === 0)
    if (unit.bytes === undefined && readable.length < unit.code.k) {
      this.#giveUp(unit, wanted, 'unreadable')
      return []
    }
    const targets = this.#planned(unit, holders, refuted, wanted)
    if (targets.length === 0) {
      this.#giveUp(unit, wanted, 'unplaced') // nobody to give it to: reading it would be in vain
      return []
    }
    const shardBytes = Math.max(1, unitShardBytes(unit, 0))
    const release = await memory.acquire(shardBytes * unit.cids.length, this.#signal)
    try {
      await spend?.(
        (unit.bytes === undefined ? unit.code.k : 0) * shardBytes + targets.length * shardBytes,
        this.#signal
      )
      const rebuilt = await this.#rebuild(unit, holders, targets)
      return await this.#send(unit, holders, refuted, { rebuilt, wanted })
    } catch (error) {
      this.#signal?.throwIfAborted()
      const isDamaged = isCode(error, 'DAMAGED')
      this.#giveUp(unit, wanted, isDamaged ? 'damaged' : 'unreadable')
      log.info('foreign segment not rebuilt', { segment: unit.segment, error: messageOf(error) })
      return []
    } finally {
      release()
    }
  }

  /** Of the wanted, those for which there is a provider now. */
  #planned(
    unit: ForeignUnit,
    holders: ReadonlyArray<string | undefined>,
    excluded: ReadonlySet<string>,
    wanted: readonly number[]
  ): number[] {
    const { peers, random } = this.#components
    const held = [...new Set(holders)].flatMap((peerId) =>
      peerId === undefined ? [] : [{ peerId, domains: peers.domainsOf(peerId) }]
    )
    const shardBytes = Math.max(1, unitShardBytes(unit, 0))
    const request = { code: unit.code, shardBytes, wanted, held, excluded }
    return [...place(request, peers.candidates(), random).assigned.keys()]
  }

  /** @throws HoldfastError `DAMAGED` where the shards are not of one code, whatever the manifest says; `UNREADABLE` */
  async #rebuild(
    unit: ForeignUnit,
    holders: ReadonlyArray<string | undefined>,
    wanted: readonly number[]
  ): Promise<Map<number, Uint8Array>> {
    if (unit.bytes !== undefined) return new Map(wanted.map((index) => [index, unit.bytes!]))
    const { codec } = this.#components
    const { shards } = await gather(this.#components, {
      code: unit.code,
      shards: unit.cids.map((cid, index) => ({
        index,
        cid,
        bytes: unitShardBytes(unit, index),
        provider: holders[index],
        state: holders[index] === undefined ? 'missing' : 'healthy'
      })),
      wanted,
      signal: this.#signal
    })
    for (const [index, bytes] of shards) {
      this.#round.bytesRead += bytes.length
      if (bytes.length !== unitShardBytes(unit, index))
        throw new HoldfastError('DAMAGED', `shard ${index} has ${bytes.length} bytes`)
    }
    const missing = wanted.filter((index) => !shards.has(index))
    const restored = await codec.reconstruct({
      shards: unit.cids.map((_, index) => shards.get(index)),
      length: unit.length,
      code: unit.code,
      wanted: missing
    })
    const rebuilt = new Map(wanted.filter((index) => shards.has(index)).map((index) => [index, shards.get(index)!]))
    for (const [at, index] of missing.entries()) rebuilt.set(index, restored[at]!)
    for (const [index, bytes] of rebuilt) {
      // A provider that turned the bytes down would be blamed for what a stranger's manifest says.
      if (!matchesCid(unit.cids[index]!, bytes))
        throw new HoldfastError('DAMAGED', `shard ${index} is not of this code`)
    }
    return rebuilt
  }

  async #send(
    unit: ForeignUnit,
    holders: ReadonlyArray<string | undefined>,
    excluded: ReadonlySet<string>,
    { rebuilt, wanted }: { rebuilt: Map<number, Uint8Array>; wanted: readonly number[] }
  ): Promise<Stored[]> {
    const { index: releases } = this.#components
    const scatter = new Scatter(this.#components, {
      code: unit.code,
      held: holders.flatMap((provider, index) => (provider === undefined ? [] : [{ index, provider }])),
      excluded,
      quorum: 0,
      shards: [...rebuilt].map(([index, bytes]) => ({ index, cid: unit.cids[index]!, bytes, announce: unit.isRoot })),
      termMs: helperTermMs,
      signal: this.#signal
    })
    await scatter.settled
    try {
      await releases.queueReleases(scatter.strays())
    } finally {
      scatter.letGo()
    }
    this.#giveUp(
      unit,
      wanted.filter((index) => !scatter.placed.has(index)),
      'unplaced'
    )
    return [...scatter.placed].map(([index, { provider }]) => {
      const bytes = unitShardBytes(unit, index)
      this.#round.bytesWritten += bytes
      return { unit, index, provider, bytes }
    })
  }

  /** What was stored counts once it was proved. */
  async #verify(stored: readonly Stored[]): Promise<void> {
    const byProvider = Map.groupBy(stored, ({ provider }) => provider)
    await forEachLimit([...byProvider], provedAtOnce, async ([provider, rows]) => {
      const target = this.#components.peers.target(provider)
      const blocks = rows.map(({ unit, index, bytes }) => ({ cid: unit.cids[index]!, bytes }))
      const proved = new Set(target === undefined ? [] : await this.#proved(target, blocks))
      for (const [at, { unit, index }] of rows.entries()) {
        if (proved.has(blocks[at]!)) this.#hold(unit, index, provider, true)
        else this.#giveUp(unit, [index], 'unverified')
      }
    })
  }

  // The report

  #hold({ segment, cids }: ForeignUnit, index: number, provider: string, isRebuilt: boolean): void {
    this.#round.held.push({ segment, index, cid: cids[index]!, provider, isRebuilt })
  }

  #giveUp({ segment, cids }: ForeignUnit, indices: readonly number[], why: UnhelpedReason): void {
    for (const index of indices) this.#round.unhelped.push({ segment, index, cid: cids[index]!, why })
  }

  async #sign(): Promise<Uint8Array[]> {
    const { clock, peers, signer } = this.#components
    const { root, held, unhelped } = this.#round
    const at = clock.now()
    const reports: Uint8Array[] = []
    const pages = pagesOf(held)
    for (let page = 0; page < Math.max(1, pages.length, Math.ceil(unhelped.length / reportRowsMax)); page++) {
      const rows = pages[page] ?? []
      const providers = [...new Set(rows.map(({ provider }) => provider))].map((peerId): ReportedProvider => {
        const { dataUrls = [], addresses = [] } = peers.target(peerId) ?? {}
        return { peerId, dataUrls, addresses }
      })
      const lacking = unhelped.slice(page * reportRowsMax, (page + 1) * reportRowsMax)
      reports.push(await encodeReport({ root, at, providers, held: rows, unhelped: lacking }, signer))
    }
    return reports
  }
}

const allOf = ({ cids }: ForeignUnit): number[] => cids.map((_, index) => index)

const blocksOf = (units: readonly ForeignUnit[]): number => units.reduce((sum, { cids }) => sum + cids.length, 0)

/** In as few reports as their bounds allow, in order. */
export function pagesOf(rows: readonly HeldRow[]): HeldRow[][] {
  const pages: HeldRow[][] = []
  let providers = new Set<string>()
  for (const row of rows) {
    const last = pages.at(-1)
    const isFull =
      last === undefined ||
      last.length === reportRowsMax ||
      (providers.size === reportProvidersMax && !providers.has(row.provider))
    if (isFull) {
      pages.push([row])
      providers = new Set([row.provider])
    } else {
      last.push(row)
      providers.add(row.provider)
    }
  }
  return pages
}
