/**
 * What a client is told when something fails: one table from S3's own error codes to status and text, one from the
 * program's error codes to S3's. Faults of this process stay opaque; what the network cannot do right now is said in
 * the error's own words, because the operator in front of the client needs them.
 */
import { type ErrorCode, HoldfastError } from '../base/errors.ts'

/** S3's codes that the gateway answers with: status and the text S3 has for it. */
export const s3Errors = {
  AccessDenied: [403, 'Access Denied'],
  AccessForbidden: [403, 'CORSResponse: CORS is not enabled for this bucket.'],
  AuthorizationHeaderMalformed: [400, 'The authorization header that you provided is not valid.'],
  AuthorizationQueryParametersError: [400, 'The authorization query parameters that you provided are not valid.'],
  BadDigest: [400, 'The Content-MD5 or checksum value that you specified did not match what the server received.'],
  BadRequest: [400, 'The request could not be understood.'],
  BucketAlreadyExists: [
    409,
    'The requested bucket name is not available. Please select a different name and try again.'
  ],
  BucketAlreadyOwnedByYou: [409, 'Your previous request to create the named bucket succeeded and you already own it.'],
  BucketNotEmpty: [409, 'The bucket you tried to delete is not empty.'],
  EntityTooLarge: [400, 'Your proposed upload exceeds the maximum allowed object size.'],
  EntityTooSmall: [400, 'Your proposed upload is smaller than the minimum allowed size.'],
  IllegalLocationConstraintException: [
    400,
    'The location constraint is incompatible with the region of this endpoint.'
  ],
  IncompleteBody: [400, 'You did not provide the number of bytes specified by the Content-Length HTTP header.'],
  InternalError: [500, 'We encountered an internal error. Please try again.'],
  InvalidAccessKeyId: [403, 'The AWS Access Key Id you provided does not exist in our records.'],
  InvalidArgument: [400, 'Invalid Argument'],
  InvalidBucketName: [400, 'The specified bucket is not valid.'],
  InvalidDigest: [400, 'The Content-MD5 you specified is not valid.'],
  InvalidPart: [
    400,
    "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
  ],
  InvalidPartOrder: [400, 'The list of parts was not in ascending order. Parts must be ordered by part number.'],
  InvalidRange: [416, 'The requested range is not satisfiable'],
  InvalidRequest: [400, 'Invalid Request'],
  InvalidStorageClass: [400, 'The storage class you specified is not valid'],
  InvalidToken: [400, 'The provided token is malformed or otherwise invalid.'],
  InvalidURI: [400, "Couldn't parse the specified URI."],
  KeyTooLongError: [400, 'Your key is too long'],
  MalformedTrailerError: [
    400,
    'The request contained trailing data that was not well-formed or did not conform to our published schema.'
  ],
  MalformedXML: [400, 'The XML you provided was not well-formed or did not validate against our published schema'],
  MaxMessageLengthExceeded: [400, 'Your request was too big.'],
  MetadataTooLarge: [400, 'Your metadata headers exceed the maximum allowed metadata size'],
  MethodNotAllowed: [405, 'The specified method is not allowed against this resource.'],
  MissingContentLength: [411, 'You must provide the Content-Length HTTP header.'],
  MissingSecurityHeader: [400, 'Your request was missing a required header'],
  NoSuchBucket: [404, 'The specified bucket does not exist'],
  NoSuchBucketPolicy: [404, 'The bucket policy does not exist'],
  NoSuchConfiguration: [404, 'The specified configuration does not exist.'],
  NoSuchCORSConfiguration: [404, 'The CORS configuration does not exist'],
  NoSuchKey: [404, 'The specified key does not exist.'],
  NoSuchLifecycleConfiguration: [404, 'The lifecycle configuration does not exist'],
  NoSuchPublicAccessBlockConfiguration: [404, 'The public access block configuration was not found'],
  NoSuchTagSet: [404, 'The TagSet does not exist'],
  NoSuchUpload: [
    404,
    'The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.'
  ],
  NoSuchVersion: [404, 'The specified version does not exist.'],
  NoSuchWebsiteConfiguration: [404, 'The specified bucket does not have a website configuration'],
  NotAcceptable: [406, 'Only raw blocks are served here: ask for application/vnd.ipld.raw.'],
  NotImplemented: [501, 'A header you provided implies functionality that is not implemented'],
  ObjectLockConfigurationNotFoundError: [404, 'Object Lock configuration does not exist for this bucket'],
  OwnershipControlsNotFoundError: [404, 'The bucket ownership controls were not found'],
  PreconditionFailed: [412, 'At least one of the pre-conditions you specified did not hold'],
  ReplicationConfigurationNotFoundError: [404, 'The replication configuration was not found'],
  RequestHeaderSectionTooLarge: [
    400,
    'Your request header section exceeds the maximum allowed request header section size.'
  ],
  RequestTimeTooSkewed: [403, "The difference between the request time and the server's time is too large."],
  RequestTimeout: [
    400,
    'Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.'
  ],
  ServerSideEncryptionConfigurationNotFoundError: [404, 'The server side encryption configuration was not found'],
  ServiceUnavailable: [503, 'Service is unable to handle request.'],
  SignatureDoesNotMatch: [
    403,
    'The request signature we calculated does not match the signature you provided. Check your key and signing method.'
  ],
  SlowDown: [503, 'Please reduce your request rate.'],
  XAmzContentSHA256Mismatch: [400, "The provided 'x-amz-content-sha256' header does not match what was computed."]
} as const satisfies Record<string, readonly [status: number, message: string]>

export type S3Code = keyof typeof s3Errors

export interface S3ErrorOptions {
  /** Further elements of the `<Error>` document, by name. Never secrets. */
  details?: Record<string, string | number>
  /** Headers that go with the answer. */
  headers?: Record<string, string>
  cause?: unknown
}

/** A refusal in S3's terms. */
export class S3Error extends Error {
  readonly code: S3Code
  readonly details: Record<string, string | number>
  readonly headers: Record<string, string>

  constructor(code: S3Code, message: string = s3Errors[code][1], options: S3ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'S3Error'
    this.code = code
    this.details = options.details ?? {}
    this.headers = options.headers ?? {}
  }

  get status(): number {
    return s3Errors[this.code][0]
  }
}

/** `own`: the error's message is fit for the client; `s3`: S3's text says all there is to say. */
const translations = {
  BAD_INPUT: ['InvalidArgument', 'own'],
  BAD_CONFIG: ['InternalError', 's3'],
  NO_SUCH_BUCKET: ['NoSuchBucket', 's3'],
  NO_SUCH_KEY: ['NoSuchKey', 's3'],
  NO_SUCH_UPLOAD: ['NoSuchUpload', 's3'],
  BUCKET_EXISTS: ['BucketAlreadyExists', 's3'],
  BUCKET_OWNED_BY_YOU: ['BucketAlreadyOwnedByYou', 's3'],
  BUCKET_NOT_EMPTY: ['BucketNotEmpty', 's3'],
  PRECONDITION_FAILED: ['PreconditionFailed', 's3'],
  INVALID_PART: ['InvalidPart', 's3'],
  INVALID_PART_ORDER: ['InvalidPartOrder', 's3'],
  PART_TOO_SMALL: ['EntityTooSmall', 's3'],
  BAD_DIGEST: ['BadDigest', 's3'],
  INCOMPLETE_BODY: ['IncompleteBody', 's3'],
  OBJECT_TOO_LARGE: ['EntityTooLarge', 's3'],
  TOO_FEW_PROVIDERS: ['ServiceUnavailable', 'own'],
  NOT_DURABLE: ['ServiceUnavailable', 'own'],
  UNREADABLE: ['ServiceUnavailable', 'own'],
  OFFLINE: ['ServiceUnavailable', 's3'],
  TIMEOUT: ['ServiceUnavailable', 's3'],
  MISSING: ['ServiceUnavailable', 's3'],
  WRONG: ['ServiceUnavailable', 's3'],
  REFUSED: ['ServiceUnavailable', 's3'],
  NO_SPACE: ['ServiceUnavailable', 's3'],
  PROTOCOL: ['ServiceUnavailable', 's3'],
  OVERLOADED: ['SlowDown', 'own'],
  ABORTED: ['ServiceUnavailable', 's3'],
  DAMAGED: ['InternalError', 's3'],
  INTERNAL: ['InternalError', 's3']
} as const satisfies Record<ErrorCode, readonly [S3Code, 'own' | 's3']>

/** Whatever was thrown, in S3's terms; what was not declared is an InternalError that says nothing of its cause. */
export function toS3Error(error: unknown): S3Error {
  if (error instanceof S3Error) return error
  if (error instanceof HoldfastError) {
    const [code, text] = translations[error.code]
    return new S3Error(code, text === 'own' ? error.message : s3Errors[code][1], { cause: error })
  }
  return new S3Error('InternalError', undefined, { cause: error })
}
