/** Which operation of S3's REST interface a request is. Pure: method, target and headers in, a name out. */
import { S3Error } from './errors.ts'
import type { Query, RequestTarget } from './request.ts'
import type { HeaderMap } from './signature.ts'

export type OperationName =
  | 'AbortMultipartUpload'
  | 'CompleteMultipartUpload'
  | 'CopyObject'
  | 'CreateBucket'
  | 'CreateMultipartUpload'
  | 'DeleteBucket'
  | 'DeleteBucketConfiguration'
  | 'DeleteObject'
  | 'DeleteObjects'
  | 'DeleteObjectTagging'
  | 'GetBucketAcl'
  | 'GetBucketConfiguration'
  | 'GetBucketLocation'
  | 'GetBucketVersioning'
  | 'GetObject'
  | 'GetObjectAcl'
  | 'GetObjectAttributes'
  | 'GetObjectLock'
  | 'GetObjectTagging'
  | 'HeadBucket'
  | 'HeadObject'
  | 'ListBuckets'
  | 'ListMultipartUploads'
  | 'ListObjects'
  | 'ListObjectsV2'
  | 'ListObjectVersions'
  | 'ListParts'
  | 'PreflightRequest'
  | 'PutBucketAcl'
  | 'PutObject'
  | 'PutObjectAcl'
  | 'UnsupportedOperation'
  | 'UploadPart'
  | 'UploadPartCopy'

/** Parameters that turn a request for a bucket into one for something about it. */
export const bucketSubresources = [
  'accelerate',
  'acl',
  'analytics',
  'cors',
  'encryption',
  'intelligent-tiering',
  'inventory',
  'lifecycle',
  'location',
  'logging',
  'metrics',
  'notification',
  'object-lock',
  'ownershipControls',
  'policy',
  'policyStatus',
  'publicAccessBlock',
  'replication',
  'requestPayment',
  'tagging',
  'uploads',
  'versioning',
  'versions',
  'website'
] as const
export type BucketSubresource = (typeof bucketSubresources)[number]

const objectSubresources = [
  'acl',
  'attributes',
  'legal-hold',
  'restore',
  'retention',
  'select',
  'tagging',
  'torrent',
  'uploadId',
  'uploads'
] as const

export function bucketSubresource(query: Query): BucketSubresource | undefined {
  return bucketSubresources.find((name) => query.has(name))
}

/** @throws S3Error `MethodNotAllowed` */
export function route(method: string, target: RequestTarget, headers: HeaderMap): OperationName {
  if (method === 'OPTIONS') return 'PreflightRequest'
  const found =
    target.bucket === ''
      ? serviceOperation(method)
      : target.key === ''
        ? bucketOperation(method, target.query)
        : objectOperation(method, target.query, headers)
  if (found !== undefined) return found
  const resource = target.bucket === '' ? 'SERVICE' : target.key === '' ? 'BUCKET' : 'OBJECT'
  throw new S3Error('MethodNotAllowed', undefined, { details: { Method: method, ResourceType: resource } })
}

function serviceOperation(method: string): OperationName | undefined {
  return method === 'GET' ? 'ListBuckets' : undefined
}

function bucketOperation(method: string, query: Query): OperationName | undefined {
  const subresource = bucketSubresource(query)
  switch (method) {
    case 'GET':
      return getBucket(query, subresource)
    case 'HEAD':
      return 'HeadBucket'
    case 'PUT':
      if (subresource === undefined) return 'CreateBucket'
      return subresource === 'acl' ? 'PutBucketAcl' : 'UnsupportedOperation'
    case 'POST':
      // A form upload is the only other POST on a bucket.
      return query.has('delete') ? 'DeleteObjects' : 'UnsupportedOperation'
    case 'DELETE':
      return subresource === undefined ? 'DeleteBucket' : 'DeleteBucketConfiguration'
    default:
      return undefined
  }
}

function getBucket(query: Query, subresource: BucketSubresource | undefined): OperationName {
  switch (subresource) {
    case undefined:
      return query.get('list-type') === '2' ? 'ListObjectsV2' : 'ListObjects'
    case 'acl':
      return 'GetBucketAcl'
    case 'location':
      return 'GetBucketLocation'
    case 'versioning':
      return 'GetBucketVersioning'
    case 'uploads':
      return 'ListMultipartUploads'
    case 'versions':
      return 'ListObjectVersions'
    default:
      return 'GetBucketConfiguration'
  }
}

function objectOperation(method: string, query: Query, headers: HeaderMap): OperationName | undefined {
  const subresource = objectSubresources.find((name) => query.has(name))
  switch (method) {
    case 'GET':
      switch (subresource) {
        case undefined:
          return 'GetObject'
        case 'acl':
          return 'GetObjectAcl'
        case 'attributes':
          return 'GetObjectAttributes'
        case 'tagging':
          return 'GetObjectTagging'
        case 'uploadId':
          return 'ListParts'
        case 'retention':
        case 'legal-hold':
          return 'GetObjectLock'
        default:
          return 'UnsupportedOperation'
      }
    case 'HEAD':
      return 'HeadObject'
    case 'PUT': {
      const isCopy = headers.has('x-amz-copy-source')
      if (subresource === undefined) return isCopy ? 'CopyObject' : 'PutObject'
      if (subresource === 'uploadId') return isCopy ? 'UploadPartCopy' : 'UploadPart'
      if (subresource === 'acl') return 'PutObjectAcl'
      return subresource === 'retention' || subresource === 'legal-hold' ? 'GetObjectLock' : 'UnsupportedOperation'
    }
    case 'POST':
      if (subresource === 'uploads') return 'CreateMultipartUpload'
      if (subresource === 'uploadId') return 'CompleteMultipartUpload'
      return subresource === undefined ? undefined : 'UnsupportedOperation'
    case 'DELETE':
      if (subresource === undefined) return 'DeleteObject'
      if (subresource === 'uploadId') return 'AbortMultipartUpload'
      return subresource === 'tagging' ? 'DeleteObjectTagging' : undefined
    default:
      return undefined
  }
}
