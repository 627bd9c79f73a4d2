/** A peer's identity: an Ed25519 key in libp2p's protobuf form, and the peer id that is its public half. */
import { link, mkdir, open, readFile, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { Ed25519PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import { syncDirectory, temporaryName } from '../base/durable-file.ts'
import { HoldfastError } from '../base/errors.ts'

/** An encoded Ed25519 key has 68 bytes. */
const keyFileBytesMax = 1024

export interface Identity {
  /** libp2p peer id, base58btc. */
  readonly peerId: string
  readonly privateKey: Ed25519PrivateKey
  /** Signs with the peer key; 64 bytes. */
  sign: (bytes: Uint8Array) => Promise<Uint8Array>
}

export function identityOf(privateKey: Ed25519PrivateKey): Identity {
  return {
    peerId: peerIdFromPrivateKey(privateKey).toString(),
    privateKey,
    sign: async (bytes) => await privateKey.sign(bytes)
  }
}

export async function generateIdentity(): Promise<Identity> {
  return identityOf(await generateKeyPair('Ed25519'))
}

/**
 * Reads the identity kept in a file, or makes one and keeps it there (mode 0600, durable). Two processes that start
 * together end up with the same key.
 *
 * @throws HoldfastError `BAD_CONFIG` when the file is no such key, or others may read it
 */
export async function loadIdentity(path: string): Promise<Identity> {
  const existing = await readIdentity(path)
  if (existing !== undefined) return existing
  const identity = await generateIdentity()
  await mkdir(dirname(path), { recursive: true })
  const temporary = temporaryName(path)
  try {
    const handle = await open(temporary, 'w', 0o600)
    try {
      await handle.writeFile(privateKeyToProtobuf(identity.privateKey))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(temporary, path) // unlike rename, this never replaces a key
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return (await readIdentity(path))!
  } finally {
    await rm(temporary, { force: true })
  }
  await syncDirectory(dirname(path))
  return identity
}

async function readIdentity(path: string): Promise<Identity | undefined> {
  let bytes: Uint8Array
  try {
    const { mode, size } = await stat(path)
    // A key that others could read may be in other hands already: the operator has to know.
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new HoldfastError('BAD_CONFIG', `${path} may be read by others; make it private: chmod 600 ${path}`)
    }
    if (size > keyFileBytesMax) throw new HoldfastError('BAD_CONFIG', `${path} is not a peer key`)
    bytes = await readFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  return identityOf(parseKey(path, bytes))
}

function parseKey(path: string, bytes: Uint8Array): Ed25519PrivateKey {
  try {
    const key = privateKeyFromProtobuf(bytes)
    if (key.type === 'Ed25519') return key
  } catch {
    // the bytes are not shown: they may be a secret of another kind
  }
  throw new HoldfastError('BAD_CONFIG', `${path} is not an Ed25519 peer key`)
}

/** Whether `signature` is of `bytes`, by the key that an Ed25519 peer id contains. False for anything malformed. */
export async function verifySignature(peerId: string, bytes: Uint8Array, signature: Uint8Array): Promise<boolean> {
  try {
    const id = peerIdFromString(peerId)
    return id.type === 'Ed25519' && (await id.publicKey.verify(bytes, signature))
  } catch {
    return false // not a peer id, or not a signature
  }
}
