import { describe, expect, it } from 'vitest'
import { ModuleBuilder, simdLevel } from '../../src/wasm/assembler.ts'
import { compile, createMemory, instantiate, validate } from '../../src/wasm/engine.ts'

const bytesOf = (length: number, at: (index: number) => number): number[] => Array.from({ length }, (_, i) => at(i))

describe.each([false, true])('a module on a memory (shared: %s)', (shared) => {
  const shape = { initialPages: 1, maximumPages: 4, shared }

  it('has functions, loops, locals, branches and calls that do what was written', () => {
    const builder = new ModuleBuilder(shape)
    const sum = builder.function('sum', ['i32', 'i32'], ['i32'], (f, [address, count]) => {
      const total = f.local('i32')
      f.doWhile(() => {
        f.get(total, address).load('i32.load8_u').op('i32.add').set(total)
        f.get(address).i32(1).op('i32.add').set(address)
        f.get(count).i32(1).op('i32.sub').tee(count)
      }).get(total)
    })
    builder.function('signOfSum', ['i32', 'i32', 'i32'], ['i32'], (f, [address, count, limit]) => {
      const result = f.local('i32')
      f.get(address, count).call(sum).get(limit).op('i32.gt_u')
      f.if(
        () => void f.i32(-1).set(result),
        () => void f.i32(1).set(result)
      ).get(result)
    })
    const memory = createMemory(shape)
    const { sum: run, signOfSum } = instantiate(compile(builder.toBytes()), memory)
    new Uint8Array(memory.buffer).set([1, 2, 3, 250], 300)
    expect(run!(300, 4)).toBe(256)
    expect(signOfSum!(300, 4, 255)).toBe(-1)
    expect(signOfSum!(300, 4, 256)).toBe(1)
  })

  it('has vectors: constants, shuffles, lanes, loads at offsets beyond one LEB128 byte', () => {
    const builder = new ModuleBuilder(shape)
    builder.function('run', ['i32'], [], (f, [address]) => {
      const x = f.local('v128')
      f.get(address).load('v128.load', 1000).set(x)
      f.get(address)
        .get(x)
        .v128(bytesOf(16, (i) => 15 - i))
        .op('i8x16.swizzle')
        .store('v128.store')
      f.get(address)
        .get(x, x)
        .shuffle(bytesOf(16, (i) => (i + 1) % 32))
        .store('v128.store', 16)
      f.get(address).get(x).i32(-2).i32x4ReplaceLane(2).store('v128.store', 32)
      f.get(address).i32(48).op('i32.add').i32(0x1aa).i32(3).memoryFill()
      f.get(address).i32(51).op('i32.add').get(address).i32(2).memoryCopy()
    })
    const memory = createMemory(shape)
    const bytes = new Uint8Array(memory.buffer)
    bytes.set(
      bytesOf(16, (i) => i + 1),
      1000
    )
    instantiate(compile(builder.toBytes()), memory).run!(0)
    expect([...bytes.subarray(0, 16)]).toEqual(bytesOf(16, (i) => 16 - i))
    expect([...bytes.subarray(16, 32)]).toEqual(bytesOf(16, (i) => ((i + 1) % 16) + 1))
    expect([...bytes.subarray(32, 48)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 254, 255, 255, 255, 13, 14, 15, 16])
    expect([...bytes.subarray(48, 54)]).toEqual([0xaa, 0xaa, 0xaa, 16, 15, 0])
  })
})

it('compares and subtracts lanes, which is how a counter carries', () => {
  const builder = new ModuleBuilder({ initialPages: 1 })
  builder.function('carry', ['i32', 'i32'], [], (f, [low, high]) => {
    const sum = f.local('v128')
    f.v128(bytesOf(16, (i) => (i % 4 === 0 ? i / 4 : 0)))
    f.get(low).op('i32x4.splat', 'i32x4.add').set(sum)
    f.i32(0).get(high).op('i32x4.splat').get(sum, low).op('i32x4.splat', 'i32x4.lt_u', 'i32x4.sub').store('v128.store')
  })
  const memory = createMemory({ initialPages: 1 })
  instantiate(compile(builder.toBytes()), memory).carry!(-2, 7)
  expect([...new Uint32Array(memory.buffer, 0, 4)]).toEqual([7, 7, 8, 8])
})

it('what the engine is said to have, it has; what is wrong, it refuses', () => {
  expect(['relaxed', 'simd', 'scalar']).toContain(simdLevel)
  const broken = new ModuleBuilder({ initialPages: 0 })
  broken.function('nothing', [], ['i32'], () => {})
  expect(validate(broken.toBytes())).toBe(false)
})
