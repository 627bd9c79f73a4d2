/** The provider's end of the control protocols. Who asks is proven by the connection; what is asked is parsed strictly. */
import { HoldfastError, isCode } from '../base/errors.ts'
import { version } from '../base/version.ts'
import type { Network } from '../net/network.ts'
import {
  controlProtocols,
  type LeaseAnswer,
  type LeaseRequest,
  leaseAnswer,
  leaseRequest,
  statusAnswer,
  statusRequest
} from '../transfer/lease-protocol.ts'
import type { StorageProvider } from './storage-provider.ts'

export async function serveControlPlane(network: Pick<Network, 'handle'>, storage: StorageProvider): Promise<void> {
  await network.handle(controlProtocols.offer, async (_from, body) => {
    if (body.length > 0) throw new HoldfastError('PROTOCOL', 'the request for an offer is empty')
    return await storage.signedOffer()
  })
  await network.handle(controlProtocols.lease, async (from, body) =>
    leaseAnswer.encode(await answerLease(storage, from, leaseRequest.decode(body)))
  )
  await network.handle(controlProtocols.status, async (_from, body) => {
    const { cids } = statusRequest.decode(body)
    const [has, { capacityBytes, usedBytes, blocks, leases }] = await Promise.all([
      Promise.all(cids.map((cid) => storage.has(cid))),
      storage.stats()
    ])
    return statusAnswer.encode({ v: 1, has, capacityBytes, usedBytes, blocks, leases, version })
  })
}

async function answerLease(storage: StorageProvider, from: string, request: LeaseRequest): Promise<LeaseAnswer> {
  try {
    if (request.op === 'renew') return { v: 1, states: await storage.renew(from, request.cids, request.termMs) }
    await storage.release(from, request.cids)
    return { v: 1, states: [] }
  } catch (error) {
    // The asker learns what it did wrong, and of our own troubles only that there are some.
    if (isCode(error, 'BAD_INPUT', 'OVERLOADED')) return { v: 1, error: { code: error.code, message: error.message } }
    throw error
  }
}
