/**
 * What clients ask about a bucket before they use it. Answered as S3 answers for a bucket on which nothing of it was
 * configured; configuring it is refused, and removing what is not there is a success, as in S3.
 */
import { ownerAccount, requireBucket } from '../access.ts'
import { S3Error } from '../errors.ts'
import { checkCannedAcl } from '../object-headers.ts'
import { type BucketSubresource, bucketSubresource } from '../router.ts'
import { element, s3Document, type Xml } from '../xml.ts'
import { ownerElement } from './elements.ts'
import type { GatewayContext, Operation, S3Request } from './operation.ts'

const xsi = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'

/** An `Error` for what is not configured, a document for what has an empty form. */
const unconfigured: Partial<Record<BucketSubresource, () => S3Error | string>> = {
  accelerate: () => s3Document('AccelerateConfiguration'),
  analytics: () => s3Document('ListBucketAnalyticsConfigurationResult', [element('IsTruncated', false)]),
  cors: () => new S3Error('NoSuchCORSConfiguration'),
  encryption: () => new S3Error('ServerSideEncryptionConfigurationNotFoundError'),
  'intelligent-tiering': () =>
    s3Document('ListBucketIntelligentTieringConfigurationsOutput', [element('IsTruncated', false)]),
  inventory: () => s3Document('ListInventoryConfigurationsResult', [element('IsTruncated', false)]),
  lifecycle: () => new S3Error('NoSuchLifecycleConfiguration'),
  logging: () => s3Document('BucketLoggingStatus'),
  metrics: () => s3Document('ListMetricsConfigurationsResult', [element('IsTruncated', false)]),
  notification: () => s3Document('NotificationConfiguration'),
  'object-lock': () => new S3Error('ObjectLockConfigurationNotFoundError'),
  ownershipControls: () => new S3Error('OwnershipControlsNotFoundError'),
  policy: () => new S3Error('NoSuchBucketPolicy'),
  policyStatus: () => new S3Error('NoSuchBucketPolicy'),
  publicAccessBlock: () => new S3Error('NoSuchPublicAccessBlockConfiguration'),
  replication: () => new S3Error('ReplicationConfigurationNotFoundError'),
  requestPayment: () => s3Document('RequestPaymentConfiguration', [element('Payer', 'BucketOwner')]),
  tagging: () => new S3Error('NoSuchTagSet'),
  website: () => new S3Error('NoSuchWebsiteConfiguration')
}

/** Kinds of which a bucket may have several, told apart by `id`. */
const identified: readonly BucketSubresource[] = ['analytics', 'intelligent-tiering', 'inventory', 'metrics']

export const getBucketConfiguration: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const subresource = bucketSubresource(request.query)
  const answer = subresource === undefined ? undefined : unconfigured[subresource]?.()
  if (subresource === undefined || answer === undefined) throw notImplemented()
  if (identified.includes(subresource) && request.query.has('id')) throw new S3Error('NoSuchConfiguration')
  if (answer instanceof S3Error) throw answer
  return { status: 200, body: answer }
}

const removable: readonly BucketSubresource[] = [
  'cors',
  'encryption',
  'lifecycle',
  'ownershipControls',
  'policy',
  'publicAccessBlock',
  'replication',
  'tagging',
  'website'
]

export const deleteBucketConfiguration: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  const subresource = bucketSubresource(request.query)
  if (subresource === undefined || !removable.includes(subresource)) throw notImplemented()
  return { status: 204 }
}

export const getBucketVersioning: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  return { status: 200, body: s3Document('VersioningConfiguration') }
}

export const getBucketAcl: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  return { status: 200, body: aclDocument(request, bucket) }
}

export const getObjectAcl: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  await context.store.headObject(request.bucket, request.key)
  return { status: 200, body: aclDocument(request, bucket) }
}

function aclDocument(request: S3Request, bucket: { owner: string; isPublic: boolean }): string {
  const owner = ownerAccount(bucket.owner, request.account)
  const grant = (type: string, grantee: Xml[], permission: string): Xml =>
    element('Grant', [element('Grantee', grantee, `${xsi} xsi:type="${type}"`), element('Permission', permission)])
  const everyone = grant('Group', [element('URI', 'http://acs.amazonaws.com/groups/global/AllUsers')], 'READ')
  const grants = [
    ...(bucket.isPublic ? [everyone] : []),
    grant('CanonicalUser', [element('ID', owner.owner), element('DisplayName', owner.displayName)], 'FULL_CONTROL')
  ]
  return s3Document('AccessControlPolicy', [ownerElement(owner), element('AccessControlList', grants)])
}

export const putBucketAcl: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  return confirmAcl(request, bucket.isPublic)
}

export const putObjectAcl: Operation = async (request, context) => {
  const bucket = await requireBucket(request, context, 'own')
  await context.store.headObject(request.bucket, request.key)
  return confirmAcl(request, bucket.isPublic)
}

/** Takes the canned ACL that holds already; whether a bucket is public is settled when it is made. */
function confirmAcl(request: S3Request, isPublic: boolean): { status: number } {
  const acl = request.headers.get('x-amz-acl')
  if (acl === undefined || acl === '') throw new S3Error('NotImplemented', 'Only canned ACLs are implemented.')
  checkCannedAcl(request.headers, isPublic)
  if (acl === 'private' && isPublic) throw new S3Error('NotImplemented', 'A public bucket cannot be made private.')
  return { status: 200 }
}

export const getObjectTagging: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  await context.store.headObject(request.bucket, request.key)
  return { status: 200, body: s3Document('Tagging', [element('TagSet')]) }
}

export const deleteObjectTagging: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  await context.store.headObject(request.bucket, request.key)
  return { status: 204 }
}

export const objectLock: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  throw new S3Error('InvalidRequest', 'Bucket is missing Object Lock Configuration')
}

/** No bucket has rules for other origins. */
export const preflight: Operation = async ({ headers }) => {
  if (!headers.has('origin')) throw new S3Error('BadRequest', 'Insufficient information. Origin request header needed.')
  if (!headers.has('access-control-request-method')) {
    throw new S3Error('BadRequest', 'Invalid Access-Control-Request-Method: null')
  }
  throw new S3Error('AccessForbidden')
}

export const unsupported: Operation = async (request: S3Request, context: GatewayContext) => {
  if (request.bucket !== '') await requireBucket(request, context, 'own')
  throw notImplemented()
}

function notImplemented(): S3Error {
  return new S3Error('NotImplemented', 'This operation is not implemented.')
}
