import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ShardRecord, ShardState } from '../../src/metadata/records.ts'
import { Claims } from '../../src/repair/claims.ts'
import { type SeatView, seatOf } from '../../src/repair/report-rules.ts'
import { testCid } from '../support/records.ts'

const states: Record<string, ShardState> = { o: 'healthy', x: 'missing', w: 'withdrawn', u: 'unknown', g: 'healthy' }

/**
 * A 4+4 segment as a picture: o healthy, x missing, w withdrawn, u not placed, g at a provider that has gone. Shard i is at
 * `p{i}`; domains are the letters below, and that of anybody else is its own name.
 */
function scene(picture: string, domains = 'abcdefgh') {
  const shards = [...picture].map((letter, i): ShardRecord => {
    const at = letter === 'u' ? {} : { provider: `p${i}` }
    return { cid: testCid(`shard ${i}`), state: states[letter]!, leaseUntil: 1, ...at }
  })
  const gone = new Set([...picture].flatMap((letter, i) => (letter === 'g' ? [`p${i}`] : [])))
  const view = (over: Partial<SeatView> = {}): SeatView => ({
    isLost: ({ state, provider }) => state !== 'healthy' || gone.has(provider!),
    domainsOf: (provider) => [`op:${domains[Number(/^p(\d)$/.exec(provider)?.[1])] ?? provider}`],
    isOnline: () => true,
    standing: () => 'vetted',
    refusers: new Set(),
    ...over
  })
  const seat = (index: number, provider: string, over?: Partial<SeatView>, seated = new Map<number, string>()) => {
    const found = seatOf({ k: 4, m: 4, shards }, { cid: testCid(`shard ${index}`), provider }, seated, view(over))
    return 'why' in found ? found.why : found.index
  }
  return { seat }
}

describe('a reported holder', () => {
  it('fills what is lost, and nothing else', () => {
    const { seat } = scene('oxwugooo')
    expect([0, 1, 2, 3, 4, 5, 9].map((index) => seat(index, 'new'))).toEqual([
      ...['not-needed', 1, 2, 3, 4],
      ...['not-needed', 'unknown']
    ])
  })

  it('may be the one that lost it, and not one that has another shard', () => {
    const { seat } = scene('oxoooooo')
    expect(seat(1, 'p1')).toBe(1)
    expect(seat(1, 'p0')).toBe('holds-another')
    // What this very report has just filled counts.
    expect(scene('xxoooooo').seat(1, 'new', {}, new Map([[0, 'new']]))).toBe('holds-another')
    expect(scene('xxoooooo').seat(0, 'new', {}, new Map([[0, 'other']]))).toBe('not-needed')
  })

  it('does not fill up a domain', () => {
    // Two of a domain is as many as a 4+4 segment may have there.
    const two = { domainsOf: (p: string) => [p === 'new' || p === 'p2' || p === 'p3' ? 'op:z' : `op:${p}`] }
    expect(scene('oxoooooo').seat(1, 'new', two)).toBe('crowded')
    expect(scene('oxoxoooo').seat(1, 'new', two)).toBe(1)
    expect(scene('oxogoooo').seat(1, 'new', two)).toBe(1)
  })

  it('is trusted by its own record, is there, and has not refused', () => {
    const { seat } = scene('oxoooooo')
    expect(seat(1, 'new', { standing: () => 'closed' })).toBe('untrusted')
    expect(seat(1, 'new', { standing: () => 'suspended' })).toBe('untrusted')
    expect(seat(1, 'new', { standing: () => 'vetting' })).toBe(1)
    expect(seat(1, 'new', { isOnline: () => false })).toBe('unreachable')
    expect(seat(1, 'new', { refusers: new Set(['new']) })).toBe('refused')
  })
})

describe('claims', () => {
  const someCids = ['a', 'b', 'c', 'd'].map(testCid)
  const copies = [testCid('a'), testCid('a'), testCid('a')]

  it('of proved holders come before said ones, and spread where they can', () => {
    const claims = new Claims()
    for (const cid of someCids) claims.claim('everything', cid)
    claims.claim('one', someCids[1]!)
    expect(claims.assign(someCids)).toEqual(['everything', 'one', 'everything', 'everything'])
    claims.show('two', someCids[0]!, true)
    expect(claims.assign(someCids)[0]).toBe('two')
    claims.show('everything', someCids[3]!, false)
    expect(claims.assign(someCids)[3]).toBeUndefined()
    expect(claims.refuted(someCids)).toEqual(new Set(['everything']))
  })

  it('of copies are of as many providers', () => {
    const claims = new Claims()
    for (const provider of ['p', 'q']) claims.claim(provider, copies[0]!)
    expect(claims.assign(copies)).toEqual(['p', 'q', undefined])
  })

  it('never rely on what was refuted, nor on one provider for two copies, whatever comes in which order', () => {
    const event = fc.record({
      provider: fc.constantFrom('p', 'q', 'r'),
      at: fc.nat(3),
      kind: fc.constantFrom('claim', 'true', 'false')
    })
    fc.assert(
      fc.property(fc.array(event, { maxLength: 20 }), fc.boolean(), (events, isCopies) => {
        const claims = new Claims()
        const cids = isCopies ? copies : someCids
        for (const { provider, at, kind } of events) {
          if (kind === 'claim') claims.claim(provider, someCids[at]!)
          else claims.show(provider, someCids[at]!, kind === 'true')
        }
        const assigned = claims.assign(cids)
        for (const [i, provider] of assigned.entries()) {
          if (provider === undefined) continue
          expect(claims.claimants(cids[i]!)).toContain(provider)
          expect(claims.shown(provider, cids[i]!)).not.toBe(false)
        }
        const used = assigned.filter((provider) => provider !== undefined)
        if (isCopies) expect(new Set(used).size).toBe(used.length)
      })
    )
  })
})
