/** Many seeds in a row: `node src/sim/main.ts --seeds 1000 --from 1`. */
import { parseArgs } from 'node:util'
import { FailedRun, runSeed } from './run.ts'

const usage = `usage: node src/sim/main.ts [--from N] [--seeds N] [--quorum-slack N] [--audits] [--timeout-is-loss] [--trace] [--json]

Runs the simulator with each seed in turn and prints those that fail.
  --from N           first seed (default 1)
  --seeds N          how many (default 100)
  --quorum-slack N   plant a bug: acknowledge writes N shards too early
  --audits           audit in every run; otherwise in one of eight, as they more than double its cost
  --timeout-is-loss  plant a bug: an audit that is not answered in time counts as a loss
  --trace            print everything that happens
  --json             one JSON object a seed on stdout

exit status: 0 all seeds passed; 1 some failed; 2 wrong usage`

interface Settings {
  from: number
  seeds: number
  quorumSlack: number
  isAuditing: boolean
  isTimeoutLoss: boolean
  trace: boolean
  json: boolean
}

function parse(): Settings | undefined {
  const count = (text: string): number => {
    if (!/^\d{1,9}$/.test(text)) throw new TypeError(`not a number: ${text}`)
    return Number(text)
  }
  const { values } = parseArgs({
    options: {
      from: { type: 'string', default: '1' },
      seeds: { type: 'string', default: '100' },
      'quorum-slack': { type: 'string', default: '0' },
      audits: { type: 'boolean', default: false },
      'timeout-is-loss': { type: 'boolean', default: false },
      trace: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return undefined
  const {
    from,
    seeds,
    'quorum-slack': quorumSlack,
    'timeout-is-loss': isTimeoutLoss,
    audits: isAuditing,
    trace,
    json
  } = values
  return {
    from: count(from),
    seeds: count(seeds),
    quorumSlack: count(quorumSlack),
    isTimeoutLoss,
    isAuditing,
    trace,
    json
  }
}

async function main({ from, seeds, quorumSlack, isTimeoutLoss, isAuditing, trace, json }: Settings): Promise<number> {
  const failed: number[] = []
  const totals: Record<string, number> = {}
  const startedAt = performance.now()
  for (let seed = from; seed < from + seeds; seed++) {
    const onLine = trace ? (line: string): void => console.log(line) : undefined
    try {
      const result = await runSeed(seed, {
        quorumSlack,
        isTimeoutLoss,
        onLine,
        scenario: isAuditing ? { isAuditing } : {}
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
