/** Half of the seeds: the two files run beside each other. The soak has thousands. */
import { it } from 'vitest'
import { checkFixedSeeds, checkRandomSeeds, drawSeeds, randomSeeds, timeoutMs } from './seeds.ts'

it(
  'seeds 1 to 30: the invariants hold after every event, and all is well once the faults stop',
  { timeout: timeoutMs },
  () => checkFixedSeeds(1, 30)
)

const seeds = drawSeeds(process.env, 1)
it(`so they do in ${randomSeeds} seeds that nobody chose (${seeds.from} and up)`, { timeout: timeoutMs }, () =>
  checkRandomSeeds(seeds)
)
