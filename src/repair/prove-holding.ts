/**
 * Asking a provider, once and now, whether it has blocks, of whomever they are: a shard by a proof of custody about a chunk
 * that it could not foresee, a node (sha2-256, which is no tree) by reading the whole. Nobody's word is taken for it.
 */
import { withDeadline } from '../base/clock.ts'
import { HoldfastError } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import { type CID, isShardCid, matchesCid } from '../content/cid.ts'
import { samplingAll } from '../custody/audit-messages.ts'
import { challengeOf, drawSeed, epochOf } from '../custody/challenge.ts'
import type { CustodyOutcome } from '../custody/outcome.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { peerOutcomeOf } from '../transfer/scatter.ts'
import { type ExchangeComponents, putChallenges } from './audit/exchange.ts'

export interface BlockToProve {
  cid: CID
  /** Its length; of a node anything. */
  bytes: number
}

/** In the order of the blocks. Rejects with the signal's reason, and with nothing else. */
export type ProveHolding = (
  provider: ProviderRef,
  blocks: readonly BlockToProve[],
  signal?: AbortSignal
) => Promise<CustodyOutcome[]>

export interface ProveHoldingComponents extends ExchangeComponents {
  client: Pick<ProviderClient, 'prove' | 'getShard'>
  /** The Ed25519 seed of the signer, 32 bytes: makes what is asked for unforeseeable, and checkable by others. */
  secretKey: Uint8Array
  /** Where signatures are simulated, so is the seed. */
  drawSeed?: typeof drawSeed
}

/**
 * The seed is as new as the question: with one for a whole second whoever was asked at its beginning would know which
 * chunk to keep of what it is given until its end. It gives nothing away of the seeds of audits to come.
 */
const epochMs = 1
const challengesAtOnce = 256
/** What reading and hashing a block, and its part of the line, may take; nobody is judged by it. */
const deadlineMsOf = (challenges: number): number => 5 * secondMs + 50 * challenges
const readTimeoutMs = 10 * secondMs

export function holdingProver(components: ProveHoldingComponents): ProveHolding {
  const { client, signer, secretKey, clock } = components
  const draw = components.drawSeed ?? drawSeed

  const proveShards = async (
    provider: ProviderRef,
    blocks: readonly BlockToProve[],
    signal: AbortSignal
  ): Promise<CustodyOutcome[]> => {
    const issuedAt = clock.now()
    const epoch = epochOf(issuedAt, epochMs)
    const { proof, seed } = draw(secretKey, { epoch, epochMs, auditor: signer.peerId, provider: provider.peerId })
    const challenges = blocks.map((block) => challengeOf(seed, block, 'asked'))
    const deadlineMs = deadlineMsOf(challenges.length)
    const asked = {
      issuedAt,
      epoch,
      epochMs,
      sampling: samplingAll,
      vrfProof: proof,
      deadlineMs,
      repeats: null,
      challenges
    }
    return (await putChallenges(components, provider, asked, signal)).outcomes
  }

  const readNode = async (provider: ProviderRef, cid: CID, signal: AbortSignal): Promise<CustodyOutcome> => {
    try {
      const bytes = await withDeadline(clock, readTimeoutMs, signal, (inner) => client.getShard(provider, cid, inner))
      return matchesCid(cid, bytes) ? 'ok' : 'wrong'
    } catch (error) {
      signal.throwIfAborted()
      const outcome = peerOutcomeOf(error)
      return outcome === 'full' ? 'unknown' : outcome
    }
  }

  return async (provider, blocks, signal = new AbortController().signal) => {
    const outcomes = new Map<BlockToProve, CustodyOutcome>()
    const shards = blocks.filter(({ cid }) => isShardCid(cid))
    for (let at = 0; at < shards.length; at += challengesAtOnce) {
      const some = shards.slice(at, at + challengesAtOnce)
      const answers = await proveShards(provider, some, signal)
      for (const [i, block] of some.entries()) outcomes.set(block, answers[i]!)
    }
    for (const block of blocks) {
      if (!outcomes.has(block)) outcomes.set(block, await readNode(provider, block.cid, signal))
    }
    return blocks.map((block) => {
      const outcome = outcomes.get(block)
      if (outcome === undefined) throw new HoldfastError('INTERNAL', 'a block was not asked for')
      return outcome
    })
  }
}
