import { flushCompileCache } from 'node:module'
import type { GatewayReady, ProviderReady } from './up/messages.ts'

/** Tells the parent that this process is ready, where there is a parent that listens. */
export function announceReady(ready: ProviderReady | GatewayReady): void {
  // Now, not when the process ends: others of its kind are being started beside it.
  flushCompileCache()
  if (process.send !== undefined && process.connected) process.send(ready)
}
