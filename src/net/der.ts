/** The little of DER (X.690) that a certificate with one extension needs: a writer, and a strict bounded reader. */

export const derTags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  /** `[n] EXPLICIT`. */
  context: (n: number): number => 0xa0 | n
} as const

export function der(tag: number, ...contents: Uint8Array[]): Uint8Array {
  const content = Buffer.concat(contents)
  const { length } = content
  const header =
    length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff]
  if (length > 0xffff) throw new RangeError('DER value too long')
  return Buffer.concat([Buffer.from(header), content])
}

export function derOid(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes: number[] = []
  for (const arc of [first * 40 + second, ...rest]) {
    const groups = [arc & 0x7f]
    for (let left = arc >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return der(derTags.oid, Buffer.from(bytes))
}

export interface DerValue {
  tag: number
  content: Uint8Array
}

/**
 * The values that `bytes` consists of, one after another.
 *
 * @throws Error for anything that is not DER, or has lengths above 65,535
 */
export function readDer(bytes: Uint8Array): DerValue[] {
  const values: DerValue[] = []
  let at = 0
  while (at < bytes.length) {
    const tag = bytes[at]!
    let length = bytes[at + 1] ?? Number.NaN
    let header = 2
    if (length === 0x81) {
      length = bytes[at + 2] ?? Number.NaN
      header = 3
      if (length < 0x80) throw new Error('DER length not minimal')
    } else if (length === 0x82) {
      length = (bytes[at + 2] ?? Number.NaN) * 256 + (bytes[at + 3] ?? Number.NaN)
      header = 4
      if (length < 0x100) throw new Error('DER length not minimal')
    } else if (length >= 0x80) throw new Error('DER length not supported')
    const start = at + header
    if (!(start + length <= bytes.length)) throw new Error('DER value cut short')
    values.push({ tag, content: bytes.subarray(start, start + length) })
    at = start + length
  }
  return values
}

/** The parts of a constructed value. @throws Error unless it has that tag */
export function derParts(value: DerValue | undefined, tag: number): DerValue[] {
  return readDer(derContent(value, tag))
}

/** The content of a value. @throws Error unless it has that tag */
export function derContent(value: DerValue | undefined, tag: number): Uint8Array {
  if (value?.tag !== tag) throw new Error(`expected DER tag ${tag}, found ${value?.tag ?? 'none'}`)
  return value.content
}
