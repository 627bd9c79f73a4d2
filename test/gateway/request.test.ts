import { describe, expect, test } from 'vitest'
import { isBucketName } from '../../src/gateway/bucket-name.ts'
import { bucketOfHost, headerMap, parseTarget } from '../../src/gateway/request.ts'
import { type OperationName, route } from '../../src/gateway/router.ts'

const domains = ['localhost', 's3.localhost', 's3.example.com']

test.each([
  ['localhost', undefined],
  ['localhost:9000', undefined],
  ['s3.localhost:9000', undefined],
  ['127.0.0.1:9000', undefined],
  ['[::1]:9000', undefined],
  ['1.2.3.4', undefined],
  ['photos.localhost:9000', 'photos'],
  ['photos.s3.localhost', 'photos'],
  ['a.b.c.s3.example.com', 'a.b.c'],
  ['Photos.S3.Example.COM.', 'photos'],
  ['example.com', undefined],
  ['storage-7.lan:9000', undefined],
  [undefined, undefined]
])('host %s names bucket %s', (host, bucket) => {
  expect(bucketOfHost(host, domains)).toBe(bucket)
})

describe('targets', () => {
  test.each<[string, string, string, string]>([
    ['/', 'localhost', '', ''],
    ['', 'localhost', '', ''],
    ['/b', 'localhost', 'b', ''],
    ['/b/', 'localhost', 'b', ''],
    ['/b/k', 'localhost', 'b', 'k'],
    ['/b//k', 'localhost', 'b', '/k'],
    ['/b/a/../k', 'localhost', 'b', 'a/../k'],
    ['/b/a%2Fb%20c+d%25', 'localhost', 'b', 'a/b c+d%'],
    ['/b/%C3%BC', 'localhost', 'b', 'ü'],
    ['/b/\u00c3\u00bc', 'localhost', 'b', 'ü'],
    ['/b/%EF%BB%BFk', 'localhost', 'b', '\ufeffk'],
    ['/k', 'b.localhost', 'b', 'k'],
    ['/', 'b.localhost', 'b', ''],
    ['/b/k', 'b.localhost', 'b', 'b/k'],
    ['http://localhost/b/k', 'localhost', 'b', 'k']
  ])('%s at %s', (target, host, bucket, key) => {
    expect(parseTarget(target, host, domains)).toMatchObject({ bucket, key })
  })

  test('query parameters are decoded; the first of a name counts', () => {
    const { query } = parseTarget('/b?prefix=a%2Bb+c&acl&max-keys=1&max-keys=2&=x', undefined, domains)
    expect(query.get('prefix')).toBe('a+b c')
    expect(query.has('acl')).toBe(true)
    expect(query.get('acl')).toBe('')
    expect(query.get('max-keys')).toBe('1')
    expect(query.pairs).toHaveLength(5)
  })

  test.each([
    '/b/%',
    '/b/%4',
    '/b/%zz',
    '/b/%ff',
    '/b/\u00ff',
    'b/k',
    `/b/${'x'.repeat(20_000)}`,
    `/b?${'a&'.repeat(300)}`
  ])('refused: %s', (target) => {
    expect(() => parseTarget(target, undefined, domains)).toThrow(expect.objectContaining({ code: 'InvalidURI' }))
  })
})

test('repeated headers are joined', () => {
  expect(headerMap(['X-A', '1', 'x-a', '2', 'Host', 'h'])).toEqual(
    new Map([
      ['x-a', '1,2'],
      ['host', 'h']
    ])
  )
})

test.each<[string, string, OperationName]>([
  ['GET', '/', 'ListBuckets'],
  ['PUT', '/b', 'CreateBucket'],
  ['HEAD', '/b', 'HeadBucket'],
  ['DELETE', '/b', 'DeleteBucket'],
  ['GET', '/b', 'ListObjects'],
  ['GET', '/b?list-type=2', 'ListObjectsV2'],
  ['GET', '/b?versions', 'ListObjectVersions'],
  ['GET', '/b?uploads', 'ListMultipartUploads'],
  ['GET', '/b?location', 'GetBucketLocation'],
  ['GET', '/b?versioning', 'GetBucketVersioning'],
  ['GET', '/b?acl', 'GetBucketAcl'],
  ['GET', '/b?cors', 'GetBucketConfiguration'],
  ['DELETE', '/b?cors', 'DeleteBucketConfiguration'],
  ['PUT', '/b?versioning', 'UnsupportedOperation'],
  ['PUT', '/b?acl', 'PutBucketAcl'],
  ['POST', '/b?delete', 'DeleteObjects'],
  ['POST', '/b', 'UnsupportedOperation'],
  ['GET', '/b/k', 'GetObject'],
  ['HEAD', '/b/k', 'HeadObject'],
  ['PUT', '/b/k', 'PutObject'],
  ['DELETE', '/b/k', 'DeleteObject'],
  ['GET', '/b/k?attributes', 'GetObjectAttributes'],
  ['GET', '/b/k?uploadId=u', 'ListParts'],
  ['PUT', '/b/k?uploadId=u&partNumber=1', 'UploadPart'],
  ['POST', '/b/k?uploads', 'CreateMultipartUpload'],
  ['POST', '/b/k?uploadId=u', 'CompleteMultipartUpload'],
  ['DELETE', '/b/k?uploadId=u', 'AbortMultipartUpload'],
  ['PUT', '/b/k?tagging', 'UnsupportedOperation'],
  ['GET', '/b/k?tagging', 'GetObjectTagging'],
  ['GET', '/b/k?torrent', 'UnsupportedOperation'],
  ['OPTIONS', '/b/k', 'PreflightRequest']
])('%s %s is %s', (method, target, operation) => {
  expect(route(method, parseTarget(target, undefined, []), new Map())).toBe(operation)
})

test('a copy is told by its source', () => {
  const headers = new Map([['x-amz-copy-source', '/a/b']])
  expect(route('PUT', parseTarget('/b/k', undefined, []), headers)).toBe('CopyObject')
  expect(route('PUT', parseTarget('/b/k?uploadId=u&partNumber=1', undefined, []), headers)).toBe('UploadPartCopy')
})

test.each([
  ['POST', '/'],
  ['PATCH', '/b'],
  ['POST', '/b/k'],
  ['TRACE', '/b/k']
])('%s %s is not allowed', (method, target) => {
  expect(() => route(method, parseTarget(target, undefined, []), new Map())).toThrow(
    expect.objectContaining({ code: 'MethodNotAllowed' })
  )
})

describe('bucket names', () => {
  test.each(['abc', 'a-b', 'a.b.c', '1abc', 'abc1', 'a'.repeat(63), '1.2.3', 'xn-a'])('%s is one', (name) => {
    expect(isBucketName(name)).toBe(true)
  })
  test.each([
    '',
    'ab',
    'a'.repeat(64),
    'Abc',
    'a_b',
    '-ab',
    'ab-',
    '.ab',
    'ab.',
    'a..b',
    'a.-b',
    'a-.b',
    '1.2.3.4',
    'xn--ab',
    'ab-s3alias',
    'ipfs',
    'a/b',
    'äbc'
  ])('%s is none', (name) => {
    expect(isBucketName(name)).toBe(false)
  })
})
