/** Writes the trace files of `fixtures/traces`: `node bench/churn/traces.ts`. The same seed gives the same files. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { dayMs } from '../../src/base/limits.ts'
import { type ChurnModel, churnModels, timelineOf } from '../../src/sim/scale/churn-models.ts'
import { writeTrace } from '../../src/sim/scale/trace-file.ts'

export const traceProviders = 24
export const traceDays = 7
const seed = 1
const directory = fileURLToPath(new URL('../../fixtures/traces', import.meta.url))

export function traceOf(model: ChurnModel): string {
  return writeTrace({
    model: model.name,
    origin: `${model.what} ${model.source}`,
    generator: 'node bench/churn/traces.ts',
    timeline: timelineOf(model, { seed, providers: traceProviders, durationMs: traceDays * dayMs })
  })
}

if (import.meta.main) {
  await mkdir(directory, { recursive: true })
  for (const model of churnModels) {
    const file = join(directory, `${model.name}.trace`)
    await writeFile(file, traceOf(model))
    process.stderr.write(`written: ${file}\n`)
  }
}
