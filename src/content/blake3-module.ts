/**
 * The BLAKE3 kernel as a WebAssembly module, emitted for the engine at hand. Source: the BLAKE3 paper (O'Connor, Aumasson,
 * Neves, Wilcox-O'Hearn, 2020), sections 2.1 (constants), 2.2 (compression) and 2.4 (chunks and parents).
 *
 * Single compressions are scalar. With SIMD, inputs go four to a vector: lane `i` belongs to input `i`, so a round is the
 * scalar round with vectors for words, and no word crosses lanes but where the message is transposed. Eight inputs go
 * together, as two groups of four whose instructions alternate, because one group alone waits for itself: see `emitMany`.
 */
import { type FunctionBody, type Local, ModuleBuilder, type SimdLevel } from '../wasm/assembler.ts'
import { compile, type WasmModule } from '../wasm/engine.ts'

export const chunkBytes = 1024
export const blockBytes = 64
/** Of a chaining value, of a key, and of a digest of the usual length. */
export const valueBytes = 32

export const flags = {
  chunkStart: 1,
  chunkEnd: 2,
  parent: 4,
  root: 8,
  keyedHash: 16,
  deriveKeyContext: 32,
  deriveKeyMaterial: 64
} as const

/** SHA-256's. */
export const iv: readonly number[] = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
]

/** From which word of a round's message each word of the next round's comes. */
const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]

/** Message words in the order in which each of the 7 rounds takes them. */
const schedule: readonly number[][] = Array.from({ length: 6 }).reduce<number[][]>(
  (rounds) => [...rounds, permutation.map((from) => rounds.at(-1)![from]!)],
  [Array.from({ length: 16 }, (_, i) => i)]
)

/** State words of a round's eight mixings: the columns, then the diagonals. */
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

/** A mixing is two halves, which differ in how far they turn `d` and then `b` to the right. */
const halves = [
  { turnD: 16, turnB: 12 },
  { turnD: 8, turnB: 7 }
] as const

/** What the functions need at the address they are given as `frame`, a multiple of 64. Offsets in bytes. */
export const frame = {
  /** 32 bytes: where every chunk and every parent starts from. Set by the caller. */
  key: 0,
  /** 64 bytes: the last block of a chunk, padded with zeros. */
  block: 64,
  /** 32 bytes for the caller: a chaining value. */
  value: 128,
  /** 64 bytes for the caller: output. */
  output: 192,
  /** 7 x 16 addresses of 4 bytes each: where the message words of each round are. Set by the caller: see `messageAddresses`. */
  order: 256,
  /** 2 x 16 vectors: message words of eight blocks. */
  message: 704,
  /** 2 x 16 vectors: those words of eight states that have no register. */
  state: 1216
} as const
export const frameBytes = 1728

/** Words as the module reads them. */
export function littleEndian(words: readonly number[]): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(4 * words.length))
  for (const [i, word] of words.entries()) bytes.setUint32(4 * i, word, true)
  return new Uint8Array(bytes.buffer)
}

/** What stands at `frame.order` of the frame at this address. */
export function messageAddresses(frameAddress: number): Uint8Array {
  return littleEndian(schedule.flat().map((word) => frameAddress + frame.message + 16 * word))
}

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
   * All of a chunk (0 to 1024 bytes) but its last compression: leaves the padded last block at `frame.block`, and what it
   * is compressed into at `value`. @returns the flags of that compression
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
  /** Chaining values of the chunks of 1 byte or more, one after the other at `out`. The last chunk may be short. */
  chunks: (
    frame: number,
    input: number,
    bytes: number,
    counterLow: number,
    counterHigh: number,
    flags: number,
    out: number
  ) => void
  /**
   * Goes up the tree from the `count` chaining values at `values`, in place: a level at a time, an odd one at the end as it
   * is, until `levels` are done or `atMost` are left. @returns how many are left
   */
  fold: (frame: number, values: number, count: number, levels: number, atMost: number, flags: number) => number
  /** Reads one word of each cache line, in order, and leaves their sum at `frame.output`: see `emitTouch`. */
  touch: (frame: number, input: number, bytes: number) => void
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
  const many =
    level === 'scalar' ? [] : [2, 1].map((groups) => ({ groups, index: emitMany(builder, level, groups as 1 | 2) }))
  emitChunks(builder, compress, open, many)
  emitFold(builder, emitParents(builder, compress, many))
  emitTouch(builder)
  return builder.toBytes()
}

const i32s = <const N extends readonly unknown[]>(names: N): { [I in keyof N]: 'i32' } =>
  names.map(() => 'i32') as { [I in keyof N]: 'i32' }

function emitCompress(builder: ModuleBuilder): number {
  const parameters = i32s(['value', 'block', 'blockLength', 'counterLow', 'counterHigh', 'flags', 'out', 'isWide'])
  return builder.function('compress', parameters, [], (f, p) => {
    const [value, block, blockLength, counterLow, counterHigh, flagBits, out, isWide] = p
    const v = Array.from({ length: 16 }, () => f.local('i32'))
    for (let i = 0; i < 8; i++)
      f.get(value)
        .load('i32.load', 4 * i)
        .set(v[i]!)
    for (let i = 0; i < 4; i++) f.i32(iv[i]!).set(v[8 + i]!)
    for (const [i, word] of [counterLow, counterHigh, blockLength, flagBits].entries()) f.get(word).set(v[12 + i]!)
    const turn = (x: Local, y: Local, bits: number): void => {
      f.get(x, y).op('i32.xor').i32(bits).op('i32.rotr').set(x)
    }
    for (const words of schedule) {
      for (const [i, [a, b, c, d]] of mixings.entries()) {
        for (const [half, { turnD, turnB }] of halves.entries()) {
          f.get(v[a]!, v[b]!).op('i32.add').get(block)
          f.load('i32.load', 4 * words[2 * i + half]!)
            .op('i32.add')
            .set(v[a]!)
          turn(v[d]!, v[a]!, turnD)
          f.get(v[c]!, v[d]!).op('i32.add').set(v[c]!)
          turn(v[b]!, v[c]!, turnB)
        }
      }
    }
    f.get(isWide).if(() => {
      for (let i = 0; i < 8; i++) {
        f.get(v[8 + i]!, value)
          .load('i32.load', 4 * i)
          .op('i32.xor')
          .set(isWide)
        f.get(out, isWide).store('i32.store', valueBytes + 4 * i)
      }
    })
    for (let i = 0; i < 8; i++)
      f.get(out, v[i]!, v[8 + i]!)
        .op('i32.xor')
        .store('i32.store', 4 * i)
  })
}

function emitOpen(builder: ModuleBuilder, compress: number): number {
  const parameters = i32s(['frame', 'input', 'bytes', 'counterLow', 'counterHigh', 'flags', 'value'])
  return builder.function('open', parameters, ['i32'], (f, p) => {
    const [base, input, bytes, counterLow, counterHigh, flagBits, value] = p
    const flagsNow = f.local('i32')
    for (let at = 0; at < valueBytes; at += 8)
      f.get(value, base)
        .load('i64.load', frame.key + at)
        .store('i64.store', at)
    f.get(flagBits).i32(flags.chunkStart).op('i32.or').set(flagsNow)
    f.get(bytes).i32(blockBytes).op('i32.gt_u')
    f.if(() => {
      f.doWhile(() => {
        f.get(value, input).i32(blockBytes).get(counterLow, counterHigh, flagsNow, value).i32(0).call(compress)
        f.get(flagBits).set(flagsNow)
        f.get(input).i32(blockBytes).op('i32.add').set(input)
        f.get(bytes).i32(blockBytes).op('i32.sub').tee(bytes).i32(blockBytes).op('i32.gt_u')
      })
    })
    for (let at = 0; at < blockBytes; at += 8)
      f.get(base)
        .i64(0n)
        .store('i64.store', frame.block + at)
    f.get(base).i32(frame.block).op('i32.add').get(input, bytes).memoryCopy()
    f.get(flagsNow).i32(flags.chunkEnd).op('i32.or')
  })
}

/** `many` functions, the one that takes the most inputs first. */
type Many = ReadonlyArray<{ groups: number; index: number }>

function emitChunks(builder: ModuleBuilder, compress: number, open: number, many: Many): void {
  const parameters = i32s(['frame', 'input', 'bytes', 'counterLow', 'counterHigh', 'flags', 'out'])
  builder.function('chunks', parameters, [], (f, p) => {
    const [base, input, bytes, counterLow, counterHigh, flagBits, out] = p
    const [count, length, lastFlags] = [f.local('i32'), f.local('i32'), f.local('i32')]
    const advanceCounter = (): void => {
      f.get(counterLow, count).op('i32.add').tee(counterLow).get(count).op('i32.lt_u')
      f.get(counterHigh).op('i32.add').set(counterHigh)
    }
    for (const { groups, index } of many) {
      const inputs = 4 * groups
      f.get(bytes)
        .i32(inputs * chunkBytes)
        .op('i32.div_u')
        .tee(count)
      f.if(() => {
        f.get(base, input, count, counterLow, counterHigh, flagBits, out).i32(-1).call(index)
        f.get(count).i32(inputs).op('i32.mul').set(count)
        f.get(input, count).i32(chunkBytes).op('i32.mul', 'i32.add').set(input)
        f.get(bytes, count).i32(chunkBytes).op('i32.mul', 'i32.sub').set(bytes)
        f.get(out, count).i32(valueBytes).op('i32.mul', 'i32.add').set(out)
        advanceCounter()
      })
    }
    f.i32(1).set(count)
    f.get(bytes)
    f.if(() => {
      f.doWhile(() => {
        f.get(bytes).i32(chunkBytes).get(bytes).i32(chunkBytes).op('i32.lt_u', 'select').set(length)
        f.get(base, input, length, counterLow, counterHigh, flagBits, out).call(open).set(lastFlags)
        f.get(out, base).i32(frame.block).op('i32.add')
        // of the last block: 1 to 64 bytes
        f.get(length)
          .i32(1)
          .op('i32.sub')
          .i32(blockBytes - 1)
          .op('i32.and')
          .i32(1)
          .op('i32.add')
        f.get(counterLow, counterHigh, lastFlags, out).i32(0).call(compress)
        advanceCounter()
        f.get(input, length).op('i32.add').set(input)
        f.get(out).i32(valueBytes).op('i32.add').set(out)
        f.get(bytes, length).op('i32.sub').tee(bytes)
      })
    })
  })
}

/** Chaining values of `pairs` parents, whose children's stand one after the other at `input`. `out` may be `input`. */
function emitParents(builder: ModuleBuilder, compress: number, many: Many): number {
  return builder.function('parents', i32s(['frame', 'input', 'pairs', 'flags', 'out']), [], (f, p) => {
    const [base, input, pairs, flagBits, out] = p
    const count = f.local('i32')
    f.get(flagBits).i32(flags.parent).op('i32.or').set(flagBits)
    for (const { groups, index } of many) {
      const inputs = 4 * groups
      f.get(pairs).i32(inputs).op('i32.div_u').tee(count)
      f.if(() => {
        f.get(base, input, count).i32(0).i32(0).get(flagBits, out).i32(0).call(index)
        f.get(count).i32(inputs).op('i32.mul').set(count)
        f.get(input, count).i32(blockBytes).op('i32.mul', 'i32.add').set(input)
        f.get(pairs, count).op('i32.sub').set(pairs)
        f.get(out, count).i32(valueBytes).op('i32.mul', 'i32.add').set(out)
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

function emitFold(builder: ModuleBuilder, parents: number): void {
  builder.function('fold', i32s(['frame', 'values', 'count', 'levels', 'atMost', 'flags']), ['i32'], (f, p) => {
    const [base, values, count, levels, atMost, flagBits] = p
    const [pairs, odd] = [f.local('i32'), f.local('i32')]
    const hasMore = (): void => void f.get(count, atMost).op('i32.gt_u').get(levels).i32(0).op('i32.ne', 'i32.and')
    hasMore()
    f.if(() => {
      f.doWhile(() => {
        f.get(count).i32(1).op('i32.shr_u').set(pairs)
        f.get(base, values, pairs, flagBits, values).call(parents)
        f.get(count).i32(1).op('i32.and').tee(odd)
        f.if(() => {
          f.get(values, pairs).i32(valueBytes).op('i32.mul', 'i32.add')
          f.get(values, count).i32(1).op('i32.sub').i32(valueBytes).op('i32.mul', 'i32.add')
          f.i32(valueBytes).memoryCopy()
        })
        f.get(pairs, odd).op('i32.add').set(count)
        f.get(levels).i32(1).op('i32.sub').set(levels)
        hasMore()
      })
    })
    f.get(count)
  })
}

/**
 * Eight chunks read side by side are eight streams of 1 KiB, which is too short for the processor to foresee: input that is
 * not in its cache is read in order first. That costs 2% where it was in the cache, and gains 5% where it was not.
 */
function emitTouch(builder: ModuleBuilder): void {
  builder.function('touch', i32s(['frame', 'input', 'bytes']), [], (f, [base, input, bytes]) => {
    const [sum, end] = [f.local('i32'), f.local('i32')]
    f.get(input, bytes).op('i32.add').set(end)
    f.get(bytes)
    f.if(() => {
      f.doWhile(() => {
        f.get(sum, input).load('i32.load8_u').op('i32.add').set(sum)
        f.get(input).i32(64).op('i32.add').tee(input).get(end).op('i32.lt_u')
      })
    })
    f.get(base, sum).store('i32.store', frame.output)
  })
}

/** Bytes of 32-bit words of two vectors: words 0 to 3 are the first's, 4 to 7 the second's. */
const bytesOfWords = (...words: number[]): number[] => words.flatMap((word) => [0, 1, 2, 3].map((i) => 4 * word + i))
const lowWords = bytesOfWords(0, 4, 1, 5)
const highWords = bytesOfWords(2, 6, 3, 7)
const lowPairs = bytesOfWords(0, 1, 4, 5)
const highPairs = bytesOfWords(2, 3, 6, 7)

type Four = readonly [Local, Local, Local, Local]

/** Rows become columns, in `rows`. */
function transpose(f: FunctionBody, rows: Four, spare: Four): void {
  const [a, b, c, d] = rows
  const [s, t, u, v] = spare
  f.get(a, b).shuffle(lowWords).set(s)
  f.get(a, b).shuffle(highWords).set(t)
  f.get(c, d).shuffle(lowWords).set(u)
  f.get(c, d).shuffle(highWords).set(v)
  f.get(s, u).shuffle(lowPairs).set(a)
  f.get(s, u).shuffle(highPairs).set(b)
  f.get(t, v).shuffle(lowPairs).set(c)
  f.get(t, v).shuffle(highPairs).set(d)
}

/** Every 32-bit word turned right by 16, or by 8, bits, as a permutation of bytes. */
const turnBy16 = [0, 1, 2, 3].flatMap((word) => [2, 3, 0, 1].map((i) => 4 * word + i))
const turnBy8 = [0, 1, 2, 3].flatMap((word) => [1, 2, 3, 0].map((i) => 4 * word + i))

/** A word of the state, in four (or eight) inputs at once: in a local variable, or in the frame. */
interface Word {
  read: () => void
  write: (value: () => void) => void
}

const inLocal = (f: FunctionBody, local: Local): Word => ({
  read: () => void f.get(local),
  write: (value) => {
    value()
    f.set(local)
  }
})

const inMemory = (f: FunctionBody, base: Local, offset: number): Word => ({
  read: () => void f.get(base).load('v128.load', offset),
  write: (value) => {
    f.get(base)
    value()
    f.store('v128.store', offset)
  }
})

/**
 * Inputs of the same number of whole blocks, `4 groups` at a time: chunks (`isChunks` -1), whose counters go up by one
 * from each to the next, or the blocks of parents (`isChunks` 0), whose counters are zero. `count` is how many times.
 *
 * A state has 16 words and a message 16, and there are 16 vector registers. What is kept where decides the speed. Measured
 * on Zen 5 under V8 12.4, times the speed of hash-wasm (portable C, compiled) on the same 1 MiB, in turns:
 *
 * - one group, rounds unrolled, the engine's choice of registers: 1.7 (it waits for itself; and repeated loads of a message
 *   word are merged into one, whose value is then spilled)
 * - one group, the words 0 to 3 in memory: 1.9
 * - two groups, the engine's choice: 2.0; all words in memory: 2.1; four groups: 1.5
 * - two groups, words 4 to 7 in registers, the others in memory: 2.3. The last step of a mixing gives one of 4 to 7, and it is
 *   the first to be waited for; the others are ready earlier, which hides the way through memory
 * - the same as a loop over the rounds, with the addresses of message words looked up: 2.5, as seven rounds in a row do not
 *   fit the caches for instructions beside anything else. This is it, at some 5 instructions a cycle
 *
 * No gain: instructions of two mixings interleaved (the processor does that), words 8 to 15 in registers instead, turning by
 * shuffles with constants instead of swizzles (the engine builds the constant each time), `relaxed_swizzle` (the engine
 * sees that the constant indices are in range, and emits the same).
 */
function emitMany(builder: ModuleBuilder, level: Exclude<SimdLevel, 'scalar'>, groups: 1 | 2): number {
  const parameters = i32s(['frame', 'input', 'count', 'counterLow', 'counterHigh', 'flags', 'out', 'isChunks'])
  return builder.function(`many${4 * groups}`, parameters, [], (f, p) => {
    const [base, input, count, counterLow, counterHigh, flagBits, out, isChunks] = p
    const vector = (): Local => f.local('v128')
    const four = (): Four => [vector(), vector(), vector(), vector()]
    const stride = f.local('i32')
    const left = f.local('i32')
    const flagsNow = f.local('i32')
    const order = f.local('i32')
    const orderEnd = f.local('i32')
    const inputs = [input, ...Array.from({ length: 4 * groups - 1 }, () => f.local('i32'))]
    const [rows, spare] = [four(), four()]
    const by16 = vector()
    const by8 = vector()
    const lastRow = vector()
    const states = Array.from({ length: groups }, (_, group) => ({
      message: 256 * group,
      counters: [vector(), vector()] as const,
      words: Array.from({ length: 16 }, (_, word): Word => {
        const isKept = groups === 1 ? word >= 4 : word >= 4 && word < 8
        return isKept ? inLocal(f, vector()) : inMemory(f, base, frame.state + 256 * group + 16 * word)
      })
    }))

    const initialCounters = (): void => {
      for (const [group, { counters }] of states.entries()) {
        f.v128([0, 1, 2, 3].flatMap((i) => [4 * group + i, 0, 0, 0]))
          .get(isChunks)
          .op('i32x4.splat', 'v128.and')
        f.get(counterLow).op('i32x4.splat', 'i32x4.add').set(counters[0])
        // where the low half went past 2^32 the comparison gives -1
        f.get(counterHigh).op('i32x4.splat').get(counters[0], counterLow)
        f.op('i32x4.splat', 'i32x4.lt_u', 'i32x4.sub').set(counters[1])
      }
    }
    const loadMessages = (): void => {
      for (const [group, { message }] of states.entries()) {
        for (let at = 0; at < blockBytes; at += 16) {
          for (const [i, row] of rows.entries())
            f.get(inputs[4 * group + i]!)
              .load('v128.load', at)
              .set(row)
          transpose(f, rows, spare)
          for (const [i, row] of rows.entries())
            f.get(base, row).store('v128.store', frame.message + message + 4 * at + 16 * i)
        }
      }
      for (const at of inputs) f.get(at).i32(blockBytes).op('i32.add').set(at)
    }
    const fillStates = (): void => {
      f.get(flagsNow, flagsNow, isChunks).i32(flags.chunkEnd).op('i32.and', 'i32.or')
      f.get(left).i32(1).op('i32.ne', 'select', 'i32x4.splat').set(lastRow)
      for (const { counters, words } of states) {
        for (let i = 0; i < 4; i++) words[8 + i]!.write(() => f.i32(iv[i]!).op('i32x4.splat'))
        for (const [i, counter] of counters.entries()) words[12 + i]!.write(() => f.get(counter))
        words[14]!.write(() => f.i32(blockBytes).op('i32x4.splat'))
        words[15]!.write(() => f.get(lastRow))
      }
    }
    const swizzle = level === 'relaxed' ? 'i8x16.relaxed_swizzle' : 'i8x16.swizzle'
    const [a, b, c, d] = rows
    const [t, u] = spare
    const mix = (words: readonly Word[], message: number, index: number): void => {
      const mixed = mixings[index]!.map((word) => words[word]!)
      for (const [i, word] of mixed.entries()) {
        word.read()
        f.set(rows[i]!)
      }
      for (const [half, { turnD, turnB }] of halves.entries()) {
        f.get(a, order)
          .load('i32.load', 4 * (2 * index + half))
          .load('v128.load', message)
        f.op('i32x4.add').get(b).op('i32x4.add').set(a)
        f.get(d, a)
          .op('v128.xor')
          .get(turnD === 16 ? by16 : by8)
          .op(swizzle)
          .set(d)
        f.get(c, d).op('i32x4.add').set(c)
        f.get(b, c).op('v128.xor').set(t)
        f.get(t).i32(turnB).op('i32x4.shr_u').set(u)
        f.get(t)
          .i32(32 - turnB)
          .op('i32x4.shl')
          .get(u)
          .op('v128.or')
          .set(b)
      }
      for (const [i, word] of mixed.entries()) word.write(() => f.get(rows[i]!))
    }
    const rounds = (): void => {
      f.get(base).i32(frame.order).op('i32.add').set(order)
      f.doWhile(() => {
        for (const first of [0, 4]) {
          for (const { words, message } of states)
            for (let index = first; index < first + 4; index++) mix(words, message, index)
        }
        f.get(order).i32(64).op('i32.add').tee(order).get(orderEnd).op('i32.ne')
      })
    }

    f.v128(turnBy16).set(by16)
    f.v128(turnBy8).set(by8)
    f.get(base)
      .i32(frame.order + 64 * schedule.length)
      .op('i32.add')
      .set(orderEnd)
    f.i32(chunkBytes).i32(blockBytes).get(isChunks).op('select').set(stride)
    f.doWhile(() => {
      for (let i = 1; i < inputs.length; i++)
        f.get(inputs[i - 1]!, stride)
          .op('i32.add')
          .set(inputs[i]!)
      initialCounters()
      for (const { words } of states) {
        for (let i = 0; i < 8; i++) words[i]!.write(() => f.get(base).load('v128.load32_splat', frame.key + 4 * i))
      }
      f.get(flagBits, isChunks).i32(flags.chunkStart).op('i32.and', 'i32.or').set(flagsNow)
      f.get(stride).i32(blockBytes).op('i32.div_u').set(left)
      f.doWhile(() => {
        loadMessages()
        fillStates()
        rounds()
        for (const { words } of states) {
          for (let i = 0; i < 8; i++) {
            words[i]!.write(() => {
              words[i]!.read()
              words[8 + i]!.read()
              f.op('v128.xor')
            })
          }
        }
        f.get(flagBits).set(flagsNow)
        f.get(left).i32(1).op('i32.sub').tee(left)
      })
      for (const { words } of states) {
        for (const first of [0, 4]) {
          for (const [i, row] of rows.entries()) {
            words[first + i]!.read()
            f.set(row)
          }
          transpose(f, rows, spare)
          for (const [i, row] of rows.entries()) f.get(out, row).store('v128.store', valueBytes * i + 4 * first)
        }
        f.get(out)
          .i32(4 * valueBytes)
          .op('i32.add')
          .set(out)
      }
      // each pointer has gone through its input: the last one's is where the next inputs begin
      f.get(inputs.at(-1)!).set(input)
      f.get(counterLow, isChunks)
        .i32(4 * groups)
        .op('i32.and', 'i32.add')
        .tee(counterLow)
      f.get(isChunks)
        .i32(4 * groups)
        .op('i32.and', 'i32.lt_u')
        .get(counterHigh)
        .op('i32.add')
        .set(counterHigh)
      f.get(count).i32(1).op('i32.sub').tee(count)
    })
  })
}
