/** Trees and slices: what an honest holder makes is taken, and everything else is refused. */
import { blake3 as independent } from '@noble/hashes/blake3.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { KiB, MiB } from '../../src/base/limits.ts'
import { Blake3Kernel, scratchBytesMin } from '../../src/content/blake3-kernel.ts'
import { sliceOf, type VerifyInit, verifySlice } from '../../src/content/blake3-slice.ts'
import { type Blake3Tree, type GroupBytes, groupSizes, treeOf } from '../../src/content/blake3-tree.ts'
import { simdLevel } from '../../src/wasm/assembler.ts'
import { createMemory } from '../../src/wasm/engine.ts'
import { hex, pattern } from './pattern.ts'

const data = pattern(3 * MiB).map((byte, i) => byte ^ (i >> 10))
const blockOf = (length: number): Uint8Array => data.subarray(7, 7 + length)
const lengths = [0, 1, KiB - 1, KiB, KiB + 1, 16 * KiB - 1, 16 * KiB, 16 * KiB + 1, MiB - 1, MiB]

/** The block's bytes, or `WRONG`; anything else that is thrown is a failure. */
function verdict(...[slice, root, start, end, init]: Parameters<typeof verifySlice>): Uint8Array | 'WRONG' {
  try {
    return verifySlice(slice, root, start, end, init)
  } catch (error) {
    if (error instanceof HoldfastError && error.code === 'WRONG') return 'WRONG'
    throw error
  }
}

/** A property of proofs of 1,000 and more variants: `expect` for each would take its time. */
function expectRefused(why: string, ...args: Parameters<typeof verifySlice>): void {
  if (verdict(...args) !== 'WRONG') expect.fail(`taken: ${why}`)
}

interface Sample {
  block: Uint8Array
  tree: Blake3Tree
  groupBytes: GroupBytes
}

const sample = (length: number, groupBytes: GroupBytes): Sample => {
  const block = blockOf(length)
  return { block, tree: treeOf(block, { groupBytes }), groupBytes }
}

interface Lie {
  /** Length that the block is said to have. */
  claim: number
  start: number
  end: number
  groupBytes: number
}

/** The slice, changed to fit a block of another length: its bytes cut or filled up, and its nodes, as far as need be. */
function liesOf(slice: Uint8Array, honestNodes: number, { claim, start, end, groupBytes }: Lie): Uint8Array[] {
  const lastGroupAt = Math.max(0, Math.ceil(claim / groupBytes) - 1) * groupBytes
  const bytes = Math.min(Math.ceil(end / groupBytes) * groupBytes, claim) - Math.min(start, lastGroupAt)
  const honestBytes = slice.subarray(8 + 32 * honestNodes)
  return [0, 1, 2, 3, 4, 5].map((nodes) => {
    const lie = new Uint8Array(8 + 32 * nodes + bytes)
    lie.set(slice.subarray(8, 8 + 32 * Math.min(nodes, honestNodes)), 8)
    lie.set(honestBytes.subarray(0, bytes), 8 + 32 * nodes)
    new DataView(lie.buffer).setBigUint64(0, BigInt(claim))
    return lie
  })
}

describe.each(groupSizes)('in groups of %i bytes', (groupBytes) => {
  const init: VerifyInit = { groupBytes }
  const samples = lengths.map((length) => sample(length, groupBytes))
  const whole = samples.at(-1)!

  it('a tree has the digest at its root, wherever the block lies and whatever hashes it', () => {
    const memory = createMemory({ initialPages: 32, maximumPages: 32, shared: true })
    const kernels = [
      new Blake3Kernel({ level: 'scalar' }),
      new Blake3Kernel({ level: simdLevel, memory, scratch: { address: 0, bytes: scratchBytesMin } })
    ]
    for (const { block, tree } of samples) {
      expect(hex(tree.root)).toBe(hex(independent(block)))
      const placed = new Uint8Array(memory.buffer, 65_536, block.length)
      placed.set(block)
      for (const kernel of kernels) {
        for (const bytes of [block, placed]) {
          const other = treeOf(bytes, { groupBytes, kernel })
          expect(Buffer.compare(other.nodes, tree.nodes)).toBe(0)
          const slice = sliceOf(bytes, other, 0, 5)
          expect(hex(verifySlice(slice, tree.root, 0, 5, { groupBytes, kernel }))).toBe(hex(block.subarray(0, 5)))
        }
      }
    }
    expect(treeOf(blockOf(MiB), { groupBytes }).nodes.length).toBe(32 * (2 * (MiB / groupBytes) - 1))
  })

  it('a slice gives back any range of any block', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.constantFrom(...lengths), fc.nat(40 * KiB), fc.nat(3 * MiB - 7)),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.oneof(fc.nat(3), fc.nat(3000), fc.nat(3 * MiB)),
        (length, at, size) => {
          const { block, tree } = samples.find(({ block }) => block.length === length) ?? sample(length, groupBytes)
          const start = Math.floor(at * length)
          const end = Math.min(length, start + size)
          const slice = sliceOf(block, tree, start, end)
          const bytes = verifySlice(slice, tree.root, start, end, { groupBytes, blockBytesMax: length })
          expect(Buffer.compare(bytes, block.subarray(start, end))).toBe(0)
          expectRefused('a block longer than allowed', slice, tree.root, start, end, { groupBytes, blockBytesMax: -1 })
        }
      ),
      { numRuns: 150 }
    )
  })

  it('a slice that reaches the end proves the end; past it there is nothing', () => {
    for (const { block, tree } of samples) {
      const { length } = block
      for (const [start, end] of [
        [Math.max(0, length - 3), length + 1000],
        [length, length + 1],
        [length + 5, length + 5],
        [10 * MiB, 11 * MiB],
        [0, Number.MAX_SAFE_INTEGER]
      ] as const) {
        const bytes = verifySlice(sliceOf(block, tree, start, end), tree.root, start, end, init)
        expect(Buffer.compare(bytes, block.subarray(start, end))).toBe(0)
      }
    }
  })

  it('a proof of one chunk is small, and none of its bits can be another', () => {
    const at = 333 * KiB + 5
    for (const { block, tree } of [whole, samples.find(({ block }) => block.length === MiB - 1)!]) {
      const slice = sliceOf(block, tree, at, at + 1)
      expect(slice.length).toBe(8 + 32 * Math.log2(MiB / groupBytes) + groupBytes)
      // of the bytes that are hashed like any other, some will do
      const step = Math.max(1, Math.floor(slice.length / 1500))
      for (let i = 0; i < slice.length; i += i < 8 + 32 * 10 ? 1 : step) {
        for (let bit = 0; bit < 8; bit++) {
          slice[i]! ^= 1 << bit
          expectRefused(`bit ${bit} of byte ${i} altered`, slice, tree.root, at, at + 1, init)
          slice[i]! ^= 1 << bit
        }
      }
      expect(verifySlice(slice, tree.root, at, at + 1, init)[0]).toBe(block[at])
    }
  })

  it('a slice cut short or made longer anywhere is refused', () => {
    const at = 5 * KiB
    const { block, tree } = whole
    const slice = sliceOf(block, tree, at, at + 1)
    for (let length = 0; length < slice.length; length++)
      expectRefused(`the first ${length} bytes`, slice.subarray(0, length), tree.root, at, at + 1, init)
    const step = Math.max(1, Math.floor(slice.length / 1500))
    for (let i = 0; i <= slice.length; i += step) {
      for (const extra of [1, 32, groupBytes]) {
        const longer = Buffer.concat([slice.subarray(0, i), new Uint8Array(extra), slice.subarray(i)])
        expectRefused(`${extra} bytes more at ${i}`, longer, tree.root, at, at + 1, init)
      }
    }
  })

  it('a slice of other groups, in groups of another size, or for another digest is refused', () => {
    const { block, tree } = whole
    const at = 100 * KiB
    const slice = sliceOf(block, tree, at, at + 1)
    for (let other = 0; other < MiB; other += groupBytes) {
      if (Math.floor(other / groupBytes) === Math.floor(at / groupBytes)) continue
      expectRefused(`at ${other}`, slice, tree.root, other, other + 1, init)
    }
    expectRefused('the end', slice, tree.root, MiB, MiB, init)
    const otherSize = groupSizes.find((size) => size !== groupBytes)!
    expectRefused('groups of another size', slice, tree.root, at, at + 1, { groupBytes: otherSize })
    for (let bit = 0; bit < 256; bit++) {
      const root = tree.root.slice()
      root[bit >> 3]! ^= 1 << (bit & 7)
      expectRefused(`bit ${bit} of the digest`, slice, root, at, at + 1, init)
    }
    const group = groupBytes * Math.floor(at / groupBytes)
    expect(verifySlice(slice, tree.root, group, group + groupBytes, init).length).toBe(groupBytes)
  })

  it('no length of the block is taken but what the slice proves, in trees of every shape', () => {
    const groupsMax = groupBytes === 1024 ? 11 : 5
    const claims = Array.from({ length: groupsMax + 2 }, (_, n) => [n * groupBytes, n * groupBytes + 1])
      .flat()
      .concat(groupBytes - 1, groupsMax * groupBytes - 1)
    for (let groups = 1; groups <= groupsMax; groups++) {
      for (const short of [0, groupBytes - 1]) {
        const { block, tree } = sample(groups * groupBytes - short, groupBytes)
        for (let group = 0; group < groups; group++) {
          const start = group * groupBytes
          for (const end of [start + 1, start + 2 * groupBytes, block.length, 2 * groupsMax * groupBytes]) {
            if (end <= start) continue
            const slice = sliceOf(block, tree, start, end)
            const extent = Number(new DataView(slice.buffer).getBigUint64(0))
            const bytes = Math.min(Math.ceil(end / groupBytes) * groupBytes, block.length) - start
            const nodes = (slice.length - 8 - bytes) / 32
            expect(extent).toBeLessThanOrEqual(block.length)
            if (end >= block.length) expect(extent).toBe(block.length)
            for (const claim of claims) {
              if (claim === extent) continue
              for (const lie of liesOf(slice, nodes, { claim, start, end, groupBytes }))
                expectRefused(`${claim} bytes for ${block.length}`, lie, tree.root, start, end, init)
            }
            expect(verifySlice(slice, tree.root, start, end, init).length).toBe(Math.min(end, block.length) - start)
          }
        }
      }
    }
  })

  it('a slice of any range with anything altered is refused', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.constantFrom(...lengths), fc.nat(100 * KiB)),
        fc.nat(MiB),
        fc.nat(100 * KiB),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (length, start, size, at, flip) => {
          const { block, tree } = samples.find(({ block }) => block.length === length) ?? sample(length, groupBytes)
          const slice = sliceOf(block, tree, start, start + size)
          slice[at % slice.length]! ^= flip
          expectRefused('altered', slice, tree.root, start, start + size, init)
        }
      ),
      { numRuns: 300 }
    )
  })

  it('whatever bytes come, they are refused by name, and nothing is set aside for what they claim', () => {
    const { tree } = whole
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 2000 }),
          fc
            .tuple(fc.nat(2 * MiB), fc.uint8Array({ maxLength: 3000 }))
            .map(([extent, rest]) => Uint8Array.from([0, 0, 0, 0, 0, extent >> 16, extent >> 8, extent, ...rest]))
        ),
        fc.nat(2 * MiB),
        fc.nat(2 * MiB),
        (bytes, start, size) => expectRefused('random bytes', bytes, tree.root, start, start + size, init)
      ),
      { numRuns: 2000 }
    )
    const huge = new Uint8Array(8 + 32).fill(255)
    for (const blockBytesMax of [MiB, Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY]) {
      for (const claim of [2 ** 53, 2 ** 40, 2 ** 32 + 1]) {
        new DataView(huge.buffer).setBigUint64(0, BigInt(claim))
        expectRefused(`${claim}`, huge, tree.root, 0, Number.MAX_SAFE_INTEGER, { groupBytes, blockBytesMax })
        expectRefused(`${claim}`, huge, tree.root, 0, 1, { groupBytes, blockBytesMax })
      }
    }
  })
})

it('what the caller gets wrong is told to the caller', () => {
  const { block, tree } = sample(5000, 1024)
  const badInput = expect.objectContaining({ code: 'BAD_INPUT' })
  for (const [start, end] of [
    [5, 4],
    [-1, 4],
    [0.5, 4],
    [0, Number.NaN],
    [0, Number.POSITIVE_INFINITY]
  ] as const) {
    expect(() => sliceOf(block, tree, start, end)).toThrow(badInput)
    expect(() => verifySlice(new Uint8Array(8), tree.root, start, end)).toThrow(badInput)
  }
  expect(() => sliceOf(block.subarray(1), tree, 0, 1)).toThrow(badInput)
  expect(() => verifySlice(new Uint8Array(8), tree.root.subarray(1), 0, 1)).toThrow(badInput)
  expect(() => treeOf(block, { groupBytes: 2048 as GroupBytes })).toThrow(badInput)
})
