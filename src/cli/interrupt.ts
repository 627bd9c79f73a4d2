/** When a process is to end: a signal, or the death of the process that started it. */
import { HoldfastError } from '../base/errors.ts'
import { systemClock } from '../base/system.ts'
import { exitCodes } from './exit-codes.ts'

/** Two signals closer than this are one: a terminal's Ctrl-C also arrives by way of the launcher. */
const sameSignalMs = 500
const parentCheckMs = 250

/**
 * Aborts on SIGINT, SIGTERM, SIGHUP, and when an IPC channel to the parent closes: then the parent is dead, however
 * that came. A second, later signal ends the process at once.
 *
 * npm (`npm start`, `npx holdfast`) passes a signal on to the shell that it runs this process in. Many a shell does not: it
 * dies of the signal and leaves this process to run on, in nobody's sight. So whoever is run by npm also ends when it has
 * got another parent.
 */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController()
  let firstAt: number | undefined
  const onSignal = (): void => {
    if (firstAt === undefined) {
      firstAt = systemClock.now()
      controller.abort(new HoldfastError('ABORTED', 'interrupted'))
    } else if (systemClock.now() - firstAt > sameSignalMs) {
      process.exit(exitCodes.interrupted)
    }
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal)
  if (process.channel !== undefined && process.channel !== null) {
    process.once('disconnect', () => {
      firstAt ??= systemClock.now()
      controller.abort(new HoldfastError('ABORTED', 'the parent process has ended'))
    })
    process.channel.unref() // listening alone must not keep a finished command alive
  }
  if (process.env.npm_lifecycle_event !== undefined) void abortWithParent(controller)
  return controller.signal
}

async function abortWithParent(controller: AbortController): Promise<void> {
  const parent = process.ppid
  while (process.ppid === parent) await systemClock.sleep(parentCheckMs)
  controller.abort(new HoldfastError('ABORTED', 'the shell that npm ran this in has ended'))
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
