/** Ours at every level that the engine has, where shards lie and through a copy; and such peers as are to be had here. */
import { createCoder } from '../../src/erasure/coder.ts'
import { scratchBytes } from '../../src/erasure/kernel.ts'
import type { SimdLevel } from '../../src/wasm/assembler.ts'
import { simdLevel } from '../../src/wasm/assembler.ts'
import { createMemory, pageBytes } from '../../src/wasm/engine.ts'
import { isalContender } from '../peers/isal.ts'
import { createNpmWasmCoder } from '../peers/npm-wasm-coder.ts'
import { ronomonContender } from '../peers/ronomon.ts'
import { type Contender, coderContender } from './contender.ts'

/** @param bytesMax of all shards of the largest segment */
function inPlaceContender(level: SimdLevel, bytesMax: number): Contender {
  const pages = Math.ceil(bytesMax / pageBytes) + 1
  const memory = createMemory({ initialPages: pages, maximumPages: pages, shared: true })
  const coder = createCoder({ level, memory, scratch: { address: 0, bytes: scratchBytes } })
  const at = (bytes: number): Uint8Array => new Uint8Array(memory.buffer, pageBytes, bytes)
  return coderContender(`${level}-place`, coder, `${coder.name}, in place`, at)
}

export function stagedContender(level: SimdLevel): Contender {
  const coder = createCoder({ level })
  return coderContender(`${level}-staged`, coder, `${coder.name}, staged`, (bytes) => new Uint8Array(bytes))
}

export interface Contenders {
  contenders: Contender[]
  /** Who is missing. */
  notes: string[]
}

/** @param directory for what has to be compiled; @param peers see `bench/peers/ronomon.ts` */
export async function findContenders(
  directory: string,
  peers: string | undefined,
  bytesMax: number
): Promise<Contenders> {
  const all: readonly SimdLevel[] = ['relaxed', 'simd', 'scalar']
  const levels = all.slice(all.indexOf(simdLevel))
  const npm = createNpmWasmCoder()
  const isal = await isalContender(directory)
  const ronomon = ronomonContender(peers)
  return {
    contenders: [
      ...levels.map((level) => inPlaceContender(level, bytesMax)),
      stagedContender(simdLevel),
      coderContender('npm', npm, npm.name, (bytes) => new Uint8Array(bytes)),
      ...[isal, ronomon].filter((one) => one !== undefined)
    ],
    notes: [
      ...(isal === undefined ? ['ISA-L is not measured: it takes a C compiler (cc) and libisal-dev.'] : []),
      ...(ronomon === undefined
        ? ['@ronomon/reed-solomon is not measured: --peers names no directory that has it.']
        : ['@ronomon/reed-solomon codes on a thread of its own, one call at a time, and only up to 24+6.'])
    ]
  }
}
