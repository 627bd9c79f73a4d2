import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { generateIdentity, loadIdentity, verifySignature } from '../../src/net/identity.ts'

describe('an identity in a file', () => {
  let directory: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'holdfast-identity-'))
  })
  afterEach(() => rm(directory, { recursive: true, force: true }))

  test('is made once, private, and is the same ever after', async () => {
    const path = join(directory, 'data', 'identity.key')
    const made = await loadIdentity(path)
    expect(made.peerId).toMatch(/^12D3KooW/)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    expect((await loadIdentity(path)).peerId).toBe(made.peerId)
    expect(await readdir(join(directory, 'data'))).toEqual(['identity.key'])
  })

  test('two that start together agree', async () => {
    const path = join(directory, 'identity.key')
    const made = await Promise.all([1, 2, 3, 4].map(() => loadIdentity(path)))
    expect(new Set(made.map(({ peerId }) => peerId)).size).toBe(1)
  })

  test('a key that others can read is refused, with what to do about it', async () => {
    const path = join(directory, 'identity.key')
    await loadIdentity(path)
    await chmod(path, 0o640)
    await expect(loadIdentity(path)).rejects.toMatchObject({
      code: 'BAD_CONFIG',
      message: expect.stringContaining('chmod 600')
    })
  })

  test('a file that is no key is refused, and not shown or replaced', async () => {
    const path = join(directory, 'identity.key')
    for (const content of ['', 'a secret of another kind', 'x'.repeat(10_000)]) {
      await writeFile(path, content, { mode: 0o600 })
      const failure = await loadIdentity(path).catch((error: Error) => error)
      expect(failure).toMatchObject({ code: 'BAD_CONFIG' })
      expect((failure as Error).message).not.toContain('secret')
    }
  })
})

describe('signatures', () => {
  test('are checked by the peer id alone', async () => {
    const [a, b] = [await generateIdentity(), await generateIdentity()]
    const bytes = Buffer.from('a statement')
    const signature = await a.sign(bytes)
    expect(await verifySignature(a.peerId, bytes, signature)).toBe(true)
    expect(await verifySignature(b.peerId, bytes, signature)).toBe(false)
    expect(await verifySignature(a.peerId, Buffer.from('another'), signature)).toBe(false)
  })

  test('anything malformed is false, never an error', async () => {
    const { peerId } = await generateIdentity()
    const bytes = Buffer.from('a statement')
    for (const signature of [new Uint8Array(), new Uint8Array(63), new Uint8Array(64), new Uint8Array(200)]) {
      expect(await verifySignature(peerId, bytes, signature)).toBe(false)
    }
    for (const id of ['', 'nobody', 'QmfXbAwNjJLXfesgztEHe8HwgVDCMMpZ9Eax1HYq6hn9uE']) {
      expect(await verifySignature(id, bytes, new Uint8Array(64))).toBe(false)
    }
  })
})
