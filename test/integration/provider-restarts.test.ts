/** Providers are killed outright and started again while objects are written: what they said yes to, they have. */
import { readFile } from 'node:fs/promises'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { KiB, MiB } from '../../src/base/limits.ts'
import { matchesCid, parseCid } from '../../src/content/cid.ts'
import { bytesOf } from '../support/bytes.ts'
import { blockFile, isSoak, ProcessNetwork, waitFor } from '../support/processes.ts'

const rounds = isSoak ? 40 : 3
const uploadsAtOnce = 4
const providerCount = isSoak ? 12 : 8
/** A 4+4 write is acknowledged at six shards of eight, a 6+6 write at nine of twelve: so many may be dead at any time. */
const victimsAtOnce = providerCount / 4
const bucket = 'restarts'
const timeout = isSoak ? 1_800_000 : 120_000

let network: ProcessNetwork
let s3: S3Client
/** Keys of what was acknowledged, and their sizes. */
const acknowledged = new Map<string, number>()

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: providerCount })
  s3 = network.gateway.s3()
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
}, 180_000)

afterAll(() => network?.stop(), 60_000)

/** Writes one object after another until told to end. */
async function write(writer: number, end: AbortSignal): Promise<void> {
  for (let i = 0; !end.aborted; i++) {
    const key = `${writer}/${i}`
    const sizeBytes = [3 * KiB, 300 * KiB, 2 * MiB][i % 3]!
    await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytesOf(key, sizeBytes) }))
    acknowledged.set(key, sizeBytes)
  }
}

test(`${rounds} times ${victimsAtOnce} of ${providerCount} are killed and come back: every write is served`, {
  timeout
}, async () => {
  const end = new AbortController()
  const writing = Promise.all(Array.from({ length: uploadsAtOnce }, (_, writer) => write(writer, end.signal)))
  writing.catch(() => {}) // awaited below
  for (let round = 0; round < rounds; round++) {
    const before = acknowledged.size
    await waitFor('objects are written', () => acknowledged.size >= before + uploadsAtOnce)
    const { providers } = network
    const victims = Array.from(
      { length: victimsAtOnce },
      (_, i) => providers[(round * victimsAtOnce + i) % providers.length]!
    )
    await network.kill(...victims)
    await waitFor('objects are written without them', () => acknowledged.size >= before + 2 * uploadsAtOnce)
    await network.restart(...victims)
    await network.gateway.untilOnline(providers.length)
  }
  end.abort()
  await writing
})

test('every acknowledged object comes back identical', { timeout }, async () => {
  await forEachLimit([...acknowledged], 8, async ([key, sizeBytes]) => {
    const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
    expect(Buffer.from(await Body!.transformToByteArray()).equals(bytesOf(key, sizeBytes)), key).toBe(true)
  })
})

test('every shard is placed in the end, and each is whole on the disk of who said yes', { timeout }, async () => {
  await network.gateway.untilComplete()
  const byPeerId = new Map(network.providers.map((provider) => [provider.peerId, provider]))
  const checked = new Set<string>()
  await forEachLimit([...acknowledged.keys()], 8, async (key) => {
    // Whoever was slow just now is contained for a while, and what it has is not counted meanwhile.
    const { segments, blocks } = await waitFor(`${key} is at full margin`, async () => {
      const health = await network.gateway.health(bucket, key)
      const all = [...health.segments, ...health.blocks]
      return all.every(({ margin, code }) => margin === Number(code.split('+')[1])) && health
    })
    for (const { shards } of [...segments, ...blocks]) {
      for (const { cid, provider, state } of shards) {
        expect(state).toBe('healthy')
        const bytes = await readFile(blockFile(byPeerId.get(provider!)!, cid))
        expect(matchesCid(parseCid(cid), bytes), `${cid} at ${provider}`).toBe(true)
        checked.add(`${cid} ${provider}`)
      }
    }
  })
  expect(checked.size).toBeGreaterThan(acknowledged.size * providerCount)
})
