/**
 * A small assembler for WebAssembly modules with SIMD: what the kernels in `erasure/` and `content/` are emitted with at
 * start-up, for what the engine has. No build step, no toolchain.
 *
 * It knows the instructions that the kernels use and no more. It does not type-check: the engine does, when the module is
 * compiled. Source of encodings: WebAssembly Core Specification 3.0, section 5 (binary format) and appendix (index of
 * instructions); relaxed SIMD is part of it.
 */

import { type MemoryShape, validate } from './engine.ts'

export type ValueType = 'i32' | 'i64' | 'v128'

const typeCodes: Record<ValueType, number> = { i32: 0x7f, i64: 0x7e, v128: 0x7b }

/** Instructions without immediates. Those above 0xff are SIMD: prefix 0xfd, then the rest as LEB128. */
const plain = {
  return: 0x0f,
  drop: 0x1a,
  select: 0x1b,
  'i32.eqz': 0x45,
  'i32.eq': 0x46,
  'i32.ne': 0x47,
  'i32.lt_u': 0x49,
  'i32.gt_u': 0x4b,
  'i32.le_u': 0x4d,
  'i32.ge_u': 0x4f,
  'i32.add': 0x6a,
  'i32.sub': 0x6b,
  'i32.mul': 0x6c,
  'i32.div_u': 0x6e,
  'i32.and': 0x71,
  'i32.or': 0x72,
  'i32.xor': 0x73,
  'i32.shl': 0x74,
  'i32.shr_u': 0x76,
  'i32.rotr': 0x78,
  'i64.add': 0x7c,
  'i64.sub': 0x7d,
  'i64.mul': 0x7e,
  'i64.and': 0x83,
  'i64.or': 0x84,
  'i64.xor': 0x85,
  'i64.shl': 0x86,
  'i64.shr_u': 0x88,
  'i32.wrap_i64': 0xa7,
  'i64.extend_i32_u': 0xad,
  'i8x16.swizzle': 0xfd0e,
  'i8x16.splat': 0xfd0f,
  'i16x8.splat': 0xfd10,
  'i32x4.splat': 0xfd11,
  'i64x2.splat': 0xfd12,
  'i32x4.lt_u': 0xfd3a,
  'v128.not': 0xfd4d,
  'v128.and': 0xfd4e,
  'v128.andnot': 0xfd4f,
  'v128.or': 0xfd50,
  'v128.xor': 0xfd51,
  'v128.bitselect': 0xfd52,
  'v128.any_true': 0xfd53,
  'i8x16.shl': 0xfd6b,
  'i8x16.shr_u': 0xfd6d,
  'i8x16.add': 0xfd6e,
  'i16x8.shl': 0xfd8b,
  'i16x8.shr_u': 0xfd8d,
  'i32x4.shl': 0xfdab,
  'i32x4.shr_u': 0xfdad,
  'i32x4.add': 0xfdae,
  'i32x4.sub': 0xfdb1,
  'i64x2.shl': 0xfdcb,
  'i64x2.shr_u': 0xfdcd,
  'i64x2.add': 0xfdce,
  'i8x16.relaxed_swizzle': 0xfd100
} as const

export type PlainOp = keyof typeof plain

const loads = {
  'i32.load': [0x28, 2],
  'i64.load': [0x29, 3],
  'i32.load8_u': [0x2d, 0],
  'i32.load16_u': [0x2f, 1],
  'v128.load': [0xfd00, 4],
  'v128.load8_splat': [0xfd07, 0],
  'v128.load32_splat': [0xfd09, 2]
} as const

const stores = {
  'i32.store': [0x36, 2],
  'i64.store': [0x37, 3],
  'i32.store8': [0x3a, 0],
  'v128.store': [0xfd0b, 4]
} as const

/** Unsigned LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = []
  for (let rest = value >>> 0; ; rest >>>= 7) {
    if (rest < 0x80) return [...bytes, rest]
    bytes.push((rest & 0x7f) | 0x80)
  }
}

/** Signed LEB128 of up to 64 bits. */
function signed(value: bigint): number[] {
  const bytes: number[] = []
  for (let rest = value; ; rest >>= 7n) {
    const low = Number(rest & 0x7fn)
    const next = rest >> 7n
    if ((next === 0n && (low & 0x40) === 0) || (next === -1n && (low & 0x40) !== 0)) return [...bytes, low]
    bytes.push(low | 0x80)
  }
}

const named = (text: string): number[] => vector([...Buffer.from(text)])
const vector = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes]

/** A local variable or parameter of one function. */
export interface Local {
  readonly index: number
  readonly type: ValueType
}

/** The body of one function, as a stack machine's instructions in order. Every method returns the body, for chaining. */
export class FunctionBody {
  readonly #bytes: number[] = []
  readonly #locals: ValueType[] = []
  readonly #parameters: number

  constructor(parameters: number) {
    this.#parameters = parameters
  }

  local(type: ValueType): Local {
    this.#locals.push(type)
    return { index: this.#parameters + this.#locals.length - 1, type }
  }

  op(...names: PlainOp[]): this {
    for (const name of names) this.#opcode(plain[name])
    return this
  }

  get(...locals: Local[]): this {
    for (const { index } of locals) this.#push(0x20, unsigned(index))
    return this
  }

  set({ index }: Local): this {
    return this.#push(0x21, unsigned(index))
  }

  tee({ index }: Local): this {
    return this.#push(0x22, unsigned(index))
  }

  i32(value: number): this {
    return this.#push(0x41, signed(BigInt(value | 0)))
  }

  i64(value: bigint): this {
    return this.#push(0x42, signed(BigInt.asIntN(64, value)))
  }

  /** @param bytes 16 of them */
  v128(bytes: ArrayLike<number>): this {
    if (bytes.length !== 16) throw new RangeError(`a v128 has 16 bytes, not ${bytes.length}`)
    return this.#opcode(0xfd0c).#push(...Array.from(bytes))
  }

  /** @param lanes 16 indices into the 32 bytes of both operands */
  shuffle(lanes: ArrayLike<number>): this {
    if (lanes.length !== 16) throw new RangeError(`a shuffle has 16 lanes, not ${lanes.length}`)
    return this.#opcode(0xfd0d).#push(...Array.from(lanes))
  }

  /** Takes the address from the stack. Nothing is assumed to be aligned. */
  load(name: keyof typeof loads, offsetBytes = 0): this {
    return this.#opcode(loads[name][0]).#push(0, unsigned(offsetBytes))
  }

  /** Takes the address, then the value, from the stack. */
  store(name: keyof typeof stores, offsetBytes = 0): this {
    return this.#opcode(stores[name][0]).#push(0, unsigned(offsetBytes))
  }

  i32x4ExtractLane(lane: number): this {
    return this.#opcode(0xfd1b).#push(lane)
  }

  i32x4ReplaceLane(lane: number): this {
    return this.#opcode(0xfd1c).#push(lane)
  }

  /** Takes destination, source and length from the stack. */
  memoryCopy(): this {
    return this.#push(0xfc, 10, 0, 0)
  }

  /** Takes destination, byte value and length from the stack. */
  memoryFill(): this {
    return this.#push(0xfc, 11, 0)
  }

  call(functionIndex: number): this {
    return this.#push(0x10, unsigned(functionIndex))
  }

  /** `do body while (condition)`, where `body` leaves the condition (i32) on the stack. */
  doWhile(body: () => void): this {
    this.#push(0x03, 0x40)
    body()
    return this.#push(0x0d, 0, 0x0b)
  }

  /** Takes the condition (i32) from the stack. */
  if(then: () => void, otherwise?: () => void): this {
    this.#push(0x04, 0x40)
    then()
    if (otherwise !== undefined) {
      this.#push(0x05)
      otherwise()
    }
    return this.#push(0x0b)
  }

  /** As it stands in the code section: size, locals in runs of one type, instructions, end. */
  encode(): number[] {
    const runs: { type: ValueType; count: number }[] = []
    for (const type of this.#locals) {
      const last = runs.at(-1)
      if (last?.type === type) last.count++
      else runs.push({ type, count: 1 })
    }
    const declared = runs.flatMap(({ type, count }) => [...unsigned(count), typeCodes[type]])
    const head = [...unsigned(runs.length), ...declared]
    const size = unsigned(head.length + this.#bytes.length + 1)
    return size.concat(head, this.#bytes, 0x0b)
  }

  #opcode(code: number): this {
    if (code <= 0xff) this.#bytes.push(code)
    // 0xfdNN or 0xfdNNN: the prefix, then what follows it as an unsigned LEB128
    else if (code <= 0xffff) this.#push(0xfd, unsigned(code & 0xff))
    else this.#push(0xfd, unsigned(code & 0xfff))
    return this
  }

  #push(...parts: (number | number[])[]): this {
    for (const part of parts) {
      if (typeof part === 'number') this.#bytes.push(part)
      else for (const byte of part) this.#bytes.push(byte)
    }
    return this
  }
}

interface DefinedFunction {
  name: string
  parameters: readonly ValueType[]
  results: readonly ValueType[]
  body: FunctionBody
}

/** A module whose memory is imported as `env.memory` and whose functions are all exported by name. */
export class ModuleBuilder {
  readonly #memory: MemoryShape
  readonly #functions: DefinedFunction[] = []

  constructor(memory: MemoryShape) {
    this.#memory = memory
  }

  /** @returns the function's index, for `call` */
  function<const P extends readonly ValueType[]>(
    name: string,
    parameters: P,
    results: readonly ValueType[],
    write: (body: FunctionBody, parameters: { [I in keyof P]: Local }) => void
  ): number {
    const body = new FunctionBody(parameters.length)
    this.#functions.push({ name, parameters, results, body })
    write(body, parameters.map((type, index) => ({ index, type })) as { [I in keyof P]: Local })
    return this.#functions.length - 1
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const { initialPages, maximumPages, shared = false } = this.#memory
    const types = this.#functions.map(({ parameters, results }) => [
      0x60,
      ...vector(parameters.map((type) => typeCodes[type])),
      ...vector(results.map((type) => typeCodes[type]))
    ])
    const limits =
      maximumPages === undefined
        ? [0, ...unsigned(initialPages)]
        : [shared ? 3 : 1, ...unsigned(initialPages), ...unsigned(maximumPages)]
    const count = unsigned(this.#functions.length)
    const section = (id: number, content: number[]): number[] => [id, ...unsigned(content.length)].concat(content)
    return Uint8Array.from(
      [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0].concat(
        section(1, count.concat(...types)),
        section(2, [1, ...named('env'), ...named('memory'), 2, ...limits]),
        section(3, count.concat(...this.#functions.map((_, index) => unsigned(index)))),
        section(7, count.concat(...this.#functions.map(({ name }, index) => [...named(name), 0, ...unsigned(index)]))),
        section(10, count.concat(...this.#functions.map(({ body }) => body.encode())))
      )
    )
  }
}

/** Whether the engine takes a module that uses the given instructions on vectors. */
function supports(...names: PlainOp[]): boolean {
  const builder = new ModuleBuilder({ initialPages: 0 })
  builder.function('probe', ['v128'], ['v128'], (body, [x]) => void body.get(x, x).op(...names))
  return validate(builder.toBytes())
}

export type SimdLevel = 'relaxed' | 'simd' | 'scalar'

/** The best that this engine has. */
export const simdLevel: SimdLevel = supports('i8x16.relaxed_swizzle')
  ? 'relaxed'
  : supports('i8x16.swizzle')
    ? 'simd'
    : 'scalar'
