import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { type RunOptions, runSeed } from '../../src/sim/run.ts'

const root = path.resolve(import.meta.dirname, '../..')

/** A seed nobody chose: another with every commit. */
function seedOfCommit(): number {
  try {
    const hash = execFileSync('git', ['rev-parse', 'HEAD'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore']
    })
    return Number.parseInt(hash.slice(0, 7), 16)
  } catch {
    return 20_261_123 // not a checkout
  }
}

describe('a seed', () => {
  it.each([1, 7, 42])(
    '(%i) gives the same trace twice, in this process and in another',
    { timeout: 60_000 },
    async (seed) => {
      const { trace } = await runSeed(seed)
      expect((await runSeed(seed)).trace).toBe(trace)
      const args = [
        '--disable-warning=ExperimentalWarning',
        'src/sim/main.ts',
        '--from',
        String(seed),
        '--seeds',
        '1',
        '--json'
      ]
      expect(execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8' })).toContain(trace)
    }
  )

  it('that audits gives the same trace twice', { timeout: 60_000 }, async () => {
    const options: RunOptions = { scenario: { isAuditing: true } }
    expect((await runSeed(2, options)).trace).toBe((await runSeed(2, options)).trace)
  })

  it('gives another trace than the next', { timeout: 60_000 }, async () => {
    expect((await runSeed(3)).trace).not.toBe((await runSeed(4)).trace)
  })

  it(`of this commit (${seedOfCommit()}) passes`, { timeout: 60_000 }, async () => {
    await runSeed(seedOfCommit())
  })
})
