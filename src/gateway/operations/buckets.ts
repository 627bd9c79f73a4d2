/** Buckets as such: list, create, head, delete, and where they are. */
import { isCode } from '../../base/errors.ts'
import { KiB } from '../../base/limits.ts'
import { requireAccount, requireBucket } from '../access.ts'
import { isBucketName } from '../bucket-name.ts'
import { S3Error } from '../errors.ts'
import { isoDate } from '../object-headers.ts'
import { decodeToken, encodeToken, pageSize } from '../paging.ts'
import { childText, element, optional, parseXml, s3Document } from '../xml.ts'
import { ownerElement } from './elements.ts'
import type { GatewayContext, Operation, S3Request } from './operation.ts'

const configurationBytesMax = 64 * KiB
const bucketsPageMax = 10_000
const uploadsPageMax = 1000

export const listBuckets: Operation = async (request, { store, region }) => {
  const account = requireAccount(request)
  const limit = pageSize(request.query, 'max-buckets', bucketsPageMax, 1)
  const prefix = request.query.get('prefix') ?? ''
  const token = request.query.get('continuation-token')
  const wantedRegion = request.query.get('bucket-region')
  const page =
    wantedRegion === undefined || wantedRegion === region
      ? await store.listBuckets(account.owner, { prefix, after: token ? decodeToken(token) : '', limit })
      : { items: [], isTruncated: false }
  const buckets = page.items.map((bucket) =>
    element('Bucket', [
      element('Name', bucket.name),
      element('CreationDate', isoDate(bucket.createdAt)),
      element('BucketRegion', region)
    ])
  )
  const last = page.items.at(-1)
  return {
    status: 200,
    body: s3Document('ListAllMyBucketsResult', [
      ownerElement(account),
      element('Buckets', buckets),
      ...optional('ContinuationToken', page.isTruncated && last !== undefined ? encodeToken(last.name) : undefined),
      ...optional('Prefix', prefix || undefined)
    ])
  }
}

export const createBucket: Operation = async (request, { store, region }) => {
  const account = requireAccount(request)
  const name = request.bucket
  if (!isBucketName(name)) throw new S3Error('InvalidBucketName', undefined, { details: { BucketName: name } })
  const isPublic = publicAcl(request)
  if (request.headers.get('x-amz-bucket-object-lock-enabled')?.toLowerCase() === 'true') {
    throw new S3Error('NotImplemented', 'Object Lock is not implemented.')
  }
  checkLocation(await request.body.text(configurationBytesMax), region)
  try {
    await store.createBucket(name, account, { isPublic })
  } catch (error) {
    // In the oldest region, and only there, creating one's own bucket again is a success that changes nothing.
    if (!(isCode(error, 'BUCKET_OWNED_BY_YOU') && region === 'us-east-1')) throw error
  }
  return { status: 200, headers: { location: `/${name}` } }
}

/** @throws S3Error `InvalidArgument`, `NotImplemented` */
function publicAcl(request: S3Request): boolean {
  const acl = request.headers.get('x-amz-acl')
  for (const name of request.headers.keys()) {
    if (name.startsWith('x-amz-grant-')) throw new S3Error('NotImplemented', undefined, { details: { Header: name } })
  }
  if (acl === undefined || acl === '' || acl === 'private') return false
  if (acl === 'public-read') return true
  if (acl === 'public-read-write' || acl === 'authenticated-read') {
    throw new S3Error('NotImplemented', `The canned ACL ${acl} is not implemented; use private or public-read.`)
  }
  throw new S3Error('InvalidArgument', undefined, { details: { ArgumentName: 'x-amz-acl', ArgumentValue: acl } })
}

function checkLocation(document: string, region: string): void {
  if (document === '') return
  const constraint = childText(parseXml(document, 'CreateBucketConfiguration'), 'LocationConstraint')?.trim()
  // `EU` is what the oldest European region was called first.
  const wanted = constraint === 'EU' ? 'eu-west-1' : constraint
  if (wanted === undefined || wanted === '' || wanted === region) return
  throw new S3Error(
    'IllegalLocationConstraintException',
    `The ${wanted.slice(0, 64)} location constraint is incompatible for the region specific endpoint this request was sent to.`
  )
}

export const headBucket: Operation = async (request, context) => {
  await requireBucket(request, context, 'read')
  return { status: 200, headers: { 'x-amz-bucket-region': context.region } }
}

export const deleteBucket: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  try {
    await context.store.deleteBucket(request.bucket)
  } catch (error) {
    if (!isCode(error, 'BUCKET_NOT_EMPTY')) throw error
    await abortUploads(request.bucket, context, error)
    await context.store.deleteBucket(request.bucket)
  }
  return { status: 204 }
}

/** To S3 a bucket with nothing but unfinished uploads is empty. @throws `notEmpty` where there are objects */
async function abortUploads(bucket: string, { store }: GatewayContext, notEmpty: Error): Promise<void> {
  const { objects } = await store.listObjects(bucket, { prefix: '', delimiter: '', after: '', limit: 1 })
  if (objects.length > 0) throw notEmpty
  for (let isTruncated = true; isTruncated; ) {
    const page = await store.listUploads(bucket, { prefix: '', afterKey: '', afterUploadId: '', limit: uploadsPageMax })
    for (const { key, uploadId } of page.items) await store.abortUpload(bucket, key, uploadId)
    isTruncated = page.isTruncated
  }
}

export const getBucketLocation: Operation = async (request, context) => {
  await requireBucket(request, context, 'own')
  return { status: 200, body: s3Document('LocationConstraint', context.region) }
}
