/** The coding kernel, alone, on one thread, side by side with its peers. Rates count the data, not the parity. */

import { type Code, formatCode } from '../../src/erasure/erasure-coder.ts'
import { seededBytes } from '../data.ts'
import { measureRows, ratesOf, rateUnits, type Sampling } from '../harness.ts'
import { createNpmWasmCoder } from '../peers/npm-wasm-coder.ts'
import type { Row } from '../result.ts'
import type { Contender, Job, Segment, Workspace } from './contender.ts'

export interface ErasureRowsInit {
  contenders: readonly Contender[]
  code: Code
  shardBytes: number
  seed: number
  /** Data times outputs of one sample, at least: a segment is coded as often as that takes. */
  productBytes: number
  sampling: Sampling
  signal: AbortSignal
}

export function encodedByOracle({ code, shardBytes, seed }: Omit<ErasureRowsInit, 'contenders'>): Segment {
  const whole = new Uint8Array((code.k + code.m) * shardBytes)
  whole.set(seededBytes(seed, code.k * shardBytes))
  createNpmWasmCoder().encode(whole, code)
  return { code, shardBytes, whole }
}

const encodeJob = ({ k, m }: Code): Job => ({ kind: 'encode', lost: Array.from({ length: m }, (_, i) => k + i) })

/** The first `count` shards gone: data as far as there is. */
const reconstructJob = (count: number): Job => ({
  kind: 'reconstruct',
  lost: Array.from({ length: count }, (_, i) => i)
})

/** One row a contender. */
export async function encodeRows(init: ErasureRowsInit): Promise<Row[]> {
  return await sideBySide(init, [encodeJob(init.code)])
}

/** Encoding, and restoring one shard, half of what may be lost, and all of it: for each a row a contender. */
export async function erasureRows(init: ErasureRowsInit): Promise<Row[]> {
  const { m } = init.code
  const losses = [...new Set([1, m >> 1, m])].filter((count) => count > 0)
  return await sideBySide(init, [encodeJob(init.code), ...losses.map(reconstructJob)])
}

/** One sample of each contender in turn, so that what else the machine does falls on all alike. */
async function sideBySide(init: ErasureRowsInit, jobs: readonly Job[]): Promise<Row[]> {
  const { contenders, code, shardBytes, productBytes, sampling, signal } = init
  const segment = encodedByOracle(init)
  const opened: { contender: Contender; workspace: Workspace }[] = []
  const rows: Row[] = []
  try {
    for (const contender of contenders) {
      const workspace = await contender.open(segment)
      if (workspace !== undefined) opened.push({ contender, workspace })
    }
    const dataBytes = code.k * shardBytes
    for (const job of jobs) {
      const repeats = Math.ceil(productBytes / (dataBytes * job.lost.length))
      const specs = opened.map(({ contender, workspace }) => ({
        ...rowName(job, code, contender),
        units: rateUnits,
        sampling,
        signal,
        take: async () => ratesOf(repeats * dataBytes, await workspace.take(job, repeats))
      }))
      rows.push(...(await measureRows(specs)))
    }
  } finally {
    for (const { workspace } of opened) await workspace.close?.()
  }
  return rows
}

function rowName({ kind, lost }: Job, code: Code, { id, name }: Contender): Pick<Row, 'id' | 'label'> {
  const text = formatCode(code)
  return kind === 'encode'
    ? { id: `encode-${text}-${id}`, label: `RS encode ${text} (${name})` }
    : { id: `reconstruct-${text}-${lost.length}-${id}`, label: `RS reconstruct ${text}, ${lost.length} lost (${name})` }
}
