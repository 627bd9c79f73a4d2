/** Elements that several answers share. */
import type { Checksums } from '../../metadata/records.ts'
import type { Account } from '../../object/object-store.ts'
import { type ChecksumType, checksumAlgorithms, checksumLabel } from '../checksum.ts'
import { element, optional, type Xml } from '../xml.ts'

export function ownerElement(account: Account, name = 'Owner'): Xml {
  return element(name, [element('ID', account.owner), element('DisplayName', account.displayName)])
}

/** `ChecksumCRC32` and its like, and `ChecksumType` where it is given. */
export function checksumElements(checksums: Checksums, type?: ChecksumType): Xml[] {
  const values = checksumAlgorithms.flatMap((algorithm) =>
    optional(`Checksum${checksumLabel(algorithm)}`, checksums[algorithm])
  )
  return values.length === 0 ? [] : [...values, ...optional('ChecksumType', type)]
}

/** `ChecksumAlgorithm` of a listing: which checksums there are, without their values. */
export function checksumAlgorithmElements(checksums: Checksums, type?: ChecksumType): Xml[] {
  const present = checksumAlgorithms.filter((algorithm) => checksums[algorithm] !== undefined)
  if (present.length === 0) return []
  return [
    ...present.map((algorithm) => element('ChecksumAlgorithm', checksumLabel(algorithm))),
    element('ChecksumType', type ?? 'FULL_OBJECT')
  ]
}

export function commonPrefixElements(prefixes: readonly string[], encode: (name: string) => string): Xml[] {
  return prefixes.map((prefix) => element('CommonPrefixes', [element('Prefix', encode(prefix))]))
}
