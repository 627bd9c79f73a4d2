/** How far a transfer has come: a bar on a terminal, a line now and then in a pipe, nothing with `--json`. */
import { systemClock } from '../base/system.ts'
import type { Output } from './output.ts'
import { formatBytes, formatDuration } from './units.ts'

export interface Progress {
  /** Bytes done since the last call. */
  add: (bytes: number) => void
  /** Ends the display; `isDone` leaves the last state standing as complete. */
  stop: (isDone: boolean) => void
}

/** In a pipe: often enough to see that it lives, seldom enough for a log. */
const plainIntervalMs = 5_000

export async function createProgress(output: Output, label: string, totalBytes: number | undefined): Promise<Progress> {
  if (output.isJson) return { add: () => {}, stop: () => {} }
  return output.isInteractive ? barProgress(output, label, totalBytes) : plainProgress(output, label, totalBytes)
}

function describe(
  doneBytes: number,
  totalBytes: number | undefined,
  elapsedMs: number
): { rate: string; remaining: string } {
  const perMs = elapsedMs > 0 ? doneBytes / elapsedMs : 0
  return {
    rate: `${formatBytes(Math.round(perMs * 1000))}/s`,
    remaining: totalBytes === undefined || perMs === 0 ? '?' : formatDuration((totalBytes - doneBytes) / perMs)
  }
}

function plainProgress(output: Output, label: string, totalBytes: number | undefined): Progress {
  const startedAt = systemClock.now()
  let shownAt = startedAt
  let doneBytes = 0
  return {
    add: (bytes) => {
      doneBytes += bytes
      const now = systemClock.now()
      if (now - shownAt < plainIntervalMs) return
      shownAt = now
      const { rate, remaining } = describe(doneBytes, totalBytes, now - startedAt)
      const share =
        totalBytes === undefined ? formatBytes(doneBytes) : `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`
      output.note(`${label}: ${share}, ${rate}${totalBytes === undefined ? '' : `, ${remaining} remaining`}`)
    },
    stop: (isDone) => {
      if (!isDone) return
      const elapsedMs = systemClock.now() - startedAt
      output.note(
        `${label}: ${formatBytes(doneBytes)} in ${formatDuration(elapsedMs)}, ${describe(doneBytes, totalBytes, elapsedMs).rate}`
      )
    }
  }
}

async function barProgress(output: Output, label: string, totalBytes: number | undefined): Promise<Progress> {
  const { SingleBar } = (await import('cli-progress')).default
  const startedAt = systemClock.now()
  let doneBytes = 0
  const texts = (): Record<string, string> => ({
    done: formatBytes(doneBytes),
    whole: totalBytes === undefined ? '?' : formatBytes(totalBytes),
    ...describe(doneBytes, totalBytes, systemClock.now() - startedAt)
  })
  const format =
    totalBytes === undefined
      ? `${label}  {done}  {rate}`
      : `${label}  {bar} {percentage}%  {done}/{whole}  {rate}  {remaining} remaining`
  const bar = new SingleBar({
    stream: output.stderr as NodeJS.WriteStream,
    format,
    barCompleteChar: '\u2588',
    barIncompleteChar: '\u2591',
    barsize: 24,
    fps: 8,
    hideCursor: true,
    gracefulExit: false
  })
  bar.start(totalBytes ?? 0, 0, texts())
  return {
    add: (bytes) => {
      doneBytes += bytes
      bar.update(doneBytes, texts())
    },
    stop: (isDone) => {
      if (isDone) bar.update(doneBytes, texts())
      bar.stop()
    }
  }
}
