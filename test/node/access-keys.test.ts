import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { systemRandom } from '../../src/base/system.ts'
import type { MetadataIndex } from '../../src/metadata/index-store.ts'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { AccessKeys } from '../../src/node/access-keys.ts'

let index: MetadataIndex
let now = 1_000
const clock: Clock = { now: () => now++, sleep: async () => {} }
const masterKey = systemRandom.bytes(32)
const keysWith = (key: Uint8Array): AccessKeys => new AccessKeys({ index, masterKey: key, clock, random: systemRandom })

beforeEach(async () => {
  index = await openSqliteIndex(':memory:')
})
afterEach(() => index.close())

describe('access keys', () => {
  it('makes a first one, and gives the same ever after', async () => {
    const first = await keysWith(masterKey).first()
    expect(first.accessKeyId).toMatch(/^HF[A-Z2-7]{18}$/)
    expect(first.secretAccessKey).toMatch(/^[A-Za-z0-9]{40}$/)
    await keysWith(masterKey).create()
    expect(await keysWith(masterKey).first()).toEqual(first)
    expect(await keysWith(masterKey).list()).toHaveLength(2)
  })

  it('gives secrets back to whoever checks signatures, and lists none', async () => {
    const keys = keysWith(masterKey)
    const made = await keys.create('photos')
    expect(await keys.lookup(made.accessKeyId)).toEqual(made)
    expect(await keys.lookup('HFNOSUCHKEY')).toBeUndefined()
    expect(JSON.stringify(await keys.list())).not.toContain(made.secretAccessKey)
    for (const { sealedSecret } of await index.listAccessKeys()) {
      expect(Buffer.from(sealedSecret).includes(made.secretAccessKey)).toBe(false)
    }
  })

  it('has one owner for an account, whatever the key; and for another name another', async () => {
    const keys = keysWith(masterKey)
    const [first, second, third] = [await keys.create('a'), await keys.create('a'), await keys.create('b')]
    expect(first.owner).toMatch(/^[0-9a-f]{64}$/)
    expect(second.owner).toBe(first.owner)
    expect(third.owner).not.toBe(first.owner)
    expect((await keys.create()).owner).toBe(first.owner) // of the oldest key, unless told otherwise
  })

  it('opens nothing with another master key', async () => {
    const { accessKeyId } = await keysWith(masterKey).create()
    await expect(keysWith(systemRandom.bytes(32)).lookup(accessKeyId)).rejects.toMatchObject({ code: 'DAMAGED' })
  })

  it('revokes at once, and once', async () => {
    const keys = keysWith(masterKey)
    const { accessKeyId } = await keys.create()
    await keys.revoke(accessKeyId)
    expect(await keys.lookup(accessKeyId)).toBeUndefined()
    await expect(keys.revoke(accessKeyId)).rejects.toMatchObject({ code: 'NO_SUCH_KEY' })
  })
})
