/**
 * The gateway dies in the middle of things, again and again: what it acknowledged is there, what it did not is absent or
 * whole, and what it left on the providers is rubbish that they collect.
 */
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  PutObjectCommand,
  UploadPartCommand
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { hourMs, KiB, limits, MiB } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { FsShardStore } from '../../src/provider/fs-shard-store.ts'
import { SqliteLeaseStore } from '../../src/provider/sqlite-lease-store.ts'
import { StorageProvider } from '../../src/provider/storage-provider.ts'
import { bytesOf, chunksOf, sha256Of, sha256OfStream, streamOf } from '../support/bytes.ts'
import {
  freePort,
  type GatewayHandle,
  isSoak,
  ProcessNetwork,
  type TestProcess,
  waitFor
} from '../support/processes.ts'

const rounds = isSoak ? 10 : 3
const uploadsAtOnce = 50
const bucket = 'crash'
const timeout = 120_000

let network: ProcessNetwork
let port: number
let gateway: GatewayHandle
let running: TestProcess
/** What was acknowledged: key to the SHA-256 of its bytes. */
const acknowledged = new Map<string, string>()

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: isSoak ? 12 : 6 })
  port = await freePort()
  await startGateway()
  await gateway.s3().send(new CreateBucketCommand({ Bucket: bucket }))
}, 180_000)

afterAll(() => network?.stop(), 60_000)

async function startGateway(): Promise<void> {
  const started = await network.startGateway('crashing', port)
  gateway = started.handle
  running = started.process
}

/** Of every size: bytes, a shard, several, and some in parts. */
const sizeOf = (i: number): number => [700, 40 * KiB, 900 * KiB, MiB + 1, 6 * MiB][i % 5]!

async function hashOf(key: string): Promise<string | undefined> {
  try {
    const { Body } = await gateway.s3().send(new GetObjectCommand({ Bucket: bucket, Key: key }))
    return await sha256OfStream(Body as Readable)
  } catch (error) {
    if ((error as Error).name === 'NoSuchKey') return undefined
    throw error
  }
}

interface Attempt {
  key: string
  /** SHA-256 of what was sent. */
  hash: string
  isAcknowledged: boolean
}

async function upload(round: number, i: number): Promise<Attempt> {
  // Every fifth overwrites what an earlier round has stored.
  const key = i % 5 === 4 ? `shared-${i}` : `round-${round}/${i}`
  const name = `${round} ${i}`
  const sizeBytes = sizeOf(i)
  const attempt = { key, hash: sha256Of(name, sizeBytes), isAcknowledged: false }
  const client = gateway.s3()
  try {
    if (i % 5 === 4) {
      const Body = streamOf(name, sizeBytes)
      await new Upload({ client, partSize: 5 * MiB, params: { Bucket: bucket, Key: key, Body } }).done()
    } else {
      await client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytesOf(name, sizeBytes) }))
    }
    attempt.isAcknowledged = true
  } catch {
    // The gateway died under it: whether it took place is asked afterwards.
  }
  return attempt
}

/** The round's moment: from the first acknowledgements to nearly the last. */
const killAfter = (round: number): number => 2 + Math.floor((round * (uploadsAtOnce - 12)) / Math.max(1, rounds - 1))

test.each(Array.from({ length: rounds }, (_, round) => round))(
  `round %i: killed amid ${uploadsAtOnce} uploads, it keeps what it acknowledged`,
  { timeout },
  async (round) => {
    let acknowledgedNow = 0
    const enough = Promise.withResolvers<void>()
    const attempts = Array.from({ length: uploadsAtOnce }, async (_, i) => {
      const attempt = await upload(round, i)
      if (attempt.isAcknowledged && ++acknowledgedNow === killAfter(round)) enough.resolve()
      return attempt
    })
    await enough.promise // at that moment: the rest is soon done
    await running.end('SIGKILL')
    gateway.closeClients()
    const done = await Promise.all(attempts)
    const lost = done.filter(({ isAcknowledged }) => !isAcknowledged)
    expect(lost.length, 'uploads that the death cut off').toBeGreaterThan(0)
    for (const { key, hash, isAcknowledged } of done) if (isAcknowledged) acknowledged.set(key, hash)

    await startGateway()
    for (const { key, hash } of lost) {
      // Cut off, it either took place or left what was there before: nothing, or an earlier round's bytes.
      const found = await hashOf(key)
      expect([hash, acknowledged.get(key)], key).toContain(found)
      if (found !== undefined) acknowledged.set(key, found)
    }
    await forEachLimit([...acknowledged], 8, async ([key, hash]) => expect(await hashOf(key), key).toBe(hash))
  }
)

test('the gateway that "up" runs comes back by itself', { timeout }, async () => {
  const before = await network.gatewayPid()
  const startedAt = (await network.gateway.status()).startedAt
  const client = network.gateway.s3()
  await client.send(new CreateBucketCommand({ Bucket: 'kept' }))
  await client.send(new PutObjectCommand({ Bucket: 'kept', Key: 'key', Body: 'kept' }))
  process.kill(before, 'SIGKILL')
  await waitFor('another gateway answers', async () => (await network.gateway.status()).startedAt !== startedAt)
  expect(await network.gatewayPid()).not.toBe(before)
  await network.gateway.untilReady()
  const { Body } = await client.send(new GetObjectCommand({ Bucket: 'kept', Key: 'key' }))
  expect(await Body!.transformToString()).toBe('kept')
})

/** The index of a gateway that runs, read beside it. */
async function indexOf(name: string): Promise<MetadataIndex> {
  return await openSqliteIndex(path.join(network.directory, name, 'index.sqlite'), { isServing: false })
}

/** Every file in the block directories of the providers: `pNN CID`. */
async function blockFiles(): Promise<Set<string>> {
  const files = new Set<string>()
  for (const { name, data } of network.providers) {
    const entries = await readdir(path.join(data, 'blocks'), { recursive: true, withFileTypes: true })
    for (const entry of entries) if (entry.isFile()) files.add(`${name} ${entry.name}`)
  }
  return files
}

test('shards of uploads that were given up are given back', { timeout }, async () => {
  const index = await indexOf('crashing')
  const settled = async (): Promise<boolean> => (await index.listReleaseProviders()).length === 0
  await gateway.untilComplete()
  await network.gateway.untilComplete() // it was killed with shards of its own still to be placed
  await waitFor('nothing is left to be released', settled)
  const before = await blockFiles()
  const client = gateway.s3()

  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key: 'aborted' }))
  const upload = { Bucket: bucket, Key: 'aborted', UploadId }
  await client.send(new UploadPartCommand({ ...upload, PartNumber: 1, Body: bytesOf('part', 6 * MiB) }))
  expect((await blockFiles()).size).toBeGreaterThan(before.size)
  await client.send(new AbortMultipartUploadCommand(upload))

  const sizeBytes = 32 * MiB
  const cutOff = new AbortController()
  const body = Readable.from(
    (async function* () {
      yield* chunksOf('cut off', sizeBytes - 1)
      await waitFor('its shards are stored', async () => (await blockFiles()).size > before.size)
      cutOff.abort()
    })(),
    { objectMode: false }
  )
  const command = new PutObjectCommand({ Bucket: bucket, Key: 'cut-off', Body: body, ContentLength: sizeBytes })
  await expect(client.send(command, { abortSignal: cutOff.signal })).rejects.toThrow(/abort/i)

  await waitFor('the providers hold what they held before', async () => {
    const now = await blockFiles()
    const [more, fewer] = [[...now.difference(before)], [...before.difference(now)]]
    if (more.length + fewer.length === 0) return true
    throw new Error(`too many: ${more.join(', ')}; too few: ${fewer.join(', ')}`)
  })
  expect(await hashOf('cut-off')).toBeUndefined()
  await index.close()
})

test('what the crashes left behind is collected, and nothing else', { timeout }, async () => {
  const [own, other] = [await indexOf('crashing'), await indexOf('gateway')]
  const now = Date.now()
  await waitFor('leases of all that was acknowledged are renewed', async () => {
    const due = network.providers.map(async ({ peerId }) => [
      ...(await own.listLeasesDue(peerId, now + 2 * limits.provisionalLeaseMs, 1)),
      ...(await other.listLeasesDue(peerId, now + 2 * limits.provisionalLeaseMs, 1))
    ])
    return (await Promise.all(due)).flat().length === 0
  })
  await network.kill(...network.providers)
  let collected = 0
  for (const { peerId, data } of network.providers) {
    // The provider's own code on what its process left on disk, with a clock that runs on to the next day.
    const clock = { ...systemClock, now: () => now }
    const leases = new SqliteLeaseStore(path.join(data, 'leases.sqlite'))
    const shards = await FsShardStore.open(data)
    const provider = new StorageProvider(
      { shards, leases, clock, log: silentLog, signer: { peerId, sign: async () => new Uint8Array(64) } },
      { capacityBytes: 1e12, domain: 'd', price: 0, dataUrls: () => [], addresses: () => [], version: 'test' }
    )
    await provider.reconcileAtStart()
    clock.now = () => now + limits.provisionalLeaseMs + 2 * hourMs
    collected += (await provider.collect()).blocks
    const held = [
      ...(await own.listLeasesDue(peerId, Number.MAX_SAFE_INTEGER, 100_000)),
      ...(await other.listLeasesDue(peerId, Number.MAX_SAFE_INTEGER, 100_000))
    ]
    const kept = (await Array.fromAsync(shards.list())).map(({ cid }) => cid.toString())
    expect(kept.sort()).toEqual(held.map(({ cid }) => cid.toString()).sort())
    await leases.close()
  }
  expect(collected).toBeGreaterThan(0)
  await Promise.all([own.close(), other.close()])
})
