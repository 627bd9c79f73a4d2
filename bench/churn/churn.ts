/**
 * Retrieval under churn, on paper: our policy and those of the alternatives on the same comings and goings, with the same
 * lines; the simulator held against theory; and what of ours would be enough.
 */
import { dayMs, GiB, secondMs } from '../../src/base/limits.ts'
import { lossPerYear } from '../../src/repair/threshold.ts'
import {
  bestMark,
  bestOf,
  choiceGrid,
  costAim,
  costOf,
  describeChoice,
  leastCost,
  type Match,
  matchesOf
} from '../../src/sim/scale/choices.ts'
import { type ChurnModel, churnModelOf, churnModels, timelineOf } from '../../src/sim/scale/churn-models.ts'
import { scaleDefaults } from '../../src/sim/scale/engine.ts'
import { alternatives, ours } from '../../src/sim/scale/policies.ts'
import { rareLoss, yearMs } from '../../src/sim/scale/rare-loss.ts'
import { checkTheory, theoryGrid } from '../../src/sim/scale/theory.ts'
import { lostInMonth } from '../../src/sim/scale/timeline.ts'
import type { BenchContext, Benchmark } from '../harness.ts'
import { figureOf } from '../harness.ts'
import type { Figure, Row } from '../result.ts'
import { figuresOf, type Measured, measure } from './measure.ts'

interface Size {
  providers: number
  /** Of all segments together. */
  shards: number
  days: number
  settleDays: number
  reads: number
  search: { providers: number; shards: number }
  theory: { providers: number; segments: number; runs: number }
  rare: { effort: number; repetitions: number }
  /** The largest run, by itself: it shows that so much can be done. */
  large?: { providers: number; segments: number; days: number }
}

const sizes = {
  smoke: {
    providers: 90,
    shards: 1600,
    days: 20,
    settleDays: 5,
    reads: 100,
    search: { providers: 90, shards: 200 },
    theory: { providers: 40, segments: 20, runs: 2 },
    rare: { effort: 50, repetitions: 3 }
  },
  full: {
    providers: 500,
    shards: 120_000,
    days: 545,
    settleDays: 180,
    reads: 100_000,
    search: { providers: 200, shards: 12_000 },
    theory: { providers: 400, segments: 800, runs: 12 },
    rare: { effort: 2000, repetitions: 16 },
    large: { providers: 10_000, segments: 1_000_000, days: 365 }
  }
} as const satisfies Record<string, Size>

export const churn: Benchmark = {
  name: 'churn',
  title: 'Data under churn, simulated',
  run: async (context) => {
    const size: Size = sizes[context.scale]
    const rows: Row[] = []
    const notes: string[] = []
    for (const model of churnModels) {
      const { policyRows, choiceRows, note } = await compare(model, size, context)
      rows.push(...policyRows, ...choiceRows)
      notes.push(note)
    }
    rows.push(...(await theoryRows(size, context)), ...(await rareRows(size, context)))
    if (size.large !== undefined) rows.push(largeRow(size.large, context))
    return { parameters: parametersOf(size), notes: [...notesOf(size), ...notes], rows }
  }
}

/** Lets signals in between runs that nothing interrupts. */
async function breathe({ signal }: BenchContext): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
  signal.throwIfAborted()
}

async function compare(
  model: ChurnModel,
  size: Size,
  context: BenchContext
): Promise<{ policyRows: Row[]; choiceRows: Row[]; note: string }> {
  const { seed, progress } = context
  const parameters = { ...scaleDefaults, seed, reads: size.reads, settleMs: size.settleDays * dayMs }
  const durationMs = size.days * dayMs + scaleDefaults.warmupMs
  const timeline = timelineOf(model, { seed, providers: size.providers, durationMs })
  const measured: Measured[] = []
  for (const policy of [ours(), ...alternatives]) {
    const one = measure({ timeline, policy, shards: size.shards, parameters })
    progress(`churn: ${model.name}, ${policy.label}: ${one.seconds.toFixed(1)} s`)
    measured.push(one)
    await breathe(context)
  }
  const small = timelineOf(model, { seed: `${seed}/search`, providers: size.search.providers, durationMs })
  const searched = { timeline: small, shards: size.search.shards, parameters: { ...parameters, reads: size.reads / 2 } }
  const tried: Measured[] = []
  for (const choice of choiceGrid().filter((_, i) => context.scale === 'full' || i % 9 === 0)) {
    tried.push(measure({ ...searched, policy: { ...ours(choice), label: describeChoice(choice) } }))
    await breathe(context)
  }
  const others: Measured[] = []
  for (const policy of alternatives) {
    others.push(measure({ ...searched, policy }))
    await breathe(context)
  }
  progress(`churn: ${model.name}, ${tried.length} choices tried`)
  const policyRows = measured.map((one) => ({
    id: `${model.name}/${one.policy.name}`,
    label: `${model.name}: ${one.policy.label}`,
    figures: figuresOf(one)
  }))
  return { policyRows, ...choicesOf(model, tried, others, leastCost(lostInMonth(small))) }
}

function choicesOf(
  model: ChurnModel,
  tried: readonly Measured[],
  others: readonly Measured[],
  least: number
): { choiceRows: Row[]; note: string } {
  const verdicts = others.map(({ verdict }) => verdict)
  const own = tried.map(({ verdict }) => verdict)
  const best = bestOf(verdicts)
  const one = (unit: string, value: number): Figure => figureOf(unit, [value])
  // As the product has it: what is missing is rebuilt at once.
  const atOnce = tried.filter(({ policy: { rule } }) => rule.kind === 'margin' && rule.isMissingUrgent)
  const matchesAtOnce = matchesOf(
    atOnce.map(({ verdict }) => verdict),
    verdicts
  )
  const choiceRows = matchesOf(own, verdicts).map(({ alternative, own: match, ratio }, i) => ({
    id: `choice-${model.name}/${others[i]!.policy.name}`,
    label: `${model.name}: ${alternative.label}${alternative === best ? ` ${bestMark}` : ''}; ours: ${match?.label ?? 'none is as good'}`,
    figures: {
      cost: one('bytes a byte', costOf(alternative)),
      ourCost: one('bytes a byte', match === undefined ? 0 : costOf(match)),
      ratio: one('of its cost', ratio ?? 0),
      atOnceRatio: one('of its cost', matchesAtOnce[i]!.ratio ?? 0),
      leastRatio: one('of its cost', least / costOf(alternative))
    }
  }))
  const against = best === undefined ? -1 : verdicts.indexOf(best)
  return { choiceRows, note: verdictNote(model, matchesOf(own, verdicts)[against], matchesAtOnce[against], least) }
}

function verdictNote(
  model: ChurnModel,
  match: Match | undefined,
  matchAtOnce: Match | undefined,
  least: number
): string {
  const intro = `${model.name}: ${model.what} ${model.source}`
  if (match === undefined) return intro
  const { alternative, own, ratio } = match
  const bound = `No MDS code that reads k shards for a repair takes less than ${(least / costOf(alternative)).toFixed(2)} of them.`
  if (own === undefined || ratio === undefined)
    return `${intro} The best alternative is ${alternative.label}; none of ours that was tried is as good. ${bound}`
  const verdict = ratio <= costAim ? 'which is within the aim' : 'which is not within the aim'
  const atOnce =
    matchAtOnce?.ratio === undefined
      ? 'With what is missing rebuilt at once, as the product does, none is as good.'
      : `With what is missing rebuilt at once, as the product does, it is ${matchAtOnce.ratio.toFixed(2)} (${matchAtOnce.own?.label}).`
  return `${intro} The best alternative is ${alternative.label}; ours as ${own.label} takes ${ratio.toFixed(2)} of its bytes, ${verdict} of ${costAim}. ${atOnce} ${bound}`
}

async function theoryRows(size: Size, context: BenchContext): Promise<Row[]> {
  const rows: Row[] = []
  for (const one of context.scale === 'full' ? theoryGrid : theoryGrid.slice(0, 3)) {
    const { code, lifeDays, threshold, repairDays } = one
    const { theory, simulated, samples } = checkTheory(one, { ...size.theory, seed: context.seed })
    const label = `counted: ${code.k}+${code.m}, life ${lifeDays} d, threshold ${threshold}, repair ${repairDays} d`
    rows.push(theoryRow(`theory-${rows.length}`, label, theory, simulated, samples))
    await breathe(context)
  }
  context.progress('churn: held against theory')
  return rows
}

const rareGrid = [
  { k: 4, m: 4, lifeDays: 60, threshold: 2, repairDays: 2 },
  { k: 4, m: 4, lifeDays: 180, threshold: 2, repairDays: 1 },
  { k: 10, m: 10, lifeDays: 30, threshold: 5, repairDays: 1 },
  { k: 10, m: 10, lifeDays: 60, threshold: 5, repairDays: 0.5 },
  { k: 10, m: 10, lifeDays: 180, threshold: 5, repairDays: 0.5 },
  { k: 14, m: 6, lifeDays: 180, threshold: 3, repairDays: 0.5 }
] as const

async function rareRows(size: Size, context: BenchContext): Promise<Row[]> {
  const rows: Row[] = []
  for (const isRepairExponential of [true, false]) {
    for (const { k, m, lifeDays, threshold, repairDays } of rareGrid) {
      const model = { code: { k, m }, rate: 1 / (lifeDays * dayMs), threshold, repairMs: repairDays * dayMs }
      const rest = { isRepairExponential, noticeMs: 0, durationMs: yearMs, seed: context.seed, ...size.rare }
      const simulated = rareLoss({ ...model, ...rest })
      const label = `split: ${k}+${m}, life ${lifeDays} d, threshold ${threshold}, repair ${isRepairExponential ? '' : 'always '}${repairDays} d`
      rows.push(
        theoryRow(`rare-${rows.length}`, label, lossPerYear({ k, m }, m, model), simulated, simulated.repetitions)
      )
      await breathe(context)
    }
  }
  return rows
}

function theoryRow(
  id: string,
  label: string,
  theory: number,
  { mean, low, high }: { mean: number; low: number; high: number },
  samples: readonly number[]
): Row {
  const one = (value: number): Figure => figureOf('a year', [value])
  return {
    id,
    label,
    figures: {
      theory: one(theory),
      simulated: {
        unit: 'a year',
        median: mean,
        min: Math.min(...samples),
        max: Math.max(...samples),
        samples: [...samples]
      },
      low: one(Math.max(0, low)),
      high: one(high)
    }
  }
}

function largeRow({ providers, segments, days }: NonNullable<Size['large']>, { seed, progress }: BenchContext): Row {
  const durationMs = days * dayMs + scaleDefaults.warmupMs
  const startedAt = performance.now()
  const timeline = timelineOf(churnModelOf('departure'), { seed, providers, durationMs })
  const policy = ours({ isMissingUrgent: false, patienceMs: 60 * dayMs })
  const shards = segments * (policy.code.k + policy.code.m)
  const { result } = measure({ timeline, policy, shards, parameters: { ...scaleDefaults, seed } })
  const seconds = (performance.now() - startedAt) / secondMs
  progress(`churn: ${providers} providers and ${segments} segments: ${seconds.toFixed(0)} s`)
  const one = (unit: string, value: number): Figure => figureOf(unit, [value])
  return {
    id: 'large',
    label: `${providers.toLocaleString('en-US')} providers, ${segments.toLocaleString('en-US')} segments, ${days} days`,
    figures: {
      events: one('comings and goings', timeline.events.length),
      rebuilt: one('shards', result.repair.shards),
      took: one('s', seconds),
      memory: one('GB at most, of the process', (process.resourceUsage().maxRSS * 1024) / 1e9)
    }
  }
}

function parametersOf(size: Size): Record<string, number | string> {
  const { segmentBytes, providerBytes, repairBytesPerSecond, networkShare, warmupMs, noticeMs, auditMs, sweepMs } =
    scaleDefaults
  return {
    providers: size.providers,
    shards: size.shards,
    days: size.days,
    settleDays: size.settleDays,
    reads: size.reads,
    objectBytes: segmentBytes,
    dataPerProviderGiB: providerBytes / GiB,
    repairBytesPerSecond,
    networkShare,
    warmupMs,
    noticeMs,
    auditMs,
    sweepMs,
    searchProviders: size.search.providers,
    searchShards: size.search.shards
  }
}

function notesOf({ shards }: Size): string[] {
  const { repairBytesPerSecond, networkShare, providerBytes } = scaleDefaults
  const bound = (repairBytesPerSecond * networkShare * 30 * dayMs) / secondMs / providerBytes
  return [
    'Simulated: no bytes, no messages. Who is there, where each shard is, and what the real placement and the real decisions of repair make of it. Everybody has the same comings and goings, the same lines, and the same placement; an object is one segment of 10 MiB.',
    `Each policy has ${shards.toLocaleString('en-US')} shards, so one of 80 shards has fewer segments than one of 3: losses are a million objects’ and a year’s, and lostAtMost is the upper end of the interval (Poisson, widened by how losses cluster by day). Repair may move ${bound.toFixed(2)} bytes a byte of data and month, all lines together: a policy that needs more falls behind.`,
    'success: reads that gave the object, however long it took, of lost ones too. firstTry: without a single hedge. unavailable: of objects that exist. Latency: round trips between regions (lognormal), a line of 40 Mbit/s a stream in the middle; one large piece takes longer on it than ten small ones side by side.',
    ...alternatives.map(({ label, source }) => `${label}: ${source}`),
    `Choices: for each alternative the cheapest of ${choiceGrid().length} of ours that lost no more and failed no more reads on the same, smaller network; 0 where there is none. ourCost and cost are bytes stored, and moved in 30 days; atOnceRatio is that of the cheapest which rebuilds at once what is missing, as the product does; leastRatio is what no MDS code that reads k shards for a repair can go below (closed form, by the disks that were lost).`,
    'What repair moves is counted after settleDays: everything is stored at once, and who repairs late has nothing to do at first. Losses and reads are counted from the beginning.',
    'Theory: the chain of `src/repair/threshold.ts`. Counted: the scale simulator itself. Split: one segment, by multilevel splitting; "always": the repair takes a fixed time, for which the chain has no answer and is shown beside.'
  ]
}
