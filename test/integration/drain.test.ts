/** A provider leaves, on real processes: killed in the middle it goes on, each shard travels once, and nothing is left. */
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { KiB, MiB } from '../../src/base/limits.ts'
import type { DrainState } from '../../src/provider/drain.ts'
import { bytesOf } from '../support/bytes.ts'
import { runCli, startCli } from '../support/cli.ts'
import { ProcessNetwork, type ProviderProcess, waitFor } from '../support/processes.ts'

const bucket = 'leaving'
const timeout = 120_000
/** Some 80 blocks at each provider: several batches. */
const sizes = Array.from({ length: 70 }, (_, i) => [8 * KiB, 60 * KiB, MiB][i % 3]!)

let network: ProcessNetwork
let s3: S3Client

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 6, code: '2+2' })
  s3 = network.gateway.s3()
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
  await forEachLimit(sizes.entries(), 4, async ([i, sizeBytes]) => {
    await s3.send(new PutObjectCommand({ Bucket: bucket, Key: `${i}`, Body: bytesOf(`${i}`, sizeBytes) }))
  })
  await network.gateway.untilComplete()
}, 180_000)

afterAll(() => network?.stop(), 60_000)

/** What is in a provider's store, by name. */
async function blocksOf({ data }: ProviderProcess): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  const directory = path.join(data, 'blocks')
  for (const name of await readdir(directory, { recursive: true })) {
    if (!path.basename(name).startsWith('b')) continue
    const bytes = await readFile(path.join(directory, name)).catch(() => undefined) // a directory
    if (bytes !== undefined) found.set(path.basename(name), bytes.length)
  }
  return found
}
const sum = (blocks: ReadonlyMap<string, number>): number => [...blocks.values()].reduce((a, b) => a + b, 0)

const drainFile = async ({ data }: ProviderProcess): Promise<Pick<DrainState, 'moved' | 'sentBytes'>> =>
  JSON.parse(await readFile(path.join(data, 'draining.json'), 'utf8'))

test('killed in the middle of it, a provider that drains goes on, and sends each shard once', { timeout }, async () => {
  const [leaver, ...others] = network.providers as [ProviderProcess, ...ProviderProcess[]]
  const owned = await blocksOf(leaver)
  const before = await Promise.all(others.map(blocksOf))
  expect(owned.size).toBeGreaterThan(40)

  const first = startCli(['drain', '--data', leaver.data])
  first.stdin!.end()
  const said: Buffer[] = []
  first.stderr!.on('data', (chunk: Buffer) => said.push(chunk))
  const ended = new Promise<number | null>((resolve) => first.once('close', resolve))
  await waitFor('some are handed over', async () => (await drainFile(leaver)).moved > 0)
  await network.kill(leaver)
  expect(await ended, Buffer.concat(said).toString()).toBe(4)
  const { moved } = await drainFile(leaver)
  expect(moved).toBeLessThan(owned.size)

  await network.restart(leaver)
  const { status, stdout, stderr } = await runCli(['drain', '--data', leaver.data, '--json'])
  expect(status, stderr).toBe(0)
  const lines = stdout
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as DrainState)
  expect(lines.at(-1)).toMatchObject({ state: 'done', leases: 0, waiting: [] })
  expect(lines.at(-1)!.moved).toBeGreaterThan(moved)

  expect(sum(await blocksOf(leaver))).toBe(0)
  const after = await Promise.all(others.map(blocksOf))
  const arrived = after.map(sum).reduce((a, b) => a + b) - before.map(sum).reduce((a, b) => a + b)
  expect(arrived / sum(owned)).toBeLessThanOrEqual(1.05)
  // What the last process sent it counts, and what the first had written down.
  expect(lines.at(-1)!.sentBytes / sum(owned)).toBeLessThanOrEqual(1.05)
})

test('everything is at full margin without it, and comes back identical', { timeout }, async () => {
  const [leaver] = network.providers as [ProviderProcess]
  expect(await network.gateway.providerView(leaver.peerId)).toMatchObject({ draining: true, shards: 0 })
  await network.gateway.untilComplete()
  for (const [i, sizeBytes] of sizes.entries()) {
    const { segments, blocks } = await network.gateway.health(bucket, `${i}`)
    for (const { shards, margin, code } of [...segments, ...blocks]) {
      expect(margin, code).toBe(Number(code.split('+')[1]))
      expect(new Set(shards.map(({ provider }) => provider)).size).toBe(shards.length)
      expect(shards.map(({ provider }) => provider)).not.toContain(leaver.peerId)
    }
    const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: `${i}` }))
    expect(Buffer.from(await Body!.transformToByteArray()).equals(bytesOf(`${i}`, sizeBytes)), `${i}`).toBe(true)
  }
})

test('it stays after all when it is told so, and takes new shards', { timeout }, async () => {
  const [leaver] = network.providers as [ProviderProcess]
  const { status, stdout } = await runCli(['drain', '--data', leaver.data, '--cancel', '--json'])
  expect([status, JSON.parse(stdout.toString())]).toMatchObject([0, { state: 'off' }])
  const { status: none, stderr } = await runCli(['drain', '--data', network.directory])
  expect([none, stderr]).toEqual([4, expect.stringContaining('no provider is running')])
})
