/**
 * `DATA/status.json`: how a running provider stands, for `holdfast status`, since what it works with is locked.
 * Written at the start, every half minute, and at the end. FORMATS.md, "A provider's directory".
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { writeFileDurably } from '../base/durable-file.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { scrubProgressSchema } from './scrubber.ts'

const writeEveryMs = 30 * secondMs
/** What is older than this was written by a process that is gone, or stands still. */
export const statusAgeMsMax = 4 * writeEveryMs

const count = z.number().int().nonnegative()
const statusSchema = z.strictObject({
  v: z.literal(1),
  peerId: z.string(),
  version: z.string(),
  pid: count,
  addresses: z.array(z.string()),
  dataUrls: z.array(z.string()),
  startedAt: count,
  updatedAt: count,
  /** Whether this is the last word of a process that ended as it should. */
  hasEnded: z.boolean(),
  accepting: z.boolean(),
  /** It leaves, and hands over what it has. */
  draining: z.boolean().default(false),
  /** Refused blocks that are kept until they have been brought elsewhere. */
  refusedKept: count.default(0),
  capacityBytes: count,
  usedBytes: count,
  leasedBytes: count,
  blocks: count,
  leases: count,
  /** Leased blocks that are gone or were damaged, and have not been brought again. */
  lost: count,
  /** Blocks found to be damaged since the start. */
  rotten: count,
  /** How far the scrubber has come; null: it is off. */
  scrub: scrubProgressSchema.nullable(),
  /** Answers to audits since the start, by kind. */
  answers: z.record(z.string(), count),
  /** Those that lease most. */
  gateways: z.array(z.strictObject({ owner: z.string(), leases: count, bytes: count }))
})
export type ProviderStatus = z.infer<typeof statusSchema>

const pathOf = (dataDir: string): string => join(dataDir, 'status.json')

/** Undefined where there is none. @throws HoldfastError `DAMAGED` */
export async function readStatus(dataDir: string): Promise<ProviderStatus | undefined> {
  const path = pathOf(dataDir)
  try {
    return statusSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new HoldfastError('DAMAGED', `${path} is not what a provider of this version writes`, { cause })
  }
}

export type CurrentStatus = Omit<ProviderStatus, 'v' | 'pid' | 'startedAt' | 'updatedAt' | 'hasEnded'>

/**
 * Writes it now and from now on.
 *
 * @returns what ends that, with a last word
 */
export async function keepStatus(
  dataDir: string,
  current: () => Promise<CurrentStatus>,
  { clock, log }: { clock: Clock; log: Log }
): Promise<() => Promise<void>> {
  const startedAt = clock.now()
  const stopping = new AbortController()
  const write = async (hasEnded: boolean): Promise<void> => {
    try {
      const written = { pid: process.pid, startedAt, updatedAt: clock.now(), hasEnded }
      const status: ProviderStatus = { v: 1, ...written, ...(await current()) }
      await writeFileDurably(pathOf(dataDir), `${JSON.stringify(status)}\n`)
    } catch (error) {
      log.error('the status could not be written', { error: messageOf(error) })
    }
  }
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        await clock.sleep(writeEveryMs, stopping.signal)
      } catch {
        return // it stops
      }
      await write(false)
    }
  }
  await write(false)
  const running = loop()
  return async () => {
    stopping.abort('the provider stops')
    await running
    await write(true)
  }
}
