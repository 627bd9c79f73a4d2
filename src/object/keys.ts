/**
 * The key hierarchy: the gateway's master key wraps bucket keys, a bucket's key wraps object keys. Wrapping is
 * AES-256-GCM, stored as nonce (12) || ciphertext || tag (16), with the purpose as associated data, so that a key wrapped
 * for one use cannot be passed off for another.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { HoldfastError } from '../base/errors.ts'
import type { Random } from '../base/random.ts'

export const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16

/** What the sealed bytes are for: part of what is authenticated. */
export type Purpose = `bucket:${string}` | `object:${string}` | `access-key:${string}`

export function seal(key: Uint8Array, plaintext: Uint8Array, purpose: Purpose, random: Random): Uint8Array {
  const nonce = random.bytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(purpose))
  return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}

/** @throws HoldfastError `DAMAGED` when the key or purpose is another, or the bytes were altered */
export function unseal(key: Uint8Array, sealed: Uint8Array, purpose: Purpose): Uint8Array {
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes })
    decipher.setAAD(Buffer.from(purpose)).setAuthTag(sealed.subarray(-tagBytes))
    return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, -tagBytes)), decipher.final()])
  } catch (cause) {
    throw new HoldfastError(
      'DAMAGED',
      `a wrapped key (${purpose.split(':')[0]}) cannot be opened: is this the master key it was made with?`,
      { cause }
    )
  }
}
