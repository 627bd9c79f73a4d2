import {
  CreateBucketCommand,
  ListObjectsCommand,
  type ListObjectsCommandOutput,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  PutObjectCommand
} from '@aws-sdk/client-s3'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { alice, send, startGateway, type TestGateway } from '../support/s3-gateway.ts'

let gateway: TestGateway
const keys = ['a/1', 'a/2', 'a/b/3', 'a', 'b', 'c/1', 'c/2', 'd', 'z ü+&<', '\u{1f600}', '\uffee']

beforeAll(async () => {
  gateway = await startGateway()
  await gateway.s3.send(new CreateBucketCommand({ Bucket: 'bucket' }))
  await gateway.s3.send(new CreateBucketCommand({ Bucket: 'bare' }))
  for (const Key of keys) await gateway.s3.send(new PutObjectCommand({ Bucket: 'bucket', Key, Body: Key }))
})
afterAll(async () => await gateway.close())

const byUtf8 = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** What a listing must name, in order: keys, and common prefixes in their place. */
function expected(prefix: string, delimiter: string): string[] {
  const names = keys
    .filter((key) => key.startsWith(prefix))
    .map((key) => {
      const end = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
      return end === -1 ? key : key.slice(0, end + delimiter.length)
    })
  return [...new Set(names)].sort(byUtf8)
}

const names = (page: Pick<ListObjectsV2CommandOutput, 'Contents' | 'CommonPrefixes'>): string[] =>
  [
    ...(page.Contents ?? []).map((object) => object.Key!),
    ...(page.CommonPrefixes ?? []).map((prefix) => prefix.Prefix!)
  ].sort(byUtf8)

interface Walk {
  Prefix: string
  Delimiter: string
  MaxKeys: number
}

async function walkV1(walk: Walk): Promise<string[][]> {
  const pages: string[][] = []
  let marker: string | undefined
  let page: ListObjectsCommandOutput
  do {
    page = await gateway.s3.send(new ListObjectsCommand({ Bucket: 'bucket', ...walk, Marker: marker }))
    pages.push(names(page))
    expect(page.NextMarker !== undefined).toBe(page.IsTruncated === true && walk.Delimiter !== '')
    marker = page.NextMarker ?? page.Contents?.at(-1)?.Key
  } while (page.IsTruncated)
  return pages
}

async function walkV2(walk: Walk): Promise<string[][]> {
  const pages: string[][] = []
  let token: string | undefined
  do {
    const page: ListObjectsV2CommandOutput = await gateway.s3.send(
      new ListObjectsV2Command({ Bucket: 'bucket', ...walk, ContinuationToken: token })
    )
    pages.push(names(page))
    expect(page.KeyCount).toBe(names(page).length)
    expect(page.NextContinuationToken !== undefined).toBe(page.IsTruncated)
    token = page.NextContinuationToken
  } while (token !== undefined)
  return pages
}

async function walkVersions(walk: Walk): Promise<string[][]> {
  const pages: string[][] = []
  let marker: string | undefined
  let page: ListObjectVersionsCommandOutput
  do {
    page = await gateway.s3.send(new ListObjectVersionsCommand({ Bucket: 'bucket', ...walk, KeyMarker: marker }))
    expect(page.Versions?.every((version) => version.VersionId === 'null' && version.IsLatest) ?? true).toBe(true)
    pages.push(names({ Contents: page.Versions, CommonPrefixes: page.CommonPrefixes }))
    marker = page.NextKeyMarker
  } while (page.IsTruncated)
  return pages
}

describe.each([
  ['ListObjects', walkV1],
  ['ListObjectsV2', walkV2],
  ['ListObjectVersions', walkVersions]
])('%s', (_name, walk) => {
  test('pages of any size name everything once, in order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('', 'a', 'a/', 'c', 'none'),
        fc.constantFrom('', '/', 'b', '/b'),
        fc.integer({ min: 1, max: 12 }),
        async (Prefix, Delimiter, MaxKeys) => {
          const pages = await walk({ Prefix, Delimiter, MaxKeys })
          expect(pages.flat()).toEqual(expected(Prefix, Delimiter))
          expect(pages.every((page) => page.length <= MaxKeys)).toBe(true)
        }
      ),
      { numRuns: 40 }
    )
  })
})

test('what is told of an object', async () => {
  const { Contents } = await gateway.s3.send(new ListObjectsCommand({ Bucket: 'bucket', Prefix: 'd' }))
  expect(Contents).toMatchObject([
    {
      Key: 'd',
      Size: 1,
      ETag: '"8277e0910d750195b448797616e091ad"',
      StorageClass: 'STANDARD',
      Owner: { ID: 'alice', DisplayName: 'Alice' }
    }
  ])
  const plain = await gateway.s3.send(new ListObjectsV2Command({ Bucket: 'bucket', Prefix: 'd' }))
  expect(plain.Contents![0]!.Owner).toBeUndefined()
  const owned = await gateway.s3.send(new ListObjectsV2Command({ Bucket: 'bucket', Prefix: 'd', FetchOwner: true }))
  expect(owned.Contents![0]!.Owner).toEqual({ ID: 'alice', DisplayName: 'Alice' })
  const { text } = await send(gateway.port, { method: 'GET', target: '/bucket?prefix=d', key: alice })
  expect(text).toMatch(/<LastModified>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z<\/LastModified>/)
  expect(text).toContain('<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">')
})

test('start-after need not exist, and gives way to a token', async () => {
  const page = await gateway.s3.send(new ListObjectsV2Command({ Bucket: 'bucket', StartAfter: 'c', MaxKeys: 1 }))
  expect([names(page), page.StartAfter]).toEqual([['c/1'], 'c'])
  const next = await gateway.s3.send(
    new ListObjectsV2Command({ Bucket: 'bucket', StartAfter: 'c', ContinuationToken: page.NextContinuationToken })
  )
  expect(names(next)).toEqual(expected('', '').filter((key) => byUtf8(key, 'c/1') > 0))
})

test('nothing wanted, nothing there', async () => {
  const none = await gateway.s3.send(new ListObjectsV2Command({ Bucket: 'bucket', MaxKeys: 0 }))
  expect(none).toMatchObject({ KeyCount: 0, MaxKeys: 0, IsTruncated: false })
  expect(await gateway.s3.send(new ListObjectsV2Command({ Bucket: 'bare' }))).toMatchObject({
    KeyCount: 0,
    MaxKeys: 1000,
    IsTruncated: false
  })
  expect((await gateway.s3.send(new ListObjectsV2Command({ Bucket: 'bucket', MaxKeys: 5000 }))).MaxKeys).toBe(1000)
})

test('encoding-type=url', async () => {
  const { text } = await send(gateway.port, {
    method: 'GET',
    target: '/bucket?encoding-type=url&prefix=z%20&delimiter=%C3%BC',
    key: alice
  })
  expect(text).toContain('<EncodingType>url</EncodingType>')
  expect(text).toContain('<Prefix>z%20</Prefix>')
  expect(text).toContain('<CommonPrefixes><Prefix>z%20%C3%BC</Prefix></CommonPrefixes>')
  expect(text).toContain('<Delimiter>%C3%BC</Delimiter>')
})

test.each([
  'max-keys=-1',
  'max-keys=x',
  'max-keys=99999999999',
  'encoding-type=base64',
  'list-type=2&continuation-token=nonsense'
])('refused: %s', async (query) => {
  expect(await send(gateway.port, { method: 'GET', target: `/bucket?${query}`, key: alice })).toMatchObject({
    status: 400,
    code: 'InvalidArgument'
  })
})
