/** `x-amz-copy-source`: which object is copied, by whom, and under which conditions. */
import type { ObjectRecord } from '../../metadata/records.ts'
import type { OpenObject } from '../../object/object-store.ts'
import { allowedBucket } from '../access.ts'
import { evaluate, readConditions } from '../conditions.ts'
import { S3Error } from '../errors.ts'
import { decode } from '../request.ts'
import type { GatewayContext, S3Request } from './operation.ts'

export interface CopySource {
  bucket: string
  key: string
}

function parseCopySource(header: string): CopySource {
  const malformed = (message: string): S3Error =>
    new S3Error('InvalidArgument', message, {
      details: { ArgumentName: 'x-amz-copy-source', ArgumentValue: header.slice(0, 256) }
    })
  // The version stands outside of the encoding: a key's own question mark is encoded.
  const mark = header.lastIndexOf('?versionId=')
  const version = mark === -1 ? 'null' : header.slice(mark + '?versionId='.length)
  const path = decode(mark === -1 ? header : header.slice(0, mark)).replace(/^\//, '')
  const slash = path.indexOf('/')
  if (slash <= 0 || slash === path.length - 1) {
    throw malformed('Copy Source must mention the source bucket and key: sourcebucket/sourcekey')
  }
  if (version !== 'null')
    throw new S3Error('NoSuchVersion', undefined, { details: { VersionId: version.slice(0, 128) } })
  return { bucket: path.slice(0, slash), key: path.slice(slash + 1) }
}

/** Checks that the caller may read the source, and names it. */
export async function requireSource(request: S3Request, context: GatewayContext): Promise<CopySource> {
  const source = parseCopySource(request.headers.get('x-amz-copy-source') ?? '')
  const expectedOwner = request.headers.get('x-amz-source-expected-bucket-owner')
  await allowedBucket(source.bucket, request.account, context, 'read', expectedOwner)
  return source
}

/** @throws S3Error `PreconditionFailed` */
export function checkSourceConditions(request: S3Request, record: ObjectRecord): void {
  if (evaluate(readConditions(request.headers, 'x-amz-copy-source-'), record) === 'not-modified') {
    throw new S3Error('PreconditionFailed')
  }
}

/** Runs `work` with the source open, and lets go of it whatever happens. */
export async function withSource<T>(
  context: GatewayContext,
  source: CopySource,
  work: (open: OpenObject) => Promise<T>
): Promise<T> {
  const open = await context.store.openObject(source.bucket, source.key)
  try {
    return await work(open)
  } finally {
    open.close()
  }
}
