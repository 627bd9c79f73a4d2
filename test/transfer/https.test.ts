import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer as createHttps, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createServer as createTcp } from 'node:net'
import { join } from 'node:path'
import { createServer as createTls, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { makePeerCertificate } from '../../src/net/peer-tls.ts'
import type { ProviderNode } from '../../src/provider/provider-node.ts'
import type { ProviderRef } from '../../src/transfer/provider-client.ts'
import { codeOf, providerClientContract } from '../contracts/provider-client.ts'
import { Loopback, refOf, type TestClient } from '../support/provider-node.ts'

const termMs = 60_000
const block = (length = 1000): { bytes: Buffer; cid: ReturnType<typeof cidOfShard> } => {
  const bytes = randomBytes(length)
  return { bytes, cid: cidOfShard(bytes) }
}

providerClientContract('HttpsProviderClient', async () => {
  const loopback = new Loopback()
  const dataDir = await loopback.directory()
  const provider = await loopback.provider({ dataDir, capacityBytes: 12 * limits.shardBytesMax })
  const [{ client, identity }, { client: otherClient }] = await Promise.all([loopback.client(), loopback.client()])
  return {
    client,
    auditor: identity,
    verifySignature,
    now: Date.now,
    otherClient,
    provider: refOf(provider),
    absent: {
      peerId: (await generateIdentity()).peerId,
      dataUrls: ['https://127.0.0.1:9'],
      addresses: ['/ip4/127.0.0.1/tcp/9']
    },
    rot: async (cid) => {
      const name = cid.toString()
      await writeFile(join(dataDir, 'blocks', name.slice(-3, -1), name), randomBytes(5000))
    },
    refuse: async (cid, reason) => {
      await provider.refuser.refuse(cid, { reason }, new AbortController().signal)
    },
    cleanUp: () => loopback.stopAll()
  }
})

describe('finding the right peer behind a URL', () => {
  const loopback = new Loopback()
  let provider: ProviderNode
  let other: ProviderNode
  let gateway: TestClient
  beforeAll(async () => {
    ;[provider, other, gateway] = await Promise.all([loopback.provider(), loopback.provider(), loopback.client()])
  })
  afterAll(() => loopback.stopAll())

  test('a provider with another key at the same address gets nothing', async () => {
    const { bytes, cid } = block()
    const impostor: ProviderRef = { ...refOf(other), dataUrls: [provider.dataUrl] }
    const failure = await gateway.client.putShard(impostor, cid, bytes, { termMs }).catch((error: unknown) => error)
    expect(failure).toMatchObject({ code: 'OFFLINE', details: { expected: other.peerId, found: provider.peerId } })
    expect(await provider.storage.stats()).toMatchObject({ puts: 0 })
  })

  test('the next URL is tried where one leads nowhere', async () => {
    const { bytes, cid } = block()
    const ref: ProviderRef = { ...refOf(provider), dataUrls: ['https://127.0.0.1:9', other.dataUrl, provider.dataUrl] }
    await gateway.client.putShard(ref, cid, bytes, { termMs })
    expect(Buffer.compare(await gateway.client.getShard(ref, cid), bytes)).toBe(0)
    expect(await codeOf(gateway.client.getShard({ ...ref, dataUrls: [] }, cid))).toBe('OFFLINE')
  })

  test('an offer signed by another is PROTOCOL', async () => {
    const ref = refOf(other)
    await other.network.node.unhandle('/holdfast/offer/1')
    await other.network.handle('/holdfast/offer/1', () => provider.storage.signedOffer())
    expect(await codeOf(gateway.client.getOffer(ref))).toBe('PROTOCOL')
  })
})

describe('a provider that misbehaves', () => {
  const loopback = new Loopback()
  let identity: Identity
  let server: Server
  let ref: ProviderRef
  let gateway: TestClient
  let answer: RequestListener = () => {}
  beforeAll(async () => {
    identity = await generateIdentity()
    gateway = await loopback.client()
    server = createHttps({
      ...(await makePeerCertificate(identity, { now: Date.now() })),
      requestCert: true,
      rejectUnauthorized: false
    })
    server.on('request', (request, response) => {
      request.resume()
      answer(request, response)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    ref = { peerId: identity.peerId, dataUrls: [`https://127.0.0.1:${port}`], addresses: [] }
  })
  afterEach(() => server.closeAllConnections())
  afterAll(async () => {
    server.close()
    await loopback.stopAll()
  })
  const { cid } = block()
  const get = (signal?: AbortSignal): Promise<Uint8Array> => gateway.client.getShard(ref, cid, signal)

  test('its bytes are handed on unchecked: who asked checks them', async () => {
    answer = (_request, response) => {
      response.writeHead(200, { 'content-length': 11 })
      response.end('other bytes')
    }
    expect(Buffer.from(await get()).toString()).toBe('other bytes')
  })

  test('a body without length, too long, or longer than said is PROTOCOL', async () => {
    answer = (_request, response) => {
      response.writeHead(200)
      response.write('chunk')
      response.end('ed')
    }
    expect(await codeOf(get())).toBe('PROTOCOL')
    answer = (_request, response) => {
      response.writeHead(200, { 'content-length': limits.shardBytesMax + 1 })
      response.end(new Uint8Array(limits.shardBytesMax + 1))
    }
    expect(await codeOf(get())).toBe('PROTOCOL')
    answer = (_request, response) => {
      response.writeHead(404, { 'content-length': 1_000_000 })
      response.end(new Uint8Array(1_000_000))
    }
    expect(await codeOf(get())).toBe('PROTOCOL')
  })

  test('a body cut short is not given out', async () => {
    answer = (request, response) => {
      response.writeHead(200, { 'content-length': 1000 })
      response.write('not a thousand bytes', () => request.socket.destroy())
    }
    expect(['OFFLINE', 'PROTOCOL']).toContain(await codeOf(get()))
  })

  test('statuses mean what they say, and unknown ones nothing', async () => {
    const expected = {
      404: 'MISSING',
      422: 'WRONG',
      451: 'REFUSED',
      503: 'TIMEOUT',
      507: 'NO_SPACE',
      400: 'PROTOCOL',
      500: 'PROTOCOL',
      204: 'PROTOCOL',
      302: 'PROTOCOL'
    }
    for (const [status, code] of Object.entries(expected)) {
      answer = (_request, response) => {
        response.writeHead(Number(status), {
          ...(status === '204' ? {} : { 'content-length': 0 }),
          location: 'https://192.0.2.1/'
        })
        response.end()
      }
      expect([status, await codeOf(get())]).toEqual([status, code])
    }
  })

  test('one that never answers, or never finishes, is left at the caller’s deadline', async () => {
    const reason = new Error('deadline')
    answer = () => {}
    await expect(get(abortAfter(50, reason))).rejects.toBe(reason)
    const begun = Promise.withResolvers<void>()
    answer = (_request, response) => {
      response.writeHead(200, { 'content-length': 1000 })
      response.write('and then nothing', () => begun.resolve())
    }
    const controller = new AbortController()
    const waiting = get(controller.signal)
    waiting.catch(() => {})
    await begun.promise
    controller.abort(reason)
    await expect(waiting).rejects.toBe(reason)
  })

  test('a kept connection that was closed meanwhile is replaced without notice', async () => {
    let requests = 0
    answer = (request, response) => {
      requests += 1
      // The second request finds the connection closing under it.
      if (requests === 2) request.socket.destroy()
      else response.writeHead(200, { 'content-length': 2 }).end('ok')
    }
    expect(Buffer.from(await get()).toString()).toBe('ok')
    expect(Buffer.from(await get()).toString()).toBe('ok')
    expect(requests).toBe(3)
  })

  test('something that does not speak TLS, or nothing at all, is OFFLINE in bounded time', async () => {
    const sockets: Array<{ destroy: () => void }> = []
    const silent = createTcp((socket) => void sockets.push(socket))
    const chatty = createTcp((socket) => void socket.on('error', () => {}).end('220 mail.example ready\r\n'))
    for (const tcp of [silent, chatty]) {
      await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve))
      const dataUrls = [`https://127.0.0.1:${(tcp.address() as AddressInfo).port}`]
      expect(await codeOf(gateway.client.getShard({ ...ref, dataUrls }, cid))).toBe('OFFLINE')
      tcp.close()
    }
    for (const socket of sockets) socket.destroy()
  })
})

function abortAfter(ms: number, reason: Error): AbortSignal {
  const controller = new AbortController()
  setTimeout(() => controller.abort(reason), ms)
  return controller.signal
}

describe('memory that is used again', () => {
  test('never reaches a provider that says yes before it has read', async () => {
    const loopback = new Loopback()
    const identity = await generateIdentity()
    const { client } = await loopback.client()
    const sockets: TLSSocket[] = []
    const certificate = await makePeerCertificate(identity, { now: Date.now() })
    const server = createTls({ ...certificate, requestCert: true, rejectUnauthorized: false }, (socket) => {
      socket.on('error', () => {}) // the client is right to leave
      sockets.push(socket) // and nothing is read from it
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const ref = { peerId: identity.peerId, dataUrls: [`https://127.0.0.1:${port}`], addresses: [] }
    try {
      // More than the system takes in for a connection that is not read.
      for (let i = 0; i < 40 && sockets.length < 2; i++) {
        const bytes = Buffer.alloc(limits.shardBytesMax, 1 + (i % 250))
        const putting = client.putShard(ref, cidOfShard(bytes), bytes, { termMs })
        putting.catch(() => {}) // awaited below
        while (sockets.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
        await new Promise((resolve) => setTimeout(resolve, 30)) // it is on its way, as far as it gets
        sockets.at(-1)!.write('HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}')
        await putting
        bytes.fill(0) // as whoever gets this memory next might
      }
      expect(sockets.length, 'another connection was made').toBeGreaterThan(1)
      const received: Buffer[] = []
      for (const socket of sockets) socket.on('data', (chunk: Buffer) => received.push(chunk))
      await client.close()
      await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve))))
      expect(Buffer.concat(received).length).toBeGreaterThan(limits.shardBytesMax)
      expect(Buffer.concat(received).includes(Buffer.alloc(64))).toBe(false)
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
      await loopback.stopAll()
    }
  })

  test('is not written to by an answer that came after its reader gave up', async () => {
    const loopback = new Loopback()
    const identity = await generateIdentity()
    const { client } = await loopback.client()
    let finish = (): void => {}
    const certificate = await makePeerCertificate(identity, { now: Date.now() })
    const server = createHttps(
      { ...certificate, requestCert: true, rejectUnauthorized: false },
      (_request, response) => {
        response.writeHead(200, { 'content-length': 1000 })
        response.write(Buffer.alloc(400, 7))
        finish = () => response.end(Buffer.alloc(600, 7))
      }
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const ref = { peerId: identity.peerId, dataUrls: [`https://127.0.0.1:${port}`], addresses: [] }
    try {
      const into = new Uint8Array(2000)
      const given = new AbortController()
      const getting = client.getShard(ref, block().cid, given.signal, into)
      getting.catch(() => {}) // awaited below
      while (into[399] !== 7) await new Promise((resolve) => setTimeout(resolve, 5))
      given.abort(new Error('enough'))
      into.fill(9)
      finish()
      await expect(getting).rejects.toThrow()
      await client.close()
      expect(into.every((byte) => byte === 9)).toBe(true)

      const whole = client.getShard(ref, block().cid, undefined, into).catch(() => undefined)
      expect(await whole).toBeUndefined() // closed
    } finally {
      server.closeAllConnections()
      server.close()
      await loopback.stopAll()
    }
  })
})
