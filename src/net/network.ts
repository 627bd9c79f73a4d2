/**
 * The control plane: small bounded request/response messages between peers whose identity is proven. `libp2p.ts` is
 * the real one.
 */
export interface PeerAddress {
  /** libp2p peer id, base58btc. */
  peerId: string
  /** Multiaddrs to try; may be empty, or stale, when the peer is already known to the network layer. */
  addresses: readonly string[]
}

/** Answers one request of a proven peer. What it throws closes the stream: the asker sees a failure, no details. */
export type RequestHandler = (from: string, body: Uint8Array) => Promise<Uint8Array>

export interface Network {
  readonly peerId: string
  /** Multiaddrs, with this peer's id, that others can dial. */
  addresses: () => string[]
  /**
   * One message out, one back, each at most `limits.rpcBytesMax`.
   *
   * @throws HoldfastError `OFFLINE` when no connection can be had, `TIMEOUT`, `PROTOCOL`
   */
  request: (peer: PeerAddress, protocol: string, body: Uint8Array, signal?: AbortSignal) => Promise<Uint8Array>
  handle: (protocol: string, handler: RequestHandler) => Promise<void>
}
