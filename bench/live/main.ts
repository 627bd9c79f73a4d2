/** What `holdfast bench churn` runs: one run, as its only argument says in JSON. */
import { mkdir, writeFile } from 'node:fs/promises'
import os from 'node:os'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { HoldfastError, messageOf } from '../../src/base/errors.ts'
import { minuteMs } from '../../src/base/limits.ts'
import { Exit, exitCodeOf, exitCodes } from '../../src/cli/exit-codes.ts'
import { interruptSignal } from '../../src/cli/interrupt.ts'
import { writePlots } from '../churn/plots.ts'
import { renderResult } from '../report.ts'
import { runBenchmark } from '../run.ts'
import { liveBenchmark } from './live.ts'
import { workloadOf } from './workloads.ts'

const requestSchema = z.strictObject({
  choice: z.strictObject({
    providers: z.number().int().positive(),
    trace: z.string().min(1),
    speed: z.number().positive(),
    durationMs: z.number().positive(),
    code: z.strictObject({ k: z.number().int(), m: z.number().int() }).optional(),
    seed: z.number().int().min(0),
    clients: z.number().int().positive().optional(),
    objects: z.number().int().positive().optional(),
    hasLines: z.boolean()
  }),
  isSimulatedOnly: z.boolean(),
  /** Where the JSON goes. */
  out: z.string().optional(),
  /** Parent of the directory to work in; absent: the system's for temporary files. */
  parent: z.string().optional(),
  isJson: z.boolean()
})
type Request = z.infer<typeof requestSchema>

/** What is shorter, or only simulated, is not to be quoted, and is marked so. */
const quotableMsMin = 5 * minuteMs

async function run({ choice, isSimulatedOnly, out, parent, isJson }: Request, signal: AbortSignal): Promise<void> {
  // What is wrong is said before anything is started.
  await workloadOf(choice)
  if (out !== undefined) await mkdir(dirname(resolve(out)), { recursive: true })
  const result = await runBenchmark(liveBenchmark({ choices: [choice], isSimulatedOnly, isJudging: false }), {
    scale: choice.durationMs < quotableMsMin || isSimulatedOnly ? 'smoke' : 'full',
    seed: choice.seed,
    parent: resolve(parent ?? os.tmpdir()),
    runtimes: [],
    // With JSON wanted, stderr is for errors.
    progress: (line) => void (isJson || process.stderr.write(`${line}\n`)),
    signal
  })
  // A terminal shows no plots. It is shown first: where it can't be written it is not lost.
  const text = renderResult(result).replaceAll(/^!\[.*\n\n/gm, '')
  process.stdout.write(`${isJson ? JSON.stringify(result) : text}\n`)
  if (out !== undefined) {
    await writeFile(resolve(out), `${JSON.stringify(result, null, 2)}\n`)
    await writePlots(dirname(resolve(out)), result)
  }
  if ((result.failures?.length ?? 0) > 0) throw new Exit(exitCodes.failure)
}

const signal = interruptSignal()
let request: Request | undefined
let status: number = exitCodes.ok
try {
  request = requestSchema.parse(JSON.parse(process.argv[2] ?? ''))
  await run(request, signal)
} catch (error) {
  status = signal.aborted ? exitCodes.interrupted : exitCodeOf(error)
  if (!(error instanceof Exit) && !signal.aborted) {
    const code = error instanceof HoldfastError ? error.code : 'FAILED'
    const message = messageOf(error)
    process.stderr.write(request?.isJson === true ? `${JSON.stringify({ code, message })}\n` : `holdfast: ${message}\n`)
  }
}
await new Promise<void>((flushed) => void process.stdout.write('', () => flushed()))
process.exit(status)
