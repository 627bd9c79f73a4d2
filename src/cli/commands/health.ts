import { createAdminClient } from '../admin-client.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { adminOrigin, type ConnectionOptions, withAdminOptions } from '../connection.ts'
import { Exit, exitCodes } from '../exit-codes.ts'
import { formatBytes, parseObjectUrl } from '../units.ts'

interface SegmentHealth {
  code: string
  healthy: number
  margin: number
  refusers: number
  unplaced: string | null
  shards: Array<{
    cid: string
    provider: string | null
    state: string
    lastProof: string | null
    condition?: string
    domains: string[]
  }>
  outlook?: { why: string; threshold: number; domains: number; lossPerYear: number }
}

interface ObjectHealth {
  cid: string
  size: number
  lossPerYear?: number
  segments: SegmentHealth[]
  blocks: SegmentHealth[]
}

interface HealthOptions extends ConnectionOptions {
  shards?: boolean
}

/** What repair says beyond the state that a shard is known in. */
const finer = new Set(['gone', 'crowded', 'draining', 'selfHosted'])

const wordOf = ({ state, condition }: SegmentHealth['shards'][number]): string =>
  condition !== undefined && finer.has(condition) ? condition : state

/** `5 healthy, 1 offline`: every state that occurs, the good one first. */
function states(segments: readonly SegmentHealth[]): string {
  const counts = new Map<string, number>([['healthy', 0]])
  for (const shard of segments.flatMap(({ shards }) => shards))
    counts.set(wordOf(shard), (counts.get(wordOf(shard)) ?? 0) + 1)
  return [...counts].map(([state, count]) => `${count} ${state}`).join(', ')
}

function segmentLines(name: string, segment: SegmentHealth, withShards: boolean): string[] {
  const margin = segment.margin < 0 ? 'unreadable now' : `margin ${segment.margin}`
  const domains = segment.outlook === undefined ? '' : ` in ${segment.outlook.domains} failure domains`
  const refusers = segment.refusers === 0 ? '' : `  refused by ${segment.refusers}`
  const unplaced = segment.unplaced === null ? '' : `\n  ${segment.unplaced}`
  const why = segment.outlook?.why ?? states([segment])
  const head = `${name}  ${segment.code}  ${margin}${domains}  ${why}${refusers}${unplaced}`
  if (!withShards) return [head]
  return [
    head,
    ...segment.shards.map(
      (shard) =>
        `  ${wordOf(shard).padEnd(10)}  ${shard.cid}  ${shard.provider ?? 'not placed'}  ` +
        `${shard.lastProof ?? 'never proved'}  ${shard.domains.join(' ')}`
    )
  ]
}

/** By churn alone, as it is measured; a model's word, and not a promise. */
function oddsOf(lossPerYear: number): string {
  if (lossPerYear === 0) return 'too unlikely within a year to be told from none, by the churn measured here'
  return `${lossPerYear.toPrecision(2)} within a year, estimated by the churn measured here`
}

function render(health: ObjectHealth, withShards: boolean): string {
  const all = [...health.segments, ...health.blocks]
  const margin = Math.min(...all.map((segment) => segment.margin))
  const unreadable = all.filter((segment) => segment.margin < 0).length
  const verdict =
    unreadable > 0
      ? `UNREADABLE NOW: ${unreadable} of ${all.length} segments have too few shards`
      : `readable; ${margin} more shards of any segment may go`
  const details =
    withShards ||
    all.some(({ shards, unplaced }) => unplaced !== null || shards.some((shard) => wordOf(shard) !== 'healthy'))
  return [
    `CID:       ${health.cid}`,
    `Size:      ${formatBytes(health.size)} in ${health.segments.length} ${health.segments.length === 1 ? 'segment' : 'segments'}`,
    `Health:    ${verdict}`,
    `Shards:    ${states(all)}`,
    ...(health.lossPerYear === undefined ? [] : [`Loss:      ${oddsOf(health.lossPerYear)}`]),
    ...(details
      ? [
          '',
          ...health.segments.flatMap((segment, i) => segmentLines(`segment ${i + 1}`, segment, withShards)),
          ...health.blocks.flatMap((segment, i) => segmentLines(`manifest block ${i + 1}`, segment, withShards))
        ]
      : [])
  ].join('\n')
}

async function health(context: CommandContext, options: HealthOptions, [address]: string[]): Promise<void> {
  const { bucket, key } = parseObjectUrl(address!)
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const answer = await admin.request<ObjectHealth>(
    'GET',
    `/v1/objects/${encodeURIComponent(bucket)}/${encodeURIComponent(key)}`
  )
  context.output.result(answer, () => render(answer, options.shards === true))
  if ([...answer.segments, ...answer.blocks].some((segment) => segment.margin < 0)) throw new Exit(exitCodes.network)
}

export const register: Register = (program, run) => {
  const command = program
    .command('health')
    .summary('where the shards of an object are')
    .description(
      'Shows the segments of an object: how many of their shards are healthy, and how many more may go before it cannot be read.'
    )
    .argument('<s3-url>', 's3://BUCKET/KEY')
    .option('--shards', 'every shard, with its provider and when it was last proved')
  const special = { network: 'the gateway does not answer, or the object cannot be read now' }
  action<HealthOptions>(
    withAdminOptions(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'interrupted'], special },
    health
  )
}
