/**
 * Keeping what is owned and letting go of the rest: leases of committed shards are renewed in batches long before they
 * end, and those that nothing needs any more are released. What a provider answers about a lease is evidence too.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { limits, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { CustodyObserver, Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import { peerOutcomeOf } from '../transfer/scatter.ts'

export interface LeaseComponents {
  index: MetadataIndex
  client: ProviderClient
  peers: Peers
  clock: Clock
  log: Log
  guard: LeaseGuard
  /** What a provider answers about a lease is evidence. */
  custody?: CustodyObserver
  /** Which of these blocks the provider has refused, signed: those are withdrawn in the index then. */
  confirmRefusals: (provider: string, cids: readonly CID[], signal?: AbortSignal) => Promise<ReadonlySet<string>>
}

const requestTimeoutMs = 20 * secondMs
/** Leases of one provider, refused without a signature, that are passed over in a round to get to those behind them. */
const passedOverMax = 10_000

/** Extends every lease with less than half of its term left, of the providers that are online. */
export async function renewLeases(
  components: LeaseComponents,
  signal?: AbortSignal
): Promise<{ renewed: number; lost: number }> {
  const { index, clock } = components
  let renewed = 0
  let lost = 0
  for (const { provider } of await index.listHolders()) {
    /** Said to be refused, and not shown: they stay due. */
    const unproven = new Set<string>()
    for (let more = true; more; ) {
      signal?.throwIfAborted()
      const limit = limits.leaseBatchMax + unproven.size
      const all = await index.listLeasesDue(provider, clock.now() + limits.committedLeaseMs / 2, limit)
      more = all.length === limit && unproven.size < passedOverMax
      const due = all.filter(({ cid }) => !unproven.has(cid.toString()))
      if (due.length === 0) break
      const cids = due.map(({ cid }) => cid)
      const states = await ask(components, provider, signal, (target, inner) =>
        components.client.renewLeases(target, cids, { termMs: limits.committedLeaseMs }, inner)
      )
      if (states === undefined) break // not now: the leases have half of their term to go
      const held = cids.filter((_, at) => states[at] === 'held')
      await index.renewed(provider, held, clock.now() + limits.committedLeaseMs)
      renewed += held.length
      const saidNo = cids.filter((_, at) => states[at] === 'refused')
      const refused = saidNo.length === 0 ? new Set() : await components.confirmRefusals(provider, saidNo, signal)
      for (const [at, cid] of cids.entries()) {
        const state = states[at]
        if (state === 'held') continue
        const isOwed = due[at]!.leaseUntil > clock.now()
        if (state === 'refused' && !refused.has(cid.toString()) && isOwed) {
          // Anybody can say no of what it has lost. It has promised to keep it until the lease ends.
          unproven.add(cid.toString())
          continue
        }
        lost++
        components.log.warn('provider does not keep a leased shard', { provider, cid, state })
        // A lease that had ended was owed no longer: the block is lost, and that is nobody's fault.
        if (state === 'missing' && isOwed) await components.custody?.(provider, cid, state)
        await index.markHolding(provider, cid, refused.has(cid.toString()) ? 'withdrawn' : 'missing')
        // Not due any more: it is lost there, whatever the lease said.
        await index.renewed(provider, [cid], clock.now() + limits.committedLeaseMs)
      }
    }
  }
  return { renewed, lost }
}

/** Ends the leases that nothing needs any more, at the providers that are online. */
export async function releaseLeases(components: LeaseComponents, signal?: AbortSignal): Promise<number> {
  let released = 0
  for (const provider of await components.index.listReleaseProviders()) {
    for (let count: number = limits.leaseBatchMax; count === limits.leaseBatchMax; ) {
      signal?.throwIfAborted()
      count = await releaseBatch(components, provider, signal)
      released += count
    }
  }
  return released
}

async function releaseBatch(components: LeaseComponents, provider: string, signal?: AbortSignal): Promise<number> {
  const { index, guard } = components
  const claim = guard.claim(provider, await index.listReleases(provider, limits.leaseBatchMax))
  try {
    if (claim.cids.length === 0) return 0
    const queued = new Set((await index.listReleases(provider, limits.leaseBatchMax)).map(String))
    const cids = claim.cids.filter((cid) => queued.has(cid.toString()))
    if (cids.length === 0) return 0
    const answered = await ask(components, provider, signal, (target, inner) =>
      components.client.releaseLeases(target, cids, inner).then(() => true)
    )
    if (answered === undefined) return 0 // later; and its leases end by themselves
    await index.released(provider, cids)
    return cids.length
  } finally {
    claim.done()
  }
}

/** A provider's answer, or `undefined` where it gives none now. */
async function ask<T>(
  { peers, clock, log }: LeaseComponents,
  provider: string,
  signal: AbortSignal | undefined,
  request: (target: NonNullable<ReturnType<Peers['target']>>, signal: AbortSignal) => Promise<T>
): Promise<T | undefined> {
  const target = peers.target(provider)
  if (target === undefined || peers.state(provider) === 'offline') return undefined
  try {
    return await withDeadline(clock, requestTimeoutMs, signal, (inner) => request(target, inner))
  } catch (error) {
    signal?.throwIfAborted()
    peers.report(provider, peerOutcomeOf(error))
    log.info('provider did not answer about leases', { provider, error: messageOf(error) })
    return undefined
  }
}
