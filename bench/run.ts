import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { BenchContext, Benchmark } from './harness.ts'
import { commitRecord, machineRecord } from './machine.ts'
import { type Result, schemaVersion } from './result.ts'

export interface RunContext extends Omit<BenchContext, 'directory'> {
  /** An existing directory on the disk to be measured. */
  parent: string
}

/** Runs one benchmark in a directory of its own, which is gone afterwards. */
export async function runBenchmark(benchmark: Benchmark, { parent, ...context }: RunContext): Promise<Result> {
  const directory = await mkdtemp(join(parent, 'holdfast-bench-'))
  try {
    const startedAt = new Date().toISOString()
    const machine = machineRecord(directory)
    const commit = commitRecord()
    const { parameters, notes, limits, rows, failures = [] } = await benchmark.run({ ...context, directory })
    return {
      schemaVersion,
      name: benchmark.name,
      title: benchmark.title,
      scale: context.scale,
      seed: context.seed,
      startedAt,
      finishedAt: new Date().toISOString(),
      commit,
      machine,
      parameters,
      notes: [...notes],
      limits,
      rows,
      ...(failures.length === 0 ? {} : { failures: [...failures] })
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}
