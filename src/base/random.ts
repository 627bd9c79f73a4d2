/** Randomness as the core sees it: the system's is cryptographic, the simulator's is seeded. */
export interface Random {
  /** Uniform in [0, 1). */
  next: () => number
  /** Uniform integer in [0, bound). */
  int: (bound: number) => number
  /** `length` random bytes, fit for keys and nonces when the source is the system's. */
  bytes: (length: number) => Uint8Array
  /** An independent stream, so that one consumer's draws do not shift another's. */
  fork: (name: string) => Random
}
