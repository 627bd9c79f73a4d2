/** Request bodies: from the socket to checked bytes, with a bound on everything that waits. */
import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { copied } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import type { Checksums } from '../metadata/records.ts'
import type { UploadBody } from '../object/object-store.ts'
import {
  algorithmOfHeader,
  type ChecksumAlgorithm,
  checkChecksum,
  checksumHeader,
  checksumLabel,
  createChecksummer,
  isChecksum,
  parseAlgorithm
} from './checksum.ts'
import { type ChunkSigning, decodeChunked } from './chunked.ts'
import { S3Error } from './errors.ts'
import { type HeaderMap, sameText } from './signature.ts'

/** How the request said its body is protected; the signature covers that statement. */
export type PayloadProtection =
  | { kind: 'unsigned' }
  | { kind: 'sha256'; hex: string }
  | { kind: 'chunked'; signing?: ChunkSigning; hasTrailers: boolean }

/**
 * Reads a request's body. The socket is paused whenever a chunk waits to be taken. `onStart` runs before the first
 * byte is asked for: that is when `100 Continue` is due.
 *
 * Iterating rejects with S3Error `RequestTimeout` when the client sends nothing for `idleTimeoutMs`, and with
 * HoldfastError `INCOMPLETE_BODY` when it goes away. Leaving early does not destroy the socket.
 */
export class SocketBody implements AsyncIterable<Uint8Array> {
  readonly #message: IncomingMessage
  #idleTimeoutMs: number
  #onStart: () => void
  #isStarted = false
  #waiting: Uint8Array[] = []
  #isEnded = false
  #failure: Error | undefined
  /** More than one only where a consumer was left in the middle of its wait. */
  readonly #waiters = new Set<() => void>()
  bytesRead = 0

  constructor(message: IncomingMessage, idleTimeoutMs: number, onStart: () => void) {
    this.#message = message
    this.#idleTimeoutMs = idleTimeoutMs
    this.#onStart = onStart
  }

  /** Whether the last byte has been read. */
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Whether no more of it will come: the client is gone or has been silent for too long. */
  get isBroken(): boolean {
    return this.#failure !== undefined
  }

  #start(): void {
    this.#isStarted = true
    const message = this.#message
    const signal = (): void => {
      for (const wake of this.#waiters) wake()
      this.#waiters.clear()
    }
    const gone = (): void => {
      if (!this.#isEnded) {
        this.#failure ??= new HoldfastError('INCOMPLETE_BODY', 'the client went away in the middle of its body')
      }
      signal()
    }
    message.on('data', (chunk: Buffer) => {
      this.bytesRead += chunk.length
      this.#waiting.push(chunk)
      message.pause()
      signal()
    })
    message.on('end', () => {
      this.#isEnded = true
      signal()
    })
    message.on('error', gone)
    message.on('close', gone)
    if (message.destroyed) gone()
    this.#onStart()
  }

  async #next(): Promise<Uint8Array | undefined> {
    if (!this.#isStarted) this.#start()
    for (;;) {
      const chunk = this.#waiting.shift()
      if (chunk !== undefined) return chunk
      if (this.#failure !== undefined) throw this.#failure
      if (this.#isEnded) return undefined
      await this.#arrival()
    }
  }

  #arrival(): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = (): void => {
        clearTimeout(timer)
        resolve()
      }
      const timer = setTimeout(() => {
        this.#waiters.delete(wake)
        this.#failure ??= new S3Error('RequestTimeout')
        reject(this.#failure)
      }, this.#idleTimeoutMs)
      this.#waiters.add(wake)
      this.#message.resume()
    })
  }

  /**
   * Reads and drops what is left, up to a bound, without inviting a client that waits for `100 Continue` to send it.
   *
   * @returns whether the end was reached
   */
  async discard(bytesMax: number, idleTimeoutMs: number): Promise<boolean> {
    this.#onStart = () => {}
    this.#idleTimeoutMs = idleTimeoutMs
    const enough = this.bytesRead + bytesMax
    try {
      while (this.bytesRead <= enough) if ((await this.#next()) === undefined) return true
    } catch {
      return false // gone or silent: the caller closes the connection
    }
    return false
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (let chunk = await this.#next(); chunk !== undefined; chunk = await this.#next()) yield chunk
  }
}

/** The body of one request, as the operations see it. */
export class RequestBody {
  readonly #source: AsyncIterable<Uint8Array>
  readonly #headers: HeaderMap
  readonly #protection: PayloadProtection

  constructor(source: AsyncIterable<Uint8Array>, headers: HeaderMap, protection: PayloadProtection) {
    this.#source = source
    this.#headers = headers
    this.#protection = protection
  }

  /** Whether the request has a body at all, be it of length zero. */
  get isPresent(): boolean {
    return this.#headers.has('content-length') || this.#headers.has('transfer-encoding')
  }

  /**
   * Length of the content, without framing; undefined for a body of unknown length.
   *
   * @throws S3Error `MissingContentLength`
   */
  get sizeBytes(): number | undefined {
    if (this.#protection.kind === 'chunked') {
      const declared = this.#headers.get('x-amz-decoded-content-length')
      if (declared === undefined) throw new S3Error('MissingContentLength')
      if (!/^\d{1,15}$/.test(declared))
        throw new S3Error('InvalidArgument', 'x-amz-decoded-content-length is not a length.')
      return Number(declared)
    }
    const declared = this.#headers.get('content-length')
    return declared === undefined ? undefined : Number(declared)
  }

  /**
   * The body as an upload: every check the client asked for is made by the time the iteration ends. `computeToo` is
   * worked out even where the client did not ask.
   *
   * @throws S3Error `InvalidDigest`, `InvalidRequest`, `MissingContentLength`
   */
  async upload(computeToo?: ChecksumAlgorithm): Promise<UploadBody> {
    return await this.#checked(declaredChecksum(this.#headers), computeToo)
  }

  /** The algorithm of the checksum that the client sends along, be it in a trailer. */
  get declaredAlgorithm(): ChecksumAlgorithm | undefined {
    return declaredChecksum(this.#headers)?.algorithm
  }

  async #checked(declared: DeclaredChecksum | undefined, computeToo?: ChecksumAlgorithm): Promise<UploadBody> {
    const size = this.sizeBytes
    const expectedMd5 = declaredMd5(this.#headers)
    const content = this.#content((trailers) => {
      if (declared?.isTrailing === true) {
        declared.value = checkedValue(declared.algorithm, trailers.get(checksumHeader(declared.algorithm)))
      }
    })
    const body = await checksummed(exactly(content, size), declared?.algorithm ?? computeToo, () => declared?.value)
    return { ...body, ...(size !== undefined && { size }), ...(expectedMd5 !== undefined && { expectedMd5 }) }
  }

  /**
   * A request document, whole and verified; empty where there is no body. With `checksumOf: 'object'` the request's
   * checksum headers speak of something else than the document.
   *
   * @throws S3Error `MaxMessageLengthExceeded`, and whatever a check yields
   */
  async text(bytesMax: number, checksumOf: 'document' | 'object' = 'document'): Promise<string> {
    if (!this.isPresent) return ''
    if ((this.sizeBytes ?? 0) > bytesMax) throw new S3Error('MaxMessageLengthExceeded')
    const body = await this.#checked(checksumOf === 'document' ? declaredChecksum(this.#headers) : undefined)
    const parts: Uint8Array[] = []
    let length = 0
    for await (const chunk of body.bytes) {
      length += chunk.length
      if (length > bytesMax) throw new S3Error('MaxMessageLengthExceeded')
      parts.push(chunk)
    }
    const whole = Buffer.concat(parts)
    if (body.expectedMd5 !== undefined && !createHash('md5').update(whole).digest().equals(body.expectedMd5)) {
      throw new S3Error('BadDigest', 'The Content-MD5 you specified did not match what we received.')
    }
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(whole)
    } catch (cause) {
      throw new S3Error('MalformedXML', undefined, { cause })
    }
  }

  #content(onTrailers: (trailers: ReadonlyMap<string, string>) => void): AsyncIterable<Uint8Array> {
    const protection = this.#protection
    switch (protection.kind) {
      case 'unsigned':
        return this.#source
      case 'sha256':
        return checkSha256(this.#source, protection.hex)
      case 'chunked':
        return decodeChunked(this.#source, {
          ...(protection.signing !== undefined && { signing: protection.signing }),
          ...(protection.hasTrailers && { trailers: announcedTrailers(this.#headers) }),
          onTrailers
        })
    }
  }
}

/** Bytes that are here already, as an upload: what UploadPartCopy reads from its source. */
export async function storedBytes(
  bytes: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  algorithm?: ChecksumAlgorithm
): Promise<UploadBody> {
  return { ...(await checksummed(copied(bytes), algorithm)), size: sizeBytes }
}

/** Computes a checksum as the bytes pass, and compares it at their end with what is expected by then. */
async function checksummed(
  bytes: AsyncIterable<Uint8Array>,
  algorithm: ChecksumAlgorithm | undefined,
  expected: () => string | undefined = () => undefined
): Promise<UploadBody> {
  if (algorithm === undefined) return { bytes }
  const checksummer = await createChecksummer(algorithm)
  const checksums: Checksums = {}
  const tapped = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of bytes) {
      checksummer.update(chunk)
      yield chunk
    }
    const computed = checksummer.digest()
    const declared = expected()
    if (declared !== undefined) checkChecksum(algorithm, declared, computed)
    checksums[algorithm] = computed
  }
  return { bytes: tapped(), checksums: () => checksums }
}

/** @throws S3Error `IncompleteBody` unless there are just as many bytes as were declared */
async function* exactly(bytes: AsyncIterable<Uint8Array>, sizeBytes: number | undefined): AsyncGenerator<Uint8Array> {
  let length = 0
  for await (const chunk of bytes) {
    length += chunk.length
    if (sizeBytes !== undefined && length > sizeBytes) {
      throw new S3Error('IncompleteBody', 'The body is longer than it was declared to be.')
    }
    yield chunk
  }
  if (sizeBytes !== undefined && length !== sizeBytes) throw new S3Error('IncompleteBody')
}

async function* checkSha256(source: AsyncIterable<Uint8Array>, hex: string): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256')
  for await (const chunk of source) {
    hash.update(chunk)
    yield chunk
  }
  const computed = hash.digest('hex')
  if (sameText(computed, hex)) return
  throw new S3Error('XAmzContentSHA256Mismatch', undefined, {
    details: { ClientComputedContentSHA256: hex, S3ComputedContentSHA256: computed }
  })
}

function announcedTrailers(headers: HeaderMap): string[] {
  return (headers.get('x-amz-trailer') ?? '')
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '')
}

/** @throws S3Error `InvalidDigest` */
function declaredMd5(headers: HeaderMap): Uint8Array | undefined {
  const text = headers.get('content-md5')
  if (text === undefined) return undefined
  const bytes = Buffer.from(text, 'base64')
  if (bytes.length !== 16 || bytes.toString('base64') !== text.trim()) throw new S3Error('InvalidDigest')
  return bytes
}

interface DeclaredChecksum {
  algorithm: ChecksumAlgorithm
  /** Absent where it follows in a trailer. */
  value?: string
  isTrailing: boolean
}

function checkedValue(algorithm: ChecksumAlgorithm, value: string | undefined): string {
  if (value !== undefined && isChecksum(algorithm, value)) return value
  throw new S3Error('InvalidRequest', `Value for ${checksumHeader(algorithm)} header is invalid.`)
}

/** What the client says its body's checksum is or will be. */
function declaredChecksum(headers: HeaderMap): DeclaredChecksum | undefined {
  const found: DeclaredChecksum[] = []
  for (const [name, value] of headers) {
    const algorithm = algorithmOfHeader(name)
    if (algorithm !== undefined) found.push({ algorithm, value: checkedValue(algorithm, value), isTrailing: false })
  }
  for (const name of announcedTrailers(headers)) {
    const algorithm = algorithmOfHeader(name)
    if (algorithm === undefined)
      throw new S3Error('InvalidRequest', 'The value specified in the x-amz-trailer header is not supported')
    found.push({ algorithm, isTrailing: true })
  }
  if (found.length > 1) {
    throw new S3Error(
      'InvalidRequest',
      'Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.'
    )
  }
  const declared = found[0]
  const named = headers.get('x-amz-sdk-checksum-algorithm')
  if (named === undefined) return declared
  const algorithm = parseAlgorithm(named)
  if (algorithm === undefined) {
    throw new S3Error('InvalidRequest', 'Value for x-amz-sdk-checksum-algorithm header is invalid.')
  }
  if (declared === undefined) {
    throw new S3Error(
      'InvalidRequest',
      'x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.'
    )
  }
  if (declared.algorithm !== algorithm) {
    throw new S3Error(
      'InvalidRequest',
      `Value for x-amz-sdk-checksum-algorithm header is invalid: it is not ${checksumLabel(declared.algorithm)}.`
    )
  }
  return declared
}
