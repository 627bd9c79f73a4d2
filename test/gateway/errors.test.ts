import { expect, test } from 'vitest'
import { type ErrorCode, errorSpecs, HoldfastError } from '../../src/base/errors.ts'
import { S3Error, s3Errors, toS3Error } from '../../src/gateway/errors.ts'

const statuses: Partial<Record<ErrorCode, [number, string]>> = {
  BAD_INPUT: [400, 'InvalidArgument'],
  NO_SUCH_BUCKET: [404, 'NoSuchBucket'],
  NO_SUCH_KEY: [404, 'NoSuchKey'],
  NO_SUCH_UPLOAD: [404, 'NoSuchUpload'],
  BUCKET_EXISTS: [409, 'BucketAlreadyExists'],
  PRECONDITION_FAILED: [412, 'PreconditionFailed'],
  PART_TOO_SMALL: [400, 'EntityTooSmall'],
  OBJECT_TOO_LARGE: [400, 'EntityTooLarge'],
  TOO_FEW_PROVIDERS: [503, 'ServiceUnavailable'],
  NOT_DURABLE: [503, 'ServiceUnavailable'],
  UNREADABLE: [503, 'ServiceUnavailable'],
  OVERLOADED: [503, 'SlowDown'],
  DAMAGED: [500, 'InternalError'],
  INTERNAL: [500, 'InternalError']
}

test.each(Object.entries(statuses))('%s', (code, [status, s3Code]) => {
  expect(toS3Error(new HoldfastError(code as ErrorCode, 'm'))).toMatchObject({ status, code: s3Code })
})

test('whose fault it is decides the class of the status', () => {
  for (const [code, spec] of Object.entries(errorSpecs)) {
    if (code === 'BAD_CONFIG') continue // that is the operator's, not the client's
    const { status } = toS3Error(new HoldfastError(code as ErrorCode, 'm'))
    expect([code, Math.floor(status / 100)]).toEqual([code, spec.blame === 'caller' ? 4 : 5])
  }
})

test('what the network lacks is said; what broke in here is not', () => {
  expect(toS3Error(new HoldfastError('TOO_FEW_PROVIDERS', 'needs 6 providers, knows 4')).message).toBe(
    'needs 6 providers, knows 4'
  )
  for (const secret of [new HoldfastError('INTERNAL', 'row 7 of /var/db'), new Error('row 7 of /var/db'), 'row 7']) {
    expect(toS3Error(secret).message).toBe(s3Errors.InternalError[1])
  }
})

test('an S3 error passes as it is', () => {
  const error = new S3Error('NoSuchTagSet')
  expect(toS3Error(error)).toBe(error)
})
