import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Arena, type Slab } from '../../src/object/arena.ts'

describe('an arena', () => {
  it('never gives one byte to two, and has all of it again in the end', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ bytes: fc.integer({ min: 0, max: 4000 }), back: fc.nat() }), { maxLength: 60 }),
        async (steps) => {
          const memory = new ArrayBuffer(12_000)
          const arena = new Arena(memory, 100, 11_000)
          const held = new Set<Slab>()
          const waiting: Promise<unknown>[] = []
          const check = (slab: Slab): void => {
            expect(slab.bytes.byteOffset).toBeGreaterThanOrEqual(100)
            expect(slab.bytes.byteOffset + slab.bytes.length).toBeLessThanOrEqual(11_000)
            for (const other of held) {
              const apart =
                other.bytes.byteOffset + other.bytes.length <= slab.bytes.byteOffset ||
                slab.bytes.byteOffset + slab.bytes.length <= other.bytes.byteOffset
              expect(apart).toBe(true)
            }
            held.add(slab)
          }
          const giveBack = (at: number): void => {
            const slab = [...held][at % held.size]!
            held.delete(slab)
            slab.release()
            slab.release()
          }
          for (const { bytes, back } of steps) {
            waiting.push(arena.take(bytes).then(check))
            await Promise.resolve()
            if (held.size > 0 && back % 3 > 0) giveBack(back)
            await new Promise(setImmediate)
          }
          while (held.size > 0) {
            giveBack(0)
            await new Promise(setImmediate)
          }
          await Promise.all(waiting)
          expect(arena.waiting).toBe(0)
          expect(arena.freeBytes).toBe(arena.capacity)
          arena.tryTake(arena.capacity)!.release() // in one piece
        }
      ),
      { numRuns: 60 }
    )
  })

  it('serves whoever waits in order, and passes over those who gave up', async () => {
    const arena = new Arena(new ArrayBuffer(1024))
    const all = await arena.take(1024)
    const order: string[] = []
    const gaveUp = new AbortController()
    const first = arena.take(600, gaveUp.signal).catch(() => order.push('gave up'))
    const second = arena.take(700).then((slab) => {
      order.push('second')
      return slab
    })
    const third = arena.take(64).then(() => order.push('third'))
    expect(arena.tryTake(1)).toBeUndefined() // not past those who wait
    gaveUp.abort(new Error('no longer wanted'))
    await first
    all.release()
    await Promise.all([second, third])
    expect(order).toEqual(['gave up', 'second', 'third'])
  })

  it('refuses what can never fit', async () => {
    await expect(new Arena(new ArrayBuffer(100)).take(101)).rejects.toMatchObject({ code: 'INTERNAL' })
  })
})
