/**
 * The S3 client that `put`, `get`, `ls` and `rm` use: the SDK, loaded only when one of them runs, with its failures
 * turned into ours.
 */
import type { S3Client } from '@aws-sdk/client-s3'
import { type ErrorCode, HoldfastError, messageOf } from '../base/errors.ts'
import type { S3Connection } from './connection.ts'
import { DeniedError } from './exit-codes.ts'

export type S3 = typeof import('@aws-sdk/client-s3')

export interface OpenS3 {
  s3: S3
  client: S3Client
  /** Root CID that the last successful PUT or GET of an object answered with. */
  lastCid: () => string | undefined
}

export async function openS3(connection: S3Connection): Promise<OpenS3> {
  const s3 = await import('@aws-sdk/client-s3')
  const client = new s3.S3Client({
    endpoint: connection.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: connection.accessKeyId, secretAccessKey: connection.secretAccessKey }
  })
  let cid: string | undefined
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args)
      const { headers } = Object(result.response) as { headers?: Record<string, string> }
      cid = headers?.['x-holdfast-cid'] ?? cid
      return result
    },
    { step: 'deserialize', name: 'holdfastCid' }
  )
  return { s3, client, lastCid: () => cid }
}

const codes: Record<string, ErrorCode> = {
  NoSuchBucket: 'NO_SUCH_BUCKET',
  NoSuchKey: 'NO_SUCH_KEY',
  NotFound: 'NO_SUCH_KEY',
  NoSuchUpload: 'NO_SUCH_UPLOAD',
  BucketAlreadyExists: 'BUCKET_EXISTS',
  BucketAlreadyOwnedByYou: 'BUCKET_OWNED_BY_YOU',
  BucketNotEmpty: 'BUCKET_NOT_EMPTY',
  PreconditionFailed: 'PRECONDITION_FAILED',
  InvalidBucketName: 'BAD_INPUT',
  KeyTooLongError: 'BAD_INPUT',
  InvalidRange: 'BAD_INPUT',
  EntityTooLarge: 'OBJECT_TOO_LARGE',
  SlowDown: 'OVERLOADED',
  ServiceUnavailable: 'NOT_DURABLE'
}

const denials = ['AccessDenied', 'InvalidAccessKeyId', 'SignatureDoesNotMatch', 'RequestTimeTooSkewed', 'Forbidden']

/** `where` is the endpoint, for the message when nothing answers. Failures that are ours already pass through. */
export function translate(error: unknown, where: string): unknown {
  if (!(error instanceof Error) || error instanceof HoldfastError) return error
  const { name, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } }
  const { code: systemCode } = error as NodeJS.ErrnoException
  const status = $metadata?.httpStatusCode
  if (denials.includes(name) || status === 403) return new DeniedError(`${name}: ${messageOf(error)}`)
  const code = codes[name]
  if (code !== undefined)
    return new HoldfastError(code, messageOf(error) === 'UnknownError' ? name : messageOf(error), { cause: error })
  if (status === 404) return new HoldfastError('NO_SUCH_KEY', 'no such object', { cause: error })
  if (status === 503) return new HoldfastError('NOT_DURABLE', messageOf(error), { cause: error })
  if (systemCode === 'ECONNREFUSED' || systemCode === 'ENOTFOUND' || systemCode === 'EHOSTUNREACH') {
    return new HoldfastError('OFFLINE', `no gateway answers at ${where} (${systemCode}); is it running?`, {
      cause: error
    })
  }
  if (systemCode === 'ECONNRESET' || systemCode === 'EPIPE' || systemCode === 'ETIMEDOUT') {
    return new HoldfastError('OFFLINE', `the gateway at ${where} broke the connection (${systemCode})`, {
      cause: error
    })
  }
  return error
}

/** Runs `work` against the gateway; what it throws is one of our errors wherever it has a counterpart. */
export async function withS3<T>(connection: S3Connection, work: (opened: OpenS3) => Promise<T>): Promise<T> {
  const opened = await openS3(connection)
  try {
    return await work(opened)
  } catch (error) {
    throw translate(error, connection.endpoint)
  } finally {
    opened.client.destroy()
  }
}
