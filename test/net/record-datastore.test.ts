import { MemoryDatastore } from 'datastore-core'
import fc from 'fast-check'
import { Key } from 'interface-datastore'
import { expect, test } from 'vitest'
import { RecordDatastore } from '../../src/net/record-datastore.ts'

const key = fc.constantFrom(
  '/peers/a',
  '/peers/b',
  '/dht/provider/x/a',
  '/dht/provider/x/b',
  '/dht/provider/xy/a',
  '/dht/record/x',
  '/single'
)
const prefix = fc.constantFrom(
  undefined,
  '/peers',
  '/peers/',
  '/dht',
  '/dht/provider',
  '/dht/provider/x',
  '/dht/provider/x/',
  '/none',
  '/s'
)

async function contents(
  store: Pick<MemoryDatastore, 'query' | 'queryKeys'>,
  wanted: string | undefined
): Promise<string[]> {
  const found: string[] = []
  for await (const { key: at, value } of store.query({ prefix: wanted })) found.push(`${at} ${value}`)
  const keys: string[] = []
  for await (const at of store.queryKeys({ prefix: wanted })) keys.push(String(at))
  expect(keys.sort()).toEqual(found.map((line) => line.split(' ')[0]).sort())
  return found.sort()
}

test('holds and finds what a plain datastore does', async () => {
  const step = fc.record({ op: fc.constantFrom('put', 'delete'), key, value: fc.nat(255) })
  await fc.assert(
    fc.asyncProperty(fc.array(step), fc.array(prefix), async (steps, prefixes) => {
      const store = new RecordDatastore()
      const plain = new MemoryDatastore()
      for (const { op, key: text, value } of steps) {
        for (const it of [store, plain]) {
          if (op === 'put') it.put(new Key(text), Uint8Array.of(value))
          else it.delete(new Key(text))
        }
        expect(store.has(new Key(text))).toBe(plain.has(new Key(text)))
        if (plain.has(new Key(text))) expect(store.get(new Key(text))).toEqual(plain.get(new Key(text)))
        else expect(() => store.get(new Key(text))).toThrow(expect.objectContaining({ name: 'NotFoundError' }))
      }
      for (const wanted of prefixes) expect(await contents(store, wanted)).toEqual(await contents(plain, wanted))
    })
  )
})

test('keeps so many of a kind, the latest', async () => {
  const store = new RecordDatastore(3)
  for (const name of ['a', 'b', 'c', 'a', 'd']) store.put(new Key(`/dht/provider/${name}/p`), Uint8Array.of(1))
  store.put(new Key('/peers/a'), Uint8Array.of(1))
  expect(await contents(store, undefined)).toEqual([
    '/dht/provider/a/p 1',
    '/dht/provider/c/p 1',
    '/dht/provider/d/p 1',
    '/peers/a 1'
  ])
})
