import fc from 'fast-check'
import { expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { authenticate, type Credentials } from '../../src/gateway/authenticate.ts'
import { decodeChunked } from '../../src/gateway/chunked.ts'
import { parseRange } from '../../src/gateway/conditions.ts'
import { S3Error } from '../../src/gateway/errors.ts'
import { decodeToken, encodeToken } from '../../src/gateway/paging.ts'
import { bucketOfHost, decode, parseTarget } from '../../src/gateway/request.ts'
import { route } from '../../src/gateway/router.ts'
import { uriEncode } from '../../src/gateway/signature.ts'
import { childText, element, parseXml, s3Document } from '../../src/gateway/xml.ts'
import { encodeChunked } from '../support/s3-gateway.ts'

/** Runs what strangers' bytes are fed to; nothing but a declared refusal may come out of it. */
async function declared<T>(work: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof S3Error) {
      expect(error.status).toBeLessThan(500)
      return undefined
    }
    if (error instanceof HoldfastError && error.code === 'INCOMPLETE_BODY') return undefined
    throw error
  }
}

const unicode = fc.string({ unit: 'binary' })
const soup = (...tokens: string[]): fc.Arbitrary<string> =>
  fc
    .array(fc.oneof(fc.constantFrom(...tokens), fc.string({ maxLength: 4 })), { maxLength: 20 })
    .map((parts) => parts.join(''))

async function* split(wire: Uint8Array, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0
  for (const cut of [...cuts.map((cut) => cut % (wire.length + 1)).sort((a, b) => a - b), wire.length]) {
    yield wire.subarray(at, cut)
    at = cut
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of source) parts.push(part)
  return Buffer.concat(parts)
}

const chunks = fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 6 })
const cuts = fc.array(fc.nat(), { maxLength: 12 })

test('aws-chunked data comes out as it went in, however it is cut', async () => {
  await fc.assert(
    fc.asyncProperty(chunks, cuts, fc.boolean(), async (data, at, hasTrailer) => {
      const trailers: Array<[string, string]> | undefined = hasTrailer
        ? [['x-amz-checksum-crc32', 'AAAAAA==']]
        : undefined
      const wire = encodeChunked({ data, ...(trailers !== undefined && { trailers }) })
      const seen: Array<string | undefined> = []
      const options = {
        ...(hasTrailer && { trailers: ['x-amz-checksum-crc32'] }),
        onTrailers: (all: ReadonlyMap<string, string>) => void seen.push(all.get('x-amz-checksum-crc32'))
      }
      expect(await collect(decodeChunked(split(wire, at), options))).toEqual(Buffer.concat(data))
      expect(seen).toEqual(hasTrailer ? ['AAAAAA=='] : [])
    })
  )
})

const signed = {
  signature: 'a'.repeat(64),
  amzDate: '20240101T000000Z',
  scope: { date: '20240101', region: 'r', service: 's3' },
  signingKey: Buffer.from('key')
}
const signing = {
  key: signed.signingKey,
  amzDate: signed.amzDate,
  scope: signed.scope,
  seedSignature: signed.signature
}

test('no changed byte of a signed body goes unnoticed', async () => {
  await fc.assert(
    fc.asyncProperty(chunks, cuts, fc.nat(), fc.integer({ min: 1, max: 255 }), async (data, at, where, change) => {
      const wire = encodeChunked({ data, signed })
      // The blank line at the very end closes a message that is complete by then.
      wire[where % (wire.length - 2)]! ^= change
      const read = await declared(() => collect(decodeChunked(split(wire, at), { signing })))
      // The size may be written with other letters; then the data is the same.
      if (read !== undefined) expect(read).toEqual(Buffer.concat(data))
    })
  )
})

test('bytes that are no aws-chunked body are refused, not misread', async () => {
  const wire = soup('3\r\nabc\r\n', '0\r\n', '\r\n', ';chunk-signature=', 'f', 'x-amz-checksum-crc32:AAAAAA==\r\n')
  await fc.assert(
    fc.asyncProperty(
      wire,
      cuts,
      async (text, at) => void (await declared(() => collect(decodeChunked(split(Buffer.from(text), at), {}))))
    )
  )
})

test('what is encoded decodes to itself', () => {
  fc.assert(
    fc.property(unicode, (text) => {
      fc.pre(text.isWellFormed())
      expect(decode(uriEncode(text))).toBe(text)
      expect(decode(uriEncode(text, true))).toBe(text)
      expect(decodeToken(encodeToken(text))).toBe(text)
      expect(parseTarget(`/bucket/${uriEncode(text, true)}`, undefined, []).key).toBe(text)
    })
  )
})

test('targets and hosts', async () => {
  const target = soup('/', '?', '%', '%41', '&', '=', '+', '..', '\u00ff', 'bucket', 'uploadId', 'acl')
  const host = soup('.', 'localhost', ':', '80', '[', ']', '127.0.0.1')
  await fc.assert(
    fc.asyncProperty(
      target,
      host,
      fc.constantFrom('GET', 'PUT', 'POST', 'HEAD', 'DELETE', 'BREW'),
      async (text, name, method) => {
        bucketOfHost(name, ['localhost'])
        await declared(() => route(method, parseTarget(text, name, ['localhost']), new Map()))
        await declared(() => decodeToken(text))
      }
    )
  )
})

test('XML', async () => {
  const source = soup(
    '<Delete>',
    '</Delete>',
    '<Object>',
    '</Object>',
    '<a/>',
    '<!--',
    '-->',
    '<![CDATA[',
    ']]>',
    '&amp;',
    '&#x1;',
    '&',
    '<?xml version="1.0"?>',
    '<!DOCTYPE a>',
    ' b="c"',
    '__proto__',
    'constructor'
  )
  await fc.assert(fc.asyncProperty(source, async (text) => void (await declared(() => parseXml(text, 'Delete')))))
})

test('text survives being written and read', () => {
  fc.assert(
    fc.property(unicode, (text) => {
      fc.pre(text.isWellFormed())
      expect(childText(parseXml(s3Document('A', [element('B', text)]), 'A'), 'B')).toBe(text)
    })
  )
})

test('ranges', async () => {
  await fc.assert(
    fc.asyncProperty(soup('bytes=', '-', ',', '0', '9', ' '), fc.nat(), async (header, size) => {
      const range = await declared(() => ({ range: parseRange(header, size) }))
      if (range?.range === undefined) return
      const { start, end } = range.range
      expect(start >= 0 && start < end && end <= size).toBe(true)
    })
  )
})

test('no garbled authorization gets in', async () => {
  const credentials: Credentials = { lookup: async () => ({ secretAccessKey: 'secret', owner: 'o', displayName: 'o' }) }
  const now = Date.parse('2024-01-01T00:00:00Z')
  const tokens = [
    'AWS4-HMAC-SHA256',
    ' ',
    'Credential=',
    'AK/20240101/us-east-1/s3/aws4_request',
    ',',
    'SignedHeaders=',
    'host',
    ';',
    'Signature=',
    'a'.repeat(64),
    'AWS ',
    'Bearer '
  ]
  const parameters = fc.array(
    fc.tuple(
      fc.constantFrom(
        'X-Amz-Algorithm',
        'X-Amz-Credential',
        'X-Amz-Date',
        'X-Amz-Expires',
        'X-Amz-SignedHeaders',
        'X-Amz-Signature',
        'Signature',
        'AWSAccessKeyId'
      ),
      fc.oneof(soup(...tokens), fc.constantFrom('20240101T000000Z', '60', '-1', 'x'))
    ),
    { maxLength: 8 }
  )
  await fc.assert(
    fc.asyncProperty(fc.option(soup(...tokens), { nil: undefined }), parameters, async (authorization, pairs) => {
      const query = pairs.map(([name, value]) => `${name}=${uriEncode(value)}`).join('&')
      const headers = new Map([
        ['host', 'h'],
        ['x-amz-date', '20240101T000000Z'],
        ['x-amz-content-sha256', 'UNSIGNED-PAYLOAD']
      ])
      if (authorization !== undefined) headers.set('authorization', authorization)
      const target = parseTarget(`/b/k?${query}`, 'h', [])
      const identity = await declared(() =>
        authenticate({ method: 'GET', ...target, headers }, credentials, 'us-east-1', now)
      )
      expect(identity?.account).toBeUndefined()
    })
  )
})
