/** The benchmarks work: at smoke size, with figures that nobody looks at. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { churn } from '../../bench/churn/churn.ts'
import { writePlots } from '../../bench/churn/plots.ts'
import { custody } from '../../bench/custody/custody.ts'
import type { Benchmark } from '../../bench/harness.ts'
import { kernel } from '../../bench/kernel/kernel.ts'
import { limits } from '../../bench/limits.ts'
import { live } from '../../bench/live/live.ts'
import { repair } from '../../bench/repair/repair.ts'
import { renderResult } from '../../bench/report.ts'
import { parseResult, type Result, readResults, writeResult } from '../../bench/result.ts'
import { runBenchmark } from '../../bench/run.ts'
import { throughput } from '../../bench/throughput/throughput.ts'
import { churnModels } from '../../src/sim/scale/churn-models.ts'
import { alternatives } from '../../src/sim/scale/policies.ts'

let parent: string
beforeAll(async () => {
  parent = await mkdtemp(join(os.tmpdir(), 'holdfast-test-bench-'))
})
afterAll(async () => {
  await rm(parent, { recursive: true, force: true })
})

async function smoke(benchmark: Benchmark): Promise<Result> {
  const { signal } = new AbortController()
  const result = await runBenchmark(benchmark, {
    scale: 'smoke',
    seed: 1,
    parent,
    providers: 3,
    runtimes: [],
    progress: () => {},
    signal
  })
  expect(parseResult(JSON.stringify(result))).toEqual(result)
  expect(await readdir(parent)).toEqual([]) // it leaves nothing behind
  for (const { label } of result.rows) expect(renderResult(result)).toContain(label)
  return result
}

const idsOf = (rows: ReadonlyArray<{ id: string }> = []): string[] => rows.map(({ id }) => id)
const limitIds = ['tls', 'blake3', 'md5', 'sha256', 'aes', 'encode-1+2', 'fsync-c1', 'fsync-c16']

describe('benchmarks at smoke size', { timeout: 240_000 }, () => {
  it('measure the limits of the machine', async () => {
    expect(idsOf((await smoke(limits)).rows)).toEqual(limitIds)
  })

  it('measure the kernel', async () => {
    const { rows } = await smoke(kernel)
    expect(idsOf(rows)).toEqual(
      expect.arrayContaining([
        'encode-29+51-npm',
        'encode-4+2-scalar-place',
        'reconstruct-10+10-5-scalar-place',
        'reconstruct-10+4-4-npm',
        'blake3-hash-wasm',
        'blake3-scalar',
        'blake3-check-1KiB',
        'proof-service-cached',
        'proof-service-uncached',
        'whole-path-10+10-t2'
      ])
    )
  })

  it('measure the audits of a network', async () => {
    const { rows } = await smoke(custody)
    const groups = ['work', 'bytes', 'memory', 'coverage']
    const costs = ['seed', 'sign', 'verify', 'proof-1KiB', 'proof-1024KiB', 'whole']
    expect(idsOf(rows)).toEqual([
      ...groups.flatMap((group) => [`${group}-1000`, `${group}-4000`]),
      ...costs.map((step) => `cost-${step}`)
    ])
  })

  it('measure a network that heals itself', async () => {
    const { rows, parameters } = await smoke(repair)
    expect(idsOf(rows)).toEqual(['kills', 'drains'])
    expect(parameters).toMatchObject({ providers: 3, code: '1+2' })
  })

  it('simulate churn, and draw it', async () => {
    const result = await smoke(churn)
    for (const model of churnModels)
      for (const policy of ['holdfast', ...alternatives.map(({ name }) => name)])
        expect(idsOf(result.rows)).toContain(`${model.name}/${policy}`)
    expect(idsOf(result.rows)).toEqual(expect.arrayContaining(['choice-ipfs/storj', 'theory-0', 'rare-0']))
    const directory = join(parent, 'plots')
    for (const file of await writePlots(directory, result)) {
      const svg = await readFile(file, 'utf8')
      expect(svg.startsWith('<svg ')).toBe(true)
      expect(svg.includes('NaN')).toBe(false)
    }
    expect((await readdir(directory)).sort()).toEqual(
      ['cost', 'loss', 'reads', 'theory'].map((plot) => `churn-${plot}.smoke.svg`)
    )
    await rm(directory, { recursive: true })
  })

  it('carry a trace out on real processes, and draw what became of the margins', async () => {
    const result = await smoke(live)
    expect(result.failures ?? []).toEqual([])
    const [measured, margins] = ['weibull/live', 'margins-weibull/live'].map((id) =>
      result.rows.find((row) => row.id === id)
    )
    const { events, reads, success, lostObjects } = measured!.figures
    expect(events!.median).toBeGreaterThan(0)
    expect(reads!.median).toBeGreaterThan(0)
    expect(success!.median).toBeGreaterThan(0)
    expect(lostObjects!.median).toBe(0)
    expect(margins!.figures.mean!.samples.length).toBe(margins!.figures.at!.samples.length)
    const directory = join(parent, 'plots')
    expect(await writePlots(directory, result)).toEqual([join(directory, 'live-margins.smoke.svg')])
    const svg = await readFile(join(directory, 'live-margins.smoke.svg'), 'utf8')
    expect(svg.startsWith('<svg ') && !svg.includes('NaN')).toBe(true)
    await rm(directory, { recursive: true })
  })

  it('measure a network beside the limits, and a smoke result is never read as a full one', async () => {
    const result = await smoke(throughput)
    expect(idsOf(result.limits)).toEqual(limitIds)
    for (const id of ['put-2MiB-c1', 'get-2MiB-c16', 'put-4KiB-c16', 'get-4KiB-c1', 'rest'])
      expect(idsOf(result.rows)).toContain(id)
    expect(result.parameters).toMatchObject({ providers: 3, code: '1+2' })
    const out = join(parent, 'results')
    await writeResult(out, result)
    expect(await readdir(out)).toEqual(['throughput.smoke.json'])
    expect(await readResults(out)).toEqual([])
  })
})
