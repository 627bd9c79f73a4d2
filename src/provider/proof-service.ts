/**
 * The provider's end of audits: proves what it holds, confesses what it does not, and signs for what it said. No sockets
 * here: the data server and the simulator both drive this class.
 *
 * Whoever knows a CID may ask, as whoever knows it may read the block. A proof costs a read of the block and a hash of it,
 * so there are bounds, and those who pay for a block go first:
 * - `admit`: requests at once, in all and of each peer; half of the places are kept for peers that lease something here, and
 *   strangers have none while their allowance is used up;
 * - blocks worked on at once, first come first served block by block, so that nobody waits for somebody's whole batch;
 * - blocks in a time: an auditor's own for blocks that it leases, one for all others together, since peer ids cost nothing.
 *   A challenge beyond that is answered `overloaded`.
 */
import { concatBytes } from '../base/bytes.ts'
import type { Clock } from '../base/clock.ts'
import { Semaphore } from '../base/concurrency.ts'
import { check, HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { MiB, minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { blake3 } from '../content/blake3.ts'
import type { Blake3Tree } from '../content/blake3-tree.ts'
import type { CID } from '../content/cid.ts'
import { isProvable } from '../custody/answers.ts'
import {
  type Answer,
  type AnswerKind,
  type AuditRequest,
  answerDigest,
  answerStatementCodec,
  answersDigest,
  auditRequestCodec,
  signedCodec,
  toSign
} from '../custody/audit-messages.ts'
import type { Signer, VerifySignature } from '../market/offer.ts'
import { auditClockToleranceMs } from '../transfer/data-plane.ts'
import { encodeAnswer, encodeStatement } from '../transfer/proof-frames.ts'
import type { StorageProvider } from './storage-provider.ts'

/** Requests being received, answered or sent; 72 KiB each with 1,024 challenges, and less and less as they are answered. */
const requestsMax = 128
const requestsPerPeerMax = 2
/** Peer ids cost nothing, so strangers never have all places. */
const strangersMax = requestsMax / 2
/** Peers known to lease here, those that lease most; and how soon it is seen that they are others. */
const ownersMax = 4096
const ownersMsMax = 10 * secondMs
/** So that one block is read while another is hashed. */
const blocksAtOnce = 2
/** Frames made between two turns of the event loop: 10 µs each. */
const framesInTurn = 64
/** Auditors whose allowance is remembered; one that was forgotten starts with a full one. */
const auditorsMax = 256
/** Blocks that an auditor leases: a request's worth four times over, and 6% of a core at 0.5 ms a block. */
const leasedAllowance = { burst: 4096, perSecond: 128 } as const
/** All others, for all together. */
const strangersAllowance = { burst: 1024, perSecond: 8 } as const

/** What this provider said of itself in answer to one request, and signed. */
export interface SignedAnswers {
  /** Peer id. */
  auditor: string
  /** BLAKE3 of the request. */
  request: Uint8Array
  answeredAt: number
  challenges: number
  /** The answers that speak against it. */
  against: Array<{ cid: CID; kind: 'missing' | 'rotten' }>
}

export interface ProofServiceComponents {
  storage: Pick<StorageProvider, 'prove' | 'isLeasedBy' | 'owners'>
  signer: Signer
  verifySignature: VerifySignature
  clock: Clock
  log: Log
  /** Lets others have their turn of the event loop. */
  pause: () => Promise<void>
  /** Told of all that is signed, before it is sent. It must not take long, nor throw. */
  onSigned?: (answers: SignedAnswers) => void
}

export interface ProofServiceInit {
  /** Of trees kept for the next challenge on the same block: 64 KiB for one of 1 MiB. */
  treeBytesMax?: number
}

export interface ReceivedRequest {
  request: AuditRequest
  /** What the auditor signed. */
  bytes: Uint8Array
}

/** A block, and which challenges are about it. */
interface BlockChallenges {
  cid: CID
  places: number[]
}

export class ProofService {
  readonly #components: ProofServiceComponents
  readonly #log: Log
  readonly #trees: TreeCache
  readonly #working = new Semaphore(blocksAtOnce, requestsMax)
  readonly #admitted = new Map<string, number>()
  #admittedCount = 0
  #strangersCount = 0
  #owners: ReadonlySet<string> = new Set()
  #ownersAt: number | undefined
  /** Least recently used first. */
  readonly #allowances = new Map<string, Allowance>()
  readonly #strangers: Allowance
  readonly #given: Record<AnswerKind, number> = { proof: 0, missing: 0, rotten: 0, refused: 0, overloaded: 0 }

  constructor(components: ProofServiceComponents, { treeBytesMax = 4 * MiB }: ProofServiceInit = {}) {
    this.#components = components
    this.#log = components.log.child('proofs')
    this.#trees = new TreeCache(treeBytesMax)
    this.#strangers = new Allowance(strangersAllowance, components.clock.now())
  }

  /** Answers given since the process started. */
  get given(): Readonly<Record<AnswerKind, number>> {
    return this.#given
  }

  /** Requests that have a place now. */
  get admitted(): number {
    return this.#admittedCount
  }

  /**
   * A place for one request of this peer, from before it is read until its last answer is sent. A peer counts as one that
   * leases here as of the last `recognise`.
   *
   * @throws HoldfastError `OVERLOADED`
   */
  admit(peerId: string): () => void {
    const own = this.#admitted.get(peerId) ?? 0
    if (own >= requestsPerPeerMax || this.#admittedCount >= requestsMax)
      throw new HoldfastError('OVERLOADED', 'too many audits at once')
    const isStranger = !this.#owners.has(peerId)
    // Before anything of it is decoded, verified or looked up: nothing in it would be answered.
    if (isStranger && (this.#strangersCount >= strangersMax || !this.#strangers.hasAny(this.#components.clock.now())))
      throw new HoldfastError('OVERLOADED', 'too many audits by peers that lease nothing here')
    this.#admitted.set(peerId, own + 1)
    this.#admittedCount += 1
    if (isStranger) this.#strangersCount += 1
    let isReleased = false
    return () => {
      if (isReleased) return
      isReleased = true
      this.#admittedCount -= 1
      if (isStranger) this.#strangersCount -= 1
      const left = this.#admitted.get(peerId)! - 1
      if (left === 0) this.#admitted.delete(peerId)
      else this.#admitted.set(peerId, left)
    }
  }

  /** Learns who leases here, at most every ten seconds; to be called before `admit`. */
  async recognise(): Promise<void> {
    const now = this.#components.clock.now()
    if (this.#ownersAt !== undefined && now >= this.#ownersAt && now - this.#ownersAt < ownersMsMax) return
    this.#ownersAt = now
    const owners = await this.#components.storage.owners(ownersMax)
    this.#owners = new Set(owners.map(({ owner }) => owner))
  }

  /**
   * The request in a body, once it is clear that it is this auditor's, signed, fresh, and for this provider.
   *
   * @param auditor the peer that the connection proves
   * @throws HoldfastError `BAD_INPUT`, whose message says what is wrong with it
   */
  async receive(auditor: string, body: Uint8Array): Promise<ReceivedRequest> {
    const { clock, signer, verifySignature } = this.#components
    const signed = orBadInput(() => signedCodec.decode(body))
    const request = orBadInput(() => auditRequestCodec.decode(signed.bytes))
    check(request.provider === signer.peerId, `the request is for ${request.provider}; this is ${signer.peerId}`)
    check(request.auditor === auditor, `the request is ${request.auditor}'s; the connection is ${auditor}'s`)
    checkFresh(request.issuedAt, clock.now())
    const node = request.challenges.find(({ cid }) => !isProvable(cid))
    check(node === undefined, `only raw blocks under blake3 have proofs, ${node?.cid} has none`)
    const isSigned = await verifySignature(auditor, toSign('request', signed.bytes), signed.signature)
    check(isSigned, "the signature is not the auditor's")
    return { request, bytes: signed.bytes }
  }

  /**
   * The frames of the answer, in pieces: as many as are ready, at most 64. Nothing is done before the next piece is asked
   * for, so whoever reads slowly is worked for slowly.
   *
   * @throws the signal's reason
   */
  async *answer({ request, bytes }: ReceivedRequest, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const { challenges, auditor } = request
    const blocks = blocksOf(request)
    const ready = new Map<number, Answer>()
    const digests: Uint8Array[] = []
    const against: SignedAnswers['against'] = []
    while (digests.length < challenges.length) {
      const answer = ready.get(digests.length)
      if (answer === undefined) {
        await this.#answerBlock(request, blocks.get(keyOf(challenges[digests.length]!.cid))!, ready, signal)
      } else {
        await this.#components.pause()
        signal?.throwIfAborted()
      }
      const frames: Uint8Array[] = []
      for (let next = ready.get(digests.length); next !== undefined; next = ready.get(digests.length)) {
        if (frames.length === framesInTurn) break
        ready.delete(digests.length)
        const { kind } = next
        if (kind === 'missing' || kind === 'rotten') against.push({ cid: challenges[digests.length]!.cid, kind })
        digests.push(answerDigest(next))
        frames.push(encodeAnswer(next))
        this.#given[next.kind] += 1
      }
      yield concatBytes(frames)
    }
    this.#log.debug('answered an audit', { auditor, challenges: challenges.length })
    const hash = blake3(bytes)
    const answeredAt = this.#components.clock.now()
    const statement = await this.#sign(hash, digests, answeredAt)
    this.#components.onSigned?.({ auditor, request: hash, answeredAt, challenges: challenges.length, against })
    yield statement
  }

  async #sign(request: Uint8Array, digests: readonly Uint8Array[], answeredAt: number): Promise<Uint8Array> {
    const { signer } = this.#components
    const answers = answersDigest(digests)
    const bytes = answerStatementCodec.encode({ v: 1, provider: signer.peerId, request, answers, answeredAt })
    return encodeStatement({ bytes, signature: await signer.sign(toSign('statement', bytes)) })
  }

  /** Puts answers to all challenges on the block into `ready`. */
  async #answerBlock(
    { auditor, challenges }: AuditRequest,
    { cid, places }: BlockChallenges,
    ready: Map<number, Answer>,
    signal: AbortSignal | undefined
  ): Promise<void> {
    const chunks = places.map((place) => challenges[place]!.chunk)
    const answers = await this.#prove(auditor, cid, chunks, signal)
    for (const [i, place] of places.entries()) ready.set(place, answers[i]!)
  }

  async #prove(
    auditor: string,
    cid: CID,
    chunks: readonly number[],
    signal: AbortSignal | undefined
  ): Promise<Answer[]> {
    const { storage, pause } = this.#components
    const release = await this.#working.acquire(1, signal)
    try {
      await pause()
      signal?.throwIfAborted()
      if (!(await this.#isAllowed(auditor, cid))) return chunks.map(() => confess('overloaded'))
      const { slices, tree } = await storage.prove(cid, chunks, this.#trees.get(cid))
      this.#trees.put(cid, tree)
      return slices.map((slice): Answer => ({ kind: 'proof', slice }))
    } catch (error) {
      const kind = this.#kindOf(error, cid, signal)
      return chunks.map(() => confess(kind))
    } finally {
      release()
    }
  }

  /** What a block that could not be read is answered with; other blocks of the request are not concerned. */
  #kindOf(error: unknown, cid: CID, signal: AbortSignal | undefined): AnswerKind {
    if (signal?.aborted === true) throw error
    if (isCode(error, 'MISSING')) return error.details.rotten === true ? 'rotten' : 'missing'
    if (isCode(error, 'REFUSED')) return 'refused'
    this.#log.error('a block could not be read', { cid, error: messageOf(error) })
    // A sector that the disk has given up is a damaged block. Anything else is our own trouble, and may pass.
    return (error as NodeJS.ErrnoException).code === 'EIO' ? 'rotten' : 'overloaded'
  }

  async #isAllowed(auditor: string, cid: CID): Promise<boolean> {
    const { storage, clock } = this.#components
    if (!(await storage.isLeasedBy(auditor, cid))) return this.#strangers.take(clock.now())
    const allowance = this.#allowances.get(auditor) ?? new Allowance(leasedAllowance, clock.now())
    this.#allowances.delete(auditor)
    this.#allowances.set(auditor, allowance)
    if (this.#allowances.size > auditorsMax) this.#allowances.delete(this.#allowances.keys().next().value!)
    return allowance.take(clock.now())
  }
}

/** So many at once, and so many a second after that. */
class Allowance {
  readonly #burst: number
  readonly #perSecond: number
  #left: number
  #at: number

  constructor({ burst, perSecond }: { burst: number; perSecond: number }, now: number) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#left = burst
    this.#at = now
  }

  /** Takes one, if there is one. */
  take(now: number): boolean {
    if (!this.hasAny(now)) return false
    this.#left -= 1
    return true
  }

  hasAny(now: number): boolean {
    const gained = (Math.max(0, now - this.#at) / secondMs) * this.#perSecond
    this.#at = now
    this.#left = Math.min(this.#burst, this.#left + gained)
    return this.#left >= 1
  }
}

/** Trees by block, least recently used first. A tree follows from the CID, so none is ever out of date. */
class TreeCache {
  readonly #bytesMax: number
  readonly #trees = new Map<string, Blake3Tree>()
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get(cid: CID): Blake3Tree | undefined {
    return this.#trees.get(keyOf(cid))
  }

  put(cid: CID, tree: Blake3Tree): void {
    const key = keyOf(cid)
    this.#drop(key)
    this.#trees.set(key, tree)
    this.#bytes += tree.nodes.length
    for (const oldest of this.#trees.keys()) {
      if (this.#bytes <= this.#bytesMax) return
      this.#drop(oldest)
    }
  }

  #drop(key: string): void {
    this.#bytes -= this.#trees.get(key)?.nodes.length ?? 0
    this.#trees.delete(key)
  }
}

/** The digest, which says all of a shard's CID: the text of a thousand CIDs takes some milliseconds. */
function keyOf({ multihash: { digest } }: CID): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1')
}

const confess = (kind: AnswerKind): Answer => ({ kind, slice: new Uint8Array(0) })

function blocksOf({ challenges }: AuditRequest): Map<string, BlockChallenges> {
  const blocks = new Map<string, BlockChallenges>()
  for (const [place, { cid }] of challenges.entries()) {
    const key = keyOf(cid)
    const block = blocks.get(key)
    if (block === undefined) blocks.set(key, { cid, places: [place] })
    else block.places.push(place)
  }
  return blocks
}

/** An old request may be somebody's who once listened; the usual reason is a clock. */
function checkFresh(issuedAt: number, now: number): void {
  const aheadMs = issuedAt - now
  const minutes = Math.round(Math.abs(aheadMs) / minuteMs)
  check(
    Math.abs(aheadMs) <= auditClockToleranceMs,
    `the request is dated ${new Date(issuedAt).toISOString()}, ${minutes} minutes ${aheadMs > 0 ? 'ahead of' : 'behind'} ` +
      `this provider's clock (${new Date(now).toISOString()}): the auditor's clock or the provider's is wrong`
  )
}

function orBadInput<T>(decode: () => T): T {
  try {
    return decode()
  } catch (cause) {
    throw new HoldfastError('BAD_INPUT', messageOf(cause), { cause })
  }
}
