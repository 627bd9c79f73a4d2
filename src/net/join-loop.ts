/**
 * Gets a node into the DHT and keeps it there. libp2p's own bootstrap module dials every address once and gives up,
 * which leaves a node alone for good when its first neighbour was late or busy.
 */
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Random } from '../base/random.ts'

const retryMsMin = 250
const retryMsMax = 15 * secondMs
/** How often a node that knows others looks whether it still does. */
const checkMs = 5 * secondMs
/** Fewer neighbours than this are too few to rely on: known addresses are tried again, now and then. */
const neighboursWanted = 5
/** How long a fresh connection is given to bring a first neighbour. */
const settleMs = 2 * secondMs
const pollMs = 50

export interface JoinComponents {
  clock: Clock
  random: Random
  log: Log
  /** Connects to a multiaddr; bounded in time. */
  dial: (address: string) => Promise<void>
  /** Peers in the routing table. */
  neighbours: () => number
  /** Where others may be: the operator's bootstrap addresses, then those remembered. */
  addresses: () => Promise<string[]>
}

/** Runs until the signal aborts; never rejects. */
export async function keepJoined(components: JoinComponents, signal: AbortSignal): Promise<void> {
  const { clock, random, neighbours } = components
  let retryMs = retryMsMin
  let isToldAlone = false
  try {
    for (;;) {
      const before = neighbours()
      const failure = before < neighboursWanted ? await tryAll(components, signal) : undefined
      const isAlone = neighbours() === 0
      if (isAlone && failure !== undefined && !isToldAlone)
        components.log.warn('no node to join through answers; it will be tried again and again', failure)
      isToldAlone = isAlone && (isToldAlone || failure !== undefined)
      // Grows while there is nobody, and while the few there are stay the same few.
      retryMs = neighbours() > before ? retryMsMin : Math.min(retryMs * 2, retryMsMax)
      const waitMs = isAlone ? retryMs : Math.max(retryMs, checkMs)
      await clock.sleep(waitMs * (0.5 + random.next()), signal)
    }
  } catch (error) {
    if (!signal.aborted) components.log.error('the join loop ended', { error: messageOf(error) })
  }
}

/** @returns the last failure, for the log */
async function tryAll(
  { clock, random, log, dial, neighbours, addresses }: JoinComponents,
  signal: AbortSignal
): Promise<{ address: string; error: string } | undefined> {
  const targets = shuffled(await addresses(), random)
  let failure: { address: string; error: string } | undefined
  for (const address of targets) {
    signal.throwIfAborted()
    try {
      await dial(address)
    } catch (error) {
      failure = { address, error: messageOf(error) }
      log.debug('could not reach a known address', failure)
      continue
    }
    // A neighbour counts once it has identified itself as one; this many polls at most.
    for (let waited = 0; waited < settleMs && neighbours() === 0; waited += pollMs) await clock.sleep(pollMs, signal)
  }
  return failure
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const copy = [...items]
  for (let i = copy.length - 1; i > 0; i--) {
    const j = random.int(i + 1)
    ;[copy[i], copy[j]] = [copy[j]!, copy[i]!]
  }
  return copy
}
