/** What objects are by now: each was stored, and is written anew while others read it. */
import type { DataSource, ObjectData } from '../data.ts'
import type { Expected } from '../throughput/s3-client.ts'

/** All that one object has been; only its writer adds to it. */
class History {
  /** By number of version; those that failed may or may not have been stored, then or later. */
  readonly versions: ObjectData[] = []
  readonly failed = new Set<number>()
  /** The newest whose write was answered. */
  current = 0
}

export class Versions {
  readonly #data: DataSource
  readonly #sizes: readonly number[]
  readonly #histories: History[]

  constructor(data: DataSource, sizes: readonly number[]) {
    this.#data = data
    this.#sizes = sizes
    this.#histories = sizes.map(() => new History())
  }

  /** Another version, of the same length; it is right to be read from now on, and alone so once `stored`. */
  begin(object: number): { version: number; data: ObjectData } {
    const { versions } = this.#histories[object]!
    const version = versions.length
    const data = this.#data.object(object + version * this.#sizes.length, this.#sizes[object]!)
    versions.push(data)
    return { version, data }
  }

  stored(object: number, version: number): void {
    this.#histories[object]!.current = version
  }

  /** What was not answered, or with an error, may have been stored all the same. */
  failed(object: number, version: number): void {
    this.#histories[object]!.failed.add(version)
  }

  /**
   * For a read that begins now: what was stored last, whatever is being written, and whatever comes to be written before
   * its first byte is here.
   */
  expected(object: number): Expected {
    const history = this.#histories[object]!
    const oldest = history.current
    return new OneOf(this.#sizes[object]!, () =>
      history.versions.filter((_, version) => version >= oldest || history.failed.has(version))
    )
  }
}

/** Bytes that are, from the first to the last, those of one of several. */
class OneOf implements Expected {
  readonly size: number
  readonly #candidates: () => ObjectData[]
  #left: ObjectData[] | undefined

  constructor(size: number, candidates: () => ObjectData[]) {
    this.size = size
    this.#candidates = candidates
  }

  /** @throws WrongAnswerError when none is left that has these bytes there */
  verify(offset: number, bytes: Uint8Array): void {
    this.#left ??= this.#candidates()
    let refused: unknown
    this.#left = this.#left.filter((data) => {
      try {
        data.verify(offset, bytes)
        return true
      } catch (error) {
        refused = error
        return false
      }
    })
    if (this.#left.length === 0) throw refused
  }
}
