/**
 * Whether a provider that has just acknowledged a block has it: a proof of one chunk that it could not foresee, or for nodes
 * under sha2-256, which has no tree, a read of the whole. These proofs are no audits: nothing of them is kept.
 */
import { type Clock, withDeadline } from '../base/clock.ts'
import { secondMs } from '../base/limits.ts'
import { type CID, matchesCid } from '../content/cid.ts'
import { isProvable } from '../custody/answers.ts'
import { samplingAll } from '../custody/audit-messages.ts'
import { challengeOf, drawSeed, epochOf } from '../custody/challenge.ts'
import type { CustodyOutcome } from '../custody/outcome.ts'
import type { ProviderClient, ProviderRef } from '../transfer/provider-client.ts'
import { peerOutcomeOf } from '../transfer/scatter.ts'
import { type ExchangeComponents, putChallenges } from './audit/exchange.ts'

export interface BlockToVerify {
  cid: CID
  bytes: number
}

/** In the order of the blocks. Rejects with the signal's reason, and nothing else. */
export type VerifyCustody = (
  target: ProviderRef,
  blocks: readonly BlockToVerify[],
  signal: AbortSignal
) => Promise<CustodyOutcome[]>

export interface VerifierComponents extends ExchangeComponents {
  client: Pick<ProviderClient, 'getShard' | 'prove'>
  clock: Clock
  /** The Ed25519 seed of the signer's key. */
  secretKey: Uint8Array
  /** Absent: the verifiable random function. */
  drawSeed?: typeof drawSeed
}

/** Epochs of their own, so that seeds of audits to come are not given away. */
const epochMs = secondMs
/** It has the block in its page cache, and is asked once: nothing is concluded from silence. */
const deadlineMs = 4 * secondMs

export function createVerifier(components: VerifierComponents): VerifyCustody {
  const { client, clock, signer, secretKey } = components

  const prove = async (
    target: ProviderRef,
    blocks: BlockToVerify[],
    signal: AbortSignal
  ): Promise<CustodyOutcome[]> => {
    const epoch = epochOf(clock.now(), epochMs)
    const draw = components.drawSeed ?? drawSeed
    const { seed, proof } = draw(secretKey, { epoch, epochMs, auditor: signer.peerId, provider: target.peerId })
    const challenges = blocks.map((block) => challengeOf(seed, block, 'asked'))
    const asked = { epoch, epochMs, sampling: samplingAll, vrfProof: proof, deadlineMs, repeats: null, challenges }
    return (await putChallenges(components, target, asked, signal)).outcomes
  }

  const read = async (target: ProviderRef, { cid }: BlockToVerify, signal: AbortSignal): Promise<CustodyOutcome> => {
    try {
      const bytes = await withDeadline(clock, deadlineMs, signal, (inner) => client.getShard(target, cid, inner))
      return matchesCid(cid, bytes) ? 'ok' : 'wrong'
    } catch (error) {
      signal.throwIfAborted()
      const outcome = peerOutcomeOf(error)
      return outcome === 'full' ? 'unknown' : outcome
    }
  }

  return async (target, blocks, signal) => {
    const isProof = ({ cid, bytes }: BlockToVerify): boolean => bytes > 0 && isProvable(cid)
    const provable = blocks.filter(isProof)
    const proved = provable.length === 0 ? [] : await prove(target, provable, signal)
    const outcomes: CustodyOutcome[] = []
    for (const block of blocks) {
      if (isProof(block)) outcomes.push(proved.shift() ?? 'unknown')
      else outcomes.push(block.bytes === 0 ? 'ok' : await read(target, block, signal))
    }
    return outcomes
  }
}
