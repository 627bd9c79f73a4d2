/** The coding kernel and the hash, implementation by implementation. */
import { KiB, MiB } from '../../src/base/limits.ts'
import type { Code } from '../../src/erasure/erasure-coder.ts'
import { type Benchmark, samplingOf } from '../harness.ts'
import type { Row } from '../result.ts'
import { blake3Rows } from './blake3.ts'
import { findContenders } from './contenders.ts'
import { erasureRows } from './erasure.ts'
import { proofServiceRows } from './proof-service.ts'
import { wholePathRow, wholePathSizes } from './whole-path.ts'

const codes: readonly Code[] = [
  { k: 4, m: 2 },
  { k: 10, m: 4 },
  { k: 10, m: 10 },
  { k: 29, m: 51 }
]

export const kernel: Benchmark = {
  name: 'kernel',
  title: 'Coding kernel and hash',
  run: async ({ scale, seed, directory, peers, progress, signal }) => {
    const isFull = scale === 'full'
    const shardBytes = isFull ? MiB : 16 * KiB
    const productBytes = isFull ? 128 * MiB : shardBytes
    const blocks = isFull ? 64 : 4
    const proofs = isFull ? 20_000 : 200
    const sampling = samplingOf(scale)
    const rows: Row[] = []
    const bytesMax = Math.max(...codes.map(({ k, m }) => k + m)) * shardBytes
    const { contenders, notes } = await findContenders(directory, peers, bytesMax)
    for (const code of codes) {
      progress(`kernel: Reed-Solomon ${code.k}+${code.m}`)
      // More warm-ups: the engine optimises what has run for a while, in the background. More samples: they are short.
      const erasureSampling = isFull ? { warmups: 3, samples: 15 } : sampling
      const init = { contenders, code, shardBytes, seed, productBytes, sampling: erasureSampling, signal }
      rows.push(...(await erasureRows(init)))
    }
    progress('kernel: the whole path')
    for (const code of [
      { k: 6, m: 6 },
      { k: 10, m: 10 }
    ]) {
      for (const threads of [1, 2])
        rows.push(await wholePathRow({ code, threads, ...wholePathSizes(isFull), seed, sampling, signal }))
    }
    progress('kernel: BLAKE3')
    rows.push(...(await blake3Rows({ seed, blocks, proofs, sampling, signal })))
    progress('kernel: the proof service')
    rows.push(...(await proofServiceRows({ seed, blocks: isFull ? 256 : blocks, sampling, signal })))
    return {
      parameters: { shardBytes, productBytes, hashedBlocks: blocks, proofs, ...sampling },
      notes: [
        'One thread. MB and GB of Reed-Solomon rows are of data: a segment of k+m shards counts as its k.',
        'Contenders take turns, sample by sample, and answers are checked before a time counts.',
        ...notes,
        'BLAKE3 rows were taken in turn, sample by sample: their ratios hold on a busy machine too. Blocks of 1 MiB.'
      ],
      rows
    }
  }
}
