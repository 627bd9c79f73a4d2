import { describe, expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { dayMs, hourMs, minuteMs, secondMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/system.ts'
import {
  type DirectoryComponents,
  domainLabels,
  ProviderDirectory,
  type ProviderTarget,
  type Trust
} from '../../src/discovery/directory.ts'
import type { Offer } from '../../src/market/offer.ts'
import { withLastResort } from '../../src/repair/last-resort.ts'

interface FakeProvider {
  addresses: string[]
  isAlive: boolean
  offer: Partial<Offer>
  /** Runs while it is being asked. */
  onAsk?: () => void
}

/** A directory over providers that a test can move, kill and change, and a clock that it sets. */
function world(providers: Record<string, FakeProvider>, trust?: Record<string, Trust>, providersMax = 1000) {
  const time = { now: 1_000_000 }
  const asked: string[] = []
  const components: DirectoryComponents = {
    discovery: {
      announceProvider: () => {},
      announceRoot: () => {},
      findRoot: async function* () {},
      findProviders: async function* () {
        for (const [peerId, { addresses }] of Object.entries(providers)) yield { peerId, addresses }
      },
      findPeer: async (peerId) => ({ peerId, addresses: providers[peerId]?.addresses ?? [] })
    },
    getOffer: async ({ peerId, addresses }: ProviderTarget) => {
      asked.push(peerId)
      const provider = providers[peerId]
      const isAlive = provider?.isAlive === true
      provider?.onAsk?.()
      if (!isAlive || !addresses.includes(provider.addresses[0]!)) throw new HoldfastError('OFFLINE', 'nobody there')
      return {
        v: 1,
        peerId,
        dataUrls: ['https://127.0.0.1:1'],
        addresses: provider.addresses,
        capacityBytes: 100,
        freeBytes: 50,
        domain: peerId,
        price: 0,
        accepting: true,
        version: '1',
        issuedAt: time.now,
        ...provider.offer
      }
    },
    // Nothing here waits: deadlines never come.
    clock: {
      now: () => time.now,
      sleep: (_ms, signal) => new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    },
    random: systemRandom,
    log: silentLog,
    ...(trust === undefined ? {} : { trustOf: (peerId: string) => trust[peerId]! })
  }
  const directory = new ProviderDirectory(components, { providersMax })
  const ids = (): string[] =>
    directory
      .candidates()
      .map(({ peerId }) => peerId)
      .sort()
  return { directory, time, asked, ids }
}

const alive = (more: Partial<FakeProvider> = {}): FakeProvider => ({
  addresses: ['/a'],
  isAlive: true,
  offer: {},
  ...more
})

describe('the provider directory', () => {
  it.each([
    ['ten minutes', 10 * minuteMs, 30 * secondMs],
    ['an hour', hourMs, 4 * minuteMs],
    ['a month', 30 * dayMs, 7 * minuteMs]
  ])('knows soon who comes back after %s, and does not keep asking whoever does not', async (_what, goneMs, soonMs) => {
    const providers = { a: alive() }
    const { directory, time, asked } = world(providers)
    await directory.refresh()
    providers.a.isAlive = false
    const round = async (): Promise<void> => {
      time.now += 10 * secondMs
      await directory.refresh()
    }
    asked.length = 0
    for (let at = 0; at < goneMs; at += Math.max(10 * secondMs, goneMs / 5000)) {
      time.now += Math.max(0, goneMs / 5000 - 10 * secondMs)
      await round()
    }
    expect(directory.state('a')).toBe('offline')
    expect(asked.length).toBeLessThan(2 * Math.max(40, goneMs / (3 * minuteMs)))
    providers.a.isAlive = true
    const backAt = time.now
    while (directory.state('a') === 'offline') await round()
    expect(time.now - backAt).toBeLessThanOrEqual(soonMs + 10 * secondMs)
  })

  it('takes from others whom there is, and not what they are', async () => {
    const providers = { a: alive(), named: alive({ addresses: ['/b'] }), dead: alive({ isAlive: false }) }
    const { directory, asked, ids } = world(providers)
    await directory.introduce([
      { peerId: 'named', addresses: ['/b'] },
      { peerId: 'dead', addresses: ['/a'] }
    ])
    expect([directory.state('named'), directory.has('dead'), ids()]).toEqual(['online', false, ['named']])
    expect(['named', 'dead', 'unheard-of'].map((peerId) => directory.absentMs(peerId))).toEqual([0, 0, 0])
    asked.length = 0
    await directory.introduce([{ peerId: 'named', addresses: ['/elsewhere'] }])
    expect([asked, directory.target('named')?.addresses]).toEqual([[], ['/b']])
  })

  it('keeps nothing of strangers who come, and answer with no offer; those who were named make room', async () => {
    const dead = Array.from({ length: 5 }, (_, at) => [`dead ${at}`, alive({ isAlive: false })])
    const { directory, asked, ids } = world(Object.fromEntries([...dead, ['a', alive()]]), undefined, 4)
    for (let at = 0; at < 10; at++) await directory.meet({ peerId: `stranger ${at}`, addresses: ['/a'] })
    expect([directory.list(), asked.length]).toEqual([[], 10])
    asked.length = 0
    for (let round = 0; round < 2; round++) await directory.refresh()
    expect([ids(), asked.filter((peerId) => peerId.startsWith('stranger'))]).toEqual([['a'], []])
  })

  it('offers for new shards those that answered with an offer, take shards and have room', async () => {
    const { directory, ids } = world({
      a: alive(),
      dead: alive({ isAlive: false }),
      full: alive({ offer: { freeBytes: 0 } }),
      closed: alive({ offer: { accepting: false } }),
      draining: alive({ offer: { draining: true } })
    })
    await directory.refresh()
    expect(ids()).toEqual(['a'])
    expect([directory.isDraining('draining'), directory.isDraining('closed')]).toEqual([true, false])
    directory.saidToDrain('a')
    directory.saidToDrain('stranger')
    expect([ids(), directory.isDraining('a'), directory.isDraining('stranger')]).toEqual([[], true, false])
    expect(directory.state('dead')).toBe('offline')
    expect(directory.state('full')).toBe('online')
  })

  it('takes a provider out at the first refused connection, and back when it answers again, not before its time', async () => {
    const providers = { a: alive() }
    const { directory, time, asked, ids } = world(providers)
    const heard: string[] = []
    directory.onChange((_peerId, state) => heard.push(state))
    await directory.refresh()
    directory.report('a', 'offline')
    expect(ids()).toEqual([])
    asked.length = 0
    await directory.refresh()
    expect(asked).toEqual([])
    time.now += 10_000
    await directory.refresh()
    expect(ids()).toEqual(['a'])
    expect(heard).toEqual(['online', 'offline', 'online'])
  })

  it('asks whoever connects at once, known or not, unless it is online anyway', async () => {
    const { directory, asked, ids } = world({ a: alive(), new: alive(), moved: alive({ addresses: ['/there'] }) })
    await directory.meet({ peerId: 'a', addresses: ['/a'] })
    expect(ids()).toEqual(['a'])
    directory.report('a', 'offline')
    asked.length = 0
    await directory.meet({ peerId: 'a', addresses: [] })
    await directory.meet({ peerId: 'a', addresses: ['/a'] })
    expect(asked).toEqual(['a']) // not again: it is back
    await directory.meet({ peerId: 'new', addresses: ['/a'] })
    await directory.meet({ peerId: 'moved', addresses: ['/there'] })
    expect(ids()).toEqual(['a', 'moved', 'new'])
  })

  it('asks again whoever connects while it is asked in vain', async () => {
    const providers = { a: alive({ isAlive: false }) }
    const { directory, asked, ids } = world(providers)
    const connect = (): void => {
      Object.assign(providers.a, { isAlive: true, onAsk: undefined })
      void directory.meet({ peerId: 'a', addresses: ['/a'] })
    }
    Object.assign(providers.a, { onAsk: connect })
    await directory.refresh()
    expect(asked).toEqual(['a', 'a'])
    expect(ids()).toEqual(['a'])
  })

  it('keeps slow and gone apart, and neither is evidence', async () => {
    const { directory, ids } = world({ a: alive(), b: alive() })
    await directory.refresh()
    directory.report('a', 'timeout')
    directory.report('b', 'missing')
    expect(directory.state('a')).toBe('contained')
    expect(directory.state('b')).toBe('online')
    expect(ids()).toEqual(['b'])
    expect(directory.list().find(({ peerId }) => peerId === 'a')!.outcomes).toMatchObject({
      timeout: 1,
      missing: 0,
      offline: 0
    })
  })

  it('finds a provider that moved, by its peer id', async () => {
    const providers = { a: alive() }
    const { directory, ids } = world(providers)
    directory.remember([
      { peerId: 'a', dataUrls: ['https://127.0.0.1:1'], addresses: ['/old'], domain: 'a', lastSeenAt: 1 }
    ])
    expect(directory.state('a')).toBe('unknown')
    expect(directory.target('a')).toBeDefined()
    await directory.refresh()
    expect(ids()).toEqual(['a'])
    expect(directory.target('a')!.addresses).toEqual(['/a'])
  })

  it('is not impressed by an offer from before', async () => {
    const providers = { a: alive() }
    const { directory, time } = world(providers)
    await directory.refresh()
    time.now += 60_000
    providers.a.offer = { freeBytes: 9999, issuedAt: 5 }
    await directory.refresh()
    expect(directory.candidates()[0]!.freeBytes).toBe(50)
  })

  it('gives a provider that was found lying or losing a lower score', async () => {
    const { directory } = world({ good: alive(), bad: alive() })
    await directory.refresh()
    for (let i = 0; i < 10; i++) for (const peer of ['good', 'bad']) directory.report(peer, 'ok', 20)
    directory.report('bad', 'wrong')
    const score = Object.fromEntries(directory.candidates().map((c) => [c.peerId, c.score]))
    expect(score.bad!).toBeLessThan(score.good! * 0.6)
  })

  it('learns how late is late for each provider', async () => {
    const { directory } = world({ quick: alive(), slow: alive() })
    await directory.refresh()
    for (let i = 0; i < 50; i++) {
      directory.report('quick', 'ok', 10)
      directory.report('slow', 'ok', 900)
    }
    expect(directory.lateAfterMs('quick')).toBeLessThan(300)
    expect(directory.lateAfterMs('slow')).toBeGreaterThan(850)
  })
})

describe('what audits have shown', () => {
  const providers = { proven: alive(), young: alive(), closed: alive(), suspended: alive(), losing: alive() }
  const trust: Record<string, Trust> = {
    proven: { weight: 1, standing: 'vetted' },
    young: { weight: 0.25, standing: 'vetting' },
    closed: { weight: 0, standing: 'closed' },
    suspended: { weight: 0, standing: 'suspended', isLosing: false },
    losing: { weight: 0, standing: 'suspended', isLosing: true }
  }

  it('decides who gets new shards: the closed and the suspended for rebuilding, and then marked as a last resort', async () => {
    const { directory, ids } = world(providers, trust)
    await directory.refresh()
    expect(ids()).toEqual(['proven', 'young'])
    const all = Object.fromEntries(
      withLastResort(directory)
        .candidates()
        .map((c) => [c.peerId, c])
    )
    expect(Object.fromEntries(Object.values(all).map(({ peerId, lastResort }) => [peerId, lastResort]))).toEqual({
      proven: 0,
      young: 0,
      closed: 1,
      suspended: 2
    })
    expect(all.young!.score).toBeCloseTo(all.proven!.score / 4)
    expect(all.closed!.score).toBeGreaterThan(0) // or nothing would be left to tell it from its like
  })

  it('decides how long a read waits: half as long where they speak against a provider, not where it is new', async () => {
    const { directory } = world(providers, trust)
    await directory.refresh()
    const late = (): number[] => Object.keys(providers).map((peerId) => directory.lateAfterMs(peerId))
    expect(late()).toEqual([1000, 1000, 500, 500, 500])
    for (let i = 0; i < 50; i++) for (const peerId of Object.keys(providers)) directory.report(peerId, 'ok', 400)
    const [proven, young, ...doubtful] = late()
    expect(proven).toBeGreaterThan(400)
    expect([young, ...doubtful]).toEqual([proven, proven! / 2, proven! / 2, proven! / 2])
    expect(Object.keys(providers).map((peerId) => withLastResort(directory).standing!(peerId))).toEqual(
      Object.values(trust).map(({ standing }) => standing)
    )
  })
})

describe('failure domains', () => {
  it('are the operator, and the network where it says something', () => {
    const labels = (...dataUrls: string[]): string[] => domainLabels({ domain: 'o', dataUrls })
    expect(labels('https://8.8.4.4:1')).toEqual(['op:o', 'net:8.8.4.0/24'])
    for (const url of [
      'https://127.0.0.1:1',
      'https://10.1.2.3:1',
      'https://192.168.1.1:1',
      'https://172.20.0.1:1',
      'https://[::1]:1',
      'https://[fd00::1]:1',
      'https://example.org:1'
    ]) {
      expect(labels(url)).toEqual(['op:o'])
    }
    expect(labels('https://[2001:db8:7:1::5]:1')).toEqual(['op:o', 'net:2001:db8:7::/48'])
    expect(labels('https://[2001:db8:7:2::9]:1')).toEqual(['op:o', 'net:2001:db8:7::/48'])
  })
})
