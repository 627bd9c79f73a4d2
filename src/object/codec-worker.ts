/** The thread behind `worker-codec.ts`: one coder, one job at a time. */
import { parentPort } from 'node:worker_threads'
import { type ErrorCode, HoldfastError, messageOf } from '../base/errors.ts'
import { createCoder } from '../erasure/coder.ts'
import {
  type EncodedSegment,
  type EncodeJob,
  encodeSync,
  type ReconstructJob,
  reconstructSync
} from './segment-codec.ts'

export type WorkerRequest =
  | { id: number; kind: 'encode'; job: EncodeJob }
  | { id: number; kind: 'reconstruct'; job: ReconstructJob }

export type WorkerAnswer =
  | { id: number; kind: 'encoded'; segment: EncodedSegment }
  | { id: number; kind: 'reconstructed'; shards: Uint8Array[] }
  | { id: number; kind: 'failed'; code: ErrorCode; message: string }

if (parentPort !== null) {
  const port = parentPort
  const coder = createCoder()
  port.on('message', (request: WorkerRequest) => {
    try {
      if (request.kind === 'encode') {
        const segment = encodeSync(coder, request.job)
        port.postMessage({ id: request.id, kind: 'encoded', segment } satisfies WorkerAnswer, [segment.buffer.buffer])
      } else {
        const shards = reconstructSync(coder, request.job)
        const memory = new Set(shards.map((shard) => shard.buffer as ArrayBuffer))
        port.postMessage({ id: request.id, kind: 'reconstructed', shards } satisfies WorkerAnswer, [...memory])
      }
    } catch (error) {
      const code = error instanceof HoldfastError ? error.code : 'INTERNAL'
      port.postMessage({ id: request.id, kind: 'failed', code, message: messageOf(error) } satisfies WorkerAnswer)
    }
  })
}
