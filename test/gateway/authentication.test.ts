import { CreateBucketCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { canonicalRequest, emptySha256, scopeText, sign, stringToSign } from '../../src/gateway/signature.ts'
import {
  alice,
  bob,
  encodeChunked,
  presign,
  type RawReply,
  type RawRequest,
  send,
  signHeaders,
  startGateway,
  type TestGateway
} from '../support/s3-gateway.ts'

const now = Date.parse('2024-05-24T12:00:00Z')
let gateway: TestGateway

beforeAll(async () => {
  gateway = await startGateway({ clock: { now: () => now, sleep: async () => {} } })
  await gateway.store.createBucket('bucket', { owner: 'alice', displayName: 'Alice' })
})
afterAll(async () => await gateway.close())

const minutes = (count: number): number => now + count * 60_000
const signed = (more: Partial<RawRequest> = {}): RawRequest => ({
  method: 'GET',
  target: '/bucket',
  key: alice,
  timeMs: now,
  ...more
})
/** Sends what was signed, with headers changed afterwards. */
const tampered = (
  request: RawRequest,
  change: Record<string, string | undefined>,
  target = request.target
): Promise<RawReply> => {
  const headers: Record<string, string> = signHeaders(gateway.port, request).headers
  for (const [name, value] of Object.entries(change)) {
    if (value === undefined) delete headers[name]
    else headers[name] = value
  }
  return send(gateway.port, {
    method: request.method,
    target,
    headers,
    ...(request.body !== undefined && { body: request.body })
  })
}

describe('signed by header', () => {
  test('up to a quarter of an hour off', async () => {
    for (const offset of [-15, 0, 15])
      expect((await send(gateway.port, signed({ timeMs: minutes(offset) }))).status).toBe(200)
    for (const offset of [-16, 16]) {
      const reply = await send(gateway.port, signed({ timeMs: minutes(offset) }))
      expect(reply).toMatchObject({ status: 403, code: 'RequestTimeTooSkewed' })
      expect(reply.text).toContain('<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>')
    }
  })

  test('a Date header serves as well as x-amz-date, and one of them must be there', async () => {
    const { amzDate, ...rest } = signHeaders(gateway.port, signed())
    expect(amzDate).toBe('20240524T120000Z')
    const date = new Date(now).toUTCString()
    const host = rest.headers.host!
    const headers: Record<string, string> = { host, date, 'x-amz-content-sha256': emptySha256 }
    const signedHeaders = Object.keys(headers).sort()
    const canonical = canonicalRequest({
      method: 'GET',
      path: '/bucket',
      query: [],
      headers: new Map(Object.entries(headers)),
      signedHeaders,
      payloadHash: emptySha256
    })
    const signature = sign(rest.signingKey, stringToSign(amzDate, rest.scope, canonical))
    headers.authorization = `AWS4-HMAC-SHA256 Credential=${alice.accessKeyId}/${scopeText(rest.scope)}, SignedHeaders=${signedHeaders.join(';')}, Signature=${signature}`
    expect((await send(gateway.port, { method: 'GET', target: '/bucket', headers })).status).toBe(200)
    expect(await tampered(signed(), { 'x-amz-date': undefined })).toMatchObject({ status: 403, code: 'AccessDenied' })
    expect(await tampered(signed(), { 'x-amz-date': 'today' })).toMatchObject({ status: 403, code: 'AccessDenied' })
  })

  test('wrong secrets and unknown keys', async () => {
    const wrong = await send(gateway.port, signed({ key: { ...alice, secretAccessKey: 'guess' } }))
    expect(wrong).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' })
    expect(wrong.text).toContain('<StringToSign>AWS4-HMAC-SHA256\n20240524T120000Z\n')
    expect(wrong.text).not.toContain(alice.secretAccessKey)
    const unknown = await send(gateway.port, signed({ key: { accessKeyId: 'NOBODY', secretAccessKey: 'x' } }))
    expect(unknown).toMatchObject({ status: 403, code: 'InvalidAccessKeyId' })
  })

  test('everything that was signed is held to', async () => {
    const request = signed({ method: 'PUT', target: '/bucket/k?a=1', body: 'hello', headers: { 'x-amz-meta-a': '1' } })
    const code = async (reply: Promise<RawReply>): Promise<string | undefined> => (await reply).code
    expect(await code(tampered(request, { 'x-amz-meta-a': '2' }))).toBe('SignatureDoesNotMatch')
    expect(await code(tampered(request, { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' }))).toBe('SignatureDoesNotMatch')
    expect(await code(tampered(request, { host: 'elsewhere' }))).toBe('SignatureDoesNotMatch')
    expect(await code(tampered(request, {}, '/bucket/other?a=1'))).toBe('SignatureDoesNotMatch')
    expect(await code(tampered(request, {}, '/bucket/k?a=2'))).toBe('SignatureDoesNotMatch')
    const added = await tampered(request, { 'x-amz-acl': 'private' })
    expect(added).toMatchObject({ status: 403, code: 'AccessDenied' })
    expect(added.text).toContain('<HeadersNotSigned>x-amz-acl</HeadersNotSigned>')
    expect((await tampered(request, {})).status).toBe(200)
  })

  test('the region and the service of this endpoint', async () => {
    const reply = await send(gateway.port, signed({ region: 'eu-west-1' }))
    expect(reply).toMatchObject({ status: 400, code: 'AuthorizationHeaderMalformed' })
    expect(reply.text).toContain('<Region>us-east-1</Region>')
    const { headers } = signHeaders(gateway.port, signed())
    const service = await tampered(signed(), { authorization: headers.authorization!.replace('/s3/', '/ec2/') })
    expect(service).toMatchObject({ status: 400, code: 'AuthorizationHeaderMalformed' })
  })

  test.each([
    ['AWS4-HMAC-SHA256 nonsense', 400, 'AuthorizationHeaderMalformed'],
    ['AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c', 400, 'AuthorizationHeaderMalformed'],
    [
      'AWS4-HMAC-SHA256 Credential=AK/20240524/us-east-1/s3/aws4_request, Signature=c',
      400,
      'AuthorizationHeaderMalformed'
    ],
    [
      'AWS4-HMAC-SHA256 Credential=AK/20240523/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=c',
      400,
      'AuthorizationHeaderMalformed'
    ],
    [
      'AWS4-HMAC-SHA256 Credential=AK/20240524/us-east-1/s3/aws4_request, SignedHeaders=x-amz-date, Signature=c',
      400,
      'MissingSecurityHeader'
    ],
    ['AWS AK:signature', 400, 'InvalidRequest'],
    ['AWS4-ECDSA-P256-SHA256 Credential=x', 400, 'InvalidRequest'],
    ['Basic dXNlcjpwYXNz', 400, 'InvalidArgument']
  ])('Authorization: %s', async (authorization, status, code) => {
    expect(await tampered(signed(), { authorization })).toMatchObject({ status, code })
  })

  test('what else must be there, and must not', async () => {
    expect(await tampered(signed(), { 'x-amz-content-sha256': undefined })).toMatchObject({
      status: 400,
      code: 'InvalidRequest'
    })
    expect(await send(gateway.port, signed({ payloadHash: 'nonsense' }))).toMatchObject({
      status: 400,
      code: 'InvalidArgument'
    })
    expect(await send(gateway.port, signed({ headers: { 'x-amz-security-token': 't' } }))).toMatchObject({
      status: 400,
      code: 'InvalidToken'
    })
  })
})

describe('presigned', () => {
  const fetchTarget = (target: string, headers: Record<string, string> = {}): Promise<RawReply> =>
    send(gateway.port, { method: 'GET', target, headers })
  const url = (options: { expires?: string; timeMs?: number } = {}): string =>
    presign(gateway.port, 'GET', '/bucket?prefix=a%20b', alice, { timeMs: now, ...options })

  test('until it expires', async () => {
    expect((await fetchTarget(url())).status).toBe(200)
    expect((await fetchTarget(url({ expires: '604800' }))).status).toBe(200)
    expect((await fetchTarget(url({ timeMs: minutes(-30), expires: '1801' }))).status).toBe(200)
    const late = await fetchTarget(url({ timeMs: minutes(-30), expires: '1800' }))
    expect(late).toMatchObject({ status: 403, code: 'AccessDenied' })
    expect(late.text).toContain('<Message>Request has expired</Message>')
    expect(late.text).toContain('<Expires>2024-05-24T12:00:00Z</Expires>')
    expect(await fetchTarget(url({ expires: '0' }))).toMatchObject({ status: 403, code: 'AccessDenied' })
    expect(await fetchTarget(url({ timeMs: minutes(16) }))).toMatchObject({ status: 403, code: 'AccessDenied' })
  })

  test.each([
    ['604801', 403, 'AccessDenied'],
    ['-1', 400, 'AuthorizationQueryParametersError'],
    ['soon', 400, 'AuthorizationQueryParametersError'],
    ['', 400, 'AuthorizationQueryParametersError']
  ])('X-Amz-Expires=%s', async (expires, status, code) => {
    expect(await fetchTarget(url({ expires }))).toMatchObject({ status, code })
  })

  test('changed afterwards', async () => {
    expect((await fetchTarget(url().replace('a%20b', 'a%20c'))).code).toBe('SignatureDoesNotMatch')
    expect((await fetchTarget(`${url()}&max-keys=1`)).code).toBe('SignatureDoesNotMatch')
    expect((await fetchTarget(url().replace('us-east-1', 'us-west-1'))).code).toBe('AuthorizationQueryParametersError')
    expect((await fetchTarget(url().replace('AWS4-HMAC-SHA256', 'AWS4-X'))).code).toBe(
      'AuthorizationQueryParametersError'
    )
    expect((await fetchTarget(url().replace(/&X-Amz-Date=\w+/, ''))).code).toBe('AuthorizationQueryParametersError')
    expect((await fetchTarget(url(), { 'x-amz-acl': 'private' })).code).toBe('AccessDenied')
  })

  test('one way of signing at a time, and none of the old ones', async () => {
    const { headers } = signHeaders(gateway.port, signed())
    expect((await fetchTarget(url(), { authorization: headers.authorization! })).code).toBe('InvalidArgument')
    expect((await fetchTarget('/bucket?AWSAccessKeyId=a&Signature=b&Expires=1')).code).toBe('InvalidRequest')
  })
})

describe('bodies in chunks', () => {
  const data = [Buffer.alloc(9000, 'a'), Buffer.alloc(8192, 'b'), Buffer.from('c')]
  const whole = Buffer.concat(data)

  const begin = (payloadHash: string, headers: Record<string, string> = {}, target = '/bucket/chunked') => {
    const request = signed({
      method: 'PUT',
      target,
      payloadHash,
      headers: { 'content-encoding': 'aws-chunked', 'x-amz-decoded-content-length': String(whole.length), ...headers }
    })
    const head = signHeaders(gateway.port, request)
    return {
      head,
      finish: (body: Uint8Array): Promise<RawReply> =>
        send(gateway.port, { method: 'PUT', target, headers: head.headers, body })
    }
  }
  const stored = async (): Promise<Buffer> => (await send(gateway.port, signed({ target: '/bucket/chunked' }))).body

  test('every signature holds', async () => {
    const { head, finish } = begin('STREAMING-AWS4-HMAC-SHA256-PAYLOAD')
    expect((await finish(encodeChunked({ data, signed: head }))).status).toBe(200)
    expect((await stored()).equals(whole)).toBe(true)
    const reply = await send(gateway.port, signed({ method: 'HEAD', target: '/bucket/chunked' }))
    expect(reply.headers['content-encoding']).toBeUndefined()
  })

  test('a coding of the content itself stays', async () => {
    const { head, finish } = begin('STREAMING-AWS4-HMAC-SHA256-PAYLOAD', { 'content-encoding': 'aws-chunked, gzip' })
    expect((await finish(encodeChunked({ data, signed: head }))).status).toBe(200)
    const reply = await send(gateway.port, signed({ method: 'HEAD', target: '/bucket/chunked' }))
    expect(reply.headers['content-encoding']).toBe('gzip')
  })

  test('one that does not fails all, and what was there stays', async () => {
    await gateway.store.deleteObject('bucket', 'chunked')
    const { head, finish } = begin('STREAMING-AWS4-HMAC-SHA256-PAYLOAD')
    for (const at of [100, 9000, 12_000]) {
      const wire = encodeChunked({ data, signed: head })
      wire[at]! ^= 1
      expect(await finish(wire)).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' })
    }
    const swapped = encodeChunked({
      data: [data[1]!, data[0]!, data[2]!],
      signed: { ...head, signature: '0'.repeat(64) }
    })
    expect(await finish(swapped)).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' })
    expect(await finish(encodeChunked({ data }))).toMatchObject({ status: 400, code: 'InvalidRequest' })
    expect((await send(gateway.port, signed({ target: '/bucket/chunked' }))).code).toBe('NoSuchKey')
  })

  test('signed trailers', async () => {
    const { head, finish } = begin('STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER', {
      'x-amz-trailer': 'x-amz-checksum-crc32'
    })
    const encode = (value: string): Buffer =>
      encodeChunked({ data, signed: head, trailers: [['x-amz-checksum-crc32', value]] })
    const wrong = await finish(encode('AAAAAA=='))
    expect(wrong).toMatchObject({ status: 400, code: 'BadDigest' })
    const right = await finish(encode(crc32Of(whole)))
    expect([right.status, right.headers['x-amz-checksum-crc32']]).toEqual([200, crc32Of(whole)])
    const forged = Buffer.from(
      encode(crc32Of(whole))
        .toString('latin1')
        .replace(/(x-amz-trailer-signature:).{4}/, '$10000'),
      'latin1'
    )
    expect(await finish(forged)).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' })
  })

  test('trailers without signatures', async () => {
    const { finish } = begin('STREAMING-UNSIGNED-PAYLOAD-TRAILER', {
      'x-amz-trailer': 'x-amz-checksum-crc32',
      'x-amz-sdk-checksum-algorithm': 'CRC32'
    })
    const encode = (trailers: Array<[string, string]>): Buffer => encodeChunked({ data, trailers })
    expect((await finish(encode([['x-amz-checksum-crc32', crc32Of(whole)]]))).status).toBe(200)
    expect(await finish(encode([['x-amz-checksum-crc32', 'AAAAAA==']]))).toMatchObject({
      status: 400,
      code: 'BadDigest'
    })
    expect(await finish(encode([['x-amz-checksum-crc32', 'bad']]))).toMatchObject({
      status: 400,
      code: 'InvalidRequest'
    })
    expect(await finish(encode([]))).toMatchObject({ status: 400, code: 'MalformedTrailerError' })
    expect(await finish(encode([['x-amz-checksum-sha1', 'AAAA']]))).toMatchObject({
      status: 400,
      code: 'MalformedTrailerError'
    })
  })

  test('the length that was declared', async () => {
    for (const declared of [whole.length - 1, whole.length + 1]) {
      const { head, finish } = begin('STREAMING-AWS4-HMAC-SHA256-PAYLOAD', {
        'x-amz-decoded-content-length': String(declared)
      })
      expect(await finish(encodeChunked({ data, signed: head }))).toMatchObject({ status: 400, code: 'IncompleteBody' })
    }
    const { finish } = begin('STREAMING-UNSIGNED-PAYLOAD-TRAILER', { 'x-amz-decoded-content-length': '-1' })
    expect((await finish(encodeChunked({ data }))).code).toBe('InvalidArgument')
    const request = signed({
      method: 'PUT',
      target: '/bucket/chunked',
      payloadHash: 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'
    })
    const { headers } = signHeaders(gateway.port, request)
    expect(
      await send(gateway.port, { method: 'PUT', target: '/bucket/chunked', headers, body: encodeChunked({ data }) })
    ).toMatchObject({
      status: 411,
      code: 'MissingContentLength'
    })
  })
})

function crc32Of(bytes: Uint8Array): string {
  let crc = ~0
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  const out = Buffer.alloc(4)
  out.writeUInt32BE(~crc >>> 0)
  return out.toString('base64')
}

test('each key acts for its own account', async () => {
  const reply = await send(gateway.port, signed({ target: '/', key: bob }))
  expect(reply.text).toContain('<ID>bob</ID>')
  expect((await send(gateway.port, signed({ key: bob }))).code).toBe('AccessDenied')
})

test('the SDK signs as the gateway reads, at the real time', async () => {
  const real = await startGateway()
  try {
    await real.s3.send(new CreateBucketCommand({ Bucket: 'bucket' }))
    expect(await real.store.getBucket('bucket')).toMatchObject({ owner: 'alice' })
  } finally {
    await real.close()
  }
})
