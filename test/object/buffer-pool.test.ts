import { expect, it } from 'vitest'
import { BufferPool } from '../../src/object/buffer-pool.ts'

it('gives whoever waits the buffer that was just given back, not a new one', async () => {
  const pool = new BufferPool(100)
  const memory = new Set<ArrayBuffer>()
  const lane = async (): Promise<void> => {
    for (let i = 0; i < 50; i++) {
      const { bytes, release } = await pool.take(50)
      memory.add(bytes.buffer)
      await Promise.resolve()
      release()
    }
  }
  // Four want what two can have: there is always somebody waiting.
  await Promise.all([lane(), lane(), lane(), lane()])
  expect(memory.size).toBe(2)
})

it('keeps no more than its budget when the sizes asked for change', async () => {
  const pool = new BufferPool(100)
  const a = await pool.take(60)
  a.release()
  const b = await pool.take(50) // 60 idle and 50 used do not fit: the old one goes
  const c = await pool.take(50)
  b.release()
  c.release()
  expect((await pool.take(50)).bytes.buffer).toBe(c.bytes.buffer)
  expect((await pool.take(50)).bytes.buffer).toBe(b.bytes.buffer)
})

it('waits for room, and forgets memory that was transferred away', async () => {
  const pool = new BufferPool(100)
  const first = await pool.take(100)
  let got = false
  const second = pool.take(10).then((buffer) => {
    got = true
    return buffer
  })
  await new Promise(setImmediate)
  expect(got).toBe(false)
  structuredClone(first.bytes, { transfer: [first.bytes.buffer] })
  first.release()
  expect((await second).bytes.byteLength).toBe(10)
})
