/** BLAKE3, implementation by implementation, on blocks of 1 MiB; trees of such blocks, and proofs out of them. */
import { blake3 as nobleBlake3 } from '@noble/hashes/blake3.js'
import { createBLAKE3 } from 'hash-wasm'
import { KiB, MiB } from '../../src/base/limits.ts'
import { nativeBlake3 } from '../../src/content/blake3.ts'
import { digestWith } from '../../src/content/blake3-hash.ts'
import { Blake3Kernel, scratchBytesGood } from '../../src/content/blake3-kernel.ts'
import { sliceOf, verifySlice } from '../../src/content/blake3-slice.ts'
import { type Blake3Tree, type GroupBytes, groupSizes, treeOf } from '../../src/content/blake3-tree.ts'
import { type SimdLevel, simdLevel } from '../../src/wasm/assembler.ts'
import { createMemory, pageBytes, type WasmMemory } from '../../src/wasm/engine.ts'
import { seededBytes } from '../data.ts'
import {
  expectSame,
  measureRows,
  type RowSpec,
  ratesOf,
  rateUnits,
  type Sampling,
  timed,
  WrongAnswerError
} from '../harness.ts'
import type { Row } from '../result.ts'

export interface Blake3RowsInit {
  seed: number
  /** 1 MiB each. */
  blocks: number
  /** Proofs in one sample. */
  proofs: number
  sampling: Sampling
  signal: AbortSignal
}

type Spec<F extends string> = Omit<RowSpec<F>, 'sampling' | 'signal'>
type RateSpec = Spec<keyof typeof rateUnits>

const levels = (['relaxed', 'simd', 'scalar'] as const satisfies readonly SimdLevel[]).filter(
  (level, _, all) => all.indexOf(level) >= all.indexOf(simdLevel)
)

/** Blocks where a kernel reads them, with room for its scratch in front. */
function memoryFor(blocks: readonly Uint8Array[]): { memory: WasmMemory; placed: Uint8Array[] } {
  const pagesBefore = Math.ceil((levels.length * scratchBytesGood) / pageBytes)
  const memory = createMemory({ initialPages: pagesBefore + blocks.length * (MiB / pageBytes) })
  const placed = blocks.map((block, i) => {
    const place = new Uint8Array(memory.buffer, pagesBefore * pageBytes + i * MiB, MiB)
    place.set(block)
    return place
  })
  return { memory, placed }
}

export async function blake3Rows(init: Blake3RowsInit): Promise<Row[]> {
  const bytes = seededBytes(init.seed, init.blocks * MiB)
  const blocks = Array.from({ length: init.blocks }, (_, i) => bytes.subarray(i * MiB, (i + 1) * MiB))
  const digests = Buffer.concat(blocks.map((block) => nobleBlake3(block)))
  const { memory, placed } = memoryFor(blocks)
  const hashWasm = await createBLAKE3()
  const native = nativeBlake3()

  const digestSpec = (
    name: string,
    label: string,
    inputs: readonly Uint8Array[],
    digest: (block: Uint8Array) => Uint8Array
  ): RateSpec => ({
    id: `blake3-${name}`,
    label: `BLAKE3 (${label})`,
    units: rateUnits,
    take: async () =>
      ratesOf(
        bytes.length,
        await timed(
          () => inputs.map((block) => digest(block)),
          (answers) => expectSame(Buffer.concat(answers), digests, label)
        )
      )
  })
  const specs: RateSpec[] = [
    ...(native === undefined ? [] : [digestSpec('native', 'native', blocks, native.digest)]),
    digestSpec('hash-wasm', 'hash-wasm', blocks, (block) => hashWasm.init().update(block).digest('binary')),
    ...levels.flatMap((level, i) => {
      const own = new Blake3Kernel({ level })
      const scratch = { address: i * scratchBytesGood, bytes: scratchBytesGood }
      const inPlace = new Blake3Kernel({ level, memory, scratch })
      return [
        digestSpec(level, `${level}, in place`, placed, (block) => digestWith(inPlace, block)),
        digestSpec(`${level}-copied`, `${level}, copied`, blocks, (block) => digestWith(own, block))
      ]
    }),
    ...groupSizes.map((groupBytes): RateSpec => {
      const label = `BLAKE3 tree, groups of ${groupBytes / KiB} KiB`
      return {
        id: `blake3-tree-${groupBytes / KiB}KiB`,
        label,
        units: rateUnits,
        take: async () =>
          ratesOf(
            bytes.length,
            await timed(
              () => blocks.map((block) => treeOf(block, { groupBytes }).root),
              (roots) => expectSame(Buffer.concat(roots), digests, label)
            )
          )
      }
    })
  ]
  const { sampling, signal } = init
  const proofs = groupSizes.flatMap((size) => proofSpecs(init, blocks, size))
  return [
    ...(await measureRows(specs.map((spec) => ({ ...spec, sampling, signal })))),
    ...(await measureRows(proofs.map((spec) => ({ ...spec, sampling, signal }))))
  ]
}

const proofUnits = { proofs: 'proofs/s' } as const

/** Proofs of one group each, at places all over the blocks: made from blocks and trees in memory, and checked. */
function proofSpecs(
  { proofs }: Blake3RowsInit,
  blocks: readonly Uint8Array[],
  groupBytes: GroupBytes
): Spec<keyof typeof proofUnits>[] {
  const trees = blocks.map((block): Blake3Tree => treeOf(block, { groupBytes }))
  const questions = Array.from({ length: proofs }, (_, i) => {
    const start = ((i * 7919) % (MiB / groupBytes)) * groupBytes // a prime: no two in a row are near each other
    return { block: i % blocks.length, start, end: start + groupBytes }
  })
  const make = (): Uint8Array[] =>
    questions.map(({ block, start, end }) => sliceOf(blocks[block]!, trees[block]!, start, end))
  const check = (slices: readonly Uint8Array[]): Uint8Array[] =>
    questions.map(({ block, start, end }, i) => verifySlice(slices[i]!, trees[block]!.root, start, end, { groupBytes }))
  const expectBytes = (answers: readonly Uint8Array[]): void => {
    for (const [i, { block, start, end }] of questions.entries())
      expectSame(answers[i]!, blocks[block]!.subarray(start, end), 'the bytes of a proof')
  }
  const slices = make()
  const altered = slices[0]!.slice()
  altered[altered.length - 1]! ^= 1
  const size = `${groupBytes / KiB} KiB`
  return [
    {
      id: `blake3-prove-${groupBytes / KiB}KiB`,
      label: `proofs of ${size} of 1 MiB made (${slices[0]!.length} bytes)`,
      units: proofUnits,
      take: async () => {
        const { seconds } = await timed(make, (made) => expectBytes(check(made)))
        return { proofs: proofs / seconds }
      }
    },
    {
      id: `blake3-check-${groupBytes / KiB}KiB`,
      label: `proofs of ${size} of 1 MiB checked`,
      units: proofUnits,
      take: async () => {
        const { seconds } = await timed(
          () => check(slices),
          (answers) => {
            expectBytes(answers)
            expectRefused(() => check([altered, ...slices.slice(1)]))
          }
        )
        return { proofs: proofs / seconds }
      }
    }
  ]
}

function expectRefused(work: () => unknown): void {
  try {
    work()
  } catch {
    return
  }
  throw new WrongAnswerError('an altered proof was taken')
}
