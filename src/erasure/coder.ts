/**
 * The coder: emitted WebAssembly with what SIMD the engine has, or tables where it has none. One instance serves one
 * thread. The bytes are those of the `reed-solomon-erasure` crate; `test/erasure` holds it to that.
 */
import { HoldfastError } from '../base/errors.ts'
import { type SimdLevel, simdLevel } from '../wasm/assembler.ts'
import { createMemory, pageBytes, type WasmMemory } from '../wasm/engine.ts'
import { type ErasureCoder, shardBytesOf } from './erasure-coder.ts'
import { createMemoryCoder, type Scratch } from './memory-coder.ts'
import { createPlanner, type Plan } from './plans.ts'

const names: Record<SimdLevel, string> = {
  relaxed: 'WASM, relaxed SIMD',
  simd: 'WASM, SIMD',
  scalar: 'JavaScript, tables'
}

/** What `createCoder` gives on this engine, in words. */
export const erasureImplementation: string = names[simdLevel]

export interface CoderInit {
  /** Absent: the best there is. */
  level?: SimdLevel
  /** Shards that lie in this memory are coded there, without copying; `scratch` comes with it. */
  memory?: WasmMemory
  scratch?: Scratch
}

/** Of the memory that shards from elsewhere are copied through: scratch and stripes stay in the second-level cache. */
const stagePages = 10

/** @throws HoldfastError `BAD_INPUT` if memory and scratch do not come together, or the scratch region does not fit */
export function createCoder({ level = simdLevel, memory, scratch }: CoderInit = {}): ErasureCoder {
  const planner = createPlanner()
  if ((memory === undefined) !== (scratch === undefined))
    throw new HoldfastError('BAD_INPUT', 'a memory and its scratch region come together')
  const inPlace =
    memory === undefined || scratch === undefined
      ? undefined
      : { memory, coder: createMemoryCoder({ level, memory, scratch, planner }) }

  /** Made when it is first needed: those that code in place do without. */
  let stage: Stage | undefined
  const byStripes = (shards: Uint8Array, shardBytes: number, plan: Plan, take: TakeStripe): void => {
    stage ??= createStage(level)
    stage(shards, shardBytes, plan, take)
  }

  const run = (shards: Uint8Array, shardBytes: number, plan: Plan): void => {
    if (inPlace !== undefined && shards.buffer === inPlace.memory.buffer) {
      const count = shards.length / shardBytes
      const addresses = Array.from({ length: count }, (_, index) => shards.byteOffset + index * shardBytes)
      inPlace.coder.run(plan, addresses, shardBytes)
    } else if (plan.outputs.length > 0) {
      byStripes(shards, shardBytes, plan, (stripe, at) => shards.set(stripe, at))
    }
  }

  return {
    name: names[level],
    encode: (shards, code) => run(shards, shardBytesOf(shards, code), planner.encoding(code)),
    reconstruct: (shards, code, present, wanted) =>
      run(shards, shardBytesOf(shards, code), planner.reconstruction(code, present, wanted)),
    verify: (shards, code) => {
      const shardBytes = shardBytesOf(shards, code)
      let isRight = true
      byStripes(shards, shardBytes, planner.encoding(code), (stripe, at) => {
        isRight &&= Buffer.compare(stripe, shards.subarray(at, at + stripe.length)) === 0
      })
      return isRight
    }
  }
}

/** Gets a piece of an output shard, and where in the shards it belongs. */
type TakeStripe = (piece: Uint8Array, at: number) => void
type Stage = (shards: Uint8Array, shardBytes: number, plan: Plan, take: TakeStripe) => void

/** Coding works column by column, so shards can be cut across: inputs are copied in stripe by stripe. */
function createStage(level: SimdLevel): Stage {
  const memory = createMemory({ initialPages: stagePages })
  const coder = createMemoryCoder({ level, memory, scratch: { address: 0, bytes: pageBytes } })
  const bytes = new Uint8Array(memory.buffer)
  const room = bytes.length - pageBytes
  return (shards, shardBytes, plan, take) => {
    const places = plan.inputs.length + plan.outputs.length
    const stripeBytes = Math.floor(room / places / 64) * 64
    const staged: Plan = {
      inputs: plan.inputs.map((_, i) => i),
      outputs: plan.outputs.map((_, o) => plan.inputs.length + o),
      matrix: plan.matrix
    }
    const addresses = Array.from({ length: places }, (_, place) => pageBytes + place * stripeBytes)
    for (let at = 0; at < shardBytes; at += stripeBytes) {
      const width = Math.min(stripeBytes, shardBytes - at)
      for (const [i, index] of plan.inputs.entries()) {
        const from = index * shardBytes + at
        bytes.set(shards.subarray(from, from + width), addresses[i]!)
      }
      coder.run(staged, addresses, width)
      for (const [o, index] of plan.outputs.entries()) {
        const address = addresses[plan.inputs.length + o]!
        take(bytes.subarray(address, address + width), index * shardBytes + at)
      }
    }
  }
}
