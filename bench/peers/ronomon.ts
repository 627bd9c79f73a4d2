/**
 * `@ronomon/reed-solomon`, a native addon that compiles when it is installed, which is why the project does not depend on
 * it: `--peers` names a directory whose `node_modules` has it. Its matrix is another, so it is held to
 * restoring what it encoded.
 */
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { expectSame, timed } from '../harness.ts'
import { type Contender, type Cost, destroy, type Job, presentBut, type Segment } from '../kernel/contender.ts'

interface Ronomon {
  MAX_K: number
  MAX_M: number
  create: (k: number, m: number) => unknown
  encode: (
    context: unknown,
    sources: number,
    targets: number,
    data: Buffer,
    dataOffset: number,
    dataBytes: number,
    parity: Buffer,
    parityOffset: number,
    parityBytes: number,
    done: (error?: Error | null) => void
  ) => void
}

/** @returns undefined if it is not there */
export function ronomonContender(peers: string | undefined): Contender | undefined {
  if (peers === undefined) return undefined
  let addon: Ronomon
  try {
    addon = createRequire(join(resolve(peers), 'peers.js'))('@ronomon/reed-solomon') as Ronomon
  } catch {
    return undefined
  }
  return {
    id: 'ronomon',
    name: '@ronomon/reed-solomon, native',
    open: async (segment) => {
      const { k, m } = segment.code
      if (k > addon.MAX_K || m > addon.MAX_M) return undefined
      const context = addon.create(k, m)
      const shards = Buffer.from(segment.whole)
      const run = (job: Job): Promise<void> =>
        new Promise((done, failed) => {
          const sources = bitsOf(presentBut(segment.code, job.lost))
          const targets = bitsOf(presentBut(segment.code, job.lost).map((isThere) => !isThere))
          const split = k * segment.shardBytes
          const finish = (error?: Error | null): void => (error ? failed(error) : done())
          addon.encode(context, sources, targets, shards, 0, split, shards, split, shards.length - split, finish)
        })
      await run({ kind: 'encode', lost: Array.from({ length: m }, (_, i) => k + i) })
      const expected = shards.subarray(k * segment.shardBytes)
      const own: Segment = { ...segment, whole: segment.whole.slice() }
      own.whole.set(expected, k * segment.shardBytes)
      return {
        take: async (job, repeats): Promise<Cost> => {
          destroy(shards, segment, job.lost)
          return await timed(
            async () => {
              for (let i = 0; i < repeats; i++) await run(job)
            },
            () => expectSame(shards, own.whole, '@ronomon/reed-solomon')
          )
        }
      }
    }
  }
}

const bitsOf = (flags: readonly boolean[]): number =>
  flags.reduce((bits, flag, i) => (flag ? bits | (1 << i) : bits), 0)
