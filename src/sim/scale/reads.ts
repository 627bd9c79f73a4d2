/**
 * Reads of whole segments at random times. A reader starts the `k` requests (and those a policy starts besides) that it
 * expects first, of shards whose provider it believes to be there; each that is late by its provider's own measure is
 * hedged by the next in line. The read is done with the `k`th answer.
 */
import type { SeededRandom } from '../seeded-random.ts'
import { drawnMs, expectedMs, type Line, regionOf } from './latency.ts'

/** A request later than this many times what was expected is hedged. */
const lateFactor = 2
const lateMs = 100

/** A shard that can be asked for. */
export interface Source {
  line: Line
  /** Believed to be there; whoever went away a moment ago still is. */
  isThere: boolean
}

export interface ReadOutcome {
  /** Infinite: fewer than `k` answered. */
  ms: number
  /** None of the requests it began with was late or unanswered. */
  isFirstTry: boolean
}

export interface ReadRequest {
  sources: readonly Source[]
  k: number
  shardBytes: number
  eager: number
}

export function read({ sources, k, shardBytes, eager }: ReadRequest, random: SeededRandom): ReadOutcome {
  const reader = regionOf(random)
  const expected = sources.map(({ line }) => expectedMs(reader, line, shardBytes))
  const order = [...expected.keys()].sort((a, b) => expected[a]! - expected[b]!)
  const answers: number[] = []
  const hedges: number[] = []
  const start = (index: number, at: number): void => {
    const takes = sources[index]!.isThere ? drawnMs(expected[index]!, random) : Number.POSITIVE_INFINITY
    const deadline = lateFactor * expected[index]! + lateMs
    if (takes > deadline) insert(hedges, at + deadline)
    if (takes !== Number.POSITIVE_INFINITY) insert(answers, at + takes)
  }
  let next = 0
  while (next < Math.min(order.length, k + eager)) start(order[next++]!, 0)
  // A hedge that starts after the read was done comes too late to change it.
  for (let at = hedges.shift(); at !== undefined && next < order.length; at = hedges.shift()) start(order[next++]!, at)
  const ms = answers[k - 1] ?? Number.POSITIVE_INFINITY
  return { ms, isFirstTry: next <= k + eager && ms !== Number.POSITIVE_INFINITY }
}

function insert(sorted: number[], value: number): void {
  let i = sorted.length
  while (i > 0 && sorted[i - 1]! > value) i--
  sorted.splice(i, 0, value)
}
