/**
 * The gateway's process: the auditor as a gateway runs it, on an index in a file and a clock that is set forward from one
 * look to the next. Anything but honest answers found honest ends it.
 */
import { DatabaseSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import type { Clock } from '../../src/base/clock.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { hourMs } from '../../src/base/limits.ts'
import { type Log, silentLog } from '../../src/base/log.ts'
import { auditRequestCodec, signedCodec } from '../../src/custody/audit-messages.ts'
import { TranscriptVerifier } from '../../src/custody/verify-transcript.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { verifySignature } from '../../src/net/identity.ts'
import { type AuditEvent, Auditor, type AuditorComponents } from '../../src/repair/auditor.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { decodeProofs } from '../../src/transfer/prove.ts'
import { ownCpuSeconds, WrongAnswerError } from '../harness.ts'
import { Blocks, BlockTable } from './blocks.ts'
import type { GatewayJob, GatewayMessage, GatewayReport, Hour, Memory } from './messages.ts'
import { identityNamed, peerIdsOf, SimulatedProviders } from './providers.ts'

const replayedMax = 100
const collections = 3

/** Set by hand; nothing it is asked to wait for comes before the work is done. */
class HandClock implements Clock {
  #now: number

  constructor(now: number) {
    this.#now = now
  }

  now = (): number => this.#now

  sleep = (_ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((_resolve, reject) => {
      if (signal?.aborted === true) reject(signal.reason)
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
    })

  advance(ms: number): void {
    this.#now += ms
  }
}

/** What has been counted since the process started. */
interface Counts {
  providersCpuSeconds: number
  requests: number
  proofs: number
  wholeReads: number
  sentBytes: number
  receivedBytes: number
}

class Network {
  readonly counts: Counts = {
    providersCpuSeconds: 0,
    requests: 0,
    proofs: 0,
    wholeReads: 0,
    sentBytes: 0,
    receivedBytes: 0
  }
  longestGapMs = 0
  readonly #clock: Clock
  readonly #providers: SimulatedProviders
  readonly #askedAt: Map<string, number>
  #asked = new Set<string>()

  constructor(clock: Clock, providers: SimulatedProviders, peerIds: readonly string[]) {
    this.#clock = clock
    this.#providers = providers
    this.#askedAt = new Map(peerIds.map((peerId) => [peerId, clock.now()]))
  }

  /** As `askForProofs` does it, but for the sockets. */
  readonly client: AuditorComponents['client'] = {
    prove: async ({ peerId }, signed) => {
      const body = signedCodec.encode(signed)
      const challenges = auditRequestCodec.decode(signed.bytes).challenges.length
      this.#noteAsked(peerId)
      const frames = this.#elsewhere(() => this.#providers.answer(peerId, body))
      this.counts.requests += 1
      this.counts.proofs += challenges
      this.counts.sentBytes += body.length
      this.counts.receivedBytes += frames.length
      return decodeProofs(challenges, [frames])
    },
    getShard: async (_provider, cid) => {
      this.counts.wholeReads += 1
      return this.#elsewhere(() => new Uint8Array(this.#providers.read(cid)))
    },
    getOffer: async () => {
      throw new HoldfastError('OFFLINE', 'nobody has a reason to ask for offers')
    }
  }

  /** Providers that were asked since the last call. */
  takeAsked(): number {
    const { size } = this.#asked
    this.#asked = new Set()
    return size
  }

  /** At the end: whoever waits has waited until now. */
  close(): void {
    for (const peerId of this.#askedAt.keys()) this.#noteGap(peerId)
  }

  #noteAsked(peerId: string): void {
    this.#noteGap(peerId)
    this.#askedAt.set(peerId, this.#clock.now())
    this.#asked.add(peerId)
  }

  #noteGap(peerId: string): void {
    this.longestGapMs = Math.max(this.longestGapMs, this.#clock.now() - this.#askedAt.get(peerId)!)
  }

  /** Nothing else runs meanwhile, so what it takes is the providers'. */
  #elsewhere<T>(work: () => T): T {
    const before = ownCpuSeconds()
    try {
      return work()
    } finally {
      this.counts.providersCpuSeconds += ownCpuSeconds() - before
    }
  }
}

class Gateway {
  readonly #clock: HandClock
  readonly #auditor: Auditor
  readonly #network: Network
  readonly #pages: DatabaseSync
  readonly #problems: string[] = []
  readonly #signal = new AbortController().signal

  private constructor(
    job: GatewayJob,
    parts: Omit<AuditorComponents, 'peers' | 'client' | 'log' | 'clock'>,
    world: World
  ) {
    const { clock, network, peerIds } = world
    this.#clock = clock
    this.#network = network
    this.#pages = new DatabaseSync(job.path, { readOnly: true })
    const targets = new Map(peerIds.map((peerId) => [peerId, { peerId, dataUrls: [], addresses: [] }]))
    this.#auditor = new Auditor({
      ...parts,
      clock,
      client: network.client,
      peers: {
        domainsOf: (peerId) => [`host:${peerId}`],
        report: (peerId, outcome) => void this.#problems.push(`${peerId} is said to be ${outcome}`),
        state: () => 'online',
        target: (peerId) => targets.get(peerId)
      },
      log: this.#log(),
      onAudit: (event) => this.#onAudit(event)
    })
  }

  static async open(job: GatewayJob, index: MetadataIndex, world: World): Promise<Gateway> {
    const identity = await identityNamed(job.seed, 'gateway')
    const gateway = new Gateway(
      job,
      {
        index,
        signer: identity,
        secretKey: identity.privateKey.raw.subarray(0, 32),
        verifySignature,
        random: seededRandom(`audits ${job.seed}`),
        pause: () => setImmediate()
      },
      world
    )
    await gateway.#auditor.load()
    return gateway
  }

  /** @throws WrongAnswerError where anything was not as it should be */
  async hour(): Promise<Hour> {
    const counts = { ...this.#network.counts }
    const indexBytes = this.#indexBytes()
    const cpu = ownCpuSeconds()
    for (const until = this.#clock.now() + hourMs; this.#clock.now() < until; ) {
      this.#clock.advance(this.#auditor.tickMs)
      await this.#auditor.round(this.#signal)
    }
    const ownSeconds = ownCpuSeconds() - cpu
    if (this.#problems.length > 0) throw new WrongAnswerError(this.#problems.slice(0, 10).join('; '))
    const since = (name: keyof Counts): number => this.#network.counts[name] - counts[name]
    return {
      gatewayCpuSeconds: ownSeconds - since('providersCpuSeconds'),
      providersCpuSeconds: since('providersCpuSeconds'),
      requests: since('requests'),
      proofs: since('proofs'),
      wholeReads: since('wholeReads'),
      sentBytes: since('sentBytes'),
      receivedBytes: since('receivedBytes'),
      indexBytes: this.#indexBytes() - indexBytes,
      challenged: this.#network.takeAsked()
    }
  }

  close(): void {
    this.#network.close()
    this.#pages.close()
  }

  /** In use, of the file and its log together. */
  #indexBytes(): number {
    const pragma = (name: string): number => Number(this.#pages.prepare(`PRAGMA ${name}`).get()![name])
    return (pragma('page_count') - pragma('freelist_count')) * pragma('page_size')
  }

  #onAudit({ provider, outcomes }: AuditEvent): void {
    const other = outcomes.find((outcome) => outcome !== 'ok')
    if (other !== undefined) this.#problems.push(`${provider}: ${other}`)
  }

  #log(): Log {
    const problem = (message: string, fields = {}): void =>
      void this.#problems.push(`${message} ${JSON.stringify(fields)}`)
    const log: Log = { ...silentLog, info: problem, warn: problem, error: problem, child: () => log }
    return log
  }
}

interface World {
  clock: HandClock
  network: Network
  peerIds: readonly string[]
}

async function run(job: GatewayJob, progress: (hour: number) => void): Promise<GatewayReport> {
  const { seed, shards, warmupHours, hours } = job
  const clock = new HandClock(job.startAt)
  const blocks = new Blocks(seed)
  const table = await BlockTable.of(blocks, shards)
  const peerIds = await peerIdsOf(seed, job.providers)
  const providers = new SimulatedProviders({ seed, peerIds, blocks, table, now: clock.now })
  const network = new Network(clock, providers, peerIds)
  const index = await openSqliteIndex(job.path)
  try {
    const gateway = await Gateway.open(job, index, { clock, network, peerIds })
    const ready = await memory()
    for (let hour = 0; hour < warmupHours; hour++) await gateway.hour()
    const warm = await memory()
    const measured: Hour[] = []
    for (let number = 1; number <= hours; number++) {
      measured.push(await gateway.hour())
      progress(number)
    }
    const end = await memory()
    gateway.close()
    const { longestGapMs } = network
    const replayed = await replay(index)
    return { memory: { ready, warm, end }, tableBytes: table.bytes, hours: measured, longestGapMs, replayed }
  } finally {
    await index.close()
  }
}

/** The last transcripts, replayed from their bytes alone. @returns how many */
async function replay(index: MetadataIndex): Promise<number> {
  const verifier = new TranscriptVerifier({ verifySignature })
  const { items } = await index.listTranscripts({ limit: replayedMax })
  for (const transcript of items) {
    const found = await verifier.verify(transcript)
    const other = found.find(({ verdict }) => verdict !== 'agreed')
    if (found.length === 0 || other !== undefined) throw new WrongAnswerError(`a transcript: ${other?.why}`)
  }
  return items.length
}

async function memory(): Promise<Memory> {
  if (gc === undefined) throw new Error('started without --expose-gc')
  for (let turn = 0; turn < collections; turn++) {
    gc()
    await setImmediate() // native memory goes with the turn after
  }
  const { rss, heapUsed, external } = process.memoryUsage()
  return { residentBytes: rss, heapBytes: heapUsed + external }
}

const tell = (message: GatewayMessage, told?: () => void): void => void process.send!(message, undefined, {}, told)

process.once('disconnect', () => process.exit()) // whoever asked for it is gone, or has what it wanted
process.once('message', (job: GatewayJob) => {
  const told = (): void => process.disconnect()
  run(job, (number) => tell({ kind: 'hour', number })).then(
    (report) => tell({ kind: 'done', report }, told),
    (error: Error) => tell({ kind: 'failed', why: error.stack ?? String(error) }, told)
  )
})
