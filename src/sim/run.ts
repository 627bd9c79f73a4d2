/** One seed, from beginning to end. */
import { messageOf } from '../base/errors.ts'
import type { BugName } from './bugs.ts'
import { type InvariantNumber, Violation } from './invariants.ts'
import { type RunSize, type Scenario, World } from './world.ts'

export interface RunOptions {
  /** Instead of what the seed draws. */
  size?: RunSize | undefined
  machines?: number | undefined
  /** How long faults rage, in virtual time. */
  faultsMs?: number
  /** Planted: something is wrong with the network's own code. */
  bug?: BugName | undefined
  /** Instead of what the seed decides. */
  scenario?: Partial<Scenario>
  /** Hears each line of the trace. */
  onLine?: ((line: string) => void) | undefined
}

export interface RunResult {
  /** Equal for equal seeds and options: a hash of all that happened. */
  trace: string
  lines: number
  events: number
  /** How often what happened. */
  stats: Record<string, number>
}

/** A run that went wrong; its message has the seed and the last events. */
export class FailedRun extends Error {
  readonly seed: number
  /** The invariant that did not hold; 0 where it is none of those that have numbers. */
  readonly invariant: InvariantNumber
  readonly trace: string
  /** One line: what went wrong. */
  readonly reason: string

  constructor(seed: number, options: RunOptions, cause: unknown, world: World) {
    const reason = messageOf(cause)
    const lines = world.trace.recent().map((line) => `  ${line}`)
    super(`seed ${seed}: ${reason}\nlast events (all: ${replayCommand(seed, options)}):\n${lines.join('\n')}`, {
      cause
    })
    this.name = 'FailedRun'
    this.seed = seed
    this.reason = reason
    this.invariant = cause instanceof Violation ? cause.invariant : 0
    this.trace = world.trace.hash
  }
}

/** How a person has the same run again, with all that happens. */
function replayCommand(seed: number, { bug, size, scenario }: RunOptions): string {
  const flags = [
    ...(size === undefined ? [] : [`--size ${size}`]),
    ...(scenario?.isAuditing === true ? ['--audits'] : []),
    ...(bug === undefined ? [] : [`--bug ${bug}`])
  ]
  return ['node src/sim/main.ts', `--from ${seed} --seeds 1`, ...flags, '--trace'].join(' ')
}

/** @throws FailedRun */
export async function runSeed(seed: number, options: RunOptions = {}): Promise<RunResult> {
  const world = await World.create({ seed, ...options })
  // What nobody hears would end a real gateway's process.
  const onUnheard = (error: unknown): void =>
    world.invariants.report(0, `a rejection that nobody hears: ${error instanceof Error ? error.stack : String(error)}`)
  process.on('unhandledRejection', onUnheard)
  try {
    await world.run()
  } catch (error) {
    throw new FailedRun(seed, options, error, world)
  } finally {
    process.off('unhandledRejection', onUnheard)
  }
  return {
    trace: world.trace.hash,
    lines: world.trace.lines,
    events: world.timeline.events,
    stats: Object.fromEntries(world.stats)
  }
}
