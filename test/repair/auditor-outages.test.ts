/** What an auditor makes of what it finds written down when it starts. */
import { describe, expect, it } from 'vitest'
import { silentLog } from '../../src/base/log.ts'
import { judge, judgeDefaults } from '../../src/custody/judge.ts'
import { contacted, newOutage, type OutageState } from '../../src/custody/outage.ts'
import { newSampling } from '../../src/custody/sampling.ts'
import { scoreDefaults, scored } from '../../src/custody/score.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { decodeRecord, encodeRecord, newRecord, type ProviderRecord } from '../../src/repair/audit/provider-record.ts'
import { Auditor } from '../../src/repair/auditor.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { simulatedSigner, verifySimulated } from '../../src/sim/signatures.ts'

const now = 1_750_000_000_000
const cid = 'bafkr4iez7gh3psgsvsgq3zgbjwjeqljgpsmgadxkhn3hlfs65xlpzhxfyq'
const never = (): never => {
  throw new Error('nobody is to be asked')
}

const auditorOn = (index: MetadataIndex): Auditor =>
  new Auditor({
    index,
    client: { getOffer: never, getShard: never, prove: never },
    peers: { domainsOf: () => [], report: () => {}, state: () => 'offline', target: () => undefined },
    signer: simulatedSigner('auditor'),
    secretKey: new Uint8Array(32),
    verifySignature: verifySimulated,
    clock: { now: () => now, sleep: async () => {} },
    random: seededRandom(1),
    log: silentLog,
    pause: async () => {}
  })

const recordIn = async (index: MetadataIndex): Promise<ProviderRecord> =>
  decodeRecord((await index.loadAudit()).providers.find(({ provider }) => provider === 'somebody')!.state)!

const plansOf = (outage: OutageState): Uint8Array =>
  Buffer.from(JSON.stringify({ v: 1, sampling: newSampling(now), outage }))

/** Four providers that answered, and then all of a sudden did not. */
function ownOutage(): OutageState {
  let state = newOutage()
  for (const isUp of [true, false]) {
    for (const peerId of ['a', 'b', 'c', 'd']) state = contacted(state, { now, peerId, domains: [], isUp }).state
  }
  expect(state.suspended).not.toBeNull()
  return state
}

describe('an auditor that starts', () => {
  it.each([
    ['nobody knows of any more', newOutage(), true],
    ['a provider was not told of', ownOutage(), false]
  ])('makes an end to disagreement about an outage that %s', async (_, outage, isSuspended) => {
    const index = await openSqliteIndex(':memory:')
    const state = encodeRecord(newRecord(now, isSuspended, scoreDefaults))
    await index.saveAudit({
      auditor: plansOf(outage),
      providers: [{ provider: 'somebody', state }],
      transcripts: []
    })
    const auditor = auditorOn(index)
    await auditor.load()
    await auditor.save()
    expect((await recordIn(index)).judge.isSuspended).toBe(!isSuspended)
    expect(auditor.status().ownOutage).toBe(!isSuspended)
    await index.close()
  })

  it('waits no longer for answers about shards of somebody who is to have none any more', async () => {
    const index = await openSqliteIndex(':memory:')
    const record = newRecord(now, false, scoreDefaults)
    const results = [{ cid, chunk: 0, outcome: 'timeout' as const }]
    const silent = judge(record.judge, { kind: 'batch', now, id: 'request', issuedAt: now, results }, judgeDefaults)
    // Remembered for a loss.
    const score = scored(record.score, [{ kind: 'lost', cid, outcome: 'missing', why: 'it said so', at: now }])
    await index.saveAudit({
      providers: [{ provider: 'somebody', state: encodeRecord({ ...record, judge: silent.state, score }) }],
      transcripts: []
    })
    const auditor = auditorOn(index)
    await auditor.load()
    expect(auditor.status().contained).toBe(1)
    await auditor.round(new AbortController().signal)
    expect(auditor.status().contained).toBe(0)
    await index.close()
  })
})
