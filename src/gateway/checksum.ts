/** The checksums of S3 (`x-amz-checksum-*`): computed as bytes stream by, and combined for multipart objects. */
import { createHash, type Hash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { createCRC32, createCRC64 } from 'hash-wasm'
import type { Checksums } from '../metadata/records.ts'
import { S3Error } from './errors.ts'

export const checksumAlgorithms = ['crc32', 'crc32c', 'crc64nvme', 'sha1', 'sha256'] as const
export type ChecksumAlgorithm = (typeof checksumAlgorithms)[number]
export type ChecksumType = 'FULL_OBJECT' | 'COMPOSITE'

interface AlgorithmSpec {
  /** As S3 spells it in headers and in element names (`ChecksumCRC32C`). */
  label: string
  digestBytes: number
  /** Reflected polynomial of a CRC; absent for hashes, which cannot be combined. */
  polynomial?: bigint
  /** What S3 takes for multipart uploads, default first. */
  types: readonly ChecksumType[]
}

const specs: Record<ChecksumAlgorithm, AlgorithmSpec> = {
  crc32: { label: 'CRC32', digestBytes: 4, polynomial: 0xedb88320n, types: ['COMPOSITE', 'FULL_OBJECT'] },
  crc32c: { label: 'CRC32C', digestBytes: 4, polynomial: 0x82f63b78n, types: ['COMPOSITE', 'FULL_OBJECT'] },
  crc64nvme: { label: 'CRC64NVME', digestBytes: 8, polynomial: 0x9a6c9329ac4bc9b5n, types: ['FULL_OBJECT'] },
  sha1: { label: 'SHA1', digestBytes: 20, types: ['COMPOSITE'] },
  sha256: { label: 'SHA256', digestBytes: 32, types: ['COMPOSITE'] }
}

export function checksumLabel(algorithm: ChecksumAlgorithm): string {
  return specs[algorithm].label
}

export function checksumTypes(algorithm: ChecksumAlgorithm): readonly ChecksumType[] {
  return specs[algorithm].types
}

/** @returns undefined for a name S3 does not know; case does not matter */
export function parseAlgorithm(label: string): ChecksumAlgorithm | undefined {
  return checksumAlgorithms.find((algorithm) => algorithm === label.toLowerCase())
}

/** `x-amz-checksum-crc32` to `crc32`; undefined for other names. */
export function algorithmOfHeader(name: string): ChecksumAlgorithm | undefined {
  return name.startsWith('x-amz-checksum-')
    ? checksumAlgorithms.find((known) => name === checksumHeader(known))
    : undefined
}

export function checksumHeader(algorithm: ChecksumAlgorithm): string {
  return `x-amz-checksum-${algorithm}`
}

/** A base64 value of the algorithm's length, in canonical form. */
export function isChecksum(algorithm: ChecksumAlgorithm, value: string): boolean {
  const bytes = Buffer.from(value, 'base64')
  return bytes.length === specs[algorithm].digestBytes && bytes.toString('base64') === value
}

/** Takes the bytes of a body one chunk after the other. */
export interface Checksummer {
  update: (chunk: Uint8Array) => void
  /** Base64; call once, at the end. */
  digest: () => string
}

class HashChecksummer implements Checksummer {
  readonly #hash: Hash
  constructor(name: 'sha1' | 'sha256') {
    this.#hash = createHash(name)
  }
  update(chunk: Uint8Array): void {
    this.#hash.update(chunk)
  }
  digest(): string {
    return this.#hash.digest('base64')
  }
}

class Crc32Checksummer implements Checksummer {
  #crc = 0
  update(chunk: Uint8Array): void {
    this.#crc = crc32(chunk, this.#crc)
  }
  digest(): string {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(this.#crc)
    return bytes.toString('base64')
  }
}

export async function createChecksummer(algorithm: ChecksumAlgorithm): Promise<Checksummer> {
  switch (algorithm) {
    case 'crc32':
      return new Crc32Checksummer()
    case 'sha1':
    case 'sha256':
      return new HashChecksummer(algorithm)
    case 'crc32c':
    case 'crc64nvme': {
      const hasher = await (algorithm === 'crc32c' ? createCRC32(0x82f63b78) : createCRC64('9a6c9329ac4bc9b5'))
      hasher.init()
      return {
        update: (chunk) => void hasher.update(chunk),
        digest: () => Buffer.from(hasher.digest('binary')).toString('base64')
      }
    }
  }
}

/** @throws S3Error `BadDigest` */
export function checkChecksum(algorithm: ChecksumAlgorithm, declared: string, computed: string): void {
  if (declared === computed) return
  const { label } = specs[algorithm]
  throw new S3Error('BadDigest', `The ${label} you specified did not match the calculated checksum.`)
}

/** One part of a multipart object: its checksum in base64, and its length. */
export interface PartChecksum {
  value: string
  sizeBytes: number
}

/** The hash of the parts' digests, one after the other, as S3 writes it: `base64-N`. */
export async function compositeChecksum(algorithm: ChecksumAlgorithm, parts: readonly PartChecksum[]): Promise<string> {
  const checksummer = await createChecksummer(algorithm)
  for (const part of parts) checksummer.update(Buffer.from(part.value, 'base64'))
  return `${checksummer.digest()}-${parts.length}`
}

/**
 * The CRC of the parts' bytes one after the other, computed from their CRCs alone: appending `n` bytes multiplies a
 * CRC, taken as a polynomial over GF(2), by `x^8n` modulo the CRC's own polynomial.
 */
export function combineCrcs(algorithm: ChecksumAlgorithm, parts: readonly PartChecksum[]): string {
  const { polynomial, digestBytes } = specs[algorithm]
  if (polynomial === undefined) throw new Error(`${algorithm} is no CRC`)
  const field = new CrcField(polynomial, BigInt(digestBytes * 8))
  let combined = 0n
  for (const part of parts) {
    const crc = BigInt(`0x${Buffer.from(part.value, 'base64').toString('hex')}`)
    combined = field.multiply(field.powerOfBytes(part.sizeBytes), combined) ^ crc
  }
  return Buffer.from(combined.toString(16).padStart(digestBytes * 2, '0'), 'hex').toString('base64')
}

/** Polynomials over GF(2) modulo a CRC's, bit-reflected: the highest bit is the coefficient of x^0. */
class CrcField {
  readonly #polynomial: bigint
  readonly #one: bigint
  /** All parts but the last tend to have one size: their power is computed once. */
  readonly #powers = new Map<number, bigint>()

  constructor(polynomial: bigint, width: bigint) {
    this.#polynomial = polynomial
    this.#one = 1n << (width - 1n)
  }

  multiply(a: bigint, b: bigint): bigint {
    let product = 0n
    for (let bit = this.#one; a !== 0n; bit >>= 1n) {
      if ((a & bit) !== 0n) {
        product ^= b
        a ^= bit
      }
      b = (b & 1n) === 1n ? (b >> 1n) ^ this.#polynomial : b >> 1n
    }
    return product
  }

  /** x^(8 * sizeBytes). */
  powerOfBytes(sizeBytes: number): bigint {
    const known = this.#powers.get(sizeBytes)
    if (known !== undefined) return known
    let power = this.#one
    let square = this.#one >> 8n // x^8
    for (let rest = sizeBytes; rest > 0; rest = Math.floor(rest / 2)) {
      if (rest % 2 === 1) power = this.multiply(square, power)
      square = this.multiply(square, square)
    }
    this.#powers.set(sizeBytes, power)
    return power
  }
}

/** Response headers for an object's checksums. */
export function checksumHeaders(checksums: Checksums, type?: ChecksumType): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const algorithm of checksumAlgorithms) {
    const value = checksums[algorithm]
    if (value !== undefined) headers[checksumHeader(algorithm)] = value
  }
  if (Object.keys(headers).length > 0) headers['x-amz-checksum-type'] = type ?? 'FULL_OBJECT'
  return headers
}
