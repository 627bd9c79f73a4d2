/** What the simulator is there to find, it finds: with each planted bug, and only then. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type Bug, type BugName, bugNames, bugs } from '../../src/sim/bugs.ts'
import { FailedRun, runSeed } from '../../src/sim/run.ts'
import type { RunSize } from '../../src/sim/world.ts'

const seedsDir = path.resolve(import.meta.dirname, '../../fixtures/seeds')
const read = <T>(name: string, schema: z.ZodType<T>): T =>
  schema.parse(JSON.parse(readFileSync(path.join(seedsDir, name), 'utf8')))

const plantedSchema = z.array(
  z.strictObject({
    bug: z.enum(bugNames as [BugName, ...BugName[]]),
    seed: z.int(),
    invariant: z.int(),
    reason: z.string()
  })
)
const sizes: readonly RunSize[] = ['short', 'full']
const foundSchema = z.array(z.strictObject({ seed: z.int(), size: z.enum(sizes).optional(), showed: z.string() }))

const failureOf = async (seed: number, bug: BugName, setting: Bug['setting']): Promise<FailedRun> => {
  try {
    await runSeed(seed, { bug, ...setting })
  } catch (error) {
    if (error instanceof FailedRun) return error
    throw error
  }
  throw new Error(`seed ${seed} passed`)
}

const planted = read('planted.json', plantedSchema)

/** What the simulator is not worth much without finding, by the rule that is broken. */
const classes = {
  'acknowledging early': 'acknowledges-early',
  'repairing to the same domain': 'same-domain',
  'forgetting a refusal': 'forgets-refusals',
  'counting a timeout as a loss': 'timeout-is-loss',
  'deleting a leased shard': 'deletes-leased'
} as const

describe('a planted bug', () => {
  it.each(Object.entries(classes))('of the class "%s" is among those that are looked for', (_class, bug) => {
    expect(planted.map((one) => one.bug)).toContain(bug)
  })

  it('has a seed, whichever it is', () => {
    expect(planted.map(({ bug }) => bug).sort()).toEqual([...bugNames].sort())
  })

  it.each(planted)('$bug is found by seed $seed, which passes without it', { timeout: 240_000 }, async (one) => {
    const { setting }: Bug = bugs[one.bug]
    const failure = await failureOf(one.seed, one.bug, setting)
    expect(failure).toMatchObject({ invariant: one.invariant, seed: one.seed })
    expect(failure.reason).toContain(one.reason)
    expect(failure.message).toContain(`--from ${one.seed} --seeds 1`)
    await runSeed(one.seed, setting)
  })
})

describe('a seed that found something', () => {
  it.each(read('found.json', foundSchema))('($seed) passes', { timeout: 240_000 }, async ({ seed, size }) => {
    await runSeed(seed, { size })
  })
})
