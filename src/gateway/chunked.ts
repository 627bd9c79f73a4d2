/**
 * `aws-chunked`: the framing in which S3 clients send a body whose signature or checksum they only know at the end.
 *
 *     hex-size[;chunk-signature=hex64] CRLF  data CRLF  ...  0[;chunk-signature=hex64] CRLF  [trailers]  CRLF
 *
 * The decoder hands on slices of what it reads and copies no data. A chunk's signature is checked at its end, so bytes
 * of a bad chunk may have been handed on by then: whoever consumes them must not commit anything unless the iteration
 * ends without an error.
 *
 * Source: "Signature calculations for the Authorization header: transferring payload in multiple chunks" and its
 * variant with trailing headers, Amazon S3 API reference.
 */
import { createHash } from 'node:crypto'
import { concatBytes } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import { KiB } from '../base/limits.ts'
import { S3Error } from './errors.ts'
import { chunkStringToSign, type Scope, sameText, sign, trailerStringToSign } from './signature.ts'

/** What the chain of chunk signatures starts from: the request's own signature. */
export interface ChunkSigning {
  key: Buffer
  amzDate: string
  scope: Scope
  seedSignature: string
}

export interface ChunkedOptions {
  /** Absent: chunks are not signed. */
  signing?: ChunkSigning
  /** Names of the trailing headers that were announced, lower-case; undefined where the body ends without any. */
  trailers?: readonly string[]
  /** Called once, when all trailing headers have been read and their signature verified. */
  onTrailers?: (trailers: ReadonlyMap<string, string>) => void
}

const headerBytesMax = 1 * KiB
const trailerBytesMax = 16 * KiB
const signatureTrailer = 'x-amz-trailer-signature'
const lineFeed = 0x0a

/**
 * The data of an `aws-chunked` body.
 *
 * @throws HoldfastError `INCOMPLETE_BODY` when it ends early
 * @throws S3Error `SignatureDoesNotMatch`, `MalformedTrailerError`, `InvalidRequest` for bad framing
 */
export async function* decodeChunked(
  source: AsyncIterable<Uint8Array>,
  options: ChunkedOptions
): AsyncGenerator<Uint8Array> {
  const input = new Input(source)
  try {
    yield* decode(input, options)
  } finally {
    await input.close()
  }
}

async function* decode(input: Input, options: ChunkedOptions): AsyncGenerator<Uint8Array> {
  const { signing } = options
  let previousSignature = signing?.seedSignature ?? ''
  for (;;) {
    const header = parseChunkHeader(await input.line(headerBytesMax), signing !== undefined)
    const hash = signing === undefined ? undefined : createHash('sha256')
    for (let left = header.sizeBytes; left > 0; ) {
      const data = await input.some(left)
      left -= data.length
      hash?.update(data)
      yield data
    }
    if (signing !== undefined && hash !== undefined) {
      const text = chunkStringToSign(signing.amzDate, signing.scope, previousSignature, hash.digest('hex'))
      if (!sameText(sign(signing.key, text), header.signature)) throw new S3Error('SignatureDoesNotMatch')
      previousSignature = header.signature
    }
    if (header.sizeBytes === 0) break
    if ((await input.line(0)) !== '') throw badFraming()
  }
  const trailers = parseTrailers(await input.rest(trailerBytesMax), options.trailers)
  if (options.trailers === undefined) return
  if (signing !== undefined) checkTrailerSignature(signing, previousSignature, trailers)
  options.onTrailers?.(trailers)
}

function badFraming(): S3Error {
  return new S3Error('InvalidRequest', 'The body is not well-formed aws-chunked data.')
}

function parseChunkHeader(line: string, isSigned: boolean): { sizeBytes: number; signature: string } {
  const match = /^([0-9a-fA-F]{1,12})(?:;chunk-signature=([0-9a-f]{64}))?$/.exec(line)
  if (match === null) throw badFraming()
  const signature = match[2] ?? ''
  if (isSigned && signature === '') throw badFraming()
  return { sizeBytes: Number.parseInt(match[1]!, 16), signature }
}

/** Trailers are lines `name:value`; clients differ in whether they end in LF, CRLF or both. */
function parseTrailers(section: string, announced: readonly string[] | undefined): Map<string, string> {
  const trailers = new Map<string, string>()
  for (const rawLine of section.split('\n')) {
    const line = rawLine.replace(/\r$/, '')
    if (line === '') continue
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).trim().toLowerCase()
    const isExpected = name === signatureTrailer || announced?.includes(name) === true
    if (colon <= 0 || announced === undefined || !isExpected || trailers.has(name))
      throw new S3Error('MalformedTrailerError')
    trailers.set(name, line.slice(colon + 1).trim())
  }
  for (const name of announced ?? []) if (!trailers.has(name)) throw new S3Error('MalformedTrailerError')
  return trailers
}

function checkTrailerSignature(signing: ChunkSigning, previousSignature: string, trailers: Map<string, string>): void {
  const declared = trailers.get(signatureTrailer)
  if (declared === undefined) throw new S3Error('MalformedTrailerError')
  const canonical = [...trailers]
    .filter(([name]) => name !== signatureTrailer)
    .map(([name, value]) => `${name}:${value}\n`)
  const text = trailerStringToSign(signing.amzDate, signing.scope, previousSignature, canonical.join(''))
  if (!sameText(sign(signing.key, text), declared)) throw new S3Error('SignatureDoesNotMatch')
}

/** Pulls lines and runs of bytes out of chunks of any size, without copying the runs. */
class Input {
  readonly #source: AsyncIterator<Uint8Array>
  #chunk: Uint8Array = new Uint8Array(0)
  #offset = 0

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  async close(): Promise<void> {
    await this.#source.return?.()
  }

  /** @returns false at the end */
  async #fill(): Promise<boolean> {
    while (this.#offset === this.#chunk.length) {
      const next = await this.#source.next()
      if (next.done === true) return false
      this.#chunk = next.value
      this.#offset = 0
    }
    return true
  }

  /** Between 1 and `bytesMax` bytes, whatever is there. */
  async some(bytesMax: number): Promise<Uint8Array> {
    if (!(await this.#fill())) throw endedEarly()
    const start = this.#offset
    this.#offset = Math.min(this.#chunk.length, start + bytesMax)
    return this.#chunk.subarray(start, this.#offset)
  }

  /** A line without its CRLF, as Latin-1. */
  async line(bytesMax: number): Promise<string> {
    const parts: Uint8Array[] = []
    let length = 0
    for (;;) {
      if (!(await this.#fill())) throw endedEarly()
      const end = this.#chunk.indexOf(lineFeed, this.#offset)
      const part = this.#chunk.subarray(this.#offset, end === -1 ? this.#chunk.length : end + 1)
      length += part.length
      if (length > bytesMax + 2) throw badFraming()
      parts.push(part)
      this.#offset += part.length
      if (end !== -1) break
    }
    const line = Buffer.from(concatBytes(parts)).toString('latin1')
    if (!line.endsWith('\r\n')) throw badFraming()
    return line.slice(0, -2)
  }

  /** All that is left. */
  async rest(bytesMax: number): Promise<string> {
    const parts: Uint8Array[] = []
    let length = 0
    while (await this.#fill()) {
      const part = this.#chunk.subarray(this.#offset)
      length += part.length
      if (length > bytesMax) throw new S3Error('MalformedTrailerError')
      parts.push(part)
      this.#offset = this.#chunk.length
    }
    return Buffer.concat(parts).toString('latin1')
  }
}

function endedEarly(): HoldfastError {
  return new HoldfastError('INCOMPLETE_BODY', 'the aws-chunked body ended before its last chunk')
}
