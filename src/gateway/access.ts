/** Who may do what: buckets belong to the account that made them; public ones may be read by anyone. */
import type { BucketRecord } from '../metadata/records.ts'
import type { Account } from '../object/object-store.ts'
import { isBucketName } from './bucket-name.ts'
import { S3Error } from './errors.ts'
import type { GatewayContext, S3Request } from './operations/operation.ts'

export type Access = 'read' | 'own'

/**
 * The bucket a request names, if the caller may have at it.
 *
 * @throws S3Error `InvalidBucketName`, `NoSuchBucket`, `AccessDenied`
 */
export async function requireBucket(
  request: S3Request,
  context: GatewayContext,
  access: Access
): Promise<BucketRecord> {
  const expectedOwner = request.headers.get('x-amz-expected-bucket-owner')
  return await allowedBucket(request.bucket, request.account, context, access, expectedOwner)
}

/** As `requireBucket`, for a bucket that is not the one of the request's path. */
export async function allowedBucket(
  name: string,
  account: Account | undefined,
  context: GatewayContext,
  access: Access,
  expectedOwner?: string
): Promise<BucketRecord> {
  if (!isBucketName(name)) throw new S3Error('InvalidBucketName', undefined, { details: { BucketName: name } })
  const bucket = await context.store.getBucket(name)
  if (bucket === undefined) throw new S3Error('NoSuchBucket', undefined, { details: { BucketName: name } })
  const isAllowed = account?.owner === bucket.owner || (access === 'read' && bucket.isPublic)
  if (!isAllowed || (expectedOwner !== undefined && expectedOwner !== bucket.owner)) throw new S3Error('AccessDenied')
  return bucket
}

/** @throws S3Error `AccessDenied` for an anonymous request */
export function requireAccount(request: S3Request): Account {
  if (request.account === undefined) throw new S3Error('AccessDenied')
  return request.account
}

/** The owner as S3 shows it; of other accounts only the id is known here. */
export function ownerAccount(owner: string, account: Account | undefined): Account {
  return account?.owner === owner ? account : { owner, displayName: owner }
}
