/** The gateway's side of a hand-over: what it answers, and what it takes to be believed. */
import { afterEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { limits, minuteMs } from '../../src/base/limits.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { signTicket } from '../../src/market/ticket.ts'
import { domainShardsMax } from '../../src/placement/place.ts'
import type { HandOverPlace, PlacedBlock } from '../../src/transfer/hand-over-protocol.ts'
import { copiesAt, has, segmentAt, startWorld, type World, type WorldProvider } from '../support/hand-over-world.ts'

const worlds: World[] = []
const started = async (providers: number, gateways = 1) => {
  const world = await startWorld(providers, gateways)
  worlds.push(world)
  return { world, gateway: world.gateways[0]!, providers: world.providers, leaver: world.providers[0]! }
}
afterEach(async () => {
  for (const { gateways } of worlds.splice(0)) for (const { index } of gateways) await index.close()
})

const where = async (
  { gateways: [gateway] }: World,
  from: WorldProvider,
  cids: readonly CID[],
  avoid: string[] = []
): Promise<HandOverPlace[]> => {
  const answer = await gateway!.handOver.answer(from.peerId, {
    ...{ v: 1, op: 'where', cids: [...cids], reason: 'drain', avoid }
  })
  return 'places' in answer ? answer.places : []
}
const done = async ({ gateways: [gateway] }: World, from: WorldProvider, placed: PlacedBlock[]): Promise<boolean[]> => {
  const answer = await gateway!.handOver.answer(from.peerId, { v: 1, op: 'done', placed })
  return 'accepted' in answer ? answer.accepted : []
}
type Given = Extract<HandOverPlace, { ticket: Uint8Array }>
const given = (place: HandOverPlace | undefined): Given => {
  if (place === undefined || !('ticket' in place)) throw new Error(`not a place: ${JSON.stringify(place)}`)
  return place
}
/** Puts the block where it is to go, as an honest provider does. */
const bring = async (world: World, from: WorldProvider, cid: CID, place: Given): Promise<PlacedBlock> => {
  const to = world.providers.find(({ peerId }) => peerId === place.to.peerId)!
  await to.storage.put(world.gateways[0]!.peerId, cid, await from.storage.get(cid), 60_000)
  return { cid, to: place.to.peerId, ticket: place.ticket }
}

describe('where', () => {
  test('a shard goes to a provider that has none of its segment, in a domain that has room', async () => {
    const { world, gateway, providers, leaver } = await started(7)
    providers[4]!.domain = providers[1]!.domain // 2+2: one shard a domain
    providers[5]!.storage.setDraining(true)
    const segments = Array.from({ length: 6 }, () => segmentAt(providers.slice(0, 4)))
    expect(domainShardsMax(segments[0]!)).toBe(1)
    await gateway.store(segments)
    const places = await where(
      world,
      leaver,
      segments.map(({ shards }) => shards[0]!.cid)
    )
    expect(new Set(places.map((place) => given(place).to.peerId))).toEqual(new Set([providers[6]!.peerId]))
  })

  test('a batch is spread over those who can take it', async () => {
    const { world, gateway, providers, leaver } = await started(10)
    const segments = Array.from({ length: 30 }, () => segmentAt(providers.slice(0, 4)))
    await gateway.store(segments)
    const places = await where(
      world,
      leaver,
      segments.map(({ shards }) => shards[0]!.cid)
    )
    const counts = Map.groupBy(places, (place) => given(place).to.peerId)
    expect(counts.size).toBe(6)
    for (const group of counts.values()) expect(group.length).toBeLessThanOrEqual(10)
  })

  test('two shards of one segment never go to the same provider, asked for together or apart', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    // Crowded: the one that leaves has two shards.
    const segment = segmentAt([leaver, leaver, ...providers.slice(1, 3)])
    await gateway.store([segment])
    const [a, b] = segment.shards.map(({ cid }) => cid) as [CID, CID]
    const together = (await where(world, leaver, [a, b])).map((place) => given(place).to.peerId)
    expect(new Set(together).size).toBe(2)
    const apart = [await where(world, leaver, [a]), await where(world, leaver, [b])].map(
      ([one]) => given(one).to.peerId
    )
    expect(apart).toEqual(together)
  })

  test('asked again it says the same, unless that one is to be avoided or is gone', async () => {
    const { world, gateway, providers, leaver } = await started(7)
    const segment = segmentAt(providers.slice(0, 4))
    await gateway.store([segment])
    const { cid } = segment.shards[0]!
    const first = given((await where(world, leaver, [cid]))[0])
    const second = given((await where(world, leaver, [cid]))[0])
    expect([first.again, second.again, second.to]).toEqual([false, true, first.to])
    const third = given((await where(world, leaver, [cid], [first.to.peerId]))[0])
    expect(third.to.peerId).not.toBe(first.to.peerId)
    providers.find(({ peerId }) => peerId === third.to.peerId)!.isAlive = false
    const fourth = given((await where(world, leaver, [cid], [first.to.peerId]))[0])
    expect([first.to.peerId, third.to.peerId]).not.toContain(fourth.to.peerId)
  })

  test('nobody to take it is said, and the segment is left to others', async () => {
    const { world, gateway, providers, leaver } = await started(4)
    const segment = segmentAt(providers)
    await gateway.store([segment])
    const { cid } = segment.shards[0]!
    expect(await where(world, leaver, [cid])).toMatchObject([{ keep: true, why: 'nobody' }])
    const ids = (await gateway.index.listSegments({ afterId: 0, limit: 1 })).map(({ id }) => id)
    expect(await gateway.index.claimSegments(ids, { claimant: 'repair', until: 9e15, now: 0 })).toEqual(ids)
    expect(await where(world, leaver, [cid])).toMatchObject([{ keep: true, why: 'busy' }])
  })

  test('a shard known to be lost there has a place, and its segment is left to repair', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segment = segmentAt(providers.slice(0, 4))
    await gateway.store([segment])
    const { cid } = segment.shards[0]!
    await gateway.index.markHolding(leaver.peerId, cid, 'missing')
    given((await where(world, leaver, [cid]))[0])
    const ids = (await gateway.index.listSegments({ afterId: 0, limit: 1 })).map(({ id }) => id)
    const claim = { claimant: 'repair', until: Date.now() + minuteMs, now: Date.now() }
    expect(await gateway.index.claimSegments(ids, claim)).toEqual(ids)
  })

  test('who asks again and again, and brings nothing, holds up repair for some minutes and no longer', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segment = segmentAt(providers.slice(0, 4))
    await gateway.store([segment])
    const { cid } = segment.shards[0]!
    const ids = (await gateway.index.listSegments({ afterId: 0, limit: 1 })).map(({ id }) => id)
    let freeAfterMinutes = 0
    for (; freeAfterMinutes < 60; freeAfterMinutes += 0.5) {
      const now = world.clock.now()
      const claimed = await gateway.index.claimSegments(ids, { claimant: 'repair', until: now + 1, now })
      if (freeAfterMinutes > 0 && claimed.length > 0) break
      await gateway.index.unclaimSegments(ids, 'repair')
      given((await where(world, leaver, [cid]))[0])
      world.advance(minuteMs / 2)
    }
    expect(freeAfterMinutes).toBeGreaterThanOrEqual(2)
    expect(freeAfterMinutes).toBeLessThanOrEqual(5)
  })

  test('a refuser of the block gets it never, nor does whoever asks', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segment = segmentAt(providers.slice(0, 4))
    await gateway.store([segment])
    const { cid } = segment.shards[0]!
    const signed = new Uint8Array(1)
    await gateway.index.recordRefusals(
      [leaver, providers[4]!].map(({ peerId: provider }) => ({ provider, cid, at: 1, signed })),
      Date.now()
    )
    // The one that asks has refused it itself: the shard is withdrawn, and handed over all the same.
    expect(given((await where(world, leaver, [cid]))[0]).to.peerId).toBe(providers[5]!.peerId)
  })

  test('nor does who refused another shard of its segment: the gateway has heard only of what it had', async () => {
    const { world, gateway, providers, leaver } = await started(6)
    const segment = segmentAt(providers.slice(0, 4))
    await gateway.store([segment])
    const refusal = { cid: segment.shards[1]!.cid, at: 1, signed: new Uint8Array(1) }
    for (const { peerId } of providers.slice(4))
      await gateway.index.recordRefusals([{ provider: peerId, ...refusal }], Date.now())
    expect(await where(world, leaver, [segment.shards[0]!.cid])).toMatchObject([{ keep: true, why: 'nobody' }])
  })

  test('what the gateway needs no longer is released; what it never leased there is nothing to it', async () => {
    const { world, gateway, leaver } = await started(5)
    const bytes = Buffer.from('left of an upload that failed')
    const [stray, never] = [cidOfShard(bytes), cidOfShard(Buffer.from('never seen'))]
    await leaver.storage.put(gateway.peerId, stray, bytes, 60_000)
    expect(await where(world, leaver, [stray, never])).toEqual([{ release: true }, { release: true }])
    expect(await has(leaver, stray)).toBe(false)
    expect(await gateway.index.listReleaseProviders()).toEqual([])
  })

  test('a block of a write that is not committed yet is not released', async () => {
    const { world, gateway, leaver } = await started(5)
    const bytes = Buffer.from('of an upload under way')
    const cid = cidOfShard(bytes)
    const letGo = await gateway.guard.hold(leaver.peerId, cid)
    await leaver.storage.put(gateway.peerId, cid, bytes, 60_000)
    expect(await where(world, leaver, [cid])).toMatchObject([{ keep: true, why: 'busy' }])
    expect(await has(leaver, cid)).toBe(true)
    letGo()
    expect(await where(world, leaver, [cid])).toEqual([{ release: true }])
  })
})

describe('done', () => {
  const scene = async () => {
    const found = await started(6)
    const segment = segmentAt(found.providers.slice(0, 4))
    const node = copiesAt(found.providers.slice(0, 3))
    await found.gateway.store([segment], [node])
    const stored = await found.gateway.index.listSegments({ afterId: 0, limit: 2 })
    const providerOf = async (at: number) => (await found.gateway.index.getSegment(stored[at]!.id))!.shards[0]!.provider
    return { ...found, cid: segment.shards[0]!.cid, node: node.shards[0]!.cid, stored, providerOf }
  }

  test('a shard, and a node, that are proved to be there move, and the old lease ends', async () => {
    const { world, gateway, leaver, cid, node, providerOf } = await scene()
    const places = (await where(world, leaver, [cid, node])).map(given)
    const placed = [await bring(world, leaver, cid, places[0]!), await bring(world, leaver, node, places[1]!)]
    expect(await done(world, leaver, placed)).toEqual([true, true])
    expect([await providerOf(0), await providerOf(1)]).toEqual(places.map(({ to }) => to.peerId))
    await gateway.release()
    expect([await has(leaver, cid), await has(leaver, node)]).toEqual([false, false])
    // The answer was lost: it is said again, and changes nothing.
    expect(await done(world, leaver, placed)).toEqual([true, true])
    await gateway.release()
    for (const [at, { to }] of places.entries()) {
      const holder = world.providers.find(({ peerId }) => peerId === to.peerId)!
      expect(await has(holder, [cid, node][at]!)).toBe(true)
    }
  })

  test('a new holder whose move was not committed is not bound for long', async () => {
    const { world, gateway, leaver, cid } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const placed = await bring(world, leaver, cid, place)
    gateway.index.placeShards = async () => {
      throw new Error('the gateway is killed')
    }
    await expect(done(world, leaver, [placed])).rejects.toThrow('killed')
    const holder = world.providers.find(({ peerId }) => peerId === place.to.peerId)!
    const lease = await holder.leases.get(gateway.peerId, cid)
    expect(lease!.until).toBeLessThanOrEqual(world.clock.now() + limits.provisionalLeaseMs)
  })

  test('who says so and has not done it changes nothing, and may try again', async () => {
    const { world, gateway, leaver, cid, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const said = { cid, to: place.to.peerId, ticket: place.ticket }
    expect(await done(world, leaver, [said])).toEqual([false])
    expect(await providerOf(0)).toBe(leaver.peerId)
    await gateway.release()
    expect(await has(leaver, cid)).toBe(true)
    const next = given((await where(world, leaver, [cid]))[0])
    expect(await done(world, leaver, [await bring(world, leaver, cid, next)])).toEqual([true])
  })

  test('a new holder that says it keeps the block, and does not have it, is not believed', async () => {
    const { world, leaver, cid, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    world.providers.find(({ peerId }) => peerId === place.to.peerId)!.isLiar = true
    expect(await done(world, leaver, [{ cid, to: place.to.peerId, ticket: place.ticket }])).toEqual([false])
    expect(await providerOf(0)).toBe(leaver.peerId)
  })

  test('a place that the gateway did not choose is none, with the block there or not', async () => {
    const { world, gateway, leaver, providers, cid, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const other = providers.slice(4).find(({ peerId }) => peerId !== place.to.peerId)!
    const [forged, foreign] = await Promise.all(
      [gateway.peerId, leaver.peerId].map((owner) => {
        const ticket = { v: 1 as const, owner, from: leaver.peerId, to: other.peerId, cid }
        return signTicket({ ...ticket, termMs: 1000, notAfter: Date.now() + minuteMs }, leaver.identity)
      })
    )
    await bring(world, leaver, cid, { ...place, to: { ...place.to, peerId: other.peerId } })
    for (const ticket of [forged!, foreign!, place.ticket, Uint8Array.of(1)]) {
      expect(await done(world, leaver, [{ cid, to: other.peerId, ticket }])).toEqual([false])
    }
    // Nor may one speak with another's ticket.
    const placed = await bring(world, leaver, cid, place)
    expect(await done(world, other, [placed])).toEqual([false])
    expect(await providerOf(0)).toBe(leaver.peerId)
    expect(await done(world, leaver, [placed])).toEqual([true])
  })

  test('a gateway that died in between knows its ticket', async () => {
    const { world, gateway, leaver, cid, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    gateway.restart()
    expect(await done(world, leaver, [await bring(world, leaver, cid, place)])).toEqual([true])
    expect(await providerOf(0)).toBe(place.to.peerId)
  })

  test('a provider that died in between holds up others no longer than its claim', async () => {
    const { world, gateway, leaver, cid, stored } = await scene()
    const { id } = stored[0]!
    given((await where(world, leaver, [cid]))[0])
    const claim = async (): Promise<number[]> => {
      const now = Date.now() + elapsed
      return await gateway.index.claimSegments([id], { claimant: 'repair', until: now + 1, now })
    }
    let elapsed = 0
    expect(await claim()).toEqual([])
    elapsed = 3 * minuteMs
    expect(await claim()).toEqual([id])
  })

  test('a provider that asks again and again, and brings nothing, does not keep repair away for ever', async () => {
    const { world, gateway, leaver, cid, stored } = await scene()
    const { id } = stored[0]!
    const told: number[] = []
    for (let minute = 0; minute < 60; minute++) {
      await where(world, leaver, [cid])
      world.advance(minuteMs)
      const now = world.clock.now()
      const claim = { claimant: 'repair', until: now + 1, now }
      if ((await gateway.index.claimSegments([id], claim)).length > 0) told.push(minute)
      await gateway.index.unclaimSegments([id], 'repair')
    }
    expect(told.length).toBeGreaterThan(10)
    // An honest one is let in again.
    world.advance(30 * minuteMs)
    expect(given((await where(world, leaver, [cid]))[0]).to.peerId).toBeDefined()
  })

  test('a holder too busy to prove it keeps it, and is asked again: it does not travel twice', async () => {
    const { world, gateway, leaver, cid, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const holder = world.providers.find(({ peerId }) => peerId === place.to.peerId)!
    const placed = await bring(world, leaver, cid, place)
    const { prove } = gateway.client
    gateway.client.prove = () => Promise.reject(new HoldfastError('TIMEOUT', 'too busy'))
    expect(await done(world, leaver, [placed])).toEqual([false])
    gateway.client.prove = prove
    await gateway.release()
    expect([await has(holder, cid), await has(leaver, cid)]).toEqual([true, true])
    const again = given((await where(world, leaver, [cid]))[0])
    expect([again.again, again.to]).toEqual([true, place.to])
    expect(await done(world, leaver, [{ cid, to: again.to.peerId, ticket: again.ticket }])).toEqual([true])
    expect(await providerOf(0)).toBe(holder.peerId)
  })

  test('what a holder was not able to prove is let go there, where nobody remembers that it was to have it', async () => {
    const { world, gateway, leaver, cid } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const holder = world.providers.find(({ peerId }) => peerId === place.to.peerId)!
    const placed = await bring(world, leaver, cid, place)
    gateway.client.prove = () => Promise.reject(new HoldfastError('TIMEOUT', 'too busy'))
    gateway.restart()
    expect(await done(world, leaver, [placed])).toEqual([false])
    await gateway.release()
    expect([await has(holder, cid), await has(leaver, cid)]).toEqual([false, true])
  })

  test('while somebody else works on the segment nothing moves, and nothing is lost', async () => {
    const { world, gateway, leaver, cid, stored, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const placed = await bring(world, leaver, cid, place)
    world.advance(3 * minuteMs)
    const now = Date.now() + 3 * minuteMs
    await gateway.index.claimSegments([stored[0]!.id], { claimant: 'repair', until: now + minuteMs, now })
    expect(await done(world, leaver, [placed])).toEqual([false])
    expect(await providerOf(0)).toBe(leaver.peerId)
    world.advance(2 * minuteMs)
    const again = given((await where(world, leaver, [cid]))[0])
    expect([again.again, again.to]).toEqual([true, place.to])
    expect(await done(world, leaver, [{ cid, to: again.to.peerId, ticket: again.ticket }])).toEqual([true])
  })

  test('a release of the same block that waited meanwhile takes nothing away that was counted on', async () => {
    const { world, gateway, leaver, cid, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const holder = world.providers.find(({ peerId }) => peerId === place.to.peerId)!
    await gateway.index.queueReleases([{ provider: holder.peerId, cid }])
    const placed = await bring(world, leaver, cid, place)
    // It comes between the proof and the commit.
    const { prove } = gateway.client
    gateway.client.prove = async (...args) => {
      const answers = await prove(...args)
      await gateway.release()
      return answers
    }
    expect(await done(world, leaver, [placed])).toEqual([true])
    await gateway.release()
    expect([await providerOf(0), await has(holder, cid), await has(leaver, cid)]).toEqual([holder.peerId, true, false])
  })

  test('a place that does not suit any more is given up, and what was brought there let go', async () => {
    const { world, gateway, leaver, cid, stored, providerOf } = await scene()
    const place = given((await where(world, leaver, [cid]))[0])
    const placed = await bring(world, leaver, cid, place)
    // Repair has put another shard of the segment there meanwhile.
    const segment = stored[0]!
    await gateway.index.placeShards([
      {
        ...{ segmentId: segment.id, index: 1, cid: segment.shards[1]!.cid, provider: place.to.peerId },
        ...{ leaseUntil: 9e12, at: 1 }
      }
    ])
    expect(await done(world, leaver, [placed])).toEqual([false])
    expect(await providerOf(0)).toBe(leaver.peerId)
    await gateway.release()
    expect(await has(world.providers.find(({ peerId }) => peerId === place.to.peerId)!, cid)).toBe(false)
  })
})

test('one request of a provider at a time: another is told to come again', async () => {
  const { world, gateway, providers, leaver } = await started(6)
  const segment = segmentAt(providers.slice(0, 4))
  await gateway.store([segment])
  const { cid } = segment.shards[0]!
  const outcomes = await Promise.allSettled([where(world, leaver, [cid]), where(world, leaver, [cid])])
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
  expect(await where(world, leaver, [cid])).toHaveLength(1)
})
