/** Holdfast as a library: what runs a gateway or a provider inside another program. */

export type { Clock } from './base/clock.ts'
export { type ErrorCode, HoldfastError, isCode } from './base/errors.ts'
export type { Log, LogFields, LogLevel } from './base/log.ts'
export type { Random } from './base/random.ts'
export { systemClock, systemLog, systemRandom } from './base/system.ts'
export { version } from './base/version.ts'
export type { Code } from './erasure/erasure-coder.ts'
export { type GatewayComponents, type GatewayInit, type HostPort, type RunningGateway, startGateway } from './node.ts'
export {
  type ProviderComponents,
  type ProviderInit,
  type ProviderNode,
  startProvider
} from './provider/provider-node.ts'
