/** Multiplying by tables, byte by byte: for engines without SIMD, and for rows too short for it. */
import { multiply } from './galois.ts'

let products: Uint8Array | undefined

/** Products of `factor` with every byte. */
function productsOf(factor: number): Uint8Array {
  products ??= Uint8Array.from({ length: 65_536 }, (_, at) => multiply(at >> 8, at & 255))
  return products.subarray(factor * 256, factor * 256 + 256)
}

/**
 * `outputs = matrix * inputs` for `length` bytes of each; `inputs` and `outputs` are offsets in `bytes`.
 *
 * @param matrix as `coefficientsOf` makes it
 */
export function multiplyScalar(
  bytes: Uint8Array,
  matrix: Uint8Array,
  inputs: readonly number[],
  outputs: readonly number[],
  length: number
): void {
  for (const [o, output] of outputs.entries()) {
    bytes.fill(0, output, output + length)
    for (const [i, input] of inputs.entries()) {
      const table = productsOf(matrix[i * outputs.length + o]!)
      for (let at = 0; at < length; at++) bytes[output + at]! ^= table[bytes[input + at]!]!
    }
  }
}
