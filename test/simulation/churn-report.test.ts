/** What a run under churn is said to have come to, and which answers in it are right. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { agreementBounds, agreementOf } from '../../src/sim/churn/agreement.ts'
import { type ChurnCounters, ChurnRecorder, figuresOfChurn } from '../../src/sim/churn/report.ts'
import { VersionHistory } from '../../src/sim/churn/version-history.ts'
import { lookEveryMsOf, requestMsMax } from '../../src/sim/churn/workload.ts'

const counters: ChurnCounters = {
  ...{ segmentsStraight: 3, segmentsDecoded: 1, fetchedBytes: 100, wastedBytes: 7 },
  ...{ repairReadBytes: 0, repairWrittenBytes: 0, repairTheoryBytes: 0, shardsRebuilt: 0 }
}

function reportOf({ done, failed, ms = 100 }: { done: number; failed: number; ms?: number }) {
  const recorder = new ChurnRecorder()
  for (let i = 0; i < done; i++) recorder.read({ firstByteMs: ms / 2, ms, bytes: 1000 })
  for (let i = 0; i < failed; i++) recorder.failed('read', 'SlowDown')
  for (let i = 0; i < done; i++) recorder.written(ms)
  for (let i = 0; i < failed; i++) recorder.failed('write', 'SlowDown')
  recorder.margin({ atMs: 1000, least: 1, mean: 2, fullShare: 0.5 })
  return recorder.report(10_000, counters, { lostObjects: 0, storedBytes: 1000 })
}

describe('percentiles', () => {
  it('are of all that were asked for: failing is as slow as it can be, whatever is asked', () => {
    const { reads, writes, samples } = reportOf({ done: 400, failed: 600 })
    for (const spread of [reads.firstByteMs, reads.ms, writes.ms])
      expect(spread).toMatchObject({ count: 1000, p50: requestMsMax, p95: requestMsMax, p99: requestMsMax })
    expect(reads).toMatchObject({ asked: 1000, done: 400, failures: { SlowDown: 600 } })
    expect(samples.reads).toHaveLength(400)
    expect(samples.writesMs).toHaveLength(400)
    expect(reportOf({ done: 600, failed: 400 }).reads).toMatchObject({
      firstByteMs: { p50: 50, p95: requestMsMax },
      ms: { p50: 100, p95: requestMsMax }
    })
  })

  it('are left out where they would be the figure of a few', () => {
    const numberOf = (count: number): string[] => {
      const { ms } = reportOf({ done: count - 1, failed: 1 }).reads
      return (['p50', 'p95', 'p99'] as const).filter((name) => Number.isFinite(ms[name]))
    }
    expect(numberOf(199)).toEqual(['p50'])
    expect(numberOf(200)).toEqual(['p50', 'p95'])
    expect(numberOf(999)).toEqual(['p50', 'p95'])
    expect(numberOf(1000)).toEqual(['p50', 'p95', 'p99'])
    expect(reportOf({ done: 0, failed: 0 }).reads.ms.p50).toBeNaN()
  })

  it('are judged where both sides have them', () => {
    const few = reportOf({ done: 100, failed: 0 })
    const many = reportOf({ done: 1000, failed: 0, ms: 1000 })
    const judged = agreementOf(few, many)
    expect(judged.map(({ figure }) => figure)).toEqual(
      Object.keys(agreementBounds).filter((figure) => !figure.endsWith('P95'))
    )
    expect(judged.filter(({ isWithin }) => !isWithin).map(({ figure }) => figure)).toEqual([
      'firstByteMsP50',
      'readMsP50'
    ])
    expect(agreementOf(many, many).every(({ isWithin }) => isWithin)).toBe(true)
  })
})

it('figures are rates and shares of what was asked for', () => {
  const figures = figuresOfChurn(reportOf({ done: 30, failed: 10 }))
  expect(figures).toMatchObject({ success: 0.75, readsPerSecond: 4, askedInVain: 0.07, decodeRate: 0.25 })
})

describe('looks', () => {
  it('are as far apart on either side, and there is one', () => {
    expect([1000, 3000, 600_000].map((durationMs) => lookEveryMsOf({ durationMs }))).toEqual([1000, 3000, 3000])
  })
})

describe('versions of an object', () => {
  it('are right from their beginning to when a newer one is stored, and ever after where they failed', () => {
    const ends = fc.array(fc.constantFrom('stored', 'failed'), { maxLength: 20 })
    fc.assert(
      fc.property(ends, fc.nat(20), (all, readAt) => {
        const history = new VersionHistory()
        history.stored(history.begin())
        let oldest: number | undefined
        for (const [i, end] of all.entries()) {
          if (i === readAt) oldest = history.current
          const version = history.begin()
          expect(history.isRight(version, history.current)).toBe(true)
          if (end === 'stored') history.stored(version)
          else history.failed(version)
        }
        oldest ??= history.current
        const isFailed = (version: number): boolean => all[version - 1] === 'failed'
        for (let version = 0; version <= all.length; version++)
          expect(history.isRight(version, oldest)).toBe(version >= oldest || isFailed(version))
        expect(history.isRight(all.length + 1, oldest)).toBe(false)
      })
    )
  })
})
