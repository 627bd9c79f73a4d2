/** What the figures were measured on, and of which sources. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import os from 'node:os'
import { fileURLToPath } from 'node:url'
import type { Result } from './result.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
/** Writing results must not make the sources look changed. */
const generated = [':(exclude)bench/results', ':(exclude)README.md']

export function machineRecord(directory: string): Result['machine'] {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    platform: `${process.platform} ${process.arch}`,
    kernel: os.release(),
    node: process.versions.node,
    fileSystem: fileSystemOf(directory),
    loadBefore: os.loadavg()[0]!
  }
}

export function commitRecord(): Result['commit'] {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    return { hash: git('rev-parse', 'HEAD'), dirty: git('status', '--porcelain', '--', '.', ...generated) !== '' }
  } catch {
    return { hash: null, dirty: true } // no git, or no checkout: nobody can say what was measured
  }
}

/** Type of the file system that holds a path, such as `ext4`. */
function fileSystemOf(path: string): string {
  let mounts: string
  try {
    mounts = readFileSync('/proc/self/mounts', 'utf8')
  } catch {
    return 'unknown' // no such file on other systems
  }
  const inside = mounts
    .split('\n')
    .map((line) => line.split(' '))
    .filter(
      ([, point]) =>
        point !== undefined && (path === point || path.startsWith(point.endsWith('/') ? point : `${point}/`))
    )
  // The deepest mount holds it; of two on one point, the later.
  return (
    inside.reduce((best, one) => (one[1]!.length >= (best[1]?.length ?? 0) ? one : best), [] as string[])[2] ??
    'unknown'
  )
}
