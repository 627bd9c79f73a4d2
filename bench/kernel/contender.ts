/** Those who code: ours in their variants, and the peers. All get the same data, and answer for the bytes they give. */
import { type Code, type ErasureCoder, formatCode } from '../../src/erasure/erasure-coder.ts'
import { expectSame, type Timed, timed } from '../harness.ts'

/** All parity, or the shards named. */
export interface Job {
  kind: 'encode' | 'reconstruct'
  /** Indices of the shards that are destroyed before each sample, and have to be there after it. */
  lost: readonly number[]
}

export interface Segment {
  code: Code
  shardBytes: number
  /** All shards, one after the other, as the oracle encoded them. */
  whole: Uint8Array<ArrayBuffer>
}

export type Cost = Pick<Timed<unknown>, 'seconds' | 'cpuSeconds'>

export interface Workspace {
  /** Does the job `repeats` times over. @throws WrongAnswerError */
  take: (job: Job, repeats: number) => Promise<Cost>
  close?: () => Promise<void>
}

export interface Contender {
  id: string
  name: string
  /** `undefined`: it does not do such codes. */
  open: (segment: Segment) => Promise<Workspace | undefined>
}

/** @param at where its shards are to lie; it makes them its own */
export function coderContender(
  id: string,
  coder: ErasureCoder,
  name: string,
  at: (bytes: number) => Uint8Array
): Contender {
  return {
    id,
    name,
    open: async (segment) => {
      const shards = at(segment.whole.length)
      shards.set(segment.whole)
      return {
        take: async ({ kind, lost }, repeats) => {
          destroy(shards, segment, lost)
          const present = presentBut(segment.code, lost)
          return await timed(
            () => {
              for (let i = 0; i < repeats; i++) {
                if (kind === 'encode') coder.encode(shards, segment.code)
                else coder.reconstruct(shards, segment.code, present, lost)
              }
            },
            () => expectSame(shards, segment.whole, `${name}: ${kind} ${formatCode(segment.code)}`)
          )
        }
      }
    }
  }
}

export function presentBut({ k, m }: Code, lost: readonly number[]): boolean[] {
  return Array.from({ length: k + m }, (_, index) => !lost.includes(index))
}

export function destroy(shards: Uint8Array, { shardBytes }: Segment, lost: readonly number[]): void {
  for (const index of lost) shards.fill(0, index * shardBytes, (index + 1) * shardBytes)
}
