import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { withBitswap } from '@helia/bitswap'
import type { Libp2p } from '@libp2p/interface'
import { defaultLogger } from '@libp2p/logger'
import { MemoryBlockstore } from 'blockstore-core'
import { from as hasherFrom } from 'multiformats/hashes/hasher'
import { afterEach, describe, expect, test } from 'vitest'
import { blake3 } from '../../src/content/blake3.ts'
import { type CID, cidOfNode, cidOfShard, codecs, hashes, parseCid, sha256 } from '../../src/content/cid.ts'
import { KadDiscovery } from '../../src/discovery/kad-dht.ts'
import { FsShardStore } from '../../src/provider/fs-shard-store.ts'
import { SqliteLeaseStore } from '../../src/provider/sqlite-lease-store.ts'
import {
  controlProtocols,
  leaseAnswer,
  leaseRequest,
  statusAnswer,
  statusRequest
} from '../../src/transfer/lease-protocol.ts'
import { refusalAnswer, refusalRequest } from '../../src/transfer/refusal-protocol.ts'
import { codeOf } from '../contracts/provider-client.ts'
import { Loopback, refOf } from '../support/provider-node.ts'
import { realComponents } from '../support/real-network.ts'

const loopback = new Loopback()
afterEach(() => loopback.stopAll())
const termMs = 60_000

describe('a provider', () => {
  test('joins a running network, is found through the DHT alone, and is used', async () => {
    const first = await loopback.provider()
    const second = await loopback.provider({ bootstrap: first.multiaddrs, domain: 'rack-7', price: 5 })
    const { client, network } = await loopback.client({ bootstrap: first.multiaddrs, lookupPeersMax: 256 })
    const discovery = new KadDiscovery({ network, ...realComponents })
    loopback.onStop(() => discovery.stop())
    const find = async (): Promise<string[]> => {
      const found: string[] = []
      for await (const { peerId } of discovery.findProviders()) found.push(peerId)
      return found.sort()
    }
    await expect.poll(find, { timeout: 20_000 }).toEqual([first.peerId, second.peerId].sort())
    // Nothing but the peer id is known: its addresses and URL come from the network.
    const address = await discovery.findPeer(second.peerId)
    const offer = await client.getOffer({ ...address!, dataUrls: [] })
    expect(offer).toMatchObject({
      peerId: second.peerId,
      domain: 'rack-7',
      price: 5,
      dataUrls: [second.dataUrl],
      accepting: true
    })
    const bytes = randomBytes(10_000)
    const cid = cidOfShard(bytes)
    await client.putShard(offer, cid, bytes, { termMs })
    expect(Buffer.compare(await client.getShard(offer, cid), bytes)).toBe(0)
  })

  test('keeps its identity, its ports, its blocks and its leases over a restart', async () => {
    const dataDir = await loopback.directory()
    const before = await loopback.provider({ dataDir })
    const { client } = await loopback.client()
    const bytes = randomBytes(10_000)
    const cid = cidOfShard(bytes)
    await client.putShard(refOf(before), cid, bytes, { termMs })
    await before.stop()
    expect(await codeOf(client.getShard(refOf(before), cid))).toBe('OFFLINE')
    const after = await loopback.provider({ dataDir })
    expect(refOf(after)).toEqual(refOf(before))
    expect(Buffer.compare(await client.getShard(refOf(before), cid), bytes)).toBe(0)
    expect(await client.renewLeases(refOf(before), [cid], { termMs })).toEqual(['held'])
    expect(await after.storage.stats()).toMatchObject({ usedBytes: 10_000, leases: 1 })
  })

  test('looks at its blocks unasked, and tells the gateway that one is damaged', async () => {
    const dataDir = await loopback.directory()
    const provider = await loopback.provider({ dataDir, scrubTurnMs: 1000 })
    const { client, network } = await loopback.client()
    await client.getOffer(refOf(provider)) // as gateways do, whose connection is used
    const told: string[] = []
    await network.handle(controlProtocols.refusal, async (from, body) => {
      const request = refusalRequest.decode(body)
      if (from === provider.peerId && request.op === 'tell') told.push(...request.lost.map(String))
      return refusalAnswer.encode({ v: 1 })
    })
    const [good, bad] = [randomBytes(10_000), randomBytes(20_000)]
    for (const bytes of [good, bad]) await client.putShard(refOf(provider), cidOfShard(bytes), bytes, { termMs })
    const name = cidOfShard(bad).toString()
    await writeFile(join(dataDir, 'blocks', name.slice(-3, -1), name), randomBytes(20_000))
    await expect.poll(() => told, { timeout: 20_000 }).toEqual([name])
    expect(await provider.storage.stats()).toMatchObject({ usedBytes: 10_000, leasedBytes: 10_000, lost: 1, rotten: 1 })
    expect(await client.renewLeases(refOf(provider), [cidOfShard(bad)], { termMs })).toEqual(['missing'])
    await client.putShard(refOf(provider), cidOfShard(bad), bad, { termMs })
    expect(await provider.storage.stats()).toMatchObject({ usedBytes: 30_000, lost: 0 })
  })

  test('takes other ports where those of last time are taken', async () => {
    const dataDir = await loopback.directory()
    const before = await loopback.provider({ dataDir })
    await before.stop()
    const squatter = await loopback.provider()
    const { port } = new URL(squatter.dataUrl)
    await writeFile(join(dataDir, 'ports.json'), JSON.stringify({ control: Number(port), data: Number(port) }))
    const after = await loopback.provider({ dataDir })
    expect(after.peerId).toBe(before.peerId)
    expect(new URL(after.dataUrl).port).not.toBe(port)
    expect(JSON.parse(await readFile(join(dataDir, 'ports.json'), 'utf8')).data).toBe(
      Number(new URL(after.dataUrl).port)
    )
  })

  test('has its data directory to itself', async () => {
    const dataDir = await loopback.directory()
    const running = await loopback.provider({ dataDir })
    await expect(loopback.provider({ dataDir })).rejects.toMatchObject({
      code: 'BAD_CONFIG',
      message: expect.stringContaining('another process')
    })
    await running.stop()
    await loopback.provider({ dataDir })
  })

  test('announces what it is told to, and says what is wrong with it', async () => {
    const { storage, multiaddrs } = await loopback.provider({ announce: '192.0.2.7:4100' })
    expect(await storage.offer()).toMatchObject({ dataUrls: ['https://192.0.2.7:4101'] })
    expect(multiaddrs[0]).toMatch(/^\/ip4\/192\.0\.2\.7\/tcp\/4100\/p2p\//)
    for (const announce of ['', 'a b', 'host:99999', 'host/path', '192.0.2.7']) {
      expect([announce, await codeOf(loopback.provider({ announce }))]).toEqual([announce, 'BAD_CONFIG'])
    }
  })

  test('answers for what it holds, and to nothing else', async () => {
    const provider = await loopback.provider()
    const { client, network } = await loopback.client()
    const bytes = randomBytes(100)
    const cid = cidOfShard(bytes)
    await client.putShard(refOf(provider), cid, bytes, { termMs })
    const ask = (protocol: string, body: Uint8Array): Promise<Uint8Array> =>
      network.request(refOf(provider), protocol, body)
    const other = cidOfShard(randomBytes(1))
    const status = statusAnswer.decode(
      await ask(controlProtocols.status, statusRequest.encode({ v: 1, cids: [other, cid] }))
    )
    expect(status).toMatchObject({ has: [false, true], usedBytes: 100, blocks: 1, leases: 1 })
    for (const protocol of Object.values(controlProtocols)) {
      expect(await codeOf(ask(protocol, Buffer.from('garbage')))).toBe('PROTOCOL')
    }
    const tooLong = leaseRequest.encode({ v: 1, op: 'renew', cids: [cid], termMs: Number.MAX_SAFE_INTEGER })
    expect(leaseAnswer.decode(await ask(controlProtocols.lease, tooLong))).toMatchObject({
      error: { code: 'BAD_INPUT' }
    })
    expect(await codeOf(client.renewLeases(refOf(provider), [cid], { termMs: Number.MAX_SAFE_INTEGER }))).toBe(
      'PROTOCOL'
    )
  })

  test('announces roots, and those of before a restart again', async () => {
    const dataDir = await loopback.directory()
    const first = await loopback.provider()
    const provider = await loopback.provider({ dataDir, bootstrap: first.multiaddrs })
    const { client, network } = await loopback.client({ bootstrap: first.multiaddrs })
    const root = randomBytes(200)
    const cid = cidOfNode(codecs.dagCbor, root)
    await client.putShard(refOf(provider), cid, root, { termMs, announce: true })
    const holders = async (): Promise<string[]> => {
      const found: string[] = []
      for await (const { id } of network.node.contentRouting.findProviders(cid)) found.push(id.toString())
      return found
    }
    await expect.poll(holders, { timeout: 20_000 }).toEqual([provider.peerId])
    await provider.stop()
    expect(await readFile(join(dataDir, 'roots.txt'), 'utf8')).toBe(`${cid}\n`)
    // Another network, which has never heard of it.
    const elsewhere = await loopback.client()
    await loopback.provider({ dataDir, bootstrap: elsewhere.network.addresses() })
    const heldThere = async (): Promise<string[]> => {
      const found: string[] = []
      for await (const { id } of elsewhere.network.node.contentRouting.findProviders(cid)) found.push(id.toString())
      return found
    }
    await expect.poll(heldThere, { timeout: 20_000 }).toEqual([provider.peerId])
  })
})

describe('bitswap', () => {
  /** A bitswap client put together as any IPFS node would, with a store of its own. */
  async function bitswapClient(libp2p: Libp2p): Promise<(cid: CID, signal: AbortSignal) => Promise<Uint8Array>> {
    const copying = (digest: (bytes: Uint8Array) => Uint8Array) => (bytes: Uint8Array) => Uint8Array.from(digest(bytes))
    const hashers = [
      hasherFrom({ name: 'blake3', code: hashes.blake3, encode: copying(blake3) }),
      hasherFrom({ name: 'sha2-256', code: hashes.sha256, encode: copying(sha256) })
    ]
    interface Broker {
      retrieve: (cid: CID, options: { signal: AbortSignal }) => Promise<Uint8Array>
      stop: () => Promise<void>
    }
    let broker: Broker | undefined
    let start: ((host: unknown) => Promise<void>) | undefined
    const host = {
      libp2p,
      blockstore: new MemoryBlockstore(),
      logger: defaultLogger(),
      status: 'starting',
      getHasher: async (code: number) => hashers.find((hasher) => hasher.code === code),
      routing: { findProviders: async function* () {} },
      hasBlockBroker: () => false,
      addBlockBroker: (added: Broker) => {
        broker = added
      },
      addMixin: (mixin: { start: (host: unknown) => Promise<void> }) => {
        start = mixin.start
      }
    }
    ;(withBitswap as unknown as (host: unknown) => void)(host)
    await start!(host)
    loopback.onStop(() => broker!.stop())
    return (cid, signal) => broker!.retrieve(cid, { signal })
  }

  test('any IPFS node can fetch a provider’s blocks by CID; a damaged one it never gets', async () => {
    const dataDir = await loopback.directory()
    const provider = await loopback.provider({ dataDir })
    const { client } = await loopback.client()
    const { network } = await loopback.client()
    const shard = randomBytes(1024 * 1024)
    const node = randomBytes(300)
    const blocks = [
      { bytes: shard, cid: cidOfShard(shard) },
      { bytes: node, cid: cidOfNode(codecs.dagPb, node) }
    ]
    for (const { bytes, cid } of blocks) await client.putShard(refOf(provider), cid, bytes, { termMs })
    const fetch = await bitswapClient(network.node as unknown as Libp2p)
    await network.node.dial(provider.network.node.getMultiaddrs())
    for (const { bytes, cid } of blocks)
      expect(Buffer.compare(await fetch(cid, AbortSignal.timeout(20_000)), bytes)).toBe(0)

    const damaged = randomBytes(5000)
    const cid = cidOfShard(damaged)
    await client.putShard(refOf(provider), cid, damaged, { termMs })
    await (await FsShardStore.open(dataDir)).put(cid, randomBytes(5000))
    await expect(fetch(cid, AbortSignal.timeout(1000))).rejects.toThrow()
  })
})

describe('kill -9', () => {
  const child = async (
    dataDir: string
  ): Promise<{ process: ChildProcess; acknowledged: Set<string>; enough: Promise<void> }> => {
    const script = `
      const at = (path) => import(${JSON.stringify(new URL('../../src/', import.meta.url).href)} + path)
      const { randomBytes } = await import('node:crypto')
      const { FsShardStore } = await at('provider/fs-shard-store.ts')
      const { SqliteLeaseStore } = await at('provider/sqlite-lease-store.ts')
      const { StorageProvider } = await at('provider/storage-provider.ts')
      const { systemClock, systemLog } = await at('base/system.ts')
      const { cidOfShard } = await at('content/cid.ts')
      const dir = process.argv[1]
      const shards = await FsShardStore.open(dir)
      const leases = new SqliteLeaseStore(dir + '/leases.sqlite')
      const signer = { peerId: 'p', sign: async () => new Uint8Array(64) }
      const init = { capacityBytes: 1e12, domain: 'd', price: 0, version: 't', dataUrls: () => [], addresses: () => [] }
      const provider = new StorageProvider({ shards, leases, clock: systemClock, log: systemLog('error'), signer }, init)
      await provider.reconcileAtStart()
      const lane = async () => {
        for (;;) {
          const bytes = randomBytes(1 + Math.floor(Math.random() * 200_000)), cid = cidOfShard(bytes)
          await provider.put('owner', cid, bytes, 3_600_000)
          process.stdout.write(cid + '\\n')
        }
      }
      for (let i = 0; i < 8; i++) lane()
    `
    const running = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', script, dataDir], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    loopback.onStop(async () => running.kill('SIGKILL'))
    const acknowledged = new Set<string>()
    const enough = Promise.withResolvers<void>()
    const wanted = 60 + Math.floor(Math.random() * 60)
    createInterface({ input: running.stdout! }).on('line', (line) => {
      acknowledged.add(line)
      if (acknowledged.size >= wanted) enough.resolve()
    })
    running.once('exit', (code) => enough.reject(new Error(`exited with ${code}`)))
    return { process: running, acknowledged, enough: enough.promise }
  }

  test('what was acknowledged is there and leased, and nothing is half-written', async () => {
    const dataDir = await loopback.directory()
    const all = new Set<string>()
    for (let round = 0; round < 3; round++) {
      const { process: running, acknowledged, enough } = await child(dataDir)
      await enough
      const closed = new Promise((resolve) => running.once('close', resolve))
      running.kill('SIGKILL')
      await closed
      for (const cid of acknowledged) all.add(cid)
    }
    const shards = await FsShardStore.open(dataDir)
    const leases = new SqliteLeaseStore(join(dataDir, 'leases.sqlite')) // the killed process’s lock is gone with it
    loopback.onStop(() => leases.close())
    let blocks = 0
    for await (const { cid, bytes } of shards.list()) {
      blocks += 1
      const found = (await shards.get(cid))!
      expect(found.length).toBe(bytes)
      expect(cidOfShard(found).toString()).toBe(cid.toString())
    }
    expect(blocks).toBeGreaterThanOrEqual(all.size)
    for (const text of all) {
      const cid = parseCid(text)
      expect(await shards.size(cid)).toBeDefined()
      expect(await leases.get('owner', cid)).toBeDefined()
    }
  })
})
