/**
 * What an epoch asks of a provider. The auditor's key makes a seed out of epoch and provider, which the provider cannot
 * foresee and the auditor cannot choose; from seed and CID alone follow whether a shard is drawn and which chunk of it
 * is asked for. So a third party can check one challenge without a list of all shards. Byte layout: FORMATS.md,
 * "Challenges".
 */
import { base58btc } from 'multiformats/bases/base58'
import type { CID } from 'multiformats/cid'
import { concatBytes, equalBytes, utf8 } from '../base/bytes.ts'
import { check } from '../base/errors.ts'
import { blake3 } from '../content/blake3.ts'
import { type Challenge, chunksOf, samplingAll } from './audit-messages.ts'
import { proofToHash, prove, verify } from './ecvrf.ts'
import type { AuditReason } from './outcome.ts'

/** What a seed is drawn for. */
export interface SeedSubject {
  epoch: number
  epochMs: number
  /** Peer ids. */
  auditor: string
  provider: string
}

export interface Seed {
  /** 80 bytes. */
  proof: Uint8Array
  /** 64 bytes. */
  seed: Uint8Array
}

/** The epoch of a time, both since the Unix epoch. */
export const epochOf = (timeMs: number, epochMs: number): number => Math.floor(timeMs / epochMs)

const seedDomain = utf8.encode('holdfast-audit-seed:1')
const drawDomain = utf8.encode('holdfast-audit-draw:1')

/**
 * The input of the random function, `alpha`. Fields have fixed or stated lengths: no two subjects have the same bytes.
 */
export function seedInput({ epoch, epochMs, auditor, provider }: SeedSubject): Uint8Array {
  const times = Buffer.alloc(16)
  times.writeBigUInt64BE(BigInt(epoch), 0)
  times.writeBigUInt64BE(BigInt(epochMs), 8)
  return concatBytes([seedDomain, times, withLength(auditor), withLength(provider)])
}

function withLength(text: string): Uint8Array {
  const bytes = utf8.encode(text)
  check(bytes.length < 2 ** 16, 'a peer id that long is none')
  return concatBytes([Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes])
}

/** @param secretKey the auditor's Ed25519 seed, 32 bytes */
export function drawSeed(secretKey: Uint8Array, subject: SeedSubject): Seed {
  const proof = prove(secretKey, seedInput(subject))
  return { proof, seed: proofToHash(proof) }
}

/**
 * The seed that the proof is of, if it was drawn by the auditor's key for this very subject: undefined for any other
 * proof, for junk, and for an auditor that is no Ed25519 peer.
 */
export function verifySeed(subject: SeedSubject, proof: Uint8Array): Uint8Array | undefined {
  const publicKey = ed25519KeyOf(subject.auditor)
  return publicKey && verify(publicKey, seedInput(subject), proof)
}

/**
 * Identity multihash (code 0, 36 bytes) of the protobuf of a key: field 1, type, is Ed25519 (1); field 2 has 32 bytes.
 */
const ed25519PeerIdPrefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20)
/** Of an Ed25519 peer id in base58btc; all that have this prefix have as many. */
const ed25519PeerIdLength = 52

/**
 * The public key that an Ed25519 peer id (base58btc, no multibase prefix) consists of; undefined for any other text.
 */
export function ed25519KeyOf(peerId: string): Uint8Array | undefined {
  if (peerId.length !== ed25519PeerIdLength) return undefined
  let bytes: Uint8Array
  try {
    bytes = base58btc.decode(`z${peerId}`)
  } catch {
    return undefined // not base58
  }
  const prefixBytes = ed25519PeerIdPrefix.length
  if (bytes.length !== prefixBytes + 32 || !equalBytes(bytes.subarray(0, prefixBytes), ed25519PeerIdPrefix)) {
    return undefined
  }
  return base58btc.encode(bytes) === `z${peerId}` ? bytes.slice(prefixBytes) : undefined
}

/** 32 bytes for one shard in one epoch; its first 4 decide whether it is drawn, bytes 8 to 15 which chunk. */
function drawOf(seed: Uint8Array, cid: CID): DataView {
  const digest = blake3(concatBytes([drawDomain, seed, cid.bytes]))
  return new DataView(digest.buffer, digest.byteOffset, digest.byteLength)
}

/**
 * `sampling` for a probability, in 2^32ths; rounded up, so that what should happen at times does. Exact to 2.4e-10.
 *
 * @throws HoldfastError `BAD_INPUT` for what is no probability
 */
export function samplingOf(probability: number): number {
  check(probability >= 0 && probability <= 1, `not a probability: ${probability}`)
  return Math.ceil(probability * samplingAll)
}

/** Whether the epoch's seed draws the shard: with a probability of exactly `sampling` in 2^32, for each by itself. */
export function isSampled(seed: Uint8Array, cid: CID, sampling: number): boolean {
  return drawOf(seed, cid).getUint32(0) < sampling
}

/**
 * The chunk that the seed asks of a shard, from 0: 64 bits modulo the number of chunks. Nothing is drawn again; of at
 * most 1,024 chunks none is more likely than another by more than a factor of 1 + 2^-54, and equally likely where they
 * are a power of two.
 */
export function chunkOf(seed: Uint8Array, cid: CID, blockBytes: number): number {
  return Number(drawOf(seed, cid).getBigUint64(8) % BigInt(chunksOf(blockBytes)))
}

export function challengeOf(
  seed: Uint8Array,
  { cid, bytes }: Pick<Challenge, 'cid' | 'bytes'>,
  reason: AuditReason
): Challenge {
  return { cid, bytes, chunk: chunkOf(seed, cid, bytes), reason }
}
