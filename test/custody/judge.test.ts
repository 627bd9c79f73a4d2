import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hourMs, minuteMs } from '../../src/base/limits.ts'
import {
  type ChallengeResult,
  deadlineMs,
  dueRepeats,
  isContained,
  isLate,
  isShardContained,
  type JudgeEffect,
  type JudgeEvent,
  type JudgeState,
  judge,
  judgeDefaults,
  judgeStateSchema,
  newJudge
} from '../../src/custody/judge.ts'
import type { CustodyOutcome } from '../../src/custody/outcome.ts'

const outcomeOf: Record<string, CustodyOutcome> = {
  o: 'ok',
  T: 'timeout',
  U: 'unknown',
  M: 'missing',
  W: 'wrong',
  R: 'refused',
  '-': 'offline'
}

/** A provider and the events it has lived through. */
class Life {
  state = newJudge()
  effects: JudgeEffect[] = []
  now = 1_000_000
  #requests = 0

  put(event: JudgeEvent): void {
    const { state, effects } = judge(this.state, event)
    this.state = state
    this.effects.push(...effects)
  }

  ask(outcome: CustodyOutcome, cid = 'a', chunk: number | null = 7): void {
    const results = [{ cid, chunk, outcome }]
    this.put({ kind: 'batch', now: this.now, id: `r${this.#requests++}`, issuedAt: this.now, results })
  }

  later(ms: number): number {
    this.now += ms
    return this.now
  }

  /** To when the next repeat is due, or an hour on. */
  untilDue(): void {
    this.now = Math.max(this.now, this.state.waiting[0]?.nextAt ?? this.now + hourMs)
  }

  kinds(): string[] {
    return this.effects.map(({ kind }) => kind)
  }

  /** Of shard a. */
  get shard(): string {
    const last = this.effects.findLast(
      (effect) => (effect.kind === 'lost' || effect.kind === 'withdrawn') && effect.cid === 'a'
    )
    if (last?.kind === 'lost') return last.outcome
    if (last !== undefined) return 'withdrawn'
    return isShardContained(this.state, 'a') ? 'contained' : 'healthy'
  }
}

/**
 * The same challenge of shard a, put whenever it is due, and how it ends: o ok, T timeout, U unknown, - offline, ...
 */
function lived(outcomes: string): Life {
  const life = new Life()
  for (const letter of outcomes) {
    life.untilDue()
    life.ask(outcomeOf[letter]!)
    // Back after five minutes, and its repeats due again after the first gap.
    if (letter === '-') life.put({ kind: 'online', now: life.later(5 * minuteMs) })
  }
  life.put({ kind: 'tick', now: life.later(judgeDefaults.verdictDelayMs) })
  return life
}

describe('one challenge', () => {
  it.each([
    ['o', 'healthy'],
    ['ooooooo', 'healthy'],
    ['M', 'missing'],
    ['W', 'wrong'],
    ['R', 'withdrawn'],
    ['-', 'healthy'],
    ['----------', 'healthy'],
    ['T', 'contained'],
    ['TT', 'contained'],
    ['TTT', 'contained'],
    ['TTTT', 'missing'],
    ['U', 'contained'],
    ['UUU', 'contained'],
    ['UUUU', 'missing'],
    ['TUTU', 'missing'],
    ['To', 'healthy'],
    ['TTTo', 'healthy'],
    ['TTToTTT', 'contained'],
    ['TTToTTTT', 'missing'],
    ['T---T---T---', 'contained'],
    ['T---T---T---T', 'missing'],
    ['TM', 'missing'],
    ['TW', 'wrong'],
    ['TTTR', 'withdrawn']
  ])('%s: %s', (outcomes, shard) => {
    expect(lived(outcomes).shard).toBe(shard)
  })

  it('is put again after a minute, ten and sixty, and decided five minutes after the last', () => {
    const life = new Life()
    const start = life.now
    const due: number[] = []
    for (let minute = 0; minute <= 90; minute++) {
      life.now = start + minute * minuteMs
      life.put({ kind: 'tick', now: life.now })
      if (minute === 0) life.ask('timeout')
      if (dueRepeats(life.state, life.now).length === 0) continue
      due.push(minute)
      expect(dueRepeats(life.state, life.now)).toEqual([{ cid: 'a', chunk: 7 }])
      life.ask('timeout')
    }
    expect(due).toEqual([1, 11, 71])
    const lost = life.effects.filter(({ kind }) => kind === 'lost')
    expect(lost).toMatchObject([{ cid: 'a', outcome: 'missing', at: start + 76 * minuteMs }])
  })
})

describe('a contained provider', () => {
  const contained = (): Life => {
    const life = new Life()
    life.ask('timeout')
    life.effects = []
    return life
  }
  const others: Array<[outcome: CustodyOutcome, chunk: number | null, effects: string[], isStillContained: boolean]> = [
    ['ok', 7, ['proved'], true],
    ['timeout', 7, [], true],
    ['unknown', 7, [], true],
    ['offline', 7, [], true],
    ['missing', 7, ['lost'], true],
    ['wrong', 7, ['lost'], true],
    ['refused', 7, ['withdrawn'], true]
  ]
  it.each(others)('another shard, %s', (outcome, chunk, effects, isStillContained) => {
    const life = contained()
    life.ask(outcome, 'b', chunk)
    expect(life.kinds()).toEqual(effects)
    expect(isContained(life.state)).toBe(isStillContained)
    expect(life.state.waiting.map(({ cid }) => cid)).toEqual(['a'])
  })

  it('is not cleared by another chunk of the same shard, but by the whole shard', () => {
    const life = contained()
    life.ask('ok', 'a', 8)
    expect(life.shard).toBe('contained')
    life.ask('ok', 'a', null)
    expect(life.shard).toBe('healthy')
    expect(life.kinds()).toEqual(['proved', 'cleared', 'proved'])
    const read = contained()
    read.put({ kind: 'read', now: read.now, cid: 'a' })
    expect(read.kinds()).toEqual(['cleared', 'proved'])
  })

  it('uses up no repeat by what was issued before one was due', () => {
    const life = contained()
    for (let i = 0; i < 20; i++) life.ask('timeout')
    expect(life.state.waiting[0]!.silentAt).toHaveLength(1)
  })

  it('waits for a bounded number of challenges', () => {
    const life = new Life()
    const results = Array.from({ length: 1024 }, (_, i): ChallengeResult => {
      return { cid: `s${i}`, chunk: 0, outcome: 'timeout' }
    })
    life.put({ kind: 'batch', now: 0, id: 'large', issuedAt: 0, results })
    expect(life.state.waiting).toHaveLength(judgeDefaults.containedMax)
  })

  it('is asked nothing while it is offline, and has a minute once it is back', () => {
    const life = contained()
    life.put({ kind: 'offline', now: life.now })
    expect(dueRepeats(life.state, life.now + 10 * hourMs)).toEqual([])
    life.put({ kind: 'online', now: life.later(10 * hourMs) })
    expect(dueRepeats(life.state, life.now)).toEqual([])
    expect(dueRepeats(life.state, life.now + minuteMs)).toHaveLength(1)
  })

  it('is free of what is not its to keep any more', () => {
    const life = contained()
    life.put({ kind: 'dropped', now: life.now, cid: 'a' })
    expect(isContained(life.state)).toBe(false)
  })
})

describe('a provider that answers only what it is asked again', () => {
  /** It is silent, and answers a minute later; so often, an hour apart. */
  const freed = (times: number, outcome: CustodyOutcome = 'ok'): Life => {
    const life = new Life()
    life.put({ kind: 'online', now: life.now })
    for (let i = 0; i < times; i++) {
      life.ask('timeout')
      life.untilDue()
      life.ask(outcome)
      life.later(hourMs - minuteMs)
    }
    life.effects = []
    return life
  }
  const { lateCount, lateWindowMs } = judgeDefaults

  it('gets no credit for that, nor for anything else in the same answer', () => {
    const life = new Life()
    life.ask('timeout')
    life.untilDue()
    const results = ['a', 'b'].map((cid): ChallengeResult => ({ cid, chunk: 7, outcome: 'ok' }))
    life.put({ kind: 'batch', now: life.now, id: 'both', issuedAt: life.now, results })
    expect(life.kinds()).toEqual(['contained', 'cleared', 'proved'])
    life.ask('ok')
    expect(life.kinds().slice(3)).toEqual(['proved', 'good'])
  })
  it('is late after six times in a day: nothing counts for it, and its hours count as absent', () => {
    const before = freed(lateCount - 1)
    before.ask('ok', 'b')
    expect([isLate(before.state, before.now), before.kinds()]).toEqual([false, ['proved', 'good', 'availability']])
    const life = freed(lateCount)
    life.ask('ok', 'b')
    life.put({ kind: 'read', now: life.later(minuteMs), cid: 'b' })
    expect(life.effects).toMatchObject([
      { kind: 'proved' },
      { kind: 'availability', isUp: false, isLate: true },
      { kind: 'proved' }
    ])
  })
  it('is late no more once a day has passed, nor when the clock was wrong', () => {
    const { state, now } = freed(lateCount)
    expect(isLate(state, now)).toBe(true)
    expect(isLate(state, state.lateAt[0]! + lateWindowMs)).toBe(false)
    expect(isLate(state, now - lateWindowMs)).toBe(false)
  })
  it('is not one whose shard is dropped or refused, nor one that was silent for the auditor', () => {
    expect(freed(2 * lateCount, 'refused').state.lateAt).toEqual([])
    const life = new Life()
    life.ask('timeout')
    life.put({ kind: 'dropped', now: life.now, cid: 'a' })
    life.ask('timeout')
    life.put({ kind: 'suspended', now: life.now, from: life.now })
    expect([isContained(life.state), life.state.lateAt]).toEqual([false, []])
  })
  it('is late once however many challenges were contained together', () => {
    const life = new Life()
    const put = (outcome: CustodyOutcome): void => {
      const results = Array.from({ length: 20 }, (_, chunk): ChallengeResult => ({ cid: 'a', chunk, outcome }))
      life.put({ kind: 'batch', now: life.now, id: outcome, issuedAt: life.now, results })
    }
    put('timeout')
    life.untilDue()
    put('ok')
    expect(life.state.lateAt).toEqual([life.now])
  })
})

describe('a shard that is lost', () => {
  it('costs once, however often it is said, until it is placed anew', () => {
    const life = new Life()
    life.ask('missing', 'a', 1)
    life.ask('wrong', 'a', 2)
    life.ask('timeout', 'a', 3)
    expect(life.kinds()).toEqual(['lost'])
    life.put({ kind: 'dropped', now: life.now, cid: 'a' })
    life.ask('missing', 'a', 1)
    expect(life.kinds()).toEqual(['lost', 'lost'])
  })
  it('is not one that is refused: that is no evidence', () => {
    expect(
      lived('R')
        .kinds()
        .filter((kind) => kind !== 'availability')
    ).toEqual(['withdrawn'])
  })
})

describe("the auditor's own outage", () => {
  it('takes back the silences since it began, and lets nothing advance', () => {
    const life = new Life()
    for (const _ of 'TTT') {
      life.untilDue()
      life.ask('timeout')
    }
    life.untilDue()
    const from = life.now - minuteMs
    life.ask('timeout') // the last one: a verdict in five minutes
    life.put({ kind: 'suspended', now: life.later(2 * minuteMs), from })
    expect(life.state.waiting[0]!.silentAt).toHaveLength(3)
    for (let i = 0; i < 100; i++) {
      life.now += hourMs
      life.ask('timeout')
      life.ask('timeout', 'b')
      life.put({ kind: 'offline', now: life.now })
      expect(dueRepeats(life.state, life.now)).toEqual([])
    }
    expect(life.state.waiting).toHaveLength(1)
    life.put({ kind: 'resumed', now: life.now })
    expect(dueRepeats(life.state, life.now)).toEqual([])
    life.untilDue()
    expect(dueRepeats(life.state, life.now)).toHaveLength(1)
    life.ask('ok')
    expect(life.effects.filter((e) => e.kind === 'lost' || (e.kind === 'availability' && !e.isUp))).toEqual([])
    expect(life.shard).toBe('healthy')
  })
  it('frees what it alone had contained', () => {
    const life = new Life()
    life.ask('timeout')
    life.put({ kind: 'suspended', now: life.now, from: life.now })
    expect(life.kinds()).toEqual(['contained', 'cleared'])
  })
  it('does not excuse answers', () => {
    const life = new Life()
    life.put({ kind: 'suspended', now: life.now, from: life.now })
    life.ask('wrong')
    expect(life.shard).toBe('wrong')
  })
})

describe('availability', () => {
  /** Hourly, as a row: which observations there were. */
  const observed = (events: Array<[minute: number, kind: 'online' | 'offline' | 'tick']>): string => {
    const life = new Life()
    const start = life.now
    for (let minute = 0; minute <= 360; minute += 5) {
      const event = events.find(([at]) => at === minute)?.[1] ?? 'tick'
      life.put({ kind: event, now: start + minute * minuteMs })
    }
    return life.effects.map((effect) => (effect.kind === 'availability' && effect.isUp ? 'u' : 'd')).join('')
  }
  it('is one observation an hour, whatever happens in it', () => {
    expect(observed([[0, 'online']])).toBe('uuuuuu')
    expect(observed([[0, 'offline']])).toBe('dddddd')
    expect(observed([])).toBe('')
    expect(observed([[0, 'online'], [70, 'offline'], [100, 'online']])).toBe('uuuuuu') // biome-ignore format: a row
    expect(observed([[0, 'online'], [170, 'offline']])).toBe('uudddd') // biome-ignore format: a row
  })
  it('is not charged for an absence too short to tell whose it is', () => {
    expect(observed([[0, 'online'], [60, 'offline'], [65, 'online']])).toBe('uuuuu') // biome-ignore format: a row
  })
  it('is not charged for time in which nobody looked', () => {
    const life = new Life()
    life.put({ kind: 'offline', now: life.now })
    life.put({ kind: 'tick', now: life.later(100 * hourMs) })
    expect(life.effects).toEqual([])
  })
})

describe('the deadline', () => {
  const answering = (elapsed: number[][]): JudgeState =>
    elapsed.reduce((state, times, i) => {
      const results = times.map((elapsedMs, chunk): ChallengeResult => ({ cid: 'a', chunk, outcome: 'ok', elapsedMs }))
      return judge(state, { kind: 'batch', now: i, id: `r${i}`, issuedAt: i, results }).state
    }, newJudge())
  const many = (times: number[]): number[][] => Array.from({ length: 100 }, () => times)

  it('is the ceiling for one that is not known, the floor for a quick one, its own in between', () => {
    expect(deadlineMs(newJudge(), 0, false)).toBe(2000)
    expect(deadlineMs(answering(many([20])), 0, false)).toBe(500)
    expect(deadlineMs(answering(many([800])), 0, false)).toBe(800)
    expect(deadlineMs(answering(many([5000])), 0, false)).toBe(2000)
    expect(deadlineMs(answering(many([20])), 0, true)).toBe(2000)
  })
  it('leaves each answer the time for those before it, and does not take that for slowness', () => {
    expect(deadlineMs(answering(many([20])), 100, false)).toBe(3000)
    expect(deadlineMs(answering(many([700, 720, 740, 760])), 0, false)).toBe(700)
  })
  it('follows the deviation as RFC 6298 does', () => {
    // 400, then 800: mean 450, deviation 200 + (400 - 200) / 4.
    expect(answering([[400], [800]]).latency).toEqual({ meanMs: 450, deviationMs: 250 })
    expect(deadlineMs(answering([[400], [800]]), 0, false)).toBe(1450)
  })
})

describe('any life', () => {
  type Step =
    | { do: 'ask' | 'repeat'; cid: string; chunk: number; outcome: CustodyOutcome; wait: number; late: number }
    | { do: 'online' | 'offline' | 'suspended' | 'resumed' | 'tick'; wait: number }
  const wait = fc.integer({ min: 0, max: 90 }).map((minutes) => minutes * minuteMs)
  const steps = (outcomes: CustodyOutcome[]): fc.Arbitrary<Step[]> => {
    const asked = fc.record({
      do: fc.constantFrom('ask' as const, 'repeat' as const, 'repeat' as const),
      cid: fc.constantFrom('a', 'b'),
      chunk: fc.constantFrom(0, 1),
      outcome: fc.constantFrom(...outcomes),
      wait,
      late: fc.integer({ min: 0, max: 2 * minuteMs })
    })
    const told = fc.record({
      do: fc.constantFrom('online', 'offline', 'suspended', 'resumed', 'tick').map((name) => name as 'tick'),
      wait
    })
    return fc.array(fc.oneof({ weight: 3, arbitrary: asked }, told), { maxLength: 60 })
  }
  const all: CustodyOutcome[] = ['ok', 'offline', 'timeout', 'missing', 'wrong', 'refused', 'unknown']

  /** Repeats are put where some are due; else they are other audits. */
  function play(life: Step[], between: (state: JudgeState) => JudgeState = (state) => state) {
    let state = newJudge()
    let now = 0
    const events: JudgeEvent[] = []
    const effects: JudgeEffect[] = []
    life.forEach((step, i) => {
      now += step.wait
      let event: JudgeEvent
      if (step.do === 'ask' || step.do === 'repeat') {
        const due = step.do === 'repeat' ? dueRepeats(state, now) : []
        const keys = due.length > 0 ? due : [{ cid: step.cid, chunk: step.chunk }]
        const results = keys.map((key) => ({ ...key, outcome: step.outcome }))
        event = { kind: 'batch', now: now + step.late, id: `r${i}`, issuedAt: now, results }
        now += step.late
      } else event = step.do === 'suspended' ? { kind: 'suspended', now, from: now - minuteMs } : { kind: step.do, now }
      events.push(event)
      const judged = judge(between(state), event)
      state = judged.state
      effects.push(...judged.effects)
    })
    return { state, events, effects }
  }
  const playEvents = (events: readonly JudgeEvent[]): { state: JudgeState; effects: JudgeEffect[] } => {
    const effects: JudgeEffect[] = []
    let state = newJudge()
    for (const event of events) {
      const judged = judge(state, event)
      state = judged.state
      effects.push(...judged.effects)
    }
    return { state, effects }
  }
  /** Silences that were reported of each challenge, and what was said of each shard. */
  function evidenceIn(events: readonly JudgeEvent[], cid: string): boolean {
    const silences = new Map<number | null, Set<string>>()
    for (const event of events) {
      if (event.kind !== 'batch') continue
      for (const result of event.results) {
        if (result.cid !== cid) continue
        if (result.outcome === 'missing' || result.outcome === 'wrong') return true
        if (result.outcome !== 'timeout' && result.outcome !== 'unknown') continue
        const ids = silences.get(result.chunk) ?? new Set()
        silences.set(result.chunk, ids.add(event.id))
      }
    }
    return [...silences.values()].some(({ size }) => size >= 4)
  }
  const lostIn = (effects: readonly JudgeEffect[]): string[] =>
    effects.flatMap((effect) => (effect.kind === 'lost' ? [effect.cid] : []))

  it('loses nothing without missing, wrong, or four silences of the same challenge; in any order, however often told', () => {
    fc.assert(
      fc.property(steps(all), fc.infiniteStream(fc.nat()), (life, numbers) => {
        const { events, effects } = play(life)
        expect(lostIn(effects).every((cid) => evidenceIn(events, cid))).toBe(true)
        // Reported again and out of order; the clock goes on all the same.
        const twice = [...events, ...events]
        const shuffled = twice
          .map((event) => ({ event, key: numbers.next().value as number }))
          .sort((a, b) => a.key - b.key)
          .map(({ event }, i): JudgeEvent => ({ ...event, now: Math.max(event.now, i * minuteMs) }))
        const again = playEvents(shuffled)
        expect(lostIn(again.effects).every((cid) => evidenceIn(events, cid))).toBe(true)
      }),
      { numRuns: 300 }
    )
  })
  it('does lose with them: the property above is not empty', () => {
    const silent = Array.from({ length: 5 }, (): Step => {
      return { do: 'repeat', cid: 'a', chunk: 0, outcome: 'timeout', wait: hourMs, late: 0 }
    })
    expect(lostIn(play(silent).effects)).toEqual(['a'])
  })
  it('is the same if every report of a request comes twice', () => {
    fc.assert(
      fc.property(steps(all), (life) => {
        const { state, events, effects } = play(life)
        const twice = playEvents(
          events.flatMap<JudgeEvent>((event) => (event.kind === 'batch' ? [event, event] : [event]))
        )
        expect(twice).toEqual({ state, effects })
      })
    )
  })
  it('is the same if it is stored and read back after every event', () => {
    fc.assert(
      fc.property(steps(all), (life) => {
        const plain = play(life)
        const json = play(life, (state) => judgeStateSchema.parse(JSON.parse(JSON.stringify(state))))
        const cbor = play(life, (state) => judgeStateSchema.parse(dagCbor.decode(dagCbor.encode(state))))
        expect(json).toEqual(plain)
        expect(cbor).toEqual(plain)
      })
    )
  })
  it('keeps its memory bounded, and changes no state in place', () => {
    fc.assert(
      fc.property(steps(all), (life) => {
        const { state } = play(life, (before) => Object.freeze(before))
        expect(state.waiting.length).toBeLessThanOrEqual(judgeDefaults.containedMax)
        expect(state.requests.length).toBeLessThanOrEqual(judgeDefaults.requestsMax)
        expect(state.lost.length).toBeLessThanOrEqual(judgeDefaults.lostMax)
        expect(state.lateAt.length).toBeLessThanOrEqual(judgeDefaults.lateCount)
      })
    )
  })
})
