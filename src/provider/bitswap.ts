/**
 * Serves the provider's blocks over bitswap, so that any IPFS node can fetch them by CID. Helia's bitswap is composed
 * without Helia itself, whose full install brings browser and mobile transports; what it asks of its host is below.
 */
import { withBitswap } from '@helia/bitswap'
import type { Libp2p, Startable } from '@libp2p/interface'
import { defaultLogger } from '@libp2p/logger'
import type { Blockstore } from 'interface-blockstore'
import { from as hasherFrom } from 'multiformats/hashes/hasher'
import { HoldfastError } from '../base/errors.ts'
import { blake3 } from '../content/blake3.ts'
import { hashes, sha256 } from '../content/cid.ts'

/**
 * Blocks wanted by one peer that are kept in mind. Bitswap reads all of a peer's wanted blocks into one message before
 * it sends any, so this bounds its memory: 32 MiB a peer.
 */
const wantsPerPeerMax = 32

/** Copies the digest: multiformats wants memory of its own. */
const hasher = (name: string, code: number, digest: (bytes: Uint8Array) => Uint8Array) =>
  hasherFrom({ name, code, encode: (bytes) => Uint8Array.from(digest(bytes)) })

const hashers = new Map(
  [hasher('blake3', hashes.blake3, blake3), hasher('sha2-256', hashes.sha256, sha256)].map((it) => [it.code, it])
)

interface Mixin {
  start: (host: BitswapHost) => Promise<void>
}

/** The part of Helia that its bitswap uses. */
interface BitswapHost {
  libp2p: Libp2p
  blockstore: Blockstore
  logger: ReturnType<typeof defaultLogger>
  status: 'starting'
  getHasher: (code: number) => Promise<unknown>
  routing: { findProviders: () => AsyncIterable<never> }
  hasBlockBroker: () => boolean
  addBlockBroker: (broker: Startable) => void
  addMixin: (mixin: Mixin) => void
}

export interface BitswapServer {
  stop: () => Promise<void>
}

export async function serveBitswap(libp2p: Libp2p, blockstore: Blockstore): Promise<BitswapServer> {
  let mixin: Mixin | undefined
  let broker: Startable | undefined
  const host: BitswapHost = {
    libp2p,
    blockstore,
    logger: defaultLogger(),
    status: 'starting',
    getHasher: async (code) => {
      const found = hashers.get(code)
      if (found === undefined) throw new HoldfastError('BAD_INPUT', `no hasher for multihash code ${code}`)
      return found
    },
    // It only answers: it never looks for blocks of its own.
    routing: { findProviders: async function* () {} },
    hasBlockBroker: () => false,
    addBlockBroker: (added) => {
      broker = added
    },
    addMixin: (added) => {
      mixin = added
    }
  }
  const compose = withBitswap as unknown as (host: BitswapHost, init: { maxWantListSize: number }) => void
  compose(host, { maxWantListSize: wantsPerPeerMax })
  await mixin?.start(host)
  return {
    stop: async () => {
      await broker?.stop()
    }
  }
}
