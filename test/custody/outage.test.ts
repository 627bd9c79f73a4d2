import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hourMs, minuteMs, secondMs } from '../../src/base/limits.ts'
import {
  canaries,
  contacted,
  newOutage,
  type OutageEffect,
  outageDefaults,
  outageStateSchema
} from '../../src/custody/outage.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'

/** A network whose providers are letters: equal letters share a failure domain. */
class Contacts {
  state = newOutage()
  effects: OutageEffect[] = []
  now = 0
  readonly network: string

  constructor(network: string) {
    this.network = network
    this.round(network.replaceAll(/./g, 'o'))
    this.now += hourMs
  }

  /** All are asked, a second apart: o answers, x does not, a space is not asked. */
  round(row: string): void {
    for (const [i, letter] of [...row].entries()) {
      if (letter === ' ') continue
      this.now += secondMs
      const contact = { now: this.now, peerId: `p${i}`, domains: [`op:${this.network[i]!}`], isUp: letter === 'o' }
      const { state, effects } = contacted(this.state, contact)
      this.state = outageStateSchema.parse(JSON.parse(JSON.stringify(state)))
      this.effects.push(...effects)
    }
  }

  get isSuspended(): boolean {
    return this.state.suspended !== null
  }
}

describe('whose outage it is', () => {
  it.each([
    // who they are, how they answer, whether the auditor takes it for its own outage
    ['abcdefghijkl', 'oooooooooooo', false],
    ['abcdefghijkl', 'xxxxxxxxxxxx', true],
    ['abcdefghijkl', 'oooooooxxxxx', true],
    ['abcdefghijkl', 'ooooooooxxxx', false], // a third is not more than a third
    ['abcdefghijkl', '        xxxx', true],
    ['abcdefghijkl', '         xxx', false],
    ['abcdefghijkl', 'oooooooo  xx', false],
    ['aaaaaaaabcde', 'xxxxxxxxoooo', false], // a datacenter of eight
    ['aaaaaaaabcde', 'xxxxxxxx    ', false],
    ['aaaaaaaabcde', 'xxxxxxxoxxxo', false], // the datacenter is up: one answers
    ['abc', 'xxx', true],
    ['abc', 'xxo', false],
    ['abc', ' xx', false],
    ['ab', 'xx', true],
    ['a', 'x', false]
  ])('%s %s', (network, row, isOwn) => {
    const contacts = new Contacts(network)
    contacts.round(row)
    expect(contacts.isSuspended).toBe(isOwn)
  })

  it('is nobody’s where they stop one after the other', () => {
    const contacts = new Contacts('abcdefghijkl')
    for (let down = 1; down <= 12; down++) {
      contacts.round('x'.repeat(down) + 'o'.repeat(12 - down))
      contacts.now += outageDefaults.windowMs
    }
    expect(contacts.isSuspended).toBe(false)
  })

  it('does not follow from who was offline before, or never answered', () => {
    const contacts = new Contacts('abcdefgh')
    contacts.round('xxxoooox')
    expect(contacts.isSuspended).toBe(true)
    const before = new Contacts('abcdefgh')
    before.round('xxxooooo')
    before.now += hourMs
    before.round('xxxoooox')
    expect(before.isSuspended).toBe(false)
  })
})

describe('an own outage', () => {
  it('begins in time to take back what was silent, and ends when enough answer', () => {
    const contacts = new Contacts('abcdefghijkl')
    const start = contacts.now
    contacts.round('xxxxxxxxxxxx')
    // The fourth group is the first that makes it one.
    expect(contacts.effects).toMatchObject([{ kind: 'suspended', at: start + 4 * secondMs }])
    const [suspended] = contacts.effects
    expect(suspended?.kind === 'suspended' && suspended.from <= start).toBe(true)
    contacts.now += hourMs
    contacts.round('ooooooooxxxx')
    expect(contacts.isSuspended).toBe(true)
    contacts.round('ooooooooo')
    expect(contacts.effects.map(({ kind }) => kind)).toEqual(['suspended', 'resumed'])
    // Three that stay away are no new outage.
    contacts.round('oooooooooxxx')
    expect(contacts.isSuspended).toBe(false)
  })

  it('is given up after a day where half the network answers, and never where most are silent', () => {
    const half = new Contacts('abcdefghijkl')
    half.round('ooooooxxxxxx')
    half.now += 23 * hourMs
    half.round('ooooooxxxxxx')
    expect(half.isSuspended).toBe(true)
    half.now += hourMs
    half.round('ooooooxxxxxx')
    expect(half.isSuspended).toBe(false)
    const most = new Contacts('abcdefghijkl')
    most.round('oooooxxxxxxx')
    most.now += 1000 * hourMs
    most.round('oooooxxxxxxx')
    expect(most.isSuspended).toBe(true)
  })

  it('is found out by asking a few others at once', () => {
    const contacts = new Contacts('abcdefghijkl')
    expect(canaries(contacts.state, contacts.now, seededRandom(1))).toEqual([])
    contacts.round('x')
    const asked = canaries(contacts.state, contacts.now, seededRandom(1), 8)
    expect(new Set(asked).size).toBe(8)
    expect(asked).not.toContain('p0')
    // While it lasts those that stopped are asked too, or nobody would see its end.
    contacts.round('xxxxxxxxxxxx')
    contacts.now += 2 * minuteMs
    expect(canaries(contacts.state, contacts.now, seededRandom(1), 99)).toHaveLength(12)
  })
})

it('one failure domain, however many providers, is never an own outage', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 12 }), (large, others) => {
      const contacts = new Contacts('Z'.repeat(large) + 'abcdefghijkl'.slice(0, others))
      contacts.round('x'.repeat(large) + 'o'.repeat(others))
      contacts.round('x'.repeat(large))
      expect(contacts.effects).toEqual([])
    })
  )
})

it('memory is bounded', () => {
  let state = newOutage()
  const config = { ...outageDefaults, peersMax: 10 }
  for (let i = 0; i < 100; i++) {
    state = contacted(state, { now: i, peerId: `p${i}`, domains: [], isUp: i % 2 === 0 }, config).state
  }
  expect(state.peers).toHaveLength(10)
})
