import path from 'node:path'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * What takes more than ten seconds, the longest first: begun last, one of these would leave the other worker with nothing to
 * do. A clean clone has no times of an earlier run to go by, and a file's size says nothing of them.
 */
const longest = [
  'integration/clients',
  'integration/repair',
  'integration/audits',
  'integration/drain',
  'integration/refusal',
  'integration/repair-by-anybody',
  'integration/faults',
  'simulation/seeds-1',
  'simulation/seeds-2',
  'integration/gateway-crash',
  'integration/bad-input',
  'integration/provider-restarts',
  'integration/memory',
  'integration/join',
  'cli/up',
  'bench/smoke',
  'integration/dishonest',
  'provider/provider-node',
  'simulation/replay',
  'cli/program'
]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.indexOf(path.relative('test', moduleId).replace(/\.test\.ts$/, ''))
      return at < 0 ? longest.length : at
    }
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores: integration tests start whole networks, and would starve each other.
    maxWorkers: 2,
    pool: 'forks',
    sequence: { sequencer: LongestFirst }
  }
})
