import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { localProvider } from '../../src/cli/provider-client.ts'
import { type LocalRoutes, type LocalServer, serveLocally } from '../../src/provider/local-server.ts'
import { codeOf } from '../contracts/provider-client.ts'

let directory: string
const running: LocalServer[] = []
const { signal } = new AbortController()

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-local-'))
})
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop()
  await rm(directory, { recursive: true, force: true })
})

async function serve(routes: LocalRoutes): Promise<LocalServer> {
  const server = await serveLocally(directory, routes, { clock: systemClock, random: systemRandom, log: silentLog })
  running.push(server)
  return server
}

const controlFile = async (): Promise<{ port: number; token: string }> =>
  JSON.parse(await readFile(join(directory, 'control.json'), 'utf8'))

describe("the operator's channel of a provider", () => {
  test('answers who has the token of its file, which only its owner can read and which ends with it', async () => {
    const server = await serve({ 'POST /echo': async (body) => ({ body }), 'GET /nothing': async () => undefined })
    const path = join(directory, 'control.json')
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const client = await localProvider(directory, signal)
    expect(await client.request('POST', '/echo', { a: [1] })).toEqual({ body: { a: [1] } })
    expect(await client.request('GET', '/nothing')).toBeNull()
    await server.stop()
    await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('does nothing for anybody else', async () => {
    let calls = 0
    await serve({ 'POST /go': async () => calls++ })
    const { port, token } = await controlFile()
    const status = async (authorization?: string): Promise<number> =>
      (await fetch(`http://127.0.0.1:${port}/go`, { method: 'POST', headers: authorization ? { authorization } : {} }))
        .status
    expect(await status()).toBe(401)
    expect(await status(`Bearer ${token.slice(1)}`)).toBe(401)
    expect(await status(`Bearer ${token.slice(1)}_`)).toBe(401)
    expect(await status(token)).toBe(401)
    expect(calls).toBe(0)
    expect(await status(`Bearer ${token}`)).toBe(200)
    expect(calls).toBe(1)
  })

  test('says what it does not know, and takes no endless command', async () => {
    await serve({ 'POST /go': async () => 'gone' })
    const client = await localProvider(directory, signal)
    expect(await codeOf(client.request('POST', '/stay'))).toBe('MISSING')
    expect(await codeOf(client.request('GET', '/go'))).toBe('MISSING')
    expect(await codeOf(client.request('GET', '/constructor'))).toBe('MISSING')
    expect(await codeOf(client.request('POST', '/go', { text: 'x'.repeat(100_000) }))).toBe('BAD_INPUT')
    const { port, token } = await controlFile()
    const headers = { authorization: `Bearer ${token}` }
    const answer = await fetch(`http://127.0.0.1:${port}/go`, { method: 'POST', headers, body: '{' })
    expect([answer.status, await answer.json()]).toMatchObject([400, { code: 'BAD_INPUT' }])
  })

  test('streams what comes piece by piece, with how it failed', async () => {
    const gate = Promise.withResolvers<void>()
    await serve({
      'GET /steps': async () =>
        (async function* () {
          yield 1
          await gate.promise
          yield { step: 2 }
          throw new HoldfastError('NO_SPACE', 'no more')
        })()
    })
    const steps = (await localProvider(directory, signal)).stream('GET', '/steps')
    expect(await steps.next()).toEqual({ done: false, value: 1 }) // before the rest is there
    gate.resolve()
    expect(await steps.next()).toEqual({ done: false, value: { step: 2 } })
    await expect(steps.next()).rejects.toMatchObject({ code: 'NO_SPACE', message: 'no more' })
  })

  test('a stream whose provider stops is broken off, not ended; and what it was doing is told', async () => {
    const told = Promise.withResolvers<unknown>()
    const server = await serve({
      'GET /steps': async (_body, inner) =>
        (async function* () {
          yield 1
          yield await new Promise((_resolve, reject) => {
            inner.addEventListener('abort', () => {
              told.resolve(inner.reason)
              reject(inner.reason)
            })
          })
        })()
    })
    const steps = (await localProvider(directory, signal)).stream('GET', '/steps')
    await steps.next()
    const next = codeOf(steps.next().then(() => undefined))
    await server.stop()
    expect(await next).toBe('OFFLINE')
    expect(await told.promise).toMatchObject({ code: 'ABORTED' })
  })

  test('an error without a code is told without its words', async () => {
    await serve({
      'GET /broken': async () => {
        throw new Error('a secret path')
      }
    })
    const client = await localProvider(directory, signal)
    await expect(client.request('GET', '/broken')).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.not.stringContaining('secret')
    })
  })
})

describe('where no provider runs', () => {
  test('there is no file', async () => {
    await expect(localProvider(directory, signal)).rejects.toMatchObject({
      code: 'OFFLINE',
      message: expect.stringContaining('holdfast provider --data')
    })
  })

  test('the file is of one that was killed, whose port nobody has, or somebody else', async () => {
    const path = join(directory, 'control.json')
    const { port } = await serve({ 'GET /x': async () => 1 })
    await writeFile(path, JSON.stringify({ port, token: 'of-an-earlier-start-than-this-one-is' }))
    const other = await localProvider(directory, signal)
    expect(await codeOf(other.request('GET', '/x'))).toBe('OFFLINE')
    await running.pop()!.stop()
    await writeFile(path, JSON.stringify({ port, token: 'of-an-earlier-start-than-this-one-is' }))
    const nobody = await localProvider(directory, signal)
    expect(await codeOf(nobody.request('GET', '/x'))).toBe('OFFLINE')
  })

  test('the file is damaged', async () => {
    await writeFile(join(directory, 'control.json'), '{')
    expect(await codeOf(localProvider(directory, signal).then(() => undefined))).toBe('DAMAGED')
  })
})
