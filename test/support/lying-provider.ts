/**
 * A program: a provider as `holdfast provider` runs it, with the same arguments, that misbehaves. It joins a network
 * by `--bootstrap`, takes shards as an honest one does, and says its peer id, on its channel and as a line of JSON on
 * stdout. `--lie NAME` says what it does wrong from the start; its parent can change that by a message
 * `{ "lie": NAME }`, for `fetch` with what a `FetchInit` has beside it. It is honest until told otherwise.
 *
 *     node test/support/lying-provider.ts --data DIR --bootstrap MULTIADDR --lie half
 */
import { rmSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { HoldfastError } from '../../src/base/errors.ts'
import { systemClock, systemLog, systemRandom } from '../../src/base/system.ts'
import { interruptSignal } from '../../src/cli/interrupt.ts'
import { startProvider } from '../../src/provider/provider-node.ts'
import { type AuditLie, auditLies, lieInAudits } from './audit-lies.ts'
import { type FetchInit, lieInStorage, type StorageLie, storageLies } from './storage-lies.ts'

/**
 * `bytes`: a block of the right length with one bit turned; `length`: a block cut short; `silence`: takes the request
 * and never answers; `amnesia`: says yes to a block and does not keep it; `unread`: denies all blocks to readers, and
 * proves them to auditors. The others are about audits alone, or about both: `audit-lies.ts`, `storage-lies.ts`.
 */
const plainLies = ['none', 'bytes', 'length', 'silence', 'amnesia', 'unread'] as const
export type Lie = (typeof plainLies)[number] | AuditLie | StorageLie

const { values } = parseArgs({
  options: {
    data: { type: 'string' },
    domain: { type: 'string' },
    capacity: { type: 'string' },
    bootstrap: { type: 'string', multiple: true },
    lie: { type: 'string', default: 'none' }
  }
})

function parseLie(text: string): Lie {
  const known = [...plainLies, ...auditLies, ...storageLies].find((name) => name === text)
  if (known === undefined) throw new Error(`no such lie: ${text}`)
  return known
}

let lie = parseLie(values.lie)
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

const { storage } = node
const inStorage = lieInStorage(storage, () => lie)
process.on('message', (message: { lie: Lie } & Partial<FetchInit>) => {
  lie = parseLie(message.lie)
  const { segments, bitsPerSecond = Number.POSITIVE_INFINITY } = message
  if (segments !== undefined) {
    inStorage.setFetch({ segments, bitsPerSecond })
    // What it can get when it is asked it need not keep.
    for (const { cid } of segments.flatMap(({ shards }) => shards)) {
      rmSync(path.join(values.data!, 'blocks', cid.slice(-3, -1), cid), { force: true })
    }
  }
  process.send!({ lie })
})

const never = new Promise<never>(() => {})
const get = storage.get.bind(storage)
storage.get = async (cid, into) => {
  const bytes = await get(cid, into)
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

const ready = { peerId: node.peerId, addresses: node.multiaddrs, dataUrls: [node.dataUrl] }
process.stdout.write(`${JSON.stringify(ready)}\n`)
process.send?.(ready)
const signal = interruptSignal()
// Not by `node.stop()`: that waits for requests, and some lies never answer them.
signal.addEventListener('abort', () => process.exit(0))
