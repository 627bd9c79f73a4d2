/**
 * Where a node keeps what other peers tell it (their addresses, their DHT records): in memory, bounded, and looked up
 * by prefix without going through everything. Anybody may send records, so without a bound memory would be theirs.
 */
import { BaseDatastore } from 'datastore-core'
import { Key, type Pair, type Query } from 'interface-datastore'
import { NotFoundError } from 'interface-store'

/** A record has about 200 bytes. */
const recordsMaxDefault = 50_000

export class RecordDatastore extends BaseDatastore {
  readonly #recordsMax: number
  /** By all but the last component of the key: DHT records of one key, and the addresses of all peers, are groups. */
  readonly #groups = new Map<string, Map<string, Uint8Array>>()
  /** Keys of one kind (first component), the one written longest ago first. */
  readonly #ages = new Map<string, Set<string>>()

  /** @param recordsMax of one kind; beyond it the one written longest ago goes */
  constructor(recordsMax = recordsMaxDefault) {
    super()
    this.#recordsMax = recordsMax
  }

  override put(key: Key, value: Uint8Array): Key {
    const text = key.toString()
    const group = groupOf(text)
    const records = this.#groups.get(group) ?? new Map<string, Uint8Array>()
    this.#groups.set(group, records)
    records.set(text, value)
    const kind = kindOf(text)
    const ages = this.#ages.get(kind) ?? new Set<string>()
    this.#ages.set(kind, ages)
    ages.delete(text)
    ages.add(text)
    if (ages.size > this.#recordsMax) {
      const [oldest] = ages
      this.#remove(oldest!)
    }
    return key
  }

  override get(key: Key): Uint8Array {
    const text = key.toString()
    const value = this.#groups.get(groupOf(text))?.get(text)
    if (value === undefined) throw new NotFoundError()
    return value
  }

  override has(key: Key): boolean {
    const text = key.toString()
    return this.#groups.get(groupOf(text))?.has(text) ?? false
  }

  override delete(key: Key): void {
    this.#remove(key.toString())
  }

  override async *_all(query: Query): AsyncGenerator<Pair> {
    for (const [text, value] of this.#matching(query.prefix)) yield { key: new Key(text), value }
  }

  override async *_allKeys(query: { prefix?: string }): AsyncGenerator<Key> {
    for (const [text] of this.#matching(query.prefix)) yield new Key(text)
  }

  /** Records that may have the prefix; the base class looks at each. A copy, since they change while they are read. */
  #matching(prefix = ''): Array<[string, Uint8Array]> {
    const found: Array<[string, Uint8Array]> = []
    for (const [group, records] of this.#groups) {
      if (group.startsWith(prefix) || prefix.startsWith(group)) found.push(...records)
    }
    return found
  }

  #remove(text: string): void {
    const group = groupOf(text)
    const records = this.#groups.get(group)
    records?.delete(text)
    if (records?.size === 0) this.#groups.delete(group)
    this.#ages.get(kindOf(text))?.delete(text)
  }
}

const groupOf = (key: string): string => key.slice(0, key.lastIndexOf('/'))

const kindOf = (key: string): string => key.slice(1, (key.indexOf('/', 1) + key.length + 1) % (key.length + 1))
