/** What the benchmark and the gateway's process say to each other. */

export interface GatewayJob {
  path: string
  seed: number
  shards: number
  providers: number
  /** When the audits begin, milliseconds since the Unix epoch. */
  startAt: number
  /** Of virtual time: not measured, then measured. */
  warmupHours: number
  hours: number
}

export interface Memory {
  residentBytes: number
  /** Alive after a collection: JavaScript's heap and the memory outside that it holds. */
  heapBytes: number
}

/** Of one hour of virtual time. */
export interface Hour {
  /** CPU of this process, without that of the simulated providers. */
  gatewayCpuSeconds: number
  providersCpuSeconds: number
  requests: number
  proofs: number
  wholeReads: number
  /** Bodies of requests and answers. */
  sentBytes: number
  receivedBytes: number
  indexBytes: number
  /** Providers that were asked at least once. */
  challenged: number
}

export interface GatewayReport {
  memory: {
    /** Before the first audit. */
    ready: Memory
    /** When measuring began. */
    warm: Memory
    end: Memory
  }
  /** Of what the simulated providers find their blocks by, which is part of all three. */
  tableBytes: number
  hours: Hour[]
  /** The longest that a provider went without a challenge, the time before the first one included. */
  longestGapMs: number
  /** Transcripts that were replayed, as whoever trusts nobody would. */
  replayed: number
}

export type GatewayMessage =
  | { kind: 'hour'; number: number }
  | { kind: 'done'; report: GatewayReport }
  | { kind: 'failed'; why: string }
