/** A seed replays the world: every line of its trace is the same again, here and in another process. */
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { type RunOptions, type RunResult, runSeed } from '../../src/sim/run.ts'

const root = path.resolve(import.meta.dirname, '../..')

/** Seeds looked through for one in which something happens; most have it. */
const seedsMax = 40
const outputBytesMax = 64 * 1024 * 1024

/** What is to have happened in a run that is replayed. */
const kinds: Record<string, { options: RunOptions; flags: string[]; happened: string[] }> = {
  'a short run': { options: { size: 'short' }, flags: ['--size', 'short'], happened: ['put ok', 'get ok', 'left'] },
  'a run with audits': {
    options: { size: 'short', scenario: { isAuditing: true } },
    flags: ['--size', 'short', '--audits'],
    happened: ['run with audits', 'fault rot', 'fault silent']
  },
  'a run with refusals and drains, of either size': { options: {}, flags: [], happened: ['fault refuses', 'left'] },
  'a run whose gateway is killed': {
    options: { size: 'short' },
    flags: ['--size', 'short'],
    happened: ['fault gateway killed', 'put gone', 'fault power loss']
  }
}

interface Run {
  seed: number
  result: RunResult
  lines: string[]
}

async function run(seed: number, options: RunOptions): Promise<Run> {
  const lines: string[] = []
  const result = await runSeed(seed, { ...options, onLine: (line) => lines.push(line) })
  return { seed, result, lines }
}

async function firstRunWith(happened: readonly string[], options: RunOptions): Promise<Run> {
  for (let seed = 1; seed <= seedsMax; seed++) {
    const one = await run(seed, options)
    if (happened.every((what) => (one.result.stats[what] ?? 0) > 0)) return one
  }
  throw new Error(`in none of ${seedsMax} seeds there is ${happened.join(' and ')}`)
}

function linesElsewhere(seed: number, flags: readonly string[]): string[] {
  const args = ['--disable-warning=ExperimentalWarning', 'src/sim/main.ts', '--from', String(seed), '--seeds', '1']
  const stdout = execFileSync(process.execPath, [...args, ...flags, '--trace', '--json'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: outputBytesMax,
    stdio: ['ignore', 'pipe', 'pipe']
  })
  return stdout.trimEnd().split('\n')
}

/** Where two traces part: that line says more than two hashes, or all of both. */
function expectSame(lines: readonly string[], expected: readonly string[]): void {
  const at = expected.findIndex((line, i) => lines[i] !== line)
  if (at >= 0) expect.fail(`line ${at + 1} is "${lines[at]}", and was "${expected[at]}"`)
  expect(lines.length).toBe(expected.length)
}

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

describe('the same seed has the same trace, line by line, in this process and in another:', () => {
  it.each(Object.keys(kinds))('%s', { timeout: 240_000 }, async (kind) => {
    const { options, flags, happened } = kinds[kind]!
    const { seed, result, lines } = await firstRunWith(happened, options)
    expect(lines.length).toBe(result.lines)
    const again = await run(seed, options)
    expectSame(again.lines, lines)
    expect(again.result).toEqual(result)
    const elsewhere = linesElsewhere(seed, flags)
    expect(JSON.parse(elsewhere.pop()!)).toEqual({ seed, ok: true, ...result })
    expectSame(elsewhere, lines)
  })
})

describe('a seed', () => {
  it('gives another trace than the next', { timeout: 180_000 }, async () => {
    expect((await runSeed(3)).trace).not.toBe((await runSeed(4)).trace)
  })

  it(`of this commit (${seedOfCommit()}) passes`, { timeout: 180_000 }, async () => {
    await runSeed(seedOfCommit())
  })
})
