/** A gateway's process: the parts that `node.ts` puts together, on a virtual clock and network. */

import { Semaphore } from '../base/concurrency.ts'
import { MiB, secondMs } from '../base/limits.ts'
import { ProviderDirectory } from '../discovery/directory.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import { ProviderSearch } from '../node/provider-search.ts'
import { type ArenaSizes, createArenas } from '../object/coding-memory.ts'
import type { SegmentCodec } from '../object/segment-codec.ts'
import type { SegmentRead } from '../object/segment-reader.ts'
import { createObjectStore, type NetworkObjectStore } from '../object/store.ts'
import { Auditor } from '../repair/auditor.ts'
import { HandOver } from '../repair/hand-over.ts'
import { withLastResort } from '../repair/last-resort.ts'
import { releaseLeases, renewLeases } from '../repair/leases.ts'
import { Maintenance, taskPauses } from '../repair/maintenance.ts'
import { ownedNodes } from '../repair/owned-nodes.ts'
import { Presence } from '../repair/presence.ts'
import { holdingProver } from '../repair/prove-holding.ts'
import { Refusals } from '../repair/refusals.ts'
import { Repairer } from '../repair/repairer.ts'
import { serveHandOver } from '../transfer/hand-over-protocol.ts'
import { LeaseGuard } from '../transfer/lease-guard.ts'
import { serveRefusals } from '../transfer/refusal-protocol.ts'
import type { BugName } from './bugs.ts'
import type { AuditWitness, SimulatedNetwork } from './network.ts'
import { forgetful, hasty, releasingFirst, trusting, unrelated } from './planted.ts'
import { auditPace, offlineGraceMs, repairPatienceMs } from './promises.ts'
import type { SeededRandom } from './seeded-random.ts'
import { drawSimulatedSeed, simulatedSigner, verifySimulated } from './signatures.ts'
import type { Trace } from './trace.ts'
import type { VirtualProcess } from './virtual-clock.ts'

/** The gateway's peer id: owner of every lease. */
export const gatewayPeerId = 'gateway'

export interface GatewayInit {
  code: Code | undefined
  /** Absent: as everywhere else. */
  shardBytesMax?: number
  /** What is wrong with it. */
  bug?: BugName | undefined
  isAuditing: boolean
  /** Default: as short as a seed's run. */
  settings?: GatewaySettings
}

/** What an operator can set, and what a run of minutes with shards of some bytes has in small. */
export interface GatewaySettings {
  offlineGraceMs: number
  repairPatienceMs: number
  auditPace: number
  /** Bytes of segments being written, being read, and being rebuilt. */
  memory: ArenaSizes & { repairBytes: number }
}

export interface GatewayComponents {
  process: VirtualProcess
  network: SimulatedNetwork
  witness?: AuditWitness
  /** Hears of each segment that was read for a client. */
  onRead?: (read: SegmentRead) => void
  index: MetadataIndex
  codec: SegmentCodec
  masterKey: Uint8Array
  random: SeededRandom
  trace: Trace
}

export interface Gateway {
  process: VirtualProcess
  store: NetworkObjectStore
  directory: ProviderDirectory
  auditor: Auditor
  repairer: Repairer
}

const saveProvidersMs = 30 * secondMs
const memoryBytes = 4 * MiB
const seedSettings: GatewaySettings = {
  offlineGraceMs,
  repairPatienceMs,
  auditPace,
  memory: { writeBytes: memoryBytes, readBytes: memoryBytes, repairBytes: memoryBytes }
}

/** Resolves once the gateway serves; its loops run until the process dies. */
export async function startGateway(components: GatewayComponents, init: GatewayInit): Promise<Gateway> {
  const { process, network, witness, onRead, index, codec, masterKey, random, trace } = components
  const { bug, settings = seedSettings } = init
  /** As those have it who choose where blocks go. */
  const choosing = bug === 'forgets-refusals' ? forgetful(index) : index
  const { clock } = process
  const log = trace.log('gateway')
  const { client, auditClient, discovery } = network.connect(process, gatewayPeerId, witness)
  const directory = new ProviderDirectory({
    discovery,
    getOffer: (provider, signal) => client.getOffer(provider, signal),
    clock,
    random: random.fork('directory'),
    log,
    trustOf: (peerId) => auditor.trustOf(peerId)
  })
  const signing = { signer: simulatedSigner(gatewayPeerId), verifySignature: verifySimulated, pause: async () => {} }
  const auditor: Auditor = new Auditor(
    {
      ...signing,
      index,
      client: bug === 'timeout-is-loss' ? hasty(auditClient) : auditClient,
      peers: directory,
      secretKey: masterKey,
      clock,
      random: random.fork('audits'),
      log,
      drawSeed: drawSimulatedSeed,
      confirmRefusals: (provider, cids) => refusals.confirm(provider, cids),
      onLost: () => maintenance.wake('complete')
    },
    { pace: settings.auditPace }
  )
  await auditor.load()
  const refusals: Refusals = new Refusals({
    index,
    client,
    peers: directory,
    verifySignature: verifySimulated,
    custody: async (provider, cid, outcome) => {
      if (outcome !== 'full') await auditor.observed(provider, cid, outcome)
    },
    onLost: () => maintenance.wake('complete'),
    clock,
    log
  })
  const custody = refusals.observer
  const remembered = await index.listProviders()
  directory.remember(remembered)
  const search = new ProviderSearch({ directory, clock, log }, { expected: remembered.length })
  const guard = new LeaseGuard()
  const store = createObjectStore(
    {
      index: choosing,
      client,
      peers: directory,
      codec,
      arenas: createArenas(settings.memory),
      guard,
      masterKey,
      custody,
      onRefused: refusals.onRefused,
      ...(onRead === undefined ? {} : { onRead }),
      isContained: (provider, cid) => auditor.isContained(provider, cid),
      clock,
      random: random.fork('store'),
      log,
      networkKnown: (signal) => search.whenKnown(signal)
    },
    {
      fixedCode: init.code,
      shardBytesMax: init.shardBytesMax,
      quorumSlack: bug === 'acknowledges-early' ? 1 : 0
    }
  )
  const presence = new Presence(
    {
      index,
      stateOf: (peerId) => directory.state(peerId),
      clock,
      log,
      isOwnOutage: () => auditor.isOwnOutage,
      onGone: () => maintenance.wake('complete')
    },
    { graceMs: settings.offlineGraceMs }
  )
  await presence.load()
  const takers = withLastResort(directory)
  const moving = bug === 'releases-first' ? releasingFirst(choosing, client, directory) : choosing
  const prove = holdingProver({ ...signing, client, clock, secretKey: masterKey, drawSeed: drawSimulatedSeed })
  const repairer = new Repairer({
    index: moving,
    client,
    peers: bug === 'same-domain' ? unrelated(takers) : takers,
    peerId: gatewayPeerId,
    presence,
    codec,
    guard,
    clock,
    random: random.fork('repair'),
    log,
    custody,
    onRefused: refusals.onRefused,
    memory: new Semaphore(settings.memory.repairBytes),
    isSettling: (segment) => store.isSettling(segment),
    patienceMs: settings.repairPatienceMs,
    pause: signing.pause,
    isShardContained: (provider, cid) => auditor.isContained(provider, cid),
    draining: () => directory.list().flatMap(({ peerId, draining }) => (draining ? [peerId] : [])),
    verify: prove
  })
  await repairer.load()
  const handOver = new HandOver({
    ...{ index: moving, client, peers: takers, guard, clock, verifySignature: verifySimulated },
    ...{ signer: signing.signer, prove },
    random: random.fork('hand-over'),
    log,
    isSettling: (segment) => store.isSettling(segment),
    onDraining: (peerId) => directory.saidToDrain(peerId),
    onReleases: () => maintenance.wake('releases')
  })
  const leases = { index, client, peers: directory, clock, log, guard, custody, confirmRefusals: refusals.confirm }
  const maintenance = new Maintenance({ clock, random: random.fork('maintenance'), log }, [
    { name: 'complete', everyMs: taskPauses.completeMs, run: (signal) => repairer.round(signal) },
    { name: 'presence', everyMs: presence.tickMs, run: () => presence.tick() },
    { name: 'leases', everyMs: taskPauses.leasesMs, run: (signal) => renewLeases(leases, signal) },
    { name: 'releases', everyMs: taskPauses.releasesMs, run: (signal) => releaseLeases(leases, signal) },
    { name: 'proofs', everyMs: taskPauses.proofsMs, run: () => store.flushProofs() },
    { name: 'accounts', everyMs: taskPauses.accountsMs, run: () => index.accrue(clock.now()) },
    { name: 'providers', everyMs: saveProvidersMs, run: () => saveProviders(index, directory) },
    ...(init.isAuditing
      ? [{ name: 'audits', everyMs: auditor.tickMs, run: (signal: AbortSignal) => auditor.round(signal) }]
      : [])
  ])
  const saved = new Set(remembered.map(({ peerId }) => peerId))
  directory.onChange((peerId, state) => {
    if (state === 'online' || state === 'offline') auditor.presence(peerId, state === 'online')
    presence.changed(peerId, state)
    if (state !== 'online') return
    repairer.changed()
    // Who is new is written down before much is stored there: after a restart its failure domain must be known.
    if (!saved.has(peerId)) maintenance.wake('providers')
    saved.add(peerId)
    maintenance.wake('complete')
    maintenance.wake('releases')
  })
  const host = network.host(gatewayPeerId, process)
  const answer: HandOver['answer'] =
    bug === 'trusts-hand-over' ? trusting(handOver, index, clock.now) : (...args) => handOver.answer(...args)
  await serveHandOver(host, answer)
  await serveRefusals(host, {
    tell: (from, told) => refusals.told(from, told),
    node: ownedNodes({ index, client, peers: directory, clock, log })
  })
  // Never aborted: this gateway ends as `kill -9` ends it.
  const { signal } = new AbortController()
  void search.run(signal)
  void maintenance.run(signal)
  return { process, store, directory, auditor, repairer }
}

async function saveProviders(index: MetadataIndex, directory: ProviderDirectory): Promise<void> {
  const seen = directory.list().filter(({ lastSeenAt }) => lastSeenAt > 0)
  if (seen.length === 0) return
  await index.saveProviders(
    seen.map(({ peerId, dataUrls, addresses, domain, lastSeenAt }) => ({
      peerId,
      dataUrls: [...dataUrls],
      addresses: [...addresses],
      domain,
      lastSeenAt
    }))
  )
}
