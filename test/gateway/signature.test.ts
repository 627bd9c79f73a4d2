import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import {
  amzDate,
  canonicalRequest,
  parseAmzDate,
  sameText,
  sign,
  signingKey,
  stringToSign,
  uriEncode
} from '../../src/gateway/signature.ts'
import type { SigV4Examples } from '../support/s3-gateway.ts'

const examples = JSON.parse(
  readFileSync(new URL('../../fixtures/s3/sigv4-examples.json', import.meta.url), 'utf8')
) as SigV4Examples
const key = signingKey(examples.secretAccessKey, examples.scope)

describe("Amazon's worked examples", () => {
  for (const request of examples.requests) {
    test(request.name, () => {
      const canonical = canonicalRequest({
        ...request,
        headers: new Map(Object.entries(request.headers)),
        signedHeaders: Object.keys(request.headers).sort()
      })
      expect(sign(key, stringToSign(examples.amzDate, examples.scope, canonical))).toBe(request.signature)
    })
  }
})

describe('canonical form', () => {
  const canonical = (path: string, query: Array<[string, string]>, header = 'a'): string[] =>
    canonicalRequest({
      method: 'GET',
      path,
      query,
      headers: new Map([['x-amz-meta-a', header]]),
      signedHeaders: ['x-amz-meta-a'],
      payloadHash: 'UNSIGNED-PAYLOAD'
    }).split('\n')

  test('a path is encoded once and not normalised', () => {
    expect(canonical('/b/a//b/../c d/%41+ü', [])[1]).toBe('/b/a//b/../c%20d/%2541%2B%C3%BC')
  })

  test('parameters are sorted by their encoded bytes, then by value', () => {
    const query: Array<[string, string]> = [
      ['b', '2'],
      ['a', 'z'],
      ['B', ' /'],
      ['a', 'A'],
      ['a-', '']
    ]
    expect(canonical('/', query)[2]).toBe('B=%20%2F&a=A&a=z&a-=&b=2')
  })

  test('white space around and within header values is folded', () => {
    expect(canonical('/', [], '  a   b ')[3]).toBe('x-amz-meta-a:a b')
  })

  test('only unreserved characters stay as they are', () => {
    expect(uriEncode("AZaz09-._~ !'()*/\u{1f600}")).toBe('AZaz09-._~%20%21%27%28%29%2A%2F%F0%9F%98%80')
  })
})

test.each(['20130524T000000', '2013-05-24T00:00:00Z', '20130230T000000Z', '20130524T240000Z', ''])(
  '%j is no date',
  (text) => {
    expect(parseAmzDate(text)).toBeUndefined()
  }
)

test('dates survive both ways', () => {
  expect(amzDate(parseAmzDate('20240229T235959Z')!)).toBe('20240229T235959Z')
})

test('texts of different lengths differ', () => {
  expect(sameText('abc', 'abcd')).toBe(false)
  expect(sameText('abc', 'abd')).toBe(false)
  expect(sameText('abc', 'abc')).toBe(true)
})
