/** A request taken apart: which bucket and key it names, in path style or virtual-host style, and with what parameters. */
import { isIP } from 'node:net'
import { S3Error } from './errors.ts'
import type { HeaderMap } from './signature.ts'

export interface RequestTarget {
  /** Decoded path as it was sent, beginning with `/`: what is signed. */
  path: string
  /** Empty for the service itself. */
  bucket: string
  /** Empty for the bucket itself. */
  key: string
  query: Query
}

/** Decoded query parameters. */
export class Query {
  readonly pairs: ReadonlyArray<readonly [name: string, value: string]>
  readonly #first = new Map<string, string>()

  constructor(pairs: ReadonlyArray<readonly [name: string, value: string]>) {
    this.pairs = pairs
    for (const [name, value] of pairs) if (!this.#first.has(name)) this.#first.set(name, value)
  }

  has(name: string): boolean {
    return this.#first.has(name)
  }

  /** The first value of that name; empty for a bare name. */
  get(name: string): string | undefined {
    return this.#first.get(name)
  }
}

/** S3 takes no longer request line; keys have 1,024 bytes, three characters each at worst. */
const targetBytesMax = 16 * 1024
const queryPairsMax = 256

/**
 * @param rawTarget the request target as it was sent
 * @param domains base domains whose subdomains are buckets, longest match first
 * @throws S3Error `InvalidURI`
 */
export function parseTarget(rawTarget: string, host: string | undefined, domains: readonly string[]): RequestTarget {
  if (rawTarget.length > targetBytesMax) throw new S3Error('InvalidURI', 'The request target is too long.')
  // A proxy's client sends the absolute form; what comes before the path is the Host header once more.
  const target = rawTarget.replace(/^https?:\/\/[^/?]*/i, '')
  const mark = target.indexOf('?')
  const rawPath = mark === -1 ? target : target.slice(0, mark)
  const path = decode(rawPath === '' ? '/' : rawPath)
  if (!path.startsWith('/')) throw new S3Error('InvalidURI')
  const query = new Query(mark === -1 ? [] : parseQuery(target.slice(mark + 1)))
  const hostBucket = bucketOfHost(host, domains)
  if (hostBucket !== undefined) return { path, bucket: hostBucket, key: path.slice(1), query }
  const slash = path.indexOf('/', 1)
  if (slash === -1) return { path, bucket: path.slice(1), key: '', query }
  return { path, bucket: path.slice(1, slash), key: path.slice(slash + 1), query }
}

function parseQuery(text: string): Array<[string, string]> {
  const parts = text.split('&').filter((part) => part !== '')
  if (parts.length > queryPairsMax) throw new S3Error('InvalidURI', 'The query has too many parameters.')
  return parts.map((part) => {
    const equals = part.indexOf('=')
    const plain = part.replaceAll('+', ' ')
    return equals === -1 ? [decode(plain), ''] : [decode(plain.slice(0, equals)), decode(plain.slice(equals + 1))]
  })
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Percent-decodes once, to UTF-8. @throws S3Error `InvalidURI` */
export function decode(text: string): string {
  if (/^[!-$&-~]*$/.test(text)) return text // nothing encoded, nothing beyond ASCII
  const source = Buffer.from(text, 'latin1')
  const bytes = Buffer.allocUnsafe(source.length)
  let length = 0
  for (let i = 0; i < source.length; i++) {
    let byte = source[i]!
    if (byte === 0x25) {
      const hex = text.slice(i + 1, i + 3)
      if (!/^[0-9a-fA-F]{2}$/.test(hex)) throw new S3Error('InvalidURI')
      byte = Number.parseInt(hex, 16)
      i += 2
    }
    bytes[length++] = byte
  }
  try {
    return utf8.decode(bytes.subarray(0, length))
  } catch (cause) {
    throw new S3Error('InvalidURI', undefined, { cause })
  }
}

/** The bucket a Host header names, or undefined where the path does. */
export function bucketOfHost(host: string | undefined, domains: readonly string[]): string | undefined {
  if (host === undefined || host.startsWith('[')) return undefined
  const name = host.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase()
  if (isIP(name) !== 0 || domains.includes(name)) return undefined
  for (const domain of [...domains].sort((a, b) => b.length - a.length)) {
    if (name.endsWith(`.${domain}`)) return name.slice(0, -domain.length - 1)
  }
  return undefined
}

/** Node's flat list of names and values, as a map. */
export function headerMap(rawHeaders: readonly string[]): HeaderMap {
  const headers = new Map<string, string>()
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    const value = rawHeaders[i + 1]!
    const before = headers.get(name)
    headers.set(name, before === undefined ? value : `${before},${value}`)
  }
  return headers
}
