import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { CID } from '../../src/content/cid.ts'
import { readManifest } from '../../src/content/manifest.ts'
import type { ArenaSizes } from '../../src/object/coding-memory.ts'
import type { PutRequest } from '../../src/object/object-store.ts'
import type { ObjectStoreInit } from '../../src/object/store.ts'
import { bytesOf, chunksOf, collect, type LocalNetwork, startLocalNetwork } from '../support/local-network.ts'

const me = { owner: 'me', displayName: 'me' }
const kib = 1024
/** Segments of 6 KiB instead of 6 MiB: everything that happens at their boundaries happens soon. */
const small = { shardBytesMax: kib }

const put = (net: LocalNetwork, key: string, bytes: Uint8Array, more: Partial<PutRequest> = {}) =>
  net.store.putObject({
    bucket: 'b',
    key,
    body: { bytes: chunksOf(bytes, 1000), size: bytes.length },
    headers: {},
    userMetadata: {},
    storageClass: 'STANDARD',
    ...more
  })

const get = async (net: LocalNetwork, key: string, start = 0, end?: number): Promise<Uint8Array> => {
  const opened = await net.store.openObject('b', key)
  try {
    return await collect(opened.read(start, end ?? opened.record.size))
  } finally {
    opened.close()
  }
}

const network = async (
  count = 12,
  init: ObjectStoreInit = small,
  isPublic = false,
  sizes?: ArenaSizes
): Promise<LocalNetwork> => {
  const net = await startLocalNetwork(count, init, sizes)
  await net.store.createBucket('b', me, { isPublic })
  return net
}

const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex')

describe('an object', () => {
  const sizes = [0, 1, 5, 6, 7, 1023, 1024, 6 * kib - 1, 6 * kib, 6 * kib + 1, 50_000]

  it.each([false, true])(
    'of any size comes back identical (public bucket: %s), and any range of it',
    async (isPublic) => {
      const net = await network(12, small, isPublic)
      for (const size of sizes) {
        const bytes = bytesOf(size, size + 1)
        const record = await put(net, `size-${size}`, bytes)
        expect(record).toMatchObject({ size, etag: md5(bytes) })
        expect(Buffer.compare(await get(net, `size-${size}`), bytes)).toBe(0)
        for (const [start, end] of [
          [0, 1],
          [size >> 1, size],
          [size - 1, size],
          [1000, 7000],
          [6143, 6145]
        ] as const) {
          if (start < 0 || end > size || start >= end) continue
          expect(
            Buffer.compare(await get(net, `size-${size}`, start, end), bytes.subarray(start, end)),
            `${start}-${end} of ${size}`
          ).toBe(0)
        }
      }
    }
  )

  it('survives the loss of any m providers', async () => {
    const net = await network()
    const bytes = bytesOf(30_000)
    await put(net, 'k', bytes)
    await net.store.idle()
    for (let first = 0; first < 12; first++) {
      for (const [i, provider] of net.providers.entries()) provider.isAlive = (i - first + 12) % 12 >= 6
      expect(Buffer.compare(await get(net, 'k'), bytes)).toBe(0)
    }
    for (const provider of net.providers.slice(0, 7)) provider.isAlive = false
    for (const provider of net.providers.slice(7)) provider.isAlive = true
    await expect(get(net, 'k')).rejects.toMatchObject({ code: 'UNREADABLE' })
  })

  it('in a range is fetched only as far as the range goes', async () => {
    const net = await network()
    await put(net, 'k', bytesOf(60_000))
    net.reads.length = 0
    await get(net, 'k', 20_000, 20_001)
    expect(net.reads.length).toBe(1)
    await get(net, 'k', 1023, 1025)
    expect(net.reads.length).toBe(3)
  })

  it('is encrypted on the providers, unless its bucket is public', async () => {
    for (const isPublic of [false, true]) {
      const net = await network(12, small, isPublic)
      const marker = Buffer.from('the quick brown fox jumps over the lazy dog, again and again')
      await put(net, 'k', Buffer.concat(Array.from({ length: 100 }, () => marker)))
      let found = false
      for (const { shards } of net.providers) {
        for await (const { cid } of shards.list())
          if (Buffer.from((await shards.get(cid))!).includes(marker)) found = true
      }
      expect(found).toBe(isPublic)
    }
  })

  it('has a root from which everything can be found again, and the same root for the same public bytes', async () => {
    const net = await network(12, small, true)
    const bytes = bytesOf(40_000)
    const { root } = await put(net, 'one', bytes)
    expect((await put(net, 'two', bytes)).root.toString()).toBe(root.toString())
    const manifest = await readManifest(root, (cid) => net.store.getBlock(cid))
    const data = await Promise.all(
      manifest.segments.flatMap(({ shards, k }) => shards.slice(0, k)).map((cid) => net.store.getBlock(cid))
    )
    expect(Buffer.compare(Buffer.concat(data), bytes)).toBe(0)
    expect(manifest.file).toBeDefined()
  })

  it('that a provider rots is read from the others, and the shard is told apart as lost', async () => {
    const net = await network()
    const bytes = bytesOf(5000)
    await put(net, 'k', bytes)
    const before = await net.store.health('b', 'k')
    const shard = before.segments[0]!.shards[0]!
    const holder = net.providers.find((p) => p.peerId === shard.provider)!
    const cid = CID.parse(shard.cid)
    const rotten = (await holder.shards.get(cid))!.slice()
    rotten[17]! ^= 4
    await holder.shards.put(cid, rotten)
    expect(Buffer.compare(await get(net, 'k'), bytes)).toBe(0)
    await net.store.idle()
    const after = await net.store.health('b', 'k')
    expect(after.segments[0]).toMatchObject({ code: '6+6', healthy: 11, margin: 5 })
    expect(after.segments[0]!.shards[0]!.state).toBe('missing')
    // And it is brought back, at the same address.
    expect(await net.repairer.round()).toBe(1)
    const healed = await net.store.health('b', 'k')
    expect(healed.segments[0]).toMatchObject({ healthy: 12, margin: 6 })
    expect(healed.cid).toBe(before.cid)
    expect(healed.segments[0]!.shards[0]!.cid).toBe(shard.cid)
  })
})

describe('a write', () => {
  it('with too few providers is a clear error, not a weaker code', async () => {
    const net = await network(2)
    await expect(put(net, 'k', bytesOf(10))).rejects.toMatchObject({
      code: 'TOO_FEW_PROVIDERS',
      message: expect.stringContaining('2 independent providers')
    })
    const pinned = await network(8, { ...small, ...{ fixedCode: { k: 6, m: 6 } } })
    await expect(put(pinned, 'k', bytesOf(10))).rejects.toMatchObject({ code: 'TOO_FEW_PROVIDERS' })
  })

  it('under which providers die is coded again for the network that is left', async () => {
    const net = await network()
    const bytes = bytesOf(60_000)
    async function* dyingAfter(): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, 20_000)
      for (const provider of net.providers.slice(0, 6)) provider.isAlive = false
      yield bytes.subarray(20_000)
    }
    await put(net, 'k', bytes, { body: { bytes: dyingAfter(), size: bytes.length } })
    expect(Buffer.compare(await get(net, 'k'), bytes)).toBe(0)
    const { segments } = await net.store.health('b', 'k')
    expect(segments.at(-1)!.code).toBe('3+3')
    // What was sent under the code that did not come about is given back.
    await net.store.idle()
    for (const provider of net.providers) provider.isAlive = true
    const { blocks, ...health } = await net.store.health('b', 'k')
    for (const { peerId, core } of net.providers) {
      const kept = [...health.segments, ...blocks].flatMap(({ shards }) =>
        shards.filter((it) => it.provider === peerId)
      )
      await core.release('gateway', await net.index.listReleases(peerId, 1000))
      expect((await core.stats()).blocks).toBe(new Set(kept.map(({ cid }) => cid)).size)
    }
  })

  it('that fails while the index does, too, does not keep its blocks from being released later', async () => {
    const net = await network()
    net.index.queueReleases = () => Promise.reject(new Error('the disk is full'))
    await expect(put(net, 'k', bytesOf(3000), { condition: { ifMatch: 'nope' } })).rejects.toThrow()
    await net.store.idle()
    for (const { peerId, shards } of net.providers) {
      for await (const { cid } of shards.list()) {
        const { cids, done } = net.guard.claim(peerId, [cid])
        done()
        expect(cids).toEqual([cid])
      }
    }
  })

  it('that fails leaves nothing behind', async () => {
    const net = await network()
    async function* cut(): AsyncGenerator<Uint8Array> {
      yield bytesOf(20_000)
      throw new Error('the client went away')
    }
    await expect(put(net, 'k', new Uint8Array(0), { body: { bytes: cut() } })).rejects.toThrow('the client went away')
    await expect(
      put(net, 'k', bytesOf(3000), {
        body: { bytes: chunksOf(bytesOf(3000)), size: 3000, expectedMd5: new Uint8Array(16) }
      })
    ).rejects.toMatchObject({ code: 'BAD_DIGEST' })
    await expect(
      put(net, 'k', new Uint8Array(0), { body: { bytes: chunksOf(bytesOf(3000)), size: 4000 } })
    ).rejects.toMatchObject({ code: 'INCOMPLETE_BODY' })
    await expect(put(net, 'k', bytesOf(3000), { condition: { ifMatch: 'nope' } })).rejects.toMatchObject({
      code: 'NO_SUCH_KEY'
    })
    await net.store.idle()
    await expect(net.store.headObject('b', 'k')).rejects.toMatchObject({ code: 'NO_SUCH_KEY' })
    let left = 0
    for (const { peerId, core } of net.providers) {
      const queued = await net.index.listReleases(peerId, 1000)
      await core.release('gateway', queued)
      left += (await core.stats()).blocks
    }
    expect(left).toBe(0)
  })

  it('acknowledged before all shards were placed is completed later', async () => {
    const net = await network(12, { ...small, ...{ fixedCode: { k: 6, m: 6 } } })
    for (const provider of net.providers.slice(0, 3)) provider.isAlive = false
    const bytes = bytesOf(20_000)
    await put(net, 'k', bytes)
    await net.store.idle()
    const { segments, blocks } = await net.store.health('b', 'k')
    expect(segments.every(({ healthy }) => healthy === 9)).toBe(true)
    expect(blocks.every(({ healthy }) => healthy === 7)).toBe(true)
    for (const provider of net.providers) provider.isAlive = true
    await net.repairer.round()
    expect(
      (await net.store.health('b', 'k')).segments.every(({ healthy, margin }) => healthy === 12 && margin === 6)
    ).toBe(true)
    // The rebuilt shards are good ones: with the first six gone they are what is read.
    for (const provider of net.providers.slice(3, 9)) provider.isAlive = false
    expect(Buffer.compare(await get(net, 'k'), bytes)).toBe(0)
  })
})

describe('copies and multipart uploads', () => {
  it('copies share shards within a bucket and across buckets, and outlive their source', async () => {
    const net = await network()
    await net.store.createBucket('c', me)
    const bytes = bytesOf(20_000)
    const source = await put(net, 'k', bytes)
    const copy = { source: { bucket: 'b', key: 'k' }, sourceEtag: source.etag }
    const same = await net.store.copyObject({ ...copy, bucket: 'b', key: 'k2' })
    const other = await net.store.copyObject({ ...copy, bucket: 'c', key: 'k3' })
    expect(same.root.toString()).toBe(source.root.toString())
    expect(other.root.toString()).not.toBe(source.root.toString())
    expect((await net.store.health('c', 'k3')).segments.map((s) => s.shards.map((x) => x.cid))).toEqual(
      (await net.store.health('b', 'k')).segments.map((s) => s.shards.map((x) => x.cid))
    )
    await net.store.deleteObject('b', 'k')
    await net.store.idle()
    for (const { peerId, core } of net.providers)
      await core.release('gateway', await net.index.listReleases(peerId, 1000))
    for (const [bucket, key] of [
      ['b', 'k2'],
      ['c', 'k3']
    ] as const) {
      const opened = await net.store.openObject(bucket, key)
      expect(Buffer.compare(await collect(opened.read(0, bytes.length)), bytes)).toBe(0)
      opened.close()
    }
    await expect(
      net.store.copyObject({ ...copy, sourceEtag: 'another', bucket: 'b', key: 'k4' })
    ).rejects.toMatchObject({ code: 'NO_SUCH_KEY' })
  })

  it('parts make one object, with the ETag that S3 gives it', async () => {
    const net = await network(12, {})
    const upload = await net.store.createUpload({
      bucket: 'b',
      key: 'k',
      owner: 'me',
      headers: {},
      userMetadata: {},
      storageClass: 'STANDARD'
    })
    const parts = [bytesOf(5 * kib * kib, 1), bytesOf(5 * kib * kib + 1, 2), bytesOf(3, 3)]
    const done: Array<{ etag: string; partNumber: number }> = []
    for (const [i, bytes] of parts.entries()) {
      const { etag, partNumber } = await net.store.putPart({
        bucket: 'b',
        key: 'k',
        uploadId: upload.uploadId,
        partNumber: i * 2 + 1,
        body: { bytes: chunksOf(bytes), size: bytes.length }
      })
      done.push({ etag, partNumber })
    }
    const partChecksums = [{ crc32: 'AAAAAA==' }, {}, {}]
    const complete = (chosen: typeof done) =>
      net.store.completeUpload({ bucket: 'b', key: 'k', uploadId: upload.uploadId, parts: chosen, partChecksums })
    await expect(complete([done[2]!, done[0]!])).rejects.toMatchObject({ code: 'INVALID_PART_ORDER' })
    await expect(complete([done[2]!, { etag: done[0]!.etag, partNumber: 9 }])).rejects.toMatchObject({
      code: 'INVALID_PART'
    })
    await expect(complete([{ ...done[0]!, etag: md5(bytesOf(1)) }])).rejects.toMatchObject({ code: 'INVALID_PART' })
    const record = await complete(done)
    const whole = Buffer.concat(parts)
    expect(record).toMatchObject({ size: whole.length, partSizes: parts.map((p) => p.length) })
    expect((await net.store.headObject('b', 'k')).partChecksums).toEqual(partChecksums)
    expect(record.etag).toBe(
      `${createHash('md5')
        .update(Buffer.concat(done.map(({ etag }) => Buffer.from(etag, 'hex'))))
        .digest('hex')}-3`
    )
    expect(Buffer.compare(await get(net, 'k'), whole)).toBe(0)
    const across = parts[0]!.length
    expect(
      Buffer.compare(await get(net, 'k', across - 10, across + 10), whole.subarray(across - 10, across + 10))
    ).toBe(0)
    await expect(complete(done)).rejects.toMatchObject({ code: 'NO_SUCH_UPLOAD' })
  })

  it('a part below 5 MiB is refused unless it is the last', async () => {
    const net = await network()
    const upload = await net.store.createUpload({
      bucket: 'b',
      key: 'k',
      owner: 'me',
      headers: {},
      userMetadata: {},
      storageClass: 'STANDARD'
    })
    const part = async (partNumber: number) =>
      net.store.putPart({
        bucket: 'b',
        key: 'k',
        uploadId: upload.uploadId,
        partNumber,
        body: { bytes: chunksOf(bytesOf(10)), size: 10 }
      })
    const parts = [await part(1), await part(2)]
    await expect(
      net.store.completeUpload({ bucket: 'b', key: 'k', uploadId: upload.uploadId, parts })
    ).rejects.toMatchObject({ code: 'PART_TOO_SMALL' })
  })
})

describe('clients that are slow', () => {
  /** Sends most of its bytes, then nothing until told. */
  async function* stalling(bytes: Uint8Array, goOn: Promise<void>): AsyncGenerator<Uint8Array> {
    yield* chunksOf(bytes.subarray(0, -10), 1000)
    await goOn
    yield bytes.subarray(-10)
  }

  it('and send do not keep others from sending; what they sent in the end is there', async () => {
    const net = await network(12, small, false, {
      writeBytes: 24 * kib,
      readBytes: 1024 * kib
    })
    const { promise: goOn, resolve: send } = Promise.withResolvers<void>()
    // As many as the memory for segments bears, each in the middle of one.
    const slow = [1, 2].map((seed) => {
      const bytes = bytesOf(5 * kib, seed)
      const body = { bytes: stalling(bytes, goOn), size: bytes.length }
      return { bytes, put: put(net, `slow-${seed}`, bytes, { body }) }
    })
    await new Promise(setImmediate)
    for (let i = 0; i < 5; i++) await put(net, `fast-${i}`, bytesOf(30_000, 10 + i))
    send()
    for (const [i, { bytes, put }] of slow.entries()) {
      await put
      expect(Buffer.compare(await get(net, `slow-${i + 1}`), bytes)).toBe(0)
      const { segments } = await net.store.health('b', `slow-${i + 1}`)
      expect(segments.length).toBeGreaterThanOrEqual(1)
    }
    for (let i = 0; i < 5; i++) expect(Buffer.compare(await get(net, `fast-${i}`), bytesOf(30_000, 10 + i))).toBe(0)
  })

  it('and read do not keep others from reading; they get the rest when they go on', async () => {
    const sizes = { writeBytes: 4096 * kib, readBytes: 8 * 64 * kib }
    const shardBytesMax = 64 * kib
    const net = await startLocalNetwork(12, { shardBytesMax }, sizes)
    await net.store.createBucket('b', me)
    const bytes = bytesOf(1_000_000)
    await put(net, 'k', bytes)
    const slow = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const opened = await net.store.openObject('b', 'k')
        const chunks = opened.read(0, bytes.length)[Symbol.asyncIterator]()
        const first = await chunks.next()
        // The chunk in its hands has to stay as it is meanwhile, so it is copied only when it goes on.
        return { opened, chunks, received: [first.value!] }
      })
    )
    for (let i = 0; i < 3; i++) expect(Buffer.compare(await get(net, 'k'), bytes)).toBe(0)
    for (const { opened, chunks, received } of slow) {
      received[0] = new Uint8Array(received[0]!)
      for (let next = await chunks.next(); next.done !== true; next = await chunks.next())
        received.push(new Uint8Array(next.value))
      opened.close()
      expect(Buffer.compare(Buffer.concat(received), bytes)).toBe(0)
    }
  })
})
