import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DataSource } from '../../bench/data.ts'
import { collect, expectSame, figureOf, measureRow, quantileOf, timed, WrongAnswerError } from '../../bench/harness.ts'

describe('a figure', () => {
  it('is the median of its samples, with the least and the most, and keeps them all in their order', () => {
    expect(figureOf('MB/s', [3, 1, 2])).toEqual({ unit: 'MB/s', median: 2, min: 1, max: 3, samples: [3, 1, 2] })
    expect(figureOf('MB/s', [4, 1, 3, 2]).median).toBe(2.5)
  })

  it('is not made of nothing, nor of what is no number', () => {
    expect(() => figureOf('MB/s', [])).toThrow(RangeError)
    expect(() => figureOf('MB/s', [1, Number.POSITIVE_INFINITY])).toThrow(RangeError)
  })

  it('has quantiles between its neighbours', () => {
    expect([0, 0.25, 0.5, 0.99, 1].map((q) => quantileOf([0, 10, 20], q))).toEqual([0, 5, 10, 19.8, 20])
  })
})

describe('sampling', () => {
  const signal = new AbortController().signal

  it('throws the warm-ups away, and nothing else', async () => {
    let taken = 0
    expect(await collect({ warmups: 2, samples: 3 }, async () => ++taken, signal)).toEqual([3, 4, 5])
  })

  it('gives no time for a wrong answer', async () => {
    const right = Buffer.from('right')
    const verify = (answer: Buffer): void => expectSame(answer, right, 'the test')
    expect((await timed(() => Buffer.from('right'), verify)).seconds).toBeGreaterThanOrEqual(0)
    await expect(timed(() => Buffer.from('wrong'), verify)).rejects.toThrow(WrongAnswerError)
    await expect(
      measureRow({
        id: 'x',
        label: 'x',
        units: { rate: 'MB/s' },
        sampling: { warmups: 0, samples: 1 },
        signal,
        take: async () => ({ rate: (await timed(() => Buffer.from('wrong'), verify)).seconds })
      })
    ).rejects.toThrow(WrongAnswerError)
  })

  it('stops when it is told to', async () => {
    const stop = new AbortController()
    const work = collect({ warmups: 0, samples: 1000 }, async () => stop.abort(new Error('enough')), stop.signal)
    await expect(work).rejects.toThrow('enough')
  })
})

describe('the data of a benchmark', () => {
  const source = new DataSource(7)
  const bytesOf = (index: number, size: number): Buffer => Buffer.concat([...source.object(index, size).chunks()])

  it('is the same for the same seed, and other for other seeds and objects', () => {
    const [mine, again, otherSeed] = [source, new DataSource(7), new DataSource(8)].map((one) =>
      Buffer.concat([...one.object(3, 5000).chunks()])
    )
    expect(mine!.equals(again!)).toBe(true)
    expect(mine!.equals(otherSeed!)).toBe(false)
    expect(mine!.equals(bytesOf(4, 5000))).toBe(false)
  })

  it('has the size asked for, past the end of the block it repeats', () => {
    const size = 40 * 1024 * 1024 + 17
    const bytes = bytesOf(16, size)
    expect(bytes.length).toBe(size)
    source.object(16, size).verify(0, bytes)
  })

  it('accepts its own bytes in any pieces, and refuses a flipped bit, a shift, and too many', () => {
    const size = 300_000
    const bytes = bytesOf(5, size)
    const object = source.object(5, size)
    fc.assert(
      fc.property(fc.nat(size - 1), fc.nat(size), fc.nat(7), (a, length, bit) => {
        const piece = Buffer.from(bytes.subarray(a, a + Math.max(1, length)))
        object.verify(a, piece)
        const at = length % piece.length
        piece[at] = piece[at]! ^ (1 << bit)
        expect(() => object.verify(a, piece)).toThrow(WrongAnswerError)
      }),
      { numRuns: 50 }
    )
    expect(() => object.verify(1, bytes.subarray(0, 4096))).toThrow(WrongAnswerError)
    expect(() => object.verify(0, Buffer.concat([bytes, Buffer.of(0)]))).toThrow(WrongAnswerError)
  })
})
