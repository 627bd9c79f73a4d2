import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import type { ProviderStatus } from '../../src/discovery/directory.ts'
import { ProviderSearch } from '../../src/node/provider-search.ts'

/** Time that passes when the test says so. */
class ManualClock implements Clock {
  #now = 0
  #sleepers: Array<{ at: number; wake: () => void }> = []

  now = (): number => this.#now
  sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      if (signal?.aborted === true) reject(signal.reason)
      this.#sleepers.push({ at: this.#now + ms, wake: resolve })
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
    })

  async advance(ms: number): Promise<void> {
    const until = this.#now + ms
    for (;;) {
      await turn()
      const next = this.#sleepers.toSorted((a, b) => a.at - b.at)[0]
      if (next === undefined || next.at > until) break
      this.#now = next.at
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== next)
      next.wake()
    }
    this.#now = until
    await turn()
  }
}

describe('the search for providers after a start', () => {
  let clock: ManualClock
  let stop: AbortController
  let online: number
  let fails: boolean
  let searches: number
  let isSteady: boolean

  const start = (expected?: number): ProviderSearch => {
    const directory = {
      refresh: async () => {
        searches++
        if (fails) throw new Error('no route')
      },
      run: async (signal: AbortSignal) => {
        isSteady = true
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      },
      list: () => Array.from({ length: online }, () => ({ state: 'online' }) as ProviderStatus)
    }
    const search = new ProviderSearch({ directory, clock, log: silentLog }, { expected })
    running = search.run(stop.signal)
    return search
  }
  let running: Promise<void>

  beforeEach(() => {
    clock = new ManualClock()
    stop = new AbortController()
    online = 0
    fails = false
    searches = 0
    isSteady = false
  })
  afterEach(async () => {
    stop.abort()
    await running
  })

  it('knows them as soon as all that are expected are online', async () => {
    online = 11
    const search = start(12)
    await clock.advance(2_500)
    expect(search.isKnown).toBe(false)
    online = 12
    await clock.advance(1_000)
    expect(search.isKnown).toBe(true)
    await clock.advance(1_000)
    expect(isSteady).toBe(true)
  })

  it('waits while there are more and more of them', async () => {
    const search = start()
    for (online = 1; online <= 8; online++) {
      await clock.advance(1_000)
      expect(search.isKnown).toBe(false)
    }
    online = 8
    await clock.advance(4_000)
    expect(search.isKnown).toBe(true)
  })

  it('does without those of last time that do not come', async () => {
    online = 10
    const search = start(12)
    await clock.advance(4_000)
    expect(search.isKnown).toBe(true)
  })

  it('keeps nobody waiting for a network that is not there', async () => {
    fails = true
    const search = start(12)
    let waited = false
    void search.whenKnown().then(() => {
      waited = true
    })
    await clock.advance(14_000)
    expect([search.isKnown, waited]).toEqual([false, false])
    expect(searches).toBeGreaterThan(10)
    await clock.advance(2_000)
    expect([search.isKnown, waited]).toEqual([true, true])
  })

  it('lets go of a waiter that gives up', async () => {
    const search = start()
    const caller = new AbortController()
    const waiting = search.whenKnown(caller.signal)
    caller.abort(new Error('the client went away'))
    await expect(waiting).rejects.toThrow('the client went away')
    await expect(search.whenKnown(caller.signal)).rejects.toThrow('the client went away')
  })
})
