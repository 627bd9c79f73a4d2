import {
  CreateBucketCommand,
  DeleteBucketCommand,
  GetBucketAclCommand,
  GetBucketLocationCommand,
  GetBucketVersioningCommand,
  HeadBucketCommand,
  ListBucketsCommand,
  PutBucketAclCommand,
  PutObjectCommand
} from '@aws-sdk/client-s3'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { alice, bob, send, startGateway, type TestGateway } from '../support/s3-gateway.ts'

let gateway: TestGateway
beforeEach(async () => {
  gateway = await startGateway()
})
afterEach(async () => await gateway.close())

const refusal = async (work: Promise<unknown>): Promise<string> =>
  await work.then(
    () => 'no refusal',
    (error: Error) => error.name
  )

describe('the life of a bucket', () => {
  test('created, listed, looked at, deleted', async () => {
    const { s3 } = gateway
    expect((await s3.send(new CreateBucketCommand({ Bucket: 'photos' }))).Location).toBe('/photos')
    expect((await s3.send(new HeadBucketCommand({ Bucket: 'photos' }))).BucketRegion).toBe('us-east-1')
    const listed = await s3.send(new ListBucketsCommand())
    expect(listed.Buckets).toMatchObject([{ Name: 'photos', BucketRegion: 'us-east-1' }])
    expect(listed.Owner).toEqual({ ID: 'alice', DisplayName: 'Alice' })
    await s3.send(new DeleteBucketCommand({ Bucket: 'photos' }))
    expect(await refusal(s3.send(new HeadBucketCommand({ Bucket: 'photos' })))).toBe('NotFound')
  })

  test('one that holds something stays; unfinished uploads alone do not keep it', async () => {
    const { s3, store } = gateway
    await s3.send(new CreateBucketCommand({ Bucket: 'photos' }))
    await store.createUpload({
      bucket: 'photos',
      key: 'u',
      owner: 'alice',
      headers: {},
      userMetadata: {},
      storageClass: 'STANDARD'
    })
    await s3.send(new PutObjectCommand({ Bucket: 'photos', Key: 'k', Body: 'x' }))
    expect(await refusal(s3.send(new DeleteBucketCommand({ Bucket: 'photos' })))).toBe('BucketNotEmpty')
    expect(
      (await store.listUploads('photos', { prefix: '', afterKey: '', afterUploadId: '', limit: 9 })).items
    ).toHaveLength(1)
    await store.deleteObject('photos', 'k')
    await s3.send(new DeleteBucketCommand({ Bucket: 'photos' }))
    expect(await store.getBucket('photos')).toBeUndefined()
  })

  test('an owned name can be created again in the oldest region only', async () => {
    await gateway.s3.send(new CreateBucketCommand({ Bucket: 'photos' }))
    await gateway.s3.send(new CreateBucketCommand({ Bucket: 'photos' }))
    expect(await refusal(gateway.client(bob).send(new CreateBucketCommand({ Bucket: 'photos' })))).toBe(
      'BucketAlreadyExists'
    )
    const north = await startGateway({ region: 'eu-north-1' })
    try {
      const s3 = north.client(alice, { region: 'eu-north-1' })
      await s3.send(
        new CreateBucketCommand({ Bucket: 'photos', CreateBucketConfiguration: { LocationConstraint: 'eu-north-1' } })
      )
      expect(await refusal(s3.send(new CreateBucketCommand({ Bucket: 'photos' })))).toBe('BucketAlreadyOwnedByYou')
      expect((await s3.send(new GetBucketLocationCommand({ Bucket: 'photos' }))).LocationConstraint).toBe('eu-north-1')
      const elsewhere = new CreateBucketCommand({
        Bucket: 'other',
        CreateBucketConfiguration: { LocationConstraint: 'us-west-2' }
      })
      expect(await refusal(s3.send(elsewhere))).toBe('IllegalLocationConstraintException')
    } finally {
      await north.close()
    }
  })

  test.each(['ipfs', 'Upper', 'a_b', 'ab'])('%s is no name for one', async (name) => {
    for (const method of ['PUT', 'GET', 'DELETE']) {
      expect(await send(gateway.port, { method, target: `/${name}`, key: alice })).toMatchObject({
        status: 400,
        code: 'InvalidBucketName'
      })
    }
  })

  test('a body that is no configuration', async () => {
    const request = { method: 'PUT', target: '/photos', key: alice }
    expect(await send(gateway.port, { ...request, body: '<Nonsense/>' })).toMatchObject({
      status: 400,
      code: 'MalformedXML'
    })
    expect(await send(gateway.port, { ...request, body: 'x'.repeat(100_000) })).toMatchObject({
      status: 400,
      code: 'MaxMessageLengthExceeded'
    })
  })
})

test('buckets are listed in pages', async () => {
  for (const name of ['aaa', 'bbb', 'bbc', 'ccc']) await gateway.s3.send(new CreateBucketCommand({ Bucket: name }))
  const names: string[] = []
  let token: string | undefined
  do {
    const page = await gateway.s3.send(new ListBucketsCommand({ MaxBuckets: 1, Prefix: 'b', ContinuationToken: token }))
    names.push(...page.Buckets!.map((bucket) => bucket.Name!))
    token = page.ContinuationToken
  } while (token !== undefined)
  expect(names).toEqual(['bbb', 'bbc'])
  expect(await send(gateway.port, { method: 'GET', target: '/?max-buckets=0', key: alice })).toMatchObject({
    code: 'InvalidArgument'
  })
  expect((await gateway.client(bob).send(new ListBucketsCommand())).Buckets).toEqual([])
})

describe('who may do what', () => {
  beforeEach(async () => {
    await gateway.s3.send(new CreateBucketCommand({ Bucket: 'closed' }))
    await gateway.s3.send(new CreateBucketCommand({ Bucket: 'open-to-all', ACL: 'public-read' }))
    for (const bucket of ['closed', 'open-to-all'])
      await gateway.s3.send(new PutObjectCommand({ Bucket: bucket, Key: 'k', Body: 'x' }))
  })

  const reads = ['GET %/k', 'HEAD %/k', 'GET %', 'GET %?list-type=2', 'HEAD %']
  const others = [
    'PUT %/k',
    'DELETE %/k',
    'POST %?delete',
    'POST %/k?uploads',
    'GET %?acl',
    'GET %?location',
    'GET %?versioning',
    'GET %?policy',
    'GET %?uploads',
    'GET %/k?attributes',
    'DELETE %',
    'PUT %?versioning'
  ]

  for (const [who, key] of [['nobody', undefined] as const, ['bob', bob] as const]) {
    test(`${who} in alice's closed bucket`, async () => {
      for (const line of [...reads, ...others]) {
        const [method, target] = line.replace('%', '/closed').split(' ') as [string, string]
        const reply = await send(gateway.port, {
          method,
          target,
          ...(key && { key }),
          body: method === 'GET' || method === 'HEAD' ? undefined : ''
        })
        expect([line, reply.status]).toEqual([line, 403])
      }
    })

    test(`${who} in alice's public bucket`, async () => {
      for (const line of reads) {
        const [method, target] = line.replace('%', '/open-to-all').split(' ') as [string, string]
        expect([line, (await send(gateway.port, { method, target, ...(key && { key }) })).status]).toEqual([line, 200])
      }
      for (const line of others) {
        const [method, target] = line.replace('%', '/open-to-all').split(' ') as [string, string]
        const reply = await send(gateway.port, {
          method,
          target,
          ...(key && { key }),
          body: method === 'GET' ? undefined : ''
        })
        expect([line, reply.code]).toEqual([line, 'AccessDenied'])
      }
    })
  }

  test('nobody has no buckets', async () => {
    expect((await send(gateway.port, { method: 'GET', target: '/' })).code).toBe('AccessDenied')
    expect((await send(gateway.port, { method: 'PUT', target: '/mine', body: '' })).code).toBe('AccessDenied')
  })

  test('a bucket that is not whose the client thinks', async () => {
    const head = (owner: string) =>
      gateway.s3.send(new HeadBucketCommand({ Bucket: 'closed', ExpectedBucketOwner: owner }))
    await head('alice')
    await expect(head('bob')).rejects.toMatchObject({ $metadata: { httpStatusCode: 403 } })
  })

  test('a copy needs the right to read its source', async () => {
    await gateway.client(bob).send(new CreateBucketCommand({ Bucket: 'of-bob' }))
    const copy = (source: string) =>
      send(gateway.port, {
        method: 'PUT',
        target: '/of-bob/k',
        key: bob,
        headers: { 'x-amz-copy-source': source, 'content-length': '0' }
      })
    expect(await copy('/closed/k')).toMatchObject({ status: 403, code: 'AccessDenied' })
    expect((await copy('/open-to-all/k')).status).toBe(200)
  })

  test('access control lists say what holds', async () => {
    const grants = async (bucket: string) => (await gateway.s3.send(new GetBucketAclCommand({ Bucket: bucket }))).Grants
    const owner = { Grantee: { Type: 'CanonicalUser', ID: 'alice', DisplayName: 'Alice' }, Permission: 'FULL_CONTROL' }
    expect(await grants('closed')).toEqual([owner])
    expect(await grants('open-to-all')).toEqual([
      { Grantee: { Type: 'Group', URI: 'http://acs.amazonaws.com/groups/global/AllUsers' }, Permission: 'READ' },
      owner
    ])
    await gateway.s3.send(new PutBucketAclCommand({ Bucket: 'closed', ACL: 'private' }))
    await gateway.s3.send(new PutBucketAclCommand({ Bucket: 'open-to-all', ACL: 'public-read' }))
    expect(await refusal(gateway.s3.send(new PutBucketAclCommand({ Bucket: 'closed', ACL: 'public-read' })))).toBe(
      'NotImplemented'
    )
    expect(await refusal(gateway.s3.send(new PutBucketAclCommand({ Bucket: 'open-to-all', ACL: 'private' })))).toBe(
      'NotImplemented'
    )
  })
})

describe('what clients ask of a bucket on which nothing was configured', () => {
  beforeEach(async () => {
    await gateway.s3.send(new CreateBucketCommand({ Bucket: 'photos' }))
  })

  test.each([
    ['policy', 404, 'NoSuchBucketPolicy'],
    ['cors', 404, 'NoSuchCORSConfiguration'],
    ['lifecycle', 404, 'NoSuchLifecycleConfiguration'],
    ['tagging', 404, 'NoSuchTagSet'],
    ['encryption', 404, 'ServerSideEncryptionConfigurationNotFoundError'],
    ['object-lock', 404, 'ObjectLockConfigurationNotFoundError'],
    ['website', 404, 'NoSuchWebsiteConfiguration'],
    ['replication', 404, 'ReplicationConfigurationNotFoundError'],
    ['ownershipControls', 404, 'OwnershipControlsNotFoundError'],
    ['publicAccessBlock', 404, 'NoSuchPublicAccessBlockConfiguration'],
    ['metrics&id=1', 404, 'NoSuchConfiguration'],
    ['metrics', 200, undefined],
    ['notification', 200, undefined],
    ['logging', 200, undefined],
    ['accelerate', 200, undefined],
    ['requestPayment', 200, undefined],
    ['versioning', 200, undefined]
  ])('GET ?%s', async (subresource, status, code) => {
    expect(await send(gateway.port, { method: 'GET', target: `/photos?${subresource}`, key: alice })).toMatchObject({
      status,
      code
    })
  })

  test('it has no versioning', async () => {
    expect((await gateway.s3.send(new GetBucketVersioningCommand({ Bucket: 'photos' }))).Status).toBeUndefined()
  })

  test('configuring it is not implemented; removing what is not there succeeds', async () => {
    for (const subresource of ['policy', 'cors', 'lifecycle', 'tagging', 'encryption', 'website']) {
      const target = `/photos?${subresource}`
      expect(await send(gateway.port, { method: 'PUT', target, key: alice, body: '<x/>' })).toMatchObject({
        status: 501,
        code: 'NotImplemented'
      })
      expect((await send(gateway.port, { method: 'DELETE', target, key: alice })).status).toBe(204)
    }
    expect(
      await send(gateway.port, { method: 'PUT', target: '/photos?versioning', key: alice, body: '<x/>' })
    ).toMatchObject({ status: 501 })
  })

  test('browsers of other origins are told that there are no rules for them', async () => {
    const ask = (headers: Record<string, string>) =>
      send(gateway.port, { method: 'OPTIONS', target: '/photos/k', headers })
    expect(await ask({ origin: 'http://a', 'access-control-request-method': 'GET' })).toMatchObject({
      status: 403,
      code: 'AccessForbidden'
    })
    expect(await ask({})).toMatchObject({ status: 400, code: 'BadRequest' })
  })
})

test('virtual-host style', async () => {
  await gateway.s3.send(new CreateBucketCommand({ Bucket: 'photos' }))
  const at = (host: string, method: string, target: string, body?: string) =>
    send(gateway.port, { method, target, key: alice, headers: { host }, ...(body !== undefined && { body }) })
  expect((await at('photos.s3.localhost', 'PUT', '/a/b%20c', 'hello')).status).toBe(200)
  expect((await at('photos.localhost:1234', 'GET', '/a/b%20c')).text).toBe('hello')
  expect((await at('photos.localhost', 'GET', '/?list-type=2')).text).toContain('<Key>a/b c</Key>')
  expect((await at('localhost', 'GET', '/photos/a/b%20c')).text).toBe('hello')
  // Below a bucket's own host this is a key like any other.
  expect((await at('photos.localhost', 'PUT', '/ipfs/x', 'k')).status).toBe(200)
})
