import { describe, expect, it } from 'vitest'
import { Budget } from '../../src/repair/budget.ts'

/** Sleeping takes no time but the clock's. */
function jumping() {
  const clock = {
    time: 1_000_000,
    now: () => clock.time,
    sleep: async (ms: number) => {
      clock.time += ms
    }
  }
  return clock
}

describe('the budget of repair', () => {
  it('lets a second go at once, and then no more than the rate', async () => {
    const clock = jumping()
    const budget = new Budget(clock, { bytesPerSecond: 1000 })
    const startedAt = clock.time
    for (let i = 0; i < 20; i++) await budget.take(500, false)
    // The last one waits for those before it, less the second that had been saved up.
    expect(clock.time - startedAt).toBe(19 * 500 - 1000)
    clock.time += 3_600_000
    const later = clock.time
    for (let i = 0; i < 4; i++) await budget.take(500, false)
    expect(clock.time - later).toBe(3 * 500 - 1000) // an idle hour is not saved up
  })

  it('takes what is charged afterwards into account', async () => {
    const clock = jumping()
    const budget = new Budget(clock, { bytesPerSecond: 1000 })
    await budget.take(1000, false)
    budget.charge(2000)
    budget.charge(-500)
    const startedAt = clock.time
    await budget.take(1, false)
    expect(clock.time - startedAt).toBe(1500)
  })

  it.each([
    [0, 1],
    [0.25, 1 / 2],
    [0.5, 1 / 4],
    [1, 1 / 16],
    [7, 1 / 16],
    [-1, 1]
  ])('leaves at a pressure of %d a share of %d, but not of what is urgent', async (pressure, share) => {
    const clock = jumping()
    const budget = new Budget(clock, { bytesPerSecond: 1000, pressure: () => pressure })
    expect(budget.share).toBe(share)
    const spent = async (isUrgent: boolean): Promise<number> => {
      await budget.take(0, true)
      clock.time += 3_600_000
      await budget.take(1000 + 1000, isUrgent)
      const startedAt = clock.time
      await budget.take(0, true)
      return clock.time - startedAt
    }
    expect(await spent(false)).toBeCloseTo(2000 / share - 1000)
    expect(await spent(true)).toBe(1000)
  })

  it('does not keep waiting whoever gives up', async () => {
    const aborted = AbortSignal.abort(new Error('enough'))
    await expect(new Budget(jumping(), { bytesPerSecond: 1 }).take(1, false, aborted)).rejects.toThrow('enough')
  })
})
