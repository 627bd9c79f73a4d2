/**
 * Audits of real processes: what is wrong with a provider is found by asking, told apart, written down so that anybody can
 * check it, and rebuilt elsewhere; nobody else is hurt.
 */
import { readFile, rm, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { bytesOf } from '../support/bytes.ts'
import { runCli } from '../support/cli.ts'
import { blockFile, ProcessNetwork, type ProviderProcess, repeatUntil, waitFor } from '../support/processes.ts'
import { fetchableSegments } from '../support/storage-lies.ts'

const bucket = 'audits'
const key = 'kept'
const sizeBytes = 7 * MiB + 321
const timeout = 120_000
/** Epochs of 7.5 s; repeats after 0.25, 2.5 and 15 s; a verdict 1.25 s after the last. */
const auditPace = 240

const lyingProvider = fileURLToPath(new URL('../support/lying-provider.ts', import.meta.url))

let network: ProcessNetwork
let s3: S3Client

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 8, auditPace })
  s3 = network.gateway.s3()
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
  await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytesOf(key, sizeBytes) }))
  await network.gateway.untilComplete()
}, 180_000)

afterAll(() => network?.stop(), 60_000)

async function run(...args: string[]): Promise<{ code: number | null; text: string }> {
  const { status, stdout } = await runCli(args)
  return { code: status, text: stdout.toString('utf8') }
}
const cli = (...args: string[]) => run(...args, '--data', network.directory)
const byPeerId = (peerId: string | null): ProviderProcess => network.providers.find((one) => one.peerId === peerId)!

interface Shard {
  cid: string
  provider: ProviderProcess
  file: string
  state: string
  lastProof: string | null
}

async function shardsOf(segment = 0): Promise<Shard[]> {
  const { segments } = await network.gateway.health(bucket, key)
  return segments[segment]!.shards.map(({ cid, provider: peerId, state, lastProof }) => {
    const provider = byPeerId(peerId)
    return { cid, provider, file: blockFile(provider, cid), state, lastProof }
  })
}

async function expectIntact(name = key, bytes = sizeBytes): Promise<void> {
  const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: name }))
  expect(Buffer.from(await Body!.transformToByteArray()).equals(bytesOf(name, bytes))).toBe(true)
}

interface Round {
  outcomes: Record<string, number>
  unproved: Array<{ cid: string; provider: string; outcome: string }>
}

/** Of everything, or of one thing. */
async function auditNow(...target: string[]): Promise<{ code: number | null; round: Round }> {
  const { code, text } = await cli('audit', ...target, '--json')
  return { code, round: JSON.parse(text) as Round }
}

/** Again, as long as anything goes unanswered: on a busy machine the honest are silent at times, and nothing follows from it. */
function auditUntilAnswered(...target: string[]): ReturnType<typeof auditNow> {
  return waitFor(`all of ${target} is answered for`, async () => {
    const asked = await auditNow(...target)
    return 'timeout' in asked.round.outcomes || 'offline' in asked.round.outcomes ? undefined : asked
  })
}

async function lostAt({ peerId }: ProviderProcess): Promise<Array<Record<string, unknown>>> {
  return (await network.gatewayLog()).filter(
    ({ message, provider }) => message === 'a shard is lost' && provider === peerId
  )
}

test('honest providers prove all they are to have, and sign for it', { timeout }, async () => {
  const { code, round } = await auditUntilAnswered()
  expect(code).toBe(0)
  expect(Object.keys(round.outcomes)).toEqual(['ok'])
  expect(round.outcomes.ok).toBe(16) // two segments at 4+4
  for (const { state, lastProof } of await shardsOf()) {
    expect(state).toBe('healthy')
    expect(Date.now() - Date.parse(lastProof!)).toBeLessThan(60_000)
  }
})

describe('what is on a disk', () => {
  const damage: Record<string, (file: string, other: string) => Promise<void>> = {
    'is gone': (file) => rm(file),
    'has a bit turned': async (file) => {
      const bytes = await readFile(file)
      bytes[bytes.length - 1]! ^= 1
      await writeFile(file, bytes)
    },
    'is cut short': (file) => truncate(file, 1000),
    'is another block': async (file, other) => writeFile(file, await readFile(other))
  }

  test('and not as it should be, in four ways at once, is missing, and rebuilt', { timeout }, async () => {
    const shards = await shardsOf()
    const harmed = shards.slice(0, 4)
    for (const [i, harm] of Object.values(damage).entries()) await harm(harmed[i]!.file, shards[4]!.file)
    const { code, round } = await auditUntilAnswered(`s3://${bucket}/${key}`)
    // The audit loop may have been there before.
    const found = new Set(round.unproved.map(({ cid }) => cid))
    for (const { cid, provider } of harmed) {
      await waitFor(`${cid} is known to be lost`, async () => {
        return (await lostAt(provider)).some((line) => line.cid === cid && line.outcome === 'missing')
      })
      found.add(cid)
    }
    expect(found).toEqual(new Set(harmed.map(({ cid }) => cid)))
    expect(round.unproved.every(({ outcome }) => outcome === 'missing')).toBe(true)
    expect(code).toBe(round.unproved.length > 0 ? 6 : 0)
    await network.gateway.untilComplete()
    const { segments } = await network.gateway.health(bucket, key)
    expect(segments[0]).toMatchObject({ code: '4+4', margin: 4 })
    await expectIntact()
    for (const { provider } of harmed) {
      const { text } = await cli('providers', provider.peerId)
      expect(text).toMatch(/missing +1\.000 +0\.96/)
    }
    for (const provider of network.providers.filter((one) => !harmed.some((shard) => shard.provider === one)))
      expect(await lostAt(provider), `${provider.name} is not blamed`).toEqual([])
  })

  test('the transcripts convince somebody who trusts neither side, offline', { timeout }, async () => {
    const file = path.join(network.directory, 'audits.jsonl')
    expect((await cli('audit', '--export', file)).code).toBe(0)
    const { code, text } = await run('audit', '--verify', file, '--json')
    const verified = JSON.parse(text)
    expect(code).toBe(0)
    expect(verified).toMatchObject({ holds: true, atFault: { auditor: 0 }, verdicts: { refuted: 0 } })
    expect(verified.cases.proved).toBeGreaterThan(16)
    // One letter of one line changed, and it is worth nothing.
    const lines = (await readFile(file, 'utf8')).split('\n')
    const changed = lines.findIndex((line) => line.includes('"ok":'))
    lines[changed] = lines[changed]!.replace(/"ok":\d+/, '"ok":999')
    await writeFile(file, lines.join('\n'))
    expect((await run('audit', '--verify', file)).code).toBe(6)
  })
})

test('a provider that stands still is contained, and loses nothing by it', { timeout }, async () => {
  const [frozen] = network.providers
  const countLost = (): Promise<number[]> =>
    Promise.all(network.providers.map(async (one) => (await lostAt(one)).length))
  const before = await countLost()
  network.freeze(frozen!)
  await waitFor('an audit goes unanswered', async () => 'timeout' in (await auditNow(frozen!.peerId)).round.outcomes)
  await waitFor('a challenge waits', async () => {
    return ((await network.gateway.providerView(frozen!.peerId)).score?.contained ?? 0) > 0
  })
  await expectIntact()
  network.thaw(frozen!)
  await network.gateway.untilOnline(network.providers.length)
  await waitFor('none waits', async () => (await network.gateway.containedCount()) === 0, 90_000)
  expect(await countLost()).toEqual(before)
  const file = path.join(network.directory, 'silence.jsonl')
  await cli('audit', '--export', file)
  const { code, text } = await run('audit', '--verify', file, '--json')
  expect(code).toBe(0)
  expect(JSON.parse(text).cases.timeout).toBeGreaterThan(0)
})

describe('providers that lie', () => {
  /** As much as the others have at most: with less they would be given parity, for the most part, which is seldom read. */
  const capacity = '20000000000'
  const lies = ['half', 'stale', 'replay', 'foreign', 'unread', 'fetch', 'stall'] as const
  type Lie = (typeof lies)[number]
  const liars = new Map<Lie, ProviderProcess>()
  const lied = 'lied-about'
  /** Ten segments, so that each provider has ten shards of it. */
  const liedBytes = 70 * MiB
  let honestLosses: number[]
  let honest: ProviderProcess[]
  const countLost = (): Promise<number[]> => Promise.all(honest.map(async (one) => (await lostAt(one)).length))

  beforeAll(async () => {
    honest = [...network.providers]
    const started = lies.map((lie) => network.startProvider({ name: lie, script: lyingProvider, capacity }))
    for (const [i, liar] of (await Promise.all(started)).entries()) liars.set(lies[i]!, liar)
    await network.gateway.untilOnline(network.providers.length)
    honestLosses = await countLost()
    await s3.send(new PutObjectCommand({ Bucket: bucket, Key: lied, Body: bytesOf(lied, liedBytes) }))
    await network.gateway.untilComplete()
    // A first answer of each, which some repeat from then on.
    for (const liar of liars.values()) expect((await auditUntilAnswered(liar.peerId)).code).toBe(0)
  }, 180_000)

  /** From now on; until then it is as honest as any. */
  async function begin(lie: Lie): Promise<ProviderProcess> {
    const liar = liars.get(lie)!
    await liar.process!.ask({ lie, ...(lie === 'fetch' ? await fetching(liar) : {}) })
    return liar
  }

  async function fetching({ peerId }: ProviderProcess): Promise<object> {
    const health = await network.gateway.health(bucket, lied)
    return { segments: fetchableSegments(health, await network.gateway.providerViews(), peerId), bitsPerSecond: 40e6 }
  }

  /** Stores objects until the provider has a shard of one that every read wants. */
  async function putReadFrom({ peerId }: ProviderProcess, bytes: number): Promise<string> {
    for (let tries = 0; tries < 100; tries++) {
      const name = `read-${tries}`
      await s3.send(new PutObjectCommand({ Bucket: bucket, Key: name, Body: bytesOf(name, bytes) }))
      const [segment] = (await network.gateway.health(bucket, name)).segments
      const data = segment!.shards.slice(0, Number.parseInt(segment!.code, 10))
      if (data.some(({ provider }) => provider === peerId)) return name
    }
    throw new Error('it is never given a data shard')
  }

  const outcomesSeen = async (liar: ProviderProcess): Promise<Set<string>> => {
    const { round } = await auditNow(liar.peerId)
    return new Set(Object.keys(round.outcomes))
  }
  const hasLost = async (liar: ProviderProcess, outcome: string): Promise<boolean> =>
    (await lostAt(liar)).some((line) => line.outcome === outcome)
  const untilLost = (liar: ProviderProcess, outcome: string, timeoutMs?: number): Promise<unknown> =>
    waitFor(`${liar.name} has lost a shard: ${outcome}`, () => hasLost(liar, outcome), timeoutMs)

  test('what another peer signs says nothing, until the shard itself is read', { timeout }, async () => {
    const liar = await begin('foreign')
    const begunAt = Date.now()
    expect((await outcomesSeen(liar)).difference(new Set(['timeout']))).toEqual(new Set(['unknown']))
    await waitFor('it has shown what it has in another way', async () => {
      const shards = (await network.gateway.health(bucket, lied)).segments.flatMap((segment) => segment.shards)
      return shards.some(
        ({ provider, state, lastProof }) =>
          provider === liar.peerId && state === 'healthy' && Date.parse(lastProof ?? '') > begunAt
      )
    })
    expect(await lostAt(liar), 'nothing says that it lost anything').toEqual([])
  })

  // Its verdict takes longest, and comes while the others are found out.
  test('who never answers waits to be asked again, and has lost nothing yet', { timeout }, async () => {
    const liar = await begin('stall')
    expect(await outcomesSeen(liar)).toContain('timeout')
    expect(await lostAt(liar)).toEqual([])
  })

  test('who keeps the first half of every shard answers wrong', { timeout }, async () => {
    const liar = await begin('half')
    await outcomesSeen(liar)
    await untilLost(liar, 'wrong')
  })

  test.each(['stale', 'replay'] as const)('old answers are wrong (%s)', { timeout }, async (lie) => {
    const liar = await begin(lie)
    await outcomesSeen(liar)
    await untilLost(liar, 'wrong')
  })

  test('who answers audits alone is found out by reads', { timeout }, async () => {
    const liar = liars.get('unread')!
    const bytes = MiB
    const name = await putReadFrom(liar, bytes)
    await begin('unread')
    const { round } = await auditUntilAnswered(liar.peerId)
    expect(Object.keys(round.outcomes)).toEqual(['ok'])
    // Every read asks it. One that has what it needs before the answer is there does not wait for it: then the next one tells.
    await repeatUntil(
      'a read finds it out',
      () => expectIntact(name, bytes),
      () => hasLost(liar, 'missing')
    )
  })

  test('who fetches from others when asked is too late', { timeout }, async () => {
    const liar = await begin('fetch')
    expect(await outcomesSeen(liar)).toContain('timeout')
    // Nothing that it proves counts for it while a challenge waits.
    await waitFor('it is contained', async () => {
      return ((await network.gateway.providerView(liar.peerId)).score?.contained ?? 0) > 0
    })
  })

  test('audits go on by themselves', { timeout }, async () => {
    const before = await network.gateway.auditCount()
    await waitFor('ten more audits', async () => (await network.gateway.auditCount()) >= before + 10)
  })

  test('who never answers was asked the very same four times, and has lost it then', { timeout }, async () => {
    const liar = liars.get('stall')!
    await untilLost(liar, 'missing', 90_000)
    expect((await lostAt(liar))[0]!.why).toContain('went unanswered 4 times')
  })

  test('and their transcripts say so, while nobody honest is blamed', { timeout }, async () => {
    const file = path.join(network.directory, 'lies.jsonl')
    expect((await cli('audit', '--export', file)).code).toBe(0)
    const { code, text } = await run('audit', '--verify', file, '--json')
    expect(code).toBe(0)
    const { faults, cases } = JSON.parse(text) as {
      faults: Array<{ provider: string; case: string; atFault: string }>
      cases: Record<string, number>
    }
    expect(cases.foreign).toBeGreaterThan(0)
    const wrong = new Set(faults.filter((one) => one.case === 'wrong').map(({ provider }) => provider))
    expect(wrong).toEqual(new Set(['half', 'stale'].map((lie) => liars.get(lie as Lie)!.peerId)))
    expect(faults.filter(({ atFault }) => atFault === 'auditor')).toEqual([])
    expect(await countLost()).toEqual(honestLosses)
    for (const lie of ['half', 'stale', 'replay'] as const) {
      const { score } = await network.gateway.providerView(liars.get(lie)!.peerId)
      expect(score).toMatchObject({ weight: 0, standing: expect.stringMatching(/closed|suspended/) })
    }
    for (const { peerId } of honest) {
      const { score } = await network.gateway.providerView(peerId)
      expect(score!.standing).toMatch(/vetting|vetted/)
    }
  })
})
