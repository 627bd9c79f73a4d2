import { expect, it } from 'vitest'
import { checkSeeds } from './seeds.ts'

// Half of them: the two files run beside each other. The soak has thousands.
it('seeds 1 to 60: the invariants hold after every event, and all is well once the faults stop', {
  timeout: 300_000
}, async () => {
  const totals = await checkSeeds(1, 60)
  // A world in which nothing happens proves nothing.
  for (const what of ['put ok', 'get ok', 'fault slow', 'fault stalling', 'fault wiped', 'fault refuses', 'left']) {
    expect(totals[what] ?? 0, what).toBeGreaterThan(10)
  }
  expect(totals['run with audits']).toBeGreaterThan(3)
})
