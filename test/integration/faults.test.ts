/**
 * Providers that lose, rot, lie, stall and run full, each a real process on a real disk: reads and writes succeed as long
 * as the code allows, what was wrong with whom is told apart, and never a wrong byte is served.
 */
import { mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  PutObjectCommand,
  type S3Client
} from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { bytesOf } from '../support/bytes.ts'
import type { Lie } from '../support/lying-provider.ts'
import {
  blockFile,
  isCi,
  type LogLine,
  ProcessNetwork,
  type ProviderProcess,
  repeatUntil,
  waitFor
} from '../support/processes.ts'
import { findProgram, runProgram } from '../support/s3-clients.ts'

const bucket = 'faults'
const timeout = 120_000
const lyingProvider = fileURLToPath(new URL('../support/lying-provider.ts', import.meta.url))

let network: ProcessNetwork
let s3: S3Client

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 6 })
  s3 = network.gateway.s3()
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
}, 180_000)

afterAll(() => network?.stop(), 60_000)

async function put(key: string, sizeBytes: number): Promise<void> {
  await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytesOf(key, sizeBytes) }))
}

async function expectIntact(key: string, sizeBytes: number): Promise<void> {
  const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
  const bytes = Buffer.from(await Body!.transformToByteArray())
  expect(bytes.equals(bytesOf(key, sizeBytes)), `${key} is identical`).toBe(true)
}

const byPeerId = (peerId: string | null): ProviderProcess => network.providers.find((one) => one.peerId === peerId)!

interface Shard {
  cid: string
  provider: ProviderProcess
  file: string
}

/** The shards of the object's first segment, and where their files are. */
async function shardsOf(key: string): Promise<Shard[]> {
  const { segments } = await network.gateway.health(bucket, key)
  return segments[0]!.shards.map(({ cid, provider: peerId }) => {
    const provider = byPeerId(peerId)
    return { cid, provider, file: blockFile(provider, cid) }
  })
}

/** Lines of the gateway's log about one shard. */
async function loggedOf(cid: string): Promise<LogLine[]> {
  return (await network.gatewayLog()).filter((line) => line.cid === cid)
}

/**
 * Reads the object until reads have shown of each of these shards what is wrong with it. One read may not: it does not wait
 * for a provider that answers later than the others. The log says it, since what is lost is rebuilt at once.
 */
async function readUntilLost(
  { key, sizeBytes }: { key: string; sizeBytes: number },
  shards: readonly Shard[],
  outcome: 'missing' | 'wrong'
): Promise<void> {
  await repeatUntil(
    `each harmed shard of ${key} is ${outcome}`,
    () => expectIntact(key, sizeBytes),
    async () => {
      const lost = (await network.gatewayLog()).filter((line) => line.message === 'a shard is lost')
      return shards.every(({ cid, provider }) =>
        lost.some((line) => line.cid === cid && line.provider === provider.peerId && line.outcome === outcome)
      )
    }
  )
}

/** Requests to a provider by what became of them, as the admin API has it. */
async function outcomesOf({ peerId }: ProviderProcess): Promise<Record<string, number>> {
  return (await network.gateway.providerView(peerId)).outcomes
}

describe('what is on a disk', () => {
  const sizeBytes = 2 * MiB + 4321
  const damage: Record<string, { harm: (file: string) => Promise<void>; said: string }> = {
    'has a bit turned': {
      harm: async (file) => {
        const bytes = await readFile(file)
        bytes[1000]! ^= 4
        await writeFile(file, bytes)
      },
      said: 'damaged'
    },
    'is cut short': { harm: async (file) => await truncate(file, 1000), said: 'damaged' },
    'is gone': { harm: async (file) => await rm(file), said: 'no such block' }
  }

  test('damaged in three ways, as many as the code bears: identical all the same, told apart, and rebuilt', {
    timeout
  }, async () => {
    await put('disk', sizeBytes)
    await network.gateway.untilComplete()
    const shards = await shardsOf('disk')
    expect((await network.gateway.health(bucket, 'disk')).segments[0]).toMatchObject({ code: '3+3', margin: 3 })
    const harms = Object.values(damage)
    for (const [i, { harm }] of harms.entries()) await harm(shards[i]!.file) // all three data shards
    await readUntilLost({ key: 'disk', sizeBytes }, shards.slice(0, harms.length), 'missing')
    for (const [i, { said }] of harms.entries()) {
      const lines = await loggedOf(shards[i]!.cid)
      expect(lines.find((line) => line.outcome === 'missing')?.error).toContain(said)
      const { missing, wrong } = await outcomesOf(shards[i]!.provider)
      expect(missing).toBeGreaterThan(0)
      expect(wrong).toBe(0)
    }
    await network.gateway.untilComplete()
    expect((await network.gateway.health(bucket, 'disk')).segments[0]).toMatchObject({ code: '3+3', margin: 3 })
    for (const { file } of await shardsOf('disk')) expect((await stat(file)).size).toBe(Math.ceil(sizeBytes / 3))
    await expectIntact('disk', sizeBytes)
  })

  test('damaged beyond what the code bears: an error, and not a byte that is wrong', { timeout }, async () => {
    await put('gone', sizeBytes)
    await network.gateway.untilComplete()
    const shards = await shardsOf('gone')
    for (const { file } of shards.slice(2)) await rm(file)
    const reading = s3.send(new GetObjectCommand({ Bucket: bucket, Key: 'gone' }))
    await expect(reading).rejects.toMatchObject({ name: 'ServiceUnavailable', $metadata: { httpStatusCode: 503 } })
    expect((await network.gateway.health(bucket, 'gone')).segments[0]).toMatchObject({ margin: -1 })
    await expectIntact('disk', sizeBytes)
    await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key: 'gone' }))
  })
})

describe('a provider that lies', () => {
  const sizeBytes = 2 * MiB + 99
  let liar: ProviderProcess
  /** Objects of which the liar has a shard that every read wants; stored before it ever lied, and so lost its good name. */
  const readByLie = new Map<Lie, Awaited<ReturnType<typeof putWithLiar>>>()
  let written = 0

  beforeAll(async () => {
    liar = await network.startProvider({ name: 'liar', script: lyingProvider, capacity: '10000000000' })
    await network.gateway.untilOnline(network.providers.length)
    for (const lie of ['bytes', 'length', 'silence'] as const) readByLie.set(lie, await putWithLiar())
  }, 60_000)

  const tell = async (lie: Lie): Promise<void> => void (await liar.process!.ask({ lie }))

  async function putWithLiar(): Promise<{ key: string; index: number; shard: Shard }> {
    for (let tries = 0; tries < 50; tries++) {
      const key = `lie-${written++}`
      await put(key, sizeBytes)
      await network.gateway.untilComplete()
      const k = Number.parseInt((await network.gateway.health(bucket, key)).segments[0]!.code, 10)
      const shards = await shardsOf(key)
      const index = shards.findIndex(({ provider }) => provider === liar)
      if (index >= 0 && index < k) return { key, index, shard: shards[index]! }
    }
    throw new Error('the liar is never given a data shard')
  }

  test('and says to have kept what it has not', { timeout }, async () => {
    await tell('amnesia')
    const { key, shard } = await putWithLiar()
    await tell('none')
    await readUntilLost({ key, sizeBytes }, [shard], 'missing')
    expect(await loggedOf(shard.cid)).toContainEqual(
      expect.objectContaining({ outcome: 'missing', provider: liar.peerId })
    )
    await network.gateway.untilComplete()
    await expectIntact(key, sizeBytes)
  })

  test.each(['bytes', 'length'] as const)("about a block's %s is found out", { timeout }, async (lie) => {
    const { key, shard } = readByLie.get(lie)!
    await tell(lie)
    const before = await outcomesOf(liar)
    await readUntilLost({ key, sizeBytes }, [shard], 'wrong')
    await tell('none')
    expect(await loggedOf(shard.cid)).toContainEqual(
      expect.objectContaining({ message: 'provider returned wrong bytes', provider: liar.peerId })
    )
    const after = await outcomesOf(liar)
    expect(after.wrong).toBeGreaterThan(before.wrong!)
    expect(after.missing).toBe(before.missing)
    await network.gateway.untilComplete()
  })

  test('or takes requests and never answers them', { timeout }, async () => {
    const { key, index } = readByLie.get('silence')!
    await tell('silence')
    await expectIntact(key, sizeBytes)
    await put('past-silence', sizeBytes)
    await expectIntact('past-silence', sizeBytes)
    // Slow is not lying, and not losing: there is no evidence against the shard.
    const { segments } = await network.gateway.health(bucket, key)
    expect(['healthy', 'contained']).toContain(segments[0]!.shards[index]!.state)
    await tell('none')
  })
})

describe('providers that stand still', () => {
  const sizeBytes = 3 * MiB
  let margin: number

  beforeAll(async () => {
    // In the liar's place, who may be trusted again or not by now: with the two of them there are seven or eight.
    await network.startProvider({ name: 'spare' })
    await network.gateway.untilOnline(network.providers.length)
  }, 60_000)

  test('as many as the code bears: reads and writes go round them', { timeout }, async () => {
    await put('before', sizeBytes)
    await network.gateway.untilComplete()
    const [segment] = (await network.gateway.health(bucket, 'before')).segments
    expect(['3+4', '4+4']).toContain(segment!.code)
    margin = segment!.margin
    const frozen = network.providers.slice(0, 2) // a write is acknowledged at five of seven, or six of eight
    network.freeze(...frozen)
    await put('during', sizeBytes)
    await expectIntact('before', sizeBytes)
    await expectIntact('during', sizeBytes)
    for (const { peerId } of frozen) {
      await waitFor('it is known to stand still', async () => {
        return (await network.gateway.providerView(peerId)).state === 'contained'
      })
      const { segments } = await network.gateway.health(bucket, 'before')
      expect(segments[0]!.shards.find(({ provider }) => provider === peerId)?.state).toBe('contained')
    }
    await expectIntact('before', sizeBytes)
    network.thaw(...frozen)
    await network.gateway.untilOnline(network.providers.length)
  })

  test('more than the code bears: an error in good time, and all is well when they go on', { timeout }, async () => {
    const frozen = network.providers.slice(0, 5)
    network.freeze(...frozen)
    const reading = s3.send(new GetObjectCommand({ Bucket: bucket, Key: 'before' }))
    await expect(reading).rejects.toMatchObject({ name: 'ServiceUnavailable' })
    network.thaw(...frozen)
    await network.gateway.untilOnline(network.providers.length)
    await expectIntact('before', sizeBytes)
    // Slow is not lying: nothing was lost, and nothing was rebuilt.
    expect((await network.gateway.health(bucket, 'before')).segments[0]).toMatchObject({ margin })
  })
})

describe('a full disk', () => {
  const sizeBytes = 2 * MiB

  const diskBytes = 6 * MiB
  const fill = async (full: ProviderProcess): Promise<string[]> => {
    const keys: string[] = []
    while (((await outcomesOf(full)).full ?? 0) === 0) {
      const key = `${full.name}-${keys.length}`
      await put(key, sizeBytes)
      keys.push(key)
      expect(keys.length, 'objects until it was full').toBeLessThan(60)
    }
    return keys
  }

  async function expectWellWith(full: ProviderProcess, keys: readonly string[]): Promise<void> {
    const refusals = (await network.gatewayLog()).filter(({ outcome }) => outcome === 'full')
    expect(refusals).toContainEqual(
      expect.objectContaining({ message: 'provider did not take a shard', provider: full.peerId })
    )
    expect((await network.gateway.providerView(full.peerId)).state).toBe('online')
    for (const key of keys) await expectIntact(key, sizeBytes)
    // What it took while there was room it still has.
    const states = await Promise.all(keys.map(async (key) => (await network.gateway.health(bucket, key)).segments))
    const held = states.flat().flatMap(({ shards }) => shards.filter(({ provider }) => provider === full.peerId))
    expect(held.length).toBeGreaterThan(0)
    expect(new Set(held.map(({ state }) => state))).toEqual(new Set(['healthy']))
  }

  test('by its own measure: others take its shards', { timeout }, async () => {
    const full = await network.startProvider({ name: 'small', capacity: `${diskBytes}` })
    await network.gateway.untilOnline(network.providers.length)
    await expectWellWith(full, await fill(full))
    const used = (await readdir(path.join(full.data, 'blocks'), { recursive: true, withFileTypes: true })).filter((e) =>
      e.isFile()
    )
    const sizes = await Promise.all(
      used.map(async (entry) => (await stat(path.join(entry.parentPath, entry.name))).size)
    )
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(diskBytes)
  })

  const canMount = process.getuid?.() === 0 && findProgram('mount') !== undefined
  test.skipIf(!canMount)('really, whatever it thinks it has: others take its shards', { timeout }, async (context) => {
    const data = path.join(network.directory, 'providers', 'full')
    await mkdir(data, { recursive: true })
    try {
      await runProgram(findProgram('mount')!, ['-t', 'tmpfs', '-o', `size=${diskBytes}`, 'tmpfs', data])
    } catch (error) {
      context.skip(!isCi, `this machine mounts nothing: ${(error as Error).message}`)
      throw error
    }
    network.onStop(async () => void (await runProgram(findProgram('umount')!, [data])))
    const full = await network.startProvider({ name: 'full', data, capacity: '1GB' })
    await network.gateway.untilOnline(network.providers.length)
    await expectWellWith(full, await fill(full))
  })
})
