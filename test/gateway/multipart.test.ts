import { createHash } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  type CompleteMultipartUploadCommandInput,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  type CreateMultipartUploadCommandInput,
  GetObjectAttributesCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  PutObjectCommand,
  UploadPartCommand,
  UploadPartCopyCommand
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cidOfShard } from '../../src/content/cid.ts'
import { type ChecksumAlgorithm, createChecksummer } from '../../src/gateway/checksum.ts'
import { alice, send, startGateway, type TestGateway } from '../support/s3-gateway.ts'

let gateway: TestGateway
beforeAll(async () => {
  gateway = await startGateway()
  await gateway.s3.send(new CreateBucketCommand({ Bucket: 'bucket' }))
})
afterAll(async () => await gateway.close())

const Bucket = 'bucket'
const md5 = (bytes: Uint8Array): Buffer => createHash('md5').update(bytes).digest()
const refusal = async (work: Promise<unknown>): Promise<string> =>
  await work.then(
    () => 'no refusal',
    (error: Error) => error.name
  )
const bytes = (length: number, seed: number): Uint8Array =>
  new Uint8Array(length).map((_byte, index) => (index * 31 + seed) % 256)
/** The store under test takes parts of 1 KiB. */
const data = [bytes(2000, 1), bytes(1500, 2), bytes(10, 3)]
const whole = Buffer.concat(data)

const start = async (Key: string, more: Partial<CreateMultipartUploadCommandInput> = {}): Promise<string> =>
  (await gateway.s3.send(new CreateMultipartUploadCommand({ Bucket, Key, ...more }))).UploadId!

const uploadPart = (Key: string, UploadId: string, PartNumber: number, Body: Uint8Array, more: object = {}) =>
  gateway.s3.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body, ...more }))

async function uploadAll(Key: string, UploadId: string): Promise<Array<{ PartNumber: number; ETag: string }>> {
  const parts = []
  for (const [index, part] of data.entries()) {
    parts.push({ PartNumber: index + 1, ETag: (await uploadPart(Key, UploadId, index + 1, part)).ETag! })
  }
  return parts
}

const complete = (
  Key: string,
  UploadId: string,
  Parts: object[],
  more: Partial<CompleteMultipartUploadCommandInput> = {}
) => gateway.s3.send(new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts }, ...more }))

const get = async (Key: string, PartNumber?: number): Promise<Buffer> => {
  const reply = await gateway.s3.send(new GetObjectCommand({ Bucket, Key, PartNumber }))
  return Buffer.from(await reply.Body!.transformToByteArray())
}

test('parts become an object', async () => {
  const id = await start('movie', { Metadata: { a: '1' }, ContentType: 'video/x', StorageClass: 'REDUCED_REDUNDANCY' })
  const parts = await uploadAll('movie', id)
  const reply = await complete('movie', id, parts)
  const etag = `"${md5(Buffer.concat(data.map(md5))).toString('hex')}-3"`
  expect(reply).toMatchObject({
    ETag: etag,
    Bucket,
    Key: 'movie',
    Location: `http://127.0.0.1:${gateway.port}/bucket/movie`
  })
  expect(await get('movie')).toEqual(whole)
  const head = await gateway.s3.send(new HeadObjectCommand({ Bucket, Key: 'movie' }))
  expect(head).toMatchObject({
    ETag: etag,
    ContentType: 'video/x',
    Metadata: { a: '1' },
    StorageClass: 'REDUCED_REDUNDANCY'
  })
  const raw = await send(gateway.port, { method: 'HEAD', target: '/bucket/movie', key: alice })
  expect(raw.headers['x-holdfast-cid']).toBe(cidOfShard(whole).toString())
  expect(await get('movie', 2)).toEqual(Buffer.from(data[1]!))
  expect(await refusal(get('movie', 4))).toBe('InvalidPart')
  const part = await gateway.s3.send(new HeadObjectCommand({ Bucket, Key: 'movie', PartNumber: 3 }))
  expect(part).toMatchObject({ PartsCount: 3, ContentLength: 10 })
  expect(await refusal(gateway.s3.send(new ListPartsCommand({ Bucket, Key: 'movie', UploadId: id })))).toBe(
    'NoSuchUpload'
  )
})

test('a completion may be asked for again', async () => {
  const id = await start('again')
  const parts = await uploadAll('again', id)
  const first = await complete('again', id, parts)
  expect((await complete('again', id, parts)).ETag).toBe(first.ETag)
  expect(await refusal(complete('again', id, parts.slice(1)))).toBe('NoSuchUpload')
})

test('a part sent again replaces the first', async () => {
  const id = await start('resent')
  await uploadPart('resent', id, 1, bytes(3000, 9))
  const parts = await uploadAll('resent', id)
  await complete('resent', id, parts)
  expect(await get('resent')).toEqual(whole)
})

test('the SDK splits and sends a large body by itself', async () => {
  const Body = Buffer.alloc(12 * 2 ** 20, 'holdfast')
  await new Upload({ client: gateway.s3, params: { Bucket, Key: 'large', Body }, partSize: 5 * 2 ** 20 }).done()
  expect((await get('large')).equals(Body)).toBe(true)
})

describe('refusals', () => {
  test('what a completion can get wrong', async () => {
    const id = await start('wrong')
    const parts = await uploadAll('wrong', id)
    expect(await refusal(complete('wrong', id, [parts[1]!, parts[0]!]))).toBe('InvalidPartOrder')
    expect(await refusal(complete('wrong', id, [parts[0]!, parts[0]!]))).toBe('InvalidPartOrder')
    expect(await refusal(complete('wrong', id, [{ PartNumber: 1, ETag: '"x"' }]))).toBe('InvalidPart')
    expect(await refusal(complete('wrong', id, [{ PartNumber: 9, ETag: parts[0]!.ETag }]))).toBe('InvalidPart')
    expect(await refusal(complete('wrong', id, []))).toBe('MalformedXML')
    expect(
      await refusal(
        complete('wrong', id, [parts[2]!, { PartNumber: 4, ETag: (await uploadPart('wrong', id, 4, data[0]!)).ETag }])
      )
    ).toBe('EntityTooSmall')
    expect(await refusal(complete('wrong', id, parts, { MpuObjectSize: 7 }))).toBe('InvalidRequest')
    expect(await refusal(complete('other-key', id, parts))).toBe('NoSuchUpload')
    await gateway.s3.send(new PutObjectCommand({ Bucket, Key: 'wrong', Body: 'x' }))
    expect(await refusal(complete('wrong', id, parts, { IfNoneMatch: '*' }))).toBe('PreconditionFailed')
    expect(await refusal(complete('wrong', id, parts, { IfMatch: '"x"' }))).toBe('PreconditionFailed')
    await complete('wrong', id, parts, { MpuObjectSize: whole.length })
  })

  test('unknown uploads and parts out of bounds', async () => {
    expect(await refusal(uploadPart('k', 'nope', 1, data[0]!))).toBe('NoSuchUpload')
    expect(
      await refusal(gateway.s3.send(new AbortMultipartUploadCommand({ Bucket, Key: 'k', UploadId: 'nope' })))
    ).toBe('NoSuchUpload')
    const id = await start('k')
    for (const number of ['0', '10001', 'x', '']) {
      const target = `/bucket/k?uploadId=${id}&partNumber=${number}`
      expect((await send(gateway.port, { method: 'PUT', target, key: alice, body: 'x' })).code).toBe('InvalidArgument')
    }
    await gateway.s3.send(new AbortMultipartUploadCommand({ Bucket, Key: 'k', UploadId: id }))
    expect(await refusal(uploadPart('k', id, 1, data[0]!))).toBe('NoSuchUpload')
  })

  test.each([
    '',
    '<Other/>',
    '<CompleteMultipartUpload><Part/></CompleteMultipartUpload>',
    '<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>'
  ])('completion %j', async (body) => {
    expect(
      await send(gateway.port, { method: 'POST', target: '/bucket/k?uploadId=x', key: alice, body })
    ).toMatchObject({ status: 400, code: 'MalformedXML' })
  })
})

async function checksum(algorithm: ChecksumAlgorithm, body: Uint8Array): Promise<string> {
  const checksummer = await createChecksummer(algorithm)
  checksummer.update(body)
  return checksummer.digest()
}

describe('checksums', () => {
  test.each([
    ['CRC32', 'COMPOSITE'],
    ['CRC32', 'FULL_OBJECT'],
    ['CRC32C', 'COMPOSITE'],
    ['CRC32C', 'FULL_OBJECT'],
    ['CRC64NVME', 'FULL_OBJECT'],
    ['SHA1', 'COMPOSITE'],
    ['SHA256', 'COMPOSITE']
  ] as const)('%s, %s', async (label, type) => {
    const algorithm = label.toLowerCase() as ChecksumAlgorithm
    const field = `Checksum${label}` as const
    const Key = `${label}-${type}`
    const id = await start(Key, { ChecksumAlgorithm: label, ChecksumType: type })
    const parts = []
    for (const [index, part] of data.entries()) {
      const value = await checksum(algorithm, part)
      const reply = await uploadPart(Key, id, index + 1, part, { ChecksumAlgorithm: label })
      expect(reply[field]).toBe(value)
      parts.push({ PartNumber: index + 1, ETag: reply.ETag, [field]: value })
    }
    const digests = Buffer.concat(parts.map((part) => Buffer.from(String(part[field]), 'base64')))
    const expected =
      type === 'FULL_OBJECT' ? await checksum(algorithm, whole) : `${await checksum(algorithm, digests)}-3`

    const listed = await gateway.s3.send(new ListPartsCommand({ Bucket, Key, UploadId: id }))
    expect(listed).toMatchObject({ ChecksumAlgorithm: label, ChecksumType: type })
    expect(listed.Parts!.map((part) => part[field])).toEqual(parts.map((part) => part[field]))

    expect(await refusal(complete(Key, id, parts, { [field]: 'bad' }))).toBe('BadDigest')
    expect(await refusal(complete(Key, id, [{ ...parts[0]!, [field]: parts[1]![field] }]))).toBe('InvalidPart')
    const other = type === 'COMPOSITE' ? 'FULL_OBJECT' : 'COMPOSITE'
    expect(await refusal(complete(Key, id, parts, { ChecksumType: other }))).toBe('InvalidRequest')
    expect(await complete(Key, id, parts, { [field]: expected, ChecksumType: type })).toMatchObject({
      [field]: expected,
      ChecksumType: type
    })

    const head = await gateway.s3.send(new HeadObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }))
    expect(head).toMatchObject({ [field]: expected, ChecksumType: type })
    const part = await gateway.s3.send(new HeadObjectCommand({ Bucket, Key, PartNumber: 2 }))
    expect(part).toMatchObject({ [field]: parts[1]![field], PartsCount: 3 })
    const attributes = await gateway.s3.send(
      new GetObjectAttributesCommand({
        Bucket,
        Key,
        ObjectAttributes: ['ETag', 'Checksum', 'ObjectParts', 'ObjectSize'],
        MaxParts: 1,
        PartNumberMarker: '1'
      })
    )
    expect(attributes).toMatchObject({
      ObjectSize: whole.length,
      Checksum: { [field]: expected, ChecksumType: type },
      ObjectParts: {
        TotalPartsCount: 3,
        IsTruncated: true,
        NextPartNumberMarker: '2',
        Parts: [{ PartNumber: 2, Size: 1500, [field]: parts[1]![field] }]
      }
    })
    // The SDK verifies a full-object checksum while it reads.
    expect(await get(Key)).toEqual(whole)
  })

  test('a part without one gets it worked out', async () => {
    const id = await start('worked-out', { ChecksumAlgorithm: 'SHA256' })
    const target = `/bucket/worked-out?uploadId=${id}&partNumber=1`
    const reply = await send(gateway.port, { method: 'PUT', target, key: alice, body: 'hello' })
    expect(reply.headers['x-amz-checksum-sha256']).toBe('LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=')
    const mismatch = {
      method: 'PUT',
      target,
      key: alice,
      body: 'hello',
      headers: { 'x-amz-checksum-crc32': 'NhCmhg==' }
    }
    expect((await send(gateway.port, mismatch)).code).toBe('InvalidRequest')
    await complete('worked-out', id, [{ PartNumber: 1, ETag: reply.headers.etag! }])
  })

  test.each([
    ['SHA256', 'FULL_OBJECT'],
    ['CRC64NVME', 'COMPOSITE'],
    ['ROT13', 'COMPOSITE'],
    [undefined, 'FULL_OBJECT']
  ])('%s cannot be %s', async (algorithm, type) => {
    const headers: Record<string, string> = {
      'x-amz-checksum-type': type,
      ...(algorithm !== undefined && { 'x-amz-checksum-algorithm': algorithm })
    }
    expect(
      await send(gateway.port, { method: 'POST', target: '/bucket/k?uploads', key: alice, headers })
    ).toMatchObject({ status: 400, code: 'InvalidRequest' })
  })
})

describe('parts that are copied', () => {
  const copy = (UploadId: string, PartNumber: number, CopySourceRange?: string, more: object = {}) =>
    gateway.s3.send(
      new UploadPartCopyCommand({
        Bucket,
        Key: 'assembled',
        UploadId,
        PartNumber,
        CopySource: 'bucket/quarry',
        CopySourceRange,
        ...more
      })
    )

  test('whole and in ranges', async () => {
    await gateway.s3.send(new PutObjectCommand({ Bucket, Key: 'quarry', Body: whole }))
    const id = await start('assembled', { ChecksumAlgorithm: 'CRC32' })
    const first = (await copy(id, 1, 'bytes=100-1999')).CopyPartResult!
    const second = (await copy(id, 2)).CopyPartResult!
    expect(first.ChecksumCRC32).toBe(await checksum('crc32', whole.subarray(100, 2000)))
    await complete(
      'assembled',
      id,
      [first, second].map((part, index) => ({ PartNumber: index + 1, ETag: part.ETag }))
    )
    expect(await get('assembled')).toEqual(Buffer.concat([whole.subarray(100, 2000), whole]))
    expect(gateway.store.openCount).toBe(0)
  })

  test('bad ranges and failing conditions', async () => {
    const id = await start('assembled')
    for (const range of ['0-2', 'bytes=0', 'bytes=5-2', 'bytes=a-b', 'bytes=0-2,3-5', 'bytes=-5']) {
      expect(await refusal(copy(id, 1, range))).toBe('InvalidArgument')
    }
    expect(await refusal(copy(id, 1, `bytes=0-${whole.length}`))).toBe('InvalidRange')
    expect(await refusal(copy(id, 1, undefined, { CopySourceIfMatch: '"x"' }))).toBe('PreconditionFailed')
    expect(gateway.store.openCount).toBe(0)
  })
})

describe('listings', () => {
  test('parts in pages', async () => {
    const id = await start('listed')
    await uploadAll('listed', id)
    const first = await gateway.s3.send(new ListPartsCommand({ Bucket, Key: 'listed', UploadId: id, MaxParts: 2 }))
    expect(first).toMatchObject({
      IsTruncated: true,
      NextPartNumberMarker: '2',
      MaxParts: 2,
      StorageClass: 'STANDARD',
      Owner: { ID: 'alice' }
    })
    const rest = await gateway.s3.send(
      new ListPartsCommand({ Bucket, Key: 'listed', UploadId: id, PartNumberMarker: '2' })
    )
    expect([...first.Parts!, ...rest.Parts!].map((part) => [part.PartNumber, part.Size, part.ETag])).toEqual(
      data.map((part, index) => [index + 1, part.length, `"${md5(part).toString('hex')}"`])
    )
    expect(rest.IsTruncated).toBe(false)
  })

  test('uploads in pages, by prefix and grouped', async () => {
    await gateway.s3.send(new CreateBucketCommand({ Bucket: 'uploads' }))
    const keys = ['a', 'a', 'd/1', 'd/2', 'd/e/3', 'f', 'g/1']
    for (const Key of keys) await gateway.s3.send(new CreateMultipartUploadCommand({ Bucket: 'uploads', Key }))
    const walk = async (more: object): Promise<string[]> => {
      const found: string[] = []
      let markers: { KeyMarker?: string; UploadIdMarker?: string } = {}
      for (;;) {
        const page = await gateway.s3.send(new ListMultipartUploadsCommand({ Bucket: 'uploads', ...more, ...markers }))
        found.push(
          ...(page.Uploads ?? []).map((upload) => upload.Key!),
          ...(page.CommonPrefixes ?? []).map((prefix) => prefix.Prefix!)
        )
        if (!page.IsTruncated) return found
        markers = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
      }
    }
    for (const MaxUploads of [1, 2, 3, 100]) {
      expect(await walk({ MaxUploads })).toEqual(keys)
      expect((await walk({ MaxUploads, Delimiter: '/' })).sort()).toEqual(['a', 'a', 'd/', 'f', 'g/'])
      expect((await walk({ MaxUploads, Delimiter: '/', Prefix: 'd/' })).sort()).toEqual(['d/1', 'd/2', 'd/e/'])
    }
    // A key alone as the marker passes over all of its uploads.
    expect(await walk({ KeyMarker: 'a' })).toEqual(keys.slice(2))
  })
})
