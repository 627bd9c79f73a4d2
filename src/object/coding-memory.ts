/** The memory that writing, reading and the coding threads work in together. */
import { createMemory, pageBytes, type WasmMemory } from '../wasm/engine.ts'
import { Arena } from './arena.ts'

export interface Arenas {
  /** Segments being filled, coded and sent. */
  writes: Arena
  /** Shards being fetched. */
  reads: Arena
}

export interface CodingMemory extends Arenas {
  /** Shared between threads: what lies in the arenas is coded, encrypted and, by the native hash, hashed in place. */
  memory: WasmMemory
  /** A region for each thread's kernels, for their tables. */
  scratch: ReadonlyArray<{ address: number; bytes: number }>
}

export interface ArenaSizes {
  writeBytes: number
  readBytes: number
}

/** Twice what the coder takes. */
const scratchBytes = 64 * 1024

/** @param threads how many will code in it */
export function createCodingMemory({ writeBytes, readBytes }: ArenaSizes, threads: number): CodingMemory {
  const scratchEnd = threads * scratchBytes
  const total = scratchEnd + writeBytes + readBytes
  const pages = Math.ceil(total / pageBytes)
  // All of it from the start: memory that was never touched costs nothing.
  const memory = createMemory({ initialPages: pages, maximumPages: pages, shared: true })
  return {
    memory,
    scratch: Array.from({ length: threads }, (_, i) => ({ address: i * scratchBytes, bytes: scratchBytes })),
    writes: new Arena(memory.buffer, scratchEnd, scratchEnd + writeBytes),
    reads: new Arena(memory.buffer, scratchEnd + writeBytes, total)
  }
}

/** For a codec on the calling thread. */
export function createArenas({ writeBytes, readBytes }: ArenaSizes): Arenas {
  return { writes: new Arena(new ArrayBuffer(writeBytes)), reads: new Arena(new ArrayBuffer(readBytes)) }
}
