/** What a run leaves behind: one JSON file a benchmark. `report.ts` makes tables of them, and of nothing else. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

/** Raised when an older file can no longer be read as what it was. */
export const schemaVersion = 1

const figureSchema = z.strictObject({
  /** MB is 10^6 bytes, GB 10^9. */
  unit: z.string(),
  median: z.number(),
  min: z.number(),
  max: z.number(),
  /** All of them, in the order they were taken; warm-ups are not among them. */
  samples: z.array(z.number()).min(1)
})

const commitSchema = z.strictObject({
  /** `null` outside a git checkout. */
  hash: z.string().nullable(),
  /** Whether sources differed from the commit. */
  dirty: z.boolean()
})

const rowSchema = z.strictObject({
  id: z.string(),
  label: z.string(),
  /** Of a row that another run than the file's own has measured. */
  run: z.strictObject({ startedAt: z.iso.datetime(), commit: commitSchema, loadBefore: z.number() }).optional(),
  figures: z.record(z.string(), figureSchema)
})

const resultSchema = z.strictObject({
  schemaVersion: z.literal(schemaVersion),
  name: z.string().regex(/^[a-z]+$/),
  title: z.string(),
  scale: z.enum(['smoke', 'full']),
  seed: z.number().int(),
  startedAt: z.iso.datetime(),
  finishedAt: z.iso.datetime(),
  commit: commitSchema,
  machine: z.strictObject({
    cpu: z.string(),
    cores: z.number().int(),
    memoryBytes: z.number().int(),
    platform: z.string(),
    kernel: z.string(),
    node: z.string(),
    /** File system below the measured directory; on `tmpfs` an fsync costs nothing. */
    fileSystem: z.string(),
    /** One-minute load average before the run: near 0 on a quiet machine. */
    loadBefore: z.number()
  }),
  parameters: z.record(z.string(), z.union([z.number(), z.string()])),
  notes: z.array(z.string()),
  limits: z.array(rowSchema).optional(),
  rows: z.array(rowSchema),
  /** Parts that came to nothing, and why. */
  failures: z.array(z.string()).optional()
})

export type Figure = z.infer<typeof figureSchema>
export type Row = z.infer<typeof rowSchema>
export type Result = z.infer<typeof resultSchema>

/** A smoke run is named so, and never takes the place of a full one. */
export function fileNameOf({ name, scale }: Pick<Result, 'name' | 'scale'>): string {
  return scale === 'full' ? `${name}.json` : `${name}.smoke.json`
}

export async function writeResult(directory: string, result: Result): Promise<string> {
  await mkdir(directory, { recursive: true })
  const file = join(directory, fileNameOf(result))
  await writeFile(file, `${JSON.stringify(resultSchema.parse(result), null, 2)}\n`)
  return file
}

/**
 * What a run of some of a benchmark's parts found, with what the file says of the others: each such row names its run.
 *
 * @param parts ids of rows that were measured, or failed, anew
 */
export async function withOtherParts(directory: string, result: Result, parts: readonly string[]): Promise<Result> {
  let before: Result
  try {
    before = parseResult(await readFile(join(directory, fileNameOf(result)), 'utf8'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return result
    throw error
  }
  const run = { startedAt: before.startedAt, commit: before.commit, loadBefore: before.machine.loadBefore }
  const isOther = (text: string): boolean => !parts.some((part) => text === part || text.startsWith(`${part}: `))
  const kept = before.rows.filter(({ id }) => isOther(id)).map((row) => ({ ...row, run: row.run ?? run }))
  const failures = [...(before.failures ?? []).filter(isOther), ...(result.failures ?? [])]
  const { failures: _own, ...rest } = result
  return { ...rest, rows: [...kept, ...result.rows], ...(failures.length === 0 ? {} : { failures }) }
}

/** @throws when the file is no result of this schema version */
export function parseResult(text: string): Result {
  return resultSchema.parse(JSON.parse(text))
}

/** The full runs' results in a directory, by name. */
export async function readResults(directory: string): Promise<Result[]> {
  const files = (await readdir(directory)).filter((file) => /^[a-z]+\.json$/.test(file)).sort()
  return await Promise.all(files.map(async (file) => parseResult(await readFile(join(directory, file), 'utf8'))))
}
