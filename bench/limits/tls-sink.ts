/**
 * The receiving end of `loopback-tls.ts`, a process of its own: takes connections one after the other, compares what
 * comes with what was to come, and says `ok` on each once all of it has.
 */
import { createServer } from 'node:tls'
import { DataSource } from '../data.ts'
import { ownCpuSeconds } from '../harness.ts'

export interface SinkInit {
  cert: string
  key: string
  seed: number
  /** Bytes of a connection. */
  size: number
}

export type SinkMessage = { kind: 'listening'; port: number } | { kind: 'received'; cpuSeconds: number }

const say = (message: SinkMessage): void => void process.send!(message)

process.once('message', ({ cert, key, seed, size }: SinkInit) => {
  const expected = new DataSource(seed).object(0, size)
  const server = createServer({ cert, key, minVersion: 'TLSv1.3' }, (socket) => {
    const cpuBefore = ownCpuSeconds()
    let received = 0
    socket.on('data', (chunk) => {
      expected.verify(received, chunk)
      received += chunk.length
      if (received < size) return
      say({ kind: 'received', cpuSeconds: ownCpuSeconds() - cpuBefore })
      socket.end('ok')
    })
  })
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    if (address !== null && typeof address === 'object') say({ kind: 'listening', port: address.port })
  })
})
// Whatever became of the parent: without it there is nothing to receive.
process.once('disconnect', () => process.exit(0))
