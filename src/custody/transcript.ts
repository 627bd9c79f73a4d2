/**
 * What became of an audit request, signed by the auditor as a whole, and files of such. Layout: FORMATS.md, "Audit
 * transcripts". What a transcript shows, and who is at fault, is worked out in `verify-transcript.ts`.
 */
import { z } from 'zod'
import { concatBytes, utf8 } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import { MiB } from '../base/limits.ts'
import type { Signer } from '../market/offer.ts'
import {
  type AuditRequest,
  auditRequestBytesMax,
  auditRequestCodec,
  byteArray,
  bytesOf,
  challengesMax,
  proofBytesMax,
  type Signed,
  signedSchema,
  strictCodec,
  timeSchema,
  toSign
} from './audit-messages.ts'
import { custodyOutcomes } from './outcome.ts'

/** Every answer wrong: the slices, and 128 bytes of CBOR for each; besides the request and the statement. */
export const transcriptBytesMax = 2 * MiB
if (challengesMax * (proofBytesMax + 128) + auditRequestBytesMax + 2048 > transcriptBytesMax) {
  throw new Error('a transcript of wrong answers alone would be too long')
}
/** Base64 of the longest transcript, and what a line says beside it. */
const lineBytesMax = Math.ceil(transcriptBytesMax / 3) * 4 + 4096

const resultSchema = z
  .strictObject({
    outcome: z.enum(custodyOutcomes),
    /** `answerDigest` of the answer; null where none came. */
    digest: bytesOf(32).nullable(),
    /** Of an answer that is said to be `wrong`, so that others can see for themselves; else null. */
    slice: byteArray.refine(({ length }) => length <= proofBytesMax, 'longer than any proof').nullable()
  })
  .refine(({ outcome, slice }) => slice === null || outcome === 'wrong', 'only wrong answers are kept')
export type ChallengeResult = z.infer<typeof resultSchema>

const transcriptSchema = z
  .strictObject({
    v: z.literal(1),
    /** An `AuditRequest`, as it was sent. A repeat carries epoch and proof of the first request of its series. */
    request: signedSchema,
    /** An `AnswerStatement`, as it came, of whatever value; null where none came. */
    statement: signedSchema.nullable(),
    /** By the auditor's clock: when the request was sent, and when the last of the answer had come or was given up. */
    askedAt: timeSchema,
    endedAt: timeSchema,
    /** In the order of the challenges. */
    results: z.array(resultSchema).min(1).max(challengesMax)
  })
  .refine(({ statement }) => statement === null || statement.bytes.length <= 1024, 'longer than any statement')
export type Transcript = z.infer<typeof transcriptSchema>

export const transcriptCodec = strictCodec<Transcript>('audit transcript', transcriptSchema, transcriptBytesMax)

/** @param signer the auditor of the request: signed by others it shows nothing */
export async function signTranscript(transcript: Transcript, signer: Signer): Promise<Signed> {
  const bytes = transcriptCodec.encode(transcript)
  return { bytes, signature: await signer.sign(toSign('transcript', bytes)) }
}

export interface DecodedTranscript {
  transcript: Transcript
  request: AuditRequest
}

/** @throws HoldfastError `PROTOCOL` for anything but a transcript of a request; no signature is checked */
export function decodeTranscript(bytes: Uint8Array): DecodedTranscript {
  const transcript = transcriptCodec.decode(bytes)
  return { transcript, request: auditRequestCodec.decode(transcript.request.bytes) }
}

const headerLine = '{"type":"holdfast/audits","v":1}'
const footerSchema = z.strictObject({ type: z.literal('holdfast/audits-end'), entries: z.number().int().nonnegative() })
const footerLine = (entries: number): string => JSON.stringify({ type: 'holdfast/audits-end', entries })
const lineSchema = z.object({ entry: z.string(), signature: z.string() })

/**
 * A transcript as a line of an export, without the newline. What stands before `entry` is for `grep` and `jq`; it is
 * taken from the transcript, and a reader refuses a line that says anything else.
 *
 * @throws HoldfastError `PROTOCOL` for anything but a transcript
 */
export function transcriptLine({ bytes, signature }: Signed): string {
  const { transcript, request } = decodeTranscript(bytes)
  const outcomes: Record<string, number> = {}
  for (const { outcome } of transcript.results) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  return JSON.stringify({
    asked: new Date(transcript.askedAt).toISOString(),
    auditor: request.auditor,
    provider: request.provider,
    outcomes,
    entry: Buffer.from(bytes).toString('base64'),
    signature: Buffer.from(signature).toString('base64')
  })
}

function parseLine(line: string): Signed | undefined {
  try {
    const { entry, signature } = lineSchema.parse(JSON.parse(line))
    const signed = signedTranscriptOf(Buffer.from(entry, 'base64'), Buffer.from(signature, 'base64'))
    return transcriptLine(signed) === line ? signed : undefined
  } catch {
    return undefined // not JSON, not such a line, or not of a transcript
  }
}

/** Without the methods of `Buffer`, which other code might take for those of `Uint8Array`. */
const signedTranscriptOf = (bytes: Buffer, signature: Buffer): Signed => ({
  bytes: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  signature: new Uint8Array(signature.buffer, signature.byteOffset, signature.byteLength)
})

/**
 * An export, a line at a time. Give transcripts in the order in which they were signed: a repeat can only be held
 * against requests that stand above it.
 */
export async function* writeTranscripts(
  transcripts: AsyncIterable<Signed> | Iterable<Signed>
): AsyncGenerator<Uint8Array> {
  let entries = 0
  yield utf8.encode(`${headerLine}\n`)
  for await (const signed of transcripts) {
    yield utf8.encode(`${transcriptLine(signed)}\n`)
    entries++
  }
  yield utf8.encode(`${footerLine(entries)}\n`)
}

/** A line of an export: a transcript, none of whose signatures was checked, or what is the matter with the line. */
export type ExportLine = { line: number; signed: Signed } | { line: number; problem: string }

/**
 * Reads an export. Lines that are damaged are reported, and reading goes on behind them; so is an end that is missing.
 * One line is held in memory.
 *
 * @throws HoldfastError `BAD_INPUT` if it does not begin as an export of this version does
 */
export async function* readTranscripts(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ExportLine> {
  let [line, entries, hasEnded] = [0, 0, false]
  for await (const text of linesOf(chunks)) {
    line++
    if (line === 1) {
      if (text !== headerLine) throw notAnExport()
    } else if (hasEnded) {
      yield { line, problem: 'stands below the end of the export' }
    } else if (text === undefined) {
      yield { line, problem: `is longer than ${lineBytesMax} bytes` }
      entries++
    } else if (text === footerLine(footerEntries(text) ?? -1)) {
      hasEnded = true
      if (text !== footerLine(entries)) yield { line, problem: `not as many entries: ${entries} stand above` }
    } else {
      const signed = parseLine(text)
      yield signed === undefined ? { line, problem: 'is not a transcript, or says what it does not' } : { line, signed }
      entries++
    }
  }
  if (line === 0) throw notAnExport()
  if (!hasEnded) yield { line: line + 1, problem: 'is missing: the export was cut off' }
}

const notAnExport = (): HoldfastError =>
  new HoldfastError('BAD_INPUT', 'not an export of audits, or one of another version')

function footerEntries(text: string): number | undefined {
  if (text.length > 64) return undefined
  try {
    return footerSchema.safeParse(JSON.parse(text)).data?.entries
  } catch {
    return undefined
  }
}

const newline = 0x0a
const lenient = new TextDecoder('utf-8', { ignoreBOM: true })

/**
 * Lines without their newlines, undefined for one that is too long. What follows the last newline is a line if not
 * empty.
 */
async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string | undefined> {
  let held: Uint8Array[] = []
  let heldBytes = 0
  const hold = (bytes: Uint8Array): void => {
    heldBytes += bytes.length
    if (heldBytes > lineBytesMax) held = []
    else if (bytes.length > 0) held.push(Uint8Array.from(bytes)) // the reader's buffer may be used again
  }
  const take = (): string | undefined => {
    const text = heldBytes > lineBytesMax ? undefined : lenient.decode(concatBytes(held))
    held = []
    heldBytes = 0
    return text
  }
  for await (const chunk of chunks) {
    let from = 0
    for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
      hold(chunk.subarray(from, at))
      yield take()
      from = at + 1
    }
    hold(chunk.subarray(from))
  }
  if (heldBytes > 0) yield take()
}
