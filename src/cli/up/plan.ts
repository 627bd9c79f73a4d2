/**
 * What `holdfast up` runs in a directory: kept in `DIR/up.json`, so that providers come back under the addresses the
 * network knows them by.
 */
import { readFile, statfs } from 'node:fs/promises'
import { createServer } from 'node:net'
import path from 'node:path'
import { z } from 'zod'
import { writeFileDurably } from '../../base/durable-file.ts'
import { HoldfastError } from '../../base/errors.ts'
import { MiB } from '../../base/limits.ts'
import type { Random } from '../../base/random.ts'

const planSchema = z.strictObject({
  version: z.literal(1),
  providers: z.array(
    z.strictObject({
      name: z.string().regex(/^p\d{2,4}$/),
      domain: z.string(),
      /** libp2p on 127.0.0.1; the HTTPS data plane has the next port. */
      port: z.number().int().min(1).max(65_534),
      capacityBytes: z.number().int().positive()
    })
  )
})

export type Plan = z.infer<typeof planSchema>
export type PlannedProvider = Plan['providers'][number]

export const host = '127.0.0.1'
export const capacityDefaultBytes = 20e9
/** Less than this of disk for each provider is no network to try anything on. */
const capacityBytesMin = 64 * MiB
/** Below the ports that systems hand out for outgoing connections (32768 and up on Linux), or they would be taken by one. */
const portFirst = 10_000
const portLast = 32_000

export async function isPortFree(port: number, address: string = host): Promise<boolean> {
  const server = createServer()
  return await new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(true)))
  })
}

const isPairFree = async (port: number): Promise<boolean> => (await isPortFree(port)) && (await isPortFree(port + 1))

/** Free pairs of ports, from a random place on: networks that start together look in different places. */
async function* freePairs(taken: Set<number>, random: Random): AsyncGenerator<number> {
  const pairs = (portLast - portFirst) / 2
  const start = random.int(pairs)
  for (let i = 0; i < pairs; i++) {
    const port = portFirst + 2 * ((start + i) % pairs)
    if (taken.has(port) || taken.has(port + 1) || !(await isPairFree(port))) continue
    yield port
  }
  throw new HoldfastError('BAD_CONFIG', `no free ports from ${portFirst} to ${portLast} on ${host}`)
}

async function readPlan(file: string): Promise<Plan> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { version: 1, providers: [] }
    throw error
  }
  try {
    return planSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `${file} is damaged; remove it, and providers get new ports`, { cause })
  }
}

export interface PlanRequest {
  providers: number
  /** Of each provider; remembered from the first run where it is not given. */
  capacityBytes?: number
  /** Ports that are spoken for. */
  reserved: readonly number[]
  random: Random
}

/**
 * Reads the plan, adds what is missing for `providers` of them, replaces ports that someone else has taken, and keeps
 * the result.
 *
 * @returns the providers to run, and how many more the directory has
 * @throws HoldfastError `BAD_CONFIG` when the disk is too full
 */
export async function preparePlan(
  directory: string,
  request: PlanRequest
): Promise<{ providers: PlannedProvider[]; left: number }> {
  const file = path.join(directory, 'up.json')
  const plan = await readPlan(file)
  const kept = plan.providers.slice(0, request.providers)
  const taken = new Set([...request.reserved, ...plan.providers.flatMap(({ port }) => [port, port + 1])])
  const ports = freePairs(taken, request.random)
  const nextPort = async (): Promise<number> => (await ports.next()).value as number
  const capacityBytes = request.capacityBytes ?? (await capacityShare(directory, request.providers, kept.length))
  const providers: PlannedProvider[] = []
  for (let i = 0; i < request.providers; i++) {
    const number = String(i + 1).padStart(2, '0')
    const before = kept[i]
    providers.push({
      name: `p${number}`,
      domain: `local-${number}`,
      port: before !== undefined && (await isPairFree(before.port)) ? before.port : await nextPort(),
      capacityBytes: request.capacityBytes ?? before?.capacityBytes ?? capacityBytes
    })
  }
  const rest = plan.providers.slice(request.providers)
  await writeFileDurably(
    file,
    `${JSON.stringify({ version: 1, providers: [...providers, ...rest] } satisfies Plan, null, 2)}\n`
  )
  return { providers, left: rest.length }
}

/** What the disk has, shared among the new providers, and never more than the default. */
async function capacityShare(directory: string, providers: number, existing: number): Promise<number> {
  if (existing >= providers) return capacityDefaultBytes
  const { bavail, bsize } = await statfs(directory)
  const share = Math.floor((bavail * bsize) / providers)
  if (share < capacityBytesMin) {
    throw new HoldfastError(
      'BAD_CONFIG',
      `the disk of ${directory} has too little room for ${providers} providers; start fewer, or give them a --capacity`
    )
  }
  return Math.min(capacityDefaultBytes, share)
}
