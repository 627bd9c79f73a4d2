/**
 * `holdfast audit --verify`: what a file of transcripts shows, worked out here, without network or gateway. Faults are
 * written as they are found and none is kept: a file may be as large as a disk, and every entry in it a fault.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { addAbortSignal, type Readable } from 'node:stream'
import { HoldfastError } from '../base/errors.ts'
import { type ExportFinding, type FindingName, findingCases, verifyExport } from '../custody/verify-transcript.ts'
import { verifySignature } from '../net/identity.ts'
import type { CommandContext } from './command.ts'
import { type Output, printable, table } from './output.ts'
import { stdoutSink } from './whole-file.ts'

export interface VerifiedFile {
  /** Transcripts, and lines that should be one. */
  entries: number
  verdicts: Record<ExportFinding['verdict'], number>
  atFault: Record<ExportFinding['atFault'], number>
  /** Only those that occurred. */
  cases: Partial<Record<FindingName, number>>
  /** Whether all of it is what an auditor signed, and nothing of that is refuted. */
  holds: boolean
}

interface FaultLine {
  line: number
  atFault: ExportFinding['atFault']
  case: FindingName
  why: string
  /** The rest is null where it cannot be read. */
  cid: string | null
  provider: string | null
  auditor: string | null
  askedAt: string | null
  outcome: string | null
}

/** Somebody is to blame, or it is not what an auditor signed: then nobody can be. */
const isFault = ({ atFault, case: name }: ExportFinding): boolean =>
  atFault !== 'nobody' || name === 'damaged' || name === 'unsigned'

function faultLine({ line, atFault, case: name, why, subject }: ExportFinding): FaultLine {
  return {
    line,
    atFault,
    case: name,
    why,
    cid: subject?.cid.toString() ?? null,
    provider: subject?.provider ?? null,
    auditor: subject?.auditor ?? null,
    askedAt: subject === undefined ? null : new Date(subject.askedAt).toISOString(),
    outcome: subject?.outcome ?? null
  }
}

function faultText({ line, atFault, case: name, why, cid, provider, auditor }: FaultLine): string {
  const blamed = atFault === 'nobody' ? 'nobody to blame' : `${atFault} at fault`
  const about = cid === null ? '' : `; shard ${cid}, provider ${provider}, auditor ${auditor}`
  return `line ${line}: ${blamed}: ${name}: ${why}${about}\n`
}

function summary({ entries, verdicts, cases }: VerifiedFile): string {
  const rows = Object.entries(cases) as Array<[FindingName, number]>
  if (rows.length === 0) return 'No audits: there are no transcripts in the file.\n'
  const counted = table(rows, [
    { title: 'CASE', value: ([name]) => name },
    { title: 'COUNT', value: ([, count]) => String(count), align: 'right' },
    { title: 'VERDICT', value: ([name]) => findingCases[name].verdict },
    { title: 'AT FAULT', value: ([name]) => findingCases[name].atFault },
    { title: 'WHY', value: ([name]) => findingCases[name].why }
  ])
  const { agreed, unproven, refuted } = verdicts
  return `${counted}\n\n${entries} audits: ${agreed} challenges agreed, ${unproven} unproven, ${refuted} refuted\n`
}

/** With `--json` the whole is one object, `faults` first, and still nothing is kept. */
function createReport({ isJson }: Pick<Output, 'isJson'>, write: (text: string) => Promise<void>) {
  let faults = 0
  const opening = (): string => (faults === 0 ? '{"faults":[' : ',')
  return {
    fault: async (fault: FaultLine): Promise<void> => {
      await write(isJson ? `${opening()}${JSON.stringify(fault)}` : printable(faultText(fault)))
      faults++
    },
    end: async (result: VerifiedFile): Promise<void> => {
      if (isJson) await write(`${faults === 0 ? opening() : ''}],${JSON.stringify(result).slice(1)}\n`)
      else await write(`${faults === 0 ? '' : '\n'}${summary(result)}`)
    }
  }
}

async function openInput(file: string, signal: AbortSignal): Promise<Readable> {
  if (file === '-') return addAbortSignal(signal, process.stdin)
  const stats = await stat(file).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') throw new HoldfastError('NO_SUCH_KEY', `no such file: ${file}`, { cause })
    throw cause
  })
  if (stats.isDirectory()) throw new HoldfastError('BAD_INPUT', `${file} is a directory`)
  return createReadStream(file, { signal, highWaterMark: 1024 * 1024 })
}

/**
 * Prints every fault, then how often each case occurred.
 *
 * @param file "-" for standard input
 * @throws HoldfastError `NO_SUCH_KEY` without such a file, `BAD_INPUT` for one that is no export of audits
 */
export async function verifyFile({ output, signal }: CommandContext, file: string): Promise<VerifiedFile> {
  const sink = stdoutSink(output, signal)
  const report = createReport(output, (text) => sink(Buffer.from(text)))
  const counts = new Map<FindingName, number>()
  const verdicts = { agreed: 0, unproven: 0, refuted: 0 }
  const atFault = { auditor: 0, provider: 0, nobody: 0 }
  let entries = 0
  let lineBefore = 0
  for await (const finding of verifyExport(await openInput(file, signal), { verifySignature })) {
    if (finding.line !== lineBefore) entries++
    lineBefore = finding.line
    counts.set(finding.case, (counts.get(finding.case) ?? 0) + 1)
    verdicts[finding.verdict]++
    atFault[finding.atFault]++
    if (isFault(finding)) await report.fault(faultLine(finding))
  }
  const names = (Object.keys(findingCases) as FindingName[]).filter((name) => counts.has(name))
  const cases = Object.fromEntries(names.map((name) => [name, counts.get(name)]))
  const holds = verdicts.refuted === 0 && !counts.has('damaged') && !counts.has('unsigned')
  const result = { entries, verdicts, atFault, cases, holds }
  await report.end(result)
  return result
}
