import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HoldfastError, isCode } from '../../src/base/errors.ts'
import { printable, table } from '../../src/cli/output.ts'
import {
  formatBytes,
  formatDuration,
  parseDuration,
  parseHostPort,
  parseObjectUrl,
  parsePort,
  parseS3Url,
  parseSize
} from '../../src/cli/units.ts'

const refused = (work: () => unknown): void => {
  expect(work).toThrow(HoldfastError)
  try {
    work()
  } catch (error) {
    expect(isCode(error, 'BAD_INPUT')).toBe(true)
  }
}

describe('durations', () => {
  it.each([
    ['500ms', 500],
    ['2s', 2000],
    ['90m', 5_400_000],
    ['1.5h', 5_400_000],
    ['1 d', 86_400_000]
  ])('takes %s', (text, ms) => {
    expect(parseDuration(text, 500, 1e9)).toBe(ms)
  })

  it.each(['', '2', 's', '-1s', '1e3s', '2w', '1h30m', '499ms', '12d', '0s'])('refuses "%s"', (text) => {
    refused(() => parseDuration(text, 500, 1e9))
  })
})

describe('sizes', () => {
  it.each([
    ['0', 0],
    ['1', 1],
    ['512B', 512],
    ['100GB', 100e9],
    ['64MiB', 64 * 2 ** 20],
    ['1.5 TB', 1.5e12],
    ['2kb', 2000],
    ['1KiB', 1024],
    ['0.5KiB', 512]
  ])('takes %s', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes)
  })

  it.each([
    '',
    ' ',
    'GB',
    '-1',
    '+1',
    '1e9',
    '0x10',
    '1,5GB',
    '1.GB',
    '.5GB',
    '1 G B',
    '10G',
    '10K',
    '1.5',
    '1.5B',
    '9007199254740993',
    '99999PB',
    '1iB',
    '1GBx',
    '\u0661GB',
    'NaN',
    'Infinity'
  ])('refuses "%s"', (text) => refused(() => parseSize(text)))

  it('takes nothing but sizes, and gives whole bytes', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), (text) => {
        try {
          const bytes = parseSize(text)
          return Number.isSafeInteger(bytes) && bytes >= 0 && /^\s*\d/.test(text)
        } catch (error) {
          return isCode(error, 'BAD_INPUT')
        }
      })
    )
  })

  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [1500, '1.5 kB'],
    [99_949, '99.9 kB'],
    [99_950, '100 kB'],
    [999_949, '1000 kB'],
    [999_950, '1.0 MB'],
    [20e9, '20.0 GB'],
    [5e18, '5000 PB']
  ])('shows %d bytes as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })

  it.each([
    [0, '0s'],
    [59_400, '59s'],
    [59_600, '1m 00s'],
    [3_599_000, '59m 59s'],
    [7_500_000, '2h 05m'],
    [90_000_000, '1d 01h'],
    [-5, '0s']
  ])('shows %d ms as %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text)
  })
})

describe('addresses', () => {
  it('takes host and port', () => {
    expect(parseHostPort('127.0.0.1:4001')).toEqual({ host: '127.0.0.1', port: 4001 })
    expect(parseHostPort('[::1]:0')).toEqual({ host: '::1', port: 0 })
    expect(parseHostPort('storage-1.example.org:65535')).toEqual({ host: 'storage-1.example.org', port: 65_535 })
    for (const text of [
      '4001',
      ':4001',
      '127.0.0.1',
      '127.0.0.1:',
      '127.0.0.1:65536',
      '::1:4001',
      '[::1]',
      'a b:1',
      'http://a:1',
      'a:1/x',
      '-a:1',
      'a:-1',
      'a:1 '
    ]) {
      refused(() => parseHostPort(text))
    }
    for (const text of ['', '-1', '65536', '1.5', '80a', ' 80']) refused(() => parsePort(text))
  })

  it('takes keys as they stand', () => {
    expect(parseS3Url('s3://bucket')).toEqual({ bucket: 'bucket', key: '' })
    expect(parseS3Url('s3://bucket/')).toEqual({ bucket: 'bucket', key: '' })
    expect(parseS3Url('s3://')).toEqual({ bucket: '', key: '' })
    expect(parseS3Url('s3://b/a//b/../c%20?x#y\n')).toEqual({ bucket: 'b', key: 'a//b/../c%20?x#y\n' })
    for (const text of ['', 'bucket/key', 'S3://b/k', 's3:/b/k', 'https://b/k']) refused(() => parseS3Url(text))
    for (const text of ['s3://', 's3://b', 's3://b/', 's3:///k']) refused(() => parseObjectUrl(text))
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z0-9.-]{3,20}$/),
        fc.string({ minLength: 1, unit: 'grapheme' }),
        (bucket, key) => {
          expect(parseObjectUrl(`s3://${bucket}/${key}`)).toEqual({ bucket, key })
        }
      )
    )
  })
})

describe('output', () => {
  it('lets no name drive the terminal', () => {
    expect(printable('a\u001b[31mb\r\u0007\u009b\n')).toBe('a\\x1b[31mb\\x0d\\x07\\x9b\n')
    expect(printable('schön \u2603')).toBe('schön \u2603')
  })

  it('lines columns up', () => {
    const rows = [
      { name: 'a', size: 5 },
      { name: 'longer', size: 1234 }
    ]
    const text = table(rows, [
      { title: 'NAME', value: (row) => row.name },
      { title: 'SIZE', value: (row) => String(row.size), align: 'right' }
    ])
    expect(text).toBe(['NAME    SIZE', 'a          5', 'longer  1234'].join('\n'))
  })
})
