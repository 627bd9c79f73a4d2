import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import { encodeMessage, MessageDecoder } from '../../src/net/message-stream.ts'

describe('a message', () => {
  test('comes out whole, however it was cut', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.integer({ min: 1, max: 50 })), (body, cuts) => {
        const frame = encodeMessage(body)
        const decoder = new MessageDecoder()
        let at = 0
        let message: Uint8Array | undefined
        for (const length of [...cuts, frame.length]) {
          if (at >= frame.length) break
          expect(message).toBeUndefined()
          message = decoder.push(frame.subarray(at, at + length))
          at += length
        }
        expect([...message!]).toEqual([...body])
      })
    )
  })

  test('announced larger than may be is refused before anything is kept for it', () => {
    const header = Buffer.alloc(4)
    header.writeUInt32BE(limits.rpcBytesMax + 1)
    expect(() => new MessageDecoder().push(header)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
    expect(() => encodeMessage(new Uint8Array(limits.rpcBytesMax + 1))).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT' })
    )
  })

  test('followed by anything is refused', () => {
    const frame = Buffer.concat([encodeMessage(Buffer.from('hello')), Buffer.of(0)])
    expect(() => new MessageDecoder().push(frame)).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  })
})
