/** What the admin API shows of audits: the auditor's and the index's records as JSON. */
import type { AuditRound, AuditTarget, AuditView, ScoreEvent, ScoreView } from '../admin/backend.ts'
import { forEachLimit } from '../base/concurrency.ts'
import { HoldfastError } from '../base/errors.ts'
import { CID } from '../content/cid.ts'
import type { Signed } from '../custody/audit-messages.ts'
import { decodeTranscript, writeTranscripts } from '../custody/transcript.ts'
import type { MetadataIndex, TranscriptRow } from '../metadata/index-store.ts'
import type { ObjectStore } from '../object/object-store.ts'
import type { Auditor } from '../repair/auditor.ts'

export interface AuditViewComponents {
  index: Pick<MetadataIndex, 'listHolders' | 'listTranscripts' | 'scanTranscripts'>
  auditor: Auditor
  store: Pick<ObjectStore, 'health'>
}

const providersAtOnce = 4
const exportRows = 64
/** Audits that one answer lists. */
const auditsListed = 1000
const unprovedListed = 1000

export function scoreViewOf(auditor: Auditor, peerId: string): ScoreView | null {
  const known = auditor.reportOf(peerId)
  if (known === undefined) return null
  const { weight, standing, custody, availability, latencyMsP50, latencyMsP95, proofs, why } = known.report
  return {
    weight,
    standing,
    custody,
    availability,
    latencyMsP50,
    latencyMsP95,
    proofs,
    why,
    contained: known.contained
  }
}

/** Newest first. */
export function scoreEventsOf(auditor: Auditor, peerId: string): ScoreEvent[] {
  const events = auditor.reportOf(peerId)?.events ?? []
  return [...events].reverse().map(({ until, kind, shard, before, after, why }) => ({
    at: new Date(until).toISOString(),
    kind,
    shard: shard ?? null,
    before,
    after,
    why
  }))
}

export async function listAudits(
  { index }: AuditViewComponents,
  limit: number
): Promise<{ items: AuditView[]; isTruncated: boolean }> {
  const { items, isTruncated } = await index.listTranscripts({ limit })
  return { items: items.map(auditViewOf), isTruncated }
}

function auditViewOf({ id, bytes, provider, askedAt, outcomes }: TranscriptRow): AuditView {
  const { transcript } = decodeTranscript(bytes)
  return {
    id,
    askedAt: new Date(askedAt).toISOString(),
    tookMs: transcript.endedAt - transcript.askedAt,
    provider,
    challenges: transcript.results.length,
    outcomes,
    countersigned: transcript.statement !== null
  }
}

/** @throws HoldfastError `MISSING` for a provider that is to have nothing, `NO_SUCH_BUCKET`, `NO_SUCH_KEY` */
export async function auditNow(
  components: AuditViewComponents,
  target: AuditTarget,
  signal: AbortSignal
): Promise<AuditRound> {
  const round: AuditRound = { audits: [], outcomes: {}, unproved: [] }
  const wanted = await wantedOf(components, target)
  await forEachLimit([...wanted], providersAtOnce, async ([provider, cids]) => {
    const { audits, outcomes, unproved } = await components.auditor.audit(provider, cids, signal)
    for (const [outcome, count] of Object.entries(outcomes))
      round.outcomes[outcome] = (round.outcomes[outcome] ?? 0) + count
    for (const { askedAt, ...audit } of audits.slice(0, Math.max(0, auditsListed - round.audits.length)))
      round.audits.push({ id: null, askedAt: new Date(askedAt).toISOString(), ...audit })
    round.unproved.push(...unproved.slice(0, Math.max(0, unprovedListed - round.unproved.length)))
  })
  return round
}

/** Providers to ask, with the shards to ask for; undefined: all of theirs. */
async function wantedOf(
  { index, store }: AuditViewComponents,
  { provider, bucket, key }: AuditTarget
): Promise<Map<string, CID[] | undefined>> {
  if (provider !== undefined) return new Map([[provider, undefined]])
  if (bucket === undefined || key === undefined) {
    return new Map((await index.listHolders()).map((holder) => [holder.provider, undefined]))
  }
  const health = await store.health(bucket, key)
  const wanted = new Map<string, CID[]>()
  for (const shard of health.segments.flatMap(({ shards }) => shards)) {
    if (shard.provider === null) continue
    wanted.set(shard.provider, [...(wanted.get(shard.provider) ?? []), CID.parse(shard.cid)])
  }
  if (wanted.size === 0) throw new HoldfastError('MISSING', 'this object has no shards: its bytes are in its manifest')
  return wanted
}

export function exportAudits({ index }: AuditViewComponents): AsyncIterable<Uint8Array> {
  async function* kept(): AsyncGenerator<Signed> {
    let after = 0
    for (;;) {
      const rows = await index.scanTranscripts({ after, limit: exportRows })
      for (const { bytes, signature } of rows) yield { bytes, signature }
      if (rows.length < exportRows) return
      after = rows.at(-1)!.id
    }
  }
  return writeTranscripts(kept())
}
