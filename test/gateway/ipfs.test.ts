import { CID } from 'multiformats/cid'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { send, startGateway, type TestGateway } from '../support/s3-gateway.ts'

let gateway: TestGateway
const block = Buffer.from('a block of bytes')
const cid = cidOfShard(block).toString()
const raw = { accept: 'application/vnd.ipld.raw' }

beforeAll(async () => {
  gateway = await startGateway()
  gateway.store.blocks.set(cid, block)
})
afterAll(async () => await gateway.close())

const ask = (method: string, target: string, headers: Record<string, string> = {}) =>
  send(gateway.port, { method, target: `/ipfs/${target}`, headers })

describe('a block, without a signature', () => {
  test.each([
    ['by parameter', `${cid}?format=raw`, {}],
    ['by Accept', cid, raw],
    ['by Accept among others', cid, { accept: 'text/html, application/vnd.ipld.raw;q=0.5, */*' }]
  ])('%s', async (_name, target, headers) => {
    const reply = await ask('GET', target, headers)
    expect(reply.status).toBe(200)
    expect(reply.body.equals(block)).toBe(true)
    expect(reply.headers).toMatchObject({
      'content-type': 'application/vnd.ipld.raw',
      'content-length': String(block.length),
      'content-disposition': `attachment; filename="${cid}.bin"`,
      'x-content-type-options': 'nosniff',
      etag: `"${cid}.raw"`,
      'x-ipfs-path': `/ipfs/${cid}`
    })
    expect(reply.headers['cache-control']).toBe('public, max-age=29030400, immutable')
  })

  test('HEAD has the same headers and no body', async () => {
    const reply = await ask('HEAD', cid, raw)
    expect([reply.status, reply.headers['content-length'], reply.body.length]).toEqual([200, String(block.length), 0])
  })

  test('what the client has is not sent again', async () => {
    const reply = await ask('GET', cid, { ...raw, 'if-none-match': `"x", W/"${cid}.raw"` })
    expect([reply.status, reply.body.length]).toEqual([304, 0])
  })

  test('a CID that is its own content', async () => {
    expect((await ask('GET', 'bafkqaaa', raw)).body).toHaveLength(0)
    expect((await ask('GET', 'bafkqac3imvwgy3zao5xxe3de', raw)).text).toBe('hello world')
  })
})

test.each([
  ['GET', cid, {}, 406],
  ['GET', cid, { accept: '*/*' }, 406],
  ['GET', cid, { accept: 'application/vnd.ipld.raw;q=0' }, 406],
  ['GET', `${cid}?format=car`, raw, 406],
  ['GET', 'nonsense', raw, 400],
  ['GET', `${cid}/path`, raw, 400],
  ['PUT', cid, raw, 405],
  ['GET', cidOfShard(Buffer.from('absent')).toString(), raw, 404]
])('%s %s %j is %i', async (method, target, headers, status) => {
  expect((await ask(method, target, headers)).status).toBe(status)
})

test('what the network cannot give now may be asked for later', async () => {
  const getBlock = gateway.store.getBlock.bind(gateway.store)
  gateway.store.getBlock = async (wanted: CID) => {
    expect(wanted).toBeInstanceOf(CID)
    throw new HoldfastError('UNREADABLE', 'no holder of this block answers')
  }
  const reply = await ask('GET', cid, raw)
  gateway.store.getBlock = getBlock
  expect([reply.status, reply.code]).toEqual([503, 'ServiceUnavailable'])
  expect(reply.text).toContain('no holder of this block answers')
})

test('requests are observed under a name of their own', () => {
  expect(gateway.observations.at(-1)).toMatchObject({ operation: 'GetBlock', status: 503, bytesIn: 0 })
})
