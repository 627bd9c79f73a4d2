/** A gateway's process: the parts that `node.ts` puts together, on a virtual clock and network. */

import { Semaphore } from '../base/concurrency.ts'
import { MiB, secondMs } from '../base/limits.ts'
import { ProviderDirectory } from '../discovery/directory.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import { ProviderSearch } from '../node/provider-search.ts'
import { createArenas } from '../object/coding-memory.ts'
import type { SegmentCodec } from '../object/segment-codec.ts'
import { createObjectStore, type NetworkObjectStore } from '../object/store.ts'
import { Auditor } from '../repair/auditor.ts'
import { Completer } from '../repair/completer.ts'
import { withLastResort } from '../repair/last-resort.ts'
import { releaseLeases, renewLeases } from '../repair/leases.ts'
import { Maintenance, taskPauses } from '../repair/maintenance.ts'
import { LeaseGuard } from '../transfer/lease-guard.ts'
import type { CustodyObserver } from '../transfer/peers.ts'
import type { SimulatedNetwork } from './network.ts'
import type { SeededRandom } from './seeded-random.ts'
import { drawSimulatedSeed, simulatedSigner, verifySimulated } from './signatures.ts'
import type { Trace } from './trace.ts'
import type { VirtualProcess } from './virtual-clock.ts'

/** The gateway's peer id: owner of every lease. */
export const gatewayPeerId = 'gateway'

export interface GatewayInit {
  code: Code | undefined
  shardBytesMax: number
  /** The planted bug: acknowledge so many shards too early. */
  quorumSlack: number
}

export interface GatewayComponents {
  process: VirtualProcess
  network: SimulatedNetwork
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
}

const saveProvidersMs = 30 * secondMs
/** A run lasts minutes, in which there should be days of audits. */
const auditPace = 240
const memoryBytes = 4 * MiB

/** Resolves once the gateway serves; its loops run until the process dies. */
export async function startGateway(components: GatewayComponents, init: GatewayInit): Promise<Gateway> {
  const { process, network, index, codec, masterKey, random, trace } = components
  const { clock } = process
  const log = trace.log('gateway')
  const { client, discovery } = network.connect(process, gatewayPeerId)
  const directory = new ProviderDirectory({
    discovery,
    getOffer: (provider, signal) => client.getOffer(provider, signal),
    clock,
    random: random.fork('directory'),
    log,
    trustOf: (peerId) => auditor.trustOf(peerId)
  })
  const auditor: Auditor = new Auditor(
    {
      index,
      client,
      peers: directory,
      signer: simulatedSigner(gatewayPeerId),
      secretKey: masterKey,
      verifySignature: verifySimulated,
      clock,
      random: random.fork('audits'),
      log,
      pause: async () => {},
      drawSeed: drawSimulatedSeed,
      onLost: () => maintenance.wake('complete')
    },
    { pace: auditPace }
  )
  await auditor.load()
  const custody: CustodyObserver = async (provider, cid, outcome) => {
    if (outcome !== 'full') await auditor.observed(provider, cid, outcome)
  }
  const remembered = await index.listProviders()
  directory.remember(remembered)
  const search = new ProviderSearch({ directory, clock, log }, { expected: remembered.length })
  const guard = new LeaseGuard()
  const store = createObjectStore(
    {
      index,
      client,
      peers: directory,
      codec,
      arenas: createArenas({ writeBytes: memoryBytes, readBytes: memoryBytes }),
      guard,
      masterKey,
      custody,
      isContained: (provider, cid) => auditor.isContained(provider, cid),
      clock,
      random: random.fork('store'),
      log,
      networkKnown: (signal) => search.whenKnown(signal)
    },
    {
      fixedCode: init.code,
      shardBytesMax: init.shardBytesMax,
      quorumSlack: init.quorumSlack
    }
  )
  const completer = new Completer({
    index,
    client,
    peers: withLastResort(directory),
    codec,
    guard,
    clock,
    random: random.fork('repair'),
    log,
    custody,
    memory: new Semaphore(memoryBytes),
    isSettling: (segment) => store.isSettling(segment)
  })
  const leases = { index, client, peers: directory, clock, log, guard, custody }
  const maintenance = new Maintenance({ clock, random: random.fork('maintenance'), log }, [
    { name: 'complete', everyMs: taskPauses.completeMs, run: (signal) => completer.round(signal) },
    { name: 'leases', everyMs: taskPauses.leasesMs, run: (signal) => renewLeases(leases, signal) },
    { name: 'releases', everyMs: taskPauses.releasesMs, run: (signal) => releaseLeases(leases, signal) },
    { name: 'proofs', everyMs: taskPauses.proofsMs, run: () => store.flushProofs() },
    { name: 'audits', everyMs: auditor.tickMs, run: (signal) => auditor.round(signal) },
    { name: 'providers', everyMs: saveProvidersMs, run: () => saveProviders(index, directory) }
  ])
  const saved = new Set(remembered.map(({ peerId }) => peerId))
  directory.onChange((peerId, state) => {
    if (state === 'online' || state === 'offline') auditor.presence(peerId, state === 'online')
    if (state !== 'online') return
    // Who is new is written down before much is stored there: after a restart its failure domain must be known.
    if (!saved.has(peerId)) maintenance.wake('providers')
    saved.add(peerId)
    maintenance.wake('complete')
    maintenance.wake('releases')
  })
  // Never aborted: this gateway ends as `kill -9` ends it.
  const { signal } = new AbortController()
  void search.run(signal)
  void maintenance.run(signal)
  return { process, store, directory }
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
