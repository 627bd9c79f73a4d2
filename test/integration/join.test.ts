/** Providers come to a running network by one address of anybody in it, and are found through the DHT. */
import path from 'node:path'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { bytesOf } from '../support/bytes.ts'
import { runCli } from '../support/cli.ts'
import { freePort, ProcessNetwork, type ProviderProcess, readLog, waitFor } from '../support/processes.ts'

const bucket = 'join'
const timeout = 90_000

let network: ProcessNetwork
let s3: S3Client

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 3 })
  s3 = network.gateway.s3()
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
}, 180_000)

afterAll(() => network?.stop(), 60_000)

async function put(key: string): Promise<void> {
  await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytesOf(key, 2 * MiB) }))
}

async function expectIntact(key: string): Promise<void> {
  const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
  expect(Buffer.from(await Body!.transformToByteArray()).equals(bytesOf(key, 2 * MiB)), key).toBe(true)
}

async function holdersOf(key: string): Promise<Set<string | null>> {
  const { segments } = await network.gateway.health(bucket, key)
  return new Set(segments.flatMap(({ shards }) => shards.map(({ provider }) => provider)))
}

const untilCode = async (code: string): Promise<unknown> =>
  await waitFor(`new objects get ${code}`, async () => (await network.gateway.status()).codes.STANDARD === code)

let fourth: ProviderProcess

test('one that joins through a single provider is found by the gateway, and used', { timeout }, async () => {
  await put('of-three')
  expect((await network.gateway.health(bucket, 'of-three')).segments.map(({ code }) => code)).toEqual(['1+2', '1+2'])
  // It is told of the last provider alone; the gateway has never heard of that address.
  fourth = await network.startProvider({ name: 'fourth', bootstrap: [network.bootstrap.at(-1)!] })
  await network.gateway.untilOnline(4)
  await untilCode('2+2')
  await put('of-four')
  await network.gateway.untilComplete()
  expect(await holdersOf('of-four')).toEqual(new Set(network.providers.map(({ peerId }) => peerId)))
  // The figures of a moment ago are given for a while.
  await waitFor('its shards are counted', async () => (await network.gateway.providerView(fourth.peerId)).shards > 0)
  await expectIntact('of-four')
})

test('what it holds is read from it, with two of the others dead', { timeout }, async () => {
  const victims = network.providers.slice(0, 2)
  await network.kill(...victims)
  await expectIntact('of-four')
  await expectIntact('of-three')
  await network.restart(...victims)
  await network.gateway.untilOnline(4)
})

test('one whose way in leads nowhere serves, keeps trying, and is in once somebody is there', { timeout }, async () => {
  // The way in is a provider that does not run yet: its identity is known from an earlier run.
  const port = await freePort()
  const data = path.join(network.directory, 'providers', 'late')
  const late = await network.startProvider({ name: 'late', data, listen: `127.0.0.1:${port}` })
  await network.gateway.untilOnline(5)
  await network.kill(late)
  const way = `/ip4/127.0.0.1/tcp/${port}/p2p/${late.peerId}`
  const fifth = await network.startProvider({ name: 'fifth', bootstrap: [way] })
  await waitFor('it says that it is alone', async () => {
    return (await readLog(fifth.logFile)).find(({ message }) => message.startsWith('no node to join through answers'))
  })
  expect((await network.gateway.providerViews()).map(({ peerId }) => peerId)).not.toContain(fifth.peerId)
  await network.restart(late)
  await waitFor('the gateway has found it', async () => {
    return (await network.gateway.providerView(fifth.peerId)).state === 'online'
  })
})

test('one that is called wrongly says how', { timeout }, async () => {
  const data = path.join(network.directory, 'never')
  const wrong: Array<[args: string[], said: RegExp]> = [
    [['--data', data, '--colour', 'red'], /unknown option '--colour'/],
    [[], /--data/],
    [['--data', data, '--capacity', 'lots'], /--capacity.*is not a size/s],
    [['--data', data, '--bootstrap', 'nowhere'], /bootstrap|multiaddr/i],
    [['--data', data, '--listen', 'nowhere'], /--listen/]
  ]
  for (const [args, said] of wrong) {
    const { status, stdout, stderr } = await runCli(['provider', ...args])
    expect(stderr).toMatch(said)
    expect(`${status} ${stdout}`, args.join(' ')).toBe('2 ')
  }
})
