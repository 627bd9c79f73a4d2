/**
 * The BLAKE3 kernel as a WebAssembly module, emitted for the engine at hand: BLAKE3 paper (O'Connor, Aumasson, Neves,
 * Wilcox-O'Hearn, 2020), sections 2.2 (compression function), 2.4 (chunks) and 2.5 (parents).
 *
 * Single compressions are scalar. With SIMD, four chunks (or four parents) go side by side: lane `i` of every vector
 * belongs to input `i`, so a round is the scalar round with vectors for words, and no word ever crosses lanes but for the
 * transposition of the message.
 */
import { type FunctionBody, type Local, ModuleBuilder, type SimdLevel } from '../wasm/assembler.ts'
import { compile, type WasmModule } from '../wasm/engine.ts'

export const chunkBytes = 1024
export const blockBytes = 64
/** Of a chaining value, of a key, and of a digest of the usual length. */
export const valueBytes = 32

/** Table 3 of the paper. */
export const flags = {
  chunkStart: 1,
  chunkEnd: 2,
  parent: 4,
  root: 8,
  keyedHash: 16,
  deriveKeyContext: 32,
  deriveKeyMaterial: 64
} as const

/** Table 1 of the paper: SHA-256's. */
export const iv: readonly number[] = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
]

/** Table 2 of the paper: where each round's message words come from, before the one. */
const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]

/** Message words by round: the permutation, applied again and again. */
const schedule = Array.from({ length: 6 }).reduce<number[][]>(
  (rounds) => [...rounds, permutation.map((from) => rounds.at(-1)![from]!)],
  [Array.from({ length: 16 }, (_, i) => i)]
)

/** State words of a round's eight mixings: columns, then diagonals. */
const mixings = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14]
] as const

/** What the module needs at the address it is given as `frame`, 16-byte aligned: see `frameBytes`. */
export const frame = {
  /** 32 bytes: where every chunk and parent starts from. Set by the caller. */
  key: 0,
  /** 64 bytes: the last block of a chunk, padded with zeros; the block of the root. */
  block: 64,
  /** 32 bytes: the chaining value before the last block of a chunk. */
  value: 128,
  /** 64 bytes of output. */
  output: 192,
  /** 256 bytes: the message of four blocks, transposed. */
  message: 256
} as const
export const frameBytes = 512

/** Functions of the module. Addresses and lengths are in bytes; a counter is given as its low and its high half. */
export interface Blake3Exports {
  /**
   * One compression: `out` becomes the 32-byte chaining value, or with `isWide` 64 bytes of output. `value`, `block` and
   * `out` may be the same place.
   */
  compress: (
    value: number,
    block: number,
    blockLength: number,
    counterLow: number,
    counterHigh: number,
    flags: number,
    out: number,
    isWide: number
  ) => void
  /**
   * All of a chunk (0 to 1024 bytes) but its last compression. That one's block is left, padded, at `frame.block`, and
   * what it starts from at `value`. @returns its flags, chunkEnd among them
   */
  open: (
    frame: number,
    input: number,
    bytes: number,
    counterLow: number,
    counterHigh: number,
    flags: number,
    value: number
  ) => number
  /** Chaining values of the chunks of 1 byte or more, one after the other at `out`. The last one may be short. */
  chunks: (
    frame: number,
    input: number,
    bytes: number,
    counterLow: number,
    counterHigh: number,
    flags: number,
    out: number
  ) => void
  /** Chaining values of `pairs` parents, whose children's lie one after the other at `input`. `out` may be `input`. */
  parents: (frame: number, input: number, pairs: number, flags: number, out: number) => void
}

const modules = new Map<string, WasmModule>()

/** @param shared whether the memory is shared between threads */
export function blake3Module(level: SimdLevel, shared: boolean): WasmModule {
  const name = `${level} ${shared}`
  const module = modules.get(name) ?? compile(emit(level, shared))
  modules.set(name, module)
  return module
}

function emit(level: SimdLevel, shared: boolean): Uint8Array<ArrayBuffer> {
  const builder = new ModuleBuilder({ initialPages: 0, maximumPages: shared ? 65_536 : undefined, shared })
  const compress = emitCompress(builder)
  const open = emitOpen(builder, compress)
  const many = level === 'scalar' ? undefined : emitMany(builder, level)
  emitChunks(builder, compress, open, many)
  emitParents(builder, compress, many)
  return builder.toBytes()
}

function emitCompress(builder: ModuleBuilder): number {
  const parameters = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'] as const
  return builder.function('compress', parameters, [], (f, p) => {
    const [value, block, blockLength, counterLow, counterHigh, flagBits, out, isWide] = p
    const v = Array.from({ length: 16 }, () => f.local('i32'))
    for (let i = 0; i < 8; i++) f.get(value).load('i32.load', 4 * i).set(v[i]!)
    for (let i = 0; i < 4; i++) f.i32(iv[i]!).set(v[8 + i]!)
    for (const [i, word] of [counterLow, counterHigh, blockLength, flagBits].entries()) f.get(word).set(v[12 + i]!)
    const rotate = (x: Local, y: Local, bits: number): void => void f.get(x, y).op('i32.xor').i32(bits).op('i32.rotr').set(x)
    for (const words of schedule) {
      for (const [i, [a, b, c, d]] of mixings.entries()) {
        for (const [half, [turnD, turnB]] of [[16, 12] as const, [8, 7] as const].entries()) {
          f.get(v[a], v[b]).op('i32.add').get(block).load('i32.load', 4 * words[2 * i + half]!)
          f.op('i32.add').set(v[a])
          rotate(v[d], v[a], turnD)
          f.get(v[c], v[d]).op('i32.add').set(v[c])
          rotate(v[b], v[c], turnB)
        }
      }
    }
    f.get(isWide).if(() => {
      for (let i = 0; i < 8; i++) {
        f.get(v[8 + i]!, value).load('i32.load', 4 * i).op('i32.xor').set(isWide)
        f.get(out, isWide).store('i32.store', 32 + 4 * i)
      }
    })
    for (let i = 0; i < 8; i++) f.get(out, v[i]!, v[8 + i]!).op('i32.xor').store('i32.store', 4 * i)
  })
}

function emitOpen(builder: ModuleBuilder, compress: number): number {
  const parameters = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'] as const
  return builder.function('open', parameters, ['i32'], (f, p) => {
    const [base, input, bytes, counterLow, counterHigh, flagBits, value] = p
    const now = f.local('i32')
    for (let at = 0; at < valueBytes; at += 8) f.get(value, base).load('i64.load', frame.key + at).store('i64.store', at)
    f.get(flagBits).i32(flags.chunkStart).op('i32.or').set(now)
    f.get(bytes).i32(blockBytes).op('i32.gt_u')
    f.if(() => {
      f.doWhile(() => {
        f.get(value, input).i32(blockBytes).get(counterLow, counterHigh, now, value).i32(0).call(compress)
        f.get(flagBits).set(now)
        f.get(input).i32(blockBytes).op('i32.add').set(input)
        f.get(bytes).i32(blockBytes).op('i32.sub').tee(bytes).i32(blockBytes).op('i32.gt_u')
      })
    })
    for (let at = 0; at < blockBytes; at += 8) f.get(base).i64(0n).store('i64.store', frame.block + at)
    f.get(base).i32(frame.block).op('i32.add').get(input, bytes).memoryCopy()
    f.get(now).i32(flags.chunkEnd).op('i32.or')
  })
}

function emitChunks(builder: ModuleBuilder, compress: number, open: number, many: number | undefined): void {
  const parameters = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'] as const
  builder.function('chunks', parameters, [], (f, p) => {
    const [base, input, bytes, counterLow, counterHigh, flagBits, out] = p
    const step = f.local('i32')
    const addToCounter = (chunks: Local): void => {
      f.get(counterLow, chunks).op('i32.add').tee(counterLow).get(chunks).op('i32.lt_u')
      f.get(counterHigh).op('i32.add').set(counterHigh)
    }
    if (many !== undefined) {
      f.get(bytes).i32(12).op('i32.shr_u').tee(step)
      f.if(() => {
        f.get(base, input).i32(chunkBytes).i32(chunkBytes / blockBytes).get(step, counterLow, counterHigh).i32(-1)
        f.get(flagBits).i32(flags.chunkStart).i32(flags.chunkEnd).get(out).call(many)
        f.get(input, step).i32(12).op('i32.shl', 'i32.add').set(input)
        f.get(out, step).i32(7).op('i32.shl', 'i32.add').set(out)
        f.get(step).i32(2).op('i32.shl').set(step)
        addToCounter(step)
        f.get(bytes).i32(4 * chunkBytes - 1).op('i32.and').set(bytes)
      })
    }
    const length = f.local('i32')
    const one = f.local('i32')
    f.i32(1).set(one)
    f.get(bytes)
    f.if(() => {
      f.doWhile(() => {
        f.get(bytes).i32(chunkBytes).get(bytes).i32(chunkBytes).op('i32.lt_u', 'select').set(length)
        f.get(base, input, length, counterLow, counterHigh, flagBits, out).call(open).set(step)
        f.get(out, base).i32(frame.block).op('i32.add')
        f.get(length).i32(1).op('i32.sub').i32(blockBytes - 1).op('i32.and').i32(1).op('i32.add')
        f.get(counterLow, counterHigh, step, out).i32(0).call(compress)
        addToCounter(one)
        f.get(input, length).op('i32.add').set(input)
        f.get(out).i32(valueBytes).op('i32.add').set(out)
        f.get(bytes, length).op('i32.sub').tee(bytes)
      })
    })
  })
}

function emitParents(builder: ModuleBuilder, compress: number, many: number | undefined): void {
  builder.function('parents', ['i32', 'i32', 'i32', 'i32', 'i32'], [], (f, p) => {
    const [base, input, pairs, flagBits, out] = p
    const quads = f.local('i32')
    f.get(flagBits).i32(flags.parent).op('i32.or').set(flagBits)
    if (many !== undefined) {
      f.get(pairs).i32(2).op('i32.shr_u').tee(quads)
      f.if(() => {
        f.get(base, input).i32(blockBytes).i32(1).get(quads).i32(0).i32(0).i32(0)
        f.get(flagBits).i32(0).i32(0).get(out).call(many)
        f.get(input, quads).i32(8).op('i32.shl', 'i32.add').set(input)
        f.get(out, quads).i32(7).op('i32.shl', 'i32.add').set(out)
        f.get(pairs).i32(3).op('i32.and').set(pairs)
      })
    }
    f.get(pairs)
    f.if(() => {
      f.doWhile(() => {
        f.get(base).i32(frame.key).op('i32.add').get(input).i32(blockBytes).i32(0).i32(0)
        f.get(flagBits, out).i32(0).call(compress)
        f.get(input).i32(blockBytes).op('i32.add').set(input)
        f.get(out).i32(valueBytes).op('i32.add').set(out)
        f.get(pairs).i32(1).op('i32.sub').tee(pairs)
      })
    })
  })
}

/** Bytes of the 32-bit lanes of `[0..3]` and `[4..7]` of two vectors, by lane. */
const lanes = (...words: number[]): number[] => words.flatMap((word) => [0, 1, 2, 3].map((byte) => 4 * word + byte))
const lowWords = lanes(0, 4, 1, 5)
const highWords = lanes(2, 6, 3, 7)
const lowPairs = lanes(0, 1, 4, 5)
const highPairs = lanes(2, 3, 6, 7)

/** Rows become columns. */
function transpose(f: FunctionBody, rows: readonly Local[], spare: readonly Local[]): Local[] {
  const [a, b, c, d] = rows as [Local, Local, Local, Local]
  const [e, g, h, i] = spare as [Local, Local, Local, Local]
  f.get(a, b).shuffle(lowWords).set(e)
  f.get(a, b).shuffle(highWords).set(g)
  f.get(c, d).shuffle(lowWords).set(h)
  f.get(c, d).shuffle(highWords).set(i)
  f.get(e, h).shuffle(lowPairs).set(a)
  f.get(e, h).shuffle(highPairs).set(b)
  f.get(g, i).shuffle(lowPairs).set(c)
  f.get(g, i).shuffle(highPairs).set(d)
  return [a, b, c, d]
}

/** Every 32-bit word of a vector turned right by 16 and by 8 bits, as a permutation of its bytes. */
const turn16 = [2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]
const turn8 = [1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12]

/**
 * Inputs of the same number of whole blocks, four at a time: lane `i` of the quad begins `i stride` bytes into it.
 * `counted` is -1 for chunks, whose counters go up by one from lane to lane, and 0 for parents, whose counters are zero.
 */
function emitMany(builder: ModuleBuilder, level: Exclude<SimdLevel, 'scalar'>): number {
  const parameters = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'] as const
  return builder.function('many', parameters, [], (f, p) => {
    const [base, input, stride, blocks, quads, counterLow, counterHigh, counted, flagBits, first, last, out] = p
    const inputs = [input, f.local('i32'), f.local('i32'), f.local('i32')]
    const left = f.local('i32')
    const flagsNow = f.local('i32')
    const v = Array.from({ length: 16 }, () => f.local('v128'))
    const spare = Array.from({ length: 4 }, () => f.local('v128'))
    const [low, high, mask16, mask8, t] = Array.from({ length: 5 }, () => f.local('v128')) as [
      Local,
      Local,
      Local,
      Local,
      Local
    ]
    f.v128(turn16).set(mask16)
    f.v128(turn8).set(mask8)
    f.doWhile(() => {
      for (let i = 1; i < 4; i++) f.get(inputs[i - 1]!, stride).op('i32.add').set(inputs[i]!)
      f.v128(lanes(0).map(() => 0).concat([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]))
      f.get(counted).op('i32x4.splat', 'v128.and').get(counterLow).op('i32x4.splat', 'i32x4.add').set(low)
      // a lane that went past 2^32 carries: the comparison gives -1
      f.get(counterHigh).op('i32x4.splat').get(low, counterLow).op('i32x4.splat', 'i32x4.lt_u', 'i32x4.sub').set(high)
      for (let i = 0; i < 8; i++) f.get(base).load('v128.load32_splat', frame.key + 4 * i).set(v[i]!)
      f.get(flagBits, first).op('i32.or').set(flagsNow)
      f.get(blocks).set(left)
      f.doWhile(() => {
        for (let group = 0; group < 4; group++) {
          const rows = spare
          for (const [i, row] of rows.entries()) f.get(inputs[i]!).load('v128.load', 16 * group).set(row)
          for (const [i, column] of transpose(f, rows, v.slice(8)).entries())
            f.get(base, column).store('v128.store', frame.message + 16 * (4 * group + i))
        }
        for (const at of inputs) f.get(at).i32(blockBytes).op('i32.add').set(at)
        for (let i = 0; i < 4; i++) f.i32(iv[i]!).op('i32x4.splat').set(v[8 + i]!)
        f.get(low).set(v[12]!)
        f.get(high).set(v[13]!)
        f.i32(blockBytes).op('i32x4.splat').set(v[14]!)
        f.get(flagsNow, flagsNow, last).op('i32.or').get(left).i32(1).op('i32.ne', 'select', 'i32x4.splat').set(v[15]!)
        emitRounds(f, level, base, v, [mask16, mask8, t])
        for (let i = 0; i < 8; i++) f.get(v[i]!, v[8 + i]!).op('v128.xor').set(v[i]!)
        f.get(flagBits).set(flagsNow)
        f.get(left).i32(1).op('i32.sub').tee(left)
      })
      for (let half = 0; half < 2; half++) {
        for (const [i, row] of transpose(f, v.slice(4 * half, 4 * half + 4), spare).entries())
          f.get(out, row).store('v128.store', 32 * i + 16 * half)
      }
      f.get(out).i32(4 * valueBytes).op('i32.add').set(out)
      f.get(inputs[3]!).set(input)
      f.get(counterLow).i32(4).get(counted).op('i32.and', 'i32.add').tee(counterLow)
      f.i32(4).get(counted).op('i32.and', 'i32.lt_u').get(counterHigh).op('i32.add').set(counterHigh)
      f.get(quads).i32(1).op('i32.sub').tee(quads)
    })
  })
}

type Mixing = (typeof mixings)[number]

function emitRounds(
  f: FunctionBody,
  level: Exclude<SimdLevel, 'scalar'>,
  base: Local,
  v: readonly Local[],
  [mask16, mask8, t]: [Local, Local, Local]
): void {
  const swizzle = level === 'relaxed' ? 'i8x16.relaxed_swizzle' : 'i8x16.swizzle'
  const turnBytes = (x: Local, y: Local, mask: Local): void => void f.get(x, y).op('v128.xor').get(mask).op(swizzle).set(x)
  const turnBits = (x: Local, y: Local, bits: number): void => {
    f.get(x, y).op('v128.xor').tee(t).i32(bits).op('i32x4.shr_u')
    f.get(t).i32(32 - bits).op('i32x4.shl', 'v128.or').set(x)
  }
  const addMessage = ([a, b]: Mixing, word: number): void => {
    f.get(v[a]!, v[b]!).op('i32x4.add').get(base).load('v128.load', frame.message + 16 * word).op('i32x4.add').set(v[a]!)
  }
  for (const words of schedule) {
    for (const [i, mixing] of mixings.entries()) {
      const [a, b, c, d] = mixing
      addMessage(mixing, words[2 * i]!)
      turnBytes(v[d]!, v[a]!, mask16)
      f.get(v[c]!, v[d]!).op('i32x4.add').set(v[c]!)
      turnBits(v[b]!, v[c]!, 12)
      addMessage(mixing, words[2 * i + 1]!)
      turnBytes(v[d]!, v[a]!, mask8)
      f.get(v[c]!, v[d]!).op('i32x4.add').set(v[c]!)
      turnBits(v[b]!, v[c]!, 7)
    }
  }
}
