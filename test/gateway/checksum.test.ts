import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type ChecksumAlgorithm,
  checksumAlgorithms,
  combineCrcs,
  compositeChecksum,
  createChecksummer,
  isChecksum
} from '../../src/gateway/checksum.ts'

async function checksum(algorithm: ChecksumAlgorithm, ...chunks: Uint8Array[]): Promise<string> {
  const checksummer = await createChecksummer(algorithm)
  for (const chunk of chunks) checksummer.update(chunk)
  return checksummer.digest()
}

const hex = (text: string): string => Buffer.from(text, 'hex').toString('base64')

/** The check values of the CRC catalogue (of "123456789"), and of FIPS 180. */
const checkValues: Record<ChecksumAlgorithm, string> = {
  crc32: hex('cbf43926'),
  crc32c: hex('e3069283'),
  crc64nvme: hex('ae8b14860a799888'),
  sha1: hex('f7c3bc1d808e04732adf679965ccc34ca7ae3441'),
  sha256: hex('15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225')
}

describe.each(checksumAlgorithms)('%s', (algorithm) => {
  test('check value, whole and in pieces', async () => {
    expect(await checksum(algorithm, Buffer.from('123456789'))).toBe(checkValues[algorithm])
    expect(await checksum(algorithm, Buffer.from('1234'), Buffer.from(''), Buffer.from('56789'))).toBe(
      checkValues[algorithm]
    )
  })

  test('two at once do not mix', async () => {
    const [a, b] = [await createChecksummer(algorithm), await createChecksummer(algorithm)]
    a.update(Buffer.from('1234'))
    b.update(Buffer.from('noise'))
    a.update(Buffer.from('56789'))
    expect(a.digest()).toBe(checkValues[algorithm])
  })

  test('recognises its own values only', async () => {
    expect(isChecksum(algorithm, checkValues[algorithm])).toBe(true)
    for (const bad of [
      '',
      'bad',
      `${checkValues[algorithm]} `,
      checkValues[algorithm].replace(/=+$/, ''),
      `A${checkValues[algorithm]}`
    ]) {
      // SHA-256 in base64 has padding as all others do, so that nothing but the exact text is left.
      expect(isChecksum(algorithm, bad)).toBe(false)
    }
  })
})

test('composite: the hash of the digests, with their number', async () => {
  const parts = ['a', 'b'].map((text) => createHash('sha256').update(text).digest())
  const expected = createHash('sha256').update(Buffer.concat(parts)).digest('base64')
  const values = parts.map((part) => ({ value: part.toString('base64'), sizeBytes: 1 }))
  expect(await compositeChecksum('sha256', values)).toBe(`${expected}-2`)
})

test.each(['crc32', 'crc32c', 'crc64nvme'] as const)('%s of parts combines to that of the whole', async (algorithm) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 8 }), async (parts) => {
      const values = await Promise.all(
        parts.map(async (part) => ({ value: await checksum(algorithm, part), sizeBytes: part.length }))
      )
      expect(combineCrcs(algorithm, values)).toBe(await checksum(algorithm, ...parts))
    })
  )
})

test('CRCs of ten thousand large parts combine without reading them', async () => {
  const value = await checksum('crc64nvme', Buffer.from('x'))
  const parts = Array.from({ length: 10_000 }, () => ({ value, sizeBytes: 500 * 2 ** 20 }))
  expect(isChecksum('crc64nvme', combineCrcs('crc64nvme', parts))).toBe(true)
})
