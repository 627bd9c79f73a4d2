import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import type { Network, PeerAddress } from '../../src/net/network.ts'
import { codeOf } from './provider-client.ts'

export interface NetworkFixture {
  asker: Network
  answerer: Network
  /** A peer nobody can reach. */
  absent: PeerAddress
  cleanUp: () => Promise<void>
}

/** What every `Network` promises. */
export function networkContract(name: string, open: () => Promise<NetworkFixture>): void {
  describe(`${name} as a Network`, () => {
    let fixture: NetworkFixture
    let peer: PeerAddress
    beforeAll(async () => {
      fixture = await open()
      const { answerer } = fixture
      peer = { peerId: answerer.peerId, addresses: answerer.addresses() }
      await answerer.handle('/test/echo/1', async (from, body) => Buffer.concat([Buffer.from(`${from} `), body]))
      await answerer.handle('/test/same/1', async (_from, body) => body)
      await answerer.handle('/test/fail/1', async () => {
        throw new Error('a secret of the answering side')
      })
      await answerer.handle('/test/large/1', async () => new Uint8Array(limits.rpcBytesMax + 1))
      await answerer.handle('/test/never/1', () => new Promise(() => {}))
    })
    afterAll(async () => {
      await fixture?.cleanUp()
    })

    test('carries a message there and back, and says who asks', async () => {
      const { asker } = fixture
      const answer = await asker.request(peer, '/test/echo/1', Buffer.from('hello'))
      expect(Buffer.from(answer).toString()).toBe(`${asker.peerId} hello`)
    })

    test('carries empty messages and the largest, and no larger', async () => {
      const { asker } = fixture
      expect((await asker.request(peer, '/test/same/1', new Uint8Array())).length).toBe(0)
      const largest = new Uint8Array(limits.rpcBytesMax).fill(7)
      expect(Buffer.compare(await asker.request(peer, '/test/same/1', largest), largest)).toBe(0)
      expect(await codeOf(asker.request(peer, '/test/same/1', new Uint8Array(limits.rpcBytesMax + 1)))).toBe(
        'BAD_INPUT'
      )
      expect(await codeOf(asker.request(peer, '/test/large/1', new Uint8Array()))).toBe('PROTOCOL')
    })

    test('many requests at once keep their answers apart', async () => {
      const { asker } = fixture
      const bodies = Array.from({ length: 100 }, (_, i) => Buffer.from(`request ${i}`))
      const answers = await Promise.all(bodies.map((body) => asker.request(peer, '/test/same/1', body)))
      expect(answers.map((answer) => Buffer.from(answer).toString())).toEqual(bodies.map(String))
    })

    test('a handler that fails is PROTOCOL, and its reasons stay with it', async () => {
      const { asker } = fixture
      const failure = await asker.request(peer, '/test/fail/1', new Uint8Array()).catch((error: Error) => error)
      expect(failure).toMatchObject({ code: 'PROTOCOL' })
      expect(JSON.stringify([(failure as Error).message, String((failure as Error).cause)])).not.toContain('secret')
    })

    test('a protocol nobody handles is PROTOCOL', async () => {
      expect(await codeOf(fixture.asker.request(peer, '/test/unknown/1', new Uint8Array()))).toBe('PROTOCOL')
    })

    test('a peer nobody can reach is OFFLINE', async () => {
      expect(await codeOf(fixture.asker.request(fixture.absent, '/test/same/1', new Uint8Array()))).toBe('OFFLINE')
    })

    test('an abort ends the wait, with its reason', async () => {
      const { asker } = fixture
      const controller = new AbortController()
      const reason = new Error('changed my mind')
      const answer = asker.request(peer, '/test/never/1', new Uint8Array(), controller.signal)
      controller.abort(reason)
      await expect(answer).rejects.toBe(reason)
      expect((await asker.request(peer, '/test/same/1', Buffer.of(1)))[0]).toBe(1)
    })
  })
}
