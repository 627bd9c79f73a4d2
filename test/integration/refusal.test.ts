/** A provider says no, with real processes: the content lives on elsewhere, nobody is harmed, and it is not asked again. */
import { get as httpsGet } from 'node:https'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { bytesOf } from '../support/bytes.ts'
import { runCli } from '../support/cli.ts'
import { ProcessNetwork, waitFor } from '../support/processes.ts'

const bucket = 'refused'
const bytes = bytesOf('refused', 3 * MiB)

let network: ProcessNetwork
let s3: S3Client

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 6, code: '2+2', selfHost: '20MB' })
  s3 = network.gateway.s3()
  // Public, so that the same content is the same blocks again.
  await s3.send(new CreateBucketCommand({ Bucket: bucket, ACL: 'public-read' }))
}, 120_000)

afterAll(() => network?.stop(), 60_000)

async function put(key: string): Promise<string> {
  await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytes }))
  await network.gateway.untilComplete()
  return (await network.gateway.health(bucket, key)).cid
}

async function shardsAt(peerId: string, key: string): Promise<string[]> {
  const { segments, blocks } = await network.gateway.health(bucket, key)
  return [...segments, ...blocks].flatMap(({ shards }) =>
    shards.filter(({ provider }) => provider === peerId).map(({ cid }) => cid)
  )
}

const refuseAt = async (data: string, ...args: string[]): Promise<unknown> => {
  const { status, stdout, stderr } = await runCli(['refuse', ...args, '--data', data, '--json'])
  expect([status, stderr]).toEqual([0, ''])
  return JSON.parse(stdout.toString())
}

async function expectWhole(key: string): Promise<void> {
  const { segments, blocks } = await network.gateway.health(bucket, key)
  expect([...segments, ...blocks].map(({ margin }) => margin)).toEqual([...segments, ...blocks].map(() => 2))
  const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
  expect(Buffer.compare(await Body!.transformToByteArray(), bytes)).toBe(0)
}

const getBlock = (url: string, cid: string): Promise<{ status: number | undefined; body: string }> =>
  new Promise((resolve, reject) => {
    httpsGet(`${url}/ipfs/${cid}?format=raw`, { rejectUnauthorized: false }, (response) => {
      let body = ''
      response.on('data', (chunk) => {
        body += chunk
      })
      response.once('end', () => resolve({ status: response.statusCode, body }))
    }).once('error', reject)
  })

test('what one provider refuses lives on elsewhere', { timeout: 120_000 }, async () => {
  const root = await put('first')
  const { shards } = (await network.gateway.health(bucket, 'first')).segments[0]!
  const refuser = network.providers.find(({ peerId }) => peerId === shards[0]!.provider)!
  const before = await network.gateway.providerView(refuser.peerId)
  const refuse = (...args: string[]): Promise<unknown> => refuseAt(refuser.data, ...args)
  const held = new Set(await shardsAt(refuser.peerId, 'first')).size
  expect(await refuse(root, '--reason', 'not with us')).toMatchObject({ cid: root, isWhole: true, held })
  await waitFor('nothing of it is with the refuser', async () => (await shardsAt(refuser.peerId, 'first')).length === 0)
  await network.gateway.untilComplete()
  await expectWhole('first')
  const { status, body } = await getBlock(before.dataUrls[0]!, shards[0]!.cid)
  expect([status, JSON.parse(body)]).toEqual([451, { code: 'REFUSED', message: 'not with us' }])

  const after = await network.gateway.providerView(refuser.peerId)
  expect(after.score?.custody ?? 1).toBe(1)
  const { events } = await network.gateway.get<{ events: unknown[] }>(`/v1/providers/${refuser.peerId}/score`)
  expect(events).toEqual([])
  expect(after.earned).toMatchObject({ amount: 0 }) // it asks for no price

  // It is given back, and still not asked: what has been refused is remembered.
  expect(await refuse('--show')).toMatchObject({ commands: [{ cid: root, reason: 'not with us' }] })
  expect(await refuse('--undo', root)).toMatchObject({ stillRefused: null })
  await put('second')
  const refused = new Set(shards.filter(({ provider }) => provider === refuser.peerId).map(({ cid }) => cid))
  expect((await shardsAt(refuser.peerId, 'second')).filter((cid) => refused.has(cid))).toEqual([])
  await expectWhole('second')
})

test('what all refuse is kept by the gateway itself, until somebody takes it', { timeout: 180_000 }, async () => {
  const self = (await network.gateway.get<{ peerId: string }>('/v1/status')).peerId
  const root = await put('outcast')
  // Also who has nothing of it learns what it is made of, though nobody else gives that any more.
  for (const { data } of network.providers) expect(await refuseAt(data, root)).toMatchObject({ isWhole: true })
  const held = async (): Promise<number> => (await shardsAt(self, 'outcast')).length
  const { segments, blocks } = await network.gateway.health(bucket, 'outcast')
  const all = [...segments, ...blocks].flatMap(({ shards }) => shards).length
  await waitFor('the gateway keeps all of it', async () => (await held()) === all, 90_000)
  await expectWhole('outcast')
  const { selfHost } = await network.gateway.get<{ selfHost: { bytes: number } }>('/v1/status')
  expect(selfHost.bytes).toBeGreaterThan(bytes.length)
  const { stdout } = await runCli(['health', `s3://${bucket}/outcast`, '--data', network.directory])
  expect(stdout.toString()).toContain('kept by the gateway itself')
  for (const { peerId } of network.providers) expect(await shardsAt(peerId, 'outcast')).toEqual([])

  const taker = await network.startProvider({ name: 'taker' })
  await waitFor('it has a shard of every segment', async () => {
    return (await shardsAt(taker.peerId, 'outcast')).length === segments.length + blocks.length
  })
  expect(await held()).toBe(all - segments.length - blocks.length)
  await expectWhole('outcast')
})

test('who names no running provider is told so', async () => {
  const { status, stderr } = await runCli(['refuse', '--show', '--data', network.directory])
  expect([status, stderr]).toEqual([4, expect.stringContaining('no provider is running')])
})
