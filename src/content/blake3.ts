/**
 * BLAKE3, 256-bit digests, synchronous. The prebuilt native binary where it loads (three and a half times as fast), our
 * own kernel where it does not. Both are checked against another implementation in `test/content`.
 */
import { createRequire } from 'node:module'
import { KiB } from '../base/limits.ts'
import { type SimdLevel, simdLevel } from '../wasm/assembler.ts'
import { digestWith } from './blake3-hash.ts'
import { Blake3Kernel } from './blake3-kernel.ts'

export interface Blake3 {
  /** `native`, or what the kernel makes use of. */
  name: 'native' | SimdLevel
  /** 32-byte digest. The bytes may be shared with other threads, so long as none of them writes. */
  digest: (bytes: Uint8Array) => Uint8Array
}

interface NativeModule {
  blake3: (input: Buffer) => string
  Blake3Hasher: new () => { update: (input: Buffer) => unknown; digestBuffer: () => Buffer }
}

export function portableBlake3(level: SimdLevel = simdLevel): Blake3 {
  const kernel = new Blake3Kernel({ level })
  return { name: level, digest: (bytes) => digestWith(kernel, bytes) }
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
    return undefined // no binary for this platform: the portable one serves
  }
}

/**
 * Below this the call into native code costs more than it saves (2.3 µs for 121 bytes, where our own kernel takes 0.35), and
 * leaves 2.6 kB outside the heap behind until a turn of the event loop.
 */
const nativeBytesMin = 16 * KiB

const native = nativeBlake3()
const own = portableBlake3()

export const blake3Implementation: Blake3['name'] = (native ?? own).name
export const blake3: Blake3['digest'] =
  native === undefined ? own.digest : (bytes) => (bytes.length < nativeBytesMin ? own : native).digest(bytes)
