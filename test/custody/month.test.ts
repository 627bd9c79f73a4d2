import { describe, expect, it } from 'vitest'
import { dayMs, hourMs, minuteMs } from '../../src/base/limits.ts'
import { daysUntilDetected } from '../../src/custody/detection.ts'
import { judgeDefaults } from '../../src/custody/judge.ts'
import { scoreDefaults, scoreReport } from '../../src/custody/score.ts'
import { type Dishonesty, type OwnOutage, simulateMonth } from './month.ts'

/**
 * One in which nothing connects, one in which everything connects and nothing answers, longer than all repeats take.
 */
const outages: OwnOutage[] = [
  { from: 6 * dayMs, until: 6 * dayMs + 40 * minuteMs, as: 'offline' },
  { from: 17 * dayMs + 5 * hourMs, until: 17 * dayMs + 10 * hourMs, as: 'timeout' }
]

describe('a month', { timeout: 180_000 }, () => {
  it('of a hundred honest providers: nobody loses a shard, or falls below a threshold', () => {
    const { providers, suspensions } = simulateMonth({ seed: 'honest', honest: 100, days: 30, shards: 1000, outages })
    expect(providers.flatMap(({ lostAt }) => lostAt)).toEqual([])
    expect(providers.filter(({ closedAt }) => closedAt !== undefined)).toEqual([])
    // It was no easy month: slow spells and stalls contained most of them, homes were away for days in all.
    const sum = (of: (provider: (typeof providers)[number]) => number): number =>
      providers.reduce((total, provider) => total + of(provider), 0)
    expect(sum(({ timeouts }) => timeouts)).toBeGreaterThan(1000)
    expect(sum(({ containments }) => containments)).toBeGreaterThan(500)
    expect(Math.min(...providers.map(({ worst }) => worst.availability))).toBeLessThan(0.95)
    expect(Math.min(...providers.map(({ worst }) => worst.custody))).toBe(1)
    expect(providers.every(({ score }) => score.isVetted)).toBe(true)
    // Both outages were recognised within five minutes, and their ends within ten; nothing else was taken for one.
    expect(suspensions).toHaveLength(2)
    for (const [i, { at, until }] of suspensions.entries()) {
      expect(at - outages[i]!.from).toBeLessThan(5 * minuteMs)
      expect(until! - outages[i]!.until).toBeLessThan(10 * minuteMs)
    }
  })

  it('with dishonest ones among them: each is found within the bound documented, no honest one is hurt', () => {
    const silenceMs =
      judgeDefaults.repeatGapsMs.reduce((sum, gap) => sum + gap, judgeDefaults.verdictDelayMs) + 5 * minuteMs
    const boundMs = (shape: 'part' | 'whole', share: number): number =>
      hourMs + dayMs * daysUntilDetected(shape, 1000, share, 0.999)
    // Only whole-shard reads find it: two a day, exponential.
    const readsMs = (dayMs * -Math.log(0.001)) / 2
    const cases: Array<[dishonesty: Dishonesty, outcome: string, boundMs: number, end: 'suspended' | 'closed']> = [
      [{ kind: 'lost', share: 1, says: 'missing' }, 'missing', boundMs('whole', 1), 'suspended'],
      [{ kind: 'lost', share: 1, says: 'wrong' }, 'wrong', boundMs('whole', 1), 'suspended'],
      [{ kind: 'lost', share: 0.1, says: 'missing' }, 'missing', boundMs('whole', 0.1), 'suspended'],
      [{ kind: 'half of each' }, 'wrong', boundMs('part', 0.5), 'suspended'],
      [{ kind: 'silent' }, 'missing', hourMs + silenceMs, 'suspended'],
      [{ kind: 'lost', share: 0.1, says: 'timeout' }, 'missing', boundMs('whole', 0.1) + silenceMs, 'closed'],
      // Flipped bits in ten shards of a thousand.
      [{ kind: 'lost', share: 0.01, says: 'wrong' }, 'wrong', boundMs('whole', 0.01), 'suspended'],
      [{ kind: 'no reads' }, 'missing', readsMs + silenceMs, 'closed']
    ]
    const dishonest = cases.map(([dishonesty]) => dishonesty)
    const { providers } = simulateMonth({ seed: 'liars', honest: 92, dishonest, days: 30, shards: 1000, outages })
    expect(providers.slice(0, 92).flatMap(({ lostAt }) => lostAt)).toEqual([])
    expect(providers.slice(0, 92).every(({ closedAt }) => closedAt === undefined)).toBe(true)
    cases.forEach(([dishonesty, outcome, bound, end], i) => {
      const { lostAt, closedAt, suspendedAt, score } = providers[92 + i]!
      const said = JSON.stringify(dishonesty)
      expect(lostAt[0], said).toMatchObject({ outcome })
      expect(lostAt[0]!.at, said).toBeLessThan(bound)
      expect(end === 'suspended' ? suspendedAt : closedAt, said).toBeDefined()
      const reason = score.records.find(({ kind }) => kind === outcome)
      expect(reason, said).toMatchObject({ shard: expect.stringContaining('/') })
      expect(score.records.length).toBeLessThanOrEqual(scoreDefaults.recordsMax)
    })
  })

  it('with some that answer only what they had time to fetch: none keeps the right to new shards', () => {
    const dishonest = [1, 3].map((repeats): Dishonesty => ({ kind: 'fetches', repeats }))
    const { providers } = simulateMonth({
      seed: 'fetchers',
      honest: 20,
      dishonest,
      days: 14,
      shards: 1000,
      outages: []
    })
    expect(providers.slice(0, 20).every(({ closedAt }) => closedAt === undefined)).toBe(true)
    for (const { closedAt, score, dishonesty } of providers.slice(20)) {
      const said = JSON.stringify(dishonesty)
      // A unit an hour against the hundred that it began with, once it has been late six times.
      expect(closedAt, said).toBeLessThan(3.5 * dayMs)
      expect(scoreReport(score, 14 * dayMs).standing, said).toBe('closed')
      expect(score.isVetted, said).toBe(false)
      expect(score.records, said).toContainEqual(
        expect.objectContaining({ kind: 'absent', why: expect.stringContaining('asked again') })
      )
    }
  })

  it('is the same month for the same seed', () => {
    const once = (): unknown => simulateMonth({ seed: 'again', honest: 10, days: 2, shards: 1000, outages: [] }).bytes
    expect(once()).toEqual(once())
  })
})
