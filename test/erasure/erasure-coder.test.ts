import { describe, expect, it } from 'vitest'
import { formatCode, parseCode } from '../../src/erasure/erasure-coder.ts'

describe('the code on the command line', () => {
  it('is read and written as K+M', () => {
    expect(parseCode('10+4')).toEqual({ k: 10, m: 4 })
    expect(formatCode({ k: 6, m: 6 })).toBe('6+6')
  })
  it.each(['', '6', '6-6', '0+2', '6+1', '200+100', '6+6 ', '6.0+6', '1e1+2'])('refuses %j with advice', (text) => {
    expect(() => parseCode(text)).toThrow(/code|parity/)
  })
})
