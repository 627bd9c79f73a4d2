/** Workloads by what people say: a model or a trace file, and how many of what. */
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { HoldfastError } from '../../src/base/errors.ts'
import type { CodeShape } from '../../src/placement/place.ts'
import { codeFor } from '../../src/placement/place.ts'
import { type ChurnWorkload, checkWorkload, churnDefaults } from '../../src/sim/churn/workload.ts'
import { churnModels, timelineOf } from '../../src/sim/scale/churn-models.ts'
import { providerOf, type Timeline } from '../../src/sim/scale/timeline.ts'
import { readTrace, traceBytesMax } from '../../src/sim/scale/trace-file.ts'

export interface WorkloadChoice extends Partial<Omit<ChurnWorkload, 'timeline' | 'code'>> {
  /** The name of a churn model, or the path of a trace file. */
  trace: string
  providers: number
  /** Absent: what the failure domains of those who are there at the beginning bear. */
  code?: CodeShape
}

export const workloadOf = async (choice: WorkloadChoice): Promise<ChurnWorkload> => (await chosenOf(choice)).workload

/**
 * @returns the workload, and what its trace was made from: a model, or a file with its sha256
 * @throws HoldfastError `BAD_INPUT` for a trace that is none, or a run that can't be made
 */
export async function chosenOf({
  trace,
  providers,
  code,
  ...choice
}: WorkloadChoice): Promise<{ workload: ChurnWorkload; source: string }> {
  const given = Object.fromEntries(Object.entries(choice).filter(([, value]) => value !== undefined))
  const settings = { ...churnDefaults, ...(given as Partial<typeof choice>) }
  const model = churnModels.find(({ name }) => name === trace)
  const { timeline, source } =
    model === undefined
      ? await readTimeline(trace, providers)
      : {
          timeline: timelineOf(model, {
            ...{ seed: settings.seed, providers },
            durationMs: settings.durationMs * settings.speed
          }),
          source: `model ${trace}`
        }
  const workload = { ...settings, timeline, code: code ?? codeOf(timeline) }
  checkWorkload(workload)
  const there = timeline.isOnAtStart.reduce((sum, isOn) => sum + isOn, 0)
  const { k, m } = workload.code
  if (k + m > there) {
    throw new HoldfastError(
      'BAD_INPUT',
      `${k}+${m} needs ${k + m} providers to store anything, and ${there} are there at the beginning of ${trace}`
    )
  }
  return { workload, source }
}

/** @throws HoldfastError `BAD_INPUT` where they are too few for any code */
function codeOf({ traits, isOnAtStart }: Timeline): CodeShape {
  const there = traits.filter((_, i) => isOnAtStart[i] === 1)
  const domains = new Set(there.map(({ operator }) => operator)).size
  const code = codeFor(domains, 'STANDARD')
  if (code === undefined)
    throw new HoldfastError('BAD_INPUT', `${domains} operators are there at the beginning: too few for any code`)
  return code
}

async function readTimeline(file: string, providers: number): Promise<{ timeline: Timeline; source: string }> {
  const names = churnModels.map(({ name }) => name).join(', ')
  const found = await stat(file).catch(() => undefined) // whatever it is, it can't be read
  if (found?.isFile() !== true)
    throw new HoldfastError('BAD_INPUT', `"${file}" is neither a churn model (${names}) nor a trace file`)
  if (found.size > traceBytesMax)
    throw new HoldfastError('BAD_INPUT', `${file} has ${found.size} bytes, and a trace at most ${traceBytesMax}`)
  const bytes = await readFile(file)
  return {
    timeline: firstOf(readTrace(bytes.toString('utf8')).timeline, providers),
    source: `file ${basename(file)}, sha256 ${createHash('sha256').update(bytes).digest('hex')}`
  }
}

/** @throws HoldfastError `BAD_INPUT` for a trace of fewer */
function firstOf({ traits, isOnAtStart, seconds, events }: Timeline, providers: number): Timeline {
  if (traits.length < providers)
    throw new HoldfastError('BAD_INPUT', `the trace has ${traits.length} providers, not ${providers}`)
  return {
    traits: traits.slice(0, providers),
    isOnAtStart: isOnAtStart.slice(0, providers),
    seconds,
    events: events.filter((event) => providerOf(event) < providers)
  }
}
