/** Audits over real sockets: of honest providers, of all sorts of liars, and of what is no provider at all. */
import { createServer, request as httpsRequest, type RequestOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { systemClock } from '../../src/base/system.ts'
import type { CID } from '../../src/content/cid.ts'
import { type AnswersJudgement, judgeAnswers, outcomeOfFailure, type ProofAnswers } from '../../src/custody/answers.ts'
import { signedCodec } from '../../src/custody/audit-messages.ts'
import type { CustodyOutcome } from '../../src/custody/outcome.ts'
import { generateIdentity, verifySignature } from '../../src/net/identity.ts'
import { makePeerCertificate, type PeerCertificate } from '../../src/net/peer-tls.ts'
import type { ProviderNode } from '../../src/provider/provider-node.ts'
import { encodeAnswer } from '../../src/transfer/proof-frames.ts'
import { proveWithin } from '../../src/transfer/prove.ts'
import type { ProviderRef } from '../../src/transfer/provider-client.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { type AuditLie, lieInAudits } from '../support/audit-lies.ts'
import { blockOf, proofOf, type Question, requestOf } from '../support/audits.ts'
import { Loopback, refOf, type TestClient } from '../support/provider-node.ts'

const loopback = new Loopback()
const blocks = Array.from({ length: 4 }, (_, i) => blockOf(100_000 + i))
let node: ProviderNode
let provider: ProviderRef
let gateway: TestClient
let lie: AuditLie | 'none' = 'none'

beforeAll(async () => {
  ;[node, gateway] = await Promise.all([loopback.provider(), loopback.client()])
  provider = refOf(node)
  lieInAudits(node.proofs, () => lie)
  for (const { bytes, cid } of blocks) await gateway.client.putShard(provider, cid, bytes, { termMs: 60_000 })
  await audit(0) // what replays have: chunk 0 of each
})
beforeEach(() => {
  lie = 'none'
})
afterAll(() => loopback.stopAll())

const questionsAt = (chunk: number): Question[] => blocks.map(({ cid, bytes }) => ({ cid, bytes: bytes.length, chunk }))
const ask = (questions: readonly Question[], from = gateway) =>
  requestOf(from.identity, provider.peerId, questions, { issuedAt: Date.now() })

interface Audit extends AnswersJudgement {
  received: ProofAnswers
}

/** Asks for this chunk of all blocks, and judges. */
async function audit(chunk: number, deadlineMs = 20_000): Promise<Audit> {
  const { request, signed } = await ask(questionsAt(chunk))
  const received = await proveWithin(gateway.client, provider, signed, { clock: systemClock, deadlineMs })
  return { received, ...(await judgeAnswers(request, signed.bytes, received, { verifySignature })) }
}
const all = (outcome: CustodyOutcome): CustodyOutcome[] => blocks.map(() => outcome)
/** After the first answer: how many come in the first piece is the provider's affair, but not all do. */
const firstThen = (outcome: CustodyOutcome) => ['ok', outcome, outcome, outcome]

test('an honest provider is found to be one', async () => {
  const { outcomes, countersigned, received } = await audit(5)
  expect([outcomes, countersigned, received.failure]).toEqual([all('ok'), true, undefined])
})

describe('a provider that', () => {
  test('replays old answers, with the signature of then, is wrong', async () => {
    lie = 'replay'
    expect(await audit(6)).toMatchObject({ outcomes: all('wrong'), countersigned: false })
  })

  test('replays them to the very same challenges gains nothing', async () => {
    lie = 'replay'
    expect(await audit(0)).toMatchObject({ outcomes: all('unknown'), countersigned: false })
  })

  test.each(['foreign', 'unsigned'] as const)(
    'signs for another peer, or not at all (%s), has proved nothing',
    async (it) => {
      lie = it
      const { outcomes, countersigned, received } = await audit(7)
      expect([outcomes, countersigned]).toEqual([all('unknown'), false])
      expect(received.statement === undefined).toBe(it === 'unsigned')
    }
  )

  test('stalls in the middle is asked for the rest again', async () => {
    lie = 'stall'
    // One answer is there at once; the deadline is what the stall runs into.
    const { outcomes, received } = await audit(8, 500)
    expect(outcomes).toEqual(firstThen('timeout'))
    expect(received.failure).toMatchObject({ code: 'TIMEOUT' })
  })

  test('ends its answer early is no better off', async () => {
    lie = 'cut'
    const { outcomes, received } = await audit(9)
    expect(outcomes).toEqual(firstThen('timeout'))
    expect([received.failure, received.statement]).toEqual([undefined, undefined])
  })

  test('breaks the connection in the middle is no better off', async () => {
    const identity = await generateIdentity()
    const server = createServer(
      { ...(await makePeerCertificate(identity, { now: Date.now() })), requestCert: true, rejectUnauthorized: false },
      (request, response) => {
        request.resume()
        request.once('end', () => {
          response.writeHead(200)
          response.write(encodeAnswer(proofOf(blocks[0]!.bytes, 9)), () => request.socket.destroy())
        })
      }
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const ref = { peerId: identity.peerId, dataUrls: [`https://127.0.0.1:${port}`], addresses: [] }
    try {
      const { request, signed } = await requestOf(gateway.identity, identity.peerId, questionsAt(9))
      const received = await gateway.client.prove(ref, signed)
      expect(received.failure).toMatchObject({ code: 'OFFLINE' })
      const { outcomes } = await judgeAnswers(request, signed.bytes, received, { verifySignature })
      expect(outcomes).toEqual(firstThen('timeout'))
    } finally {
      server.close()
    }
  })

  test('sends without end is left as soon as it has said too much', async () => {
    lie = 'endless'
    const { outcomes, received } = await audit(10)
    // The first proof, again and again, and never a signature.
    expect(outcomes).toEqual(['unknown', 'wrong', 'wrong', 'wrong'])
    expect(received.failure).toMatchObject({ code: 'PROTOCOL' })
  })

  test('sends junk has said nothing from there on', async () => {
    lie = 'junk'
    const { outcomes, received } = await audit(11)
    expect(outcomes).toEqual(firstThen('unknown'))
    expect(received.failure).toMatchObject({ code: 'PROTOCOL' })
  })

  test('answers only audits passes them: it takes a read to find out', async () => {
    const get = node.storage.get.bind(node.storage)
    node.storage.get = () => Promise.reject(new HoldfastError('MISSING', 'no such block here'))
    try {
      expect(await audit(12)).toMatchObject({ outcomes: all('ok'), countersigned: true })
      expect(await codeOf(gateway.client.getShard(provider, blocks[0]!.cid))).toBe('MISSING')
    } finally {
      node.storage.get = get
    }
  })

  test('has the block of another in place of the one is found out', async () => {
    const prove = node.storage.prove.bind(node.storage)
    // It hashes what it has, and claims that this is it.
    node.storage.prove = async (_cid: CID, chunks) => await prove(blocks[0]!.cid, chunks)
    try {
      expect((await audit(13)).outcomes).toEqual(['ok', 'wrong', 'wrong', 'wrong'])
    } finally {
      node.storage.prove = prove
    }
  })
})

describe('asking', () => {
  test('what never answers rejects at the deadline, with nothing', async () => {
    const receive = node.proofs.receive.bind(node.proofs)
    const over = Promise.withResolvers<never>()
    node.proofs.receive = () => over.promise
    try {
      const error = await audit(1, 200).catch((reason: unknown) => reason)
      expect(error).toMatchObject({ code: 'TIMEOUT' })
      expect(outcomeOfFailure(error)).toBe('timeout')
    } finally {
      node.proofs.receive = receive
      over.reject(new Error('it wakes up'))
    }
  })

  test('an aborted question gives what came before, and says why there is no more', async () => {
    lie = 'stall'
    const { signed } = await ask(questionsAt(2))
    const stop = new AbortController()
    const asking = gateway.client.prove(provider, signed, stop.signal)
    await expect.poll(() => node.proofs.given.proof).toBeGreaterThan(0)
    setImmediate(() => stop.abort(new Error('shutting down')))
    const answered = await asking.catch((error: unknown) => error)
    // Where the first answer was still on its way, the reason itself.
    if (answered instanceof Error) expect(answered.message).toBe('shutting down')
    else
      expect(answered).toMatchObject({ statement: undefined, failure: { code: 'ABORTED', message: 'shutting down' } })
  })

  test('too many at once is OVERLOADED for a peer, which is nobody’s fault', async () => {
    const leave = [node.proofs.admit(gateway.identity.peerId), node.proofs.admit(gateway.identity.peerId)]
    const error = await audit(3).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'TIMEOUT', details: { overloaded: true } })
    expect(outcomeOfFailure(error)).toBe('unknown')
    for (const one of leave) one()
    expect((await audit(3)).outcomes).toEqual(all('ok'))
  })

  test('a provider that has no proofs is PROTOCOL, and not MISSING', async () => {
    const { signed } = await ask(questionsAt(4))
    const receive = node.proofs.receive.bind(node.proofs)
    node.proofs.receive = () => Promise.reject(new HoldfastError('MISSING', 'no such resource'))
    try {
      expect(await codeOf(gateway.client.prove(provider, signed))).toBe('PROTOCOL')
    } finally {
      node.proofs.receive = receive
    }
  })

  test('leaves nothing behind at a provider whose auditors go', async () => {
    lie = 'stall'
    for (let i = 0; i < 5; i++) {
      await audit(i, 100).catch(() => {})
      // It hears of it when the connection closes.
      await expect.poll(() => node.proofs.admitted).toBe(0)
    }
  })
})

describe('the route', () => {
  let certificate: PeerCertificate
  beforeAll(async () => {
    certificate = await makePeerCertificate(gateway.identity, { now: Date.now() })
  })
  const agents: Array<{ destroy: () => void }> = []
  afterEach(() => {
    for (const agent of agents.splice(0)) agent.destroy()
  })
  const post = (body: Uint8Array, options: RequestOptions): Promise<[status: number, code: string]> =>
    new Promise((resolve, reject) => {
      const sent = httpsRequest(
        `${node.dataUrl}/holdfast/v1/proofs`,
        { method: 'POST', agent: false, rejectUnauthorized: false, ...certificate, ...options },
        (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => void chunks.push(chunk))
          response.once('error', reject)
          response.once('end', () => resolve([response.statusCode!, JSON.parse(Buffer.concat(chunks).toString()).code]))
        }
      )
      agents.push(sent)
      sent.once('error', reject)
      sent.end(body)
    })

  test('waits two seconds for the whole of a request', async () => {
    const status = await new Promise<number | string>((resolve) => {
      const sent = httpsRequest(
        `${node.dataUrl}/holdfast/v1/proofs`,
        {
          method: 'POST',
          agent: false,
          rejectUnauthorized: false,
          ...certificate,
          headers: { 'content-length': 1000 }
        },
        (response) => {
          response.resume()
          resolve(response.statusCode!)
        }
      )
      agents.push(sent)
      sent.once('error', (error: NodeJS.ErrnoException) => resolve(error.code!))
      sent.write(new Uint8Array(10))
    })
    expect([400, 'ECONNRESET']).toContain(status)
    await expect.poll(() => node.proofs.admitted).toBe(0)
  })

  test('takes audit requests, by POST, of a length that is said, from peers', async () => {
    const { signed } = await ask(questionsAt(0))
    const body = signedCodec.encode(signed)
    expect(await post(body, { method: 'PUT' })).toEqual([405, 'BAD_INPUT'])
    expect(await post(body, { key: undefined, cert: undefined })).toEqual([401, 'BAD_INPUT'])
    expect(await post(body.subarray(1), {})).toEqual([400, 'BAD_INPUT'])
    expect(await post(body, { headers: { 'transfer-encoding': 'chunked' } })).toEqual([400, 'BAD_INPUT'])
    const other = await generateIdentity()
    const theirs = await makePeerCertificate(other, { now: Date.now() })
    expect(await post(body, { ...theirs })).toEqual([400, 'BAD_INPUT'])
    const long = await post(new Uint8Array(300_000), {}).catch((error: NodeJS.ErrnoException) => error.code)
    if (typeof long === 'object') expect(long).toEqual([400, 'BAD_INPUT'])
    else expect(['EPIPE', 'ECONNRESET']).toContain(long) // it hung up before all was sent
  })
})
