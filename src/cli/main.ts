/** The command line: registers the commands, runs one, and turns how it ended into an exit code. */
import { Command, CommanderError } from 'commander'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { version } from '../base/version.ts'
import type { RunEnvironment } from './command.ts'
import { register as audit } from './commands/audit.ts'
import { register as bench } from './commands/bench.ts'
import { register as drain } from './commands/drain.ts'
import { register as gateway } from './commands/gateway.ts'
import { register as get } from './commands/get.ts'
import { register as health } from './commands/health.ts'
import { register as key } from './commands/key.ts'
import { register as ls } from './commands/ls.ts'
import { register as provider } from './commands/provider.ts'
import { register as providers } from './commands/providers.ts'
import { register as put } from './commands/put.ts'
import { register as refuse } from './commands/refuse.ts'
import { register as repair } from './commands/repair.ts'
import { register as rm } from './commands/rm.ts'
import { register as status } from './commands/status.ts'
import { register as up } from './commands/up.ts'
import { describeExitCodes, Exit, exitCodeOf, exitCodes } from './exit-codes.ts'
import { interruptSignal } from './interrupt.ts'
import { printable } from './output.ts'

const environmentHelp = `
Environment (flags win):
  HOLDFAST_ENDPOINT, HOLDFAST_ADMIN          a gateway's S3 endpoint and admin address
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY   the key for an endpoint named so
  HOLDFAST_LOG                               debug, info, warn or error: what servers log to stderr

Without these, commands find the network by DIR/network.json, with DIR from --data or ./.holdfast.`

export function buildProgram(run: RunEnvironment): Command {
  const program = new Command('holdfast')
    .description('Content-addressed storage with erasure coding: S3 in, coded shards out, any m providers may die.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .configureHelp({ showGlobalOptions: false })
    .showHelpAfterError('(run it with --help to see what it takes)')
    .addHelpText('after', environmentHelp)
    .addHelpText(
      'after',
      describeExitCodes(['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'fault', 'interrupted'])
    )
    .exitOverride()
  // Commands copy the settings above when they are made, so they come last; in the order the help shows them.
  for (const register of [
    up,
    provider,
    gateway,
    refuse,
    drain,
    providers,
    status,
    health,
    audit,
    repair,
    key,
    put,
    get,
    ls,
    rm,
    bench
  ])
    register(program, run)
  return program
}

function report(error: unknown, isJson: boolean): void {
  if (error instanceof Exit) return
  if (error instanceof CommanderError) {
    // Commander has said it in words already.
    if (isJson && error.exitCode !== 0)
      process.stderr.write(`${JSON.stringify({ code: 'BAD_INPUT', message: error.message })}\n`)
    return
  }
  const code = error instanceof HoldfastError ? error.code : 'FAILED'
  if (isJson) process.stderr.write(`${JSON.stringify({ code, message: messageOf(error) })}\n`)
  else process.stderr.write(`holdfast: ${printable(messageOf(error))}\n`)
}

function exitStatus(error: unknown, signal: AbortSignal): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  if (signal.aborted && !(error instanceof Exit)) return exitCodes.interrupted
  return exitCodeOf(error)
}

/** What was written to a pipe must have left before the process does. */
async function flush(): Promise<void> {
  await Promise.all(
    [process.stdout, process.stderr].map(
      (stream) => new Promise<void>((resolve) => void stream.write('', () => resolve()))
    )
  )
}

/** Never returns to a running process: it ends with the command's exit code. */
export async function main(argv: string[], options: { launcher: string }): Promise<never> {
  // A reader that has seen enough (`holdfast ls | head`) is no failure of ours, and a closed terminal takes no more words.
  process.stdout.on('error', (error: NodeJS.ErrnoException) =>
    process.exit(error.code === 'EPIPE' ? exitCodes.ok : exitCodes.failure)
  )
  process.stderr.on('error', () => {})
  const signal = interruptSignal()
  const isJson = argv.includes('--json')
  let status: number = exitCodes.ok
  try {
    await buildProgram({ launcher: options.launcher, env: process.env, signal }).parseAsync(argv, { from: 'user' })
  } catch (error) {
    report(error, isJson)
    status = exitStatus(error, signal)
  }
  await flush()
  process.exit(status)
}
