/** The segment codec on worker threads: buffers are transferred there and back, never copied. */
import { Worker } from 'node:worker_threads'
import { HoldfastError } from '../base/errors.ts'
import type { WorkerAnswer, WorkerRequest } from './codec-worker.ts'
import type { EncodedSegment, EncodeJob, ReconstructJob, SegmentCodec } from './segment-codec.ts'

interface Pending {
  resolve: (answer: WorkerAnswer) => void
  reject: (error: unknown) => void
}

interface Lane {
  worker: Worker
  pending: Map<number, Pending>
}

// Beside this file, whichever form it runs in: TypeScript in a checkout, JavaScript when published.
const workerUrl = new URL(`./codec-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

export function createWorkerCodec(threads: number): SegmentCodec {
  let nextId = 0
  let closed = false
  const lanes: Lane[] = []

  const start = (): Lane => {
    const lane: Lane = { worker: new Worker(workerUrl), pending: new Map() }
    const fail = (error: unknown): void => {
      const at = lanes.indexOf(lane)
      // A worker that died takes its jobs with it, not the gateway; another takes its place.
      if (at >= 0) {
        if (closed) lanes.splice(at, 1)
        else lanes[at] = start()
      }
      for (const { reject } of lane.pending.values()) {
        reject(new HoldfastError('INTERNAL', 'a coding worker ended', { cause: error }))
      }
      lane.pending.clear()
    }
    lane.worker.on('message', (answer: WorkerAnswer) => {
      const waiting = lane.pending.get(answer.id)
      lane.pending.delete(answer.id)
      if (lane.pending.size === 0) lane.worker.unref()
      waiting?.resolve(answer)
    })
    lane.worker.once('error', fail)
    lane.worker.once('exit', (code) => fail(new Error(`exit code ${code}`)))
    lane.worker.unref()
    return lane
  }
  for (let i = 0; i < threads; i++) lanes.push(start())

  const run = async (request: WorkerRequest, transfer: ArrayBuffer[]): Promise<WorkerAnswer> => {
    if (closed) throw new HoldfastError('ABORTED', 'the codec is closed')
    const lane = lanes.reduce((a, b) => (b.pending.size < a.pending.size ? b : a))
    const answer = await new Promise<WorkerAnswer>((resolve, reject) => {
      lane.pending.set(request.id, { resolve, reject })
      lane.worker.ref()
      lane.worker.postMessage(request, transfer)
    })
    if (answer.kind === 'failed') throw new HoldfastError(answer.code, answer.message)
    return answer
  }

  return {
    encode: async (job: EncodeJob): Promise<EncodedSegment> => {
      const answer = await run({ id: nextId++, kind: 'encode', job }, [job.buffer.buffer])
      if (answer.kind !== 'encoded') throw new HoldfastError('INTERNAL', 'a coding worker mixed up its answers')
      return answer.segment
    },
    reconstruct: async (job: ReconstructJob): Promise<Uint8Array[]> => {
      const answer = await run({ id: nextId++, kind: 'reconstruct', job }, [])
      if (answer.kind !== 'reconstructed') throw new HoldfastError('INTERNAL', 'a coding worker mixed up its answers')
      return answer.shards
    },
    close: async () => {
      closed = true
      await Promise.all(lanes.slice().map(({ worker }) => worker.terminate()))
    }
  }
}
