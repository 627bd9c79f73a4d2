/**
 * A verifiable random function: ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381 (suite 0x03). Whoever has the secret key gets
 * one output for an input, which nobody else can foresee, and a proof by which everybody can check that it is that one.
 *
 * Proving takes a secret scalar through `@noble/curves`, which does not promise constant time in JavaScript: the time
 * that a proof takes should not be measurable, many times over, by those it is meant to surprise. Proofs are made once
 * an epoch.
 */
import { createHash } from 'node:crypto'
import { ed25519 } from '@noble/curves/ed25519.js'
import { concatBytes, equalBytes } from '../base/bytes.ts'
import { check } from '../base/errors.ts'

const suite = 0x03
/** Of a compressed point, and of a scalar. */
const fieldBytes = 32
/** `cLen`. */
const challengeBytes = 16
export const vrfProofBytes = fieldBytes + challengeBytes + fieldBytes
export const vrfHashBytes = 64

const { Point } = ed25519
type Point = ReturnType<typeof Point.fromBytes>
const order = Point.Fn.ORDER

function sha512(...parts: Uint8Array[]): Uint8Array {
  const hash = createHash('sha512')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/** What all hashes of the suite have in common (RFC 9381, sections 5.2, 5.4.1.1 and 5.4.3). */
const suiteHash = (domain: number, ...parts: Uint8Array[]): Uint8Array =>
  sha512(Uint8Array.of(suite, domain), ...parts, Uint8Array.of(0))

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex') || '0'}`)
}

function littleEndianBytes(value: bigint, length: number): Uint8Array {
  return Buffer.from(value.toString(16).padStart(2 * length, '0'), 'hex').reverse()
}

/** Strict: canonical encodings alone (RFC 8032, section 5.1.3). */
function pointOf(bytes: Uint8Array): Point | undefined {
  try {
    return Point.fromBytes(bytes, false)
  } catch {
    return undefined // not of 32 bytes, y not below p, or not on the curve
  }
}

/**
 * The input as a point of the prime-order group, with the public key as salt (section 5.4.1.1, try and increment). How
 * many tries it takes tells about the input, which is no secret here.
 *
 * @returns undefined if no counter leads to a point: one input in 2^256
 */
export function encodeToCurve(publicKey: Uint8Array, alpha: Uint8Array): Point | undefined {
  for (let counter = 0; counter < 256; counter++) {
    const hash = suiteHash(0x01, publicKey, alpha, Uint8Array.of(counter))
    const point = pointOf(hash.subarray(0, fieldBytes))?.clearCofactor()
    if (point !== undefined && !point.is0()) return point
  }
  return undefined
}

/** 64 bytes that only the key's owner can work out, never used for two inputs (section 5.4.2.2, as RFC 8032 has it). */
export function nonceBytes(secretKey: Uint8Array, encoded: Uint8Array): Uint8Array {
  return sha512(sha512(secretKey).subarray(32), encoded)
}

/** Section 5.4.3. */
function challengeOf(points: readonly Uint8Array[]): Uint8Array {
  return suiteHash(0x02, ...points).subarray(0, challengeBytes)
}

/**
 * @param secretKey 32 bytes, the seed of an Ed25519 key (RFC 8032); the public key is the one of its signatures
 * @returns 80 bytes; the same for the same input
 * @throws HoldfastError `BAD_INPUT` for a key of another length
 */
export function prove(secretKey: Uint8Array, alpha: Uint8Array): Uint8Array {
  check(secretKey.length === fieldBytes, `an Ed25519 seed has ${fieldBytes} bytes, not ${secretKey.length}`)
  const { scalar, pointBytes: publicKey } = ed25519.utils.getExtendedPublicKey(secretKey)
  const encoded = encodeToCurve(publicKey, alpha)
  check(encoded !== undefined, 'an input that no point can be found for')
  const encodedBytes = encoded.toBytes()
  const gamma = encoded.multiply(scalar).toBytes()
  const nonce = littleEndian(nonceBytes(secretKey, encodedBytes)) % order
  const u = Point.BASE.multiply(nonce).toBytes()
  const v = encoded.multiply(nonce).toBytes()
  const challenge = challengeOf([publicKey, encodedBytes, gamma, u, v])
  const s = (nonce + littleEndian(challenge) * scalar) % order
  return concatBytes([gamma, challenge, littleEndianBytes(s, fieldBytes)])
}

interface Proof {
  gamma: Point
  challenge: Uint8Array
  s: bigint
}

/** Section 5.4.4: strict, so that a proof has one encoding. */
function decodeProof(bytes: Uint8Array): Proof | undefined {
  if (bytes.length !== vrfProofBytes) return undefined
  const gamma = pointOf(bytes.subarray(0, fieldBytes))
  const s = littleEndian(bytes.subarray(fieldBytes + challengeBytes))
  if (gamma === undefined || s >= order) return undefined
  return { gamma, challenge: bytes.subarray(fieldBytes, fieldBytes + challengeBytes), s }
}

const hashOf = (gamma: Point): Uint8Array => suiteHash(0x03, gamma.clearCofactor().toBytes())

/**
 * The output that a proof is about, 64 bytes. Of a proof by others it says nothing until `verify` took it.
 *
 * @throws HoldfastError `BAD_INPUT` for what is no proof at all
 */
export function proofToHash(proof: Uint8Array): Uint8Array {
  const decoded = decodeProof(proof)
  check(decoded !== undefined, 'not a proof of a verifiable random function')
  return hashOf(decoded.gamma)
}

/**
 * The output for this key and input, if the proof shows it. Keys of small order are refused (section 5.4.5): their
 * owner could prove several outputs for one input. Junk of any kind and length is refused, not thrown at.
 *
 * @returns 64 bytes, or undefined
 */
export function verify(publicKey: Uint8Array, alpha: Uint8Array, proof: Uint8Array): Uint8Array | undefined {
  const key = pointOf(publicKey)
  const decoded = decodeProof(proof)
  if (key === undefined || key.isSmallOrder() || decoded === undefined) return undefined
  const encoded = encodeToCurve(publicKey, alpha)
  if (encoded === undefined) return undefined
  const { gamma, challenge, s } = decoded
  const c = littleEndian(challenge)
  const u = Point.BASE.multiplyUnsafe(s).subtract(key.multiplyUnsafe(c))
  const v = encoded.multiplyUnsafe(s).subtract(gamma.multiplyUnsafe(c))
  const points = [encoded, gamma, u, v].map((point) => point.toBytes())
  return equalBytes(challengeOf([publicKey, ...points]), challenge) ? hashOf(gamma) : undefined
}
