/** What every operation is given, and what it answers. */
import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { Account, ObjectStore } from '../../object/object-store.ts'
import type { RequestBody } from '../body.ts'
import type { Query } from '../request.ts'
import type { HeaderMap } from '../signature.ts'

export interface GatewayContext {
  store: ObjectStore
  /** What clients sign for and what HeadBucket tells them. */
  region: string
  clock: Clock
  log: Log
}

export interface S3Request {
  scheme: 'http' | 'https'
  method: string
  bucket: string
  key: string
  query: Query
  headers: HeaderMap
  /** Absent for an anonymous request. */
  account?: Account
  body: RequestBody
  /** Aborts when the client goes away. */
  signal: AbortSignal
}

/** A body that is written as it is read. */
export interface ByteStream {
  sizeBytes: number
  chunks: AsyncIterable<Uint8Array>
  /** Called once, whether or not anything was read. */
  close: () => void
}

export interface Reply {
  status: number
  headers?: Record<string, string>
  /** Text is XML. */
  body?: string | Uint8Array | ByteStream
}

export type Operation = (request: S3Request, context: GatewayContext) => Promise<Reply>
