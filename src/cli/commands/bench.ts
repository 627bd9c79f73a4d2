/** Runs the benchmarks, which are no part of the program: they are in `bench/` beside it, in a checkout. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { HoldfastError } from '../../base/errors.ts'
import { dayMs, minuteMs, secondMs } from '../../base/limits.ts'
import { systemClock } from '../../base/system.ts'
import { type Code, parseCode } from '../../erasure/erasure-coder.ts'
import { action, type CommandContext, optionParser, type Register } from '../command.ts'
import { Exit, exitCodes } from '../exit-codes.ts'
import { parseDuration, parseInteger } from '../units.ts'

interface ChurnOptions {
  providers: number
  trace: string
  speed: number
  duration?: number
  code?: Code
  seed: number
  clients?: number
  objects?: number
  lines: boolean
  simulate?: boolean
  out?: string
  dir?: string
}

interface OtherOptions {
  full?: boolean
}

/** What a child that does not end after a signal may take: it has a network to end. */
const stopGraceMs = minuteMs
const durationMsMin = secondMs
const durationMsMax = 7 * dayMs
const durationDefaultMs = 10 * minuteMs

/** @throws HoldfastError `BAD_CONFIG` where there are none */
function benchFile(launcher: string, file: string): string {
  const found = path.resolve(path.dirname(launcher), '../../bench', file)
  if (!existsSync(found)) {
    throw new HoldfastError(
      'BAD_CONFIG',
      `the benchmarks come with the source, and ${path.dirname(found)} is not there: run this in a checkout of it`
    )
  }
  return found
}

/**
 * Runs a program of the benchmarks on this very Node, with its words on our own stdout and stderr.
 *
 * @throws Exit with its exit code, unless that is 0
 */
async function runBench({ launcher, signal }: CommandContext, file: string, args: readonly string[]): Promise<void> {
  const program = benchFile(launcher, file)
  // By the channel it sees when this process is killed, and ends what it started.
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc']
  })
  const over = new AbortController()
  const stop = (): void => void stopChild(child, over.signal)
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop, { once: true })
  try {
    const [status] = (await once(child, 'exit')) as [number | null]
    if (signal.aborted) throw new Exit(exitCodes.interrupted)
    if (status !== 0) throw new Exit(status ?? exitCodes.failure)
  } finally {
    over.abort(new HoldfastError('ABORTED', 'it has ended'))
    signal.removeEventListener('abort', stop)
  }
}

async function stopChild(child: ChildProcess, over: AbortSignal): Promise<void> {
  child.kill('SIGTERM')
  await systemClock.sleep(stopGraceMs, over).then(
    () => child.kill('SIGKILL'),
    () => {} // it ended in time
  )
}

async function benchChurn(context: CommandContext, options: ChurnOptions): Promise<void> {
  const { providers, trace, speed, code, seed, clients, objects, lines, simulate, out, dir } = options
  const { duration: durationMs = durationDefaultMs } = options
  const choice = { providers, trace, speed, durationMs, code, seed, clients, objects, hasLines: lines }
  const request = { choice, isSimulatedOnly: simulate === true, out, parent: dir, isJson: context.output.isJson }
  await runBench(context, 'live/main.ts', [JSON.stringify(request)])
}

const benchOther =
  (name: string) =>
  async (context: CommandContext, { full }: OtherOptions): Promise<void> => {
    await runBench(context, 'main.ts', [
      ...['--only', name],
      ...(full === true ? ['--full'] : []),
      ...(context.output.isJson ? ['--json'] : [])
    ])
  }

/** @throws HoldfastError `BAD_INPUT` */
function parseSpeed(text: string): number {
  const speed = Number(text)
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text) || !(speed > 0))
    throw new HoldfastError('BAD_INPUT', `"${text}" is not a speed: a number above 0, and below a million`)
  return speed
}

const integer = (what: string, min: number, max: number): ((text: string) => number) =>
  optionParser((text) => parseInteger(text, what, min, max))

const exits = {
  names: ['ok', 'failure', 'usage', 'interrupted'],
  special: {
    ok: 'it was run, and every answer was right',
    failure:
      'it failed: a wrong answer, or a process that ended (figures that the simulator did not foretell are shown, and no failure)',
    usage: 'a flag or a trace is wrong, or this is an installation without the benchmarks'
  }
} as const

function addChurn(bench: Command): Command {
  return bench
    .command('churn')
    .summary('retrieval under churn, on real processes and simulated')
    .description(
      'Starts a network of real processes, carries out a trace on it (whoever goes is killed with kill -9, and comes ' +
        'back with the disk it had), with latency and bandwidth between them, while clients read and write. Every byte is verified. ' +
        'Then the simulator is asked the same, and the two are shown side by side.'
    )
    .option('--providers <n>', 'providers of the network', integer('a number of providers', 3, 200), 24)
    .option('--trace <file|model>', 'a trace file, or a churn model such as weibull, ipfs or diurnal', 'weibull')
    .option('--speed <n>', 'seconds of the trace in a second', optionParser(parseSpeed), 60)
    .option(
      '--duration <duration>',
      'how long to run, once everything is stored (default: 10m)',
      optionParser((text) => parseDuration(text, durationMsMin, durationMsMax))
    )
    .option('--code <k+m>', 'code of the network (default: by who is there at the beginning)', optionParser(parseCode))
    .option('--seed <n>', 'of the model, the data, the lines and the requests', integer('a seed', 0, 2 ** 31), 1)
    .option('--clients <n>', 'clients, each of which asks for one thing at a time', integer('a count', 1, 256))
    .option('--objects <n>', 'objects stored', integer('a count', 1, 100_000))
    .option('--no-lines', 'no latency and no limit of bandwidth between processes')
    .option('--simulate', 'only the simulator: no processes are started')
    .option(
      '--out <file>',
      'write the result as JSON to a file, and its plot beside it: live-margins.svg, or live-margins.smoke.svg of a run ' +
        'that is not to be quoted (shorter than five minutes, or only simulated)'
    )
    .option(
      '--dir <dir>',
      'where to make the directory to work in, which is removed afterwards (default: the system’s for temporary files)'
    )
}

export const register: Register = (program, run) => {
  const bench = program
    .command('bench')
    .summary('run the benchmarks')
    .description('Runs a benchmark of those that come with the source. `npm run bench` runs all of them.')
  action<ChurnOptions>(addChurn(bench), run, exits, benchChurn)
  for (const [name, summary] of [
    ['throughput', 'PUT and GET of a network on this machine, beside the limits of the machine'],
    ['kernel', 'erasure coding and hashing, beside other implementations']
  ] as const) {
    const command = bench
      .command(name)
      .summary(summary)
      .description(
        `${summary[0]!.toUpperCase()}${summary.slice(1)}. At a small size that only shows that it works. Results also go to bench/results, as with \`npm run bench\`.`
      )
      .option('--full', 'the size whose figures may be quoted: takes long, and wants a quiet machine')
    action<OtherOptions>(command, run, exits, benchOther(name))
  }
}
