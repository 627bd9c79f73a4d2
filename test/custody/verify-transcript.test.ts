/** Who is at fault: every way in which auditor or provider lies, and what a third party makes of it. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { utf8 } from '../../src/base/bytes.ts'
import { dayMs, hourMs, minuteMs } from '../../src/base/limits.ts'
import { cidOfNode, codecs } from '../../src/content/cid.ts'
import { type AuditRequest, type Signed, samplingAll } from '../../src/custody/audit-messages.ts'
import { chunkOf } from '../../src/custody/challenge.ts'
import { signTranscript, writeTranscripts } from '../../src/custody/transcript.ts'
import {
  type FindingName,
  findingCases,
  TranscriptVerifier,
  verifyExport
} from '../../src/custody/verify-transcript.ts'
import { verifySignature } from '../../src/net/identity.ts'
import { type Audit, type Audited, audit, proofOf, type Scene, scene, startedAt } from './audit-scene.ts'

let world: Scene
beforeAll(async () => {
  world = await scene()
})

const seen = new Set<FindingName>()
async function casesOf(signed: Signed, verifier = new TranscriptVerifier({ verifySignature })): Promise<FindingName[]> {
  const names = (await verifier.verify(signed)).map(({ case: name }) => name)
  for (const name of names) seen.add(name)
  return names
}

const ofAnother = (): Partial<Audit> => ({ statement: 'of another request' })

/** What happened, how it was told, and what is found, shard by shard; one name stands for all. */
type Row = [what: string, answers: string, claims: string, found: string, more?: (world: Scene) => Partial<Audit>]

async function expectRow([, answers, claims, found, more]: Row): Promise<void> {
  const { signed } = await audit(world, { answers, claims, ...more?.(world) })
  const expected = found.split(' ')
  expect(await casesOf(signed)).toEqual(expected.length === 1 ? [...answers].map(() => found) : expected)
}

const honest: Row[] = [
  ['everything is there', 'ooo', 'ooo', 'proved'],
  ['each says something else', 'omr', 'omr', 'proved missing refused'],
  ['too much to do', 'bob', 'uou', 'overloaded proved overloaded'],
  ['one is rotten, as it confesses', 'oxo', 'omo', 'proved missing proved'],
  ['nobody there', '---', 'fff', 'offline'],
  ['frozen', '---', 'ttt', 'timeout'],
  ['frozen half-way', 'o--', 'ttt', 'timeout'],
  ['not in the protocol', '---', 'uuu', 'unknown'],
  ['answered after the deadline', 'ooo', 'ttt', 'late'],
  ['a little late, taken all the same', 'ooo', 'ooo', 'proved', () => ({ tookMs: 2400 })],
  ['four minutes slow, the clock', 'ooo', 'ooo', 'proved', () => ({ answeredAfterMs: -4 * minuteMs })],
  ['an hour slow, the clock', 'ooo', 'ooo', 'clocks', () => ({ answeredAfterMs: -hourMs })],
  ['an hour fast, the clock', 'omw', 'omw', 'clocks missing wrong', () => ({ answeredAfterMs: hourMs })]
]

const judged = 'as judged'

/** Whatever a provider does, the auditor that writes down what came is not to blame. */
const cutStreams: Row[] = [
  ['hangs up before the first answer', '---', judged, 'cut', () => ({ tookMs: 100 })],
  ['hangs up after two', 'oo-', judged, 'unbacked unbacked cut', () => ({ tookMs: 100 })],
  ['confesses one, and hangs up', 'm--', judged, 'unbacked cut cut', () => ({ tookMs: 100 })],
  ['one rotten, one refused, and hangs up', 'xr-', judged, 'unbacked unbacked cut', () => ({ tookMs: 100 })],
  ['a wrong proof, and hangs up', 'ow-', judged, 'unbacked unbacked cut', () => ({ tookMs: 100 })],
  ['too much to do, and hangs up', 'bo-', judged, 'unknown unbacked cut', () => ({ tookMs: 100 })],
  ['signs for two answers alone', 'oo-', judged, 'unbacked unbacked cut', () => ({ statement: 'anyway', tookMs: 100 })],
  ['three wrong proofs, none signed', 'www', judged, 'unbacked', () => ({ statement: 'none' })],
  ['confessions that are not signed', 'mxr', judged, 'unbacked', () => ({ statement: 'none' })],
  ['confessions signed as another peer', 'mxm', judged, 'unbacked', () => ({ statement: 'by another peer' })],
  ['a confession, a wrong proof, an old signature', 'mow', judged, 'unbacked replayed unbacked', ofAnother],
  ['slow: the deadline amid the batch', 'oo-', judged, 'unbacked unbacked timeout', () => ({ tookMs: 1500 })],
  ['slow: a timer that is a little early', 'o--', judged, 'unbacked timeout timeout', () => ({ tookMs: 1460 })]
]

const lyingProviders: Row[] = [
  ['a wrong slice', 'owo', 'owo', 'proved wrong proved'],
  ['nothing is left', 'mmm', 'mmm', 'missing'],
  ['replays an old answer, with its signature', 'ooo', 'uuu', 'replayed', () => ({ statement: 'of another request' })],
  ['signs other answers', 'omo', 'uuu', 'mismatched', () => ({ statement: 'of other answers' })],
  ['signs answers it did not give', 'o-o', 'uuu', 'mismatched', () => ({ statement: 'anyway' })],
  ['signs as another peer', 'ooo', 'uuu', 'foreign', () => ({ statement: 'by another peer' })],
  ['signs that another peer answered', 'ooo', 'uuu', 'foreign', () => ({ statement: 'for another peer' })],
  ['signs garbage', 'ooo', 'uuu', 'foreign', () => ({ statement: 'garbage' })],
  ['does not sign', 'ooo', 'uuu', 'unknown', () => ({ statement: 'none' })]
]

const withRequest = (request: Partial<AuditRequest>) => (): Partial<Audit> => ({ request })

const lyingAuditors: Row[] = [
  ['calls right answers wrong', 'ooo', 'owo', 'proved wrong-right proved'],
  [
    'calls wrong, shows another answer',
    'owo',
    'owo',
    'proved wrong-unshown proved',
    (s) => showing(proofOf(s.shards[0]!.block, 0))
  ],
  ['calls wrong, shows none', 'owo', 'owo', 'proved wrong-unshown proved', () => showing(null)],
  ['calls right answers wrong, unsigned', 'ooo', 'owo', 'unbacked wrong-right unbacked', () => ({ statement: 'none' })],
  ['calls right answers wrong, of a cut stream', 'oo-', 'wot', 'wrong-right unbacked timeout'],
  [
    'calls wrong, unsigned, shows none',
    'owo',
    'owo',
    'unbacked wrong-unshown unbacked',
    () => ({ ...showing(null), statement: 'none' })
  ],
  ['forges missing: it was proved', 'ooo', 'mmm', 'altered'],
  ['forges missing: it was refused', 'rro', 'mmo', 'altered altered proved'],
  ['forges missing: nothing came', '---', 'mmm', 'contradictory'],
  ['forges missing: a proof came, unsigned', 'oo-', 'mrt', 'contradictory contradictory timeout'],
  ['forges missing: with an old confession', 'mmm', 'mmm', 'unbacked', ofAnother],
  ['forges ok: it was missing', 'mxr', 'ooo', 'altered'],
  ['forges ok: nothing came', '---', 'ooo', 'contradictory'],
  ['forges ok: it was missing, and unsigned', 'mx-', 'oot', 'contradictory contradictory timeout'],
  ['forges ok: it came too late', 'ooo', 'ooo', 'proved-late', () => ({ tookMs: 9000 })],
  ['forges refused', 'ooo', 'rrr', 'altered'],
  ['forges offline: there are signed answers', 'ooo', 'fff', 'altered'],
  ['forges unknown: there are signed answers', 'owm', 'uuu', 'altered'],
  ['forges timeout: it came in time', 'ooo', 'ttt', 'altered', () => ({ tookMs: 100 })],
  ['forges timeout: an answer is there, in time', 'o--', 'ttt', 'contradictory cut cut', () => ({ tookMs: 100 })],
  ['forges offline: an answer is there', 'o--', 'fff', 'contradictory offline offline'],
  ['a chunk that is not of the seed', 'ooo', 'ooo', 'proved not-the-chunk proved', () => ({ challenge: otherChunk })],
  ['a shard that was not drawn', 'ooo', 'ooo', 'not-drawn', withRequest({ sampling: 0 })],
  ['a node, which has no proofs', 'ooo', 'ooo', 'not-a-shard proved proved', () => ({ challenge: node })],
  ["another provider's seed", 'ooo', 'ooo', 'not-the-seed', (s) => ({ seedFor: { provider: s.other.peerId } })],
  ["yesterday's seed", 'ooo', 'ooo', 'not-the-seed', () => ({ seedFor: { epoch: 489_976 } })],
  ["yesterday's epoch", 'ooo', 'ooo', 'disordered', withRequest({ epoch: 489_976 })],
  ['an epoch to come', 'ooo', 'ooo', 'disordered', withRequest({ epoch: 490_001 })],
  ['a proof of nothing', 'ooo', 'ooo', 'not-the-seed', withRequest({ vrfProof: new Uint8Array(80) })],
  [
    'asked before it was issued',
    'ooo',
    'ooo',
    'disordered',
    () => ({ transcript: (t) => ({ ...t, askedAt: startedAt - 1 }) })
  ],
  [
    'ended before it was asked',
    'ooo',
    'ooo',
    'disordered',
    () => ({ transcript: (t) => ({ ...t, endedAt: t.askedAt - 1 }) })
  ],
  [
    'a result left out',
    'ooo',
    'ooo',
    'miscounted miscounted',
    () => ({ transcript: (t) => ({ ...t, results: t.results.slice(1) }) })
  ],
  [
    'a result put in',
    'ooo',
    'ooo',
    'miscounted',
    () => ({ transcript: (t) => ({ ...t, results: [...t.results, t.results[0]!] }) })
  ],
  [
    'answers exchanged',
    'oom',
    'oom',
    'unbacked', // for all that is known, the provider signed for others than it gave
    () => ({ transcript: (t) => ({ ...t, results: t.results.toReversed() }) })
  ],
  ['signs for another auditor', 'ooo', 'ooo', 'unsigned', (s) => ({ signer: s.other })]
]

const showing = (slice: Uint8Array | null): Partial<Audit> => ({
  transcript: (t) => ({
    ...t,
    results: t.results.map((result) => (result.outcome === 'wrong' ? { ...result, slice } : result))
  })
})

const otherChunk: Audit['challenge'] = (challenge, i) =>
  i === 1 ? { ...challenge, chunk: challenge.chunk ^ 1 } : challenge

const node: Audit['challenge'] = (challenge, i) =>
  i === 0 ? { ...challenge, cid: cidOfNode(codecs.dagCbor, new Uint8Array(5)) } : challenge

describe('honest on both sides', () => {
  it.each(honest)('%s: %s, told as %s: %s', (...row) => expectRow(row))
})

describe('the provider gives no good statement', () => {
  it.each(cutStreams)('%s: %s, told %s: %s', (...row) => expectRow(row))
})

describe('the provider lies', () => {
  it.each(lyingProviders)('%s: %s, told as %s: %s', (...row) => expectRow(row))
})

describe('the auditor lies', () => {
  it.each(lyingAuditors)('%s: %s, told as %s: %s', (...row) => expectRow(row))

  it('about the length of a shard: that moves the chunk, and hurts nobody', async () => {
    const longer: Audit['challenge'] = ({ cid, reason }, i, seed) => {
      const bytes = [600, 900, 1000][i]! * 1024
      return { cid, bytes, chunk: chunkOf(seed, cid, bytes), reason }
    }
    expect(await casesOf((await audit(world, { answers: 'ooo', claims: 'ooo', challenge: longer })).signed)).toEqual(
      Array(3).fill('proved')
    )
    expect(await casesOf((await audit(world, { answers: 'ooo', claims: 'www', challenge: longer })).signed)).toEqual(
      Array(3).fill('wrong-right')
    )
  })
})

describe('blame', () => {
  const letters = (alphabet: string): fc.Arbitrary<string> =>
    fc.array(fc.constantFrom(...alphabet), { minLength: 3, maxLength: 3 }).map((row) => row.join(''))
  const statement = fc.constantFrom<Audit['statement']>(
    undefined,
    'none',
    'of another request',
    'of other answers',
    'by another peer',
    'garbage',
    'anyway'
  )

  it('never falls on a provider that has its shards, whatever an auditor writes', async () => {
    await fc.assert(
      fc.asyncProperty(
        letters('ob-'),
        letters('owmrtfu'),
        statement,
        fc.nat(5000),
        async (answers, claims, how, tookMs) => {
          const { signed } = await audit(world, { answers, claims, statement: how, tookMs })
          const found = await new TranscriptVerifier({ verifySignature }).verify(signed)
          expect(found.map(({ atFault }) => atFault)).not.toContain('provider')
        }
      ),
      { numRuns: 60 }
    )
  })

  it('never falls on an auditor that writes what happened, and on a provider for what it signed alone', async () => {
    await fc.assert(
      fc.asyncProperty(
        letters('owmxrb'),
        fc.nat(3),
        statement,
        fc.nat({ max: 2500 }),
        async (whole, came, how, tookMs) => {
          const answers = whole.slice(0, came).padEnd(3, '-')
          const { signed } = await audit(world, { answers, claims: judged, statement: how, tookMs })
          const found = await new TranscriptVerifier({ verifySignature }).verify(signed)
          const isSame = how === 'of other answers' && answers[0] === answers[2] && answers[0] !== 'o'
          if (isSame) return // the same answers the other way round, or not, as their slices are
          const isSigned = came === 3 && (how === undefined || how === 'anyway')
          const expected = [...answers].map((letter) => (isSigned && 'wmx'.includes(letter) ? 'provider' : 'nobody'))
          expect(found.map(({ atFault }) => atFault)).toEqual(expected)
          if (!isSigned) expect(found.map(({ verdict }) => verdict)).toEqual(Array(3).fill('unproven'))
        }
      ),
      { numRuns: 150 }
    )
  })

  it('falls on nobody for a transcript altered in any byte since it was signed', async () => {
    const { signed } = await audit(world, { answers: 'owm', claims: 'omw' })
    expect(await casesOf(signed)).toEqual(['proved', 'altered', 'altered'])
    const whole = signed.bytes.length + signed.signature.length
    await fc.assert(
      fc.asyncProperty(fc.nat(whole - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const [bytes, signature] = [Uint8Array.from(signed.bytes), Uint8Array.from(signed.signature)]
        if (at < bytes.length) bytes[at]! ^= flip
        else signature[at - bytes.length]! ^= flip
        const names = await casesOf({ bytes, signature })
        expect(names.every((name) => name === 'unsigned' || name === 'damaged')).toBe(true)
      }),
      { numRuns: 150 }
    )
  })

  it('falls on nobody for a request or a statement that was exchanged, and signed again by somebody else', async () => {
    const { transcript } = await audit(world, { answers: 'omo', claims: 'omo' })
    expect(await casesOf(await signTranscript(transcript, world.provider))).toEqual(Array(3).fill('unsigned'))
    const { transcript: stranger } = await audit(world, { answers: 'omo', claims: 'omo', signer: world.other })
    const exchanged = { ...transcript, request: stranger.request }
    expect(await casesOf(await signTranscript(exchanged, world.auditor))).toEqual(Array(3).fill('unsigned'))
  })
})

describe('a series of repeats', () => {
  const epoch = Math.floor(startedAt / hourMs)
  const gapsMs = [0, 15 * minuteMs, hourMs, 6 * hourMs, 7 * hourMs, 8 * hourMs]

  interface Series {
    /** Claims for each attempt. */
    rows: string[]
    request?: (attempt: number, asked: readonly Audited[]) => Partial<AuditRequest>
    tookMs?: number
    verifier?: TranscriptVerifier
    from?: number
  }

  async function found({ rows, request, tookMs, verifier, from = 0 }: Series): Promise<string[]> {
    const asked: Audited[] = []
    for (const [attempt, claims] of rows.entries()) {
      const repeats = attempt === 0 ? null : { request: asked.at(-1)!.requestId, attempt: Math.min(3, attempt) }
      const timed = { issuedAt: startedAt + gapsMs[attempt]!, epoch, repeats, ...request?.(attempt, asked) }
      const answers = claims.replaceAll(/[^o]/g, '-')
      asked.push(await audit(world, { answers, claims, request: timed, ...(tookMs !== undefined && { tookMs }) }))
    }
    const one = verifier ?? new TranscriptVerifier({ verifySignature })
    const all: string[] = []
    for (const { signed } of asked.slice(from)) all.push((await casesOf(signed, one)).join(' '))
    return all
  }
  const thrice = (name: FindingName): string => `${name} ${name} ${name}`

  const silent = ['ttt', 'ttt', 'ttt', 'ttt']

  it('that nobody answered is exhausted, by the word of the auditor', async () => {
    const before = Array(3).fill(thrice('timeout'))
    expect(await found({ rows: silent })).toEqual([...before, thrice('exhausted')])
  })

  it('of streams that were cut is one as well', async () => {
    const before = Array(3).fill(thrice('cut'))
    expect(await found({ rows: silent, tookMs: 20 })).toEqual([...before, thrice('exhausted')])
  })

  it('goes on behind its last repeat, after silences that were taken back', async () => {
    const rows = [...silent, 'tot', 'tut']
    const late = (await found({ rows })).slice(3)
    expect(late).toEqual([thrice('exhausted'), 'exhausted unbacked exhausted', 'exhausted not-a-repeat exhausted'])
  })

  it('ends with the answer', async () => {
    expect(await found({ rows: ['ttt', 'ttt', 'ooo'] })).toEqual([
      thrice('timeout'),
      thrice('timeout'),
      thrice('proved')
    ])
  })

  it('is no ground for missing: nobody said that', async () => {
    expect((await found({ rows: ['ttt', 'ttt', 'ttt', 'mmm'] })).at(-1)).toBe(thrice('contradictory'))
  })

  it('whose beginning is not shown, or forgotten, proves nothing', async () => {
    expect((await found({ rows: silent, from: 1 })).at(-1)).toBe(thrice('exhausted-unshown'))
    const [few, fewTimeouts] = [
      new TranscriptVerifier({ verifySignature, rememberedRequestsMax: 0 }),
      new TranscriptVerifier({ verifySignature, rememberedTimeoutsMax: 2 })
    ]
    expect((await found({ rows: silent, verifier: few })).at(-1)).toBe(thrice('exhausted-unshown'))
    expect((await found({ rows: silent, verifier: fewTimeouts })).at(-1)).toBe(thrice('exhausted-unshown'))
  })

  it.each<[string, string[], Series['request']]>([
    ['of what was proved', ['tot', 'ttt'], undefined],
    ['of a challenge of another epoch', ['ttt', 'ttt'], (attempt) => ({ epoch: epoch - attempt })],
    ['at another rate', ['ttt', 'ttt'], (attempt) => ({ sampling: samplingAll - attempt })],
    ['while it was still waiting', ['ttt', 'ttt'], (attempt) => ({ issuedAt: startedAt + attempt * 1000 })],
    [
      'counted too far',
      ['ttt', 'ttt'],
      (attempt, asked) => (attempt === 0 ? {} : { repeats: { request: asked[0]!.requestId, attempt: 3 } })
    ]
  ])('%s is none', async (_what, rows, request) => {
    const names = (await found({ rows, request })).at(-1)!.split(' ')
    expect(names).toContain('not-a-repeat')
    expect(names.filter((name) => name !== 'not-a-repeat')).toEqual(rows[0] === 'tot' ? ['timeout', 'timeout'] : [])
  })

  it('may go on days later, and not before its epoch', async () => {
    const later = (attempt: number) => ({ issuedAt: startedAt + attempt * 3 * dayMs })
    expect((await found({ rows: ['ttt', 'ttt'], request: later })).at(-1)).toBe(thrice('timeout'))
    const earlier = (attempt: number) => ({ issuedAt: startedAt - attempt * dayMs })
    expect((await found({ rows: ['ttt', 'ttt'], request: earlier })).at(-1)).toBe(thrice('disordered'))
  })
})

describe('an export', () => {
  async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  }

  it('is verified line by line, damaged lines and all', async () => {
    const rows = [
      { answers: 'owm', claims: 'owm' },
      { answers: 'ooo', claims: 'omo' }
    ]
    const told = await Promise.all(rows.map((row) => audit(world, row)))
    const chunks = await Array.fromAsync(writeTranscripts(told.map(({ signed }) => signed)))
    chunks.splice(2, 0, utf8.encode('garbage\n'))
    const all = await Array.fromAsync(verifyExport(inPieces(Buffer.concat(chunks), 1000), { verifySignature }))
    expect(all.map(({ line, case: name, atFault }) => [line, name, atFault])).toEqual([
      [2, 'proved', 'nobody'],
      [2, 'wrong', 'provider'],
      [2, 'missing', 'provider'],
      [3, 'damaged', 'nobody'],
      [4, 'proved', 'nobody'],
      [4, 'altered', 'auditor'],
      [4, 'proved', 'nobody'],
      [5, 'damaged', 'nobody'] // the count at the end does not know the garbage
    ])
    expect({ ...all[1]!.subject, cid: all[1]!.subject?.cid.toString() }).toEqual({
      auditor: world.auditor.peerId,
      provider: world.provider.peerId,
      askedAt: startedAt + 10,
      cid: world.shards[1]!.cid.toString(),
      chunk: told[0]!.request.challenges[1]!.chunk,
      outcome: 'wrong'
    })
  })
})

describe('the table of findings', () => {
  it('has no line that the rows above do not reach', async () => {
    expect(await casesOf({ bytes: new Uint8Array(9), signature: new Uint8Array(64) })).toEqual(['damaged'])
    expect(Object.keys(findingCases).filter((name) => !seen.has(name as FindingName))).toEqual([])
  })

  it('stands in the documents, word by word', () => {
    const rows = readFileSync(new URL('../../src/FORMATS.md', import.meta.url), 'utf8')
      .split('\n')
      .map((line) => line.split('|').map((cell) => cell.trim()))
    for (const [name, { verdict, atFault, why }] of Object.entries(findingCases)) {
      expect(rows).toContainEqual(['', `\`${name}\``, verdict, atFault, why, ''])
    }
  })
})
