/**
 * AES-256-CTR, seekable. The counter block is the segment's 8-byte nonce and a 64-bit big-endian block counter that
 * starts at 0 with the segment, so a read decrypts only its range. Integrity is the CIDs' work.
 */
import { createCipheriv } from 'node:crypto'

export interface SegmentCipher {
  /** 32 bytes. */
  key: Uint8Array
  /** 8 bytes, never used twice with one key. */
  nonce: Uint8Array
}

const blockBytes = 16

/** A transform over consecutive bytes of a segment from `offset` on; encryption and decryption are the same. */
export function cipherAt({ key, nonce }: SegmentCipher, offset: number): (bytes: Uint8Array) => Uint8Array {
  const iv = Buffer.alloc(blockBytes)
  iv.set(nonce, 0)
  iv.writeBigUInt64BE(BigInt(Math.floor(offset / blockBytes)), 8)
  const cipher = createCipheriv('aes-256-ctr', key, iv)
  const skip = offset % blockBytes
  if (skip > 0) cipher.update(Buffer.alloc(skip))
  return (bytes) => cipher.update(bytes)
}

/** What OpenSSL answers with is new memory each time: in small pieces the allocator uses the same again, twice as fast. */
const pieceBytes = 16 * 1024

/** Encrypts or decrypts consecutive bytes of a segment from `offset` on, in place. */
export function applyCipher(cipher: SegmentCipher, offset: number, pieces: readonly Uint8Array[]): void {
  const apply = cipherAt(cipher, offset)
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; at += pieceBytes) {
      piece.set(apply(piece.subarray(at, at + pieceBytes)), at)
    }
  }
}
