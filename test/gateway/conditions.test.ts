import { describe, expect, test } from 'vitest'
import {
  evaluate,
  honoursRange,
  parseRange,
  type ReadConditions,
  writeCondition
} from '../../src/gateway/conditions.ts'

const version = { etag: 'abc', modifiedAt: Date.parse('2024-01-01T00:00:10.700Z') }
const before = 'Mon, 01 Jan 2024 00:00:09 GMT'
const same = 'Mon, 01 Jan 2024 00:00:10 GMT'
const after = 'Mon, 01 Jan 2024 00:00:11 GMT'

const outcome = (conditions: ReadConditions): string => {
  try {
    return evaluate(conditions, version)
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe('read conditions', () => {
  test.each<[string, ReadConditions, string]>([
    ['none', {}, 'proceed'],
    ['If-Match holds', { ifMatch: '"abc"' }, 'proceed'],
    ['If-Match, unquoted', { ifMatch: 'abc' }, 'proceed'],
    ['If-Match, any', { ifMatch: '*' }, 'proceed'],
    ['If-Match, one of several', { ifMatch: '"x", "abc"' }, 'proceed'],
    ['If-Match fails', { ifMatch: '"x"' }, 'PreconditionFailed'],
    ['If-Match holds, so the date is not looked at', { ifMatch: '"abc"', ifUnmodifiedSince: before }, 'proceed'],
    ['If-Match fails whatever the date says', { ifMatch: '"x"', ifUnmodifiedSince: after }, 'PreconditionFailed'],
    ['unmodified since then', { ifUnmodifiedSince: same }, 'proceed'],
    ['modified since then', { ifUnmodifiedSince: before }, 'PreconditionFailed'],
    ['If-None-Match, another', { ifNoneMatch: '"x"' }, 'proceed'],
    ['If-None-Match, the same', { ifNoneMatch: 'W/"abc"' }, 'not-modified'],
    ['If-None-Match differs, so the date is not looked at', { ifNoneMatch: '"x"', ifModifiedSince: after }, 'proceed'],
    [
      'If-None-Match is the same whatever the date says',
      { ifNoneMatch: '"abc"', ifModifiedSince: before },
      'not-modified'
    ],
    ['modified since', { ifModifiedSince: before }, 'proceed'],
    ['not modified since, to the second', { ifModifiedSince: same }, 'not-modified'],
    ['a date that is none', { ifModifiedSince: 'yesterday', ifUnmodifiedSince: 'tomorrow' }, 'proceed']
  ])('%s', (_name, conditions, expected) => {
    expect(outcome(conditions)).toBe(expected)
  })
})

test('write conditions lose their quotes', () => {
  expect(writeCondition(new Map([['if-match', '"abc"']]))).toEqual({ condition: { ifMatch: 'abc' } })
  expect(writeCondition(new Map([['if-none-match', '*']]))).toEqual({ condition: { ifNoneMatch: '*' } })
  expect(writeCondition(new Map())).toEqual({})
})

describe('ranges of ten bytes', () => {
  test.each<[string, [number, number] | 'ignored' | 'InvalidRange']>([
    ['bytes=0-0', [0, 1]],
    ['bytes=2-5', [2, 6]],
    ['bytes=2-', [2, 10]],
    ['bytes=-3', [7, 10]],
    ['bytes=-30', [0, 10]],
    ['bytes=5-99999999999999999999', [5, 10]],
    ['bytes=9-9', [9, 10]],
    ['bytes=10-', 'InvalidRange'],
    ['bytes=10-20', 'InvalidRange'],
    ['bytes=-0', 'InvalidRange'],
    ['bytes=5-2', 'ignored'],
    ['bytes=-', 'ignored'],
    ['bytes=a-b', 'ignored'],
    ['bytes=0-1,3-4', 'ignored'],
    ['lines=0-1', 'ignored']
  ])('%s', (header, expected) => {
    if (expected === 'InvalidRange') {
      expect(() => parseRange(header, 10)).toThrow(
        expect.objectContaining({ code: 'InvalidRange', headers: { 'content-range': 'bytes */10' } })
      )
    } else if (expected === 'ignored') expect(parseRange(header, 10)).toBeUndefined()
    else expect(parseRange(header, 10)).toEqual({ start: expected[0], end: expected[1] })
  })

  test('of an empty object there is no range', () => {
    expect(() => parseRange('bytes=0-', 0)).toThrow(expect.objectContaining({ code: 'InvalidRange' }))
  })
})

test.each<[string | undefined, boolean]>([
  [undefined, true],
  ['"abc"', true],
  ['"x"', false],
  [same, true],
  [before, false]
])('If-Range %s', (header, expected) => {
  expect(honoursRange(header, version)).toBe(expected)
})
