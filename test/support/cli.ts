/** Runs the program as people do: as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export const launcher = fileURLToPath(new URL('../../src/cli/holdfast.js', import.meta.url))

export interface CliOptions {
  env?: Record<string, string>
  cwd?: string
  input?: Uint8Array | string
  /** What to run instead of this process's Node and the launcher. */
  command?: string[]
}

export interface CliResult {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: Buffer
  stderr: string
}

/** Nothing of the environment that tests run in reaches the program, but for finding other programs. */
function environment(env: Record<string, string> = {}): Record<string, string> {
  return { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '', ...env }
}

export function startCli(
  args: readonly string[],
  { env, cwd, command = [process.execPath, launcher] }: CliOptions = {}
): ChildProcess {
  const [program, ...first] = command
  return spawn(program!, [...first, ...args], { cwd, env: environment(env), stdio: ['pipe', 'pipe', 'pipe'] })
}

export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const child = startCli(args, options)
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout!.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr!.on('data', (chunk: Buffer) => stderr.push(chunk))
  child.stdin!.on('error', () => {}) // a command that wants no input may be gone before it was given
  child.stdin!.end(options.input ?? '')
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { status, signal, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString('utf8') }
}

/** Whether a process of that id exists; one that has ended and not been waited for does not count. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false // ESRCH
  }
}

/** Polls until `probe` gives something; the test's own timeout is the limit. */
export async function until<T>(probe: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const found = await probe()
    if (found !== undefined && found !== false) return found
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}
