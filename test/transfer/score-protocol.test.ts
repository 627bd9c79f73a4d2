/** A provider asks about itself: what it is told, that it is told of nobody else, and that answers are bounded. */
import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import type { Signed } from '../../src/custody/audit-messages.ts'
import { newScore, type ScoreRecord, scoreReport } from '../../src/custody/score.ts'
import type { RequestHandler } from '../../src/net/network.ts'
import {
  askForScore,
  type KnownScore,
  scoreAnswer,
  scoreAnswerOf,
  scoreEventsMax,
  scoreEvidenceBytesMax,
  scoreEvidenceMax,
  scoreRequest,
  serveScores
} from '../../src/transfer/score-protocol.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { audit, scene, startedAt } from '../custody/audit-scene.ts'
import { ManualClock } from '../support/provider.ts'

const part = fc.double({ min: 0, max: 1, noNaN: true })
const time = fc.nat({ max: 2 ** 40 })
const report = fc.record({
  weight: part,
  standing: fc.constantFrom('vetted', 'vetting', 'closed', 'suspended'),
  custody: part,
  availability: part,
  latencyMsP50: fc.option(fc.double({ min: 0, max: 1e6, noNaN: true })),
  latencyMsP95: fc.option(fc.double({ min: 0, max: 1e6, noNaN: true })),
  ageMs: fc.nat(),
  proofs: fc.nat(),
  why: fc.string({ maxLength: 200, unit: 'grapheme' })
})
const event: fc.Arbitrary<ScoreRecord> = fc
  .record(
    {
      at: time,
      until: time,
      count: fc.integer({ min: 1, max: 1000 }),
      kind: fc.constantFrom('proved', 'missing', 'wrong', 'present', 'absent', 'vetted'),
      shard: fc.string({ maxLength: 64 }),
      before: part,
      after: part,
      why: fc.string({ maxLength: 200 })
    },
    { requiredKeys: ['at', 'until', 'count', 'kind', 'before', 'after', 'why'] }
  )
  .map((record) => ({ ...record }))
const signed: fc.Arbitrary<Signed> = fc.record({
  bytes: fc.uint8Array({ maxLength: 300 }),
  signature: fc.uint8Array({ minLength: 1, maxLength: 64 })
})
const known = fc.record({
  score: fc.option(report.map((said) => ({ ...said }))),
  events: fc.array(event, { maxLength: 20 }),
  evidence: fc.array(signed, { maxLength: 4 })
}) as fc.Arbitrary<KnownScore>
const recordOf = (fields: Partial<ScoreRecord> = {}): ScoreRecord => ({
  ...{ at: 5, until: 5, count: 1, kind: 'missing', before: 1, after: 0.5, why: 'it said so' },
  ...fields
})
const nothing: KnownScore = { score: null, events: [], evidence: [] }
const protocolError = expect.objectContaining({ code: 'PROTOCOL' })

test('what is said is what is heard, any number of events long', () => {
  fc.assert(
    fc.property(known, (said) => {
      expect(scoreAnswer.decode(scoreAnswer.encode(scoreAnswerOf(said)))).toEqual({ v: 1, ...said })
    })
  )
})

test('garbage and changed bytes are refused or read as some valid message, and nothing else escapes', () => {
  const sent = fc.tuple(known, fc.nat(), fc.integer({ min: 1, max: 255 })).map(([said, at, change]) => {
    const bytes = Uint8Array.from(scoreAnswer.encode(scoreAnswerOf(said)))
    bytes[at % bytes.length]! ^= change
    return bytes
  })
  fc.assert(
    fc.property(
      fc.oneof(sent, fc.uint8Array({ maxLength: 200 })),
      fc.constantFrom(scoreAnswer, scoreRequest),
      (bytes, codec) => {
        try {
          expect(codec.decode(bytes)).toMatchObject({ v: 1 })
        } catch (error) {
          expect(error).toMatchObject({ code: 'PROTOCOL' })
        }
      }
    ),
    { numRuns: 500 }
  )
})

test('other versions, fields, figures and kinds are refused', () => {
  const full = { v: 1, score: null, events: [recordOf()], evidence: [] }
  expect(scoreAnswer.decode(dagCbor.encode(full))).toEqual(full)
  const refused = [
    { ...full, v: 2 },
    { ...full, more: 1 },
    { ...full, events: [{ ...recordOf(), kind: 'rumour' }] },
    { ...full, events: [{ ...recordOf(), after: 1.5 }] },
    { ...full, events: [{ ...recordOf(), why: 'x'.repeat(2000) }] },
    { ...full, events: Array.from({ length: scoreEventsMax + 1 }, () => recordOf()) },
    { ...full, evidence: [{ bytes: new Uint8Array(1), signature: new Uint8Array(0) }] },
    {
      ...full,
      evidence: Array.from({ length: scoreEvidenceMax + 1 }, () => ({
        bytes: new Uint8Array(1),
        signature: new Uint8Array(1)
      }))
    }
  ]
  for (const message of refused) expect(() => scoreAnswer.decode(dagCbor.encode(message))).toThrow(protocolError)
  for (const message of [{ v: 1, after: -1 }, { v: 1, of: 'somebody' }, {}])
    expect(() => scoreRequest.decode(dagCbor.encode(message))).toThrow(protocolError)
})

describe('an answer', () => {
  test('of everything that there can be fits a message', () => {
    const why = '\u{4e00}'.repeat(5000)
    const events = Array.from({ length: 1000 }, (_, i) => recordOf({ at: 2 ** 45 - i, why, shard: 'b'.repeat(64) }))
    const evidence = Array.from({ length: 40 }, () => ({
      bytes: new Uint8Array(scoreEvidenceBytesMax / scoreEvidenceMax),
      signature: new Uint8Array(64)
    }))
    const score = { ...scoreReport(newScore(0), 1), why }
    const answer = scoreAnswerOf({ score, events, evidence })
    expect([answer.events.length, answer.evidence.length]).toEqual([scoreEventsMax, scoreEvidenceMax])
    const bytes = scoreAnswer.encode(answer)
    expect(bytes.length).toBeLessThan(limits.rpcBytesMax)
    expect(Buffer.compare(scoreAnswer.encode(scoreAnswer.decode(bytes)), bytes)).toBe(0)
  })

  test('has the newest evidence that fits, in its order, and what is too long alone is left out', () => {
    const of = (bytes: number, name: number): Signed => ({
      bytes: new Uint8Array(bytes).fill(name),
      signature: new Uint8Array(64)
    })
    const half = scoreEvidenceBytesMax / 2
    const { evidence } = scoreAnswerOf({ ...nothing, evidence: [of(10, 1), of(half, 2), of(half + 1, 3), of(9, 4)] })
    expect(evidence.map(({ bytes }) => bytes[0])).toEqual([1, 3, 4])
    expect(scoreAnswerOf({ ...nothing, evidence: [of(scoreEvidenceBytesMax + 1, 1)] }).evidence).toEqual([])
  })

  test('leaves out what ended before it is wanted', async () => {
    const world = await scene()
    const early = await audit(world, { answers: 'omo', claims: 'omo' })
    const late = await audit(world, { answers: 'omo', claims: 'omo', tookMs: 5000 })
    const events = [recordOf({ at: 1, until: 9 }), recordOf({ at: 8, until: 8 }), recordOf({ at: 7, until: 7 })]
    const evidence = [early.signed, { bytes: new Uint8Array(5), signature: new Uint8Array(64) }, late.signed]
    expect(scoreAnswerOf({ score: null, events, evidence }, 8).events).toEqual(events.slice(0, 2))
    expect(scoreAnswerOf({ score: null, events, evidence }, startedAt + 4000).evidence).toEqual([late.signed])
    expect(scoreAnswerOf({ score: null, events, evidence }).evidence).toEqual(evidence)
  })
})

/** A network of one wire: whoever asks, asks as `from`. */
function wire(from: { peerId: string }, clock: ManualClock) {
  let handler: RequestHandler | undefined
  const handle = async (_protocol: string, given: RequestHandler): Promise<void> => {
    handler = given
  }
  return {
    serve: (knownOf: Parameters<typeof serveScores>[1]) => serveScores({ handle }, knownOf, { clock }),
    network: {
      request: async (_peer: unknown, _protocol: string, body: Uint8Array) => await handler!(from.peerId, body)
    }
  }
}

describe('a gateway', () => {
  const gateway = { peerId: 'gateway', addresses: [] }

  test('tells whoever asks about itself, and passes on since when', async () => {
    const from = { peerId: 'a' }
    const { serve, network } = wire(from, new ManualClock())
    const asked: unknown[] = []
    await serve(async (peerId, after) => {
      asked.push([peerId, after])
      return { ...nothing, events: [recordOf({ why: `about ${peerId}` })] }
    })
    expect((await askForScore(network, gateway)).events[0]!.why).toBe('about a')
    from.peerId = 'b'
    expect((await askForScore(network, gateway, { after: 3 })).events[0]!.why).toBe('about b')
    expect(asked).toEqual([
      ['a', undefined],
      ['b', 3]
    ])
  })

  test('answers a peer as often as it has reason to ask, and others meanwhile', async () => {
    const from = { peerId: 'a' }
    const clock = new ManualClock()
    const { serve, network } = wire(from, clock)
    await serve(async () => nothing)
    const ask = () => codeOf(askForScore(network, gateway))
    const burst = async () => [await ask(), await ask(), await ask(), await ask(), await ask()]
    expect(await burst()).toEqual(['resolved', 'resolved', 'resolved', 'resolved', 'TIMEOUT'])
    from.peerId = 'b'
    expect(await ask()).toBe('resolved')
    from.peerId = 'a'
    clock.advance(30_000)
    expect([await ask(), await ask()]).toEqual(['resolved', 'TIMEOUT'])
    clock.advance(3_600_000)
    expect(await burst()).toEqual(['resolved', 'resolved', 'resolved', 'resolved', 'TIMEOUT'])
  })

  test('has an end to what many names can make it do', async () => {
    const from = { peerId: '' }
    const clock = new ManualClock()
    const { serve, network } = wire(from, clock)
    let answered = 0
    await serve(async () => {
      answered += 1
      return nothing
    })
    for (let i = 0; i < 100; i++) {
      from.peerId = `peer ${i}`
      await askForScore(network, gateway).catch(() => {})
    }
    expect(answered).toBe(32)
  })

  test('that says no says it in words', async () => {
    const error = { code: 'BAD_INPUT', message: 'no' }
    const network = { request: async () => scoreAnswer.encode({ v: 1, error }) }
    await expect(askForScore(network, gateway)).rejects.toThrow('gateway answered BAD_INPUT: no')
  })
})
