/**
 * The dishonest providers of the whole-network tests: each joins, takes a shard like any other, and then lies as it
 * should.
 */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { type AnswersJudgement, judgeAnswers } from '../../src/custody/answers.ts'
import { chunksOf } from '../../src/custody/audit-messages.ts'
import { createCoder } from '../../src/erasure/coder.ts'
import { verifySignature } from '../../src/net/identity.ts'
import type { ProviderNode } from '../../src/provider/provider-node.ts'
import { proveWithin } from '../../src/transfer/prove.ts'
import type { ProviderRef } from '../../src/transfer/provider-client.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { requestOf } from '../support/audits.ts'
import { bytesOf } from '../support/bytes.ts'
import type { Lie } from '../support/lying-provider.ts'
import { blockFile, TestProcess } from '../support/processes.ts'
import { Loopback, refOf, type TestClient } from '../support/provider-node.ts'
import type { FetchInit } from '../support/storage-lies.ts'

const script = fileURLToPath(new URL('../support/lying-provider.ts', import.meta.url))
const termMs = 600_000
const loopback = new Loopback()
let honest: ProviderNode
let gateway: TestClient
beforeAll(async () => {
  ;[honest, gateway] = await Promise.all([loopback.provider(), loopback.client()])
})
afterAll(() => loopback.stopAll())

interface Liar {
  ref: ProviderRef
  process: TestProcess
  data: string
}

/** Running, and part of the honest provider's network. */
async function start(lie: Lie): Promise<Liar> {
  const data = await loopback.directory()
  const bootstrap = honest.multiaddrs.flatMap((address) => ['--bootstrap', address])
  const command = [process.execPath, script, '--data', data, '--lie', lie, ...bootstrap]
  const running = new TestProcess(command, path.join(data, 'log'))
  loopback.onStop(() => running.end('SIGTERM'))
  const { peerId, addresses, dataUrls } = (await running.ready) as ProviderRef
  const neighbours = (): string[] => honest.network.node.getPeers().map(String)
  await expect.poll(neighbours, { timeout: 20_000 }).toContain(peerId)
  return { ref: { peerId, addresses, dataUrls }, process: running, data }
}

/** 100 chunks, and where it went. */
async function startWithShard(lie: Lie): Promise<Liar & { cid: CID; bytes: Buffer }> {
  const liar = await start(lie)
  const bytes = bytesOf(lie, 102_400)
  const cid = cidOfShard(bytes)
  await gateway.client.putShard(liar.ref, cid, bytes, { termMs })
  expect(await gateway.client.renewLeases(liar.ref, [cid], { termMs })).toEqual(['held'])
  return { ...liar, cid, bytes }
}

async function audit({ ref }: Liar, cid: CID, bytes: number, chunks: readonly number[]): Promise<AnswersJudgement> {
  const questions = chunks.map((chunk) => ({ cid, bytes, chunk }))
  const { request, signed } = await requestOf(gateway.identity, ref.peerId, questions, { issuedAt: Date.now() })
  const received = await proveWithin(gateway.client, ref, signed, { clock: systemClock, deadlineMs: 20_000 })
  return await judgeAnswers(request, signed.bytes, received, { verifySignature })
}

describe('a provider that', () => {
  test('keeps the first half of every shard proves that, makes up the rest, and signs for it; reads are cut', async () => {
    const liar = await startWithShard('half')
    expect(await audit(liar, liar.cid, 102_400, [0, 49, 50, 99])).toEqual({
      outcomes: ['ok', 'ok', 'wrong', 'wrong'],
      countersigned: true
    })
    const read = await gateway.client.getShard(liar.ref, liar.cid)
    expect(Buffer.compare(read, liar.bytes.subarray(0, 51_200))).toBe(0)
    const tiny = bytesOf('tiny', 10)
    const cid = cidOfShard(tiny)
    await gateway.client.putShard(liar.ref, cid, tiny, { termMs })
    expect((await audit(liar, cid, 10, [0])).outcomes).toEqual(['wrong'])
  })

  test('answers audits, but not reads', async () => {
    const liar = await startWithShard('unread')
    expect((await audit(liar, liar.cid, 102_400, [0, 99])).outcomes).toEqual(['ok', 'ok'])
    expect(await codeOf(gateway.client.getShard(liar.ref, liar.cid))).toBe('MISSING')
  })

  test('gives old proofs for new questions is wrong where they are others, and signs for it', async () => {
    const liar = await startWithShard('stale')
    expect((await audit(liar, liar.cid, 102_400, [7])).outcomes).toEqual(['ok'])
    expect(await audit(liar, liar.cid, 102_400, [7, 8])).toEqual({ outcomes: ['ok', 'wrong'], countersigned: true })
    expect((await gateway.client.getShard(liar.ref, liar.cid)).length).toBe(102_400)
  })

  test('plays a whole old answer again has no signature for it', async () => {
    const liar = await startWithShard('replay')
    expect((await audit(liar, liar.cid, 102_400, [7])).outcomes).toEqual(['ok'])
    expect(await audit(liar, liar.cid, 102_400, [7])).toEqual({ outcomes: ['unknown'], countersigned: false })
    expect((await audit(liar, liar.cid, 102_400, [8])).outcomes).toEqual(['wrong'])
  })

  test('signs as another peer has not signed', async () => {
    const liar = await startWithShard('foreign')
    expect(await audit(liar, liar.cid, 102_400, [7])).toEqual({ outcomes: ['unknown'], countersigned: false })
  })

  test('fetches from others when it is asked proves what it has not, as fast as its line allows', async () => {
    const liar = await start('none')
    const code = { k: 2, m: 2 }
    const shards = Buffer.concat([bytesOf('segment', 2 * MiB), Buffer.alloc(2 * MiB)])
    createCoder().encode(shards, code)
    const all = Array.from({ length: 4 }, (_, i) => shards.subarray(i * MiB, (i + 1) * MiB))
    const cids = all.map((shard) => cidOfShard(shard))
    const refs = [liar.ref, refOf(honest), refOf(honest), refOf(honest)]
    for (const [i, ref] of refs.entries()) await gateway.client.putShard(ref, cids[i]!, all[i]!, { termMs })

    const segment = {
      code: '2+2',
      shards: cids.map((cid, i) => ({ cid: String(cid), url: i === 0 ? null : honest.dataUrl }))
    }
    const init: FetchInit = { segments: [segment], bitsPerSecond: 40e6 }
    expect(await liar.process.ask({ lie: 'fetch', ...init })).toEqual({ lie: 'fetch' })
    expect(existsSync(blockFile(liar, String(cids[0])))).toBe(false)
    const startedAt = performance.now()
    expect(await audit(liar, cids[0]!, MiB, [chunksOf(MiB) - 1])).toEqual({ outcomes: ['ok'], countersigned: true })
    expect(performance.now() - startedAt).toBeGreaterThan((2 * MiB * 8) / 40e3) // 419 ms
    expect(await gateway.client.renewLeases(liar.ref, [cids[0]!], { termMs })).toEqual(['held'])
    expect(Buffer.compare(await gateway.client.getShard(liar.ref, cids[0]!), all[0]!)).toBe(0)
    for (const cid of cids.slice(1, 3)) await gateway.client.releaseLeases(refOf(honest), [cid])
    expect((await audit(liar, cids[0]!, MiB, [5])).outcomes).toEqual(['missing'])
  })

  test('is told of no such lie does not start', async () => {
    const running = new TestProcess(
      [process.execPath, script, '--lie', 'white'],
      path.join(await loopback.directory(), 'log')
    )
    await expect(running.ready).rejects.toThrow('no such lie: white')
  })
})
