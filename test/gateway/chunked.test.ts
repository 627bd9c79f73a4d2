import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { isCode } from '../../src/base/errors.ts'
import { type ChunkedOptions, decodeChunked } from '../../src/gateway/chunked.ts'
import { S3Error } from '../../src/gateway/errors.ts'
import { signingKey } from '../../src/gateway/signature.ts'
import { type ChunkedExample, encodeChunked, type SigV4Examples } from '../support/s3-gateway.ts'

const examples = JSON.parse(
  readFileSync(new URL('../../fixtures/s3/sigv4-examples.json', import.meta.url), 'utf8')
) as SigV4Examples
const key = signingKey(examples.secretAccessKey, examples.scope)

async function* pieces(wire: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < wire.length; at += pieceBytes) yield wire.subarray(at, at + pieceBytes)
}

async function decode(wire: string | Uint8Array, options: ChunkedOptions = {}, pieceBytes = 7): Promise<Buffer> {
  const parts: Uint8Array[] = []
  const bytes = Buffer.from(wire as string, 'latin1')
  for await (const part of decodeChunked(pieces(bytes, pieceBytes), options)) parts.push(Buffer.from(part))
  return Buffer.concat(parts)
}

const failure = async (work: Promise<unknown>): Promise<unknown> =>
  await work.then(
    () => 'no failure',
    (error: unknown) =>
      error instanceof S3Error ? error.code : isCode(error, 'INCOMPLETE_BODY') ? 'INCOMPLETE_BODY' : error
  )

/** The wire form of Amazon's example: 65 KiB of the letter a. */
function exampleWire(example: ChunkedExample, tail = '\r\n'): Buffer {
  const parts = example.chunks.map(({ bytes, signature }) => {
    const data = bytes === 0 ? '' : `${'a'.repeat(bytes)}\r\n`
    return Buffer.from(`${bytes.toString(16)};chunk-signature=${signature}\r\n${data}`)
  })
  return Buffer.concat([...parts, Buffer.from(tail)])
}

describe("Amazon's worked examples", () => {
  const signing = (example: ChunkedExample) => ({
    key,
    amzDate: examples.amzDate,
    scope: examples.scope,
    seedSignature: example.seedSignature
  })

  test('signed chunks', async () => {
    const wire = exampleWire(examples.chunked)
    expect(wire.length).toBe(66_824)
    expect(await decode(wire, { signing: signing(examples.chunked) }, 4096)).toEqual(Buffer.alloc(66_560, 'a'))
  })

  test('one changed byte of data fails its chunk', async () => {
    const wire = exampleWire(examples.chunked)
    wire[66_000] = 0x62
    expect(await failure(decode(wire, { signing: signing(examples.chunked) }, 4096))).toBe('SignatureDoesNotMatch')
  })

  const example = examples.chunkedWithTrailer
  const trailerLine = `${example.trailer.name}:${example.trailer.value}`
  const options = (): ChunkedOptions => ({ signing: signing(example), trailers: [example.trailer.name] })

  test.each(['\r\n', '\n', '\n\r\n'])('signed trailer, lines ended by %j', async (end) => {
    const seen: Array<ReadonlyMap<string, string>> = []
    const wire = exampleWire(example, `${trailerLine}${end}x-amz-trailer-signature:${example.trailerSignature}\r\n\r\n`)
    await decode(wire, { ...options(), onTrailers: (trailers) => void seen.push(trailers) }, 4096)
    expect(seen.map((trailers) => trailers.get('x-amz-checksum-crc32c'))).toEqual(['sOO8/Q=='])
  })

  test('a changed trailer fails its signature', async () => {
    const wire = exampleWire(
      example,
      `${example.trailer.name}:AAAAAA==\r\nx-amz-trailer-signature:${example.trailerSignature}\r\n\r\n`
    )
    expect(await failure(decode(wire, options(), 4096))).toBe('SignatureDoesNotMatch')
  })

  test('a signed body needs a signed trailer', async () => {
    expect(await failure(decode(exampleWire(example, `${trailerLine}\r\n\r\n`), options(), 4096))).toBe(
      'MalformedTrailerError'
    )
  })

  test('chunks that are not signed are refused where they must be', async () => {
    expect(await failure(decode('3\r\nabc\r\n0\r\n\r\n', { signing: signing(example) }))).toBe('InvalidRequest')
  })
})

describe('framing', () => {
  test.each([
    ['3\r\nabc\r\n0\r\n\r\n', 'abc'],
    ['3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n', 'abc\r\n'],
    ['0\r\n\r\n', ''],
    ['A\r\n0123456789\r\n0\r\n', '0123456789']
  ])('%j is %j', async (wire, data) => {
    for (const pieceBytes of [1, 2, 3, 100]) expect((await decode(wire, {}, pieceBytes)).toString()).toBe(data)
  })

  test.each([
    ['', 'INCOMPLETE_BODY'],
    ['3\r\nab', 'INCOMPLETE_BODY'],
    ['3\r\nabc\r\n', 'INCOMPLETE_BODY'],
    ['3\r\nabcd\r\n0\r\n\r\n', 'InvalidRequest'],
    ['3\nabc\r\n0\r\n\r\n', 'InvalidRequest'],
    ['-3\r\nabc\r\n0\r\n\r\n', 'InvalidRequest'],
    ['\r\n', 'InvalidRequest'],
    ['fffffffffffff\r\n', 'InvalidRequest'],
    [`3;${'x'.repeat(5000)}\r\n`, 'InvalidRequest'],
    ['0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n', 'MalformedTrailerError']
  ])('%j fails with %s', async (wire, code) => {
    expect(await failure(decode(wire))).toBe(code)
  })

  test.each([
    ['what was announced is missing', ''],
    ['what was not announced is there', 'x-amz-checksum-crc32:AAAAAA==\r\nx-other:1\r\n'],
    ['the same one twice', 'x-amz-checksum-crc32:AAAAAA==\r\nx-amz-checksum-crc32:AAAAAA==\r\n'],
    ['no name', ':AAAAAA==\r\n'],
    ['no colon', 'x-amz-checksum-crc32\r\n'],
    ['too long', `x-amz-checksum-crc32:${'A'.repeat(20_000)}\r\n`]
  ])('trailers: %s', async (_name, section) => {
    const options = { trailers: ['x-amz-checksum-crc32'] }
    expect(await failure(decode(`0\r\n${section}\r\n`, options, 1000))).toBe('MalformedTrailerError')
  })

  test('a consumer that leaves early lets go of the source', async () => {
    let isReleased = false
    const source = async function* (): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.from('3\r\nabc\r\n')
      } finally {
        isReleased = true
      }
    }
    for await (const _data of decodeChunked(source(), {})) break
    expect(isReleased).toBe(true)
  })
})

test('data is handed on without copying', async () => {
  const wire = encodeChunked({ data: [Buffer.alloc(5000, 1)] })
  for await (const part of decodeChunked(pieces(wire, wire.length), {})) expect(part.buffer).toBe(wire.buffer)
})
