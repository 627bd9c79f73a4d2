/** A provider that wants to know what gateways think of it, and says so when it is less than before. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import type { Log, LogFields } from '../../src/base/log.ts'
import type { Random } from '../../src/base/random.ts'
import { newScore, type ScoreRecord, type ScoreReport, scoreReport } from '../../src/custody/score.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'
import type { RequestHandler } from '../../src/net/network.ts'
import { OwnScores } from '../../src/provider/own-scores.ts'
import type { SignedAnswers } from '../../src/provider/proof-service.ts'
import { groundsOf, readScores } from '../../src/provider/scores-file.ts'
import { type KnownScore, serveScores } from '../../src/transfer/score-protocol.ts'
import { type Audit, audit, type Scene, scene, startedAt } from '../custody/audit-scene.ts'
import { ManualClock } from '../support/provider.ts'

const minuteMs = 60_000
const evenly: Pick<Random, 'next'> = { next: () => 0.5 }

let world: Scene
beforeAll(async () => {
  world = await scene()
})

let dataDir: string
let clock: ManualClock
let said: KnownScore
/** Other than the one gateway that there usually is. */
let owners: string[]
let lines: Array<{ message: string } & LogFields>
let asked: string[]
let isUp: boolean
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'holdfast-scores-'))
  clock = new ManualClock()
  said = { score: null, events: [], evidence: [] }
  owners = [world.auditor.peerId]
  lines = []
  asked = []
  isUp = true
})
afterEach(() => rm(dataDir, { recursive: true, force: true }))

const log: Log = {
  debug: () => {},
  info: () => {},
  warn: (message, fields) => void lines.push({ message, ...fields }),
  error: (message, fields) => void lines.push({ message, ...fields }),
  child: () => log
}

async function open(): Promise<OwnScores> {
  let handler: RequestHandler | undefined
  const handle = async (_protocol: string, given: RequestHandler): Promise<void> => {
    handler = given
  }
  await serveScores({ handle }, async () => said, { clock })
  const { peerId } = world.provider
  const network = {
    peerId,
    request: async ({ peerId: gateway }: { peerId: string }, _protocol: string, body: Uint8Array) => {
      asked.push(gateway)
      if (!isUp) throw new HoldfastError('OFFLINE', 'nobody there')
      return await handler!(peerId, body)
    }
  }
  const storage = {
    owners: async (limit: number) => owners.slice(0, limit).map((owner) => ({ owner, leases: 1, bytes: 1 }))
  }
  const random = evenly as Random
  return await OwnScores.open({ network, storage, verifySignature, clock, random, log }, { dataDir })
}

/** Ten minutes and a half pass. */
async function nextTurn(scores: OwnScores): Promise<void> {
  clock.advance(10.5 * minuteMs)
  await scores.turn()
}

/** Known, and asked once. */
async function asking(): Promise<OwnScores> {
  const scores = await open()
  await scores.turn()
  await nextTurn(scores)
  return scores
}

const reportOf = (fields: Partial<ScoreReport> = {}): ScoreReport => ({ ...scoreReport(newScore(0), 1), ...fields })
const eventOf = (fields: Partial<ScoreRecord> = {}): ScoreRecord => ({
  ...{ at: startedAt + 100, until: startedAt + 100, count: 1, kind: 'missing', before: 1, after: 0.9 },
  ...{ why: 'the provider said that it is missing', shard: cidAt(1) },
  ...fields
})
const cidAt = (i: number): string => world.shards[i]!.cid.toString()
const evidenceOf = async (...audits: Audit[]): Promise<KnownScore['evidence']> =>
  await Promise.all(audits.map(async (what) => (await audit(world, what)).signed))
const signedBy = (auditor: string): SignedAnswers => ({
  ...{ auditor, request: new Uint8Array(32).fill(7), answeredAt: clock.now(), challenges: 3 },
  against: [{ cid: world.shards[1]!.cid, kind: 'missing' }]
})

describe('asking', () => {
  test('goes to those that lease, after a moment, and every ten minutes', async () => {
    const scores = await open()
    said = { ...said, score: reportOf({ why: 'so' }) }
    expect(await scores.turn()).toBe(clock.now() + 20_000)
    expect(asked).toEqual([])
    clock.advance(20_000)
    expect(await scores.turn()).toBe(clock.now() + minuteMs) // to see who else leases by then
    expect(asked).toEqual([world.auditor.peerId])
    const saidAt = clock.now()
    clock.advance(9.9 * minuteMs)
    await scores.turn()
    expect(asked).toHaveLength(1)
    clock.advance(0.1 * minuteMs)
    await scores.turn()
    expect(asked).toHaveLength(2)
    expect(scores.scores.gateways).toMatchObject([
      { answeredAt: saidAt + 10 * minuteMs, score: { why: 'so' }, failure: null }
    ])
  })

  test('of one that does not answer becomes rare; what it said last is kept', async () => {
    said = { ...said, score: reportOf() }
    const scores = await asking()
    isUp = false
    for (let i = 0; i < 30; i++) await nextTurn(scores)
    expect(scores.scores.gateways).toMatchObject([
      { score: said.score, failure: { code: 'OFFLINE', why: 'nobody there' } }
    ])
    expect(asked.length).toBeLessThan(8)
    isUp = true
    clock.advance(7 * 3_600_000)
    await scores.turn()
    expect(scores.scores.gateways).toMatchObject([{ failure: null }])
    const before = asked.length
    await nextTurn(scores)
    expect(asked).toHaveLength(before + 1)
  })

  test('comes soon after it had to say that something is missing, and once a minute at most', async () => {
    const scores = await asking()
    clock.advance(2 * minuteMs)
    scores.signed(signedBy(world.auditor.peerId))
    expect(await scores.turn()).toBe(clock.now() + 10_000)
    clock.advance(10_000)
    await scores.turn()
    expect(asked).toHaveLength(2)
    scores.signed(signedBy(world.auditor.peerId))
    expect(await scores.turn()).toBe(clock.now() + minuteMs)
    expect(scores.scores.statements).toEqual(
      Array.from({ length: 2 }, (_, i) => ({
        at: clock.now() - (i === 0 ? 0 : 10_000),
        auditor: world.auditor.peerId,
        request: '07'.repeat(32),
        challenges: 3,
        faults: 1,
        against: [{ cid: cidAt(1), kind: 'missing' }]
      }))
    )
  })

  test('is not for strangers, whatever they audit, and bounded', async () => {
    owners = [world.provider.peerId, ...Array.from({ length: 100 }, (_, i) => `gateway ${i}`)]
    const scores = await open()
    for (let i = 0; i < 1000; i++) scores.signed(signedBy(world.other.peerId))
    await scores.turn()
    await nextTurn(scores)
    expect(new Set(asked)).toEqual(new Set(owners.slice(1, 33)))
    expect(scores.scores.statements).toEqual([])
    owners = ['one more']
    clock.advance(31 * 24 * 60 * minuteMs)
    await scores.turn()
    expect(scores.scores.gateways.map(({ gateway }) => gateway)).toEqual(['one more'])
  })
})

describe('what is kept', () => {
  test('is there again after a restart, and damage is not in the way', async () => {
    said = { score: reportOf(), events: [eventOf()], evidence: await evidenceOf({ answers: 'omo', claims: 'omo' }) }
    const scores = await asking()
    scores.signed(signedBy(world.auditor.peerId))
    await scores.stop()
    const kept = await readScores(dataDir)
    expect(kept).toEqual(scores.scores)
    expect(kept.statements).toHaveLength(1)
    lines = []
    const again = await open()
    expect(again.scores).toEqual(kept)
    await again.turn()
    await nextTurn(again)
    expect(again.scores.gateways[0]).toMatchObject({ events: [eventOf()], evidence: [{ challenges: 3 }] })
    expect(lines).toEqual([]) // it was said before
    await writeFile(join(dataDir, 'scores.json'), '{}')
    expect((await open()).scores).toEqual({ v: 1, gateways: [], statements: [] })
    expect(lines).toHaveLength(1)
  })

  test('grows together from answers, newest first; a record that goes on is one', async () => {
    const absent = eventOf({ kind: 'absent', shard: undefined, at: 10, until: 10, before: 0.9, after: 0.8 })
    const { shard: _none, ...plain } = absent
    said = { ...said, score: reportOf(), events: [plain] }
    const scores = await asking()
    const missing = eventOf({ at: 20, until: 20 })
    said = { ...said, events: [{ ...plain, until: 30, count: 3, after: 0.7 }, missing] }
    await nextTurn(scores)
    expect(scores.scores.gateways[0]!.events).toEqual(said.events)
    for (let i = 0; i < 3; i++) {
      said = { ...said, events: Array.from({ length: 200 }, (_, j) => eventOf({ at: 100 + 200 * i + j, until: 900 })) }
      await nextTurn(scores)
    }
    expect(scores.scores.gateways[0]!.events).toHaveLength(256)
  })
})

const fell = 'a gateway lowered the score of this provider'

describe('a fall', () => {
  test('is said aloud, once, with its reason and what there is to show for it', async () => {
    said = { ...said, score: reportOf({ custody: 1 }) }
    const scores = await asking()
    said = {
      score: reportOf({
        custody: 0.9,
        standing: 'closed',
        weight: 0,
        why: 'custody 0.900 is below 0.95: no new shards'
      }),
      events: [eventOf()],
      evidence: await evidenceOf({ answers: 'omo', claims: 'omo' })
    }
    await nextTurn(scores)
    const gateway = world.auditor.peerId
    expect(lines).toEqual([
      {
        ...{ message: fell, gateway, kind: 'missing', from: 1, to: 0.9, shard: cidAt(1), evidence: 'signed' },
        ...{ why: 'the provider said that it is missing', at: new Date(startedAt + 100).toISOString() }
      },
      {
        ...{ message: 'this provider lost standing with a gateway', gateway, from: 'vetting', standing: 'closed' },
        why: 'custody 0.900 is below 0.95: no new shards'
      }
    ])
    await nextTurn(scores)
    expect(lines).toHaveLength(2)
  })

  test('without an event is said to be one', async () => {
    said = { ...said, score: reportOf({ custody: 1, availability: 0.9 }) }
    const scores = await asking()
    const { shard: _none, ...absent } = eventOf({ kind: 'absent', before: 0.9, after: 0.8 })
    said = { ...said, score: reportOf({ custody: 0.99, availability: 0.8 }), events: [absent] }
    await nextTurn(scores)
    expect(lines.map(({ message, what }) => [message, what])).toEqual([
      [fell, undefined],
      [`${fell} and does not say why`, 'custody']
    ])
  })

  test('of many steps does not fill the log', async () => {
    const events = Array.from({ length: 100 }, (_, i) => eventOf({ at: i, until: i }))
    said = { ...said, score: reportOf(), events: events.reverse() }
    await asking()
    expect(lines).toHaveLength(17)
    expect(lines[15]).toMatchObject({ message: fell, at: new Date(99).toISOString() })
    expect(lines[16]).toMatchObject({ message: 'and earlier ones', events: 84 })
  })
})

describe('evidence', () => {
  /** What there is to a missing shard 1, after a gateway showed transcripts of these audits. */
  async function groundsAfter(...audits: Audit[]): Promise<string | undefined> {
    said = { score: reportOf(), events: [eventOf()], evidence: await evidenceOf(...audits) }
    await rm(join(dataDir, 'scores.json'), { force: true })
    const scores = await asking()
    const { events, evidence } = scores.scores.gateways[0]!
    return groundsOf(events[0]!, evidence)
  }

  test('is our own signature, or it is nothing', async () => {
    expect(await groundsAfter({ answers: 'omo', claims: 'omo' })).toBe('signed')
    expect(await groundsAfter({ answers: 'oxo', claims: 'omo' })).toBe('signed')
    expect(await groundsAfter({ answers: 'moo', claims: 'moo' })).toBe('nothing') // of another shard
    expect(await groundsAfter()).toBe('nothing')
    const refuted = lines.filter(({ message }) => message.includes('against itself'))
    expect(refuted).toEqual([])
  })

  test('that contradicts itself, or our signature, is said to', async () => {
    expect(await groundsAfter({ answers: 'ooo', claims: 'omo' })).toBe('refuted')
    expect(lines).toContainEqual(
      expect.objectContaining({
        message: 'a gateway shows evidence that speaks against itself',
        why: 'not the outcome of the answer that the provider signed'
      })
    )
    expect(await groundsAfter({ answers: '---', claims: 'omo' })).toBe('refuted')
    expect(await groundsAfter({ answers: 'ooo', claims: 'oto', tookMs: 100 })).toBe('refuted') // signed, and in time
  })

  test('that we did not sign, or that a gateway took for none, is its word', async () => {
    expect(await groundsAfter({ answers: 'omo', claims: 'omo', statement: 'none' })).toBe('claimed')
    expect(await groundsAfter({ answers: 'ooo', claims: 'ouo', statement: 'none' })).toBe('claimed')
    expect(await groundsAfter({ answers: 'o--', claims: 'ott' })).toBe('claimed')
    expect(lines.filter(({ message }) => message.includes('against itself'))).toEqual([])
  })

  test('of a silence that was repeated in vain is the gateway’s word', async () => {
    let last = await audit(world, { answers: '---', claims: 'ttt' })
    const shown = [last.signed]
    for (const attempt of [1, 2, 3] as const) {
      const issuedAt = startedAt + attempt * 10 * minuteMs
      const repeats = { request: last.requestId, attempt }
      const epoch = last.request.epoch
      last = await audit(world, { answers: '---', claims: 'ttt', tookMs: 1500, request: { issuedAt, repeats, epoch } })
      shown.push(last.signed)
    }
    said = { score: reportOf(), events: [eventOf()], evidence: shown }
    const scores = await asking()
    const { events, evidence } = scores.scores.gateways[0]!
    expect(evidence[0]!.findings.map(({ case: name }) => name)).toEqual(['exhausted', 'exhausted', 'exhausted'])
    expect(groundsOf(events[0]!, evidence)).toBe('claimed')
  })

  test('about others, by others, and what is none are left out', async () => {
    const someone = await generateIdentity()
    const foreign = await audit({ ...world, provider: someone }, { answers: 'omo', claims: 'omo' })
    const borrowed = await audit({ ...world, auditor: someone }, { answers: 'omo', claims: 'omo' })
    const none = { bytes: new Uint8Array(9), signature: new Uint8Array(64) }
    said = { score: reportOf(), events: [], evidence: [foreign.signed, borrowed.signed, none] }
    const scores = await asking()
    expect(scores.scores.gateways[0]).toMatchObject({ score: said.score, evidence: [] })
    expect(lines.map(({ message }) => message)).toEqual([
      'a gateway shows evidence about others',
      'a gateway shows evidence about others',
      'a gateway shows evidence that cannot be read'
    ])
  })
})
