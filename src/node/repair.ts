/** What keeps a gateway's segments whole, put together: by itself, with those that leave, for others and by others. */
import type { Clock } from '../base/clock.ts'
import { Semaphore } from '../base/concurrency.ts'
import { MiB, minuteMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { ProviderDirectory } from '../discovery/directory.ts'
import type { Discovery } from '../discovery/discovery.ts'
import type { Signer, VerifySignature } from '../market/offer.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { Network } from '../net/network.ts'
import type { SegmentCodec } from '../object/segment-codec.ts'
import type { NetworkObjectStore } from '../object/store.ts'
import { ReportTaker } from '../repair/accept-report.ts'
import type { Auditor } from '../repair/auditor.ts'
import { ByAnybody } from '../repair/by-anybody.ts'
import { HandOver } from '../repair/hand-over.ts'
import { withLastResort } from '../repair/last-resort.ts'
import { Presence } from '../repair/presence.ts'
import { holdingProver } from '../repair/prove-holding.ts'
import type { Refusals } from '../repair/refusals.ts'
import { type RepairEvent, Repairer } from '../repair/repairer.ts'
import { holdingsBy } from '../transfer/holdings.ts'
import type { LeaseGuard } from '../transfer/lease-guard.ts'
import type { Peers } from '../transfer/peers.ts'
import type { ProviderClient } from '../transfer/provider-client.ts'
import type { ProviderSearch } from './provider-search.ts'
import type { SelfHost } from './self-host.ts'

export interface RepairPartsComponents {
  index: MetadataIndex
  client: ProviderClient
  codec: SegmentCodec
  guard: LeaseGuard
  clock: Clock
  random: Random
  log: Log
  network: Pick<Network, 'request'>
  discovery: Discovery
  directory: ProviderDirectory
  /** The directory's, and the gateway itself where it holds shards. */
  peers: Peers
  selfHost: SelfHost | undefined
  search: ProviderSearch
  store: NetworkObjectStore
  auditor: Auditor
  refusals: Refusals
  signing: {
    signer: Signer
    /** The Ed25519 seed of the signer's key. */
    secretKey: Uint8Array
    verifySignature: VerifySignature
    pause: () => Promise<void>
  }
  /** How slowly clients are served, from 0 to 1. */
  pressure: () => number
  onRepair: (event: RepairEvent) => void
  /** Ends the pause of a background task. */
  wake: (task: 'complete' | 'releases') => void
}

export interface RepairPartsInit {
  offlineGraceMs?: number | undefined
  bytesPerSecond?: number | undefined
  /** How long a shard that is gone may wait for others of its segment, while the margin is above the threshold. */
  patienceMs?: number | undefined
}

export interface RepairParts {
  presence: Presence
  repairer: Repairer
  byAnybody: ByAnybody
  reports: ReportTaker
  handOver: HandOver
}

/** Bytes that rebuilding shards may hold beside what requests do. */
const memoryBytes = 32 * MiB
/**
 * Who is away for longer may be replaced by what others have rebuilt, in a segment that has lost so much that it is to be
 * repaired: that costs no traffic, so there is no reason to wait as long as before rebuilding it ourselves. Not by whoever
 * was just missed once; and not while all is well, or strangers could take over the seats of all who blink.
 */
const replacedAfterMs = minuteMs

/** Nothing of it runs yet; what an earlier run knew of providers' absences is loaded. */
export async function createRepair(components: RepairPartsComponents, init: RepairPartsInit): Promise<RepairParts> {
  const { index, client, codec, guard, clock, random, network, discovery, directory, peers, selfHost } = components
  const { store, auditor, refusals, signing, search } = components
  const log = components.log.child('repair')
  const { peerId } = signing.signer
  const takers = withLastResort(directory)
  const memory = new Semaphore(memoryBytes)
  const prove = holdingProver({ ...signing, client, clock })
  const isSettling = store.isSettling.bind(store)

  const presence = new Presence(
    {
      index,
      stateOf: (provider) => peers.state(provider),
      clock,
      log: log.child('presence'),
      isOwnOutage: () => auditor.isOwnOutage,
      onGone: () => components.wake('complete')
    },
    { graceMs: init.offlineGraceMs }
  )
  await presence.load()
  const repairer = new Repairer(
    {
      ...{ index, client, codec, guard, clock, random, log, memory, isSettling, presence, peerId },
      pause: signing.pause,
      peers: selfHost?.knownTo(takers) ?? takers,
      custody: refusals.observer,
      onRefused: refusals.onRefused,
      refusersOf: async (cids) => new Set(await refusals.refusersOf(cids)),
      isShardContained: (provider, cid) => auditor.isContained(provider, cid),
      draining: () => directory.list().flatMap((one) => (one.draining ? [one.peerId] : [])),
      verify: prove,
      selfHost: selfHost?.forRepair(guard, () => search.isKnown),
      isSelfHosting: selfHost !== undefined,
      patienceMs: init.patienceMs,
      pressure: components.pressure,
      onRepair: components.onRepair
    },
    { bytesPerSecond: init.bytesPerSecond }
  )
  await repairer.load()
  const withOthers = {
    ...{ index, client, guard, clock, log, prove },
    introduce: directory.introduce.bind(directory),
    networkKnown: (signal?: AbortSignal) => search.whenKnown(signal)
  }
  const byAnybody = new ByAnybody({
    ...withOthers,
    ...{ discovery, codec, memory, random },
    askHoldings: holdingsBy(network),
    known: () => directory.list().flatMap((one) => (one.state === 'online' ? [one.peerId] : [])),
    peers: takers,
    signer: signing.signer,
    spend: (bytes, signal) => repairer.spend(bytes, signal)
  })
  const reports = new ReportTaker({
    ...withOthers,
    ...{ peers, isSettling },
    isGone: (provider, segment) =>
      presence.isGone(provider) || (directory.absentMs(provider) >= replacedAfterMs && repairer.isLow(segment)),
    verifySignature: signing.verifySignature,
    claimant: `report:${peerId}`,
    pause: signing.pause
  })
  const handOver = new HandOver({
    ...{
      signer: signing.signer,
      verifySignature: signing.verifySignature,
      prove,
      index,
      client,
      guard,
      clock,
      isSettling
    },
    peers: takers,
    random: random.fork('hand-over'),
    log: components.log.child('hand-over'),
    onDraining: (provider) => directory.saidToDrain(provider),
    onReleases: () => components.wake('releases')
  })
  return { presence, repairer, byAnybody, reports, handOver }
}
