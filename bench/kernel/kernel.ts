/** The coding kernel and the hash, implementation by implementation. */
import type { Code } from '../../src/erasure/erasure-coder.ts'
import { createWasmCoder } from '../../src/erasure/wasm-coder.ts'
import { type Benchmark, samplingOf } from '../harness.ts'
import type { Row } from '../result.ts'
import { blake3Rows } from './blake3.ts'
import { encodeRow, reconstructRow } from './erasure.ts'

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
    const blocks = scale === 'full' ? 64 : 4
    const proofs = scale === 'full' ? 20_000 : 200
    const sampling = samplingOf(scale)
    const rows: Row[] = []
    const coder = createWasmCoder()
    for (const code of codes) {
      progress(`kernel: Reed-Solomon ${code.k}+${code.m}`)
      const init = { coder, coderName: 'reed-solomon-erasure, WASM', code, seed, segments, sampling, signal }
      rows.push(await encodeRow(init))
      rows.push(await reconstructRow({ ...init, lostShards: 1 }))
      rows.push(await reconstructRow({ ...init, lostShards: code.m }))
    }
    progress('kernel: BLAKE3')
    rows.push(...(await blake3Rows({ seed, blocks, proofs, sampling, signal })))
    return {
      parameters: { shardBytes: 1024 * 1024, segments, hashedBlocks: blocks, proofs, ...sampling },
      notes: [
        'One thread. MB and GB of Reed-Solomon rows are of data: a segment of k+m shards counts as k MiB.',
        'BLAKE3 rows were taken in turn, sample by sample: their ratios hold on a busy machine too. Blocks of 1 MiB.'
      ],
      rows
    }
  }
}
