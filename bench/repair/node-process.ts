/** One node of a network under repair: a process of the program, with a log file, that dies with the process that started it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'

const launcher = fileURLToPath(new URL('../../src/cli/holdfast.js', import.meta.url))
const stopGraceMs = 15 * secondMs
const logBytesShown = 4000
const outputBytesMax = 64 * 1024 * 1024

/** Whatever the caller has set for its own network is not for this one. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('HOLDFAST_') && name !== 'NODE_OPTIONS')
  )
}

export class NodeProcess {
  /** What it said when it was ready. Rejects, with the end of its log, when it ends before. */
  readonly ready: Promise<unknown>
  readonly #child: ChildProcess
  readonly #ended: Promise<void>

  constructor(args: readonly string[], logFile: string) {
    const log = openSync(logFile, 'a')
    try {
      // By the channel it sees when this process is gone, and ends.
      this.#child = spawn(process.execPath, [launcher, ...args], {
        stdio: ['ignore', log, log, 'ipc'],
        env: environment()
      })
    } finally {
      closeSync(log)
    }
    this.#ended = new Promise((resolve, reject) => {
      this.#child.once('exit', () => resolve())
      this.#child.once('error', reject)
    })
    this.#ended.catch(() => {}) // seen by whoever waits for it to be ready
    this.ready = new Promise((resolve, reject) => {
      this.#child.once('message', resolve)
      void this.#ended.then(async () => {
        const said = await readFile(logFile, 'utf8').catch(() => '') // it never came to write any
        reject(new Error(`${args[0]} ended before it was ready: ${said.slice(-logBytesShown)}`))
      }, reject)
    })
    this.ready.catch(() => {}) // heard by whoever waits for it
  }

  get pid(): number {
    return this.#child.pid!
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  /** `kill -9`; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Asks it to end, and ends it where it does not. */
  async stop(): Promise<void> {
    if (this.hasEnded) return
    const waiting = new AbortController()
    const late = systemClock.sleep(stopGraceMs, waiting.signal).then(
      () => this.#child.kill('SIGKILL'),
      () => {} // it ended in time
    )
    this.#child.kill('SIGTERM')
    await this.#ended
    waiting.abort()
    await late
  }
}

export interface CommandResult {
  status: number
  stdout: string
  stderr: string
}

/** Runs a command of the program to its end, as an operator does. */
export function runProgram(args: readonly string[], signal: AbortSignal): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [launcher, ...args],
      { env: environment(), maxBuffer: outputBytesMax, signal },
      (error, stdout, stderr) => {
        if (error === null) resolve({ status: 0, stdout, stderr })
        else if (typeof error.code === 'number') resolve({ status: error.code, stdout, stderr })
        else reject(error)
      }
    )
  })
}

/** @throws with what it said, unless it ended well */
export async function runProgramWell(args: readonly string[], signal: AbortSignal): Promise<CommandResult> {
  const result = await runProgram(args, signal)
  if (result.status !== 0) {
    throw new Error(`holdfast ${args.join(' ')} ended with ${result.status}: ${result.stderr.slice(-logBytesShown)}`)
  }
  return result
}
