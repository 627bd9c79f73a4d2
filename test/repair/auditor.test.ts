/**
 * The audit loop over a real index, with providers that are functions and a clock that is moved by hand: what it asks, what it
 * concludes, what it keeps over a restart, and whom it does not blame.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { hourMs, minuteMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import type { CID } from '../../src/content/cid.ts'
import { type Answer, type AuditRequest, auditRequestCodec } from '../../src/custody/audit-messages.ts'
import { type Finding, TranscriptVerifier } from '../../src/custody/verify-transcript.ts'
import type { Offer } from '../../src/market/offer.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { Auditor } from '../../src/repair/auditor.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { blockOf, proofOf, statementOf } from '../support/audits.ts'
import { aBucket, anObject, aShard } from '../support/records.ts'

const startAt = 1_800_000_000_000
const shardBytes = 5000

/** Time stands still unless it is moved; nobody is late. */
class HandClock implements Clock {
  time = startAt
  now = (): number => this.time
  sleep = (_ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((_resolve, reject) => {
      if (signal?.aborted === true) reject(signal.reason)
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
}

type Behaviour = 'honest' | 'silent' | 'offline' | 'forgetful' | 'unsigned' | 'wrong' | 'refusing'

interface World {
  clock: HandClock
  index: MetadataIndex
  gateway: Identity
  providers: Identity[]
  behaviour: Map<string, Behaviour>
  blocks: Map<string, Uint8Array>
  asked: AuditRequest[]
  reads: string[]
  lost: number
  /** Whether a provider that refuses has signed that. */
  isRefusalSigned: boolean
  auditor: Auditor
}

let world: World
let made = 0
const signal = new AbortController().signal

beforeEach(async () => {
  const providers = await Promise.all(Array.from({ length: 6 }, () => generateIdentity()))
  const gateway = await generateIdentity()
  world = {
    clock: new HandClock(),
    index: await openSqliteIndex(':memory:'),
    gateway,
    providers,
    behaviour: new Map(),
    blocks: new Map(),
    asked: [],
    reads: [],
    lost: 0,
    isRefusalSigned: true,
    auditor: undefined as unknown as Auditor
  }
  await world.index.createBucket(aBucket())
  world.auditor = await startAuditor()
})
afterEach(() => world.index.close())

async function startAuditor(): Promise<Auditor> {
  const { clock, index, gateway, providers, behaviour, blocks, asked, reads } = world
  const act = (peerId: string): Behaviour => behaviour.get(peerId) ?? 'honest'
  const failure = (peerId: string): HoldfastError | undefined => {
    if (act(peerId) === 'offline') return new HoldfastError('OFFLINE', 'nobody there')
    return act(peerId) === 'silent' ? new HoldfastError('TIMEOUT', 'silence') : undefined
  }
  const auditor = new Auditor({
    index,
    signer: gateway,
    secretKey: gateway.privateKey.raw.subarray(0, 32),
    verifySignature,
    clock,
    random: seededRandom('audits'),
    log: silentLog,
    pause: async () => {},
    confirmRefusals: async (_provider, cids) => new Set(world.isRefusalSigned ? cids.map(String) : []),
    onLost: () => {
      world.lost++
    },
    peers: {
      domainsOf: (peerId) => [`peer:${peerId}`],
      report: () => {},
      state: (peerId) => (act(peerId) === 'offline' ? 'offline' : 'online'),
      target: (peerId) => ({ peerId, dataUrls: ['https://127.0.0.1:1'], addresses: [] })
    },
    client: {
      getOffer: async ({ peerId }) => {
        const failed = failure(peerId)
        if (failed !== undefined) throw failed
        return {} as Offer // that it answers is all that is looked at
      },
      getShard: async ({ peerId }, cid) => {
        const failed = failure(peerId)
        if (failed !== undefined) throw failed
        reads.push(`${peerId} ${cid}`)
        const bytes = blocks.get(`${peerId} ${cid}`)
        if (bytes === undefined) throw new HoldfastError('MISSING', 'not here')
        return bytes
      },
      prove: async ({ peerId }, { bytes }) => {
        const request = auditRequestCodec.decode(bytes)
        asked.push(request)
        const failed = failure(peerId)
        if (failed !== undefined) {
          clock.time += failed.code === 'TIMEOUT' ? request.deadlineMs : 0
          throw failed
        }
        const answers = request.challenges.map(({ cid, chunk }): Answer => {
          const block = blocks.get(`${peerId} ${cid}`)
          if (act(peerId) === 'refusing') return { kind: 'refused', slice: new Uint8Array(0) }
          if (block === undefined || act(peerId) === 'forgetful') return { kind: 'missing', slice: new Uint8Array(0) }
          return proofOf(act(peerId) === 'wrong' ? block.map((byte) => byte ^ 1) : block, chunk)
        })
        const signer = providers.find((one) => one.peerId === peerId)!
        return {
          answers,
          statement:
            act(peerId) === 'unsigned' ? undefined : await statementOf(signer, bytes, answers, peerId, clock.time)
        }
      }
    }
  })
  await auditor.load()
  return auditor
}

/** An object of one segment of copies: `count` shards, one with each provider from the first on. */
async function keep(key: string, count = 6): Promise<CID[]> {
  const blocks = Array.from({ length: count }, (_, i) => blockOf(shardBytes, ++made * 1000 + i))
  await world.index.commitObject(anObject({ key, size: shardBytes * 2 }), {
    segments: [
      {
        length: shardBytes * 2,
        k: 2,
        m: count - 2,
        nonce: new Uint8Array(8),
        shards: blocks.map(({ cid, bytes }, i) => {
          const { peerId } = world.providers[i]!
          world.blocks.set(`${peerId} ${cid}`, bytes)
          return aShard({ cid, provider: peerId, leaseUntil: startAt + 1000 * hourMs, lastProof: startAt })
        })
      }
    ],
    blocks: []
  })
  return blocks.map(({ cid }) => cid)
}

/** Round after round, as the gateway runs them. */
async function pass(ms: number, stepMs = minuteMs / 2): Promise<void> {
  for (const until = world.clock.time + ms; world.clock.time < until; world.clock.time += stepMs) {
    await world.auditor.round(signal)
  }
}

async function stateOf(cid: CID): Promise<string | undefined> {
  return (await world.index.findHolders(cid))[0]?.state
}

/** What somebody who trusts nobody makes of everything that was written down. */
async function findings(): Promise<Finding[]> {
  await world.auditor.save()
  const verifier = new TranscriptVerifier({ verifySignature })
  const found: Finding[] = []
  for (const row of await world.index.scanTranscripts({ after: 0, limit: 10_000 }))
    found.push(...(await verifier.verify(row)))
  return found
}

describe('audits', () => {
  test('ask everybody within the hour, each at another time, and write down what was proved', async () => {
    const cids = await keep('a')
    await pass(hourMs)
    expect(new Set(world.asked.map(({ provider }) => provider)).size).toBe(6)
    expect(new Set(world.asked.map(({ issuedAt }) => issuedAt)).size).toBeGreaterThan(4)
    for (const [i, cid] of cids.entries()) {
      const [row] = await world.index.listCustody(world.providers[i]!.peerId, { limit: 1 })
      expect(row).toMatchObject({ bytes: shardBytes })
      expect(row!.cid.equals(cid)).toBe(true)
      expect(row!.lastProof).toBeGreaterThan(startAt)
    }
    const found = await findings()
    expect(found.length).toBeGreaterThanOrEqual(6)
    expect(new Set(found.map((one) => one.case))).toEqual(new Set(['proved']))
  })

  test('that somebody asks for give nothing away of those to come', async () => {
    await keep('a')
    await pass(10 * minuteMs)
    const peerId = world.providers[0]!.peerId
    await world.auditor.audit(peerId, undefined, signal)
    const [planned, asked] = [world.asked.filter(({ epochMs }) => epochMs > 1000), world.asked.at(-1)!]
    expect(asked).toMatchObject({ provider: peerId, epochMs: 1000 })
    for (const { vrfProof } of planned) expect(Buffer.compare(vrfProof, asked.vrfProof)).not.toBe(0)
    expect((await findings()).every(({ atFault }) => atFault === 'nobody')).toBe(true)
  })

  test.each([
    ['forgetful', 'missing'],
    ['wrong', 'wrong']
  ] as const)('a %s provider has lost what it is asked for: %s, at once', async (behaviour, state) => {
    const cids = await keep('a')
    const { peerId } = world.providers[2]!
    world.behaviour.set(peerId, behaviour)
    const { unproved } = await world.auditor.audit(peerId, undefined, signal)
    expect(unproved).toEqual([{ cid: cids[2]!.toString(), provider: peerId, outcome: state }])
    expect(await stateOf(cids[2]!)).toBe(state)
    expect(world.lost).toBe(1)
    expect(world.auditor.reportOf(peerId)!.report.custody).toBeLessThan(1)
    expect((await findings()).filter(({ atFault }) => atFault !== 'nobody')).toMatchObject([
      { case: state, atFault: 'provider' }
    ])
    for (const other of [0, 1, 3, 4, 5]) expect(await stateOf(cids[other]!)).toBe('healthy')
  })

  test('three losses close a new provider; it gets new shards only where nobody else can take them', async () => {
    const { peerId } = world.providers[0]!
    for (const key of ['a', 'b', 'c']) await keep(key)
    const before = world.auditor.trustOf(peerId)
    world.behaviour.set(peerId, 'forgetful')
    await world.auditor.audit(peerId, undefined, signal)
    expect(before).toMatchObject({ standing: 'vetting' })
    expect(world.auditor.trustOf(peerId)).toEqual({ standing: 'closed', weight: 0, isLosing: false })
  })
})

describe('nobody is blamed', () => {
  test('for what was given back while it was asked', async () => {
    const [cid] = await keep('a')
    const { peerId } = world.providers[0]!
    world.behaviour.set(peerId, 'forgetful')
    // Deleted after the challenge was drawn: the answer crosses the release.
    const asking = world.auditor.audit(peerId, undefined, signal)
    await world.index.deleteObject('b', 'a')
    await asking
    expect(await stateOf(cid!)).toBeUndefined()
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
  })

  test('for saying no, signed: the shard is withdrawn', async () => {
    const cids = await keep('a')
    const { peerId } = world.providers[2]!
    world.behaviour.set(peerId, 'refusing')
    const { unproved } = await world.auditor.audit(peerId, undefined, signal)
    expect(unproved).toMatchObject([{ outcome: 'refused' }])
    expect(await stateOf(cids[2]!)).toBe('withdrawn')
    expect(world.lost).toBe(1)
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
    expect((await findings()).filter(({ atFault }) => atFault !== 'nobody')).toEqual([])
  })

  test('for saying no and signing no refusal, nor believed', async () => {
    const cids = await keep('a')
    const { peerId } = world.providers[2]!
    world.behaviour.set(peerId, 'refusing')
    world.isRefusalSigned = false
    await world.auditor.audit(peerId, undefined, signal)
    expect(await stateOf(cids[2]!)).toBe('healthy')
    expect(world.lost).toBe(0)
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
  })

  test('for letting go what its lease has ended for, which is gone all the same', async () => {
    const [cid] = await keep('a')
    const { peerId } = world.providers[0]!
    world.behaviour.set(peerId, 'forgetful')
    await world.index.renewed(peerId, [cid!], startAt - 1)
    await world.auditor.audit(peerId, undefined, signal)
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
    expect(await stateOf(cid!)).toBe('missing')
    expect(world.lost).toBe(1)
  })

  test('for what was deleted between the last silence and the verdict', async () => {
    const cids = await keep('a')
    await pass(hourMs)
    const { peerId } = world.providers[3]!
    world.behaviour.set(peerId, 'silent')
    while (world.auditor.status().contained === 0) await pass(minuteMs)
    const isLast = (): boolean =>
      world.asked.some(({ provider, repeats }) => provider === peerId && repeats?.attempt === 3)
    while (!isLast()) await pass(minuteMs)
    await world.index.deleteObject('b', 'a')
    await pass(hourMs)
    expect(await stateOf(cids[3]!)).toBeUndefined()
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
    expect(world.auditor.status().contained).toBe(0)
  })

  test('for being away, however long', async () => {
    const cids = await keep('a')
    const { peerId } = world.providers[1]!
    world.behaviour.set(peerId, 'offline')
    await pass(3 * hourMs)
    expect(await stateOf(cids[1]!)).toBe('healthy')
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
  })

  test('while everybody is silent: the outage is ours', async () => {
    const cids = await keep('a')
    await pass(hourMs)
    for (const { peerId } of world.providers) world.behaviour.set(peerId, 'silent')
    await pass(5 * hourMs)
    expect(world.auditor.status().ownOutage).toBe(true)
    for (const { peerId } of world.providers) world.behaviour.delete(peerId)
    await pass(2 * hourMs)
    expect(world.auditor.status()).toMatchObject({ ownOutage: false, contained: 0 })
    for (const cid of cids) expect(await stateOf(cid)).toBe('healthy')
  })

  test('for not signing, where the shard can be read', async () => {
    const cids = await keep('a')
    const { peerId } = world.providers[4]!
    world.behaviour.set(peerId, 'unsigned')
    await pass(4 * hourMs)
    expect(world.reads).toContain(`${peerId} ${cids[4]}`)
    expect(await stateOf(cids[4]!)).toBe('healthy')
  })
})

test('an outage that a restart falls into ends for everybody', async () => {
  const cids = await keep('a')
  await pass(hourMs)
  for (const { peerId } of world.providers) world.behaviour.set(peerId, 'silent')
  while (!world.auditor.status().ownOutage) await pass(minuteMs)
  await world.auditor.save()
  world.auditor = await startAuditor() // a natural reaction
  expect(world.auditor.status().ownOutage).toBe(true)
  for (const { peerId } of world.providers) world.behaviour.delete(peerId)
  await pass(2 * hourMs)
  expect(world.auditor.status()).toMatchObject({ ownOutage: false, contained: 0 })
  const { peerId } = world.providers[0]!
  world.behaviour.set(peerId, 'forgetful')
  await pass(2 * hourMs)
  expect(await stateOf(cids[0]!), 'judged again').toBe('missing')
})

test('peers that keep nothing here do not make an outage by going', async () => {
  await keep('a')
  await pass(hourMs)
  const strangers = Array.from({ length: 12 }, (_, i) => `stranger-${i}`)
  for (const peerId of strangers) world.auditor.presence(peerId, true)
  for (const peerId of strangers) world.auditor.presence(peerId, false)
  expect(world.auditor.status().ownOutage).toBe(false)
})

describe('silence', () => {
  test('is asked about again, the very same, over a restart too; four times are a loss, and the transcripts show them', async () => {
    const cids = await keep('a')
    await pass(hourMs)
    const { peerId } = world.providers[3]!
    world.behaviour.set(peerId, 'silent')
    world.asked.length = 0
    while (world.auditor.status().contained === 0) await pass(minuteMs)
    expect(world.auditor.isContained(peerId, cids[3]!)).toBe(true)
    const first = world.asked.find(({ provider }) => provider === peerId)!
    await world.auditor.save()
    world.auditor = await startAuditor() // killed, and started again
    expect(world.auditor.isContained(peerId, cids[3]!)).toBe(true)
    for (let minutes = 0; (await stateOf(cids[3]!)) === 'healthy' && minutes < 180; minutes++) await pass(minuteMs)
    expect(await stateOf(cids[3]!)).toBe('missing')
    const repeats = world.asked.filter(({ provider, repeats: one }) => provider === peerId && one !== null)
    expect(repeats.map((one) => one.repeats!.attempt)).toEqual([1, 2, 3])
    for (const repeat of repeats) {
      expect(repeat.challenges.map(({ chunk }) => chunk)).toEqual(first.challenges.map(({ chunk }) => chunk))
      expect(Buffer.compare(repeat.vrfProof, first.vrfProof)).toBe(0)
    }
    expect(repeats[2]!.issuedAt - first.issuedAt).toBeGreaterThanOrEqual(71 * minuteMs)
    expect((await findings()).filter(({ atFault }) => atFault !== 'nobody')).toEqual([])
    expect(world.lost).toBe(1)
  })

  test('that ends in time loses nothing', async () => {
    const cids = await keep('a')
    await pass(hourMs)
    const { peerId } = world.providers[3]!
    world.behaviour.set(peerId, 'silent')
    while (world.auditor.status().contained === 0) await pass(minuteMs)
    world.behaviour.delete(peerId)
    await pass(30 * minuteMs)
    expect(world.auditor.status().contained).toBe(0)
    expect(await stateOf(cids[3]!)).toBe('healthy')
    expect(world.auditor.reportOf(peerId)!.report.custody).toBe(1)
  })
})

test('a shard that was lost and is placed there again counts again', async () => {
  const [cid] = await keep('a')
  const { peerId } = world.providers[0]!
  world.behaviour.set(peerId, 'forgetful')
  await world.auditor.audit(peerId, undefined, signal)
  expect(await stateOf(cid!)).toBe('missing')
  const [segment] = await world.index.listIncomplete({ afterId: 0, limit: 1 })
  const leaseUntil = startAt + 1000 * hourMs
  await world.index.placeShards([
    { segmentId: segment!.id, index: 0, cid: cid!, provider: peerId, leaseUntil, at: world.clock.time }
  ])
  world.behaviour.delete(peerId)
  await pass(2 * hourMs)
  world.behaviour.set(peerId, 'forgetful')
  await pass(2 * hourMs)
  expect(await stateOf(cid!)).toBe('missing')
  expect(world.lost).toBe(2)
})

test('what a failing index did not take is written down later', async () => {
  await keep('a')
  const { saveAudit } = world.index
  world.index.saveAudit = async () => {
    throw new HoldfastError('INTERNAL', 'disk full')
  }
  await expect(world.auditor.audit(world.providers[0]!.peerId, undefined, signal)).rejects.toThrow('disk full')
  world.index.saveAudit = saveAudit
  expect(await findings()).toHaveLength(1)
})
