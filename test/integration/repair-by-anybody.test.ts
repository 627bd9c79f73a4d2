/**
 * An owner is away while providers die for good: another gateway of the network, which has no key and no index of it, gives
 * its content the margin back. When the owner returns it takes that over by the report, and reads no shard for it.
 */
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { KiB, MiB } from '../../src/base/limits.ts'
import { bytesOf } from '../support/bytes.ts'
import { runCli } from '../support/cli.ts'
import { freePort, type GatewayHandle, ProcessNetwork, type TestProcess, waitFor } from '../support/processes.ts'

const bucket = 'away'
const sizes = { large: 7 * MiB, small: 100 * KiB }
const code = '3+3'
const parity = 3

interface Owner {
  handle: GatewayHandle
  process: TestProcess
}

let network: ProcessNetwork
let owner: Owner
let port: number
const roots: string[] = []

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 8, code })
  port = await freePort()
  owner = await network.startGateway('owner', port, { code })
  await owner.handle.untilOnline(8)
  const s3 = owner.handle.s3()
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
  for (const [key, size] of Object.entries(sizes))
    await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytesOf(key, size) }))
  await owner.handle.untilComplete()
  for (const key of Object.keys(sizes)) roots.push((await owner.handle.health(bucket, key)).cid)
}, 120_000)

afterAll(() => network?.stop(), 60_000)

const margins = async ({ handle }: Owner): Promise<number[]> => {
  const all = await Promise.all(Object.keys(sizes).map((key) => handle.health(bucket, key)))
  return all.flatMap(({ segments, blocks }) => [...segments, ...blocks].map(({ margin }) => margin))
}

/** Requests about whole shards that providers have answered to this gateway. */
const shardRequests = async ({ handle }: Owner): Promise<number> =>
  (await handle.providerViews()).reduce((sum, { outcomes }) => sum + (outcomes.ok ?? 0), 0)

const fileOf = (root: string): string => path.join(network.directory, `${root}.repair`)

test('a stranger rebuilds what three providers took with them, and signs for it', { timeout: 120_000 }, async () => {
  await owner.process.end('SIGTERM')
  await network.kill(...network.providers.slice(0, 3))
  const helper = network.gateway
  for (const { peerId } of await Promise.all(['new-1', 'new-2'].map((name) => network.startProvider({ name }))))
    await waitFor('the stranger knows who is new', async () => (await helper.providerView(peerId)).state === 'online')
  for (const root of roots) {
    const args = ['repair', '--cid', root, '--report', fileOf(root), '--admin', helper.admin, '--json']
    const { status, stdout, stderr } = await runCli(args)
    expect([status, stderr]).toEqual([0, ''])
    const { rebuilt, found, unhelped, failure } = JSON.parse(stdout.toString())
    expect({ unhelped, failure }).toEqual({ unhelped: {}, failure: null })
    expect(rebuilt).toBeGreaterThan(0)
    expect(found).toBeGreaterThan(0)
    expect((await readFile(fileOf(root))).length).toBeGreaterThan(0)
  }
  expect((await helper.status()).objects).toBe(0)
})

test('the owner takes it over: margin full, not a shard read', { timeout: 120_000 }, async () => {
  owner = await network.startGateway('owner', port, { code })
  await waitFor('the owner knows who is there', async () => {
    const { online, offline } = (await owner.handle.status()).providers
    return online === 7 && offline === 3
  })
  expect(Math.min(...(await margins(owner)))).toBeLessThan(parity)
  const before = await shardRequests(owner)
  for (const root of roots) {
    const args = ['repair', '--accept', fileOf(root), '--admin', owner.handle.admin, '--json']
    const { status, stdout, stderr } = await runCli(args)
    expect([status, stderr]).toEqual([0, ''])
    const { rows, shards } = JSON.parse(stdout.toString())
    expect(rows.accepted).toBeGreaterThan(0)
    expect(shards.filter(({ verdict }: { verdict: string }) => verdict !== 'accepted')).toEqual([])
  }
  expect(await shardRequests(owner)).toBe(before)
  expect(new Set(await margins(owner))).toEqual(new Set([parity]))
})

test('and the objects are identical, from what the stranger has stored', { timeout: 60_000 }, async () => {
  await network.kill(...network.providers.slice(3, 6))
  const s3 = owner.handle.s3()
  for (const [key, size] of Object.entries(sizes)) {
    const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
    expect(Buffer.from(await Body!.transformToByteArray()).equals(bytesOf(key, size)), key).toBe(true)
  }
})
