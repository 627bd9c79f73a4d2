/** The proxy as a process of its own, so that what it shuffles delays neither clients nor whoever measures them. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { messageOf } from '../../src/base/errors.ts'
import { LineProxy, type RouteInit } from './proxy.ts'

const port = z.number().int().min(1).max(65_535)
const commandSchema = z.strictObject({
  id: z.number().int(),
  name: z.string(),
  /** Null: it is closed. */
  route: z.nullable(
    z.strictObject({
      forwards: z
        .array(z.strictObject({ listen: port, target: port }))
        .max(8)
        .readonly(),
      line: z.strictObject({ roundTripMs: z.number().min(0), bytesPerSecond: z.number().positive() })
    })
  )
})
const answerSchema = z.strictObject({ id: z.number().int(), error: z.nullable(z.string()) })

export class ProxyProcess {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (error: Error | undefined) => void>()
  #asked = 0

  constructor() {
    this.#child = fork(fileURLToPath(import.meta.url), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', (message) => {
      const { id, error } = answerSchema.parse(message)
      this.#waiting.get(id)?.(error === null ? undefined : new Error(error))
      this.#waiting.delete(id)
    })
    const onEnd = (): void => {
      for (const settle of this.#waiting.values()) settle(new Error('the proxy has ended'))
      this.#waiting.clear()
    }
    this.#child.on('exit', onEnd)
    this.#child.on('error', onEnd)
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  /** See `LineProxy.open`. */
  async open(name: string, route: RouteInit): Promise<void> {
    await this.#ask(name, route)
  }

  async close(name: string): Promise<void> {
    await this.#ask(name, null)
  }

  async stop(): Promise<void> {
    if (this.hasEnded) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL') // it keeps nothing
    await ended
  }

  async #ask(name: string, route: RouteInit | null): Promise<void> {
    if (this.hasEnded) throw new Error('the proxy has ended')
    const id = ++this.#asked
    await new Promise<void>((resolve, reject) => {
      this.#waiting.set(id, (error) => (error === undefined ? resolve() : reject(error)))
      this.#child.send({ id, name, route } satisfies z.infer<typeof commandSchema>)
    })
  }
}

async function serve(): Promise<void> {
  const proxy = new LineProxy()
  process.on('message', async (message) => {
    const { id, name, route } = commandSchema.parse(message)
    let error: string | null = null
    try {
      if (route === null) await proxy.close(name)
      else await proxy.open(name, route)
    } catch (failure) {
      error = messageOf(failure)
    }
    process.send!({ id, error } satisfies z.infer<typeof answerSchema>)
  })
  await once(process, 'disconnect') // whoever started it is gone
  process.exit()
}

if (import.meta.main) {
  // A terminal's Ctrl-C is for whoever started it, who ends it once nodes have ended in good order.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {})
  await serve()
}
