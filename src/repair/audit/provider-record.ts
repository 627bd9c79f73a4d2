/** What an auditor keeps of one provider between runs: judgement, score, and what its repeats are put with. Layout: FORMATS.md, "Judgement". */
import { z } from 'zod'
import { utf8 } from '../../base/bytes.ts'
import { judgeStateSchema, newJudge } from '../../custody/judge.ts'
import { newScore, type ScoreConfig, scoreStateSchema } from '../../custody/score.ts'

const base64 = z
  .string()
  .max(1024)
  .regex(/^[A-Za-z0-9+/]*={0,2}$/)

/** A challenge that timed out, with what its repeats have in common with the request it was first put in. */
const seriesSchema = z.strictObject({
  cid: z.string().max(128),
  chunk: z.number().int().nonnegative(),
  bytes: z.number().int().nonnegative(),
  epoch: z.number().int().nonnegative(),
  epochMs: z.number().int().positive(),
  sampling: z.number().int().nonnegative(),
  /** 80 bytes. */
  vrfProof: base64,
  /** BLAKE3 of the last request that timed out, and which attempt it was: 0 for the first, no repeat. */
  request: base64,
  attempt: z.number().int().nonnegative()
})
export type Series = z.infer<typeof seriesSchema>

const recordSchema = z.strictObject({
  v: z.literal(1),
  judge: judgeStateSchema,
  score: scoreStateSchema,
  series: z.array(seriesSchema).max(1024)
})
export type ProviderRecord = z.infer<typeof recordSchema>

export const newRecord = (now: number, isSuspended: boolean, config: ScoreConfig): ProviderRecord => ({
  v: 1,
  judge: newJudge(isSuspended),
  score: newScore(now, config),
  series: []
})

export const encodeRecord = (record: ProviderRecord): Uint8Array => utf8.encode(JSON.stringify(record))

/** Undefined for anything but a record: then the provider begins anew. */
export function decodeRecord(bytes: Uint8Array): ProviderRecord | undefined {
  try {
    return recordSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch {
    return undefined
  }
}

export const isOf =
  ({ cid, chunk }: { cid: string; chunk: number | null }) =>
  (other: { cid: string; chunk: number | null }): boolean =>
    other.cid === cid && other.chunk === chunk
