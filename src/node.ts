/**
 * The gateway, put together: builds its parts, starts them in the order in which they need each other, and stops them
 * in reverse.
 */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { createMetrics, type Metrics } from './admin/metrics.ts'
import { startAdminServer } from './admin/server.ts'
import type { Clock } from './base/clock.ts'
import { HoldfastError, messageOf } from './base/errors.ts'
import { MiB, secondMs } from './base/limits.ts'
import type { Log } from './base/log.ts'
import type { Random } from './base/random.ts'
import { blake3Implementation } from './content/blake3.ts'
import type { Signed } from './custody/audit-messages.ts'
import type { CustodyOutcome } from './custody/outcome.ts'
import { ProviderDirectory } from './discovery/directory.ts'
import { KadDiscovery } from './discovery/kad-dht.ts'
import { erasureImplementation } from './erasure/coder.ts'
import type { Code } from './erasure/erasure-coder.ts'
import { createS3Server, type S3Server } from './gateway/server.ts'
import type { MetadataIndex, TranscriptRow } from './metadata/index-store.ts'
import { openSqliteIndex } from './metadata/sqlite.ts'
import { loadIdentity, verifySignature } from './net/identity.ts'
import { startLibp2pNetwork } from './net/libp2p.ts'
import { makePeerCertificate } from './net/peer-tls.ts'
import { AccessKeys } from './node/access-keys.ts'
import { createAdminBackend } from './node/admin-backend.ts'
import { ClientPressure } from './node/client-pressure.ts'
import { loadMasterKey } from './node/master-key.ts'
import { ProviderSearch } from './node/provider-search.ts'
import { createRepair } from './node/repair.ts'
import { SelfHost, type SelfHostComponents } from './node/self-host.ts'
import { createCodingMemory } from './object/coding-memory.ts'
import { createObjectStore, type NetworkObjectStore } from './object/store.ts'
import { createWorkerCodec } from './object/worker-codec.ts'
import { type AuditEvent, Auditor } from './repair/auditor.ts'
import { releaseLeases, renewLeases } from './repair/leases.ts'
import { Maintenance, type Task, taskPauses } from './repair/maintenance.ts'
import { ownedNodes } from './repair/owned-nodes.ts'
import { Refusals } from './repair/refusals.ts'
import { serveHandOver } from './transfer/hand-over-protocol.ts'
import { HttpsProviderClient } from './transfer/https.ts'
import { LeaseGuard } from './transfer/lease-guard.ts'
import { controlProtocols } from './transfer/lease-protocol.ts'
import type { Peers } from './transfer/peers.ts'
import { serveRefusals } from './transfer/refusal-protocol.ts'
import { type KnownScore, serveScores } from './transfer/score-protocol.ts'

export interface HostPort {
  host: string
  /** 0 lets the system choose. */
  port: number
}

export interface GatewayInit {
  /** Holds the identity, the master key and the index; one process at a time. */
  dataDir: string
  /** The S3 endpoint. */
  s3: HostPort
  /** The admin API and the dashboard: not for strangers. */
  admin: HostPort
  /** The control plane, by which other nodes reach this one. */
  listen: HostPort
  /** Multiaddrs, with peer ids, of nodes to join through. */
  bootstrap: readonly string[]
  /** The code of STANDARD objects; absent: what the network bears. */
  code?: Code
  /** Audits are put so many times as often as usual; see `auditTimes`. */
  auditPace?: number
  /** How long a provider may be absent before its shards count as gone; longer where it has been away for longer. */
  offlineGraceMs?: number
  /** How long a lost provider's shards may wait for more of their segments to be lost, above the threshold. */
  repairPatienceMs?: number
  /** What repair may read and write, together. */
  repairBytesPerSecond?: number
  /** Bytes of shards that the gateway may hold itself where no provider takes them; absent: none. */
  selfHostBytes?: number
  /** With so many providers online nobody else is waited for at the start; absent: as many as were known before. */
  expectedProviders?: number
}

export interface GatewayComponents {
  clock: Clock
  random: Random
  log: Log
}

export interface RunningGateway {
  readonly peerId: string
  /** Origin of the S3 endpoint: `http://127.0.0.1:9000`. */
  readonly endpoint: string
  /** Origin of the admin API. */
  readonly admin: string
  /** The oldest access key. */
  readonly accessKey: { accessKeyId: string; secretAccessKey: string }
  /** Control-plane multiaddrs, with the peer id. */
  addresses: () => string[]
  /** Ends it: requests under way get a moment, then everything is closed. Safe to call twice. */
  stop: () => Promise<void>
}

/** A search that knows of fewer peers would end before it has found all providers. */
const lookupPeersMax = 1000
/** With twelve providers: three segments being written, three being read. */
const memorySizes = { writeBytes: 40 * MiB, readBytes: 18 * MiB }
/** How long the end waits for what goes on after answers were given. */
const settleMsMax = 3 * secondMs
/** How long the end waits for requests under way. */
const requestGraceMs = 4 * secondMs
/** Transcripts that a provider is given as evidence, newest first, before the answer's own bounds. */
const evidenceMax = 32
const saveProvidersMs = 30 * secondMs
const providersSavedMax = 20_000

/** @throws HoldfastError `BAD_CONFIG` for a directory, key or address that cannot be used */
export async function startGateway(init: GatewayInit, components: GatewayComponents): Promise<RunningGateway> {
  const closers: Array<() => Promise<void>> = []
  let stopped: Promise<void> | undefined
  const stop = (): Promise<void> => {
    stopped ??= (async () => {
      for (const close of closers.reverse()) {
        // One part that fails to close must not keep the others open.
        await close().catch((error: unknown) =>
          components.log.warn('a part of the gateway did not stop well', { error: messageOf(error) })
        )
      }
    })()
    return stopped
  }
  try {
    return await start(init, components, (close) => closers.push(close), stop)
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(
  init: GatewayInit,
  { clock, random, log }: GatewayComponents,
  onStop: (close: () => Promise<void>) => void,
  stop: () => Promise<void>
): Promise<RunningGateway> {
  const { dataDir, code } = init
  const inDir = (name: string): string => path.join(dataDir, name)
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  const index = await openSqliteIndex(inDir('index.sqlite'), { log: log.child('index') })
  onStop(() => index.close())
  const masterKey = await loadMasterKey(inDir('master.key'), random)
  const keys = new AccessKeys({ index, masterKey, clock, random })
  const accessKey = await keys.first()

  const identity = await loadIdentity(inDir('identity.key'))
  const network = await startLibp2pNetwork(
    { identity, listen: [multiaddrOf(init.listen)], bootstrap: init.bootstrap, lookupPeersMax },
    { clock, random, log }
  )
  onStop(() => network.stop())
  const discovery = new KadDiscovery({ network, clock, random, log })
  onStop(() => discovery.stop())
  const certificate = await makePeerCertificate(identity, { now: clock.now() })
  const remote = new HttpsProviderClient({ network, certificate, verifySignature, clock })
  onStop(() => remote.close())
  const selfHost = await openSelfHost(init, inDir('self-host'), {
    signer: identity,
    verifySignature,
    clock,
    random,
    log
  })
  if (selfHost !== undefined) onStop(() => selfHost.close())
  const client = selfHost?.reachedBy(remote) ?? remote

  const directory = new ProviderDirectory({
    discovery,
    getOffer: (provider, signal) => remote.getOffer(provider, signal),
    clock,
    random,
    log: log.child('directory'),
    trustOf: (peerId) => auditor.trustOf(peerId)
  })
  const peers: Peers = selfHost?.knownTo(directory) ?? directory
  const signing = {
    signer: identity,
    secretKey: identity.privateKey.raw.subarray(0, 32),
    verifySignature,
    pause: nextTurn
  }
  const auditor: Auditor = new Auditor(
    {
      ...signing,
      index,
      client,
      peers,
      clock,
      random: random.fork('audits'),
      log: log.child('audits'),
      confirmRefusals: (provider, cids) => refusals.confirm(provider, cids),
      onLost: () => maintenance.wake('complete'),
      onAudit: (event) => metrics.observeAudit(metricOf(event))
    },
    { pace: init.auditPace }
  )
  await auditor.load()
  const refusals: Refusals = new Refusals({
    index,
    client,
    peers: directory,
    verifySignature,
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
  const search = new ProviderSearch(
    { directory, clock, log },
    { expected: init.expectedProviders ?? remembered.length }
  )

  const threads = Math.max(1, Math.min(4, availableParallelism() - 1))
  const codingMemory = createCodingMemory(memorySizes, threads)
  const codec = createWorkerCodec(codingMemory)
  onStop(() => codec.close())
  const guard = new LeaseGuard()
  const store = createObjectStore(
    {
      index,
      client,
      peers,
      codec,
      arenas: codingMemory,
      guard,
      masterKey,
      custody,
      onRefused: refusals.onRefused,
      onRead: (read) => metrics.observeSegmentRead(read),
      isContained: (provider, cid) => auditor.isContained(provider, cid),
      outlook: (segment) => repairer.outlook(segment),
      clock,
      random,
      log,
      networkKnown: (signal) => search.whenKnown(signal)
    },
    { fixedCode: code }
  )
  onStop(() => settle(store, clock, log))

  const pressure = new ClientPressure(clock)
  onStop(async () => pressure.stop())
  const { presence, repairer, byAnybody, reports, handOver } = await createRepair(
    {
      ...{ index, client, codec, guard, clock, random, log, network, discovery, directory, peers, selfHost, search },
      ...{ store, auditor, refusals, signing },
      pressure: () => pressure.pressure(),
      onRepair: (event) => metrics.observeRepair(event),
      wake: (task) => maintenance.wake(task)
    },
    {
      offlineGraceMs: init.offlineGraceMs,
      patienceMs: init.repairPatienceMs,
      bytesPerSecond: init.repairBytesPerSecond
    }
  )
  const leases = {
    index,
    client,
    peers,
    clock,
    log: log.child('leases'),
    guard,
    custody,
    confirmRefusals: refusals.confirm
  }
  const tasks: Task[] = [
    { name: 'complete', everyMs: taskPauses.completeMs, run: (signal) => repairer.round(signal) },
    { name: 'presence', everyMs: presence.tickMs, run: () => presence.tick() },
    { name: 'leases', everyMs: taskPauses.leasesMs, run: (signal) => renewLeases(leases, signal) },
    { name: 'releases', everyMs: taskPauses.releasesMs, run: (signal) => releaseLeases(leases, signal) },
    { name: 'proofs', everyMs: taskPauses.proofsMs, run: () => store.flushProofs() },
    { name: 'audits', everyMs: auditor.tickMs, run: (signal) => auditor.round(signal) },
    { name: 'accounts', everyMs: taskPauses.accountsMs, run: () => index.accrue(clock.now()) },
    { name: 'providers', everyMs: saveProvidersMs, run: () => saveProviders(index, directory) }
  ]
  await serveHandOver(network, (from, request) => handOver.answer(from, request))
  await serveScores(network, (peerId) => knownOf(auditor, peerId), { clock })
  await serveRefusals(network, {
    tell: (from, told) => refusals.told(from, told),
    node: ownedNodes({ index, client, peers, clock, log })
  })
  network.join()
  const maintenance = new Maintenance({ clock, random, log: log.child('maintenance') }, tasks)
  const saved = new Set(remembered.map(({ peerId }) => peerId))
  directory.onChange((peerId, state) => {
    if (state === 'online' || state === 'offline') auditor.presence(peerId, state === 'online')
    presence.changed(peerId, state)
    if (state !== 'online') return
    repairer.changed()
    // Who is new is written down before much is stored there: after a restart its failure domain must be known.
    if (!saved.has(peerId)) maintenance.wake('providers')
    saved.add(peerId)
    // Somebody is back, or new: room for what waits, and a chance to let go.
    maintenance.wake('complete')
    maintenance.wake('releases')
  })

  const loops = new AbortController()
  network.onPeer((peer, protocols) => {
    if (directory.has(peer.peerId) || protocols.includes(controlProtocols.offer))
      void directory.meet(peer, loops.signal)
  })
  const running = [search.run(loops.signal), maintenance.run(loops.signal)]
  onStop(async () => {
    loops.abort(new Error('the gateway stops'))
    await Promise.all(running)
    await auditor.save(true)
    await presence.tick()
    await saveProviders(index, directory)
  })

  let endpoint = ''
  const backend = createAdminBackend(
    { index, directory, search, store, keys, auditor, repairer, selfHost, byAnybody, reports, clock },
    {
      peerId: identity.peerId,
      endpoint: () => endpoint,
      addresses: () => network.addresses(),
      fixedCode: code,
      kernels: { erasure: erasureImplementation, blake3: blake3Implementation }
    }
  )
  const metrics = createMetrics(backend)
  const s3 = createS3Server({
    store,
    credentials: keys,
    clock,
    random,
    log: log.child('s3'),
    onRequest: (event) => {
      pressure.served()
      metrics.observeRequest(event)
    }
  })
  onStop(() => s3.close(requestGraceMs))
  endpoint = await listen(s3, init.s3)
  const admin = await startAdminServer({ ...init.admin, backend, metrics, log: log.child('admin') })
  onStop(() => admin.close())

  log.info('the gateway is up', { peerId: identity.peerId, endpoint, admin: admin.origin })
  const { accessKeyId, secretAccessKey } = accessKey
  return {
    peerId: identity.peerId,
    endpoint,
    admin: admin.origin,
    accessKey: { accessKeyId, secretAccessKey },
    addresses: () => network.addresses(),
    stop
  }
}

/** Lets others have the event loop. */
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** What a provider is told of itself, when it asks. */
async function knownOf(auditor: Auditor, peerId: string): Promise<KnownScore> {
  const known = auditor.reportOf(peerId)
  if (known === undefined) return { score: null, events: [], evidence: [] }
  const evidence = await auditor.evidenceOf(peerId, evidenceMax)
  return { score: known.report, events: known.events.toReversed(), evidence: evidence.toReversed().map(signedOf) }
}

/** Also where it holds nothing more: what it once took stays readable without the option. */
async function openSelfHost(
  { selfHostBytes }: GatewayInit,
  dataDir: string,
  components: SelfHostComponents
): Promise<SelfHost | undefined> {
  if (selfHostBytes === undefined && !existsSync(dataDir)) return undefined
  return await SelfHost.open({ dataDir, capacityBytes: selfHostBytes ?? 0 }, components)
}

const signedOf = ({ bytes, signature }: TranscriptRow): Signed => ({ bytes, signature })

function metricOf({ outcomes, elapsedMs }: AuditEvent): Parameters<Metrics['observeAudit']>[0] {
  const counts: Partial<Record<CustodyOutcome, number>> = {}
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1
  // One stream answers them all: its time is that of the whole answer.
  return { outcomes: counts, latenciesMs: counts.ok === undefined ? [] : [elapsedMs] }
}

/** @returns the origin. @throws HoldfastError `BAD_CONFIG` */
async function listen(server: S3Server, { host, port }: HostPort): Promise<string> {
  try {
    const bound = await server.listen(host, port)
    return `http://${isIP(host) === 6 ? `[${host}]` : host}:${bound.port}`
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `cannot serve S3 on ${host}:${port}: ${messageOf(cause)}`, { cause })
  }
}

function multiaddrOf({ host, port }: HostPort): string {
  const kind = isIP(host) === 4 ? 'ip4' : isIP(host) === 6 ? 'ip6' : 'dns'
  return `/${kind}/${host}/tcp/${port}`
}

/** Shards still on their way are worth a moment; what does not arrive in it is placed after the next start. */
async function settle(store: NetworkObjectStore, clock: Clock, log: Log): Promise<void> {
  const waiting = new AbortController()
  const late = clock.sleep(settleMsMax, waiting.signal).catch(() => {}) // cancelled: it settled in time
  await Promise.race([store.idle(), late])
  waiting.abort()
  try {
    await store.flushProofs()
  } catch (error) {
    log.warn('proofs of custody were not written down', { error: messageOf(error) })
  }
}

/** So that the next start knows where to ask before the DHT has answered. */
async function saveProviders(index: MetadataIndex, directory: ProviderDirectory): Promise<void> {
  const seen = directory.list().filter(({ lastSeenAt }) => lastSeenAt > 0)
  if (seen.length === 0) return
  await index.saveProviders(
    seen.slice(0, providersSavedMax).map(({ peerId, dataUrls, addresses, domain, lastSeenAt }) => ({
      peerId,
      dataUrls: [...dataUrls],
      addresses: [...addresses],
      domain,
      lastSeenAt
    }))
  )
}
