/**
 * BLAKE3, 256-bit digests, synchronous. The prebuilt native binary where it loads (about eight times as fast),
 * hash-wasm's where it does not. Both are checked against each other and published vectors in `test/content`.
 */
import { createRequire } from 'node:module'
import { createBLAKE3 } from 'hash-wasm'

export interface Blake3 {
  name: 'native' | 'wasm'
  /** 32-byte digest. */
  digest: (bytes: Uint8Array) => Uint8Array
}

interface NativeModule {
  blake3: (input: Buffer) => string
  Blake3Hasher: new () => { update: (input: Buffer) => unknown; digestBuffer: () => Buffer }
}

export async function wasmBlake3(): Promise<Blake3> {
  const hasher = await createBLAKE3()
  return { name: 'wasm', digest: (bytes) => hasher.init().update(bytes).digest('binary') }
}

export function nativeBlake3(): Blake3 | undefined {
  try {
    const native = createRequire(import.meta.url)('@napi-rs/blake-hash') as NativeModule
    return {
      name: 'native',
      digest: (bytes) => {
        const hasher = new native.Blake3Hasher()
        hasher.update(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
        return hasher.digestBuffer()
      }
    }
  } catch {
    return undefined // no binary for this platform: the portable one below serves
  }
}

const chosen = nativeBlake3() ?? (await wasmBlake3())

export const blake3Implementation: Blake3['name'] = chosen.name
export const blake3: Blake3['digest'] = chosen.digest
