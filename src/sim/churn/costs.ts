/**
 * What a simulated run under churn takes for work, as measured on two cores that client, gateway and providers shared
 * (`bench/results/throughput.json`, commit 0db6368d3478: 12 providers next door, 6+6, Node 22). What a figure is made
 * of is beside it. Queues: a gateway works on one thing at a time; providers, which are computers of their own here, on
 * as many as come.
 */
import { secondMs } from '../../base/limits.ts'

export interface ChurnCosts {
  /** Of the gateway for a request, besides its bytes. */
  readMs: number
  writeMs: number
  /** Of the gateway for 10^6 bytes of an object. */
  readMsPerMB: number
  writeMsPerMB: number
  /** Of a provider for a request, and for 10^6 bytes in either direction. */
  providerMs: number
  providerMsPerMB: number
  /** Of a provider beyond that for a block to be on its disk. */
  storeMs: number
  storeMsPerMB: number
  /** From its start to when a provider serves, and connects to those that it knows. */
  startUpMs: number
  /** Before the first request on a connection. */
  setUpRoundTrips: { data: number; control: number }
}

export const churnCosts: ChurnCosts = {
  // gatewayCpu of get-4KiB-c1 and put-4KiB-c1: 3.98 and 10.9 ms. As p50 they came to 5.9 and 24.5 ms with the
  // providers' part.
  readMs: 4,
  writeMs: 10.9,
  // gatewayCpu of get-64MiB-c1 and put-64MiB-c1: 2.57 and 5.51 CPU-s a GB.
  readMsPerMB: 2.57,
  writeMsPerMB: 5.51,
  // providersCpu of get-4KiB-c1, six requests: 6.09 ms; of get-64MiB-c1: 2.09 CPU-s a GB.
  providerMs: 1,
  providerMsPerMB: 2.09,
  // providersCpu of put-4KiB-c1, 12 shards and 7 copies of the manifest: 34.1 ms, so 1.8 each. Of put-64MiB-c1: 8.79
  // CPU-s a GB, which are two of shards; and fsync-c1: 942 MB/s.
  storeMs: 0.8,
  storeMsPerMB: 4.4 - 2.09 + 1.06,
  // `holdfast provider`, started again on its directory: 2.4 and 2.9 s on the same machine at a load of 16. Every live
  // run says what it took there.
  startUpMs: 2.5 * secondMs,
  // TCP and TLS 1.3. TCP, choosing Noise, Noise, choosing Yamux: the libp2p specifications, not measured.
  setUpRoundTrips: { data: 2, control: 4 }
}

export const perMegabyte = (bytes: number, msPerMB: number): number => (bytes / 1e6) * msPerMB
