/**
 * What the steps of a PUT or GET cost by themselves, added up: no network of this shape can take less CPU with the same
 * kernels. Computed from measured limits, so that it can be set beside what was measured.
 */
import type { Code } from '../../src/erasure/erasure-coder.ts'
import type { Row } from '../result.ts'

export interface FloorStep {
  what: string
  /** CPU-seconds for 10^9 bytes of object. */
  cpu: number
}

/** @param limits rows as `limits.ts` makes them */
export function floorOf(limits: readonly Row[], { k, m }: Code): { put: FloorStep[]; get: FloorStep[] } {
  const cost = (idStart: string): number => {
    const row = limits.find(({ id }) => id === idStart || id.startsWith(`${idStart}-`))
    if (row === undefined) throw new Error(`no limit ${idStart} was measured`)
    return row.figures.cpu!.median
  }
  const expansion = (k + m) / k
  const times = expansion.toFixed(2).replace(/\.?0+$/, '')
  return {
    put: [
      { what: 'MD5', cpu: cost('md5') },
      { what: 'AES-256-CTR', cpu: cost('aes') },
      { what: 'RS encode', cpu: cost('encode') },
      {
        what: `BLAKE3, ${times} times at the gateway and ${times} times at the providers`,
        cpu: 2 * expansion * cost('blake3')
      },
      { what: `TLS both ends, ${times} times`, cpu: expansion * cost('tls') }
    ],
    get: [
      { what: 'TLS both ends', cpu: cost('tls') },
      { what: 'BLAKE3 at the gateway', cpu: cost('blake3') },
      { what: 'AES-256-CTR', cpu: cost('aes') }
    ]
  }
}
