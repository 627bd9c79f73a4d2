/**
 * The coding seam: systematic Reed-Solomon over GF(2^8), polynomial 0x11D, on one contiguous buffer of `k + m` shards of
 * `shardBytes` each, data first. Any implementation gives the same bytes as the `reed-solomon-erasure` crate.
 */
import { HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'

export interface Code {
  /** Data shards. */
  k: number
  /** Parity shards. */
  m: number
}

export interface ErasureCoder {
  /** What does the work, in words. */
  readonly name: string
  /** Fills the `m` parity shards from the `k` data shards, in place. */
  encode: (shards: Uint8Array, code: Code) => void
  /** Restores the shards named in `wanted` (data or parity) in place, from any `k` marked `present`. */
  reconstruct: (shards: Uint8Array, code: Code, present: readonly boolean[], wanted: readonly number[]) => void
  /** Whether the parity shards are those of the data shards. Changes nothing. */
  verify: (shards: Uint8Array, code: Code) => boolean
}

/** @throws HoldfastError `BAD_INPUT` unless `k >= 1`, `m >= 0` and `k + m <= 256` */
export function checkCode({ k, m }: Code): void {
  if (!Number.isInteger(k) || !Number.isInteger(m) || k < 1 || m < 0 || k + m > limits.codeShardsMax) {
    throw new HoldfastError(
      'BAD_INPUT',
      `no such code: ${k}+${m}; it takes k >= 1, m >= 0 and k + m <= ${limits.codeShardsMax}`
    )
  }
}

/** Bytes of one shard, checked: the buffer must divide evenly among the shards. */
export function shardBytesOf(shards: Uint8Array, code: Code): number {
  checkCode(code)
  const shardBytes = shards.length / (code.k + code.m)
  if (!Number.isInteger(shardBytes) || shardBytes === 0) {
    throw new HoldfastError('BAD_INPUT', `${shards.length} bytes are not ${code.k + code.m} equal shards`)
  }
  return shardBytes
}

/** `10+10`. */
export function formatCode({ k, m }: Code): string {
  return `${k}+${m}`
}

/** @throws HoldfastError `BAD_INPUT` unless the text is `K+M` with `K >= 1` and `M >= limits.parityMin` */
export function parseCode(text: string): Code {
  const match = /^(\d{1,3})\+(\d{1,3})$/.exec(text)
  if (match === null)
    throw new HoldfastError('BAD_INPUT', `a code is written K+M, like 6+6; got ${JSON.stringify(text.slice(0, 40))}`)
  const code = { k: Number(match[1]), m: Number(match[2]) }
  checkCode(code)
  if (code.m < limits.parityMin)
    throw new HoldfastError('BAD_INPUT', `the code ${text} has too little parity: M is at least ${limits.parityMin}`)
  return code
}
