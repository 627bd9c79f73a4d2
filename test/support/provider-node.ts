/** Real providers and gateways' clients on loopback. Everything started is stopped by `stopAll`. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateIdentity, type Identity, verifySignature } from '../../src/net/identity.ts'
import type { Libp2pNetwork } from '../../src/net/libp2p.ts'
import { makePeerCertificate } from '../../src/net/peer-tls.ts'
import { type ProviderInit, type ProviderNode, startProvider } from '../../src/provider/provider-node.ts'
import { HttpsProviderClient } from '../../src/transfer/https.ts'
import type { ProviderRef } from '../../src/transfer/provider-client.ts'
import { realComponents, startNode } from './real-network.ts'

export interface TestClient {
  identity: Identity
  network: Libp2pNetwork
  client: HttpsProviderClient
}

export class Loopback {
  #cleanUps: Array<() => Promise<unknown>> = []

  async directory(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'holdfast-provider-'))
    this.#cleanUps.push(() => rm(path, { recursive: true, force: true }))
    return path
  }

  async provider(init: Partial<ProviderInit> = {}): Promise<ProviderNode> {
    const dataDir = init.dataDir ?? (await this.directory())
    const listen = { host: '127.0.0.1', port: 0 }
    const node = await startProvider(
      { capacityBytes: 100_000_000, listen, bootstrap: [], price: 1, ...init, dataDir },
      realComponents
    )
    this.#cleanUps.push(() => node.stop())
    return node
  }

  async client(init: Parameters<typeof startNode>[0] = {}): Promise<TestClient> {
    const identity = await generateIdentity()
    const network = await startNode({ ...init, identity })
    const certificate = await makePeerCertificate(identity, { now: Date.now() })
    const client = new HttpsProviderClient({ network, certificate, verifySignature, clock: realComponents.clock })
    this.#cleanUps.push(async () => {
      await client.close()
      await network.stop()
    })
    return { identity, network, client }
  }

  onStop(cleanUp: () => Promise<unknown>): void {
    this.#cleanUps.push(cleanUp)
  }

  async stopAll(): Promise<void> {
    for (const cleanUp of this.#cleanUps.splice(0).reverse()) await cleanUp()
  }
}

export const refOf = ({ peerId, dataUrl, multiaddrs }: ProviderNode): ProviderRef => ({
  peerId,
  dataUrls: [dataUrl],
  addresses: multiaddrs
})
