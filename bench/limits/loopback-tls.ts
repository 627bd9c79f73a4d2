/**
 * How fast this machine moves bytes one way through TLS 1.3 between two Node processes on loopback: the most that one
 * connection of the data plane could do. The certificate is of the kind that providers have.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { generateIdentity } from '../../src/net/identity.ts'
import { makePeerCertificate } from '../../src/net/peer-tls.ts'
import { DataSource, type ObjectData } from '../data.ts'
import { measureRow, ratesOf, rateUnits, type Sampling, timed, WrongAnswerError } from '../harness.ts'
import type { Row } from '../result.ts'
import type { SinkInit, SinkMessage } from './tls-sink.ts'

const sinkFile = fileURLToPath(new URL('tls-sink.ts', import.meta.url))

export interface LoopbackTlsInit {
  seed: number
  size: number
  sampling: Sampling
  signal: AbortSignal
}

export async function loopbackTls({ seed, size, sampling, signal }: LoopbackTlsInit): Promise<Row> {
  const { cert, key } = await makePeerCertificate(await generateIdentity(), { now: Date.now() })
  const sink = fork(sinkFile, [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  try {
    sink.send({ cert, key, seed, size } satisfies SinkInit)
    const { port } = await messageOf(sink, 'listening')
    const data = new DataSource(seed).object(0, size)
    return await measureRow({
      id: 'tls',
      label: 'loopback TLS 1.3 copy, one way, one connection',
      units: rateUnits,
      sampling,
      signal,
      take: async () => {
        const received = messageOf(sink, 'received')
        received.catch(() => {}) // it is awaited below, unless the copy fails first
        const { seconds, cpuSeconds } = await timed(
          () => send(port, data),
          (answer) => {
            if (answer !== 'ok') throw new WrongAnswerError('the receiver did not get the bytes that were sent')
          }
        )
        return ratesOf(size, { seconds, cpuSeconds: cpuSeconds + (await received).cpuSeconds })
      }
    })
  } finally {
    if (sink.connected) sink.disconnect()
  }
}

/** Sends it all, handshake included; resolves with what the receiver says to it, nothing when it breaks off. */
async function send(port: number, data: ObjectData): Promise<string> {
  // The certificate vouches for a peer id, which nobody asks for here.
  const socket = connect({ host: '127.0.0.1', port, minVersion: 'TLSv1.3', rejectUnauthorized: false })
  let answer = ''
  socket.on('data', (chunk) => {
    answer += chunk.toString('latin1')
  })
  const closed = once(socket, 'close')
  await once(socket, 'secureConnect')
  for (const chunk of data.chunks()) if (!socket.write(chunk)) await Promise.race([once(socket, 'drain'), closed])
  await closed
  return answer
}

/** The next message of a kind. Rejects when the process ends before. */
async function messageOf<K extends SinkMessage['kind']>(
  sink: ChildProcess,
  kind: K
): Promise<Extract<SinkMessage, { kind: K }>> {
  const { promise, resolve, reject } = Promise.withResolvers<Extract<SinkMessage, { kind: K }>>()
  const onMessage = (message: unknown): void => {
    const known = message as SinkMessage
    if (known.kind === kind) resolve(known as Extract<SinkMessage, { kind: K }>)
  }
  const onExit = (code: number | null): void =>
    reject(new Error(`the receiving process ended with ${code ?? 'a signal'}`))
  sink.on('message', onMessage)
  sink.once('exit', onExit)
  try {
    return await promise
  } finally {
    sink.off('message', onMessage)
    sink.off('exit', onExit)
  }
}
