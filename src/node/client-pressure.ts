/**
 * How slowly clients are served, for what makes way for them: while requests come in, how late this process's event loop is.
 * Latencies of requests say less: what is slow for one of 64 MiB is quick for one of a kilobyte, and a client may be the slow
 * one. With nobody to serve there is no pressure, however busy the loop is: that is then repair's own work.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Clock } from '../base/clock.ts'
import { secondMs } from '../base/limits.ts'

/** Requests that ended so long ago are nobody's who waits. */
const recentMs = 5 * secondMs
/** Mean lateness between two looks: below the first nobody notices, from the second on requests are slow. */
const delayMsMin = 15
const delayMsMax = 100
const lookEveryMs = secondMs
const resolutionMs = 10
const nanoseconds = 1e6

export class ClientPressure {
  readonly #clock: Clock
  readonly #delay = monitorEventLoopDelay({ resolution: resolutionMs })
  #servedAt = Number.NEGATIVE_INFINITY
  #lookedAt = Number.NEGATIVE_INFINITY
  #delayMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#delay.enable()
  }

  /** A client's request has ended. */
  served(): void {
    this.#servedAt = this.#clock.now()
  }

  /** From 0 to 1. */
  pressure(): number {
    const now = this.#clock.now()
    if (now - this.#lookedAt >= lookEveryMs) {
      this.#lookedAt = now
      // The monitor's own interval is in what it measures.
      this.#delayMs = this.#delay.count === 0 ? 0 : Math.max(0, this.#delay.mean / nanoseconds - resolutionMs)
      this.#delay.reset()
    }
    if (now - this.#servedAt > recentMs) return 0
    return Math.min(1, Math.max(0, (this.#delayMs - delayMsMin) / (delayMsMax - delayMsMin)))
  }

  stop(): void {
    this.#delay.disable()
  }
}
