/** S3 clients that people have: programs of the distribution, and Amazon's own library. Each copies a directory in and out. */
import { execFile } from 'node:child_process'
import { accessSync, constants, createReadStream, createWriteStream } from 'node:fs'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CreateBucketCommand, GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { forEachLimit } from '../../src/base/concurrency.ts'
import type { GatewayHandle } from './processes.ts'

export interface CopyClient {
  name: string
  /** Every file below `directory` becomes an object of the bucket, which is made. */
  copyIn: (directory: string, bucket: string) => Promise<void>
  copyOut: (bucket: string, directory: string) => Promise<void>
}

const outputBytesMax = 16 * 1024 * 1024

/** Where a program is: the distribution's own before any other of that name. */
export function findProgram(name: string): string | undefined {
  return ['/usr/bin', ...(process.env.PATH ?? '').split(path.delimiter)]
    .map((directory) => path.join(directory, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false // not there: the next one
      }
    })
}

/** Resolves with what it wrote to stdout. @throws Error with the end of its stderr when it fails */
export function runProgram(
  file: string,
  args: readonly string[],
  env: Record<string, string> = {},
  signal?: AbortSignal
): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      file,
      args,
      { env: { PATH: process.env.PATH ?? '', ...env }, maxBuffer: outputBytesMax, signal },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else reject(new Error(`${path.basename(file)} ${args.join(' ')}: ${error.message}\n${stderr.slice(-4000)}`))
      }
    )
  })
}

function awsCli(program: string, { endpoint, credentials }: GatewayHandle, home: string): CopyClient {
  const env = {
    HOME: home,
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    AWS_DEFAULT_REGION: 'us-east-1',
    AWS_EC2_METADATA_DISABLED: 'true'
  }
  const s3 = (...args: string[]): Promise<string> =>
    runProgram(program, ['--endpoint-url', endpoint, 's3', ...args], env)
  return {
    name: 'awscli',
    copyIn: async (directory, bucket) => {
      await s3('mb', `s3://${bucket}`)
      await s3('cp', '--recursive', '--only-show-errors', directory, `s3://${bucket}/`)
    },
    copyOut: async (bucket, directory) => {
      await s3('cp', '--recursive', '--only-show-errors', `s3://${bucket}/`, directory)
    }
  }
}

async function s3cmd(program: string, { endpoint, credentials }: GatewayHandle, home: string): Promise<CopyClient> {
  const { host } = new URL(endpoint)
  const config = path.join(home, 's3cfg')
  const settings = {
    access_key: credentials.accessKeyId,
    secret_key: credentials.secretAccessKey,
    host_base: host,
    host_bucket: host,
    use_https: 'False'
  }
  await writeFile(config, ['[default]', ...Object.entries(settings).map((pair) => pair.join(' = ')), ''].join('\n'))
  const run = (...args: string[]): Promise<string> =>
    runProgram(program, ['--config', config, '--no-progress', ...args], { HOME: home, LC_ALL: 'C.UTF-8' })
  return {
    name: 's3cmd',
    copyIn: async (directory, bucket) => {
      await run('mb', `s3://${bucket}`)
      await run('sync', `${directory}/`, `s3://${bucket}/`)
    },
    copyOut: async (bucket, directory) => {
      await run('sync', `s3://${bucket}/`, `${directory}/`)
    }
  }
}

export interface Rclone extends CopyClient {
  /** `rclone check --download`: both sides are read and compared. */
  check: (directory: string, bucket: string) => Promise<void>
}

export function rclone(program: string, { endpoint, credentials }: GatewayHandle, home: string): Rclone {
  const env = {
    HOME: home,
    RCLONE_CONFIG: path.join(home, 'rclone.conf'),
    RCLONE_CONFIG_HOLDFAST_TYPE: 's3',
    RCLONE_CONFIG_HOLDFAST_PROVIDER: 'Other',
    RCLONE_CONFIG_HOLDFAST_ENDPOINT: endpoint,
    RCLONE_CONFIG_HOLDFAST_ACCESS_KEY_ID: credentials.accessKeyId,
    RCLONE_CONFIG_HOLDFAST_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    RCLONE_CONFIG_HOLDFAST_REGION: 'us-east-1'
  }
  const run = (...args: string[]): Promise<string> => runProgram(program, args, env)
  return {
    name: 'rclone',
    copyIn: async (directory, bucket) => void (await run('copy', directory, `holdfast:${bucket}`)),
    copyOut: async (bucket, directory) => void (await run('copy', `holdfast:${bucket}`, directory)),
    check: async (directory, bucket) => void (await run('check', '--download', directory, `holdfast:${bucket}`))
  }
}

export async function* filesBelow(directory: string): AsyncGenerator<string> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) yield path.relative(directory, path.join(entry.parentPath, entry.name))
  }
}

/** As the library's own examples have it: `lib-storage` chooses between one PUT and a multipart upload. */
function sdk(gateway: GatewayHandle): CopyClient {
  const client = gateway.s3({ maxAttempts: 3 })
  return {
    name: '@aws-sdk/client-s3',
    copyIn: async (directory, bucket) => {
      await client.send(new CreateBucketCommand({ Bucket: bucket }))
      await forEachLimit(await Array.fromAsync(filesBelow(directory)), 8, async (file) => {
        const Body = createReadStream(path.join(directory, file))
        await new Upload({ client, params: { Bucket: bucket, Key: file, Body } }).done()
      })
    },
    copyOut: async (bucket, directory) => {
      let token: string | undefined
      do {
        const page = await client.send(new ListObjectsV2Command({ Bucket: bucket, ContinuationToken: token }))
        await forEachLimit(page.Contents ?? [], 8, async ({ Key = '' }) => {
          const file = path.join(directory, Key)
          await mkdir(path.dirname(file), { recursive: true })
          const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key }))
          await pipeline(Body as Readable, createWriteStream(file))
        })
        token = page.NextContinuationToken
      } while (token !== undefined)
    }
  }
}

export const clientPrograms = { awscli: 'aws', s3cmd: 's3cmd', rclone: 'rclone' } as const

export type ClientName = keyof typeof clientPrograms | '@aws-sdk/client-s3'

/** @param home a directory for the client's own files */
export async function openClient(name: ClientName, gateway: GatewayHandle, home: string): Promise<CopyClient> {
  if (name === '@aws-sdk/client-s3') return sdk(gateway)
  const program = findProgram(clientPrograms[name])
  if (program === undefined) throw new Error(`${name} is not installed`)
  if (name === 'awscli') return awsCli(program, gateway, home)
  if (name === 's3cmd') return await s3cmd(program, gateway, home)
  return rclone(program, gateway, home)
}
