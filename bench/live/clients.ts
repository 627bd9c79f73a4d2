/** Those who use the network meanwhile: each asks for one thing at a time, and looks at every byte of the answer. */
import type { Clock } from '../../src/base/clock.ts'
import type { ChurnRecorder } from '../../src/sim/churn/report.ts'
import { type ChurnRequest, type ChurnWorkload, keyOf, requestMsMax, requestsOf } from '../../src/sim/churn/workload.ts'
import { WrongAnswerError } from '../harness.ts'
import { type S3Client, S3Failure } from '../throughput/s3-client.ts'
import { steadyClock } from './steady-clock.ts'
import type { Versions } from './versions.ts'

export const bucket = 'live'

export interface ClientsInit {
  workload: ChurnWorkload
  versions: Versions
  s3: Pick<S3Client, 'get' | 'put'>
  recorder: Pick<ChurnRecorder, 'read' | 'written' | 'failed'>
  clock?: Clock
}

export class Clients {
  readonly #init: ClientsInit
  readonly #clock: Clock

  constructor(init: ClientsInit) {
    this.#init = init
    this.#clock = init.clock ?? steadyClock
  }

  /**
   * Until none begins another request, which is at the end of the workload's time, and all have their answers.
   *
   * @throws WrongAnswerError, at the end, when somebody got bytes that were not stored; the signal's reason
   */
  async run(startedAt: number, signal: AbortSignal): Promise<void> {
    const { workload } = this.#init
    const endsAt = startedAt + workload.durationMs
    const all = Array.from({ length: workload.clients }, (_, client) => this.#runOne(client, endsAt, signal))
    for (const outcome of await Promise.allSettled(all)) if (outcome.status === 'rejected') throw outcome.reason
  }

  async #runOne(client: number, endsAt: number, signal: AbortSignal): Promise<void> {
    for (const request of requestsOf(this.#init.workload, client)) {
      if (this.#clock.now() + request.pauseMs >= endsAt) return
      await this.#clock.sleep(request.pauseMs, signal)
      await this.request(request, signal)
    }
  }

  /** One request, to its end, which is recorded. @throws WrongAnswerError; the signal's reason */
  async request({ kind, object }: Pick<ChurnRequest, 'kind' | 'object'>, signal: AbortSignal): Promise<void> {
    const late = new AbortController()
    const timing = new AbortController()
    this.#clock.sleep(requestMsMax, timing.signal).then(
      () => late.abort(new Error('timeout')),
      () => {} // it was answered
    )
    try {
      if (kind === 'read') await this.#read(object, late.signal)
      else await this.#write(object, late.signal)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof WrongAnswerError) throw error
      this.#init.recorder.failed(kind, late.signal.aborted ? 'timeout' : failureName(error))
    } finally {
      timing.abort(new Error('over'))
    }
  }

  async #read(object: number, signal: AbortSignal): Promise<void> {
    const { s3, versions, recorder } = this.#init
    const expected = versions.expected(object)
    const startedAt = performance.now()
    let firstByteMs = 0
    await s3.get(bucket, keyOf(object), expected, {
      signal,
      onFirstByte: () => {
        firstByteMs = performance.now() - startedAt
      }
    })
    recorder.read({ firstByteMs, ms: performance.now() - startedAt, bytes: expected.size })
  }

  async #write(object: number, signal: AbortSignal): Promise<void> {
    const { s3, versions, recorder } = this.#init
    const { version, data } = versions.begin(object)
    const startedAt = performance.now()
    try {
      await s3.put(bucket, keyOf(object), data, { signal })
    } catch (error) {
      versions.failed(object, version)
      throw error
    }
    versions.stored(object, version)
    recorder.written(performance.now() - startedAt)
  }
}

/** `SlowDown` and the like, of S3; `UND_ERR_SOCKET` and the like, of a connection that broke. */
export function failureName(error: unknown): string {
  if (error instanceof S3Failure) return error.code
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : 'failed'
}
