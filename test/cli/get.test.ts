/** `holdfast get` against a gateway that breaks off: a server of our own, so that it can be made to. */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type CliResult, runCli, startCli, until } from '../support/cli.ts'

const object = randomBytes(300_000)
const etag = '"0123456789abcdef0123456789abcdef"'

let directory: string
let server: Server
let requests: Array<{ range?: string; ifMatch?: string }>
/** What the nth request for the object gets. */
let respond: (nth: number, response: ServerResponse, start: number) => void

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'holdfast-get-'))
  requests = []
  server = createServer((request: IncomingMessage, response) => {
    const { range, 'if-match': ifMatch } = request.headers
    requests.push({ range, ifMatch })
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
    response.statusCode = start > 0 ? 206 : 200
    response.setHeader('etag', etag)
    response.setHeader('content-length', object.length - start)
    if (start > 0) response.setHeader('content-range', `bytes ${start}-${object.length - 1}/${object.length}`)
    respond(requests.length, response, start)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterEach(async () => {
  server.closeAllConnections()
  server.close()
  await rm(directory, { recursive: true, force: true })
})

const environment = (): Record<string, string> => ({
  AWS_ACCESS_KEY_ID: 'a',
  AWS_SECRET_ACCESS_KEY: 'b',
  HOLDFAST_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
const get = (...args: string[]): Promise<CliResult> =>
  runCli(['get', 's3://b/k', ...args], { cwd: directory, env: environment() })

const breakOffAfter = (response: ServerResponse, bytes: Buffer): void => {
  response.write(bytes, () => response.destroy())
}

describe('holdfast get', () => {
  it('takes a broken download up where it broke, of the same version', async () => {
    respond = (nth, response, start) => {
      if (nth === 1) breakOffAfter(response, object.subarray(0, 100_000))
      else response.end(object.subarray(start))
    }
    const { status } = await get('copy')
    expect(status).toBe(0)
    expect(readFileSync(path.join(directory, 'copy')).equals(object)).toBe(true)
    expect(requests).toHaveLength(2)
    expect(requests[1]).toEqual({ range: expect.stringMatching(/^bytes=[1-9]\d*-$/), ifMatch: etag })
  })

  it('leaves nothing behind, and the old file alone, when the rest is of another version', async () => {
    await writeFile(path.join(directory, 'copy'), 'old')
    respond = (nth, response) => {
      if (nth === 1) breakOffAfter(response, object.subarray(0, 100_000))
      else response.writeHead(412, { 'content-length': '0' }).end()
    }
    const { status } = await get('copy')
    expect(status).toBe(1)
    expect(readFileSync(path.join(directory, 'copy'), 'utf8')).toBe('old')
    expect(readdirSync(directory)).toEqual(['copy'])
  })

  it('leaves nothing behind when it is interrupted', async () => {
    respond = (_nth, response) => void response.write(object.subarray(0, 100_000)) // and then nothing
    const child = startCli(['get', 's3://b/k', 'copy'], { cwd: directory, env: environment() })
    await until(() => readdirSync(directory).length > 0)
    child.kill('SIGINT')
    expect(await until(() => child.exitCode ?? undefined)).toBe(130)
    expect(readdirSync(directory)).toEqual([])
  })

  it('says what it cannot write, before or while it does', async () => {
    respond = (_nth, response, start) => void response.end(object.subarray(start))
    const { status, stderr } = await get(path.join('no', 'such', 'directory'))
    expect([status, stderr]).toEqual([1, expect.stringContaining('ENOENT')])
    expect((await get('.')).status).toBe(0)
    expect(existsSync(path.join(directory, 'k'))).toBe(true)
    const both = await get('-', '--json')
    expect([both.status, both.stdout.length]).toEqual([2, 0])
  })
})
