/** `holdfast status` of a provider: what it keeps, what gateways think of it and why, whether it runs or not. */
import { randomBytes } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/base/system.ts'
import { type ProviderReport, render, reportOf } from '../../src/cli/provider-status.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { judgeAnswers } from '../../src/custody/answers.ts'
import {
  type Answer,
  type AuditRequest,
  answerDigest,
  auditRequestCodec,
  toSign
} from '../../src/custody/audit-messages.ts'
import { challengeOf, drawSeed, epochOf } from '../../src/custody/challenge.ts'
import { newScore, scored, scoreReport } from '../../src/custody/score.ts'
import { signTranscript } from '../../src/custody/transcript.ts'
import { verifySignature } from '../../src/net/identity.ts'
import type { ProviderNode } from '../../src/provider/provider-node.ts'
import { askForScore, type KnownScore, serveScores } from '../../src/transfer/score-protocol.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { type CliResult, runCli } from '../support/cli.ts'
import { Loopback, refOf, type TestClient } from '../support/provider-node.ts'

const epochMs = 3_600_000
const loopback = new Loopback()
let dataDir: string
let provider: ProviderNode
let gateway: TestClient
let lost: CID
let said: KnownScore = { score: null, events: [], evidence: [] }
const asked: string[] = []

beforeAll(async () => {
  dataDir = await loopback.directory()
  ;[provider, gateway] = await Promise.all([loopback.provider({ dataDir, scoresEveryMs: 3000 }), loopback.client()])
  await serveScores(
    gateway.network,
    async (peerId) => {
      asked.push(peerId)
      return said
    },
    { clock: systemClock }
  )
  await gateway.client.getOffer(refOf(provider)) // as a gateway does, whose connection the provider then uses
  const blocks = [randomBytes(5000), randomBytes(70_000)]
  for (const bytes of blocks)
    await gateway.client.putShard(refOf(provider), cidOfShard(bytes), bytes, { termMs: 600_000 })
  lost = cidOfShard(blocks[0]!)
})
afterAll(() => loopback.stopAll())

const status = (...args: string[]): Promise<CliResult> => runCli(['status', '--data', dataDir, ...args])

/** An audit of the shard as a gateway does it, with a transcript of it. */
async function audit(cid: CID, bytes: number): Promise<KnownScore['evidence'][number]> {
  const { identity, client } = gateway
  const issuedAt = Date.now()
  const subject = {
    epoch: epochOf(issuedAt, epochMs),
    epochMs,
    auditor: identity.peerId,
    provider: provider.peerId
  }
  const { proof, seed } = drawSeed(identity.privateKey.raw.subarray(0, 32), subject)
  const request: AuditRequest = {
    ...{ v: 1, ...subject, sampling: 0, vrfProof: proof, issuedAt, deadlineMs: 5000, repeats: null },
    challenges: [challengeOf(seed, { cid, bytes }, 'asked')]
  }
  const encoded = auditRequestCodec.encode(request)
  const signedRequest = { bytes: encoded, signature: await identity.sign(toSign('request', encoded)) }
  const askedAt = Date.now()
  const received = await client.prove(refOf(provider), signedRequest)
  const { outcomes } = await judgeAnswers(request, encoded, received, { verifySignature })
  return await signTranscript(
    {
      ...{ v: 1, request: signedRequest, statement: received.statement ?? null, askedAt, endedAt: Date.now() },
      results: received.answers.map((answer: Answer, i) => {
        return { outcome: outcomes[i]!, digest: answerDigest(answer), slice: null }
      })
    },
    identity
  )
}

const effect = (cid: CID) => ({
  ...({ kind: 'lost', outcome: 'missing', cid: cid.toString(), at: Date.now() } as const),
  why: 'the provider said that it does not have it'
})

test('one that drains, or keeps what it refuses, says so', async () => {
  const report = await reportOf(dataDir, Date.now())
  const shown = (part: Partial<ProviderReport['status']>): string =>
    render({ ...report, status: { ...report.status, ...part } }, Date.now())
  expect(shown({})).not.toMatch(/drains|Refused|no new shards/)
  expect(shown({ accepting: false, draining: true, refusedKept: 3 })).toMatch(
    /it drains: takes no new[\s\S]*Refused: +3 shards/
  )
  expect(shown({ accepting: false })).toMatch(/running; takes no new shards\n/)
})

describe('a provider that runs', () => {
  test('shows what it keeps, and that nobody has judged it yet', async () => {
    await expect
      .poll(async () => provider.scores.scores.gateways[0]?.answeredAt ?? null, { timeout: 10_000 })
      .not.toBeNull()
    const { status: code, stdout, stderr } = await status()
    expect([code, stderr]).toEqual([0, ''])
    const text = stdout.toString()
    for (const part of [
      'running',
      provider.peerId,
      '100 MB',
      provider.dataUrl,
      gateway.identity.peerId,
      'not audited yet'
    ])
      expect(text).toContain(part)
    expect(asked).toContain(provider.peerId)
    expect(new Set(asked).size).toBe(1)
  })

  test('that lost a shard is told so, by the one who audits it, with its own signature as evidence', async () => {
    const name = lost.toString()
    await rm(join(dataDir, 'blocks', name.slice(-3, -1), name))
    const evidence = [await audit(lost, 5000)]
    const state = scored(newScore(Date.now() - 1000), [effect(lost)])
    said = { score: scoreReport(state, Date.now()), events: state.records.toReversed(), evidence }
    await expect.poll(() => provider.scores.scores.gateways[0]?.evidence.length, { timeout: 15_000 }).toBe(1)
    await expect
      .poll(async () => (await readFile(join(dataDir, 'scores.json'), 'utf8')).includes('"evidence":[{'))
      .toBe(true)
    const report = JSON.parse((await status('--json')).stdout.toString())
    const { peerId } = gateway.identity
    expect(report).toMatchObject({
      isRunning: true,
      reason: null,
      status: { peerId: provider.peerId, capacityBytes: 100_000_000 },
      scores: [{ gateway: peerId, score: said.score, failure: null }],
      events: [
        { gateway: peerId, kind: 'missing', shard: name, evidence: 'signed', before: 1, after: state.records[0]!.after }
      ],
      statements: [{ auditor: peerId, faults: 1, challenges: 1, against: [{ cid: name, kind: 'missing' }] }]
    })
    const text = (await status()).stdout.toString()
    const lines = text.split('\n')
    expect(lines.find((line) => line.includes('signed by this provider'))).toMatch(
      /missing +1\.000 +0\.9\d\d +signed by this provider +the provider said that it does not have it: bafk/
    )
    expect(text).toContain(`missing ${name}`)
    expect(lines.find((line) => line.startsWith(peerId))).toMatch(/ vetting +0\.\d+ /)
  }, 60_000)

  test('is asked for its own score by nobody but itself', async () => {
    const other = await loopback.client()
    const ref = { peerId: gateway.network.peerId, addresses: gateway.network.addresses() }
    await askForScore(other.network, ref)
    expect(asked.at(-1)).toBe(other.network.peerId)
    // It is no gateway, and says nothing about others.
    expect(await codeOf(askForScore(other.network, refOf(provider)))).toBe('PROTOCOL')
  })
})

describe('a provider that does not run', () => {
  test('shows how it stood, and says that it was stopped, or since when nothing was heard', async () => {
    await provider.stop()
    const stopped = await status()
    expect([stopped.status, stopped.stderr]).toEqual([4, ''])
    const text = stopped.stdout.toString()
    expect(text).toMatch(/not running: it was stopped \d+s ago/)
    expect(text).toContain('70.0 kB, 1 shard under 2 leases')
    expect(text).toContain('1 leased shard damaged or gone, and not brought again')
    expect(text).toMatch(/Scrubber: +\d of \d shards? \(.*no full turn yet; found 0 damaged and \d gone, ever/)
    const path = join(dataDir, 'status.json')
    const kept = JSON.parse(await readFile(path, 'utf8'))
    await writeFile(path, JSON.stringify({ ...kept, hasEnded: false, updatedAt: Date.now() - 3_600_000 }))
    const killed = await status('--json')
    expect(killed.status).toBe(4)
    expect(JSON.parse(killed.stdout.toString())).toMatchObject({
      isRunning: false,
      reason: `it was last heard of 1h 00m ago, as process ${process.pid}`
    })
    await writeFile(path, '{}')
    const damaged = await status()
    expect([damaged.status, damaged.stderr]).toEqual([1, expect.stringContaining('status.json')])
  })

  test('and never did is told how to start', async () => {
    const empty = await loopback.directory()
    const nothing = await runCli(['status', '--data', empty])
    expect(nothing.status).toBe(4)
    for (const advice of [`holdfast up --data ${empty}`, `holdfast provider --data ${empty}`])
      expect(nothing.stderr).toContain(advice)
    await writeFile(join(empty, 'leases.sqlite'), '')
    const begun = await runCli(['status', '--data', empty])
    expect([begun.status, begun.stderr]).toEqual([4, expect.stringContaining('has never been up')])
  })
})
