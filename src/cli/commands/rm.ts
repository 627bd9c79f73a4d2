import { HoldfastError, isCode } from '../../base/errors.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { type ConnectionOptions, s3Connection, withS3Options } from '../connection.ts'
import { type OpenS3, translate, withS3 } from '../s3.ts'
import { parseS3Url, type S3Url } from '../units.ts'

interface RmOptions extends ConnectionOptions {
  recursive?: boolean
}

/** S3 deletes at most 1,000 keys a request, and lists as many a page. */
async function removeAll({ s3, client }: OpenS3, { bucket, key: prefix }: S3Url, signal: AbortSignal): Promise<number> {
  let removed = 0
  for (;;) {
    signal.throwIfAborted()
    // Always the first page: what it listed last time is gone.
    const page = await client.send(new s3.ListObjectsV2Command({ Bucket: bucket, Prefix: prefix }))
    const keys = (page.Contents ?? []).map(({ Key }) => ({ Key: Key ?? '' }))
    if (keys.length === 0) return removed
    const answer = await client.send(
      new s3.DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects: keys, Quiet: true } })
    )
    const [failed] = answer.Errors ?? []
    if (failed !== undefined)
      throw new HoldfastError(
        'INTERNAL',
        `${failed.Key ?? ''} was not removed: ${failed.Message ?? failed.Code ?? 'no reason given'}`
      )
    removed += keys.length
  }
}

/** The answer to HEAD has no body, and so no words. */
async function requireObject({ s3, client }: OpenS3, { bucket, key }: S3Url): Promise<void> {
  try {
    await client.send(new s3.HeadObjectCommand({ Bucket: bucket, Key: key }))
  } catch (error) {
    if (!isCode(translate(error, ''), 'NO_SUCH_KEY')) throw error
    throw new HoldfastError('NO_SUCH_KEY', `there is no object ${key} in ${bucket}`, { cause: error })
  }
}

async function rm(context: CommandContext, options: RmOptions, [address]: string[]): Promise<void> {
  const { output, signal } = context
  const url = parseS3Url(address!)
  if (url.bucket === '') throw new HoldfastError('BAD_INPUT', `"${address}" names no bucket: write s3://BUCKET/KEY`)
  await withS3(await s3Connection(options, context), async (opened) => {
    const { s3, client } = opened
    let objects = 0
    if (options.recursive === true) {
      objects = await removeAll(opened, url, signal)
    } else if (url.key !== '') {
      // S3 says yes to deleting what is not there; a person who mistyped wants to know.
      await requireObject(opened, url)
      await client.send(new s3.DeleteObjectCommand({ Bucket: url.bucket, Key: url.key }))
      objects = 1
    }
    const isBucketRemoved = url.key === ''
    if (isBucketRemoved) await client.send(new s3.DeleteBucketCommand({ Bucket: url.bucket }))
    output.result({ bucket: url.bucket, objects, isBucketRemoved }, () =>
      [
        ...(url.key === '' && objects === 0 ? [] : [`${objects} ${objects === 1 ? 'object' : 'objects'} removed`]),
        ...(isBucketRemoved ? [`bucket ${url.bucket} removed`] : [])
      ].join('\n')
    )
  })
}

export const register: Register = (program, run) => {
  const command = program
    .command('rm')
    .summary('remove objects, or a bucket')
    .description(
      'Removes one object; with --recursive, every object whose key begins with KEY. Without a KEY, removes the bucket itself, which must be empty unless --recursive empties it first.'
    )
    .argument('<s3-url>', 's3://BUCKET/KEY, or s3://BUCKET')
    .option('-r, --recursive', 'everything whose key begins with KEY')
  action<RmOptions>(
    withS3Options(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'interrupted'] },
    rm
  )
}
