/**
 * `DATA/scores.json`: what gateways said of this provider, what their evidence shows, and what the provider signed that
 * speaks against it. Written by the running provider (`own-scores.ts`), read by `holdfast status`. FORMATS.md, "A
 * provider's directory".
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileDurably } from '../base/durable-file.ts'
import { HoldfastError } from '../base/errors.ts'
import { type CustodyOutcome, custodyOutcomes } from '../custody/outcome.ts'
import type { ScoreRecord } from '../custody/score.ts'
import { type FindingName, findingCases } from '../custody/verify-transcript.ts'
import { scoreEventSchema, scoreEventsMax, scoreReportSchema } from '../transfer/score-protocol.ts'

export const gatewaysMax = 32
export const evidenceMax = 32
export const findingsMax = 16
export const statementsMax = 256
export const againstMax = 32

const peerId = z.string().max(128)
const time = z.number().int()

const findingSchema = z.strictObject({
  case: z.custom<FindingName>((name) => typeof name === 'string' && Object.hasOwn(findingCases, name)),
  /** Null where it cannot be read. */
  cid: z.string().max(128).nullable(),
  outcome: z.enum(custodyOutcomes).nullable()
})

const evidenceSchema = z.strictObject({
  /** Hex of BLAKE3 of the transcript. */
  id: z.string().max(64),
  /** Hex of BLAKE3 of the request that it is about: the same stands in `statements`. */
  request: z.string().max(64),
  /** By the gateway's clock. */
  askedAt: time,
  challenges: z.number().int().nonnegative(),
  /** Of all but what was proved, the first few. */
  findings: z.array(findingSchema).max(findingsMax)
})
/** A transcript that a gateway has shown, and what it shows. */
export type Evidence = z.infer<typeof evidenceSchema>

const gatewaySchema = z.strictObject({
  gateway: peerId,
  /** By our clock, as `failure.at`. */
  answeredAt: time.nullable(),
  /** Why it has not answered since. */
  failure: z.strictObject({ at: time, code: z.string().max(64), why: z.string().max(1024) }).nullable(),
  score: scoreReportSchema.nullable(),
  /** Newest first, by the gateway's clock. */
  events: z.array(scoreEventSchema).max(scoreEventsMax),
  /** Newest first. */
  evidence: z.array(evidenceSchema).max(evidenceMax)
})
export type GatewayScore = z.infer<typeof gatewaySchema>

const statementSchema = z.strictObject({
  at: time,
  auditor: peerId,
  request: z.string().max(64),
  challenges: z.number().int(),
  /** How many answers spoke against us, and the first few of them. */
  faults: z.number().int(),
  against: z.array(z.strictObject({ cid: z.string().max(128), kind: z.enum(['missing', 'rotten']) })).max(againstMax)
})
/** What this provider has signed that speaks against it. */
export type OwnStatement = z.infer<typeof statementSchema>

const scoresSchema = z.strictObject({
  v: z.literal(1),
  gateways: z.array(gatewaySchema).max(gatewaysMax),
  /** Newest first. */
  statements: z.array(statementSchema).max(statementsMax)
})
export type Scores = z.infer<typeof scoresSchema>

export const noScores: Scores = { v: 1, gateways: [], statements: [] }

const pathOf = (dataDir: string): string => join(dataDir, 'scores.json')

/** @throws HoldfastError `DAMAGED` for a file that is none; where there is no file nothing is known */
export async function readScores(dataDir: string): Promise<Scores> {
  const path = pathOf(dataDir)
  try {
    return scoresSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return noScores
    throw new HoldfastError('DAMAGED', `${path} is not what a provider of this version writes`, { cause })
  }
}

export async function writeScores(dataDir: string, scores: Scores): Promise<void> {
  await writeFileDurably(pathOf(dataDir), `${JSON.stringify(scores)}\n`)
}

/**
 * What there is to an event that lowered custody. `signed`: our own signature; `claimed`: the gateway's word;
 * `refuted`: a transcript that contradicts itself or us; `nothing`: no transcript about the shard came with it.
 */
export type Grounds = 'signed' | 'claimed' | 'refuted' | 'nothing'

/** What leads to an event. Silence repeated in vain is a loss as well, and its transcripts say no more than silence. */
const outcomesOf: Partial<Record<ScoreRecord['kind'], readonly CustodyOutcome[]>> = {
  missing: ['missing', 'timeout', 'unknown'],
  wrong: ['wrong']
}

/** Undefined for an event that no transcript of a fault could show: what is good, and absences. */
export function groundsOf({ kind, shard }: ScoreRecord, evidence: readonly Evidence[]): Grounds | undefined {
  const outcomes = outcomesOf[kind]
  if (outcomes === undefined) return undefined
  const about = evidence.flatMap(({ findings }) =>
    findings
      .filter(({ cid, outcome }) => cid === shard && outcome !== null && outcomes.includes(outcome))
      .map((found) => findingCases[found.case])
  )
  if (about.some(({ verdict, atFault }) => verdict === 'agreed' && atFault === 'provider')) return 'signed'
  if (about.some(({ verdict }) => verdict === 'refuted')) return 'refuted'
  return about.length > 0 ? 'claimed' : 'nothing'
}
