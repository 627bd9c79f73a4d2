/** Where a computer is in the network, and the line by which it hangs there: how far it is, and how much passes. */
import { secondMs } from '../base/limits.ts'
import type { Timeline } from './virtual-clock.ts'

export interface Place {
  /** Index of `regions`; undefined: as near to everybody as its own latency says. */
  readonly region: number | undefined
  /** Usual one-way delay between it and the rest of its region. */
  readonly latencyMs: number
  readonly up: SharedLine
  readonly down: SharedLine
}

interface Flow {
  leftBytes: number
  arrived: () => void
  lost: () => void
}

/** Shares of a byte are lost to arithmetic. */
const nothingBytes = 1e-6

/**
 * One direction of a line: all that is under way at the same time gets an equal share, as the connections over one
 * bottleneck do by and by. Connections start at full speed here.
 */
export class SharedLine {
  readonly #timeline: Timeline
  #bytesPerMs: number
  #flows: Flow[] = []
  #movedAt = 0
  #cancel = (): void => {}

  constructor(timeline: Timeline, bytesPerSecond = Number.POSITIVE_INFINITY) {
    this.#timeline = timeline
    this.#bytesPerMs = bytesPerSecond / secondMs
  }

  /** From now on; what is under way goes on at the new rate. */
  setRate(bytesPerSecond: number): void {
    if (bytesPerSecond / secondMs === this.#bytesPerMs) return
    this.#move()
    this.#bytesPerMs = bytesPerSecond / secondMs
    this.#plan()
  }

  /**
   * Calls `arrived` once so many bytes have passed: at once where nothing bounds the line. `lost`: the line was cut
   * before that.
   *
   * @returns how to call it off
   */
  carry(bytes: number, arrived: () => void, lost: () => void): () => void {
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY && this.#flows.length === 0) {
      arrived()
      return () => {}
    }
    const flow: Flow = { leftBytes: bytes, arrived, lost }
    this.#move()
    this.#flows.push(flow)
    this.#plan()
    return () => {
      if (!this.#flows.includes(flow)) return
      this.#move()
      this.#flows = this.#flows.filter((other) => other !== flow)
      this.#plan()
    }
  }

  /** Nothing that is under way arrives. @param isTold whether the other ends notice */
  cut(isTold: boolean): void {
    const flows = this.#flows
    this.#flows = []
    this.#cancel()
    if (isTold) for (const { lost } of flows) lost()
  }

  #move(): void {
    const { now } = this.#timeline
    const moved = this.#flows.length === 0 ? 0 : ((now - this.#movedAt) * this.#bytesPerMs) / this.#flows.length
    for (const flow of this.#flows)
      flow.leftBytes = this.#bytesPerMs === Number.POSITIVE_INFINITY ? 0 : flow.leftBytes - moved
    this.#movedAt = now
  }

  #plan(): void {
    this.#cancel()
    this.#cancel = () => {}
    if (this.#flows.length === 0) return
    const leastBytes = Math.min(...this.#flows.map(({ leftBytes }) => leftBytes))
    const ms = (Math.max(0, leastBytes) * this.#flows.length) / this.#bytesPerMs
    this.#cancel = this.#timeline.schedule(ms, () => this.#arrive())
  }

  #arrive(): void {
    this.#move()
    const arrived = this.#flows.filter(({ leftBytes }) => leftBytes <= nothingBytes)
    this.#flows = this.#flows.filter(({ leftBytes }) => leftBytes > nothingBytes)
    this.#plan()
    for (const flow of arrived) flow.arrived()
  }
}

/** Over lines one after another, a byte at a time: it has passed when it has passed the slowest. */
export function carryOver(
  lines: readonly SharedLine[],
  bytes: number,
  arrived: () => void,
  lost: () => void
): () => void {
  let left = lines.length
  const stops: Array<() => void> = []
  const stop = (): void => {
    for (const one of stops) one()
  }
  const onLost = (): void => {
    stop()
    lost()
  }
  for (const line of lines) {
    const stopOne = line.carry(
      bytes,
      () => {
        left--
        if (left === 0) arrived()
      },
      onLost
    )
    stops.push(stopOne)
  }
  return stop
}
