import { describe, expect, test } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Random } from '../../src/base/random.ts'
import { keepJoined } from '../../src/net/join-loop.ts'

const random: Random = { next: () => 0.5, int: () => 0, bytes: (length) => new Uint8Array(length), fork: () => random }

/** A clock on which sleeping takes no time but counts, and which ends the loop after a while. */
function fastClock(endAtMs: number, onSleep: (now: number) => void = () => {}): { clock: Clock; signal: AbortSignal } {
  let now = 0
  const controller = new AbortController()
  const clock: Clock = {
    now: () => now,
    sleep: async (ms, signal) => {
      now += ms
      onSleep(now)
      if (now >= endAtMs) controller.abort(new Error('enough'))
      signal?.throwIfAborted()
    }
  }
  return { clock, signal: controller.signal }
}

describe('joining', () => {
  test('is tried until it works, at growing but bounded intervals', async () => {
    const dials: number[] = []
    let neighbours = 0
    const { clock, signal } = fastClock(600_000)
    await keepJoined(
      {
        clock,
        random,
        log: silentLog,
        dial: async () => {
          dials.push(clock.now())
          if (clock.now() < 120_000) throw new Error('nobody there')
          neighbours = 9
        },
        neighbours: () => neighbours,
        addresses: async () => ['/ip4/192.0.2.1/tcp/1']
      },
      signal
    )
    const gaps = dials.slice(1).map((at, i) => at - dials[i]!)
    expect(gaps[0]).toBeLessThan(1000)
    expect(Math.max(...gaps)).toBeLessThanOrEqual(20_000)
    expect(gaps.length).toBeGreaterThan(8)
    expect(dials.at(-1)).toBeGreaterThanOrEqual(120_000)
    expect(dials.filter((at) => at >= 120_000)).toHaveLength(1) // joined is joined
  })

  test('is tried again when everybody is gone', async () => {
    let neighbours = 9
    let dials = 0
    const { clock, signal } = fastClock(300_000, (now) => {
      if (now > 100_000 && dials === 0) neighbours = 0
    })
    await keepJoined(
      {
        clock,
        random,
        log: silentLog,
        dial: async () => {
          dials += 1
          neighbours = 9
        },
        neighbours: () => neighbours,
        addresses: async () => ['/ip4/192.0.2.1/tcp/1']
      },
      signal
    )
    expect(dials).toBe(1)
  })

  test('goes through all addresses, past those that fail', async () => {
    const dialled = new Set<string>()
    const { clock, signal } = fastClock(1000)
    await keepJoined(
      {
        clock,
        random,
        log: silentLog,
        dial: async (address) => {
          dialled.add(address)
          throw new Error('nobody there')
        },
        neighbours: () => 0,
        addresses: async () => ['a', 'b', 'c']
      },
      signal
    )
    expect(dialled).toEqual(new Set(['a', 'b', 'c']))
  })
})
