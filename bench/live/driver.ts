/** Carries out what a trace says, each event at its time: who comes, goes, leaves, and loses a disk. */
import type { Clock } from '../../src/base/clock.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import type { ChurnEvent } from '../../src/sim/churn/workload.ts'
import { type EventKind, stateAfter } from '../../src/sim/scale/timeline.ts'

/** What can be done to the provider in a place. All of it resolves when it has taken effect. */
export interface Places {
  /** With whatever is on its disk. */
  start: (place: number) => Promise<void>
  /** `kill -9`. */
  kill: (place: number) => Promise<void>
  /** Its disk goes; of one that does not run. */
  remove: (place: number) => Promise<void>
  /** Its disk is emptied, its identity stays; of one that does not run. */
  empty: (place: number) => Promise<void>
  /** Somebody new, with a new identity, an empty disk and addresses of its own, starts there. */
  join: (place: number) => Promise<void>
}

/** How long after their time events began, since an earlier one of the same place was still under way. */
export interface Lateness {
  count: number
  meanMs: number
  maxMs: number
}

/** Events of one place that may wait; with more, starts take longer than sessions, and the trace is no longer what is run. */
const waitingMax = 8

export interface DriverInit {
  events: readonly ChurnEvent[]
  isOnAtStart: Uint8Array
  places: Places
  clock: Clock
  /** Called when an event is carried out, before what it takes. */
  onEvent: (event: ChurnEvent, lateMs: number) => void
}

interface PlaceState {
  state: ReturnType<typeof stateAfter>
  tail: Promise<void>
  waiting: number
}

export class ChurnDriver {
  readonly #init: DriverInit
  readonly #places: PlaceState[]
  #late = { count: 0, sumMs: 0, maxMs: 0 }
  #failure: { error: unknown } | undefined

  constructor(init: DriverInit) {
    this.#init = init
    this.#places = Array.from(init.isOnAtStart, (isOn) => ({
      state: isOn === 1 ? 'on' : 'off',
      tail: Promise.resolve(),
      waiting: 0
    }))
  }

  get lateness(): Lateness {
    const { count, sumMs, maxMs } = this.#late
    return { count, meanMs: count === 0 ? 0 : sumMs / count, maxMs }
  }

  /**
   * Resolves when the last event has been carried out.
   *
   * @param startedAt by the clock: where the times of events count from
   * @throws HoldfastError `OVERLOADED` when events wait for each other without end; what a place throws; the signal's reason
   */
  async run(startedAt: number, signal: AbortSignal): Promise<void> {
    const { events, clock } = this.#init
    try {
      for (const event of events) {
        const waitMs = startedAt + event.atMs - clock.now()
        if (waitMs > 0) await clock.sleep(waitMs, signal)
        signal.throwIfAborted()
        this.#throwFailure()
        this.#queue(event, startedAt, signal)
      }
    } finally {
      await Promise.all(this.#places.map(({ tail }) => tail))
    }
    this.#throwFailure()
  }

  /** Starts everybody who is away and has not left for good: all at once, to be called when nothing else is under way. */
  async bringBack(): Promise<void> {
    const away = this.#places.flatMap(({ state }, place) => (state === 'off' ? [place] : []))
    for (const place of away) this.#places[place]!.state = 'on'
    const started = await Promise.allSettled(away.map((place) => this.#init.places.start(place)))
    for (const outcome of started) if (outcome.status === 'rejected') throw outcome.reason
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }

  #queue(event: ChurnEvent, startedAt: number, signal: AbortSignal): void {
    const place = this.#places[event.provider]!
    if (place.waiting >= waitingMax) {
      const why = `provider ${event.provider} has ${waitingMax} events waiting for one under way: this machine is too slow for that speed`
      // Said before it is thrown: what waits is not carried out any more.
      this.#failure ??= { error: new HoldfastError('OVERLOADED', why) }
      this.#throwFailure()
    }
    place.waiting++
    place.tail = place.tail.then(async () => {
      place.waiting--
      if (this.#failure !== undefined || signal.aborted) return
      const lateMs = Math.max(0, this.#init.clock.now() - startedAt - event.atMs)
      this.#late.count++
      this.#late.sumMs += lateMs
      this.#late.maxMs = Math.max(this.#late.maxMs, lateMs)
      this.#init.onEvent(event, lateMs)
      place.state = stateAfter(event.kind)
      try {
        await this.#carryOut(event.kind, event.provider)
      } catch (error) {
        this.#failure ??= { error }
      }
    })
  }

  async #carryOut(kind: EventKind, place: number): Promise<void> {
    const { places } = this.#init
    switch (kind) {
      case 'off':
        return await places.kill(place)
      case 'on':
        return await places.start(place)
      case 'leaves':
        await places.kill(place)
        return await places.remove(place)
      case 'joins':
        return await places.join(place)
      case 'wiped':
        await places.kill(place)
        await places.empty(place)
        return await places.start(place)
    }
  }
}
