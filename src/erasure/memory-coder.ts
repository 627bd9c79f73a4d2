/** Coding where the shards lie: in a WebAssembly memory, each at an address of its own. */
import { HoldfastError } from '../base/errors.ts'
import { type SimdLevel, simdLevel } from '../wasm/assembler.ts'
import type { WasmMemory } from '../wasm/engine.ts'
import type { Code } from './erasure-coder.ts'
import { createKernel, scratchBytes } from './kernel.ts'
import { createPlanner, type Plan, type Planner } from './plans.ts'
import { multiplyScalar } from './scalar.ts'

/** A region of the memory that only this coder uses. */
export interface Scratch {
  address: number
  /** At least `scratchBytes` of `kernel.ts`: 26 KiB. */
  bytes: number
}

export interface MemoryCoderInit {
  /** Shared or not. It may grow meanwhile, and threads may share it if each has its own scratch. */
  memory: WasmMemory
  scratch: Scratch
  /** Absent: the best there is. */
  level?: SimdLevel
  planner?: Planner
}

/**
 * `addresses` has one entry for each of the `k + m` shards, in any order and at any distance; entries of shards that are
 * neither read nor written do not matter. `shardBytes` is the same for all. Bytes outside the wanted shards and the
 * scratch region are never written.
 */
export interface MemoryCoder {
  readonly level: SimdLevel
  /** Fills the parity shards. @throws HoldfastError `BAD_INPUT` */
  encode: (addresses: readonly number[], shardBytes: number, code: Code) => void
  /**
   * Restores the `wanted` shards that are not `present` from `k` that are.
   * @throws HoldfastError `BAD_INPUT`, or `UNREADABLE` if fewer than `k` are present
   */
  reconstruct: (
    addresses: readonly number[],
    shardBytes: number,
    code: Code,
    present: readonly boolean[],
    wanted: readonly number[]
  ) => void
  /** The outputs of a plan; shard indices are places in `addresses`. */
  run: (plan: Plan, addresses: readonly number[], shardBytes: number) => void
}

/** Rows below one vector are not worth the kernel, which cannot do them. */
const kernelBytesMin = 16

export function createMemoryCoder({
  memory,
  scratch,
  level = simdLevel,
  planner = createPlanner()
}: MemoryCoderInit): MemoryCoder {
  checkRange(memory, scratch.address, scratch.bytes, 'scratch region')
  if (scratch.bytes < scratchBytes)
    throw new HoldfastError('BAD_INPUT', `a scratch region of ${scratch.bytes} bytes; it takes ${scratchBytes}`)
  const kernel = level === 'scalar' ? undefined : createKernel(level, memory, scratch.address)

  const checked = (index: number, addresses: readonly number[], shardBytes: number): number => {
    const address = addresses[index]
    if (address === undefined) throw new HoldfastError('BAD_INPUT', `no address for shard ${index}`)
    checkRange(memory, address, shardBytes, `shard ${index}`)
    if (address < scratch.address + scratch.bytes && scratch.address < address + shardBytes)
      throw new HoldfastError('BAD_INPUT', `shard ${index} lies in the scratch region`)
    return address
  }

  const run: MemoryCoder['run'] = (plan, addresses, shardBytes) => {
    const inputs = plan.inputs.map((index) => checked(index, addresses, shardBytes))
    const outputs = plan.outputs.map((index) => checked(index, addresses, shardBytes))
    if (outputs.length === 0 || shardBytes === 0) return
    if (kernel === undefined || shardBytes < kernelBytesMin) {
      multiplyScalar(new Uint8Array(memory.buffer), plan.matrix, inputs, outputs, shardBytes)
    } else {
      kernel.load(plan.matrix, outputs.length)
      kernel.run(inputs, outputs, shardBytes)
    }
  }

  return {
    level,
    run,
    encode: (addresses, shardBytes, code) => run(planner.encoding(code), addresses, shardBytes),
    reconstruct: (addresses, shardBytes, code, present, wanted) =>
      run(planner.reconstruction(code, present, wanted), addresses, shardBytes)
  }
}

function checkRange({ buffer }: WasmMemory, address: number, bytes: number, what: string): void {
  const isThere = Number.isSafeInteger(address) && Number.isSafeInteger(bytes) && address >= 0 && bytes >= 0
  if (!isThere || address + bytes > buffer.byteLength)
    throw new HoldfastError('BAD_INPUT', `the ${what} is not in the memory: ${bytes} bytes at ${address}`)
}
