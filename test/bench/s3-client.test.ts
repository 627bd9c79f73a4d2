import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { DataSource } from '../../bench/data.ts'
import { WrongAnswerError } from '../../bench/harness.ts'
import { S3Client } from '../../bench/throughput/s3-client.ts'

const data = new DataSource(1).object(0, 1_000_000)
const bytes = Buffer.concat([...data.chunks()])

const closing: Array<() => Promise<void>> = []
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

async function clientOf(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<S3Client> {
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const { signal } = new AbortController()
  const client = new S3Client({ endpoint, accessKeyId: 'KEY', secretAccessKey: 'secret', connections: 2, signal })
  closing.push(
    () => client.close(),
    async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    }
  )
  return client
}

const answering = (body: Buffer, status = 200): Promise<S3Client> =>
  clientOf((_request, response) => response.writeHead(status, { 'content-length': body.length }).end(body))

describe('the client of the benchmarks', () => {
  it('sends all bytes of an object, with their length and a signature', async () => {
    const received: Buffer[] = []
    let request: IncomingMessage | undefined
    const client = await clientOf((incoming, response) => {
      request = incoming
      incoming.on('data', (chunk) => received.push(chunk))
      incoming.on('end', () => response.end())
    })
    await client.put('bench', 'a/1', data)
    expect(Buffer.concat(received).equals(bytes)).toBe(true)
    expect(request).toMatchObject({
      method: 'PUT',
      url: '/bench/a/1',
      headers: { 'content-length': String(bytes.length) }
    })
    expect(request!.headers.authorization).toMatch(
      /^AWS4-HMAC-SHA256 Credential=KEY\/\d{8}\/us-east-1\/s3\/aws4_request, /
    )
  })

  it('accepts an object that is what was stored', async () => {
    await expect((await answering(bytes)).get('bench', 'a', data)).resolves.toBeUndefined()
  })

  it.each([
    ['one wrong bit', Buffer.from(bytes).fill(bytes[777_777]! ^ 1, 777_777, 777_778)],
    ['a byte too few', bytes.subarray(0, -1)],
    ['a byte too many', Buffer.concat([bytes, Buffer.of(0)])],
    ['nothing', Buffer.alloc(0)]
  ])('refuses one with %s', async (_what, body) => {
    await expect((await answering(body)).get('bench', 'a', data)).rejects.toThrow(WrongAnswerError)
  })

  it('fails with what an error answer says', async () => {
    const client = await answering(Buffer.from('<Code>SlowDown</Code>'), 503)
    await expect(client.get('bench', 'a', data)).rejects.toThrow(/503.*SlowDown/)
    await expect(client.put('bench', 'a', data)).rejects.toThrow(/503.*SlowDown/)
  })
})
