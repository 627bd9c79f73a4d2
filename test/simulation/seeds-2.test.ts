import { expect, it } from 'vitest'
import { checkSeeds } from './seeds.ts'

// Half of the 200: the two files run beside each other.
it('seeds 101 to 200: the invariants hold after every event, and all is well once the faults stop', {
  timeout: 300_000
}, async () => {
  const totals = await checkSeeds(101, 100)
  // A world in which nothing happens proves nothing.
  for (const what of ['put ok', 'get ok', 'fault slow', 'fault stalling', 'fault wiped', 'fault refuses', 'left']) {
    expect(totals[what] ?? 0, what).toBeGreaterThan(10)
  }
  expect(totals['run with audits']).toBeGreaterThan(5)
})
