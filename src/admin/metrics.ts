/** Prometheus metrics of a gateway: what it served, and how the network stands when it is asked. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { AdminBackend } from './backend.ts'

/** Present from the start: the first of a kind would be no increase to whoever watches a counter that just appeared. */
export const auditOutcomes = ['ok', 'offline', 'timeout', 'missing', 'wrong', 'refused', 'unknown'] as const

/** One S3 request that has ended. */
export interface S3RequestEvent {
  /** S3's name of the operation: `PutObject`. */
  operation: string
  /** HTTP status; 499 when the client went away before there was one. */
  status: number
  durationMs: number
  /** Bytes of bodies. */
  bytesIn: number
  bytesOut: number
}

/** One audit request that has ended. */
export interface AuditEvent {
  /** Challenges by how they ended. */
  outcomes: Partial<Record<(typeof auditOutcomes)[number], number>>
  /** For each answer that came, the time from the request to it. */
  latenciesMs: readonly number[]
}

/** One segment that was read for a client. */
export interface SegmentReadEvent {
  isDecoded: boolean
  requestedBytes: number
  wastedBytes: number
}

export const repairReasons = ['lost', 'withdrawn', 'gone', 'crowded', 'draining', 'selfHosted'] as const

/** What became of the repair of one segment. */
export interface RepairMetric {
  bytesRead: number
  bytesWritten: number
  /** Of those, of no use. */
  wastedBytes: number
  /** Shards that were placed, by what had been the matter with them. */
  reasons: Partial<Record<string, number>>
}

export interface Metrics {
  observeRequest: (event: S3RequestEvent) => void
  observeAudit: (event: AuditEvent) => void
  observeRepair: (event: RepairMetric) => void
  observeSegmentRead: (event: SegmentReadEvent) => void
  contentType: string
  /** The exposition text, gauges read anew. */
  render: () => Promise<string>
}

export type MetricsSource = Pick<AdminBackend, 'readiness' | 'status'>

export function createMetrics(source: MetricsSource): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const registers = [registry]
  const requests = new Counter({
    name: 'holdfast_s3_requests_total',
    help: 'S3 requests by operation and HTTP status',
    labelNames: ['operation', 'status'],
    registers
  })
  const seconds = new Histogram({
    name: 'holdfast_s3_request_duration_seconds',
    help: 'Time from the request line to the last byte of the answer',
    labelNames: ['operation'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    registers
  })
  const bytes = new Counter({
    name: 'holdfast_s3_bytes_total',
    help: 'Bytes of S3 bodies: in from clients, out to them',
    labelNames: ['direction'],
    registers
  })
  const audits = new Counter({
    name: 'holdfast_audit_requests_total',
    help: 'Audit requests to providers that have ended',
    registers
  })
  const challenges = new Counter({
    name: 'holdfast_audit_challenges_total',
    help: 'Challenges of audits by how they ended',
    labelNames: ['outcome'],
    registers
  })
  for (const outcome of auditOutcomes) challenges.inc({ outcome }, 0)
  const answerSeconds = new Histogram({
    name: 'holdfast_audit_latency_seconds',
    help: 'Time from an audit request to each answer that came',
    // A single answer has two seconds, the last of the longest batch 28.
    buckets: [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30],
    registers
  })
  const counter = (name: string, help: string, labelNames: string[] = []): Counter =>
    new Counter({ name, help, labelNames, registers })
  const segmentReads = counter('holdfast_segment_reads_total', 'Segments read for clients, by whether decoded', ['how'])
  for (const how of ['straight', 'decoded']) segmentReads.inc({ how }, 0)
  const readRequested = counter(
    'holdfast_segment_read_requested_bytes_total',
    'Bytes of shards asked for to read these, of who had them'
  )
  const readWasted = counter(
    'holdfast_segment_read_wasted_bytes_total',
    'Of those, bytes of shards that were late, cancelled or wrong: of hedges'
  )
  const repairRead = counter('holdfast_repair_read_bytes_total', 'Bytes that repair has read from providers')
  const repairWritten = counter('holdfast_repair_written_bytes_total', 'Bytes that repair has written to providers')
  const repairWasted = counter('holdfast_repair_wasted_bytes_total', 'Of those, bytes that were of no use')
  const repairShards = counter('holdfast_repair_shards_total', 'Shards placed anew, by what was wrong', ['reason'])
  for (const reason of repairReasons) repairShards.inc({ reason }, 0)
  const gauge = (name: string, help: string, labelNames: string[] = []): Gauge =>
    new Gauge({ name, help, labelNames, registers })
  const ready = gauge('holdfast_ready', '1 when S3 requests can be served')
  const providers = gauge('holdfast_providers', 'Providers known, by state', ['state'])
  const capacity = gauge('holdfast_provider_capacity_bytes', 'Capacity of the providers that are online')
  const free = gauge('holdfast_provider_free_bytes', 'Free bytes of the providers that are online')
  const buckets = gauge('holdfast_buckets', 'Buckets')
  const objects = gauge('holdfast_objects', 'Objects')
  const objectBytes = gauge('holdfast_object_bytes', 'Bytes of objects, before coding')
  const segments = gauge('holdfast_segments', 'Coded segments')
  const shards = gauge('holdfast_shards', 'Shards of those segments')
  const incomplete = gauge('holdfast_segments_incomplete', 'Segments with shards not placed yet or known lost')
  const standings = gauge('holdfast_provider_standing', 'Providers that have been audited, by standing', ['standing'])
  const contained = gauge('holdfast_audit_contained', 'Challenges that timed out and wait to be put again')
  const ownOutage = gauge('holdfast_audit_own_outage', '1 while judgement is suspended for an outage on this side')

  const readGauges = async (): Promise<void> => {
    const status = await source.status()
    ready.set(status.ready ? 1 : 0)
    for (const [state, count] of Object.entries(status.providers)) providers.set({ state }, count)
    capacity.set(status.capacityBytes)
    free.set(status.freeBytes)
    buckets.set(status.buckets)
    objects.set(status.objects)
    objectBytes.set(status.objectBytes)
    segments.set(status.segments)
    shards.set(status.shards)
    incomplete.set(status.incompleteSegments)
    for (const [standing, count] of Object.entries(status.custody.standings)) standings.set({ standing }, count)
    contained.set(status.custody.contained)
    ownOutage.set(status.custody.ownOutage ? 1 : 0)
  }

  return {
    observeRequest: ({ operation, status, durationMs, bytesIn, bytesOut }) => {
      requests.inc({ operation, status: String(status) })
      seconds.observe({ operation }, durationMs / 1000)
      bytes.inc({ direction: 'in' }, bytesIn)
      bytes.inc({ direction: 'out' }, bytesOut)
    },
    observeAudit: ({ outcomes, latenciesMs }) => {
      audits.inc()
      for (const [outcome, count] of Object.entries(outcomes)) challenges.inc({ outcome }, count)
      for (const latencyMs of latenciesMs) answerSeconds.observe(latencyMs / 1000)
    },
    observeRepair: ({ bytesRead, bytesWritten, wastedBytes, reasons }) => {
      repairRead.inc(bytesRead)
      repairWritten.inc(bytesWritten)
      repairWasted.inc(wastedBytes)
      for (const [reason, count = 0] of Object.entries(reasons)) repairShards.inc({ reason }, count)
    },
    observeSegmentRead: ({ isDecoded, requestedBytes, wastedBytes }) => {
      segmentReads.inc({ how: isDecoded ? 'decoded' : 'straight' })
      readRequested.inc(requestedBytes)
      readWasted.inc(wastedBytes)
    },
    contentType: registry.contentType,
    render: async () => {
      await readGauges()
      return registry.metrics()
    }
  }
}
