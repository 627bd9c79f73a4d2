/** What auditing a large network takes a gateway: CPU, bytes, room in its index, and memory, which must not grow. */
import { fork } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MiB, minuteMs } from '../../src/base/limits.ts'
import { samplingDefaults } from '../../src/custody/sampling.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { type Benchmark, figureOf, samplingOf } from '../harness.ts'
import type { Figure, Row } from '../result.ts'
import { Blocks, blockBytes } from './blocks.ts'
import { type Costs, measureCosts } from './costs.ts'
import { fillIndex } from './fill.ts'
import type { GatewayJob, GatewayMessage, GatewayReport, Hour } from './messages.ts'
import { peerIdsOf } from './providers.ts'

const gatewayFile = fileURLToPath(new URL('gateway.ts', import.meta.url))
/** The beginning of an epoch, so that an hour has two of them. */
const startAt = Date.UTC(2026, 0, 5)
const hoursPerDay = 24

export const custody: Benchmark = {
  name: 'custody',
  title: 'Audits of a large network',
  run: async (context) => {
    const { scale, seed, directory, progress, signal } = context
    const isFull = scale === 'full'
    const sizes = isFull ? [100_000, 1_000_000] : [1000, 4000]
    const providers = context.providers ?? (isFull ? 1000 : 20)
    const times = { warmupHours: 1, hours: isFull ? 2 : 1 }
    progress('custody: what single steps cost')
    const costs = await measureCosts({ seed, times: isFull ? 500 : 10, sampling: samplingOf(scale), signal })
    const reports = new Map<number, GatewayReport>()
    for (const shards of sizes) {
      const job = { path: join(directory, 'index.sqlite'), seed, shards, providers, startAt, ...times }
      progress(`custody: an index with ${named(shards)} shards at ${named(providers)} providers`)
      await fill(job, signal)
      progress(`custody: ${times.warmupHours + times.hours} hours of audits`)
      reports.set(shards, await runGateway(job, progress, signal))
      for (const suffix of ['', '-wal', '-shm']) await rm(`${job.path}${suffix}`, { force: true })
    }
    return {
      parameters: {
        shards: sizes.join(', '),
        providers,
        blockBytes,
        ...times,
        epochMinutes: samplingDefaults.epochMs / minuteMs,
        budgetBytesPerSecond: samplingDefaults.bytesPerSecond
      },
      notes: notesOf([...reports.values()], costs),
      rows: [...rowsOf(reports, providers, costs), ...costs.rows]
    }
  }
}

async function fill({ path, seed, shards, providers }: GatewayJob, signal: AbortSignal): Promise<void> {
  const index = await openSqliteIndex(path)
  try {
    const peerIds = await peerIdsOf(seed, providers)
    await fillIndex(index, { seed, blocks: new Blocks(seed), shards, peerIds, now: startAt, signal })
  } finally {
    await index.close()
  }
}

/** In a process of its own, whose memory is that of a gateway that has just started. */
async function runGateway(
  job: GatewayJob,
  progress: (line: string) => void,
  signal: AbortSignal
): Promise<GatewayReport> {
  const child = fork(gatewayFile, [], {
    execArgv: ['--no-warnings', '--expose-gc'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    signal
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`the gateway's process ended with code ${code}`)))
      child.on('message', (message: GatewayMessage) => {
        if (message.kind === 'done') resolve(message.report)
        else if (message.kind === 'failed') reject(new Error(message.why))
        else progress(`custody: hour ${message.number} of ${job.hours}`)
      })
      child.send(job)
    })
  } finally {
    await ended // it has let go of its files
  }
}

const named = (count: number): string => count.toLocaleString('en-US')

function rowsOf(reports: ReadonlyMap<number, GatewayReport>, providers: number, costs: Costs): Row[] {
  const groups = { work: workOf, bytes: bytesOf, memory: memoryOf, coverage: coverageOf }
  return Object.entries(groups).flatMap(([group, figures]) =>
    [...reports].map(([shards, report]) => ({
      id: `${group}-${shards}`,
      label: `${named(shards)} shards at ${named(providers)} providers`,
      figures: figures(report, costs, providers)
    }))
  )
}

/** A sample an hour. */
const daily = (unit: string, { hours }: GatewayReport, each: (hour: Hour) => number): Figure =>
  figureOf(
    unit,
    hours.map((hour) => hoursPerDay * each(hour))
  )

function workOf(report: GatewayReport, { perProof, perWholeRead }: Costs): Record<string, Figure> {
  const withMiB = ({ gatewayCpuSeconds, proofs, wholeReads }: Hour): number =>
    gatewayCpuSeconds + proofs * perProof.cpuSeconds + wholeReads * perWholeRead.cpuSeconds
  return {
    gatewayCpu: daily('CPU-s/day', report, ({ gatewayCpuSeconds }) => gatewayCpuSeconds),
    gatewayCpuMiB: daily('CPU-s/day', report, withMiB),
    perRequest: figureOf(
      'CPU-ms',
      report.hours.map(({ gatewayCpuSeconds, requests }) => (1000 * gatewayCpuSeconds) / requests)
    ),
    requests: daily('a day', report, ({ requests }) => requests),
    proofs: daily('a day', report, ({ proofs }) => proofs),
    wholeReads: daily('a day', report, ({ wholeReads }) => wholeReads)
  }
}

function bytesOf(report: GatewayReport, { perProof }: Costs): Record<string, Figure> {
  return {
    requests: daily('MB/day', report, ({ sentBytes }) => sentBytes / 1e6),
    answers: daily('MB/day', report, ({ receivedBytes }) => receivedBytes / 1e6),
    bothMiB: daily('MB/day', report, ({ sentBytes, receivedBytes, proofs }) => {
      return (sentBytes + receivedBytes + proofs * perProof.bytes) / 1e6
    }),
    wholeReadsMiB: daily('MB/day', report, ({ wholeReads }) => (wholeReads * MiB) / 1e6),
    index: daily('MB/day', report, ({ indexBytes }) => indexBytes / 1e6)
  }
}

function memoryOf({ memory: { ready, warm, end } }: GatewayReport): Record<string, Figure> {
  const megabytes = (bytes: number): Figure => figureOf('MB', [bytes / 1e6])
  return {
    residentBefore: megabytes(ready.residentBytes),
    residentWarm: megabytes(warm.residentBytes),
    residentAfter: megabytes(end.residentBytes),
    residentGrowth: megabytes(end.residentBytes - warm.residentBytes),
    heapBefore: megabytes(ready.heapBytes),
    heapWarm: megabytes(warm.heapBytes),
    heapAfter: megabytes(end.heapBytes),
    heapGrowth: megabytes(end.heapBytes - warm.heapBytes)
  }
}

function coverageOf({ hours, longestGapMs }: GatewayReport, _costs: Costs, providers: number): Record<string, Figure> {
  return {
    challengedInHour: figureOf(
      '%',
      hours.map(({ challenged }) => (100 * challenged) / providers)
    ),
    longestGap: figureOf('min', [longestGapMs / minuteMs])
  }
}

function notesOf(reports: readonly GatewayReport[], { perProof }: Costs): string[] {
  const tables = reports.map(({ tableBytes }) => (tableBytes / 1e6).toFixed(0)).join(' and ')
  const replayed = reports.reduce((sum, report) => sum + report.replayed, 0)
  return [
    'The auditor as gateways run it, at its default pace, on an index in a file: seeds, signatures, proofs, checks and transcripts are all real. The clock is set forward from look to look (5 s), so hours pass in seconds; figures of a day are those of an hour times 24, one sample each.',
    'Virtual time stands still while providers answer: they are all there, honest, and quick. No sockets: HTTP and TLS cost CPU and bytes besides, which `samplingDefaults.requestBytes` allows for.',
    "gatewayCpu: of the process, all threads, without the simulated providers, which run in the same process: CPU time is read before and after each of their answers, which nothing interrupts. Garbage they leave is collected at the gateway's expense.",
    `Blocks are one chunk of ${blockBytes} bytes, so that none is kept in memory. Proofs of blocks of 1 MiB are ${perProof.bytes} bytes longer and take longer to check: figures with MiB in their name have those added by arithmetic, with the costs measured below; gatewayCpuMiB also has the hashing of whole reads, but not receiving them.`,
    'Shards were last proved as long ago as they would have been after weeks of audits; the first hour is not measured.',
    `Resident sets and heaps are after garbage collections, in a process of its own: before the first audit, when measuring began, and at the end. They include what the simulated providers find blocks by, ${tables} MB.`,
    'index: pages in use, of the file and its log. It grows by transcripts until there are 200,000, or they are 30 days old.',
    'challengedInHour: providers that were asked at least once in each hour. longestGap: the longest that any went without a challenge.',
    `Every outcome was ok, and ${replayed} transcripts were replayed offline and found agreed, before the figures counted.`
  ]
}
