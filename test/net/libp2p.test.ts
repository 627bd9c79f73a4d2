import type { AddressInfo } from 'node:net'
import { createServer, type Server, type Socket } from 'node:net'
import type { Stream } from '@libp2p/interface'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import { generateIdentity } from '../../src/net/identity.ts'
import type { Libp2pNetwork } from '../../src/net/libp2p.ts'
import { networkContract } from '../contracts/network.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { startNode } from '../support/real-network.ts'

networkContract('Libp2pNetwork', async () => {
  const [asker, answerer] = await Promise.all([startNode(), startNode()])
  return {
    asker,
    answerer,
    absent: { peerId: (await generateIdentity()).peerId, addresses: ['/ip4/127.0.0.1/tcp/9'] },
    cleanUp: async () => {
      await Promise.all([asker.stop(), answerer.stop()])
    }
  }
})

describe('a libp2p node', () => {
  const nodes: Libp2pNetwork[] = []
  const started = async (init: Parameters<typeof startNode>[0] = {}): Promise<Libp2pNetwork> => {
    const node = await startNode(init)
    nodes.push(node)
    return node
  }
  afterEach(async () => {
    await Promise.all(nodes.splice(0).map((node) => node.stop()))
  })

  test('joins when the node to join through comes up later', async () => {
    const identity = await generateIdentity()
    const first = await startNode({ identity })
    const [address] = first.addresses()
    await first.stop()
    const early = await started({ bootstrap: [address!] })
    expect(early.neighbours).toBe(0)
    await started({ identity, listen: [address!.replace(/\/p2p\/.*/, '')] })
    await expect.poll(() => early.neighbours, { timeout: 20_000 }).toBe(1)
  })

  test('finds back through the neighbours it remembers', async () => {
    const other = await started()
    let saved: string[] = []
    const save = async (addresses: string[]): Promise<void> => {
      saved = addresses
    }
    const memory = { load: async () => saved, save }
    const first = await started({ bootstrap: other.addresses(), peerMemory: memory })
    await expect.poll(() => saved, { timeout: 20_000 }).toEqual(other.addresses())
    await first.stop()
    const again = await started({ bootstrap: [], peerMemory: memory })
    await expect.poll(() => again.neighbours, { timeout: 20_000 }).toBe(1)
  })

  test('reaches a peer whose given address is stale through one it knows', async () => {
    const [a, b] = [await started(), await started()]
    await b.handle('/test/same/1', async (_from, body) => body)
    await a.request({ peerId: b.peerId, addresses: b.addresses() }, '/test/same/1', Buffer.of(1))
    await Promise.all(a.node.getConnections().map((connection) => connection.close()))
    const answer = await a.request(
      { peerId: b.peerId, addresses: ['/ip4/127.0.0.1/tcp/9', 'nonsense'] },
      '/test/same/1',
      Buffer.of(2)
    )
    expect([...answer]).toEqual([2])
  })

  test('hears who connects, and what it speaks', async () => {
    const [a, b] = [await started(), await started()]
    await b.handle('/test/known-by/1', async (_from, body) => body)
    const heard: Array<{ peerId: string; addresses: readonly string[]; isSpoken: boolean }> = []
    a.onPeer((peer, protocols) => heard.push({ ...peer, isSpoken: protocols.includes('/test/known-by/1') }))
    await a.handle('/test/same/1', async (_from, body) => body)
    await b.request({ peerId: a.peerId, addresses: a.addresses() }, '/test/same/1', Buffer.of(1))
    await expect
      .poll(() => heard.map(({ peerId, isSpoken }) => ({ peerId, isSpoken })))
      .toEqual([{ peerId: b.peerId, isSpoken: true }])
    expect(b.addresses()[0]).toContain(heard[0]!.addresses[0]!)
  })

  test('says what is wrong with an address it cannot use', async () => {
    const node = await started()
    const taken = node.addresses()[0]!.replace(/\/p2p\/.*/, '')
    expect(await codeOf(startNode({ listen: [taken] }))).toBe('BAD_CONFIG')
    expect(await codeOf(startNode({ listen: ['no multiaddr'] }))).toBe('BAD_CONFIG')
    expect(await codeOf(startNode({ bootstrap: ['no multiaddr'] }))).toBe('BAD_CONFIG')
  })
})

describe('a peer that misbehaves', () => {
  let honest: Libp2pNetwork
  let rogue: Libp2pNetwork
  beforeAll(async () => {
    ;[honest, rogue] = await Promise.all([startNode(), startNode()])
    await honest.handle('/test/length/1', async (_from, body) => Buffer.from(String(body.length)))
  })
  afterAll(async () => {
    await Promise.all([honest.stop(), rogue.stop()])
  })

  const open = async (): Promise<Stream> => {
    const connection = await rogue.node.dial(honest.node.getMultiaddrs())
    return await connection.newStream('/test/length/1')
  }
  /** What comes back before the stream ends, and how it ends. */
  const outcome = async (stream: Stream): Promise<string> => {
    const chunks: Uint8Array[] = []
    try {
      for await (const chunk of stream) chunks.push(chunk.subarray())
    } catch {
      return 'reset'
    }
    return stream.status === 'reset' || stream.status === 'aborted'
      ? 'reset'
      : Buffer.concat(chunks).subarray(4).toString()
  }

  test('is cut off when it announces or sends too much, or breaks off', async () => {
    const sent: Array<(stream: Stream) => void> = [
      (stream) => void stream.send(Buffer.of(0xff, 0xff, 0xff, 0xff)),
      (stream) => void stream.send(Buffer.concat([Buffer.of(0, 0, 0, 1), Buffer.from('too much')])),
      (stream) => void stream.send(Buffer.from('GET / HTTP/1.1\r\n\r\n')),
      (stream) => {
        stream.send(Buffer.of(0, 0, 0, 9, 1, 2))
        void stream.close()
      }
    ]
    for (const send of sent) {
      const stream = await open()
      const ended = outcome(stream)
      send(stream)
      expect(await ended).toBe('reset')
    }
  })

  test('does not keep others, or itself, from being served', async () => {
    const stream = await open()
    const ended = outcome(stream)
    const header = Buffer.alloc(4)
    header.writeUInt32BE(3)
    stream.send(Buffer.concat([header, Buffer.from('abc')]))
    void stream.close()
    expect(await ended).toBe('3')
  })

  test('gets as many answers at once as one peer may have, and no more', async () => {
    const gate = Promise.withResolvers<void>()
    let running = 0
    await honest.handle('/test/slow/1', async () => {
      running += 1
      await gate.promise
      return new Uint8Array()
    })
    const connection = await rogue.node.dial(honest.node.getMultiaddrs())
    const results = await Promise.all(
      Array.from({ length: 60 }, async () => {
        try {
          const stream = await connection.newStream('/test/slow/1', { maxOutboundStreams: 100 })
          stream.send(Buffer.alloc(4))
          return stream
        } catch {
          return undefined
        }
      })
    )
    await expect.poll(() => running).toBeGreaterThan(0)
    const answer = honest.request({ peerId: rogue.peerId, addresses: [] }, '/test/none/1', new Uint8Array())
    expect(await codeOf(answer)).toBe('PROTOCOL') // still at work
    expect(running).toBeLessThanOrEqual(32)
    gate.resolve()
    for (const stream of results) stream?.abort(new Error('done'))
  })

  test('that sends an answer above the limit is PROTOCOL, one that never answers ends with the caller’s deadline', async () => {
    await rogue.node.handle('/test/flood/1', (stream) => {
      const header = Buffer.alloc(4)
      header.writeUInt32BE(limits.rpcBytesMax + 1)
      stream.send(header)
    })
    await rogue.node.handle('/test/silent/1', () => {})
    const peer = { peerId: rogue.peerId, addresses: rogue.addresses() }
    expect(await codeOf(honest.request(peer, '/test/flood/1', new Uint8Array()))).toBe('PROTOCOL')
    const reason = new Error('deadline')
    await expect(honest.request(peer, '/test/silent/1', new Uint8Array(), abortSoon(reason))).rejects.toBe(reason)
  })
})

describe('something that is no peer', () => {
  let server: Server
  const sockets = new Set<Socket>()
  let node: Libp2pNetwork
  beforeAll(async () => {
    node = await startNode()
    server = createServer((socket) => void sockets.add(socket)) // takes connections, and never says a word
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  })
  afterAll(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await node.stop()
  })

  test('is OFFLINE after a bounded time', async () => {
    const { port } = server.address() as AddressInfo
    const { peerId } = await generateIdentity()
    expect(
      await codeOf(
        node.request({ peerId, addresses: [`/ip4/127.0.0.1/tcp/${port}`] }, '/test/same/1', new Uint8Array())
      )
    ).toBe('OFFLINE')
  })
})

function abortSoon(reason: Error): AbortSignal {
  const controller = new AbortController()
  setTimeout(() => controller.abort(reason), 50)
  return controller.signal
}
