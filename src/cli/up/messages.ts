/** What a provider or gateway that was started with an IPC channel says on it, once, when it is ready. */
import { z } from 'zod'

export const providerReadySchema = z.object({
  peerId: z.string(),
  /** libp2p multiaddrs to bootstrap from. */
  addresses: z.array(z.string()),
  dataUrls: z.array(z.string())
})

export const gatewayReadySchema = z.object({
  peerId: z.string(),
  addresses: z.array(z.string()),
  endpoint: z.string(),
  admin: z.string(),
  accessKeyId: z.string(),
  secretAccessKey: z.string()
})

export type ProviderReady = z.infer<typeof providerReadySchema>
export type GatewayReady = z.infer<typeof gatewayReadySchema>
