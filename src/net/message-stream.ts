/**
 * One message a direction on a libp2p stream: four bytes of length, big-endian, then that many bytes. Layout:
 * FORMATS.md, "Control messages".
 *
 * libp2p streams do not hold the sender back, so what arrives is counted as it comes: more than was announced, or an
 * announcement above the limit, ends the stream.
 */
import { type Stream, StreamCloseEvent, type StreamMessageEvent } from '@libp2p/interface'
import { HoldfastError } from '../base/errors.ts'
import { limits } from '../base/limits.ts'

const headerBytes = 4

/** What reading and writing need of a stream. */
export type MessageStream = Pick<
  Stream,
  'addEventListener' | 'removeEventListener' | 'send' | 'close' | 'abort' | 'status' | 'readableEnded'
>

/** @throws HoldfastError `BAD_INPUT` for a message above `limits.rpcBytesMax` */
export function encodeMessage(body: Uint8Array): Uint8Array {
  if (body.length > limits.rpcBytesMax)
    throw new HoldfastError('BAD_INPUT', `a message has at most ${limits.rpcBytesMax} bytes`)
  const frame = Buffer.allocUnsafe(headerBytes + body.length)
  frame.writeUInt32BE(body.length, 0)
  frame.set(body, headerBytes)
  return frame
}

/** Puts one message together from the chunks it arrives in. */
export class MessageDecoder {
  #header = Buffer.alloc(headerBytes)
  #headerLength = 0
  #body: Uint8Array | undefined
  #bodyLength = 0

  /**
   * Takes the next chunk; returns the message once it is whole.
   *
   * @throws HoldfastError `PROTOCOL` for a message above `limits.rpcBytesMax`, or bytes after its end
   */
  push(chunk: Uint8Array): Uint8Array | undefined {
    let at = 0
    if (this.#body === undefined) {
      at = Math.min(headerBytes - this.#headerLength, chunk.length)
      this.#header.set(chunk.subarray(0, at), this.#headerLength)
      this.#headerLength += at
      if (this.#headerLength < headerBytes) return undefined
      const length = this.#header.readUInt32BE(0)
      if (length > limits.rpcBytesMax) throw new HoldfastError('PROTOCOL', `a message of ${length} bytes was announced`)
      this.#body = new Uint8Array(length)
    }
    const rest = chunk.subarray(at)
    if (this.#bodyLength + rest.length > this.#body.length)
      throw new HoldfastError('PROTOCOL', 'bytes follow the message')
    this.#body.set(rest, this.#bodyLength)
    this.#bodyLength += rest.length
    return this.#bodyLength === this.#body.length ? this.#body : undefined
  }
}

/**
 * The one message the other end sends. Does not end the stream on failure: the caller aborts it.
 *
 * @throws HoldfastError `PROTOCOL` when the stream ends before, or carries something else; the signal's reason
 */
export async function readMessage(stream: MessageStream, signal: AbortSignal): Promise<Uint8Array> {
  signal.throwIfAborted()
  const decoder = new MessageDecoder()
  return await new Promise<Uint8Array>((resolve, reject) => {
    const settle = (): void => {
      stream.removeEventListener('message', onMessage)
      stream.removeEventListener('end', onEnd)
      stream.removeEventListener('close', onEnd)
      signal.removeEventListener('abort', onAbort)
    }
    const onMessage = (event: StreamMessageEvent): void => {
      try {
        const message = decoder.push(event.data.subarray())
        if (message === undefined) return
        settle()
        resolve(message)
      } catch (error) {
        settle()
        reject(error)
      }
    }
    const onEnd = (event?: Event): void => {
      settle()
      const cause = event instanceof StreamCloseEvent ? event.error : undefined
      reject(new HoldfastError('PROTOCOL', 'the stream ended before the message', { cause }))
    }
    const onAbort = (): void => {
      settle()
      reject(signal.reason)
    }
    stream.addEventListener('message', onMessage)
    stream.addEventListener('end', onEnd)
    stream.addEventListener('close', onEnd)
    signal.addEventListener('abort', onAbort, { once: true })
    if (stream.readableEnded || stream.status === 'aborted' || stream.status === 'reset') onEnd()
  })
}
