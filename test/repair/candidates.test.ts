/** How what there is to repair is found, over an index with more than is looked at in a round. */
import { expect, test } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { minuteMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { cidOfShard } from '../../src/content/cid.ts'
import type { StoredSegment } from '../../src/metadata/records.ts'
import { Candidates } from '../../src/repair/candidates.ts'
import { Presence } from '../../src/repair/presence.ts'

const graceMs = minuteMs
const cid = cidOfShard(new Uint8Array([1]))

/** So many segments with a shard at each of these, all of whom are gone. */
async function world(perProvider: Record<string, number>) {
  const clock: Clock & { time: number } = { time: 1_800_000_000_000, now: () => clock.time, sleep: async () => {} }
  const providers = Object.keys(perProvider)
  const looked = new Map(providers.map((provider) => [provider, new Set<number>()]))
  const presence = new Presence(
    {
      index: { listHolders: async () => [], loadPresence: async () => [], savePresence: async () => {} },
      stateOf: () => 'offline',
      clock,
      log: silentLog
    },
    { graceMs }
  )
  for (const provider of providers) presence.changed(provider, 'online')
  clock.time++
  for (const provider of providers) presence.changed(provider, 'offline')
  clock.time += 2 * graceMs
  const segmentOf = (id: number, provider: string): StoredSegment => ({
    ...{ id, length: 1, k: 1, m: 1, nonce: new Uint8Array(0) },
    shards: [
      { cid, provider, state: 'healthy', leaseUntil: 0 },
      { cid, state: 'unknown', leaseUntil: 0 }
    ]
  })
  let pauses = 0
  const candidates = new Candidates({
    index: {
      listIncomplete: async () => [],
      listSegments: async () => [],
      listHeldSegments: async (provider, { after, limit }) => {
        const from = after?.index ?? 0
        const count = Math.min(limit, perProvider[provider]! - from)
        for (let at = from; at < from + count; at++) looked.get(provider)!.add(at)
        const base = providers.indexOf(provider) * 1_000_000
        const segments = Array.from({ length: count }, (_, at) => segmentOf(base + from + at, provider))
        const isLast = from + count === perProvider[provider]
        return isLast ? { segments } : { segments, next: { leaseUntil: 0, segmentId: 0, index: from + count } }
      }
    },
    ...{ presence, clock, peerId: 'self', isSettling: () => false, pause: async () => void pauses++ },
    peers: { state: () => 'offline', domainsOf: (provider) => [provider] }
  })
  return { candidates, presence, clock, looked, pauses: () => pauses }
}

test('all segments of whoever is gone are looked at, though others come and go all the time', async () => {
  const { candidates, looked } = await world({ a: 5000 })
  for (let round = 0; round < 4; round++) {
    candidates.changed()
    await candidates.find()
  }
  expect(looked.get('a')!.size).toBe(5000)
})

test('one that is gone with very much does not keep the others waiting', async () => {
  const { candidates, looked } = await world({ a: 100_000, b: 300, c: 300 })
  for (let round = 0; round < 3; round++) await candidates.find()
  expect([looked.get('b')!.size, looked.get('c')!.size]).toEqual([300, 300])
})

test('those who are late, and will probably be back, are looked at as well, behind those who are gone', async () => {
  const { candidates, presence, clock, looked } = await world({ gone: 2100, late: 50 })
  // Absences of half an hour, many of them: it is waited for.
  for (let i = 0; i < 20; i++) {
    presence.changed('late', 'online')
    clock.time += 30 * graceMs
    presence.changed('late', 'offline')
    clock.time += 30 * graceMs
  }
  presence.changed('late', 'online')
  clock.time += 1
  presence.changed('late', 'offline')
  clock.time += 2 * graceMs
  expect([presence.isGone('gone'), presence.isGone('late'), presence.isLate('late')]).toEqual([true, false, true])
  const first = await candidates.find()
  expect([looked.get('gone')!.size, looked.get('late')!.size]).toEqual([2000, 0])
  expect(first.isTruncated).toBe(true)
  const second = await candidates.find()
  expect([looked.get('gone')!.size, looked.get('late')!.size]).toEqual([2100, 50])
  // Nothing of it can be read.
  expect(
    second.candidates.some(({ segment, treatment }) => segment >= 1_000_000 && treatment.rebuild.includes(0))
  ).toBe(true)
})

test('what has changed meanwhile is looked at once more', async () => {
  const { candidates, looked } = await world({ a: 3000 })
  await candidates.find()
  candidates.changed()
  await candidates.find() // the rest of it
  looked.get('a')!.clear()
  for (let round = 0; round < 2; round++) await candidates.find()
  expect(looked.get('a')!.size).toBe(3000)
})

test('clients are served between its pages', async () => {
  const { candidates, pauses } = await world({ a: 2000 })
  await candidates.find()
  expect(pauses()).toBeGreaterThanOrEqual(20)
})
