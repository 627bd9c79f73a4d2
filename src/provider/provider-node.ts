/** One storage provider as a process runs it: identity, store, leases, control plane, data plane, DHT, bitswap. */
import { mkdir, readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { writeFileDurably } from '../base/durable-file.ts'
import { HoldfastError, isCode, messageOf } from '../base/errors.ts'
import { minuteMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { version } from '../base/version.ts'
import type { CID } from '../content/cid.ts'
import { KadDiscovery } from '../discovery/kad-dht.ts'
import { type Identity, loadIdentity, verifySignature } from '../net/identity.ts'
import { type Libp2pNetwork, type PeerMemory, startLibp2pNetwork } from '../net/libp2p.ts'
import { makePeerCertificate } from '../net/peer-tls.ts'
import { HttpsProviderClient } from '../transfer/https.ts'
import { serveRefusals } from '../transfer/refusal-protocol.ts'
import { serveBitswap } from './bitswap.ts'
import { ReadOnlyBlockstore } from './blockstore.ts'
import { serveControlPlane } from './control-plane.ts'
import { DataServer } from './data-server.ts'
import { DenylistWatcher } from './denylist-watch.ts'
import { Drain, drainRoutes } from './drain.ts'
import { findBlock } from './find-block.ts'
import { FsShardStore } from './fs-shard-store.ts'
import { HandOver } from './hand-over.ts'
import { type LocalRoutes, serveLocally } from './local-server.ts'
import { Notices } from './notices.ts'
import { OwnScores } from './own-scores.ts'
import { ProofService } from './proof-service.ts'
import { RefusalStore } from './refusal-store.ts'
import { refuseRoutes } from './refuse-routes.ts'
import { RefusedHandOver } from './refused-hand-over.ts'
import { Refuser } from './refuser.ts'
import { RootList } from './root-list.ts'
import { gatewaysMax } from './scores-file.ts'
import { Scrubber } from './scrubber.ts'
import { SqliteLeaseStore } from './sqlite-lease-store.ts'
import { type CurrentStatus, keepStatus } from './status-file.ts'
import { StorageProvider } from './storage-provider.ts'

const collectEveryMs = 5 * minuteMs

export interface ProviderInit {
  /** Holds the identity, the blocks and the leases; one process at a time. */
  dataDir: string
  capacityBytes: number
  /** The control plane's address. The data plane takes the next port, or any where `port` is 0. */
  listen: { host: string; port: number }
  /** What others reach this provider by, where that is not the address it listens on: a host, or `host:port`. */
  announce?: string
  /** Multiaddrs, with peer ids, of nodes to join through. None: this one starts a network. */
  bootstrap: readonly string[]
  /** What fails together with this provider; default: its peer id. */
  domain?: string
  /** Price of a GiB-month, in the market's smallest unit. */
  price: number
  /** Bytes of blocks that are read in a second to find damage, at most; 0: none are. Default: 4 MiB. */
  scrubBytesPerSecond?: number
  /** In what time all blocks are to be looked at: 30 days. */
  scrubTurnMs?: number
  /** How often gateways are asked for this provider's score: ten minutes. */
  scoresEveryMs?: number
}

export interface ProviderComponents {
  clock: Clock
  random: Random
  log: Log
}

export interface ProviderNode {
  readonly peerId: string
  /** Control-plane addresses that others can dial, with the peer id. */
  readonly multiaddrs: string[]
  /** The origin of the data plane that is announced first. */
  readonly dataUrl: string
  readonly storage: StorageProvider
  readonly proofs: ProofService
  readonly scores: OwnScores
  readonly refuser: Refuser
  readonly network: Libp2pNetwork
  /** Resolves once the provider can be found through the DHT. */
  readonly announced: Promise<void>
  stop: () => Promise<void>
}

/** @throws HoldfastError `BAD_CONFIG` for a directory in use, a damaged identity, or an address that can't be used */
export async function startProvider(init: ProviderInit, components: ProviderComponents): Promise<ProviderNode> {
  const started: Array<() => Promise<void>> = []
  const stop = async (): Promise<void> => {
    for (const end of started.splice(0).reverse()) await end()
  }
  try {
    return await start(init, components, started, stop)
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(
  init: ProviderInit,
  { clock, random, log }: ProviderComponents,
  started: Array<() => Promise<void>>,
  stop: () => Promise<void>
): Promise<ProviderNode> {
  const { dataDir, capacityBytes, price } = init
  await mkdir(dataDir, { recursive: true })
  const leases = new SqliteLeaseStore(join(dataDir, 'leases.sqlite')) // first: it keeps other processes out
  started.push(() => leases.close())
  const refusals = new RefusalStore(join(dataDir, 'refusals.sqlite'))
  started.push(async () => refusals.close())
  const identity = await loadIdentity(join(dataDir, 'identity.key'))
  const shards = await FsShardStore.open(dataDir)

  // The storage offers addresses that are known only once everything listens.
  let network: Libp2pNetwork | undefined
  let dataUrls: string[] = []
  // What a start finds lost is to be told, too: kept from now on, and told once there is a network.
  const notices = new Notices(
    {
      network: { request: (...args) => requireNetwork(network).request(...args) },
      leases,
      signedOf: (cids) => refuser.signedOf(cids),
      clock,
      random,
      log
    },
    join(dataDir, 'notices.sqlite')
  )
  started.push(() => notices.stop())
  const storage = new StorageProvider(
    {
      ...{ shards, leases, clock, log: log.child('storage'), signer: identity, refusals },
      onLost: (cids) => notices.lost(cids)
    },
    {
      capacityBytes,
      domain: init.domain ?? identity.peerId,
      price,
      version,
      dataUrls: () => dataUrls,
      addresses: () => network?.addresses() ?? []
    }
  )
  const roots = await RootList.open(join(dataDir, 'roots.txt'), log)
  started.push(() => roots.close())
  const drain = await Drain.open({ storage, clock, random, log }, { dataDir })
  const reconciled = storage.reconcileAtStart()
  reconciled.catch(() => {}) // awaited below

  const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  const certificate = await makePeerCertificate(identity, { now: clock.now() })
  // It asks over the network, which starts only once audits can be answered.
  let scores: OwnScores | undefined
  const proofs = new ProofService({
    storage,
    signer: identity,
    verifySignature,
    clock,
    log,
    pause,
    onSigned: (answers) => scores?.signed(answers)
  })
  let discovery: KadDiscovery | undefined
  const dataServer = new DataServer({
    storage,
    proofs,
    certificate,
    verifySignature,
    clock,
    log,
    announceRoot: (cid) => {
      roots.add(cid)
      discovery?.announceRoot(cid)
    }
  })
  const ports = await listen(init, identity, dataServer, { clock, random, log })
  network = ports.network
  started.push(() => ports.network.stop())
  started.push(() => dataServer.stop())
  dataUrls = dataUrlsOf(init, ports.dataPort, network.addresses())

  const owners = async (limit: number): Promise<string[]> => (await storage.owners(limit)).map(({ owner }) => owner)
  const refuser: Refuser = new Refuser(
    {
      store: refusals,
      storage,
      notices,
      signer: identity,
      findBlock: async (cid, signal) =>
        discovery && (await findBlock({ discovery, network: ports.network, client, owners, clock, log }, cid, signal)),
      clock,
      log,
      pause
    },
    { handsOver: true }
  )
  const signedOf = (cids: readonly CID[]): Promise<Array<Uint8Array | undefined>> => refuser.signedOf(cids)
  const client = new HttpsProviderClient({ network, certificate, verifySignature, clock })
  started.push(() => client.close())
  await serveControlPlane(network, storage)
  await serveRefusals(network, { list: signedOf })
  network.join()
  const openScores = await OwnScores.open(
    { network, storage, verifySignature, clock, random, log },
    { dataDir, askEveryMs: init.scoresEveryMs }
  )
  scores = openScores
  started.push(() => openScores.stop())
  const isRoot = (cid: CID): boolean => roots.has(cid)
  const handOver = new HandOver({
    ...{ network, storage, client, clock, log: log.child('hand-over'), isRoot },
    onLost: (cids) =>
      void notices.lost(cids).catch((error: unknown) => {
        log.error('a loss was not written down', { error: messageOf(error) })
      })
  })
  const refusedHandOver = new RefusedHandOver({ handOver, store: refusals, leases, storage, clock, log, pause })
  started.push(() => drain.stop())
  const bitswap = await serveBitswap(network.node, new ReadOnlyBlockstore(storage, shards))
  started.push(() => bitswap.stop())
  await reconciled
  discovery = new KadDiscovery({ network, clock, random, log })
  const { announced } = discovery
  discovery.announceProvider()
  for (const cid of roots.roots) if (await storage.has(cid)) discovery.announceRoot(cid)
  started.push(() => discovery.stop())
  started.push(collectPeriodically(storage, clock, random, log))
  const scrubber = await openScrubber(init, storage, dataServer, clock, log)
  scrubber?.start()
  started.push(async () => scrubber?.stop())
  openScores.start()
  const watcher = new DenylistWatcher({ store: refusals, onChange: () => refuser.wake(), clock, log, pause })
  refuser.start()
  started.push(() => refuser.stop())
  watcher.start()
  started.push(() => watcher.stop())
  notices.start()
  refusedHandOver.start()
  started.push(() => refusedHandOver.stop())
  const status = (): Promise<CurrentStatus> =>
    statusOf({ storage, proofs, refusals, network: ports.network, dataUrls, scrubber })
  started.push(await keepStatus(dataDir, status, { clock, log }))
  drain.start(handOver)
  const routes: LocalRoutes = {
    ...refuseRoutes({ refuser, watcher, store: refusals, handOver: refusedHandOver }),
    ...drainRoutes(drain)
  }
  const local = await serveLocally(dataDir, routes, { clock, random, log })
  started.push(() => local.stop())
  log.info('the provider is up', { peerId: identity.peerId, dataUrls, addresses: network.addresses() })
  return {
    peerId: identity.peerId,
    multiaddrs: network.addresses(),
    dataUrl: dataUrls[0]!,
    storage,
    proofs,
    scores: openScores,
    refuser,
    network,
    announced,
    stop
  }
}

interface StatusSources {
  storage: StorageProvider
  proofs: ProofService
  refusals: RefusalStore
  network: Libp2pNetwork
  dataUrls: readonly string[]
  scrubber: Scrubber | undefined
}

async function statusOf({
  storage,
  proofs,
  refusals,
  network,
  dataUrls,
  scrubber
}: StatusSources): Promise<CurrentStatus> {
  const [stats, gateways] = await Promise.all([storage.stats(), storage.owners(gatewaysMax)])
  const { accepting, capacityBytes, usedBytes, leasedBytes, blocks, leases, lost, rotten } = stats
  return {
    peerId: network.peerId,
    version,
    addresses: network.addresses(),
    dataUrls: [...dataUrls],
    ...{ accepting, capacityBytes, usedBytes, leasedBytes, blocks, leases, lost, rotten },
    draining: storage.draining,
    refusedKept: refusals.kept,
    scrub: scrubber?.progress ?? null,
    answers: { ...proofs.given },
    gateways
  }
}

async function openScrubber(
  { dataDir, scrubBytesPerSecond: bytesPerSecond, scrubTurnMs: turnMs }: ProviderInit,
  storage: StorageProvider,
  dataServer: DataServer,
  clock: Clock,
  log: Log
): Promise<Scrubber | undefined> {
  if (bytesPerSecond === 0) return undefined
  const components = { storage, isBusy: () => dataServer.isBusy, clock, log }
  return await Scrubber.open(components, { path: join(dataDir, 'scrub.json'), bytesPerSecond, turnMs })
}

/** @throws HoldfastError `OFFLINE` before there is one */
function requireNetwork(network: Libp2pNetwork | undefined): Libp2pNetwork {
  if (network === undefined) throw new HoldfastError('OFFLINE', 'the network is not up yet')
  return network
}

interface Listening {
  network: Libp2pNetwork
  dataPort: number
}

const portsSchema = z.object({ control: z.number().int().min(1).max(65535), data: z.number().int().min(1).max(65535) })
type Ports = z.infer<typeof portsSchema>

/** Listens on the ports asked for; where any will do, on those of last time if they are free, since others know them. */
async function listen(
  init: ProviderInit,
  identity: Identity,
  dataServer: DataServer,
  components: ProviderComponents
): Promise<Listening> {
  const { host, port } = init.listen
  if (port !== 0) return await listenOn(init, identity, dataServer, { control: port, data: port + 1 }, components)
  const path = join(init.dataDir, 'ports.json')
  const last = await readPorts(path)
  if (last !== undefined) {
    try {
      return await listenOn(init, identity, dataServer, last, components)
    } catch (error) {
      if (!isCode(error, 'BAD_CONFIG')) throw error
      components.log.warn('the ports of last time are taken', { host, ...last })
    }
  }
  const listening = await listenOn(init, identity, dataServer, { control: 0, data: 0 }, components)
  const control = portOf(listening.network)
  if (control !== undefined) await writeFileDurably(path, JSON.stringify({ control, data: listening.dataPort }))
  return listening
}

async function listenOn(
  init: ProviderInit,
  identity: Identity,
  dataServer: DataServer,
  ports: Ports,
  components: ProviderComponents
): Promise<Listening> {
  const { host } = init.listen
  const dataPort = await dataServer.listen(host, ports.data)
  try {
    const network = await startLibp2pNetwork(
      {
        identity,
        listen: [multiaddrOf(host, ports.control)],
        announce: announcedMultiaddr(init),
        bootstrap: init.bootstrap,
        peerMemory: peerMemory(join(init.dataDir, 'peers.json'))
      },
      components
    )
    return { network, dataPort }
  } catch (error) {
    await dataServer.stop()
    throw error
  }
}

async function readPorts(path: string): Promise<Ports | undefined> {
  try {
    return portsSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch {
    return undefined // not there, or not ours: other ports do as well
  }
}

function multiaddrOf(host: string, port: number): string {
  const kind = isIP(host) === 4 ? 'ip4' : isIP(host) === 6 ? 'ip6' : 'dns'
  return `/${kind}/${host}/tcp/${port}`
}

const portOf = (network: Libp2pNetwork): number | undefined => {
  const port = /\/tcp\/(\d+)/.exec(network.addresses()[0] ?? '')?.[1]
  return port === undefined ? undefined : Number(port)
}

interface HostPort {
  host: string
  port?: number
}

/** @throws HoldfastError `BAD_CONFIG` */
function parseAnnounce(text: string): HostPort {
  try {
    const { hostname, port, pathname, username } = new URL(`tcp://${text}`)
    if (hostname === '' || pathname !== '' || username !== '') throw new Error('not a host')
    return { host: hostname.replace(/^\[|\]$/g, ''), ...(port === '' ? {} : { port: Number(port) }) }
  } catch (cause) {
    throw new HoldfastError('BAD_CONFIG', `--announce takes HOST or HOST:PORT, not ${text.slice(0, 200)}`, { cause })
  }
}

function announcedMultiaddr({ announce, listen: { port } }: ProviderInit): string[] {
  if (announce === undefined) return []
  const { host, port: announcedPort } = parseAnnounce(announce)
  const controlPort = announcedPort ?? port
  if (controlPort === 0) throw new HoldfastError('BAD_CONFIG', '--announce without a port needs --listen with one')
  return [multiaddrOf(host, controlPort)]
}

/** The data plane is one port above the control plane, announced or not, unless both ports are arbitrary. */
function dataUrlsOf(
  { announce, listen: { host } }: ProviderInit,
  dataPort: number,
  addresses: readonly string[]
): string[] {
  const url = (name: string, port: number): string => `https://${isIP(name) === 6 ? `[${name}]` : name}:${port}`
  if (announce !== undefined) {
    const { host: announcedHost, port } = parseAnnounce(announce)
    return [url(announcedHost, port === undefined ? dataPort : port + 1)]
  }
  if (host !== '0.0.0.0' && host !== '::') return [url(host, dataPort)]
  // Listening everywhere: the hosts are those that libp2p found itself to have.
  const hosts = addresses.flatMap((address) => /^\/ip[46]\/([^/]+)\//.exec(address)?.[1] ?? [])
  return [...new Set(hosts)].slice(0, 8).map((name) => url(name, dataPort))
}

function peerMemory(path: string): PeerMemory {
  return {
    load: async () => {
      try {
        return z
          .array(z.string().max(256))
          .max(64)
          .parse(JSON.parse(await readFile(path, 'utf8')))
      } catch {
        return [] // not there yet, or damaged: the operator's bootstrap addresses remain
      }
    },
    save: (addresses) => writeFileDurably(path, JSON.stringify(addresses))
  }
}

/** Returns a function that ends it. */
function collectPeriodically(storage: StorageProvider, clock: Clock, random: Random, log: Log): () => Promise<void> {
  const stopping = new AbortController()
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        await clock.sleep(collectEveryMs * (0.75 + random.next() / 2), stopping.signal)
        await storage.collect()
      } catch (error) {
        if (!stopping.signal.aborted) log.error('collecting failed', { error: messageOf(error) })
      }
    }
  }
  const running = loop()
  return async () => {
    stopping.abort()
    await running
  }
}
