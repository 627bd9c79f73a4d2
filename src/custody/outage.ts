/**
 * Whose outage is it? When many unrelated providers stop answering within a short time, it is rather the auditor's own
 * line: then judgement is suspended until enough of them answer again. Pure, like the rest here.
 *
 * - *Unrelated*: providers that share any label of failure domain (operator, network) are one group, which has stopped
 *   only if none of its members that were asked answers. So a datacenter, however large, is one group and no own
 *   outage.
 * - *Stopped*: answered when it was last asked, and not now. Who was offline before says nothing, so churn of the past
 *   does not count, nor does a provider that never answered.
 * - *Suspended* when, of the groups asked in the window (5 min) that had not stopped before it, more than a third have
 *   stopped, and at least 4 (or all there are, where there are 2 or 3).
 *
 * The numbers: where each group goes absent once a day, at independent times, one does in a given window with 0.35%. A
 * false suspension takes four of four groups asked (1.5e-10 a window), five of twelve (4e-10); the worst is four of
 * eleven: 4.8e-8 a window, once in 200 years. It would harm nobody: it delays.
 *
 * An own outage stops every group, so it is seen with the fourth that is asked. `canaries` names whom to ask at once
 * when the first has stopped: waiting for audits would take longer than the window where providers are few.
 *
 * It ends when at most a quarter of the groups asked since are down that stopped since its beginning. Should that never
 * be (a third of the network did go at once) it ends after a day if half of those asked answer: whoever is reached by
 * half the network is not cut off. While most are silent it does not end.
 */
import { z } from 'zod'
import { dayMs, minuteMs } from '../base/limits.ts'
import type { Random } from '../base/random.ts'

export interface OutageConfig {
  windowMs: number
  /** More than this share of the groups asked must have stopped. */
  stoppedShareMin: number
  stoppedGroupsMin: number
  /** It ends when no larger share is down. */
  downShareMax: number
  /** After so long it ends if half of the groups answer. */
  suspendedMsMax: number
  /** Providers remembered: beyond that those asked longest ago are forgotten. */
  peersMax: number
}

export const outageDefaults: OutageConfig = {
  windowMs: 5 * minuteMs,
  stoppedShareMin: 1 / 3,
  stoppedGroupsMin: 4,
  downShareMax: 1 / 4,
  suspendedMsMax: dayMs,
  peersMax: 4096
}

const time = z.number().int()
const peerSchema = z.strictObject({
  peerId: z.string(),
  domains: z.array(z.string()),
  isUp: z.boolean(),
  /** When it was last asked. */
  at: time,
  /** When it stopped answering, having answered before; null while it answers, or if it never did. */
  stoppedAt: time.nullable()
})
type Peer = z.infer<typeof peerSchema>

export const outageStateSchema = z.strictObject({
  v: z.literal(1),
  /** Asked longest ago first. */
  peers: z.array(peerSchema),
  suspended: z.strictObject({ from: time, since: time }).nullable()
})
/** Plain data, bounded by `peersMax`. */
export type OutageState = z.infer<typeof outageStateSchema>

export const newOutage = (): OutageState => ({ v: 1, peers: [], suspended: null })

/** What became of asking a provider anything. Any answer at all is `isUp`, be it wrong; offline and timeout are not. */
export interface Contact {
  now: number
  peerId: string
  /** Labels of what fails with it; see `domainLabels`. None: it stands for itself. */
  domains: readonly string[]
  isUp: boolean
}

export type OutageEffect =
  /** To be told to the judge of every provider. `from`: what was silent since then is to be taken back. */
  { kind: 'suspended'; from: number; at: number; why: string } | { kind: 'resumed'; at: number; why: string }

/** Takes one contact in. The state given is not changed. */
export function contacted(
  before: OutageState,
  contact: Contact,
  config: OutageConfig = outageDefaults
): { state: OutageState; effects: OutageEffect[] } {
  const { now, peerId, isUp } = contact
  const known = before.peers.find((peer) => peer.peerId === peerId)
  const stoppedNow = known?.isUp === true ? now : (known?.stoppedAt ?? null)
  const peer: Peer = { peerId, domains: [...contact.domains], isUp, at: now, stoppedAt: isUp ? null : stoppedNow }
  const peers = [...before.peers.filter((one) => one !== known), peer].slice(-config.peersMax)
  const { suspended } = before
  // An answer begins no outage: the common case costs no grouping.
  if (suspended === null && isUp) return { state: { v: 1, peers, suspended }, effects: [] }
  return suspended === null ? begin(peers, now, config) : end(peers, suspended, now, config)
}

/** Providers that fail together. */
interface Group {
  /** None of its members answers. */
  isDown: boolean
  /** When its last member stopped; null if that was never seen. */
  stoppedAt: number | null
}

type Step = { state: OutageState; effects: OutageEffect[] }

function begin(peers: Peer[], now: number, config: OutageConfig): Step {
  const from = now - config.windowMs
  const groups = groupsOf(peers.filter(({ at }) => at >= from)).filter(
    ({ isDown, stoppedAt }) => !isDown || (stoppedAt !== null && stoppedAt >= from)
  )
  const stopped = groups.filter(({ isDown }) => isDown).length
  const leastGroups = Math.min(config.stoppedGroupsMin, Math.max(2, groups.length))
  const isSmall = groups.length < config.stoppedGroupsMin
  const isOutage =
    stopped >= leastGroups &&
    stopped > groups.length * config.stoppedShareMin &&
    // Few asked is not few known: two of two hundred are no outage.
    (!isSmall || stopped === groupsOf(peers.filter(({ isUp, stoppedAt }) => isUp || stoppedAt !== null)).length)
  if (!isOutage) return { state: { v: 1, peers, suspended: null }, effects: [] }
  const why = `${stopped} of ${groups.length} unrelated groups of providers stopped answering at once`
  return {
    state: { v: 1, peers, suspended: { from, since: now } },
    effects: [{ kind: 'suspended', from, at: now, why }]
  }
}

function end(peers: Peer[], suspended: { from: number; since: number }, now: number, config: OutageConfig): Step {
  const groups = groupsOf(peers.filter(({ at }) => at >= suspended.from))
  const down = groups.filter(
    ({ isDown, stoppedAt }) => isDown && stoppedAt !== null && stoppedAt >= suspended.from
  ).length
  const isOver = down <= groups.length * config.downShareMax
  const isAccepted = now - suspended.since >= config.suspendedMsMax && down * 2 <= groups.length
  if (!isOver && !isAccepted) return { state: { v: 1, peers, suspended }, effects: [] }
  const why = isOver
    ? `all but ${down} of ${groups.length} groups of providers answer again`
    : `${down} of ${groups.length} groups of providers stayed away; the others answer`
  // Whoever is still away is so by itself from here on, and must not begin the next outage.
  const taken = peers.map((peer) => (peer.isUp ? peer : { ...peer, stoppedAt: null }))
  return { state: { v: 1, peers: taken, suspended: null }, effects: [{ kind: 'resumed', at: now, why }] }
}

/** Peers that share any label, by themselves or through others, are one. */
function groupsOf(peers: readonly Peer[]): Group[] {
  const parent = new Map<string, string>()
  const rootOf = (label: string): string => {
    let at = label
    for (let up = parent.get(at); up !== undefined && up !== at; up = parent.get(at)) at = up
    parent.set(label, at)
    return at
  }
  const labelsOf = ({ peerId, domains }: Peer): readonly string[] => (domains.length > 0 ? domains : [`peer:${peerId}`])
  for (const peer of peers) {
    const labels = labelsOf(peer)
    for (const label of labels) parent.set(rootOf(label), rootOf(labels[0]!))
  }
  const groups = new Map<string, Group>()
  for (const peer of peers) {
    const root = rootOf(labelsOf(peer)[0]!)
    const group = groups.get(root) ?? { isDown: true, stoppedAt: null }
    groups.set(root, {
      isDown: group.isDown && !peer.isUp,
      stoppedAt: peer.stoppedAt === null ? group.stoppedAt : Math.max(peer.stoppedAt, group.stoppedAt ?? 0)
    })
  }
  return [...groups.values()]
}

/**
 * Whom to ask at once, by anything cheap, drawn at random: while somebody has stopped within the window, of those that
 * answered, to find out whose outage it is; while judgement is suspended, of those that stopped, to see it end.
 */
export function canaries(
  state: OutageState,
  now: number,
  random: Random,
  count = 8,
  config: OutageConfig = outageDefaults
): string[] {
  const from = now - config.windowMs
  const isSuspended = state.suspended !== null
  if (!isSuspended && !state.peers.some(({ stoppedAt }) => stoppedAt !== null && stoppedAt >= from)) return []
  const stale = state.peers.filter(({ at, isUp, stoppedAt }) => {
    return now - at >= config.windowMs / 5 && (isSuspended ? stoppedAt !== null : isUp)
  })
  const chosen: string[] = []
  while (chosen.length < count && stale.length > 0) {
    const [peer] = stale.splice(random.int(stale.length), 1)
    chosen.push(peer!.peerId)
  }
  return chosen
}
