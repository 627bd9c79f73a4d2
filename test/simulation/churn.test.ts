/** A run under churn in the simulator: small ones, of which it is known what has to come out. */
import { describe, expect, it } from 'vitest'
import { KiB, secondMs } from '../../src/base/limits.ts'
import { type ChurnReport, figuresOfChurn } from '../../src/sim/churn/report.ts'
import { simulateChurn } from '../../src/sim/churn/simulate.ts'
import { type ChurnWorkload, churnDefaults } from '../../src/sim/churn/workload.ts'
import { type EventKind, TimelineBuilder } from '../../src/sim/scale/timeline.ts'

const providers = 8
const code = { k: 3, m: 3 }

/** @param events second, provider and what happens to it */
function workload(
  events: ReadonlyArray<[number, number, EventKind]> = [],
  over: Partial<ChurnWorkload> = {}
): ChurnWorkload {
  const builder = new TimelineBuilder()
  for (const event of events) builder.add(...event)
  const traits = Array.from({ length: providers }, (_, operator) => {
    return { region: operator % 3, operator, network: operator, version: 0 }
  })
  return {
    ...churnDefaults,
    ...{ code, speed: 1, durationMs: 30 * secondMs, objects: 20, bytesMin: KiB, bytesMax: 100 * KiB },
    timeline: builder.build(traits, new Uint8Array(providers).fill(1), 3600),
    ...over
  }
}

const fullMargin = ({ margins }: ChurnReport): boolean => margins.every(({ fullShare }) => fullShare === 1)

describe('a run under churn', { timeout: 180_000 }, () => {
  it('in which nothing happens serves everything from whole segments, as fast as the lines are', async () => {
    const report = await simulateChurn(workload())
    const { reads, writes, counters, margins, lostObjects } = report
    expect(figuresOfChurn(report)).toMatchObject({ success: 1, within10s: 1, repairTraffic: 0 })
    expect(reads.asked).toBeGreaterThan(50)
    expect(writes.done).toBe(writes.asked)
    expect(writes.done).toBeGreaterThan(3)
    expect(fullMargin(report)).toBe(true)
    expect(margins).toHaveLength(10)
    expect(counters.segmentsStraight).toBeGreaterThan(counters.segmentsDecoded)
    expect(lostObjects).toBe(0)
    const nextDoor = await simulateChurn(workload([], { hasLines: false, durationMs: 10 * secondMs }))
    expect(nextDoor.reads.ms.p50).toBeLessThan(reads.ms.p50 / 3)
    expect(nextDoor.reads.ms.p50).toBeGreaterThan(4)
  })

  it('is the same twice, whatever happens in it', async () => {
    const busy = workload([
      [5, 0, 'off'],
      [9, 1, 'wiped'],
      [12, 0, 'on'],
      [14, 2, 'leaves'],
      [18, 2, 'joins']
    ])
    const report = await simulateChurn(busy)
    expect(await simulateChurn(busy)).toEqual(report)
    expect(report.events).toEqual({ off: 1, on: 1, leaves: 1, joins: 1, wiped: 1 })
    expect(report.lostObjects).toBe(0)
  })

  it('repairs what a provider had that leaves, for k shards read and one written for each', async () => {
    const report = await simulateChurn(workload([[5, 3, 'leaves']], { durationMs: 50 * secondMs }))
    const { counters, margins, lostObjects } = report
    expect(counters.shardsRebuilt).toBeGreaterThan(5)
    expect(counters.repairTheoryBytes).toBeGreaterThan(0)
    expect(figuresOfChurn(report).repairOverTheory).toBeCloseTo(1, 1)
    expect(margins.some(({ least }) => least === code.m - 1)).toBe(true)
    expect(margins.at(-1)).toMatchObject({ least: code.m, fullShare: 1 })
    expect(lostObjects).toBe(0)
  })

  it('leaves a provider alone that is back within its grace', async () => {
    const report = await simulateChurn(
      workload([
        [5, 3, 'off'],
        [10, 3, 'on']
      ])
    )
    const { counters, margins } = report
    expect(counters.shardsRebuilt).toBe(0)
    expect(margins.find(({ atMs }) => atMs === 9 * secondMs)!.fullShare).toBeLessThan(1)
    expect(margins.at(-1)!.fullShare).toBe(1)
  })

  it('loses objects when more than m providers leave at once, and says so', async () => {
    const leaving = [0, 1, 2, 3, 4].map((provider): [number, number, EventKind] => [5, provider, 'leaves'])
    const report = await simulateChurn(workload(leaving, { durationMs: 20 * secondMs }))
    expect(report.lostObjects).toBeGreaterThan(10)
    expect(report.reads.failures.UNREADABLE).toBeGreaterThan(0)
    expect(figuresOfChurn(report).success).toBeLessThan(0.9)
    expect(report.margins.at(-1)!.least).toBeLessThan(0)
  })

  it('loses none when they only go away', async () => {
    const away = [0, 1, 2, 3, 4].map((provider): [number, number, EventKind] => [5, provider, 'off'])
    const report = await simulateChurn(workload(away, { durationMs: 20 * secondMs }))
    expect(report.lostObjects).toBe(0)
    expect(figuresOfChurn(report).success).toBeLessThan(0.9)
  })

  it('ends when it is told to, and where its providers cannot hold it', async () => {
    const controller = new AbortController()
    const progress = (): void => controller.abort(new Error('enough'))
    await expect(simulateChurn(workload(), { signal: controller.signal, progress })).rejects.toThrow('enough')
    const few = workload()
    const { traits, seconds, events } = few.timeline
    const timeline = { traits, seconds, events, isOnAtStart: Uint8Array.from(traits, (_, i) => (i < 4 ? 1 : 0)) }
    await expect(simulateChurn({ ...few, timeline })).rejects.toMatchObject({ code: 'BAD_INPUT' })
  })
})
