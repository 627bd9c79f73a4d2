import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { CID, cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import type { Signer } from '../../src/market/offer.ts'
import {
  decodeReport,
  encodeReport,
  frameReport,
  type HeldRow,
  type RepairReport,
  reportBytesMax,
  reportRowsMax,
  reportsIn
} from '../../src/market/repair-report.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'

const root = CID.decode(cidOfNode(codecs.dagCbor, Buffer.from('root')).bytes)
const shard = (text: string): CID => CID.decode(cidOfShard(Buffer.from(text)).bytes)

let helper: Signer
beforeAll(async () => {
  helper = await generateIdentity()
})

const row = (index: number, over: Partial<HeldRow> = {}): HeldRow => ({
  segment: 0,
  index,
  cid: shard(`shard ${index}`),
  provider: `p${index}`,
  isRebuilt: index % 2 === 0,
  ...over
})

function aReport(over: Partial<RepairReport> = {}): Omit<RepairReport, 'helper'> {
  return {
    root,
    at: 1000,
    providers: [0, 1].map((i) => ({ peerId: `p${i}`, dataUrls: [`https://192.0.2.${i}:1`], addresses: [] })),
    held: [row(0), row(1, { segment: null })],
    unhelped: [{ segment: 0, index: 2, cid: shard('gone'), why: 'unplaced' }],
    ...over
  }
}

const codeOf = async (work: Promise<unknown>): Promise<string> =>
  await work.then(
    () => 'resolved',
    (error: unknown) => (error instanceof HoldfastError ? error.code : 'another error')
  )

describe('a repair report', () => {
  test('comes back as it was made, with the name of its signer', async () => {
    const bytes = await encodeReport(aReport(), helper)
    expect(await decodeReport(bytes, verifySignature)).toEqual({ ...aReport(), helper: helper.peerId })
  })

  test('is refused with any byte of it altered, left out or added', async () => {
    const bytes = await encodeReport(aReport(), helper)
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const altered = Uint8Array.from(bytes)
        altered[at]! ^= change
        expect(await codeOf(decodeReport(altered, verifySignature))).toBe('BAD_INPUT')
        expect(await codeOf(decodeReport(bytes.subarray(0, at), verifySignature))).toBe('BAD_INPUT')
        const longer = Buffer.concat([bytes.subarray(0, at), Buffer.of(change), bytes.subarray(at)])
        expect(await codeOf(decodeReport(longer, verifySignature))).toBe('BAD_INPUT')
      }),
      { numRuns: 100 }
    )
  })

  test('is refused in another’s name, with fields of its own, and as junk of any kind', async () => {
    const other = await generateIdentity()
    const forged = { peerId: helper.peerId, sign: (bytes: Uint8Array) => other.sign(bytes) }
    expect(await codeOf(decodeReport(await encodeReport(aReport(), forged), verifySignature))).toBe('BAD_INPUT')
    const { report } = dagCbor.decode<{ report: Uint8Array }>(await encodeReport(aReport(), helper))
    const more = dagCbor.encode({ ...dagCbor.decode<object>(report), more: 1 })
    const prefix = Buffer.from('holdfast-repair-report:')
    const signature = await helper.sign(Buffer.concat([prefix, more]))
    expect(await codeOf(decodeReport(dagCbor.encode({ report: more, signature }), verifySignature))).toBe('BAD_INPUT')
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (junk) => {
        expect(await codeOf(decodeReport(junk, verifySignature))).toBe('BAD_INPUT')
      }),
      { numRuns: 50 }
    )
  })

  test('has bounds, at both ends', async () => {
    const held = Array.from({ length: reportRowsMax + 1 }, (_, i) => row(i % 200, { provider: 'p0' }))
    await expect(encodeReport(aReport({ held }), helper)).rejects.toThrow()
    const most = await encodeReport(aReport({ held: held.slice(1) }), helper)
    expect(most.length).toBeLessThan(reportBytesMax / 2)
    expect((await decodeReport(most, verifySignature)).held).toHaveLength(reportRowsMax)
    expect(await codeOf(decodeReport(new Uint8Array(reportBytesMax + 1), verifySignature))).toBe('BAD_INPUT')
    const twice = [0, 0].map(() => ({ peerId: 'p0', dataUrls: [], addresses: [] }))
    const held1 = [row(0)]
    const doubled = await encodeReport(aReport({ providers: twice, held: held1 }), helper)
    expect(await codeOf(decodeReport(doubled, verifySignature))).toBe('BAD_INPUT')
  })
})

describe('a file of reports', () => {
  const collect = async (file: Uint8Array, cut: number): Promise<Uint8Array[]> => {
    const chunks = async function* () {
      for (let at = 0; at < file.length; at += cut) yield file.subarray(at, at + cut)
    }
    const found: Uint8Array[] = []
    for await (const report of reportsIn(chunks())) found.push(Uint8Array.from(report))
    return found
  }

  test('is read in pieces of any size, and never past an end that is missing', async () => {
    const reports = [1, 5, 300].map((length) => new Uint8Array(length).fill(length))
    const file = Buffer.concat(reports.map(frameReport))
    for (const cut of [1, 3, 64, 1000]) expect(await collect(file, cut)).toEqual(reports)
    expect(await codeOf(collect(file.subarray(0, -1), 7))).toBe('BAD_INPUT')
    expect(await codeOf(collect(Buffer.from('something else altogether'), 7))).toBe('BAD_INPUT')
  })
})
