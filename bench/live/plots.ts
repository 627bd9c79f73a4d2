/** Margins over time, of what was measured and of what was foretold. */
import type { TopLevelSpec } from 'vega-lite'
import type { Result } from '../result.ts'

/** Undefined where nobody looked. */
export function marginPlot({ rows }: Result): { name: string; spec: TopLevelSpec } | undefined {
  const values = rows.flatMap(({ id, figures: { at, least, mean } }) => {
    const match = /^margins-(.+)\/(live|simulated)$/.exec(id)
    if (match === null || at === undefined || least === undefined || mean === undefined) return []
    const [, trace, side] = match
    return at.samples.flatMap((seconds, i) => [
      { trace, side, what: 'least of any segment', seconds, margin: least.samples[i]! },
      { trace, side, what: 'mean', seconds, margin: mean.samples[i]! }
    ])
  })
  if (values.length === 0) return undefined
  return {
    name: 'live-margins',
    spec: {
      $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
      title: 'Shards beyond k that are there, over the run',
      data: { values },
      facet: { row: { field: 'trace', type: 'nominal', title: null } },
      spec: {
        width: 560,
        height: 200,
        mark: { type: 'line', interpolate: 'step-after' },
        encoding: {
          x: { field: 'seconds', type: 'quantitative', title: 's' },
          y: { field: 'margin', type: 'quantitative', title: 'shards' },
          color: { field: 'what', type: 'nominal', title: null },
          strokeDash: { field: 'side', type: 'nominal', title: null }
        }
      }
    }
  }
}
