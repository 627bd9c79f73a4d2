/**
 * Makes the tables of the results, and nothing is typed by hand: `bench/results/README.md`, and with `--readme` the
 * figures between the markers of the project's README.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { parseCode } from '../src/erasure/erasure-coder.ts'
import { bestMark, bestOf, costOf } from '../src/sim/scale/choices.ts'
import { type Figure, type Result, type Row, readResults } from './result.ts'
import { floorOf } from './throughput/floor.ts'

const resultsDirectory = fileURLToPath(new URL('results', import.meta.url))
const readmeFile = fileURLToPath(new URL('../README.md', import.meta.url))

const markers = { begin: '<!-- figures:begin -->', end: '<!-- figures:end -->' }

/** Three significant digits, without an exponent. */
export function formatNumber(value: number): string {
  if (value === 0) return '0'
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  const rounded = Number(value.toPrecision(3))
  return digits > 6 ? rounded.toExponential(2) : rounded.toFixed(digits)
}

/** `52.1 (50.3 to 53.0)`: the median, and how far the samples spread. */
export function formatFigure({ median, min, max, samples }: Figure): string {
  return samples.length === 1
    ? formatNumber(median)
    : `${formatNumber(median)} (${formatNumber(min)} to ${formatNumber(max)})`
}

export function table(header: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(header), line(header.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n')
}

/** One table for each set of rows that have the same figures. */
function rowTables(rows: readonly Row[]): string {
  const groups = Map.groupBy(rows, ({ figures }) => columnsOf(figures).join('\n'))
  return [...groups.values()]
    .map((group) => {
      const names = Object.keys(group[0]!.figures)
      return table(
        ['', ...columnsOf(group[0]!.figures)],
        group.map(({ label, run, figures }) => [
          `${label}${runOf(run)}`,
          ...names.map((name) => formatFigure(figures[name]!))
        ])
      )
    })
    .join('\n\n')
}

/** Of a row that is not of the file's own run. */
const runOf = (run: Row['run']): string =>
  run === undefined
    ? ''
    : ` (${run.startedAt.slice(0, 10)}, ${run.commit.hash?.slice(0, 12) ?? 'no commit'}, load ${formatNumber(run.loadBefore)})`

const columnsOf = (figures: Record<string, Pick<Figure, 'unit'>>): string[] =>
  Object.entries(figures).map(([name, { unit }]) => `${name}, ${unit}`)

export function provenance({ name, commit, machine, scale, seed, startedAt }: Result): string {
  const source =
    commit.hash === null
      ? 'sources outside git'
      : `commit ${commit.hash.slice(0, 12)}${commit.dirty ? ' with changes not committed' : ''}`
  const small = name === 'live' ? 'short, or only simulated' : 'smoke size'
  return [
    `${machine.cpu}, ${machine.cores} cores, ${formatNumber(machine.memoryBytes / 1e9)} GB of memory, ${machine.platform}, kernel ${machine.kernel}`,
    `Node ${machine.node}, ${machine.fileSystem}, load ${formatNumber(machine.loadBefore)} before the run`,
    `${source}, seed ${seed}, ${startedAt.slice(0, 10)}${scale === 'smoke' ? `, ${small}: not to be quoted` : ''}`
  ].join('; ')
}

export function renderResult(result: Result): string {
  const { title, parameters, notes, limits } = result
  const parts = [`## ${title}`, `${provenance(result)}.`, ...partsOf(result)]
  if (limits !== undefined) parts.push('### The machine, in the same run', rowTables(limits))
  if (limits !== undefined && result.name === 'throughput') parts.push(...floorParts(result, limits))
  parts.push(...verdictOf(result))
  parts.push(notes.map((note) => `- ${note}`).join('\n'))
  parts.push(
    `Parameters: ${Object.entries(parameters)
      .map(([name, value]) => `${name} ${value}`)
      .join('; ')}.`
  )
  return `${parts.join('\n\n')}\n`
}

/** What went wrong; where nothing did, what that says. */
function verdictOf({ name, failures = [] }: Result): string[] {
  if (failures.length > 0) return failures.map((failure) => `**Failed:** ${failure}`)
  if (name === 'repair')
    return ['Of every scenario all objects were what was stored, byte for byte, and no segment was ever seen below k.']
  return []
}

/** In place of a figure that there is none of. */
const absent = '–'
const cellOf = (figures: Row['figures'], name: string): string =>
  figures[name] === undefined ? absent : formatFigure(figures[name])

function partsOf(result: Result): string[] {
  if (result.name === 'churn') return churnParts(result)
  if (result.name === 'live') return liveParts(result)
  return [rowTables(result.rows)]
}

/** What was measured, beside what was foretold; whether they agree; and margins over the run. */
function liveParts({ rows, scale }: Result): string[] {
  const of = (kind: string): Row[] => rows.filter(({ id }) => id.startsWith(`${kind}-`))
  const [margins, agreements, samples] = [of('margins'), of('agreement'), of('samples')]
  const parts = [transposed(rows.filter(isRun))]
  if (agreements.length > 0) parts.push('### Whether the simulator foretold it', rowTables(agreements))
  if (margins.length > 0)
    parts.push(
      '### Margins',
      rowTables(margins),
      `![live-margins](live-margins${scale === 'full' ? '' : '.smoke'}.svg)`
    )
  if (samples.length > 0) parts.push(`Only in the JSON: ${samples.map(({ label }) => label).join('; ')}.`)
  return parts
}

/** Of the live benchmark, the rows that say how a run went: beside them are samples, margins and agreements. */
const isRun = ({ id }: Row): boolean => !/^(?:margins|agreement|samples)-/.test(id)

/** What was measured, each beside what was foretold, whatever a run has none of; and what went wrong. */
function liveSummary(result: Result): string[] {
  const { rows, parameters } = result
  const shown = ['success', 'firstByteMsP50', 'readMsP95', 'decodeRate', 'repairTraffic', 'meanMargin', 'lostObjects']
  const runs = rows.filter(isRun)
  const unitOf = (name: string): string => runs.find(({ figures }) => figures[name])?.figures[name]?.unit ?? absent
  return [
    table(
      [
        `Retrieval under churn: ${parameters.providers} providers, ${parameters.speed} times as fast`,
        ...shown.map((name) => `${name}, ${unitOf(name)}`)
      ],
      runs.map(({ label, figures }) => [label, ...shown.map((name) => cellOf(figures, name))])
    ),
    ...verdictOf(result)
  ]
}

/** Rows become columns: for few of them with many figures. */
function transposed(rows: readonly Row[]): string {
  const units = new Map(rows.flatMap(({ figures }) => Object.entries(figures).map(([name, { unit }]) => [name, unit])))
  return table(
    ['', ...rows.map(({ label }) => label)],
    namesIn(rows).map((name) => [`${name}, ${units.get(name)}`, ...rows.map(({ figures }) => cellOf(figures, name))])
  )
}

/** All names of figures: what only one row has follows what it follows there. */
function namesIn(rows: readonly Row[]): string[] {
  const names: string[] = []
  for (const { figures } of rows) {
    let last = -1
    for (const name of Object.keys(figures)) {
      const at = names.indexOf(name)
      last = at >= 0 ? at : last + 1
      if (at < 0) names.splice(last, 0, name)
    }
  }
  return names
}

/** A table for each churn model, and one for what is not of any. */
function churnParts({ rows, scale }: Result): string[] {
  const modelOf = ({ id }: Row): string => /^(?:choice-)?([a-z]+)\//.exec(id)?.[1] ?? ''
  const plots = ['churn-cost', 'churn-loss', 'churn-reads', 'churn-theory']
  const suffix = scale === 'full' ? '' : '.smoke'
  return [
    ...[...Map.groupBy(rows, modelOf)].flatMap(([model, those]) => [
      model === '' ? '### Theory, and size' : `### Churn model: ${model}`,
      rowTables(those)
    ]),
    plots.map((name) => `![${name}](${name}${suffix}.svg)`).join('\n\n')
  ]
}

/** For each churn model ours as it is, the alternative to beat, and what of its bytes ours takes. */
function churnSummary({ rows }: Result): string {
  const policies = rows.filter(({ figures }) => figures.stored !== undefined)
  const ratio = (value: number | undefined): string =>
    value === undefined || value === 0 ? 'none' : formatNumber(value) // 0 is written where none was as good
  const lines = [...Map.groupBy(policies, ({ id }) => id.split('/')[0]!)].flatMap(([model, those]) => {
    const verdicts = those.map(({ label, figures }) => ({
      label: label.slice(model.length + 2),
      lost: { measured: figures.lost!.median, high: figures.lostAtMost!.median },
      done: figures.success!.median / 100,
      within10s: figures.within10s!.median,
      stored: figures.stored!.median,
      repair: figures.repair!.median
    }))
    const own = verdicts.find(({ label }) => label.startsWith('holdfast'))
    const best = bestOf(verdicts.filter((one) => one !== own))
    const asItIs = own === undefined || best === undefined ? undefined : costOf(own) / costOf(best)
    const choice = rows.find(({ id, label }) => id.startsWith(`choice-${model}/`) && label.includes(bestMark))?.figures
    return verdicts
      .filter((one) => one === own || one.label === best?.label)
      .map(({ label, lost, done, within10s, stored, repair }) => [
        `${model}: ${label}`,
        `${formatNumber(lost.measured)} (below ${formatNumber(lost.high)})`,
        formatNumber(100 * done),
        formatNumber(within10s),
        formatNumber(stored),
        formatNumber(repair),
        ...(label === best?.label
          ? ['1', '', '', '']
          : [
              ratio(asItIs),
              ratio(choice?.atOnceRatio?.median),
              ratio(choice?.ratio?.median),
              ratio(choice?.leastRatio?.median)
            ])
      ])
  })
  return table(
    [
      'Simulated churn: ours, and the best alternative',
      'lost, a year and million objects',
      'reads done, %',
      'within 10 s, %',
      'stored, bytes a byte',
      'moved by repair, bytes a byte and month',
      'stored and moved, of the best alternative’s',
      'of a choice of ours that is as good',
      'the same, if missing shards wait like others',
      'least of any MDS code'
    ],
    lines
  )
}

/** What the steps cost alone, beside what the network took. */
function floorParts({ parameters, rows }: Result, limits: readonly Row[]): string[] {
  const floor = floorOf(limits, parseCode(String(parameters.code)))
  const lines = rows
    .filter(({ figures }) => figures.gatewayCpu?.unit === 'CPU-s/GB')
    .map(({ id, label, figures }) => {
      const least = (id.startsWith('put') ? floor.put : floor.get).reduce((sum, { cpu }) => sum + cpu, 0)
      const taken = figures.gatewayCpu!.median + figures.providersCpu!.median
      return [label, formatNumber(least), formatNumber(taken), formatNumber(taken / least)]
    })
  const formula = (verb: 'put' | 'get'): string =>
    `${verb.toUpperCase()}: ${floor[verb].map(({ what, cpu }) => `${what} (${formatNumber(cpu)})`).join(' + ')}`
  return [
    '### CPU of gateway and providers beside that of the steps alone',
    table(['', 'steps alone, CPU-s/GB', 'measured, CPU-s/GB', 'times'], lines),
    `Steps alone are computed from the machine's figures above, in CPU-seconds a GB of object. ${formula('put')}. ${formula('get')}.`
  ]
}

const order = ['throughput', 'memory', 'repair', 'custody', 'churn', 'live', 'limits', 'kernel', 'runtimes']

export function renderReport(results: readonly Result[]): string {
  const sorted = results.toSorted((a, b) => order.indexOf(a.name) - order.indexOf(b.name))
  const head = [
    '# Results',
    'Made by `node bench/report.ts` from the JSON files beside this one, which have every sample. Median (least to most); MB is 10^6 bytes, GB 10^9. Every answer was checked before its time counted.'
  ]
  if (sorted.length === 0) head.push('No full run is recorded yet: `npm run bench -- --full`.')
  return `${[...head, ...sorted.map((result) => renderResult(result).trimEnd())].join('\n\n')}\n`
}

/** @returns the path of the file written */
export async function writeReport(directory: string): Promise<string> {
  const file = join(directory, 'README.md')
  await writeFile(file, renderReport(await readResults(directory)))
  return file
}

/** The few figures of the front page. */
export function renderSummary(results: readonly Result[]): string {
  const find = (name: string): Result | undefined => results.find((result) => result.name === name)
  const throughput = find('throughput')
  const memory = find('memory')
  const repair = find('repair')
  const parts: string[] = []
  if (throughput !== undefined) {
    const { rows, limits = [], parameters } = throughput
    const having = (figure: string): Row[] => rows.filter(({ figures }) => figures[figure] !== undefined)
    const cell = (row: Row, figure: string): string => formatFigure(row.figures[figure]!)
    parts.push(
      `${parameters.providers} providers and a gateway, code ${parameters.code}, client included, on one machine: ${provenance(throughput)}.`,
      table(
        ['', 'MB/s', 'CPU-s/GB, gateway', 'CPU-s/GB, all providers'],
        having('rate').map((row) => [row.label, cell(row, 'rate'), cell(row, 'gatewayCpu'), cell(row, 'providersCpu')])
      ),
      table(
        ['', 'ops/s', 'p50, ms', 'p99, ms'],
        having('operations').map((row) => [row.label, cell(row, 'operations'), cell(row, 'p50'), cell(row, 'p99')])
      ),
      table(
        ["The machine's own limits, in the same run", 'MB/s', 'CPU-s/GB'],
        limits.map((row) => [row.label, cell(row, 'rate'), cell(row, 'cpu')])
      )
    )
  }
  if (memory !== undefined) {
    parts.push(
      table(
        ["The gateway's peak memory", 'MB'],
        memory.rows.map(({ label, figures }) => [label, formatFigure(figures.gatewayPeak!)])
      )
    )
  }
  if (repair !== undefined) parts.push(...repairParts(repair))
  const churn = find('churn')
  if (churn !== undefined) parts.push(churnSummary(churn))
  const live = find('live')
  if (live !== undefined) parts.push(...liveSummary(live))
  if (parts.length === 0) return 'No full run is recorded yet.'
  parts.push(
    'Median (least to most of the samples). All figures, with how they were taken: [bench/results](bench/results/README.md).'
  )
  return parts.join('\n\n')
}

/** How each way to lose every provider, one after another, went. */
function repairParts(result: Result): string[] {
  const { parameters, rows } = result
  const { providers, objects, objectBytes, code, offlineGrace } = parameters
  const cell = ({ figures }: Row, name: string): string => formatFigure(figures[name]!)
  return [
    `Every one of ${providers} providers replaced, one after another (or a failure domain at a time), ${formatNumber(Number(objectBytes) / 1e9)} GB in ${objects} objects at ${code}, an absence of ${offlineGrace} forgiven.`,
    table(
      [
        'Providers are',
        'time to full margin, s',
        'bytes moved / least possible',
        'least margin, shards',
        'reads failed, %'
      ],
      rows.map((row) => [
        row.label,
        ...['toFull', 'overTheory', 'leastMargin', 'failedReads'].map((name) => cell(row, name))
      ])
    ),
    ...verdictOf(result)
  ]
}

/** @throws when the markers are not there, once each, in order */
export function replaceFigures(text: string, figures: string): string {
  const begin = text.indexOf(markers.begin)
  const end = text.indexOf(markers.end)
  if (begin < 0 || end < begin || text.split(markers.begin).length > 2 || text.split(markers.end).length > 2) {
    throw new Error(`expected ${markers.begin} and ${markers.end}, once each and in this order`)
  }
  return `${text.slice(0, begin + markers.begin.length)}\n${figures}\n${text.slice(end)}`
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { readme: { type: 'boolean' }, out: { type: 'string' } } })
  const directory = values.out ?? resultsDirectory
  process.stderr.write(`written: ${await writeReport(directory)}\n`)
  if (values.readme === true) {
    const figures = renderSummary(await readResults(directory))
    await writeFile(readmeFile, replaceFigures(await readFile(readmeFile, 'utf8'), figures))
    process.stderr.write(`written: ${readmeFile}\n`)
  }
}
