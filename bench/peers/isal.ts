/** Intel's ISA-L, native and with the widest vectors of the processor, where its headers and a C compiler are there. */
import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { coefficientsOf } from '../../src/erasure/galois.ts'
import { expectSame } from '../harness.ts'
import { type Contender, type Job, presentBut, type Segment, type Workspace } from '../kernel/contender.ts'

const source = fileURLToPath(new URL('../kernel/isal.c', import.meta.url))

/** @returns undefined if it can't be compiled here */
export async function isalContender(directory: string): Promise<Contender | undefined> {
  const program = join(directory, 'isal')
  try {
    await promisify(execFile)('cc', ['-O2', '-o', program, source, '-lisal'])
  } catch {
    return undefined
  }
  return { id: 'isal', name: 'ISA-L, native', open: async (segment) => openWorkspace(program, directory, segment) }
}

function openWorkspace(program: string, directory: string, segment: Segment): Workspace {
  let running: { job: Job; child: ChildProcessWithoutNullStreams; lines: AsyncIterator<string> } | undefined
  const files = ['matrix', 'data', 'answer'].map((name) => join(directory, `isal-${name}`))
  const [matrixFile, dataFile, answerFile] = files as [string, string, string]

  const close = async (): Promise<void> => {
    if (running === undefined) return
    const { child } = running
    running = undefined
    child.stdin.end()
    if (child.exitCode === null) await once(child, 'exit')
    await Promise.all(files.map((file) => rm(file, { force: true })))
  }

  /** One process for each job: all samples of a job come from the same. */
  const start = async (job: Job): Promise<NonNullable<typeof running>> => {
    await close()
    const { code, shardBytes, whole } = segment
    const present = presentBut(code, job.lost)
    const inputs = present.flatMap((isThere, index) => (isThere ? [index] : [])).slice(0, code.k)
    const byInput = coefficientsOf(inputs, job.lost)
    const byOutput = job.lost.flatMap((_, o) => inputs.map((_, i) => byInput[i * job.lost.length + o]!))
    await writeFile(matrixFile, Uint8Array.from(byOutput))
    await writeFile(dataFile, Buffer.concat(inputs.map((index) => shardOf(whole, shardBytes, index))))
    const numbers = [inputs.length, job.lost.length, shardBytes].map(String)
    const child = spawn(program, [...numbers, matrixFile, dataFile, answerFile])
    return { job, child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() }
  }

  return {
    close,
    take: async (job, repeats) => {
      if (running?.job !== job) running = await start(job)
      running.child.stdin.write(`${repeats}\n`)
      const { value } = (await running.lines.next()) as IteratorResult<string, undefined>
      if (value === undefined) throw new Error('the ISA-L program ended early')
      const expected = job.lost.map((index) => shardOf(segment.whole, segment.shardBytes, index))
      expectSame(await readFile(answerFile), Buffer.concat(expected), 'ISA-L')
      const [seconds, cpuSeconds] = value.split(' ').map(Number) as [number, number]
      return { seconds, cpuSeconds }
    }
  }
}

const shardOf = (shards: Uint8Array, bytes: number, index: number): Uint8Array =>
  shards.subarray(index * bytes, (index + 1) * bytes)
