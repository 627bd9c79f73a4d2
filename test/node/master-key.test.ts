import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { systemRandom } from '../../src/base/system.ts'
import { loadMasterKey } from '../../src/node/master-key.ts'

let directory: string
let file: string
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'holdfast-key-'))
  file = path.join(directory, 'master.key')
})
afterEach(() => rm(directory, { recursive: true, force: true }))

it('makes a key for its owner alone, and reads the same again', async () => {
  const key = await loadMasterKey(file, systemRandom)
  expect(key).toHaveLength(32)
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  expect(Buffer.compare(await loadMasterKey(file, systemRandom), key)).toBe(0)
  expect(await readdir(directory)).toEqual(['master.key'])
})

it('uses no key that others may read, or that is none, and leaves it alone', async () => {
  await writeFile(file, Buffer.alloc(32, 1), { mode: 0o644 })
  await chmod(file, 0o644)
  await expect(loadMasterKey(file, systemRandom)).rejects.toMatchObject({
    code: 'BAD_CONFIG',
    message: expect.stringContaining('chmod 600')
  })
  await chmod(file, 0o600)
  await writeFile(file, 'short')
  await expect(loadMasterKey(file, systemRandom)).rejects.toMatchObject({
    code: 'BAD_CONFIG',
    message: expect.stringContaining('5 bytes')
  })
  expect((await stat(file)).size).toBe(5)
})
