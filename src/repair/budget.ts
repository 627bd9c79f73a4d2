/**
 * Bytes per second that repair may move, so that it is never what slows clients down. A bucket that may be overdrawn by one
 * segment: what a repair costs is known before it begins, within what hedges add, and that is charged afterwards.
 */
import type { Clock } from '../base/clock.ts'
import { secondMs } from '../base/limits.ts'

export interface BudgetInit {
  bytesPerSecond: number
  /** From 0 (clients are served as usual) to 1 (slowly). */
  pressure?: (() => number) | undefined
}

/** Unused rate that may be caught up on. */
const burstMs = secondMs
/** Halved so often under full pressure: to a sixteenth. */
const halvingsMax = 4

export class Budget {
  readonly bytesPerSecond: number
  readonly #clock: Clock
  readonly #pressure: () => number
  /** When all that was taken so far has been paid for. */
  #freeAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock, { bytesPerSecond, pressure = () => 0 }: BudgetInit) {
    this.#clock = clock
    this.bytesPerSecond = bytesPerSecond
    this.#pressure = pressure
  }

  /** What is left of the rate at this moment. */
  get share(): number {
    return 2 ** -(halvingsMax * Math.min(1, Math.max(0, this.#pressure())))
  }

  /**
   * Resolves when so many bytes may be moved. First come first served.
   *
   * @param isUrgent whether the pressure that clients are under is no reason to wait
   * @throws the signal's reason
   */
  async take(bytes: number, isUrgent: boolean, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    const now = this.#clock.now()
    const from = Math.max(this.#freeAt, now - burstMs)
    this.#freeAt = from + this.#msOf(bytes, isUrgent ? 1 : this.share)
    if (from > now) await this.#clock.sleep(from - now, signal)
  }

  /** What was moved beyond what was taken; negative: what was not needed. */
  charge(bytes: number): void {
    this.#freeAt += this.#msOf(bytes, 1)
  }

  #msOf(bytes: number, share: number): number {
    return (bytes / (this.bytesPerSecond * share)) * secondMs
  }
}
