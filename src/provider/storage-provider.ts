/**
 * What a storage provider decides: which blocks it takes, for whom and how long it keeps them, and what it gives
 * back. No sockets and no files here: the data server, the control protocols and the simulator all drive this class.
 *
 * It guarantees that
 * - `put` resolves only after the bytes were checked against their CID and both block and lease are durable;
 * - `get` never yields bytes that do not match their CID;
 * - a leased block is never deleted, whatever runs at the same time, but by `evict`, which refuses it;
 * - a block that is refused is neither taken nor given, though it may be kept to be handed over;
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
import type { Lease, LeaseStore, OwnerTotals } from './lease-store.ts'
import type { RefusalStore } from './refusal-store.ts'
import type { ShardStore } from './shard-store.ts'

/** The longest lease a provider grants: three terms of a committed shard. */
export const leaseTermMsMax = 3 * limits.committedLeaseMs

/** Leases ended by one commit of the collector. */
const collectBatch = 1000
/** Blocks deleted at once. */
const deleteWidth = 8
/** Unleased blocks remembered between being found and being deleted; the rest are found again at the next start. */
const orphansMax = 50_000
/** Rotten blocks remembered; the rest are found again when they are read. */
const rottenMax = 10_000
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
  /** Leased blocks that are not in the store. */
  missing: number
}

export interface StorageStats {
  capacityBytes: number
  /** Bytes of the blocks kept. */
  usedBytes: number
  /** Of those that somebody leases. */
  leasedBytes: number
  /** Bytes of blocks being written. */
  reservedBytes: number
  freeBytes: number
  leases: number
  blocks: number
  accepting: boolean
  /** Since the process started. */
  puts: number
  gets: number
  rotten: number
}

export interface BlockProofs {
  /** In the order of the chunks asked for; each checked, or out of a block that was. */
  slices: Uint8Array[]
  /** The block's, for the next time. */
  tree: Blake3Tree
}

interface Orphan {
  cid: CID
  foundAt: number
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
  readonly #refusals: Pick<RefusalStore, 'find'> | undefined
  readonly #expiryGraceMs: number
  readonly #orphanGraceMs: number
  readonly #locks = new KeyedLock()
  readonly #orphans = new Map<string, Orphan>()
  readonly #rotten = new Set<string>()
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
    this.#refusals = components.refusals
    this.#expiryGraceMs = init.expiryGraceMs ?? hourMs
    this.#orphanGraceMs = init.orphanGraceMs ?? dayMs
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
      const isHeld = storedBytes === bytes.length && (await this.#isHeldWhole(cid))
      if (!isHeld) await this.#write(cid, bytes, storedBytes ?? 0)
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

  /** The same of a block that may be refused: for who is to keep it instead, and nobody else. */
  async getToHandOver(cid: CID, into?: Uint8Array): Promise<Uint8Array> {
    const key = canonical(cid)
    if (!isStorable(key)) throw missing()
    const bytes = await this.#shards.get(key, into)
    if (bytes === undefined) throw missing()
    if (!matchesCid(key, bytes)) {
      this.#rememberRotten(key)
      throw new HoldfastError('MISSING', 'the stored block is damaged', { details: { rotten: true } })
    }
    this.#gets += 1
    return bytes
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
    const bytes = await this.#shards.get(cid)
    if (bytes === undefined) throw missing()
    const { digest } = cid.multihash
    const proofs = proofsOf(bytes, digest, chunks, tree)
    if (proofs !== undefined) return proofs
    this.#rememberRotten(cid)
    throw new HoldfastError('MISSING', 'the stored block is damaged', { details: { rotten: true } })
  }

  async isLeasedBy(owner: string, cid: CID): Promise<boolean> {
    return (await this.#leases.get(owner, cid)) !== undefined
  }

  /** Length of the block, if it is there and not known to be rotten. @throws HoldfastError `REFUSED` */
  async size(cid: CID): Promise<number | undefined> {
    this.#checkRefusal(canonical(cid))
    return await this.#sizeHeld(cid)
  }

  async #sizeHeld(cid: CID): Promise<number | undefined> {
    const key = canonical(cid)
    if (!isStorable(key) || this.#rotten.has(key.toString())) return undefined
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
    const sizes = await Promise.all(cids.map((cid, i) => (refused[i] ? undefined : this.#sizeHeld(cid))))
    const present = cids.flatMap((cid, i): Lease[] => {
      const bytes = sizes[i]
      return bytes === undefined ? [] : [{ cid, owner, until, bytes }]
    })
    if (present.length > 0) await this.#leases.grant(present)
    // A collector that judged a block before the commit holds its lock until the block is gone.
    const states = await Promise.all(
      cids.map(async (cid, i): Promise<LeaseState> => {
        if (refused[i]) return 'refused'
        if (sizes[i] === undefined) return 'missing'
        return (await this.#locks.run(cid.toString(), () => this.#sizeHeld(cid))) !== undefined ? 'held' : 'missing'
      })
    )
    const gone = cids.filter((_cid, i) => states[i] === 'missing' && sizes[i] !== undefined)
    if (gone.length > 0) await this.#leases.release(owner, gone)
    return states
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
    await forEachLimit([...this.#orphans.values()], deleteWidth, async ({ cid }) => {
      this.#orphans.delete(cid.toString())
      await this.#deleteUnleased(cid)
    })
  }

  /** Ends everybody's leases on these blocks, and deletes them. What is refused only: others are promised to be kept. */
  async evict(cids: readonly CID[]): Promise<void> {
    await this.#start()
    const refused = cids.filter((cid) => this.refusalOf(cid) !== undefined)
    await Promise.all(refused.map((cid) => this.#locks.settled(cid.toString())))
    await this.#leases.evict(refused)
    await forEachLimit(refused, deleteWidth, async (cid) => {
      await this.#deleteUnleased(cid)
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
    let freed: CID[]
    do {
      freed = await this.#leases.expire(now - this.#expiryGraceMs, collectBatch)
      await forEachLimit(freed, deleteWidth, count)
    } while (freed.length > 0)
    const due = [...this.#orphans.values()].filter((orphan) => orphan.foundAt + this.#orphanGraceMs <= now)
    await forEachLimit(due, deleteWidth, async ({ cid }) => {
      this.#orphans.delete(cid.toString())
      await count(cid)
    })
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
    const { leases, blocks, bytes } = await this.#leases.totals()
    return {
      capacityBytes: this.capacityBytes,
      usedBytes: this.#usedBytes,
      leasedBytes: bytes,
      reservedBytes: this.#reservedBytes,
      freeBytes: this.freeBytes,
      leases,
      blocks,
      accepting: this.accepting,
      puts: this.#puts,
      gets: this.#gets,
      rotten: this.#rotten.size
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
    for await (const { cid, bytes } of this.#shards.list()) {
      result.blocks += 1
      result.bytes += bytes
      if (await this.#leases.isLeased(cid)) continue
      result.orphans += 1
      this.#rememberOrphan(cid)
    }
    this.#usedBytes = result.bytes
    result.missing = Math.max(0, (await this.#leases.totals()).blocks - (result.blocks - result.orphans))
    const report = result.missing > 0 ? this.#log.error : this.#log.info
    report('compared blocks with leases', { ...result })
    return result
  }

  /** Whether the store has the block undamaged. The bytes are read: a lease on a rotten block would be a lie. */
  async #isHeldWhole(cid: CID): Promise<boolean> {
    const stored = await this.#shards.get(cid)
    return stored !== undefined && matchesCid(cid, stored)
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
      this.#rotten.delete(cid.toString())
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
    // It may have failed after the block became visible: count it, and let the collector judge it.
    const bytes = (await this.#shards.size(cid)) ?? 0
    this.#usedBytes += bytes - replacedBytes
    if (bytes > 0) this.#rememberOrphan(cid)
  }

  async #lease(owner: string, cid: CID, bytes: number, termMs: number, isNew: boolean): Promise<number> {
    const until = this.#clock.now() + termMs
    try {
      await this.#leases.grant([{ cid, owner, until, bytes }])
    } catch (error) {
      // Nobody was told yes. Deleting now could hit a lease that did commit, so the collector decides later.
      if (isNew) this.#rememberOrphan(cid)
      throw error
    }
    this.#orphans.delete(cid.toString())
    return until
  }

  /** Bytes freed, or `undefined` when there was nothing to delete. */
  async #deleteUnleased(cid: CID): Promise<number | undefined> {
    const key = cid.toString()
    return await this.#locks.run(key, async () => {
      if (await this.#leases.isLeased(cid)) return undefined
      const bytes = await this.#shards.size(cid)
      if (bytes === undefined) return undefined
      try {
        await this.#shards.delete(cid)
      } catch (error) {
        this.#log.error('a block could not be deleted', { cid: key, error: messageOf(error) })
        this.#rememberOrphan(cid) // tried again later: one bad file must not stop the collector
        return undefined
      }
      this.#usedBytes -= bytes
      this.#diskFullUntil = 0
      this.#rotten.delete(key)
      return bytes
    })
  }

  #rememberOrphan(cid: CID): void {
    if (this.#orphans.size < orphansMax) this.#orphans.set(cid.toString(), { cid, foundAt: this.#clock.now() })
  }

  #rememberRotten(cid: CID): void {
    const key = cid.toString()
    if (this.#rotten.has(key)) return
    if (this.#rotten.size >= rottenMax) {
      const [oldest] = this.#rotten
      this.#rotten.delete(oldest!)
    }
    this.#rotten.add(key)
    this.#log.error('a stored block is damaged', { cid: key })
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

/** Blocks are kept under CIDv1; old IPFS clients ask for dag-pb by CIDv0. */
const canonical = (cid: CID): CID => (cid.version === 0 ? cid.toV1() : cid)

const missing = (): HoldfastError => new HoldfastError('MISSING', 'no such block here')

function checkTerm(termMs: number): void {
  check(
    Number.isSafeInteger(termMs) && termMs > 0 && termMs <= leaseTermMsMax,
    `a lease lasts 1 to ${leaseTermMsMax} ms`
  )
}
