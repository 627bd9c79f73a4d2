/** What is to happen when: a binary heap in flat arrays. Of equal times the one that was put in first comes first. */
export class EventHeap {
  #times = new Float64Array(1024)
  #order = new Float64Array(1024)
  #kinds = new Uint8Array(1024)
  #subjects = new Int32Array(1024)
  #count = 0
  #pushed = 0

  get size(): number {
    return this.#count
  }

  /** Infinite when there is nothing. */
  get nextAt(): number {
    return this.#count === 0 ? Number.POSITIVE_INFINITY : this.#times[0]!
  }

  push(at: number, kind: number, subject: number): void {
    if (this.#count === this.#times.length) this.#grow()
    let i = this.#count++
    const order = this.#pushed++
    while (i > 0) {
      const up = (i - 1) >> 1
      if (this.#times[up]! <= at) break
      this.#move(up, i)
      i = up
    }
    this.#set(i, at, order, kind, subject)
  }

  /** What `nextAt` was about. @throws RangeError when there is nothing */
  pop(): { at: number; kind: number; subject: number } {
    if (this.#count === 0) throw new RangeError('nothing is to happen')
    const popped = { at: this.#times[0]!, kind: this.#kinds[0]!, subject: this.#subjects[0]! }
    const last = --this.#count
    let i = 0
    for (;;) {
      let down = 2 * i + 1
      if (down >= last) break
      if (down + 1 < last && this.#isBefore(down + 1, down)) down++
      if (!this.#isBefore(down, last)) break
      this.#move(down, i)
      i = down
    }
    this.#move(last, i)
    return popped
  }

  #isBefore(a: number, b: number): boolean {
    const [timeA, timeB] = [this.#times[a]!, this.#times[b]!]
    return timeA < timeB || (timeA === timeB && this.#order[a]! < this.#order[b]!)
  }

  #move(from: number, to: number): void {
    this.#set(to, this.#times[from]!, this.#order[from]!, this.#kinds[from]!, this.#subjects[from]!)
  }

  #set(i: number, at: number, order: number, kind: number, subject: number): void {
    this.#times[i] = at
    this.#order[i] = order
    this.#kinds[i] = kind
    this.#subjects[i] = subject
  }

  #grow(): void {
    const size = 2 * this.#times.length
    const grown = <A extends Float64Array | Uint8Array | Int32Array>(larger: A, old: A): A => {
      larger.set(old)
      return larger
    }
    this.#times = grown(new Float64Array(size), this.#times)
    this.#order = grown(new Float64Array(size), this.#order)
    this.#kinds = grown(new Uint8Array(size), this.#kinds)
    this.#subjects = grown(new Int32Array(size), this.#subjects)
  }
}
