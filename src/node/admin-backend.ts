/** What the admin API of a gateway answers, put together from its parts. */
import type { AdminBackend, EarnedView, GatewayStatus, KeyView, ProviderView } from '../admin/backend.ts'
import { type Clock, withDeadline } from '../base/clock.ts'
import { HoldfastError, messageOf } from '../base/errors.ts'
import { dayMs, GiB, hourMs, limits, minuteMs, secondMs } from '../base/limits.ts'
import { version } from '../base/version.ts'
import { parseCid } from '../content/cid.ts'
import type { ProviderDirectory } from '../discovery/directory.ts'
import { type Code, formatCode } from '../erasure/erasure-coder.ts'
import type { MetadataIndex } from '../metadata/index-store.ts'
import type { ObjectStore } from '../object/object-store.ts'
import {
  codeFor,
  independentDomains,
  placeableShards,
  quorumOf,
  type StorageClass,
  storageClasses
} from '../placement/place.ts'
import type { ReportTaker } from '../repair/accept-report.ts'
import type { Auditor } from '../repair/auditor.ts'
import type { ByAnybody } from '../repair/by-anybody.ts'
import type { Repairer } from '../repair/repairer.ts'
import type { AccessKey, AccessKeys } from './access-keys.ts'
import { auditNow, exportAudits, listAudits, scoreEventsOf, scoreViewOf } from './audit-views.ts'
import type { ProviderSearch } from './provider-search.ts'
import { acceptanceViewOf, helpViewOf, repairListingOf, repairNow } from './repair-views.ts'
import type { SelfHost } from './self-host.ts'

export interface AdminBackendComponents {
  index: MetadataIndex
  directory: ProviderDirectory
  search: ProviderSearch
  store: Pick<ObjectStore, 'health'>
  keys: AccessKeys
  auditor: Auditor
  repairer: Pick<Repairer, 'plan' | 'progress' | 'repairNow'>
  selfHost: Pick<SelfHost, 'kept'> | undefined
  byAnybody: ByAnybody
  reports: ReportTaker
  clock: Clock
}

export interface AdminBackendInit {
  peerId: string
  endpoint: () => string
  addresses: () => string[]
  fixedCode?: Code
  kernels: GatewayStatus['kernels']
}

/** Counting an index takes a while when it is large; watchers may look at figures this old. */
const figuresAgeMsMax = 2 * secondMs

/** Clients that wait for an answer to begin give up after five minutes. */
const auditMsMax = 4 * minuteMs
const repairMsMax = 4 * minuteMs

export function createAdminBackend(components: AdminBackendComponents, init: AdminBackendInit): AdminBackend {
  const { index, directory, search, store, keys, auditor, repairer, selfHost, clock } = components
  const startedAt = new Date(clock.now()).toISOString()
  const totals = remembered(clock, () => index.totals())
  const holders = remembered(
    clock,
    async () => new Map((await index.listHolders()).map((holder) => [holder.provider, holder]))
  )

  const accounts = remembered(
    clock,
    async () => new Map((await index.listAccounts()).map((account) => [account.provider, account.byteMs]))
  )

  const domains = (): number => independentDomains(directory.candidates())

  const readiness = async (): Promise<string[]> => {
    const reasons: string[] = []
    try {
      await index.ping()
    } catch (error) {
      reasons.push(`the index cannot be read: ${messageOf(error)}`)
    }
    if (!search.isKnown) reasons.push('still looking for providers')
    if (init.fixedCode === undefined) {
      const online = domains()
      const needed = limits.parityMin + 1
      if (online < needed)
        reasons.push(`${online} independent providers with room are online, and a durable write needs ${needed}`)
    } else {
      const needed = quorumOf(init.fixedCode)
      const placeable = placeableShards(init.fixedCode, directory.candidates())
      if (placeable < needed)
        reasons.push(
          `the providers online would take ${placeable} shards of a segment, and a durable write needs ${needed}`
        )
    }
    return reasons
  }

  const codes = (): GatewayStatus['codes'] => {
    const online = domains()
    const { fixedCode } = init
    const codeOf = (storageClass: StorageClass): Code | undefined => {
      if (fixedCode === undefined) return codeFor(online, storageClass)
      if (placeableShards(fixedCode, directory.candidates()) < quorumOf(fixedCode)) return undefined
      return storageClass === 'STANDARD' ? fixedCode : codeFor(fixedCode.k + fixedCode.m, storageClass)
    }
    const names = Object.keys(storageClasses) as StorageClass[]
    return Object.fromEntries(
      names.map((name) => {
        const code = codeOf(name)
        return [name, code === undefined ? null : formatCode(code)]
      })
    )
  }

  return {
    readiness,

    status: async () => {
      const [reasons, counts, newest] = await Promise.all([readiness(), totals(), index.listTranscripts({ limit: 1 })])
      const providers: GatewayStatus['providers'] = { online: 0, offline: 0, contained: 0, unknown: 0 }
      let capacityBytes = 0
      let freeBytes = 0
      for (const provider of directory.list()) {
        providers[provider.state]++
        if (provider.state !== 'online') continue
        capacityBytes += provider.capacityBytes
        freeBytes += provider.freeBytes
      }
      return {
        peerId: init.peerId,
        version,
        endpoint: init.endpoint(),
        addresses: init.addresses(),
        startedAt,
        ready: reasons.length === 0,
        reasons,
        providers,
        capacityBytes,
        freeBytes,
        ...counts,
        custody: { ...auditor.status(), audits: newest.items[0]?.id ?? 0, oldestProofAt: isoOf(auditor.oldestProof) },
        selfHost: (await selfHost?.kept()) ?? null,
        codes: codes(),
        kernels: init.kernels
      }
    },

    providers: async () => {
      const [held, byteMs] = await Promise.all([holders(), accounts()])
      return directory.list().map(({ lastSeenAt, ...provider }): ProviderView => {
        const { shards = 0, bytes = 0 } = held.get(provider.peerId) ?? {}
        return {
          ...provider,
          lastSeenAt: lastSeenAt === 0 ? null : new Date(lastSeenAt).toISOString(),
          shards,
          shardBytes: bytes,
          score: scoreViewOf(auditor, provider.peerId),
          earned: earnedOf(byteMs.get(provider.peerId) ?? 0, provider.price)
        }
      })
    },

    objectHealth: (bucket, key) => store.health(bucket, key),

    repairs: async (limit, isEager) => repairListingOf(await repairer.plan(limit, undefined, isEager)),
    repair: (signal) => repairNow(components, repairMsMax, signal),
    repairContent: async (root, from, signal) =>
      helpViewOf(await components.byAnybody.help(parseCid(root), from, signal)),
    acceptReport: async (report, signal) => acceptanceViewOf(await components.reports.take(report, signal)),

    audits: (limit) => listAudits(components, limit),
    audit: (target, signal) => withDeadline(clock, auditMsMax, signal, (inner) => auditNow(components, target, inner)),
    exportAudits: () => exportAudits(components),
    score: async (peerId) => {
      const score = scoreViewOf(auditor, peerId)
      if (score === null && directory.target(peerId) === undefined)
        throw new HoldfastError('MISSING', `provider ${peerId} is not known here`)
      return { score, events: scoreEventsOf(auditor, peerId) }
    },

    listKeys: async () => (await keys.list()).map(keyView),
    createKey: async (account) => {
      const key = await keys.create(account)
      return { ...keyView(key), secretAccessKey: key.secretAccessKey }
    },
    revokeKey: (accessKeyId) => keys.revoke(accessKeyId)
  }
}

const monthMs = 30 * dayMs

function earnedOf(byteMs: number, price: number): EarnedView {
  return { byteHours: byteMs / hourMs, amount: (byteMs / (GiB * monthMs)) * price }
}

const isoOf = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString())

function keyView({ accessKeyId, displayName, createdAt }: Omit<AccessKey, 'secretAccessKey'>): KeyView {
  return { accessKeyId, account: displayName, createdAt: new Date(createdAt).toISOString() }
}

/** The last answer while it is fresh; those who ask meanwhile share one reading. */
function remembered<T>(clock: Clock, read: () => Promise<T>): () => Promise<T> {
  let last: { at: number; value: Promise<T> } | undefined
  return () => {
    const now = clock.now()
    if (last === undefined || now - last.at > figuresAgeMsMax) {
      const value = read()
      const entry = { at: now, value }
      last = entry
      value.catch(() => {
        if (last === entry) last = undefined // a failure is not remembered
      })
    }
    return last.value
  }
}
