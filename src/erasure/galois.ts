/**
 * The field GF(2^8) with polynomial 0x11D, and Reed-Solomon in it. A code's shards are the values, at the points 0 to
 * n-1 of the field, of the polynomial of degree below k that the data shards give at the points 0 to k-1: that is what
 * the matrix "Vandermonde times the inverse of its top k rows" says, so every coefficient has Lagrange's closed form and
 * no matrix is ever inverted.
 */

const exponents = new Uint8Array(255)
const logarithms = new Uint8Array(256)
for (let power = 0, x = 1; power < 255; power++) {
  exponents[power] = x
  logarithms[x] = power
  x = x & 0x80 ? (x << 1) ^ 0x11d : x << 1
}

export function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : exponents[(logarithms[a]! + logarithms[b]!) % 255]!
}

/**
 * What each output shard is made of: coefficient of input `i` in output `o` at `[i * outputs.length + o]`.
 *
 * @param inputs `k` different shard indices, all below 256
 * @param outputs shard indices that are not among the inputs
 */
export function coefficientsOf(inputs: readonly number[], outputs: readonly number[]): Uint8Array {
  // The logarithm of the product of the distances from `point` to all inputs but itself. Distances are XORs.
  const logDistances = (point: number): number =>
    inputs.reduce((sum, other) => (other === point ? sum : sum + logarithms[point ^ other]!), 0) % 255
  const ofOutputs = outputs.map(logDistances)
  const coefficients = new Uint8Array(inputs.length * outputs.length)
  for (const [i, input] of inputs.entries()) {
    const ofInput = logDistances(input)
    for (const [o, output] of outputs.entries()) {
      const log = ofOutputs[o]! - logarithms[output ^ input]! - ofInput
      coefficients[i * outputs.length + o] = exponents[(log + 510) % 255]!
    }
  }
  return coefficients
}

/**
 * Products for the kernels: 32 bytes for each factor, its products with 0 to 15 and then with the multiples of 16 up to
 * 240. The product with any byte is the sum (XOR) of one of the first and one of the second.
 */
export function nibbleProducts(): Uint8Array {
  return Uint8Array.from({ length: 256 * 32 }, (_, at) => {
    const nibble = at & 15
    return multiply(at >> 5, at & 16 ? nibble << 4 : nibble)
  })
}
