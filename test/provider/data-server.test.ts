import { randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { connect, type TLSSocket } from 'node:tls'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import { cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'
import { makePeerCertificate, type PeerCertificate } from '../../src/net/peer-tls.ts'
import { DataServer } from '../../src/provider/data-server.ts'
import { RefusalStore } from '../../src/provider/refusal-store.ts'
import { proofServiceOf, type TestProvider, testProvider } from '../support/provider.ts'

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
}

describe('the data plane', () => {
  let host: TestProvider
  let server: DataServer
  let port: number
  let peer: { peerId: string; certificate: PeerCertificate }
  const announced: string[] = []
  const refusals = new RefusalStore(':memory:')
  beforeAll(async () => {
    const own = await generateIdentity()
    host = testProvider({ refusals })
    server = new DataServer({
      storage: host.provider,
      proofs: proofServiceOf(host, own),
      certificate: await makePeerCertificate(own, { now: Date.now() }),
      verifySignature,
      clock: systemClock,
      log: silentLog,
      announceRoot: (cid) => void announced.push(cid.toString())
    })
    port = await server.listen('127.0.0.1', 0)
    const identity = await generateIdentity()
    peer = { peerId: identity.peerId, certificate: await makePeerCertificate(identity, { now: Date.now() }) }
  })
  afterAll(() => server.stop())

  const ask = (options: RequestOptions & { body?: Uint8Array; certificate?: PeerCertificate }): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const { body, certificate, ...rest } = options
      const sent = httpsRequest(
        { host: '127.0.0.1', port, rejectUnauthorized: false, agent: false, ...certificate, ...rest },
        (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => void chunks.push(chunk))
          response.once('error', reject)
          response.once('end', () =>
            resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) })
          )
        }
      )
      sent.once('error', reject)
      sent.end(body)
    })
  const put = (cid: CID | string, body: Uint8Array, headers: Record<string, string> = {}): Promise<Answer> =>
    ask({
      method: 'PUT',
      path: `/holdfast/v1/shards/${cid}`,
      body,
      certificate: peer.certificate,
      headers: { 'content-length': body.length, 'x-holdfast-lease-ms': '60000', ...headers }
    })
  const codeIn = ({ status, body }: Answer): [number, string] => [status, JSON.parse(body.toString()).code]
  const stored = async (length: number): Promise<{ bytes: Buffer; cid: CID }> => {
    const bytes = randomBytes(length)
    const cid = cidOfShard(bytes)
    await host.provider.put('somebody', cid, bytes, 60_000)
    return { bytes, cid }
  }

  test('a block is taken under a lease of the peer that the certificate proves', async () => {
    const bytes = randomBytes(1000)
    const cid = cidOfShard(bytes)
    const first = await put(cid, bytes)
    expect(first.status).toBe(201)
    expect(JSON.parse(first.body.toString()).until).toBe(host.clock.now() + 60_000)
    expect((await put(cid, bytes)).status).toBe(200)
    expect(await host.leases.get(peer.peerId, cid)).toMatchObject({ bytes: 1000 })
    expect(announced).toEqual([])
    const root = cidOfNode(codecs.dagCbor, bytes)
    await put(root, bytes, { 'x-holdfast-announce': '1' })
    expect(announced).toEqual([root.toString()])
  })

  test('what is refused is 451 to whoever asks, with the reason, also to those who have it already', async () => {
    const { bytes, cid } = await stored(500)
    const grounds = { reason: 'by court order', at: 1, atOnce: false }
    refusals.refuse(cid, grounds, { cids: [], isWhole: true })
    const expected = { code: 'REFUSED', message: 'by court order' }
    for (const headers of [{}, { 'if-none-match': `"${cid}.raw"` }, { 'cache-control': 'only-if-cached' }]) {
      const { status, body } = await ask({ path: `/ipfs/${cid}?format=raw`, headers })
      expect([status, JSON.parse(body.toString())]).toEqual([451, expected])
    }
    expect((await ask({ method: 'HEAD', path: `/ipfs/${cid}?format=raw` })).status).toBe(451)
    const { status, body } = await put(cid, bytes)
    expect([status, JSON.parse(body.toString())]).toEqual([451, expected])
    refusals.undo(cid)
    expect((await ask({ path: `/ipfs/${cid}?format=raw` })).status).toBe(200)
  })

  test('what is refused and not gone yet is given to who leases it and is about to move it, and to nobody else', async () => {
    const bytes = randomBytes(500)
    const cid = cidOfShard(bytes)
    expect((await put(cid, bytes)).status).toBe(201)
    refusals.refuse(cid, { reason: 'no', at: 1, atOnce: false }, { cids: [], isWhole: true })
    const path = `/ipfs/${cid}?format=raw`
    const { certificate } = peer
    const move = { 'x-holdfast-move': '1' }
    expect((await ask({ path, headers: move })).status).toBe(451)
    expect((await ask({ path, certificate })).status).toBe(451)
    const answer = await ask({ path, certificate, headers: move })
    expect([answer.status, Buffer.compare(answer.body, bytes)]).toEqual([200, 0])
    await host.provider.evict([cid])
    expect((await ask({ path, certificate, headers: move })).status).toBe(451)
  })

  test('who proves no peer id stores nothing', async () => {
    const bytes = randomBytes(10)
    const path = `/holdfast/v1/shards/${cidOfShard(bytes)}`
    const headers = { 'content-length': bytes.length, 'x-holdfast-lease-ms': '60000' }
    expect(codeIn(await ask({ method: 'PUT', path, headers, body: bytes }))).toEqual([401, 'BAD_INPUT'])
    expect(await host.provider.has(cidOfShard(bytes))).toBe(false)
  })

  test('a bad request is told what is wrong with it, and changes nothing', async () => {
    const bytes = randomBytes(10)
    const cid = cidOfShard(bytes)
    expect(codeIn(await put(cid, randomBytes(10)))).toEqual([422, 'WRONG'])
    expect(codeIn(await put('nonsense', bytes))).toEqual([400, 'BAD_INPUT'])
    expect(codeIn(await put(`${cid}/more`, bytes))).toEqual([400, 'BAD_INPUT'])
    expect(codeIn(await put(cidOfNode(codecs.raw, bytes), bytes))).toEqual([400, 'BAD_INPUT'])
    for (const term of ['0', '-5', '1e3', '', '99999999999999']) {
      expect(codeIn(await put(cid, bytes, { 'x-holdfast-lease-ms': term }))).toEqual([400, 'BAD_INPUT'])
    }
    const tooLarge = new Uint8Array(limits.shardBytesMax + 1)
    const refused = await put(cid, tooLarge).catch((error: NodeJS.ErrnoException) => error.code)
    if (typeof refused === 'object') expect(codeIn(refused)).toEqual([413, 'BAD_INPUT'])
    else expect(['EPIPE', 'ECONNRESET']).toContain(refused) // it hung up before all was sent
    const chunked = await ask({
      method: 'PUT',
      path: `/holdfast/v1/shards/${cid}`,
      certificate: peer.certificate,
      headers: { 'transfer-encoding': 'chunked', 'x-holdfast-lease-ms': '60000' },
      body: bytes
    })
    expect(codeIn(chunked)).toEqual([411, 'BAD_INPUT'])
    expect(codeIn(await ask({ method: 'DELETE', path: `/holdfast/v1/shards/${cid}` }))).toEqual([405, 'BAD_INPUT'])
    expect(codeIn(await ask({ path: '/elsewhere' }))).toEqual([404, 'MISSING'])
    expect(await host.provider.has(cid)).toBe(false)
  })

  test('a full provider answers 507, one that has trouble 500 and no details', async () => {
    host.provider.setAccepting(false)
    const bytes = randomBytes(10)
    expect(codeIn(await put(cidOfShard(bytes), bytes))).toEqual([507, 'NO_SPACE'])
    host.provider.setAccepting(true)
    const { cid } = await stored(10)
    const get = host.shards.get
    host.shards.get = async () => {
      throw new Error('EIO: a secret path')
    }
    const answer = await ask({ path: `/ipfs/${cid}` })
    host.shards.get = get
    expect(codeIn(answer)).toEqual([500, 'INTERNAL'])
    expect(answer.body.toString()).not.toContain('secret')
  })

  test('anybody may read, as the trustless gateway specification has it', async () => {
    const { bytes, cid } = await stored(5000)
    for (const [path, accept] of [
      [`/ipfs/${cid}?format=raw`, undefined],
      [`/ipfs/${cid}`, 'application/vnd.ipld.raw'],
      [`/ipfs/${cid}`, undefined],
      [`/ipfs/${cid}?format=raw`, 'text/html']
    ] as const) {
      const answer = await ask({ path, headers: accept === undefined ? {} : { accept } })
      expect(answer.status).toBe(200)
      expect(Buffer.compare(answer.body, bytes)).toBe(0)
      expect(answer.headers).toMatchObject({
        'content-type': 'application/vnd.ipld.raw',
        'content-length': '5000',
        'content-disposition': `attachment; filename="${cid}.bin"`,
        'cache-control': 'public, max-age=29030400, immutable',
        etag: `"${cid}.raw"`,
        'x-content-type-options': 'nosniff',
        'x-ipfs-path': `/ipfs/${cid}`
      })
    }
  })

  test('HEAD, revalidation and what is not served', async () => {
    const { cid } = await stored(5000)
    const never = cidOfShard(randomBytes(5))
    const head = await ask({ method: 'HEAD', path: `/ipfs/${cid}` })
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '5000', 0])
    expect((await ask({ method: 'HEAD', path: `/ipfs/${never}` })).status).toBe(404)
    const same = await ask({ path: `/ipfs/${cid}`, headers: { 'if-none-match': `"x", W/"${cid}.raw"` } })
    expect([same.status, same.body.length]).toEqual([304, 0])
    expect(codeIn(await ask({ path: `/ipfs/${never}` }))).toEqual([404, 'MISSING'])
    expect((await ask({ path: `/ipfs/${never}`, headers: { 'cache-control': 'only-if-cached' } })).status).toBe(412)
    expect((await ask({ path: `/ipfs/${cid}?format=car` })).status).toBe(406)
    expect((await ask({ path: `/ipfs/${cid}`, headers: { accept: 'application/vnd.ipld.car' } })).status).toBe(406)
    expect((await ask({ path: `/ipfs/${cid}/a/path?format=raw` })).status).toBe(400)
    expect((await ask({ path: '/ipfs/nonsense' })).status).toBe(400)
    expect((await ask({ method: 'POST', path: `/ipfs/${cid}` })).status).toBe(405)
  })

  test('identity CIDs, by which gateways are probed, contain their answer', async () => {
    const cid = CID.createV1(codecs.raw, Digest.create(0, Buffer.from('hi')))
    expect((await ask({ path: `/ipfs/${cid}?format=raw` })).body.toString()).toBe('hi')
    const probe = await ask({ method: 'HEAD', path: '/ipfs/bafkqaaa?format=raw' })
    expect([probe.status, probe.headers['content-length']]).toEqual([200, '0'])
  })

  test('a damaged block is 404 and says why', async () => {
    const { cid } = await stored(500)
    await host.shards.put(cid, randomBytes(500))
    const answer = await ask({ path: `/ipfs/${cid}` })
    expect(codeIn(answer)).toEqual([404, 'MISSING'])
    expect(answer.headers['x-holdfast-rotten']).toBe('1')
  })

  test('garbage and broken uploads leave nothing, and the server goes on', async () => {
    const raw = (send: (socket: TLSSocket) => void): Promise<string> =>
      new Promise((resolve) => {
        let text = ''
        const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...peer.certificate }, () =>
          send(socket)
        )
        socket.on('data', (chunk) => {
          text += chunk
        })
        socket.once('error', () => {})
        socket.once('close', () => resolve(text))
      })
    expect(await raw((socket) => socket.write('\x00\x01 not http\r\n\r\n'))).toMatch(/^HTTP\/1\.1 400/)
    expect(
      await raw((socket) => socket.write(`GET /ipfs/x HTTP/1.1\r\nhost: h\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`))
    ).toMatch(/^HTTP\/1\.1 431/)
    const bytes = randomBytes(1000)
    const cid = cidOfShard(bytes)
    const begin = `PUT /holdfast/v1/shards/${cid} HTTP/1.1\r\nhost: h\r\nx-holdfast-lease-ms: 1000\r\ncontent-length: 1000\r\n\r\n`
    expect(
      await raw((socket) => socket.write(begin, () => socket.write(bytes.subarray(0, 400), () => socket.destroy())))
    ).toBe('')
    expect((await put(cid, bytes)).status).toBe(201)
  })

  test('many uploads at once are all stored or all told why', async () => {
    const blocks = Array.from({ length: 60 }, () => randomBytes(100_000))
    const answers = await Promise.all(blocks.map((bytes) => put(cidOfShard(bytes), bytes)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]))
    for (const bytes of blocks) expect(Buffer.compare(await host.provider.get(cidOfShard(bytes)), bytes)).toBe(0)
  })
})
