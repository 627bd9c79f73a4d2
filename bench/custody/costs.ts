/** What single steps of an audit cost, among them those that depend on the size of blocks. */
import { KiB, MiB } from '../../src/base/limits.ts'
import { sliceOf, verifySlice } from '../../src/content/blake3-slice.ts'
import { treeOf } from '../../src/content/blake3-tree.ts'
import { cidOfShard, matchesCid } from '../../src/content/cid.ts'
import { challengeChunkBytes } from '../../src/custody/audit-messages.ts'
import { drawSeed, verifySeed } from '../../src/custody/challenge.ts'
import { verifySignature } from '../../src/net/identity.ts'
import { seededBytes } from '../data.ts'
import { measureRow, type Sampling, timed, WrongAnswerError } from '../harness.ts'
import type { Row } from '../result.ts'
import { identityNamed } from './providers.ts'

export interface Costs {
  rows: Row[]
  /** What blocks of 1 MiB cost more than those of 1 KiB. */
  perProof: { cpuSeconds: number; bytes: number }
  perWholeRead: { cpuSeconds: number }
}

const units = { cpu: 'CPU-µs' } as const

export interface CostsInit {
  seed: number
  /** Of each step in a sample. */
  times: number
  sampling: Sampling
  signal: AbortSignal
}

export async function measureCosts({ seed, times, sampling, signal }: CostsInit): Promise<Costs> {
  const identity = await identityNamed(seed, 'gateway')
  const message = seededBytes(seed, KiB)
  const signature = await identity.sign(message)
  const secretKey = identity.privateKey.raw.subarray(0, 32)
  const subject = { epochMs: 1, auditor: identity.peerId, provider: identity.peerId }

  const row = async (id: string, label: string, step: (i: number) => unknown, isRight: (answer: unknown) => boolean) =>
    await measureRow({
      id: `cost-${id}`,
      label,
      units,
      sampling,
      signal,
      take: async () => {
        const { cpuSeconds } = await timed(
          async () => {
            let last: unknown
            for (let i = 0; i < times; i++) last = await step(i)
            return last
          },
          (last) => {
            if (!isRight(last)) throw new WrongAnswerError(label)
          }
        )
        return { cpu: (cpuSeconds * 1e6) / times }
      }
    })
  const checkRow = (size: number) => {
    const { slice, root, start } = proofOf(seed, size)
    const check = (): Uint8Array => verifySlice(slice, root, start, start + challengeChunkBytes)
    const label = `a proof of a block of ${size / KiB} KiB checked (${slice.length} bytes)`
    return row(
      `proof-${size / KiB}KiB`,
      label,
      check,
      (answer) => (answer as Uint8Array).length === challengeChunkBytes
    )
  }
  const block = seededBytes(seed, MiB)
  const cid = cidOfShard(block)
  const draw = (epoch: number) => ({ epoch, ...drawSeed(secretKey, { ...subject, epoch }) })
  const small = await checkRow(KiB)
  const large = await checkRow(MiB)
  const whole = await row(
    'whole',
    'a block of 1 MiB checked',
    () => matchesCid(cid, block),
    (answer) => answer === true
  )
  const rows = [
    await row('seed', 'the seed of an epoch and provider drawn', draw, (answer) => {
      const { epoch, proof } = answer as ReturnType<typeof draw>
      return verifySeed({ ...subject, epoch }, proof) !== undefined
    }),
    await row(
      'sign',
      'a signature made',
      () => identity.sign(message),
      (answer) => Buffer.compare(answer as Uint8Array, signature) === 0
    ),
    await row(
      'verify',
      'a signature checked',
      () => verifySignature(identity.peerId, message, signature),
      (answer) => answer === true
    ),
    small,
    large,
    whole
  ]
  const secondsOf = ({ figures }: Row): number => figures.cpu!.median / 1e6
  return {
    rows,
    perProof: {
      cpuSeconds: secondsOf(large) - secondsOf(small),
      bytes: proofOf(seed, MiB).slice.length - proofOf(seed, KiB).slice.length
    },
    perWholeRead: { cpuSeconds: secondsOf(whole) }
  }
}

/** Of a chunk in the middle. */
function proofOf(seed: number, size: number): { slice: Uint8Array; root: Uint8Array; start: number } {
  const block = seededBytes(seed, size)
  const tree = treeOf(block)
  const start = Math.floor(size / 2 / challengeChunkBytes) * challengeChunkBytes
  return { slice: sliceOf(block, tree, start, start + challengeChunkBytes), root: tree.root, start }
}
