/**
 * Refusals as the gateway takes them: nobody's word alone withdraws a shard. A provider that says no has to sign it, then
 * the shard is withdrawn, at once, without harm to its score, and it is never offered that block again. One that says no
 * and signs nothing has said nothing: it could say so of what it lost.
 */
import type { Clock } from '../base/clock.ts'
import { withDeadline } from '../base/clock.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import type { VerifySignature } from '../market/offer.ts'
import { openRefusal, type Refusal } from '../market/refusal.ts'
import type { MetadataIndex, RefusalRow } from '../metadata/index-store.ts'
import type { CustodyObserver, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { refusalsMax, type Tell } from '../transfer/refusal-protocol.ts'

const askMsMax = 10 * secondMs
/** Who signed nothing is not asked about the same block again for so long. */
const unprovenMs = minuteMs
const unprovenMax = 10_000
/** Questions under way; whoever comes beyond that is told that nothing is proven, and will ask again. */
const askingMax = 256
/** How long a hand-over has before others rebuild what is withdrawn. */
const handOverMs = minuteMs
/** Segments that share the blocks of one message: more are found when they are read. */
const segmentsMax = 4096

export interface RefusalsComponents {
  index: Pick<MetadataIndex, 'recordRefusals' | 'listRefusals' | 'listSegmentsWith' | 'claimSegments' | 'markHolding'>
  client: Pick<ProviderClient, 'listRefusals'>
  peers: Pick<Peers, 'target'>
  verifySignature: VerifySignature
  /** Hears of what has been proven, and of what a provider said that it lost. */
  custody: CustodyObserver
  /** Something was withdrawn or lost: it should be rebuilt. */
  onLost: () => void
  clock: Clock
  log: Log
}

export class Refusals {
  readonly #components: RefusalsComponents
  readonly #log: Log
  /** Until when a provider is not asked about a block again: `provider cid`, oldest first. */
  readonly #unproven = new Map<string, number>()
  readonly #asking = new Map<string, Promise<boolean>>()

  constructor(components: RefusalsComponents) {
    this.#components = components
    this.#log = components.log.child('refusals')
  }

  /** The observer that others are given: of a refusal it passes on what is proven, and nothing of what is not. */
  readonly observer: CustodyObserver = async (provider, cid, outcome) => {
    if (outcome === 'refused') await this.confirm(provider, [cid])
    else await this.#components.custody(provider, cid, outcome)
  }

  /** Told of a block that a provider would not take: it is remembered, if that is signed. */
  readonly onRefused = (provider: string, cid: CID): void => void this.confirm(provider, [cid])

  /** Who has refused any of these blocks: they are offered none of them again. */
  async refusersOf(cids: readonly CID[]): Promise<Set<string>> {
    return new Set((await this.#components.index.listRefusals(cids)).map(({ provider }) => provider))
  }

  /**
   * Which of these blocks the provider has refused, signed. What is proven by it is in the index, withdrawn, when it resolves.
   * Never rejects: what could not be asked is not proven.
   *
   * @returns their CIDs' text
   */
  readonly confirm = async (provider: string, cids: readonly CID[], signal?: AbortSignal): Promise<Set<string>> => {
    const proven = new Set<string>()
    try {
      const known = await this.#components.index.listRefusals(cids)
      for (const { cid } of known.filter((one) => one.provider === provider)) {
        proven.add(cid.toString())
        // It may have been placed there since: by a write that had begun before.
        await this.#components.index.markHolding(provider, cid, 'withdrawn')
      }
      if (proven.size > 0) this.#components.onLost()
      const unknown = cids.filter((cid) => !proven.has(cid.toString()) && !this.#isUnproven(provider, cid))
      for (let from = 0; from < unknown.length; from += refusalsMax) {
        const asked = unknown.slice(from, from + refusalsMax)
        for (const [at, isProven] of (await this.#ask(provider, asked, signal)).entries())
          if (isProven) proven.add(asked[at]!.toString())
      }
    } catch (error) {
      this.#log.warn('refusals were not looked into', { provider, error: messageOf(error) })
    }
    return proven
  }

  /**
   * What a provider tells by itself. Only what it is to keep for us counts: anybody may connect.
   *
   * @throws HoldfastError `PROTOCOL` where anything in it is not signed by the provider
   */
  async told(from: string, { refusals, lost, handOver }: Pick<Tell, 'refusals' | 'lost' | 'handOver'>): Promise<void> {
    const { index, clock, onLost } = this.#components
    const opened: RefusalRow[] = []
    for (const signed of refusals) opened.push(await this.#open(from, signed))
    const { segmentIds, isHeld } = await this.#heldBy(from, [...opened.map(({ cid }) => cid), ...lost])
    const rows = opened.filter(({ cid }) => isHeld(cid))
    const gone = lost.filter(isHeld)
    if (rows.length === 0 && gone.length === 0) return
    const now = clock.now()
    if (handOver && rows.length > 0)
      await index.claimSegments(segmentIds, { claimant: `hand-over:${from}`, until: now + handOverMs, now })
    await this.#record(from, rows)
    for (const cid of gone) {
      this.#log.warn('a provider says that it lost a shard', { provider: from, cid })
      await this.#components.custody(from, cid, 'missing')
      await index.markHolding(from, cid, 'missing')
    }
    onLost()
  }

  async #heldBy(
    provider: string,
    cids: readonly CID[]
  ): Promise<{ segmentIds: number[]; isHeld: (cid: CID) => boolean }> {
    if (cids.length === 0) return { segmentIds: [], isHeld: () => false }
    const segments = await this.#components.index.listSegmentsWith(provider, cids, segmentsMax)
    const held = new Set(
      segments.flatMap(({ shards }) => shards.filter((shard) => shard.provider === provider).map(({ cid }) => `${cid}`))
    )
    return { segmentIds: segments.map(({ id }) => id), isHeld: (cid) => held.has(cid.toString()) }
  }

  /** @throws HoldfastError `PROTOCOL` */
  async #open(provider: string, signed: Uint8Array, asked?: CID): Promise<RefusalRow> {
    const refusal: Refusal = await openRefusal(signed, provider, this.#components.verifySignature)
    if (asked !== undefined && !refusal.cid.equals(asked))
      throw new HoldfastError('PROTOCOL', `${provider} answered about another block`)
    return { provider, cid: refusal.cid, at: refusal.at, signed }
  }

  async #record(provider: string, rows: readonly RefusalRow[]): Promise<void> {
    if (rows.length === 0) return
    const { index, clock, custody } = this.#components
    const segments = await index.recordRefusals(rows, clock.now())
    this.#log.info('a provider refuses blocks', { provider, blocks: rows.length, segments: segments.length })
    // What an audit of them still waited for is not waited for any more.
    for (const { cid } of rows) await custody(provider, cid, 'refused')
  }

  /** One question at a time about a block; others wait for it. */
  async #ask(provider: string, cids: readonly CID[], signal: AbortSignal | undefined): Promise<boolean[]> {
    const key = (cid: CID): string => `${provider} ${cid}`
    const fresh = cids.filter((cid) => !this.#asking.has(key(cid)))
    if (fresh.length > 0 && this.#asking.size + fresh.length <= askingMax + refusalsMax) {
      const asking = this.#fetch(provider, fresh, signal)
      for (const [at, cid] of fresh.entries()) {
        this.#asking.set(
          key(cid),
          asking.then((proven) => proven[at]!).finally(() => this.#asking.delete(key(cid)))
        )
      }
    }
    return await Promise.all(cids.map((cid) => this.#asking.get(key(cid)) ?? false))
  }

  /** Never rejects. */
  async #fetch(provider: string, cids: readonly CID[], signal: AbortSignal | undefined): Promise<boolean[]> {
    const { client, peers, clock, onLost } = this.#components
    const target = peers.target(provider)
    if (target === undefined) return cids.map(() => false)
    try {
      const signed = await withDeadline(clock, askMsMax, signal, (inner) => client.listRefusals(target, cids, inner))
      const rows: Array<RefusalRow | undefined> = []
      for (const [at, bytes] of signed.entries())
        rows.push(bytes === undefined ? undefined : await this.#open(provider, bytes, cids[at]))
      for (const [at, row] of rows.entries()) if (row === undefined) this.#remember(provider, cids[at]!)
      const proven = rows.filter((row) => row !== undefined)
      await this.#record(provider, proven)
      if (proven.length > 0) onLost()
      return rows.map((row) => row !== undefined)
    } catch (error) {
      if (isCode(error, 'PROTOCOL')) for (const cid of cids) this.#remember(provider, cid)
      this.#log.info('a provider that refuses blocks did not show it', { provider, error: messageOf(error) })
      return cids.map(() => false)
    }
  }

  #isUnproven(provider: string, cid: CID): boolean {
    return (this.#unproven.get(`${provider} ${cid}`) ?? 0) > this.#components.clock.now()
  }

  #remember(provider: string, cid: CID): void {
    this.#unproven.delete(`${provider} ${cid}`)
    this.#unproven.set(`${provider} ${cid}`, this.#components.clock.now() + unprovenMs)
    if (this.#unproven.size > unprovenMax) this.#unproven.delete(this.#unproven.keys().next().value!)
  }
}
