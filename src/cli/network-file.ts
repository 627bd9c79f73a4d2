/** `DIR/network.json`: how everything else on the machine finds a running network. Written when ready, gone when not. */
import { readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import type { ZodType } from 'zod'
import { writeFileDurably } from '../base/durable-file.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'

export interface NetworkFile {
  /** Origin of the S3 endpoint. */
  endpoint: string
  accessKeyId: string
  secretAccessKey: string
  /** Origin of the admin API and the dashboard. */
  admin: string
  /** Multiaddrs by which another node joins. */
  bootstrap: string[]
  providers: Array<{ peerId: string; pid: number; data: string }>
}

export const networkFilePath = (directory: string): string => path.join(directory, 'network.json')

/** Replaces the file in one step, readable by its owner alone: it carries a secret. */
export async function writeNetworkFile(directory: string, network: NetworkFile): Promise<void> {
  await writeFileDurably(networkFilePath(directory), `${JSON.stringify(network, null, 2)}\n`, 0o600)
}

export async function removeNetworkFile(directory: string): Promise<void> {
  await rm(networkFilePath(directory), { force: true })
}

/** @throws HoldfastError `OFFLINE` when there is none (nothing runs there), `BAD_CONFIG` when it is not what it should be */
export async function readNetworkFile(directory: string): Promise<NetworkFile> {
  const file = networkFilePath(directory)
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new HoldfastError('BAD_CONFIG', `cannot read ${file}: ${messageOf(cause)}`, { cause })
    }
    throw new HoldfastError(
      'OFFLINE',
      `no network is running in ${directory} (there is no network.json). Start one with "holdfast up --data ${directory}", ` +
        'name another directory with --data, or a gateway with --endpoint and --admin',
      { cause }
    )
  }
  const { z } = await import('zod') // half of a start's time, for those who need it
  const schema: ZodType<NetworkFile> = z.object({
    endpoint: z.url(),
    accessKeyId: z.string().min(1),
    secretAccessKey: z.string().min(1),
    admin: z.url(),
    bootstrap: z.array(z.string()),
    providers: z.array(z.object({ peerId: z.string(), pid: z.number().int(), data: z.string() }))
  })
  try {
    return schema.parse(JSON.parse(text))
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `${file} is damaged; "holdfast up" writes it anew`, { cause })
  }
}
