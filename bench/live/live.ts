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
import { WrongContentError } from '../../src/sim/churn/version-history.ts'
import { type ChurnWorkload, eventsOf, linesOf } from '../../src/sim/churn/workload.ts'
import { quantile } from '../../src/sim/scale/statistics.ts'
import { type BenchContext, type Benchmark, figureOf, figuresOf, type Outcome, WrongAnswerError } from '../harness.ts'
import { formatNumber } from '../report.ts'
import type { Figure, Row } from '../result.ts'
import { type LiveRun, runLive } from './run.ts'
import { foretell } from './simulated.ts'
import { chosenOf, type WorkloadChoice } from './workloads.ts'

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
  /** How either side is run; absent: as it is. */
  sides?: { live: typeof runLive; simulated: typeof foretell }
}

/** Of the models that `npm run bench` runs, or of what somebody chose. */
export function liveBenchmark({
  choices,
  isSimulatedOnly = false,
  isJudging,
  sides = { live: runLive, simulated: foretell }
}: LiveOptions = {}): Benchmark {
  return {
    name: 'live',
    title: isSimulatedOnly ? 'Retrieval under churn, simulated' : 'Retrieval under churn, live and simulated',
    run: async (context) => {
      const rows: Row[] = []
      const failures: string[] = []
      const parameters: Outcome['parameters'] = {}
      for (const choice of choices ?? choicesOf(context)) {
        const { workload, source } = await chosenOf(choice)
        Object.assign(parameters, parametersOf(nameOf(choice), workload, source))
        const one = await runOne(nameOf(choice), workload, context, {
          isSimulatedOnly,
          sides,
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
  { isSimulatedOnly, isJudging, sides }: Required<Omit<LiveOptions, 'choices'>>
): Promise<{ rows: Row[]; failures: string[] }> {
  const { directory, signal } = context
  const progress = (line: string): void => context.progress(`live: ${trace}: ${line}`)
  const rows: Row[] = []
  const failures: string[] = []
  const failed = (error: unknown, what: string): void => {
    signal.throwIfAborted()
    // Bytes that nobody stored end everything, whoever read them.
    if (error instanceof WrongAnswerError || error instanceof WrongContentError) throw error
    progress(messageOf(error))
    failures.push(`${trace}${what}: ${messageOf(error)}`)
  }
  let real: LiveRun | undefined
  let simulated: ChurnReport | undefined
  if (!isSimulatedOnly) {
    try {
      real = await sides.live({ workload, directory: join(directory, trace), progress, signal })
      rows.push(...rowsOf(trace, 'live', real.report, real))
    } catch (error) {
      failed(error, '')
    }
  }
  progress('the same, simulated')
  try {
    simulated = await sides.simulated(workload, signal)
    rows.push(...rowsOf(trace, 'simulated', simulated))
  } catch (error) {
    failed(error, ', simulated')
  }
  if (real === undefined || simulated === undefined) return { rows, failures }
  const agreements = agreementOf(real.report, simulated)
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
  readsPerSecond: '1/s',
  askedInVain: 'share',
  decodeRate: 'share',
  repairTraffic: 'bytes a byte',
  repairOverTheory: 'x',
  leastMargin: 'shards',
  meanMargin: 'shards',
  fullShare: 'share',
  lostObjects: 'objects'
} as const satisfies Record<keyof ChurnFigures, string>

type Side = 'live' | 'simulated'

const rowsOf = (trace: string, side: Side, report: ChurnReport, run?: LiveRun): Row[] => [
  rowOf(trace, side, report, run),
  marginRow(trace, side, report),
  ...sampleRows(trace, side, report)
]

/** What there was nothing of, such as reads of a MiB, is left out. */
function rowOf(trace: string, side: Side, report: ChurnReport, run?: LiveRun): Row {
  const values: Array<[name: string, unit: string, value: number]> = [
    ...(Object.entries(figuresOfChurn(report)) as Array<[keyof ChurnFigures, number]>).map(
      ([name, value]): [string, string, number] => [name, units[name], value]
    ),
    ['reads', 'asked', report.reads.asked],
    ['writes', 'asked', report.writes.asked],
    ['writesDone', 'share', report.writes.asked === 0 ? 1 : report.writes.done / report.writes.asked],
    ['writeMsP50', 'ms', report.writes.ms.p50],
    ['events', 'of the trace', Object.values(report.events).reduce((sum, count) => sum + count, 0)],
    ...(run === undefined ? [] : costsOf(run))
  ]
  return { id: `${trace}/${side}`, label: `${trace}, ${side}${failuresOf(report)}`, figures: figuresFrom(values) }
}

/** What real processes add to what was asked for. */
function costsOf({ lateness, startUpsMs, proxyStrain }: LiveRun): Array<[name: string, unit: string, value: number]> {
  const sorted = startUpsMs.toSorted((a, b) => a - b)
  return [
    ['lateMax', 'ms', lateness.maxMs],
    ['startUpP50', 'ms', quantile(sorted, 0.5)],
    ['startUpMax', 'ms', sorted.at(-1) ?? Number.NaN],
    ['proxyLateP99', 'ms', proxyStrain?.lateMsP99 ?? Number.NaN],
    ['proxyLateMax', 'ms', proxyStrain?.lateMsMax ?? Number.NaN],
    ['proxyHeldMost', 'MB', (proxyStrain?.heldBytesMost ?? Number.NaN) / 1e6]
  ]
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

/** Of all requests that were done, in the order of their ends; what failed is counted in the row of the run. */
function sampleRows(trace: string, side: Side, { samples: { reads, writesMs } }: ChurnReport): Row[] {
  const tenths = (ms: number): number => Math.round(10 * ms) / 10
  const rowsFor = <F extends string>(kind: string, units: Record<F, string>, samples: Record<F, number>[]): Row[] => {
    if (samples.length === 0) return []
    const label = `${trace}, ${side}: every ${kind} that was done`
    return [{ id: `samples-${kind}s-${trace}/${side}`, label, figures: figuresOf(units, samples) }]
  }
  return [
    ...rowsFor(
      'read',
      { firstByte: 'ms', lastByte: 'ms', bytes: 'bytes' },
      reads.map(({ firstByteMs, ms, bytes }) => ({ firstByte: tenths(firstByteMs), lastByte: tenths(ms), bytes }))
    ),
    ...rowsFor(
      'write',
      { done: 'ms' },
      writesMs.map((ms) => ({ done: tenths(ms) }))
    )
  ]
}

function agreementRow(trace: string, { figure, live: real, simulated, bound, isWithin }: Agreement): Row[] {
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

/** What the lines of a workload are like: least, median and most. */
function linesRecord(trace: string, workload: ChurnWorkload): Outcome['parameters'] {
  const lines = linesOf(workload).flatMap((line) => line ?? [])
  if (lines.length === 0) return {}
  const spread = (values: readonly number[]): string => {
    const { min, median, max } = figureOf('', values)
    return [min, median, max].map(formatNumber).join(', ')
  }
  return {
    [`roundTripMs.${trace}`]: spread(lines.map(({ roundTripMs }) => roundTripMs)),
    [`megabitsPerSecond.${trace}`]: spread(lines.map(({ bytesPerSecond }) => (8 * bytesPerSecond) / 1e6))
  }
}

function parametersOf(trace: string, workload: ChurnWorkload, source: string): Outcome['parameters'] {
  const { timeline, code, speed, durationMs, objects, bytesMin, bytesMax, clients, pauseMs, writeShare } = workload
  const { hasLines, offlineGraceMs, repairPatienceMs, seed } = workload
  return {
    providers: timeline.traits.length,
    [`trace.${trace}`]: source,
    [`events.${trace}`]: eventsOf(workload).length,
    ...linesRecord(trace, workload),
    [`code.${trace}`]: formatCode(code),
    [`thereAtStart.${trace}`]: timeline.isOnAtStart.reduce((sum, isOn) => sum + isOn, 0),
    ...{ seed, speed, durationMs, objects, bytesMin, bytesMax, clients, pauseMs, writeShare },
    ...{ lines: hasLines ? 'yes' : 'no', offlineGraceMs, repairPatienceMs }
  }
}

const notes: readonly string[] = [
  'Live: every provider is a process, behind a line of its own, which a proxy in user space makes: a round trip by region and provider, and a width each way, drawn by provider (40 Mbit/s in the middle, whatever the region), which all of its connections share; the parameters have least, median and most. off: kill -9. on: started again on the disk it had. leaves: kill -9, and the disk goes. wiped: kill -9, and it goes on with its identity and an empty disk. joins: somebody new. Everything was stored, and every shard in its place, before the run began.',
  'Every byte read was compared with what was stored: live and simulated alike, bytes that are not the newest stored when the read began, nor of a write since, under way or failed, end the run without a result. success: whole, within a minute. Time to the first byte and to the last is as the client saw it.',
  'Percentiles are of all requests that were asked: one that failed counts as having taken a minute. There is a p95 from 200 requests on, and a p99 from 1,000. Clients wait for one answer, and then a while, before they ask again (a closed loop), so slow times are asked about less often than quick ones.',
  'readsPerSecond: reads asked for, over the time of the run. megabytesPerSecond: the median of single reads of a MiB or more, from the request to the last byte, the time to the first included. decodeRate: segments that took another shard than those that hold the data.',
  'askedInVain: share of the shard bytes asked for that were of no use: late, cancelled, failed or wrong, counted in full, also of a provider that was dead and sent nothing. Of reads that ended unreadable nothing is counted. repairTraffic: bytes that repair read, in reads that came to an end, and wrote, over the bytes of all objects (not of their shards). repairOverTheory: these, over k + r shards for each segment of which r were rebuilt.',
  'Margins: shards of a segment beyond k that are on the disk of a provider that is there, looked up every 3 s; live, a look has the gateway say how every object is, which costs it some of its CPU. lostObjects: not readable within a minute of trying, once the run was over and everybody who could come back had.',
  'lateMax: the longest that an event had to wait for an earlier one of the same provider, say a start. startUp: from the start of a provider to when it serves, of all starts during the run. proxyLate: how late the timers of the proxy were, and so the bytes. proxyHeldMost: the most that was on its way in it.',
  'What the proxy leaves out: loss, and the slow start that TCP would have over such a distance. What a provider dials itself (the gateway, to join) is next door, and the control plane keeps using that connection: offers, leases and refusals may pass without any delay, where the simulator charges them the line and four round trips to connect. All processes share this machine. What the simulator leaves out: that, and that repair gives way to clients who wait, up to 16 times slower.',
  'Whether the simulator foretold it is judged by the figures of that table only. Not judged: a p95 that either side has too few requests for, p99, megabytesPerSecond, readsPerSecond, leastMargin, which requests failed by what, and all of writes.'
]
