import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createNpmWasmCoder } from '../../bench/peers/npm-wasm-coder.ts'
import { createCoder, erasureImplementation } from '../../src/erasure/coder.ts'
import type { Code, ErasureCoder } from '../../src/erasure/erasure-coder.ts'
import { scratchBytes } from '../../src/erasure/kernel.ts'
import { createMemoryCoder } from '../../src/erasure/memory-coder.ts'
import { type SimdLevel, simdLevel } from '../../src/wasm/assembler.ts'
import { createMemory, type WasmMemory } from '../../src/wasm/engine.ts'

const oracle = createNpmWasmCoder()

/** Those that this engine can run. */
const levels: readonly SimdLevel[] = (['relaxed', 'simd', 'scalar'] as const).slice(
  ['relaxed', 'simd', 'scalar'].indexOf(simdLevel)
)

/** Everything that has to give the same bytes. */
const coders: ReadonlyArray<[string, ErasureCoder]> = [
  ['the npm package', oracle],
  ...levels.map((level): [string, ErasureCoder] => [`staged, ${level}`, createCoder({ level })]),
  ...levels.map((level): [string, ErasureCoder] => [`in shared memory, ${level}`, inMemory(level)])
]

const canary = 0xa5

/** Codes in a memory, off its alignment, and shows that nothing around the shards is touched. */
function inMemory(level: SimdLevel): ErasureCoder {
  const memory = createMemory({ initialPages: 8, maximumPages: 8, shared: true })
  const coder = createCoder({ level, memory, scratch: { address: 7, bytes: scratchBytes } })
  const all = new Uint8Array(memory.buffer)
  const from = scratchBytes + 7
  const within = <T>(shards: Uint8Array, work: (inMemory: Uint8Array) => T): T => {
    const at = from + 100 + (shards.length % 41)
    all.fill(canary, from)
    all.set(shards, at)
    const result = work(all.subarray(at, at + shards.length))
    shards.set(all.subarray(at, at + shards.length))
    expectCanaries(all.subarray(from, at))
    expectCanaries(all.subarray(at + shards.length))
    return result
  }
  return {
    name: coder.name,
    encode: (shards, code) => within(shards, (there) => coder.encode(there, code)),
    reconstruct: (shards, code, present, wanted) =>
      within(shards, (there) => coder.reconstruct(there, code, present, wanted)),
    verify: (shards, code) => within(shards, (there) => coder.verify(there, code))
  }
}

function expectCanaries(bytes: Uint8Array): void {
  if (!bytes.every((byte) => byte === canary)) throw new Error('bytes outside the shards were written')
}

function expectSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) !== 0) throw new Error(`different bytes: ${what}`)
}

/** Bytes that look random, the same for the same seed. */
function noise(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  let state = (seed * 2654435761 + 1) >>> 0
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

function encodedBy(coder: ErasureCoder, { k, m }: Code, bytes: number, seed: number): Uint8Array<ArrayBuffer> {
  const shards = new Uint8Array((k + m) * bytes).fill(canary)
  shards.set(noise(k * bytes, seed))
  coder.encode(shards, { k, m })
  return shards
}

/** Destroys what is `lost`, and says what it looks like. */
function damage(whole: Uint8Array<ArrayBuffer>, { k, m }: Code, lost: readonly number[]) {
  const bytes = whole.length / (k + m)
  const damaged = whole.slice()
  for (const index of lost) damaged.fill(canary, index * bytes, (index + 1) * bytes)
  return { damaged, present: Array.from({ length: k + m }, (_, index) => !lost.includes(index)) }
}

/** GF(2^8) multiplication by the definition: carry-less product modulo x^8 + x^4 + x^3 + x^2 + 1. */
function multiply(a: number, b: number): number {
  let product = 0
  for (let bit = 0; bit < 8; bit++) if ((b >> bit) & 1) product ^= a << bit
  for (let bit = 14; bit >= 8; bit--) if ((product >> bit) & 1) product ^= 0x11d << (bit - 8)
  return product
}

const power = (base: number, exponent: number): number =>
  exponent === 0 ? 1 : multiply(base, power(base, exponent - 1))

/** The parity rows of the systematic Vandermonde matrix, worked out by Gauss-Jordan over the slow field above. */
function parityRows(k: number, m: number): number[][] {
  const vandermonde = Array.from({ length: k + m }, (_, r) => Array.from({ length: k }, (_, c) => power(r, c)))
  const inverse = (x: number): number => power(x, 254)
  const left = vandermonde.slice(0, k).map((row) => [...row])
  const right = left.map((_, r) => left.map((_, c) => (r === c ? 1 : 0)))
  for (let at = 0; at < k; at++) {
    const pivot = left.findIndex((row, r) => r >= at && row[at] !== 0)
    for (const matrix of [left, right]) [matrix[at], matrix[pivot]] = [matrix[pivot]!, matrix[at]!]
    const scale = inverse(left[at]![at]!)
    for (const matrix of [left, right]) matrix[at] = matrix[at]!.map((x) => multiply(x, scale))
    for (let r = 0; r < k; r++) {
      const factor = left[r]![at]!
      if (r === at || factor === 0) continue
      for (const matrix of [left, right]) matrix[r] = matrix[r]!.map((x, c) => x ^ multiply(factor, matrix[at]![c]!))
    }
  }
  return vandermonde
    .slice(k)
    .map((row) => right.map((_, c) => row.reduce((sum, x, i) => sum ^ multiply(x, right[i]![c]!), 0)))
}

const lengths = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(1, 15, 16, 17, 31, 32, 33, 127, 2047, 2065))

describe.each(coders)('Reed-Solomon: %s', (_, coder) => {
  it('gives the bytes that the definition gives', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 20 }),
        fc.nat(),
        (k, m, bytes, seed) => {
          const shards = encodedBy(coder, { k, m }, bytes, seed)
          for (const [row, factors] of parityRows(k, m).entries()) {
            for (let at = 0; at < bytes; at++) {
              const expected = factors.reduce((sum, factor, c) => sum ^ multiply(factor, shards[c * bytes + at]!), 0)
              expect(shards[(k + row) * bytes + at]).toBe(expected)
            }
          }
        }
      ),
      { numRuns: 30 }
    )
  })

  it('restores any m lost shards, data and parity, and touches only those asked for', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 14 }),
        fc.integer({ min: 1, max: 14 }),
        lengths,
        fc.nat(),
        fc.infiniteStream(fc.nat()),
        (k, m, bytes, seed, numbers) => {
          const code = { k, m }
          const whole = encodedBy(oracle, code, bytes, seed)
          expectSame(encodedBy(coder, code, bytes, seed), whole, `parity of ${k}+${m}, ${bytes} bytes`)
          const lost = shuffled(k + m, numbers).slice(0, m)
          const wanted = lost.filter(() => numbers.next().value & 1)
          const { damaged, present } = damage(whole, code, lost)
          coder.reconstruct(damaged, code, present, wanted)
          const unwanted = lost.filter((index) => !wanted.includes(index))
          expectSame(damaged, damage(whole, code, unwanted).damaged, `${k}+${m}, ${bytes} bytes, lost ${lost}`)
        }
      ),
      { numRuns: 60 }
    )
  })

  it('says whether the parity is right', () => {
    const code = { k: 5, m: 3 }
    const shards = encodedBy(oracle, code, 1000, 1)
    expect(coder.verify(shards, code)).toBe(true)
    for (const at of [0, 4999, 5000, 7999]) {
      shards[at]! ^= 1
      expect(coder.verify(shards, code)).toBe(false)
      shards[at]! ^= 1
    }
    expect(coder.verify(shards, code)).toBe(true)
  })

  it('refuses what it cannot do, and says why', () => {
    const refusal = (code: string, message: RegExp) =>
      expect.objectContaining({ code, message: expect.stringMatching(message) })
    const code = { k: 2, m: 1 }
    expect(() => coder.encode(new Uint8Array(7), code)).toThrow(refusal('BAD_INPUT', /7 bytes are not 3 equal shards/))
    expect(() => coder.encode(new Uint8Array(0), code)).toThrow(refusal('BAD_INPUT', /not 3 equal shards/))
    expect(() => coder.verify(new Uint8Array(7), code)).toThrow(refusal('BAD_INPUT', /7 bytes are not 3 equal shards/))
    expect(() => coder.encode(new Uint8Array(300), { k: 200, m: 100 })).toThrow(
      refusal('BAD_INPUT', /no such code: 200\+100/)
    )
    expect(() => coder.reconstruct(new Uint8Array(3), code, [true, false], [1])).toThrow(
      refusal('BAD_INPUT', /2 flags for 3 shards/)
    )
    expect(() => coder.reconstruct(new Uint8Array(3), code, [true, false, false], [1])).toThrow(
      refusal('UNREADABLE', /fewer than 2/)
    )
  })
})

function shuffled(count: number, numbers: { next: () => { value: number } }): number[] {
  return Array.from({ length: count }, (_, index) => ({ index, key: numbers.next().value % 100_003 }))
    .sort((a, b) => a.key - b.key)
    .map(({ index }) => index)
}

it('the package still works after hundreds of reconstructions: each damages its heap', () => {
  for (let i = 0; i < 400; i++) {
    const code = { k: 1 + (i % 5), m: 2 + (i % 4) }
    const whole = encodedBy(oracle, code, 1 + ((i * 7) % 300), i)
    const { damaged, present } = damage(whole, code, [0])
    oracle.reconstruct(damaged, code, present, [0])
    expectSame(damaged, whole, `after ${i}`)
  }
})

describe.each(levels)('the kernel at level %s', (level) => {
  const memory = createMemory({ initialPages: 4 })
  const all = new Uint8Array(memory.buffer)
  const scratch = { address: memory.buffer.byteLength - scratchBytes, bytes: scratchBytes }
  const coder = createMemoryCoder({ memory, level, scratch })

  /** Shards of `code` at the given addresses, canaries everywhere else; the oracle's bytes afterwards. */
  const check = (code: Code, bytes: number, addresses: readonly number[], lost?: readonly number[]): void => {
    const whole = bytes === 0 ? new Uint8Array(0) : encodedBy(oracle, code, bytes, bytes)
    const outputs = lost ?? Array.from({ length: code.m }, (_, i) => code.k + i)
    const expected = new Uint8Array(scratch.address).fill(canary)
    for (const [index, address] of addresses.entries())
      expected.set(whole.subarray(index * bytes, (index + 1) * bytes), address)
    all.set(expected)
    for (const index of outputs) all.fill(0x5a, addresses[index]!, addresses[index]! + bytes)
    if (lost === undefined) coder.encode(addresses, bytes, code)
    else
      coder.reconstruct(
        addresses,
        bytes,
        code,
        addresses.map((_, index) => !lost.includes(index)),
        lost
      )
    expectSame(all.subarray(0, scratch.address), expected, `${code.k}+${code.m}, ${bytes} bytes at ${addresses}`)
  }

  it('codes every length from 0 to 300, neighbours unharmed', () => {
    for (let bytes = 0; bytes <= 300; bytes++) {
      // next to each other, or with a byte between, or in the opposite order
      const place = (index: number) => 64 + index * (bytes + (bytes % 3 === 1 ? 1 : 0))
      const addresses = Array.from({ length: 7 }, (_, index) => place(bytes % 3 === 2 ? 6 - index : index))
      check({ k: 4, m: 3 }, bytes, addresses)
      check({ k: 4, m: 3 }, bytes, addresses, [1, 5])
    }
  })

  it('codes at every offset from 0 to 40', () => {
    for (let offset = 0; offset <= 40; offset++) {
      for (const bytes of [5, 16, 61]) {
        const addresses = Array.from({ length: 6 }, (_, index) => offset + index * 80 + ((offset * 7 + index * 5) % 13))
        check({ k: 5, m: 1 }, bytes, addresses)
        check({ k: 1, m: 5 }, bytes, addresses)
        check({ k: 3, m: 3 }, bytes, addresses, [2, 0])
      }
    }
  })

  it('takes more than one block of columns', () => {
    for (const bytes of [2048, 2049, 4095, 5000]) {
      check({ k: 6, m: 5 }, bytes, [3, 40_000, 10_000, 20_000, 30_000, 50_000, 60_000, 70_000, 80_000, 90_000, 100_000])
    }
  })

  it('refuses addresses outside the memory, and its own scratch region', () => {
    const refused = (addresses: readonly number[], bytes = 16) =>
      expect(() => coder.encode(addresses, bytes, { k: 2, m: 1 })).toThrow(
        expect.objectContaining({ code: 'BAD_INPUT' })
      )
    refused([0, 16])
    refused([0, 16, -1])
    refused([0, 16, 32.5])
    refused([0, 16, all.length - 15])
    refused([0, 16, scratch.address - 15])
    refused([0, 16, 32], -1)
    expect(() => createMemoryCoder({ memory, level, scratch: { address: 0, bytes: 100 } })).toThrow(/scratch region/)
    expect(() => createMemoryCoder({ memory, level, scratch: { address: all.length, bytes: scratchBytes } })).toThrow(
      /not in the memory/
    )
  })

  it.each([
    { k: 255, m: 1 },
    { k: 1, m: 255 },
    { k: 128, m: 128 },
    { k: 200, m: 56 },
    { k: 29, m: 51 }
  ])('does the largest codes: $k+$m', (code) => {
    const [bytes, n] = [33, code.k + code.m]
    const whole = encodedBy(oracle, code, bytes, 5)
    const coder = createCoder({ level })
    expectSame(encodedBy(coder, code, bytes, 5), whole, 'parity')
    const lost = Array.from({ length: n }, (_, i) => (i * 37) % n).slice(0, code.m)
    const { damaged, present } = damage(whole, code, lost)
    coder.reconstruct(damaged, code, present, lost)
    expectSame(damaged, whole, 'restored')
  })
})

describe('a coder', () => {
  it('in a memory that has grown codes what lies beyond the old end', () => {
    const memory: WasmMemory = createMemory({ initialPages: 1, maximumPages: 4, shared: true })
    const coder = createMemoryCoder({ memory, scratch: { address: 0, bytes: scratchBytes } })
    coder.encode([30_000, 31_000, 32_000], 1000, { k: 2, m: 1 })
    memory.grow(3)
    const whole = encodedBy(oracle, { k: 2, m: 1 }, 1000, 9)
    const all = new Uint8Array(memory.buffer)
    all.set(whole.subarray(0, 2000), 100_000)
    coder.encode([100_000, 101_000, 102_000], 1000, { k: 2, m: 1 })
    expectSame(all.slice(100_000, 103_000), whole, 'beyond the old end')
  })

  it('shares its memory with another, each with a scratch region of its own', () => {
    const memory = createMemory({ initialPages: 2, maximumPages: 2, shared: true })
    const all = new Uint8Array(memory.buffer)
    const bytes = 200
    const work = [
      { code: { k: 3, m: 2 }, at: 100_000, scratch: 0 },
      { code: { k: 2, m: 3 }, at: 110_001, scratch: scratchBytes }
    ].map(({ code, at, scratch }) => ({
      code,
      addresses: Array.from({ length: 5 }, (_, index) => at + index * bytes),
      coder: createMemoryCoder({ memory, scratch: { address: scratch, bytes: scratchBytes } })
    }))
    for (let round = 0; round < 3; round++) {
      for (const { code, addresses, coder } of work) {
        const whole = encodedBy(oracle, code, bytes, round)
        all.set(whole.subarray(0, code.k * bytes), addresses[0])
        coder.encode(addresses, bytes, code)
        expectSame(all.slice(addresses[0], addresses[0]! + whole.length), whole, `round ${round}`)
      }
    }
  })

  it('with a memory takes shards from elsewhere too', () => {
    const memory = createMemory({ initialPages: 1, maximumPages: 1, shared: true })
    const coder = createCoder({ memory, scratch: { address: 0, bytes: scratchBytes } })
    expectSame(encodedBy(coder, { k: 3, m: 2 }, 70_000, 2), encodedBy(oracle, { k: 3, m: 2 }, 70_000, 2), 'staged')
    expect(() => createCoder({ memory })).toThrow(/come together/)
  })

  it('has a name, and the one in use can be told', () => {
    expect(new Set(levels.map((level) => createCoder({ level }).name)).size).toBe(levels.length)
    expect(erasureImplementation).toBe(createCoder().name)
  })
})
