/** The whole of the provider's proof service, without a network: receiving, finding the blocks, proofs, frames, signature. */

import { MiB } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock } from '../../src/base/system.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { judgeAnswers } from '../../src/custody/answers.ts'
import { auditRequestCodec, type Signed, signedCodec, toSign } from '../../src/custody/audit-messages.ts'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { ProofService } from '../../src/provider/proof-service.ts'
import { StorageProvider } from '../../src/provider/storage-provider.ts'
import { decodeProofs } from '../../src/transfer/prove.ts'
import { seededBytes } from '../data.ts'
import { measureRows, type Sampling, timed, WrongAnswerError } from '../harness.ts'
import type { Row } from '../result.ts'

export interface ProofServiceRowsInit {
  seed: number
  /** 1 MiB each, a challenge on each in every request. */
  blocks: number
  sampling: Sampling
  signal: AbortSignal
}

const units = { proofs: 'proofs/s' } as const

export async function proofServiceRows({ seed, blocks, sampling, signal }: ProofServiceRowsInit): Promise<Row[]> {
  const [auditor, own] = await Promise.all([generateIdentity(), generateIdentity()])
  const bytes = seededBytes(seed, blocks * MiB)
  const stored = new Map<string, Uint8Array>()
  const cids = Array.from({ length: blocks }, (_, i) => {
    const block = bytes.subarray(i * MiB, (i + 1) * MiB)
    const cid = cidOfShard(block)
    stored.set(cid.toString(), block)
    return cid
  })
  const row = (id: string, label: string, treeBytesMax: number) => {
    const clock = { ...systemClock, now: () => 1_700_000_000_000 + 60_000 * rounds } // allowances never run out
    let rounds = 0
    const service = serviceOf(own, stored, clock, treeBytesMax)
    return {
      id,
      label,
      units,
      sampling,
      signal,
      take: async () => {
        rounds += 1
        const { request, signed } = await requestOf(auditor, own, cids, rounds, clock.now())
        const body = signedCodec.encode(signed)
        const { seconds } = await timed(
          async () => {
            const stream: Uint8Array[] = []
            for await (const frames of service.answer(await service.receive(auditor.peerId, body))) stream.push(frames)
            return stream
          },
          async (stream) => {
            const answers = decodeProofs(blocks, stream)
            const { outcomes, countersigned } = await judgeAnswers(request, signed.bytes, answers, { verifySignature })
            if (!countersigned || outcomes.some((outcome) => outcome !== 'ok'))
              throw new WrongAnswerError(`proofs that do not hold: ${outcomes.join(', ')}`)
          }
        )
        return { proofs: blocks / seconds }
      }
    }
  }
  return await measureRows([
    row('proof-service-cached', 'audit answered from memory, trees of 1 MiB known', blocks * MiB),
    row('proof-service-uncached', 'audit answered from memory, blocks of 1 MiB hashed', 0)
  ])
}

function serviceOf(
  own: Identity,
  stored: ReadonlyMap<string, Uint8Array>,
  clock: typeof systemClock,
  treeBytesMax: number
): ProofService {
  const shards = {
    put: async () => {},
    get: async (cid: CID) => stored.get(cid.toString()),
    size: async (cid: CID) => stored.get(cid.toString())?.length,
    delete: async () => {},
    list: async function* () {}
  }
  const storage = new StorageProvider(
    { shards, leases: everythingLeased(), clock, log: silentLog, signer: own },
    { capacityBytes: 0, domain: 'bench', price: 0, dataUrls: () => [], addresses: () => [], version: 'bench' }
  )
  const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return new ProofService({ storage, signer: own, verifySignature, clock, log: silentLog, pause }, { treeBytesMax })
}

function everythingLeased(): MemoryLeaseStore {
  const leases = new MemoryLeaseStore()
  leases.get = async (owner, cid) => ({ owner, cid, until: 0, bytes: 0 })
  return leases
}

async function requestOf(auditor: Identity, own: Identity, cids: readonly CID[], round: number, issuedAt: number) {
  const request = {
    v: 1 as const,
    auditor: auditor.peerId,
    provider: own.peerId,
    epoch: round,
    epochMs: 3_600_000,
    sampling: 0,
    vrfProof: new Uint8Array(80),
    issuedAt,
    deadlineMs: 10_000,
    repeats: null,
    challenges: cids.map((cid, i) => ({ cid, bytes: MiB, chunk: (i * 7919 + round) % 1024, reason: 'asked' as const }))
  }
  const bytes = auditRequestCodec.encode(request)
  const signed: Signed = { bytes, signature: await auditor.sign(toSign('request', bytes)) }
  return { request, signed }
}
