/** Randomness that a seed determines: sfc32 (Chris Doty-Humphrey, PractRand), far faster than what has to be secret. */
import type { Random } from '../base/random.ts'

export interface SeededRandom extends Random {
  /** True with this probability. */
  chance: (probability: number) => boolean
  /** Uniform in [from, to). */
  between: (from: number, to: number) => number
  /** @throws RangeError when there is nothing to pick from */
  pick: <T>(items: readonly T[]) => T
  /** Exponentially distributed: waiting times of what happens at no particular time. */
  exponential: (mean: number) => number
  /** A new array in random order. */
  shuffle: <T>(items: readonly T[]) => T[]
  fork: (name: string) => SeededRandom
}

/** FNV-1a, 32 bits. */
function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}

/** @param seed any text or number; equal seeds give equal streams */
export function seededRandom(seed: string | number): SeededRandom {
  const name = String(seed)
  let a = hashText(`a:${name}`) | 0
  let b = hashText(`b:${name}`) | 0
  let c = hashText(`c:${name}`) | 0
  let counter = 1
  const forks = new Map<string, number>()

  const uint32 = (): number => {
    const result = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + result) | 0
    return result >>> 0
  }
  for (let i = 0; i < 12; i++) uint32() // similar seeds part ways

  const next = (): number => (uint32() * 2 ** 21 + (uint32() >>> 11)) / 2 ** 53
  const int = (bound: number): number => (bound <= 1 ? 0 : Math.floor(next() * bound))
  return {
    next,
    int,
    bytes: (length) => {
      const bytes = new Uint8Array(length)
      for (let at = 0; at < length; at += 4) {
        const value = uint32()
        for (let i = 0; i < 4 && at + i < length; i++) bytes[at + i] = value >>> (8 * i)
      }
      return bytes
    },
    fork: (child) => {
      // The second fork of a name is another stream than the first: keys and nonces must not repeat.
      const nth = forks.get(child) ?? 0
      forks.set(child, nth + 1)
      return seededRandom(`${name}/${child}:${nth}`)
    },
    chance: (probability) => next() < probability,
    between: (from, to) => from + next() * (to - from),
    pick: (items) => {
      if (items.length === 0) throw new RangeError('nothing to pick from')
      return items[int(items.length)]!
    },
    exponential: (mean) => -Math.log(1 - next()) * mean,
    shuffle: (items) => {
      const shuffled = [...items]
      for (let i = shuffled.length - 1; i > 0; i--) {
        const j = int(i + 1)
        ;[shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!]
      }
      return shuffled
    }
  }
}
