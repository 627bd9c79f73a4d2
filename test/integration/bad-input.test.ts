/** What clients get wrong, against a real gateway on real providers: each has S3's own error, and nothing is lost by it. */
import { createHash } from 'node:crypto'
import {
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand
} from '@aws-sdk/client-s3'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { hourMs, KiB, MiB, minuteMs } from '../../src/base/limits.ts'
import { bytesOf } from '../support/bytes.ts'
import { freePort, ProcessNetwork, waitFor } from '../support/processes.ts'
import {
  encodeChunked,
  headText,
  presign,
  RawConnection,
  type RawReply,
  type RawRequest,
  send,
  signHeaders
} from '../support/s3-gateway.ts'

const bucket = 'bad-input'
const kept = { key: 'kept', bytes: bytesOf('kept', 100 * KiB) }
/** Of each provider: small enough to be filled. */
const capacityBytes = 24 * MiB
const timeout = 60_000

let network: ProcessNetwork
let s3: S3Client
let port: number
let key: { accessKeyId: string; secretAccessKey: string }

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 4, capacity: String(capacityBytes) })
  s3 = network.gateway.s3()
  port = Number(new URL(network.gateway.endpoint).port)
  key = network.gateway.credentials
  await s3.send(new CreateBucketCommand({ Bucket: bucket }))
  await s3.send(new PutObjectCommand({ Bucket: bucket, Key: kept.key, Body: kept.bytes }))
}, 180_000)

afterAll(() => network?.stop(), 60_000)

async function read(name: string): Promise<Buffer> {
  const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: name }))
  return Buffer.from(await Body!.transformToByteArray())
}

// Nothing is lost by anything that is sent here, and nothing is added.
afterEach(async () => {
  expect((await read(kept.key)).equals(kept.bytes), 'what was there is there').toBe(true)
})

const put = (name: string, body: Uint8Array | string, more: Partial<RawRequest> = {}): RawRequest => ({
  method: 'PUT',
  target: `/${bucket}/${name}`,
  body,
  key,
  ...more
})

const get = (name: string, more: Partial<RawRequest> = {}): RawRequest => ({
  method: 'GET',
  target: `/${bucket}/${name}`,
  key,
  ...more
})

function expectError(reply: RawReply, status: number, code: string): void {
  expect(`${reply.status} ${reply.code}`, reply.text).toBe(`${status} ${code}`)
  expect(reply.headers['content-type']).toBe('application/xml')
  expect(reply.text).toContain('<RequestId>')
}

const digest = (algorithm: string, text: string): string => createHash(algorithm).update(text).digest('base64')

describe('who asks', () => {
  test('a key that nobody has', { timeout }, async () => {
    const stranger = { accessKeyId: 'HFNOSUCHKEY000000000', secretAccessKey: 'x' }
    expectError(await send(port, get(kept.key, { key: stranger })), 403, 'InvalidAccessKeyId')
    expectError(await send(port, put(kept.key, 'x', { key: stranger })), 403, 'InvalidAccessKeyId')
  })

  test('a signature made with another secret', { timeout }, async () => {
    const forged = { ...key, secretAccessKey: 'guessed' }
    expectError(await send(port, get(kept.key, { key: forged })), 403, 'SignatureDoesNotMatch')
    expectError(await send(port, put(kept.key, 'x', { key: forged })), 403, 'SignatureDoesNotMatch')
    expectError(await send(port, { ...get(kept.key), method: 'DELETE', key: forged }), 403, 'SignatureDoesNotMatch')
  })

  test('a signature of another request', { timeout }, async () => {
    const { headers } = signHeaders(port, get('other'))
    expectError(await send(port, { ...get(kept.key), key: undefined, headers }), 403, 'SignatureDoesNotMatch')
  })

  test('no signature at all', { timeout }, async () => {
    expectError(await send(port, get(kept.key, { key: undefined })), 403, 'AccessDenied')
    expectError(await send(port, put(kept.key, 'x', { key: undefined })), 403, 'AccessDenied')
  })

  test('a presigned request that has expired', { timeout }, async () => {
    const timeMs = Date.now() - hourMs
    const target = presign(port, 'GET', `/${bucket}/${kept.key}`, key, { expires: '60', timeMs })
    const reply = await send(port, { method: 'GET', target })
    expectError(reply, 403, 'AccessDenied')
    expect(reply.text).toContain('Request has expired')
    const stillGood = presign(port, 'GET', `/${bucket}/${kept.key}`, key, { expires: '7200', timeMs })
    expect((await send(port, { method: 'GET', target: stillGood })).body.equals(kept.bytes)).toBe(true)
  })

  test('a clock that is off by more than a quarter of an hour', { timeout }, async () => {
    for (const off of [-16 * minuteMs, 16 * minuteMs]) {
      const reply = await send(port, get(kept.key, { timeMs: Date.now() + off }))
      expectError(reply, 403, 'RequestTimeTooSkewed')
    }
  })
})

describe('what is sent', () => {
  const sizeBytes = 3 * MiB

  test('a body that ends before its length', { timeout }, async () => {
    const body = bytesOf('cut', sizeBytes)
    const { headers } = signHeaders(port, put(kept.key, body))
    const connection = new RawConnection(port)
    connection.write(
      headText('PUT', `/${bucket}/${kept.key}`, {
        ...headers,
        'content-length': String(sizeBytes),
        connection: 'close'
      })
    )
    connection.write(body.subarray(0, sizeBytes - 1000))
    connection.socket.end()
    expect(await connection.closed()).toMatch(/^(HTTP\/1\.1 400 [\s\S]*<Code>IncompleteBody<\/Code>[\s\S]*)?$/)
  })

  test('a body in chunks that are fewer than announced', { timeout }, async () => {
    const content = Buffer.from('less than it says')
    const request = put(kept.key, '', {
      payloadHash: 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
      headers: { 'content-encoding': 'aws-chunked', 'x-amz-decoded-content-length': String(content.length + 1) }
    })
    const signed = signHeaders(port, request)
    const body = encodeChunked({ data: [content], signed })
    const reply = await send(port, { ...request, key: undefined, headers: signed.headers, body })
    expectError(reply, 400, 'IncompleteBody')
  })

  test('a body that is not what was signed', { timeout }, async () => {
    const { headers } = signHeaders(port, put(kept.key, 'as signed'))
    const reply = await send(port, put(kept.key, 'as  sent', { key: undefined, headers }))
    expectError(reply, 400, 'XAmzContentSHA256Mismatch')
  })

  test('a Content-MD5 that is wrong, and one that is none', { timeout }, async () => {
    const wrong = { 'content-md5': digest('md5', 'something else') }
    expectError(await send(port, put(kept.key, 'body', { headers: wrong })), 400, 'BadDigest')
    expectError(await send(port, put(kept.key, 'body', { headers: { 'content-md5': 'none' } })), 400, 'InvalidDigest')
  })

  test.each(['sha1', 'sha256'])('an x-amz-checksum-%s that is wrong', { timeout }, async (algorithm) => {
    const headers = { [`x-amz-checksum-${algorithm}`]: digest(algorithm, 'something else') }
    expectError(await send(port, put(kept.key, 'body', { headers })), 400, 'BadDigest')
  })

  test.each([
    ['crc32', 'AAAAAA=='],
    ['crc32c', 'AAAAAA=='],
    ['crc64nvme', 'AAAAAAAAAAA=']
  ])('an x-amz-checksum-%s that is wrong', { timeout }, async (algorithm, value) => {
    const headers = { [`x-amz-checksum-${algorithm}`]: value }
    expectError(await send(port, put(kept.key, 'body', { headers })), 400, 'BadDigest')
  })

  test('a key that is too long', { timeout }, async () => {
    expectError(await send(port, put('k'.repeat(1025), 'body')), 400, 'KeyTooLongError')
    const longest = 'ä'.repeat(512)
    await s3.send(new PutObjectCommand({ Bucket: bucket, Key: longest, Body: 'body' }))
    expect((await read(longest)).toString()).toBe('body')
  })

  test('XML that is none, and XML of something else', { timeout }, async () => {
    for (const body of [
      '<Delete><Object>',
      'no XML',
      '<Other/>',
      '<Delete/>',
      '<!DOCTYPE x [<!ENTITY a "b">]><Delete>&a;</Delete>'
    ]) {
      const headers = { 'content-md5': digest('md5', body) }
      const reply = await send(port, { method: 'POST', target: `/${bucket}?delete`, body, key, headers })
      expectError(reply, 400, 'MalformedXML')
    }
  })
})

describe('an upload in parts', () => {
  const name = 'parts'
  let UploadId: string
  const etags: string[] = []

  beforeAll(async () => {
    ;({ UploadId: UploadId = '' } = await s3.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key: name })))
    for (const [i, sizeBytes] of [5 * MiB, 1000, 10].entries()) {
      const part = { Bucket: bucket, Key: name, UploadId, PartNumber: i + 1, Body: bytesOf(`part ${i}`, sizeBytes) }
      etags.push((await s3.send(new UploadPartCommand(part))).ETag!)
    }
  }, timeout)

  const complete = (...parts: number[]): Promise<unknown> =>
    s3.send(
      new CompleteMultipartUploadCommand({
        Bucket: bucket,
        Key: name,
        UploadId,
        MultipartUpload: { Parts: parts.map((PartNumber) => ({ PartNumber, ETag: etags[PartNumber - 1] ?? '"0"' })) }
      })
    )

  test('with a part too small that is not the last', { timeout }, async () => {
    await expect(complete(1, 2, 3)).rejects.toMatchObject({ name: 'EntityTooSmall' })
  })

  test('with its parts out of order', { timeout }, async () => {
    await expect(complete(2, 1)).rejects.toMatchObject({ name: 'InvalidPartOrder' })
  })

  test('with a part that was not uploaded', { timeout }, async () => {
    await expect(complete(1, 4)).rejects.toMatchObject({ name: 'InvalidPart' })
  })

  test('under an id that nobody gave out', { timeout }, async () => {
    const unknown = { Bucket: bucket, Key: name, UploadId: 'f'.repeat(48) }
    const error = { name: 'NoSuchUpload', $metadata: { httpStatusCode: 404 } }
    await expect(s3.send(new UploadPartCommand({ ...unknown, PartNumber: 1, Body: 'x' }))).rejects.toMatchObject(error)
    await expect(s3.send(new ListPartsCommand(unknown))).rejects.toMatchObject(error)
    const parts = { MultipartUpload: { Parts: [{ PartNumber: 1, ETag: '"0"' }] } }
    await expect(s3.send(new CompleteMultipartUploadCommand({ ...unknown, ...parts }))).rejects.toMatchObject(error)
  })

  test('is all there after that, and can be completed well', { timeout }, async () => {
    await complete(1, 2)
    const expected = Buffer.concat([bytesOf('part 0', 5 * MiB), bytesOf('part 1', 1000)])
    expect((await read(name)).equals(expected)).toBe(true)
    await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key: name }))
  })
})

test('a range that the object does not reach', { timeout }, async () => {
  const from = kept.bytes.length
  const reply = await send(port, get(kept.key, { headers: { range: `bytes=${from}-${from + 9}` } }))
  expectError(reply, 416, 'InvalidRange')
  expect(reply.headers['content-range']).toBe(`bytes */${from}`)
})

describe('too few providers', () => {
  test('for a code that was asked for: no weaker one is taken instead', { timeout }, async () => {
    const { handle, process } = await network.startGateway('wide', await freePort(), { code: '6+6', isReady: false })
    const wide = handle.s3()
    await wide.send(new CreateBucketCommand({ Bucket: 'wide' }))
    await expect(wide.send(new PutObjectCommand({ Bucket: 'wide', Key: 'k', Body: 'x' }))).rejects.toMatchObject({
      name: 'ServiceUnavailable',
      message: expect.stringMatching(/6\+6 write needs 9 independent providers .* 4 are online/),
      $metadata: { httpStatusCode: 503 }
    })
    await expect(wide.send(new HeadObjectCommand({ Bucket: 'wide', Key: 'k' }))).rejects.toMatchObject({
      $metadata: { httpStatusCode: 404 }
    })
    expect((await handle.status()).ready).toBe(false)
    await process.end('SIGTERM')
  })
})

describe('disks that fill up', () => {
  test('writes fail as S3 says, reads go on, and room that is made is used', { timeout: 2 * timeout }, async () => {
    const sizeBytes = 4 * MiB
    const written: string[] = []
    const tryPut = async (name: string, bytes: number): Promise<string> => {
      try {
        await s3.send(new PutObjectCommand({ Bucket: bucket, Key: name, Body: bytesOf(name, bytes) }))
        written.push(name)
        return 'written'
      } catch (error) {
        const { name: code, $metadata } = error as { name: string; $metadata: { httpStatusCode: number } }
        return `${$metadata.httpStatusCode} ${code}`
      }
    }
    let last = ''
    for (let i = 0; i < 40 && last !== '503 ServiceUnavailable'; i++) last = await tryPut(`full-${i}`, sizeBytes)
    expect(last).toBe('503 ServiceUnavailable')
    expect(written.length).toBeGreaterThan(2)

    // Nothing of what failed, all of what did not, and a small one still finds room.
    const listed = await s3.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: 'full-' }))
    expect(listed.Contents?.map(({ Key }) => Key).sort()).toEqual([...written].sort())
    for (const name of written) expect((await read(name)).equals(bytesOf(name, sizeBytes)), name).toBe(true)
    await waitFor('a small object finds room', async () => (await tryPut('small', 1000)) === 'written')
    expect((await read('small')).equals(bytesOf('small', 1000))).toBe(true)

    for (const name of written.slice(0, 2)) await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key: name }))
    await waitFor('room that was made is used', async () => (await tryPut('again', sizeBytes)) === 'written')
    expect((await read('again')).equals(bytesOf('again', sizeBytes))).toBe(true)
  })
})
