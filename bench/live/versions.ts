/** What objects are by now: each was stored, and is written anew while others read it. */
import { VersionHistory } from '../../src/sim/churn/version-history.ts'
import type { DataSource, ObjectData } from '../data.ts'
import type { Expected } from '../throughput/s3-client.ts'

interface Written {
  history: VersionHistory
  /** By number of version. */
  data: ObjectData[]
}

export class Versions {
  readonly #data: DataSource
  readonly #sizes: readonly number[]
  readonly #written: Written[]

  constructor(data: DataSource, sizes: readonly number[]) {
    this.#data = data
    this.#sizes = sizes
    this.#written = sizes.map(() => ({ history: new VersionHistory(), data: [] }))
  }

  /** Another version, of the same length; it is right to be read from now on, and alone so once `stored`. */
  begin(object: number): { version: number; data: ObjectData } {
    const written = this.#written[object]!
    const version = written.history.begin()
    const data = this.#data.object(object + version * this.#sizes.length, this.#sizes[object]!)
    written.data.push(data)
    return { version, data }
  }

  stored(object: number, version: number): void {
    this.#written[object]!.history.stored(version)
  }

  /** What was not answered, or with an error, may have been stored all the same. */
  failed(object: number, version: number): void {
    this.#written[object]!.history.failed(version)
  }

  /**
   * For a read that begins now: what was stored last, whatever is being written, and whatever comes to be written before
   * its first byte is here.
   */
  expected(object: number): Expected {
    const { history, data } = this.#written[object]!
    const oldest = history.current
    return new OneOf(this.#sizes[object]!, () => data.filter((_, version) => history.isRight(version, oldest)))
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
