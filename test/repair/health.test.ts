import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ShardRecord, ShardState } from '../../src/metadata/records.ts'
import {
  classify,
  type ProviderFacts,
  type SegmentCondition,
  type ShardCondition,
  shardConditions,
  treatmentOf
} from '../../src/repair/health.ts'
import { testCid } from '../support/records.ts'

/**
 * H healthy, C contained, O offline, G gone, D draining, S kept by the gateway itself, M missing, W withdrawn, N never
 * placed; in results X crowded and L lost. A bar parts data from parity, and means nothing.
 */
const states: Record<string, ShardState> = { M: 'missing', W: 'withdrawn', N: 'unknown' }
const facts: Record<string, Omit<ProviderFacts, 'domains'>> = {
  H: { state: 'online' },
  C: { state: 'contained' },
  O: { state: 'offline' },
  G: { state: 'offline', isGone: true },
  D: { state: 'online', isDraining: true },
  S: { state: 'unknown', isSelf: true },
  M: { state: 'online' },
  W: { state: 'online' }
}
const letters: Record<ShardCondition, string> = {
  healthy: 'H',
  contained: 'C',
  offline: 'O',
  gone: 'G',
  lost: 'L',
  withdrawn: 'W',
  crowded: 'X',
  draining: 'D',
  selfHosted: 'S'
}

interface Scene {
  k: number
  m: number
  shards: ShardRecord[]
  factsOf: (provider: string) => ProviderFacts
}

/** `domains`: one letter a shard, the same for those that fail together; shards of a capital are at one provider. */
function scene(picture: string, domains = 'abcdefghijklmnopqrst', proofs: number[] = []): Scene {
  const [data = '', parity = ''] = picture.split('|')
  const known = new Map<string, ProviderFacts>()
  const shards = [...data, ...parity].map((letter, index): ShardRecord => {
    const domain = domains[index]!
    const provider = domain === domain.toUpperCase() ? `p${domain}` : `p${index}${domain}`
    known.set(provider, { ...facts[letter]!, domains: [`op:${domain}`] })
    return {
      cid: testCid(`${index}`),
      state: states[letter] ?? 'healthy',
      leaseUntil: 1,
      lastProof: proofs[index] ?? 100 - index,
      ...(letter === 'N' ? {} : { provider })
    }
  })
  return { k: data.length, m: parity.length, shards, factsOf: (provider) => known.get(provider)! }
}

const drawn = ({ conditions }: SegmentCondition, k: number): string => {
  const row = conditions.map((condition) => letters[condition])
  return `${row.slice(0, k).join('')}|${row.slice(k).join('')}`
}

const pictures: Array<
  [shards: string, domains: string, result: string, margin: number, rebuild: string, move: string]
> = [
  ['HHHH|HHHH', 'abcdefgh', 'HHHH|HHHH', 4, '', ''],
  ['HHHO|HGHH', 'abcdefgh', 'HHHO|HGHH', 2, '5', ''], // at the threshold of 2
  ['HHHH|HGHH', 'abcdefgh', 'HHHH|HGHH', 3, '', ''], // above it: it waits
  ['HHHO|HCHH', 'abcdefgh', 'HHHO|HCHH', 2, '', ''], // within grace: nothing is done
  ['MHHH|HHHH', 'abcdefgh', 'LHHH|HHHH', 3, '0', ''],
  ['NHHH|HHHW', 'abcdefgh', 'LHHH|HHHW', 2, '0 7', ''],
  ['MHHH|HGHH', 'abcdefgh', 'LHHH|HGHH', 2, '0 5', ''], // what is gone comes along
  ['HHHH|HHHD', 'abcdefgh', 'HHHH|HHHD', 4, '', ''], // it hands over by itself
  ['HHHH|HHHS', 'abcdefgh', 'HHHH|HHHS', 4, '', '7'],
  ['GGGG|HHHH', 'abcdefgh', 'GGGG|HHHH', 0, '0 1 2 3', ''],
  ['GGGG|GHHH', 'abcdefgh', 'GGGG|GHHH', -1, '0 1 2 3 4', ''],
  ['HHHH|HHHH', 'aaabcdef', 'HHXH|HHHH', 4, '', '2'], // two a domain, and the least proven goes
  ['OHHH|HHHH', 'aaabcdef', 'OHXH|HHHH', 3, '', '2'], // whoever waits has its place
  ['GHHH|HHHH', 'aaabcdef', 'GHHH|HHHH', 3, '', ''], // whoever is gone has none
  ['MHHH|HHHH', 'aaabcdef', 'LHHH|HHHH', 3, '0', ''],
  ['HHHH|HHHH', 'AAbcdefg', 'HXHH|HHHH', 4, '', '1'], // two at one provider
  ['HHHH|HHHH', 'AAAbcdef', 'HXXH|HHHH', 4, '', '1 2'],
  ['DHHH|HHHH', 'aaabcdef', 'DHXH|HHHH', 4, '', '2'],
  ['MHHH|HHHH', 'baaacdef', 'LHHX|HHHH', 3, '0', '3'],
  ['H|HHHH', 'aabcd', 'H|HHHH', 4, '', ''],
  ['H|HH', 'aabcd', 'H|XH', 2, '', '1']
]

const patience = { threshold: 2, patienceMs: 1000, goneForMs: () => 10 }
const indices = (text: string): number[] => (text === '' ? [] : text.split(' ').map(Number))

describe('health of a segment', () => {
  it.each(pictures)('%s in %s is %s: margin %i, to rebuild [%s], to move [%s]', (...row) => {
    const [shards, domains, result, margin, rebuild, move] = row
    const segment = scene(shards, domains)
    const condition = classify(segment, segment.factsOf)
    expect(drawn(condition, segment.k)).toBe(result)
    expect(condition.margin).toBe(margin)
    expect(treatmentOf(segment, condition, patience)).toMatchObject({ rebuild: indices(rebuild), move: indices(move) })
  })

  it('says why', () => {
    const { why } = classify(scene('MHHO|HGHH'), scene('MHHO|HGHH').factsOf)
    expect(why).toBe('1 offline, 1 with providers that stay away, 1 lost or never placed; 5 can be read, 4 are needed')
    expect(classify(scene('HHHH|HH'), scene('HHHH|HH').factsOf).why).toBe('all shards are healthy')
  })

  it('keeps the shard that was proved last where one is too many', () => {
    const segment = scene('HHHH|HHHH', 'aaabcdef', [1, 3, 2, 0, 0, 0, 0, 0])
    expect(drawn(classify(segment, segment.factsOf), 4)).toBe('XHHH|HHHH')
  })

  it.each([
    ['HHHHHHHH|GOOOHHHH', 'abcdefghijklmnop', 4, ''], // 7 when they are back, and 4 can be read meanwhile
    ['HHHHHHHH|GOOOOHHH', 'abcdefghijklmnop', 3, '8'], // too few can be read
    ['HHHHHHHH|GGGOHHHH', 'abcdefghijklmnop', 4, '8 9 10'], // 5 when it is back
    ['HHHHHHHH|GGGCHHHH', 'abcdefghijklmnop', 4, '8 9 10'], // who does not prove a shard may not have it
    ['HHHHHHHH|GCCCHHHH', 'abcdefghijklmnop', 4, '8']
  ])('at a threshold of 5 %s counts on whoever is offline: margin %i, to rebuild [%s]', (shards, domains, ...row) => {
    const [margin, rebuild] = row
    const segment = scene(shards, domains)
    const condition = classify(segment, segment.factsOf)
    expect(condition.margin).toBe(margin)
    expect(treatmentOf(segment, condition, { ...patience, threshold: 5 }).rebuild).toEqual(indices(rebuild))
  })

  it.each([
    ['HHHHHHHH|OOOOHHHH', ''], // 4 can be read
    ['HHHHHHHH|OOOOOHHH', '8 9 10 11 12'],
    ['OOHHHHHH|GOOOHHHH', '0 1 8 9 10 11']
  ])('at a threshold of 5 %s does not wait for who is late where few can be read: [%s]', (shards, rebuild) => {
    const segment = scene(shards, 'abcdefghijklmnop')
    const condition = classify(segment, segment.factsOf)
    const late = { ...patience, threshold: 5, isLate: () => true }
    expect(treatmentOf(segment, condition, late).rebuild).toEqual(indices(rebuild))
    const gone = shards.replace('|', '').indexOf('G')
    expect(treatmentOf(segment, condition, { ...late, isLate: () => false }).rebuild).toEqual(gone < 0 ? [] : [gone])
  })

  it('does not wait for one that has been gone for long', () => {
    const segment = scene('HHHH|HGHH')
    const condition = classify(segment, segment.factsOf)
    expect(treatmentOf(segment, condition, patience)).toEqual({ rebuild: [], move: [], isWaiting: true })
    const long = { ...patience, goneForMs: () => 1000 }
    expect(treatmentOf(segment, condition, long)).toEqual({ rebuild: [5], move: [], isWaiting: false })
  })

  it('moves what a provider has been leaving with for too long', () => {
    const segment = scene('HHHH|HHHD')
    const condition = classify(segment, segment.factsOf)
    expect(treatmentOf(segment, condition, { ...patience, isOverdue: () => true }).move).toEqual([7])
  })

  const anyScene = fc
    .record({
      letters: fc.array(fc.constantFrom(...'HHHHCOGDSMWN'), { minLength: 6, maxLength: 12 }),
      domains: fc.array(fc.constantFrom(...'abcdABC'), { minLength: 12, maxLength: 12 }),
      proofs: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 12, maxLength: 12 }),
      k: fc.integer({ min: 1, max: 4 })
    })
    .map(({ letters: row, domains, proofs, k }) =>
      scene(`${row.slice(0, k).join('')}|${row.slice(k).join('')}`, domains.join(''), proofs)
    )

  it('is the same whatever the order of the shards', () => {
    fc.assert(
      fc.property(anyScene, fc.infiniteStream(fc.nat()), ({ k, m, shards, factsOf }, order) => {
        const numbers = [...order.take(shards.length)]
        const shuffled = shards.map((_, i) => i).sort((a, b) => numbers[a]! - numbers[b]! || a - b)
        const before = classify({ k, m, shards }, factsOf)
        const after = classify({ k, m, shards: shuffled.map((i) => shards[i]!) }, factsOf)
        expect(after.conditions).toEqual(shuffled.map((i) => before.conditions[i]))
        expect({ ...after, conditions: [] }).toEqual({ ...before, conditions: [] })
      })
    )
  })

  it('counts each shard once, and leaves no healthy ones that are too many', () => {
    fc.assert(
      fc.property(anyScene, ({ k, m, shards, factsOf }) => {
        const { conditions, counts, readable, margin } = classify({ k, m, shards }, factsOf)
        expect(shardConditions.reduce((sum, condition) => sum + counts[condition], 0)).toBe(k + m)
        expect(margin).toBe(readable - k)
        const rest = shards.map((shard, i) =>
          conditions[i] === 'crowded' ? { ...shard, state: 'missing' as const } : shard
        )
        expect(classify({ k, m, shards: rest }, factsOf).counts.crowded).toBe(0)
      })
    )
  })
})
