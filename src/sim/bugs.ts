/**
 * Planted bugs, one of each class that the simulator is there to find: what it does not find with one of these is not
 * worth much without. Each comes with the settings in which it shows within a few seeds; it would in any, later.
 */
import { secondMs } from '../base/limits.ts'
import type { Scenario } from './world.ts'

export interface Bug {
  /** What goes wrong, as `--help` has it. */
  what: string
  setting: { machines?: number; scenario?: Partial<Scenario> }
}

/** Few machines, so that whoever is not to be chosen is likely to be. */
const small = { code: { k: 2, m: 2 }, operators: 8, clients: 4, faultsMs: 60 * secondMs }

export const bugs = {
  'acknowledges-early': { what: 'a write is acknowledged one shard too early', setting: {} },
  'timeout-is-loss': {
    what: 'an audit that is not answered in time counts as a loss',
    setting: { scenario: { isAuditing: true } }
  },
  'same-domain': {
    what: 'repair does not look at failure domains',
    setting: { machines: 16, scenario: { ...small, faults: ['wiped', 'gone for good'] } }
  },
  'forgets-refusals': {
    what: 'the gateway does not remember who refused what, and offers it again',
    setting: {
      machines: 14,
      scenario: { ...small, operators: 14, faultsMs: 200 * secondMs, faults: ['refuses', 'wiped'] }
    }
  },
  'deletes-leased': {
    what: 'providers collect what is still leased',
    setting: { machines: 12, scenario: { ...small, operators: 12, faultsMs: 5 * secondMs } }
  },
  'releases-first': {
    what: 'the old copy of a shard is released before the new one is committed',
    setting: { machines: 12, scenario: { ...small, operators: 12, faults: ['leaves', 'gateway killed'] } }
  },
  'trusts-hand-over': {
    what: 'whoever says that it has brought a shard to another is believed',
    setting: { machines: 12, scenario: { ...small, operators: 12, faults: ['leaves', 'lies on hand-over'] } }
  }
} as const satisfies Record<string, Bug>

export type BugName = keyof typeof bugs

export const bugNames = Object.keys(bugs) as BugName[]

export const isBugName = (text: string): text is BugName => Object.hasOwn(bugs, text)
