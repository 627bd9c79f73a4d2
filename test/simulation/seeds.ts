import { randomInt } from 'node:crypto'
import { expect } from 'vitest'
import { FailedRun, type RunResult, runSeed } from '../../src/sim/run.ts'

/** In each of two files. A seed costs half a CPU-second, and both files together are to take less than two minutes. */
export const randomSeeds = 100
/** For a machine that has much else to do. */
export const timeoutMs = 600_000

type Totals = Record<string, number>

/** Runs seeds one after another; the first that fails is reported with its seed and its last events. */
async function checkSeeds(from: number, count: number): Promise<Totals> {
  const totals: Totals = {}
  for (let seed = from; seed < from + count; seed++) addTo(totals, (await runSeed(seed)).stats)
  return totals
}

function addTo(totals: Totals, stats: RunResult['stats']): void {
  for (const [what, times] of Object.entries(stats)) totals[what] = (totals[what] ?? 0) + times
}

/** Seeds that are the same in every run, so that it is known how much happens in them. */
export async function checkFixedSeeds(from: number, count: number): Promise<void> {
  const totals = await checkSeeds(from, count)
  // A world in which nothing happens proves nothing.
  const strikes = ['fault slow', 'fault stalling', 'fault wiped', 'fault refuses', 'fault gateway killed', 'left']
  for (const what of ['put ok', 'get ok', ...strikes]) expect(totals[what] ?? 0, what).toBeGreaterThan(10)
  for (const what of ['run with audits', 'short run', 'full run']) expect(totals[what] ?? 0, what).toBeGreaterThan(3)
}

/** Seeds that nobody chose, or those of an earlier run, which `HOLDFAST_SEED` names by the first of both files'. */
export function drawSeeds(environment: NodeJS.ProcessEnv, file: 1 | 2): { named: number; from: number } {
  const named = firstSeed(environment.HOLDFAST_SEED)
  return { named, from: named + (file - 1) * randomSeeds }
}

function firstSeed(given: string | undefined): number {
  if (given === undefined || given === '') return randomInt(1_000_000, 900_000_000)
  if (!/^\d{1,9}$/.test(given)) throw new TypeError(`HOLDFAST_SEED is to be a number of up to 9 digits, not ${given}`)
  return Number(given)
}

/** Seeds that nobody chose: what one of them finds is new, and has to be kept. */
export async function checkRandomSeeds({ named, from }: { named: number; from: number }): Promise<void> {
  console.log(`seeds ${from} to ${from + randomSeeds - 1}; HOLDFAST_SEED=${named} has them again`)
  try {
    await checkSeeds(from, randomSeeds)
  } catch (error) {
    if (!(error instanceof FailedRun)) throw error
    const entry = JSON.stringify({ seed: error.seed, showed: 'what turned out to be wrong' })
    throw new Error(`${error.message}\nonce it is understood, this goes to fixtures/seeds/found.json: ${entry}`, {
      cause: error
    })
  }
}
