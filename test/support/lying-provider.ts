/**
 * A program: a provider as `holdfast provider` runs it, with the same arguments, that misbehaves as its parent says in a
 * message `{ "lie": ... }`. It is honest until told otherwise.
 */
import { parseArgs } from 'node:util'
import { HoldfastError } from '../../src/base/errors.ts'
import { systemClock, systemLog, systemRandom } from '../../src/base/system.ts'
import { interruptSignal } from '../../src/cli/interrupt.ts'
import { startProvider } from '../../src/provider/provider-node.ts'
import { type AuditLie, lieInAudits } from './audit-lies.ts'

/**
 * `bytes`: a block of the right length with one bit turned; `length`: a block cut short; `silence`: takes the request and
 * never answers; `amnesia`: says yes to a block and does not keep it; `unread`: denies all blocks to readers, and proves them
 * to auditors. The others are about audits alone.
 */
export type Lie = 'none' | 'bytes' | 'length' | 'silence' | 'amnesia' | 'unread' | AuditLie

const { values } = parseArgs({
  options: {
    data: { type: 'string' },
    domain: { type: 'string' },
    capacity: { type: 'string' },
    bootstrap: { type: 'string', multiple: true }
  }
})
const node = await startProvider(
  {
    dataDir: values.data!,
    capacityBytes: Number(values.capacity ?? 1e9),
    listen: { host: '127.0.0.1', port: 0 },
    bootstrap: values.bootstrap ?? [],
    domain: values.domain,
    price: 0
  },
  { clock: systemClock, random: systemRandom, log: systemLog() }
)

let lie: Lie = 'none'
process.on('message', (message: { lie: Lie }) => {
  lie = message.lie
  process.send!({ lie })
})

const { storage } = node
const never = new Promise<never>(() => {})
const get = storage.get.bind(storage)
storage.get = async (cid) => {
  const bytes = await get(cid)
  if (lie === 'silence') return await never
  if (lie === 'unread') throw new HoldfastError('MISSING', 'no such block here')
  if (lie === 'length') return bytes.subarray(0, bytes.length - 1)
  if (lie === 'bytes') bytes[0]! ^= 1
  return bytes
}
const put = storage.put.bind(storage)
storage.put = async (owner, cid, bytes, termMs) => {
  if (lie === 'silence') return await never
  if (lie === 'amnesia') return { created: true, until: systemClock.now() + termMs }
  return await put(owner, cid, bytes, termMs)
}
lieInAudits(node.proofs, () => lie)

process.send!({ peerId: node.peerId, addresses: node.multiaddrs, dataUrls: [node.dataUrl] })
const signal = interruptSignal()
signal.addEventListener('abort', () => void node.stop().then(() => process.exit(0)))
