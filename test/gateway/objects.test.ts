import { createHash } from 'node:crypto'
import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectAttributesCommand,
  GetObjectCommand,
  type GetObjectCommandInput,
  GetObjectTaggingCommand,
  HeadObjectCommand,
  PutObjectCommand,
  type PutObjectCommandInput
} from '@aws-sdk/client-s3'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cidOfShard } from '../../src/content/cid.ts'
import { alice, presign, send, startGateway, type TestGateway } from '../support/s3-gateway.ts'

let gateway: TestGateway
beforeAll(async () => {
  gateway = await startGateway()
  await gateway.s3.send(new CreateBucketCommand({ Bucket: 'bucket' }))
  await gateway.s3.send(new CreateBucketCommand({ Bucket: 'open-to-all', ACL: 'public-read' }))
})
afterAll(async () => await gateway.close())

const put = (Key: string, Body: string | Uint8Array, more: Partial<PutObjectCommandInput> = {}) =>
  gateway.s3.send(new PutObjectCommand({ Bucket: 'bucket', Key, Body, ...more }))
const get = (Key: string, more: Partial<GetObjectCommandInput> = {}) =>
  gateway.s3.send(new GetObjectCommand({ Bucket: 'bucket', Key, ...more }))
const raw = (method: string, target: string, headers: Record<string, string> = {}, body?: string) =>
  send(gateway.port, {
    method,
    target: `/bucket/${target}`,
    key: alice,
    headers,
    ...(body !== undefined && { body: Buffer.from(body) })
  })
const refusal = async (work: Promise<unknown>): Promise<string> =>
  await work.then(
    () => 'no refusal',
    (error: Error) => error.name
  )
const md5 = (bytes: string | Uint8Array): Buffer => createHash('md5').update(bytes).digest()

describe('put and get', () => {
  test('bytes, headers and metadata come back, with the root that names them', async () => {
    const bytes = new Uint8Array(300_000).map((_byte, index) => index % 251)
    const cid = cidOfShard(bytes).toString()
    const stored = await raw('PUT', 'everything', {
      'content-type': 'text/x',
      'content-encoding': 'gzip',
      'content-language': 'de',
      'content-disposition': 'attachment',
      'cache-control': 'no-store',
      expires: 'Thu, 01 Jan 2032 00:00:00 GMT',
      'x-amz-meta-colour': 'blue',
      'x-amz-meta-latin': 'gr\u00fcn'
    })
    expect(stored.code).toBeUndefined()
    await put('everything', bytes, {
      ContentType: 'text/x',
      ContentEncoding: 'gzip',
      ContentLanguage: 'de',
      ContentDisposition: 'attachment',
      CacheControl: 'no-store',
      Expires: new Date('2032-01-01T00:00:00Z'),
      Metadata: { colour: 'blue' }
    })
    const reply = await raw('GET', 'everything')
    expect(reply.body.equals(bytes)).toBe(true)
    expect(reply.headers).toMatchObject({
      'content-length': '300000',
      'content-type': 'text/x',
      'content-encoding': 'gzip',
      'content-language': 'de',
      'content-disposition': 'attachment',
      'cache-control': 'no-store',
      expires: 'Thu, 01 Jan 2032 00:00:00 GMT',
      'x-amz-meta-colour': 'blue',
      'accept-ranges': 'bytes',
      etag: `"${md5(bytes).toString('hex')}"`,
      'x-holdfast-cid': cid,
      server: 'Holdfast'
    })
    expect(reply.headers['last-modified']).toMatch(/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/)
    expect(reply.headers['x-amz-request-id']).toMatch(/^[0-9A-F]{16}$/)
    expect(reply.headers['x-amz-id-2']).toBeTruthy()
    const head = await raw('HEAD', 'everything')
    expect(head.body).toHaveLength(0)
    for (const name of ['content-length', 'content-type', 'etag', 'x-holdfast-cid', 'x-amz-meta-colour']) {
      expect(head.headers[name]).toBe(reply.headers[name])
    }
  })

  test('metadata keeps its bytes, whatever they mean', async () => {
    const value = Buffer.from('grün', 'utf8').toString('latin1')
    await raw('PUT', 'latin', { 'x-amz-meta-a': value, 'x-amz-meta-b': 'gr\u00fcn' }, 'x')
    expect((await raw('GET', 'latin')).headers).toMatchObject({ 'x-amz-meta-a': value, 'x-amz-meta-b': 'gr\u00fcn' })
  })

  test('an answer to a PUT carries tag and root', async () => {
    const reply = await raw('PUT', 'small', {}, 'hello')
    expect(reply).toMatchObject({
      status: 200,
      headers: {
        etag: `"${md5('hello').toString('hex')}"`,
        'x-holdfast-cid': cidOfShard(Buffer.from('hello')).toString()
      }
    })
    expect(reply.body).toHaveLength(0)
  })

  test('nothing is something', async () => {
    await raw('PUT', 'empty', { 'content-length': '0' })
    const reply = await raw('GET', 'empty')
    expect([reply.status, reply.headers['content-length'], reply.headers['content-type']]).toEqual([
      200,
      '0',
      'binary/octet-stream'
    ])
  })

  test('any key survives the way through the SDK', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }), async (key) => {
        fc.pre(Buffer.byteLength(key) <= 1024 && !/^\.{1,2}$/.test(key))
        await put(key, key)
        expect(await (await get(key)).Body!.transformToString()).toBe(key)
      }),
      { numRuns: 60 }
    )
  })

  test('keys are not normalised', async () => {
    for (const key of ['a//b', 'a/./b', 'a/../b', '/a', 'a/', '.', '..', 'a%2Fb', 'a+b', 'a b']) {
      const target = encodeURIComponent(key)
      expect((await raw('PUT', target, {}, key)).status).toBe(200)
      expect((await raw('GET', target)).text).toBe(key)
    }
    expect((await raw('GET', 'b')).code).toBe('NoSuchKey')
  })

  test('a key has at most 1,024 bytes', async () => {
    expect((await raw('PUT', encodeURIComponent('ü'.repeat(512)), {}, 'x')).status).toBe(200)
    expect(await raw('PUT', encodeURIComponent('ü'.repeat(513)), {}, 'x')).toMatchObject({
      status: 400,
      code: 'KeyTooLongError'
    })
  })

  test('storage classes', async () => {
    await put('rr', 'x', { StorageClass: 'REDUCED_REDUNDANCY' })
    expect((await raw('HEAD', 'rr')).headers['x-amz-storage-class']).toBe('REDUCED_REDUNDANCY')
    await put('st', 'x', { StorageClass: 'STANDARD' })
    expect((await raw('HEAD', 'st')).headers['x-amz-storage-class']).toBeUndefined()
    expect(await refusal(put('no', 'x', { StorageClass: 'GLACIER' }))).toBe('InvalidStorageClass')
  })

  test.each([
    ['x-amz-acl', 'private', 200],
    ['x-amz-acl', 'bucket-owner-full-control', 200],
    ['x-amz-acl', 'public-read', 501],
    ['x-amz-acl', 'nonsense', 400],
    ['x-amz-grant-read', 'id=bob', 501],
    ['x-amz-tagging', 'a=b', 501],
    ['x-amz-tagging', '', 200],
    ['x-amz-server-side-encryption', 'aws:kms', 501],
    ['x-amz-server-side-encryption-customer-algorithm', 'AES256', 501],
    ['x-amz-object-lock-mode', 'GOVERNANCE', 501],
    ['x-amz-website-redirect-location', '/x', 501]
  ])('%s: %s', async (name, value, status) => {
    expect((await raw('PUT', 'features', { [name]: value }, 'x')).status).toBe(status)
  })

  test('metadata has a limit', async () => {
    expect((await raw('PUT', 'meta', { 'x-amz-meta-a': 'x'.repeat(2047) }, 'x')).status).toBe(200)
    expect(await raw('PUT', 'meta', { 'x-amz-meta-a': 'x'.repeat(2048) }, 'x')).toMatchObject({
      status: 400,
      code: 'MetadataTooLarge'
    })
  })
})

describe('integrity', () => {
  test('Content-MD5', async () => {
    const headers = (value: string) => ({ 'content-md5': value })
    expect((await raw('PUT', 'md5', headers(md5('hello').toString('base64')), 'hello')).status).toBe(200)
    expect(await raw('PUT', 'md5', headers(md5('other').toString('base64')), 'hello!')).toMatchObject({
      status: 400,
      code: 'BadDigest'
    })
    for (const bad of ['', 'x', md5('hello').toString('hex'), 'AAAA']) {
      expect(await raw('PUT', 'md5', headers(bad), 'hello!')).toMatchObject({ status: 400, code: 'InvalidDigest' })
    }
    expect((await raw('GET', 'md5')).text).toBe('hello')
  })

  test.each([
    ['CRC32', 'i9aeUg==', 'NhCmhg=='],
    ['CRC32C', 'yZRlqg==', 'mnG7TA=='],
    ['CRC64NVME', 'jSnVw/bqjr4=', 'M3eFcAZSQlc='],
    ['SHA1', 'Kq5sNclPz7QV2+lfQIuc6R7oRu0=', 'qvTGHdzF6KLavt4PO0gs2a6pQ00='],
    ['SHA256', 'uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=', 'LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=']
  ] as const)('%s by header', async (label, ofHelloWorld, ofHello) => {
    const name = `x-amz-checksum-${label.toLowerCase()}`
    const stored = await raw('PUT', 'sum', { [name]: ofHello }, 'hello')
    expect([stored.status, stored.headers[name], stored.headers['x-amz-checksum-type']]).toEqual([
      200,
      ofHello,
      'FULL_OBJECT'
    ])
    expect(await raw('PUT', 'sum', { [name]: ofHelloWorld }, 'hello')).toMatchObject({ status: 400, code: 'BadDigest' })
    expect(await raw('PUT', 'sum', { [name]: 'bad' }, 'hello')).toMatchObject({ status: 400, code: 'InvalidRequest' })
    expect((await raw('GET', 'sum')).headers[name]).toBeUndefined()
    expect((await raw('GET', 'sum', { 'x-amz-checksum-mode': 'ENABLED' })).headers[name]).toBe(ofHello)
    expect(
      (await raw('GET', 'sum', { 'x-amz-checksum-mode': 'ENABLED', range: 'bytes=0-1' })).headers[name]
    ).toBeUndefined()
    // The SDK verifies what it is given.
    expect(await (await get('sum', { ChecksumMode: 'ENABLED' })).Body!.transformToString()).toBe('hello')
    const attributes = await gateway.s3.send(
      new GetObjectAttributesCommand({ Bucket: 'bucket', Key: 'sum', ObjectAttributes: ['Checksum', 'ObjectSize'] })
    )
    expect(attributes).toMatchObject({
      ObjectSize: 5,
      Checksum: { [`Checksum${label}`]: ofHello, ChecksumType: 'FULL_OBJECT' }
    })
  })

  test('one checksum at most, and the one that was named', async () => {
    const crc32 = { 'x-amz-checksum-crc32': 'NhCmhg==' }
    const wrong: Array<Record<string, string>> = [
      { ...crc32, 'x-amz-checksum-crc32c': 'mnG7TA==' },
      { ...crc32, 'x-amz-sdk-checksum-algorithm': 'SHA256' },
      { ...crc32, 'x-amz-sdk-checksum-algorithm': 'ROT13' },
      { 'x-amz-sdk-checksum-algorithm': 'CRC32' }
    ]
    for (const headers of wrong) {
      expect(await raw('PUT', 'sum2', headers, 'hello')).toMatchObject({ status: 400, code: 'InvalidRequest' })
    }
    expect((await raw('GET', 'sum2')).code).toBe('NoSuchKey')
  })

  test('the signed hash of the body is checked, and nothing is kept that fails it', async () => {
    const request = { method: 'PUT', target: '/bucket/hashed', key: alice, body: 'hello' }
    expect(await send(gateway.port, { ...request, payloadHash: 'ab'.repeat(32) })).toMatchObject({
      status: 400,
      code: 'XAmzContentSHA256Mismatch'
    })
    expect((await raw('GET', 'hashed')).code).toBe('NoSuchKey')
    expect((await send(gateway.port, { ...request, payloadHash: 'UNSIGNED-PAYLOAD' })).status).toBe(200)
  })
})

describe('conditions', () => {
  const etag = md5('v1').toString('hex')

  test('reads', async () => {
    await put('read', 'v1')
    const modified = (await get('read')).LastModified!
    expect((await raw('GET', 'read', { 'if-none-match': `"${etag}"` })).status).toBe(304)
    const unchanged = await raw('HEAD', 'read', { 'if-modified-since': modified.toUTCString() })
    expect([unchanged.status, unchanged.headers.etag]).toEqual([304, `"${etag}"`])
    expect(await raw('GET', 'read', { 'if-match': '"x"' })).toMatchObject({ status: 412, code: 'PreconditionFailed' })
    expect((await raw('GET', 'read', { 'if-unmodified-since': 'Mon, 01 Jan 2001 00:00:00 GMT' })).status).toBe(412)
    expect((await raw('GET', 'read', { 'if-match': `"${etag}"` })).text).toBe('v1')
    expect(gateway.store.openCount).toBe(0)
  })

  test('writes', async () => {
    await put('write', 'v1', { IfNoneMatch: '*' })
    expect(await refusal(put('write', 'v2', { IfNoneMatch: '*' }))).toBe('PreconditionFailed')
    expect(await refusal(put('write', 'v2', { IfMatch: '"x"' }))).toBe('PreconditionFailed')
    await put('write', 'v2', { IfMatch: `"${etag}"` })
    expect(await refusal(put('absent', 'v1', { IfMatch: '"x"' }))).toBe('NoSuchKey')
    expect((await raw('GET', 'write')).text).toBe('v2')
  })

  test('deletes', async () => {
    await put('gone', 'v1')
    const remove = (IfMatch: string) =>
      gateway.s3.send(new DeleteObjectCommand({ Bucket: 'bucket', Key: 'gone', IfMatch }))
    expect(await refusal(remove('"x"'))).toBe('PreconditionFailed')
    await remove(`"${etag}"`)
    expect((await raw('GET', 'gone')).code).toBe('NoSuchKey')
  })
})

describe('ranges', () => {
  beforeAll(async () => void (await put('ten', '0123456789')))

  test.each([
    ['bytes=2-4', 206, '234', 'bytes 2-4/10'],
    ['bytes=7-', 206, '789', 'bytes 7-9/10'],
    ['bytes=-2', 206, '89', 'bytes 8-9/10'],
    ['bytes=5-100', 206, '56789', 'bytes 5-9/10'],
    ['bytes=0-1,3-4', 200, '0123456789', undefined],
    ['nonsense', 200, '0123456789', undefined]
  ])('%s', async (range, status, text, contentRange) => {
    const reply = await raw('GET', 'ten', { range })
    expect([reply.status, reply.text, reply.headers['content-range']]).toEqual([status, text, contentRange])
    const head = await raw('HEAD', 'ten', { range })
    expect([head.status, head.headers['content-length']]).toEqual([status, String(text.length)])
  })

  test('beyond the end', async () => {
    expect(await raw('GET', 'ten', { range: 'bytes=10-' })).toMatchObject({
      status: 416,
      code: 'InvalidRange',
      headers: { 'content-range': 'bytes */10' }
    })
  })

  test('If-Range of another version sends the whole', async () => {
    expect((await raw('GET', 'ten', { range: 'bytes=0-1', 'if-range': '"x"' })).status).toBe(200)
    expect(
      (await raw('GET', 'ten', { range: 'bytes=0-1', 'if-range': `"${md5('0123456789').toString('hex')}"` })).status
    ).toBe(206)
  })

  test('by part', async () => {
    expect((await raw('GET', 'ten?partNumber=1')).text).toBe('0123456789')
    expect(await raw('GET', 'ten?partNumber=2')).toMatchObject({ status: 400, code: 'InvalidPart' })
    expect(await raw('GET', 'ten?partNumber=0')).toMatchObject({ status: 400, code: 'InvalidArgument' })
    expect(await raw('GET', 'ten?partNumber=1', { range: 'bytes=0-1' })).toMatchObject({
      status: 400,
      code: 'InvalidRequest'
    })
  })
})

describe('response overrides', () => {
  test('a signed GET may choose headers', async () => {
    await put('named', 'x')
    const query =
      'response-content-type=text/plain&response-content-disposition=attachment%3B%20filename%3D%22%C3%BC%22'
    const reply = await raw('GET', `named?${query}`)
    expect(reply.headers['content-type']).toBe('text/plain')
    expect(Buffer.from(reply.headers['content-disposition']!, 'latin1').toString()).toBe('attachment; filename="ü"')
    expect(await raw('GET', 'named?response-content-type=a%0D%0Ab:c')).toMatchObject({
      status: 400,
      code: 'InvalidArgument'
    })
  })

  test('an anonymous one may not', async () => {
    await gateway.s3.send(new PutObjectCommand({ Bucket: 'open-to-all', Key: 'k', Body: 'x' }))
    expect(await send(gateway.port, { method: 'GET', target: '/open-to-all/k?response-content-type=a' })).toMatchObject(
      { code: 'InvalidRequest' }
    )
    expect((await send(gateway.port, { method: 'GET', target: '/open-to-all/k' })).text).toBe('x')
  })
})

describe('copies', () => {
  const copy = (Key: string, source: string, more: object = {}) =>
    gateway.s3.send(new CopyObjectCommand({ Bucket: 'bucket', Key, CopySource: source, ...more }))

  test('with its metadata, or with other', async () => {
    await put('source ü', 'bytes', { Metadata: { a: '1' }, ContentType: 'text/x' })
    const reply = await copy('copied', `bucket/${encodeURIComponent('source ü')}?versionId=null`)
    expect(reply.CopyObjectResult!.ETag).toBe(`"${md5('bytes').toString('hex')}"`)
    expect(await get('copied')).toMatchObject({ ContentType: 'text/x', Metadata: { a: '1' } })
    await copy('copied', 'bucket/copied', { MetadataDirective: 'REPLACE', Metadata: { b: '2' } })
    const replaced = await get('copied')
    expect([replaced.Metadata, replaced.ContentType, await replaced.Body!.transformToString()]).toEqual([
      { b: '2' },
      'binary/octet-stream',
      'bytes'
    ])
  })

  test('onto itself without a change is refused', async () => {
    await put('self', 'x')
    expect(await refusal(copy('self', 'bucket/self'))).toBe('InvalidRequest')
    await copy('self', 'bucket/self', { StorageClass: 'REDUCED_REDUNDANCY' })
    expect((await get('self')).StorageClass).toBe('REDUCED_REDUNDANCY')
  })

  test('conditions on the source and on the target', async () => {
    await put('cs', 'x')
    const etag = `"${md5('x').toString('hex')}"`
    expect(await refusal(copy('ct', 'bucket/cs', { CopySourceIfMatch: '"y"' }))).toBe('PreconditionFailed')
    expect(await refusal(copy('ct', 'bucket/cs', { CopySourceIfNoneMatch: etag }))).toBe('PreconditionFailed')
    await copy('ct', 'bucket/cs', { CopySourceIfMatch: etag, IfNoneMatch: '*' })
    expect(await refusal(copy('ct', 'bucket/cs', { IfNoneMatch: '*' }))).toBe('PreconditionFailed')
  })

  test('a checksum the source lacks is worked out', async () => {
    await raw('PUT', 'plain', {}, 'hello')
    const reply = await copy('summed', 'bucket/plain', { ChecksumAlgorithm: 'SHA256' })
    expect(reply.CopyObjectResult!.ChecksumSHA256).toBe('LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=')
    expect((await get('summed', { ChecksumMode: 'ENABLED' })).ChecksumSHA256).toBe(
      'LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ='
    )
    expect(gateway.store.openCount).toBe(0)
  })

  test.each([
    ['/', 'InvalidArgument'],
    ['bucket', 'InvalidArgument'],
    ['bucket/', 'InvalidArgument'],
    ['bucket/absent', 'NoSuchKey'],
    ['no-such-bucket/k', 'NoSuchBucket'],
    ['bucket/ten?versionId=3', 'NoSuchVersion'],
    ['bucket/%zz', 'InvalidURI']
  ])('source %s', async (source, code) => {
    expect((await raw('PUT', 'x', { 'x-amz-copy-source': source, 'content-length': '0' })).code).toBe(code)
  })
})

describe('deletes', () => {
  test('one, twice', async () => {
    await put('once', 'x')
    expect((await raw('DELETE', 'once')).status).toBe(204)
    expect((await raw('DELETE', 'once')).status).toBe(204)
    expect((await raw('DELETE', 'once?versionId=null')).status).toBe(204)
    expect((await raw('DELETE', 'once?versionId=7')).code).toBe('NoSuchVersion')
  })

  const removeMany = (objects: Array<{ Key: string; ETag?: string; VersionId?: string }>, Quiet = false) =>
    gateway.s3.send(new DeleteObjectsCommand({ Bucket: 'bucket', Delete: { Objects: objects, Quiet } }))

  test('many, each with an answer of its own', async () => {
    for (const key of ['m1', ' m<2>& ', 'm3']) await put(key, 'x')
    const reply = await removeMany([
      { Key: 'm1' },
      { Key: ' m<2>& ' },
      { Key: 'm3', ETag: 'wrong' },
      { Key: 'never' },
      { Key: 'm1', VersionId: '9' },
      { Key: 'x'.repeat(1025) }
    ])
    expect(reply.Deleted!.map((deleted) => deleted.Key)).toEqual(['m1', ' m<2>& ', 'never'])
    expect(reply.Errors!.map((error) => error.Code)).toEqual(['PreconditionFailed', 'NoSuchVersion', 'KeyTooLongError'])
    expect((await removeMany([{ Key: 'm3' }], true)).Deleted).toBeUndefined()
    for (const key of ['m1', ' m<2>& ', 'm3'])
      expect((await raw('GET', encodeURIComponent(key))).code).toBe('NoSuchKey')
  })

  test('on the size and the age of what is there', async () => {
    await put('aged', '12345')
    const at = (await get('aged')).LastModified!
    const remove = (headers: Record<string, string>) => raw('DELETE', 'aged', headers)
    expect((await remove({ 'x-amz-if-match-size': '4' })).code).toBe('PreconditionFailed')
    expect((await remove({ 'x-amz-if-match-size': 'x' })).code).toBe('InvalidArgument')
    expect((await remove({ 'x-amz-if-match-last-modified-time': 'Mon, 01 Jan 2001 00:00:00 GMT' })).code).toBe(
      'PreconditionFailed'
    )
    const many = (Size: number) =>
      gateway.s3.send(
        new DeleteObjectsCommand({
          Bucket: 'bucket',
          Delete: { Objects: [{ Key: 'aged', Size, LastModifiedTime: at }] }
        })
      )
    expect((await many(4)).Errors!.map((error) => error.Code)).toEqual(['PreconditionFailed'])
    expect((await raw('GET', 'aged')).text).toBe('12345')
    expect((await many(5)).Deleted).toMatchObject([{ Key: 'aged' }])
    expect((await raw('GET', 'aged')).code).toBe('NoSuchKey')
    expect((await remove({ 'x-amz-if-match-size': '4' })).status).toBe(204)
  })

  test('a thousand and no more', async () => {
    const keys = Array.from({ length: 1001 }, (_unused, index) => ({ Key: `k${index}` }))
    expect((await removeMany(keys.slice(1))).Deleted).toHaveLength(1000)
    expect(await refusal(removeMany(keys))).toBe('MalformedXML')
  })

  test.each(['', '<Delete/>', '<Delete><Object/></Delete>', '<Other/>', 'x', '<Delete><Object><Key>a</Key></Object>'])(
    'body %j',
    async (body) => {
      expect(await send(gateway.port, { method: 'POST', target: '/bucket?delete', key: alice, body })).toMatchObject({
        status: 400,
        code: 'MalformedXML'
      })
    }
  )

  test('the digest of the list is checked', async () => {
    await put('kept', 'x')
    const body = '<Delete><Object><Key>kept</Key></Object></Delete>'
    const request = { method: 'POST', target: '/bucket?delete', key: alice, body }
    expect(
      (await send(gateway.port, { ...request, headers: { 'content-md5': md5('y').toString('base64') } })).code
    ).toBe('BadDigest')
    expect((await send(gateway.port, { ...request, headers: { 'x-amz-checksum-crc32': 'AAAAAA==' } })).code).toBe(
      'BadDigest'
    )
    expect((await raw('GET', 'kept')).status).toBe(200)
  })
})

describe('odds and ends', () => {
  test('what is not there', async () => {
    expect(await raw('GET', 'nope')).toMatchObject({ status: 404, code: 'NoSuchKey' })
    const head = await raw('HEAD', 'nope')
    expect([head.status, head.body.length]).toEqual([404, 0])
    expect(await refusal(gateway.s3.send(new HeadObjectCommand({ Bucket: 'bucket', Key: 'nope' })))).toBe('NotFound')
    expect(await send(gateway.port, { method: 'GET', target: '/no-such-bucket/k', key: alice })).toMatchObject({
      status: 404,
      code: 'NoSuchBucket'
    })
    expect(await raw('GET', 'ten?versionId=1')).toMatchObject({ status: 404, code: 'NoSuchVersion' })
    expect((await raw('GET', 'ten?versionId=null')).status).toBe(200)
  })

  test('tags and locks', async () => {
    await put('plain', 'x')
    expect((await gateway.s3.send(new GetObjectTaggingCommand({ Bucket: 'bucket', Key: 'plain' }))).TagSet).toEqual([])
    expect((await raw('DELETE', 'plain?tagging')).status).toBe(204)
    expect((await raw('PUT', 'plain?tagging', {}, '<Tagging/>')).status).toBe(501)
    for (const target of ['plain?retention', 'plain?legal-hold'])
      expect((await raw('GET', target)).code).toBe('InvalidRequest')
    expect((await raw('GET', 'plain?acl')).text).toContain('<Permission>FULL_CONTROL</Permission>')
    expect((await raw('PUT', 'plain?acl', { 'x-amz-acl': 'private' }, '')).status).toBe(200)
  })

  test('attributes must be named', async () => {
    for (const attributes of ['', 'Nonsense']) {
      expect(
        (await raw('GET', 'ten?attributes', attributes === '' ? {} : { 'x-amz-object-attributes': attributes })).code
      ).toBe('InvalidArgument')
    }
    expect((await raw('GET', 'ten?attributes', { 'x-amz-object-attributes': 'ETag,StorageClass' })).text).toContain(
      '<StorageClass>STANDARD</StorageClass>'
    )
  })

  test('too large is refused before a byte is sent', async () => {
    const reply = await send(gateway.port, {
      method: 'PUT',
      target: '/bucket/huge',
      key: alice,
      payloadHash: 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      headers: { 'x-amz-decoded-content-length': String(5 * 2 ** 30 + 1) },
      body: 'x'
    })
    expect(reply).toMatchObject({ status: 400, code: 'EntityTooLarge' })
  })

  test('a presigned PUT and GET', async () => {
    const target = presign(gateway.port, 'PUT', '/bucket/presigned', alice)
    expect((await send(gateway.port, { method: 'PUT', target, body: 'hello' })).status).toBe(200)
    expect(
      (await send(gateway.port, { method: 'GET', target: presign(gateway.port, 'GET', '/bucket/presigned', alice) }))
        .text
    ).toBe('hello')
    expect((await send(gateway.port, { method: 'GET', target })).code).toBe('SignatureDoesNotMatch')
  })
})
