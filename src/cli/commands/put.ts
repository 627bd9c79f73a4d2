import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { HoldfastError, isCode } from '../../base/errors.ts'
import { limits, MiB } from '../../base/limits.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { type ConnectionOptions, s3Connection, withS3Options } from '../connection.ts'
import { createProgress } from '../progress.ts'
import { type OpenS3, translate, withS3 } from '../s3.ts'
import { formatBytes, parseS3Url, type S3Url } from '../units.ts'

interface PutOptions extends ConnectionOptions {
  create?: boolean
}

/** Parts on their way at once: what is in memory is this many parts. */
const partsAtOnce = 4
const partBytesMin = 16 * MiB
/** Parts of a stream of unknown length: 10,000 of them come to 625 GiB. */
const partBytesOfStream = 64 * MiB

interface Source {
  /** Absent for standard input. */
  sizeBytes?: number
  open: () => Readable
}

async function openSource(file: string): Promise<Source> {
  if (file === '-') return { open: () => process.stdin }
  const stats = await stat(file).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') throw new HoldfastError('NO_SUCH_KEY', `no such file: ${file}`, { cause })
    throw cause
  })
  if (stats.isDirectory()) {
    throw new HoldfastError(
      'BAD_INPUT',
      `${file} is a directory; "aws s3 sync" or rclone, given the endpoint, copy whole trees`
    )
  }
  if (!stats.isFile()) return { open: () => createReadStream(file) }
  if (stats.size > limits.objectBytesMax)
    throw new HoldfastError('OBJECT_TOO_LARGE', `${file} has ${formatBytes(stats.size)}; an object has at most 5 TiB`)
  return { sizeBytes: stats.size, open: () => createReadStream(file, { highWaterMark: MiB }) }
}

function partSize(sizeBytes: number | undefined): number {
  if (sizeBytes === undefined) return partBytesOfStream
  return Math.max(partBytesMin, Math.ceil(sizeBytes / limits.partsMax / MiB) * MiB)
}

/** A key that ends where a name is expected gets the file's. */
function targetOf(text: string, file: string): S3Url {
  const url = parseS3Url(text)
  if (url.bucket === '') throw new HoldfastError('BAD_INPUT', `"${text}" names no bucket: write s3://BUCKET/KEY`)
  if (url.key !== '' && !url.key.endsWith('/')) return url
  if (file === '-')
    throw new HoldfastError(
      'BAD_INPUT',
      `"${text}" names no object, and standard input has no name to take: write s3://BUCKET/KEY`
    )
  return { bucket: url.bucket, key: `${url.key}${path.basename(file)}` }
}

async function ensureBucket({ s3, client }: OpenS3, bucket: string): Promise<void> {
  try {
    await client.send(new s3.CreateBucketCommand({ Bucket: bucket }))
  } catch (error) {
    if (!isCode(translate(error, ''), 'BUCKET_OWNED_BY_YOU', 'BUCKET_EXISTS')) throw error
  }
}

async function put(context: CommandContext, options: PutOptions, [file, address]: string[]): Promise<void> {
  const { output, signal } = context
  const target = targetOf(address!, file!)
  const source = await openSource(file!)
  const connection = await s3Connection(options, context)
  await withS3(connection, async (opened) => {
    if (options.create === true) await ensureBucket(opened, target.bucket)
    else await requireBucket(opened, target.bucket, connection.endpoint)
    const { Upload } = await import('@aws-sdk/lib-storage')
    const progress = await createProgress(output, path.basename(target.key), source.sizeBytes)
    let sizeBytes = 0
    const body = source.open()
    const counted = new Transform({
      transform(chunk: Uint8Array, _encoding, done) {
        sizeBytes += chunk.length
        done(null, chunk)
      }
    })
    body.on('error', (error) => counted.destroy(error))
    const upload = new Upload({
      client: opened.client,
      params: { Bucket: target.bucket, Key: target.key, Body: body.pipe(counted) },
      partSize: partSize(source.sizeBytes),
      queueSize: partsAtOnce
    })
    let shown = 0
    upload.on('httpUploadProgress', ({ loaded }) => {
      if (loaded === undefined || loaded <= shown) return
      progress.add(loaded - shown)
      shown = loaded
    })
    const onAbort = (): void => void upload.abort()
    signal.addEventListener('abort', onAbort, { once: true })
    let isDone = false
    try {
      const answer = await upload.done()
      isDone = true
      progress.stop(true)
      const etag = answer.ETag?.replaceAll('"', '') ?? null
      const result = { bucket: target.bucket, key: target.key, size: sizeBytes, etag, cid: opened.lastCid() ?? null }
      output.result(result, () =>
        `s3://${target.bucket}/${target.key}  ${formatBytes(sizeBytes)}  ${result.cid ?? ''}`.trimEnd()
      )
    } finally {
      signal.removeEventListener('abort', onAbort)
      body.destroy()
      if (!isDone) progress.stop(false)
    }
  })
}

/** Asked before the bytes go: a 5 GiB upload should not end in "no such bucket". */
async function requireBucket({ s3, client }: OpenS3, bucket: string, endpoint: string): Promise<void> {
  try {
    await client.send(new s3.HeadBucketCommand({ Bucket: bucket }))
  } catch (error) {
    const translated = translate(error, endpoint)
    if (!isCode(translated, 'NO_SUCH_BUCKET', 'NO_SUCH_KEY')) throw translated
    throw new HoldfastError('NO_SUCH_BUCKET', `there is no bucket "${bucket}"; add --create to make it`, {
      cause: error
    })
  }
}

export const register: Register = (program, run) => {
  const command = program
    .command('put')
    .summary('upload a file')
    .description(
      'Uploads a file, or standard input, as one object. It is acknowledged when it is durable on the network.'
    )
    .argument('<file>', 'file to upload; - for standard input')
    .argument('<s3-url>', 's3://BUCKET/KEY; with a trailing slash, or no KEY, the name of the file is added')
    .option('--create', 'make the bucket if there is none')
  action<PutOptions>(
    withS3Options(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'interrupted'] },
    put
  )
}
