/**
 * Comings and goings of providers, in order of time: what a churn model draws, a trace file holds, and every policy is
 * put through alike. A year of 10,000 restless providers is 17 million events, so one is a number: seconds, provider and
 * kind in 44 bits.
 */
import { HoldfastError } from '../../base/errors.ts'

/**
 * `off`, `on`: with the disk as it was. `leaves`: for good, and its disk with it. `joins`: somebody new in its place, with
 * nothing. `wiped`: the disk is gone, and its owner goes on with an empty one.
 */
export const eventKinds = ['off', 'on', 'leaves', 'joins', 'wiped'] as const
export type EventKind = (typeof eventKinds)[number]
export const kindCodes = { off: 0, on: 1, leaves: 2, joins: 3, wiped: 4 } as const satisfies Record<EventKind, number>

export const providersMax = 60_000
/** A little over two years. */
export const secondsMax = 2 ** 26 - 1
const eventsMax = 100_000_000

/** What is known of a provider, and what fails with it. */
export interface ProviderTraits {
  region: number
  operator: number
  /** Of the same datacenter: one address prefix. */
  network: number
  version: number
}

export interface Timeline {
  traits: readonly ProviderTraits[]
  /** Whether each is there at the beginning. */
  isOnAtStart: Uint8Array
  seconds: number
  /** Packed, ascending. */
  events: Float64Array
}

const kindSpan = 8
const providerSpan = 2 ** 16
const secondSpan = kindSpan * providerSpan

export const packEvent = (second: number, provider: number, kind: number): number =>
  second * secondSpan + provider * kindSpan + kind
export const secondOf = (event: number): number => Math.floor(event / secondSpan)
/** The lower 19 bits, which fit an integer operation. */
const rest = (event: number): number => event % secondSpan
export const providerOf = (event: number): number => rest(event) >>> 3
export const kindOf = (event: number): number => rest(event) & 7

/** Takes events in any order. */
export class TimelineBuilder {
  #events = new Float64Array(1024)
  #count = 0

  /** Of one provider no two events fall on the same second: that is the caller's to see to. */
  add(second: number, provider: number, kind: EventKind): void {
    if (this.#count === eventsMax) throw new HoldfastError('BAD_INPUT', `more than ${eventsMax} events`)
    if (this.#count === this.#events.length) {
      const larger = new Float64Array(2 * this.#count)
      larger.set(this.#events)
      this.#events = larger
    }
    this.#events[this.#count++] = packEvent(second, provider, kindCodes[kind])
  }

  build(traits: readonly ProviderTraits[], isOnAtStart: Uint8Array, seconds: number): Timeline {
    return { traits, isOnAtStart, seconds, events: this.#events.slice(0, this.#count).sort() }
  }
}

/** What may follow what: found out for each provider when a timeline is made or read, so that nobody else has to ask. */
export const followers: Record<'on' | 'off' | 'empty', readonly EventKind[]> = {
  on: ['off', 'leaves', 'wiped'],
  off: ['on', 'leaves'],
  empty: ['joins']
}

export function stateAfter(kind: EventKind): 'on' | 'off' | 'empty' {
  if (kind === 'off') return 'off'
  return kind === 'leaves' ? 'empty' : 'on'
}

/** Share of all disks that are lost in a month of 30 days. */
export function lostInMonth({ traits, seconds, events }: Timeline): number {
  let lost = 0
  for (const event of events) if (kindOf(event) === kindCodes.leaves || kindOf(event) === kindCodes.wiped) lost++
  return (lost / traits.length) * ((30 * 86_400) / seconds)
}
