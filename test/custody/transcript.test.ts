/** Transcripts and exports: strict, bounded, and read in whatever pieces they come. */
import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { utf8 } from '../../src/base/bytes.ts'
import { MiB } from '../../src/base/limits.ts'
import { CID } from '../../src/content/cid.ts'
import { challengesMax, proofBytesMax, type Signed } from '../../src/custody/audit-messages.ts'
import {
  decodeTranscript,
  type ExportLine,
  readTranscripts,
  type Transcript,
  transcriptBytesMax,
  transcriptCodec,
  transcriptLine,
  writeTranscripts
} from '../../src/custody/transcript.ts'
import { type Audited, audit, type Scene, scene, startedAt } from './audit-scene.ts'

let world: Scene
let told: Audited[]
let signed: Signed[]
let file: Uint8Array

beforeAll(async () => {
  world = await scene()
  const rows: Array<[string, string]> = [
    ['ooo', 'ooo'],
    ['owm', 'owm'],
    ['---', 'ttt']
  ]
  told = await Promise.all(rows.map(([answers, claims]) => audit(world, { answers, claims })))
  signed = told.map((one) => one.signed)
  file = Buffer.concat(await Array.fromAsync(writeTranscripts(signed)))
})

/** The reader gets one buffer, again and again: it may not keep it. */
async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(size)
  for (let at = 0; at < bytes.length; at += size) {
    const piece = bytes.subarray(at, at + size)
    buffer.set(piece)
    yield buffer.subarray(0, piece.length)
  }
}

/** Bytes by their value: whether they are in a `Buffer` is no matter. */
const plain = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (CID.asCID(value) !== null) return String(value)
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]))
}

const read = (bytes: Uint8Array, size = 4096): Promise<ExportLine[]> =>
  Array.fromAsync(readTranscripts(inPieces(bytes, size)))
const problemsOf = (lines: readonly ExportLine[]): string[] =>
  lines.flatMap((line) => ('problem' in line ? [`${line.line}: ${line.problem}`] : []))
const signedOf = (lines: readonly ExportLine[]): Signed[] =>
  lines.flatMap((line) => ('signed' in line ? [line.signed] : []))
const linesOf = (): string[] => Buffer.from(file).toString().trimEnd().split('\n')
const fileOf = (lines: readonly string[]): Uint8Array => utf8.encode(`${lines.join('\n')}\n`)

describe('a transcript', () => {
  it('comes back as it was', () => {
    for (const { transcript, request, signed: one } of told) {
      expect(plain(decodeTranscript(one.bytes))).toEqual(plain({ transcript, request }))
    }
  })

  it('with an answer wrong for every challenge fits, to the longest slice', () => {
    const wrong = { outcome: 'offline', digest: new Uint8Array(32), slice: null } as const
    const slice = new Uint8Array(proofBytesMax)
    const results = Array.from({ length: challengesMax }, () => ({ ...wrong, outcome: 'wrong' as const, slice }))
    const whole = { ...told[0]!.transcript, results }
    const bytes = transcriptCodec.encode(whole)
    expect(bytes.length).toBeLessThan(transcriptBytesMax)
    expect(transcriptCodec.decode(bytes).results).toHaveLength(challengesMax)
    expect(() => transcriptCodec.encode({ ...whole, results: [...results, wrong] })).toThrow()
  })

  it('that is not exactly one is refused', () => {
    const good: Transcript = told[1]!.transcript
    const [first, ...rest] = good.results
    const bad: unknown[] = [
      { ...good, v: 2 },
      { ...good, extra: 1 },
      { ...good, askedAt: -1 },
      { ...good, endedAt: 9e15 },
      { ...good, results: [] },
      { ...good, results: [{ ...first, outcome: 'fine' }, ...rest] },
      { ...good, results: [{ ...first, digest: new Uint8Array(31) }, ...rest] },
      { ...good, results: [{ ...first, slice: new Uint8Array(3) }, ...rest] },
      { ...good, results: good.results.map((one) => ({ ...one, slice: new Uint8Array(proofBytesMax + 1) })) },
      { ...good, statement: { bytes: new Uint8Array(1025), signature: new Uint8Array(64) } },
      { ...good, statement: { bytes: new Uint8Array(5), signature: new Uint8Array(257) } },
      { ...good, request: null },
      null,
      'transcript'
    ]
    expect(plain(transcriptCodec.decode(dagCbor.encode(good)))).toEqual(plain(good))
    for (const value of bad) {
      expect(() => transcriptCodec.decode(dagCbor.encode(value))).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    }
    const long = new Uint8Array(transcriptBytesMax + 1)
    expect(() => transcriptCodec.decode(long)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    const ofNoRequest = { ...good, request: { bytes: new Uint8Array(3), signature: new Uint8Array(64) } }
    expect(() => decodeTranscript(dagCbor.encode(ofNoRequest))).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  })
})

describe('an export', () => {
  it('says in words what grep looks for', () => {
    const [header, , second, , footer] = linesOf()
    expect(header).toBe('{"type":"holdfast/audits","v":1}')
    expect(footer).toBe('{"type":"holdfast/audits-end","entries":3}')
    expect(JSON.parse(second!)).toMatchObject({
      asked: new Date(startedAt + 10).toISOString(),
      auditor: world.auditor.peerId,
      provider: world.provider.peerId,
      outcomes: { ok: 1, wrong: 1, missing: 1 }
    })
  })

  it('comes back, in pieces of any size', async () => {
    for (const size of [1, 2, 7, 64, 1000, file.length]) {
      const lines = await read(file, size)
      expect(problemsOf(lines)).toEqual([])
      expect(plain(signedOf(lines))).toEqual(plain(signed))
    }
  })

  it('of nothing is an export', async () => {
    const empty = Buffer.concat(await Array.fromAsync(writeTranscripts([])))
    expect(await read(empty)).toEqual([])
  })

  it('cut off anywhere says so, and gives what stands before', async () => {
    const header = file.indexOf(10) + 1
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: header, max: file.length - 2 }), async (length) => {
        const lines = await read(file.subarray(0, length))
        expect(problemsOf(lines).at(-1)).toMatch(/cut off/)
        const whole = Buffer.from(file.subarray(0, length)).toString().split('\n').length - 2
        expect(plain(signedOf(lines).slice(0, whole))).toEqual(plain(signed.slice(0, whole)))
      }),
      { numRuns: 100 }
    )
  })

  it('goes on behind a damaged line', async () => {
    const [header, a, b, c, footer] = linesOf() as [string, string, string, string, string]
    const damaged = [
      '',
      'garbage',
      '{}',
      '[]',
      'null',
      '\u0000',
      b.slice(0, -1),
      `${b} `,
      b.replace('"wrong":1', '"ok":1'),
      b.replace(world.provider.peerId, world.other.peerId),
      b.replace('"entry"', '"extra":1,"entry"'),
      b.replace('"entry":"', '"entry":"A'),
      header
    ]
    for (const line of damaged) {
      const lines = await read(fileOf([header, a, line, c, footer]))
      expect([line, ...problemsOf(lines)]).toEqual([line, '3: is not a transcript, or says what it does not'])
      expect(plain(signedOf(lines))).toEqual(plain([signed[0], signed[2]]))
    }
  })

  it('with a line altered in one byte has no other transcripts than were written', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(file.length - 2), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const altered = Uint8Array.from(file)
        altered[at]! ^= flip
        const lines = await read(altered).catch((error) => {
          expect([error.code, at < file.indexOf(10) + 1]).toEqual(['BAD_INPUT', true])
        })
        if (lines === undefined) return
        const keys = new Set(signed.map(transcriptLine))
        const strangers = signedOf(lines).filter((one) => !keys.has(transcriptLine(one)))
        // A byte of a transcript or of a signature may have been altered so that it still reads: signatures tell.
        expect(problemsOf(lines).length + strangers.length).toBeGreaterThan(0)
      }),
      { numRuns: 200 }
    )
  })

  it('with lines left out, put in, or after the end says so', async () => {
    const [header, a, b, c, footer] = linesOf() as [string, string, string, string, string]
    expect(problemsOf(await read(fileOf([header, a, c, footer])))).toEqual(['4: not as many entries: 2 stand above'])
    expect(problemsOf(await read(fileOf([header, a, b, c, footer, a])))).toEqual([
      '6: stands below the end of the export'
    ])
    expect(problemsOf(await read(fileOf([header, a, b, c])))).toEqual(['5: is missing: the export was cut off'])
  })

  it('that begins otherwise is none', async () => {
    const lines = linesOf()
    for (const text of ['', '\n', 'garbage', ...lines.slice(1), '{"type":"holdfast/audits","v":2}\n']) {
      await expect(read(utf8.encode(text))).rejects.toMatchObject({ code: 'BAD_INPUT' })
    }
  })

  it('with a line without end takes no more memory than a line may have', async () => {
    const piece = new Uint8Array(MiB).fill(0x41)
    let heldMax = 0
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield utf8.encode(`${linesOf()[0]}\n`)
      const before = process.memoryUsage().arrayBuffers
      for (let i = 0; i < 200; i++) {
        yield piece
        heldMax = Math.max(heldMax, process.memoryUsage().arrayBuffers - before)
      }
      yield utf8.encode(`\n${linesOf()[1]}\n`)
    }
    const lines = await Array.fromAsync(readTranscripts(endless()))
    expect(problemsOf(lines)).toEqual([
      expect.stringMatching(/^2: is longer than/),
      '4: is missing: the export was cut off'
    ])
    expect(plain(signedOf(lines))).toEqual(plain([signed[0]]))
    expect(heldMax).toBeLessThan(32 * MiB)
  })
})
