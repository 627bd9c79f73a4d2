import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatCode, parseCode } from '../../src/erasure/erasure-coder.ts'
import { createWasmCoder } from '../../src/erasure/wasm-coder.ts'

const coder = createWasmCoder()

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

describe('Reed-Solomon', () => {
  it('gives the bytes that the definition gives', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 7 }),
        fc.uint8Array({ minLength: 1, maxLength: 5 }),
        (k, m, seed) => {
          const bytes = seed.length
          const shards = new Uint8Array((k + m) * bytes)
          for (let i = 0; i < k * bytes; i++) shards[i] = (seed[i % bytes]! * 31 + i * 17) & 255
          const data = shards.slice()
          coder.encode(shards, { k, m })
          for (const [row, factors] of parityRows(k, m).entries()) {
            for (let at = 0; at < bytes; at++) {
              const expected = factors.reduce((sum, factor, c) => sum ^ multiply(factor, data[c * bytes + at]!), 0)
              expect(shards[(k + row) * bytes + at]).toBe(expected)
            }
          }
        }
      ),
      { numRuns: 60 }
    )
  })

  it('restores any m lost shards, data and parity, and only those asked for', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 300 }),
        fc.infiniteStream(fc.nat()),
        (k, m, bytes, numbers) => {
          const n = k + m
          const whole = new Uint8Array(n * bytes)
          for (let i = 0; i < k * bytes; i++) whole[i] = numbers.next().value & 255
          coder.encode(whole, { k, m })
          const order = Array.from({ length: n }, (_, i) => i).sort(() => (numbers.next().value & 1) - 0.5)
          const lost = new Set(order.slice(0, m))
          const wanted = [...lost].filter(() => numbers.next().value & 1)
          const damaged = whole.slice()
          for (const index of lost) damaged.fill(0xa5, index * bytes, (index + 1) * bytes)
          coder.reconstruct(
            damaged,
            { k, m },
            Array.from({ length: n }, (_, i) => !lost.has(i)),
            wanted
          )
          for (const index of wanted) {
            expect(
              Buffer.compare(
                damaged.subarray(index * bytes, (index + 1) * bytes),
                whole.subarray(index * bytes, (index + 1) * bytes)
              )
            ).toBe(0)
          }
        }
      ),
      { numRuns: 150 }
    )
  })

  it('still works after hundreds of reconstructions: the package damages its heap in each', () => {
    for (let i = 0; i < 400; i++) {
      const [k, m, bytes] = [1 + (i % 5), 2 + (i % 4), 1 + ((i * 7) % 300)]
      const shards = new Uint8Array((k + m) * bytes).fill(i & 255, 0, k * bytes)
      coder.encode(shards, { k, m })
      const damaged = shards.slice().fill(0, 0, bytes)
      coder.reconstruct(
        damaged,
        { k, m },
        Array.from({ length: k + m }, (_, j) => j > 0),
        [0]
      )
      expect(Buffer.compare(damaged, shards)).toBe(0)
    }
  })

  it('refuses what it cannot do, and says why', () => {
    expect(() => coder.encode(new Uint8Array(7), { k: 2, m: 1 })).toThrow(/7 bytes are not 3 equal shards/)
    expect(() => coder.encode(new Uint8Array(0), { k: 2, m: 1 })).toThrow(/not 3 equal shards/)
    expect(() => coder.encode(new Uint8Array(300), { k: 200, m: 100 })).toThrow(/no such code: 200\+100/)
    expect(() => coder.reconstruct(new Uint8Array(3), { k: 2, m: 1 }, [true, false, false], [1])).toThrow(
      /fewer than 2/
    )
  })
})

describe('the code on the command line', () => {
  it('is read and written as K+M', () => {
    expect(parseCode('10+4')).toEqual({ k: 10, m: 4 })
    expect(formatCode({ k: 6, m: 6 })).toBe('6+6')
  })
  it.each(['', '6', '6-6', '0+2', '6+1', '200+100', '6+6 ', '6.0+6', '1e1+2'])('refuses %j with advice', (text) => {
    expect(() => parseCode(text)).toThrow(/code|parity/)
  })
})
