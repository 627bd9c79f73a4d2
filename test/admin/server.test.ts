import { request as httpRequest, type IncomingMessage } from 'node:http'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { auditOutcomes, createMetrics, type Metrics } from '../../src/admin/metrics.ts'
import { type AdminServer, startAdminServer } from '../../src/admin/server.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { type Log, silentLog } from '../../src/base/log.ts'
import { custodyOutcomes } from '../../src/custody/outcome.ts'
import {
  acceptance,
  auditView,
  FakeBackend,
  help,
  plan,
  provider,
  scoreEvent,
  status
} from '../support/fake-backend.ts'

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
      response.on('error', reject)
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

describe('the admin server', () => {
  let backend: FakeBackend
  let metrics: Metrics
  let server: AdminServer
  let errors: string[]
  const ask = (path: string, options?: Call): Promise<Answer> => call(server.origin, path, options)

  beforeEach(async () => {
    backend = new FakeBackend()
    metrics = createMetrics(backend)
    errors = []
    const log: Log = { ...silentLog, error: (message) => void errors.push(message) }
    server = await startAdminServer({ host: '127.0.0.1', port: 0, backend, metrics, log })
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
    expect((await ask('/v1/audits')).json()).toEqual({ items: [auditView, auditView], isTruncated: false })
    expect((await ask('/v1/audits?limit=1')).json()).toEqual({ items: [auditView], isTruncated: true })
    expect((await ask('/v1/status')).headers['content-type']).toBe('application/json')
  })

  it.each(['0', '1001', '-1', 'x', '1.5', ''])('refuses the limit "%s"', async (limit) => {
    for (const path of ['/v1/repairs', '/v1/audits']) {
      const answer = await ask(`${path}?limit=${limit}`)
      expect([answer.status, answer.json().code]).toEqual([400, 'BAD_INPUT'])
    }
  })

  it('shows the score of a provider with what moved it', async () => {
    const answer = await ask(`/v1/providers/${provider.peerId}/score`)
    expect([answer.status, answer.json()]).toEqual([200, { score: provider.score, events: [scoreEvent] }])
    const unknown = await ask('/v1/providers/12D3KooWNobody/score')
    expect([unknown.status, unknown.json().code]).toEqual([404, 'MISSING'])
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
    expect((await ask('/v1/nothing', { method: 'POST' })).status).toBe(404)
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
      'neither shows nor makes nor revokes keys nor audits %s',
      async (_name, headers) => {
        backend.keys = [{ accessKeyId: 'HF0', account: 'default', createdAt: '2026-01-01T00:00:00.000Z' }]
        const json = { 'content-type': 'application/json' }
        const answers = [
          await ask('/v1/keys', { headers }),
          await ask('/v1/keys', { method: 'POST', headers: { ...headers, ...json }, body: '{}' }),
          await ask('/v1/keys/HF0', { method: 'DELETE', headers }),
          await ask('/v1/audit', { method: 'POST', headers: { ...headers, ...json }, body: '{}' })
        ]
        expect(answers.map((answer) => [answer.status, answer.json().code])).toEqual(Array(4).fill([403, 'FORBIDDEN']))
        expect(backend.keys).toHaveLength(1)
        expect(backend.targets).toEqual([])
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
      expect((await create(`{"account":"${'a'.repeat(9000)}"}`)).status).toBe(413)
      const form = { ...headers, 'content-type': 'application/x-www-form-urlencoded' }
      expect((await ask('/v1/keys', { method: 'POST', headers: form, body: '{}' })).status).toBe(415)
    })
  })

  describe('audits', () => {
    const headers = { 'x-holdfast-admin': '1', 'content-type': 'application/json' }
    const audit = (body: string): Promise<Answer> => ask('/v1/audit', { method: 'POST', headers, body })

    it.each([
      ['{}', {}],
      ['{"provider":"12D3KooWProvider"}', { provider: '12D3KooWProvider' }],
      ['{"object":"photos/a/../b//c d"}', { bucket: 'photos', key: 'a/../b//c d' }],
      [JSON.stringify({ object: `b/${'\u0001'.repeat(1024)}` }), { bucket: 'b', key: '\u0001'.repeat(1024) }]
    ])('take %s', async (body, target) => {
      const answer = await audit(body)
      expect([answer.status, answer.json()]).toEqual([200, backend.round])
      expect(backend.targets).toEqual([target])
    })

    it.each([
      '',
      '[]',
      'null',
      '{"all":true}',
      '{"provider":""}',
      '{"provider":null}',
      '{"provider":"a/b"}',
      '{"object":"bucket"}',
      '{"object":"bucket/"}',
      '{"object":"/key"}',
      '{"object":7}',
      '{"provider":"12D3KooWProvider","object":"b/k"}',
      '{"__proto__":{"provider":"12D3KooWProvider"}}'
    ])('refuse the body %s', async (body) => {
      const answer = await audit(body)
      expect([answer.status, answer.json().code]).toEqual([400, 'BAD_INPUT'])
      expect(backend.targets).toEqual([])
    })

    it.each([
      ['MISSING', 404],
      ['NO_SUCH_BUCKET', 404],
      ['NO_SUCH_KEY', 404],
      ['OVERLOADED', 503],
      ['BAD_INPUT', 400]
    ] as const)('answer %s with status %i, and the log is for other things', async (code, expected) => {
      backend.doAudit = async () => {
        throw new HoldfastError(code, 'in words')
      }
      const answer = await audit('{}')
      expect([answer.status, answer.json()]).toEqual([expected, { code, message: 'in words' }])
      expect(errors).toEqual([])
    })

    it('are given up when the client goes away, which is no failure', async () => {
      const aborted = new Promise<unknown>((resolve) => {
        backend.doAudit = (_target, signal) => {
          client.destroy()
          return new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => {
              reject(signal.reason)
              resolve(signal.reason)
            })
          })
        }
      })
      const { hostname, port } = new URL(server.origin)
      const client = httpRequest({ hostname, port, path: '/v1/audit', method: 'POST', headers, agent: false })
      client.on('error', () => {}) // it was cut off by ourselves
      client.end('{}')
      expect(await aborted).toMatchObject({ code: 'ABORTED' })
      expect((await ask('/healthz')).status).toBe(200)
      expect(errors).toEqual([])
    })
  })

  describe('repairs', () => {
    const headers = { 'x-holdfast-admin': '1', 'content-type': 'application/json' }
    const repair = (body: object): Promise<Answer> =>
      ask('/v1/repair', { method: 'POST', headers, body: JSON.stringify(body) })

    it('without a target are of what is owned here', async () => {
      expect((await repair({})).json()).toMatchObject({ isPartial: false, done: plan.totals })
      expect((await ask('/v1/repairs?eager=1&limit=3')).json()).toEqual(plan)
      expect(backend.asked).toEqual(['repair', 'repairs 3 eager'])
      expect((await ask('/v1/repairs?eager=yes')).status).toBe(400)
    })

    it('take a root and where to go on, or a report of up to a MiB', async () => {
      expect((await repair({ cid: 'bafy' })).json()).toEqual({ ...help, root: 'bafy', from: 0 })
      expect((await repair({ cid: 'bafy', from: 7 })).json()).toMatchObject({ from: 7 })
      const report = Buffer.alloc(1024 * 1024, 7).toString('base64')
      expect((await repair({ report })).json()).toEqual(acceptance)
      expect(backend.asked).toEqual(['bafy 0', 'bafy 7', 'report of 1048576 bytes'])
      expect((await repair({ report: report + report })).status).toBe(413)
    })

    it.each([
      { from: 1 },
      { cid: 7 },
      { cid: 'a', from: -1 },
      { cid: 'a', report: 'AAAA' },
      { report: 'a b' },
      { report: '' }
    ])('refuse %j', async (body) => {
      expect((await repair(body)).json()).toMatchObject({ code: 'BAD_INPUT' })
      expect(backend.asked).toEqual([])
    })

    it('are for this machine alone', async () => {
      const bare = { 'content-type': 'application/json' }
      expect((await ask('/v1/repair', { method: 'POST', headers: bare, body: '{"cid":"bafy"}' })).status).toBe(403)
    })
  })

  describe('the export of audits', () => {
    const line = Buffer.from(`${'x'.repeat(99_999)}\n`)

    it('is sent as it is made', async () => {
      backend.doExport = async function* () {
        for (let i = 0; i < 5; i++) yield line
      }
      const answer = await ask('/v1/audits/export')
      expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/x-ndjson'])
      expect(answer.text).toBe(line.toString().repeat(5))
      const head = await ask('/v1/audits/export', { method: 'HEAD' })
      expect([head.status, head.text]).toEqual([200, ''])
    })

    it('is made no faster than it is read, and ends when the reader does', async () => {
      let made = 0
      const ended = new Promise<void>((resolve) => {
        backend.doExport = async function* () {
          try {
            for (; made < 10_000; made++) yield line
          } finally {
            resolve()
          }
        }
      })
      const { hostname, port } = new URL(server.origin)
      const client = httpRequest({ hostname, port, path: '/v1/audits/export', agent: false })
      const response = await new Promise<IncomingMessage>((resolve) => client.on('response', resolve).end())
      response.on('error', () => {}) // it was cut off by ourselves
      await new Promise((resolve) => response.once('readable', resolve)) // and reads no further
      let before = -1
      const isStill = (): boolean => {
        const last = before
        before = made
        return last === made
      }
      await vi.waitUntil(isStill, { interval: 50, timeout: 20_000 })
      expect(made).toBeLessThan(1000) // what two sockets hold: not the gigabyte
      response.destroy()
      await ended
      expect((await ask('/healthz')).status).toBe(200)
      expect(errors).toEqual([])
    })

    it('does not look whole where it broke off', async () => {
      backend.doExport = async function* () {
        yield line
        throw new HoldfastError('DAMAGED', 'the index cannot be read')
      }
      await expect(ask('/v1/audits/export')).rejects.toThrow('aborted')
      expect(errors).toEqual(['admin answer failed'])
    })
  })

  it('counts audits, and shows how custody stands', async () => {
    metrics.observeAudit({ outcomes: { ok: 5, missing: 1 }, latenciesMs: [3, 30, 30, 30, 3000, 40_000] })
    metrics.observeAudit({ outcomes: { timeout: 2 }, latenciesMs: [] })
    const lines = (await ask('/metrics')).text.split('\n')
    for (const line of [
      'holdfast_audit_requests_total 2',
      'holdfast_audit_challenges_total{outcome="ok"} 5',
      'holdfast_audit_challenges_total{outcome="missing"} 1',
      'holdfast_audit_challenges_total{outcome="timeout"} 2',
      'holdfast_audit_challenges_total{outcome="wrong"} 0', // there before the first
      'holdfast_audit_latency_seconds_bucket{le="0.05"} 4',
      'holdfast_audit_latency_seconds_bucket{le="30"} 5',
      'holdfast_audit_latency_seconds_count 6',
      'holdfast_provider_standing{standing="vetted"} 2',
      'holdfast_provider_standing{standing="closed"} 0',
      'holdfast_audit_contained 2',
      'holdfast_audit_own_outage 0'
    ])
      expect(lines).toContain(line)
    expect(auditOutcomes).toEqual(custodyOutcomes)
  })

  it('counts what repair has moved, and why', async () => {
    const moved = { bytesRead: 400, bytesWritten: 200, wastedBytes: 10 }
    metrics.observeRepair({ ...moved, reasons: { lost: 1, gone: 2 } })
    metrics.observeRepair({ ...moved, reasons: { gone: 1 } })
    const lines = (await ask('/metrics')).text.split('\n')
    for (const line of [
      'holdfast_repair_read_bytes_total 800',
      'holdfast_repair_written_bytes_total 400',
      'holdfast_repair_wasted_bytes_total 20',
      'holdfast_repair_shards_total{reason="gone"} 3',
      'holdfast_repair_shards_total{reason="lost"} 1',
      'holdfast_repair_shards_total{reason="withdrawn"} 0' // there before the first
    ])
      expect(lines).toContain(line)
  })

  it('counts the segments that were read, and what was fetched in vain', async () => {
    metrics.observeSegmentRead({ isDecoded: false, requestedBytes: 100, wastedBytes: 0 })
    metrics.observeSegmentRead({ isDecoded: true, requestedBytes: 120, wastedBytes: 20 })
    const lines = (await ask('/metrics')).text.split('\n')
    for (const line of [
      'holdfast_segment_reads_total{how="straight"} 1',
      'holdfast_segment_reads_total{how="decoded"} 1',
      'holdfast_segment_read_requested_bytes_total 220',
      'holdfast_segment_read_wasted_bytes_total 20'
    ])
      expect(lines).toContain(line)
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
