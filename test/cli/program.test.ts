import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildProgram } from '../../src/cli/main.ts'
import { launcher, runCli, until } from '../support/cli.ts'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'holdfast-cli-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const commands = [
  'up',
  'provider',
  'gateway',
  'refuse',
  'providers',
  'status',
  'health',
  'audit',
  'key create',
  'key list',
  'key revoke',
  'put',
  'get',
  'ls',
  'rm',
  'bench churn',
  'bench throughput',
  'bench kernel'
]

describe.concurrent('help', () => {
  it('lists every command, the environment and the exit codes', async ({ expect }) => {
    const { status, stdout, stderr } = await runCli(['--help'])
    expect([status, stderr]).toEqual([0, ''])
    const text = stdout.toString()
    for (const command of commands) expect(text).toContain(`  ${command.split(' ')[0]}`)
    for (const name of ['HOLDFAST_ENDPOINT', 'HOLDFAST_ADMIN', 'HOLDFAST_LOG', 'AWS_ACCESS_KEY_ID', 'Exit codes:'])
      expect(text).toContain(name)
  })

  it.each(commands)('of "%s" names its exit codes and --json', async (command) => {
    const { status, stdout } = await runCli([...command.split(' '), '--help'])
    expect(status).toBe(0)
    expect(stdout.toString()).toMatch(/\nExit codes:\n {2}0 {4}\S/)
    expect(stdout.toString()).toMatch(/\n {2}2 {4}\S/)
    expect(stdout.toString()).toContain('--json')
  })

  it('knows its version', async () => {
    const { stdout } = await runCli(['--version'])
    expect(stdout.toString()).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})

describe.concurrent('what is wrong with the command line', () => {
  it.each([
    [['nosuch'], 'unknown command'],
    [['status', '--nosuch'], "unknown option '--nosuch'"],
    [['status', 'stray'], 'too many arguments'],
    [['put', 'file'], "missing required argument 's3-url'"],
    [['put', 'file', 'http://b/k'], 's3://BUCKET/KEY'],
    [['put', 'file', 's3://'], 'names no bucket'],
    [['put', '-', 's3://bucket/dir/'], 'standard input has no name'],
    [['get', 's3://bucket'], 'names no object'],
    [['health', 's3://bucket/'], 'names no object'],
    [['rm', 's3:///key'], 'names no bucket'],
    [['up', '--providers', '2'], 'from 3 to 200'],
    [['up', '--port', '70000'], 'from 0 to 65535'],
    [['up', '--capacity', '10 bananas'], 'is not a size'],
    [['up', '--code', '6-6'], 'K+M'],
    [['up', '--code', '5+1'], 'parity'],
    [['up', '--providers', '4', '--code', '3+2'], 'needs 5 providers'],
    [['provider'], "required option '--data <dir>'"],
    [['provider', '--data', 'x', '--capacity', '100'.repeat(9)], 'size'],
    [['provider', '--data', 'x', '--listen', '4001'], 'HOST:PORT'],
    [['provider', '--data', 'x', '--domain', 'two words'], 'domain'],
    [['gateway', '--data', 'x', '--admin', 'localhost'], 'HOST:PORT'],
    [['refuse'], 'give one of'],
    [['refuse', 'bafy', '--show'], 'give one of'],
    [['refuse', '--show', '--now'], '--now goes with'],
    [['refuse', '--list', 'x', '--reason', 'y'], '--reason goes with'],
    [['status', '--admin', 'ftp://x'], 'http://HOST:PORT'],
    [['audit', 's3://bucket'], 'names no object'],
    [['audit', 'not/a/peer'], 'neither a provider'],
    [['audit', '--list', '--limit', '1001'], 'from 1 to 1000'],
    [['audit', '--limit', '5'], '--limit is for --list'],
    [['audit', '--list', '12D3KooW'], 'takes no target'],
    [['audit', '--verify', 'x', 's3://b/k'], 'takes no target'],
    [['audit', '--list', '--export', 'x'], "cannot be used with option '--export"],
    [['audit', '--verify', 'x', '--export', 'y'], "cannot be used with option '--"],
    [['audit', '--export', '-', '--json'], 'want standard output'],
    [['ls', '--endpoint', 'http://127.0.0.1:1/path'], 'endpoint'],
    [['bench', 'nosuch'], "unknown command 'nosuch'"],
    [['bench', 'churn', '--providers', '2'], 'from 3 to 200'],
    [['bench', 'churn', '--speed', '0'], 'a number above 0'],
    [['bench', 'churn', '--duration', '10'], 'write a number with ms, s, m, h or d'],
    [['bench', 'churn', '--code', '6-6'], 'K+M'],
    [['bench', 'churn', '--clients', '0'], 'from 1 to 256'],
    [['bench', 'churn', '--trace', 'nosuch'], 'neither a churn model (departure, '],
    [['bench', 'churn', '--trace', launcher], 'not a trace: line 1'],
    [['bench', 'churn', '--code', '20+20'], 'needs 40 providers'],
    [['bench', 'churn', '--objects', '2'], 'an object for each'],
    [['bench', 'kernel', 'stray'], 'too many arguments']
  ])('holdfast %j is refused with advice', async (args, advice) => {
    const credentials = { AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b' }
    const { status, stdout, stderr } = await runCli(args, { cwd: directory, env: credentials })
    expect([status, stdout.toString()]).toEqual([2, ''])
    expect(stderr).toContain(advice)
    expect(stderr).not.toMatch(/\n\s+at /) // no stack trace
  })

  it('refuses an unknown log level, and an endpoint without a key', async () => {
    const level = await runCli(['status'], { cwd: directory, env: { HOLDFAST_LOG: 'loud' } })
    expect([level.status, level.stderr]).toEqual([2, expect.stringContaining('debug, info, warn, error')])
    const key = await runCli(['ls', '--endpoint', 'http://127.0.0.1:1'], { cwd: directory })
    expect([key.status, key.stderr]).toEqual([2, expect.stringContaining('AWS_ACCESS_KEY_ID')])
  })

  it('says so in JSON where JSON is wanted, also what only the benchmark knows', async () => {
    const bench = await runCli(['bench', 'churn', '--trace', 'nosuch', '--json'], { cwd: directory })
    expect([bench.status, bench.stdout.toString()]).toEqual([2, ''])
    expect(JSON.parse(bench.stderr)).toMatchObject({ code: 'BAD_INPUT', message: expect.stringContaining('nosuch') })

    const { status, stderr } = await runCli(['get', 's3://bucket', '--json'], { cwd: directory })
    expect(status).toBe(2)
    expect(JSON.parse(stderr)).toMatchObject({ code: 'BAD_INPUT', message: expect.stringContaining('s3://BUCKET/KEY') })
  })
})

describe('an installation without benchmarks', () => {
  it('says that they come with the source', async () => {
    const run = { launcher: path.join(directory, 'src/cli/holdfast.js'), env: {}, signal: new AbortController().signal }
    for (const name of ['churn', 'throughput', 'kernel']) {
      const running = buildProgram(run).parseAsync(['bench', name], { from: 'user' })
      await expect(running).rejects.toMatchObject({
        code: 'BAD_CONFIG',
        message: expect.stringContaining('come with the source')
      })
    }
  })
})

describe('benchmarks', () => {
  /** A checkout with a program in the place of a benchmark. */
  async function checkoutWith(file: string, text: string): Promise<string> {
    const root = await mkdtemp(path.join(directory, 'checkout-'))
    await mkdir(path.join(root, 'bench', path.dirname(file)), { recursive: true })
    await writeFile(path.join(root, 'bench', file), text)
    return root
  }

  const says = `require('node:fs').writeFileSync(__dirname + '/said', JSON.stringify(process.argv.slice(2)))`
  const bench = (root: string, args: string[], signal = new AbortController().signal): Promise<unknown> =>
    buildProgram({ launcher: path.join(root, 'src/cli/holdfast.js'), env: {}, signal }).parseAsync(['bench', ...args], {
      from: 'user'
    })

  it('are given their options, and end the command with their exit code', async () => {
    const root = await checkoutWith('main.ts', `${says}; process.exit(7)`)
    await expect(bench(root, ['kernel', '--full', '--json'])).rejects.toMatchObject({ status: 7 })
    expect(JSON.parse(await readFile(path.join(root, 'bench/said'), 'utf8'))).toEqual([
      ...['--only', 'kernel', '--full', '--json']
    ])
  })

  it('are given what a run under churn is, and are ended with the command', async () => {
    const wait = `process.once('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1000); ${says}`
    const root = await checkoutWith('live/main.ts', wait)
    const interrupted = new AbortController()
    const running = bench(root, ['churn', '--speed', '7.5', '--code', '4+2', '--no-lines'], interrupted.signal)
    running.catch(() => {}) // looked at below
    const file = path.join(root, 'bench/live/said')
    const said = await until(async () => (await readFile(file, 'utf8').catch(() => '')) || undefined)
    interrupted.abort(new Error('interrupted'))
    await expect(running).rejects.toMatchObject({ status: 130 })
    expect(JSON.parse((JSON.parse(said) as string[])[0]!)).toEqual({
      choice: {
        ...{ providers: 24, trace: 'weibull', speed: 7.5, durationMs: 600_000, code: { k: 4, m: 2 }, seed: 1 },
        hasLines: false
      },
      isSimulatedOnly: false,
      isJson: false
    })
  })
})

describe('without a network', () => {
  it('says that none runs there, and how to start one', async () => {
    for (const args of [
      ['status'],
      ['providers'],
      ['ls'],
      ['put', launcher, 's3://b/k'],
      ['key', 'list'],
      ['health', 's3://b/k'],
      ['audit'],
      ['audit', '--list'],
      ['audit', '--export', 'x']
    ]) {
      const { status, stdout, stderr } = await runCli(args, { cwd: directory })
      expect([args, status, stdout.toString()]).toEqual([args, 4, ''])
      expect(stderr).toContain('holdfast up')
    }
  })

  it('says that nothing answers where it was sent', async () => {
    const env = {
      AWS_ACCESS_KEY_ID: 'a',
      AWS_SECRET_ACCESS_KEY: 'b',
      HOLDFAST_ENDPOINT: 'http://127.0.0.1:1',
      HOLDFAST_ADMIN: 'http://127.0.0.1:1'
    }
    for (const args of [['status'], ['ls'], ['audit', 's3://b/k'], ['audit', '--export', '-']]) {
      const { status, stderr } = await runCli(args, { cwd: directory, env })
      expect([args, status]).toEqual([args, 4])
      expect(stderr).toContain('no gateway answers at http://127.0.0.1:1')
    }
  })

  it('does not take a damaged network file for none', async () => {
    const damaged = await mkdtemp(path.join(directory, 'damaged-'))
    await writeFile(path.join(damaged, 'network.json'), '{"endpoint":')
    const { status, stderr } = await runCli(['status', '--data', damaged])
    expect([status, stderr]).toEqual([2, expect.stringContaining('damaged')])
  })

  it('tells a missing file from a directory', async () => {
    const missing = await runCli(['put', path.join(directory, 'nope'), 's3://b/k'], { cwd: directory })
    expect([missing.status, missing.stderr]).toEqual([3, expect.stringContaining('no such file')])
    const tree = await runCli(['put', directory, 's3://b/k'], { cwd: directory })
    expect([tree.status, tree.stderr]).toEqual([2, expect.stringContaining('is a directory')])
  })
})

describe('a gateway that is none', () => {
  let server: Server
  let origin: string
  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/v1/status') response.end('<html>')
      else if (request.url === '/v1/keys') response.writeHead(403).end('{"code":"FORBIDDEN","message":"not you"}')
      else response.writeHead(500).end('{"code":"INTERNAL","message":"broken \\u001b[31m"}')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => server.close())

  it('maps what it answers to exit codes, and prints nothing that drives a terminal', async () => {
    expect((await runCli(['status', '--admin', origin])).status).toBe(4)
    expect((await runCli(['key', 'list', '--admin', origin])).status).toBe(5)
    const { status, stderr } = await runCli(['providers', '--admin', origin])
    expect([status, stderr]).toEqual([1, 'holdfast: broken \\x1b[31m\n'])
  })
})

describe('the launcher', () => {
  it('starts through a link, as npx links it', async () => {
    const link = path.join(directory, 'holdfast')
    await symlink(launcher, link)
    const { status, stdout } = await runCli(['--version'], { command: [process.execPath, link], cwd: directory })
    expect([status, stdout.toString()]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/)])
  })

  const oldNode = findOldNode()
  it.skipIf(oldNode === undefined)(
    'hands over to the runtime it brings when it is started with an older one',
    async () => {
      const command = [oldNode!, launcher]
      const version = await runCli(['--version'], { command })
      expect([version.status, version.stderr, version.stdout.toString()]).toEqual([
        0,
        '',
        expect.stringMatching(/^\d+\.\d+\.\d+\n$/)
      ])
      const failed = await runCli(['nosuch'], { command })
      expect([failed.status, failed.stderr]).toEqual([2, expect.stringContaining('unknown command')])
    }
  )
})

/** A Node below 22.19 on this machine, where there is one. */
function findOldNode(): string | undefined {
  const candidates = (process.env.PATH ?? '').split(path.delimiter).map((entry) => path.join(entry, 'node'))
  return candidates.find((candidate) => {
    try {
      const [major, minor] = execFileSync(candidate, ['-p', 'process.versions.node'], { encoding: 'utf8' })
        .trim()
        .split('.')
        .map(Number)
      return major! < 22 || (major === 22 && minor! < 19)
    } catch {
      return false // not there
    }
  })
}
