/**
 * Signatures that cost no thread pool, which would escape virtual time. Anybody could forge one; in the simulation nobody
 * does, unless a fault says so.
 */
import { concatBytes, equalBytes, utf8 } from '../base/bytes.ts'
import { blake3 } from '../content/blake3.ts'
import { type Seed, type SeedSubject, seedInput } from '../custody/challenge.ts'
import { vrfProofBytes } from '../custody/ecvrf.ts'
import type { Signer, VerifySignature } from '../market/offer.ts'

const signatureOf = (peerId: string, bytes: Uint8Array): Uint8Array =>
  blake3(concatBytes([blake3(utf8.encode(peerId)), bytes]))

export const simulatedSigner = (peerId: string): Signer => ({
  peerId,
  sign: async (bytes) => signatureOf(peerId, bytes)
})

export const verifySimulated: VerifySignature = async (peerId, bytes, signature) =>
  equalBytes(signature, signatureOf(peerId, bytes))

/** A seed that anybody could foresee, and that has no proof: the real one takes milliseconds. */
export function drawSimulatedSeed(secretKey: Uint8Array, subject: SeedSubject): Seed {
  const half = blake3(concatBytes([secretKey, seedInput(subject)]))
  return { proof: new Uint8Array(vrfProofBytes), seed: concatBytes([half, blake3(half)]) }
}
