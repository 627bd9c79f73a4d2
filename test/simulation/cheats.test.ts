/**
 * Providers that cheat, each found out within the time that ARCHITECTURE states, 240 times as fast here. That nobody
 * else is hurt is an invariant of the simulator. Virtual time: a test takes a second or two.
 */
import { describe, expect, it } from 'vitest'
import { dayMs, minuteMs, secondMs } from '../../src/base/limits.ts'
import { type Cheat, catchCheat } from '../../src/sim/cheats.ts'
import { auditPace } from '../../src/sim/promises.ts'

/** Every shard is asked for once in a week, and one request comes in each half hour. */
const everyShardMsMax = (7 * dayMs + 60 * minuteMs) / auditPace
/** What is asked of any shard is asked within the hour. */
const anyShardMsMax = (60 * minuteMs) / auditPace
/** From the first silence to the loss; deadlines and rounds are as long as they are at any pace. */
const verdictMs = (76 * minuteMs) / auditPace
const roundsMsMax = 20 * secondMs
/** 99.9% of those that answer no reads. */
const wholeReadMsMax = (3.5 * dayMs) / auditPace

const bounds: Record<Cheat, { outcome: 'missing' | 'wrong'; msMax: number; why: RegExp }> = {
  'drops blocks': { outcome: 'missing', msMax: everyShardMsMax, why: /does not have the shard whole/ },
  'lets a block rot': { outcome: 'missing', msMax: everyShardMsMax, why: /does not have the shard whole/ },
  'keeps half of each block': { outcome: 'wrong', msMax: 2 * anyShardMsMax + roundsMsMax, why: /did not verify/ },
  'stalls audits': { outcome: 'missing', msMax: anyShardMsMax + verdictMs + roundsMsMax, why: /unanswered 4 times/ },
  'denies reads': { outcome: 'missing', msMax: wholeReadMsMax + roundsMsMax, why: /does not have the shard whole/ },
  'stalls reads': {
    outcome: 'missing',
    msMax: wholeReadMsMax + verdictMs + 4 * roundsMsMax,
    why: /unanswered 4 times/
  }
}

describe('a provider that', () => {
  it.each(Object.keys(bounds) as Cheat[])(
    '%s is found out in time, by the outcome it has earned',
    {
      timeout: 180_000
    },
    async (cheat) => {
      const { outcome, msMax, why } = bounds[cheat]
      for (let seed = 1; seed <= 2; seed++) {
        const { evidence, afterMs } = await catchCheat({ seed, cheat, msMax })
        expect(evidence.length).toBeGreaterThan(0)
        expect(new Set(evidence.map(({ kind }) => kind))).toEqual(new Set([outcome]))
        for (const record of evidence) expect(record.why).toMatch(why)
        expect(afterMs).toBeLessThanOrEqual(msMax)
      }
    }
  )
})

describe('gateways that are killed again and again', () => {
  it('forget nothing that is contained, and take nothing for lost too early', { timeout: 180_000 }, async () => {
    let remembered = 0
    let restarts = 0
    // A gateway is not always killed while it waits for an answer: as many seeds as it takes.
    for (let seed = 1; seed <= 16 && (restarts <= 4 || remembered <= 2); seed++) {
      // Each of the four silences takes a gateway that lives until it is written down.
      // The last question takes twenty seconds at any pace, and a gateway that is killed meanwhile has to put it again.
      const msMax = 10 * (verdictMs + roundsMsMax) + 5 * minuteMs
      const caught = await catchCheat({ seed, cheat: 'stalls audits', msMax, restartEveryMs: 15 * secondMs })
      expect(caught.evidence[0]!.why).toContain('went unanswered 4 times')
      remembered += caught.rememberedContained
      restarts += caught.restarts
    }
    expect(restarts).toBeGreaterThan(4)
    expect(remembered).toBeGreaterThan(2)
  })

  it('do it the same way twice', { timeout: 180_000 }, async () => {
    const again = (): Promise<{ trace: string }> =>
      catchCheat({ seed: 5, cheat: 'stalls audits', msMax: 20 * minuteMs, restartEveryMs: 25 * secondMs })
    expect((await again()).trace).toBe((await again()).trace)
  })
})
