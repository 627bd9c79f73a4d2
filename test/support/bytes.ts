/** Bytes that look random and can be made again from their name: what went in is known without keeping it. */
import { createCipheriv, createHash } from 'node:crypto'
import { Readable } from 'node:stream'

const chunkBytes = 256 * 1024
const zeros = Buffer.alloc(chunkBytes)

/** The bytes in pieces; memory does not grow with `sizeBytes`. */
export function* chunksOf(name: string, sizeBytes: number): Generator<Buffer> {
  const seed = createHash('sha256').update(name).digest()
  const cipher = createCipheriv('aes-128-ctr', seed.subarray(0, 16), seed.subarray(16))
  for (let left = sizeBytes; left > 0; left -= chunkBytes) yield cipher.update(zeros.subarray(0, left))
}

export function bytesOf(name: string, sizeBytes: number): Buffer {
  return Buffer.concat([...chunksOf(name, sizeBytes)])
}

export function streamOf(name: string, sizeBytes: number): Readable {
  return Readable.from(chunksOf(name, sizeBytes), { objectMode: false })
}

export function sha256Of(name: string, sizeBytes: number): string {
  const hash = createHash('sha256')
  for (const chunk of chunksOf(name, sizeBytes)) hash.update(chunk)
  return hash.digest('hex')
}

/** Reads to the end; nothing is kept. */
export async function sha256OfStream(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}
