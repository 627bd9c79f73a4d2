/** The distance that the live benchmark puts between processes: over real sockets. */
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { LineProxy } from '../../bench/live/proxy.ts'
import { ProxyProcess } from '../../bench/live/proxy-process.ts'
import { PortPairs } from '../../bench/ports.ts'

const ports = new PortPairs()
const closing: Array<() => Promise<unknown>> = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

interface Target {
  port: number
  sockets: Socket[]
}

/** What listens behind the proxy. */
async function target(onConnection: (socket: Socket) => void): Promise<Target> {
  const sockets: Socket[] = []
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    socket.on('error', () => {}) // tests break connections
    onConnection(socket)
  })
  const port = await ports.next()
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  closing.push(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return { port, sockets }
}

const echo = (socket: Socket): void => void socket.pipe(socket)

async function proxied(port: number, line: { roundTripMs: number; bytesPerSecond: number }) {
  const proxy = new LineProxy()
  const listen = await ports.next()
  await proxy.open('one', { forwards: [{ listen, target: port }], line })
  closing.push(() => proxy.stop())
  return { proxy, listen }
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.on('error', () => {}) // tests break connections
  closing.push(async () => socket.destroy())
  await once(socket, 'connect')
  return socket
}

async function received(socket: Socket, bytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  while (length < bytes) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    chunks.push(chunk)
    length += chunk.length
  }
  return Buffer.concat(chunks)
}

/** However it came about. */
const closed = (socket: Socket): Promise<void> => new Promise((resolve) => socket.once('close', () => resolve()))

const wide = 1e9

describe('a line', () => {
  it('takes a round trip to open, and another for a question and its answer', async () => {
    const { port } = await target(echo)
    const { listen } = await proxied(port, { roundTripMs: 60, bytesPerSecond: wide })
    // The proxy may accept before the dialler hears of it.
    const startedAt = performance.now()
    const socket = await dial(listen)
    socket.write('a')
    await received(socket, 1)
    const firstMs = performance.now() - startedAt
    socket.write('b')
    const askedAt = performance.now()
    await received(socket, 1)
    // Timers may be a millisecond early; how late is the machine's business.
    expect(firstMs).toBeGreaterThanOrEqual(117)
    expect(performance.now() - askedAt).toBeGreaterThanOrEqual(57)
  })

  it('is as wide as it is for all connections together, each way, and keeps the order', async () => {
    const { port } = await target(echo)
    const { listen } = await proxied(port, { roundTripMs: 2, bytesPerSecond: 2_000_000 })
    const bytes = Buffer.from(Uint32Array.from({ length: 50_000 }, (_, i) => i * 2654435761).buffer)
    const sockets = [await dial(listen), await dial(listen)]
    const startedAt = performance.now()
    for (const socket of sockets) socket.end(bytes)
    const answers = await Promise.all(sockets.map((socket) => received(socket, bytes.length)))
    const seconds = (performance.now() - startedAt) / 1000
    for (const answer of answers) expect(answer.equals(bytes)).toBe(true)
    expect(seconds).toBeGreaterThanOrEqual((0.97 * 2 * bytes.length) / 2_000_000)
  })

  it('holds no more than it carries while nobody takes it, and loses nothing of it', async () => {
    const total = 30_000_000
    const { port, sockets } = await target((socket) => socket.pause())
    const { proxy, listen } = await proxied(port, { roundTripMs: 20, bytesPerSecond: 40_000_000 })
    const socket = await dial(listen)
    socket.end(Buffer.alloc(total, 7))
    // It is stuck when what it holds stays the same for as long as the line would take for half of all.
    let before = -1
    while (sockets.length === 0 || proxy.held.now !== before || before <= 0) {
      before = proxy.held.now
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    expect(proxy.held.most).toBeLessThan(40_000_000 * 0.02 + 4 * 65_536 + 40_000_000 * 0.05)
    let taken = 0
    sockets[0]!.on('data', (bytes) => {
      taken += bytes.length
    })
    sockets[0]!.resume()
    await once(sockets[0]!, 'end')
    expect(taken).toBe(total)
    expect(proxy.held.now).toBe(0)
  })
})

describe('a connection', () => {
  it('ends when the other end ends, after the last byte', async () => {
    const { port } = await target((socket) => socket.end('bye'))
    const { listen } = await proxied(port, { roundTripMs: 10, bytesPerSecond: wide })
    const socket = await dial(listen)
    const ended = once(socket, 'end')
    expect((await received(socket, 3)).toString()).toBe('bye')
    await ended
  })

  it('breaks when the target breaks it, and when nobody is there', async () => {
    const { port, sockets } = await target((socket) => socket.resume())
    const { listen } = await proxied(port, { roundTripMs: 0, bytesPerSecond: wide })
    const socket = await dial(listen)
    socket.write('a')
    while (sockets.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    const broken = closed(socket)
    sockets[0]!.resetAndDestroy()
    await broken
    const nobody = await proxied(await ports.next(), { roundTripMs: 0, bytesPerSecond: wide })
    await closed(await dial(nobody.listen))
  })

  it('breaks at the target when the client goes', async () => {
    const { port, sockets } = await target((socket) => socket.resume())
    const { listen } = await proxied(port, { roundTripMs: 0, bytesPerSecond: wide })
    const socket = await dial(listen)
    socket.write('a')
    while (sockets.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    const broken = closed(sockets[0]!)
    socket.resetAndDestroy()
    await broken
  })
})

describe('the proxy as a process', () => {
  it('opens, leads elsewhere when opened again, closes, and says what went wrong', async () => {
    const first = await target((socket) => socket.end('first'))
    const second = await target((socket) => socket.end('second'))
    const proxy = new ProxyProcess()
    closing.push(() => proxy.stop())
    const line = { roundTripMs: 0, bytesPerSecond: wide }
    const listen = await ports.next()
    await proxy.open('one', { forwards: [{ listen, target: first.port }], line })
    expect((await received(await dial(listen), 5)).toString()).toBe('first')
    await proxy.open('one', { forwards: [{ listen, target: second.port }], line })
    expect((await received(await dial(listen), 6)).toString()).toBe('second')
    expect(await proxy.strain()).toMatchObject({ heldBytesMost: 6 })
    await expect(proxy.open('two', { forwards: [{ listen, target: first.port }], line })).rejects.toThrow(/EADDRINUSE/)
    await proxy.close('one')
    await expect(dial(listen)).rejects.toThrow(/ECONNREFUSED/)
  })
})
