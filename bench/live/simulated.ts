/** The same workload in the simulator. */

import type { ChurnReport } from '../../src/sim/churn/report.ts'
import { simulateChurn } from '../../src/sim/churn/simulate.ts'
import type { ChurnWorkload } from '../../src/sim/churn/workload.ts'

export const foretell = (workload: ChurnWorkload, signal: AbortSignal): Promise<ChurnReport> =>
  simulateChurn(workload, { signal })
