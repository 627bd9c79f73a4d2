import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/system.ts'
import { cidOfNode, codecs } from '../../src/content/cid.ts'
import { auditRequestCodec, signedCodec } from '../../src/custody/audit-messages.ts'
import { chunkOf, verifySeed } from '../../src/custody/challenge.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'
import { holdingProver, type ProveHoldingComponents } from '../../src/repair/prove-holding.ts'
import { decodeProofs } from '../../src/transfer/prove.ts'
import { blockOf } from '../support/audits.ts'
import { proofServiceOf, testProvider } from '../support/provider.ts'

const [asker, own] = await Promise.all([generateIdentity(), generateIdentity()])
const to = { peerId: own.peerId, dataUrls: [], addresses: [] }
const node = { bytes: Buffer.from('a node'), cid: cidOfNode(codecs.dagCbor, Buffer.from('a node')) }

/** A provider with everything but the last of these, and somebody who asks it. */
async function scene(over: Partial<ProveHoldingComponents['client']> = {}) {
  const blocks = [0, 1, 5000, 60_000, 1000].map((length) => blockOf(length))
  const host = testProvider()
  host.clock.now = systemClock.now
  for (const { cid, bytes } of [...blocks.slice(0, -1), node])
    await host.provider.put('somebody', cid, bytes.slice(), 60_000)
  const service = proofServiceOf(host, own)
  const prove = holdingProver({
    signer: asker,
    secretKey: asker.privateKey.raw.subarray(0, 32),
    verifySignature,
    clock: systemClock,
    pause: async () => {},
    client: {
      prove: async (_to, signed) => {
        const request = auditRequestCodec.decode(signed.bytes)
        // Which chunk is asked for could not be foreseen, nor chosen.
        const seed = verifySeed({ ...request }, request.vrfProof)!
        for (const { cid, bytes, chunk } of request.challenges) expect(chunk).toBe(chunkOf(seed, cid, bytes))
        const stream: Uint8Array[] = []
        const received = await service.receive(asker.peerId, signedCodec.encode(signed))
        for await (const frames of service.answer(received)) stream.push(frames)
        return decodeProofs(request.challenges.length, stream)
      },
      getShard: async (_to, cid) => await host.provider.get(cid),
      ...over
    }
  })
  return { prove, questions: blocks.map(({ cid, bytes }) => ({ cid, bytes: bytes.length })) }
}

describe('whether a provider has blocks', () => {
  it('is proved for shards, and read for nodes, each in its place', async () => {
    const { prove, questions } = await scene()
    const asked = [{ cid: node.cid, bytes: 1 }, ...questions, { cid: cidOfNode(codecs.dagPb, Buffer.of(1)), bytes: 1 }]
    expect(await prove(to, asked)).toEqual(['ok', 'ok', 'ok', 'ok', 'ok', 'missing', 'missing'])
    expect(await prove(to, [])).toEqual([])
  })

  it('is not shown by other bytes, another’s signature, or nothing', async () => {
    const { prove: wrongNode } = await scene({ getShard: async () => Buffer.from('another node') })
    expect(await wrongNode(to, [{ cid: node.cid, bytes: 1 }])).toEqual(['wrong'])
    const { prove, questions } = await scene()
    const some = questions.slice(0, 2)
    expect(await prove({ ...to, peerId: asker.peerId }, some)).toEqual(['unknown', 'unknown'])
    const { prove: cut } = await scene({ prove: async () => ({ answers: [], statement: undefined }) })
    expect(await cut(to, some)).toEqual(['timeout', 'timeout'])
  })

  it('is asked by a seed that is new each time: it does not say what to keep of the next block', async () => {
    const seeds = new Set<string>()
    const { prove, questions } = await scene({
      prove: async (_to, signed) => {
        const request = auditRequestCodec.decode(signed.bytes)
        seeds.add(Buffer.from(verifySeed({ ...request }, request.vrfProof)!).toString('hex'))
        return { answers: [], statement: undefined }
      }
    })
    for (let i = 0; i < 5; i++) {
      await prove(to, questions)
      await systemClock.sleep(3)
    }
    expect(seeds.size).toBe(5)
  })

  it('is left open when nobody waits for it any more', async () => {
    const { prove, questions } = await scene()
    await expect(prove(to, questions, AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough')
  })
})
