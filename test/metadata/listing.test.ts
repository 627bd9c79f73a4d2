import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { MetadataIndex, ObjectIndex } from '../../src/metadata/index-store.ts'
import { type ListOptions, listWithDelimiter } from '../../src/metadata/listing.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { aBucket, anObject } from '../support/records.ts'

const byBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** An index of just these keys; counts the records that a listing makes it give. */
function indexOf(keys: readonly string[]): Pick<ObjectIndex, 'listObjects'> & { given: number; calls: number } {
  const sorted = [...new Set(keys)].sort(byBytes)
  return {
    given: 0,
    calls: 0,
    async listObjects(bucket, { prefix, after, inclusive, limit }) {
      const found = sorted.filter((key) => key.startsWith(prefix) && byBytes(key, after) >= (inclusive ? 0 : 1))
      this.given += Math.min(limit, found.length)
      this.calls += 1
      const items = found.slice(0, limit).map((key) => ({ ...anObject({ bucket, key }), contentId: 1 }))
      return { items, isTruncated: found.length > limit }
    }
  }
}

interface Shown {
  entries: string[]
  next?: string
}

/** Keys as they are, common prefixes with `>` in front, together in order. */
async function show(index: Pick<ObjectIndex, 'listObjects'>, over: Partial<ListOptions> = {}): Promise<Shown> {
  const listing = await listWithDelimiter(index, 'b', { prefix: '', delimiter: '/', after: '', limit: 1000, ...over })
  const keys = listing.objects.map(({ key }) => key)
  expect(keys).toEqual([...keys].sort(byBytes))
  expect(listing.commonPrefixes).toEqual([...listing.commonPrefixes].sort(byBytes))
  const all = [
    ...keys.map((key) => ({ key, shown: key })),
    ...listing.commonPrefixes.map((key) => ({ key, shown: `>${key}` }))
  ]
  const entries = all.sort((a, b) => byBytes(a.key, b.key)).map(({ shown }) => shown)
  expect(listing.nextAfter !== undefined).toBe(listing.isTruncated)
  return listing.nextAfter === undefined ? { entries } : { entries, next: listing.nextAfter }
}

/** The same, said without any regard for cost. */
function naive(keys: readonly string[], { prefix, delimiter, after, limit }: ListOptions): Shown {
  const group = (key: string): string | undefined => {
    const at = delimiter === '' || !key.startsWith(prefix) ? -1 : key.indexOf(delimiter, prefix.length)
    return at === -1 ? undefined : key.slice(0, at + delimiter.length)
  }
  const entries = new Map<string, string>()
  for (const key of [...new Set(keys)].sort(byBytes)) {
    if (!key.startsWith(prefix) || byBytes(key, after) <= 0) continue
    const common = group(key)
    if (common !== undefined && common === after) continue
    entries.set(common ?? key, common === undefined ? key : `>${common}`)
  }
  const shown = [...entries.values()].slice(0, limit)
  if (limit === 0 || entries.size <= limit) return { entries: shown }
  return { entries: shown, next: [...entries.keys()][limit - 1]! }
}

describe('a listing', () => {
  const photos = ['a', 'photos/', 'photos/1', 'photos/2', 'photos/3/x', 'photos0', 'z/1', 'z/2']

  test('shows a common prefix once, in its place among the keys', async () => {
    expect(await show(indexOf(photos))).toEqual({ entries: ['a', '>photos/', 'photos0', '>z/'] })
    expect(await show(indexOf(photos), { delimiter: '' })).toEqual({ entries: photos })
    expect(await show(indexOf([]))).toEqual({ entries: [] })
  })

  test('groups by what follows the prefix', async () => {
    const under = { prefix: 'photos/' }
    expect(await show(indexOf(photos), under)).toEqual({
      entries: ['photos/', 'photos/1', 'photos/2', '>photos/3/']
    })
    expect(await show(indexOf(photos), { ...under, after: 'photos/' })).toEqual({
      entries: ['photos/1', 'photos/2', '>photos/3/']
    })
    expect(await show(indexOf(photos), { prefix: 'pho' })).toEqual({ entries: ['>photos/', 'photos0'] })
  })

  test('passes over a common prefix that was the last entry, but not over one it starts within', async () => {
    expect(await show(indexOf(photos), { after: 'photos/' })).toEqual({ entries: ['photos0', '>z/'] })
    expect(await show(indexOf(photos), { after: 'photos/2' })).toEqual({ entries: ['>photos/', 'photos0', '>z/'] })
    expect(await show(indexOf(photos), { after: 'photos/4' })).toEqual({ entries: ['photos0', '>z/'] })
    expect(await show(indexOf(photos), { after: 'z/' })).toEqual({ entries: [] })
  })

  test('counts a common prefix as one entry, and says where the next page begins', async () => {
    const index = indexOf(photos)
    expect(await show(index, { limit: 2 })).toEqual({ entries: ['a', '>photos/'], next: 'photos/' })
    expect(await show(index, { limit: 2, after: 'photos/' })).toEqual({ entries: ['photos0', '>z/'] })
    expect(await show(index, { limit: 3 })).toEqual({ entries: ['a', '>photos/', 'photos0'], next: 'photos0' })
    expect(await show(index, { limit: 4 })).toEqual({ entries: ['a', '>photos/', 'photos0', '>z/'] })
    expect(await show(index, { limit: 0 })).toEqual({ entries: [] })
  })

  test('takes delimiters of any length and at the end of Unicode', async () => {
    expect(await show(indexOf(['a--1', 'a--2', 'a-3', 'b--']), { delimiter: '--' })).toEqual({
      entries: ['>a--', 'a-3', '>b--']
    })
    const last = '\u{10ffff}'
    expect(await show(indexOf([`a${last}1`, `a${last}2`, 'b', `${last}${last}`, last]), { delimiter: last })).toEqual({
      entries: [`>a${last}`, 'b', `>${last}`]
    })
    const beforeSurrogates = '\ud7ff'
    expect(
      await show(indexOf([`${beforeSurrogates}1`, `${beforeSurrogates}2`, '\ue000', '\u{1f600}']), {
        delimiter: beforeSurrogates
      })
    ).toEqual({ entries: [`>${beforeSurrogates}`, '\ue000', '\u{1f600}'] })
  })

  test('jumps over large groups instead of reading them', async () => {
    const groups = Array.from({ length: 50 }, (_, at) => `g${String(at).padStart(2, '0')}/`)
    const index = indexOf(groups.flatMap((group) => Array.from({ length: 200 }, (_, at) => `${group}${at}`)))
    expect((await show(index)).entries).toEqual(groups.map((group) => `>${group}`))
    expect(index.given).toBeLessThan(50 * 20)
  })

  test('reads a flat folder in few calls', async () => {
    const keys = Array.from({ length: 1500 }, (_, at) => `k${String(at).padStart(4, '0')}`)
    const index = indexOf(keys)
    expect((await show(index, { limit: 1000 })).entries).toEqual(keys.slice(0, 1000))
    expect(index.given).toBeLessThan(1100)
    expect(index.calls).toBeLessThan(12)
  })
})

describe('any listing', () => {
  // Few letters, so that groups, prefixes and markers meet; some beyond the surrogates, where orders differ.
  const letters = ['a', 'b', '/', '/', '-', '\ud7ff', '\ue000', '\uffff', '\u{1f600}', '\u{10ffff}']
  const word = (max: number) => fc.array(fc.constantFrom(...letters), { maxLength: max }).map((parts) => parts.join(''))
  const keyArb = word(6).filter((key) => key !== '')
  const delimiter = fc.constantFrom('/', '/', '/', '', '-', '/-', '\u{1f600}', '\u{10ffff}')
  const listing = fc.record({ prefix: word(2), delimiter, after: word(4), limit: fc.nat({ max: 8 }) })

  test('is what a naive one is', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(keyArb, { maxLength: 40 }), listing, async (keys, options) => {
        expect(await show(indexOf(keys), options)).toEqual(naive(keys, options))
      }),
      { numRuns: 1000 }
    )
  })

  test('shows everything once, page by page', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(keyArb, { maxLength: 60 }), listing, async (keys, { prefix, delimiter: by, limit }) => {
        const whole = naive(keys, { prefix, delimiter: by, after: '', limit: 1000 })
        const pages: string[] = []
        let after: string | undefined = ''
        while (after !== undefined) {
          const page = await show(indexOf(keys), { prefix, delimiter: by, after, limit: limit + 1 })
          pages.push(...page.entries)
          after = page.next
        }
        expect(pages).toEqual(whole.entries)
      }),
      { numRuns: 300 }
    )
  })

  describe('of the SQLite index', () => {
    let index: MetadataIndex
    beforeAll(async () => {
      index = await openSqliteIndex(':memory:')
    })
    afterAll(() => index.close())

    test('is what a naive one is', async () => {
      let buckets = 0
      await fc.assert(
        fc.asyncProperty(
          fc.array(keyArb, { maxLength: 40 }),
          fc.array(listing, { maxLength: 10 }),
          async (keys, all) => {
            const bucket = `b${buckets++}`
            await index.createBucket(aBucket({ name: bucket }))
            for (const key of keys) await index.commitObject(anObject({ bucket, key }), { segments: [], blocks: [] })
            const here: Pick<ObjectIndex, 'listObjects'> = {
              listObjects: (_, options) => index.listObjects(bucket, options)
            }
            for (const options of all) expect(await show(here, options)).toEqual(naive(keys, options))
          }
        ),
        { numRuns: 60 }
      )
    })
  })
})
