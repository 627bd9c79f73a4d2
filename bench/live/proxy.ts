/**
 * Distance between processes of one machine: a TCP proxy in user space that gives each target a line of its own. Bytes wait
 * their turn on the line (each way as wide as it is, shared by all of the target's connections) and then travel for half a
 * round trip, in their order. A connection takes a round trip to open, as TCP's does, and breaks when either end breaks it.
 *
 * What it leaves out: loss, and the slow start that TCP would have over such a distance.
 */
import { createServer, connect as dial, type Server, type Socket } from 'node:net'
import { secondMs } from '../../src/base/limits.ts'
import type { ProviderLine } from '../../src/sim/churn/workload.ts'

/**
 * Bytes arrive in pieces of this size, so that a slow line trickles. Turns on the line are longer: all that one read gave,
 * 64 KiB at most, follows one another, and a small answer of another connection waits for no more than that of each.
 */
const pieceBytes = 16 * 1024
/** How far ahead of the line a connection reads: enough that the line never idles while there is something to send. */
const aheadMs = 25
/** Open at once to one target; more are turned away. */
const connectionsMax = 1024

/** One way of a line. */
class Lane {
  readonly #bytesPerMs: number
  /** When what was promised so far has left. */
  #freeAt = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / secondMs
  }

  /** @returns when the last of these bytes, following all before them, has left */
  send(bytes: number, now: number): number {
    this.#freeAt = Math.max(this.#freeAt, now) + bytes / this.#bytesPerMs
    return this.#freeAt
  }
}

interface Piece {
  dueAt: number
  /** Undefined: the end of the stream. */
  bytes: Buffer | undefined
}

/**
 * One direction of one connection. What it holds is bounded: it reads no further than `aheadMs` of the line, and not at all
 * while the other end takes nothing; what travels is what the line carries in half a round trip.
 */
class Pipe {
  readonly #from: Socket
  readonly #to: Socket
  readonly #lane: Lane
  readonly #delayMs: number
  readonly #queue: Piece[] = []
  readonly #onBytes: (held: number) => void
  #deliverTimer: NodeJS.Timeout | undefined
  #readTimer: NodeJS.Timeout | undefined
  /** The other end takes nothing. */
  #isBlocked = false

  constructor(from: Socket, to: Socket, lane: Lane, delayMs: number, onBytes: (held: number) => void) {
    this.#from = from
    this.#to = to
    this.#lane = lane
    this.#delayMs = delayMs
    this.#onBytes = onBytes
    from.on('data', (bytes: Buffer) => this.#take(bytes))
    from.on('end', () => {
      const dueAt = Math.max(this.#queue.at(-1)?.dueAt ?? 0, performance.now() + this.#delayMs)
      this.#put({ dueAt, bytes: undefined })
    })
    to.on('drain', () => {
      this.#isBlocked = false
      this.#deliver()
      this.#readOn()
    })
    from.resume()
  }

  stop(): void {
    clearTimeout(this.#deliverTimer)
    clearTimeout(this.#readTimer)
    for (const { bytes } of this.#queue.splice(0)) this.#onBytes(-(bytes?.length ?? 0))
  }

  #take(bytes: Buffer): void {
    const now = performance.now()
    let leftAt = now
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes)
      leftAt = this.#lane.send(piece.length, now)
      this.#onBytes(piece.length)
      this.#put({ dueAt: leftAt + this.#delayMs, bytes: piece })
    }
    if (leftAt - now <= aheadMs) return
    this.#from.pause()
    clearTimeout(this.#readTimer)
    this.#readTimer = setTimeout(
      () => {
        this.#readTimer = undefined
        this.#readOn()
      },
      leftAt - now - aheadMs
    )
  }

  #readOn(): void {
    if (!this.#isBlocked && this.#readTimer === undefined) this.#from.resume()
  }

  #put(piece: Piece): void {
    this.#queue.push(piece)
    if (this.#queue.length === 1) this.#deliver()
  }

  #deliver(): void {
    while (!this.#isBlocked && this.#queue.length > 0) {
      const { dueAt, bytes } = this.#queue[0]!
      const waitMs = dueAt - performance.now()
      if (waitMs > 0) {
        clearTimeout(this.#deliverTimer)
        this.#deliverTimer = setTimeout(() => this.#deliver(), waitMs)
        return
      }
      this.#queue.shift()
      if (bytes === undefined) this.#to.end()
      else {
        this.#onBytes(-bytes.length)
        if (!this.#to.write(bytes)) this.#block()
      }
    }
  }

  #block(): void {
    this.#isBlocked = true
    this.#from.pause()
  }
}

/** Where to listen and what is behind it, on this machine. */
export interface Forward {
  listen: number
  target: number
}

export interface RouteInit {
  forwards: readonly Forward[]
  line: ProviderLine
}

const host = '127.0.0.1'

/** All ports of one target, over one line. */
class Route {
  readonly #line: ProviderLine
  readonly #up: Lane
  readonly #down: Lane
  readonly #servers: Server[] = []
  readonly #connections = new Set<() => void>()
  readonly #onBytes: (held: number) => void

  constructor(line: ProviderLine, onBytes: (held: number) => void) {
    this.#line = line
    this.#up = new Lane(line.bytesPerSecond)
    this.#down = new Lane(line.bytesPerSecond)
    this.#onBytes = onBytes
  }

  async listen(forwards: readonly Forward[]): Promise<void> {
    for (const { listen, target } of forwards) {
      const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) =>
        this.#accept(client, target)
      )
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen({ port: listen, host, exclusive: true }, resolve)
      })
      this.#servers.push(server)
    }
  }

  async close(): Promise<void> {
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    for (const end of [...this.#connections]) end()
    await Promise.all(closed)
  }

  #accept(client: Socket, port: number): void {
    if (this.#connections.size >= connectionsMax) {
      client.destroy()
      return
    }
    const pipes: Pipe[] = []
    let target: Socket | undefined
    const end = (): void => {
      clearTimeout(opening)
      this.#connections.delete(end)
      for (const pipe of pipes) pipe.stop()
      // A reset, not an end: what was cut off must not look whole.
      for (const socket of [client, target]) if (socket?.destroyed === false) socket.resetAndDestroy()
    }
    client.setNoDelay(true)
    client.on('error', end)
    // TCP's own handshake: what the client says before it is over has not been sent yet.
    const opening = setTimeout(() => {
      target = dial({ port, host, allowHalfOpen: true, noDelay: true })
      target.on('error', end)
      const delayMs = this.#line.roundTripMs / 2
      pipes.push(
        new Pipe(client, target, this.#up, delayMs, this.#onBytes),
        new Pipe(target, client, this.#down, delayMs, this.#onBytes)
      )
      // Both ends have ended, each after the last of its bytes.
      target.on('close', () => client.destroyed && end())
      client.on('close', () => (target!.destroyed || client.errored !== null) && end())
    }, this.#line.roundTripMs)
    client.on('close', () => target === undefined && end())
    this.#connections.add(end)
  }
}

export class LineProxy {
  readonly #routes = new Map<string, Route>()
  #held = 0
  #heldMost = 0

  /** Bytes that are on their way, of all connections; and the most there ever were. */
  get held(): { now: number; most: number } {
    return { now: this.#held, most: this.#heldMost }
  }

  /**
   * Opens, or opens anew: connections of before break.
   *
   * @throws when a port can't be listened on
   */
  async open(name: string, { forwards, line }: RouteInit): Promise<void> {
    await this.close(name)
    const route = new Route(line, (bytes) => {
      this.#held += bytes
      this.#heldMost = Math.max(this.#heldMost, this.#held)
    })
    this.#routes.set(name, route)
    try {
      await route.listen(forwards)
    } catch (error) {
      await this.close(name)
      throw error
    }
  }

  /** Breaks its connections; nothing listens there afterwards. */
  async close(name: string): Promise<void> {
    const route = this.#routes.get(name)
    this.#routes.delete(name)
    await route?.close()
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#routes.keys()].map((name) => this.close(name)))
  }
}
