/**
 * `holdfast status` of a provider's directory: how it stands, what gateways think of it, and everything that moved
 * that.
 */
import { HoldfastError } from '../base/errors.ts'
import type { ScoreRecord } from '../custody/score.ts'
import { type GatewayScore, type Grounds, groundsOf, type OwnStatement, readScores } from '../provider/scores-file.ts'
import { type ProviderStatus, readStatus, statusAgeMsMax } from '../provider/status-file.ts'
import { table } from './output.ts'
import { formatBytes, formatDuration } from './units.ts'

/** An event with who says so, and what there is to show for it. */
export interface ScoreMove extends ScoreRecord {
  gateway: string
  evidence: Grounds | null
}

export interface ProviderReport {
  isRunning: boolean
  /** Why it is taken not to run. */
  reason: string | null
  status: ProviderStatus
  scores: GatewayScore[]
  /** Newest first, of all gateways, each by its own clock. */
  events: ScoreMove[]
  /** What this provider signed that speaks against it, newest first. */
  statements: OwnStatement[]
}

/** In the text; `--json` has all. */
const linesMax = 50

/**
 * @param now milliseconds since the Unix epoch
 * @throws HoldfastError `OFFLINE` where the provider never was up, `DAMAGED`
 */
export async function reportOf(directory: string, now: number): Promise<ProviderReport> {
  const [status, { gateways, statements }] = await Promise.all([readStatus(directory), readScores(directory)])
  if (status === undefined) {
    throw new HoldfastError(
      'OFFLINE',
      `the provider in ${directory} has never been up; start it with "holdfast provider --data ${directory}"`
    )
  }
  const events = gateways.flatMap(({ gateway, events, evidence }) =>
    events.map((event) => ({ ...event, gateway, evidence: groundsOf(event, evidence) ?? null }))
  )
  events.sort((a, b) => b.until - a.until)
  const reason = notRunning(status, now)
  return { isRunning: reason === null, reason, status, scores: gateways, events, statements }
}

function notRunning({ hasEnded, updatedAt, pid }: ProviderStatus, now: number): string | null {
  const ago = `${formatDuration(now - updatedAt)} ago`
  if (hasEnded) return `it was stopped ${ago}`
  // After a kill nothing is written any more; the clock may have been set back in between.
  if (Math.abs(now - updatedAt) > statusAgeMsMax) return `it was last heard of ${ago}, as process ${pid}`
  return null
}

export function render(report: ProviderReport, now: number): string {
  const { status, scores, events, statements } = report
  const sections = [
    facts(report, now),
    scores.length === 0
      ? 'No gateway has been asked for this provider’s score yet.'
      : `Scores, as gateways say them:\n${scoreTable(scores, status, now)}`,
    ...(events.length === 0 ? [] : [`What moved them, newest first:\n${eventTable(events)}`]),
    ...(statements.length === 0 ? [] : [`What this provider signed against itself:\n${statementTable(statements)}`])
  ]
  return sections.join('\n\n')
}

function facts({ status, reason }: ProviderReport, now: number): string {
  const { usedBytes, capacityBytes, leasedBytes, blocks, leases, lost, rotten, refusedKept, answers } = status
  const lines: Array<[string, string]> = [
    ['State', `${reason === null ? 'running' : `not running: ${reason}`}${intentOf(status)}`],
    ['Peer', status.peerId],
    ['Space', `${formatBytes(usedBytes)} used of ${formatBytes(capacityBytes)}`],
    ['Leased', `${formatBytes(leasedBytes)}, ${counted(blocks, 'shard')} under ${counted(leases, 'lease')}`],
    ...(refusedKept === 0 ? [] : [refusedLine(refusedKept)]),
    ['Damaged', `${counted(rotten, 'shard')} found since the start`],
    ['Lost', `${counted(lost, 'leased shard')} damaged or gone, and not brought again`],
    ['Scrubber', scrubLine(status, now)],
    ['Audits', answersLine(answers)],
    ['Addresses', [...status.addresses, ...status.dataUrls].join(', ')],
    ['Version', status.version]
  ]
  return lines.map(([name, value]) => `${`${name}:`.padEnd(13)}${value}`).join('\n')
}

function intentOf({ accepting, draining }: ProviderStatus): string {
  if (draining) return '; it drains: takes no new shards, and hands over what it has'
  return accepting ? '' : '; takes no new shards'
}

const refusedLine = (kept: number): [string, string] => [
  'Refused',
  `${counted(kept, 'shard')} kept until brought elsewhere, a day at most`
]

/** `2026-01-31 12:00Z` */
const minuteOf = (at: number): string => `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')}Z`
const counted = (count: number, name: string): string => `${count} ${name}${count === 1 ? '' : 's'}`

function scrubLine({ scrub, blocks }: ProviderStatus, now: number): string {
  if (scrub === null) return 'off'
  const ago = (at: number): string => `${formatDuration(Math.max(0, now - at))} ago`
  return [
    `${scrub.blocks} of ${counted(Math.max(blocks, scrub.blocks), 'shard')} (${formatBytes(scrub.bytes)}) looked at since ${ago(scrub.turnStartedAt)}`,
    scrub.turnEndedAt === null ? 'no full turn yet' : `last full turn ended ${ago(scrub.turnEndedAt)}`,
    `found ${scrub.rotten} damaged and ${scrub.missing} gone, ever`
  ].join('; ')
}

function answersLine(answers: Readonly<Record<string, number>>): string {
  const given = Object.entries(answers).filter(([, count]) => count > 0)
  return given.length === 0
    ? 'none answered since the start'
    : `${given.map(([kind, count]) => `${count} ${kind}`).join(', ')} answered since the start`
}

function scoreTable(scores: readonly GatewayScore[], { gateways }: ProviderStatus, now: number): string {
  const figure = (value: number | undefined): string => (value === undefined ? '-' : value.toFixed(3))
  return table(scores, [
    { title: 'GATEWAY', value: ({ gateway }) => gateway },
    { title: 'STANDING', value: ({ score }) => score?.standing ?? '-' },
    { title: 'WEIGHT', value: ({ score }) => figure(score?.weight), align: 'right' },
    { title: 'CUSTODY', value: ({ score }) => figure(score?.custody), align: 'right' },
    { title: 'AVAILABLE', value: ({ score }) => figure(score?.availability), align: 'right' },
    { title: 'PROOFS', value: ({ score }) => String(score?.proofs ?? '-'), align: 'right' },
    {
      title: 'LEASED',
      value: ({ gateway }) => formatBytes(gateways.find(({ owner }) => owner === gateway)?.bytes ?? 0),
      align: 'right'
    },
    { title: 'SAID', value: (score) => saidWhen(score, now), align: 'right' },
    { title: 'WHY', value: whyOf }
  ])
}

const saidWhen = ({ answeredAt }: GatewayScore, now: number): string =>
  answeredAt === null ? 'never' : `${formatDuration(now - answeredAt)} ago`

function whyOf({ score, failure, answeredAt }: GatewayScore): string {
  const unheard = failure === null ? '' : `does not answer since: ${failure.why}`
  if (score !== null) return unheard === '' ? score.why : `${score.why} (${unheard})`
  return unheard === '' ? (answeredAt === null ? 'not asked yet' : 'not audited yet') : unheard
}

function eventTable(events: readonly ScoreMove[]): string {
  const shown = table(events.slice(0, linesMax), [
    { title: 'TIME', value: ({ until }) => minuteOf(until) },
    { title: 'GATEWAY', value: ({ gateway }) => `...${gateway.slice(-8)}` },
    { title: 'EVENT', value: ({ kind, count }) => (count === 1 ? kind : `${kind} x${count}`) },
    { title: 'FROM', value: ({ before }) => before.toFixed(3), align: 'right' },
    { title: 'TO', value: ({ after }) => after.toFixed(3), align: 'right' },
    { title: 'EVIDENCE', value: ({ evidence }) => (evidence === null ? '-' : grounds[evidence]) },
    { title: 'WHY', value: ({ why, shard }) => (shard === undefined ? why : `${why}: ${shard}`) }
  ])
  return withRest(shown, events.length)
}

const grounds: Record<Grounds, string> = {
  signed: 'signed by this provider',
  claimed: "the gateway's word",
  refuted: 'contradicts itself',
  nothing: 'none shown'
}

function statementTable(statements: readonly OwnStatement[]): string {
  const shown = table(statements.slice(0, linesMax), [
    { title: 'TIME', value: ({ at }) => minuteOf(at) },
    { title: 'TO', value: ({ auditor }) => `...${auditor.slice(-8)}` },
    { title: 'FAULTS', value: ({ faults, challenges }) => `${faults} of ${challenges}`, align: 'right' },
    {
      title: 'SHARDS',
      value: ({ against, faults }) => {
        const first = against[0]
        if (first === undefined) return '-'
        return `${first.kind} ${first.cid}${faults > 1 ? ` and ${faults - 1} more` : ''}`
      }
    }
  ])
  return withRest(shown, statements.length)
}

const withRest = (shown: string, count: number): string =>
  count > linesMax ? `${shown}\n(${count - linesMax} more with --json)` : shown
