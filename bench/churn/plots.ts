/** SVG plots of a result's rows, by Vega-Lite: nothing in them that is not in the JSON. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'
import { marginPlot } from '../live/plots.ts'
import type { Result, Row } from '../result.ts'

interface Plot {
  name: string
  spec: TopLevelSpec
}

const schema = 'https://vega.github.io/schema/vega-lite/v6.json'
const width = 560

/** Rows are named `MODEL/POLICY`. */
const partsOf = ({ id }: Row): { model: string; policy: string } => {
  const [model = '', policy = ''] = id.split('/')
  return { model, policy }
}

const rowsOf = ({ rows }: Result, figure: string): Row[] => rows.filter(({ figures }) => figures[figure] !== undefined)

function costPlot(result: Result): Plot {
  const values = rowsOf(result, 'stored').flatMap((row) => {
    const { model, policy } = partsOf(row)
    return (['stored', 'repair'] as const).map((part) => ({ model, policy, part, bytes: row.figures[part]!.median }))
  })
  return {
    name: 'churn-cost',
    spec: {
      $schema: schema,
      title: 'Bytes stored, and moved by repair in 30 days, for each byte of data',
      data: { values },
      facet: { row: { field: 'model', type: 'nominal', title: null, header: { labelAngle: 0, labelAlign: 'left' } } },
      spec: {
        width,
        mark: 'bar',
        encoding: {
          y: { field: 'policy', type: 'nominal', title: null },
          x: { field: 'bytes', type: 'quantitative', title: 'bytes a byte' },
          color: { field: 'part', type: 'nominal', title: null }
        }
      }
    }
  }
}

/** What nobody lost is drawn where one in a hundred million would be. */
const lossFloor = 0.01

function lossPlot(result: Result): Plot {
  const values = rowsOf(result, 'lost').map((row) => {
    const { model, policy } = partsOf(row)
    const { lost, stored, repair } = row.figures
    const cost = stored!.median + repair!.median
    return { model, policy, cost, lost: Math.max(lossFloor, lost!.median) }
  })
  return {
    name: 'churn-loss',
    spec: {
      $schema: schema,
      title: `Objects lost a year, of a million (0 is drawn as ${lossFloor}), beside what it costs`,
      data: { values },
      facet: { field: 'model', type: 'nominal', title: null },
      columns: 2,
      spec: {
        width: width / 2,
        height: 160,
        mark: { type: 'point', filled: true, size: 70 },
        encoding: {
          x: { field: 'cost', type: 'quantitative', title: 'bytes stored and moved in 30 days, a byte' },
          y: { field: 'lost', type: 'quantitative', scale: { type: 'log' }, title: 'lost' },
          color: { field: 'policy', type: 'nominal', title: null },
          shape: { field: 'policy', type: 'nominal', title: null }
        }
      },
      resolve: { scale: { x: 'shared', y: 'shared' } }
    }
  }
}

function successPlot(result: Result): Plot {
  const values = rowsOf(result, 'success').map((row) => {
    const { model, policy } = partsOf(row)
    return { model, policy, failed: Math.max(1e-6, 1 - row.figures.within10s!.median / 100) }
  })
  return {
    name: 'churn-reads',
    spec: {
      $schema: schema,
      title: 'Share of reads that did not give the object within 10 s (0 is drawn as 1e-6)',
      data: { values },
      width,
      mark: { type: 'point', filled: true, size: 70 },
      encoding: {
        y: { field: 'model', type: 'nominal', title: null },
        x: { field: 'failed', type: 'quantitative', scale: { type: 'log' }, title: 'share' },
        color: { field: 'policy', type: 'nominal', title: null },
        shape: { field: 'policy', type: 'nominal', title: null }
      }
    }
  }
}

/** A logarithmic axis has no zero. */
const atLeast = (probability: number): number => Math.max(1e-15, probability)

function theoryPlot(result: Result): Plot {
  const values = rowsOf(result, 'theory').map(({ id, figures }) => ({
    id,
    theory: atLeast(figures.theory!.median),
    mean: atLeast(figures.simulated!.median),
    low: atLeast(figures.low!.median),
    high: atLeast(figures.high!.median)
  }))
  const scale = { type: 'log' } as const
  const x = { field: 'theory', type: 'quantitative', scale, title: 'Markov model' } as const
  return {
    name: 'churn-theory',
    spec: {
      $schema: schema,
      title: 'Probability that a segment is lost within a year: simulated (95%), beside theory',
      data: { values },
      width,
      height: 320,
      layer: [
        {
          mark: 'rule',
          encoding: {
            x,
            y: { field: 'low', type: 'quantitative', scale, title: 'simulated' },
            y2: { field: 'high' }
          }
        },
        { mark: { type: 'point', filled: true }, encoding: { x, y: { field: 'mean', type: 'quantitative', scale } } },
        {
          mark: { type: 'line', strokeDash: [4, 4] },
          encoding: { x, y: { field: 'theory', type: 'quantitative', scale } }
        }
      ]
    }
  }
}

export function plotsOf(result: Result): Plot[] {
  const plots: Plot[] = []
  if (rowsOf(result, 'stored').length > 0) plots.push(costPlot(result), lossPlot(result), successPlot(result))
  if (rowsOf(result, 'theory').length > 0) plots.push(theoryPlot(result))
  const margins = marginPlot(result)
  if (margins !== undefined) plots.push(margins)
  return plots
}

export async function renderPlot({ spec }: Plot): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: 'none' })
  try {
    return await view.toSVG()
  } finally {
    view.finalize()
  }
}

/** @returns the files written */
export async function writePlots(directory: string, result: Result): Promise<string[]> {
  await mkdir(directory, { recursive: true })
  const files: string[] = []
  for (const plot of plotsOf(result)) {
    const file = join(directory, `${plot.name}${result.scale === 'full' ? '' : '.smoke'}.svg`)
    await writeFile(file, `${await renderPlot(plot)}\n`)
    files.push(file)
  }
  return files
}
