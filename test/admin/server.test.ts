import { request as httpRequest } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { AdminBackend, GatewayStatus, KeyView, ProviderView } from '../../src/admin/backend.ts'
import { createMetrics, type Metrics } from '../../src/admin/metrics.ts'
import { type AdminServer, startAdminServer } from '../../src/admin/server.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'

interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  json: () => Record<string, unknown>
}

interface Call {
  method?: string
  headers?: Record<string, string>
  body?: string
}

/** Not `fetch`: it would set the Host header itself, and tidy the path. */
function call(origin: string, path: string, { method = 'GET', headers = {}, body }: Call = {}): Promise<Answer> {
  const { hostname, port } = new URL(origin)
  return new Promise((resolve, reject) => {
    const request = httpRequest({ hostname, port, path, method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json: () => JSON.parse(text) })
      })
    })
    request.on('error', reject)
    request.end(body)
  })
}

const status: GatewayStatus = {
  peerId: '12D3KooWGateway',
  version: '0.1.0',
  endpoint: 'http://127.0.0.1:9000',
  addresses: [],
  startedAt: '2026-01-01T00:00:00.000Z',
  ready: true,
  reasons: [],
  providers: { online: 3, offline: 1, contained: 0, unknown: 0 },
  capacityBytes: 3000,
  freeBytes: 2000,
  buckets: 1,
  objects: 2,
  objectBytes: 300,
  segments: 4,
  shards: 12,
  incompleteSegments: 1,
  codes: { STANDARD: '1+2', REDUCED_REDUNDANCY: '1+2' },
  kernels: { erasure: 'WASM, SIMD', blake3: 'native' }
}

const provider: ProviderView = {
  peerId: '12D3KooWProvider',
  state: 'online',
  domain: '<script>alert(1)</script>',
  version: '0.1.0',
  capacityBytes: 1000,
  freeBytes: 400,
  price: 0,
  accepting: true,
  shards: 5,
  shardBytes: 500,
  latencyMs: 3.5,
  lastSeenAt: '2026-01-01T00:00:00.000Z',
  outcomes: { ok: 5 },
  dataUrls: ['https://127.0.0.1:4002'],
  addresses: []
}

class FakeBackend implements AdminBackend {
  reasons: string[] = []
  keys: KeyView[] = []
  asked: string[] = []

  readiness = async () => this.reasons
  status = async () => status
  providers = async () => [provider]
  objectHealth = async (bucket: string, key: string) => {
    this.asked.push(`${bucket} ${key}`)
    if (bucket === 'absent') throw new HoldfastError('NO_SUCH_BUCKET', 'there is no bucket absent')
    if (key === 'broken') throw new TypeError('secret internals at /var/lib')
    return { cid: 'bafy', size: 1, segments: [], blocks: [] }
  }
  repairs = async (limit: number) => ({
    items: [{ segment: 1, code: '1+2', healthy: 2, margin: 1, wanted: 1 }].slice(0, limit),
    isTruncated: false
  })
  audits = async () => ({ items: [], isTruncated: false })
  listKeys = async () => this.keys
  createKey = async (account = 'default') => {
    const key = { accessKeyId: `HF${this.keys.length}`, account, createdAt: '2026-01-01T00:00:00.000Z' }
    this.keys.push(key)
    return { ...key, secretAccessKey: 'secret' }
  }
  revokeKey = async (accessKeyId: string) => {
    const before = this.keys.length
    this.keys = this.keys.filter((key) => key.accessKeyId !== accessKeyId)
    if (this.keys.length === before) throw new HoldfastError('NO_SUCH_KEY', `there is no access key ${accessKeyId}`)
  }
}

describe('the admin server', () => {
  let backend: FakeBackend
  let metrics: Metrics
  let server: AdminServer
  const ask = (path: string, options?: Call): Promise<Answer> => call(server.origin, path, options)

  beforeEach(async () => {
    backend = new FakeBackend()
    metrics = createMetrics(backend)
    server = await startAdminServer({ host: '127.0.0.1', port: 0, backend, metrics, log: silentLog })
  })
  afterEach(() => server.close())

  it('says that it lives, and whether requests can be served', async () => {
    expect((await ask('/healthz')).status).toBe(200)
    expect((await ask('/readyz')).status).toBe(200)
    backend.reasons = ['too few providers', 'the index cannot be read']
    const answer = await ask('/readyz')
    expect(answer.status).toBe(503)
    expect(answer.json()).toEqual({ code: 'NOT_READY', message: 'too few providers; the index cannot be read' })
  })

  it('shows status, providers, repairs and audits as JSON', async () => {
    expect((await ask('/v1/status')).json()).toEqual(status)
    expect((await ask('/v1/providers')).json()).toEqual({ providers: [provider] })
    expect((await ask('/v1/repairs?limit=1')).json()).toMatchObject({ items: [{ segment: 1 }], isTruncated: false })
    expect((await ask('/v1/audits')).json()).toEqual({ items: [], isTruncated: false })
    expect((await ask('/v1/status')).headers['content-type']).toBe('application/json')
  })

  it.each(['0', '1001', '-1', 'x', '1.5', ''])('refuses the limit "%s"', async (limit) => {
    const answer = await ask(`/v1/repairs?limit=${limit}`)
    expect(answer.status).toBe(400)
    expect(answer.json().code).toBe('BAD_INPUT')
  })

  it.each([
    ['/v1/objects/b/plain.txt', 'b plain.txt'],
    ['/v1/objects/b/a/../c//d/', 'b a/../c//d/'],
    ['/v1/objects/b/a%2Fb%3Fc%23d%20e', 'b a/b?c#d e'],
    ['/v1/objects/b/%E2%98%83%0Anext', 'b \u2603\nnext']
  ])('takes the key of %s as it stands', async (path, asked) => {
    expect((await ask(path)).status).toBe(200)
    expect(backend.asked).toEqual([asked])
  })

  it('answers errors as code and message, and keeps internals to itself', async () => {
    const missing = await ask('/v1/objects/absent/key')
    expect([missing.status, missing.json()]).toEqual([
      404,
      { code: 'NO_SUCH_BUCKET', message: 'there is no bucket absent' }
    ])
    const broken = await ask('/v1/objects/b/broken')
    expect([broken.status, broken.json().code]).toEqual([500, 'INTERNAL'])
    expect(broken.text).not.toContain('/var/lib')
    expect((await ask('/v1/objects/b/%E2%28')).status).toBe(400)
    expect((await ask('/v1/nothing')).json().code).toBe('NOT_FOUND')
    expect((await ask(`/v1/objects/b/${'a'.repeat(9000)}`)).status).toBe(414)
  })

  it('names the methods a path takes', async () => {
    const answer = await ask('/v1/providers', { method: 'POST' })
    expect([answer.status, answer.headers.allow, answer.json().code]).toEqual([405, 'GET, HEAD', 'METHOD_NOT_ALLOWED'])
    expect((await ask('/v1/repair', { method: 'POST' })).status).toBe(404)
    const head = await ask('/v1/status', { method: 'HEAD' })
    expect([head.status, head.text]).toEqual([200, ''])
  })

  describe('against web pages', () => {
    const admin = { 'x-holdfast-admin': '1' }

    it.each(['evil.example', 'evil.example:9001', '127.0.0.1.evil.example', 'localhost.evil.example', 'a b'])(
      'refuses to be called "%s", as DNS rebinding would',
      async (host) => {
        for (const path of ['/', '/v1/status', '/v1/keys', '/metrics', '/readyz']) {
          const answer = await ask(path, { headers: { host, ...admin } })
          expect([path, answer.status, answer.json().code]).toEqual([path, 421, 'WRONG_HOST'])
        }
      }
    )

    it.each(['localhost:9001', '127.0.0.1', '[::1]:9001', 'LOCALHOST'])('answers to %s', async (host) => {
      expect((await ask('/v1/status', { headers: { host } })).status).toBe(200)
    })

    it.each([
      ['without the header', {}],
      ['from a page of another origin', { ...admin, origin: 'http://evil.example' }],
      ['from another port of this machine', { ...admin, origin: 'http://127.0.0.1:1' }],
      ['from a sandboxed page', { ...admin, origin: 'null' }],
      ['across sites', { ...admin, 'sec-fetch-site': 'cross-site' }],
      ['through a proxy', { ...admin, 'x-forwarded-for': '192.0.2.1' }]
    ] as Array<[string, Record<string, string>]>)(
      'neither shows nor makes nor revokes keys %s',
      async (_name, headers) => {
        backend.keys = [{ accessKeyId: 'HF0', account: 'default', createdAt: '2026-01-01T00:00:00.000Z' }]
        const json = { 'content-type': 'application/json' }
        const answers = [
          await ask('/v1/keys', { headers }),
          await ask('/v1/keys', { method: 'POST', headers: { ...headers, ...json }, body: '{}' }),
          await ask('/v1/keys/HF0', { method: 'DELETE', headers })
        ]
        expect(answers.map((answer) => [answer.status, answer.json().code])).toEqual(Array(3).fill([403, 'FORBIDDEN']))
        expect(backend.keys).toHaveLength(1)
      }
    )

    it('allows no other origin anything', async () => {
      const preflight = await ask('/v1/keys', {
        method: 'OPTIONS',
        headers: { origin: 'http://evil.example', 'access-control-request-headers': 'x-holdfast-admin' }
      })
      expect(preflight.status).toBe(405)
      expect(Object.keys(preflight.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
    })
  })

  describe('keys', () => {
    const headers = { 'x-holdfast-admin': '1', 'content-type': 'application/json' }
    const create = (body: string): Promise<Answer> => ask('/v1/keys', { method: 'POST', headers, body })

    it('makes, lists and revokes them; the secret is shown once', async () => {
      const made = await create('{"account":"photos"}')
      expect([made.status, made.json()]).toMatchObject([
        201,
        { accessKeyId: 'HF0', account: 'photos', secretAccessKey: 'secret' }
      ])
      const listed = await ask('/v1/keys', { headers })
      expect(listed.json()).toMatchObject({ keys: [{ accessKeyId: 'HF0', account: 'photos' }] })
      expect(listed.text).not.toContain('secret')
      expect((await ask('/v1/keys/HF0', { method: 'DELETE', headers })).status).toBe(204)
      const again = await ask('/v1/keys/HF0', { method: 'DELETE', headers })
      expect([again.status, again.json().code]).toEqual([404, 'NO_SUCH_KEY'])
    })

    it.each([
      '',
      '[]',
      'null',
      '"x"',
      '{',
      '{"acount":"x"}',
      '{"account":1}',
      '{"account":""}',
      '{"account":"a/b"}',
      `{"account":"${'a'.repeat(65)}"}`
    ])('refuses the body %s', async (body) => {
      expect((await create(body)).status).toBe(400)
      expect(backend.keys).toEqual([])
    })

    it('reads no endless body, and none that is not JSON', async () => {
      expect((await create(`{"account":"${'a'.repeat(5000)}"}`)).status).toBe(413)
      const form = { ...headers, 'content-type': 'application/x-www-form-urlencoded' }
      expect((await ask('/v1/keys', { method: 'POST', headers: form, body: '{}' })).status).toBe(415)
    })
  })

  it('counts requests and shows the network in the metrics', async () => {
    metrics.observeRequest({ operation: 'PutObject', status: 200, durationMs: 20, bytesIn: 100, bytesOut: 7 })
    metrics.observeRequest({ operation: 'PutObject', status: 503, durationMs: 20, bytesIn: 10, bytesOut: 0 })
    const answer = await ask('/metrics')
    expect(answer.headers['content-type']).toMatch(/^text\/plain/)
    for (const line of [
      'holdfast_s3_requests_total{operation="PutObject",status="200"} 1',
      'holdfast_s3_requests_total{operation="PutObject",status="503"} 1',
      'holdfast_s3_request_duration_seconds_count{operation="PutObject"} 2',
      'holdfast_s3_bytes_total{direction="in"} 110',
      'holdfast_providers{state="online"} 3',
      'holdfast_providers{state="offline"} 1',
      'holdfast_segments_incomplete 1',
      'holdfast_ready 1'
    ]) {
      expect(answer.text.split('\n')).toContain(line)
    }
    expect(answer.text).toContain('process_cpu_seconds_total')
  })

  it('serves the dashboard whole, under a policy that lets nothing else in', async () => {
    const answer = await ask('/')
    expect(answer.status).toBe(200)
    const policy = String(answer.headers['content-security-policy'])
    expect(policy).toContain("default-src 'none'")
    expect(policy).not.toContain('unsafe-')
    expect(answer.text).not.toMatch(/(?:src|href)="(?:https?:)?\/\//)
    expect(answer.text).not.toContain('innerHTML')
  })
})

it('says which address it could not have', async () => {
  const backend = new FakeBackend()
  const init = { backend, metrics: createMetrics(backend), log: silentLog, host: '127.0.0.1' }
  const first = await startAdminServer({ ...init, port: 0 })
  const port = Number(new URL(first.origin).port)
  await expect(startAdminServer({ ...init, port })).rejects.toMatchObject({
    code: 'BAD_CONFIG',
    message: expect.stringContaining(`127.0.0.1:${port}`)
  })
  await first.close()
})
