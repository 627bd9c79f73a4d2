import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { figureOf } from '../../bench/harness.ts'
import {
  formatFigure,
  formatNumber,
  renderReport,
  renderResult,
  renderSummary,
  replaceFigures
} from '../../bench/report.ts'
import {
  fileNameOf,
  parseResult,
  type Result,
  type Row,
  readResults,
  schemaVersion,
  withOtherParts,
  writeResult
} from '../../bench/result.ts'
import { floorOf } from '../../bench/throughput/floor.ts'

const limitRow = (id: string, cpu: number): Row => ({
  id,
  label: `the ${id}`,
  figures: { rate: figureOf('MB/s', [1000 / cpu]), cpu: figureOf('CPU-s/GB', [cpu]) }
})

const limits = [
  limitRow('tls', 4),
  limitRow('blake3', 0.25),
  limitRow('md5', 2),
  limitRow('aes', 0.5),
  limitRow('encode-6+6', 8)
]

const result: Result = {
  schemaVersion,
  name: 'throughput',
  title: 'Throughput through S3',
  scale: 'full',
  seed: 1,
  startedAt: '2026-01-02T03:04:05.678Z',
  finishedAt: '2026-01-02T03:14:05.678Z',
  commit: { hash: 'a'.repeat(40), dirty: true },
  machine: {
    cpu: 'Abacus',
    cores: 2,
    memoryBytes: 8e9,
    platform: 'linux x64',
    kernel: '6.1',
    node: '22.23.3',
    fileSystem: 'ext4',
    loadBefore: 0.5
  },
  parameters: { providers: 12, code: '6+6' },
  notes: ['It was raining.'],
  limits,
  rows: [
    {
      id: 'put-64MiB-c1',
      label: 'PUT 64 MiB, 1 at once',
      figures: {
        rate: figureOf('MB/s', [50, 40, 60]),
        gatewayCpu: figureOf('CPU-s/GB', [20]),
        providersCpu: figureOf('CPU-s/GB', [18])
      }
    }
  ]
}

describe('numbers', () => {
  it.each([
    [0, '0'],
    [0.01234, '0.0123'],
    [1.005, '1.00'],
    [52.14, '52.1'],
    [999.6, '1000'],
    [123_456, '123000'],
    [-3.16159, '-3.16']
  ])('%d is written %s', (value, text) => expect(formatNumber(value)).toBe(text))

  it('show how far the samples spread', () => {
    expect(formatFigure(figureOf('ms', [3, 1, 2]))).toBe('2.00 (1.00 to 3.00)')
    expect(formatFigure(figureOf('ms', [3]))).toBe('3.00')
  })
})

describe('a report', () => {
  it('has the figures, the machine, the commit and what a reader has to know', () => {
    const text = renderReport([result])
    for (const part of [
      '50.0 (40.0 to 60.0)',
      'Abacus, 2 cores',
      'aaaaaaaaaaaa with changes not committed',
      'seed 1',
      'It was raining.'
    ]) {
      expect(text).toContain(part)
    }
    expect(text).not.toContain('smoke')
  })

  it('marks a smoke run as one, and keeps it in a file of its own', () => {
    expect(renderResult({ ...result, scale: 'smoke' })).toContain('smoke size: not to be quoted')
    expect([result, { ...result, scale: 'smoke' as const }].map(fileNameOf)).toEqual([
      'throughput.json',
      'throughput.smoke.json'
    ])
  })

  it('sets what was measured beside the sum of the steps', () => {
    const sum = (steps: ReadonlyArray<{ cpu: number }>): number => steps.reduce((total, { cpu }) => total + cpu, 0)
    const { put, get } = floorOf(limits, { k: 6, m: 6 })
    expect(sum(put)).toBe(2 + 0.5 + 8 + 2 * 2 * 0.25 + 2 * 4)
    expect(sum(get)).toBe(4 + 0.25 + 0.5)
    expect(renderResult(result)).toContain('| PUT 64 MiB, 1 at once | 19.5 | 38.0 | 1.95 |')
  })

  it('has a summary for the front page', () => {
    const text = renderSummary([result])
    expect(text).toContain('| PUT 64 MiB, 1 at once | 50.0 (40.0 to 60.0) | 20.0 | 18.0 |')
    expect(text).toContain('| the blake3 | 4000 | 0.250 |')
  })

  it('has what a network that healed took on the front page', () => {
    const figures = {
      toFull: figureOf('s', [10, 20, 30]),
      moved: figureOf('MB', [100]),
      overTheory: figureOf('x', [1.01]),
      leastMargin: figureOf('shards', [3]),
      failedReads: figureOf('%', [0]),
      leftOver: figureOf('MB', [0])
    }
    const parameters = { providers: 12, objects: 500, objectBytes: 2e9, code: '4+4', offlineGrace: '2s' }
    const rows = [{ id: 'kills', label: 'killed for good', figures }]
    const repaired = { ...result, name: 'repair', limits: undefined, parameters, rows }
    const text = renderSummary([repaired])
    expect(text).toContain('Every one of 12 providers replaced')
    expect(text).toContain('| killed for good | 20.0 (10.0 to 30.0) | 1.01 | 3.00 | 0 |')
    const claim = /byte for byte, and no segment was ever seen below k/
    for (const whole of [text, renderResult(repaired)]) expect(whole).toMatch(claim)
    const failed = { ...repaired, failures: ['drains: wrong answer'] }
    for (const part of [renderSummary([failed]), renderResult(failed)]) {
      expect(part).not.toMatch(claim)
      expect(part).toContain('**Failed:** drains: wrong answer')
    }
  })
})

describe('the markers of the front page', () => {
  const [begin, end] = ['<!-- figures:begin -->', '<!-- figures:end -->']

  it('keep what is around them, however often it is done', () => {
    const once = replaceFigures(`a\n${begin}\nold\n${end}\nb\n`, 'new')
    expect(once).toBe(`a\n${begin}\nnew\n${end}\nb\n`)
    expect(replaceFigures(once, 'new')).toBe(once)
  })

  it.each(['', begin, end, `${end}${begin}`, `${begin}${begin}${end}`])('are not guessed in %j', (text) => {
    expect(() => replaceFigures(text, 'new')).toThrow(/once each/)
  })
})

describe('result files', () => {
  it('are refused when they are of another schema, or have what nobody knows', () => {
    expect(parseResult(JSON.stringify(result))).toEqual(result)
    expect(() => parseResult(JSON.stringify({ ...result, schemaVersion: 0 }))).toThrow()
    expect(() => parseResult(JSON.stringify({ ...result, surprise: 1 }))).toThrow()
  })

  it('keep the parts that were not measured anew, each with the run that it is of', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-result-'))
    try {
      const figures = { rate: figureOf('MB/s', [1]) }
      const row = (id: string): Row => ({ id, label: id, figures })
      const first = { ...result, name: 'repair', limits: undefined, rows: [row('kills'), row('drains')] }
      const failures = ['domains: none came back']
      expect(await withOtherParts(directory, { ...first, failures }, ['kills', 'drains', 'domains'])).toEqual({
        ...first,
        failures
      })
      await writeResult(directory, { ...first, failures })
      const startedAt = '2026-03-04T03:04:05.678Z'
      const next = { ...first, startedAt, rows: [row('domains'), row('drains')] }
      const both = await withOtherParts(directory, next, ['domains', 'drains'])
      const run = { startedAt: first.startedAt, commit: first.commit, loadBefore: 0.5 }
      expect(both).toEqual({ ...next, rows: [{ ...row('kills'), run }, row('domains'), row('drains')] })
      await writeResult(directory, both)
      const last = await withOtherParts(directory, { ...next, rows: [row('drains')] }, ['drains'])
      expect(last.rows.map(({ id, run: of }) => [id, of?.startedAt])).toEqual([
        ['kills', first.startedAt],
        ['domains', startedAt],
        ['drains', undefined]
      ])
      expect(renderResult(last)).toContain('| kills (2026-01-02, aaaaaaaaaaaa, load 0.500) |')
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  it('are what the committed tables are made of', async () => {
    const directory = new URL('../../bench/results/', import.meta.url)
    const files = await readdir(directory)
    const results = await readResults(directory.pathname)
    expect(results.every(({ scale }) => scale === 'full')).toBe(true)
    if (!files.includes('README.md')) return expect(results).toEqual([]) // nothing was recorded yet
    expect(await readFile(new URL('README.md', directory), 'utf8')).toBe(renderReport(results))
  })
})

describe('retrieval under churn', () => {
  const side = (name: string, success: number, ms: number): Row => ({
    id: `weibull/${name}`,
    label: `weibull, ${name}`,
    figures: {
      success: figureOf('share', [success]),
      firstByteMsP50: figureOf('ms', [ms]),
      readMsP95: figureOf('ms', [2 * ms]),
      decodeRate: figureOf('share', [0.25]),
      repairTraffic: figureOf('bytes a byte', [1.5]),
      meanMargin: figureOf('shards', [3]),
      lostObjects: figureOf('objects', [0])
    }
  })
  const live: Result = {
    ...result,
    name: 'live',
    limits: undefined,
    parameters: { providers: 24, speed: 60 },
    rows: [
      side('live', 0.995, 321),
      { id: 'margins-weibull/live', label: 'looks', figures: { at: figureOf('s', [1, 2, 3]) } },
      side('simulated', 0.999, 123),
      { id: 'agreement-weibull/success', label: 'weibull: success', figures: { isWithin: figureOf('1: yes', [1]) } }
    ],
    failures: ['weibull: too slow']
  }

  it('stands beside what the simulator said, with the verdict, the plot and what failed', () => {
    const text = renderResult(live)
    expect(text).toContain('|  | weibull, live | weibull, simulated |')
    expect(text).toContain('| firstByteMsP50, ms | 321 | 123 |')
    expect(text).toContain('| weibull: success | 1.00 |')
    expect(text).toContain('| looks | 2.00 (1.00 to 3.00) |')
    expect(text).toContain('![live-margins](live-margins.svg)')
    expect(text).toContain('**Failed:** weibull: too slow')
    expect(renderResult({ ...live, scale: 'smoke' })).toContain('(live-margins.smoke.svg)')
  })

  it('has its lines on the front page', () => {
    const text = renderSummary([live])
    expect(text).toContain('24 providers, 60 times as fast | success, share | firstByteMsP50, ms |')
    expect(text).toContain('| weibull, live | 0.995 | 321 | 642 | 0.250 | 1.50 | 3.00 | 0 |')
    expect(text).toContain('**Failed:** weibull: too slow')
    expect(text).not.toContain('looks')
  })

  it('has the worst of them on the front page too: what there was none of is a dash', () => {
    const { firstByteMsP50: _none, readMsP95: _neither, ...figures } = side('live', 0, 1).figures
    const text = renderSummary([{ ...live, rows: [{ ...side('live', 0, 1), figures }, side('simulated', 0.9, 1)] }])
    expect(text).toContain('| weibull, live | 0 | – | – | 0.250 | 1.50 | 3.00 | 0 |')
    expect(renderResult({ ...live, rows: [{ ...side('live', 0, 1), figures }, side('simulated', 0.9, 1)] })).toContain(
      ['| success, share | 0 | 0.900 |', '| firstByteMsP50, ms | – | 1.00 |', '| readMsP95, ms | – | 2.00 |'].join('\n')
    )
  })
})
