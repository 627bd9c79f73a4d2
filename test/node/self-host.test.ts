/** A gateway that holds shards itself does it as a provider would, for itself alone. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import { judgeAnswers } from '../../src/custody/answers.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { SelfHost } from '../../src/node/self-host.ts'
import { LeaseGuard } from '../../src/transfer/lease-guard.ts'
import type { Peers } from '../../src/transfer/peers.ts'
import type { ProviderClient, ProviderRef } from '../../src/transfer/provider-client.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { requestOf } from '../support/audits.ts'

const termMs = 60_000
const bytes = Buffer.alloc(70_000, 7)
const cid = cidOfShard(bytes)

let directory: string
let identity: Identity
let selfHost: SelfHost
const asked: string[] = []
const offline = async (provider: ProviderRef): Promise<never> => {
  asked.push(provider.peerId)
  throw new HoldfastError('OFFLINE', 'nobody there')
}
const remote = new Proxy({} as ProviderClient, { get: () => offline })

const open = (): Promise<SelfHost> =>
  SelfHost.open(
    { dataDir: directory, capacityBytes: MiB },
    { signer: identity, verifySignature, clock: systemClock, random: systemRandom, log: silentLog }
  )
const ref = (peerId: string): ProviderRef => ({ peerId, dataUrls: ['https://192.0.2.1'], addresses: [] })

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'self-host-'))
  identity = await generateIdentity()
  selfHost = await open()
  asked.length = 0
})
afterEach(async () => {
  await selfHost.close()
  await rm(directory, { recursive: true })
})

test('keeps what it is given over a restart, proves it, and lets go of it', async () => {
  const client = selfHost.reachedBy(remote)
  const self = ref(identity.peerId)
  await client.putShard(self, cid, bytes, { termMs })
  await selfHost.close()
  selfHost = await open()
  const again = selfHost.reachedBy(remote)
  expect(Buffer.compare(await again.getShard(self, cid), bytes)).toBe(0)
  expect(await again.renewLeases(self, [cid], { termMs })).toEqual(['held'])
  const { request, signed } = await requestOf(identity, self.peerId, [{ cid, bytes: bytes.length, chunk: 3 }], {
    issuedAt: systemClock.now()
  })
  const answers = await again.prove(self, signed)
  expect(await judgeAnswers(request, signed.bytes, answers, { verifySignature })).toEqual({
    outcomes: ['ok'],
    countersigned: true
  })
  expect(await selfHost.kept()).toEqual({ blocks: 1, bytes: bytes.length, capacityBytes: MiB })
  await again.releaseLeases(self, [cid])
  expect(await codeOf(again.getShard(self, cid))).toBe('MISSING')
  expect((await selfHost.kept()).bytes).toBe(0)
})

test('is full when it is full', async () => {
  const client = selfHost.reachedBy(remote)
  const large = Buffer.alloc(MiB, 1)
  await client.putShard(ref(identity.peerId), cidOfShard(large), large, { termMs })
  expect(await codeOf(client.putShard(ref(identity.peerId), cid, bytes, { termMs }))).toBe('NO_SPACE')
})

test('nothing is taken before it is known who else there is', async () => {
  let isKnown = false
  const lastResort = selfHost.forRepair(new LeaseGuard(), () => isKnown)
  const shards = [cid, cid].map((one) => ({ cid: one, state: 'missing' as const, leaseUntil: 0 }))
  const segment = { id: 1, length: bytes.length, k: 1, m: 1, nonce: new Uint8Array(0), shards }
  expect(lastResort.wants(segment, [0])).toBe(false)
  isKnown = true
  expect(lastResort.wants(segment, [0])).toBe(true)
})

test('everybody else is asked as before', async () => {
  const client = selfHost.reachedBy(remote)
  expect(await codeOf(client.putShard(ref('other'), cid, bytes, { termMs }))).toBe('OFFLINE')
  expect(await codeOf(client.getShard(ref('other'), cid))).toBe('OFFLINE')
  expect(asked).toEqual(['other', 'other'])
})

test('it is there for what it holds, and no candidate for more', () => {
  const reported: string[] = []
  const others: Peers = {
    candidates: () => [{ peerId: 'other', domains: ['d'], freeBytes: 1, score: 1 }],
    target: () => undefined,
    state: () => 'offline',
    domainsOf: () => ['d'],
    lateAfterMs: () => 7,
    report: (peerId) => reported.push(peerId)
  }
  const peers = selfHost.knownTo(others)
  expect(peers.candidates()).toEqual(others.candidates())
  expect(peers.state(identity.peerId)).toBe('online')
  expect(peers.state('other')).toBe('offline')
  expect(peers.target(identity.peerId)?.peerId).toBe(identity.peerId)
  expect(peers.domainsOf(identity.peerId)).not.toEqual(peers.domainsOf('other'))
  peers.report(identity.peerId, 'missing')
  peers.report('other', 'missing')
  expect(reported).toEqual(['other'])
})
