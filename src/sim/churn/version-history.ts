/** Which versions of an object are right to be read, by one rule for real processes and simulated ones. */

/** Of one object; only its writer adds to it. */
export class VersionHistory {
  readonly #failed = new Set<number>()
  #count = 0
  #current = 0

  /** The newest whose write was answered. */
  get current(): number {
    return this.#current
  }

  /** @returns the number of another version: right to be read from now on, and alone so once `stored` */
  begin(): number {
    return this.#count++
  }

  stored(version: number): void {
    this.#current = version
  }

  /** What was not answered, or with an error, may have been stored all the same, then or later. */
  failed(version: number): void {
    this.#failed.add(version)
  }

  /** @param oldest what was `current` when the read began: what is older is stale */
  isRight(version: number, oldest: number): boolean {
    return version < this.#count && (version >= oldest || this.#failed.has(version))
  }
}

/** Of a read that gave what was not stored, or no longer is: the run ends, since its figures mean nothing. */
export class WrongContentError extends Error {
  constructor(what: string) {
    super(`wrong answer: ${what}`)
    this.name = 'WrongContentError'
  }
}
