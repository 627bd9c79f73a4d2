/** Which gateway a client command talks to, and as whom. */
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { HoldfastError } from '../base/errors.ts'
import type { CommandContext } from './command.ts'
import { readNetworkFile } from './network-file.ts'

export interface ConnectionOptions {
  data?: string
  endpoint?: string
  admin?: string
}

export const defaultDataDirectory = '.holdfast'

export interface S3Connection {
  endpoint: string
  accessKeyId: string
  secretAccessKey: string
}

const dataOption = [
  '--data <dir>',
  `directory of a network on this machine, found by its network.json (default: ./${defaultDataDirectory})`
] as const

export function withS3Options(command: Command): Command {
  return command
    .option(...dataOption)
    .option(
      '--endpoint <url>',
      'S3 endpoint of a gateway instead, with the key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY'
    )
}

export function withAdminOptions(command: Command): Command {
  return command.option(...dataOption).option('--admin <url>', 'admin address of a gateway instead')
}

function origin(text: string, what: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (
    url === undefined ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.pathname !== '/' ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    throw new HoldfastError('BAD_INPUT', `"${text}" is not ${what}: write it as http://HOST:PORT`)
  }
  return url.origin
}

const directoryOf = (options: ConnectionOptions): string => path.resolve(options.data ?? defaultDataDirectory)

/**
 * By flag, else by `--data`, else by environment, else `./.holdfast`. A key from the environment goes with an endpoint named
 * outright, never with a network file: that one brings its own, and the environment's may be for somewhere else.
 *
 * @throws HoldfastError `BAD_INPUT`, `BAD_CONFIG`, `OFFLINE`
 */
export async function s3Connection(
  options: ConnectionOptions,
  { env }: Pick<CommandContext, 'env'>
): Promise<S3Connection> {
  const endpoint = options.endpoint ?? (options.data === undefined ? env.HOLDFAST_ENDPOINT : undefined)
  if (endpoint === undefined) return await readNetworkFile(directoryOf(options))
  const accessKeyId = env.AWS_ACCESS_KEY_ID
  const secretAccessKey = env.AWS_SECRET_ACCESS_KEY
  if (!accessKeyId || !secretAccessKey) {
    throw new HoldfastError(
      'BAD_CONFIG',
      `to use ${endpoint}, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "holdfast key create" makes a key`
    )
  }
  return { endpoint: origin(endpoint, 'an endpoint'), accessKeyId, secretAccessKey }
}

/**
 * Origin of the admin API, found likewise.
 *
 * @throws HoldfastError `BAD_INPUT`, `BAD_CONFIG`, `OFFLINE`
 */
export async function adminOrigin(options: ConnectionOptions, { env }: Pick<CommandContext, 'env'>): Promise<string> {
  const admin = options.admin ?? (options.data === undefined ? env.HOLDFAST_ADMIN : undefined)
  if (admin !== undefined) return origin(admin, 'an admin address')
  return (await readNetworkFile(directoryOf(options))).admin
}

/**
 * The directory that `--data` names, where a provider works in it and no local network or gateway.
 *
 * @throws HoldfastError `OFFLINE` where neither has ever been
 */
export function providerDirectory(options: ConnectionOptions): string | undefined {
  if (options.data === undefined || options.admin !== undefined) return undefined
  const directory = directoryOf(options)
  const has = (name: string): boolean => existsSync(path.join(directory, name))
  if (has('network.json')) return undefined
  if (has('leases.sqlite') || has('status.json')) return directory
  if (has('up.json') || has('gateway') || has('index.sqlite')) return undefined
  throw new HoldfastError(
    'OFFLINE',
    `nothing has run in ${directory} yet. "holdfast up --data ${directory}" starts a network there, ` +
      `"holdfast provider --data ${directory}" a provider`
  )
}
