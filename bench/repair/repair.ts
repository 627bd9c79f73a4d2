/**
 * How a network heals: every provider that it began with is taken away, one after another, in several ways, each time with
 * a new one in its place, while somebody reads. What that moved is set beside what it had to.
 */
import { join } from 'node:path'
import { messageOf } from '../../src/base/errors.ts'
import { MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { formatCode } from '../../src/erasure/erasure-coder.ts'
import { codeFor } from '../../src/placement/place.ts'
import { type BenchContext, type Benchmark, figureOf, type Outcome, type Scale } from '../harness.ts'
import { providersDefault } from '../limits.ts'
import type { Row } from '../result.ts'
import type { RepairNetworkInit } from './network.ts'
import type { ObjectSetInit } from './objects.ts'
import {
  auditEverything,
  BitFlipper,
  domainOf,
  drainRound,
  killRound,
  refuseRound,
  replaceAll,
  whileGatewayCrashes
} from './scenarios.ts'
import { type Ending, excessOf, type Round, Scene } from './scene.ts'

interface Run {
  scene: Scene
  seed: number
  /** Providers to replace. */
  count: number
}

export interface Scenario {
  id: string
  label: string
  /** What it costs at best: a rebuilt shard takes the reading of `k`, one handed over is moved once. */
  how: 'rebuilt' | 'moved'
  run: (run: Run) => Promise<Round[]>
}

const crashEveryMs = 20 * secondMs
/** Of all shards, over the whole replacement. */
const flippedShare = 0.05

export const scenarios: readonly Scenario[] = [
  {
    id: 'kills',
    label: 'killed for good, one after another',
    how: 'rebuilt',
    run: ({ scene, count }) => replaceAll(scene, (victim) => killRound(scene, [victim]), count)
  },
  {
    id: 'refusals',
    label: 'refusing everything, offered to others first',
    how: 'moved',
    run: (run) => refuseAll(run, { now: false })
  },
  {
    id: 'refusals-now',
    label: 'refusing everything at once',
    how: 'rebuilt',
    run: (run) => refuseAll(run, { now: true })
  },
  {
    id: 'drains',
    label: 'drained',
    how: 'moved',
    run: ({ scene, count }) => replaceAll(scene, (victim) => drainRound(scene, victim), count)
  },
  {
    id: 'domains',
    label: 'killed a failure domain at a time',
    how: 'rebuilt',
    run: loseDomains
  },
  {
    id: 'kills-gateway',
    label: 'killed, and the gateway with kill -9 every 20 s',
    how: 'rebuilt',
    run: async ({ scene, count }) => {
      const { result, crashes } = await whileGatewayCrashes(scene, crashEveryMs, () =>
        replaceAll(scene, (victim) => killRound(scene, [victim]), count)
      )
      scene.progress(`the gateway was killed ${crashes} times`)
      return result
    }
  },
  {
    id: 'kills-rot',
    label: 'killed, with 5% of the shards bit-flipped meanwhile',
    how: 'rebuilt',
    run: killWhileRotting
  }
]

async function refuseAll({ scene, count }: Run, options: { now: boolean }): Promise<Round[]> {
  const roots = await scene.objects.roots(scene.network)
  return await replaceAll(scene, (victim) => refuseRound(scene, victim, roots, options), count)
}

async function loseDomains({ scene, count }: Run): Promise<Round[]> {
  const rounds: Round[] = []
  const original = scene.network.providers.slice(0, count)
  for (const domain of new Set(original.map((provider) => provider.domain))) {
    rounds.push(await killRound(scene, domainOf(scene, domain)))
  }
  return rounds
}

async function killWhileRotting({ scene, count, seed }: Run): Promise<Round[]> {
  const flipper = new BitFlipper(scene, seed)
  const shards = scene.full.filter(({ k }) => k > 1).reduce((sum, segment) => sum + segment.shards.length, 0)
  const each = Math.max(1, Math.ceil((flippedShare * shards) / scene.network.providers.length))
  const kill = async (victim: Parameters<typeof refuseRound>[1]): Promise<Round> => {
    await flipper.flip(each)
    return await killRound(scene, [victim], () => flipper.restored())
  }
  const rounds = await replaceAll(scene, kill, count)
  // What nobody has come across by reading is looked for, so that the end is a whole network.
  await auditEverything(scene)
  await scene.healed()
  await flipper.settled()
  scene.progress(`${flipper.flipped} of ${shards} shards had a bit flipped`)
  return rounds
}

const objectsOf = (scale: Scale, seed: number): ObjectSetInit =>
  scale === 'full' ? { seed, count: 500, totalBytes: 2048 * MiB } : { seed, count: 8, totalBytes: 8 * MiB }

/** Short, or a bench would wait for hours: what is measured is the repair, and the time says what it includes. */
const offlineGrace = { full: '1s', smoke: '250ms' }
/** As for the grace. Else a lone lost shard would wait for weeks: that is the default. */
const repairPatience = { full: '5s', smoke: '5s' }

function networkOf(context: BenchContext, name: string): RepairNetworkInit {
  const providers = context.providers ?? providersDefault
  // With four providers to spare every segment can be full again before a new one has joined.
  const code = context.code ?? (providers === providersDefault ? '4+4' : formatCode(codeFor(providers, 'STANDARD')!))
  const domains = providers % 2 === 0 ? providers / 2 : providers
  const { scale, signal } = context
  return {
    directory: join(context.directory, name),
    providers,
    domains,
    code,
    offlineGrace: offlineGrace[scale],
    repairPatience: repairPatience[scale],
    signal
  }
}

/** Each takes a search for the new provider, ten seconds: the tests of the network have the others. */
const smokeScenarios = ['kills', 'drains']

/** @throws Error for a name that is none of them */
function chosenOf({ scenarios: names }: BenchContext): readonly Scenario[] {
  if (names === undefined) return scenarios
  return names.map((name) => {
    const found = scenarios.find(({ id }) => id === name)
    if (found === undefined)
      throw new Error(`no scenario is called ${name}: ${scenarios.map(({ id }) => id).join(', ')}`)
    return found
  })
}

/** A scenario on a network of its own; a smoke run goes from one to the next, with a single provider each. */
async function measure(context: BenchContext): Promise<{ rows: Row[]; failures: string[] }> {
  const { scale } = context
  const rows: Row[] = []
  const failures: string[] = []
  const groups =
    scale === 'full'
      ? chosenOf(context).map((one) => [one])
      : [scenarios.filter(({ id }) => smokeScenarios.includes(id))]
  for (const group of groups) {
    try {
      rows.push(...(await measureGroup(context, group)))
    } catch (error) {
      context.signal.throwIfAborted()
      const which = group.map(({ id }) => id).join(', ')
      // A wrong answer too ends this scenario only, and nothing is claimed of a run with a failure.
      context.progress(`repair: ${which} failed: ${(error as Error).stack}`)
      failures.push(`${which}: ${messageOf(error)}`)
    }
  }
  if (rows.length === 0) throw new Error(failures.join('; '))
  return { rows, failures }
}

async function measureGroup(context: BenchContext, group: readonly Scenario[]): Promise<Row[]> {
  const { scale, seed, progress } = context
  progress(`repair: starting a network for ${group.map(({ id }) => id).join(', ')}`)
  const network = networkOf(context, group[0]!.id)
  const scene = await Scene.start({
    network,
    objects: objectsOf(scale, seed),
    healMsMax: (scale === 'full' ? 20 : 2) * minuteMs,
    progress: (line) => progress(`repair: ${line}`)
  })
  try {
    const done: Array<{ scenario: Scenario; rounds: Round[] }> = []
    for (const scenario of group) {
      progress(`repair: ${scenario.id}`)
      const count = scale === 'full' ? network.providers : 1
      done.push({ scenario, rounds: await scenario.run({ scene, seed, count }) })
    }
    const ending = await scene.end()
    for (const failure of ending.failures) progress(`repair: a read failed ${failure}`)
    return done.map(({ scenario, rounds }) => rowOf(scenario, rounds, ending))
  } finally {
    await scene.stop()
  }
}

export function rowOf({ id, label, how }: Scenario, rounds: readonly Round[], ending: Ending): Row {
  const moved = ({ traffic, handedOverBytes }: Round): number =>
    traffic.readBytes + traffic.writtenBytes + handedOverBytes
  return {
    id,
    label,
    figures: {
      toFull: figureOf(
        's',
        rounds.map(({ seconds }) => seconds)
      ),
      moved: figureOf(
        'MB',
        rounds.map((round) => moved(round) / 1e6)
      ),
      overTheory: figureOf(
        'x',
        rounds.map((round) => excessOf(round, how))
      ),
      leastMargin: figureOf(
        'shards',
        rounds.map(({ leastMargin }) => leastMargin)
      ),
      failedReads: figureOf('%', [(100 * ending.failedReads) / Math.max(1, ending.reads)]),
      leftOver: figureOf('MB', [ending.leftovers.leakedBytes / 1e6])
    }
  }
}

export const repair: Benchmark = {
  name: 'repair',
  title: 'A network that heals itself',
  run: async (context): Promise<Outcome> => {
    const { providers, domains, code } = networkOf(context, 'any')
    const { count, totalBytes } = objectsOf(context.scale, context.seed)
    const { rows, failures } = await measure(context)
    return {
      parameters: {
        providers,
        domains,
        code,
        objects: count,
        objectBytes: totalBytes,
        offlineGrace: offlineGrace[context.scale],
        repairPatience: repairPatience[context.scale],
        replaced: context.scale === 'full' ? providers : 1
      },
      notes: [
        'Each sample is one loss: a provider (or a domain) goes, a new one joins, and nothing else happens until every margin is full.',
        'All objects are read at the end, and one after another meanwhile, and compared byte for byte; health of all objects is looked at again and again. What differed, or went below k, is a failure of the run.',
        'toFull: from the loss to the end of the first look that finds every shard healthy where it should be. It includes the grace that an absence is given, the patience with which lost shards wait for more of their kind, and up to one such look.',
        'moved: shards that the gateway read and wrote to repair, by its own counters, and what providers say to have sent to hand it over, in vain or not.',
        'overTheory: that, over what it had to be, which is worked out from where every shard was before and after: for r shards of a segment that were rebuilt, k + r shards; for what was refused with time to offer it, or drained, the shards themselves. Blocks on disk say how large they are.',
        'leastMargin: the fewest shards beyond k of any segment and copies beyond one of any manifest, those of who had gone not counted. failedReads: of one client that reads all the time. leftOver: blocks on disks that nothing needs, a minute after the end.',
        'A gateway that is killed takes what its counters say of the last moment with it, and reads fail while it is away. What it was placing just then is left over until its leases end, a day later.'
      ],
      rows,
      failures
    }
  }
}
