/** A whole network as `holdfast up` runs it: real processes, real signals, real bytes. */
import type { ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NetworkFile } from '../../src/cli/network-file.ts'
import { type CliResult, isAlive, runCli, startCli, until } from '../support/cli.ts'

let root: string
let data: string
let network: { process: ChildProcess; file: NetworkFile; stderr: () => string } | undefined

const networkFile = (): string => path.join(data, 'network.json')
const cli = (...args: string[]): Promise<CliResult> => runCli([...args, '--data', data], { cwd: root })
const json = ({ stdout }: CliResult): Record<string, unknown> => JSON.parse(stdout.toString('utf8'))
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const childPids = (): number[] =>
  readdirSync(path.join(data, 'run')).map((name) => Number(readFileSync(path.join(data, 'run', name), 'utf8')))

async function up(): Promise<NetworkFile> {
  const child = startCli(
    ['up', '--providers', '3', '--code', '1+2', '--port', '0', '--capacity', '1GB', '--data', data, '--json'],
    { cwd: root }
  )
  let stdout = ''
  let stderr = ''
  child.stdout!.on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr!.on('data', (chunk) => {
    stderr += chunk
  })
  await until(() => {
    if (child.exitCode !== null) throw new Error(`up ended with ${child.exitCode}: ${stderr}`)
    return stdout.includes('\n')
  })
  const file = JSON.parse(stdout) as NetworkFile
  network = { process: child, file, stderr: () => stderr }
  return file
}

async function ended(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return await until(() => child.exitCode ?? child.signalCode ?? undefined)
}

async function down(): Promise<number | NodeJS.Signals | null> {
  network!.process.kill('SIGINT')
  const status = await ended(network!.process)
  network = undefined
  return status
}

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'holdfast-up-'))
  data = path.join(root, 'net')
})
afterAll(async () => {
  if (network !== undefined) await down()
  await rm(root, { recursive: true, force: true })
})

describe('holdfast up', () => {
  const big = randomBytes(5_000_001)
  let peers: string[]
  let keyId: string

  it('starts a network and says how to reach it', async () => {
    const file = await up()
    expect(JSON.parse(readFileSync(networkFile(), 'utf8'))).toEqual(file)
    expect(statSync(networkFile()).mode & 0o777).toBe(0o600)
    expect(Object.keys(file).sort()).toEqual([
      'accessKeyId',
      'admin',
      'bootstrap',
      'endpoint',
      'providers',
      'secretAccessKey'
    ])
    expect(file.endpoint).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    expect(file.bootstrap).toHaveLength(file.providers.length)
    expect(file.providers).toHaveLength(3)
    expect(new Set(file.providers.map(({ peerId }) => peerId)).size).toBe(3)
    for (const { pid, data: directory } of file.providers) {
      expect(isAlive(pid)).toBe(true)
      expect(existsSync(path.join(directory, 'identity.key'))).toBe(true)
    }
    expect(file.accessKeyId).toMatch(/^HF[A-Z2-7]{18}$/)
    expect(file.secretAccessKey).toMatch(/^[A-Za-z0-9]{40}$/)
    expect((await fetch(`${file.admin}/readyz`)).status).toBe(200)
    peers = file.providers.map(({ peerId }) => peerId).sort()
    keyId = file.accessKeyId
  }, 60_000)

  it('refuses a second one on the same directory', async () => {
    const { status, stderr } = await cli('up', '--providers', '3', '--port', '0')
    expect([status, stderr]).toEqual([2, expect.stringContaining('in use by another process')])
    expect(existsSync(networkFile())).toBe(true)
  })

  it('keeps files and gives them back', async () => {
    await writeFile(path.join(root, 'big.bin'), big)
    const refused = await cli('put', 'big.bin', 's3://first/')
    expect([refused.status, refused.stderr]).toEqual([3, expect.stringContaining('add --create')])
    const put = await cli('put', 'big.bin', 's3://first/', '--create', '--json')
    expect([put.status, put.stderr]).toEqual([0, ''])
    expect(json(put)).toMatchObject({
      bucket: 'first',
      key: 'big.bin',
      size: big.length,
      etag: createHash('md5').update(big).digest('hex'),
      cid: expect.stringMatching(/^bafy/)
    })

    const get = await cli('get', 's3://first/big.bin', 'copy.bin')
    expect([get.status, get.stderr]).toEqual([0, expect.stringContaining('5.0 MB')])
    expect(sha256(readFileSync(path.join(root, 'copy.bin')))).toBe(sha256(big))
    expect(readdirSync(root).filter((name) => name.endsWith('.holdfast'))).toEqual([])

    const piped = await runCli(['put', '-', 's3://first/dir/piped', '--data', data], { input: 'from a pipe' })
    expect(piped.status).toBe(0)
    expect((await cli('get', 's3://first/dir/piped', '-')).stdout.toString()).toBe('from a pipe')
  })

  it('lists what is there', async () => {
    expect(json(await cli('ls', '--json'))).toMatchObject({ buckets: [{ bucket: 'first' }] })
    expect(json(await cli('ls', 's3://first', '--json'))).toMatchObject({
      objects: [{ prefix: 'dir/' }, { key: 'big.bin', size: big.length }]
    })
    expect(json(await cli('ls', 's3://first', '-r', '--json'))).toMatchObject({
      objects: [{ key: 'big.bin' }, { key: 'dir/piped', size: 11 }]
    })
    expect(json(await cli('ls', 's3://first/none', '--json'))).toEqual({ objects: [] })
    expect((await cli('ls', 's3://first/dir/')).stdout.toString()).toMatch(/ 11 B {2}dir\/piped\n$/)
    const absent = await cli('ls', 's3://absent')
    expect([absent.status, absent.stdout.toString()]).toEqual([3, ''])
  })

  it('shows the network and where an object is', async () => {
    const status = await cli('status')
    expect([status.status, status.stdout.toString()]).toEqual([0, expect.stringContaining('3 online')])
    expect(status.stdout.toString()).toMatch(/^Kernels: +erasure \S.*; blake3 \S/m)
    const providers = json(await cli('providers', '--json')) as {
      providers: Array<{ peerId: string; state: string; domain: string }>
    }
    expect(providers.providers.map(({ peerId }) => peerId).sort()).toEqual(peers)
    expect((await cli('providers')).stdout.toString()).toContain('local-02')
    const health = json(await cli('health', 's3://first/big.bin', '--json')) as {
      cid: string
      segments: Array<{ code: string; healthy: number; margin: number; shards: object[] }>
    }
    expect(health.segments.length).toBeGreaterThan(1)
    for (const segment of health.segments) expect(segment).toMatchObject({ code: '1+2', shards: [{}, {}, {}] })
    expect((await cli('health', 's3://first/nope')).status).toBe(3)
  })

  it('makes keys that work, and revokes them', async () => {
    const key = json(await cli('key', 'create', '--account', 'guest', '--json')) as {
      accessKeyId: string
      secretAccessKey: string
    }
    const env = {
      AWS_ACCESS_KEY_ID: key.accessKeyId,
      AWS_SECRET_ACCESS_KEY: key.secretAccessKey,
      HOLDFAST_ENDPOINT: network!.file.endpoint
    }
    expect(json(await runCli(['ls', '--json'], { cwd: root, env }))).toEqual({ buckets: [] }) // another account's are not its
    expect((await runCli(['get', 's3://first/big.bin', '-'], { cwd: root, env })).status).toBe(5)
    expect((await cli('key', 'list')).stdout.toString()).toContain(key.accessKeyId)
    expect((await cli('key', 'revoke', key.accessKeyId)).status).toBe(0)
    expect((await runCli(['ls'], { cwd: root, env })).status).toBe(5)
    expect((await cli('key', 'revoke', key.accessKeyId)).status).toBe(3)
  })

  it('reads on when a provider is killed, and leaves it dead', async () => {
    const { pid } = network!.file.providers[0]!
    process.kill(pid, 'SIGKILL')
    await until(() => network!.stderr().includes(`(pid ${pid}) was ended by SIGKILL`))
    const { status, stdout } = await cli('get', 's3://first/big.bin', '-')
    expect([status, sha256(stdout)]).toEqual([0, sha256(big)])
    expect(isAlive(pid)).toBe(false)
  })

  it('brings a killed gateway back at the same address', async () => {
    const gatewayPid = Number(readFileSync(path.join(data, 'run', 'gateway.pid'), 'utf8'))
    process.kill(gatewayPid, 'SIGKILL')
    await until(() => network!.stderr().includes('the gateway is back'))
    const { status, stdout } = await cli('get', 's3://first/big.bin', '-')
    expect([status, sha256(stdout)]).toEqual([0, sha256(big)])
  })

  it('stops everything when it is interrupted', async () => {
    const pids = childPids()
    expect(pids).toHaveLength(3) // two providers and the gateway
    expect(await down()).toBe(0)
    expect(pids.filter(isAlive)).toEqual([])
    expect(existsSync(networkFile())).toBe(false)
    expect((await cli('status')).status).toBe(4)
  })

  it('comes back with the same peers, the same key and the same bytes', async () => {
    const file = await up()
    expect(file.providers.map(({ peerId }) => peerId).sort()).toEqual(peers)
    expect(file.accessKeyId).toBe(keyId)
    const { status, stdout } = await cli('get', 's3://first/big.bin', '-')
    expect([status, sha256(stdout)]).toEqual([0, sha256(big)])
  }, 60_000)

  it('removes objects and buckets', async () => {
    expect((await cli('rm', 's3://first/nope')).status).toBe(3)
    expect((await cli('rm', 's3://first/dir/piped')).status).toBe(0)
    const full = await cli('rm', 's3://first')
    expect([full.status, full.stderr]).toEqual([1, expect.stringContaining('not empty')])
    expect(json(await cli('rm', 's3://first', '--recursive', '--json'))).toEqual({
      bucket: 'first',
      objects: 1,
      isBucketRemoved: true
    })
    expect(json(await cli('ls', '--json'))).toEqual({ buckets: [] })
  })

  it('takes everything with it when it is killed outright, and can be started again at once', async () => {
    const pids = childPids()
    const { bootstrap } = network!.file
    expect(pids).toHaveLength(4)
    network!.process.kill('SIGKILL')
    expect(await ended(network!.process)).toBe('SIGKILL')
    network = undefined
    const file = await up()
    expect(pids.filter(isAlive)).toEqual([])
    expect(file.bootstrap).toEqual(bootstrap) // the same ports: it waited for them
    expect(await down()).toBe(0)
  }, 60_000)
})
