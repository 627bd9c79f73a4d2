/** The same workload in the simulator. */
import { existsSync } from 'node:fs'
import type { ChurnReport } from '../../src/sim/churn/report.ts'
import type { ChurnWorkload } from '../../src/sim/churn/workload.ts'

type Simulate = (workload: ChurnWorkload, options?: { signal?: AbortSignal }) => Promise<ChurnReport>

const simulator = new URL('../../src/sim/churn/simulate.ts', import.meta.url)

/** @returns undefined in a checkout that has no such simulator */
export async function foretell(workload: ChurnWorkload, signal: AbortSignal): Promise<ChurnReport | undefined> {
  if (!existsSync(simulator)) return undefined
  const { simulateChurn } = (await import(simulator.href)) as { simulateChurn: Simulate }
  return await simulateChurn(workload, { signal })
}
