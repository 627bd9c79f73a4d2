import { stat } from 'node:fs/promises'
import path from 'node:path'
import { HoldfastError, messageOf } from '../../base/errors.ts'
import { systemClock } from '../../base/system.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { type ConnectionOptions, s3Connection, withS3Options } from '../connection.ts'
import { createProgress, type Progress } from '../progress.ts'
import { type OpenS3, withS3 } from '../s3.ts'
import { formatBytes, parseObjectUrl, type S3Url } from '../units.ts'
import { type Sink, stdoutSink, writeWholeFile } from '../whole-file.ts'

/** A connection that breaks in the middle is taken up where it broke, this often without getting any further. */
const attemptsMax = 5
const retryPauseMs = 1000

interface Fetched {
  sizeBytes: number
  etag: string | null
}

/**
 * The object's bytes, in order, each once. Later attempts ask for the rest of the same version only.
 *
 * @throws HoldfastError `UNREADABLE` when the gateway keeps breaking off
 */
async function download(
  { s3, client }: OpenS3,
  { bucket, key }: S3Url,
  sink: Sink,
  begin: (sizeBytes: number) => Promise<Progress>,
  signal: AbortSignal
): Promise<Fetched> {
  let progress: Progress | undefined
  let received = 0
  let sizeBytes: number | undefined
  let etag: string | undefined
  let isDone = false
  try {
    for (let attempt = 1; ; attempt++) {
      const before = received
      let failure: unknown
      try {
        const answer = await client.send(
          new s3.GetObjectCommand({
            Bucket: bucket,
            Key: key,
            ...(received > 0 && { Range: `bytes=${received}-` }),
            ...(etag !== undefined && { IfMatch: etag })
          }),
          { abortSignal: signal }
        )
        etag ??= answer.ETag
        sizeBytes ??= answer.ContentLength ?? 0
        progress ??= await begin(sizeBytes)
        for await (const chunk of answer.Body as AsyncIterable<Uint8Array>) {
          await keep(sink, chunk)
          received += chunk.length
          progress.add(chunk.length)
        }
      } catch (error) {
        signal.throwIfAborted()
        if (error instanceof SinkError) throw error.cause
        // A connection that broke, or a gateway that is being started again; whatever it says in words stands.
        if (sizeBytes === undefined || isAnswer(error)) throw error
        failure = error
      }
      if (received === sizeBytes) break
      if (received > sizeBytes)
        throw new HoldfastError('WRONG', `the gateway sent more than the ${sizeBytes} bytes it announced`)
      if (received > before) attempt = 1
      if (attempt >= attemptsMax) {
        const reason = failure === undefined ? '' : ` (${messageOf(failure)})`
        throw new HoldfastError(
          'UNREADABLE',
          `the gateway broke off after ${formatBytes(received)} of ${formatBytes(sizeBytes)}${reason}`,
          { cause: failure }
        )
      }
      await systemClock.sleep(retryPauseMs, signal)
    }
    isDone = true
    return { sizeBytes, etag: etag?.replaceAll('"', '') ?? null }
  } finally {
    progress?.stop(isDone)
  }
}

/** Whether the gateway answered with an error, rather than not at all. */
function isAnswer(error: unknown): boolean {
  const { $metadata } = Object(error) as { $metadata?: { httpStatusCode?: number } }
  const status = $metadata?.httpStatusCode
  return status !== undefined && status >= 400 && status < 500
}

/** What kept the bytes from being written, told apart from what kept them from arriving. */
class SinkError extends Error {}

async function keep(sink: Sink, chunk: Uint8Array): Promise<void> {
  try {
    await sink(chunk)
  } catch (cause) {
    throw new SinkError('the bytes cannot be written', { cause })
  }
}

async function destination(argument: string | undefined, key: string): Promise<string> {
  const name = path.posix.basename(key)
  if (argument === '-') return '-'
  const file = argument ?? name
  const isDirectory = (await stat(file).catch(() => undefined))?.isDirectory() === true // absent: a new file
  const full = isDirectory ? path.join(file, name) : file
  if (full === '' || name === '.' || name === '..')
    throw new HoldfastError('BAD_INPUT', 'say what file to write, or - for standard output')
  return full
}

async function get(context: CommandContext, options: ConnectionOptions, [address, argument]: string[]): Promise<void> {
  const { output, signal } = context
  const url = parseObjectUrl(address!)
  const file = await destination(argument, url.key)
  if (file === '-' && output.isJson)
    throw new HoldfastError('BAD_INPUT', '--json and - both want standard output; leave one out')
  const connection = await s3Connection(options, context)
  await withS3(connection, async (opened) => {
    const fetch = (sink: Sink): Promise<Fetched> =>
      download(
        opened,
        url,
        sink,
        (sizeBytes) => createProgress(output, path.posix.basename(url.key), sizeBytes),
        signal
      )
    if (file === '-') {
      await fetch(stdoutSink(output, signal))
      return
    }
    const { sizeBytes, etag } = await writeWholeFile(file, fetch)
    const result = {
      bucket: url.bucket,
      key: url.key,
      file: path.resolve(file),
      size: sizeBytes,
      etag,
      cid: opened.lastCid() ?? null
    }
    output.result(result, () => `${file}  ${formatBytes(sizeBytes)}  ${result.cid ?? ''}`.trimEnd())
  })
}

export const register: Register = (program, run) => {
  const command = program
    .command('get')
    .summary('download an object')
    .description(
      'Downloads an object. The file appears once all of it is there; every byte was checked against its address on the way.'
    )
    .argument('<s3-url>', 's3://BUCKET/KEY')
    .argument('[file]', 'file or directory to write to; - for standard output (default: the last part of KEY)')
  action(
    withS3Options(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'interrupted'] },
    get
  )
}
