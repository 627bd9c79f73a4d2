import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { isAlive, until } from '../support/cli.ts'

const module = fileURLToPath(new URL('../../src/cli/interrupt.ts', import.meta.url))
const program = `
  import { aborted, interruptSignal } from '${module}'
  const signal = interruptSignal()
  setInterval(() => {}, 1000)
  console.log(process.pid)
  await aborted(signal)
  process.exit()`

/** In a shell of its own, as npm runs it; the command after it keeps the shell there. */
async function startInShell(env: Record<string, string>): Promise<{ pid: number; shell: ReturnType<typeof spawn> }> {
  const command = `'${process.execPath}' --input-type=module -e "${program}"; true`
  const shell = spawn('/bin/sh', ['-c', command], { env, stdio: ['ignore', 'pipe', 'ignore'] })
  const [line] = await once(shell.stdout!, 'data')
  return { pid: Number(line), shell }
}

it('a program that npm runs ends with the shell between them; another has a parent that may go', async () => {
  const ofNpm = await startInShell({ npm_lifecycle_event: 'start' })
  const own = await startInShell({})
  for (const { shell } of [ofNpm, own]) shell.kill('SIGTERM')
  await until(() => !isAlive(ofNpm.pid))
  expect(isAlive(own.pid)).toBe(true)
  process.kill(own.pid, 'SIGTERM')
  await until(() => !isAlive(own.pid))
})
