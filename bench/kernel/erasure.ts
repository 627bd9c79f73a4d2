/** The coding kernel, alone, on one thread: segments of `k` data shards of 1 MiB. Rates count the data, not the parity. */
import { MiB } from '../../src/base/limits.ts'
import { type Code, type ErasureCoder, formatCode } from '../../src/erasure/erasure-coder.ts'
import { seededBytes } from '../data.ts'
import { expectSame, measureRow, ratesOf, rateUnits, type Sampling, timed } from '../harness.ts'
import type { Row } from '../result.ts'

export interface CoderRowInit {
  coder: ErasureCoder
  /** Name of the coder, for the label. */
  coderName: string
  code: Code
  seed: number
  segments: number
  sampling: Sampling
  signal: AbortSignal
}

/** A segment as it has to come out: encoded, and shown to be so by taking its data back from its parity. */
function encodedSegment({ coder, code, seed }: CoderRowInit, index: number): Uint8Array {
  const segment = new Uint8Array((code.k + code.m) * MiB)
  segment.set(seededBytes(seed + index, code.k * MiB))
  coder.encode(segment, code)
  const { lost, present } = lossOf(code, code.m)
  const damaged = damage(segment, lost)
  coder.reconstruct(damaged, code, present, lost)
  expectSame(damaged, segment, `${formatCode(code)}: the data does not come back from its parity`)
  return segment
}

/** The first `count` shards gone: data as far as there is. */
function lossOf({ k, m }: Code, count: number): { lost: number[]; present: boolean[] } {
  return {
    lost: Array.from({ length: count }, (_, i) => i),
    present: Array.from({ length: k + m }, (_, i) => i >= count)
  }
}

function damage(segment: Uint8Array, lost: readonly number[]): Uint8Array {
  const damaged = segment.slice()
  for (const index of lost) damaged.fill(0, index * MiB, (index + 1) * MiB)
  return damaged
}

export async function encodeRow(init: CoderRowInit): Promise<Row> {
  const { coder, coderName, code, sampling, signal } = init
  const expected = Array.from({ length: init.segments }, (_, i) => encodedSegment(init, i))
  const buffers = expected.map((segment) => segment.slice())
  return await measureRow({
    id: `encode-${formatCode(code)}`,
    label: `RS encode ${formatCode(code)} (${coderName})`,
    units: rateUnits,
    sampling,
    signal,
    take: async () => {
      for (const buffer of buffers) buffer.fill(0, code.k * MiB) // so that the parity of the last sample can't pass
      const cost = await timed(
        () => buffers.forEach((buffer) => void coder.encode(buffer, code)),
        () => buffers.forEach((buffer, i) => void expectSame(buffer, expected[i]!, `parity of ${formatCode(code)}`))
      )
      return ratesOf(buffers.length * code.k * MiB, cost)
    }
  })
}

/** Restores the first `lostShards` of each segment. */
export async function reconstructRow(init: CoderRowInit & { lostShards: number }): Promise<Row> {
  const { coder, coderName, code, lostShards, sampling, signal } = init
  const expected = Array.from({ length: init.segments }, (_, i) => encodedSegment(init, i))
  const { lost, present } = lossOf(code, lostShards)
  return await measureRow({
    id: `reconstruct-${formatCode(code)}-${lostShards}`,
    label: `RS reconstruct ${formatCode(code)}, ${lostShards} lost (${coderName})`,
    units: rateUnits,
    sampling,
    signal,
    take: async () => {
      const buffers = expected.map((segment) => damage(segment, lost))
      const cost = await timed(
        () => buffers.forEach((buffer) => void coder.reconstruct(buffer, code, present, lost)),
        () => buffers.forEach((buffer, i) => void expectSame(buffer, expected[i]!, `shards of ${formatCode(code)}`))
      )
      return ratesOf(buffers.length * code.k * MiB, cost)
    }
  })
}
