/** Directories of real files to copy about. */
import { copyFile, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { chunksOf } from './bytes.ts'
import { runProgram } from './s3-clients.ts'

const modules = fileURLToPath(new URL('../../node_modules', import.meta.url))
/** What a runtime or a compiler weighs says nothing that the one big file does not. */
const fileBytesMax = 512 * 1024

/** Names that S3 clients and servers have stumbled over. */
const oddNames = [
  'an empty file',
  'ünï cödé/ねこ.txt',
  'a+b=c&d.txt',
  '100%.txt',
  "it's (one) [of] {them}!.txt",
  '~.-_'
]

/**
 * Fills a directory with so many files of the project's own `node_modules`, spread over all of it, with some under names
 * that ask for care, and one big file.
 */
export async function makeTree(directory: string, files: number, bigBytes: number): Promise<void> {
  const found = (await readdir(modules, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(modules, path.join(entry.parentPath, entry.name)))
    .sort()
  const step = found.length / files
  if (step < 1) throw new Error(`node_modules has only ${found.length} files`)
  for (let i = 0, at = 0; i < files && at < found.length; at += step) {
    const file = found[Math.floor(at)]!
    if ((await stat(path.join(modules, file))).size > fileBytesMax) continue
    i++
    await mkdir(path.dirname(path.join(directory, file)), { recursive: true })
    await copyFile(path.join(modules, file), path.join(directory, file))
  }
  for (const [i, name] of oddNames.entries()) {
    const file = path.join(directory, 'odd', name)
    await mkdir(path.dirname(file), { recursive: true })
    await writeFile(file, i === 0 ? '' : `${name}\n`)
  }
  await writeFile(path.join(directory, 'big.bin'), chunksOf('big', bigBytes))
}

/** @throws Error that says how the directories differ */
export async function expectSameTrees(expected: string, actual: string): Promise<void> {
  try {
    await runProgram('/usr/bin/diff', ['-r', expected, actual])
  } catch (cause) {
    throw new Error('the directories differ', { cause })
  }
}
