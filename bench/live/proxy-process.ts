/** The proxy as a process of its own, so that what it shuffles delays neither clients nor whoever measures them. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { messageOf } from '../../src/base/errors.ts'
import { LineProxy, type RouteInit } from './proxy.ts'

const port = z.number().int().min(1).max(65_535)
const routeSchema = z.strictObject({
  forwards: z
    .array(z.strictObject({ listen: port, target: port }))
    .max(8)
    .readonly(),
  line: z.strictObject({ roundTripMs: z.number().min(0), bytesPerSecond: z.number().positive() })
})
const orderSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('open'), name: z.string(), route: routeSchema }),
  z.strictObject({ kind: z.literal('close'), name: z.string() }),
  z.strictObject({ kind: z.literal('strain') })
])
type Order = z.infer<typeof orderSchema>
const commandSchema = z.strictObject({ id: z.number().int(), order: orderSchema })

/** What the proxy adds to lines by being a process of a machine that others use. */
const strainSchema = z.strictObject({
  /** How late its timers were since it was last asked: bytes arrive as late. */
  lateMsP99: z.number().min(0),
  lateMsMax: z.number().min(0),
  /** On their way at once, the most since it began. */
  heldBytesMost: z.number().int().min(0)
})
export type ProxyStrain = z.infer<typeof strainSchema>

const answerSchema = z.strictObject({
  id: z.number().int(),
  error: z.nullable(z.string()),
  strain: strainSchema.optional()
})
type Answer = z.infer<typeof answerSchema>

export class ProxyProcess {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Omit<Answer, 'id'>) => void>()
  #asked = 0

  constructor() {
    this.#child = fork(fileURLToPath(import.meta.url), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', (message) => {
      const { id, ...answer } = answerSchema.parse(message)
      this.#waiting.get(id)?.(answer)
      this.#waiting.delete(id)
    })
    const onEnd = (): void => {
      for (const settle of this.#waiting.values()) settle({ error: 'the proxy has ended' })
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
    await this.#ask({ kind: 'open', name, route })
  }

  async close(name: string): Promise<void> {
    await this.#ask({ kind: 'close', name })
  }

  async strain(): Promise<ProxyStrain> {
    return strainSchema.parse((await this.#ask({ kind: 'strain' })).strain)
  }

  async stop(): Promise<void> {
    if (this.hasEnded) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL') // it keeps nothing
    await ended
  }

  async #ask(order: Order): Promise<Omit<Answer, 'id'>> {
    if (this.hasEnded) throw new Error('the proxy has ended')
    const id = ++this.#asked
    return await new Promise((resolve, reject) => {
      this.#waiting.set(id, (answer) => (answer.error === null ? resolve(answer) : reject(new Error(answer.error))))
      this.#child.send({ id, order } satisfies z.infer<typeof commandSchema>)
    })
  }
}

const delayEveryMs = 10

async function serve(): Promise<void> {
  const proxy = new LineProxy()
  const delay = monitorEventLoopDelay({ resolution: delayEveryMs })
  delay.enable()
  const strain = (): ProxyStrain => {
    // It measures how long its own timer took, the time that it was set for included.
    const lateMs = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - delayEveryMs)
    const [lateMsP99, lateMsMax] = delay.count === 0 ? [0, 0] : [lateMs(delay.percentile(99)), lateMs(delay.max)]
    delay.reset()
    return { lateMsP99, lateMsMax, heldBytesMost: proxy.held.most }
  }
  const carryOut = async (order: Order): Promise<Partial<Answer>> => {
    if (order.kind === 'strain') return { strain: strain() }
    await (order.kind === 'open' ? proxy.open(order.name, order.route) : proxy.close(order.name))
    return {}
  }
  process.on('message', async (message) => {
    const { id, order } = commandSchema.parse(message)
    const answer = await carryOut(order).catch((failure: unknown) => ({ error: messageOf(failure) }))
    process.send!({ id, error: null, ...answer } satisfies Answer)
  })
  await once(process, 'disconnect') // whoever started it is gone
  process.exit()
}

if (import.meta.main) {
  // A terminal's Ctrl-C is for whoever started it, who ends it once nodes have ended in good order.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {})
  await serve()
}
