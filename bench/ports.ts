/** Ports for nodes that must have the same again after a restart. */
import { systemRandom } from '../src/base/system.ts'
import { isPortFree } from '../src/cli/up/plan.ts'

/** Below the ports that systems hand out for outgoing connections (32768 and up on Linux), or one of these would take them. */
const portFirst = 10_000
const pairs = 10_000
const triesMax = 1000

/** Gives each pair once: that nobody listens on it yet does not mean that it was not given away. */
export class PortPairs {
  readonly #given = new Set<number>()

  /** The first of two ports in a row that are free on 127.0.0.1. @throws when none is found */
  async next(): Promise<number> {
    for (let i = 0; i < triesMax; i++) {
      const port = portFirst + 2 * systemRandom.int(pairs)
      if (this.#given.has(port) || !(await isPortFree(port)) || !(await isPortFree(port + 1))) continue
      this.#given.add(port)
      return port
    }
    throw new Error(`no two free ports in a row found in ${triesMax} tries`)
  }
}
