/** What is to be computed from what: which shards go in, which come out, and the matrix between them. Plans are kept. */
import { HoldfastError } from '../base/errors.ts'
import { type Code, checkCode } from './erasure-coder.ts'
import { coefficientsOf } from './galois.ts'

export interface Plan {
  /** Shard indices: `k` of them. */
  inputs: readonly number[]
  outputs: readonly number[]
  /** Coefficient of input `i` in output `o` at `[i * outputs.length + o]`. */
  matrix: Uint8Array
}

/** Plans that are kept: the patterns of losses that repairs and reads see at one time. At most 16 KiB each. */
const plansMax = 128

export interface Planner {
  /** All parity from all data. */
  encoding: (code: Code) => Plan
  /**
   * Those of the `wanted` shards that are not `present`, from `k` that are.
   * @throws HoldfastError `BAD_INPUT` for a wrong number of flags or no such shard, `UNREADABLE` if fewer than `k` are there
   */
  reconstruction: (code: Code, present: readonly boolean[], wanted: readonly number[]) => Plan
  readonly size: number
}

export function createPlanner(max = plansMax): Planner {
  const plans = new Map<string, Plan>() // in order of use, the oldest first

  const planFor = (inputs: readonly number[], outputs: readonly number[]): Plan => {
    const key = `${inputs}>${outputs}`
    const plan = plans.get(key) ?? { inputs, outputs, matrix: coefficientsOf(inputs, outputs) }
    plans.delete(key)
    plans.set(key, plan)
    if (plans.size > max) plans.delete(plans.keys().next().value!)
    return plan
  }

  return {
    encoding: (code) => {
      checkCode(code)
      return planFor(range(0, code.k), range(code.k, code.k + code.m))
    },
    reconstruction: (code, present, wanted) => {
      checkCode(code)
      const n = code.k + code.m
      if (present.length !== n) throw new HoldfastError('BAD_INPUT', `${present.length} flags for ${n} shards`)
      const stranger = wanted.find((index) => !Number.isInteger(index) || index < 0 || index >= n)
      if (stranger !== undefined) throw new HoldfastError('BAD_INPUT', `shard ${stranger} of ${n} is wanted`)
      const outputs = [...new Set(wanted)].filter((index) => present[index] !== true)
      if (outputs.length === 0) return { inputs: [], outputs, matrix: new Uint8Array(0) }
      const held = range(0, n).filter((index) => present[index] === true)
      if (held.length < code.k) throw new HoldfastError('UNREADABLE', `fewer than ${code.k} of ${n} shards are there`)
      return planFor(held.slice(0, code.k), outputs)
    },
    get size() {
      return plans.size
    }
  }
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
