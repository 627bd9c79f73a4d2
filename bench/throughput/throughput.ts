/** PUT and GET of large and small objects through a whole network on this machine, beside what the machine could do. */
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { KiB, MiB, secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import { formatCode } from '../../src/erasure/erasure-coder.ts'
import { DataSource } from '../data.ts'
import { type Benchmark, collect, figuresOf, measureRow, type Sampling, type Scale, samplingOf } from '../harness.ts'
import { codeInUse, measureLimits, providersDefault } from '../limits.ts'
import type { Row } from '../result.ts'
import { type BenchNetwork, runtimeVersionOf } from './network.ts'
import {
  bulkFigures,
  bulkPutFigures,
  bulkPutUnits,
  bulkUnits,
  operationFigures,
  operationPutFigures,
  operationPutUnits,
  operationUnits,
  type Round,
  runRound
} from './round.ts'
import { clientDescription } from './s3-client.ts'
import { withNetwork } from './with-network.ts'

interface Workload {
  id: string
  /** Bytes of each object. */
  size: number
  /** Requests at once. */
  width: number
  /** Objects of one sample. */
  objects: number
}

/** Large objects: what counts is bytes. */
const bulkWorkloads = (scale: Scale): Workload[] =>
  scale === 'full'
    ? [
        { id: '64MiB-c1', size: 64 * MiB, width: 1, objects: 4 },
        { id: '64MiB-c16', size: 64 * MiB, width: 16, objects: 16 }
      ]
    : [
        { id: '2MiB-c1', size: 2 * MiB, width: 1, objects: 2 },
        { id: '2MiB-c16', size: 2 * MiB, width: 16, objects: 16 }
      ]

/** Small objects: what counts is requests. */
const smallWorkloads = (scale: Scale): Workload[] => [
  { id: '4KiB-c1', size: 4 * KiB, width: 1, objects: scale === 'full' ? 128 : 8 },
  { id: '4KiB-c16', size: 4 * KiB, width: 16, objects: scale === 'full' ? 1024 : 32 }
]

/** Large objects stored and read before anything is measured: a provider sees a twelfth of them, and its code is compiled as it runs. */
const warmUpObjects = (scale: Scale): number => (scale === 'full' ? 32 : 2)

const bucket = 'bench'

export const throughput: Benchmark = {
  name: 'throughput',
  title: 'Throughput through S3',
  run: async (context) => {
    const { scale, seed, directory, code, runtimes, progress, signal } = context
    const providers = context.providers ?? providersDefault
    const sampling = samplingOf(scale)
    const bulk = bulkWorkloads(scale)
    const small = smallWorkloads(scale)
    const limits = await measureLimits(context)
    progress(`throughput: starting ${providers} providers and a gateway`)
    const place = { directory: join(directory, 'network'), providers, code, runtime: runtimes[0], signal }
    const rows = await withNetwork({ ...place, connections: 16 }, async ({ network, client }) => {
      const measured: Row[] = []
      const data = new DataSource(seed)
      let made = 0
      await client.createBucket(bucket)
      const samplesOf = async ({ id, size, width, objects }: Workload): Promise<Round[]> => {
        progress(`throughput: ${id}`)
        const nextRound = (): Promise<Round> => {
          const numbers = Array.from({ length: objects }, () => made++)
          const named = numbers.map((number) => ({ key: `${id}/${number}`, data: data.object(number, size) }))
          return runRound({ network, client, bucket, objects: named, width })
        }
        return await collect(sampling, nextRound, signal)
      }
      progress('throughput: warming up')
      const warm = Array.from({ length: warmUpObjects(scale) }, () => made++)
      const named = warm.map((number) => ({ key: `warm/${number}`, data: data.object(number, bulk[0]!.size) }))
      await runRound({ network, client, bucket, objects: named, width: 16 })
      for (const workload of bulk) {
        const rounds = await samplesOf(workload)
        measured.push(
          rowOf(
            'put',
            workload,
            bulkPutUnits,
            rounds.map(({ put }) => bulkPutFigures(put))
          )
        )
        measured.push(
          rowOf(
            'get',
            workload,
            bulkUnits,
            rounds.map(({ get }) => bulkFigures(get))
          )
        )
      }
      for (const workload of small) {
        const rounds = await samplesOf(workload)
        measured.push(
          rowOf(
            'put',
            workload,
            operationPutUnits,
            rounds.map(({ put }) => operationPutFigures(put))
          )
        )
        measured.push(
          rowOf(
            'get',
            workload,
            operationUnits,
            rounds.map(({ get }) => operationFigures(get))
          )
        )
      }
      progress('throughput: at rest')
      measured.push(await restRow(network, sampling, (scale === 'full' ? 10 : 1) * secondMs, signal))
      return measured
    })
    return {
      parameters: {
        providers,
        code: formatCode(codeInUse(context)),
        runtime: runtimeVersionOf(runtimes[0]),
        ...Object.fromEntries([...bulk, ...small].map(({ id, objects }) => [`objects of a sample, ${id}`, objects])),
        ...sampling
      },
      notes: [
        'Client, gateway and providers share this machine and its cores.',
        clientDescription,
        `Before anything is measured ${warmUpObjects(scale)} of the larger objects are stored and read, so that all processes run compiled code.`,
        'A sample stores its objects, waits until all their shards are placed, and reads them back; its times are kept only after every byte was compared. The comparison is in the time and in the client CPU of GET.',
        'rate, operations: until the last request is answered. settledRate, settledOperations: until every shard is placed, since a PUT is acknowledged at its quorum; the CPU of PUT is until then as well.',
        'CPU of gateway and providers: user and system time in /proc, in steps of 10 ms a process, including what they do at rest. Client CPU includes asking every 50 ms whether the shards are placed.',
        'Objects are read soon after they were written, so providers read them from the page cache.',
        'All objects stay in the network until the end.'
      ],
      limits: limits.rows,
      rows
    }
  }
}

function rowOf<F extends string>(
  verb: 'put' | 'get',
  { id, size, width }: Workload,
  units: Record<F, string>,
  samples: Record<F, number>[]
): Row {
  const what = size < MiB ? `${size / KiB} KiB` : `${size / MiB} MiB`
  return {
    id: `${verb}-${id}`,
    label: `${verb.toUpperCase()} ${what}, ${width} at once`,
    figures: figuresOf(units, samples)
  }
}

/** What the nodes use while nobody asks for anything: audits of each other, DHT upkeep. */
async function restRow(
  network: BenchNetwork,
  { samples }: Sampling,
  windowMs: number,
  signal: AbortSignal
): Promise<Row> {
  return await measureRow({
    id: 'rest',
    label: 'at rest',
    units: { gatewayLoad: 'cores', providersLoad: 'cores' },
    sampling: { warmups: 0, samples },
    signal,
    take: async () => {
      const before = await network.cpu()
      const startedAt = performance.now()
      await systemClock.sleep(windowMs, signal)
      const after = await network.cpu()
      const seconds = (performance.now() - startedAt) / 1000
      return {
        gatewayLoad: (after.gateway - before.gateway) / seconds,
        providersLoad: (after.providers - before.providers) / seconds
      }
    }
  })
}
