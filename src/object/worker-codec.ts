/** The segment codec on worker threads, which work in place on what lies in the memory that is shared with them. */
import { Worker } from 'node:worker_threads'
import { HoldfastError } from '../base/errors.ts'
import type { Envelope, Place, WorkerAnswer, WorkerRequest, WorkerSetup } from './codec-worker.ts'
import type { CodingMemory } from './coding-memory.ts'
import { type SegmentCodec, type StreamDigest, storedViews } from './segment-codec.ts'

interface Pending {
  resolve: (answer: WorkerAnswer) => void
  reject: (error: unknown) => void
}

interface Lane {
  worker: Worker
  pending: Map<number, Pending>
}

type AnswerTo<K extends WorkerAnswer['kind']> = Extract<WorkerAnswer, { kind: K }>

// Beside this file, whichever form it runs in: TypeScript in a checkout, JavaScript when published.
const workerUrl = new URL(`./codec-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

/**
 * What the cipher answers with is garbage a moment later, and small objects stand for much memory: with more room for
 * young objects, 50 MB of it would wait for the collector.
 */
const heapLimits = { maxYoungGenerationSizeMb: 1 }

/** As many threads as the memory has scratch regions. */
export function createWorkerCodec({ memory, scratch }: Pick<CodingMemory, 'memory' | 'scratch'>): SegmentCodec {
  let nextId = 0
  let nextStream = 0
  let closed = false
  const lanes: Lane[] = []

  const start = (region: WorkerSetup['scratch']): Lane => {
    const workerData = { memory, scratch: region } satisfies WorkerSetup
    const lane: Lane = { worker: new Worker(workerUrl, { workerData, resourceLimits: heapLimits }), pending: new Map() }
    const fail = (error: unknown): void => {
      const at = lanes.indexOf(lane)
      // A worker that died takes its jobs with it, not the gateway; another takes its place.
      if (at >= 0) {
        if (closed) lanes.splice(at, 1)
        else lanes[at] = start(region)
      }
      for (const { reject } of lane.pending.values()) {
        reject(new HoldfastError('INTERNAL', 'a coding worker ended', { cause: error }))
      }
      lane.pending.clear()
    }
    lane.worker.on('message', ({ id, body }: Envelope<WorkerAnswer>) => {
      const waiting = lane.pending.get(id)
      lane.pending.delete(id)
      if (lane.pending.size === 0) lane.worker.unref()
      waiting?.resolve(body)
    })
    lane.worker.once('error', fail)
    lane.worker.once('exit', (code) => fail(new Error(`exit code ${code}`)))
    lane.worker.unref()
    return lane
  }
  for (const region of scratch) lanes.push(start(region))

  const leastBusy = (): Lane => {
    if (closed) throw new HoldfastError('ABORTED', 'the codec is closed')
    return lanes.reduce((a, b) => (b.pending.size < a.pending.size ? b : a))
  }

  const ask = async <K extends WorkerAnswer['kind']>(
    expected: K,
    body: WorkerRequest,
    lane: Lane = leastBusy()
  ): Promise<AnswerTo<K>> => {
    if (!lanes.includes(lane)) throw new HoldfastError('INTERNAL', 'a coding worker ended')
    const id = nextId++
    const answer = await new Promise<WorkerAnswer>((resolve, reject) => {
      lane.pending.set(id, { resolve, reject })
      lane.worker.ref()
      lane.worker.postMessage({ id, body } satisfies Envelope<WorkerRequest>)
    })
    if (answer.kind === 'failed') throw new HoldfastError(answer.code, answer.message)
    if (answer.kind !== expected) throw new HoldfastError('INTERNAL', 'a coding worker mixed up its answers')
    return answer as AnswerTo<K>
  }

  /** Where it lies in the shared memory, or else the bytes themselves, which are copied to the worker. */
  const placeOf = (bytes: Uint8Array): Place =>
    bytes.buffer === memory.buffer ? { address: bytes.byteOffset, length: bytes.length } : bytes

  return {
    encode: async ({ buffer, ...job }) => {
      const place = placeOf(buffer)
      const { digests, shards } = await ask('encoded', { kind: 'encode', buffer: place, ...job })
      return { digests, shards: shards ?? storedViews(buffer, job.length, job.code) }
    },
    reconstruct: async ({ shards, ...job }) => {
      const places = shards.map((shard) => (shard === undefined ? undefined : placeOf(shard)))
      return (await ask('reconstructed', { kind: 'reconstruct', shards: places, ...job })).shards
    },
    decrypt: async ({ pieces, ...job }) => {
      if (pieces.some((piece) => piece.buffer !== memory.buffer))
        throw new HoldfastError('INTERNAL', 'only what lies in the shared memory can be decrypted in place')
      await ask('done', { kind: 'decrypt', pieces: pieces.map(placeOf), ...job })
    },
    startDigest: (): StreamDigest => {
      const stream = nextStream++
      // One thread for all of it: a hash under way cannot move. Started with the first bytes, where there is least to do.
      let lane: Lane | undefined
      const on = (): Lane => (lane ??= leastBusy())
      let isOver = false
      return {
        update: async (bytes) => {
          const request: WorkerRequest = { kind: 'digest-update', stream, bytes: placeOf(bytes) }
          await ask('done', request, on())
        },
        digest: async () => {
          isOver = true
          return (await ask('digest', { kind: 'digest-end', stream }, on())).digest
        },
        drop: () => {
          if (isOver || lane === undefined) return
          isOver = true
          ask('done', { kind: 'digest-drop', stream }, lane).catch(() => {}) // the thread is gone, and the hash with it
        }
      }
    },
    close: async () => {
      closed = true
      await Promise.all(lanes.slice().map(({ worker }) => worker.terminate()))
    }
  }
}
