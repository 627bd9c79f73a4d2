import { once } from 'node:events'
import { HoldfastError } from '../../base/errors.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { type ConnectionOptions, s3Connection, withS3Options } from '../connection.ts'
import { type Output, printable } from '../output.ts'
import { type OpenS3, withS3 } from '../s3.ts'
import { formatBytes, parseS3Url } from '../units.ts'

interface LsOptions extends ConnectionOptions {
  recursive?: boolean
}

interface BucketEntry {
  bucket: string
  createdAt: string | null
}

type ObjectEntry = { key: string; size: number; etag: string; modifiedAt: string | null } | { prefix: string }

async function* buckets({ s3, client }: OpenS3): AsyncIterable<BucketEntry> {
  let token: string | undefined
  do {
    const answer = await client.send(new s3.ListBucketsCommand({ ContinuationToken: token }))
    for (const { Name, CreationDate } of answer.Buckets ?? [])
      yield { bucket: Name ?? '', createdAt: CreationDate?.toISOString() ?? null }
    token = answer.ContinuationToken
  } while (token !== undefined)
}

async function* objects(
  { s3, client }: OpenS3,
  bucket: string,
  prefix: string,
  delimiter: string | undefined
): AsyncIterable<ObjectEntry> {
  let token: string | undefined
  do {
    const answer = await client.send(
      new s3.ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, Delimiter: delimiter, ContinuationToken: token })
    )
    for (const { Prefix } of answer.CommonPrefixes ?? []) yield { prefix: Prefix ?? '' }
    for (const { Key, Size, ETag, LastModified } of answer.Contents ?? []) {
      yield {
        key: Key ?? '',
        size: Size ?? 0,
        etag: ETag?.replaceAll('"', '') ?? '',
        modifiedAt: LastModified?.toISOString() ?? null
      }
    }
    token = answer.IsTruncated === true ? answer.NextContinuationToken : undefined
  } while (token !== undefined)
}

/** Printed as it comes: a bucket may have more keys than memory has room for. With `--json`, still one document. */
async function print<T>(
  { isJson, stdout }: Output,
  name: string,
  entries: AsyncIterable<T>,
  line: (entry: T) => string
): Promise<number> {
  const write = async (text: string): Promise<void> => {
    if (!stdout.write(text)) await once(stdout, 'drain')
  }
  let count = 0
  for await (const entry of entries) {
    if (isJson) await write(`${count === 0 ? `{"${name}":[` : ',\n'}${JSON.stringify(entry)}`)
    else await write(`${printable(line(entry))}\n`)
    count++
  }
  if (isJson) await write(count === 0 ? `{"${name}":[]}\n` : ']}\n')
  return count
}

const time = (iso: string | null): string => (iso === null ? '' : `${iso.slice(0, 19).replace('T', ' ')}Z`).padEnd(20)

function objectLine(entry: ObjectEntry): string {
  if ('prefix' in entry) return `${''.padEnd(20)} ${''.padStart(10)}  ${entry.prefix}`
  return `${time(entry.modifiedAt)} ${formatBytes(entry.size).padStart(10)}  ${entry.key}`
}

async function ls(context: CommandContext, options: LsOptions, [address]: string[]): Promise<void> {
  const { output } = context
  const { bucket, key } = parseS3Url(address ?? 's3://')
  if (bucket === '' && key !== '')
    throw new HoldfastError('BAD_INPUT', `"${address}" names no bucket: write s3://BUCKET/PREFIX`)
  await withS3(await s3Connection(options, context), async (opened) => {
    if (bucket === '') {
      const count = await print(
        output,
        'buckets',
        buckets(opened),
        (entry) => `${time(entry.createdAt)}  ${entry.bucket}`
      )
      if (count === 0) output.note('no buckets yet; "holdfast put FILE s3://BUCKET/ --create" makes one')
      return
    }
    const count = await print(
      output,
      'objects',
      objects(opened, bucket, key, options.recursive === true ? undefined : '/'),
      objectLine
    )
    if (count === 0) output.note(key === '' ? `${bucket} is empty` : `nothing in ${bucket} begins with ${key}`)
  })
}

export const register: Register = (program, run) => {
  const command = program
    .command('ls')
    .summary('list buckets, or objects in one')
    .description(
      'Lists the buckets, or the objects of one whose keys begin with PREFIX, up to the next slash. With --json, entries that stand for many keys have "prefix" instead of "key".'
    )
    .argument('[s3-url]', 's3://BUCKET or s3://BUCKET/PREFIX (default: the buckets)')
    .option('-r, --recursive', 'every key, not only up to the next slash')
  action<LsOptions>(
    withS3Options(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'interrupted'] },
    ls
  )
}
