import { runSeed } from '../../src/sim/run.ts'

/** Runs seeds one after another; the first that fails is reported with its seed and its last events. */
export async function checkSeeds(from: number, count: number): Promise<Record<string, number>> {
  const totals: Record<string, number> = {}
  for (let seed = from; seed < from + count; seed++) {
    const { stats } = await runSeed(seed)
    for (const [what, times] of Object.entries(stats)) totals[what] = (totals[what] ?? 0) + times
  }
  return totals
}
