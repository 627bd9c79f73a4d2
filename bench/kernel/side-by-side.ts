import { collect, figuresOf, type RowSpec, type Sampling } from '../harness.ts'
import type { Row } from '../result.ts'

/**
 * Rows that are to be compared: one sample of each in turn, so that whatever else the machine does falls on all alike, and
 * their ratios mean something on a busy one too.
 */
export async function measureSideBySide<F extends string>(
  specs: ReadonlyArray<Omit<RowSpec<F>, 'sampling' | 'signal'>>,
  { sampling, signal }: { sampling: Sampling; signal: AbortSignal }
): Promise<Row[]> {
  const rounds = await collect(
    sampling,
    async () => {
      const round: Record<F, number>[] = []
      for (const { take } of specs) {
        signal.throwIfAborted()
        round.push(await take())
      }
      return round
    },
    signal
  )
  return specs.map(({ id, label, units }, i) => {
    const samples = rounds.map((round) => round[i]!)
    return { id, label, figures: figuresOf(units, samples) }
  })
}
