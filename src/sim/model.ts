/** What the objects are, as a client may expect: changed exactly when the index commits, and compared with what is read. */
import type { WriteCondition } from '../metadata/index-store.ts'
import type { ObjectRecord } from '../metadata/records.ts'

export interface Version {
  etag: string
  /** CID of the manifest. */
  root: string
  bytes: Uint8Array
  contentId: number
  /** The tick at which something else took its place; absent while it is current. */
  until?: number
}

interface Key {
  current: Version | undefined
  /** Oldest first. */
  versions: Version[]
  /** The tick since which there has been an object without a break. */
  presentSince: number
}

export class Model {
  readonly #contents = new Map<string, Uint8Array>()
  readonly #keys = new Map<string, Key>()
  #tick = 0

  /** Counts changes: a read that began at this tick may see what was current from then on. */
  get tick(): number {
    return this.#tick
  }

  /** An object with this ETag will have these bytes. */
  expect(etag: string, bytes: Uint8Array): void {
    this.#contents.set(etag, bytes)
  }

  bytesOf(etag: string): Uint8Array | undefined {
    return this.#contents.get(etag)
  }

  current(bucket: string, key: string): Version | undefined {
    return this.#keys.get(path(bucket, key))?.current
  }

  /** Every object, by `bucket/key`. */
  objects(): Array<{ bucket: string; key: string; version: Version }> {
    const found = []
    for (const [name, { current }] of this.#keys) {
      const slash = name.indexOf('/')
      if (current !== undefined)
        found.push({ bucket: name.slice(0, slash), key: name.slice(slash + 1), version: current })
    }
    return found
  }

  /** What S3 says of a write under this condition now. */
  verdict(
    bucket: string,
    key: string,
    condition: WriteCondition | undefined
  ): 'ok' | 'PRECONDITION_FAILED' | 'NO_SUCH_KEY' {
    const etag = this.current(bucket, key)?.etag
    const matches = (tag: string): boolean => tag === '*' || tag === etag
    if (condition?.ifMatch !== undefined) {
      if (etag === undefined) return 'NO_SUCH_KEY'
      if (!matches(condition.ifMatch)) return 'PRECONDITION_FAILED'
    }
    if (condition?.ifNoneMatch !== undefined && etag !== undefined && matches(condition.ifNoneMatch))
      return 'PRECONDITION_FAILED'
    return 'ok'
  }

  /** @returns the version, or `undefined` for an object that nobody can have written */
  commit(record: ObjectRecord, contentId: number): Version | undefined {
    const bytes = this.#contents.get(record.etag)
    if (bytes === undefined || bytes.length !== record.size) return undefined
    const entry = this.#entry(record.bucket, record.key)
    this.#tick++
    if (entry.current === undefined) entry.presentSince = this.#tick
    else entry.current.until = this.#tick
    entry.current = { etag: record.etag, root: record.root.toString(), bytes, contentId }
    entry.versions.push(entry.current)
    return entry.current
  }

  remove(bucket: string, key: string): void {
    const entry = this.#entry(bucket, key)
    if (entry.current === undefined) return
    this.#tick++
    entry.current.until = this.#tick
    entry.current = undefined
  }

  /** The version with this root, if it was current at some moment since `tick`. */
  seenSince(bucket: string, key: string, tick: number, root: string): Version | undefined {
    const versions = this.#keys.get(path(bucket, key))?.versions ?? []
    return versions.findLast(
      (version) => version.root === root && (version.until === undefined || version.until > tick)
    )
  }

  /** Whether there was no such object at some moment since `tick`. */
  wasAbsentSince(bucket: string, key: string, tick: number): boolean {
    const entry = this.#keys.get(path(bucket, key))
    return entry?.current === undefined || entry.presentSince > tick
  }

  #entry(bucket: string, key: string): Key {
    let entry = this.#keys.get(path(bucket, key))
    if (entry === undefined) {
      entry = { current: undefined, versions: [], presentSince: 0 }
      this.#keys.set(path(bucket, key), entry)
    }
    return entry
  }
}

const path = (bucket: string, key: string): string => `${bucket}/${key}`
