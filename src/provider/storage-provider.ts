/**
 * What a storage provider decides: which blocks it takes, for whom and how long it keeps them, and what it gives
 * back. No sockets and no files here: the data server, the control protocols and the simulator all drive this class.
 *
 * It guarantees that
 * - `put` resolves only after the bytes were checked against their CID and both block and lease are durable;
 * - `get` never yields bytes that do not match their CID;
 * - a leased block is never deleted, whatever runs at the same time, but by `evict`, which refuses it, and where it is
 *   damaged, which is told;
 * - a block that is refused is neither taken nor given, though it may be kept to be handed over;
 * - what it counts as used is what the store holds: the leased blocks that are not lost, and those that wait to be deleted;
 * - the blocks kept and those being written never exceed the capacity together.
 */
import type { CID } from 'multiformats/cid'
import { equalBytes } from '../base/bytes.ts'
import type { Clock } from '../base/clock.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { check, HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { dayMs, hourMs, limits, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { blake3 } from '../content/blake3.ts'
import { sliceOf } from '../content/blake3-slice.ts'
import { type Blake3Tree, treeOf } from '../content/blake3-tree.ts'
import { codecs, hashes, matchesCid } from '../content/cid.ts'
import { isProvable } from '../custody/answers.ts'
import { challengeChunkBytes } from '../custody/audit-messages.ts'
import { encodeOffer, type Offer, type Signer } from '../market/offer.ts'
import type { LeaseState } from '../transfer/provider-client.ts'
import { KeyedLock } from './keyed-lock.ts'
import type { Expired, Lease, LeasedBlock, LeaseStore, LossKind, OwnerTotals } from './lease-store.ts'
import type { RefusalStore } from './refusal-store.ts'
import type { ShardStore } from './shard-store.ts'

/** The longest lease a provider grants: three terms of a committed shard. */
export const leaseTermMsMax = 3 * limits.committedLeaseMs

/** Leases ended by one commit of the collector. */
const collectBatch = 1000
/** Blocks deleted at once. */
const deleteWidth = 8
/** Leased blocks looked at together when some are missing, and told together. */
const lossBatch = 1000
/** How long a full disk is taken to stay full, unless something is deleted. */
const diskFullMs = minuteMs
/** How old a signed offer handed out may be. */
const offerAgeMsMax = 2 * secondMs

export interface StorageProviderComponents {
  shards: ShardStore
  leases: LeaseStore
  clock: Clock
  log: Log
  signer: Signer
  /**
   * Has the owners of these blocks told that they are lost; durable when it resolves. Told of each as soon as it is found,
   * and again at every start while it is leased: whatever becomes of one telling, there is another.
   */
  onLost?: (cids: readonly CID[]) => Promise<void>
  /** What the operator refuses; absent: nothing. */
  refusals?: Pick<RefusalStore, 'find'>
}

export interface StorageProviderInit {
  /** Bytes of blocks to keep at most. */
  capacityBytes: number
  /** What fails together with this provider; its peer id where the operator gave no name. */
  domain: string
  /** Price of a GiB-month, in the market's smallest unit. */
  price: number
  /** Origins of the data plane, best first, as they are now. */
  dataUrls: () => string[]
  /** Multiaddrs of the control plane, as they are now. */
  addresses: () => string[]
  version: string
  /** How long after its expiry a lease still holds its block. */
  expiryGraceMs?: number
  /** How long a block without a lease, found at start, is kept: a renewal in that time saves it. */
  orphanGraceMs?: number
}

export interface PutResult {
  /** Whether the block was not there before. */
  created: boolean
  /** End of the caller's lease, milliseconds since the Unix epoch. */
  until: number
}

export interface CollectResult {
  blocks: number
  bytes: number
}

export interface ReconcileResult {
  blocks: number
  bytes: number
  /** Blocks nobody leases: from writes that were never acknowledged. */
  orphans: number
  /** Leased blocks that are not in the store, or damaged. */
  missing: number
}

export interface StorageStats {
  capacityBytes: number
  /** Bytes of the blocks kept. */
  usedBytes: number
  /** Of those that somebody leases; the rest waits to be deleted. */
  leasedBytes: number
  /** Bytes of blocks being written. */
  reservedBytes: number
  freeBytes: number
  leases: number
  blocks: number
  /** Leased blocks that are gone or were damaged, and have not been brought again. */
  lost: number
  accepting: boolean
  /** Since the process started. */
  puts: number
  gets: number
  rotten: number
}

/** `unleased`: nobody leases it any more, so it does not matter. */
export type ScrubResult = 'ok' | 'unleased' | LossKind

export interface BlockProofs {
  /** In the order of the chunks asked for; each checked, or out of a block that was. */
  slices: Uint8Array[]
  /** The block's, for the next time. */
  tree: Blake3Tree
}

/** Whether providers keep blocks of this kind: shards under BLAKE3, dag-pb and dag-cbor nodes under sha2-256. */
export function isStorable(cid: CID): boolean {
  const { code, digest } = cid.multihash
  if (cid.version !== 1 || digest.length !== 32) return false
  return cid.code === codecs.raw
    ? code === hashes.blake3
    : (cid.code === codecs.dagPb || cid.code === codecs.dagCbor) && code === hashes.sha256
}

export class StorageProvider {
  readonly capacityBytes: number
  readonly #init: StorageProviderInit
  readonly #shards: ShardStore
  readonly #leases: LeaseStore
  readonly #clock: Clock
  readonly #log: Log
  readonly #signer: Signer
  readonly #onLost: (cids: readonly CID[]) => Promise<void>
  readonly #refusals: Pick<RefusalStore, 'find'> | undefined
  readonly #expiryGraceMs: number
  readonly #orphanGraceMs: number
  readonly #locks = new KeyedLock()
  /** Of released blocks, under way. */
  readonly #deletions = new Set<Promise<void>>()
  #ready: Promise<void> | undefined
  #usedBytes = 0
  #reservedBytes = 0
  #diskFullUntil = 0
  #accepting = true
  #draining = false
  #puts = 0
  #gets = 0
  #rotten = 0
  #signedOffer: { bytes: Uint8Array; issuedAt: number } | undefined

  constructor(components: StorageProviderComponents, init: StorageProviderInit) {
    check(Number.isSafeInteger(init.capacityBytes) && init.capacityBytes >= 0, 'capacityBytes must be a whole number')
    this.capacityBytes = init.capacityBytes
    this.#init = init
    this.#shards = components.shards
    this.#leases = components.leases
    this.#clock = components.clock
    this.#log = components.log
    this.#signer = components.signer
    this.#onLost = components.onLost ?? (async () => {})
    this.#refusals = components.refusals
    this.#expiryGraceMs = init.expiryGraceMs ?? hourMs
    this.#orphanGraceMs = Math.max(1, init.orphanGraceMs ?? dayMs) // not 0: or what can't be deleted is due at once
  }

  get peerId(): string {
    return this.#signer.peerId
  }

  /** Whether blocks it does not have yet are taken. */
  get accepting(): boolean {
    return this.#accepting && !this.#draining
  }

  /** Whether it leaves, and hands over what it has. */
  get draining(): boolean {
    return this.#draining
  }

  /** While it drains it takes no blocks that it does not have yet, and its offer says why. */
  setDraining(draining: boolean): void {
    this.#draining = draining
    this.#signedOffer = undefined
  }

  /** Stops taking blocks it does not have yet, or takes them again. What is leased is kept either way. */
  setAccepting(accepting: boolean): void {
    this.#accepting = accepting
    this.#signedOffer = undefined
  }

  /**
   * Keeps a block for `owner`: durable, and leased for at least `termMs`, when it resolves. Idempotent.
   *
   * @throws HoldfastError `BAD_INPUT` for a kind of CID, a size or a term that is not taken, `WRONG` for bytes that do
   * not match, `REFUSED`, `NO_SPACE`
   */
  async put(owner: string, cid: CID, bytes: Uint8Array, termMs: number): Promise<PutResult> {
    await this.#start()
    check(isStorable(cid), 'providers keep raw blocks under blake3, and dag-pb and dag-cbor blocks under sha2-256')
    check(bytes.length <= limits.shardBytesMax, `a block has at most ${limits.shardBytesMax} bytes`)
    checkTerm(termMs)
    this.#checkRefusal(cid) // not worth a hash
    if (!matchesCid(cid, bytes)) throw new HoldfastError('WRONG', 'the bytes do not match the CID')
    return await this.#locks.run(cid.toString(), async () => {
      // Whoever refuses it from now on waits for this lock before looking for what is held.
      this.#checkRefusal(cid)
      const storedBytes = await this.#shards.size(cid)
      const loss = await this.#leases.lossOf(cid)
      const isHeld = loss === undefined && storedBytes === bytes.length && (await this.#isHeldWhole(cid))
      if (!isHeld) await this.#write(cid, bytes, await this.#countedBytes(cid, storedBytes, loss))
      if (loss !== undefined) await this.#leases.find(cid) // others lease it, too
      const until = await this.#lease(owner, cid, bytes.length, termMs, !isHeld)
      this.#puts += 1
      return { created: !isHeld, until }
    })
  }

  /**
   * The block's bytes, checked against its CID; in the memory given, where they fit.
   *
   * @throws HoldfastError `MISSING`; with `details.rotten` where the block is there but damaged; `REFUSED`
   */
  async get(cid: CID, into?: Uint8Array): Promise<Uint8Array> {
    this.#checkRefusal(canonical(cid))
    return await this.getToHandOver(cid, into)
  }

  /**
   * Whether this peer may read the block though it is refused: it leases it, and has to move it while it is still kept. If
   * all who have a content refuse it at once there is nobody else to get it from.
   */
  async mayMove(peerId: string, cid: CID): Promise<boolean> {
    return await this.isLeasedBy(peerId, canonical(cid))
  }

  /** The same of a block that may be refused: for who is to keep it instead, and nobody else. */
  async getToHandOver(cid: CID, into?: Uint8Array): Promise<Uint8Array> {
    const key = canonical(cid)
    if (!isStorable(key)) throw missing()
    const read = await this.#read(key, into)
    if (!(read instanceof Uint8Array)) throw await this.#confession(key, read)
    if (!matchesCid(key, read)) throw await this.#confession(key, 'rotten')
    this.#gets += 1
    return read
  }

  /**
   * Proofs of these chunks (of 1 KiB) of a shard, from one read of it. The block is always hashed whole, so damage anywhere
   * in it is noticed; its `tree`, where known, only saves making one.
   *
   * @throws HoldfastError `MISSING`; with `details.rotten` where the block is there but damaged. `REFUSED`; `BAD_INPUT`
   * for a node, whose CID is no BLAKE3 digest
   */
  async prove(cid: CID, chunks: readonly number[], tree?: Blake3Tree): Promise<BlockProofs> {
    check(isProvable(cid), 'only raw blocks under blake3 have proofs')
    this.#checkRefusal(cid)
    const read = await this.#read(cid)
    if (!(read instanceof Uint8Array)) throw await this.#confession(cid, read)
    const proofs = proofsOf(read, cid.multihash.digest, chunks, tree)
    if (proofs === undefined) throw await this.#confession(cid, 'rotten')
    return proofs
  }

  /**
   * Looks whether a leased block is there and undamaged. What is not is confessed, and counts no longer.
   *
   * @param into memory for the block
   */
  async scrub(cid: CID, into?: Uint8Array): Promise<ScrubResult> {
    await this.#start()
    if (!(await this.#leases.isLeased(cid))) return 'unleased'
    const read = await this.#read(cid, into)
    if (read instanceof Uint8Array && matchesCid(cid, read)) return 'ok'
    return (await this.#suspect(cid)) ?? 'ok'
  }

  /** The blocks that somebody leases and that are not lost, in a lasting order, from behind `after`; at most `limit`. */
  async leasedBlocks(after: CID | undefined, limit: number): Promise<LeasedBlock[]> {
    return await this.#leases.blocks(after, limit)
  }

  async isLeasedBy(owner: string, cid: CID): Promise<boolean> {
    return (await this.#leases.get(owner, cid)) !== undefined
  }

  /** Length of the block, if it is there and not known to be lost. @throws HoldfastError `REFUSED` */
  async size(cid: CID): Promise<number | undefined> {
    this.#checkRefusal(canonical(cid))
    return await this.#sizeHeld(cid)
  }

  async #sizeHeld(cid: CID): Promise<number | undefined> {
    const key = canonical(cid)
    if (!isStorable(key) || (await this.#leases.lossOf(key)) !== undefined) return undefined
    return await this.#shards.size(key)
  }

  /** Whether the block can be had here: not, where it is refused. */
  async has(cid: CID): Promise<boolean> {
    return this.refusalOf(cid) === undefined && (await this.#sizeHeld(cid)) !== undefined
  }

  /** Why the block is neither taken nor given; undefined: it is not refused. */
  refusalOf(cid: CID): string | undefined {
    return this.#refusals?.find(canonical(cid))?.reason
  }

  /**
   * Which of these blocks are in the store, or leased as if they were, refused or not; once what was being written when
   * it was called is there.
   */
  async heldOf(cids: readonly CID[]): Promise<CID[]> {
    await this.#start()
    const held: CID[] = []
    for (const cid of cids) {
      await this.#locks.settled(cid.toString())
      if ((await this.#shards.size(cid)) !== undefined || (await this.#leases.isLeased(cid))) held.push(cid)
    }
    return held
  }

  /** Every block in the store. */
  async *held(): AsyncGenerator<CID> {
    for await (const { cid } of this.#shards.list()) yield cid
  }

  /**
   * Extends `owner`'s leases to at least `termMs` from now, in one commit; answers in order. A block that is there
   * without a lease of `owner` is leased anew. Leases on what is refused stay as they are.
   *
   * @throws HoldfastError `BAD_INPUT`
   */
  async renew(owner: string, cids: readonly CID[], termMs: number): Promise<LeaseState[]> {
    await this.#start()
    checkTerm(termMs)
    check(cids.length <= limits.leaseBatchMax, `at most ${limits.leaseBatchMax} leases in one request`)
    const until = this.#clock.now() + termMs
    const refused = cids.map((cid) => this.refusalOf(cid) !== undefined)
    const sizes = await Promise.all(cids.map((cid, i) => (refused[i] ? undefined : this.#renewableBytes(cid))))
    const present = cids.flatMap((cid, i): Lease[] => {
      const bytes = sizes[i]
      return bytes === undefined ? [] : [{ cid, owner, until, bytes }]
    })
    if (present.length > 0) await this.#leases.grant(present)
    const gone: CID[] = []
    const states = await Promise.all(
      cids.map(async (cid, i): Promise<LeaseState> => {
        if (refused[i]) return 'refused'
        if (sizes[i] === undefined) return 'missing'
        // A collector that judged a block before the commit holds its lock until the block is gone.
        const isHeld = (await this.#locks.run(cid.toString(), () => this.#sizeHeld(cid))) !== undefined
        if (!isHeld) gone.push(cid)
        if (this.refusalOf(cid) !== undefined) return 'refused' // meanwhile
        return isHeld ? 'held' : 'missing'
      })
    )
    if (gone.length > 0) await this.#leases.release(owner, gone)
    return states
  }

  /** Length of the block where it can be leased. Blocks that nobody leases are read: nothing else has vouched for them. */
  async #renewableBytes(cid: CID): Promise<number | undefined> {
    const bytes = await this.#sizeHeld(cid)
    const isLeased = await this.#leases.isLeased(cid)
    if (bytes === undefined && isLeased) await this.#suspect(cid) // its other owners are to know as well
    return bytes === undefined || isLeased || (await this.#isHeldWhole(cid)) ? bytes : undefined
  }

  /**
   * Ends `owner`'s leases, those of writes still under way included, and deletes what nobody leases any more. Unknown
   * ones are ignored.
   */
  async release(owner: string, cids: readonly CID[]): Promise<void> {
    await this.#start()
    check(cids.length <= limits.leaseBatchMax, `at most ${limits.leaseBatchMax} leases in one request`)
    // A write whose client gave it up may still be at work: its lease has to be there before it can be ended.
    await Promise.all(cids.map((cid) => this.#locks.settled(cid.toString())))
    const freed = await this.#leases.release(owner, cids)
    const deleting = forEachLimit(freed, deleteWidth, async (cid) => {
      await this.#deleteUnleased(cid)
    }).finally(() => this.#deletions.delete(deleting))
    this.#deletions.add(deleting)
    await deleting
  }

  /**
   * Deletes what nobody leases without waiting for its grace, and waits for what is being deleted: for a provider that has
   * handed over what it had, so that nobody will come for the rest.
   */
  async dropUnleased(): Promise<void> {
    await this.#start()
    await Promise.allSettled(this.#deletions) // failures are heard by who released
    let due: CID[]
    let deleted: number
    do {
      due = await this.#leases.orphansSince(this.#clock.now(), collectBatch)
      deleted = 0
      await this.#leases.forgetOrphans(due)
      await forEachLimit(due, deleteWidth, async (cid) => {
        if ((await this.#deleteUnleased(cid)) !== undefined) deleted++
      })
      // What cannot be deleted is noted anew: it must not be met again and again.
    } while (due.length === collectBatch && deleted > 0)
  }

  /** Ends everybody's leases on these blocks, and deletes them. What is refused only: others are promised to be kept. */
  async evict(cids: readonly CID[]): Promise<void> {
    await this.#start()
    const refused = cids.filter((cid) => this.refusalOf(cid) !== undefined)
    await Promise.all(refused.map((cid) => this.#locks.settled(cid.toString())))
    await this.#leases.evict(refused)
    await forEachLimit(refused, deleteWidth, async (cid) => {
      // A renewal that began before it was refused may have leased it since.
      await this.#deleteUnleased(cid, { evenLeased: true })
    })
  }

  /**
   * Deletes the blocks whose last lease ran out more than a grace ago, and the orphans whose grace is over. May be
   * killed at any point: what it leaves is found by `reconcileAtStart`.
   */
  async collect(): Promise<CollectResult> {
    await this.#start()
    const result = { blocks: 0, bytes: 0 }
    const count = async (cid: CID): Promise<void> => {
      const bytes = await this.#deleteUnleased(cid)
      if (bytes === undefined) return
      result.blocks += 1
      result.bytes += bytes
    }
    const now = this.#clock.now()
    let expired: Expired
    do {
      expired = await this.#leases.expire(now - this.#expiryGraceMs, collectBatch)
      await forEachLimit(expired.freed, deleteWidth, count)
    } while (expired.ended === collectBatch)
    let due: CID[]
    do {
      due = await this.#leases.orphansSince(now - this.#orphanGraceMs, collectBatch)
      // Forgotten first: what cannot be deleted is noted anew, and what a crash leaves is found at the next start.
      await this.#leases.forgetOrphans(due)
      await forEachLimit(due, deleteWidth, count)
    } while (due.length === collectBatch)
    if (result.blocks > 0) this.#log.info('collected blocks nobody leases', { ...result })
    return result
  }

  /**
   * Compares the store with the leases, which a crash can leave apart: counts what is really used, notes blocks
   * without a lease for `collect`, and reports leases without a block. To be called before anything else; `get` is
   * answered meanwhile, the rest waits.
   */
  async reconcileAtStart(): Promise<ReconcileResult> {
    if (this.#ready !== undefined) throw new HoldfastError('INTERNAL', 'the provider is at work already')
    const reconciling = this.#reconcile()
    this.#ready = reconciling.then(() => {})
    this.#ready.catch(() => {}) // whoever needs it sees the failure, and so does the caller
    return await reconciling
  }

  /** What this provider has to give, as of now. */
  async offer(): Promise<Offer> {
    await this.#start()
    const now = this.#clock.now()
    const freeBytes = now < this.#diskFullUntil ? 0 : this.freeBytes
    return {
      v: 1,
      peerId: this.peerId,
      dataUrls: this.#init.dataUrls(),
      addresses: this.#init.addresses(),
      capacityBytes: this.capacityBytes,
      freeBytes,
      domain: this.#init.domain,
      price: this.#init.price,
      accepting: this.accepting,
      ...(this.#draining ? { draining: true } : {}),
      version: this.#init.version,
      issuedAt: now
    }
  }

  /** The offer, signed: the bytes that are sent. At most two seconds old. */
  async signedOffer(): Promise<Uint8Array> {
    const now = this.#clock.now()
    const cached = this.#signedOffer
    if (cached !== undefined && now >= cached.issuedAt && now - cached.issuedAt < offerAgeMsMax) return cached.bytes
    const offer = await this.offer()
    const bytes = await encodeOffer(offer, this.#signer)
    this.#signedOffer = { bytes, issuedAt: offer.issuedAt }
    return bytes
  }

  /** Who leases how much here, most bytes first. */
  async owners(limit: number): Promise<OwnerTotals[]> {
    return await this.#leases.owners(limit)
  }

  /** Leases of `owner`, by CID, strictly after `after`. */
  async leasesOf(owner: string, page: { after?: CID; limit: number }): Promise<Lease[]> {
    return await this.#leases.list(owner, page)
  }

  async stats(): Promise<StorageStats> {
    await this.#start()
    const { leases, blocks, bytes, lost } = await this.#leases.totals()
    return {
      capacityBytes: this.capacityBytes,
      usedBytes: this.#usedBytes,
      leasedBytes: bytes,
      reservedBytes: this.#reservedBytes,
      freeBytes: this.freeBytes,
      leases,
      blocks,
      lost,
      accepting: this.accepting,
      puts: this.#puts,
      gets: this.#gets,
      rotten: this.#rotten
    }
  }

  /** Bytes of blocks that may still be taken, as of now. */
  get freeBytes(): number {
    return Math.max(0, this.capacityBytes - this.#usedBytes - this.#reservedBytes)
  }

  #checkRefusal(cid: CID): void {
    const reason = this.refusalOf(cid)
    if (reason !== undefined) throw new HoldfastError('REFUSED', reason)
  }

  /** Where the store was not listed at start, what is leased stands for what is used. */
  async #start(): Promise<void> {
    this.#ready ??= this.#leases.usedBytes().then((bytes) => {
      this.#usedBytes = bytes
    })
    await this.#ready
  }

  async #reconcile(): Promise<ReconcileResult> {
    const result: ReconcileResult = { blocks: 0, bytes: 0, orphans: 0, missing: 0 }
    let orphans: CID[] = []
    for await (const { cid, bytes } of this.#shards.list()) {
      const leasedBytes = await this.#leases.lengthOf(cid)
      if (leasedBytes !== undefined && !(await this.#isWorthIts(cid, leasedBytes, bytes))) continue
      result.blocks += 1
      result.bytes += bytes
      if (leasedBytes !== undefined) continue
      result.orphans += 1
      orphans.push(cid)
      if (orphans.length < collectBatch) continue
      await this.#noteOrphans(orphans)
      orphans = []
    }
    await this.#noteOrphans(orphans)
    this.#usedBytes = result.bytes
    if ((await this.#leases.totals()).blocks > result.blocks - result.orphans) await this.#findMissing()
    result.missing = (await this.#leases.totals()).lost
    const report = result.missing > 0 ? this.#log.error : this.#log.info
    report('compared blocks with leases', { ...result })
    await this.#tellLosses()
    return result
  }

  /** Whether a stored block may be what is leased, by its length. What was lost before, or can't be, is read. */
  async #isWorthIts(cid: CID, leasedBytes: number, bytes: number): Promise<boolean> {
    if (leasedBytes === bytes && (await this.#leases.lossOf(cid)) === undefined) return true
    if (await this.#isHeldWhole(cid)) {
      await this.#leases.find(cid) // put back, or a write that did not get as far as its lease
      return true
    }
    await this.#leases.lose([cid], 'rotten')
    return !(await this.#deleteDamaged(cid))
  }

  /** Leases whose block is not there. */
  async #findMissing(): Promise<void> {
    let after: CID | undefined
    for (;;) {
      const page = await this.#leases.blocks(after, lossBatch)
      if (page.length === 0) return
      after = page.at(-1)!.cid
      const missing: CID[] = []
      await forEachLimit(page, deleteWidth, async ({ cid }) => {
        if ((await this.#shards.size(cid)) === undefined) missing.push(cid)
      })
      if (missing.length > 0) await this.#leases.lose(missing, 'missing')
    }
  }

  async #tellLosses(): Promise<void> {
    let after: CID | undefined
    for (;;) {
      const page = await this.#leases.losses(after, lossBatch)
      if (page.length === 0) return
      after = page.at(-1)!.cid
      await this.#tell(page.map(({ cid }) => cid))
    }
  }

  /** Never rejects: who was not told is told at the next start, or hears it when it asks. */
  async #tell(lost: readonly CID[]): Promise<void> {
    try {
      await this.#onLost(lost)
    } catch (error) {
      this.#log.error('the owners of lost blocks could not be told', { blocks: lost.length, error: messageOf(error) })
    }
  }

  /** The block as it is stored, unchecked. What the disk has given up is as good as damaged. */
  async #read(cid: CID, into?: Uint8Array): Promise<Uint8Array | LossKind> {
    try {
      return (await this.#shards.get(cid, into)) ?? 'missing'
    } catch (error) {
      if (!unreadableCodes.has((error as NodeJS.ErrnoException).code ?? '')) throw error
      return 'rotten'
    }
  }

  /** What a reader is told of a block that is not there as it should be. Before, its owners are. */
  async #confession(cid: CID, seen: LossKind): Promise<HoldfastError> {
    // Most of what is asked for and not there is nobody's.
    if (seen === 'missing' && !(await this.#leases.isLeased(cid))) return missing()
    const kind = (await this.#suspect(cid)) ?? seen
    if (kind === 'missing') return missing()
    return new HoldfastError('MISSING', 'the stored block is damaged', { details: { rotten: true } })
  }

  /** Looks again at a block that a reader found bad, and gives up what is. @returns what is wrong with it */
  async #suspect(cid: CID): Promise<LossKind | undefined> {
    await this.#start()
    return await this.#locks.run(cid.toString(), async () => {
      const known = await this.#leases.lossOf(cid)
      if (known !== undefined) return known
      const read = await this.#read(cid)
      if (read instanceof Uint8Array && matchesCid(cid, read)) return undefined // brought again meanwhile
      const kind = read instanceof Uint8Array ? 'rotten' : read
      await this.#giveUp(cid, kind)
      return kind
    })
  }

  /** Under the block's lock. Killed anywhere, the next start ends it. */
  async #giveUp(cid: CID, kind: LossKind): Promise<void> {
    const leasedBytes = await this.#leases.lengthOf(cid)
    const countedBytes = leasedBytes ?? (await this.#shards.size(cid)) ?? 0
    if (kind === 'rotten') this.#rotten += 1
    if (leasedBytes !== undefined) {
      this.#log.error(kind === 'rotten' ? 'a stored block is damaged' : 'a leased block is gone', { cid: String(cid) })
      await this.#leases.lose([cid], kind)
      await this.#tell([cid])
    }
    if (kind === 'missing' || (await this.#deleteDamaged(cid))) this.#usedBytes -= countedBytes
  }

  /** Whether it is gone. Where it can't be deleted, it stays counted. */
  async #deleteDamaged(cid: CID): Promise<boolean> {
    try {
      await this.#shards.delete(cid)
      return true
    } catch (error) {
      this.#log.error('a damaged block could not be deleted', { cid: cid.toString(), error: messageOf(error) })
      return false
    }
  }

  /** What a block counts for in `usedBytes`. @param storedBytes its length in the store, if it is there */
  async #countedBytes(cid: CID, storedBytes: number | undefined, loss: LossKind | undefined): Promise<number> {
    if (loss === 'missing') return 0
    const leasedBytes = await this.#leases.lengthOf(cid)
    // What could not be deleted counts as before; its last lease may end while this is asked.
    if (loss === 'rotten') return storedBytes === undefined ? 0 : (leasedBytes ?? storedBytes)
    return leasedBytes ?? storedBytes ?? 0
  }

  /** Whether the store has the block undamaged. The bytes are read: a lease on a rotten block would be a lie. */
  async #isHeldWhole(cid: CID): Promise<boolean> {
    const read = await this.#read(cid)
    return read instanceof Uint8Array && matchesCid(cid, read)
  }

  /** @param replacedBytes length of what is stored under this CID now */
  async #write(cid: CID, bytes: Uint8Array, replacedBytes: number): Promise<void> {
    const addedBytes = bytes.length - replacedBytes
    if (!this.accepting) throw new HoldfastError('NO_SPACE', 'this provider takes no new blocks')
    if (addedBytes > this.freeBytes) throw new HoldfastError('NO_SPACE', 'this provider is full')
    this.#reservedBytes += addedBytes
    try {
      await this.#shards.put(cid, bytes)
      this.#usedBytes += addedBytes
    } catch (error) {
      await this.#afterFailedWrite(cid, replacedBytes, error)
      throw error
    } finally {
      this.#reservedBytes -= addedBytes
    }
  }

  async #afterFailedWrite(cid: CID, replacedBytes: number, error: unknown): Promise<void> {
    if (isCode(error, 'NO_SPACE')) {
      this.#diskFullUntil = this.#clock.now() + diskFullMs
      this.#signedOffer = undefined
      this.#log.error('the disk is full before the capacity is used', { usedBytes: this.#usedBytes })
    }
    // It may have failed after the block became visible.
    const leasedBytes = await this.#leases.lengthOf(cid)
    if (leasedBytes === undefined) {
      const bytes = (await this.#shards.size(cid)) ?? 0
      this.#usedBytes += bytes - replacedBytes
      if (bytes > 0) await this.#noteOrphans([cid]) // for the collector to judge
    } else if (await this.#isHeldWhole(cid)) {
      this.#usedBytes += leasedBytes - replacedBytes
      await this.#leases.find(cid)
    } else if ((await this.#leases.lossOf(cid)) === undefined) {
      await this.#giveUp(cid, (await this.#shards.size(cid)) === undefined ? 'missing' : 'rotten')
    }
  }

  async #lease(owner: string, cid: CID, bytes: number, termMs: number, isNew: boolean): Promise<number> {
    const until = this.#clock.now() + termMs
    try {
      await this.#leases.grant([{ cid, owner, until, bytes }])
    } catch (error) {
      // Nobody was told yes. Deleting now could hit a lease that did commit, so the collector decides later.
      if (isNew) await this.#noteOrphans([cid])
      throw error
    }
    return until
  }

  /** Bytes freed, or `undefined` when there was nothing to delete. */
  async #deleteUnleased(cid: CID, { evenLeased = false } = {}): Promise<number | undefined> {
    const key = cid.toString()
    return await this.#locks.run(key, async () => {
      if (await this.#leases.isLeased(cid)) {
        if (!evenLeased) return undefined
        await this.#leases.evict([cid])
      }
      const bytes = await this.#shards.size(cid)
      if (bytes === undefined) return undefined
      try {
        await this.#shards.delete(cid)
      } catch (error) {
        this.#log.error('a block could not be deleted', { cid: key, error: messageOf(error) })
        await this.#noteOrphans([cid]) // tried again later: one bad file must not stop the collector
        return undefined
      }
      this.#usedBytes -= bytes
      this.#diskFullUntil = 0
      return bytes
    })
  }

  /** Never rejects: what was not noted is found again at the next start. */
  async #noteOrphans(cids: readonly CID[]): Promise<void> {
    try {
      await this.#leases.noteOrphans(cids, this.#clock.now())
    } catch (error) {
      this.#log.error('blocks that nobody leases were not noted', { blocks: cids.length, error: messageOf(error) })
    }
  }
}

/** `undefined` unless the bytes proved are the block's. */
function proofsOf(
  bytes: Uint8Array,
  digest: Uint8Array,
  chunks: readonly number[],
  known: Blake3Tree | undefined
): BlockProofs | undefined {
  // Longer than any block: not to be hashed, let alone kept a tree of.
  if (bytes.length > limits.shardBytesMax) return undefined
  const isKnown = known !== undefined && known.blockBytes === bytes.length
  // A known tree saves making one, not looking at the block: rot anywhere in it is confessed, whatever chunk is asked for.
  if (isKnown && !equalBytes(blake3(bytes), digest)) return undefined
  const tree = isKnown ? known : treeOf(bytes)
  if (!equalBytes(tree.root, digest)) return undefined
  const slices = chunks.map((chunk) => {
    const start = chunk * challengeChunkBytes
    return sliceOf(bytes, tree, start, start + challengeChunkBytes)
  })
  return { slices, tree }
}

/** What reading answers where a sector, or the file system's own notes of the file, cannot be read any more. */
const unreadableCodes = new Set(['EIO', 'EUCLEAN', 'EBADMSG'])

/** Blocks are kept under CIDv1; old IPFS clients ask for dag-pb by CIDv0. */
const canonical = (cid: CID): CID => (cid.version === 0 ? cid.toV1() : cid)

const missing = (): HoldfastError => new HoldfastError('MISSING', 'no such block here')

function checkTerm(termMs: number): void {
  check(
    Number.isSafeInteger(termMs) && termMs > 0 && termMs <= leaseTermMsMax,
    `a lease lasts 1 to ${leaseTermMsMax} ms`
  )
}
