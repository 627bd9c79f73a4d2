/**
 * Virtual time: a queue of events ordered by (time, sequence), and processes that live on it. Nothing here obeys real
 * time, so a run depends on nothing but what its events do.
 *
 * The code under simulation is asynchronous, but all it waits for is virtual. Each event therefore runs in an immediate
 * of its own: Node empties the queues of microtasks and ticks between two immediates, so that everything an event sets
 * off has happened before the next begins. Code that used a thread pool, a socket or a real timer would escape this;
 * `test/simulation` shows that none does, by replaying seeds in another process.
 */
import { setImmediate } from 'node:timers'
import type { Clock } from '../base/clock.ts'
import { HoldfastError } from '../base/errors.ts'

interface ScheduledEvent {
  at: number
  sequence: number
  run: (() => void) | undefined
}

export interface TimelineInit {
  /** Milliseconds since the Unix epoch. */
  startAt?: number
  /** A run that takes more than this has lost its way. */
  eventsMax?: number
}

/** Milliseconds are whole, as they are in what is stored and sent. */
const defaultStartAt = 1_750_000_000_000
const defaultEventsMax = 5_000_000
/** Events in one turn of the event loop: a turn costs twenty times as much as an event. */
const eventsPerTurn = 128

export class Timeline {
  /** Called after each event has run its course, and before the next; what it throws ends the run. */
  afterEvent: () => void = () => {}
  readonly startAt: number
  readonly #eventsMax: number
  readonly #queue: ScheduledEvent[] = []
  #now: number
  #sequence = 0
  #events = 0

  constructor(init: TimelineInit = {}) {
    this.startAt = init.startAt ?? defaultStartAt
    this.#eventsMax = init.eventsMax ?? defaultEventsMax
    this.#now = this.startAt
  }

  get now(): number {
    return this.#now
  }

  /** Events that have run. */
  get events(): number {
    return this.#events
  }

  /** Runs `run` once `delayMs` (rounded up) have passed. Returns how to call it off. */
  schedule(delayMs: number, run: () => void): () => void {
    const event: ScheduledEvent = { at: this.#now + Math.max(0, Math.ceil(delayMs)), sequence: this.#sequence++, run }
    push(this.#queue, event)
    return () => {
      event.run = undefined
    }
  }

  /**
   * Lets time pass until `work` settles; resolves or rejects with it.
   *
   * @throws HoldfastError `INTERNAL` when nothing is left that could settle it, or after too many events; whatever an
   *   event or `afterEvent` throws
   */
  drive<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let isOver = false
      const end = (settle: () => void): void => {
        if (isOver) return
        isOver = true
        settle()
      }
      work.then(
        (value) => end(() => resolve(value)),
        (error: unknown) => end(() => reject(error))
      )
      const one = (): void => {
        if (isOver) return
        try {
          this.afterEvent()
          this.#runNext()
        } catch (error) {
          end(() => reject(error))
        }
      }
      const turn = (): void => {
        if (isOver) return
        for (let i = 0; i < eventsPerTurn; i++) setImmediate(one)
        setImmediate(turn)
      }
      turn()
    })
  }

  #runNext(): void {
    for (;;) {
      const event = pop(this.#queue)
      if (event === undefined)
        throw new HoldfastError('INTERNAL', 'nothing is left to happen, and the run has not ended')
      if (event.run === undefined) continue // called off
      this.#now = event.at
      this.#events++
      if (this.#events > this.#eventsMax) throw new HoldfastError('INTERNAL', `no end after ${this.#eventsMax} events`)
      event.run()
      return
    }
  }
}

/**
 * Something that runs on the timeline and can be killed: nothing that it waits for ever comes then, as after `kill -9`.
 * What it held in memory is garbage.
 */
export class VirtualProcess {
  readonly clock: Clock
  readonly died: Promise<void>
  readonly #timeline: Timeline
  readonly #die: () => void
  #isAlive = true

  /** @param skewMs how far its clock is ahead of the timeline's */
  constructor(timeline: Timeline, skewMs = 0) {
    this.#timeline = timeline
    const { promise, resolve } = Promise.withResolvers<void>()
    this.died = promise
    this.#die = resolve
    this.clock = {
      now: () => timeline.now + skewMs,
      sleep: (ms, signal) => this.#sleep(ms, signal)
    }
  }

  get isAlive(): boolean {
    return this.#isAlive
  }

  kill(): void {
    this.#isAlive = false
    this.#die()
  }

  /** As `Timeline.schedule`, unless the process has died by then. */
  schedule(delayMs: number, run: () => void): () => void {
    return this.#timeline.schedule(delayMs, () => {
      if (this.#isAlive) run()
    })
  }

  /** The same promise, except that it never settles once the process is dead. */
  wait<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      work.then(
        (value) => {
          if (this.#isAlive) resolve(value)
        },
        (error: unknown) => {
          if (this.#isAlive) reject(error)
        }
      )
    })
  }

  #sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      const cancel = this.schedule(ms, () => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      })
      const onAbort = (): void => {
        cancel()
        if (this.#isAlive) reject(signal?.reason)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
    })
  }
}

const isBefore = (a: ScheduledEvent, b: ScheduledEvent): boolean =>
  a.at < b.at || (a.at === b.at && a.sequence < b.sequence)

/** A binary heap: the first is the earliest. */
function push(heap: ScheduledEvent[], event: ScheduledEvent): void {
  let at = heap.length
  heap.push(event)
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (!isBefore(event, heap[parent]!)) break
    heap[at] = heap[parent]!
    at = parent
  }
  heap[at] = event
}

function pop(heap: ScheduledEvent[]): ScheduledEvent | undefined {
  const first = heap[0]
  const last = heap.pop()
  if (first === undefined || last === undefined || heap.length === 0) return first
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
    if (!isBefore(heap[child]!, last)) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = last
  return first
}
