import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Random } from '../../src/base/random.ts'
import {
  type Candidate,
  codeFor,
  domainShardsMax,
  independentDomains,
  place,
  placeableShards,
  quorumOf,
  roomMedians
} from '../../src/placement/place.ts'

const randomOf = (numbers: () => number): Random => ({
  next: numbers,
  int: (n) => Math.floor(numbers() * n),
  bytes: (n) => new Uint8Array(n),
  fork: () => randomOf(numbers)
})

const world = fc.record({
  m: fc.integer({ min: 2, max: 10 }),
  k: fc.integer({ min: 1, max: 10 }),
  domainOf: fc.array(fc.integer({ min: 0, max: 8 }), { minLength: 0, maxLength: 40 }),
  free: fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 40, maxLength: 40 }),
  numbers: fc.array(fc.double({ min: 0, max: 0.9999, noNaN: true }), { minLength: 8, maxLength: 8 })
})

const candidatesOf = (domainOf: number[], free: number[]): Candidate[] =>
  domainOf.map((domain, i) => ({ peerId: `p${i}`, domains: [`op:${domain}`], freeBytes: free[i]!, score: (i % 3) / 3 }))

/** Lehmer's generator: chance that can be had again. */
const seeded = (seed: number): Random => {
  let at = seed
  return randomOf(() => {
    at = (at * 48271) % 2147483647
    return at / 2147483647
  })
}

const worldWithLastResorts = fc.record({
  code: fc.record({ k: fc.integer({ min: 1, max: 6 }), m: fc.integer({ min: 2, max: 6 }) }),
  seed: fc.integer({ min: 1, max: 2 ** 31 - 2 }),
  candidates: fc
    .array(
      fc.record({
        domain: fc.integer({ min: 0, max: 6 }),
        freeBytes: fc.oneof(fc.integer({ min: 0, max: 1000 }), fc.constant(1e15)),
        score: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom(0, 1)),
        lastResort: fc.constantFrom(0 as const, 1 as const, 2 as const)
      }),
      { maxLength: 30 }
    )
    .map((all) => all.map(({ domain, ...rest }, i) => ({ peerId: `p${i}`, domains: [`op:${domain}`], ...rest })))
})

const requestFor = (code: { k: number; m: number }) => ({
  code,
  shardBytes: 100,
  wanted: Array.from({ length: code.k + code.m }, (_, i) => i),
  held: []
})

describe('placement', () => {
  it('never gives one provider two shards, one domain too many, or a full provider any', () => {
    fc.assert(
      fc.property(world, ({ k, m, domainOf, free, numbers }) => {
        let at = 0
        const candidates = candidatesOf(domainOf, free)
        const wanted = Array.from({ length: k + m }, (_, i) => i)
        const { assigned, unplaced } = place(
          { code: { k, m }, shardBytes: 100, wanted, held: [] },
          candidates,
          randomOf(() => numbers[at++ % 8]!)
        )
        const chosen = [...assigned.values()]
        expect(new Set(chosen.map((c) => c.peerId)).size).toBe(chosen.length)
        for (const domain of new Set(domainOf)) {
          expect(chosen.filter((c) => c.domains[0] === `op:${domain}`).length).toBeLessThanOrEqual(
            domainShardsMax({ k, m })
          )
        }
        expect(chosen.every((c) => c.freeBytes >= 100)).toBe(true)
        expect([...assigned.keys(), ...unplaced].sort((a, b) => a - b)).toEqual(wanted)
        // It stops only when nobody is left who fits.
        if (unplaced.length > 0) {
          const room = candidates.filter((c) => c.freeBytes >= 100 && !chosen.includes(c))
          const full = (domain: string): boolean =>
            chosen.filter((c) => c.domains[0] === domain).length >= domainShardsMax({ k, m })
          expect(room.every((c) => full(c.domains[0]!))).toBe(true)
        }
      })
    )
  })

  it('counts the shards that are already placed', () => {
    const candidates = candidatesOf([0, 1, 2], [1000, 1000, 1000])
    const { assigned, unplaced } = place(
      {
        code: { k: 1, m: 2 },
        shardBytes: 1,
        wanted: [1, 2],
        held: [{ peerId: 'p0', domains: ['op:0', 'net:x'] }],
        excluded: new Set(['p1'])
      },
      candidates,
      randomOf(() => 0.5)
    )
    expect([...assigned.values()].map((c) => c.peerId)).toEqual(['p2'])
    expect(unplaced).toEqual([2])
  })

  it('lets no domain hold so much that losing it loses the segment', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 2, max: 20 }), (k, m) => {
        expect(quorumOf({ k, m }) - domainShardsMax({ k, m })).toBeGreaterThanOrEqual(k)
        expect(quorumOf({ k, m }) - Math.ceil(m / 2)).toBeGreaterThanOrEqual(k)
      })
    )
  })

  it('gives the same plan for the same randomness', () => {
    fc.assert(
      fc.property(worldWithLastResorts, ({ candidates, code, seed }) => {
        const plan = (): Array<[number, string]> =>
          [...place(requestFor(code), candidates, seeded(seed)).assigned].map(([index, { peerId }]) => [index, peerId])
        expect(plan()).toEqual(plan())
      })
    )
  })

  it('never gives a last resort what one of the others could take', () => {
    fc.assert(
      fc.property(worldWithLastResorts, ({ candidates, code, seed }) => {
        const { assigned } = place(requestFor(code), candidates, seeded(seed))
        const chosen = [...assigned.values()]
        const perDomain = (domain: string): number => chosen.filter(({ domains }) => domains[0] === domain).length
        for (const { domains } of chosen) expect(perDomain(domains[0]!)).toBeLessThanOrEqual(domainShardsMax(code))
        expect(new Set(chosen).size).toBe(chosen.length)
        for (const { domains, lastResort = 0 } of chosen) {
          const couldHaveTaken = candidates.filter(
            (c) =>
              (c.lastResort ?? 0) < lastResort &&
              c.freeBytes >= 100 &&
              !chosen.includes(c) &&
              (c.domains[0] === domains[0] || perDomain(c.domains[0]!) < domainShardsMax(code))
          )
          expect(couldHaveTaken).toEqual([])
        }
      })
    )
  })

  it('gives last resorts what the others cannot take, be their score nothing or their space without end', () => {
    const open = candidatesOf([0, 1], [100, 100]).map((c) => ({ ...c, score: 1e-9 }))
    const closed = candidatesOf([0, 0, 2, 3], [0, 0, 1e15, 1e15])
      .slice(2)
      .map((c) => ({ ...c, score: 1, lastResort: 1 as const }))
    for (let seed = 1; seed <= 200; seed++) {
      const of = (wanted: number[]): string[] =>
        [
          ...place({ code: { k: 1, m: 3 }, shardBytes: 100, wanted, held: [] }, [...closed, ...open], seeded(seed))
            .assigned
        ]
          .map(([, { peerId }]) => peerId)
          .sort()
      expect(of([0, 1])).toEqual(['p0', 'p1'])
      expect(of([0, 1, 2, 3])).toEqual(['p0', 'p1', 'p2', 'p3'])
    }
  })

  /** How often each of these gets the one shard of a segment that is to be placed. */
  const shares = (candidates: Candidate[], draws = 4000): Map<string, number> => {
    const random = seeded(7)
    const found = new Map(candidates.map(({ peerId }) => [peerId, 0]))
    for (let i = 0; i < draws; i++) {
      const request = { code: { k: 1, m: 2 }, shardBytes: 1, wanted: [0], held: [] }
      const { peerId } = place(request, candidates, random).assigned.get(0)!
      found.set(peerId, found.get(peerId)! + 1 / draws)
    }
    return found
  }
  const many = (n: number, more: (i: number) => Partial<Candidate> = () => ({})): Candidate[] =>
    Array.from({ length: n }, (_, i) => ({
      peerId: `p${i}`,
      domains: [`op:${i}`],
      freeBytes: 1e12,
      score: 1,
      ...more(i)
    }))

  it('prefers room, up to the bound: twice the space gets twice the shards', () => {
    const of = shares(many(10, (i) => (i === 0 ? { freeBytes: 2e12 } : {})))
    expect(of.get('p0')!).toBeGreaterThan(1.7 / 11)
    expect(of.get('p0')!).toBeLessThan(2.3 / 11)
  })

  it('gives shares that follow the score, more than in proportion, and some to whoever is alone at the bottom', () => {
    const of = shares(many(10, (i) => (i === 0 ? { score: 0.25 } : i < 4 ? { score: 0.5 } : {})))
    const [lowest, middle, high] = [of.get('p0')!, of.get('p1')!, of.get('p9')!]
    expect(lowest).toBeGreaterThan(0)
    expect(lowest).toBeLessThan(0.25 * high)
    expect(middle).toBeLessThan(0.6 * high)
    expect(middle).toBeGreaterThan(lowest)
  })

  it('gives nobody more for free space beyond the bound, and a newcomer few shards whatever it says', () => {
    const atBound = roomMedians * 1e12
    const newcomer = (freeBytes: number): number =>
      shares(many(12, (i) => (i === 0 ? { freeBytes, score: 0.25 } : {}))).get('p0')!
    expect(newcomer(1e20)).toBe(newcomer(atBound))
    expect(newcomer(1e20)).toBeGreaterThan(0)
    expect(newcomer(1e20)).toBeLessThan(0.25 / 12)
    fc.assert(
      fc.property(
        fc.integer({ min: 3, max: 30 }),
        fc.integer({ min: 1, max: 2 ** 31 - 2 }),
        fc.double({ min: 1, max: 1e6, noNaN: true }),
        (n, seed, boast) => {
          const chosen = (freeBytes: number): string[] =>
            [
              ...place(
                requestFor({ k: 2, m: 2 }),
                many(n, (i) => (i === 0 ? { freeBytes } : {})),
                seeded(seed)
              ).assigned
            ].map(([, { peerId }]) => peerId)
          expect(chosen(atBound * boast)).toEqual(chosen(atBound))
        }
      )
    )
  })
})

describe('what can be placed', () => {
  it('is as much as placement places, where each provider fails with one domain', () => {
    fc.assert(
      fc.property(world, ({ k, m, domainOf, numbers }) => {
        let at = 0
        const random = randomOf(() => numbers[at++ % numbers.length]!)
        const candidates = candidatesOf(
          domainOf,
          Array.from({ length: 40 }, () => 1000)
        )
        const wanted = Array.from({ length: k + m }, (_, i) => i)
        const { assigned } = place({ code: { k, m }, shardBytes: 1, wanted, held: [] }, candidates, random)
        expect(placeableShards({ k, m }, candidates)).toBe(assigned.size)
      })
    )
  })

  it('counts two of a domain at 4+4: ten providers at five places take a whole segment', () => {
    const candidates = candidatesOf(
      [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
      Array.from({ length: 10 }, () => 1)
    )
    expect(placeableShards({ k: 4, m: 4 }, candidates)).toBe(8)
    expect(placeableShards({ k: 4, m: 4 }, candidates.slice(0, 6))).toBe(6)
  })
})

describe('failure domains', () => {
  it('are as many as there are providers of which no two share a label', () => {
    expect(
      independentDomains([
        { domains: ['op:a', 'net:1'] },
        { domains: ['op:b', 'net:2'] },
        { domains: ['op:c', 'net:1'] }
      ])
    ).toBe(2)
    expect(independentDomains([{ domains: ['a'] }, { domains: ['b'] }, { domains: ['a', 'b'] }])).toBe(2)
    expect(independentDomains([{ domains: ['a', 'b'] }, { domains: ['a'] }, { domains: ['a'] }])).toBe(1)
    expect(independentDomains([])).toBe(0)
  })

  it('have room for a shard each, whoever is drawn first', () => {
    // The last two each stand in the way of two others.
    const labels = ['op:1 net:1', 'op:2 net:2', 'op:3 net:3', 'op:4 net:4', 'op:5 net:5', 'op:1 net:2', 'op:3 net:4']
    const candidates = labels.map((label, i) => ({
      ...{ peerId: `p${i}`, domains: label.split(' ') },
      ...{ freeBytes: 1, score: 1 }
    }))
    expect(independentDomains(candidates)).toBe(5)
    const code = codeFor(5, 'STANDARD')!
    for (let seed = 1; seed <= 200; seed++) {
      const plan = place({ code, shardBytes: 1, wanted: [0, 1, 2, 3, 4], held: [] }, candidates, seeded(seed))
      expect(plan.unplaced, `seed ${seed}`).toEqual([])
    }
  })

  it('are as many whatever the order they are named in', () => {
    const labels = fc.array(fc.record({ op: fc.nat(6), net: fc.nat(6) }), { maxLength: 20 })
    fc.assert(
      fc.property(labels, fc.nat(), (those, seed) => {
        const named = those.map(({ op, net }, i) => ({
          domains: [`op:${op}`, `net:${net}`],
          at: (i * 7919 + seed) % 101
        }))
        expect(independentDomains(named.toSorted((a, b) => a.at - b.at))).toBe(independentDomains(named))
      })
    )
  })

  it('do not melt into one where every operator is in several datacenters', () => {
    const providers = Array.from({ length: 500 }, (_, i) => ({ domains: [`op:${i % 50}`, `net:${(i * 7) % 45}`] }))
    expect(independentDomains(providers)).toBeGreaterThanOrEqual(20)
    const labels = fc.array(fc.record({ op: fc.nat(8), net: fc.nat(8) }), { maxLength: 40 })
    fc.assert(
      fc.property(labels, (those) => {
        const count = independentDomains(those.map(({ op, net }) => ({ domains: [`op:${op}`, `net:${net}`] })))
        const most = (key: 'op' | 'net'): number => new Set(those.map((one) => one[key])).size
        expect(count).toBeLessThanOrEqual(Math.min(most('op'), most('net')))
        expect(independentDomains(those.map(({ op }) => ({ domains: [`op:${op}`] })))).toBe(most('op'))
      })
    )
  })
})

describe('the code', () => {
  it.each([
    // domains, STANDARD, REDUCED_REDUNDANCY
    [12, '6+6', '8+4'],
    [20, '10+10', '13+7'],
    [39, '10+10', '13+7'],
    [40, '14+12', '13+7'],
    [500, '14+12', '13+7'],
    [5, '2+3', '3+2'],
    [3, '1+2', '1+2']
  ])('of %i independent domains is %s, or %s', (domains, standard, reduced) => {
    const text = (code: { k: number; m: number } | undefined): string => `${code?.k}+${code?.m}`
    expect(text(codeFor(domains, 'STANDARD'))).toBe(standard)
    expect(text(codeFor(domains, 'REDUCED_REDUNDANCY'))).toBe(reduced)
  })
  it('is none at all where there are too few', () => {
    expect(codeFor(2, 'STANDARD')).toBeUndefined()
    expect(codeFor(0, 'REDUCED_REDUNDANCY')).toBeUndefined()
  })
})
