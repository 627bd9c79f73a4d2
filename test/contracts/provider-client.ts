import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type ErrorCode, isCode } from '../../src/base/errors.ts'
import { limits } from '../../src/base/limits.ts'
import { type CID, cidOfNode, cidOfShard, codecs } from '../../src/content/cid.ts'
import { type AnswersJudgement, judgeAnswers } from '../../src/custody/answers.ts'
import { challengesMax, chunksOf } from '../../src/custody/audit-messages.ts'
import type { Signer, VerifySignature } from '../../src/market/offer.ts'
import { openRefusal } from '../../src/market/refusal.ts'
import type { ProviderClient, ProviderRef } from '../../src/transfer/provider-client.ts'
import { type Question, requestOf } from '../support/audits.ts'

export interface ProviderClientFixture {
  client: ProviderClient
  /** Signs as the peer that `client` is. */
  auditor: Signer
  verifySignature: VerifySignature
  /** What the provider's clock may be taken to say. */
  now: () => number
  /** The same provider, asked by another gateway. */
  otherClient: ProviderClient
  /** A provider that is up, with room for at least 4 MiB and at most 16 MiB. */
  provider: ProviderRef
  /** A provider nobody can reach. */
  absent: ProviderRef
  /** Damages the stored bytes of a block behind the provider's back. */
  rot: (cid: CID) => Promise<void>
  /** Has the provider's operator refuse a block. */
  refuse: (cid: CID, reason: string) => Promise<void>
  cleanUp: () => Promise<void>
}

/** The code a promise rejects with; fails when it resolves. */
export async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | string> {
  try {
    await promise
  } catch (error) {
    return isCode(error, 'INTERNAL') || !(error instanceof Error) || !('code' in error)
      ? String(error)
      : String(error.code)
  }
  return 'resolved'
}

/** What every `ProviderClient` promises. */
export function providerClientContract(name: string, open: () => Promise<ProviderClientFixture>): void {
  describe(`${name} as a ProviderClient`, () => {
    let fixture: ProviderClientFixture
    beforeAll(async () => {
      fixture = await open()
    })
    afterAll(async () => {
      await fixture?.cleanUp()
    })
    const termMs = 60_000
    const block = (length: number): { bytes: Buffer; cid: CID } => {
      const bytes = randomBytes(length)
      return { bytes, cid: cidOfShard(bytes) }
    }

    test('gives back what was put, up to the largest block', async () => {
      const { client, provider } = fixture
      for (const length of [0, 1, 65_537, limits.shardBytesMax]) {
        const { bytes, cid } = block(length)
        await client.putShard(provider, cid, bytes, { termMs })
        await client.putShard(provider, cid, bytes, { termMs }) // idempotent
        expect(Buffer.compare(await client.getShard(provider, cid), bytes)).toBe(0)
      }
      const node = randomBytes(500)
      const cid = cidOfNode(codecs.dagCbor, node)
      await client.putShard(provider, cid, node, { termMs, announce: true })
      expect(Buffer.compare(await client.getShard(provider, cid), node)).toBe(0)
    })

    test('many requests at once keep their answers apart', async () => {
      const { client, provider } = fixture
      const blocks = Array.from({ length: 40 }, (_, i) => block(1000 + i))
      await Promise.all(blocks.map(({ bytes, cid }) => client.putShard(provider, cid, bytes, { termMs })))
      const back = await Promise.all(blocks.map(({ cid }) => client.getShard(provider, cid)))
      for (const [i, bytes] of back.entries()) expect(Buffer.compare(bytes, blocks[i]!.bytes)).toBe(0)
    })

    test('tells what is missing, wrong and too large', async () => {
      const { client, provider } = fixture
      const { bytes, cid } = block(100)
      expect(await codeOf(client.getShard(provider, cid))).toBe('MISSING')
      expect(await codeOf(client.putShard(provider, cid, bytes.subarray(1), { termMs }))).toBe('WRONG')
      expect(await codeOf(client.getShard(provider, cid))).toBe('MISSING')
      const tooLarge = new Uint8Array(limits.shardBytesMax + 1)
      expect(await codeOf(client.putShard(provider, cidOfShard(tooLarge), tooLarge, { termMs }))).toBe('BAD_INPUT')
    })

    test('a full provider says so, and takes blocks again once there is room', async () => {
      const { client, provider } = fixture
      const blocks = Array.from({ length: 17 }, () => block(limits.shardBytesMax))
      const codes = await Promise.all(
        blocks.map(({ bytes, cid }) => codeOf(client.putShard(provider, cid, bytes, { termMs })))
      )
      const kept = blocks.filter((_, i) => codes[i] === 'resolved')
      expect(new Set(codes)).toEqual(new Set(['resolved', 'NO_SPACE']))
      await client.releaseLeases(
        provider,
        kept.map(({ cid }) => cid)
      )
      const { bytes, cid } = block(limits.shardBytesMax)
      await client.putShard(provider, cid, bytes, { termMs })
      await client.releaseLeases(provider, [cid])
    })

    test('renews what is held, in order, and tells what is not', async () => {
      const { client, provider } = fixture
      const held = block(10)
      const never = block(10)
      await client.putShard(provider, held.cid, held.bytes, { termMs })
      expect(await client.renewLeases(provider, [never.cid, held.cid, never.cid], { termMs })).toEqual([
        'missing',
        'held',
        'missing'
      ])
      expect(await client.renewLeases(provider, [], { termMs })).toEqual([])
    })

    test('a block goes when the last of its owners lets go', async () => {
      const { client, otherClient, provider } = fixture
      const { bytes, cid } = block(50)
      await client.putShard(provider, cid, bytes, { termMs })
      await otherClient.putShard(provider, cid, bytes, { termMs })
      await client.releaseLeases(provider, [cid, block(1).cid])
      expect((await client.getShard(provider, cid)).length).toBe(50)
      await otherClient.releaseLeases(provider, [cid])
      expect(await codeOf(client.getShard(provider, cid))).toBe('MISSING')
    })

    test('a block that rots is never given out, counts as missing, and can be put again', async () => {
      const { client, provider, rot } = fixture
      const { bytes, cid } = block(5000)
      await client.putShard(provider, cid, bytes, { termMs })
      await rot(cid)
      const answer = client.getShard(provider, cid)
      expect(await codeOf(answer)).toBe('MISSING')
      expect(await client.renewLeases(provider, [cid], { termMs })).toEqual(['missing'])
      await client.putShard(provider, cid, bytes, { termMs })
      expect(Buffer.compare(await client.getShard(provider, cid), bytes)).toBe(0)
      expect(await client.renewLeases(provider, [cid], { termMs })).toEqual(['held'])
    })

    test('the offer is the provider’s, signed, and follows what is used', async () => {
      const { client, provider } = fixture
      const offer = await client.getOffer(provider)
      expect(offer.peerId).toBe(provider.peerId)
      expect(offer.freeBytes).toBeLessThanOrEqual(offer.capacityBytes)
      expect(offer.accepting).toBe(true)
    })

    const audit = async (questions: readonly Question[], signal?: AbortSignal): Promise<AnswersJudgement> => {
      const { client, auditor, provider, verifySignature, now } = fixture
      const { request, signed } = await requestOf(auditor, provider.peerId, questions, { issuedAt: now() })
      const answers = await client.prove(provider, signed, signal)
      expect(answers.failure).toBeUndefined()
      return await judgeAnswers(request, signed.bytes, answers, { verifySignature })
    }

    test('proves what it holds, of any length, confesses the rest, and signs for both', async () => {
      const { client, provider, rot } = fixture
      const blocks = [0, 1, 1023, 1024, 1025, limits.shardBytesMax - 1, limits.shardBytesMax, 5000].map(block)
      await Promise.all(blocks.map(({ bytes, cid }) => client.putShard(provider, cid, bytes, { termMs })))
      const last = blocks.map(({ bytes, cid }): Question => {
        return { cid, bytes: bytes.length, chunk: chunksOf(bytes.length) - 1 }
      })
      expect(await audit(last)).toEqual({ outcomes: blocks.map(() => 'ok'), countersigned: true })
      const rotten = blocks.at(-1)!.cid
      await rot(rotten)
      const never = { cid: block(10).cid, bytes: 10, chunk: 0 }
      const outcomes = [...blocks.map(({ cid }) => (cid === rotten ? 'missing' : 'ok')), 'missing', 'ok']
      expect(await audit([...last, never, last[6]!])).toEqual({ outcomes, countersigned: true })
      await client.releaseLeases(
        provider,
        blocks.map(({ cid }) => cid)
      )
      expect((await audit(last.slice(0, -1))).outcomes).toEqual(Array(7).fill('missing'))
    })

    test('a whole request of challenges is answered in order', async () => {
      const { client, provider } = fixture
      const { bytes, cid } = block(limits.shardBytesMax)
      await client.putShard(provider, cid, bytes, { termMs })
      const questions = Array.from({ length: challengesMax }, (_, i) => ({
        cid,
        bytes: bytes.length,
        chunk: (i * 7) % challengesMax
      }))
      const { outcomes, countersigned } = await audit(questions)
      expect([new Set(outcomes), countersigned]).toEqual([new Set(['ok']), true])
      await client.releaseLeases(provider, [cid])
    })

    test('an audit in another’s name, for another, or of another time is PROTOCOL, and proves nothing', async () => {
      const { client, otherClient, auditor, provider, absent, now } = fixture
      const { bytes, cid } = block(100)
      await client.putShard(provider, cid, bytes, { termMs })
      const ask = async (target: string, issuedAt = now()) =>
        (await requestOf(auditor, target, [{ cid, bytes: 100, chunk: 0 }], { issuedAt })).signed
      expect(await codeOf(otherClient.prove(provider, await ask(provider.peerId)))).toBe('PROTOCOL')
      expect(await codeOf(client.prove(provider, await ask(absent.peerId)))).toBe('PROTOCOL')
      expect(await codeOf(client.prove(provider, await ask(provider.peerId, now() - 3_600_000)))).toBe('PROTOCOL')
      const { bytes: request } = await ask(provider.peerId)
      expect(await codeOf(client.prove(provider, { bytes: request, signature: new Uint8Array(64) }))).toBe('PROTOCOL')
      expect(await codeOf(client.prove(provider, { bytes, signature: new Uint8Array(64) }))).toBe('PROTOCOL')
    })

    test('what is refused is neither taken nor given nor proved, and the refusal is signed', async () => {
      const { client, otherClient, provider, refuse, verifySignature } = fixture
      const held = block(5000)
      const other = block(100)
      const never = block(10)
      for (const { cid, bytes } of [held, other]) await client.putShard(provider, cid, bytes, { termMs })
      expect(await client.listRefusals(provider, [held.cid])).toEqual([undefined])
      await refuse(held.cid, 'by court order')
      await refuse(never.cid, 'for no reason')
      for (const { cid, bytes } of [held, never]) {
        expect(await codeOf(client.putShard(provider, cid, bytes, { termMs }))).toBe('REFUSED')
        expect(await codeOf(otherClient.getShard(provider, cid))).toBe('REFUSED')
      }
      expect(await client.renewLeases(provider, [held.cid, other.cid], { termMs })).toEqual(['refused', 'held'])
      const asked = [other, held].map(({ cid, bytes }) => ({ cid, bytes: bytes.length, chunk: 0 }))
      expect(await audit(asked)).toEqual({ outcomes: ['ok', 'refused'], countersigned: true })
      const signed = await otherClient.listRefusals(provider, [other.cid, held.cid, never.cid])
      expect(signed[0]).toBeUndefined()
      for (const [at, { cid }, reason] of [
        [1, held, 'by court order'],
        [2, never, 'for no reason']
      ] as const) {
        const refusal = await openRefusal(signed[at]!, provider.peerId, verifySignature)
        expect([refusal.cid.toString(), refusal.reason, refusal.root]).toEqual([cid.toString(), reason, null])
      }
      expect(await client.listRefusals(provider, [held.cid])).toEqual([signed[1]]) // signed once
      await client.releaseLeases(provider, [held.cid, other.cid]) // it goes as any other
    })

    test('nobody there is OFFLINE, by every way of asking', async () => {
      const { client, absent } = fixture
      const { bytes, cid } = block(10)
      expect(await codeOf(client.putShard(absent, cid, bytes, { termMs }))).toBe('OFFLINE')
      expect(await codeOf(client.getShard(absent, cid))).toBe('OFFLINE')
      expect(await codeOf(client.renewLeases(absent, [cid], { termMs }))).toBe('OFFLINE')
      expect(await codeOf(client.releaseLeases(absent, [cid]))).toBe('OFFLINE')
      expect(await codeOf(client.getOffer(absent))).toBe('OFFLINE')
      expect(await codeOf(client.listRefusals(absent, [cid]))).toBe('OFFLINE')
      const { signed } = await requestOf(fixture.auditor, absent.peerId, [{ cid, bytes: 10, chunk: 0 }])
      expect(await codeOf(client.prove(absent, signed))).toBe('OFFLINE')
    })

    test('an aborted request rejects with the signal’s reason', async () => {
      const { client, provider } = fixture
      const { bytes, cid } = block(10)
      const reason = new Error('changed my mind')
      const aborted = AbortSignal.abort(reason)
      await expect(client.getShard(provider, cid, aborted)).rejects.toBe(reason)
      await expect(client.putShard(provider, cid, bytes, { termMs, signal: aborted })).rejects.toBe(reason)
      await expect(client.getOffer(provider, aborted)).rejects.toBe(reason)
      const { signed } = await requestOf(fixture.auditor, provider.peerId, [{ cid, bytes: 10, chunk: 0 }])
      await expect(client.prove(provider, signed, aborted)).rejects.toBe(reason)
    })
  })
}
