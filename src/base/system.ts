/** The machine's clock, randomness and log: the only file of the core that reads time, timers and entropy. */
import { randomBytes, randomInt } from 'node:crypto'
import type { Clock } from './clock.ts'
import type { Log, LogFields, LogLevel } from './log.ts'
import type { Random } from './random.ts'

export const systemClock: Clock = {
  now: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      const onAbort = (): void => {
        clearTimeout(timer)
        reject(signal?.reason)
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      }, ms)
      signal?.addEventListener('abort', onAbort, { once: true })
    })
}

export const systemRandom: Random = {
  next: () => randomInt(0, 2 ** 47) / 2 ** 47,
  int: (bound) => (bound <= 1 ? 0 : randomInt(0, bound)),
  bytes: (length) => randomBytes(length),
  fork: () => systemRandom
}

const order: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 }

function plain(this: Record<string, unknown>, key: string, value: unknown): unknown {
  if (value instanceof Error) return value.message
  if (typeof value === 'bigint') return value.toString()
  // CIDs and peer ids print alike everywhere: as they are before their own `toJSON` has made objects of them.
  const original = this[key]
  if (original !== null && typeof original === 'object' && 'asCID' in original) return String(original)
  return value
}

/** One JSON object a line on stderr, so that stdout stays the command's result. */
export function systemLog(
  level: LogLevel = 'info',
  scope = 'holdfast',
  write = (line: string): void => void process.stderr.write(line)
): Log {
  const at =
    (own: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      if (order[own] < order[level]) return
      write(`${JSON.stringify({ time: new Date().toISOString(), level: own, scope, message, ...fields }, plain)}\n`)
    }
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (name) => systemLog(level, `${scope}.${name}`, write)
  }
}
