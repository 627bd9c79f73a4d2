/** The loops that run beside requests: completing segments, renewing and releasing leases, writing down proofs. */
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'

export interface Task {
  name: string
  /** Pause after a run, before jitter. */
  everyMs: number
  run: (signal: AbortSignal) => Promise<unknown>
}

export interface MaintenanceComponents {
  clock: Clock
  random: Random
  log: Log
}

export interface TaskState {
  name: string
  runs: number
  failures: number
  /** Milliseconds since the Unix epoch; null before the first. */
  lastRunAt: number | null
  lastError: string | null
}

const failurePauseMaxMs = 5 * minuteMs
/** How long a task that was woken waits for further reasons. */
const gatherWakesMs = secondMs / 2

/** Runs each task again and again until the signal aborts; one that fails is tried again, later each time. */
export class Maintenance {
  readonly states: TaskState[] = []
  readonly #components: MaintenanceComponents
  readonly #tasks: readonly Task[]
  readonly #wake = new Map<string, () => void>()

  constructor(components: MaintenanceComponents, tasks: readonly Task[]) {
    this.#components = components
    this.#tasks = tasks
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#tasks.map((task) => this.#loop(task, signal)))
  }

  /** Ends the pause of a task: something happened that it should see to now. */
  wake(name: string): void {
    this.#wake.get(name)?.()
  }

  async #loop(task: Task, signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#components
    const state: TaskState = { name: task.name, runs: 0, failures: 0, lastRunAt: null, lastError: null }
    this.states.push(state)
    let failuresInARow = 0
    while (!signal.aborted) {
      try {
        state.lastRunAt = clock.now()
        await task.run(signal)
        state.runs++
        failuresInARow = 0
      } catch (error) {
        if (signal.aborted) return
        state.failures++
        failuresInARow++
        state.lastError = messageOf(error)
        log.warn('background task failed', { task: task.name, error: messageOf(error) })
      }
      const pauseMs = Math.min(
        Math.max(failurePauseMaxMs, task.everyMs),
        task.everyMs * 2 ** Math.min(failuresInARow, 10)
      )
      const awake = new AbortController()
      const onAbort = (): void => {
        if (!awake.signal.aborted) awake.abort('woken')
      }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#wake.set(task.name, onAbort)
      await clock.sleep(pauseMs * (0.75 + random.next() / 2), awake.signal).catch(() => {}) // woken, or at the end
      signal.removeEventListener('abort', onAbort)
      // After a start providers come back by the dozen: one run sees to all of them.
      if (awake.signal.aborted) await clock.sleep(gatherWakesMs, signal).catch(() => {}) // at the end
    }
  }
}

export const taskPauses = {
  completeMs: 5 * secondMs,
  leasesMs: 30 * secondMs,
  releasesMs: 10 * secondMs,
  proofsMs: minuteMs,
  accountsMs: minuteMs
} as const
