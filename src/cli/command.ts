/** What a command of the program is made of. One file a command under `commands/`; `main.ts` registers them. */
import { type Command, InvalidArgumentError } from 'commander'
import { HoldfastError } from '../base/errors.ts'
import type { Log, LogLevel } from '../base/log.ts'
import { systemLog } from '../base/system.ts'
import { describeExitCodes, type ExitName } from './exit-codes.ts'
import { createOutput, type Output } from './output.ts'

export interface CommandContext {
  env: Readonly<Record<string, string | undefined>>
  /** Path of `holdfast.js`, to start further processes of this very program. */
  launcher: string
  /** Aborts when the process is to end: `interrupt.ts`. */
  signal: AbortSignal
  output: Output
  log: Log
}

export interface RunEnvironment {
  launcher: string
  env: Readonly<Record<string, string | undefined>>
  signal: AbortSignal
}

/** Adds a command to the program. What it imports at the top must be light: every start pays for it. */
export type Register = (program: Command, run: RunEnvironment) => void

const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error']

/** @throws HoldfastError `BAD_CONFIG` */
function logLevel(env: RunEnvironment['env']): LogLevel {
  const level = env.HOLDFAST_LOG ?? 'info'
  const known = logLevels.find((name) => name === level)
  if (known === undefined)
    throw new HoldfastError('BAD_CONFIG', `HOLDFAST_LOG is "${level}"; write one of ${logLevels.join(', ')}`)
  return known
}

/**
 * Finishes a command: `--json`, its exit codes in the help, and the action that `work` is.
 *
 * @param work gets the positional arguments, then the options as `Options`
 */
export function action<Options extends object>(
  command: Command,
  run: RunEnvironment,
  exits: { names: readonly ExitName[]; special?: Partial<Record<ExitName, string>> },
  work: (context: CommandContext, options: Options, args: string[]) => Promise<void>
): void {
  command
    .option('--json', 'print the result as JSON, and errors as JSON on stderr')
    .addHelpText('after', describeExitCodes(exits.names, exits.special))
    .action(async () => {
      const options = command.opts<Options & { json?: boolean }>()
      const output = createOutput(options.json === true)
      const log = systemLog(logLevel(run.env), 'holdfast')
      await work({ env: run.env, launcher: run.launcher, signal: run.signal, output, log }, options, command.args)
    })
}

/** A parser of option values whose complaint commander shows together with the option's name. */
export function optionParser<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text)
    } catch (error) {
      if (error instanceof HoldfastError) throw new InvalidArgumentError(error.message)
      throw error
    }
  }
}

/** For options that may be given several times. */
export function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text]
}
