/** What happened, in order: a rolling hash of all of it, and the text of the last of it. */
import type { Log, LogFields } from '../base/log.ts'
import type { Timeline } from './virtual-clock.ts'

const keptLines = 200

export class Trace {
  readonly #onLine: ((line: string) => void) | undefined
  readonly #timeline: Timeline
  readonly #recent: string[] = []
  #lines = 0
  #high = 0x811c9dc5
  #low = 0x01000193

  /** @param onLine hears each line; for a person who follows a run */
  constructor(timeline: Timeline, onLine?: (line: string) => void) {
    this.#timeline = timeline
    this.#onLine = onLine
  }

  note(text: string): void {
    const line = `${((this.#timeline.now - this.#timeline.startAt) / 1000).toFixed(3)} ${text}`
    let high = this.#high
    let low = this.#low
    for (let i = 0; i < line.length; i++) {
      const code = line.charCodeAt(i)
      high = Math.imul(high ^ code, 0x01000193)
      low = Math.imul(low ^ code, 0x85ebca6b) + high
    }
    this.#high = high
    this.#low = low | 0
    this.#recent[this.#lines++ % keptLines] = line
    this.#onLine?.(line)
  }

  get lines(): number {
    return this.#lines
  }

  /** Hash of every line so far, 16 hex digits. */
  get hash(): string {
    return [this.#high, this.#low].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('')
  }

  /** The last lines, oldest first. */
  recent(): string[] {
    const from = this.#lines % keptLines
    return this.#lines <= keptLines ? [...this.#recent] : [...this.#recent.slice(from), ...this.#recent.slice(0, from)]
  }

  /** The log of a simulated process: its lines are part of what happened. */
  log(scope: string): Log {
    const at =
      (level: string) =>
      (message: string, fields?: LogFields): void => {
        this.note(`${scope} ${level}: ${message}${fields === undefined ? '' : formatFields(fields)}`)
      }
    return {
      debug: () => {},
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      child: (name) => this.log(`${scope}.${name}`)
    }
  }
}

function formatFields(fields: LogFields): string {
  let text = ''
  for (const [name, value] of Object.entries(fields)) text += ` ${name}=${formatValue(value)}`
  return text
}

function formatValue(value: unknown): string {
  if (value !== null && typeof value === 'object' && 'asCID' in value) return shortCid(value)
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** The tail of a CID tells it from others, and is enough to look for. */
export function shortCid(cid: { toString: () => string }): string {
  return cid.toString().slice(-8)
}
