import { formatCode } from '../../src/erasure/erasure-coder.ts'
import { codeInUse } from '../limits.ts'
import { BenchNetwork, type NetworkInit } from './network.ts'
import { S3Client } from './s3-client.ts'

export interface Setting {
  network: BenchNetwork
  client: S3Client
}

/**
 * Starts a network and a client of it with so many connections, and ends both when `work` has.
 *
 * @throws when the network does not use the code that its figures would be labelled with: it has not found all providers
 */
export async function withNetwork<T>(
  init: NetworkInit & { connections: number },
  work: (setting: Setting) => Promise<T>
): Promise<T> {
  const network = await BenchNetwork.start(init)
  try {
    const expected = formatCode(codeInUse(init))
    const code = await network.code()
    if (code !== expected) throw new Error(`the network codes ${code} where ${expected} was to be measured`)
    const { endpoint, accessKeyId, secretAccessKey } = network.file
    const client = new S3Client({
      endpoint,
      accessKeyId,
      secretAccessKey,
      connections: init.connections,
      signal: init.signal
    })
    try {
      return await work({ network, client })
    } finally {
      await client.close()
    }
  } finally {
    await network.stop()
  }
}
