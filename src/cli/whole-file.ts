/** Where downloads go: a file that appears complete or not at all, or standard output. */
import { once } from 'node:events'
import { open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import type { Output } from './output.ts'

/** Takes the bytes in order; resolves when it wants more. */
export type Sink = (chunk: Uint8Array) => Promise<void>

/** A temporary file beside it takes its place once `fill` has resolved and all is on the disk. */
export async function writeWholeFile<T>(file: string, fill: (sink: Sink) => Promise<T>): Promise<T> {
  const temporary = path.join(path.dirname(file), `.${path.basename(file).slice(0, 200)}.${process.pid}.holdfast`)
  const handle = await open(temporary, 'wx')
  try {
    let filled: T
    try {
      filled = await fill((chunk) => handle.appendFile(chunk))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
    return filled
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/** Writes no faster than standard output is read. */
export function stdoutSink({ stdout }: Pick<Output, 'stdout'>, signal: AbortSignal): Sink {
  return async (chunk) => {
    if (!stdout.write(chunk)) await once(stdout, 'drain', { signal })
  }
}
