/** Many seeds in a row: `node src/sim/main.ts --seeds 1000 --from 1`. */
import { parseArgs } from 'node:util'
import { systemRandom } from '../base/system.ts'
import { type Bug, type BugName, bugNames, bugs, isBugName } from './bugs.ts'
import { FailedRun, runSeed } from './run.ts'
import { isRunSize, type RunSize } from './world.ts'

const usage = `usage: node src/sim/main.ts [--from N] [--seeds N] [--size SIZE] [--audits] [--bug NAME] [--trace] [--json]

Runs the simulator with each seed in turn and prints those that fail.
  --from N           first seed (default 1), or \`random\`: one that is drawn, and printed
  --seeds N          how many (default 100)
  --size SIZE        short or full, whatever the seed draws; three of four are short
  --audits           audit in every run; otherwise in one of eight, as they more than double its cost
  --bug NAME         plant a bug, in the settings in which it shows soonest; the runs have to fail:
${bugNames.map((name) => `                       ${name.padEnd(20)} ${bugs[name].what}`).join('\n')}
  --trace            print everything that happens
  --json             one JSON object a seed on stdout

exit status: 0 all seeds passed; 1 some failed; 2 wrong usage`

/** Drawn first seeds: far from those that tests have, and of nine digits with all that follow. */
const randomFromMin = 1_000_000
const randomFromMax = 900_000_000

interface Settings {
  from: number
  seeds: number
  size: RunSize | undefined
  isAuditing: boolean
  bug: BugName | undefined
  trace: boolean
  json: boolean
}

function parse(): Settings | undefined {
  const count = (text: string): number => {
    if (!/^\d{1,9}$/.test(text)) throw new TypeError(`not a number: ${text}`)
    return Number(text)
  }
  const first = (text: string): number =>
    text === 'random' ? randomFromMin + systemRandom.int(randomFromMax - randomFromMin) : count(text)
  const { values } = parseArgs({
    options: {
      from: { type: 'string', default: '1' },
      seeds: { type: 'string', default: '100' },
      size: { type: 'string' },
      audits: { type: 'boolean', default: false },
      bug: { type: 'string' },
      trace: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return undefined
  const { from, seeds, size, bug, audits: isAuditing, trace, json } = values
  if (bug !== undefined && !isBugName(bug)) throw new TypeError(`no such bug: ${bug}`)
  if (size !== undefined && !isRunSize(size)) throw new TypeError(`no such size: ${size}`)
  return { from: first(from), seeds: count(seeds), size, bug, isAuditing, trace, json }
}

async function main({ from, seeds, size, bug, isAuditing, trace, json }: Settings): Promise<number> {
  const { machines, scenario }: Bug['setting'] = bug === undefined ? {} : bugs[bug].setting
  console.error(`seeds ${from} to ${from + seeds - 1}`)
  const failed: number[] = []
  const totals: Record<string, number> = {}
  const startedAt = performance.now()
  for (let seed = from; seed < from + seeds; seed++) {
    const onLine = trace ? (line: string): void => console.log(line) : undefined
    try {
      const result = await runSeed(seed, {
        size,
        bug,
        onLine,
        machines,
        scenario: { ...scenario, ...(isAuditing ? { isAuditing } : {}) }
      })
      for (const [name, count] of Object.entries(result.stats)) totals[name] = (totals[name] ?? 0) + count
      if (json) console.log(JSON.stringify({ seed, ok: true, ...result }))
    } catch (error) {
      if (!(error instanceof FailedRun)) throw error
      failed.push(seed)
      if (json)
        console.log(
          JSON.stringify({ seed, ok: false, trace: error.trace, invariant: error.invariant, reason: error.reason })
        )
      console.error(trace ? `seed ${seed}: ${error.reason}` : error.message)
    }
  }
  const seconds = (performance.now() - startedAt) / 1000
  if (!json) for (const [name, count] of Object.entries(totals).sort()) console.log(`${name}: ${count}`)
  console.error(`${seeds} seeds in ${seconds.toFixed(1)} s; failed: ${failed.length === 0 ? 'none' : failed.join(' ')}`)
  return failed.length === 0 ? 0 : 1
}

let settings: Settings | undefined
try {
  settings = parse()
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
  process.exit(2)
}
if (settings === undefined) console.log(usage)
else process.exitCode = await main(settings)
