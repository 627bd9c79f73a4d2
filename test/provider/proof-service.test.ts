/** What a provider proves, confesses and signs, for whom, and how much of it at a time. */
import { beforeEach, describe, expect, test } from 'vitest'
import { KiB, limits, MiB, minuteMs, secondMs } from '../../src/base/limits.ts'
import { type CID, cidOfNode, codecs } from '../../src/content/cid.ts'
import { judgeAnswers, type ProofAnswers } from '../../src/custody/answers.ts'
import { type AuditRequest, chunksOf, signedCodec } from '../../src/custody/audit-messages.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { MemoryShardStore } from '../../src/provider/memory-shard-store.ts'
import type { ProofService } from '../../src/provider/proof-service.ts'
import { decodeProofs } from '../../src/transfer/prove.ts'
import { blockOf, type Question, requestOf, type TestRequest } from '../support/audits.ts'
import { proofServiceOf, type TestProvider, testProvider } from '../support/provider.ts'

const [own, gateway, stranger] = await Promise.all([generateIdentity(), generateIdentity(), generateIdentity()])

/** Counts reads, and fails as it is told. */
class ObservedShards extends MemoryShardStore {
  reads = 0
  failure: Error | undefined

  override get = async (cid: CID): Promise<Uint8Array | undefined> => {
    this.reads += 1
    if (this.failure !== undefined) throw this.failure
    return await super.get(cid)
  }
}

let shards: ObservedShards
let host: TestProvider
let service: ProofService
beforeEach(() => {
  shards = new ObservedShards()
  host = testProvider({ shards })
  service = proofServiceOf(host, own)
})

async function keep(length: number, seed = 1, owner = gateway.peerId): Promise<Question & { block: Uint8Array }> {
  const { bytes, cid } = blockOf(length, seed)
  await host.provider.put(owner, cid, bytes.slice(), 60_000)
  shards.reads = 0
  return { cid, bytes: length, chunk: 0, block: bytes }
}

const at = ({ cid, bytes }: Question, chunk: number): Question => ({ cid, bytes, chunk })
const ask = (questions: readonly Question[], change: Partial<AuditRequest> = {}, auditor: Identity = gateway) =>
  requestOf(auditor, own.peerId, questions, { issuedAt: host.clock.now(), ...change })

async function answersTo({ request, signed }: TestRequest, signal?: AbortSignal): Promise<ProofAnswers> {
  const received = await service.receive(request.auditor, signedCodec.encode(signed))
  const stream: Uint8Array[] = []
  for await (const frames of service.answer(received, signal)) stream.push(frames)
  return decodeProofs(request.challenges.length, stream)
}
const kindsOf = ({ answers }: ProofAnswers): string[] => answers.map(({ kind }) => kind)
const outcomesOf = async (asked: TestRequest, answers: ProofAnswers) =>
  await judgeAnswers(asked.request, asked.signed.bytes, answers, { verifySignature })

describe('answers', () => {
  test('prove what is there, of blocks of every length, and are signed', async () => {
    const kept = await Promise.all([0, 1, KiB - 1, KiB, KiB + 1, MiB - 1, MiB].map((length) => keep(length)))
    const asked = await ask(kept.map((one) => at(one, chunksOf(one.bytes) - 1)))
    const judged = await outcomesOf(asked, await answersTo(asked))
    expect(judged).toEqual({ outcomes: kept.map(() => 'ok'), countersigned: true })
    expect(service.given.proof).toBe(kept.length)
  })

  test('to several challenges on a block come from one read, each in its place', async () => {
    const [one, two] = [await keep(50_000), await keep(60_000, 2)]
    const asked = await ask([at(one, 3), at(two, 4), at(one, 7), at(one, 3), at(two, 0), at(one, 48)])
    expect((await outcomesOf(asked, await answersTo(asked))).outcomes).toEqual(Array(6).fill('ok'))
    expect(shards.reads).toBe(2)
  })

  test('to as many challenges as a request has, all on one block', async () => {
    const one = await keep(MiB)
    const asked = await ask(Array.from({ length: 1024 }, (_, chunk) => at(one, chunk)))
    expect(new Set((await outcomesOf(asked, await answersTo(asked))).outcomes)).toEqual(new Set(['ok']))
    expect(shards.reads).toBe(1)
  })

  test('confess what is missing or damaged, and that is remembered', async () => {
    const [whole, flipped, cut, longer, swapped] = [
      await keep(5000),
      await keep(5000, 2),
      await keep(5000, 3),
      await keep(MiB, 4),
      await keep(5000, 5)
    ]
    const other = flipped.block.slice()
    other[4999]! ^= 1 // in another chunk than the one that is asked for
    await shards.put(flipped.cid, other)
    await shards.put(cut.cid, cut.block.subarray(0, 4000))
    await shards.put(longer.cid, new Uint8Array(limits.shardBytesMax + 1))
    await shards.put(swapped.cid, whole.block)
    const never = { cid: blockOf(10).cid, bytes: 10, chunk: 0 }
    const asked = await ask([whole, flipped, never, cut, longer, swapped])
    const answers = await answersTo(asked)
    expect(kindsOf(answers)).toEqual(['proof', 'rotten', 'missing', 'rotten', 'rotten', 'rotten'])
    expect(await outcomesOf(asked, answers)).toMatchObject({ countersigned: true })
    expect(await host.provider.has(flipped.cid)).toBe(false)
    expect((await host.provider.stats()).rotten).toBe(4)
  })

  test('out of a known tree are checked against the block as it is now', async () => {
    const one = await keep(100_000)
    await answersTo(await ask([one]))
    for (const bytes of [one.block.map((byte, i) => (i === 99_000 ? byte ^ 4 : byte)), new Uint8Array(100_000)]) {
      await shards.put(one.cid, bytes)
      expect(kindsOf(await answersTo(await ask([one])))).toEqual(['rotten'])
      await shards.put(one.cid, one.block)
      expect(kindsOf(await answersTo(await ask([one])))).toEqual(['proof'])
    }
    await shards.put(one.cid, one.block.subarray(0, 99_999))
    expect(kindsOf(await answersTo(await ask([one])))).toEqual(['rotten'])
  })

  test('of trees beyond the cache are no different', async () => {
    service = proofServiceOf(host, own, { treeBytesMax: 10_000 })
    const kept = await Promise.all([1, 2, 3].map((seed) => keep(100_000, seed)))
    for (let round = 0; round < 3; round++) {
      const asked = await ask(kept.map((one) => at(one, 50 + round)))
      expect((await outcomesOf(asked, await answersTo(asked))).outcomes).toEqual(['ok', 'ok', 'ok'])
    }
  })

  test('where the disk fails, concern that block alone', async () => {
    const [one, two] = [await keep(100), await keep(200, 2)]
    shards.failure = Object.assign(new Error('i/o error'), { code: 'EIO' })
    expect(kindsOf(await answersTo(await ask([one])))).toEqual(['rotten'])
    shards.failure = Object.assign(new Error('too many open files'), { code: 'EMFILE' })
    expect(kindsOf(await answersTo(await ask([one, two])))).toEqual(['overloaded', 'overloaded'])
  })

  test('stop when the auditor goes', async () => {
    const kept = await Promise.all([1, 2, 3].map((seed) => keep(100, seed)))
    const { request, signed } = await ask(kept)
    const gone = new AbortController()
    const reason = new Error('gone')
    const answers = service.answer(await service.receive(request.auditor, signedCodec.encode(signed)), gone.signal)
    await answers.next()
    expect(shards.reads).toBe(1) // and none ahead of who reads
    gone.abort(reason)
    await expect(answers.next()).rejects.toBe(reason)
    expect(shards.reads).toBe(1)
    expect(kindsOf(await answersTo(await ask(kept)))).toEqual(['proof', 'proof', 'proof']) // no slot was lost
  })
})

describe('a request', () => {
  const refusal = async (asked: TestRequest, from = gateway.peerId): Promise<string> => {
    try {
      await service.receive(from, signedCodec.encode(asked.signed))
      return 'taken'
    } catch (error) {
      const { code, message } = error as Error & { code: string }
      return `${code}: ${message}`
    }
  }

  test('is taken from its auditor alone, signed by it, and for this provider', async () => {
    const one = await keep(100)
    const asked = await ask([one])
    expect(await refusal(asked)).toBe('taken')
    expect(await refusal(asked, stranger.peerId)).toMatch(/^BAD_INPUT: the request is .* the connection is/)
    expect(await refusal(await requestOf(gateway, stranger.peerId, [one]))).toMatch(/^BAD_INPUT: the request is for/)
    const forged = await ask([one], { auditor: stranger.peerId })
    expect(await refusal(forged, stranger.peerId)).toMatch(/^BAD_INPUT: the signature/)
    const { bytes } = (await ask([at(one, 0), at(one, 0)])).signed
    expect(await refusal({ ...asked, signed: { ...asked.signed, bytes } })).toMatch(/^BAD_INPUT: the signature/)
    const bare = { ...asked.signed, signature: await gateway.sign(asked.signed.bytes) }
    expect(await refusal({ ...asked, signed: bare })).toMatch(/^BAD_INPUT: the signature/)
  })

  test('must be fresh, and is told which clock is ahead', async () => {
    const one = await keep(100)
    const now = host.clock.now()
    expect(await refusal(await ask([one], { issuedAt: now + 10 * minuteMs }))).toBe('taken')
    expect(await refusal(await ask([one], { issuedAt: now - 10 * minuteMs }))).toBe('taken')
    expect(await refusal(await ask([one], { issuedAt: now + 15 * minuteMs }))).toMatch(
      /^BAD_INPUT: .*15 minutes ahead of/
    )
    expect(await refusal(await ask([one], { issuedAt: now - 11 * minuteMs }))).toMatch(
      /^BAD_INPUT: .*11 minutes behind/
    )
  })

  test('must be about blocks that have proofs, and be one', async () => {
    const cid = cidOfNode(codecs.dagCbor, blockOf(100).bytes)
    expect(await refusal(await ask([{ cid, bytes: 100, chunk: 0 }]))).toMatch(/^BAD_INPUT: only raw blocks/)
    for (const body of [
      new Uint8Array(0),
      new Uint8Array(300_000),
      signedCodec.encode({ bytes: new Uint8Array(9), signature: new Uint8Array(64) })
    ])
      await expect(service.receive(gateway.peerId, body)).rejects.toMatchObject({ code: 'BAD_INPUT' })
  })
})

describe('bounds', () => {
  test('two requests of a peer, and 64 of all strangers: who leases here has the other 64 places', async () => {
    const owners = Array.from({ length: 33 }, (_, i) => `owner ${i}`)
    for (const [i, owner] of owners.entries()) await keep(9, i, owner)
    await service.recognise()
    const leave = service.admit('a')
    service.admit('a')
    expect(() => service.admit('a')).toThrow(expect.objectContaining({ code: 'OVERLOADED' }))
    leave()
    leave() // once is enough
    service.admit('a')
    expect(() => service.admit('a')).toThrow(expect.objectContaining({ code: 'OVERLOADED' }))
    for (let i = 0; i < 31; i++) for (let j = 0; j < 2; j++) service.admit(`peer ${i}`)
    expect(() => service.admit('b')).toThrow(expect.objectContaining({ code: 'OVERLOADED' }))
    for (const owner of owners.slice(0, 32)) for (let j = 0; j < 2; j++) service.admit(owner)
    expect(service.admitted).toBe(128)
    expect(() => service.admit(owners[32]!)).toThrow(expect.objectContaining({ code: 'OVERLOADED' }))
  })

  test('no stranger at all while their allowance is used up, and whoever leases', async () => {
    await keep(9)
    await service.recognise()
    const other = Array.from({ length: 1024 }, (_, i) => ({ cid: blockOf(8, i).cid, bytes: 8, chunk: 0 }))
    service.admit('before')()
    await answersTo(await ask(other, {}, stranger))
    expect(() => service.admit('after')).toThrow(expect.objectContaining({ code: 'OVERLOADED' }))
    service.admit(gateway.peerId)()
    host.clock.advance(secondMs)
    service.admit('after')()
  })

  test('strangers share an allowance of blocks, and take nothing from who leases', async () => {
    const kept = await Promise.all(Array.from({ length: 600 }, (_, i) => keep(9, i)))
    const other = Array.from({ length: 1000 }, (_, i) => ({ cid: blockOf(8, i).cid, bytes: 8, chunk: 0 }))
    // What is not there costs as much to find out.
    expect(new Set(kindsOf(await answersTo(await ask(other, {}, stranger))))).toEqual(new Set(['missing']))
    const more = await generateIdentity()
    const kinds = kindsOf(await answersTo(await ask(other.slice(0, 100), {}, more)))
    expect(kinds.filter((kind) => kind === 'overloaded')).toHaveLength(76)
    expect(kindsOf(await answersTo(await ask([kept[0]!], {}, stranger)))).toEqual(['overloaded'])
    expect(new Set(kindsOf(await answersTo(await ask(kept))))).toEqual(new Set(['proof']))
    host.clock.advance(secondMs)
    expect(kindsOf(await answersTo(await ask([kept[0]!], {}, stranger)))).toEqual(['proof'])
  })

  test('who leases has an allowance too', async () => {
    const kept = await Promise.all(Array.from({ length: 1024 }, (_, i) => keep(9, i)))
    const [one] = kept
    for (let i = 0; i < 4; i++) expect(new Set(kindsOf(await answersTo(await ask(kept))))).toEqual(new Set(['proof']))
    expect(kindsOf(await answersTo(await ask([one!])))).toEqual(['overloaded'])
    host.clock.advance(secondMs)
    expect(kindsOf(await answersTo(await ask([one!])))).toEqual(['proof'])
  })

  test('others have their turn of the event loop between blocks', async () => {
    const kept = await Promise.all(Array.from({ length: 20 }, (_, seed) => keep(300_000, seed)))
    const asked = await ask(kept)
    let turns = 0
    let isOver = false
    const turn = (): void => {
      turns += 1
      if (!isOver) setImmediate(turn)
    }
    turn()
    await answersTo(asked)
    isOver = true
    expect(turns).toBeGreaterThanOrEqual(20)
  })
})
