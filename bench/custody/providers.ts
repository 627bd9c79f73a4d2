/** A thousand providers in one process: they answer from `Blocks`, honestly, and sign with keys of their own. */
import { createHash, createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { concatBytes } from '../../src/base/bytes.ts'
import { blake3 } from '../../src/content/blake3.ts'
import { sliceOf } from '../../src/content/blake3-slice.ts'
import { treeOf } from '../../src/content/blake3-tree.ts'
import type { CID } from '../../src/content/cid.ts'
import {
  answerDigest,
  answerStatementCodec,
  answersDigest,
  auditRequestCodec,
  challengeChunkBytes,
  signedCodec,
  toSign
} from '../../src/custody/audit-messages.ts'
import { type Identity, identityOf } from '../../src/net/identity.ts'
import { encodeAnswer, encodeStatement } from '../../src/transfer/proof-frames.ts'
import { WrongAnswerError } from '../harness.ts'
import type { Blocks, BlockTable } from './blocks.ts'

/** What a PKCS #8 file of an Ed25519 key has before the key (RFC 8410). */
const pkcs8Start = Buffer.from('302e020100300506032b657004220420', 'hex')

const keyOf = (seed: number, name: string): Buffer => createHash('sha256').update(`${name} of ${seed}`).digest()

/** The same for the same seed and name. */
export async function identityNamed(seed: number, name: string): Promise<Identity> {
  return identityOf(await generateKeyPairFromSeed('Ed25519', keyOf(seed, name)))
}

const nameOf = (provider: number): string => `provider ${provider}`

/** Of `count` providers, by number. */
export async function peerIdsOf(seed: number, count: number): Promise<string[]> {
  const identities = await Promise.all(Array.from({ length: count }, (_, i) => identityNamed(seed, nameOf(i))))
  return identities.map(({ peerId }) => peerId)
}

export interface ProvidersInit {
  seed: number
  /** By number. */
  peerIds: readonly string[]
  blocks: Blocks
  table: BlockTable
  now: () => number
}

/** Everything is done when a call returns, so that its CPU time can be told from that of others. */
export class SimulatedProviders {
  readonly #init: ProvidersInit
  readonly #keys: Map<string, KeyObject>

  constructor(init: ProvidersInit) {
    this.#init = init
    this.#keys = new Map(init.peerIds.map((peerId, i) => [peerId, privateKeyOf(keyOf(init.seed, nameOf(i)))]))
  }

  /** @returns the frames that answer a signed request, as they go over the wire */
  answer(provider: string, body: Uint8Array): Uint8Array {
    const { bytes } = signedCodec.decode(body)
    const { challenges } = auditRequestCodec.decode(bytes)
    const answers = challenges.map(({ cid, chunk }) => {
      const block = this.read(cid)
      const start = chunk * challengeChunkBytes
      return { kind: 'proof' as const, slice: sliceOf(block, treeOf(block), start, start + challengeChunkBytes) }
    })
    const statement = answerStatementCodec.encode({
      v: 1,
      provider,
      request: blake3(bytes),
      answers: answersDigest(answers.map(answerDigest)),
      answeredAt: this.#init.now()
    })
    const signature = new Uint8Array(sign(null, toSign('statement', statement), this.#keys.get(provider)!))
    return concatBytes([...answers.map(encodeAnswer), encodeStatement({ bytes: statement, signature })])
  }

  /** The memory is the next block's as well. */
  read(cid: CID): Uint8Array {
    const { blocks, table } = this.#init
    const index = table.find(cid.multihash.digest)
    if (index === undefined) throw new WrongAnswerError(`asked for a block that nobody stored: ${cid}`)
    return blocks.at(index)
  }
}

function privateKeyOf(seed: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([pkcs8Start, seed]), format: 'der', type: 'pkcs8' })
}
