/** Digests of buffers as they come in the program: 1 MiB, the size of a shard. */
import { MiB } from '../../src/base/limits.ts'
import { seededBytes } from '../data.ts'
import { expectSame, measureRow, ratesOf, rateUnits, type Sampling, timed } from '../harness.ts'
import type { Row } from '../result.ts'

export interface HashRowInit {
  id: string
  label: string
  seed: number
  /** 1 MiB each. */
  buffers: number
  digest: (bytes: Uint8Array) => Uint8Array
  /** Another implementation of the same function, which has to agree on every buffer. */
  oracle: (bytes: Uint8Array) => Uint8Array
  sampling: Sampling
  signal: AbortSignal
}

export async function hashRow({
  id,
  label,
  seed,
  buffers,
  digest,
  oracle,
  sampling,
  signal
}: HashRowInit): Promise<Row> {
  const bytes = seededBytes(seed, buffers * MiB)
  const views = Array.from({ length: buffers }, (_, i) => bytes.subarray(i * MiB, (i + 1) * MiB))
  const expected = Buffer.concat(views.map((view) => oracle(view)))
  return await measureRow({
    id,
    label,
    units: rateUnits,
    sampling,
    signal,
    take: async () =>
      ratesOf(
        bytes.length,
        await timed(
          () => views.map((view) => digest(view)),
          (digests) => expectSame(Buffer.concat(digests), expected, label)
        )
      )
  })
}
