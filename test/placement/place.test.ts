import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Random } from '../../src/base/random.ts'
import {
  type Candidate,
  codeFor,
  domainShardsMax,
  independentDomains,
  place,
  quorumOf
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

  it('prefers room: a provider with nine times the free space gets most of the shards', () => {
    let seed = 1
    const next = (): number => {
      seed = (seed * 48271) % 2147483647
      return seed / 2147483647
    }
    const candidates = candidatesOf([0, 1], [9000, 1000]).map((c) => ({ ...c, score: 1 }))
    let large = 0
    for (let i = 0; i < 1000; i++) {
      const { assigned } = place(
        { code: { k: 1, m: 2 }, shardBytes: 1, wanted: [0], held: [] },
        candidates,
        randomOf(next)
      )
      if (assigned.get(0)!.peerId === 'p0') large++
    }
    expect(large).toBeGreaterThan(800)
    expect(large).toBeLessThan(990)
  })
})

describe('failure domains', () => {
  it('that share any label count as one', () => {
    expect(
      independentDomains([
        { domains: ['op:a', 'net:1'] },
        { domains: ['op:b', 'net:2'] },
        { domains: ['op:c', 'net:1'] }
      ])
    ).toBe(2)
    expect(independentDomains([{ domains: ['a'] }, { domains: ['b'] }, { domains: ['a', 'b'] }])).toBe(1)
    expect(independentDomains([])).toBe(0)
  })
})

describe('the code', () => {
  it.each([
    // domains, STANDARD, REDUCED_REDUNDANCY
    [12, '6+6', '8+4'],
    [20, '10+10', '13+7'],
    [500, '10+10', '13+7'],
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
