/** Every operation by its name. */
import type { OperationName } from '../router.ts'
import {
  deleteBucketConfiguration,
  deleteObjectTagging,
  getBucketAcl,
  getBucketConfiguration,
  getBucketVersioning,
  getObjectAcl,
  getObjectTagging,
  objectLock,
  preflight,
  putBucketAcl,
  putObjectAcl,
  unsupported
} from './bucket-configuration.ts'
import { createBucket, deleteBucket, getBucketLocation, headBucket, listBuckets } from './buckets.ts'
import { completeMultipartUpload } from './complete-multipart-upload.ts'
import { copyObject } from './copy-object.ts'
import { deleteObject, deleteObjects } from './delete-objects.ts'
import { getObject, headObject } from './get-object.ts'
import { getObjectAttributes } from './get-object-attributes.ts'
import { listObjects, listObjectsV2, listObjectVersions } from './list-objects.ts'
import { listMultipartUploads, listParts } from './list-uploads.ts'
import { abortMultipartUpload, createMultipartUpload, uploadPart, uploadPartCopy } from './multipart-upload.ts'
import type { Operation } from './operation.ts'
import { putObject } from './put-object.ts'

export const operations: Record<OperationName, Operation> = {
  AbortMultipartUpload: abortMultipartUpload,
  CompleteMultipartUpload: completeMultipartUpload,
  CopyObject: copyObject,
  CreateBucket: createBucket,
  CreateMultipartUpload: createMultipartUpload,
  DeleteBucket: deleteBucket,
  DeleteBucketConfiguration: deleteBucketConfiguration,
  DeleteObject: deleteObject,
  DeleteObjects: deleteObjects,
  DeleteObjectTagging: deleteObjectTagging,
  GetBucketAcl: getBucketAcl,
  GetBucketConfiguration: getBucketConfiguration,
  GetBucketLocation: getBucketLocation,
  GetBucketVersioning: getBucketVersioning,
  GetObject: getObject,
  GetObjectAcl: getObjectAcl,
  GetObjectAttributes: getObjectAttributes,
  GetObjectLock: objectLock,
  GetObjectTagging: getObjectTagging,
  HeadBucket: headBucket,
  HeadObject: headObject,
  ListBuckets: listBuckets,
  ListMultipartUploads: listMultipartUploads,
  ListObjects: listObjects,
  ListObjectsV2: listObjectsV2,
  ListObjectVersions: listObjectVersions,
  ListParts: listParts,
  PreflightRequest: preflight,
  PutBucketAcl: putBucketAcl,
  PutObject: putObject,
  PutObjectAcl: putObjectAcl,
  UnsupportedOperation: unsupported,
  UploadPart: uploadPart,
  UploadPartCopy: uploadPartCopy
}
