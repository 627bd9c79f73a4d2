/**
 * Runs the benchmarks: `npm run bench -- --help`. Results go to JSON files, of which `report.ts` makes the tables; what
 * is going on goes to stderr.
 */
import os from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { churn } from './churn/churn.ts'
import { writePlots } from './churn/plots.ts'
import { custody } from './custody/custody.ts'
import type { Benchmark, Scale } from './harness.ts'
import { kernel } from './kernel/kernel.ts'
import { limits } from './limits.ts'
import { live } from './live/live.ts'
import { repair } from './repair/repair.ts'
import { renderResult, writeReport } from './report.ts'
import { withOtherParts, writeResult } from './result.ts'
import { runBenchmark } from './run.ts'
import { memory } from './throughput/memory.ts'
import { runtimes } from './throughput/runtimes.ts'
import { throughput } from './throughput/throughput.ts'

const benchmarks: readonly Benchmark[] = [limits, kernel, throughput, memory, custody, repair, churn, live, runtimes]
/** Compares what has to be named, so it runs only when asked for. */
const onRequest: ReadonlySet<Benchmark> = new Set([runtimes])

const resultsDirectory = fileURLToPath(new URL('results', import.meta.url))

const help = `Usage: npm run bench -- [options]

Without options every benchmark runs at smoke size, in a few minutes: it shows that they work, and no more.

  --full            sizes and sample counts whose figures may be quoted; keep the machine quiet meanwhile
  --only NAME       one of ${benchmarks.map(({ name }) => name).join(', ')}; may be given several times
  --out DIR         where NAME.json (full) or NAME.smoke.json goes (default: bench/results)
  --dir DIR         parent of the directory to work in: the disk to be measured (default: ${os.tmpdir()})
  --providers N     providers of the network (default: 12)
  --code K+M        code of the network (default: by the number of providers)
  --runtime PATH    Node to run the network with (default: this one); several for --only runtimes
  --scenario ID     of --only repair: one of its scenarios; may be given several times (default: all);
                    what the file has of the others is kept
  --peers DIR       directory whose node_modules has peers that the project does not depend on (@ronomon/reed-solomon)
  --seed N          of the data (default: 1)
  --json            print results as JSON instead of tables

Exit codes: 0 done, 1 a benchmark failed (a wrong answer counts as such), 2 wrong options, 130 interrupted.`

interface Options {
  scale: Scale
  chosen: readonly Benchmark[]
  out: string
  parent: string
  providers?: number
  code?: string
  runtimes: readonly string[]
  peers?: string
  scenarios?: readonly string[]
  seed: number
  isJson: boolean
}

class UsageError extends Error {}

function integer(text: string, name: string, min: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < min)
    throw new UsageError(`--${name} is an integer from ${min}`)
  return value
}

function parseOptions(args: string[]): Options | 'help' {
  let values: ReturnType<typeof parse>['values']
  try {
    values = parse(args).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  if (values.help === true) return 'help'
  const chosen = (values.only ?? []).map((name) => {
    const found = benchmarks.find((benchmark) => benchmark.name === name)
    if (found === undefined) throw new UsageError(`no benchmark is called ${JSON.stringify(name)}`)
    return found
  })
  const runtimePaths = (values.runtime ?? []).map((path) => resolve(path))
  if (chosen.includes(runtimes) ? runtimePaths.length < 2 : runtimePaths.length > 1) {
    throw new UsageError('--only runtimes takes two or more --runtime, everything else at most one')
  }
  return {
    scale: values.full === true ? 'full' : 'smoke',
    chosen: chosen.length > 0 ? chosen : benchmarks.filter((benchmark) => !onRequest.has(benchmark)),
    out: resolve(values.out ?? resultsDirectory),
    parent: resolve(values.dir ?? os.tmpdir()),
    providers: values.providers === undefined ? undefined : integer(values.providers, 'providers', 3),
    code: values.code,
    runtimes: runtimePaths,
    peers: values.peers,
    scenarios: values.scenario,
    seed: values.seed === undefined ? 1 : integer(values.seed, 'seed', 0),
    isJson: values.json === true
  }
}

const parse = (args: string[]) =>
  parseArgs({
    args,
    options: {
      help: { type: 'boolean' },
      full: { type: 'boolean' },
      only: { type: 'string', multiple: true },
      out: { type: 'string' },
      dir: { type: 'string' },
      providers: { type: 'string' },
      code: { type: 'string' },
      runtime: { type: 'string', multiple: true },
      peers: { type: 'string' },
      scenario: { type: 'string', multiple: true },
      seed: { type: 'string' },
      json: { type: 'boolean' }
    }
  })

async function main(args: string[]): Promise<number> {
  const options = parseOptions(args)
  if (options === 'help') {
    process.stdout.write(`${help}\n`)
    return 0
  }
  const interrupted = new AbortController()
  const onSignal = (): void => interrupted.abort(new Error('interrupted'))
  process.once('SIGINT', onSignal)
  process.once('SIGTERM', onSignal)
  // Whoever started it with a channel is gone, however that came; listening alone keeps nothing alive.
  process.once('disconnect', onSignal)
  process.channel?.unref()
  const { scale, chosen, out, parent, providers, code, peers, seed } = options
  const progress = (line: string): void => void process.stderr.write(`${line}\n`)
  let failed = 0
  try {
    for (const benchmark of chosen) {
      const { signal } = interrupted
      const own = await runBenchmark(benchmark, {
        scale,
        seed,
        parent,
        providers,
        code,
        runtimes: options.runtimes,
        peers,
        scenarios: options.scenarios,
        progress,
        signal
      })
      const parts = options.scenarios
      const result = parts === undefined ? own : await withOtherParts(out, own, parts)
      progress(`written: ${await writeResult(out, result)}`)
      if (benchmark === churn || benchmark === live)
        for (const file of await writePlots(out, result)) progress(`written: ${file}`)
      process.stdout.write(`${options.isJson ? JSON.stringify(result) : renderResult(result)}\n`)
      failed += result.failures?.length ?? 0
    }
  } catch (error) {
    if (interrupted.signal.aborted) return 130
    throw error
  }
  if (scale === 'full') progress(`written: ${await writeReport(out)}`)
  return failed === 0 ? 0 : 1
}

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`${error instanceof UsageError ? `${error.message}\n(see --help)` : (error as Error).stack}\n`)
    process.exitCode = error instanceof UsageError ? 2 : 1
  }
}
