/**
 * One sample of a network's work: objects are stored, and read back. Times of both are given only once every byte has
 * been compared; a network that lost or changed one gets no figures.
 */
import { performance } from 'node:perf_hooks'
import { forEachLimit } from '../../src/base/concurrency.ts'
import type { ObjectData } from '../data.ts'
import { megabytesPerSecond, perGigabyte, quantileOf } from '../harness.ts'
import type { BenchNetwork, CpuUse } from './network.ts'
import type { S3Client } from './s3-client.ts'

export interface RoundObject {
  key: string
  data: ObjectData
}

export interface Work {
  objects: number
  bytes: number
  /** From the first request to the last answer. */
  seconds: number
  /** To when every shard is where it belongs; for reads, the same as `seconds`. */
  settledSeconds: number
  /** CPU-seconds used until then. */
  cpu: CpuUse
  /** Of each request, ascending. */
  latenciesMs: number[]
}

export interface Round {
  put: Work
  get: Work
}

export interface RoundInit {
  network: BenchNetwork
  client: S3Client
  bucket: string
  objects: readonly RoundObject[]
  /** Requests at once. */
  width: number
}

/** Stores the objects, waits until all their shards are placed, and reads them back. */
export async function runRound(init: RoundInit): Promise<Round> {
  const put = await putObjects(init)
  const get = await getObjects(init)
  return { put, get }
}

/** Its figures stand only once `getObjects` has shown that the objects are what was put. */
export async function putObjects(init: RoundInit): Promise<Work> {
  const { network, client, bucket } = init
  return await perform(
    init,
    ({ key, data }) => client.put(bucket, key, data),
    () => network.settled()
  )
}

/** @throws WrongAnswerError unless every object is what was put, byte for byte */
export async function getObjects(init: RoundInit): Promise<Work> {
  const { client, bucket } = init
  return await perform(init, ({ key, data }) => client.get(bucket, key, data))
}

async function perform(
  { network, objects, width }: RoundInit,
  request: (object: RoundObject) => Promise<void>,
  settled?: () => Promise<void>
): Promise<Work> {
  const latenciesMs: number[] = []
  const cpuBefore = await network.cpu()
  const startedAt = performance.now()
  const elapsedSeconds = (): number => (performance.now() - startedAt) / 1000
  await forEachLimit(objects, width, async (object) => {
    const requestedAt = performance.now()
    await request(object)
    latenciesMs.push(performance.now() - requestedAt)
  })
  const seconds = elapsedSeconds()
  await settled?.()
  const settledSeconds = settled === undefined ? seconds : elapsedSeconds()
  const cpu = await network.cpu()
  return {
    objects: objects.length,
    bytes: objects.reduce((sum, { data }) => sum + data.size, 0),
    seconds,
    settledSeconds,
    cpu: {
      gateway: cpu.gateway - cpuBefore.gateway,
      providers: cpu.providers - cpuBefore.providers,
      client: cpu.client - cpuBefore.client
    },
    latenciesMs: latenciesMs.sort((a, b) => a - b)
  }
}

/** Figures of large objects. */
export const bulkUnits = {
  rate: 'MB/s',
  gatewayCpu: 'CPU-s/GB',
  providersCpu: 'CPU-s/GB',
  clientCpu: 'CPU-s/GB'
} as const

export function bulkFigures({ bytes, seconds, cpu }: Work): Record<keyof typeof bulkUnits, number> {
  return {
    rate: megabytesPerSecond(bytes, seconds),
    gatewayCpu: perGigabyte(cpu.gateway, bytes),
    providersCpu: perGigabyte(cpu.providers, bytes),
    clientCpu: perGigabyte(cpu.client, bytes)
  }
}

/** `settledRate` counts until every shard is where it belongs, not only until the last PUT is acknowledged. */
export const bulkPutUnits = { ...bulkUnits, settledRate: 'MB/s' } as const

export function bulkPutFigures(work: Work): Record<keyof typeof bulkPutUnits, number> {
  return { ...bulkFigures(work), settledRate: megabytesPerSecond(work.bytes, work.settledSeconds) }
}

/** Figures of small objects. */
export const operationUnits = {
  operations: 'ops/s',
  p50: 'ms',
  p99: 'ms',
  gatewayCpu: 'CPU-ms/op',
  providersCpu: 'CPU-ms/op',
  clientCpu: 'CPU-ms/op'
} as const

export function operationFigures({
  objects,
  seconds,
  cpu,
  latenciesMs
}: Work): Record<keyof typeof operationUnits, number> {
  return {
    operations: objects / seconds,
    p50: quantileOf(latenciesMs, 0.5),
    p99: quantileOf(latenciesMs, 0.99),
    gatewayCpu: (cpu.gateway * 1000) / objects,
    providersCpu: (cpu.providers * 1000) / objects,
    clientCpu: (cpu.client * 1000) / objects
  }
}

export const operationPutUnits = { ...operationUnits, settledOperations: 'ops/s' } as const

export function operationPutFigures(work: Work): Record<keyof typeof operationPutUnits, number> {
  return { ...operationFigures(work), settledOperations: work.objects / work.settledSeconds }
}
