/** What the repair bench concludes from what health says: the arithmetic that its figures, and the tests, rest on. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  changesOf,
  costOf,
  lacking,
  leastMargin,
  leftoversOf,
  type SegmentView,
  type Snapshot,
  viewsOf
} from '../../bench/repair/margins.ts'
import { sizesOf } from '../../bench/repair/objects.ts'

/** `ab-d`: a letter a shard, the provider that has it healthy; `-` is nowhere, `!` before a letter is missing there. */
function segment(name: string, k: number, picture: string): SegmentView {
  const shards = [...picture.matchAll(/(!?)([a-z-])/g)].map(([, bang, letter], at) => ({
    cid: `${name}.${at}`,
    provider: letter === '-' ? null : letter!,
    state: letter === '-' ? 'unknown' : bang === '!' ? 'missing' : 'healthy'
  }))
  return { name, k, margin: shards.filter(({ state }) => state === 'healthy').length - k, shards }
}

const sizesFor = (snapshot: Snapshot, bytes: number): Map<string, number> =>
  new Map(snapshot.flatMap(({ shards }) => shards.map(({ cid }) => [cid, bytes] as const)))

describe('margins', () => {
  it.each([
    ['abcd', '', 2, 0],
    ['abc-', '', 1, 1],
    ['ab!cd', '', 1, 1],
    ['abcd', 'a', 1, 1],
    ['abcd', 'abd', -1, 3],
    ['!abcd', 'a', 1, 1]
  ])('%s without "%s": margin %i, %i lack', (picture, gone, margin, lacks) => {
    const snapshot = [segment('full', 2, 'efgh'), segment('s', 2, picture)]
    expect(leastMargin(snapshot, new Set(gone))).toBe(margin)
    expect(lacking(snapshot, new Set(gone))).toHaveLength(lacks)
  })

  it('never exceed what health says itself: it knows who is offline', () => {
    expect(leastMargin([{ ...segment('s', 2, 'abcd'), margin: 0 }])).toBe(0)
  })

  it('are taken from health as it is answered, copies of small blocks included', () => {
    const shards = [{ cid: 'c', provider: 'a', state: 'healthy' as const, lastProof: null }]
    const health = { code: '2+2', healthy: 1, margin: -1, refusers: 0, unplaced: null, shards }
    const views = viewsOf('key', { segments: [health], blocks: [{ ...health, code: '1+2', margin: 0 }] })
    expect(views.map(({ name, k }) => [name, k])).toEqual([
      ['key#0', 2],
      ['key/block#0', 1]
    ])
    expect(leastMargin(views)).toBe(-1)
  })
})

describe('what a repair should cost', () => {
  const before = [segment('one', 4, 'abcdefgh'), segment('two', 4, 'abcdefgh'), segment('manifest', 1, 'abc')]

  it.each([
    ['nothing moved', ['abcdefgh', 'abcdefgh', 'abc'], [0, 0, 0]],
    ['one shard: k + 1', ['xbcdefgh', 'abcdefgh', 'abc'], [1, 10, 50]],
    ['two of one segment: k + 2', ['xycdefgh', 'abcdefgh', 'abc'], [2, 20, 60]],
    ['one of each: two times k + 1', ['xbcdefgh', 'abcdefgx', 'abc'], [2, 20, 100]],
    ['a copy: read once, written once', ['abcdefgh', 'abcdefgh', 'abx'], [1, 10, 20]]
  ])('%s', (_what, pictures, [shards, movedBytes, rebuiltBytes]) => {
    const after = before.map(({ name, k }, i) => segment(name, k, pictures[i]!))
    expect(costOf(changesOf(before, after), sizesFor(before, 10))).toEqual({ shards, movedBytes, rebuiltBytes })
  })

  it('counts what was put back in its old place', () => {
    const cost = costOf(changesOf(before, before, new Set(['b one.1'])), sizesFor(before, 10))
    expect(cost).toEqual({ shards: 1, movedBytes: 10, rebuiltBytes: 50 })
  })

  it('knows that a last data shard is short, and that others are read in its place', () => {
    const sizes = sizesFor(before, 10).set('one.3', 1)
    const after = [segment('one', 4, 'abcxefgh'), ...before.slice(1)]
    expect(costOf(changesOf(before, after), sizes)).toEqual({ shards: 1, movedBytes: 1, rebuiltBytes: 41 })
  })

  it('is not guessed for blocks that nobody has seen', () => {
    const after = [segment('one', 4, 'xbcdefgh'), ...before.slice(1)]
    expect(() => costOf(changesOf(before, after), new Map())).toThrow(/one\.0/)
  })
})

describe('what is left over', () => {
  const snapshot = [segment('s', 1, 'ab')]
  const disks = (a: Record<string, number>, b: Record<string, number>) =>
    new Map([
      ['a', new Map(Object.entries(a))],
      ['b', new Map(Object.entries(b))]
    ])

  it.each([
    ['nothing', disks({ 's.0': 5 }, { 's.1': 5 }), { leaked: 0, leakedBytes: 0, missing: [] }],
    ['a block of nobody', disks({ 's.0': 5, x: 7 }, { 's.1': 5 }), { leaked: 1, leakedBytes: 7, missing: [] }],
    [
      'a copy at the wrong one',
      disks({ 's.0': 5, 's.1': 5 }, { 's.1': 5 }),
      { leaked: 1, leakedBytes: 5, missing: [] }
    ],
    ['less than nothing', disks({ 's.0': 5 }, {}), { leaked: 0, leakedBytes: 0, missing: ['b s.1'] }]
  ])('%s', (_what, found, expected) => expect(leftoversOf(snapshot, found)).toEqual(expected))
})

describe('sizes of objects', () => {
  it('come to the total that was asked for, and are the same for the same seed', () => {
    const inits = fc.record({
      seed: fc.nat(1000),
      count: fc.integer({ min: 8, max: 500 }),
      mean: fc.integer({ min: 100_000, max: 4_500_000 })
    })
    fc.assert(
      fc.property(inits, ({ seed, count, mean }) => {
        const sizes = sizesOf({ seed, count, totalBytes: mean * count })
        const total = sizes.reduce((sum, size) => sum + size, 0)
        expect(sizes).toHaveLength(count)
        expect(sizes).toEqual(sizesOf({ seed, count, totalBytes: mean * count }))
        expect(Math.min(...sizes)).toBeGreaterThanOrEqual(4096)
        // The largest stratum alone is an eighth of them, and may fall low or high.
        expect(total / (mean * count)).toBeGreaterThan(0.5)
        expect(total / (mean * count)).toBeLessThan(1.6)
      }),
      { numRuns: 50 }
    )
  })

  it('are those of the full size: 2 GiB in 500 objects, from 4 KiB to 32 MiB and somewhat more', () => {
    const sizes = sizesOf({ seed: 1, count: 500, totalBytes: 2 ** 31 })
    expect(sizes.reduce((sum, size) => sum + size, 0) / 2 ** 31).toBeCloseTo(1, 1)
    expect(Math.max(...sizes) / 2 ** 20).toBeGreaterThan(32)
    expect(Math.max(...sizes) / 2 ** 20).toBeLessThan(40)
  })
})
