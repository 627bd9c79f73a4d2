/**
 * Taking over what somebody else's repair report says: the owner's end of repair by anybody. The report is a list of hints.
 * It is matched by CID to segments of this gateway's own in which a shard is lost, by its own index; the named provider has to
 * lease the block to this gateway and prove that it has it; placement's rules hold; and only then the index says that the
 * shard is there, in one transaction a segment. Whatever else stands in a report costs a look at the index, and changes
 * nothing. Nothing is read but nodes, which have no proofs. Idempotent, and may be killed anywhere: leases taken in vain are
 * given back, or end.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { forEachLimit, Semaphore } from '../base/concurrency.ts'
import { messageOf } from '../base/errors.ts'
import { limits, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import type { VerifySignature } from '../market/offer.ts'
import { decodeReport, type HeldRow, type RepairReport } from '../market/repair-report.ts'
import type { MetadataIndex, ShardPlacement } from '../metadata/index-store.ts'
import type { ShardRecord, StoredSegment } from '../metadata/records.ts'
import { storedShardBytes } from '../object/segment-codec.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { peerOutcomeOf } from '../transfer/scatter.ts'
import type { BlockToProve, ProveHolding } from './prove-holding.ts'
import { type RowVerdict, rowVerdicts, type SeatView, seatOf } from './report-rules.ts'

type ReportIndex = Pick<
  MetadataIndex,
  | 'listSegmentsOf'
  | 'getSegment'
  | 'listRefusals'
  | 'claimSegments'
  | 'unclaimSegments'
  | 'placeShards'
  | 'queueReleases'
>

export interface AcceptComponents {
  index: ReportIndex
  client: Pick<ProviderClient, 'renewLeases'>
  prove: ProveHolding
  peers: Peers
  /** Makes providers known that the report names and the directory does not: their own signed offers decide. */
  introduce: (
    peers: ReadonlyArray<{ peerId: string; addresses: readonly string[] }>,
    signal?: AbortSignal
  ) => Promise<void>
  /** Resolves once the providers that are online are known: before that all would be unreachable. */
  networkKnown: (signal?: AbortSignal) => Promise<void>
  /** Whether a provider has been absent for longer than this segment can wait for. */
  isGone: (provider: string, segment: StoredSegment) => boolean
  /** Whether the segment's upload is still placing shards of it. */
  isSettling: (segment: StoredSegment) => boolean
  verifySignature: VerifySignature
  guard: LeaseGuard
  /** Under which segments are claimed while they are worked on; of this gateway alone. */
  claimant: string
  /** Lets others have the event loop. */
  pause: () => Promise<void>
  clock: Clock
  log: Log
}

export interface JudgedRow {
  cid: CID
  provider: string
  verdict: RowVerdict
}

export interface Acceptance {
  root: CID
  helper: string
  at: number
  /** Rows by what became of them. */
  counts: Record<RowVerdict, number>
  /** Those that were neither unknown nor not needed, a thousand at most. */
  rows: JudgedRow[]
}

const lostStates = new Set(['unknown', 'missing', 'wrong', 'withdrawn'])
const takeMsMax = 2 * minuteMs
const takesWaitingMax = 4
/** Segments with one block of a row that are looked at: blocks that very many share (empty ones) need no more. */
const segmentsPerRowMax = 8
/** Claimed, proved and written down together. */
const segmentsAtOnce = 16
const claimMs = 5 * minuteMs
const requestTimeoutMs = 10 * secondMs
const provedAtOnce = 16
const introducedMax = 64
const rowsPerTurn = 64
const rowsTold = 1000

export class ReportTaker {
  readonly #components: AcceptComponents
  readonly #turn = new Semaphore(1, takesWaitingMax)

  constructor(components: AcceptComponents) {
    this.#components = components
  }

  /**
   * @throws HoldfastError `BAD_INPUT` for what is no report, or not signed by the helper that it names; `OVERLOADED` when
   * others wait already
   */
  async take(bytes: Uint8Array, signal?: AbortSignal): Promise<Acceptance> {
    const report = await decodeReport(bytes, this.#components.verifySignature)
    return await this.#turn.run(() => new Take(this.#components, report, signal).run(), signal)
  }
}

interface Seat {
  segment: StoredSegment
  index: number
  row: HeldRow
  /** What the index said of the shard when it was seated. */
  before: ShardRecord
}

class Take {
  readonly #components: AcceptComponents
  readonly #report: RepairReport
  readonly #signal: AbortSignal | undefined
  /** Of each row the verdict that says most. */
  readonly #verdicts = new Map<HeldRow, RowVerdict>()

  constructor(components: AcceptComponents, report: RepairReport, signal: AbortSignal | undefined) {
    this.#components = components
    this.#report = report
    this.#signal = signal
  }

  async run(): Promise<Acceptance> {
    const { clock, networkKnown, log } = this.#components
    const until = clock.now() + takeMsMax
    await networkKnown(this.#signal)
    const wanted = await this.#match(until)
    await this.#introduce(new Set([...wanted.values()].flat()))
    const ids = [...wanted.keys()]
    for (let at = 0; at < ids.length && clock.now() < until; at += segmentsAtOnce) {
      const some = ids.slice(at, at + segmentsAtOnce)
      await this.#fill(new Map(some.map((id) => [id, wanted.get(id)!])))
    }
    const acceptance = this.#told()
    const { helper, root } = this.#report
    log.info('a repair report was looked at', { helper, root, ...acceptance.counts })
    return acceptance
  }

  /** Later verdicts replace earlier ones, but nothing an acceptance: a block may be wanted by several segments. */
  #judge(row: HeldRow, verdict: RowVerdict): void {
    if (this.#verdicts.get(row) !== 'accepted') this.#verdicts.set(row, verdict)
  }

  #isLost(segment: StoredSegment, { state, provider }: ShardRecord): boolean {
    return lostStates.has(state) || provider === undefined || this.#components.isGone(provider, segment)
  }

  /** Segments that rows could fill, by id. Costs look-ups in the index, and nothing on the network. */
  async #match(until: number): Promise<Map<number, HeldRow[]>> {
    const { index, clock, pause } = this.#components
    const wanted = new Map<number, HeldRow[]>()
    const seen = new Set<string>()
    for (const [at, row] of this.#report.held.entries()) {
      if (at % rowsPerTurn === 0) {
        await pause()
        this.#signal?.throwIfAborted()
        if (clock.now() >= until) break // the others were not looked at
      }
      const key = `${row.provider} ${row.cid}`
      this.#judge(row, 'not-needed')
      if (seen.has(key)) continue // said twice
      seen.add(key)
      const segments = await index.listSegmentsOf([row.cid], segmentsPerRowMax)
      if (segments.length === 0) this.#judge(row, 'unknown')
      for (const segment of segments) {
        if (!segment.shards.some((shard) => shard.cid.equals(row.cid) && this.#isLost(segment, shard))) continue
        this.#judge(row, 'not-looked-at')
        wanted.set(segment.id, [...(wanted.get(segment.id) ?? []), row])
      }
    }
    return wanted
  }

  async #introduce(rows: ReadonlySet<HeldRow>): Promise<void> {
    const { peers, introduce } = this.#components
    const named = new Set([...rows].map(({ provider }) => provider))
    const strangers = this.#report.providers.filter(
      ({ peerId }) => named.has(peerId) && peers.target(peerId) === undefined
    )
    if (strangers.length > 0) await introduce(strangers.slice(0, introducedMax), this.#signal)
  }

  async #fill(wanted: ReadonlyMap<number, readonly HeldRow[]>): Promise<void> {
    const { index, clock, claimant } = this.#components
    const now = clock.now()
    const claimed = await index.claimSegments([...wanted.keys()], { claimant, until: now + claimMs, now })
    try {
      for (const [id, rows] of wanted) if (!claimed.includes(id)) for (const row of rows) this.#judge(row, 'busy')
      const seats: Seat[] = []
      for (const id of claimed) seats.push(...(await this.#seat(id, wanted.get(id)!)))
      await this.#take(seats)
    } finally {
      await index.unclaimSegments(claimed, claimant)
    }
  }

  /** Which rows could be taken, as the index has the segment now that nobody else repairs it. */
  async #seat(id: number, rows: readonly HeldRow[]): Promise<Seat[]> {
    const { index, peers, isSettling } = this.#components
    const segment = await index.getSegment(id)
    if (segment === undefined) return []
    const refusals = await index.listRefusals(segment.shards.map(({ cid }) => cid))
    const view: SeatView = {
      isLost: (shard) => this.#isLost(segment, shard),
      domainsOf: (provider) => peers.domainsOf(provider),
      isOnline: (provider) => peers.state(provider) === 'online' && peers.target(provider) !== undefined,
      standing: (provider) => peers.standing?.(provider) ?? 'vetted',
      refusers: new Set(refusals.map(({ provider }) => provider))
    }
    const seated = new Map<number, string>()
    const seats: Seat[] = []
    for (const row of rows) {
      const found = isSettling(segment) ? { why: 'busy' as const } : seatOf(segment, row, seated, view)
      if ('why' in found) {
        this.#judge(row, found.why)
        continue
      }
      seated.set(found.index, row.provider)
      seats.push({ segment, index: found.index, row, before: segment.shards[found.index]! })
    }
    return seats
  }

  /** Leases and proofs, and then the index. */
  async #take(seats: readonly Seat[]): Promise<void> {
    const { index, guard } = this.#components
    const letGo: Array<() => void> = []
    try {
      for (const { row } of seats) letGo.push(await guard.hold(row.provider, row.cid))
      const leaseUntil = new Map<Seat, number>()
      const leased: Seat[] = []
      const byProvider = Map.groupBy(seats, ({ row }) => row.provider)
      await forEachLimit([...byProvider], provedAtOnce, async ([provider, own]) => {
        const target = this.#components.peers.target(provider)
        const until = this.#components.clock.now() + limits.committedLeaseMs
        const held = target === undefined ? [] : await this.#lease(target, own)
        leased.push(...held)
        const proved = new Set(target === undefined ? [] : await this.#proved(target, held))
        for (const seat of own) {
          if (proved.has(seat)) leaseUntil.set(seat, until)
          else this.#judge(seat.row, 'unproved')
        }
      })
      const placed = await this.#place(leaseUntil)
      // What nothing needs is left out of the queue by the index itself.
      const inVain = leased.filter((seat) => !placed.has(seat))
      await index.queueReleases(inVain.map(({ row: { provider, cid } }) => ({ provider, cid })))
    } finally {
      for (const free of letGo) free()
    }
  }

  async #lease(target: ProviderRef, seats: readonly Seat[]): Promise<Seat[]> {
    const { client, clock, peers, log } = this.#components
    const held: Seat[] = []
    try {
      for (let at = 0; at < seats.length; at += limits.leaseBatchMax) {
        const some = seats.slice(at, at + limits.leaseBatchMax)
        const cids = some.map(({ row }) => row.cid)
        const states = await withDeadline(clock, requestTimeoutMs, this.#signal, (inner) =>
          client.renewLeases(target, cids, { termMs: limits.committedLeaseMs }, inner)
        )
        held.push(...some.filter((_, i) => states[i] === 'held'))
      }
    } catch (error) {
      this.#signal?.throwIfAborted()
      peers.report(target.peerId, peerOutcomeOf(error))
      log.info('provider does not lease what a report says it has', {
        provider: target.peerId,
        error: messageOf(error)
      })
    }
    return held
  }

  async #proved(target: ProviderRef, seats: readonly Seat[]): Promise<Seat[]> {
    if (seats.length === 0) return []
    const blocks = seats.map(
      ({ segment, index, row }): BlockToProve => ({
        cid: row.cid,
        bytes: storedShardBytes(segment.length, segment, index)
      })
    )
    const outcomes = await this.#components.prove(target, blocks, this.#signal)
    return seats.filter((_, at) => outcomes[at] === 'ok')
  }

  /** One transaction a segment; of shards about which the index says the same as when they were seated. */
  async #place(leaseUntil: ReadonlyMap<Seat, number>): Promise<Set<Seat>> {
    const { index, clock } = this.#components
    const placed = new Set<Seat>()
    for (const [{ id }, seats] of Map.groupBy([...leaseUntil.keys()], ({ segment }) => segment)) {
      const now = await index.getSegment(id)
      const same = seats.filter(({ index: at, before }) => {
        const shard = now?.shards[at]
        return shard !== undefined && shard.provider === before.provider && this.#isLost(now!, shard)
      })
      for (const seat of seats) if (!same.includes(seat)) this.#judge(seat.row, 'not-needed')
      if (same.length === 0) continue
      await index.placeShards(
        same.map((seat): ShardPlacement => {
          const { cid, provider } = seat.row
          return { segmentId: id, index: seat.index, cid, provider, leaseUntil: leaseUntil.get(seat)!, at: clock.now() }
        })
      )
      for (const seat of same) {
        placed.add(seat)
        this.#judge(seat.row, 'accepted')
      }
    }
    return placed
  }

  #told(): Acceptance {
    const { root, helper, at, held } = this.#report
    const counts = Object.fromEntries(rowVerdicts.map((verdict) => [verdict, 0])) as Record<RowVerdict, number>
    const rows: JudgedRow[] = []
    for (const row of held) {
      const verdict = this.#verdicts.get(row) ?? 'not-looked-at'
      counts[verdict]++
      if (verdict === 'unknown' || verdict === 'not-needed' || rows.length === rowsTold) continue
      rows.push({ cid: row.cid, provider: row.provider, verdict })
    }
    return { root, helper, at, counts, rows }
  }
}
