/** Time that no correction of the machine's clock can bend: for lines, and for when events and requests begin and end. */
import type { Clock } from '../../src/base/clock.ts'
import { systemClock } from '../../src/base/system.ts'

/** Its `now` is milliseconds since this process began, and says nothing of the date. */
export const steadyClock: Clock = { now: () => performance.now(), sleep: systemClock.sleep }
