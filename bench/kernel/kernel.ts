/** The coding kernel and the hash, implementation by implementation. */
import { blake3 as nobleBlake3 } from '@noble/hashes/blake3.js'
import { nativeBlake3, wasmBlake3 } from '../../src/content/blake3.ts'
import type { Code } from '../../src/erasure/erasure-coder.ts'
import { type Benchmark, samplingOf } from '../harness.ts'
import { createNpmWasmCoder } from '../peers/npm-wasm-coder.ts'
import type { Row } from '../result.ts'
import { encodeRow, reconstructRow } from './erasure.ts'
import { hashRow } from './hash.ts'

const codes: readonly Code[] = [
  { k: 4, m: 2 },
  { k: 6, m: 6 },
  { k: 10, m: 4 },
  { k: 10, m: 10 }
]

export const kernel: Benchmark = {
  name: 'kernel',
  title: 'Coding kernel and hash',
  run: async ({ scale, seed, progress, signal }) => {
    const segments = scale === 'full' ? 8 : 1
    const buffers = scale === 'full' ? 64 : 4
    const sampling = samplingOf(scale)
    const rows: Row[] = []
    const coder = createNpmWasmCoder()
    for (const code of codes) {
      progress(`kernel: Reed-Solomon ${code.k}+${code.m}`)
      const init = { coder, coderName: 'reed-solomon-erasure, WASM', code, seed, segments, sampling, signal }
      rows.push(await encodeRow(init))
      rows.push(await reconstructRow({ ...init, lostShards: 1 }))
      rows.push(await reconstructRow({ ...init, lostShards: code.m }))
    }
    const native = nativeBlake3()
    const wasm = await wasmBlake3()
    for (const implementation of native === undefined ? [wasm] : [native, wasm]) {
      progress(`kernel: BLAKE3, ${implementation.name}`)
      rows.push(
        await hashRow({
          id: `blake3-${implementation.name}`,
          label: `BLAKE3 (${implementation.name})`,
          seed,
          buffers,
          digest: implementation.digest,
          oracle: nobleBlake3,
          sampling,
          signal
        })
      )
    }
    return {
      parameters: { shardBytes: 1024 * 1024, segments, hashedBuffers: buffers, ...sampling },
      notes: [
        'One thread. MB and GB of Reed-Solomon rows are of data: a segment of k+m shards counts as k MiB.',
        ...(native === undefined ? ['There is no native BLAKE3 for this platform.'] : [])
      ],
      rows
    }
  }
}
