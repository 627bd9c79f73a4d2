/** BLAKE3 against an independent implementation, on every path there is: levels, memories, ways of feeding it. */
import { blake3 as independent } from '@noble/hashes/blake3.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blake3, blake3Implementation, nativeBlake3, portableBlake3 } from '../../src/content/blake3.ts'
import { type Blake3Mode, digestWith, hasherWith } from '../../src/content/blake3-hash.ts'
import { Blake3Kernel, scratchBytesGood, scratchBytesMin } from '../../src/content/blake3-kernel.ts'
import { type SimdLevel, simdLevel } from '../../src/wasm/assembler.ts'
import { createMemory } from '../../src/wasm/engine.ts'
import { hex, pattern } from './pattern.ts'

const publishedLengths = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 4097, 5120,
  5121, 6144, 6145, 7168, 7169, 8192, 8193, 16384, 31744, 102400
]
const longest = 102_400
/** Of the published vectors. */
const key = new TextEncoder().encode('whats the Elvish word for friend')
const context = 'BLAKE3 2019-12-27 16:29:52 test vectors context'
const modes: Record<string, Blake3Mode> = { hash: {}, keyed_hash: { key }, derive_key: { context } }
const outputBytes = 131

const allLevels: readonly SimdLevel[] = ['relaxed', 'simd', 'scalar']
/** Those that this engine has. */
const levels = allLevels.slice(allLevels.indexOf(simdLevel))

const expectedOf = (input: Uint8Array, { key, context }: Blake3Mode, dkLen: number): string =>
  hex(
    independent(input, { dkLen, key, context: context === undefined ? undefined : new TextEncoder().encode(context) })
  )

interface Path {
  name: string
  kernel: Blake3Kernel
  /** The bytes, where this path wants them. */
  place: (bytes: Uint8Array) => Uint8Array
}

const scratchAddress = 128
const inputAddress = 131_072 + 3

const paths: Path[] = levels.flatMap((level) => {
  const elsewhere = (bytes: Uint8Array): Uint8Array => bytes
  return [
    { name: `${level}, own memory`, kernel: new Blake3Kernel({ level }), place: elsewhere },
    ...[false, true].flatMap((shared) => {
      const memory = createMemory({ initialPages: 4, maximumPages: 8, shared })
      const init = { level, memory }
      const kernel = new Blake3Kernel({ ...init, scratch: { address: scratchAddress, bytes: scratchBytesGood } })
      const small = new Blake3Kernel({ ...init, scratch: { address: 120_000 - 64, bytes: scratchBytesMin } })
      const here = (bytes: Uint8Array): Uint8Array => {
        const placed = new Uint8Array(memory.buffer, inputAddress, bytes.length)
        placed.set(bytes)
        return placed
      }
      const kind = shared ? 'shared' : 'given'
      return [
        { name: `${level}, in place in a ${kind} memory`, kernel, place: here },
        { name: `${level}, in place, with the least scratch in a ${kind} memory`, kernel: small, place: here },
        { name: `${level}, copied a chunk at a time into a ${kind} memory`, kernel: small, place: elsewhere }
      ]
    })
  ]
})

describe('the published inputs', () => {
  const input = pattern(longest)
  const expected = Object.entries(modes).flatMap(([name, mode]) =>
    publishedLengths.map((length) => {
      const output = expectedOf(input.subarray(0, length), mode, outputBytes)
      return { name, mode, length, output }
    })
  )

  it.each(paths)('give the output of another implementation: $name', ({ kernel, place }) => {
    for (const { name, mode, length, output } of expected) {
      const bytes = place(input.subarray(0, length))
      expect(hex(digestWith(kernel, bytes, { ...mode, outputBytes })), `${name} of ${length} bytes`).toBe(output)
      expect(hex(digestWith(kernel, bytes, mode))).toBe(output.slice(0, 64))
    }
  })

  it('give the published digest of nothing', () => {
    for (const level of levels)
      expect(hex(portableBlake3(level).digest(new Uint8Array(0)))).toBe(
        'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'
      )
  })

  it('give it through the seam too, whichever implementation was chosen', () => {
    expect(['native', ...levels]).toContain(blake3Implementation)
    const shared = new Uint8Array(new SharedArrayBuffer(longest))
    shared.set(input)
    for (const { digest } of [{ digest: blake3 }, nativeBlake3() ?? portableBlake3(), portableBlake3()]) {
      for (const { name, length, output } of expected) {
        if (name !== 'hash') continue
        expect(hex(digest(input.subarray(0, length)))).toBe(output.slice(0, 64))
        expect(hex(digest(shared.subarray(0, length))), 'bytes shared between threads').toBe(output.slice(0, 64))
      }
    }
  })
})

describe('any input', () => {
  const input = pattern(1_500_000).map((byte, i) => byte ^ (i >> 8))

  it.each(levels)('of every length up to five chunks: %s', (level) => {
    const { digest } = portableBlake3(level)
    for (let length = 0; length <= 5 * 1024; length++) {
      const bytes = input.subarray(length, 2 * length)
      if (Buffer.compare(digest(bytes), independent(bytes)) !== 0) expect.fail(`${length} bytes`)
    }
  })

  it.each(levels)('of random length, at once and bit by bit, with any output length: %s', (level) => {
    const kernel = new Blake3Kernel({ level })
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(modes)),
        fc.oneof(fc.nat(9000), fc.nat(input.length)),
        fc.array(fc.oneof(fc.nat(300), fc.nat(400_000)), { maxLength: 6 }),
        fc.nat(300),
        (mode, length, cuts, outputBytes) => {
          const bytes = input.subarray(0, length)
          const expected = expectedOf(bytes, mode, outputBytes)
          expect(hex(digestWith(kernel, bytes, { ...mode, outputBytes }))).toBe(expected)
          const hasher = hasherWith(kernel, mode)
          const between = hasherWith(kernel, { key: new Uint8Array(32) }) // shares the kernel, not the state
          let at = 0
          for (const cut of cuts) {
            hasher.update(bytes.subarray(at, at + cut))
            between.update(bytes.subarray(at, at + cut))
            at = Math.min(length, at + cut)
            if (at < 3000) expect(hex(hasher.digest())).toBe(expectedOf(bytes.subarray(0, at), mode, 32))
          }
          hasher.update(bytes.subarray(at))
          expect(hex(hasher.digest(outputBytes))).toBe(expected)
          expect(hex(hasher.digest(outputBytes))).toBe(expected)
        }
      ),
      { numRuns: 40 }
    )
  })

  it('has chunk counters beyond 32 bits, which carry within a vector too', () => {
    const bytes = input.subarray(0, 11 * 1024 + 5)
    const [fast, ...others] = levels.map((level) => new Blake3Kernel({ level }))
    for (const firstChunk of [2 ** 32 - 11, 2 ** 32 - 6, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 7]) {
      const values = hex(fast!.values(fast!.chunks(bytes, firstChunk)))
      for (const other of others) expect(hex(other.values(other.chunks(bytes, firstChunk)))).toBe(values)
      for (let chunk = 0; chunk < 12; chunk++) {
        const one = bytes.subarray(chunk * 1024, (chunk + 1) * 1024)
        expect(hex(fast!.values(fast!.chunks(one, firstChunk + chunk)))).toBe(values.slice(64 * chunk, 64 * chunk + 64))
      }
    }
  })
})

describe('a kernel in a given memory', () => {
  it.each(levels)('writes nowhere but in its scratch, and reads what lies beside it: %s', (level) => {
    const memory = createMemory({ initialPages: 4 })
    const all = new Uint8Array(memory.buffer)
    const scratch = { address: 4096, bytes: scratchBytesGood }
    const kernel = new Blake3Kernel({ level, memory, scratch })
    const guarded = (): Uint8Array => {
      const copy = all.slice()
      copy.fill(0, scratch.address, scratch.address + scratch.bytes)
      return copy
    }
    for (let i = 0; i < scratch.address; i++) all[i] = (i * 7) & 255
    for (let i = scratch.address + scratch.bytes; i < all.length; i++) all[i] = (i * 13) & 255
    const before = guarded()
    for (const [address, length] of [
      [0, 4096],
      [1, 4095],
      [scratch.address + scratch.bytes, 100_001],
      [all.length - 777, 777],
      [all.length, 0]
    ] as const) {
      const bytes = all.subarray(address, address + length)
      expect(hex(digestWith(kernel, bytes, { outputBytes: 500 }))).toBe(hex(independent(bytes, { dkLen: 500 })))
      expect(hex(digestWith(kernel, bytes.slice()))).toBe(hex(independent(bytes)))
      expect(hex(hasherWith(kernel).update(bytes).digest())).toBe(hex(independent(bytes)))
    }
    expect(Buffer.compare(guarded(), before)).toBe(0)
    expect(() => digestWith(kernel, all.subarray(0, 4097))).toThrow(/scratch/)
  })

  it('goes on when the memory grows', () => {
    const memory = createMemory({ initialPages: 2 })
    const kernel = new Blake3Kernel({ memory, scratch: { address: 0, bytes: scratchBytesMin } })
    memory.grow(3)
    const bytes = new Uint8Array(memory.buffer, 3 * 65_536, 70_000)
    bytes.set(pattern(70_000))
    expect(hex(digestWith(kernel, bytes))).toBe(hex(independent(bytes)))
    expect(hex(digestWith(kernel, bytes.slice()))).toBe(hex(independent(bytes)))
  })

  it('refuses what cannot work, by name', () => {
    const memory = createMemory({ initialPages: 1 })
    const make = (address: number, bytes: number) => () => new Blake3Kernel({ memory, scratch: { address, bytes } })
    for (const broken of [make(32, 8192), make(0, scratchBytesMin - 1), make(61_440, 8192), make(-64, 8192)])
      expect(broken).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }))
    const kernel = new Blake3Kernel()
    for (const options of [{ key: new Uint8Array(31) }, { key, context }, { outputBytes: -1 }, { outputBytes: 0.5 }])
      expect(() => digestWith(kernel, key, options)).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }))
  })
})
