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
  const used = await pool.take(20)
  const a = await pool.take(60)
  a.release() // idle: 60
  const b = await pool.take(70) // 20 and 70 used: the idle one must go
  b.release()
  const again = await pool.take(60)
  expect(again.bytes.buffer).not.toBe(a.bytes.buffer)
  used.release()
  again.release()
})

it('keeps a quarter of its budget when nothing is going on', async () => {
  const pool = new BufferPool(100)
  const buffers = await Promise.all([25, 25, 25, 25].map((bytes) => pool.take(bytes)))
  for (const { release } of buffers) release()
  const before = new Set(buffers.map(({ bytes }) => bytes.buffer))
  const after = await Promise.all([25, 25].map((bytes) => pool.take(bytes)))
  expect(after.filter(({ bytes }) => before.has(bytes.buffer)).length).toBe(1)
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
