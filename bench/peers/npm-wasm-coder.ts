/**
 * Reed-Solomon through the `reed-solomon-erasure` crate's WebAssembly build: what ours is measured beside, and what the
 * tests hold it to. One instance serves one thread.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { ReedSolomonErasure } from '@subspace/reed-solomon-erasure.wasm'
import { HoldfastError } from '../../src/base/errors.ts'
import { type Code, type ErasureCoder, shardBytesOf } from '../../src/erasure/erasure-coder.ts'

const wasmFile = join(
  dirname(createRequire(import.meta.url).resolve('@subspace/reed-solomon-erasure.wasm')),
  'reed_solomon_erasure_bg.wasm'
)

/**
 * Bytes of each shard that are coded at a time. Coding works column by column, so shards can be cut across: the package
 * copies its whole input into its own memory, and a stripe of 12 shards stays in the processor's cache, 12 MiB do not.
 */
const stripeBytes = 128 * 1024

export function createNpmWasmCoder(): ErasureCoder {
  const module = readFileSync(wasmFile)
  let rs = ReedSolomonErasure.fromBytes(module)
  let scratch = new Uint8Array(0)

  /**
   * The package's `reconstruct` leaves its heap damaged (version 0.2.5: within a few calls, later ones trap; see
   * `test/erasure`), so an instance is used for one such call and replaced: 0.2 ms.
   */
  const reconstructOnce = (shards: Uint8Array, { k, m }: Code, present: readonly boolean[]): void => {
    const used = rs
    rs = ReedSolomonErasure.fromBytes(module)
    ok(used.reconstruct(shards, k, m, [...present]), 'reconstruct')
  }

  /** Runs `work` over stripes: those of the shards `inputs` are copied in before, those of `outputs` back after. */
  const byStripes = (
    shards: Uint8Array,
    { k, m }: Code,
    inputs: readonly number[],
    outputs: readonly number[],
    work: (stripe: Uint8Array) => void
  ): void => {
    const shardBytes = shards.length / (k + m)
    for (let at = 0; at < shardBytes; at += stripeBytes) {
      const width = Math.min(stripeBytes, shardBytes - at)
      if (scratch.length < width * (k + m)) scratch = new Uint8Array(width * (k + m))
      const stripe = scratch.subarray(0, width * (k + m))
      for (const index of inputs) {
        stripe.set(shards.subarray(index * shardBytes + at, index * shardBytes + at + width), index * width)
      }
      work(stripe)
      for (const index of outputs) {
        shards.set(stripe.subarray(index * width, (index + 1) * width), index * shardBytes + at)
      }
    }
  }

  const encode: ErasureCoder['encode'] = (shards, code) => {
    shardBytesOf(shards, code)
    if (code.m === 0) return
    const data = Array.from({ length: code.k }, (_, i) => i)
    const parity = Array.from({ length: code.m }, (_, i) => code.k + i)
    byStripes(shards, code, data, parity, (stripe) => ok(rs.encode(stripe, code.k, code.m), 'encode'))
  }

  return {
    name: 'reed-solomon-erasure, WASM',
    encode,
    verify: (shards, code) => {
      const again = shards.slice()
      encode(again, code)
      return Buffer.compare(again, shards) === 0
    },
    reconstruct: (shards, code, present, wanted) => {
      shardBytesOf(shards, code)
      const n = code.k + code.m
      if (present.length !== n) throw new HoldfastError('BAD_INPUT', `${present.length} flags for ${n} shards`)
      const missing = wanted.filter((index) => present[index] !== true)
      if (missing.length === 0) return
      const held = present.flatMap((isThere, index) => (isThere ? [index] : []))
      if (held.length < code.k) {
        throw new HoldfastError('UNREADABLE', `fewer than ${code.k} of ${n} shards are there`)
      }
      const lacksData = present.slice(0, code.k).includes(false)
      const wantsParity = missing.some((index) => index >= code.k)
      byStripes(shards, code, held, missing, (stripe) => {
        // The crate restores data shards; parity that is wanted comes from encoding the whole data again.
        if (lacksData) reconstructOnce(stripe, code, present)
        if (wantsParity) ok(rs.encode(stripe, code.k, code.m), 'encode')
      })
    }
  }
}

function ok(result: number, operation: string): void {
  if (result !== ReedSolomonErasure.RESULT_OK)
    throw new HoldfastError('INTERNAL', `erasure ${operation} failed with ${result}`)
}
