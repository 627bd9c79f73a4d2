/** Reed-Solomon through the `reed-solomon-erasure` crate's WebAssembly build. One instance serves one thread. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { ReedSolomonErasure } from '@subspace/reed-solomon-erasure.wasm'
import { HoldfastError } from '../base/errors.ts'
import { type Code, type ErasureCoder, shardBytesOf } from './erasure-coder.ts'

const wasmFile = join(
  dirname(createRequire(import.meta.url).resolve('@subspace/reed-solomon-erasure.wasm')),
  'reed_solomon_erasure_bg.wasm'
)

export function createWasmCoder(): ErasureCoder {
  const bytes = readFileSync(wasmFile)
  let rs = ReedSolomonErasure.fromBytes(bytes)

  /**
   * The package's `reconstruct` leaves its heap damaged (version 0.2.5: within a few calls, later ones trap; see
   * `test/erasure`), so an instance is used for one such call and replaced: 0.3 ms, against 10 for a segment.
   */
  const reconstructOnce = (shards: Uint8Array, { k, m }: Code, present: readonly boolean[]): void => {
    const used = rs
    rs = ReedSolomonErasure.fromBytes(bytes)
    ok(used.reconstruct(shards, k, m, [...present]), 'reconstruct')
  }

  const encode: ErasureCoder['encode'] = (shards, code) => {
    shardBytesOf(shards, code)
    if (code.m === 0) return
    ok(rs.encode(shards, code.k, code.m), 'encode')
  }

  return {
    encode,
    reconstruct: (shards, code, present, wanted) => {
      const shardBytes = shardBytesOf(shards, code)
      const n = code.k + code.m
      if (present.length !== n) throw new HoldfastError('BAD_INPUT', `${present.length} flags for ${n} shards`)
      const missing = wanted.filter((index) => present[index] !== true)
      if (missing.length === 0) return
      if (present.filter((p) => p).length < code.k) {
        throw new HoldfastError('UNREADABLE', `fewer than ${code.k} of ${n} shards are there`)
      }
      // The crate restores data shards; parity that is wanted comes from encoding the whole data again.
      if (present.slice(0, code.k).includes(false)) reconstructOnce(shards, code, present)
      const parity = missing.filter((index) => index >= code.k)
      if (parity.length === 0) return
      const copy = shards.slice()
      encode(copy, code)
      for (const index of parity) {
        shards.set(copy.subarray(index * shardBytes, (index + 1) * shardBytes), index * shardBytes)
      }
    }
  }
}

function ok(result: number, operation: string): void {
  if (result !== ReedSolomonErasure.RESULT_OK)
    throw new HoldfastError('INTERNAL', `erasure ${operation} failed with ${result}`)
}
