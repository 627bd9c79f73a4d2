/**
 * How long a read takes, for the scale simulator: round trips by pairs of regions, lognormal around their medians; what a
 * provider is like by itself; and its line. Medians are those between large public clouds' regions, rounded, from the ping
 * tables that the clouds publish (2023 to 2025); they are orders of magnitude, not measurements of this network.
 */
import type { Random } from '../../base/random.ts'
import { standardNormal } from './distributions.ts'

export const regions = ['na', 'eu', 'as', 'sa', 'oc', 'af'] as const

/** Local time where most of a region's machines are, against UTC. */
export const zoneHours = [-6, 1, 8, -4, 10, 1] as const

/** Shares of providers and of readers: as of IPFS peers by continent (ProbeLab, RFM 2), rounded. */
const shares = [0.35, 0.35, 0.2, 0.04, 0.04, 0.02] as const

/** Median round trip, ms. */
const roundTripMs: ReadonlyArray<readonly number[]> = [
  [45, 95, 170, 130, 170, 220],
  [95, 25, 190, 200, 260, 150],
  [170, 190, 70, 310, 130, 290],
  [130, 200, 310, 40, 310, 340],
  [170, 260, 130, 310, 30, 400],
  [220, 150, 290, 340, 400, 50]
]
/** Median round trip between two regions, ms. */
export const roundTripOf = (from: number, to: number): number => roundTripMs[from]![to]!

const jitterSigma = 0.3
/** TCP, TLS 1.3 and the request. */
const roundTrips = 3
const serviceMs = 10

export function regionOf(random: Random): number {
  let at = random.next()
  for (const [region, share] of shares.entries()) {
    at -= share
    if (at < 0) return region
  }
  return 0
}

export interface Line {
  region: number
  /** Multiplies its delays. */
  slowness: number
  bytesPerMs: number
}

/** 40 Mbit/s in the middle, a quarter below 23, a quarter above 69, whatever the region; delays half as long again in one of five. */
export function lineOf(region: number, random: Random): Line {
  return {
    region,
    slowness: Math.exp(0.5 * standardNormal(random)),
    bytesPerMs: 5000 * Math.exp(0.8 * standardNormal(random))
  }
}

/** What to expect of a read of so many bytes: what the directory would have learned. */
export function expectedMs(reader: number, line: Line, bytes: number): number {
  return roundTrips * roundTripOf(reader, line.region) * line.slowness + serviceMs + bytes / line.bytesPerMs
}

/** One read. */
export const drawnMs = (expected: number, random: Random): number =>
  expected * Math.exp(jitterSigma * standardNormal(random))
