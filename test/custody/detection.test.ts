import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { dayMs, hourMs, limits, minuteMs } from '../../src/base/limits.ts'
import { challengeChunkBytes } from '../../src/custody/audit-messages.ts'
import { bytesPerDay, daysUntilDetected, detectionPerDay, detectionTable } from '../../src/custody/detection.ts'
import { newSampling, plan, type SamplingState } from '../../src/custody/sampling.ts'
import { type SeededRandom, seededRandom } from '../../src/sim/seeded-random.ts'

const chunks = limits.shardBytesMax / challengeChunkBytes

/** Whether a day of what `plan` asks for, drawn shard by shard and chunk by chunk, hits what was lost. */
function dayDetects(shape: 'part' | 'whole', shards: number, lostShare: number, random: SeededRandom): boolean {
  const input = { peerId: 'p', isOnline: true, shards, due: 0, isContained: false, repeats: 0, isVetted: true }
  const isLost = (shard: number, chunk: number): boolean =>
    shape === 'part' ? chunk < lostShare * chunks : shard < lostShare * shards
  let state: SamplingState = newSampling(0)
  // The first epochs place the plan; the day is counted from there.
  const from = hourMs
  for (let now = 0; now < from + dayMs; now += minuteMs) {
    const next = plan(state, [input], now, random)
    state = next.state
    if (now < from) continue
    for (const ask of next.asks) {
      if (ask.kind === 'whole' && (shape === 'part' || isLost(random.int(shards), 0))) return true
      if (ask.kind !== 'sample') continue
      for (let shard = 0; shard < shards; shard++) {
        if (random.next() < ask.probability && isLost(shard, random.int(chunks))) return true
      }
    }
  }
  return false
}

describe('the probability of detection per day', () => {
  it.each([
    ['whole', 100, 0.01],
    ['whole', 1000, 0.001],
    ['whole', 1000, 0.005],
    ['part', 100, 1 / 1024],
    ['part', 1000, 4 / 1024]
  ] as const)('as simulated: %s, %i shards, %f lost', (shape, shards, lostShare) => {
    const random = seededRandom(`detection ${shape} ${shards} ${lostShare}`)
    const days = 400
    let detected = 0
    for (let i = 0; i < days; i++) if (dayDetects(shape, shards, lostShare, random)) detected++
    const expected = detectionPerDay(shape, shards, lostShare)
    expect(expected).toBeGreaterThan(0.1)
    expect(expected).toBeLessThan(0.95)
    // 99.9%: 3.3 deviations of the binomial distribution.
    const deviation = Math.sqrt((expected * (1 - expected)) / days)
    expect(Math.abs(detected / days - expected)).toBeLessThan(3.3 * deviation)
  })
  it('grows with what is lost and how much is asked, and is 0 where nothing is', () => {
    expect(detectionPerDay('whole', 1000, 0)).toBe(0)
    expect(detectionPerDay('whole', 100, 0.001)).toBe(0) // a tenth of a shard is none
    expect(detectionPerDay('part', 0, 0.5)).toBe(0)
    expect(detectionPerDay('whole', 1000, 1)).toBeCloseTo(1, 9)
    expect(detectionPerDay('whole', 1000, 0.02)).toBeGreaterThan(detectionPerDay('whole', 1000, 0.01))
    expect(daysUntilDetected('whole', 1000, 0)).toBe(Number.POSITIVE_INFINITY)
    // One shard of a thousand, 13.5% a day: 32 days by chance alone, where being due ends it after seven.
    expect(daysUntilDetected('whole', 1000, 0.001)).toBeCloseTo(31.7, 0)
    expect(daysUntilDetected('part', 1000, 0.5)).toBeLessThan(1)
  })
  it('costs little: less than a megabyte a day in proofs for a thousand shards', () => {
    expect(bytesPerDay(1000).proofs).toBeLessThan(500_000)
  })
  it('is in the document as it is computed', () => {
    const document = readFileSync(new URL('../../src/ARCHITECTURE.md', import.meta.url), 'utf8')
    expect(document).toContain(detectionTable())
  })
})
