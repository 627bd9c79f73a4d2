/** The thread behind `worker-codec.ts`: one coder, one job at a time. */
import { createHash, type Hash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { type ErrorCode, HoldfastError, messageOf } from '../base/errors.ts'
import { createCoder } from '../erasure/coder.ts'
import type { Code } from '../erasure/erasure-coder.ts'
import type { WasmMemory } from '../wasm/engine.ts'
import { applyCipher, type SegmentCipher } from './cipher.ts'
import { encodeSync, reconstructSync } from './segment-codec.ts'

export interface WorkerSetup {
  memory: WasmMemory
  scratch: { address: number; bytes: number }
}

/** Bytes of the shared memory, or bytes that travel with the message. */
export type Place = { address: number; length: number } | Uint8Array

export type WorkerRequest =
  | { kind: 'encode'; buffer: Place; length: number; code: Code; cipher?: SegmentCipher }
  | {
      kind: 'reconstruct'
      shards: ReadonlyArray<Place | undefined>
      length: number
      code: Code
      wanted: readonly number[]
    }
  | { kind: 'decrypt'; pieces: readonly Place[]; cipher: SegmentCipher; offset: number }
  | { kind: 'digest-update'; stream: number; bytes: Place }
  | { kind: 'digest-end'; stream: number }
  | { kind: 'digest-drop'; stream: number }

export type WorkerAnswer =
  /** `shards` only where they do not lie in the shared memory. */
  | { kind: 'encoded'; digests: Uint8Array[]; shards?: Uint8Array[] }
  | { kind: 'reconstructed'; shards: Uint8Array[] }
  | { kind: 'done' }
  | { kind: 'digest'; digest: Uint8Array }
  | { kind: 'failed'; code: ErrorCode; message: string }

export interface Envelope<T> {
  id: number
  body: T
}

if (parentPort !== null) {
  const port = parentPort
  const { memory, scratch } = workerData as WorkerSetup
  const coder = createCoder({ memory, scratch })
  const digests = new Map<number, Hash>()
  const at = (place: Place): Uint8Array =>
    place instanceof Uint8Array ? place : new Uint8Array(memory.buffer, place.address, place.length)

  const answer = (request: WorkerRequest): WorkerAnswer => {
    switch (request.kind) {
      case 'encode': {
        const { shards, digests } = encodeSync(coder, { ...request, buffer: at(request.buffer) })
        return request.buffer instanceof Uint8Array
          ? { kind: 'encoded', shards, digests }
          : { kind: 'encoded', digests }
      }
      case 'reconstruct': {
        const shards = request.shards.map((place) => (place === undefined ? undefined : at(place)))
        return { kind: 'reconstructed', shards: reconstructSync(coder, { ...request, shards }) }
      }
      case 'decrypt':
        applyCipher(request.cipher, request.offset, request.pieces.map(at))
        return { kind: 'done' }
      case 'digest-update': {
        const hash = digests.get(request.stream) ?? createHash('md5')
        digests.set(request.stream, hash)
        hash.update(at(request.bytes))
        return { kind: 'done' }
      }
      case 'digest-end': {
        const hash = digests.get(request.stream) ?? createHash('md5')
        digests.delete(request.stream)
        return { kind: 'digest', digest: Uint8Array.from(hash.digest()) }
      }
      case 'digest-drop':
        digests.delete(request.stream)
        return { kind: 'done' }
    }
  }

  port.on('message', ({ id, body }: Envelope<WorkerRequest>) => {
    let result: WorkerAnswer
    try {
      result = answer(body)
    } catch (error) {
      const code = error instanceof HoldfastError ? error.code : 'INTERNAL'
      result = { kind: 'failed', code, message: messageOf(error) }
    }
    // Results that lie in memory of their own travel without being copied.
    const own = 'shards' in result ? new Set(result.shards?.map(({ buffer }) => buffer as ArrayBuffer)) : []
    port.postMessage({ id, body: result } satisfies Envelope<WorkerAnswer>, [...own])
  })
}
