/**
 * What people would do first: copy a tree of real files and one big file in and out, with the clients they have, while
 * providers are killed outright between, during downloads and during uploads.
 */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { isCi, isSoak, ProcessNetwork, waitFor } from '../support/processes.ts'
import {
  type ClientName,
  type CopyClient,
  clientPrograms,
  findProgram,
  openClient,
  rclone
} from '../support/s3-clients.ts'
import { expectSameTrees, makeTree } from '../support/trees.ts'

const treeFiles = isSoak ? 2000 : 60
/** Several parts for each client that sends it in parts. */
const bigBytes = isSoak ? 1024 * MiB : 24 * MiB
const timeout = isSoak ? 3_600_000 : 120_000

const names: ClientName[] = ['awscli', 's3cmd', 'rclone', '@aws-sdk/client-s3']

/** Without it there is nothing to test; where changes are judged it has to be there. */
const isMissing = (name: ClientName): boolean =>
  name !== '@aws-sdk/client-s3' && findProgram(clientPrograms[name]) === undefined && !isCi

describe.each([12])('a network of %i providers', (count) => {
  /** 6+6: any six may go; three while a write is on its way. */
  const m = count / 2
  let network: ProcessNetwork
  let work: string
  let tree: string
  const clients = new Map<ClientName, CopyClient>()
  const bucketOf = (name: ClientName, what: string): string =>
    `${what}-${name.replace(/[^a-z0-9]/g, '-').replace(/^-/, '')}`

  beforeAll(async () => {
    work = await mkdtemp(path.join(tmpdir(), 'holdfast-clients-'))
    tree = path.join(work, 'tree')
    network = await ProcessNetwork.start({ providers: count })
    await makeTree(tree, treeFiles, bigBytes)
    for (const name of names.filter((one) => !isMissing(one))) {
      const home = path.join(work, `home-${name.replace('/', '-')}`)
      await mkdir(home)
      clients.set(name, await openClient(name, network.gateway, home))
    }
  }, 180_000)

  afterAll(async () => {
    await network?.stop()
    await rm(work, { recursive: true, force: true })
  }, 60_000)

  const emptyDirectory = async (): Promise<string> => await mkdtemp(path.join(work, 'out-'))

  const expectIdentical = async (client: CopyClient, bucket: string): Promise<void> => {
    const out = await emptyDirectory()
    await client.copyOut(bucket, out)
    await expectSameTrees(tree, out)
    await rm(out, { recursive: true })
  }

  describe.each(names)('%s', (name) => {
    const it = test.skipIf(isMissing(name))
    const bucket = bucketOf(name, 'calm')

    it('what goes in comes back identical', { timeout }, async () => {
      const client = clients.get(name)!
      await client.copyIn(tree, bucket)
      await expectIdentical(client, bucket)
    })
  })

  test('all shards are placed in the end, at full margin', { timeout }, async () => {
    await network.gateway.untilComplete(timeout)
    const health = await network.gateway.health(bucketOf('@aws-sdk/client-s3', 'calm'), 'big.bin')
    expect(new Set(health.segments.map(({ code, margin }) => `${code} ${margin}`))).toEqual(new Set([`${m}+${m} ${m}`]))
  })

  test(`${m} of ${count} providers are killed during a download`, { timeout }, async () => {
    const client = clients.get('@aws-sdk/client-s3')!
    const out = await emptyDirectory()
    let isOver = false
    const copying = client.copyOut(bucketOf('@aws-sdk/client-s3', 'calm'), out).finally(() => (isOver = true))
    copying.catch(() => {}) // awaited below
    await waitFor('some files are here', async () => (await readdir(out, { recursive: true })).length > 10)
    expect(isOver).toBe(false)
    await network.kill(...network.providers.slice(0, m))
    await copying
    await expectSameTrees(tree, out)
  })

  test.skipIf(isMissing('rclone'))('rclone compares every byte with those providers dead', { timeout }, async () => {
    const home = path.join(work, 'home-rclone')
    const checker = rclone(findProgram('rclone')!, network.gateway, home)
    for (const name of clients.keys()) await checker.check(tree, bucketOf(name, 'calm'))
  })

  describe.each(names)('%s', (name) => {
    const it = test.skipIf(isMissing(name))

    it(`reads everything with ${m} of ${count} providers dead`, { timeout }, async () => {
      await expectIdentical(clients.get(name)!, bucketOf(name, 'calm'))
    })
  })

  describe.each(names)('%s', (name) => {
    const it = test.skipIf(isMissing(name))

    it(`${m / 2} providers are killed during an upload`, { timeout }, async () => {
      await network.restore()
      const client = clients.get(name)!
      const bucket = bucketOf(name, 'storm')
      const before = (await network.gateway.status()).objects
      let isOver = false
      const copying = client.copyIn(tree, bucket).finally(() => (isOver = true))
      copying.catch(() => {}) // awaited below
      await waitFor('some objects are there', async () => (await network.gateway.status()).objects > before + 5)
      expect(isOver).toBe(false)
      const at = names.indexOf(name)
      await network.kill(...network.providers.slice(at, at + m / 2))
      await copying
      await expectIdentical(client, bucket)
    })
  })
})
