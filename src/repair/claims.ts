/**
 * Who is relied on for which shard of a foreign content, given what providers say of themselves and what was shown of it.
 * Pure: no network, no clock. What is said counts until it is put to the proof; what was refuted counts never again.
 */
import type { CID } from '../content/cid.ts'

export class Claims {
  /** Who says that it has the block, by CID. */
  readonly #claimed = new Map<string, Set<string>>()
  /** What came of the proof, by provider and CID. */
  readonly #shown = new Map<string, boolean>()

  claim(provider: string, cid: CID): void {
    const key = cid.toString()
    const claimed = this.#claimed.get(key)
    if (claimed === undefined) this.#claimed.set(key, new Set([provider]))
    else claimed.add(provider)
  }

  show(provider: string, cid: CID, isHeld: boolean): void {
    this.claim(provider, cid)
    this.#shown.set(shownKey(provider, cid), isHeld)
  }

  /** Undefined: it has not been asked. */
  shown(provider: string, cid: CID): boolean | undefined {
    return this.#shown.get(shownKey(provider, cid))
  }

  claimants(cid: CID): readonly string[] {
    return [...(this.#claimed.get(cid.toString()) ?? [])]
  }

  /** Who said so and could not show it, for any of these. */
  refuted(cids: readonly CID[]): Set<string> {
    return new Set(cids.flatMap((cid) => this.claimants(cid).filter((provider) => this.shown(provider, cid) === false)))
  }

  /**
   * For each shard of a segment who is to have it: proved before said, whoever has none of the segment before others, and
   * never one provider for two copies of the same block. Undefined where nobody is left.
   */
  assign(cids: readonly CID[]): Array<string | undefined> {
    const used = new Set<string>()
    const usedFor = new Set<string>()
    return cids.map((cid) => {
      const better = (a: string, b: string): number =>
        Number(this.shown(b, cid) === true) - Number(this.shown(a, cid) === true) ||
        Number(used.has(a)) - Number(used.has(b)) ||
        (a < b ? -1 : 1)
      const [best] = this.claimants(cid)
        .filter((provider) => this.shown(provider, cid) !== false && !usedFor.has(shownKey(provider, cid)))
        .sort(better)
      if (best === undefined) return undefined
      used.add(best)
      usedFor.add(shownKey(best, cid))
      return best
    })
  }
}

const shownKey = (provider: string, cid: CID): string => `${provider} ${cid}`
