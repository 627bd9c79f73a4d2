import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { base58btc } from 'multiformats/bases/base58'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { describe, expect, test } from 'vitest'
import { isCode } from '../../src/base/errors.ts'
import { cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { type Denylist, hashedKeysOf, keyOfCid, parseDenylist } from '../../src/provider/denylist.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const shard = cidOfShard(Buffer.from('a shard'))
const node = cidOfNode(codecs.dagPb, Buffer.from('a node'))
const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Whether the list wants the block refused. */
function refuses(list: Denylist, cid: CID): boolean {
  const found = [keyOfCid(cid), ...hashedKeysOf(cid)].flatMap((key) => list.rules.get(hex(key)) ?? [])
  return found.length > 0 && found.every(({ isAllowed }) => !isAllowed)
}

describe('a denylist', () => {
  test('names blocks by CID, with and without what is below them', async () => {
    const list = await parseDenylist(`/ipfs/${shard}\n/ipfs/${node}/*\n`)
    expect([refuses(list, shard), refuses(list, node)]).toEqual([true, true])
    // By multihash: whatever version and codec name it.
    expect(refuses(list, CID.createV0(node.multihash as never))).toBe(true)
    expect(refuses(list, CID.createV1(codecs.raw, node.multihash))).toBe(true)
    expect(refuses(list, cidOfShard(Buffer.from('another')))).toBe(false)
    expect(refuses(await parseDenylist(`/ipld/${shard}`), shard)).toBe(true)
  })

  test('names blocks by hashes of their names, old and new', async () => {
    const modern = base58btc.baseEncode(Digest.create(0x12, sha256(base58btc.baseEncode(node.multihash.bytes))).bytes)
    const legacy = sha256(`${node}/`).toString('hex')
    for (const hash of [modern, legacy, legacy.toUpperCase()]) {
      const list = await parseDenylist(`//${hash}`)
      expect([hash, refuses(list, node), refuses(list, shard), list.problemCount]).toEqual([hash, true, false, 0])
    }
  })

  test('the example of the legacy form: an empty path is a slash', async () => {
    // sha256("bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e/"), from the specification's examples.
    const list = await parseDenylist('//d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7')
    expect(refuses(list, CID.parse('bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e'))).toBe(true)
  })

  test('takes back what it has said; the last word counts', async () => {
    const line = `/ipfs/${shard}`
    const verdict = async (...lines: string[]): Promise<boolean> =>
      refuses(await parseDenylist(lines.join('\n')), shard)
    expect(await verdict(line, `!${line}`)).toBe(false)
    expect(await verdict(line, `!${line}`, line)).toBe(true)
    expect(await verdict(`//${sha256(`${shard}/`).toString('hex')}`, `!${line}`)).toBe(false)
    expect(await verdict(`!${line}`)).toBe(false)
  })

  test('has a header, hints and comments', async () => {
    const list = await parseDenylist(
      `version: 1\nname: "The list"\nauthor: somebody\nhints:\n  hint: value\n---\n# why\n\n  /ipfs/${shard} reason=court%20order a=b \n/ipfs/${node}\n`
    )
    expect(list.name).toBe('The list')
    expect([...list.rules.values()].map(({ reason }) => reason)).toEqual(['court order', 'on the list The list'])
    expect(list.problemCount).toBe(0)
  })

  test('what stored blocks have nothing to do with is counted, what cannot be read reported by line', async () => {
    const list = await parseDenylist(
      [
        'name: x',
        '---',
        `/ipfs/${node}/secret*`,
        '/ipns/example.com',
        '/mime/image/png',
        '/ipfs/not-a-cid',
        'example.com',
        `/ipfs/${shard} hint`,
        '//abc',
        `/ipfs/${shard}`,
        '/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku' // of nothing
      ].join('\n')
    )
    expect(list.notApplicable).toBe(4)
    expect(list.problems.map(({ line }) => line)).toEqual([6, 7, 8, 9])
    expect(refuses(list, shard)).toBe(true)
  })

  test('of another version, or with an endless header, is not guessed at', async () => {
    await expect(parseDenylist('version: 2\n---\n')).rejects.toMatchObject({ code: 'BAD_INPUT' })
    await expect(parseDenylist(`description: ${'x'.repeat(2000)}\n---\n`)).rejects.toMatchObject({ code: 'BAD_INPUT' })
  })

  test('of nothing but ends of lines is read in memory that does not grow with their number', async () => {
    const before = process.memoryUsage().heapUsed
    let most = 0
    const list = await parseDenylist(`${'\n'.repeat(10_000_000)}/ipfs/${shard}`, async () => {
      most = Math.max(most, process.memoryUsage().heapUsed - before)
    })
    expect(list.rules.size).toBe(1)
    expect(most).toBeLessThan(60_000_000)
  })

  test('has its lines counted from the top of the file', async () => {
    const { problems } = await parseDenylist('name: x\n---\nfoo\n\nbar')
    expect(problems.map(({ line }) => line)).toEqual([3, 5])
    expect((await parseDenylist('foo\n/ipns/x\n---\nbar')).problems.map(({ line }) => line)).toEqual([1, 3, 4])
  })

  test('never fails but with words of its own, whatever is in it', async () => {
    const piece = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('/ipfs/', '//', '!', ' ', '\n', '---', '#', '=', '%', '/*', 'version:', `${shard}`, '/ipld/'),
      fc.base64String(),
      fc.stringMatching(/^[0-9a-f]{64}$/)
    )
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 30 }), async (pieces) => {
        try {
          await parseDenylist(pieces.join(''))
        } catch (error) {
          expect(isCode(error, 'BAD_INPUT')).toBe(true)
        }
      }),
      { numRuns: 300 }
    )
  })

  test('says what a list that was written says', async () => {
    const cid = fc.uint8Array({ minLength: 1, maxLength: 8 }).map((bytes) => cidOfShard(bytes))
    const entry = fc.record({
      cid,
      form: fc.constantFrom('cid', 'below', 'legacy', 'modern'),
      reason: fc.string({ maxLength: 20 })
    })
    const itemOf = ({ cid: of, form }: { cid: CID; form: string }): string => {
      if (form === 'cid') return `/ipfs/${of}`
      if (form === 'below') return `/ipfs/${of}/*`
      if (form === 'legacy') return `//${sha256(`${of}/`).toString('hex')}`
      const text = base58btc.baseEncode(of.multihash.bytes)
      return `//${base58btc.baseEncode(Digest.create(0x12, sha256(text)).bytes)}`
    }
    await fc.assert(
      fc.asyncProperty(fc.array(entry), fc.array(cid), async (entries, others) => {
        const text = entries.map((one) => `${itemOf(one)} reason=${encodeURIComponent(one.reason)}`).join('\n')
        const list = await parseDenylist(text)
        expect([list.problemCount, list.notApplicable]).toEqual([0, 0])
        const named = new Set(entries.map((one) => one.cid.toString()))
        for (const one of [...entries.map((it) => it.cid), ...others])
          expect(refuses(list, one)).toBe(named.has(one.toString()))
        const reasons = new Map(entries.map((one) => [itemOf(one).replace('/*', ''), one.reason]))
        expect([...list.rules.values()].map(({ reason }) => reason).sort()).toEqual([...reasons.values()].sort())
      }),
      { numRuns: 50 }
    )
  })
})
