/** The access keys of a gateway: made, looked up and revoked; their secrets sealed by its master key. */
import { createHash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { HoldfastError } from '../base/errors.ts'
import type { Random } from '../base/random.ts'
import type { AccountIndex } from '../metadata/index-store.ts'
import type { AccessKeyRecord } from '../metadata/records.ts'
import { seal, unseal } from '../object/keys.ts'

export interface AccessKey {
  accessKeyId: string
  secretAccessKey: string
  /** Canonical id of the account: 64 hex digits, as S3 shows owners. */
  owner: string
  /** The account's name. */
  displayName: string
  /** Milliseconds since the Unix epoch. */
  createdAt: number
}

export const defaultAccount = 'default'

// Without what a shell, a URL or a reader could take for something else.
const idAlphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const secretAlphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const idPrefix = 'HF'
const idChars = 20
const secretChars = 40

/** The same everywhere for the same name, so that an index rebuilt, or shared, knows whose a bucket is. */
function ownerOf(account: string): string {
  return createHash('sha256').update(`holdfast-account:${account}`).digest('hex')
}

export interface AccessKeysComponents {
  index: AccountIndex
  masterKey: Uint8Array
  clock: Clock
  random: Random
}

export class AccessKeys {
  readonly #components: AccessKeysComponents

  constructor(components: AccessKeysComponents) {
    this.#components = components
  }

  /** The oldest key; made where there is none yet, so that a new gateway can be used. */
  async first(): Promise<AccessKey> {
    const [oldest] = await this.#records()
    return oldest === undefined ? await this.create(defaultAccount) : this.#open(oldest)
  }

  /** Oldest first, without secrets. */
  async list(): Promise<Array<Omit<AccessKey, 'secretAccessKey'>>> {
    return (await this.#records()).map(({ accessKeyId, owner, displayName, createdAt }) => ({
      accessKeyId,
      owner,
      displayName,
      createdAt
    }))
  }

  /** @param account who owns what is made with it; absent: the owner of the first key */
  async create(account?: string): Promise<AccessKey> {
    const { index, masterKey, clock, random } = this.#components
    const displayName = account ?? (await this.#records())[0]?.displayName ?? defaultAccount
    const pick = (alphabet: string, chars: number): string =>
      Array.from({ length: chars }, () => alphabet[random.int(alphabet.length)]).join('')
    const key: AccessKey = {
      accessKeyId: idPrefix + pick(idAlphabet, idChars - idPrefix.length),
      secretAccessKey: pick(secretAlphabet, secretChars),
      owner: ownerOf(displayName),
      displayName,
      createdAt: clock.now()
    }
    const { accessKeyId, owner, createdAt } = key
    const sealedSecret = seal(masterKey, Buffer.from(key.secretAccessKey), `access-key:${accessKeyId}`, random)
    await index.createAccessKey({ accessKeyId, sealedSecret, owner, displayName, createdAt })
    return key
  }

  async lookup(accessKeyId: string): Promise<AccessKey | undefined> {
    const record = await this.#components.index.getAccessKey(accessKeyId)
    return record === undefined ? undefined : this.#open(record)
  }

  /** @throws HoldfastError `NO_SUCH_KEY` */
  async revoke(accessKeyId: string): Promise<void> {
    if (await this.#components.index.revokeAccessKey(accessKeyId)) return
    throw new HoldfastError('NO_SUCH_KEY', `there is no access key ${accessKeyId.slice(0, 64)}`)
  }

  async #records(): Promise<AccessKeyRecord[]> {
    const records = await this.#components.index.listAccessKeys()
    return records.toSorted((a, b) => a.createdAt - b.createdAt || (a.accessKeyId < b.accessKeyId ? -1 : 1))
  }

  #open({ accessKeyId, sealedSecret, owner, displayName, createdAt }: AccessKeyRecord): AccessKey {
    const secret = unseal(this.#components.masterKey, sealedSecret, `access-key:${accessKeyId}`)
    return { accessKeyId, secretAccessKey: Buffer.from(secret).toString('utf8'), owner, displayName, createdAt }
  }
}
