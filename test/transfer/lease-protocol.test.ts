import { randomBytes } from 'node:crypto'
import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { limits } from '../../src/base/limits.ts'
import { cidOfShard, decodeCid } from '../../src/content/cid.ts'
import { leaseAnswer, leaseRequest, statusAnswer, statusRequest } from '../../src/transfer/lease-protocol.ts'

const codecs = { leaseRequest, leaseAnswer, statusRequest, statusAnswer }
/** As decoding makes it: a plain byte array inside. */
const cid = decodeCid(cidOfShard(randomBytes(1)).bytes)
const protocolError = expect.objectContaining({ code: 'PROTOCOL' })

const messages: { [name in keyof typeof codecs]: ReadonlyArray<Parameters<(typeof codecs)[name]['encode']>[0]> } = {
  leaseRequest: [
    { v: 1, op: 'renew', cids: [cid, cid], termMs: 1000 },
    { v: 1, op: 'release', cids: [] }
  ],
  leaseAnswer: [
    { v: 1, states: ['held', 'missing', 'refused'] },
    { v: 1, error: { code: 'BAD_INPUT', message: 'why' } }
  ],
  statusRequest: [{ v: 1, cids: [cid] }],
  statusAnswer: [{ v: 1, has: [true, false], capacityBytes: 1, usedBytes: 2, blocks: 3, leases: 4, version: '5' }]
}

test('what is encoded comes back', () => {
  for (const [name, codec] of Object.entries(codecs)) {
    for (const message of messages[name as keyof typeof codecs]) {
      expect(codec.decode(codec.encode(message as never))).toEqual(message)
    }
  }
})

test('a full batch fits a message, a fuller one is refused', () => {
  const cids = Array.from({ length: limits.leaseBatchMax }, () => cidOfShard(randomBytes(8)))
  const bytes = leaseRequest.encode({ v: 1, op: 'renew', cids, termMs: limits.committedLeaseMs })
  expect(bytes.length).toBeLessThan(limits.rpcBytesMax)
  expect(leaseRequest.decode(bytes)).toMatchObject({ cids: { length: limits.leaseBatchMax } })
  expect(() => leaseRequest.decode(leaseRequest.encode({ v: 1, op: 'release', cids: [...cids, cid] }))).toThrow(
    protocolError
  )
  expect(() => statusRequest.decode(statusRequest.encode({ v: 1, cids: [...cids, cid] }))).toThrow(protocolError)
})

test('an unknown version, field, operation or state is refused', () => {
  const refused: Array<[keyof typeof codecs, unknown]> = [
    ['leaseRequest', { v: 2, op: 'release', cids: [] }],
    ['leaseRequest', { v: 1, op: 'release', cids: [], more: true }],
    ['leaseRequest', { v: 1, op: 'steal', cids: [] }],
    ['leaseRequest', { v: 1, op: 'renew', cids: [], termMs: 0 }],
    ['leaseRequest', { v: 1, op: 'renew', cids: [], termMs: 1.5 }],
    ['leaseRequest', { v: 1, op: 'release', cids: ['bafkqaaa'] }],
    ['leaseRequest', { v: 1, op: 'release', cids: [{ code: 0x55, version: 1 }] }],
    ['leaseAnswer', { v: 1, states: ['perhaps'] }],
    ['leaseAnswer', { v: 1, error: { code: 'X', message: 'y'.repeat(5000) } }],
    ['statusRequest', { v: 1 }],
    ['statusAnswer', { v: 1, has: [], capacityBytes: -1, usedBytes: 0, blocks: 0, leases: 0, version: '' }]
  ]
  for (const [name, message] of refused)
    expect(() => codecs[name].decode(dagCbor.encode(message))).toThrow(protocolError)
})

test('garbage, nesting and changed bytes are refused or read as some valid message, and nothing else escapes', () => {
  const damaged = fc.constantFrom(...Object.entries(codecs)).chain(([name, codec]) =>
    fc.record({
      codec: fc.constant(codec),
      bytes: fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })).map(([at, change]) => {
          const bytes = Uint8Array.from(codec.encode(messages[name as keyof typeof codecs][0] as never))
          bytes[at % bytes.length]! ^= change
          return bytes
        })
      )
    })
  )
  fc.assert(
    fc.property(damaged, ({ codec, bytes }) => {
      try {
        expect(codec.decode(bytes)).toMatchObject({ v: 1 })
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
    { numRuns: 500 }
  )
  expect(() => leaseRequest.decode(new Uint8Array(limits.rpcBytesMax).fill(0x81))).toThrow(protocolError)
})
