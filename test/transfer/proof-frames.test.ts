/** The stream of answers: the same whatever pieces it comes in, and bounded whatever comes. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { type Answer, answerKinds, proofBytesMax, type Signed } from '../../src/custody/audit-messages.ts'
import { encodeAnswer, encodeStatement, ProofFrameDecoder } from '../../src/transfer/proof-frames.ts'

const answer: fc.Arbitrary<Answer> = fc.oneof(
  fc.uint8Array({ minLength: 8, maxLength: proofBytesMax }).map((slice): Answer => ({ kind: 'proof', slice })),
  fc.constantFrom(...answerKinds.slice(1)).map((kind): Answer => ({ kind, slice: new Uint8Array(0) }))
)
const statement: fc.Arbitrary<Signed> = fc.record({
  bytes: fc.uint8Array({ maxLength: 300 }),
  signature: fc.uint8Array({ minLength: 1, maxLength: 64 })
})
const stream = fc.record({ answers: fc.array(answer, { minLength: 1, maxLength: 12 }), statement })
const bytesOf = ({ answers, statement }: { answers: Answer[]; statement: Signed }): Uint8Array =>
  Buffer.concat([...answers.map(encodeAnswer), encodeStatement(statement)])

interface Seen {
  answers: Array<{ kind: string; slice: string }>
  statement: string | undefined
  failure: string | undefined
}

/** Pieces of these sizes, over and over. The memory of each is used again at once. */
function decode(challenges: number, bytes: Uint8Array, sizes: readonly number[]): Seen {
  const decoder = new ProofFrameDecoder(challenges)
  let failure: string | undefined
  const memory = new Uint8Array(70_000)
  try {
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const piece = bytes.subarray(at, at + sizes[i % sizes.length]!)
      memory.set(piece)
      decoder.push(memory.subarray(0, piece.length))
      memory.fill(0xee, 0, piece.length)
      at += piece.length
    }
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error
    failure = error.code
    expect(() => decoder.push(new Uint8Array(1)), 'it stays broken').toThrow(HoldfastError)
  }
  const hex = (part: Uint8Array): string => Buffer.from(part).toString('hex')
  return {
    answers: decoder.answers.map(({ kind, slice }) => ({ kind, slice: hex(slice) })),
    statement: decoder.statement && `${hex(decoder.statement.bytes)} ${hex(decoder.statement.signature)}`,
    failure
  }
}
const whole = [1 << 16]
const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3000 })), {
  minLength: 1,
  maxLength: 6
})

describe('the decoder', () => {
  it('gives back what was encoded, in pieces of any size', () => {
    fc.assert(
      fc.property(stream, sizes, (sent, pieces) => {
        const seen = decode(sent.answers.length, bytesOf(sent), pieces)
        expect(seen.failure).toBeUndefined()
        expect(seen.answers.map(({ kind }) => kind)).toEqual(sent.answers.map(({ kind }) => kind))
        for (const [i, { slice }] of seen.answers.entries())
          expect(slice).toBe(Buffer.from(sent.answers[i]!.slice).toString('hex'))
        expect(seen.statement).toBeDefined()
        expect(seen).toEqual(decode(sent.answers.length, bytesOf(sent), whole))
      }),
      { numRuns: 200 }
    )
  })

  it('cut anywhere, gives the answers that came whole, and is not broken', () => {
    fc.assert(
      fc.property(stream, sizes, fc.nat(), (sent, pieces, at) => {
        const bytes = bytesOf(sent)
        const cut = bytes.subarray(0, at % bytes.length)
        const seen = decode(sent.answers.length, cut, pieces)
        const ends = sent.answers.map((_, i) => Buffer.concat(sent.answers.slice(0, i + 1).map(encodeAnswer)).length)
        expect(seen.answers.length).toBe(ends.filter((end) => end <= cut.length).length)
        expect([seen.statement, seen.failure]).toEqual([undefined, undefined])
      }),
      { numRuns: 200 }
    )
  })

  it('says and keeps the same of altered bytes and of junk, in whatever pieces they come', () => {
    const junk = fc.oneof(
      fc.uint8Array({ maxLength: 4000 }),
      fc.tuple(stream, fc.nat(), fc.integer({ min: 1, max: 255 })).map(([sent, at, flip]) => {
        const bytes = bytesOf(sent)
        bytes[at % bytes.length]! ^= flip
        return bytes
      })
    )
    fc.assert(
      fc.property(junk, fc.integer({ min: 1, max: 12 }), sizes, (bytes, challenges, pieces) => {
        const seen = decode(challenges, bytes, pieces)
        expect(seen).toEqual(decode(challenges, bytes, whole))
        expect(seen.answers.length).toBeLessThanOrEqual(challenges)
        expect([undefined, 'PROTOCOL']).toContain(seen.failure)
      }),
      { numRuns: 1000 }
    )
  })

  it('refuses what is not in the protocol, and keeps what came before', () => {
    const missing = encodeAnswer({ kind: 'missing', slice: new Uint8Array(0) })
    const proof = encodeAnswer({ kind: 'proof', slice: new Uint8Array(8) })
    const signed = encodeStatement({ bytes: new Uint8Array(3), signature: new Uint8Array(64) })
    const refused: Record<string, Uint8Array[]> = {
      'an unknown kind': [Uint8Array.of(5, 0, 0)],
      'an answer too many': [missing, missing],
      'a statement too early': [signed],
      'bytes after the statement': [missing, signed, Uint8Array.of(0)],
      'a proof without an extent': [Uint8Array.of(0, 0, 7)],
      'a proof too long': [Uint8Array.of(0, (proofBytesMax + 1) >> 8, (proofBytesMax + 1) & 255)],
      'a confession with bytes': [Uint8Array.of(1, 0, 1)],
      'a statement too long': [missing, Uint8Array.of(255, 8, 1)],
      'a statement of nothing': [missing, Uint8Array.of(255, 0, 0)],
      'a statement that is none': [missing, Uint8Array.of(255, 0, 1, 0)]
    }
    for (const [what, frames] of Object.entries(refused)) {
      for (const end of [[], [1, 2, 3]]) {
        const seen = decode(
          what === 'a statement too early' ? 2 : 1,
          Buffer.concat([...frames, Uint8Array.from(end)]),
          [1]
        )
        expect([what, seen.failure, seen.answers.length]).toEqual([what, 'PROTOCOL', frames[0] === missing ? 1 : 0])
      }
    }
    expect(decode(1, Buffer.concat([proof, signed]), [1]).failure).toBeUndefined()
  })

  it('sets nothing aside for what a stream without end brings', () => {
    const decoder = new ProofFrameDecoder(1024)
    const proof = encodeAnswer({ kind: 'proof', slice: new Uint8Array(proofBytesMax) })
    let bytes = 0
    expect(() => {
      for (; bytes < 1e9; bytes += proof.length) decoder.push(proof)
    }).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    expect(bytes).toBe(1024 * proof.length)
  })
})
