/** The providers of a run under churn: a machine in each place that the trace has, and what happens to it. */
import { HoldfastError } from '../../base/errors.ts'
import { GiB, hourMs } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { Machine } from '../machine.ts'
import type { Line } from '../network.ts'
import type { SeededRandom } from '../seeded-random.ts'
import type { Timeline, VirtualProcess } from '../virtual-clock.ts'
import { type ChurnCosts, perMegabyte } from './costs.ts'
import { type ChurnEvent, type ChurnWorkload, domainOf, linesOf, type ProviderLine } from './workload.ts'

/** Next door: a tenth of a millisecond each way, and whatever the line bears. */
const nextDoor: ProviderLine = { roundTripMs: 0.2, bytesPerSecond: Number.POSITIVE_INFINITY }
const capacityBytes = 1024 * GiB
const collectEveryMs = 4 * hourMs

interface Seat {
  machine: Machine | undefined
  /** Machines that were here. */
  count: number
  /** Changes with each event: a start that was on its way before is called off. */
  turn: number
}

export interface PopulationComponents {
  timeline: Timeline
  random: SeededRandom
  log: Log
  connect: (machine: Machine, process: VirtualProcess) => Line
  /** Hears of each provider that serves from now on. */
  onServing: (machine: Machine) => void
}

export class Population {
  /** All that there ever were. */
  readonly machines = new Map<string, Machine>()
  readonly #workload: ChurnWorkload
  readonly #components: PopulationComponents
  readonly #costs: ChurnCosts
  readonly #lines: ReadonlyArray<ProviderLine | undefined>
  readonly #seats: Seat[]

  constructor(workload: ChurnWorkload, costs: ChurnCosts, components: PopulationComponents) {
    this.#workload = workload
    this.#components = components
    this.#costs = costs
    this.#lines = linesOf(workload)
    this.#seats = workload.timeline.traits.map(() => ({ machine: undefined, count: 0, turn: 0 }))
    for (const at of this.#seats.keys()) this.#fill(at)
  }

  /** Those who are there at the beginning, at once. */
  begin(): void {
    const { isOnAtStart } = this.#workload.timeline
    for (const [at, { machine }] of this.#seats.entries()) if (isOnAtStart[at] === 1) this.#serve(machine!)
  }

  happens({ provider, kind }: ChurnEvent): void {
    const seat = this.#seats[provider]!
    seat.turn++
    const { machine } = seat
    switch (kind) {
      case 'off':
        machine?.crash('killed')
        return
      case 'leaves':
        machine?.retire('killed')
        seat.machine = undefined
        return
      case 'wiped':
        machine?.crash('killed')
        machine?.wipe('shards and leases')
        break
      case 'joins':
        this.#fill(provider)
        break
      case 'on':
        break
    }
    this.#startSoon(seat)
  }

  /** Everybody who is away and can come back does so. */
  return(): void {
    for (const seat of this.#seats) if (seat.machine?.isUp === false) this.#startSoon(seat)
  }

  /** Those who are there, or about to be. */
  seated(): Machine[] {
    return this.#seats.flatMap(({ machine }) => machine ?? [])
  }

  #startSoon(seat: Seat): void {
    const turn = ++seat.turn
    const { machine } = seat
    if (machine === undefined) throw new HoldfastError('INTERNAL', 'an empty place cannot be started')
    this.#components.timeline.schedule(this.#costs.startUpMs, () => {
      if (seat.turn === turn) this.#serve(machine)
    })
  }

  #serve(machine: Machine): void {
    machine.start()
    this.#components.onServing(machine)
  }

  #fill(at: number): void {
    const seat = this.#seats[at]!
    const { timeline, random, log, connect } = this.#components
    const { providerMs, providerMsPerMB, storeMs, storeMsPerMB } = this.#costs
    const { roundTripMs, bytesPerSecond } = this.#lines[at] ?? nextDoor
    const peerId = `provider-${at}-${seat.count++}`
    const operator = domainOf(this.#workload, at)
    seat.machine = new Machine(
      { timeline, random: random.fork(peerId), log, connect },
      {
        ...{ peerId, operator, capacityBytes, collectEveryMs, bytesPerSecond },
        host: `10.${at >> 8}.${at & 255}.1`, // private: it shares no network with anybody
        domains: [operator],
        skewMs: 0,
        latencyMs: roundTripMs / 2,
        serviceMs: (bytes) => providerMs + perMegabyte(bytes, providerMsPerMB),
        writeMs: (bytes) => storeMs + perMegabyte(bytes, storeMsPerMB)
      }
    )
    this.machines.set(peerId, seat.machine)
  }
}
