/** An `AdminBackend` that answers from memory, and notes what it was asked. */
import type {
  AcceptanceView,
  AdminBackend,
  AuditRound,
  AuditTarget,
  AuditView,
  GatewayStatus,
  HelpView,
  KeyView,
  ProviderView,
  RepairListing,
  RepairRound,
  ScoreEvent,
  ScoreView
} from '../../src/admin/backend.ts'
import { HoldfastError } from '../../src/base/errors.ts'

export const status: GatewayStatus = {
  peerId: '12D3KooWGateway',
  version: '0.1.0',
  endpoint: 'http://127.0.0.1:9000',
  addresses: [],
  startedAt: '2026-01-01T00:00:00.000Z',
  ready: true,
  reasons: [],
  providers: { online: 3, offline: 1, contained: 0, unknown: 0 },
  capacityBytes: 3000,
  freeBytes: 2000,
  buckets: 1,
  objects: 2,
  objectBytes: 300,
  segments: 4,
  shards: 12,
  incompleteSegments: 1,
  custody: {
    audits: 40,
    contained: 2,
    ownOutage: false,
    standings: { vetted: 2, vetting: 1, closed: 0, suspended: 1 },
    oldestProofAt: '2026-01-01T00:00:00.000Z'
  },
  selfHost: null,
  codes: { STANDARD: '1+2', REDUCED_REDUNDANCY: '1+2' },
  kernels: { erasure: 'WASM, SIMD', blake3: 'native' }
}

export const score: ScoreView = {
  weight: 0.9499,
  standing: 'vetted',
  custody: 0.98,
  availability: 0.9999,
  latencyMsP50: 4.2,
  latencyMsP95: null,
  proofs: 1234,
  why: 'custody 0.980 squared',
  contained: 2
}

export const scoreEvent: ScoreEvent = {
  at: '2026-01-01T00:00:00.000Z',
  kind: 'missing',
  shard: 'bafkshard',
  before: 1,
  after: 0.98,
  why: 'it said that it does not have the block'
}

export const auditView: AuditView = {
  id: 7,
  askedAt: '2026-01-01T00:00:00.000Z',
  tookMs: 12.4,
  provider: '12D3KooWProvider',
  challenges: 3,
  outcomes: { ok: 2, missing: 1 },
  countersigned: true
}

export const provider: ProviderView = {
  peerId: '12D3KooWProvider',
  state: 'online',
  domain: '<script>alert(1)</script>',
  version: '0.1.0',
  capacityBytes: 1000,
  freeBytes: 400,
  price: 0,
  accepting: true,
  draining: false,
  shards: 5,
  shardBytes: 500,
  latencyMs: 3.5,
  lastSeenAt: '2026-01-01T00:00:00.000Z',
  outcomes: { ok: 5 },
  score,
  dataUrls: ['https://127.0.0.1:4002'],
  addresses: []
}

export const help: HelpView = {
  root: 'bafy',
  from: 0,
  units: 3,
  next: null,
  failure: null,
  providersAsked: 8,
  bytesRead: 2000,
  bytesWritten: 1000,
  found: 20,
  rebuilt: 1,
  unhelped: {},
  rows: [{ segment: 0, index: 5, cid: 'bafk', provider: '12D3KooWProvider' }],
  reports: ['AAEC']
}

export const acceptance: AcceptanceView = {
  root: 'bafy',
  helper: '12D3KooWHelper',
  madeAt: '2026-01-01T00:00:00.000Z',
  rows: { accepted: 1, 'not-needed': 20 },
  shards: [{ cid: 'bafk', provider: '12D3KooWProvider', verdict: 'accepted' }]
}

export const plan: RepairListing = {
  items: [
    { segment: 1, code: '1+2', healthy: 2, margin: 1, wanted: 1, why: '1 lost', stuck: null, secondsToLoss: 1e6 }
  ],
  isTruncated: false,
  planned: { segments: 1, shards: 1, bytesToRead: 10, bytesToWrite: 10 },
  totals: {
    repairs: 0,
    shardsRebuilt: 0,
    shardsMoved: 0,
    bytesRead: 0,
    bytesWritten: 0,
    bytesTheory: 0,
    wastedBytes: 0
  },
  running: false,
  paused: null
}

export class FakeBackend implements AdminBackend {
  reasons: string[] = []
  keys: KeyView[] = []
  asked: string[] = []
  targets: AuditTarget[] = []
  round: AuditRound = { audits: [auditView], outcomes: { ok: 3 }, unproved: [] }
  /** Stands in for the round. */
  doAudit: (target: AuditTarget, signal: AbortSignal) => Promise<AuditRound> = async () => this.round
  doExport: () => AsyncIterable<Uint8Array> = async function* () {}

  readiness = async () => this.reasons
  status = async () => status
  providers = async () => [provider]
  objectHealth = async (bucket: string, key: string) => {
    this.asked.push(`${bucket} ${key}`)
    if (bucket === 'absent') throw new HoldfastError('NO_SUCH_BUCKET', 'there is no bucket absent')
    if (key === 'broken') throw new TypeError('secret internals at /var/lib')
    return { cid: 'bafy', size: 1, segments: [], blocks: [] }
  }
  plan: RepairListing = plan
  repairRounds: RepairRound[] = [{ done: plan.totals, left: { ...plan, items: [] }, isPartial: false }]
  repairs = async (limit: number, isEager: boolean) => {
    this.asked.push(`repairs ${limit} ${isEager ? 'eager' : 'due'}`)
    return { ...this.plan, items: this.plan.items.slice(0, limit) }
  }
  repair = async () => {
    this.asked.push('repair')
    return this.repairRounds.shift() ?? { done: plan.totals, left: this.plan, isPartial: false }
  }
  audits = async (limit: number) => ({ items: [auditView, auditView].slice(0, limit), isTruncated: limit < 2 })
  audit = async (target: AuditTarget, signal: AbortSignal) => {
    this.targets.push(target)
    return await this.doAudit(target, signal)
  }
  exportAudits = () => this.doExport()
  repairContent = async (root: string, from: number) => {
    this.asked.push(`${root} ${from}`)
    return { ...help, root, from }
  }
  acceptReport = async (report: Uint8Array) => {
    this.asked.push(`report of ${report.length} bytes`)
    return acceptance
  }
  score = async (peerId: string) => {
    if (peerId !== provider.peerId) throw new HoldfastError('MISSING', `no provider ${peerId} is known`)
    return { score, events: [scoreEvent] }
  }
  listKeys = async () => this.keys
  createKey = async (account = 'default') => {
    const key = { accessKeyId: `HF${this.keys.length}`, account, createdAt: '2026-01-01T00:00:00.000Z' }
    this.keys.push(key)
    return { ...key, secretAccessKey: 'secret' }
  }
  revokeKey = async (accessKeyId: string) => {
    const before = this.keys.length
    this.keys = this.keys.filter((key) => key.accessKeyId !== accessKeyId)
    if (this.keys.length === before) throw new HoldfastError('NO_SUCH_KEY', `there is no access key ${accessKeyId}`)
  }
}
