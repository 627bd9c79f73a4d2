/**
 * `/ipfs/{cid}`: single blocks for anyone, as the IPFS trustless gateway specification has them for
 * `application/vnd.ipld.raw`. Whoever asks checks the bytes against the CID, so no signature is needed.
 */
import { CID } from 'multiformats/cid'
import { isCode } from '../base/errors.ts'
import { S3Error } from './errors.ts'
import type { GatewayContext, Reply, S3Request } from './operations/operation.ts'
import type { RequestTarget } from './request.ts'

const rawType = 'application/vnd.ipld.raw'
const identityHash = 0x00
const cacheSeconds = 29_030_400 // 48 weeks, as the specification suggests

/** Only in path style: below a virtual host every path is a key. */
export function isBlockRequest(target: RequestTarget): boolean {
  return target.bucket === 'ipfs' && target.key !== '' && target.path === `/ipfs/${target.key}`
}

export type BlockRequest = Pick<S3Request, 'method' | 'key' | 'query' | 'headers' | 'signal'>

/** @throws S3Error `MethodNotAllowed`, `NotAcceptable`, `InvalidArgument`, `NoSuchKey` */
export async function getBlock(request: BlockRequest, { store }: Pick<GatewayContext, 'store'>): Promise<Reply> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    throw new S3Error('MethodNotAllowed', undefined, { headers: { allow: 'GET, HEAD' } })
  }
  if (!wantsRaw(request)) throw new S3Error('NotAcceptable')
  const cid = parseCid(request.key)
  const etag = `"${cid.toString()}.raw"`
  const headers = {
    etag,
    'cache-control': `public, max-age=${cacheSeconds}, immutable`,
    'x-ipfs-path': `/ipfs/${request.key}`,
    'x-ipfs-roots': cid.toString(),
    vary: 'accept'
  }
  // The CID names the content: whoever has something under that tag has the right bytes.
  const known = (request.headers.get('if-none-match') ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''))
  if (known.includes(etag)) return { status: 304, headers }
  const bytes = cid.multihash.code === identityHash ? cid.multihash.digest : await fetchBlock(cid, request, store)
  return {
    status: 200,
    headers: {
      ...headers,
      'content-type': rawType,
      'content-length': String(bytes.length),
      'content-disposition': `attachment; filename="${cid.toString()}.bin"`,
      'x-content-type-options': 'nosniff'
    },
    body: bytes
  }
}

async function fetchBlock(cid: CID, request: BlockRequest, store: GatewayContext['store']): Promise<Uint8Array> {
  try {
    return await store.getBlock(cid, request.signal)
  } catch (cause) {
    if (isCode(cause, 'MISSING'))
      throw new S3Error('NoSuchKey', 'No provider that is known here has this block.', { cause })
    throw cause
  }
}

/** The `format` parameter wins over `Accept`. Anything else than raw blocks would have to be trusted. */
function wantsRaw({ query, headers }: BlockRequest): boolean {
  const format = query.get('format')
  if (format !== undefined) return format === 'raw'
  return (headers.get('accept') ?? '').split(',').some((range) => {
    const [type, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase())
    return type === rawType && !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter))
  })
}

function parseCid(text: string): CID {
  try {
    return CID.parse(text)
  } catch (cause) {
    throw new S3Error('InvalidArgument', 'Not a CID; raw blocks are served as /ipfs/{cid}, without a path.', { cause })
  }
}
