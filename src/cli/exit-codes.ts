/** How a command ends, for scripts: decided here once, listed in every command's help. */
import { type ErrorCode, errorSpecs, HoldfastError } from '../base/errors.ts'

export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  network: 4,
  denied: 5,
  fault: 6,
  interrupted: 130
} as const

export type ExitName = keyof typeof exitCodes

const meanings: Record<ExitName, string> = {
  ok: 'done',
  failure: 'it failed; the message says why',
  usage: 'a flag, argument or configuration is wrong: nothing was done',
  notFound: 'no such bucket, object, key or file',
  network: 'the gateway does not answer, or too few providers do: try again later',
  denied: 'the access key is unknown, or may not do this',
  fault: 'an audit found a fault',
  interrupted: 'interrupted'
}

/** The lines that a command's help ends with. `special` words a meaning more exactly for that command. */
export function describeExitCodes(names: readonly ExitName[], special: Partial<Record<ExitName, string>> = {}): string {
  const lines = names.map((name) => `  ${String(exitCodes[name]).padEnd(4)} ${special[name] ?? meanings[name]}`)
  return ['', 'Exit codes:', ...lines].join('\n')
}

const notFound: readonly ErrorCode[] = ['NO_SUCH_BUCKET', 'NO_SUCH_KEY', 'NO_SUCH_UPLOAD', 'MISSING']
const usage: readonly ErrorCode[] = ['BAD_INPUT', 'BAD_CONFIG']

/** Thrown by a command that has already said all there is to say. */
export class Exit extends Error {
  readonly status: number

  constructor(status: number) {
    super(`exit ${status}`)
    this.name = 'Exit'
    this.status = status
  }
}

/** A failure of the kind `denied`, which no code of the core stands for: keys are the gateway's business. */
export class DeniedError extends Error {}

export function exitCodeOf(error: unknown): number {
  if (error instanceof Exit) return error.status
  if (error instanceof DeniedError) return exitCodes.denied
  if (!(error instanceof HoldfastError)) return exitCodes.failure
  if (notFound.includes(error.code)) return exitCodes.notFound
  if (usage.includes(error.code)) return exitCodes.usage
  const { blame } = errorSpecs[error.code]
  return blame === 'network' || blame === 'peer' ? exitCodes.network : exitCodes.failure
}
