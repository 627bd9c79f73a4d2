/** What answers come to: an honest holder's are taken, and nothing else passes for one. */
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { KiB, MiB } from '../../src/base/limits.ts'
import { sliceOf } from '../../src/content/blake3-slice.ts'
import { treeOf } from '../../src/content/blake3-tree.ts'
import { cidOfNode, codecs } from '../../src/content/cid.ts'
import {
  isProvable,
  judgeAnswers,
  outcomeOfAnswer,
  outcomeOfFailure,
  type ProofAnswers
} from '../../src/custody/answers.ts'
import { type Answer, type AnswerKind, chunksOf, proofBytesMax, type Signed } from '../../src/custody/audit-messages.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { blockOf, proofOf, type Question, requestOf, statementOf, type TestRequest } from '../support/audits.ts'

const lengths = [0, 1, KiB - 1, KiB, KiB + 1, MiB - 1, MiB]
const challengeOf = ({ cid, bytes }: ReturnType<typeof blockOf>, chunk: number) => ({
  cid,
  bytes: bytes.length,
  chunk,
  reason: 'asked' as const
})

describe('one answer', () => {
  it.each(lengths)('a proof of any chunk of a block of %i bytes holds, and for no other chunk', (length) => {
    const block = blockOf(length)
    const tree = treeOf(block.bytes)
    const chunks = chunksOf(length)
    for (let chunk = 0; chunk < chunks; chunk++) {
      const slice = sliceOf(block.bytes, tree, chunk * 1024, (chunk + 1) * 1024)
      expect(slice.length).toBeLessThanOrEqual(proofBytesMax)
      const outcomeAt = (asked: number) => outcomeOfAnswer(challengeOf(block, asked), { kind: 'proof', slice })
      if (outcomeAt(chunk) !== 'ok') expect.fail(`chunk ${chunk}`)
      const other = (chunk * 7 + 1) % chunks
      if (other !== chunk && outcomeAt(other) !== 'wrong') expect.fail(`chunk ${chunk} for chunk ${other}`)
    }
  })

  it.each(lengths)('none of the bits of a proof of a block of %i bytes can be another', (length) => {
    const block = blockOf(length)
    const chunk = Math.floor(chunksOf(length) / 3)
    const { kind, slice } = proofOf(block.bytes, chunk)
    const challenge = challengeOf(block, chunk)
    for (let bit = 0; bit < slice.length * 8; bit++) {
      slice[bit >> 3]! ^= 1 << (bit & 7)
      if (outcomeOfAnswer(challenge, { kind, slice }) !== 'wrong') expect.fail(`bit ${bit} altered`)
      slice[bit >> 3]! ^= 1 << (bit & 7)
    }
    expect(outcomeOfAnswer(challenge, { kind, slice })).toBe('ok')
  })

  it('out of another block, or for another CID, is wrong', () => {
    const other = blockOf(MiB, 2)
    for (const length of lengths) {
      const block = blockOf(length)
      expect(outcomeOfAnswer(challengeOf(other, 0), proofOf(block.bytes, 0))).toBe('wrong')
      expect(outcomeOfAnswer(challengeOf(block, 0), proofOf(other.bytes, 0))).toBe('wrong')
    }
  })

  it('is wrong whatever bytes it has, unless they are the proof', () => {
    const block = blockOf(5000)
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: proofBytesMax }), fc.nat(4), (slice, chunk) => {
        expect(outcomeOfAnswer(challengeOf(block, chunk), { kind: 'proof', slice })).toBe('wrong')
      })
    )
  })

  it('means what its kind says', () => {
    const slice = new Uint8Array(0)
    const of = (kind: AnswerKind): string => outcomeOfAnswer(challengeOf(blockOf(10), 0), { kind, slice })
    expect([of('missing'), of('rotten'), of('refused'), of('overloaded')]).toEqual([
      'missing',
      'missing',
      'refused',
      'unknown'
    ])
  })

  it('cannot be asked for of a node, whose CID is another hash', () => {
    const cid = cidOfNode(codecs.dagCbor, blockOf(100).bytes)
    expect([isProvable(cid), isProvable(blockOf(100).cid)]).toEqual([false, true])
    const challenge = { cid, bytes: 100, chunk: 0, reason: 'asked' as const }
    expect(() => outcomeOfAnswer(challenge, proofOf(blockOf(100).bytes, 0))).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT' })
    )
  })

  it('is not held against a provider where the auditor is wrong about the length', () => {
    const { bytes, cid } = blockOf(2500)
    for (const [claimed, chunk] of [
      [MiB, 900],
      [1025, 1],
      [3000, 2]
    ] as const) {
      expect(outcomeOfAnswer({ cid, bytes: claimed, chunk, reason: 'asked' }, proofOf(bytes, chunk))).toBe('ok')
    }
  })
})

describe('the answers to a request', () => {
  let auditor: Identity
  let provider: Identity
  let stranger: Identity
  const blocks = [blockOf(MiB), blockOf(1025), blockOf(0), blockOf(70_000)]
  const questions = blocks.map(({ bytes, cid }, i): Question => {
    return { cid, bytes: bytes.length, chunk: (i * 7) % chunksOf(bytes.length) }
  })
  const honest = blocks.map(({ bytes }, i) => proofOf(bytes, questions[i]!.chunk))
  let asked: TestRequest
  beforeAll(async () => {
    ;[auditor, provider, stranger] = await Promise.all([generateIdentity(), generateIdentity(), generateIdentity()])
    asked = await requestOf(auditor, provider.peerId, questions)
  })
  const judge = async (answers: readonly Answer[], statement?: Signed, failure?: HoldfastError) => {
    const received: ProofAnswers = { answers, statement, ...(failure === undefined ? {} : { failure }) }
    return await judgeAnswers(asked.request, asked.signed.bytes, received, { verifySignature })
  }
  const altered = (): Answer[] =>
    honest.map(({ kind, slice }, i) => ({
      kind,
      slice: i === 1 ? slice.map((byte, at) => byte ^ (at === 20 ? 1 : 0)) : slice
    }))

  it('are ok where they hold and the provider signed for them', async () => {
    const outcome = await judge(honest, await statementOf(provider, asked.signed.bytes, honest))
    expect(outcome).toEqual({ outcomes: ['ok', 'ok', 'ok', 'ok'], countersigned: true })
  })

  it('are judged one by one', async () => {
    const answers: Answer[] = [{ kind: 'rotten', slice: new Uint8Array(0) }, ...altered().slice(1)]
    const statement = await statementOf(provider, asked.signed.bytes, answers)
    expect(await judge(answers, statement)).toEqual({ outcomes: ['missing', 'wrong', 'ok', 'ok'], countersigned: true })
    const kinds = (['missing', 'refused', 'overloaded', 'rotten'] as const).map(
      (kind): Answer => ({ kind, slice: new Uint8Array(0) })
    )
    expect((await judge(kinds, await statementOf(provider, asked.signed.bytes, kinds))).outcomes).toEqual([
      'missing',
      'refused',
      'unknown',
      'missing'
    ])
  })

  it('say nothing good without the provider’s own signature, and what is wrong is wrong all the same', async () => {
    const other = await requestOf(auditor, provider.peerId, questions, { epoch: 8 })
    const good = await statementOf(provider, asked.signed.bytes, honest)
    const useless: Array<[string, Signed | undefined]> = [
      ['none', undefined],
      ['by another peer, in its own name', await statementOf(stranger, asked.signed.bytes, honest)],
      [
        'by another peer, in the provider’s name',
        await statementOf(stranger, asked.signed.bytes, honest, provider.peerId)
      ],
      ['by the provider, in another name', await statementOf(provider, asked.signed.bytes, honest, stranger.peerId)],
      ['for another request', await statementOf(provider, other.signed.bytes, honest)],
      ['for other answers', await statementOf(provider, asked.signed.bytes, altered())],
      ['for fewer answers', await statementOf(provider, asked.signed.bytes, honest.slice(1))],
      ['of another kind of message', { ...good, signature: await provider.sign(good.bytes) }],
      ['over junk', { bytes: new Uint8Array(9), signature: await provider.sign(new Uint8Array(9)) }]
    ]
    for (const [what, statement] of useless) {
      expect([what, await judge(honest, statement)]).toEqual([
        what,
        { outcomes: ['unknown', 'unknown', 'unknown', 'unknown'], countersigned: false }
      ])
      const bad =
        statement === undefined ? undefined : { ...statement, signature: statement.signature.map((b) => b ^ 1) }
      expect((await judge(altered(), bad)).outcomes).toEqual(['unknown', 'wrong', 'unknown', 'unknown'])
    }
  })

  it('to an older request, with the signature given then, are wrong for new chunks and unknown for the same', async () => {
    const chunks = [500, 0, 0, 3]
    const old = await requestOf(
      auditor,
      provider.peerId,
      questions.map((question, i) => ({ ...question, chunk: chunks[i]! })),
      { epoch: 6 }
    )
    const answers = blocks.map(({ bytes }, i) => proofOf(bytes, chunks[i]!))
    const judged = await judge(answers, await statementOf(provider, old.signed.bytes, answers))
    expect(judged).toEqual({ outcomes: ['wrong', 'wrong', 'unknown', 'wrong'], countersigned: false })
  })

  it('count as far as they came; the others are put again, unless it was junk or our own doing', async () => {
    const cut = altered().slice(0, 3)
    const timeout = ['ok', 'wrong', 'ok', 'timeout']
    for (const [failure, outcomes] of [
      [undefined, timeout],
      [new HoldfastError('TIMEOUT', 'late'), timeout],
      [new HoldfastError('OFFLINE', 'broken'), timeout],
      [new HoldfastError('PROTOCOL', 'junk'), ['ok', 'wrong', 'ok', 'unknown']],
      [new HoldfastError('ABORTED', 'shutting down'), ['ok', 'wrong', 'ok', 'unknown']]
    ] as const) {
      expect(await judge(cut, undefined, failure)).toEqual({ outcomes, countersigned: false })
    }
    expect((await judge([])).outcomes).toEqual(['timeout', 'timeout', 'timeout', 'timeout'])
    const early = await statementOf(provider, asked.signed.bytes, cut)
    expect(await judge(cut, early)).toEqual({ outcomes: timeout, countersigned: false })
  })

  it('are never more than were asked for, and others have their turn between checks', async () => {
    await expect(judge([...honest, honest[0]!])).rejects.toMatchObject({ code: 'BAD_INPUT' })
    const many = Array.from({ length: 100 }, () => questions[1]!)
    const { request, signed } = await requestOf(auditor, provider.peerId, many)
    const answers = many.map(() => honest[1]!)
    let pauses = 0
    const judged = await judgeAnswers(
      request,
      signed.bytes,
      { answers, statement: await statementOf(provider, signed.bytes, answers) },
      { verifySignature, pause: async () => void pauses++ }
    )
    expect([judged.countersigned, new Set(judged.outcomes), pauses]).toEqual([true, new Set(['ok']), 3])
  })
})

it('what asking rejects with is no evidence', () => {
  const overloaded = new HoldfastError('TIMEOUT', 'busy', { details: { overloaded: true } })
  const outcomes = [
    new HoldfastError('OFFLINE', ''),
    new HoldfastError('TIMEOUT', ''),
    overloaded,
    new HoldfastError('PROTOCOL', ''),
    new HoldfastError('MISSING', ''),
    new Error('anything')
  ].map(outcomeOfFailure)
  expect(outcomes).toEqual(['offline', 'timeout', 'unknown', 'unknown', 'unknown', 'unknown'])
})
