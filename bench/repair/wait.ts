import { messageOf } from '../../src/base/errors.ts'
import { secondMs } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/system.ts'

const pollMs = 100

/**
 * Polls until `probe` gives something; a probe that fails is asked again.
 *
 * @throws Error naming `what`, and why the last probe failed, after `msMax`; the signal's reason when it aborts
 */
export async function waitUntil<T>(
  what: string,
  probe: () => Promise<T | undefined | false>,
  { msMax, signal }: { msMax: number; signal: AbortSignal }
): Promise<T> {
  const deadline = systemClock.now() + msMax
  let failure: string
  do {
    try {
      const found = await probe()
      if (found !== undefined && found !== false) return found
      failure = 'not yet'
    } catch (error) {
      signal.throwIfAborted()
      failure = messageOf(error)
    }
    await systemClock.sleep(pollMs, signal)
  } while (systemClock.now() < deadline)
  throw new Error(`waited ${msMax / secondMs} s in vain until ${what}: ${failure}`)
}
