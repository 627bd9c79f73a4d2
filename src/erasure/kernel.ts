/**
 * The coding kernel as a WebAssembly module, emitted when it is first needed. It is the same for every code: matrix,
 * products and addresses are data in a scratch region. Nothing in it knows about shards; it multiplies a matrix over
 * GF(2^8) with rows of bytes.
 *
 * A product with a constant is two look-ups of 16 entries, one for each half of the byte, and that is what a swizzle
 * does for 16 bytes at once. The products of up to four factors stay in registers while a block of columns goes by, and
 * the sums stay in the outputs themselves, in the first-level cache. Sums in registers and products from memory would
 * save stores; but V8 moves all loads of a block of code to its front, runs out of registers, and is slower by half.
 */
import { type FunctionBody, type Local, ModuleBuilder, type SimdLevel } from '../wasm/assembler.ts'
import { compile, instantiate, type MemoryShape, type WasmMemory, type WasmModule } from '../wasm/engine.ts'
import { nibbleProducts } from './galois.ts'

/** What the kernel needs in its memory, at any address: products, addresses of the rows of bytes, matrix. */
const layout = { products: 0, inputs: 8192, outputs: 9216, matrix: 10_240 } as const

/** Bytes of the scratch region; the largest matrix is 128 by 128. */
export const scratchBytes = layout.matrix + 128 * 128

/**
 * Columns done at a time, in bytes: those of four outputs and many inputs stay in the first-level cache. Twice as much is
 * no faster when the shards are in some cache, and slower by a fifth when they come from memory.
 */
const blockBytes = 1024
const vectorBytes = 16

/** Outputs of one pass, and how many inputs each step of it takes: 2 x 4 registers of products in each case, or 2 x 3. */
const inputsPerStep: Readonly<Record<number, number>> = { 1: 4, 2: 2, 3: 1, 4: 1 }
const outputsPerPass = 4

/** From the outside `inputs` and `outputs` are addresses in the memory, `matrix` as `coefficientsOf` makes it. */
export interface MatrixKernel {
  /** The same object for the same matrix: it is then known to be in place. */
  load: (matrix: Uint8Array, outputs: number) => void
  /** `outputs = matrix * inputs` for `length` bytes, at least 16, of each. Writes these and the scratch region only. */
  run: (inputs: readonly number[], outputs: readonly number[], length: number) => void
}

interface Registers {
  scratch: Local
  /** Of the first of this step's coefficients; the next input's are `rows` further. */
  factors: Local
  rows: Local
  inputList: Local
  from: Local
  to: Local
  at: Local
  address: Local
  outputs: Local[]
  inputs: Local[]
  mask: Local
  low: Local[]
  high: Local[]
  /** By input, then by output. */
  lowProducts: Local[][]
  highProducts: Local[][]
}

/** Loads what one step needs and goes over the columns. `isFirst` stores sums where the others add to them. */
function emitStep(f: FunctionBody, r: Registers, swizzle: SwizzleOp, inputs: number, isFirst: boolean): void {
  for (let i = 0; i < inputs; i++) {
    f.get(r.inputList)
      .load('i32.load', 4 * i)
      .set(r.inputs[i]!)
    for (let o = 0; o < r.outputs.length; o++) {
      f.get(r.factors).load('i32.load8_u', o).i32(5).op('i32.shl').get(r.scratch).op('i32.add').tee(r.address)
      f.load('v128.load', layout.products).set(r.lowProducts[i]![o]!)
      f.get(r.address)
        .load('v128.load', layout.products + vectorBytes)
        .set(r.highProducts[i]![o]!)
    }
    f.get(r.factors, r.rows).op('i32.add').set(r.factors)
  }
  f.get(r.inputList)
    .i32(4 * inputs)
    .op('i32.add')
    .set(r.inputList)
  f.get(r.from).set(r.at)
  f.doWhile(() => {
    for (let i = 0; i < inputs; i++) {
      f.get(r.inputs[i]!, r.at).op('i32.add').load('v128.load').tee(r.high[i]!)
      f.get(r.mask).op('v128.and').set(r.low[i]!)
      f.get(r.high[i]!).i32(4).op('i16x8.shr_u').get(r.mask).op('v128.and').set(r.high[i]!)
    }
    for (const [o, output] of r.outputs.entries()) {
      f.get(output, r.at).op('i32.add').tee(r.address)
      if (!isFirst) f.get(r.address).load('v128.load')
      for (let i = 0; i < inputs; i++) {
        f.get(r.lowProducts[i]![o]!, r.low[i]!).op(swizzle)
        if (!isFirst || i > 0) f.op('v128.xor')
        f.get(r.highProducts[i]![o]!, r.high[i]!).op(swizzle, 'v128.xor')
      }
      f.store('v128.store')
    }
    f.get(r.at).i32(vectorBytes).op('i32.add').tee(r.at).get(r.to).op('i32.lt_u')
  })
}

type SwizzleOp = 'i8x16.relaxed_swizzle' | 'i8x16.swizzle'

/** `pass<outputs>(scratch, row, rows, inputs, from, to)`: rows `row` and on of the matrix, bytes `from` to `to`. */
function emitPass(module: ModuleBuilder, swizzle: SwizzleOp, outputs: number): void {
  const parameters = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'] as const
  module.function(`pass${outputs}`, parameters, [], (f, [scratch, row, rows, count, from, to]) => {
    const step = inputsPerStep[outputs]!
    const i32s = (length: number): Local[] => Array.from({ length }, () => f.local('i32'))
    const v128s = (length: number): Local[] => Array.from({ length }, () => f.local('v128'))
    const [factors, inputList, at, address] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')]
    const registers: Registers = {
      ...{ scratch, factors, rows, inputList, from, to, at, address },
      outputs: i32s(outputs),
      inputs: i32s(step),
      mask: f.local('v128'),
      low: v128s(step),
      high: v128s(step),
      lowProducts: Array.from({ length: step }, () => v128s(outputs)),
      highProducts: Array.from({ length: step }, () => v128s(outputs))
    }
    f.v128(new Uint8Array(vectorBytes).fill(15)).set(registers.mask)
    f.get(scratch, row).i32(2).op('i32.shl', 'i32.add').tee(address)
    for (const [o, output] of registers.outputs.entries()) {
      if (o > 0) f.get(address)
      f.load('i32.load', layout.outputs + 4 * o).set(output)
    }
    f.get(scratch, row).i32(layout.matrix).op('i32.add', 'i32.add').set(factors)
    f.get(scratch).i32(layout.inputs).op('i32.add').set(inputList)
    const stepsOf = (inputs: number): void => {
      f.get(count).i32(inputs).op('i32.ge_u')
      f.if(() => {
        f.doWhile(() => {
          emitStep(f, registers, swizzle, inputs, false)
          f.get(count).i32(inputs).op('i32.sub').tee(count).i32(inputs).op('i32.ge_u')
        })
      })
    }
    emitStep(f, registers, swizzle, 1, true)
    f.get(count).i32(1).op('i32.sub').set(count)
    if (step > 1) stepsOf(step)
    stepsOf(1)
  })
}

const modules = new Map<string, WasmModule>()

function moduleFor(level: Exclude<SimdLevel, 'scalar'>, shared: boolean): WasmModule {
  const key = `${level}-${shared}`
  let module = modules.get(key)
  if (module === undefined) {
    const shape: MemoryShape = shared ? { initialPages: 0, maximumPages: 65_536, shared } : { initialPages: 0 }
    const builder = new ModuleBuilder(shape)
    const swizzle = level === 'relaxed' ? 'i8x16.relaxed_swizzle' : 'i8x16.swizzle'
    for (let outputs = 1; outputs <= outputsPerPass; outputs++) emitPass(builder, swizzle, outputs)
    module = compile(builder.toBytes())
    modules.set(key, module)
  }
  return module
}

/** @param scratch address of `scratchBytes` bytes in `memory` that nothing else writes while the kernel lives */
export function createKernel(level: Exclude<SimdLevel, 'scalar'>, memory: WasmMemory, scratch: number): MatrixKernel {
  const exports = instantiate(moduleFor(level, !(memory.buffer instanceof ArrayBuffer)), memory)
  new Uint8Array(memory.buffer).set(nibbleProducts(), scratch + layout.products)
  let loaded: Uint8Array | undefined
  let rows = 0
  return {
    load: (matrix, outputs) => {
      if (loaded === matrix) return
      new Uint8Array(memory.buffer).set(matrix, scratch + layout.matrix)
      loaded = matrix
      rows = outputs
    },
    run: (inputs, outputs, length) => {
      const lists = new DataView(memory.buffer, scratch)
      for (const [i, address] of inputs.entries()) lists.setUint32(layout.inputs + 4 * i, address, true)
      for (const [o, address] of outputs.entries()) lists.setUint32(layout.outputs + 4 * o, address, true)
      const passes = Math.ceil(rows / outputsPerPass)
      const columns = (from: number, to: number): void => {
        for (let pass = 0, row = 0; pass < passes; pass++) {
          const height = Math.ceil((rows - row) / (passes - pass)) // 10 outputs are 4, 3 and 3
          exports[`pass${height}`]!(scratch, row, rows, inputs.length, from, to)
          row += height
        }
      }
      const even = length - (length % vectorBytes)
      for (let from = 0; from < even; from += blockBytes) columns(from, Math.min(even, from + blockBytes))
      // The last vector overlaps the one before it, whose bytes come out the same again: sums start afresh.
      if (even < length) columns(length - vectorBytes, length)
    }
  }
}
