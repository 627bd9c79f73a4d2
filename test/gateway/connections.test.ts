import 'reflect-metadata'
import { Agent, request as httpRequest } from 'node:http'
import { Agent as TlsAgent } from 'node:https'
import { GetObjectCommand, ListBucketsCommand } from '@aws-sdk/client-s3'
import { X509CertificateGenerator } from '@peculiar/x509'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/limits.ts'
import {
  alice,
  headText,
  RawConnection,
  type RawRequest,
  send,
  signHeaders,
  startGateway,
  type TestGateway
} from '../support/s3-gateway.ts'

let gateway: TestGateway
afterEach(async () => await gateway.close())

async function start(options: Parameters<typeof startGateway>[0] = {}): Promise<void> {
  gateway = await startGateway(options)
  await gateway.store.createBucket('bucket', { owner: 'alice', displayName: 'Alice' })
}

const fill = (key: string, sizeBytes: number) =>
  gateway.store.putObject({
    bucket: 'bucket',
    key,
    body: {
      bytes: (async function* () {
        yield Buffer.alloc(sizeBytes, 'x')
      })()
    },
    headers: {},
    userMetadata: {},
    storageClass: 'STANDARD'
  })

const put = (more: Partial<RawRequest> = {}): RawRequest => ({
  method: 'PUT',
  target: '/bucket/k',
  key: alice,
  payloadHash: 'UNSIGNED-PAYLOAD',
  ...more
})
/** The head of a signed request, as bytes for a socket. */
const head = (request: RawRequest, more: Record<string, string>): string =>
  headText(request.method, request.target, { ...signHeaders(gateway.port, request).headers, ...more })
const observed = async (operation: string) =>
  await vi.waitUntil(() => gateway.observations.find((observation) => observation.operation === operation))

describe('Expect: 100-continue', () => {
  test('an upload that is wanted is asked for', async () => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(head(put(), { 'content-length': '5', expect: '100-continue' }))
    await connection.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
    connection.write('hello')
    await connection.until(/HTTP\/1\.1 200 OK/)
    connection.socket.destroy()
  })

  test.each<[string, number, Partial<RawRequest>]>([
    ['wrong secret', 403, { key: { ...alice, secretAccessKey: 'x' } }],
    ['no such bucket', 404, { target: '/absent/k' }],
    ['bad digest', 400, { headers: { 'content-md5': 'x' } }],
    ['bad checksum', 400, { headers: { 'x-amz-checksum-crc32': 'x' } }],
    ['unknown upload', 404, { target: '/bucket/k?uploadId=x&partNumber=1' }]
  ])('one that is not is refused at once: %s', async (_name, status, request) => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(head(put(request), { 'content-length': '1000000', expect: '100-continue' }))
    const received = await connection.closed()
    expect(received).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(received).toMatch(/connection: close/i)
    expect(received).not.toContain('100 Continue')
  })

  test('too large for a single PUT', async () => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(head(put(), { 'content-length': String(5 * 1024 * MiB + 1), expect: '100-continue' }))
    expect(await connection.closed()).toMatch(/^HTTP\/1\.1 400 [\s\S]*<Code>EntityTooLarge<\/Code>/)
  })

  test('other expectations are passed over', async () => {
    await start()
    expect((await send(gateway.port, put({ headers: { expect: 'miracles' }, body: 'x' }))).status).toBe(200)
  })
})

describe('a refused body', () => {
  test('of moderate size leaves the connection usable', async () => {
    await start()
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    try {
      for (const size of [1, 100_000, MiB]) {
        const refused = await send(gateway.port, put({ target: '/absent/k', body: Buffer.alloc(size) }), agent)
        expect([refused.code, refused.headers.connection]).toEqual(['NoSuchBucket', 'keep-alive'])
      }
      expect((await send(gateway.port, put({ body: 'x' }), agent)).status).toBe(200)
      expect(gateway.server.stats().connections).toBe(1)
    } finally {
      agent.destroy()
    }
  })

  test('that is large gets its answer and ends the connection', async () => {
    await start()
    const refused = await send(gateway.port, put({ target: '/absent/k', body: Buffer.alloc(20 * MiB) }))
    expect([refused.code, refused.headers.connection]).toEqual(['NoSuchBucket', 'close'])
    expect(await observed('PutObject')).toMatchObject({ status: 404, bytesIn: 20 * MiB })
  })

  test('that fails in the middle leaves nothing behind', async () => {
    await start()
    const reply = await send(gateway.port, put({ payloadHash: 'ab'.repeat(32), body: Buffer.alloc(3 * MiB) }))
    expect(reply.code).toBe('XAmzContentSHA256Mismatch')
    expect((await send(gateway.port, { method: 'GET', target: '/bucket/k', key: alice })).code).toBe('NoSuchKey')
  })
})

describe('lengths', () => {
  test('an upload must have one', async () => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(head(put(), {}))
    await connection.until(/^HTTP\/1\.1 411 [\s\S]*<Code>MissingContentLength<\/Code>/)
    connection.socket.destroy()
  })

  test('or come in chunks of HTTP', async () => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(`${head(put(), { 'transfer-encoding': 'chunked' })}5\r\nhello\r\n0\r\n\r\n`)
    await connection.until(/^HTTP\/1\.1 200 OK/)
    connection.socket.destroy()
    expect((await send(gateway.port, { method: 'GET', target: '/bucket/k', key: alice })).text).toBe('hello')
  })

  test('a client that goes away in the middle has uploaded nothing', async () => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(`${head(put(), { 'content-length': '100' })}half of it`)
    await vi.waitUntil(() => gateway.server.stats().requests === 1)
    connection.socket.end()
    await connection.closed()
    expect((await observed('PutObject')).bytesIn).toBeLessThan(100)
    expect(gateway.server.stats().requests).toBe(0)
    await expect(gateway.store.headObject('bucket', 'k')).rejects.toThrow(
      expect.objectContaining({ code: 'NO_SUCH_KEY' })
    )
  })

  test('a client that falls silent in the middle is told', async () => {
    await start({ idleTimeoutMs: 50 })
    const connection = new RawConnection(gateway.port)
    connection.write(`${head(put(), { 'content-length': '100' })}half of it`)
    expect(await connection.closed()).toMatch(
      /^HTTP\/1\.1 400 [\s\S]*connection: close[\s\S]*<Code>RequestTimeout<\/Code>/i
    )
    await expect(gateway.store.headObject('bucket', 'k')).rejects.toThrow(
      expect.objectContaining({ code: 'NO_SUCH_KEY' })
    )
  })
})

describe('reads that fail', () => {
  const brokenOff = /aborted|hang up|ECONNRESET/
  const outcome = async (work: Promise<unknown>): Promise<string> =>
    await work.then(
      () => 'a whole answer',
      (error: Error) => error.message
    )

  const unreadable = new HoldfastError('UNREADABLE', 'segment 3: 4 of 6 shards can be had')

  test('before the first byte: an error with its reason', async () => {
    await start()
    await fill('k', MiB)
    gateway.store.failReadsAfter = { bytes: 0, error: unreadable }
    const reply = await send(gateway.port, { method: 'GET', target: '/bucket/k', key: alice })
    expect([reply.status, reply.code, reply.headers['retry-after']]).toEqual([503, 'ServiceUnavailable', '1'])
    expect(reply.text).toContain('4 of 6 shards')
    expect(gateway.store.openCount).toBe(0)
  })

  test('after it: a broken connection, never a body that looks whole', async () => {
    await start()
    await fill('k', 4 * MiB)
    gateway.store.failReadsAfter = { bytes: MiB, error: unreadable }
    expect(await outcome(send(gateway.port, { method: 'GET', target: '/bucket/k', key: alice }))).toMatch(brokenOff)
    const client = await gateway.s3.send(new GetObjectCommand({ Bucket: 'bucket', Key: 'k' }))
    await expect(client.Body!.transformToByteArray()).rejects.toThrow()
    expect(gateway.store.openCount).toBe(0)
  })

  test('a store that gives too few bytes', async () => {
    await start()
    await fill('k', 4 * MiB)
    const openObject = gateway.store.openObject.bind(gateway.store)
    gateway.store.openObject = async (bucket, key) => {
      const open = await openObject(bucket, key)
      return { ...open, read: (start, end, signal) => open.read(start, end - 1000, signal) }
    }
    expect(await outcome(send(gateway.port, { method: 'GET', target: '/bucket/k', key: alice }))).toMatch(brokenOff)
    expect(gateway.store.openCount).toBe(0)
  })

  test('what breaks in here stays in here', async () => {
    await start()
    gateway.store.headObject = async () => {
      throw new Error('row 7 of /var/db')
    }
    const reply = await send(gateway.port, { method: 'GET', target: '/bucket/k?acl', key: alice })
    expect([reply.status, reply.code]).toEqual([500, 'InternalError'])
    expect(reply.text).not.toContain('row 7')
  })
})

describe('clients that do not read', () => {
  const size = 64 * MiB

  /** Asks for a large object and takes no more than its head. */
  async function glance(): Promise<RawConnection> {
    await fill('k', size)
    const connection = new RawConnection(gateway.port)
    connection.write(head({ method: 'GET', target: '/bucket/k', key: alice }, {}))
    await connection.until(/HTTP\/1\.1 200 OK/)
    connection.socket.pause()
    return connection
  }

  test('and go away: the read ends', async () => {
    await start()
    const connection = await glance()
    connection.socket.destroy()
    expect((await observed('GetObject')).bytesOut).toBeLessThan(size / 2)
    expect([gateway.store.unfinishedReads, gateway.store.openCount]).toEqual([1, 0])
  })

  test('and stay: they are cut off, and little was read for them', async () => {
    await start({ idleTimeoutMs: 50 })
    const connection = await glance()
    expect((await observed('GetObject')).bytesOut).toBeLessThan(size / 2)
    expect([gateway.store.unfinishedReads, gateway.store.openCount]).toEqual([1, 0])
    connection.socket.destroy()
  })
})

describe('what is no request', () => {
  test.each([
    ['nonsense', 'hello there\r\n\r\n', 'BadRequest'],
    ['a negative length', 'PUT /bucket/k HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n', 'BadRequest'],
    [
      'a length twice',
      'PUT /bucket/k HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
      'BadRequest'
    ],
    ['a head without end', `GET / HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(70_000)}`, 'RequestHeaderSectionTooLarge']
  ])('%s', async (_name, text, code) => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(text)
    expect(await connection.closed()).toMatch(new RegExp(`^HTTP/1\\.1 400 [\\s\\S]*<Code>${code}</Code>`))
  })

  test('a broken chunk while the body is read ends the connection', async () => {
    await start()
    const connection = new RawConnection(gateway.port)
    connection.write(head(put(), { 'transfer-encoding': 'chunked' }))
    await vi.waitUntil(() => gateway.server.stats().requests === 1)
    connection.write('zz\r\n')
    await connection.closed()
    await observed('PutObject')
    await expect(gateway.store.headObject('bucket', 'k')).rejects.toThrow(
      expect.objectContaining({ code: 'NO_SUCH_KEY' })
    )
  })
})

test('more requests at once than are allowed are told to slow down', async () => {
  await start({ requestsMax: 1 })
  const gate = Promise.withResolvers<void>()
  gateway.store.beforeUpload = () => gate.promise
  const first = send(gateway.port, put({ body: 'x' }))
  await vi.waitUntil(() => gateway.server.stats().requests === 1)
  const second = await send(gateway.port, { method: 'GET', target: '/', key: alice })
  expect([second.status, second.code, second.headers['retry-after']]).toEqual([503, 'SlowDown', '1'])
  gate.resolve()
  expect((await first).status).toBe(200)
  expect((await send(gateway.port, { method: 'GET', target: '/', key: alice })).status).toBe(200)
})

test('requests are observed', async () => {
  await start()
  await send(gateway.port, put({ body: Buffer.alloc(1000) }))
  await send(gateway.port, { method: 'GET', target: '/bucket/k', key: alice, headers: { range: 'bytes=0-9' } })
  await send(gateway.port, { method: 'BREW', target: '/bucket/k' }).catch(() => {}) // not even HTTP
  await send(gateway.port, { method: 'PATCH', target: '/bucket/k', key: alice })
  await vi.waitUntil(() => gateway.observations.length === 3)
  expect(gateway.observations).toMatchObject([
    { operation: 'PutObject', status: 200, bytesIn: 1000, bytesOut: 0 },
    { operation: 'GetObject', status: 206, bytesIn: 0, bytesOut: 10 },
    { operation: 'Unknown', status: 405 }
  ])
  expect(gateway.observations.every((observation) => observation.durationMs >= 0)).toBe(true)
})

describe('closing', () => {
  test('lets requests end, and takes no more', async () => {
    await start()
    const agent = new Agent({ keepAlive: true })
    expect((await send(gateway.port, put({ body: 'x' }), agent)).status).toBe(200)
    const gate = Promise.withResolvers<void>()
    gateway.store.beforeUpload = () => gate.promise
    const underway = send(gateway.port, put({ target: '/bucket/late', body: 'x' }), agent)
    await vi.waitUntil(() => gateway.server.stats().requests === 1)
    const closed = gateway.server.close(20_000)
    gate.resolve()
    expect((await underway).headers.connection).toBe('close')
    await closed
    await expect(send(gateway.port, put({ body: 'x' }))).rejects.toThrow(/ECONNREFUSED/)
    agent.destroy()
  })

  test('cuts off what does not end', async () => {
    await start()
    gateway.store.beforeUpload = () => new Promise(() => {})
    const outgoing = httpRequest({
      host: '127.0.0.1',
      port: gateway.port,
      method: 'PUT',
      path: '/bucket/k',
      headers: { ...signHeaders(gateway.port, put()).headers, 'content-length': '1' }
    })
    const failed = new Promise<Error>((resolve) => outgoing.once('error', resolve))
    outgoing.end('x')
    await vi.waitUntil(() => gateway.server.stats().requests === 1)
    await gateway.server.close(1)
    expect((await failed).message).toMatch(/hang up|ECONNRESET/)
  })
})

test('over TLS', async () => {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=127.0.0.1',
    notBefore: new Date(Date.now() - 3_600_000),
    notAfter: new Date(Date.now() + 3_600_000),
    keys,
    signingAlgorithm: algorithm
  })
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
  await start({
    tls: { cert: certificate.toString('pem'), key: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----` }
  })
  const s3 = gateway.client(alice, {
    endpoint: `https://127.0.0.1:${gateway.port}`,
    requestHandler: { httpsAgent: new TlsAgent({ rejectUnauthorized: false }) }
  })
  expect((await s3.send(new ListBucketsCommand())).Buckets).toMatchObject([{ Name: 'bucket' }])
})
