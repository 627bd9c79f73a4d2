/**
 * Retrieval under churn, live: a trace carried out on real processes, over lines that a proxy puts between them, while
 * clients read and write; and beside it what the simulator says of the very same workload.
 */
import { join } from 'node:path'
import { messageOf } from '../../src/base/errors.ts'
import { KiB, MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { formatCode, parseCode } from '../../src/erasure/erasure-coder.ts'
import { type Agreement, agreementOf } from '../../src/sim/churn/agreement.ts'
import { type ChurnFigures, type ChurnReport, figuresOfChurn } from '../../src/sim/churn/report.ts'
import type { ChurnWorkload } from '../../src/sim/churn/workload.ts'
import { type BenchContext, type Benchmark, figureOf, type Outcome, WrongAnswerError } from '../harness.ts'
import { formatNumber } from '../report.ts'
import type { Figure, Row } from '../result.ts'
import type { Lateness } from './driver.ts'
import { runLive } from './run.ts'
import { foretell } from './simulated.ts'
import { type WorkloadChoice, workloadOf } from './workloads.ts'

const smokeProviders = 8
const smokeChoice = {
  speed: 1200,
  durationMs: 8 * secondMs,
  objects: 6,
  bytesMin: 16 * KiB,
  bytesMax: MiB,
  clients: 2,
  offlineGraceMs: secondMs,
  repairPatienceMs: 2 * secondMs
} as const

/** Of each: six hours of the trace at the usual speed. */
const fullDurationMs = 6 * minuteMs
const fullTraces = ['weibull', 'ipfs', 'diurnal'] as const

const fullProviders = 24

/** What runs at each size: with as many providers, and the code, that the context asks for. */
function choicesOf({ scale, seed, providers, code }: BenchContext): WorkloadChoice[] {
  const given = { seed, ...(code === undefined ? {} : { code: parseCode(code) }) }
  if (scale === 'smoke') return [{ ...smokeChoice, ...given, trace: 'weibull', providers: providers ?? smokeProviders }]
  const durationMs = fullDurationMs
  return fullTraces.map((trace) => ({ ...given, trace, durationMs, providers: providers ?? fullProviders }))
}

export interface LiveOptions {
  choices?: readonly WorkloadChoice[]
  /** Only the simulator. */
  isSimulatedOnly?: boolean
  /** Whether a figure that the simulator does not foretell within its bound counts as a failure of the run. */
  isJudging?: boolean
}

/** Of the models that `npm run bench` runs, or of what somebody chose. */
export function liveBenchmark({ choices, isSimulatedOnly = false, isJudging }: LiveOptions = {}): Benchmark {
  return {
    name: 'live',
    title: isSimulatedOnly ? 'Retrieval under churn, simulated' : 'Retrieval under churn, live and simulated',
    run: async (context) => {
      const rows: Row[] = []
      const failures: string[] = []
      const parameters: Outcome['parameters'] = {}
      for (const choice of choices ?? choicesOf(context)) {
        const workload = await workloadOf(choice)
        Object.assign(parameters, parametersOf(nameOf(choice), workload))
        const one = await runOne(nameOf(choice), workload, context, {
          isSimulatedOnly,
          // A smoke run is too short to agree on anything.
          isJudging: isJudging ?? context.scale === 'full'
        })
        rows.push(...one.rows)
        failures.push(...one.failures)
      }
      return { parameters, notes, rows, failures }
    }
  }
}

export const live = liveBenchmark()

/** `weibull`; of a file its name without what follows the first full stop. */
const nameOf = ({ trace }: WorkloadChoice): string => trace.replace(/^.*[\\/]/, '').replace(/(.)\..*$/, '$1')

async function runOne(
  trace: string,
  workload: ChurnWorkload,
  context: BenchContext,
  { isSimulatedOnly, isJudging }: Required<Omit<LiveOptions, 'choices'>>
): Promise<{ rows: Row[]; failures: string[] }> {
  const { directory, signal } = context
  const progress = (line: string): void => context.progress(`live: ${trace}: ${line}`)
  const rows: Row[] = []
  const failures: string[] = []
  let real: ChurnReport | undefined
  if (!isSimulatedOnly) {
    try {
      const run = await runLive({ workload, directory: join(directory, trace), progress, signal })
      real = run.report
      rows.push(rowOf(trace, 'live', run.report, run.lateness), marginRow(trace, 'live', run.report))
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof WrongAnswerError) throw error
      progress(messageOf(error))
      failures.push(`${trace}: ${messageOf(error)}`)
    }
  }
  progress('the same, simulated')
  const simulated = await foretell(workload, signal)
  rows.push(rowOf(trace, 'simulated', simulated), marginRow(trace, 'simulated', simulated))
  if (real === undefined) return { rows, failures }
  const agreements = agreementOf(real, simulated)
  rows.push(...agreements.flatMap((agreement) => agreementRow(trace, agreement)))
  if (isJudging) failures.push(...agreements.filter(({ isWithin }) => !isWithin).map((one) => disagreement(trace, one)))
  return { rows, failures }
}

const units = {
  success: 'share',
  within10s: 'share',
  firstByteMsP50: 'ms',
  firstByteMsP95: 'ms',
  firstByteMsP99: 'ms',
  readMsP50: 'ms',
  readMsP95: 'ms',
  readMsP99: 'ms',
  megabytesPerSecond: 'MB/s',
  requestsPerSecond: '1/s',
  hedgingWaste: 'share',
  decodeRate: 'share',
  repairTraffic: 'bytes a byte',
  repairOverTheory: 'x',
  leastMargin: 'shards',
  meanMargin: 'shards',
  fullShare: 'share',
  lostObjects: 'objects'
} as const satisfies Record<keyof ChurnFigures, string>

type Side = 'live' | 'simulated'

/** What there was nothing of, such as reads of a MiB, is left out. */
function rowOf(trace: string, side: Side, report: ChurnReport, lateness?: Lateness): Row {
  const values: Array<[name: string, unit: string, value: number]> = [
    ...(Object.entries(figuresOfChurn(report)) as Array<[keyof ChurnFigures, number]>).map(
      ([name, value]): [string, string, number] => [name, units[name], value]
    ),
    ['reads', 'asked', report.reads.asked],
    ['writes', 'asked', report.writes.asked],
    ['writesDone', 'share', report.writes.asked === 0 ? 1 : report.writes.done / report.writes.asked],
    ['writeMsP50', 'ms', report.writes.ms.p50],
    ['events', 'of the trace', Object.values(report.events).reduce((sum, count) => sum + count, 0)],
    ['lateMax', 'ms', lateness?.maxMs ?? 0]
  ]
  return { id: `${trace}/${side}`, label: `${trace}, ${side}${failuresOf(report)}`, figures: figuresFrom(values) }
}

const figuresFrom = (values: ReadonlyArray<[name: string, unit: string, value: number]>): Record<string, Figure> =>
  Object.fromEntries(
    values.filter(([, , value]) => Number.isFinite(value)).map(([name, unit, value]) => [name, figureOf(unit, [value])])
  )

/** ` (failed: 3 read SlowDown)`. */
function failuresOf({ reads, writes }: ChurnReport): string {
  const words = (kind: string, failures: Record<string, number>): string[] =>
    Object.entries(failures).map(([why, count]) => `${count} ${kind} ${why}`)
  const all = [...words('read', reads.failures), ...words('write', writes.failures)]
  return all.length === 0 ? '' : ` (failed: ${all.join(', ')})`
}

/** Every look at the margins, in its order. */
function marginRow(trace: string, side: Side, { margins }: ChurnReport): Row {
  return {
    id: `margins-${trace}/${side}`,
    label: `${trace}, ${side}: looks at all segments`,
    figures: {
      at: figureOf(
        's',
        margins.map(({ atMs }) => atMs / secondMs)
      ),
      least: figureOf(
        'shards',
        margins.map(({ least }) => least)
      ),
      mean: figureOf(
        'shards',
        margins.map(({ mean }) => mean)
      ),
      full: figureOf(
        'share',
        margins.map(({ fullShare }) => fullShare)
      )
    }
  }
}

function agreementRow(trace: string, { figure, live: real, simulated, bound, isWithin }: Agreement): Row[] {
  if (!Number.isFinite(real) || !Number.isFinite(simulated)) return []
  const one = (value: number): Figure => figureOf(units[figure], [value])
  return [
    {
      id: `agreement-${trace}/${figure}`,
      label: `${trace}: ${figure}, ${units[figure]}`,
      figures: {
        live: { ...one(real), unit: 'measured' },
        simulated: { ...one(simulated), unit: 'foretold' },
        by: { ...one(bound.by), unit: 'allowed' },
        factor: figureOf('allowed', [bound.factor]),
        isWithin: figureOf('1: yes', [isWithin ? 1 : 0])
      }
    }
  ]
}

const disagreement = (trace: string, { figure, live: real, simulated, bound }: Agreement): string =>
  `${trace}: ${figure} is ${formatNumber(real)} live and ${formatNumber(simulated)} in the simulator: more than ${bound.factor} times and ${bound.by} apart`

function parametersOf(trace: string, workload: ChurnWorkload): Outcome['parameters'] {
  const { timeline, code, speed, durationMs, objects, bytesMin, bytesMax, clients, pauseMs, writeShare } = workload
  const { hasLines, offlineGraceMs, repairPatienceMs, seed } = workload
  return {
    providers: timeline.traits.length,
    [`code.${trace}`]: formatCode(code),
    [`thereAtStart.${trace}`]: timeline.isOnAtStart.reduce((sum, isOn) => sum + isOn, 0),
    ...{ seed, speed, durationMs, objects, bytesMin, bytesMax, clients, pauseMs, writeShare },
    ...{ lines: hasLines ? 'yes' : 'no', offlineGraceMs, repairPatienceMs }
  }
}

const notes: readonly string[] = [
  'Live: every provider is a process, behind a line of its own (a round trip by region, so many bytes a second each way), which a proxy in user space makes. off: kill -9. on: started again on the disk it had. leaves: kill -9, and the disk goes. wiped: kill -9, and it goes on with its identity and an empty disk. joins: somebody new. Everything was stored, and every shard in its place, before the run began.',
  'Every byte read was compared with what was stored; while an object was being written anew its old bytes or its new ones were right. success: whole, within a minute. Time to the first byte and to the last is as the client saw it.',
  'hedgingWaste: of the shard bytes asked for, those not needed in the end. decodeRate: segments that took another shard than those that hold the data. repairTraffic: bytes read and written by repair, a byte stored. repairOverTheory: these, over k + r shards for each segment of which r were rebuilt.',
  'Margins: shards of a segment beyond k that are on the disk of a provider that is there. lostObjects: not readable once the run was over and everybody who could come back had. lateMax: the longest that an event had to wait for an earlier one of the same provider, say a start.',
  'What the proxy leaves out: loss, and the slow start that TCP would have over such a distance. What a provider dials itself (the gateway, to join) is next door. All processes share this machine.'
]
