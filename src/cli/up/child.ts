/** One process that `holdfast up` keeps: started with a log file and an IPC channel, by which it says when it is ready. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import path from 'node:path'
import { HoldfastError } from '../../base/errors.ts'
import { MiB } from '../../base/limits.ts'
import { systemClock } from '../../base/system.ts'

export interface ChildSpec {
  /** `p01`, `gateway`: names its log and pid file. */
  name: string
  /** Arguments of the program. */
  args: readonly string[]
  /** Further options of the runtime. */
  runtimeOptions?: readonly string[]
  /** Niceness, as of nice(1), where the system lets it be set; absent: as this process. */
  niceness?: number
}

export interface ChildHost {
  /** The network's directory: logs go to `logs/`, pid files to `run/`. */
  directory: string
  launcher: string
  env: Readonly<Record<string, string | undefined>>
}

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
}

const logBytesMax = 10 * MiB

/**
 * MiB of new space. What passes through hangs on short-lived objects that are small themselves: the oftener they are collected,
 * the less of it waits, and the seldomer V8 takes what waits for a reason to mark the whole heap, which was a quarter of a
 * provider's CPU. A heap of 30 MB is collected by the thread that uses it: helpers that have to be waited for cost a third.
 */
const heapTuning = ['--max-semi-space-size=1', '--single-threaded-gc']

/**
 * glibc learns from freed megabyte buffers to keep such memory for itself: 100 MB more resident in a busy gateway. Fixed
 * thresholds give it back to the system. Other C libraries do not know these names.
 */
const memoryTuning = { MALLOC_ARENA_MAX: '1', MALLOC_MMAP_THRESHOLD_: '32768', MALLOC_TRIM_THRESHOLD_: '32768' }

export class Child {
  readonly name: string
  readonly logFile: string
  /** Resolves when the process has ended; never rejects. */
  readonly ended: Promise<Ended>
  /** What the process said when it was ready. Rejects when it ends before. */
  readonly ready: Promise<unknown>
  readonly #process: ChildProcess
  #isStopping = false
  #hasEnded = false

  constructor({ name, args, runtimeOptions = [], niceness }: ChildSpec, { directory, launcher, env }: ChildHost) {
    this.name = name
    this.logFile = path.join(directory, 'logs', `${name}.log`)
    const pidFile = path.join(directory, 'run', `${name}.pid`)
    const log = openLog(this.logFile)
    try {
      this.#process = spawn(
        process.execPath,
        [...process.execArgv, ...heapTuning, ...runtimeOptions, launcher, ...args],
        {
          stdio: ['ignore', log, log, 'ipc'],
          // A group of its own: a terminal's Ctrl-C comes to this process alone, which then stops the others in order.
          detached: true,
          env: { ...memoryTuning, ...env }
        }
      )
    } finally {
      closeSync(log)
    }
    if (this.#process.pid !== undefined) {
      if (niceness !== undefined) yieldTo(this.#process.pid, niceness)
      mkdirSync(path.dirname(pidFile), { recursive: true })
      writeFileSync(pidFile, `${this.#process.pid}\n`)
    }
    this.ended = new Promise((resolve) => {
      const end = (ended: Ended): void => {
        this.#hasEnded = true
        rmSync(pidFile, { force: true })
        resolve(ended)
      }
      this.#process.once('exit', (code, signal) => end({ code, signal }))
      this.#process.once('error', () => {
        if (this.#process.pid === undefined) end({ code: 1, signal: null }) // it could not be started at all
      })
    })
    this.ready = new Promise((resolve, reject) => {
      this.#process.once('message', resolve)
      void this.ended.then((ended) => {
        reject(
          new HoldfastError('INTERNAL', `${name} ${describeEnd(ended)} before it was ready; ${this.logFile} says why`)
        )
      })
    })
    this.ready.catch(() => {}) // whoever waits for it sees the failure
  }

  /** 0 when the process could not be started. */
  get pid(): number {
    return this.#process.pid ?? 0
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** Whether it was asked to end: then its end is no news. */
  get isStopping(): boolean {
    return this.#isStopping
  }

  /** Asks the process to end, and ends it when it does not within `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#isStopping = true
    this.#process.kill('SIGTERM')
    const waiting = new AbortController()
    const late = systemClock.sleep(graceMs, waiting.signal).then(
      () => this.#process.kill('SIGKILL'),
      () => {} // it ended in time
    )
    await this.ended
    waiting.abort()
    await late
  }
}

function yieldTo(pid: number, niceness: number): void {
  try {
    setPriority(pid, niceness)
  } catch {
    // It has ended already, or it is not allowed here: the network works all the same.
  }
}

export function describeEnd({ code, signal }: Ended): string {
  return signal !== null ? `was ended by ${signal}` : `ended with exit code ${code ?? 1}`
}

/** Appends over restarts; what is long is put aside at a start, so that there are never more than two such files. */
function openLog(file: string): number {
  mkdirSync(path.dirname(file), { recursive: true })
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > logBytesMax) renameSync(file, `${file}.old`)
  return openSync(file, 'a', 0o600)
}
